//! One session of one user: does one thing after the other, and replaces its device when that ends.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use protocol::{
    ClientMsgId, ConversationId, GroupId, Net, Request, Seq, UserId,
    message::{CreateGroup, GroupTarget, History, Login, Members, Password, RemoveMember, Send, UserTarget},
};
use tokio::{
    select,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Part, Shared,
    device::{Device, Owner},
    draw::Draw,
    people::{CROWD, People, Person, group_name},
    script::{Action, BURST_MAX, Operation, Place},
};
use crate::{
    canary,
    history::{Outcome, Reply},
    rng::Rng,
};

/// No text is longer: more than any node takes by default, so that it is refused.
const TEXT_BYTES_MAX: usize = 100_000;

/// No operation is later: a script comes from a file, and there is an end to what a clock can add.
const AT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) struct Actor<N> {
    pub(super) part: Arc<Part<N>>,
    pub(super) people: Arc<People>,
    pub(super) person: Arc<Person>,
    pub(super) user: UserId,
    /// Which of the user's.
    pub(super) session: usize,
    pub(super) rng: Rng,
    pub(super) device: Option<Device>,
}

impl<N: Net> Actor<N> {
    /// Does its part of the operations, which begin at the time given. Returns itself for what comes after.
    pub(super) async fn run(mut self, began: Instant) -> Self {
        let shared = Arc::clone(&self.part.shared);
        match &shared.plan.script {
            Some(script) => self.follow(script, began).await,
            None => self.improvise().await,
        }
        self
    }

    /// Does what a script says.
    async fn follow(&mut self, script: &[Operation], began: Instant) {
        let mine =
            |operation: &&Operation| operation.user == self.person.at && operation.session == self.session;
        let mut left: Vec<&Operation> = script.iter().filter(mine).collect();
        // Stable: of operations at one time, the list says which is first.
        left.sort_by_key(|operation| operation.at);
        let mut left: VecDeque<_> = left.into_iter().zip(0..).collect();
        let last = script.iter().map(|operation| operation.at).max().unwrap_or_default();
        self.log_in(None).await;
        while let Some((operation, nth)) = left.pop_front() {
            if !self.idle_until(moment(began, operation.at)).await || !self.log_in(None).await {
                return;
            }
            let crash = left.iter().position(|(next, _)| matches!(next.what, Action::Crash { .. }));
            let crash_at = crash.and_then(|place| left.get(place)).map(|(next, _)| moment(began, next.at));
            if self.carry_out_or_crash(&operation.what, nth, crash_at).await {
                let crash = crash.and_then(|place| left.remove(place));
                if let Some((Operation { what: Action::Crash { away }, .. }, _)) = crash {
                    self.away(*away).await;
                }
            }
        }
        self.idle_until(moment(began, last)).await;
    }

    /// Does one thing, and has the device gone at the time given, if it is not done by then. Returns whether
    /// that was so.
    async fn carry_out_or_crash(&mut self, action: &Action, nth: u64, crash_at: Option<Instant>) -> bool {
        let plug = self.device.as_ref().map(|device| device.asker.plug.clone());
        let mut acting = Box::pin(self.carry_out(action, nth));
        let (Some(crash_at), Some(plug)) = (crash_at, plug) else {
            acting.await;
            return false;
        };
        select! {
            // What is done in time is done.
            biased;
            () = &mut acting => return false,
            () = sleep_until(crash_at) => plug.pull(),
        }
        acting.await;
        true
    }

    /// Keeps up the session until then. False if the workload is told to stop before.
    async fn idle_until(&mut self, then: Instant) -> bool {
        loop {
            let stop = self.part.shared.signals.stop.clone();
            let lost = async {
                match &self.device {
                    Some(device) => device.over().await,
                    None => std::future::pending().await,
                }
            };
            select! {
                biased;
                () = stop.cancelled() => return false,
                () = sleep_until(then) => return true,
                () = lost => {}
            }
            if !self.log_in(None).await {
                return false;
            }
        }
    }

    /// Does what comes to mind.
    async fn improvise(&mut self) {
        if self.log_in(None).await {
            self.first_steps().await;
        }
        // What the first steps say has the numbers before.
        let mut nth = 2;
        while self.part.shared.next_operation() {
            if !self.log_in(None).await {
                break;
            }
            let (shared, person) = (&self.part.shared, &self.person);
            let mut draw = Draw { plan: &shared.plan, people: &self.people, person, rng: &mut self.rng };
            if let Some(action) = draw.next() {
                Box::pin(self.carry_out(&action, nth)).await;
                nth += 1;
            }
            let most = u64::try_from((self.part.shared.plan.pause * 2).as_micros()).unwrap_or(u64::MAX);
            let pause = Duration::from_micros(self.rng.below(most));
            self.away(pause).await;
        }
    }

