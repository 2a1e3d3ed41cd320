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

/// Writes `out` from `taken` on, and counts it, if there is any, and flushes all of it; reads into `decoder`, if there is one. Whatever comes
/// first. Cancel-safe: what was done was counted, and whether it was flushed.
pub(super) fn exchange<S>(
    stream: &mut S,
    out: &[u8],
    taken: &mut usize,
    flushed: &mut bool,
    mut decoder: Option<&mut LineDecoder>,
) -> impl Future<Output = Socket>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(move |cx| {
        if *taken < out.len() {
            match Pin::new(&mut *stream).poll_write(cx, &out[*taken..]) {
                Poll::Pending => {}
                Poll::Ready(Ok(0)) => return Poll::Ready(Socket::Failed(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    *taken += written;
                    *flushed = false;
                    if *taken < out.len() {
                        return Poll::Ready(Socket::Wrote);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Socket::Failed(error)),
            }
        }
        // A stream that encrypts may have taken what its socket has not.
        if !*flushed && *taken == out.len() {
            match Pin::new(&mut *stream).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    *flushed = true;
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// A stream that takes what it is given at once, and gives it on when it is flushed as often as it has to be.
    struct Holding {
        pending: u32,
        held: bool,
    }

    impl AsyncRead for Holding {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            into.put_slice(b"x");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Holding {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.held = true;
            Poll::Ready(Ok(bytes.len().min(4)))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.pending.checked_sub(1) {
                Some(pending) => {
                    self.pending = pending;
                    Poll::Pending
                }
                None => {
                    self.held = false;
                    Poll::Ready(Ok(()))
                }
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            unreachable!("nobody asks")
        }
    }

    /// What has not been flushed is not written; and while a flush waits, reading goes on.
    #[test]
    fn what_was_written_is_flushed() {
        let mut stream = Holding { pending: 1, held: false };
        let (mut taken, mut flushed) = (0, true);
        let mut decoder = LineDecoder::new(10);
        let mut step = |stream: &mut Holding, decoder| {
            let done = exchange(stream, b"hello", &mut taken, &mut flushed, decoder).now_or_never();
            let name = match done {
                None => "nothing",
                Some(Socket::Wrote) => "wrote",
                Some(Socket::Read) => "read",
                Some(_) => "the end",
            };
            (name, taken, flushed)
        };
        assert_eq!(step(&mut stream, None), ("wrote", 4, false), "there is more: no flush yet");
        assert_eq!(step(&mut stream, Some(&mut decoder)), ("read", 5, false));
        assert_eq!(step(&mut stream, None), ("wrote", 5, true));
        assert!(!stream.held);
        assert_eq!(step(&mut stream, None), ("nothing", 5, true));
    }
}
