//! One session of one user: asks for one thing after the other, and replaces its device when that ends.

use std::{sync::Arc, time::Duration};

use protocol::{
    ClientMsgId, ConversationId, GroupId, Net, Request, UserId,
    message::{CreateGroup, GroupTarget, History, Login, Members, Password, RemoveMember, Send, UserTarget},
};
use tokio::time::{Instant, sleep};

use super::{
    Shared,
    device::{Asker, Device},
    people::Person,
    plan::Step,
};
use crate::{
    canary,
    history::{Outcome, Reply},
    rng::Rng,
};

/// Sends of a burst.
const BURST_MAX: u64 = 8;
/// Between two attempts to log in.
const LOGIN_PAUSE: Duration = Duration::from_millis(200);
/// A new device comes after a pause up to this one.
const AWAY_MAX: Duration = Duration::from_millis(500);

pub(super) struct Actor<N> {
    pub(super) shared: Arc<Shared<N>>,
    pub(super) person: Arc<Person>,
    pub(super) user: UserId,
    /// The place of the user among all, and of the session among theirs.
    pub(super) place: (usize, usize),
    pub(super) rng: Rng,
    pub(super) device: Option<Device>,
    /// What was said, so that all texts differ.
    pub(super) said: u64,
}

impl<N: Net> Actor<N> {
    /// Does its part of the operations. Returns itself for what comes after.
    pub(super) async fn run(mut self) -> Self {
        if self.log_in(None).await {
            self.first_steps().await;
        }
        while self.shared.next_operation() {
            if !self.log_in(None).await {
                break;
            }
            let step = self.shared.plan.mix.draw(&mut self.rng);
            self.step(step).await;
            let most = self.shared.plan.pause * 2;
            let pause =
                Duration::from_micros(self.rng.below(u64::try_from(most.as_micros()).unwrap_or(u64::MAX)));
            if !pause.is_zero() {
                let _ = self.shared.cancel.run_until_cancelled(sleep(pause)).await;
            }
        }
        self
    }

    /// Sees to it that there is a device with a session; gives up when the workload is told to stop, or at
    /// the time given.
    pub(super) async fn log_in(&mut self, until: Option<Instant>) -> bool {
        loop {
            if let Some(device) = self.device.take() {
                if !device.is_over() {
                    self.device = Some(device);
                    return true;
                }
                device.close().await;
            }
            let given_up = match until {
                Some(until) => Instant::now() >= until,
                None => self.shared.cancel.is_cancelled(),
            };
            let Some(address) = self.rng.pick(&self.shared.addresses).filter(|_| !given_up) else {
                return false;
            };
            // Some devices never confirm: the next one of their user is shown the same again.
            let confirms = self.rng.chance(3, 4);
            let around = self.shared.around();
            let device = Device::start(Some((&self.person, self.user)), address, confirms, &around);
            let (account, password) = (self.person.name.clone(), Password(self.person.name.clone()));
            match device.asker.ask(Request::Login(Login { account, password })).await {
                Outcome::Ok { .. } => self.device = Some(device),
                _ => {
                    device.close().await;
                    sleep(LOGIN_PAUSE).await;
                }
            }
        }
    }

    /// So that there is somebody to talk to from the start.
    async fn first_steps(&mut self) {
        if self.place.1 != 0 {
            return;
        }
        let users = &self.shared.people.users;
        let next = users[(self.place.0 + 1) % users.len()];
        let mid = self.mid();
        self.act(Request::Befriend(UserTarget { mid, user: next })).await;
        if self.place.0.is_multiple_of(4) {
            self.step(Step::CreateGroup).await;
        }
    }

