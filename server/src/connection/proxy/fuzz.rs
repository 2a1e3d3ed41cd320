//! PROXY headers: the same client and the same rest however the bytes were split, and as another reader of the format finds them.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{HEADER_BYTES_MAX, V2_SIGNATURE, read_header};

/// What a balancer sends.
pub fn check(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without a driver");
    let [whole, bytes, pieces] = [usize::MAX, 1, 7].map(|piece| runtime.block_on(read(data, piece)));
    assert_eq!(bytes, whole, "byte by byte");
    assert_eq!(pieces, whole, "in pieces");
    let Ok((client, rest)) = whole else { return };
    let (header, after) = data.split_at(data.len() - rest.len());
    assert_eq!(rest, after, "what follows the header is the client's");
    assert!(header.len() <= HEADER_BYTES_MAX);
    if let Some(client) = client {
        assert_eq!(Some(client), named(header), "{}", header.escape_ascii());
    }
}

/// The client and the rest, or why not.
async fn read(data: &[u8], piece: usize) -> Result<(Option<SocketAddr>, Vec<u8>), String> {
    let (mut near, mut far) = tokio::io::duplex(piece.clamp(1, data.len().max(1)));
    let write = async {
        // Whoever refuses a header does not read on.
        let _ = near.write_all(data).await;
        drop(near);
    };
    let read = async {
        let result = read_header(&mut far).await;
        let mut rest = Vec::new();
        // It cannot fail.
        let _ = far.read_to_end(&mut rest).await;
        result.map(|(client, first)| (client, [first, rest].concat()))
    };
    tokio::join!(write, read).1.map_err(|error| error.to_string())
}

/// The client that a well-formed header names, read by hand.
fn named(header: &[u8]) -> Option<SocketAddr> {
    if let Some(rest) = header.strip_prefix(V2_SIGNATURE) {
        let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
        return match (rest[0], rest[1] >> 4) {
            (0x21, 1) => Some((<[u8; 4]>::try_from(rest.get(4..8)?).ok()?, port(12)?).into()),
            (0x21, 2) => Some((<[u8; 16]>::try_from(rest.get(4..20)?).ok()?, port(36)?).into()),
            _ => None,
        };
    }
    let line = std::str::from_utf8(header).ok()?.strip_suffix("\r\n")?;
    let words: Vec<&str> = line.split(' ').collect();
    let ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] = words[..] else { return None };
    let (from, to) = (from.parse().ok()?, to.parse::<std::net::IpAddr>().ok()?);
    to_port.parse::<u16>().ok()?;
    let client = SocketAddr::new(from, from_port.parse().ok()?);
    (client.is_ipv4() == (family == "TCP4") && to.is_ipv4() == from.is_ipv4()).then_some(client)
}
