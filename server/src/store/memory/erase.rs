//! Erasing, in memory.

use std::{
    mem::discriminant,
    ops::Bound::{Excluded, Included, Unbounded},
};

use protocol::{ClientMsgId, ConversationId, EntryBody, Seq, UnixMillis, UserId};

use super::{
    super::{Erased, Expired, Mark, following},
    State,
};

impl State {
    pub(super) fn erase_account(&mut self, user: UserId, name: &str, name_key: String, hash: String) {
        let Some(row) = self.users.get_mut(&user) else { return };
        name.clone_into(&mut row.name);
        row.password_hash = hash;
        self.names.retain(|_, owner| *owner != user);
        self.names.insert(name_key, user);
        self.tokens.retain(|_, token| token.user != user);
        // A database looks the name up where it is read.
        let entries = self.logs.values_mut().flat_map(|log| &mut log.entries);
        for entry in entries.filter(|entry| entry.from == user) {
            name.clone_into(&mut entry.name);
        }
    }

    pub(super) fn expire(&mut self, after: Option<Mark>, before: UnixMillis, limit: usize) -> Expired {
        let after = after.map_or(Unbounded, |mark| Excluded((mark.at, mark.conv, mark.seq)));
        let looked = self.committed.range((after, Unbounded)).take_while(|(at, ..)| *at < before);
        let looked: Vec<_> = looked.take(limit).copied().collect();
        let erased = looked.iter().filter(|(_, conv, seq)| self.erase_text(*conv, *seq)).count() as u64;
        let last = looked.last().map(|(at, conv, seq)| Mark { at: *at, conv: *conv, seq: *seq });
        self.expired = self.expired.max(last);
        Expired { erased, reached: last.filter(|_| looked.len() == limit) }
    }

    pub(super) fn erase(
        &mut self,
        conv: ConversationId,
        user: UserId,
        from: ClientMsgId,
        limit: usize,
    ) -> Erased {
        let Some(log) = self.logs.get(&conv) else { return Erased::default() };
        let last = (user, ClientMsgId([u8::MAX; 16]));
        let looked: Vec<_> = log
            .mids
            .range((Included((user, from)), Included(last)))
            .take(limit)
            .map(|((_, mid), at)| (*mid, Seq(*at as u64 + 1)))
            .collect();
        let erased = looked.iter().filter(|(_, seq)| self.erase_text(conv, *seq)).count() as u64;
        let last = looked.last().filter(|_| looked.len() == limit);
        Erased { erased, next: last.and_then(|(mid, _)| following(*mid)) }
    }

    pub(super) fn rename_in(&mut self, conv: ConversationId, seq: Seq, body: &EntryBody) {
        if let Some(found) = self.body(conv, seq)
            && discriminant(found) == discriminant(body)
        {
            found.clone_from(body);
        }
    }

    /// Erases a message; whether there was one.
    fn erase_text(&mut self, conv: ConversationId, seq: Seq) -> bool {
        let message = self.body(conv, seq).filter(|body| matches!(body, EntryBody::Message { .. }));
        message.map(|body| *body = EntryBody::Erased).is_some()
    }

    fn body(&mut self, conv: ConversationId, seq: Seq) -> Option<&mut EntryBody> {
        let at = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        self.logs.get_mut(&conv)?.entries.get_mut(at).map(|entry| &mut entry.body)
    }
}
