//! A session: a set of cursors over the logs its user may read. Sans-IO.
//!
//! Delivering is advancing a cursor: from the feed's recent entries when they are there, from a page of the store when they
//! are not ([`Need::Page`]). Login catch-up, offline messages, resume, a lost hint and a slow reader are
//! this one mechanism.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use litemap::LiteMap;
use protocol::{
    ConversationId, EntryBody, Push, Seq, UserId,
    message::{CursorRefusal, Cursors, Refused, write_push},
};

use crate::{
    feed::{Found, Line},
    feeds::Attached,
    rights::ends_membership,
    store::Period,
};

/// An authenticated use of a connection.
pub struct Session {
    user: UserId,
    /// By conversation, in no more memory than they take.
    cursors: LiteMap<ConversationId, Cursor>,
    /// What is known of the ends of periods, where anything is.
    ends: BTreeMap<ConversationId, Ends>,
    /// Conversations to look at; each at most once.
    queue: VecDeque<ConversationId>,
    /// What cursors have to reach for `caught_up`: the heads at the login. None afterwards.
    targets: BTreeMap<ConversationId, Seq>,
    caught_up: bool,
    /// The user's notices up to here were taken into account at the login.
    settled: Seq,
    /// What the connection has to do before this conversation goes on, and at once.
    needs: VecDeque<Need>,
}

/// Where a session stands in a conversation. An idle session consists of little else, so what few of them need is kept apart.
struct Cursor {
    /// `None` once the last period has ended.
    place: Option<Attached>,
    /// The last entry pushed.
    seq: Seq,
    /// The period's first entry.
    from: Seq,
    /// What the client confirmed.
    delivered: Seq,
    /// Whether the client knows where this conversation's pushes start.
    announced: bool,
    /// Whether a page was asked for.
    paging: bool,
    /// Whether it is to be looked at.
    queued: bool,
    /// Whether the client was told that it cannot be delivered.
    lost: bool,
}

/// An idle connection is its cursors above all.
const _: () = assert!(size_of::<Cursor>() <= 48);

/// Of a user who was a member several times, or is no longer.
#[derive(Default)]
struct Ends {
    /// The period's last entry, if the period had ended at the login.
    until: Option<Seq>,
    /// Periods that follow.
    later: VecDeque<(Seq, Option<Seq>)>,
}

impl Ends {
    /// Of a first period that ends there, and the periods after it.
    fn new(until: Option<Seq>, later: VecDeque<(Seq, Option<Seq>)>) -> Option<Self> {
        (until.is_some() || !later.is_empty()).then_some(Self { until, later })
    }

    /// The last entry of the last period, if that has ended.
    fn last(&self) -> Option<Seq> {
        self.later.back().map_or(self.until, |(_, until)| *until)
    }
}

/// What a session cannot do itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Read a page of the log above `after`, for [`Session::page`].
    Page {
        /// Which log.
        conv: ConversationId,
        /// Above what.
        after: Seq,
    },
    /// Become a reader of a conversation that was opened, for [`Session::add`].
    Attach {
        /// Which one.
        conv: ConversationId,
        /// What the user may not read.
        after: Seq,
    },
    /// Watch a new friend's presence.
    Watch(UserId),
    /// No longer.
    Unwatch(UserId),
}

/// Where a session stands, for an operator who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Conversations that it reads.
    pub conversations: usize,
    /// Entries that are still to be pushed in the conversation that is farthest behind, as far as the node knows.
    pub behind: u64,
    /// In the conversation asked about, if it has a cursor there: the last entry pushed, and the last one confirmed.
    pub at: Option<(Seq, Seq)>,
}

/// Where a session starts in one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The last entry seen.
    pub seq: Seq,
    /// The first period that is left: its first entry, and its last one if it has ended.
    period: (Seq, Option<Seq>),
    /// The periods after it.
    later: VecDeque<(Seq, Option<Seq>)>,
    announced: bool,
    delivered: Seq,
}

