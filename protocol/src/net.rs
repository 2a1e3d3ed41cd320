//! The network seam: what a node and a client need of TCP.
//!
//! Static generics with one parameter, confined to the edge (accept loop, dialler, connection); what stands behind
//! a channel is not generic. The simulator implements it over its own streams.

use std::{future::Future, io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
};

/// How many connections wait in the system's queue until they are accepted; Linux takes `net.core.somaxconn` where that is less. When a
/// node dies, all who were on it come to the others at once: whom the queue has no room for hears nothing, and a balancer that hears
/// nothing from three of them believes the node dead as well.
const LISTEN_QUEUE: u32 = 4096;

/// Bytes that the system keeps each way for an accepted connection, but for its own bookkeeping (Linux doubles them): a client that reads nothing, or is
/// not read, is kept so much and no more, where Linux would go up to 4 and 32 MB. A round trip of 100 ms then carries 1.3 MB a second.
const SOCKET_BYTES: u32 = 128 << 10;

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
        let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "no address");
        for addr in lookup_host(addr).await? {
            match listen(addr) {
                Ok(listener) => return Ok(listener),
                Err(error) => failed = error,
            }
        }
        Err(failed)
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

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A node that starts again does not wait for its last connections to be forgotten. Elsewhere than on Unix the option has another meaning.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // What is accepted inherits them.
    socket.set_send_buffer_size(SOCKET_BYTES)?;
    socket.set_recv_buffer_size(SOCKET_BYTES)?;
    socket.bind(addr)?;
    socket.listen(LISTEN_QUEUE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// All sessions of a dead node, before the first of them is accepted.
    #[tokio::test]
    async fn a_burst_of_connections_waits_to_be_accepted() {
        let listener = Tcp.bind("127.0.0.1:0").await.unwrap();
        let addr = Tcp.local_addr(&listener).unwrap().to_string();
        let mut waiting = Vec::new();
        for number in 0..400 {
            let connected = tokio::time::timeout(Duration::from_secs(30), Tcp.connect(&addr)).await;
            waiting.push(
                connected.unwrap_or_else(|_| panic!("there is no room for connection {number}")).unwrap(),
            );
        }
        for _ in &waiting {
            Tcp.accept(&listener).await.unwrap();
        }
    }

    /// Neither side reads: the system takes a bounded number of bytes, whichever sends.
    #[tokio::test]
    async fn the_system_keeps_few_bytes_for_a_connection() {
        let listener = Tcp.bind("127.0.0.1:0").await.unwrap();
        let client = TcpSocket::new_v4().unwrap();
        // The client's system keeps next to nothing.
        client.set_send_buffer_size(4096).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        let client = client.connect(Tcp.local_addr(&listener).unwrap()).await.unwrap();
        let (served, _) = Tcp.accept(&listener).await.unwrap();
        let bytes = vec![0; 1 << 16];
        for stream in [&served, &client] {
            let (mut taken, mut refused) = (0, 0);
            while refused < 20 && taken < 64 << 20 {
                match stream.try_write(&bytes) {
                    Ok(more) => taken += more,
                    Err(_) => {
                        refused += 1;
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            }
            assert!((1..=4 * SOCKET_BYTES as usize).contains(&taken), "{taken}");
        }
    }

    #[tokio::test]
    async fn what_is_no_address_is_not_bound() {
        for addr in ["127.0.0.1", "127.0.0.1:port", "203.0.113.1:0", ""] {
            assert!(Tcp.bind(addr).await.is_err(), "{addr}");
        }
    }
}
