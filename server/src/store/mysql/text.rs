//! Statements as text, where a prepared one would be another for every number of rows.

use std::fmt::Write as _;

/// A statement in the making. What comes from outside goes in only as a number, in hexadecimal or quoted.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// One that starts with `head`, with room for more.
    pub(super) fn new(head: &'static str, room: usize) -> Self {
        let mut text = String::with_capacity(head.len() + room);
        text.push_str(head);
        Self(text)
    }

    /// SQL.
    pub(super) fn sql(&mut self, sql: &'static str) -> &mut Self {
        self.0.push_str(sql);
        self
    }

    /// A name of the schema.
    pub(super) fn name(&mut self, name: &str) -> &mut Self {
        self.0.push('`');
        self.0.push_str(&name.replace('`', "``"));
        self.0.push('`');
        self
    }

    /// A number.
    pub(super) fn number(&mut self, number: i64) -> &mut Self {
        write!(self.0, "{number}").expect("a string takes whatever is written to it");
        self
    }

    /// Bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.push_str("x'");
        push_hex(&mut self.0, bytes);
        self.0.push('\'');
        self
    }

    /// A string. The session's mode lets a backslash escape, and its character set is UTF-8, in which the bytes of these three
    /// characters are part of no other.
    pub(super) fn quoted(&mut self, string: &str) -> &mut Self {
        self.0.push('\'');
        let mut rest = string;
        while let Some(at) = rest.find(['\'', '\\', '\0']) {
            self.0.push_str(&rest[..at]);
            self.0.push_str(match rest.as_bytes()[at] {
                b'\'' => "\\'",
                b'\\' => "\\\\",
                _ => "\\0",
            });
            rest = &rest[at + 1..];
        }
        self.0.push_str(rest);
        self.0.push('\'');
        self
    }

    /// Another statement's text.
    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// The statement.
    pub(super) fn into_sql(self) -> String {
        self.0
    }
}

/// Bytes in hexadecimal.
pub(super) fn push_hex(to: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        to.push(char::from(DIGITS[usize::from(byte >> 4)]));
        to.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(string: &str) -> String {
        let mut text = Text::default();
        text.quoted(string);
        text.into_sql()
    }

    /// As the server reads it: the string, and what follows its closing quote.
    fn read(sql: &str) -> (String, &str) {
        let mut string = String::new();
        let mut chars = sql.strip_prefix('\'').unwrap().chars();
        loop {
            match chars.next().unwrap() {
                '\'' => return (string, chars.as_str()),
                '\\' => string.push(match chars.next().unwrap() {
                    '0' => '\0',
                    other => other,
                }),
                other => string.push(other),
            }
        }
    }

    #[test]
    fn each_value_has_its_form() {
        let mut text = Text::new("values (", 64);
        text.number(-5).sql(",").bytes(&[0, 255, 16]).sql(",").quoted("it's \\ \0 \"x\" -- ü").sql(")");
        assert_eq!(text.into_sql(), "values (-5,x'00ff10','it\\'s \\\\ \\0 \"x\" -- ü')");
    }

    proptest! {
        #[test]
        fn nothing_gets_out_of_its_quotes(string in "[a'\\\\\0\"`;ü\u{10ffff}-]{0,20}") {
            let sql = quoted(&string);
            prop_assert_eq!(read(&sql), (string, ""));
            prop_assert!(!sql.contains('\0'));
        }
    }
}