/// Where a session starts: in which conversations, and where in each.
///
/// `periods` are the user's, ordered; `named` are the client's own cursors, with the heads of those conversations.
/// A conversation that is not named starts at the delivered cursor.
pub fn starts(
    periods: &[Period],
    named: &Cursors,
    heads: &BTreeMap<ConversationId, Seq>,
) -> (BTreeMap<ConversationId, Start>, Refused) {
    let mut refused = Refused::new();
    let mut by_conv: BTreeMap<ConversationId, Vec<Period>> = BTreeMap::new();
    for period in periods {
        by_conv.entry(period.conv).or_default().push(*period);
    }
    for (conv, seq) in named {
        if !by_conv.contains_key(conv) {
            refused.insert(*conv, CursorRefusal::NoSuchConversation);
        } else if *seq > heads.get(conv).copied().unwrap_or_default() {
            refused.insert(*conv, CursorRefusal::CursorAhead);
        }
    }
    let mut starts = BTreeMap::new();
    for (conv, periods) in by_conv {
        let own = named.get(&conv).filter(|_| !refused.contains_key(&conv));
        let delivered = periods[0].delivered;
        let seen = own.copied().unwrap_or(delivered);
        let left = periods.iter().filter(|period| period.until.is_none_or(|until| until > seen));
        let mut left = left.map(|period| (period.from, period.until));
        let Some(period) = left.next() else { continue };
        let start = period.0.previous();
        let announced = own.is_some() && seen >= start;
        starts.insert(
            conv,
            Start { seq: seen.max(start), period, later: left.collect(), announced, delivered },
        );
    }
    (starts, refused)
}

impl Session {
    /// A session without conversations.
    pub fn new(user: UserId) -> Self {
        Self {
            user,
            cursors: LiteMap::new(),
            ends: BTreeMap::new(),
            queue: VecDeque::new(),
            targets: BTreeMap::new(),
            caught_up: false,
            settled: Seq::ZERO,
            needs: VecDeque::new(),
        }
    }

    /// Whose it is.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Adds the conversations it starts with. `caught_up` is said when all have reached the heads they have now.
    ///
    /// `settled` is the head of the user's notices *before* the list of periods was read: what opened up to there is in the list, and
    /// what opens later is told by a notice.
    pub fn open(&mut self, attached: Vec<Attached>, starts: BTreeMap<ConversationId, Start>, settled: Seq) {
        self.settled = settled;
        self.cursors.reserve(attached.len());
        for (place, (conv, start)) in attached.into_iter().zip(starts) {
            debug_assert_eq!(place.cell.conv, conv);
            let head = place.cell.lock().head();
            let Start { seq, period: (from, until), later, announced, delivered } = start;
            let ends = Ends::new(until, later);
            let target = ends.as_ref().and_then(Ends::last).unwrap_or(head);
            if target > seq {
                self.targets.insert(conv, target);
            }
            let (place, paging, queued, lost) = (Some(place), false, false, false);
            let cursor = Cursor { place, seq, from, delivered, announced, paging, queued, lost };
            self.cursors.insert(conv, cursor);
            self.ends.extend(ends.map(|ends| (conv, ends)));
            self.enqueue(conv);
        }
    }

    /// Whether the user reads a conversation at the moment.
    pub fn reads(&self, conv: ConversationId) -> bool {
        self.cursors.get(&conv).is_some_and(|cursor| cursor.place.is_some())
    }

    /// The feed of a conversation that the user reads.
    pub fn cell(&self, conv: ConversationId) -> Option<&Arc<crate::feed::FeedCell>> {
        self.cursors.get(&conv)?.place.as_ref().map(|place| &place.cell)
    }

    /// Adds a conversation that was opened for the user.
    pub fn add(&mut self, place: Attached, after: Seq) {
        let conv = place.cell.conv;
        // It was asked for when the conversation was not read yet; an earlier period's place may have come since.
        if self.knows_period(conv, after) {
            return;
        }
        let (delivered, queued) =
            self.cursors.get(&conv).map_or((Seq::ZERO, false), |cursor| (cursor.delivered, cursor.queued));
        let cursor = Cursor {
            place: Some(place),
            seq: after,
            from: after.next(),
            delivered,
            announced: false,
            paging: false,
            queued,
            lost: false,
        };
        self.cursors.insert(conv, cursor);
        self.ends.remove(&conv);
        self.enqueue(conv);
    }

    /// Takes signals: these conversations advanced.
    pub fn signal(&mut self, convs: impl IntoIterator<Item = ConversationId>) {
        for conv in convs {
            self.enqueue(conv);
        }
    }

