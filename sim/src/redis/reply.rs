//! Replies, in both versions of the protocol.

use bytes::{BufMut as _, BytesMut};

/// Replies being written.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// What was written.
    pub(super) bytes: BytesMut,
    /// Version 3 of the protocol.
    pub(super) resp3: bool,
}

impl Replies {
    pub(super) fn new(resp3: bool) -> Self {
        Self { bytes: BytesMut::new(), resp3 }
    }

    /// `+…`
    pub(super) fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    pub(super) fn ok(&mut self) {
        self.simple("OK");
    }

    /// `-…`; what would end the line is blanked.
    pub(super) fn error(&mut self, text: &[u8]) {
        let text: Vec<_> =
            text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect();
        self.line(b'-', &text);
    }

    pub(super) fn integer(&mut self, number: i64) {
        self.line(b':', number.to_string().as_bytes());
    }

    pub(super) fn count(&mut self, number: usize) {
        self.line(b':', number.to_string().as_bytes());
    }

    pub(super) fn bulk(&mut self, bytes: &[u8]) {
        self.line(b'$', bytes.len().to_string().as_bytes());
        self.bytes.put_slice(bytes);
        self.bytes.put_slice(b"\r\n");
    }

    /// No value.
    pub(super) fn null(&mut self) {
        self.bytes.put_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// The head of a list.
    pub(super) fn array(&mut self, len: usize) {
        self.line(b'*', len.to_string().as_bytes());
    }

    /// The head of a set.
    pub(super) fn set(&mut self, len: usize) {
        self.line(if self.resp3 { b'~' } else { b'*' }, len.to_string().as_bytes());
    }

    /// The head of a map, so many keys and values.
    pub(super) fn map(&mut self, len: usize) {
        let (kind, len) = if self.resp3 { (b'%', len) } else { (b'*', 2 * len) };
        self.line(kind, len.to_string().as_bytes());
    }

    /// The head of what was not asked for.
    pub(super) fn push(&mut self, len: usize) {
        self.line(if self.resp3 { b'>' } else { b'*' }, len.to_string().as_bytes());
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.bytes.put_u8(kind);
        self.bytes.put_slice(text);
        self.bytes.put_slice(b"\r\n");
    }
}
