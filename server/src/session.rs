//! A session: a set of cursors over the logs its user may read. Sans-IO.
//!
//! Delivering is advancing a cursor: from the feed's recent entries when they are there, from a page of the store when they
//! are not ([`Need::Page`]). Login catch-up, offline messages, resume, a lost hint and a slow reader are
//! this one mechanism.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

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
    /// By conversation.
    cursors: BTreeMap<ConversationId, Cursor>,
    /// Conversations to look at; each at most once.
    queue: VecDeque<ConversationId>,
    queued: BTreeSet<ConversationId>,
    /// Cursors that have not reached the head they had at the login.
    behind: usize,
    caught_up: bool,
    /// What the connection has to do before this conversation goes on, and at once.
    needs: VecDeque<Need>,
}

/// Where a session stands in a conversation.
struct Cursor {
    /// `None` once the last period has ended.
    place: Option<Attached>,
    /// The last entry pushed.
    seq: Seq,
    /// The period's first entry.
    from: Seq,
    /// The period's last entry, if the period had ended at the login.
    until: Option<Seq>,
    /// Periods that follow.
    later: VecDeque<(Seq, Option<Seq>)>,
    /// What has to be reached for `caught_up`.
    target: Option<Seq>,
    /// Whether the client knows where this conversation's pushes start.
    announced: bool,
    /// What the client confirmed.
    delivered: Seq,
    /// Whether a page was asked for.
    paging: bool,
    /// Of the notices: those up to here were taken into account at the login.
    settled: Seq,
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

/// Where a session starts in one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The last entry seen.
    pub seq: Seq,
    /// The end of the first period, and the periods after it.
    periods: VecDeque<(Seq, Option<Seq>)>,
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
        let periods: VecDeque<_> = left.map(|period| (period.from, period.until)).collect();
        let Some((from, _)) = periods.front() else { continue };
        let announced = own.is_some() && seen >= from.previous();
        let seq = seen.max(from.previous());
        starts.insert(conv, Start { seq, periods, announced, delivered });
    }
    (starts, refused)
}

