//! The rules for names (SPEC.md, section 9).

use unicode_normalization::UnicodeNormalization;

/// Longest name of a user, in characters.
pub const USER_NAME_CHARS_MAX: usize = 32;
/// Longest name of a group, in characters.
pub const GROUP_NAME_CHARS_MAX: usize = 64;
/// Longest description of a group, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 256;
/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Whether a character changes how others are shown, or shows as nothing: it could make one name look like
/// another, or a terminal misbehave. Format characters (Unicode category Cf), the variation selectors, the
/// Hangul and braille fillers, and what a terminal takes for a command.
pub fn is_control_or_format(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A user's name in its normal form, or what is wrong with it.
///
/// # Errors
/// A rule that the name breaks, as a phrase for people.
pub fn user_name(name: &str) -> Result<String, &'static str> {
    let name = printable(name, USER_NAME_CHARS_MAX, "1 to 32 characters")?;
    if name_key(&name).chars().all(char::is_numeric) {
        return Err("not digits alone");
    }
    Ok(name)
}

/// A group's name in its normal form, or what is wrong with it.
///
/// # Errors
/// A rule that the name breaks, as a phrase for people.
pub fn group_name(name: &str) -> Result<String, &'static str> {
    printable(name, GROUP_NAME_CHARS_MAX, "1 to 64 characters")
}

/// A group's description in its normal form, or what is wrong with it.
///
/// # Errors
/// A rule that the description breaks, as a phrase for people.
pub fn description(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Ok(String::new());
    }
    printable(text, DESCRIPTION_CHARS_MAX, "at most 256 characters")
}

/// The key by which two users' names are compared: NFKC, lower case, NFKC.
pub fn name_key(name: &str) -> String {
    name.nfkc().flat_map(char::to_lowercase).nfkc().collect()
}

fn printable(text: &str, chars_max: usize, length: &'static str) -> Result<String, &'static str> {
    // Before normalising, so that the work is bounded.
    if text.is_empty() || text.chars().take(4 * chars_max + 1).count() > 4 * chars_max {
        return Err(length);
    }
    let text: String = text.nfc().collect();
    if text.chars().count() > chars_max {
        return Err(length);
    }
    if text.chars().any(is_control_or_format) {
        return Err("no control or invisible characters");
    }
    let odd_space = |c: char| c.is_whitespace() && c != ' ';
    if text.chars().any(odd_space) || text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
        return Err("no white space but single spaces between other characters");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["kirito", "桐人", "Jean-Luc", "a b", "o'neill", "x1", "👋", "é"] {
            assert!(user_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "a ",
            " a",
            "a  b",
            "a\u{a0}b",
            "a\tb",
            "a\nb",
            "12",
            "１２",
            "٣",
            "a\u{202e}b",
            "a\u{200b}",
            "\u{1b}[2J",
            "\u{7f}",
            "\u{85}",
            "\u{3164}",
            "abcdefghijklmnopqrstuvwxyz0123456",
        ] {
            assert!(user_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(user_name("e\u{301}").unwrap(), "é");
        assert_eq!(name_key("Kirito"), name_key("kiritO"));
        assert_eq!(name_key("ｋirito"), name_key("kirito"));
        assert_ne!(name_key("kirito"), name_key("klein"));
        assert!(user_name(&"x".repeat(100_000)).is_err());
        assert_eq!(description("").unwrap(), "");
    }
}
