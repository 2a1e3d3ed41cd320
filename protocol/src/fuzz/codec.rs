//! Lines: the same ones however the bytes were split, in bounded memory; and what can be read can be written and read again.

use crate::{
    LineDecoder, ServerLine,
    message::{write_error, write_push, write_reply},
};

/// The first byte is the limit of a line, the second a seed for splits; the rest is a stream.
pub fn check(data: &[u8]) {
    let [limit, seed, stream @ ..] = data else { return };
    let limit = usize::from(*limit).max(1);
    let expected = expected(stream, limit);
    let mut dice = u64::from(*seed);
    let mut drawn = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (dice >> 58) as usize
    };
    assert_eq!(lines(stream, limit, || usize::MAX), expected, "as a whole");
    assert_eq!(lines(stream, limit, || 1), expected, "byte by byte");
    assert_eq!(lines(stream, limit, &mut drawn), expected, "in pieces");
    growing(stream, limit, drawn);
    for line in stream.split(|byte| *byte == b'\n') {
        written_and_read(line);
    }
}

/// What SPEC.md, section 3, says of a stream; `None` is a line over the limit.
fn expected(stream: &[u8], limit: usize) -> Vec<Option<&[u8]>> {
    let mut pieces: Vec<&[u8]> = stream.split(|byte| *byte == b'\n').collect();
    let unfinished = pieces.pop().unwrap_or_default();
    let whole = pieces.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let whole = whole.filter(|line| !line.is_empty()).map(|line| (line.len() <= limit).then_some(line));
    // Of what has not ended it is certain that it is too long, or nothing.
    let too_long = unfinished.strip_suffix(b"\r").unwrap_or(unfinished).len() > limit;
    whole.chain(too_long.then_some(None)).collect()
}

fn lines(stream: &[u8], limit: usize, mut piece: impl FnMut() -> usize) -> Vec<Option<&[u8]>> {
    let mut decoder = LineDecoder::new(limit);
    let (mut found, mut rest, mut from, mut piece_max) = (Vec::new(), stream, 0, 0);
    while !rest.is_empty() {
        let (bytes, after) = rest.split_at(piece().min(rest.len()));
        piece_max = piece_max.max(bytes.len());
        decoder.push(bytes);
        while let Some(line) = decoder.next_line() {
            // Where it stands, so that no copy is kept: lines come in order.
            found.push(line.ok().map(|line| {
                let at = stream[from..].windows(line.len()).position(|part| part == line);
                let at = from + at.expect("a line is a part of the stream");
                from = at + line.len();
                &stream[at..from]
            }));
        }
        let bound = 2 * (limit + 1 + piece_max) + 8;
        assert!(decoder.held_bytes() <= bound, "{} bytes are held", decoder.held_bytes());
        rest = after;
    }
    found
}

/// A limit that is raised, as it is after a login, loses nothing that was short enough all along.
fn growing(stream: &[u8], limit: usize, mut piece: impl FnMut() -> usize) {
    let mut decoder = LineDecoder::new(limit);
    let (mut short, mut rest) = (0, stream);
    let mut take = |decoder: &mut LineDecoder, most: usize| {
        while let Some(line) = decoder.next_line() {
            let length = line.map_or(0, <[u8]>::len);
            assert!(length <= most, "{length} bytes");
            short += usize::from((1..=limit).contains(&length));
        }
    };
    let middle = rest.len() / 2;
    while !rest.is_empty() {
        let (bytes, after) = rest.split_at(piece().min(rest.len()));
        let most = if rest.len() > middle { limit } else { 2 * limit };
        decoder.set_limit(most);
        decoder.push(bytes);
        take(&mut decoder, most);
        rest = after;
    }
    assert_eq!(short, expected(stream, limit).into_iter().flatten().count(), "short lines");
}

/// A line of a server means the same after it was written anew.
fn written_and_read(line: &[u8]) {
    let Ok(parsed) = ServerLine::parse(line) else { return };
    let mut written = Vec::new();
    match &parsed {
        // What is not known cannot be said.
        ServerLine::Push(crate::Push::Unknown) => return,
        ServerLine::Push(push) => write_push(&mut written, push),
        ServerLine::Reply { id: Some(id), result: Ok(ok) } => write_reply(&mut written, *id, ok),
        ServerLine::Reply { id, result: Err(error) } => write_error(&mut written, *id, error),
        // Only errors go without an id.
        ServerLine::Reply { id: None, result: Ok(_) } => return,
    }
    let end = written.pop();
    assert_eq!(end, Some(b'\n'));
    assert!(!written.contains(&b'\n'), "one line");
    let again = ServerLine::parse(&written).expect("what was written can be read");
    match (&parsed, &again) {
        (ServerLine::Push(old), ServerLine::Push(new)) => assert_eq!(old, new),
        (ServerLine::Reply { id: old, result: Err(a) }, ServerLine::Reply { id: new, result: Err(b) }) => {
            assert_eq!((old, a), (new, b));
        }
        (ServerLine::Reply { id: old, result: Ok(a) }, ServerLine::Reply { id: new, result: Ok(b) }) => {
            assert_eq!((old, a.get()), (new, b.get()));
        }
        _ => panic!("{parsed:?} became {again:?}"),
    }
}
