//! Requests as they come off a socket, told apart and refused as Redis does it.
//!
//! Not the redis crate's parser: it is one for replies, and believes every length that it is told.

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;

/// The longest line, as in Redis; a longer one ends the connection.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Arguments of one request, and bytes of one argument, in Redis.
const REDIS_ARGUMENTS_MAX: i64 = i32::MAX as i64;
const REDIS_BYTES_MAX: i64 = 512 << 20;
/// Arguments of one request here. More end the connection.
const ARGUMENTS_MAX: i64 = 1 << 17;
/// Bytes of one request's arguments. More end the connection.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Arguments, and bytes of one, before the client has logged in; as in Redis.
const STRANGERS_ARGUMENTS_MAX: i64 = 10;
const STRANGERS_BYTES_MAX: i64 = 16 << 10;

/// Why a connection has to end, in Redis's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum ProtocolError {
    #[error("too big inline request")]
    Inline,
    #[error("unbalanced quotes in request")]
    Quotes,
    #[error("too big mbulk count string")]
    CountLine,
    #[error("invalid multibulk length")]
    Count,
    #[error("unauthenticated multibulk length")]
    StrangersCount,
    #[error("too big bulk count string")]
    LengthLine,
    #[error("expected '$', got '{0}'")]
    Dollar(char),
    #[error("invalid bulk length")]
    Length,
    #[error("unauthenticated bulk length")]
    StrangersLength,
}

/// Takes requests from what was read, however it was split.
#[derive(Debug, Default)]
pub(super) struct Parser {
    arguments: Vec<Bytes>,
    /// Bytes of them.
    bytes: usize,
    /// Arguments that are still to come.
    left: i64,
    /// The length of the one that is coming.
    length: Option<usize>,
    /// Bytes of the input in which no line ends.
    searched: usize,
}

impl Parser {
    /// The next request, if all of it is there. It has at least one argument.
    pub(super) fn next(
        &mut self,
        input: &mut BytesMut,
        stranger: bool,
    ) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            if self.left == 0 {
                let Some(first) = input.first() else { return Ok(None) };
                if *first != b'*' {
                    let Some(line) = self.inline(input)? else { return Ok(None) };
                    let arguments = split(&line).ok_or(ProtocolError::Quotes)?;
                    if arguments.is_empty() {
                        continue;
                    }
                    return Ok(Some(arguments));
                }
                let Some(line) = self.line(input, ProtocolError::CountLine)? else { return Ok(None) };
                let count = integer(&line[1..]).filter(|count| *count <= REDIS_ARGUMENTS_MAX);
                let count = count.ok_or(ProtocolError::Count)?;
                if stranger && count > STRANGERS_ARGUMENTS_MAX {
                    return Err(ProtocolError::StrangersCount);
                }
                if count > ARGUMENTS_MAX {
                    return Err(ProtocolError::Count);
                }
                self.left = count.max(0);
                continue;
            }
            let length = match self.length {
                Some(length) => length,
                None => {
                    let Some(line) = self.line(input, ProtocolError::LengthLine)? else { return Ok(None) };
                    if line.first() != Some(&b'$') {
                        // An empty line shows as the end of it, which no reply can carry.
                        return Err(ProtocolError::Dollar(
                            line.first().map_or(' ', |byte| char::from(*byte)),
                        ));
                    }
                    let length = integer(&line[1..]).filter(|length| (0..=REDIS_BYTES_MAX).contains(length));
                    let length = length.ok_or(ProtocolError::Length)?;
                    if stranger && length > STRANGERS_BYTES_MAX {
                        return Err(ProtocolError::StrangersLength);
                    }
                    let length = usize::try_from(length).map_err(|_| ProtocolError::Length)?;
                    if length > REQUEST_BYTES_MAX - self.bytes {
                        return Err(ProtocolError::Length);
                    }
                    *self.length.insert(length)
                }
            };
            if input.len() < length + 2 {
                return Ok(None);
            }
            // A copy: a part of the buffer would keep all of it.
            self.arguments.push(Bytes::copy_from_slice(&input[..length]));
            // What stands where the end of the line should be, Redis does not look at.
            input.advance(length + 2);
            self.bytes += length;
            self.length = None;
            self.left -= 1;
            if self.left == 0 {
                self.bytes = 0;
                return Ok(Some(std::mem::take(&mut self.arguments)));
            }
        }
    }

    /// A line of a request, which ends at a carriage return and the byte after it.
    fn line(
        &mut self,
        input: &mut BytesMut,
        too_long: ProtocolError,
    ) -> Result<Option<BytesMut>, ProtocolError> {
        let Some(end) = self.find(b'\r', input, too_long)? else { return Ok(None) };
        if input.len() < end + 2 {
            return Ok(None);
        }
        self.searched = 0;
        let line = input.split_to(end);
        input.advance(2);
        Ok(Some(line))
    }

    /// A line of words.
    fn inline(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, ProtocolError> {
        let Some(end) = self.find(b'\n', input, ProtocolError::Inline)? else { return Ok(None) };
        self.searched = 0;
        let mut line = input.split_to(end);
        input.advance(1);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Ok(Some(line))
    }

    /// Where a line ends. What was looked at is not looked at again.
    fn find(
        &mut self,
        end: u8,
        input: &[u8],
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let found = input.iter().skip(self.searched).position(|byte| *byte == end);
        let found = found.map(|at| self.searched + at);
        self.searched = found.unwrap_or(input.len());
        if self.searched > LINE_BYTES_MAX { Err(too_long) } else { Ok(found) }
    }
}