    async fn step(&mut self, step: Step) {
        let Some(asker) = self.device.as_ref().map(|device| device.asker.clone()) else { return };
        let mid = self.mid();
        match step {
            Step::Send => {
                if let Some(request) = self.words() {
                    self.act(request).await;
                }
            }
            Step::Burst => self.burst(&asker).await,
            Step::Repeat => {
                if let Some(request) = self.person.any_asked(&mut self.rng) {
                    self.act(request).await;
                }
            }
            Step::History => {
                if let Some(conv) = self.somewhere() {
                    let limit = self.rng.chance(3, 4).then(|| 1 + self.rng.below(100) as u32);
                    let before = self.rng.chance(1, 3).then(|| protocol::Seq(1 + self.rng.below(200)));
                    asker.ask(Request::History(History { conv, before, limit })).await;
                }
            }
            Step::Lists => match self.rng.below(3) {
                0 => drop(asker.friends().await),
                1 => drop(asker.groups().await),
                _ => {
                    if let Some(group) = self.some_group() {
                        asker.ask(Request::Members(Members { group, after: 0 })).await;
                    }
                }
            },
            Step::Befriend | Step::Unfriend | Step::Block | Step::Unblock => {
                let Some(user) = self.rng.pick(&self.shared.people.users).copied() else { return };
                let target = UserTarget { mid, user };
                self.act(match step {
                    Step::Befriend => Request::Befriend(target),
                    Step::Unfriend => Request::Unfriend(target),
                    Step::Block => Request::Block(target),
                    _ => Request::Unblock(target),
                })
                .await;
            }
            Step::CreateGroup => {
                let name = format!("club {}.{}.{}", self.place.0, self.place.1, self.said);
                self.said += 1;
                self.act(Request::CreateGroup(CreateGroup { mid, name, description: String::new() })).await;
            }
            Step::Join => {
                if let Some(group) = self.shared.people.any_group(&mut self.rng) {
                    self.act(Request::Join(GroupTarget { mid, group })).await;
                }
            }
            Step::Quit | Step::DeleteGroup => {
                let group = match step {
                    Step::Quit => self.some_group(),
                    _ => self.own_group(),
                };
                let Some(group) = group else { return };
                let target = GroupTarget { mid, group };
                self.act(match step {
                    Step::Quit => Request::Quit(target),
                    _ => Request::DeleteGroup(target),
                })
                .await;
            }
            Step::RemoveMember => {
                let user = self.rng.pick(&self.shared.people.users).copied();
                if let (Some(group), Some(user)) = (self.own_group(), user) {
                    self.act(Request::RemoveMember(RemoveMember { mid, group, user })).await;
                }
            }
            Step::Reconnect => self.leave(&asker).await,
        }
    }

    /// Asks for something that changes something.
    async fn act(&mut self, request: Request) {
        let Some(device) = &self.device else { return };
        self.person.asked(request.clone());
        let outcome = device.asker.ask(request.clone()).await;
        took_place(&self.shared, &self.person, self.user, &request, &outcome);
    }

    /// Several messages, one on the heels of the other.
    async fn burst(&mut self, asker: &Asker) {
        let mut sent = Vec::new();
        for _ in 0..2 + self.rng.below(BURST_MAX - 1) {
            let Some(request) = self.words() else { continue };
            self.person.asked(request.clone());
            let asker = asker.clone();
            sent.push(self.shared.tracker.spawn(async move { asker.ask(request).await }));
        }
        for answer in sent {
            // What became of it is in the record.
            let _ = answer.await;
        }
    }

    /// The device ends; the next one logs in after a pause.
    async fn leave(&mut self, asker: &Asker) {
        if self.rng.chance(1, 3) {
            asker.ask(Request::Logout).await;
        }
        if let Some(device) = self.device.take() {
            device.close().await;
        }
        let away = Duration::from_micros(self.rng.below(AWAY_MAX.as_micros() as u64));
        let _ = self.shared.cancel.run_until_cancelled(sleep(away)).await;
    }

    /// A message to somewhere.
    fn words(&mut self) -> Option<Request> {
        let conv = self.somewhere()?;
        self.said += 1;
        let unique = format!("{}.{}.{}", self.place.0, self.place.1, self.said);
        Some(Request::Send(Send { mid: self.mid(), conv, text: canary::text(conv, &unique) }))
    }

    /// Mostly where the user is at home, at once where rights have changed; sometimes elsewhere, to be refused.
    fn somewhere(&mut self) -> Option<ConversationId> {
        if self.rng.chance(1, 2)
            && let Some(conv) = self.person.take_hot()
        {
            return Some(conv);
        }
        if self.rng.chance(9, 10)
            && let Some(conv) = self.person.any_conv(&mut self.rng)
        {
            return Some(conv);
        }
        if self.rng.chance(1, 2) {
            return self.shared.people.any_group(&mut self.rng).map(ConversationId::group);
        }
        let peer = *self.rng.pick(&self.shared.people.users)?;
        ConversationId::direct(self.user, peer)
    }

    /// For what only its creator may do: mostly they do it.
    fn own_group(&mut self) -> Option<GroupId> {
        match self.rng.chance(3, 4) {
            true => self.person.own_group(&mut self.rng),
            false => self.some_group(),
        }
    }

    fn some_group(&mut self) -> Option<GroupId> {
        match self.rng.chance(3, 4) {
            true => self.person.any_group(&mut self.rng),
            false => self.shared.people.any_group(&mut self.rng),
        }
    }

    fn mid(&self) -> ClientMsgId {
        ClientMsgId::random(&*self.shared.entropy)
    }
}

/// What a request that was carried out makes known.
fn took_place<N>(shared: &Shared<N>, person: &Person, user: UserId, request: &Request, outcome: &Outcome) {
    let Outcome::Ok { reply } = outcome else { return };
    match (request, reply) {
        (_, Reply::GroupCreated { group, .. }) => {
            shared.people.add_group(*group);
            person.created(*group);
        }
        (Request::Join(join), _) => person.met(ConversationId::group(join.group)),
        (Request::Befriend(target) | Request::Block(target), _) => {
            if let Some(conv) = ConversationId::direct(user, target.user) {
                person.met(conv);
            }
        }
        _ => {}
    }
}