    /// So that there is somebody to talk to from the start.
    async fn first_steps(&mut self) {
        if self.part.shared.plan.crowd {
            return self.join_the_crowd().await;
        }
        if self.session != 0 {
            return;
        }
        let user = (self.person.at + 1) % self.people.users.len();
        Box::pin(self.carry_out(&Action::Befriend { user }, 0)).await;
        if self.person.at.is_multiple_of(4) {
            let group = self.people.fresh_label();
            Box::pin(self.carry_out(&Action::CreateGroup { group }, 1)).await;
        }
    }

    /// Returns when the user is in the group that all talk in, or the workload is told to stop.
    async fn join_the_crowd(&mut self) {
        let shared = Arc::clone(&self.part.shared);
        while !shared.signals.stop.is_cancelled() && self.log_in(None).await {
            let group = self.people.group(CROWD);
            if group.is_some_and(|group| self.person.convs().contains(&ConversationId::group(group))) {
                return;
            }
            match (self.session, self.person.at, group) {
                (0, 0, None) => Box::pin(self.carry_out(&Action::CreateGroup { group: CROWD }, 0)).await,
                (0, _, Some(_)) => Box::pin(self.carry_out(&Action::Join { group: CROWD }, 0)).await,
                _ => {}
            }
            self.away(self.part.shared.plan.retry_pause).await;
        }
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
            let shared = &self.part.shared;
            let given_up = match until {
                Some(until) => Instant::now() >= until,
                None => shared.signals.stop.is_cancelled(),
            };
            if given_up {
                return false;
            }
            let Some(address) = self.address() else { return false };
            // Some devices never confirm: the next one of their user is shown the same again.
            let confirms = self.rng.chance(3, 4);
            let owner = Owner { user: self.user, person: &self.person, people: &self.people };
            let device = Device::start(Some(&owner), &address, confirms, &self.part.around());
            self.person.plugged(self.session, device.asker.plug.clone());
            let (account, password) = (self.person.name.clone(), Password(self.person.name.clone()));
            match device.asker.ask(Request::Login(Login { account, password })).await {
                Outcome::Ok { .. } => self.device = Some(device),
                _ => {
                    device.close().await;
                    sleep(self.part.shared.plan.retry_pause).await;
                }
            }
        }
    }

    /// Where the next device connects.
    fn address(&mut self) -> Option<String> {
        let Shared { addresses, plan, .. } = &*self.part.shared;
        if plan.in_turn {
            return addresses.get((self.person.at + self.session) % addresses.len().max(1)).cloned();
        }
        self.rng.pick(addresses).cloned()
    }

    /// Does one thing, the `nth` of this session. What refers to nothing is skipped.
    async fn carry_out(&mut self, action: &Action, nth: u64) {
        let Some(asker) = self.device.as_ref().map(|device| device.asker.clone()) else { return };
        let unique = format!("{}.{}.{nth}", self.person.at, self.session);
        match action {
            Action::Send { to, text_bytes } => self.act(self.words(*to, &unique, *text_bytes)).await,
            Action::Burst { to, count } => self.burst(*to, &unique, *count).await,
            Action::Repeat { back } => self.act(self.person.asked_before(*back)).await,
            Action::History { of, before, limit } => {
                if let Some(conv) = self.place(*of) {
                    let history = History { conv, before: before.map(Seq), limit: *limit };
                    asker.ask(Request::History(history)).await;
                }
            }
            Action::Friends => drop(asker.friends().await),
            Action::Groups => drop(asker.groups().await),
            Action::Members { group } => {
                if let Some(group) = self.people.group(*group) {
                    asker.ask(Request::Members(Members { group, after: 0 })).await;
                }
            }
            Action::Befriend { user } => self.act(self.user_target(*user).map(Request::Befriend)).await,
            Action::Unfriend { user } => self.act(self.user_target(*user).map(Request::Unfriend)).await,
            Action::Block { user } => self.act(self.user_target(*user).map(Request::Block)).await,
            Action::Unblock { user } => self.act(self.user_target(*user).map(Request::Unblock)).await,
            Action::CreateGroup { group } => {
                let (mid, name) = (self.mid(), group_name(*group));
                let request = CreateGroup { mid, name, description: String::new() };
                self.act(Some(Request::CreateGroup(request))).await;
            }
            Action::Join { group } => self.act(self.group_target(*group).map(Request::Join)).await,
            Action::Quit { group } => self.act(self.group_target(*group).map(Request::Quit)).await,
            Action::DeleteGroup { group } => {
                self.act(self.group_target(*group).map(Request::DeleteGroup)).await;
            }
            Action::RemoveMember { group, user } => {
                let both = self.people.group(*group).zip(self.people.users.get(*user).copied());
                let request = |(group, user)| RemoveMember { mid: self.mid(), group, user };
                self.act(both.map(request).map(Request::RemoveMember)).await;
            }
            Action::Reconnect { logout, away } => {
                if *logout {
                    asker.ask(Request::Logout).await;
                }
                if let Some(device) = self.device.take() {
                    device.close().await;
                }
                self.away(*away).await;
            }
            Action::Crash { away } => {
                asker.plug.pull();
                self.away(*away).await;
            }
            Action::Storm => self.person.pull_all(),
            Action::Stall { lasting } => self.stall(*lasting).await,
        }
    }

    /// Asks for something that changes something.
    async fn act(&self, request: Option<Request>) {
        let (Some(device), Some(request)) = (&self.device, request) else { return };
        self.person.asked(request.clone());
        let outcome = device.asker.ask(request.clone()).await;
        self.took_place(&request, &outcome);
    }

    /// Several messages, one on the heels of the other.
    async fn burst(&self, to: Place, unique: &str, count: usize) {
        let Some(device) = &self.device else { return };
        let mut sent = Vec::new();
        for at in 0..count.min(BURST_MAX) {
            let Some(request) = self.words(to, &format!("{unique}.{at}"), 0) else { continue };
            self.person.asked(request.clone());
            let asker = device.asker.clone();
            sent.push(self.part.tracker.spawn(async move { asker.ask(request).await }));
        }
        for answer in sent {
            // What became of it is in the record.
            let _ = answer.await;
        }
    }

    /// The device takes nothing from its connection for a while; that is nobody's fault but its own.
    async fn stall(&self, lasting: Duration) {
        let Some(device) = &self.device else { return };
        let recorder = &self.part.shared.recorder;
        let name = format!("session {} of {} reads nothing", self.session, self.person.name);
        recorder.fault_began(&name);
        device.valve.shut();
        select! {
            biased;
            () = self.part.shared.signals.stop.cancelled() => {}
            () = device.over() => {}
            () = sleep(lasting) => {}
        }
        device.valve.open();
        recorder.fault_ended(&name);
    }

    async fn away(&self, pause: Duration) {
        if !pause.is_zero() {
            let _ = self.part.shared.signals.stop.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// A message to somewhere.
    fn words(&self, to: Place, unique: &str, text_bytes: usize) -> Option<Request> {
        let conv = self.place(to)?;
        let mut text = canary::text(conv, unique);
        let text_bytes = text_bytes.min(TEXT_BYTES_MAX);
        if text.len() < text_bytes {
            text.push(' ');
            text.extend(std::iter::repeat_n('.', text_bytes - text.len()));
        }
        Some(Request::Send(Send { mid: self.mid(), conv, text }))
    }

    fn place(&self, place: Place) -> Option<ConversationId> {
        match place {
            Place::Direct(user) => ConversationId::direct(self.user, *self.people.users.get(user)?),
            Place::Group(label) => self.people.group(label).map(ConversationId::group),
            Place::Hot => self.person.hot(),
        }
    }

    fn user_target(&self, user: usize) -> Option<UserTarget> {
        Some(UserTarget { mid: self.mid(), user: *self.people.users.get(user)? })
    }

    fn group_target(&self, label: u32) -> Option<GroupTarget> {
        let group: GroupId = self.people.group(label)?;
        Some(GroupTarget { mid: self.mid(), group })
    }

    fn mid(&self) -> ClientMsgId {
        ClientMsgId::random(&*self.part.shared.entropy)
    }

    /// What a request that was carried out makes known.
    fn took_place(&self, request: &Request, outcome: &Outcome) {
        let Outcome::Ok { reply } = outcome else { return };
        match (request, reply) {
            (Request::CreateGroup(create), Reply::GroupCreated { group, .. }) => {
                self.people.made_group(&create.name, *group);
                self.person.created(*group);
            }
            (Request::Join(join), _) => self.person.met(ConversationId::group(join.group)),
            (Request::Befriend(target) | Request::Block(target), _) => {
                if let Some(conv) = ConversationId::direct(self.user, target.user) {
                    self.person.met(conv);
                }
            }
            _ => {}
        }
    }
}

fn moment(began: Instant, at: Duration) -> Instant {
    began + at.min(AT_MAX)
}
