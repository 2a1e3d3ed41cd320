//! The network seam: what a node and a client need of TCP.
//!
//! Static generics with one parameter, confined to the edge (accept loop, dialler, connection); what stands behind
//! a channel is not generic. The simulator implements it over its own streams.

use std::{future::Future, io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// A way to listen and to dial.
pub trait Net: Clone + Send + Sync + 'static {
    /// A bound address.
    type Listener: Send + Sync + 'static;
    /// An open connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Binds `addr`, as `HOST:PORT`.
    fn bind(&self, addr: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// The address that was bound, with the real port where 0 was asked for.
    fn local_addr(&self, on: &Self::Listener) -> io::Result<SocketAddr>;

    /// The next connection and its peer's address. Cancel-safe.
    fn accept(
        &self,
        on: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Dials `addr`, as `HOST:PORT`. May hang for as long as the network lets it: callers bring a timeout.
    fn connect(&self, addr: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Real TCP, through tokio. Small writes are not delayed (`TCP_NODELAY`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Net for Tcp {
    type Listener = TcpListener;
    type Stream = TcpStream;

    async fn bind(&self, addr: &str) -> io::Result<TcpListener> {
        TcpListener::bind(addr).await
    }

    fn local_addr(&self, on: &TcpListener) -> io::Result<SocketAddr> {
        on.local_addr()
    }

    async fn accept(&self, on: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = on.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, peer))
    }

    async fn connect(&self, addr: &str) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
