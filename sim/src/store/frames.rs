//! Frames on a byte stream: four bytes of length, then so many bytes. An empty one is a ping, and is answered alike.

use std::{io, mem};

use bytes::{Buf as _, BytesMut};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest frame. A longer one is an error, as a packet of more than `max_allowed_packet` is for MySQL.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 20;
/// Room for the length.
const LENGTH: usize = 4;
/// Room asked for before a read. What a frame announces is not taken before it arrives.
const READ_BYTES: usize = 4 << 10;
/// Buffers that grew beyond this are let go after use.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// A stream, as frames. Dropping it closes it.
pub(super) struct Frames<S> {
    stream: S,
    incoming: BytesMut,
    /// How much of it the last frame was.
    taken: usize,
    outgoing: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Frames of a stream that is at a frame's start.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, incoming: BytesMut::new(), taken: 0, outgoing: Vec::new() }
    }

    /// The next frame; `None` at the end of the stream, between two.
    pub(super) async fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        self.incoming.advance(mem::take(&mut self.taken));
        if self.incoming.is_empty() && self.incoming.capacity() > KEPT_BYTES_MAX {
            self.incoming = BytesMut::new();
        }
        let end = loop {
            if let Some(end) = self.end_of_frame()? {
                break end;
            }
            self.incoming.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return if self.incoming.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        };
        self.taken = end;
        Ok(Some(&self.incoming[LENGTH..end]))
    }

    fn end_of_frame(&self) -> io::Result<Option<usize>> {
        let Some(length) = self.incoming.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
        }
        Ok(Some(LENGTH + length).filter(|end| *end <= self.incoming.len()))
    }

    /// Sends a value as a frame.
    pub(super) async fn send(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.outgoing.clear();
        self.outgoing.extend([0; LENGTH]);
        serde_json::to_writer(&mut self.outgoing, value)?;
        let length = self.outgoing.len() - LENGTH;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the frame would be too long"));
        }
        self.outgoing[..LENGTH].copy_from_slice(&(length as u32).to_be_bytes());
        self.stream.write_all(&self.outgoing).await?;
        self.stream.flush().await?;
        if self.outgoing.capacity() > KEPT_BYTES_MAX {
            self.outgoing = Vec::new();
        }
        Ok(())
    }

    /// Sends an empty frame.
    pub(super) async fn ping(&mut self) -> io::Result<()> {
        self.stream.write_all(&[0; LENGTH]).await?;
        self.stream.flush().await
    }
}
