//! Which bytes that were taken from the network are which that were put onto it, and which were never taken.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::trace::{Direction, Event, What};

/// The place of an event in its trace.
pub(crate) type Index = usize;

/// What went over the network in a trace.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// In the order in which they appear.
    pub(crate) connections: Vec<Connection>,
    /// For each event that belongs to a connection: which, and the end that the bytes come from (of [`What::Sent`],
    /// [`What::Received`], [`What::Ended`]) or where it happened.
    pub(crate) places: BTreeMap<Index, Place>,
    /// By the reading, and then by the bytes.
    pub(crate) arrows: Vec<Arrow>,
    /// In the order of the sending.
    pub(crate) lost: Vec<Lost>,
}

/// A connection. After a restart a host uses the same ports again: then it is another one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Who connected, and who accepted, each as `HOST:PORT`.
    pub(crate) ends: [Arc<str>; 2],
    /// Whether each end was seen to be made.
    made: [bool; 2],
    /// When each end was given up.
    pub(crate) dropped: [Option<Index>; 2],
}

/// A connection and one of its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Of [`Messages::connections`].
    pub(crate) connection: usize,
    /// Of [`Connection::ends`].
    pub(crate) end: usize,
}

/// Bytes that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrow {
    /// Where they were sent.
    pub(crate) sent: Index,
    /// Where they were taken.
    pub(crate) received: Index,
    /// How many.
    pub(crate) bytes: u64,
}

/// Bytes that were sent and never taken: the last ones of what was sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Where they were sent.
    pub(crate) sent: Index,
    /// How many.
    pub(crate) bytes: u64,
    /// Where the reader gave the connection up, if that was before the bytes could have been taken.
    pub(crate) given_up: Option<Index>,
}

/// A reader that leaves so long after the sending, or later, would have had the time to take what was sent.
const TAKEN_WITHIN: Duration = Duration::from_millis(200);

/// What was sent at once.
struct Piece {
    from: u64,
    to: u64,
    sent: Index,
    taken: u64,
}

/// The state of the pairing.
#[derive(Default)]
struct Pairing {
    out: Messages,
    /// The latest connection of an end, by its own address and the other's.
    current: BTreeMap<(Arc<str>, Arc<str>), Place>,
    /// By the writing end, in the order of their offsets.
    pieces: BTreeMap<Place, Vec<Piece>>,
}

impl Messages {
    /// Pairs what a trace has.
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut pairing = Pairing::default();
        for (at, event) in events.iter().enumerate() {
            pairing.take(at, &event.what);
        }
        pairing.finish(events)
    }
}

impl Pairing {
    fn take(&mut self, at: Index, what: &What) {
        let place = match what {
            What::Connected((own, other)) => self.open(own, other, 0),
            What::Accepted((own, other)) => self.open(own, other, 1),
            What::Sent((own, other), offset, bytes) => {
                let place = self.find(own, other);
                let piece = Piece { from: *offset, to: offset + bytes.len() as u64, sent: at, taken: 0 };
                self.pieces.entry(place).or_default().push(piece);
                place
            }
            What::Received(direction, offset, bytes) => {
                let writer = self.writer(direction);
                self.pair(writer, at, *offset, bytes.len() as u64);
                writer
            }
            What::Ended(direction, _) => self.writer(direction),
            What::Dropped((own, other)) => {
                let place = self.find(own, other);
                if let Some(connection) = self.out.connections.get_mut(place.connection) {
                    connection.dropped[place.end].get_or_insert(at);
                }
                place
            }
            What::Refused(_) | What::Drew(_) | What::Said(_) => return,
        };
        self.out.places.insert(at, place);
    }

    /// An end is made. It belongs to the connection whose other end waits for it, or to a new one.
    fn open(&mut self, own: &Arc<str>, other: &Arc<str>, end: usize) -> Place {
        let key = (Arc::clone(own), Arc::clone(other));
        let waiting = self.current.get(&(Arc::clone(other), Arc::clone(own))).copied();
        let connection = match waiting.filter(|place| place.end != end) {
            Some(Place { connection, .. }) if !self.out.connections[connection].made[end] => connection,
            _ => {
                let (own, other) = (Arc::clone(own), Arc::clone(other));
                let ends = if end == 0 { [own, other] } else { [other, own] };
                self.out.connections.push(Connection { ends, made: [false; 2], dropped: [None; 2] });
                self.out.connections.len() - 1
            }
        };
        self.out.connections[connection].made[end] = true;
        let place = Place { connection, end };
        self.current.insert(key, place);
        place
    }

    /// The end with these addresses. One that was not seen to be made counts as the one that connected, or as the other end of what
    /// there is.
    fn find(&mut self, own: &Arc<str>, other: &Arc<str>) -> Place {
        if let Some(place) = self.current.get(&(Arc::clone(own), Arc::clone(other))) {
            return *place;
        }
        let opposite = self.current.get(&(Arc::clone(other), Arc::clone(own)));
        let end = opposite.map_or(0, |place| 1 - place.end);
        self.open(own, other, end)
    }

