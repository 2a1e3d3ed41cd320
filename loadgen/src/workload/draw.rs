//! What a session does next when no script says it: drawn from what its user knows by now.

use std::time::Duration;

use protocol::{Conversation, ConversationId};

use super::{
    people::{CROWD, People, Person},
    plan::{Plan, Step},
    script::{Action, Place},
};
use crate::rng::Rng;

/// Sends of a drawn burst.
const BURST_MAX: u64 = 8;

/// Who draws.
pub(super) struct Draw<'a> {
    pub(super) plan: &'a Plan,
    pub(super) people: &'a People,
    pub(super) person: &'a Person,
    pub(super) rng: &'a mut Rng,
}

impl Draw<'_> {
    /// The next thing to do; `None` if there is nothing to do it to.
    pub(super) fn next(&mut self) -> Option<Action> {
        Some(match self.plan.mix.draw(self.rng) {
            Step::Send => Action::Send { to: self.somewhere()?, text_bytes: 0 },
            Step::Burst => {
                Action::Burst { to: self.somewhere()?, count: 2 + self.rng.below(BURST_MAX - 1) as usize }
            }
            Step::Repeat => Action::Repeat { back: self.back()? },
            Step::History => Action::History {
                of: self.somewhere()?,
                before: self.rng.chance(1, 3).then(|| 1 + self.rng.below(200)),
                limit: self.rng.chance(3, 4).then(|| 1 + self.rng.below(100) as u32),
            },
            Step::Lists => match self.rng.below(3) {
                0 => Action::Friends,
                1 => Action::Groups,
                _ => Action::Members { group: self.some_group()? },
            },
            Step::Befriend => Action::Befriend { user: self.user() },
            Step::Unfriend => Action::Unfriend { user: self.user() },
            Step::Block => Action::Block { user: self.user() },
            Step::Unblock => Action::Unblock { user: self.user() },
            Step::CreateGroup => Action::CreateGroup { group: self.people.fresh_label() },
            Step::Join => Action::Join { group: self.people.any_group(self.rng)? },
            Step::Quit => Action::Quit { group: self.some_group()? },
            Step::DeleteGroup => Action::DeleteGroup { group: self.own_group()? },
            Step::RemoveMember => Action::RemoveMember { group: self.own_group()?, user: self.user() },
            Step::Reconnect => Action::Reconnect { logout: self.rng.chance(1, 3), away: self.away() },
            Step::Crash => Action::Crash { away: self.away() },
            Step::Storm => Action::Storm,
            Step::Stall => Action::Stall { lasting: self.away() },
        })
    }

    fn user(&mut self) -> usize {
        self.rng.below(self.people.users.len() as u64) as usize
    }

    fn away(&mut self) -> Duration {
        let most = u64::try_from(self.plan.away_max.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.below(most))
    }

    fn back(&mut self) -> Option<usize> {
        let count = self.person.asked_count() as u64;
        (count > 0).then(|| self.rng.below(count) as usize)
    }

    /// Mostly where the user is at home, at once where rights have changed; sometimes elsewhere, to be refused.
    fn somewhere(&mut self) -> Option<Place> {
        if self.plan.crowd {
            return Some(Place::Group(CROWD));
        }
        if self.rng.chance(1, 2)
            && let Some(conv) = self.person.take_change()
        {
            return self.place(conv);
        }
        if self.rng.chance(9, 10)
            && let Some(conv) = self.person.any_conv(self.rng)
        {
            return self.place(conv);
        }
        if self.rng.chance(1, 2) {
            return self.people.any_group(self.rng).map(Place::Group);
        }
        let user = self.user();
        (user != self.person.at).then_some(Place::Direct(user))
    }

    fn place(&self, conv: ConversationId) -> Option<Place> {
        match conv.parse() {
            Conversation::Direct(a, b) => {
                let own = self.people.users.get(self.person.at) == Some(&a);
                self.people.place_of(if own { b } else { a }).map(Place::Direct)
            }
            Conversation::Group(group) => self.people.label_of(group).map(Place::Group),
            Conversation::Notices(_) => None,
        }
    }

    /// For what only its creator may do: mostly they do it.
    fn own_group(&mut self) -> Option<u32> {
        match self.rng.chance(3, 4) {
            true => self.person.own_group(self.rng).and_then(|group| self.people.label_of(group)),
            false => self.some_group(),
        }
    }

    fn some_group(&mut self) -> Option<u32> {
        match self.rng.chance(3, 4) {
            true => self.person.any_group(self.rng).and_then(|group| self.people.label_of(group)),
            false => self.people.any_group(self.rng),
        }
    }
}