/// A number as Redis takes it: no sign but a minus, no zeros before it.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let number = std::str::from_utf8(text).ok()?.parse::<i64>().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// The words of a line, which may be quoted; nothing if the quotes do not match.
fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let start = rest.iter().position(|byte| !is_space(*byte));
        let Some(start) = start else { return Some(words) };
        rest = &rest[start..];
        let mut word = Vec::new();
        loop {
            match rest {
                [] => break,
                [byte, ..] if is_space(*byte) => break,
                [quote @ (b'"' | b'\''), more @ ..] => {
                    rest = quoted(*quote, more, &mut word)?;
                    if rest.first().is_some_and(|byte| !is_space(*byte)) {
                        return None;
                    }
                    break;
                }
                [byte, more @ ..] => {
                    word.push(*byte);
                    rest = more;
                }
            }
        }
        words.push(word.into());
    }
}

/// Appends what is quoted, and returns what follows the closing quote.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let hex = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    loop {
        let (byte, more) = rest.split_first()?;
        rest = more;
        match (*byte, quote, rest) {
            (b'\\', b'"', [b'x', high, low, more @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                word.push(hex(high)? << 4 | hex(low)?);
                rest = more;
            }
            (b'\\', b'"', [escaped, more @ ..]) => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = more;
            }
            (b'\\', b'\'', [b'\'', more @ ..]) => {
                word.push(b'\'');
                rest = more;
            }
            (byte, quote, _) if byte == quote => return Some(rest),
            (byte, ..) => word.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of some bytes: requests, then why it ends there.
    fn parse(bytes: &[u8], chunk: usize, stranger: bool) -> String {
        let mut parser = Parser::default();
        let mut input = BytesMut::new();
        let mut found = Vec::new();
        for chunk in bytes.chunks(chunk) {
            input.extend_from_slice(chunk);
            loop {
                match parser.next(&mut input, stranger) {
                    Ok(Some(request)) => {
                        let words: Vec<_> =
                            request.iter().map(|word| word.escape_ascii().to_string()).collect();
                        found.push(format!("{words:?}"));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        found.push(error.to_string());
                        return found.join(" ");
                    }
                }
            }
        }
        found.join(" ")
    }

    fn check(bytes: &[u8], expected: &str) {
        for chunk in [1, 2, 7, usize::MAX] {
            assert_eq!(parse(bytes, chunk, false), expected, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn requests() {
        check(b"*1\r\n$4\r\nPING\r\n*2\r\n$0\r\n\r\n$2\r\n\r\n\r\n", r#"["PING"] ["", "\\r\\n"]"#);
        check(b"*0\r\n*-1\r\n\r\n  \nPING\n", r#"["PING"]"#);
        check(b"a 'b c' \"d\\x41\\n\\q\" 'it\\'s'\r\n", r#"["a", "b c", "dA\\nq", "it\\'s"]"#);
        check(b"*2\r\n$1\r\na\r\n", "");
    }

    #[test]
    fn hostile_bytes_end_it() {
        check(b"*x\r\n", "invalid multibulk length");
        check(b"*01\r\n", "invalid multibulk length");
        check(b"*1000000000\r\n", "invalid multibulk length");
        check(b"*1\r\n:1\r\n", "expected '$', got ':'");
        check(b"*1\r\n$-1\r\n", "invalid bulk length");
        check(b"*2\r\n$16777216\r\n", "");
        check(b"*1\r\n$16777217\r\n", "invalid bulk length");
        check(b"'a'b\r\n", "unbalanced quotes in request");
        check(b"\"a\r\n", "unbalanced quotes in request");
        check(&[b'x'; 70_000], "too big inline request");
        check(&[b"*".as_slice(), &[b'1'; 70_000]].concat(), "too big mbulk count string");
        check(&[b"*1\r\n$".as_slice(), &[b'1'; 70_000]].concat(), "too big bulk count string");
        assert_eq!(parse(b"*11\r\n", 100, true), "unauthenticated multibulk length");
        assert_eq!(parse(b"*1\r\n$16385\r\n", 100, true), "unauthenticated bulk length");
    }

    #[test]
    fn a_request_is_bounded_as_a_whole() {
        let mut bytes = b"*3\r\n".to_vec();
        for _ in 0..2 {
            bytes.extend_from_slice(b"$8000000\r\n");
            bytes.resize(bytes.len() + 8_000_000, b'x');
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"$1000000\r\n");
        assert_eq!(parse(&bytes, 1 << 20, false), "invalid bulk length");
    }

    proptest! {
        #[test]
        fn how_bytes_are_split_makes_no_difference(
            words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5),
            tail in "[*$0-9a\r\n '\"]{0,20}",
            chunk in 1usize..20,
        ) {
            let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
            for word in &words {
                bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(tail.as_bytes());
            let whole = parse(&bytes, usize::MAX, false);
            prop_assert_eq!(&parse(&bytes, chunk, false), &whole);
            let expected: Vec<_> = words.iter().map(|word| word.escape_ascii().to_string()).collect();
            let expected = format!("{expected:?}");
            prop_assert!(whole.starts_with(&expected));
        }
    }
}