    /// The end that writes what the other reads.
    fn writer(&mut self, (from, to): &Direction) -> Place {
        let reader = self.find(to, from);
        Place { end: 1 - reader.end, ..reader }
    }

    fn pair(&mut self, writer: Place, received: Index, offset: u64, bytes: u64) {
        let pieces = self.pieces.entry(writer).or_default();
        let end = offset + bytes;
        let first = pieces.partition_point(|piece| piece.to <= offset);
        for piece in pieces.iter_mut().skip(first).take_while(|piece| piece.from < end) {
            let bytes = piece.to.min(end) - piece.from.max(offset);
            piece.taken += bytes;
            self.out.arrows.push(Arrow { sent: piece.sent, received, bytes });
        }
    }

    fn finish(self, events: &[Event]) -> Messages {
        let Self { mut out, pieces, .. } = self;
        for (writer, pieces) in pieces {
            let given_up = out.connections[writer.connection].dropped[1 - writer.end];
            let lost = pieces.into_iter().filter(|piece| piece.taken < piece.to - piece.from);
            out.lost.extend(lost.map(|piece| Lost {
                sent: piece.sent,
                bytes: piece.to - piece.from - piece.taken,
                given_up: given_up.filter(|left| {
                    let at = |index: Index| events.get(index).map_or(Duration::ZERO, |event| event.at);
                    at(*left) < at(piece.sent) + TAKEN_WITHIN
                }),
            }));
        }
        out.lost.sort_by_key(|lost| lost.sent);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(of: Vec<What>) -> Vec<Event> {
        of.into_iter().map(|what| Event { at: Duration::ZERO, host: "x".into(), what }).collect()
    }

    fn there() -> Direction {
        ("a:1".into(), "b:2".into())
    }

    fn back() -> Direction {
        ("b:2".into(), "a:1".into())
    }

    fn sent(direction: Direction, offset: u64, text: &str) -> What {
        What::Sent(direction, offset, text.into())
    }

    fn received(direction: Direction, offset: u64, text: &str) -> What {
        What::Received(direction, offset, text.into())
    }

    fn arrows(messages: &Messages) -> Vec<(Index, Index, u64)> {
        messages.arrows.iter().map(|arrow| (arrow.sent, arrow.received, arrow.bytes)).collect()
    }

    #[test]
    fn a_read_of_a_part_or_of_several_writes_belongs_to_all_that_it_has_bytes_of() {
        let messages = Messages::of(&events(vec![
            What::Accepted(back()),
            What::Connected(there()),
            sent(there(), 0, "abcd"),
            sent(there(), 4, "ef"),
            sent(back(), 0, "xyz"),
            received(there(), 0, "ab"),
            received(there(), 2, "cde"),
            received(there(), 5, "f"),
            received(back(), 0, "xyz"),
        ]));
        assert_eq!(arrows(&messages), [(2, 5, 2), (2, 6, 2), (3, 6, 1), (3, 7, 1), (4, 8, 3)]);
        assert_eq!(messages.lost, []);
        assert_eq!(messages.connections.len(), 1);
        assert_eq!(messages.connections[0].ends.each_ref().map(|end| &**end), ["a:1", "b:2"]);
    }

    #[test]
    fn what_is_never_read_is_lost_and_whether_the_reader_had_left_is_known() {
        let messages = Messages::of(&events(vec![
            What::Accepted(back()),
            What::Connected(there()),
            sent(there(), 0, "abcd"),
            received(there(), 0, "abc"),
            sent(there(), 4, "ef"),
            sent(back(), 0, "xyz"),
            What::Dropped(there()),
        ]));
        let lost = |sent, bytes, given_up| Lost { sent, bytes, given_up };
        assert_eq!(messages.lost, [lost(2, 1, None), lost(4, 2, None), lost(5, 3, Some(6))]);
    }

    #[test]
    fn a_reader_that_stays_for_long_has_not_left_before() {
        let mut events = events(vec![sent(back(), 0, "xyz"), What::Dropped(there())]);
        events[1].at = Duration::from_secs(3);
        assert_eq!(Messages::of(&events).lost, [Lost { sent: 0, bytes: 3, given_up: None }]);
    }

    #[test]
    fn a_connection_with_the_addresses_of_an_earlier_one_is_another() {
        let messages = Messages::of(&events(vec![
            What::Accepted(back()),
            What::Connected(there()),
            sent(there(), 0, "first"),
            // The first host loses its power, starts again, and begins with the same port.
            What::Accepted(back()),
            What::Connected(there()),
            sent(there(), 0, "other"),
            received(there(), 0, "other"),
        ]));
        assert_eq!(arrows(&messages), [(5, 6, 5)]);
        assert_eq!(messages.lost, [Lost { sent: 2, bytes: 5, given_up: None }]);
        assert_eq!(messages.connections.len(), 2);
    }

    #[test]
    fn a_connection_that_was_never_seen_to_be_made_is_one_nevertheless() {
        let messages = Messages::of(&events(vec![
            sent(there(), 3, "abc"),
            received(there(), 3, "abc"),
            What::Accepted(back()),
        ]));
        assert_eq!(arrows(&messages), [(0, 1, 3)]);
    }
}