impl Session {
    /// A session without conversations.
    pub fn new(user: UserId) -> Self {
        Self {
            user,
            cursors: BTreeMap::new(),
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            behind: 0,
            caught_up: false,
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
        for (place, (conv, start)) in attached.into_iter().zip(starts) {
            debug_assert_eq!(place.cell.conv, conv);
            let head = place.cell.lock().head();
            let mut later = start.periods;
            let (from, until) = later.pop_front().unwrap_or_default();
            // The head, or the end of the last period.
            let target = later.back().map_or(until, |(_, until)| *until).unwrap_or(head);
            let target = (target > start.seq).then_some(target);
            self.behind += usize::from(target.is_some());
            let cursor = Cursor {
                place: Some(place),
                seq: start.seq,
                from,
                until,
                later,
                target,
                announced: start.announced,
                delivered: start.delivered,
                paging: false,
                settled,
            };
            self.cursors.insert(conv, cursor);
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
        let delivered = self.cursors.get(&conv).map_or(Seq::ZERO, |cursor| cursor.delivered);
        let cursor = Cursor {
            place: Some(place),
            seq: after,
            from: after.next(),
            until: None,
            later: VecDeque::new(),
            target: None,
            announced: false,
            delivered,
            paging: false,
            settled: Seq::ZERO,
        };
        self.cursors.insert(conv, cursor);
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
            self.queued.remove(&conv);
            let Some(cursor) = self.cursors.get_mut(&conv).filter(|cursor| !cursor.paging) else { continue };
            match cursor.advance(self.user, conv, out, budget, &mut self.needs) {
                Step::Done => {}
                Step::Again => self.enqueue(conv),
            }
            self.reached(conv);
        }
        if self.behind == 0 && !self.caught_up && out.len() < budget {
            self.caught_up = true;
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
        if conv.peer_of(self.user).is_none() && cursor.later.iter().all(|(later, _)| *later != from) {
            cursor.later.push_back((from, None));
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
            for line in lines {
                if !cursor.push(self.user, conv, line, out, &mut self.needs) {
                    cursor.next_period();
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

    /// Takes what the client confirms; returns the delivered cursors that grow by it.
    pub fn acknowledge(&mut self, cursors: &Cursors) -> Vec<(ConversationId, Seq)> {
        let mut grown = Vec::new();
        for (conv, seq) in cursors {
            let Some(cursor) = self.cursors.get_mut(conv) else { continue };
            // No more than was pushed to this session.
            let seq = (*seq).min(cursor.seq);
            if seq > cursor.delivered {
                cursor.delivered = seq;
                grown.push((*conv, seq));
            }
        }
        grown
    }

    fn enqueue(&mut self, conv: ConversationId) {
        if self.queued.insert(conv) {
            self.queue.push_back(conv);
        }
    }

    /// Sees whether a cursor has reached what `caught_up` waits for.
    fn reached(&mut self, conv: ConversationId) {
        let Some(cursor) = self.cursors.get_mut(&conv) else { return };
        if cursor.target.is_some_and(|target| cursor.seq >= target || cursor.place.is_none()) {
            cursor.target = None;
            self.behind -= 1;
        }
    }
}

/// Whether a conversation has to be looked at again without a signal.
enum Step {
    Done,
    Again,
}

impl Cursor {
    /// Pushes what the feed has in memory, up to the budget.
    fn advance(
        &mut self,
        user: UserId,
        conv: ConversationId,
        out: &mut Vec<u8>,
        budget: usize,
        needs: &mut VecDeque<Need>,
    ) -> Step {
        let Some(place) = self.place.as_ref() else { return Step::Done };
        let (cell, slot) = (Arc::clone(&place.cell), place.slot);
        let mut feed = cell.lock();
        match feed.look(slot, self.seq) {
            Found::Lines(lines) => {
                for line in lines {
                    if out.len() >= budget {
                        return Step::Again;
                    }
                    if !self.push(user, conv, line, out, needs) {
                        drop(feed);
                        return self.next_period();
                    }
                }
            }
            Found::InStore => {
                self.paging = true;
                needs.push_back(Need::Page { conv, after: self.seq });
            }
            Found::Lost => {
                drop(feed);
                self.lose(conv, out);
            }
        }
        Step::Done
    }

    /// Pushes one entry; `false` if it is the last one of the period, which has then been left.
    fn push(
        &mut self,
        user: UserId,
        conv: ConversationId,
        line: &Line,
        out: &mut Vec<u8>,
        needs: &mut VecDeque<Need>,
    ) -> bool {
        debug_assert_eq!(line.seq, self.seq.next(), "entries are pushed in order, without gaps");
        if !self.announced {
            self.announced = true;
            write_push(out, &Push::Open { conv, after: self.seq });
        }
        out.extend_from_slice(&line.bytes);
        self.seq = line.seq;
        let mut ends = self.until == Some(line.seq);
        if let Some(event) = &line.event {
            let (from, body) = &**event;
            ends |= ends_membership(body, *from, user);
            match (body, conv.peer_of(user)) {
                (EntryBody::Opened { opened, after, .. }, _) if line.seq > self.settled => {
                    needs.push_back(Need::Attach { conv: *opened, after: *after });
                }
                (EntryBody::Befriended, Some(peer)) => needs.push_back(Need::Watch(peer)),
                (EntryBody::Unfriended, Some(peer)) => needs.push_back(Need::Unwatch(peer)),
                _ => {}
            }
        }
        !ends
    }

    /// Goes on with the next period, or gives up the place.
    fn next_period(&mut self) -> Step {
        match self.later.pop_front() {
            Some((from, until)) => {
                self.seq = from.previous().max(self.seq);
                self.from = from;
                self.until = until;
                self.announced = false;
                Step::Again
            }
            None => {
                self.place = None;
                Step::Done
            }
        }
    }

    fn lose(&mut self, conv: ConversationId, out: &mut Vec<u8>) {
        write_push(out, &Push::Lost { conv, after: self.seq });
        self.place = None;
    }
}
