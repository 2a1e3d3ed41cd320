//! A connection's bytes, plain or over TLS; and how TLS begins.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use protocol::message::ClosingCode;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, rustls, server::TlsStream};
use tracing::debug;

use crate::{listener::say_closing, node::Node};

/// Within which a client begins with TLS: at once, but for the network. One that speaks something else waits for the greeting, so it
/// is told before it gives up.
const FIRST_BYTE: Duration = Duration::from_secs(3);
/// How long the end of TLS may take to be said.
const END: Duration = Duration::from_secs(1);
/// What a TLS connection begins with: a record of the handshake.
const HANDSHAKE_RECORD: u8 = 22;
/// Bytes read to see what begins: most of what a client says first.
const FIRST_BYTES: usize = 512;

/// What carries a connection's bytes. Plain ones cost what the stream costs: the size of it, and a branch.
pub(super) enum Transport<S> {
    Plain(S),
    Tls(Box<TlsStream<Begun<S>>>),
}

/// A stream of which the first bytes have been read already.
pub(super) struct Begun<S> {
    /// They, until they are taken.
    bytes: Vec<u8>,
    stream: S,
}

/// Why there is no TLS connection.
enum Failure {
    /// It begins otherwise, or with nothing.
    NoTls,
    /// It takes too long.
    Late,
    Io(io::Error),
}

impl Failure {
    /// As a metric's label.
    fn why(&self) -> &'static str {
        match self {
            Self::NoTls => "no_tls",
            Self::Late => "late",
            Self::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(rustls::Error::AlertReceived(_)) => "refused_by_client",
                Some(_) => "invalid",
                None => "ended",
            },
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// Takes a client's TLS handshake, of which `bytes` have been read already, until `deadline`. `None`: it failed, or the node drains.
    pub(super) async fn begin(
        node: &Node,
        acceptor: TlsAcceptor,
        stream: S,
        bytes: Vec<u8>,
        deadline: Instant,
    ) -> Option<Self> {
        let shaking = shake_hands(acceptor, stream, bytes, deadline);
        match node.draining.run_until_cancelled(shaking).await? {
            Ok(stream) => Some(Self::Tls(Box::new(stream))),
            Err(failure) => {
                let why = failure.why();
                node.metrics.tls_failed(why);
                match failure {
                    Failure::Io(error) => debug!(why, %error, "no TLS"),
                    Failure::NoTls | Failure::Late => debug!(why, "no TLS"),
                }
                None
            }
        }
    }

    /// Says that the server says no more; without it, what the client has might be all or not. A plain connection just ends.
    pub(super) async fn end(self) {
        if let Self::Tls(mut stream) = self {
            // A client that is gone, or reads nothing, need not be told.
            let _ = timeout(END, stream.shutdown()).await;
        }
    }
}

async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: TlsAcceptor,
    mut stream: S,
    mut bytes: Vec<u8>,
    deadline: Instant,
) -> Result<TlsStream<Begun<S>>, Failure> {
    if bytes.is_empty() {
        bytes.reserve_exact(FIRST_BYTES);
        let begins = deadline.min(Instant::now() + FIRST_BYTE);
        match timeout_at(begins, stream.read_buf(&mut bytes)).await {
            Ok(Ok(0)) => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => return Err(Failure::Io(error)),
        }
    }
    if bytes.first() != Some(&HANDSHAKE_RECORD) {
        // Who speaks TLS speaks first, so this one understands plain text.
        say_closing(&mut stream, ClosingCode::TlsRequired, None).await;
        return Err(Failure::NoTls);
    }
    match timeout_at(deadline, acceptor.accept(Begun { bytes, stream })).await {
        Ok(shaken) => shaken.map_err(Failure::Io),
        Err(_) => Err(Failure::Late),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let taken = into.remaining().min(self.bytes.len());
        let rest = self.bytes.split_off(taken);
        into.put_slice(&std::mem::replace(&mut self.bytes, rest));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