    /// Whether [`fill`](Self::fill) has anything to look at.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.caught_up
    }

    /// Appends pushes to `out` until it holds `budget` bytes, or all there is.
    pub fn fill(&mut self, out: &mut Vec<u8>, budget: usize) {
        while out.len() < budget {
            let Some(conv) = self.queue.pop_front() else { break };
            let Some(cursor) = self.cursors.get_mut(&conv) else { continue };
            cursor.queued = false;
            if cursor.paging {
                continue;
            }
            let (user, settled, ends, needs) = (self.user, self.settled, &mut self.ends, &mut self.needs);
            let mut reader = Reader { user, conv, settled, ends, out, needs };
            match cursor.advance(&mut reader, budget) {
                Step::Done => {}
                Step::Again => self.enqueue(conv),
            }
            self.reached(conv);
        }
        if self.targets.is_empty() && !self.caught_up && out.len() < budget {
            self.caught_up = true;
            // What they held is not needed again: from now on few conversations advance at once.
            self.queue.shrink_to_fit();
            self.targets = BTreeMap::new();
            write_push(out, &Push::CaughtUp);
        }
    }

    /// What the connection has to do next.
    pub fn need(&mut self) -> Option<Need> {
        while let Some(need) = self.needs.pop_front() {
            match need {
                Need::Attach { conv, after } if self.knows_period(conv, after) => {}
                need => return Some(need),
            }
        }
        None
    }

    /// Whether the period that begins above `after` is one that the session reads, or comes to when the present one ends.
    fn knows_period(&mut self, conv: ConversationId, after: Seq) -> bool {
        let Some(cursor) = self.cursors.get_mut(&conv) else { return false };
        let from = after.next();
        if from <= cursor.from {
            return true;
        }
        if cursor.place.is_none() {
            return false;
        }
        // A direct conversation has one period, however often it is opened.
        if conv.peer_of(self.user).is_none() {
            let later = &mut self.ends.entry(conv).or_default().later;
            if later.iter().all(|(later, _)| *later != from) {
                later.push_back((from, None));
            }
        }
        true
    }

    /// Takes the page that [`Need::Page`] asked for. A page is written whole, so `out` can exceed its budget by one.
    pub fn page(&mut self, conv: ConversationId, lines: &[Arc<Line>], out: &mut Vec<u8>) {
        let Some(cursor) = self.cursors.get_mut(&conv) else { return };
        cursor.paging = false;
        if lines.first().is_some_and(|line| line.seq != cursor.seq.next()) || lines.is_empty() {
            cursor.lose(conv, out);
        } else {
            let (user, settled, ends, needs) = (self.user, self.settled, &mut self.ends, &mut self.needs);
            let mut reader = Reader { user, conv, settled, ends, out, needs };
            for line in lines {
                if !cursor.push(&mut reader, line) {
                    cursor.next_period(&mut reader);
                    break;
                }
            }
            self.enqueue(conv);
        }
        self.reached(conv);
    }

    /// The last entry pushed of a conversation.
    pub fn cursor(&self, conv: ConversationId) -> Seq {
        self.cursors.get(&conv).map_or(Seq::ZERO, |cursor| cursor.seq)
    }

    /// Where it stands, in all and in one conversation.
    pub fn standing(&self, conv: Option<ConversationId>) -> Standing {
        let (mut conversations, mut behind) = (0, 0);
        for (conv, cursor) in &self.cursors {
            let Some(place) = &cursor.place else { continue };
            let head = place.cell.lock().head();
            let end = self.ends.get(conv).and_then(Ends::last).unwrap_or(head);
            conversations += 1;
            behind = behind.max(end.0.saturating_sub(cursor.seq.0));
        }
        let at = conv.and_then(|conv| self.cursors.get(&conv)).map(|cursor| (cursor.seq, cursor.delivered));
        Standing { conversations, behind, at }
    }

    /// Takes what the client confirms; returns the delivered cursors that grow by it.
    pub fn acknowledge(&mut self, cursors: &Cursors) -> Vec<(ConversationId, Seq)> {
        let mut grown = Vec::new();
        for (conv, seq) in cursors {
            let Some(cursor) = self.cursors.get_mut(conv) else { continue };
            // No more than was pushed to this session, and nothing of a log that may not be what it was.
            let seq = (*seq).min(cursor.seq);
            if seq > cursor.delivered && !cursor.lost {
                cursor.delivered = seq;
                grown.push((*conv, seq));
            }
        }
        grown
    }

    fn enqueue(&mut self, conv: ConversationId) {
        let Some(cursor) = self.cursors.get_mut(&conv) else { return };
        if !std::mem::replace(&mut cursor.queued, true) {
            self.queue.push_back(conv);
        }
    }

    /// Sees whether a cursor has reached what `caught_up` waits for.
    fn reached(&mut self, conv: ConversationId) {
        let (Some(cursor), Some(target)) = (self.cursors.get(&conv), self.targets.get(&conv)) else { return };
        if cursor.seq >= *target || cursor.place.is_none() {
            self.targets.remove(&conv);
        }
    }
}

