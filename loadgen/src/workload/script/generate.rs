//! Scripts out of a seed, worth running: most of what they ask for is allowed, and what is forbidden is tried
//! where rights have just changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Action, Operation, Place};
use crate::{
    history::micros,
    rng::Rng,
    workload::plan::{Mix, Step},
};

/// What kind of script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// How many users there are.
    pub users: usize,
    /// Sessions of each.
    pub sessions: usize,
    /// How many operations.
    pub operations: usize,
    /// In which they begin.
    #[serde(with = "micros")]
    pub duration: Duration,
    /// How often which operation; what has no weight does not occur.
    pub mix: Mix,
    /// Out of a hundred sends and reads: how many go where most of the talk is.
    pub hot: u64,
    /// Out of a hundred operations: how many are drawn without a thought of whether they are allowed.
    pub careless: u64,
    /// Out of a hundred moments: how many bring operations that get into each other's way.
    pub conflicts: u64,
    /// The longest text; most are short.
    pub text_bytes_max: usize,
    /// The longest absence of a device, and the longest time that one reads nothing.
    #[serde(with = "micros")]
    pub away_max: Duration,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            users: 12,
            sessions: 2,
            operations: 100,
            duration: Duration::from_secs(10),
            mix: Mix { crash: 2, storm: 1, stall: 1, ..Mix::default() },
            hot: 70,
            careless: 8,
            conflicts: 10,
            text_bytes_max: 4096,
            away_max: Duration::from_secs(2),
        }
    }
}

/// A script of a seed, in the order of its times.
pub fn generate(seed: u64, shape: &Shape) -> Vec<Operation> {
    let mut author = Author {
        shape,
        rng: Rng::new(seed),
        friends: BTreeSet::new(),
        blocks: BTreeSet::new(),
        groups: BTreeMap::new(),
        labels: 0,
        now: Duration::ZERO,
        script: Vec::new(),
    };
    if shape.users > 0 && shape.sessions > 0 {
        author.write();
    }
    author.script
}

struct Author<'a> {
    shape: &'a Shape,
    rng: Rng,
    /// Pairs, the lower one first.
    friends: BTreeSet<(usize, usize)>,
    /// Who has blocked whom.
    blocks: BTreeSet<(usize, usize)>,
    /// Groups that live, as far as everything goes well.
    groups: BTreeMap<u32, Group>,
    labels: u32,
    now: Duration,
    script: Vec<Operation>,
}

#[derive(Debug)]
struct Group {
    creator: usize,
    members: BTreeSet<usize>,
}

/// What gets into each other's way.
#[derive(Debug, Clone, Copy)]
enum Conflict {
    /// Somebody is removed who talks at that moment.
    RemovedTalks,
    /// A group is deleted while others talk there and come.
    DeletedInUse,
    /// Somebody is blocked or no longer a friend, and talks.
    FriendTalks,
    /// Two befriend each other.
    BothBefriend,
    /// Somebody comes and is removed.
    JoinedRemoved,
    /// One session leaves a group in which the other one talks.
    QuitTalks,
    /// The device is gone before the answer has come.
    CrashedTalks,
    /// The same is asked on two devices at once.
    RepeatedElsewhere,
    /// Many talk in one place at once.
    AllTalk,
}

const CONFLICTS: [(Conflict, &[Step]); 9] = [
    (Conflict::RemovedTalks, &[Step::RemoveMember, Step::Send]),
    (Conflict::DeletedInUse, &[Step::DeleteGroup, Step::Join, Step::Send]),
    (Conflict::FriendTalks, &[Step::Block, Step::Unfriend, Step::Send]),
    (Conflict::BothBefriend, &[Step::Befriend]),
    (Conflict::JoinedRemoved, &[Step::Join, Step::RemoveMember]),
    (Conflict::QuitTalks, &[Step::Quit, Step::Send]),
    (Conflict::CrashedTalks, &[Step::Crash, Step::Send]),
    (Conflict::RepeatedElsewhere, &[Step::Repeat, Step::Send]),
    (Conflict::AllTalk, &[Step::Burst, Step::Send]),
];

