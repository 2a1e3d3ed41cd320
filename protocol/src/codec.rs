//! Bytes to lines, in bounded memory, however the bytes were split.

use thiserror::Error;

/// A line exceeded the limit; it is being skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a line of more than {limit} bytes")]
pub struct FrameTooLong {
    /// The limit, in bytes without the line end.
    pub limit: usize,
}

/// Splits a byte stream into lines.
///
/// [`push`](Self::push) bytes, then take lines with [`next_line`](Self::next_line) until it has none. An over-long line
/// yields one error as soon as it passes the limit, and its bytes are dropped up to its end. Between calls it holds
/// what was pushed and not yet taken, at most `limit` bytes of it an unfinished line; when that is
/// nothing it holds no memory.
#[derive(Debug)]
pub struct LineDecoder {
    buffer: Vec<u8>,
    /// What of `buffer` was taken.
    start: usize,
    /// What of `buffer` from `start` on is known to have no line end.
    searched: usize,
    limit: usize,
    skipping: bool,
}

impl LineDecoder {
    /// A decoder for lines of at most `limit` bytes, without the line end.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, limit, skipping: false }
    }

    /// Changes the limit for the lines that were not taken yet.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Adds bytes. They are copied, so the caller bounds how much it pushes before taking lines.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if self.skipping && self.start == self.buffer.len() {
            // The rest of an over-long line is not worth a copy.
            match memchr::memchr(b'\n', bytes) {
                Some(end) => (bytes, self.skipping) = (&bytes[end + 1..], false),
                None => return,
            }
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line without its end, or an error for an over-long one, or `None` until more is pushed.
    pub fn next_line(&mut self) -> Option<Result<&[u8], FrameTooLong>> {
        loop {
            let rest = &self.buffer[self.start..];
            let Some(end) = memchr::memchr(b'\n', &rest[self.searched..]) else {
                if self.skipping {
                    self.forget();
                    return None;
                }
                self.searched = rest.len();
                // A carriage return at the end may belong to the line end.
                if rest.len() > self.limit + 1 || rest.len() > self.limit && rest.last() != Some(&b'\r') {
                    self.skipping = true;
                    self.forget();
                    return Some(Err(FrameTooLong { limit: self.limit }));
                }
                if rest.is_empty() {
                    self.forget();
                }
                return None;
            };
            let end = self.searched + end;
            let from = self.start;
            self.start += end + 1;
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            let line = &self.buffer[from..from + end];
            let line_length = line.len() - usize::from(line.last() == Some(&b'\r'));
            if line_length == 0 {
                continue;
            }
            if line_length > self.limit {
                return Some(Err(FrameTooLong { limit: self.limit }));
            }
            return Some(Ok(&self.buffer[from..from + line_length]));
        }
    }

    /// Bytes held.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    fn forget(&mut self) {
        self.buffer = Vec::new();
        self.start = 0;
        self.searched = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every line of `bytes` pushed in pieces of the given lengths; `None` is an over-long one.
    fn lines(bytes: &[u8], mut pieces: impl Iterator<Item = usize>, limit: usize) -> Vec<Option<Vec<u8>>> {
        let mut decoder = LineDecoder::new(limit);
        let (mut lines, mut rest, mut piece_max) = (Vec::new(), bytes, 0);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(pieces.next().unwrap_or(rest.len()).clamp(1, rest.len()));
            piece_max = piece_max.max(piece.len());
            decoder.push(piece);
            while let Some(line) = decoder.next_line() {
                lines.push(line.ok().map(<[u8]>::to_vec));
            }
            assert!(decoder.held_bytes() <= 2 * (limit + 1 + piece_max) + 8, "memory is bounded");
            rest = after;
        }
        lines
    }

    #[test]
    fn lines_and_limits() {
        let check = |bytes: &str, expected: &[Option<&str>]| {
            for piece in [1, 2, 3, 100] {
                let found = lines(bytes.as_bytes(), std::iter::repeat(piece), 4);
                let found: Vec<_> =
                    found.iter().map(|l| l.as_ref().map(|l| std::str::from_utf8(l).unwrap())).collect();
                assert_eq!(found, expected, "{bytes:?} in pieces of {piece}");
            }
        };
        check("", &[]);
        check("abcd", &[]);
        check("ab\ncd\r\n\n\r\nef\n", &[Some("ab"), Some("cd"), Some("ef")]);
        check("abcd\nabcd\r\n", &[Some("abcd"), Some("abcd")]);
        check("abcde\nab\n", &[None, Some("ab")]);
        check("abcdefghijklmnop\r\nab\n", &[None, Some("ab")]);
        check("abcdefgh", &[None]);
        check("abcd\r", &[]);
        check("abcd\rx\nab\n", &[None, Some("ab")]);
    }

    #[test]
    fn nothing_held_when_idle() {
        let mut decoder = LineDecoder::new(100);
        decoder.push(b"hello\n");
        assert_eq!(decoder.next_line(), Some(Ok(&b"hello"[..])));
        assert_eq!(decoder.next_line(), None);
        assert_eq!(decoder.held_bytes(), 0);
    }

    proptest! {
        #[test]
        fn any_split_yields_the_same_lines(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..300),
            pieces in prop::collection::vec(1usize..40, 0..100),
            limit in 1usize..50,
        ) {
            prop_assert_eq!(
                lines(&bytes, pieces.into_iter(), limit),
                lines(&bytes, std::iter::empty(), limit)
            );
        }
    }
}
