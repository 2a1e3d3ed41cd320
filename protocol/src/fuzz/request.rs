//! Requests: what is taken has one meaning, and what is refused is refused in a few definite words.

use crate::{ErrorCode, Request, ServerLine, message::write_error};

/// Longest reply to a line that is no request.
const REFUSAL_BYTES_MAX: usize = 1024;

/// The lines of a story, as the fuzz target `request` tells it to a node: a connection's letter and a mark may precede a request.
pub fn check(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        check_line(spoken(line));
    }
}

/// What goes over the connection.
fn spoken(line: &[u8]) -> &[u8] {
    match line {
        [b'A'..=b'D', b'>' | b'|', rest @ ..] => rest,
        _ => line,
    }
}

fn check_line(line: &[u8]) {
    match Request::parse(line) {
        Ok((id, request)) => {
            let first = line.iter().find(|byte| !byte.is_ascii_whitespace());
            assert_eq!(first, Some(&b'{'), "a request is an object");
            assert!(id.is_some() || matches!(request, Request::Ack(_)), "only an ack goes without an id");
            let mut canonical = Vec::new();
            request.write(&mut canonical, id);
            assert_eq!(canonical.pop(), Some(b'\n'));
            assert!(!canonical.contains(&b'\n'), "one line");
            let again = Request::parse(&canonical);
            assert_eq!(again, Ok((id, request.clone())));
            let mut twice = Vec::new();
            request.write(&mut twice, id);
            assert_eq!(twice.strip_suffix(b"\n"), Some(&*canonical), "one canonical form");
        }
        Err(refused) => {
            let codes = [ErrorCode::Malformed, ErrorCode::UnknownOp, ErrorCode::BadRequest];
            assert!(codes.contains(&refused.error.code), "{}", refused.error.code);
            assert!(refused.error.definite);
            let mut reply = Vec::new();
            write_error(&mut reply, refused.id, &refused.error);
            assert!(reply.len() <= REFUSAL_BYTES_MAX, "a refusal of {} bytes", reply.len());
            match ServerLine::parse(&reply) {
                Ok(ServerLine::Reply { id, result: Err(error) }) => {
                    assert_eq!((id, error), (refused.id, *refused.error));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
