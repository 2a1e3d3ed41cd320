//! Hints and presence: what is taken from Redis is what a node could have said, and what is handed to clients they can read.

use protocol::{Push, ServerLine};

use super::{Change, ENTRY_PREFIX, Incarnation, NodeId, Origin, PAYLOAD_BYTES_MAX, SEQ_MAX};
use crate::relay::RelayEvent;

const DEPLOYMENT: [u8; 16] = *b"one deployment's";

/// A payload of a channel; its first 17 bytes are taken for a version and the deployment's id, whatever that is.
pub fn check(data: &[u8]) {
    let here = Origin { deployment: DEPLOYMENT, node: NodeId(1) };
    check_hint(&here, data);
    check_presence(&here, data);
    let mut ours = data.to_vec();
    if let Some(deployment) = ours.get_mut(1..17) {
        deployment.copy_from_slice(&DEPLOYMENT);
        check_hint(&here, &ours);
        check_presence(&here, &ours);
    }
    if let Some(incarnation) = std::str::from_utf8(data).ok().and_then(Incarnation::parse) {
        assert_eq!(Incarnation::parse(&incarnation.to_string()), Some(incarnation));
    }
}

fn check_hint(here: &Origin, payload: &[u8]) {
    let Ok(event) = here.read_hint(payload) else { return };
    let node = NodeId(u64::from_be_bytes(payload[17..25].try_into().expect("eight bytes")));
    let there = Origin { deployment: DEPLOYMENT, node };
    match event {
        RelayEvent::Head(_, head) => assert!((1..=SEQ_MAX).contains(&head.0)),
        RelayEvent::Hint(hint) => {
            let (first, last) = (hint.lines.first(), hint.lines.last());
            let (first, last) = first.zip(last).expect("a hint has entries");
            assert!(first.seq.0 >= 1 && last.seq.0 <= SEQ_MAX);
            for (line, seq) in hint.lines.iter().zip(first.seq.0..) {
                assert_eq!(line.seq.0, seq, "without gaps");
                assert_eq!(line.bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
                assert!(line.bytes.ends_with(b"\n") && line.bytes.starts_with(ENTRY_PREFIX));
                match ServerLine::parse(&line.bytes) {
                    Ok(ServerLine::Push(Push::Entry(entry))) => {
                        assert_eq!((entry.conv, entry.seq), (hint.conv, line.seq));
                    }
                    other => panic!("clients are handed {other:?}"),
                }
            }
            let payload = there.hint(&hint);
            assert!(payload.len() <= PAYLOAD_BYTES_MAX);
            match here.read_hint(&payload) {
                Ok(RelayEvent::Hint(again)) => assert_eq!((again.conv, again.lines), (hint.conv, hint.lines)),
                Ok(RelayEvent::Head(conv, head)) => assert_eq!((conv, head), (hint.conv, last.seq)),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

fn check_presence(here: &Origin, payload: &[u8]) {
    let Ok((incarnation, number, change)) = here.read_presence(payload) else { return };
    assert_eq!(Incarnation::parse(&incarnation.to_string()), Some(incarnation));
    if let Change::Users(users) = &change {
        assert!(users.len() <= payload.len() / 5);
    }
    let there = Origin { deployment: DEPLOYMENT, node: incarnation.node };
    let again = here.read_presence(&there.presence(incarnation.number, number, &change));
    assert_eq!(again, Ok((incarnation, number, change)));
}
