//! Who is there, who talks to whom, and who sends: a value, computed from the options.

use super::{
    options::{Options, Scenario},
    stamp::LineId,
};

/// The users of a run are numbered from 0.
pub(super) type UserIndex = u32;
/// Its conversations likewise.
pub(super) type ConvIndex = u32;

/// Everything that is made before the load.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// How many users there are.
    pub(super) users: u32,
    /// By [`ConvIndex`].
    pub(super) convs: Vec<ConvPlan>,
    /// By [`LineId`].
    pub(super) lines: Vec<LinePlan>,
    /// Who reads pages of which conversation, and how much of the load that is.
    pub(super) readers: Vec<LinePlan>,
    /// Conversations by user.
    pub(super) convs_of: Vec<Vec<ConvIndex>>,
}

/// A conversation.
#[derive(Debug)]
pub(super) struct ConvPlan {
    /// Whether it is a group's. The first member creates it, or befriends the other one.
    pub(super) is_group: bool,
    /// In the order in which they come.
    pub(super) members: Vec<UserIndex>,
}

/// One user's way into one conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinePlan {
    /// Which conversation.
    pub(super) conv: ConvIndex,
    /// Whose.
    pub(super) user: UserIndex,
    /// Its share of the load; all shares make one.
    pub(super) share: f64,
}

impl Layout {
    /// What the options ask for.
    pub(super) fn new(options: &Options) -> Self {
        let mut layout = Self::default();
        match options.scenario {
            Scenario::Direct => layout.pairs(options.pairs, 1.0, 0.0),
            Scenario::History => layout.pairs(options.pairs, 0.0, 1.0),
            Scenario::Group => layout.groups(options, 1.0),
            Scenario::Mixed => {
                layout.pairs(options.pairs, 0.7, 0.05);
                layout.groups(options, 0.25);
            }
            Scenario::LoginStorm | Scenario::ReconnectStorm | Scenario::Idle => {
                layout.ring(options.connections, options.conversations);
            }
            Scenario::Trickle => {
                layout.ring(options.connections, options.conversations);
                layout.everybody_sends();
            }
        }
        if !options.scenario.is_storm() {
            layout.ring(options.bystanders, options.conversations);
        }
        layout.convs_of = vec![Vec::new(); layout.users as usize];
        for (index, conv) in (0..).zip(&layout.convs) {
            for member in &conv.members {
                layout.convs_of[*member as usize].push(index);
            }
        }
        layout
    }

    /// The lines of a conversation.
    pub(super) fn lines_of(&self) -> Vec<Vec<LineId>> {
        let mut all = vec![Vec::new(); self.convs.len()];
        for (id, line) in (0..).zip(&self.lines) {
            all[line.conv as usize].push(id);
        }
        all
    }

    fn pairs(&mut self, pairs: u32, sends: f64, reads: f64) {
        let first = self.users;
        self.users += 2 * pairs;
        for pair in 0..pairs {
            let (a, b) = (first + 2 * pair, first + 2 * pair + 1);
            let conv = self.conv(false, vec![a, b]);
            let plan = |share: f64| LinePlan { conv, user: a, share: share / f64::from(pairs) };
            // The reader fills its log first, and so has a line as well.
            self.lines.push(plan(sends));
            if reads > 0.0 {
                self.readers.push(plan(reads));
            }
        }
    }

    fn groups(&mut self, options: &Options, sends: f64) {
        let senders = options.senders.min(options.members);
        for _ in 0..options.groups {
            let first = self.users;
            self.users += options.members;
            let conv = self.conv(true, (first..self.users).collect());
            let share = sends / f64::from(senders) / f64::from(options.groups);
            self.lines.extend((first..first + senders).map(|user| LinePlan { conv, user, share }));
        }
    }

    /// More users, each a friend of those who stand next.
    fn ring(&mut self, users: u32, friends: u32) {
        let first = self.users;
        self.users += users;
        for a in 0..users {
            // In a small ring one meets the same friends on both sides.
            for step in 1..=(friends / 2).min(users.saturating_sub(1) / 2) {
                self.conv(false, vec![first + a, first + (a + step) % users]);
            }
        }
    }

    /// In each conversation one sends to the other, and all as much.
    fn everybody_sends(&mut self) {
        let share = 1.0 / self.convs.len().max(1) as f64;
        let line = |(conv, plan): (ConvIndex, &ConvPlan)| LinePlan { conv, user: plan.members[0], share };
        self.lines = (0..).zip(&self.convs).map(line).collect();
    }

    fn conv(&mut self, is_group: bool, members: Vec<UserIndex>) -> ConvIndex {
        self.convs.push(ConvPlan { is_group, members });
        // As many as the options allow fit.
        (self.convs.len() - 1) as ConvIndex
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn layout(line: &str) -> Layout {
        Layout::new(&Options::parse_from(std::iter::once("chatload").chain(line.split(' '))))
    }

    #[test]
    fn layouts() {
        let check = |line, users, convs, lines, readers| {
            let layout = layout(line);
            let found = (layout.users, layout.convs.len(), layout.lines.len(), layout.readers.len());
            assert_eq!(found, (users, convs, lines, readers), "{line}");
            let share: f64 = layout.lines.iter().chain(&layout.readers).map(|line| line.share).sum();
            assert!(lines == 0 || (share - 1.0).abs() < 1e-9, "{line}: {share}");
        };
        check("direct --pairs 3", 6, 3, 3, 0);
        check("history --pairs 3", 6, 3, 3, 3);
        check("group --members 5 --senders 2 --groups 3", 15, 3, 6, 0);
        check("group --members 2 --senders 20", 2, 1, 2, 0);
        check("mixed --pairs 3 --members 5 --senders 2", 11, 4, 5, 3);
        check("idle --connections 100 --conversations 10", 100, 500, 0, 0);
        check("trickle --connections 100 --conversations 10", 100, 500, 500, 0);
        check("idle --connections 1", 1, 0, 0, 0);
        check("direct --pairs 3 --bystanders 100 --conversations 4", 106, 203, 3, 0);
        check("login-storm --connections 10 --conversations 0 --bystanders 5", 10, 0, 0, 0);
        let layout = layout("idle --connections 100 --conversations 10");
        assert!(layout.convs_of.iter().all(|convs| convs.len() == 10));
    }
}
