//! Reading and writing through buffers that belong to the thread, so that an idle connection holds none.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use protocol::LineDecoder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes taken from a socket at once.
const READ_BYTES: usize = 16 << 10;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// What became of looking at a socket.
pub(super) enum Socket {
    /// It took some bytes.
    Wrote,
    /// The decoder has more.
    Read,
    /// The other end will send no more.
    Eof,
    /// The connection is broken.
    Failed(io::Error),
}

/// Writes `out` from `taken` on, and counts it, if there is any; reads into `decoder`, if there is one. Whatever comes first.
/// Cancel-safe: what was done was counted.
pub(super) async fn exchange<S>(
    stream: &mut S,
    out: &[u8],
    taken: &mut usize,
    mut decoder: Option<&mut LineDecoder>,
) -> Socket
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        if *taken < out.len() {
            match Pin::new(&mut *stream).poll_write(cx, &out[*taken..]) {
                Poll::Pending => {}
                Poll::Ready(Ok(0)) => return Poll::Ready(Socket::Failed(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    *taken += written;
                    return Poll::Ready(Socket::Wrote);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Socket::Failed(error)),
            }
        }
        match &mut decoder {
            Some(decoder) => read(stream, decoder, cx),
            None => Poll::Pending,
        }
    })
    .await
}

fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    decoder: &mut LineDecoder,
    cx: &mut Context<'_>,
) -> Poll<Socket> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Socket::Failed(error)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Socket::Eof),
            Poll::Ready(Ok(())) => {
                decoder.push(buffer.filled());
                Poll::Ready(Socket::Read)
            }
        }
    })
}
