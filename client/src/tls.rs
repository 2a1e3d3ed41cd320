//! TLS over any network: it dials, and shakes hands before anybody else sees the connection.

use std::{io, net::SocketAddr, path::Path};

use protocol::{
    Net,
    tls::{TlsError, connector},
};
use thiserror::Error;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{CertificateError, Error as Rustls, pki_types::ServerName},
};

/// A network whose connections speak TLS (1.2 or 1.3). It only dials.
#[derive(Clone)]
pub struct Tls<N> {
    net: N,
    peer: TlsPeer,
}

/// Who is to be at the other end: a name, and whom to trust if they say that it is theirs.
#[derive(Clone)]
pub struct TlsPeer {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Why a name cannot be a server's.
#[derive(Debug, Error)]
pub enum TlsPeerError {
    /// Not a host name, nor an address.
    #[error("{0} is not a host name or an address")]
    Name(String),
    /// Whom to trust is not known.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why there is no connection, in words.
#[derive(Debug, Error)]
enum Failure {
    #[error("its certificate is not signed by an authority that is trusted here; --tls-ca names others")]
    UnknownIssuer,
    #[error("its certificate is not for {0}; --tls-name says which name to expect")]
    OtherName(String),
    #[error("its certificate is no longer valid")]
    Expired,
    #[error("its certificate is not valid yet")]
    NotYet,
    #[error(
        "its certificate is an authority's own; a server's has to be signed by one, and be none (CA:FALSE)"
    )]
    Authority,
    #[error("it does not speak TLS")]
    NoTls,
    #[error("it ended the connection in the TLS handshake")]
    Ended,
    #[error("the TLS handshake failed: {0}")]
    Other(Rustls),
}

impl TlsPeer {
    /// A server that has a certificate for `name`, a host name or an address, which leads to one in the file `ca`, or without it to one
    /// that the system trusts.
    ///
    /// # Errors
    /// See [`TlsPeerError`].
    pub fn new(name: &str, ca: Option<&Path>) -> Result<Self, TlsPeerError> {
        let plain = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server = ServerName::try_from(plain).map_err(|_| TlsPeerError::Name(name.to_owned()))?;
        Ok(Self { connector: connector(ca)?, name: server })
    }

    /// Shakes hands on a connection.
    ///
    /// # Errors
    /// The network's, or one that says in words what is wrong with the peer.
    pub async fn shake_hands<S>(&self, stream: S) -> io::Result<Box<TlsStream<S>>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        match self.connector.connect(self.name.clone(), stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(self.in_words(error)),
        }
    }

    fn in_words(&self, error: io::Error) -> io::Error {
        use io::ErrorKind as Kind;
        if matches!(error.kind(), Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe) {
            return io::Error::other(Failure::Ended);
        }
        let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Rustls>()) else {
            return error;
        };
        io::Error::other(match inner {
            Rustls::InvalidMessage(_) => Failure::NoTls,
            Rustls::InvalidCertificate(certificate) => match certificate {
                CertificateError::UnknownIssuer => Failure::UnknownIssuer,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Failure::OtherName(self.name.to_str().into_owned())
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Failure::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Failure::NotYet
                }
                // It has no kind of its own.
                CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                    Failure::Authority
                }
                _ => Failure::Other(inner.clone()),
            },
            _ => Failure::Other(inner.clone()),
        })
    }
}

impl<N> Tls<N> {
    /// Over `net`, to `peer`.
    pub fn new(net: N, peer: TlsPeer) -> Self {
        Self { net, peer }
    }
}

impl<N: Net> Net for Tls<N> {
    type Listener = N::Listener;
    type Stream = Box<TlsStream<N::Stream>>;

    async fn bind(&self, addr: &str) -> io::Result<N::Listener> {
        self.net.bind(addr).await
    }

    fn local_addr(&self, on: &N::Listener) -> io::Result<SocketAddr> {
        self.net.local_addr(on)
    }

    async fn accept(&self, _: &N::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, addr: &str) -> io::Result<Self::Stream> {
        let stream = self.net.connect(addr).await?;
        self.peer.shake_hands(stream).await
    }
}
