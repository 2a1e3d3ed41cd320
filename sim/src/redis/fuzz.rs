//! The small Redis and what may be sent to it: the same answers however the bytes were split, each of them well-formed, and one for each
//! request.
//!
//! For the fuzz target `resp`, and the tests over what is stored in `fuzz/`. Nothing of it is in other builds.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use loadgen::rng::Rng;
use tokio::{sync::Notify, time::Instant};

use super::{
    Publishes,
    request::Parser,
    server::{ClientId, Server},
};

/// A stream is not longer.
const STREAM_BYTES_MAX: usize = 64 << 10;
/// How deep replies are nested.
const DEPTH_MAX: u32 = 4;

/// What a client sends. It asks a Redis with a password if the stream begins with an exclamation mark, which is not sent. Another client
/// listens to the channels `a` and `b`.
pub fn check(data: &[u8]) {
    let (password, data) = match data.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, data),
    };
    let data = &data[..data.len().min(STREAM_BYTES_MAX)];
    let whole = answers(data, usize::MAX, password);
    assert_eq!(answers(data, 1, password), whole, "byte by byte");
    assert_eq!(answers(data, 7, password), whole, "in pieces");
}

/// All that the client and the listener are sent.
fn answers(data: &[u8], piece: usize, password: bool) -> (Bytes, Bytes) {
    let now = Instant::now();
    let mut server = Server::new(Rng::new(7));
    server.publishes =
        Publishes { duplicate: 100, reorder: 100, delay: 100, delay_max: Duration::from_secs(1), drop: 10 };
    let listener = server.join(Arc::new(Notify::new()));
    let subscribe = ["SUBSCRIBE", "a", "b"].map(|word| Bytes::from_static(word.as_bytes()));
    server.request(listener, subscribe.into(), now);
    if password {
        server.password = Some(Bytes::from_static(b"asuna"));
    }
    let client = server.join(Arc::new(Notify::new()));
    let (mut parser, mut input, mut sent) = (Parser::default(), BytesMut::new(), BytesMut::new());
    'stream: for bytes in data.chunks(piece.min(data.len()).max(1)) {
        input.extend_from_slice(bytes);
        loop {
            let Some(stranger) = server.is_stranger(client) else { break 'stream };
            let request = match parser.next(&mut input, stranger) {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(error) => {
                    server.protocol_error(client, error);
                    sent.unsplit(take(&mut server, client, now));
                    break 'stream;
                }
            };
            assert!(!request.is_empty());
            let exchange = take_answer(&mut server, client, request, now);
            sent.unsplit(exchange.0);
            if exchange.1 {
                break 'stream;
            }
        }
    }
    let heard = take(&mut server, listener, now + Duration::from_secs(10));
    assert!(values(&heard).is_some(), "{}", heard.escape_ascii());
    (sent.freeze(), heard.freeze())
}

/// What a request is answered, and whether the connection ends then.
fn take_answer(server: &mut Server, client: ClientId, request: Vec<Bytes>, now: Instant) -> (BytesMut, bool) {
    let name = request[0].to_ascii_lowercase();
    server.request(client, request, now);
    let Some(next) = server.next(client, now) else { return (BytesMut::new(), true) };
    server.written(client, next.output.len());
    let answers = values(&next.output).unwrap_or_else(|| panic!("{}", next.output.escape_ascii()));
    // Channels are confirmed one by one; a transaction may hold what has to do with channels.
    let one = !matches!(name.as_slice(), b"subscribe" | b"unsubscribe" | b"publish" | b"exec");
    assert!(if one { answers == 1 } else { answers >= 1 }, "{answers} answers to {}", name.escape_ascii());
    (next.output, next.leaving)
}

fn take(server: &mut Server, client: ClientId, now: Instant) -> BytesMut {
    server.next(client, now).map(|next| next.output).unwrap_or_default()
}

/// How many values there are, if they are well-formed.
fn values(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        bytes = value(bytes, DEPTH_MAX)?;
        count += 1;
    }
    Some(count)
}

/// What follows a value.
fn value(bytes: &[u8], depth: u32) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = (std::str::from_utf8(&bytes[1..end]), &bytes[end + 2..]);
    let number = || line.ok()?.parse::<i64>().ok();
    let items = |each: usize| {
        let count = usize::try_from(number()?).ok()?.checked_mul(each)?;
        (0..count).try_fold(rest, |rest, _| value(rest, depth.checked_sub(1)?))
    };
    match bytes[0] {
        b'+' | b'-' => Some(rest),
        b':' => number().map(|_| rest),
        b'_' if end == 1 => Some(rest),
        b'$' if number()? == -1 => Some(rest),
        b'$' => {
            let (_, after) = rest.split_at_checked(usize::try_from(number()?).ok()?)?;
            after.strip_prefix(b"\r\n")
        }
        b'*' | b'~' | b'>' => items(1),
        b'%' => items(2),
        _ => None,
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn stored_requests_are_answered_in_any_pieces() {
        super::replay::replay("resp", super::check);
    }
}