/// Whether a conversation has to be looked at again without a signal.
enum Step {
    Done,
    Again,
}

/// Who reads what, and where it goes.
struct Reader<'a> {
    user: UserId,
    conv: ConversationId,
    settled: Seq,
    ends: &'a mut BTreeMap<ConversationId, Ends>,
    out: &'a mut Vec<u8>,
    needs: &'a mut VecDeque<Need>,
}

impl Cursor {
    /// Pushes what the feed has in memory, up to the budget.
    fn advance(&mut self, reader: &mut Reader<'_>, budget: usize) -> Step {
        let Some(place) = self.place.as_ref() else { return Step::Done };
        let (cell, place) = (Arc::clone(&place.cell), place.place);
        let mut feed = cell.lock();
        match feed.look(place, self.seq) {
            Found::Lines(lines) => {
                for line in lines {
                    if reader.out.len() >= budget {
                        return Step::Again;
                    }
                    if !self.push(reader, line) {
                        drop(feed);
                        return self.next_period(reader);
                    }
                }
            }
            Found::InStore => {
                self.paging = true;
                reader.needs.push_back(Need::Page { conv: reader.conv, after: self.seq });
            }
            Found::Lost => {
                drop(feed);
                self.lose(reader.conv, reader.out);
            }
        }
        Step::Done
    }

    /// Pushes one entry; `false` if it is the last one of the period, which has then been left.
    fn push(&mut self, reader: &mut Reader<'_>, line: &Line) -> bool {
        let Reader { user, conv, settled, ends, out, needs } = reader;
        let (user, conv) = (*user, *conv);
        debug_assert_eq!(line.seq, self.seq.next(), "entries are pushed in order, without gaps");
        if !self.announced {
            self.announced = true;
            write_push(out, &Push::Open { conv, after: self.seq });
        }
        out.extend_from_slice(&line.bytes);
        self.seq = line.seq;
        let mut over = ends.get(&conv).is_some_and(|ends| ends.until == Some(line.seq));
        if let Some(event) = &line.event {
            let (from, body) = &**event;
            over |= ends_membership(body, *from, user);
            match (body, conv.peer_of(user)) {
                (EntryBody::Opened { opened, after, .. }, _) if line.seq > *settled => {
                    needs.push_back(Need::Attach { conv: *opened, after: *after });
                }
                (EntryBody::Befriended, Some(peer)) => needs.push_back(Need::Watch(peer)),
                (EntryBody::Unfriended, Some(peer)) => needs.push_back(Need::Unwatch(peer)),
                _ => {}
            }
        }
        !over
    }

    /// Goes on with the next period, or gives up the place.
    fn next_period(&mut self, reader: &mut Reader<'_>) -> Step {
        let mut later = reader.ends.remove(&reader.conv).unwrap_or_default().later;
        let Some((from, until)) = later.pop_front() else {
            self.place = None;
            return Step::Done;
        };
        self.seq = from.previous().max(self.seq);
        self.from = from;
        reader.ends.extend(Ends::new(until, later).map(|ends| (reader.conv, ends)));
        self.announced = false;
        Step::Again
    }

    fn lose(&mut self, conv: ConversationId, out: &mut Vec<u8>) {
        write_push(out, &Push::Lost { conv, after: self.seq });
        self.place = None;
        self.lost = true;
    }
}