/// Redraws of an operation that has nothing to be done to.
const REDRAWS: usize = 8;
/// Between an operation and the crash that hits it.
const HIT_MAX: Duration = Duration::from_millis(20);
/// Talkers of [`Conflict::AllTalk`].
const TALKERS_MAX: usize = 5;

impl Author<'_> {
    fn write(&mut self) {
        self.acquaint();
        let begun = self.now;
        while self.script.len() < self.shape.operations {
            self.now = begun + (self.shape.duration - begun).mul_f64(self.progress());
            if self.rng.chance(self.shape.conflicts, 100) {
                self.conflict();
            } else {
                let step = self.shape.mix.draw(&mut self.rng);
                self.step(step);
            }
        }
        self.script.sort_by_key(|operation| operation.at);
        self.script.truncate(self.shape.operations);
    }

    /// How far the script is. Some operations share their time with the one before.
    fn progress(&mut self) -> f64 {
        let (done, all) = (self.script.len() as u64, self.shape.operations as u64);
        let done = if self.rng.chance(1, 3) { done.saturating_sub(1) } else { done };
        done as f64 / all.max(1) as f64
    }

    /// At first some get to know each other, so that there is somebody to talk to.
    fn acquaint(&mut self) {
        let (users, most) = (self.shape.users, self.shape.operations / 3);
        let pace = self.shape.duration / (8 * most.max(1) as u32);
        if self.shape.mix.has(Step::CreateGroup) && most > 0 {
            let creator = self.user();
            let group = self.fresh_label();
            self.emit(creator, Action::CreateGroup { group });
        }
        for user in 0..users {
            self.now += pace;
            if self.shape.mix.has(Step::Befriend) && users > 1 && self.script.len() < most {
                self.emit(user, Action::Befriend { user: (user + 1) % users });
            }
            if self.shape.mix.has(Step::Join) && self.rng.chance(2, 3) && self.script.len() < most {
                self.step_of(user, Step::Join);
            }
        }
    }

    /// An operation of this kind by somebody; rather one that is allowed.
    fn step(&mut self, step: Step) {
        let careless = self.rng.chance(self.shape.careless, 100);
        for _ in 0..REDRAWS {
            if careless {
                break;
            }
            let sensible = match step {
                Step::Send | Step::Burst | Step::History => self.talk(),
                _ => None,
            };
            if let Some((user, place)) = sensible {
                let action = self.spoken(step, place);
                return self.emit(user, action);
            }
            let user = self.user();
            if self.step_of(user, step) {
                return;
            }
        }
        let (user, action) = (self.user(), self.thoughtless(step));
        self.emit(user, action);
    }

    /// An operation of this kind by this user, if there is one that is allowed.
    fn step_of(&mut self, user: usize, step: Step) -> bool {
        let action = match step {
            Step::Befriend => {
                let (friends, blocks) = (&self.friends, &self.blocks);
                let free = |peer: &usize| {
                    *peer != user && !friends.contains(&pair(user, *peer)) && !blocks.contains(&(*peer, user))
                };
                let peers: Vec<usize> = (0..self.shape.users).filter(free).collect();
                self.rng.pick(&peers).map(|peer| Action::Befriend { user: *peer })
            }
            Step::Unfriend => self.friend_of(user).map(|user| Action::Unfriend { user }),
            Step::Block => {
                let peer = self.friend_of(user).filter(|peer| !self.blocks.contains(&(user, *peer)));
                peer.map(|user| Action::Block { user })
            }
            Step::Unblock => {
                let blocked: Vec<usize> =
                    self.blocks.iter().filter(|(by, _)| *by == user).map(|(_, peer)| *peer).collect();
                self.rng.pick(&blocked).map(|peer| Action::Unblock { user: *peer })
            }
            Step::Join => {
                self.group(|group| !group.members.contains(&user)).map(|group| Action::Join { group })
            }
            Step::Quit => self
                .group(|group| group.members.contains(&user) && group.creator != user)
                .map(|group| Action::Quit { group }),
            Step::DeleteGroup => {
                self.group(|group| group.creator == user).map(|group| Action::DeleteGroup { group })
            }
            Step::RemoveMember => self
                .group(|group| group.creator == user && group.members.len() > 1)
                .and_then(|group| Some((group, self.member(group)?)))
                .map(|(group, user)| Action::RemoveMember { group, user }),
            Step::Send | Step::Burst | Step::History => None,
            _ => Some(self.thoughtless(step)),
        };
        let found = action.is_some();
        action.into_iter().for_each(|action| self.emit(user, action));
        found
    }

    /// An operation of this kind, whatever comes of it.
    fn thoughtless(&mut self, step: Step) -> Action {
        let (user, group) = (self.user(), self.rng.below(u64::from(self.labels) + 1) as u32);
        let away_max = u64::try_from(self.shape.away_max.as_millis()).unwrap_or(u64::MAX);
        let away = Duration::from_millis(self.rng.below(away_max));
        match step {
            Step::Send | Step::Burst | Step::History => {
                let place = match self.rng.below(3) {
                    0 => Place::Direct(user),
                    1 => Place::Group(group),
                    _ => Place::Hot,
                };
                self.spoken(step, place)
            }
            Step::Repeat => Action::Repeat { back: self.rng.below(4) as usize },
            Step::Lists => match self.rng.below(3) {
                0 => Action::Friends,
                1 => Action::Groups,
                _ => Action::Members { group },
            },
            Step::Befriend => Action::Befriend { user },
            Step::Unfriend => Action::Unfriend { user },
            Step::Block => Action::Block { user },
            Step::Unblock => Action::Unblock { user },
            Step::CreateGroup => Action::CreateGroup { group: self.fresh_label() },
            Step::Join => Action::Join { group },
            Step::Quit => Action::Quit { group },
            Step::DeleteGroup => Action::DeleteGroup { group },
            Step::RemoveMember => Action::RemoveMember { group, user },
            Step::Reconnect => Action::Reconnect { logout: self.rng.chance(1, 3), away },
            Step::Crash => Action::Crash { away },
            Step::Storm => Action::Storm,
            Step::Stall => Action::Stall { lasting: away },
        }
    }

    fn spoken(&mut self, step: Step, place: Place) -> Action {
        match step {
            Step::Burst => Action::Burst { to: place, count: 2 + self.rng.below(7) as usize },
            Step::History => Action::History {
                of: place,
                before: self.rng.chance(1, 3).then(|| 1 + self.rng.below(50)),
                limit: self.rng.chance(1, 2).then(|| 1 + self.rng.below(20) as u32),
            },
            _ => Action::Send {
                to: place,
                text_bytes: match self.rng.chance(1, 10) {
                    true => self.rng.below(self.shape.text_bytes_max as u64) as usize,
                    false => 0,
                },
            },
        }
    }

    /// Operations that begin at once.
    fn conflict(&mut self) {
        let possible: Vec<Conflict> = CONFLICTS
            .iter()
            .filter(|(_, steps)| steps.iter().all(|step| self.shape.mix.has(*step)))
            .map(|(conflict, _)| *conflict)
            .collect();
        let Some(conflict) = self.rng.pick(&possible).copied() else {
            let step = self.shape.mix.draw(&mut self.rng);
            return self.step(step);
        };
        if self.collide(conflict).is_none() {
            // There is nobody to do it with.
            let step = self.shape.mix.draw(&mut self.rng);
            self.step(step);
        }
    }

    fn collide(&mut self, conflict: Conflict) -> Option<()> {
        let send = |to| Action::Send { to, text_bytes: 0 };
        match conflict {
            Conflict::RemovedTalks => {
                let group = self.group(|group| group.members.len() > 1)?;
                let (creator, user) = (self.groups[&group].creator, self.member(group)?);
                self.emit(creator, Action::RemoveMember { group, user });
                self.emit(user, send(Place::Group(group)));
                self.emit(creator, send(Place::Group(group)));
            }
            Conflict::DeletedInUse => {
                let group = self.group(|group| group.members.len() > 1)?;
                let (creator, talker, comer) =
                    (self.groups[&group].creator, self.member(group)?, self.user());
                self.emit(talker, send(Place::Group(group)));
                self.emit(creator, Action::DeleteGroup { group });
                self.emit(comer, Action::Join { group });
                self.emit(talker, send(Place::Group(group)));
            }
            Conflict::FriendTalks => {
                let (a, b) = self.friendly_pair()?;
                let end = if self.rng.chance(1, 2) {
                    Action::Block { user: b }
                } else {
                    Action::Unfriend { user: b }
                };
                self.emit(a, end);
                self.emit(b, send(Place::Direct(a)));
                self.emit(a, send(Place::Direct(b)));
            }
            Conflict::BothBefriend => {
                let (a, b) = (self.user(), self.user());
                if a == b {
                    return None;
                }
                self.emit(a, Action::Befriend { user: b });
                self.emit(b, Action::Befriend { user: a });
            }
            Conflict::JoinedRemoved => {
                let user = self.user();
                let group = self.group(|group| !group.members.contains(&user))?;
                let creator = self.groups[&group].creator;
                self.emit(user, Action::Join { group });
                self.emit(creator, Action::RemoveMember { group, user });
            }
            Conflict::QuitTalks => {
                let group = self.group(|group| group.members.len() > 1)?;
                let user = self.member(group)?;
                self.emit_at(self.now, user, 0, Action::Quit { group });
                let other = self.shape.sessions - 1;
                self.emit_at(self.now, user, other, send(Place::Group(group)));
            }
            Conflict::CrashedTalks => {
                let ((user, to), session) = (self.talk()?, self.session());
                self.emit_at(self.now, user, session, send(to));
                let hit = HIT_MAX.mul_f64(self.rng.below(100) as f64 / 100.0);
                let away = self.thoughtless(Step::Crash);
                self.emit_at(self.now + hit, user, session, away);
            }
            Conflict::RepeatedElsewhere => {
                let (user, to) = self.talk()?;
                self.emit_at(self.now, user, 0, send(to));
                let other = self.shape.sessions - 1;
                self.emit_at(self.now, user, other, Action::Repeat { back: 0 });
            }
            Conflict::AllTalk => {
                let group = self.group(|group| group.members.len() > 1)?;
                let members: Vec<usize> =
                    self.groups[&group].members.iter().copied().take(TALKERS_MAX).collect();
                for user in members {
                    let action = match self.rng.chance(1, 2) {
                        true => Action::Burst { to: Place::Group(group), count: 3 },
                        false => send(Place::Group(group)),
                    };
                    self.emit(user, action);
                }
            }
        }
        Some(())
    }

    /// Somebody, and where they may talk: mostly where most do.
    fn talk(&mut self) -> Option<(usize, Place)> {
        if self.rng.chance(self.shape.hot, 100) {
            // The oldest is where most of the talk is.
            let group = self.groups.first_key_value().map(|(label, _)| *label);
            if let Some(group) = group.filter(|_| self.rng.chance(3, 4)) {
                let members: Vec<usize> = self.groups[&group].members.iter().copied().collect();
                return Some((*self.rng.pick(&members)?, Place::Group(group)));
            }
            let (a, b) = *self.friends.iter().find(|(a, b)| !self.blocked(*a, *b))?;
            return Some(if self.rng.chance(1, 2) { (a, Place::Direct(b)) } else { (b, Place::Direct(a)) });
        }
        let user = self.user();
        if self.rng.chance(1, 2) {
            return self
                .group(|group| group.members.contains(&user))
                .map(|group| (user, Place::Group(group)));
        }
        let friend = self.friend_of(user).filter(|friend| !self.blocked(user, *friend));
        friend.map(|friend| (user, Place::Direct(friend)))
    }

    fn friendly_pair(&mut self) -> Option<(usize, usize)> {
        let user = self.user();
        self.friend_of(user).map(|friend| (user, friend))
    }

    fn friend_of(&mut self, user: usize) -> Option<usize> {
        let other = |(a, b): &(usize, usize)| match (*a == user, *b == user) {
            (true, _) => Some(*b),
            (_, true) => Some(*a),
            _ => None,
        };
        let friends: Vec<usize> = self.friends.iter().filter_map(other).collect();
        self.rng.pick(&friends).copied()
    }

    /// Whether one of the two has blocked the other.
    fn blocked(&self, a: usize, b: usize) -> bool {
        self.blocks.contains(&(a, b)) || self.blocks.contains(&(b, a))
    }

    /// A group that lives, rather an old one.
    fn group(&mut self, which: impl Fn(&Group) -> bool) -> Option<u32> {
        let fitting: Vec<u32> =
            self.groups.iter().filter(|(_, group)| which(group)).map(|(label, _)| *label).collect();
        let first = self.rng.chance(self.shape.hot, 100);
        if first { fitting.first().copied() } else { self.rng.pick(&fitting).copied() }
    }

    /// A member who did not create the group.
    fn member(&mut self, group: u32) -> Option<usize> {
        let group = self.groups.get(&group)?;
        let others: Vec<usize> =
            group.members.iter().copied().filter(|user| *user != group.creator).collect();
        self.rng.pick(&others).copied()
    }

    fn user(&mut self) -> usize {
        self.rng.below(self.shape.users as u64) as usize
    }

    fn session(&mut self) -> usize {
        self.rng.below(self.shape.sessions as u64) as usize
    }

    fn fresh_label(&mut self) -> u32 {
        self.labels += 1;
        self.labels
    }

    fn emit(&mut self, user: usize, what: Action) {
        let session = self.session();
        self.emit_at(self.now, user, session, what);
    }

    fn emit_at(&mut self, at: Duration, user: usize, session: usize, what: Action) {
        self.imagine(user, &what);
        // A script is written in milliseconds.
        let at = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        self.script.push(Operation { at, user, session, what });
    }

    /// What comes of an operation if all goes well.
    fn imagine(&mut self, by: usize, what: &Action) {
        match what {
            Action::Befriend { user } if by != *user && !self.blocks.contains(&(*user, by)) => {
                self.friends.insert(pair(by, *user));
            }
            Action::Unfriend { user } => drop(self.friends.remove(&pair(by, *user))),
            Action::Block { user } if by != *user => drop(self.blocks.insert((by, *user))),
            Action::Unblock { user } => drop(self.blocks.remove(&(by, *user))),
            Action::CreateGroup { group } => {
                self.groups.insert(*group, Group { creator: by, members: BTreeSet::from([by]) });
            }
            Action::Join { group } => {
                self.groups.get_mut(group).map(|group| group.members.insert(by));
            }
            Action::Quit { group } | Action::DeleteGroup { group } => {
                if self.groups.get(group).is_some_and(|group| group.creator == by) {
                    self.groups.remove(group);
                } else if let (Some(group), Action::Quit { .. }) = (self.groups.get_mut(group), what) {
                    group.members.remove(&by);
                }
            }
            Action::RemoveMember { group, user } => {
                if let Some(group) =
                    self.groups.get_mut(group).filter(|group| group.creator == by && *user != by)
                {
                    group.members.remove(user);
                }
            }
            _ => {}
        }
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(script: &[Operation], which: impl Fn(&Action) -> bool) -> usize {
        script.iter().filter(|operation| which(&operation.what)).count()
    }

    #[test]
    fn a_seed_is_a_script_of_its_shape() {
        let shapes = [
            Shape::default(),
            Shape { users: 1, sessions: 1, ..Shape::default() },
            Shape { users: 2, sessions: 3, operations: 7, ..Shape::default() },
            Shape { users: 200, operations: 1000, ..Shape::default() },
            Shape { operations: 1, duration: Duration::ZERO, ..Shape::default() },
        ];
        for shape in shapes {
            for seed in 0..30 {
                let script = generate(seed, &shape);
                assert_eq!(script, generate(seed, &shape));
                assert!(shape.operations < 50 || script != generate(seed + 1, &shape));
                assert_eq!(script.len(), shape.operations);
                assert!(script.is_sorted_by_key(|operation| operation.at));
                for operation in &script {
                    assert!(operation.user < shape.users && operation.session < shape.sessions);
                    assert!(operation.at <= shape.duration + HIT_MAX, "{operation:?}");
                }
            }
        }
        assert!(generate(1, &Shape { users: 0, ..Shape::default() }).is_empty());
    }

    #[test]
    fn what_has_no_weight_does_not_occur() {
        let only = |mix: Mix| Shape { mix, conflicts: 50, ..Shape::default() };
        for seed in 0..30 {
            let script = generate(seed, &only(Mix { send: 5, befriend: 1, ..Mix::NONE }));
            let of_these = |what: &Action| matches!(what, Action::Send { .. } | Action::Befriend { .. });
            assert_eq!(count(&script, of_these), script.len());
            let script = generate(seed, &only(Mix { lists: 1, storm: 1, ..Mix::NONE }));
            assert!(count(&script, |what| matches!(what, Action::Storm)) > 20);
            assert_eq!(count(&script, |what| matches!(what, Action::Send { .. } | Action::Join { .. })), 0);
        }
    }

    /// Judged by rules of the test's own, one operation after the other.
    #[test]
    fn most_is_allowed() {
        let shape = Shape { operations: 300, careless: 0, conflicts: 0, ..Shape::default() };
        let (mut allowed, mut refused) = (0, 0);
        for seed in 0..50 {
            let (mut friends, mut blocks) = (BTreeSet::new(), BTreeSet::new());
            let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            for Operation { user: by, what, .. } in generate(seed, &shape) {
                let fine = match what {
                    Action::Befriend { user } => by != user && friends.insert(pair(by, user)),
                    Action::Unfriend { user } => friends.remove(&pair(by, user)),
                    Action::Block { user } => blocks.insert((by, user)),
                    Action::Unblock { user } => blocks.remove(&(by, user)),
                    Action::CreateGroup { group } => groups.insert(group, vec![by]).is_none(),
                    Action::Join { group } => groups.get_mut(&group).is_some_and(|members| {
                        let new = !members.contains(&by);
                        members.push(by);
                        new
                    }),
                    Action::Quit { group } => groups.get_mut(&group).is_some_and(|members| {
                        let was = members.iter().position(|member| *member == by);
                        was.map(|at| members.remove(at)).is_some()
                    }),
                    Action::RemoveMember { group, user } => groups.get_mut(&group).is_some_and(|members| {
                        let was = members.iter().position(|member| *member == user);
                        members[0] == by && was.map(|at| members.remove(at)).is_some()
                    }),
                    Action::DeleteGroup { group } => {
                        groups.remove(&group).is_some_and(|members| members[0] == by)
                    }
                    Action::Send { to, .. } | Action::Burst { to, .. } => match to {
                        Place::Direct(user) => {
                            friends.contains(&pair(by, user)) && !blocks.contains(&(user, by))
                        }
                        Place::Group(group) => {
                            groups.get(&group).is_some_and(|members| members.contains(&by))
                        }
                        Place::Hot => true,
                    },
                    _ => continue,
                };
                if fine { allowed += 1 } else { refused += 1 }
            }
        }
        assert!(allowed > 9 * refused, "{allowed} allowed, {refused} refused");
    }

    #[test]
    fn it_brings_what_is_worth_running() {
        let (mut sends, mut to, mut together) = (0, BTreeMap::<Place, usize>::new(), 0);
        for seed in 0..20 {
            let script = generate(seed, &Shape::default());
            for operation in &script {
                if let Action::Send { to: place, .. } | Action::Burst { to: place, .. } = operation.what {
                    sends += 1;
                    *to.entry(place).or_default() += 1;
                }
            }
            together += script.windows(2).filter(|two| two[0].at == two[1].at).count();
        }
        assert!(sends > 20 * 30, "{sends} sends");
        assert!(to[&Place::Group(1)] > sends / 4, "{to:?}: there is a hot place");
        assert!(together > 20 * 10, "{together} operations begin with another");
    }
}
