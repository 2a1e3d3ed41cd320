//! Canaries: every text of the workload carries the token of the conversation that it was said in. Wherever a
//! token turns up, it tells whose words these are.

use protocol::ConversationId;

/// What stands before a conversation's name. Long enough that no text contains it by chance.
const OPENING: &str = "<canary:";
/// What stands after it.
const CLOSING: char = '>';
/// The longest name of a conversation, with room to spare: `d` and two numbers of ten digits.
const NAME_BYTES_MAX: usize = 32;

/// A text of `conv`, unlike every other because `unique` is.
pub fn text(conv: ConversationId, unique: &str) -> String {
    format!("{OPENING}{conv}{CLOSING} {unique}")
}

/// The conversations whose tokens stand in `text`.
pub fn scan(text: &str) -> impl Iterator<Item = ConversationId> + '_ {
    text.split(OPENING).skip(1).filter_map(|rest| rest.split(CLOSING).next()?.parse().ok())
}

/// Looks for tokens in bytes that come in pieces, torn anywhere.
#[derive(Debug, Default)]
pub struct Scanner {
    /// What may be the beginning of a token.
    rest: Vec<u8>,
}

impl Scanner {
    /// Takes the next piece.
    pub fn scan(&mut self, bytes: &[u8], mut found: impl FnMut(ConversationId)) {
        self.rest.extend_from_slice(bytes);
        let opening = OPENING.as_bytes();
        let mut at = 0;
        let keep = loop {
            let left = &self.rest[at..];
            let Some(start) = left.windows(opening.len()).position(|window| window == opening) else {
                // The end may be the beginning of an opening.
                break self.rest.len() - left.len().min(opening.len() - 1);
            };
            let name = &left[start + opening.len()..];
            let name = &name[..name.len().min(NAME_BYTES_MAX + 1)];
            match name.iter().position(|byte| *byte == CLOSING as u8) {
                Some(end) => {
                    let conv = std::str::from_utf8(&name[..end]).ok().and_then(|name| name.parse().ok());
                    conv.into_iter().for_each(&mut found);
                }
                None if name.len() <= NAME_BYTES_MAX => break at + start,
                None => {}
            }
            at += start + opening.len();
        };
        self.rest.drain(..keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_anywhere() {
        let (a, b) = ("g7".parse().unwrap(), "d1-2".parse().unwrap());
        let line = format!("{{\"text\":\"{}\"}}{}", text(a, "1.1"), text(b, "x"));
        assert_eq!(scan(&line).collect::<Vec<_>>(), [a, b]);
        assert_eq!(scan("<canary:nonsense> <canary:g7").count(), 1, "a torn token still tells");
        assert_eq!(scan("nothing").count(), 0);
    }

    #[test]
    fn tokens_are_found_however_the_bytes_are_torn() {
        let (a, b) = ("g7".parse().unwrap(), "d1-2".parse().unwrap());
        let endless = format!("{OPENING}{}", "x".repeat(100));
        let bytes = format!("<can{}{endless}{}<canary:", text(a, "1<"), text(b, "2"));
        for size in 1..bytes.len() {
            let (mut scanner, mut found) = (Scanner::default(), Vec::new());
            for piece in bytes.as_bytes().chunks(size) {
                scanner.scan(piece, |conv| found.push(conv));
            }
            assert_eq!(found, [a, b], "in pieces of {size}");
            assert!(scanner.rest.len() <= OPENING.len() + NAME_BYTES_MAX);
        }
    }
}
