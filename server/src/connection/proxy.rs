//! The PROXY protocol, versions 1 and 2: with which address a balancer says who connected to it.

#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest header taken, in bytes. Version 1 needs at most 107; version 2 16, 36 for addresses, and what a balancer adds.
const HEADER_BYTES_MAX: usize = 1024;
/// Longest header of version 1, by its specification.
const V1_BYTES_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a connection does not begin as it has to.
#[derive(Debug, Error)]
pub(super) enum ProxyError {
    #[error("not a PROXY header")]
    Malformed,
    #[error("a PROXY header of more than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    #[error("ended within the PROXY header")]
    Eof,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads the header: the client's address, if the balancer knows one, and the bytes that came after the header.
pub(super) async fn read_header<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<(Option<SocketAddr>, Vec<u8>), ProxyError> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if let Some(length) = header_length(&bytes)? {
            let rest = bytes.split_off(length);
            return Ok((client(&bytes)?, rest));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(ProxyError::Eof);
        }
    }
}

/// How long the header is, once enough of it is there to tell that all of it is.
fn header_length(bytes: &[u8]) -> Result<Option<usize>, ProxyError> {
    let common = bytes.len().min(V2_SIGNATURE.len());
    if bytes[..common] == V2_SIGNATURE[..common] {
        let Some(length) = bytes.get(14..16) else { return Ok(None) };
        let length = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length > HEADER_BYTES_MAX {
            return Err(ProxyError::TooLong);
        }
        return Ok((bytes.len() >= length).then_some(length));
    }
    let line = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    match memchr::memchr(b'\n', line) {
        // The library takes some lines that end otherwise.
        Some(end) if line[..end].ends_with(b"\r") => Ok(Some(end + 1)),
        Some(_) => Err(ProxyError::Malformed),
        None if bytes.len() >= V1_BYTES_MAX || !b"PROXY ".starts_with(&line[..line.len().min(6)]) => {
            Err(ProxyError::Malformed)
        }
        None => Ok(None),
    }
}

fn client(header: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            // The balancer's own health checks carry no client.
            _ if header.command == v2::Command::Local => None,
            v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
            v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
            v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(ProxyError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of bytes that arrive in pieces: the client and the rest, or an error.
    fn read(bytes: &[u8], piece: usize) -> Result<(Option<String>, Vec<u8>), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(piece);
            let write = async {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut near, bytes).await;
                drop(near);
            };
            let read = async {
                let result = read_header(&mut far).await;
                let mut rest = Vec::new();
                let _ = far.read_to_end(&mut rest).await;
                result.map(|(client, mut first)| {
                    first.extend(rest);
                    (client.map(|client| client.to_string()), first)
                })
            };
            tokio::join!(write, read).1.map_err(|e| e.to_string())
        })
    }

    fn check(bytes: &[u8], expected: Result<(Option<&str>, &[u8]), &str>) {
        for piece in [1, 7, 1000] {
            let found = read(bytes, piece);
            let found = found.as_ref().map(|(c, r)| (c.as_deref(), &r[..])).map_err(|e| &e[..]);
            assert_eq!(found, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn headers_of_both_versions() {
        check(
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 8000\r\n{\"id\":1}\n\xff",
            Ok((Some("192.0.2.1:5000"), b"{\"id\":1}\n\xff")),
        );
        check(b"PROXY TCP6 2001:db8::1 ::1 5000 8000\r\n", Ok((Some("[2001:db8::1]:5000"), b"")));
        check(b"PROXY UNKNOWN\r\nx", Ok((None, b"x")));
        let v2 = |command: u8, family: u8, addresses: &[u8]| {
            let mut header = V2_SIGNATURE.to_vec();
            header.extend([0x20 | command, family]);
            header.extend((addresses.len() as u16).to_be_bytes());
            header.extend(addresses);
            header
        };
        let mut proxied = v2(1, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 0x1f, 0x40]);
        proxied.extend(b"rest");
        check(&proxied, Ok((Some("192.0.2.1:5000"), b"rest")));
        check(&v2(0, 0, &[]), Ok((None, b"")));
        check(&v2(1, 0x11, &[0; 2000]), Err("a PROXY header of more than 1024 bytes"));
    }

    #[test]
    fn anything_else_is_refused() {
        check(b"", Err("ended within the PROXY header"));
        check(b"PROX", Err("ended within the PROXY header"));
        check(b"{\"id\":1,\"op\":\"ping\"}\n", Err("not a PROXY header"));
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 8000\n", Err("not a PROXY header"));
        check(b"PROXY TCP4 nonsense\r\n", Err("not a PROXY header"));
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 99999\r\n", Err("not a PROXY header"));
        check(&[b'P'; 200], Err("not a PROXY header"));
        check(&[b"PROXY ", &[b'x'; 200][..]].concat(), Err("not a PROXY header"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), v2: bool) {
            let bytes = if v2 { [V2_SIGNATURE, &bytes].concat() } else { [b"PROXY ", &bytes[..]].concat() };
            let _ = read(&bytes, 64);
        }
    }
}
