//! The one place that makes the text of others safe to show.
//!
//! Whatever a terminal could take for a command, and whatever changes the order or the presence of what a person sees, is
//! written as an escape. All that the program prints passes through here.

use std::{borrow::Cow, fmt::Write};

use protocol::text::is_control_or_format;
use unicode_width::UnicodeWidthStr;

/// The text on one line, without control and format characters: a line feed becomes `\n`, others `\u{1b}`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control_or_format) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // Writing to a string cannot fail.
            c if is_control_or_format(c) => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The same JSON with such characters written as JSON escapes. They can stand in its strings only.
pub(crate) fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_control_or_format) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_control_or_format(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The visible form of `text`, right-aligned in `columns` terminal columns; what is longer stays whole.
pub(crate) fn right(text: &str, columns: usize) -> String {
    let text = visible(text);
    let pad = columns.saturating_sub(text.width());
    format!("{:pad$}{text}", "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_harm_is_made_visible() {
        let check = |text: &str, expected: &str| assert_eq!(visible(text), expected);
        check("hello, 你好 👋 é", "hello, 你好 👋 é");
        check("a\nb\tc\r", "a\\nb\\tc\\u{d}");
        check("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}");
        check("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}");
        check("\u{202e}evil\u{2066}", "\\u{202e}evil\\u{2066}");
        check("\u{200b}\u{feff}\u{e0041}", "\\u{200b}\\u{feff}\\u{e0041}");
        assert_eq!(escaped_json("\"\u{9b}\u{e0041}x\""), "\"\\u009b\\udb40\\udc41x\"");
        assert_eq!(right("你好", 6), "  你好");
        assert_eq!(right("hello", 3), "hello");
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text in prop::collection::vec(prop_oneof![any::<char>(), "\\p{C}".prop_map(|s| s.chars().next().unwrap_or('x'))], 0..60)) {
            let text: String = text.into_iter().collect();
            let shown = visible(&text);
            prop_assert!(!shown.chars().any(is_control_or_format));
            if !text.chars().any(is_control_or_format) {
                prop_assert_eq!(&shown, &text);
            }
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escaped_json(&json);
            prop_assert!(!escaped.chars().any(is_control_or_format));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
