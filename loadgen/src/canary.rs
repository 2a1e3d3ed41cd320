//! Canaries: every text of the workload carries the token of the conversation that it was said in. Wherever a token turns up,
//! it tells whose words these are.

use protocol::ConversationId;

/// What stands before a conversation's name. Long enough that no text contains it by chance.
const OPENING: &str = "<canary:";
/// What stands after it.
const CLOSING: char = '>';

/// A text of `conv`, unlike every other because `unique` is.
pub fn text(conv: ConversationId, unique: &str) -> String {
    format!("{OPENING}{conv}{CLOSING} {unique}")
}

/// The conversations whose tokens stand in `text`.
pub fn scan(text: &str) -> impl Iterator<Item = ConversationId> + '_ {
    text.split(OPENING).skip(1).filter_map(|rest| rest.split(CLOSING).next()?.parse().ok())
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
}
