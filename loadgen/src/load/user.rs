//! One user of a run: a task with one connection, which sets itself up, loads, and checks what arrives.

mod storm;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, bail};
use client::{DisconnectReason, Event, Reply, RequestError};
use protocol::{
    ClientMsgId, ConversationId, Entry, EntryBody, ErrorCode, GroupId, Request, Seq, UserId,
    message::{CreateGroup, GroupTarget, History, HistoryPage, Login, Password, Register, Send, UserTarget},
};
use tokio::{
    select,
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    arrivals::{Anomalies, Heard, Inbox, Places, Sent},
    connection::Connection,
    driver::{Pace, Shared, Stage},
    layout::{ConvIndex, UserIndex},
    options::{Scenario, Until},
    schedule::Schedule,
    stamp::{LineId, Stamp, Unstamped, mix},
};
use crate::rng::Rng;

/// How long one request of the set-up may take, a server's overload included.
const SET_UP_PATIENCE: Duration = Duration::from_secs(120);
/// Messages on their way while a log is filled.
const FILL_WINDOW: u32 = 32;

/// What a request was for.
#[derive(Debug, Clone, Copy)]
enum Ticket {
    SetUp,
    Message {
        /// Among the user's own lines.
        line: usize,
        counter: u32,
        intended: Duration,
        /// The highest seq that had been acknowledged in the conversation when the message was sent.
        after: u64,
    },
    Page {
        conv: ConvIndex,
        intended: Duration,
        before: Option<Seq>,
    },
}

/// A user's way into a conversation, with what became of the messages.
#[derive(Debug)]
pub(super) struct OwnLine {
    pub(super) id: LineId,
    conv: ConvIndex,
    members: u64,
    sent: u32,
    acknowledged: u32,
    refused: BTreeSet<u32>,
    unknown: BTreeSet<u32>,
}

impl OwnLine {
    pub(super) fn sent(&self) -> Sent<'_> {
        Sent { count: self.sent, refused: &self.refused, unknown: &self.unknown }
    }

    fn failed(&self) -> u32 {
        (self.refused.len() + self.unknown.len()) as u32
    }
}

/// What one user knows at the end.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) user: UserIndex,
    pub(super) anomalies: Anomalies,
    pub(super) inboxes: Vec<(ConvIndex, Inbox)>,
    pub(super) lines: Vec<OwnLine>,
}

/// What a user does again and again.
#[derive(Debug, Clone, Copy)]
enum Job {
    /// Among the user's own lines.
    Send(usize),
    Read(ConvIndex),
}

pub(super) struct User {
    shared: Arc<Shared>,
    index: UserIndex,
    /// None while a login storm lets the user be away.
    connection: Option<Connection<Ticket>>,
    stages: watch::Receiver<Stage>,
    rng: Rng,
    me: Option<UserId>,
    set_up: Option<Result<Reply, RequestError>>,
    /// Sorted.
    inboxes: Vec<(ConversationId, ConvIndex, Inbox)>,
    places: Places,
    anomalies: Anomalies,
    duplicates_before: u64,
    lines: Vec<OwnLine>,
    jobs: Vec<(Job, f64)>,
    /// Pages on their way.
    reading: u32,
    caught_up: bool,
    resumed: bool,
    /// The connection is broken on purpose.
    cutting: bool,
    /// When the session lost its connection unasked, if it has none.
    down_since: Option<Duration>,
}

impl User {
    pub(super) fn new(shared: Arc<Shared>, index: UserIndex) -> Self {
        let stages = shared.stages.subscribe();
        let layout = &shared.layout;
        let (mut lines, mut jobs) = (Vec::new(), Vec::new());
        for (id, plan) in (0..).zip(&layout.lines).filter(|(_, plan)| plan.user == index) {
            let members = layout.convs[plan.conv as usize].members.len() as u64;
            let (refused, unknown) = (BTreeSet::new(), BTreeSet::new());
            jobs.push((Job::Send(lines.len()), plan.share));
            lines.push(OwnLine { id, conv: plan.conv, members, sent: 0, acknowledged: 0, refused, unknown });
        }
        let readers = layout.readers.iter().filter(|plan| plan.user == index);
        jobs.extend(readers.map(|plan| (Job::Read(plan.conv), plan.share)));
        jobs.retain(|(_, share)| *share > 0.0);
        let rng = Rng::of_part(shared.options.seed ^ shared.run, u64::from(index));
        Self {
            shared,
            index,
            connection: None,
            stages,
            rng,
            me: None,
            set_up: None,
            inboxes: Vec::new(),
            places: Places::default(),
            anomalies: Anomalies::default(),
            duplicates_before: 0,
            lines,
            jobs,
            reading: 0,
            caught_up: false,
            resumed: false,
            cutting: false,
            down_since: None,
        }
    }

    /// Does what the stages say until the last one.
    pub(super) async fn run(mut self) -> anyhow::Result<Outcome> {
        loop {
            let stage = self.stages.borrow_and_update().clone();
            match stage {
                Stage::SetUp(step) => {
                    let shared = Arc::clone(&self.shared);
                    let done = {
                        // The first steps are dear for the server; while they wait, users must stay alive.
                        let permit = self.while_connected(shared.set_up_permits.acquire()).await;
                        let _permit = permit.context("the run has ended")?;
                        self.step(step).await
                    };
                    done.with_context(|| format!("setting up user {}", self.index))?;
                    shared.arrive();
                    self.until_next_stage().await;
                }
                Stage::Load(pace) if self.shared.options.scenario.is_storm() => self.storm(&pace).await,
                Stage::Load(pace) => self.load(&pace).await,
                Stage::Hold => self.until_next_stage().await,
                Stage::End => return Ok(self.outcome()),
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        self.retire();
        let inboxes = std::mem::take(&mut self.inboxes);
        Outcome {
            user: self.index,
            anomalies: self.anomalies,
            inboxes: inboxes.into_iter().map(|(_, conv, inbox)| (conv, inbox)).collect(),
            lines: std::mem::take(&mut self.lines),
        }
    }

    fn connect(&mut self) {
        self.retire();
        let route = self.shared.route(self.index);
        let connection = Connection::new(route, self.shared.config.clone(), self.rng.number());
        self.duplicates_before = 0;
        self.connection = Some(connection);
    }

    /// Ends the connection without a word.
    fn retire(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.anomalies.duplicated += connection.duplicates() - self.duplicates_before;
        }
    }

    /// Keeps the connection going until the next stage.
    async fn until_next_stage(&mut self) {
        loop {
            select! {
                _ = self.stages.changed() => return,
                () = turn(&mut self.connection, None) => self.take_all(),
            }
        }
    }

    /// Keeps the connection going until something else is done.
    async fn while_connected<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        loop {
            select! {
                done = &mut what => return done,
                () = turn(&mut self.connection, None) => self.take_all(),
            }
        }
    }

    // Setting up.

    async fn step(&mut self, step: u8) -> anyhow::Result<()> {
        match step {
            0 => self.sign_in().await,
            1 => self.begin_conversations().await,
            2 => self.join_groups().await,
            _ => self.get_ready().await,
        }
    }

    async fn sign_in(&mut self) -> anyhow::Result<()> {
        self.connect();
        let (name, password) = self.shared.account(self.index);
        if !self.shared.accounts_exist {
            let register = Register { mid: self.fresh_mid(), name, password: Password(password) };
            self.ask(Request::Register(register)).await?;
        }
        self.log_in().await?;
        Ok(())
    }

    async fn log_in(&mut self) -> anyhow::Result<()> {
        let (account, password) = self.shared.account(self.index);
        let login = Login { account, password: Password(password) };
        let Reply::LoggedIn(reply) = self.ask(Request::Login(login)).await? else {
            bail!("another reply than a login's");
        };
        self.me = Some(reply.user);
        // Only ever the same.
        let _ = self.shared.users[self.index as usize].set(reply.user);
        Ok(())
    }

    /// Whoever comes first befriends the other, or creates the group.
    async fn begin_conversations(&mut self) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        for conv in &shared.layout.convs_of[self.index as usize] {
            let plan = &shared.layout.convs[*conv as usize];
            if plan.members.first() != Some(&self.index) {
                continue;
            }
            let id = if plan.is_group {
                let name = format!("load {:x}.{conv}", shared.run);
                let group = CreateGroup { mid: self.fresh_mid(), name, description: String::new() };
                let Reply::GroupCreated(reply) = self.ask(Request::CreateGroup(group)).await? else {
                    bail!("another reply than a new group's");
                };
                ConversationId::group(reply.group)
            } else {
                let peer = shared.user_id(plan.members[1]).context("the other user is not there")?;
                let target = UserTarget { mid: self.fresh_mid(), user: peer };
                match self.ask(Request::Befriend(target)).await {
                    Ok(_) => {}
                    // Prepared accounts were here before.
                    Err(error) if is_refusal(&error, ErrorCode::AlreadyFriends) => {}
                    Err(error) => return Err(error.into()),
                }
                self.me.and_then(|me| ConversationId::direct(me, peer)).context("one user twice")?
            };
            // Only its first member does this.
            let _ = shared.convs[*conv as usize].id.set(id);
        }
        Ok(())
    }

    async fn join_groups(&mut self) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        for conv in &shared.layout.convs_of[self.index as usize] {
            let plan = &shared.layout.convs[*conv as usize];
            if plan.is_group && plan.members.first() != Some(&self.index) {
                let group = shared.group(*conv).context("the group is not there")?;
                let target = GroupTarget { mid: self.fresh_mid(), group };
                self.ask(Request::Join(target)).await?;
            }
        }
        Ok(())
    }

    /// Knows its conversations, and fills the logs that are to be read.
    async fn get_ready(&mut self) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        for conv in &shared.layout.convs_of[self.index as usize] {
            let id = *shared.convs[*conv as usize].id.get().context("the conversation is not there")?;
            self.inboxes.push((id, *conv, Inbox::default()));
        }
        self.inboxes.sort_by_key(|(id, ..)| *id);
        if shared.options.scenario == Scenario::LoginStorm {
            // Every login is a new device, which nothing is sent to that another one has confirmed.
            self.inboxes.clear();
            self.ask(Request::Logout).await?;
            self.retire();
        }
        if shared.options.scenario == Scenario::History {
            for line in 0..self.lines.len() {
                self.fill(line).await?;
            }
        }
        Ok(())
    }

    async fn fill(&mut self, line: usize) -> anyhow::Result<()> {
        let entries = self.shared.options.entries;
        loop {
            let own = &self.lines[line];
            let (sent, open) = (own.sent, own.sent - own.acknowledged - own.failed());
            if own.failed() > 0 {
                bail!("a message of the set-up failed");
            }
            if sent == entries && open == 0 {
                return Ok(());
            }
            if sent < entries && open < FILL_WINDOW {
                let now = self.shared.elapsed();
                self.send(line, now);
                continue;
            }
            turn(&mut self.connection, None).await;
            self.take_all();
        }
    }

    /// Asks, and repeats what the server had no time for. For the set-up.
    async fn ask(&mut self, request: Request) -> Result<Reply, RequestError> {
        let until = Instant::now() + SET_UP_PATIENCE;
        let mut pause = Duration::from_millis(50);
        loop {
            let reply = timeout_at(until, self.ask_once(request.clone())).await;
            match reply.unwrap_or(Err(RequestError::Unknown)) {
                Err(RequestError::Refused(error))
                    if error.code == ErrorCode::Overloaded && Instant::now() < until =>
                {
                    self.while_connected(tokio::time::sleep(pause)).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                outcome => return outcome,
            }
        }
    }

    async fn ask_once(&mut self, request: Request) -> Result<Reply, RequestError> {
        let Some(connection) = &mut self.connection else { return Err(RequestError::Closed) };
        self.set_up = None;
        connection.ask(request, Ticket::SetUp);
        loop {
            self.take_all();
            if let Some(outcome) = self.set_up.take() {
                return outcome;
            }
            turn(&mut self.connection, None).await;
        }
    }

    fn fresh_mid(&mut self) -> ClientMsgId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.rng.number().to_be_bytes());
        bytes[8..].copy_from_slice(&mix(self.shared.run ^ self.rng.number()).to_be_bytes());
        ClientMsgId(bytes)
    }

    // Loading.

    async fn load(&mut self, pace: &Pace) {
        let shared = Arc::clone(&self.shared);
        let mut schedules = self.schedules(pace);
        let waits_for_others = pace.window.is_some() && !self.jobs.is_empty();
        loop {
            self.take_all();
            let due = if pace.window.is_some() {
                self.send_in_window(pace);
                None
            } else {
                self.send_due(pace, &mut schedules)
            };
            select! {
                biased;
                _ = self.stages.changed() => return,
                () = shared.wakes[self.index as usize].notified(), if waits_for_others => {}
                () = turn(&mut self.connection, due) => {}
            }
        }
    }

    fn schedules(&mut self, pace: &Pace) -> Vec<Schedule> {
        let spacing = self.shared.options.spacing.into();
        let senders = self.shared.senders;
        let jobs = (0..).zip(&self.jobs);
        let schedules = jobs.map(|(nth, (_, share))| {
            let seed = self.shared.options.seed ^ mix(pace.number ^ nth << 32);
            let place = (self.index % senders, senders);
            Schedule::new(pace.rate * share, self.shared.options.ramp, spacing, seed, place)
        });
        schedules.collect()
    }

    /// Sends what is due; when the next message is.
    fn send_due(&mut self, pace: &Pace, schedules: &mut [Schedule]) -> Option<Instant> {
        let now = self.shared.elapsed();
        let mut next: Option<Duration> = None;
        for (at, schedule) in schedules.iter_mut().enumerate() {
            let due = loop {
                match schedule.peek().map(|due| pace.start + due) {
                    Some(due) if due <= now => {
                        schedule.advance();
                        self.work(at, due);
                    }
                    due => break due,
                }
            };
            next = [next, due].into_iter().flatten().min();
        }
        next.map(|due| self.shared.began + due)
    }

    fn send_in_window(&mut self, pace: &Pace) {
        let Some(window) = pace.window else { return };
        for at in 0..self.jobs.len() {
            while self.on_their_way(self.jobs[at].0) < window {
                self.work(at, self.shared.elapsed());
            }
        }
    }

    fn on_their_way(&self, job: Job) -> u32 {
        let Job::Send(at) = job else { return self.reading };
        let line = &self.lines[at];
        let done = match self.shared.options.until {
            Until::Acknowledged => line.acknowledged,
            Until::Delivered => {
                let arrivals = self.shared.lines[line.id as usize].arrivals.load(Relaxed);
                line.acknowledged.min(u32::try_from(arrivals / line.members).unwrap_or(u32::MAX))
            }
        };
        line.sent - line.failed() - done
    }

    fn work(&mut self, job: usize, intended: Duration) {
        match self.jobs[job].0 {
            Job::Send(line) => self.send(line, intended),
            Job::Read(conv) => self.read(conv, intended),
        }
    }

    fn send(&mut self, at: usize, intended: Duration) {
        let Some(connection) = &mut self.connection else { return };
        let line = &mut self.lines[at];
        let conv = &self.shared.convs[line.conv as usize];
        let Some(id) = conv.id.get() else { return };
        // A stamp holds whole microseconds.
        let intended = Duration::from_micros(super::stamp::micros(intended));
        let stamp = Stamp { run: self.shared.run, line: line.id, counter: line.sent, intended };
        let text = stamp.text(*id, self.shared.options.body as usize);
        let after = conv.acknowledged.load(Relaxed);
        let ticket = Ticket::Message { line: at, counter: line.sent, intended, after };
        line.sent += 1;
        self.shared.counts.sent.fetch_add(1, Relaxed);
        self.shared.stats.sent(intended, self.shared.elapsed());
        connection.ask(Request::Send(Send { mid: stamp.mid(), conv: *id, text }), ticket);
    }

    fn read(&mut self, conv: ConvIndex, intended: Duration) {
        let Some(connection) = &mut self.connection else { return };
        let state = &self.shared.convs[conv as usize];
        let Some(id) = state.id.get() else { return };
        let head = state.acknowledged.load(Relaxed);
        let before = (head > 1).then(|| Seq(2 + self.rng.below(head)));
        let request = History { conv: *id, before, limit: Some(self.shared.options.page) };
        self.reading += 1;
        self.shared.counts.sent.fetch_add(1, Relaxed);
        self.shared.stats.sent(intended, self.shared.elapsed());
        connection.ask(Request::History(request), Ticket::Page { conv, intended, before });
    }

    // What comes.

    /// Takes all outcomes and events.
    fn take_all(&mut self) {
        while let Some((ticket, outcome)) = self.connection.as_mut().and_then(Connection::next_done) {
            match ticket {
                Ticket::SetUp => self.set_up = Some(outcome),
                Ticket::Message { line, counter, intended, after } => {
                    self.sent(line, counter, intended, after, outcome);
                }
                Ticket::Page { conv, intended, before } => {
                    self.reading -= 1;
                    self.page(conv, intended, before, &outcome);
                }
            }
        }
        while let Some(event) = self.connection.as_mut().and_then(Connection::next_event) {
            self.event(event);
        }
    }

    fn sent(
        &mut self,
        at: usize,
        counter: u32,
        intended: Duration,
        after: u64,
        outcome: Result<Reply, RequestError>,
    ) {
        let line = &mut self.lines[at];
        match outcome {
            Ok(Reply::Appended(reply)) => {
                self.shared.stats.acknowledged(intended, self.shared.elapsed());
                self.shared.counts.acknowledged.fetch_add(line.members, Relaxed);
                self.shared.counts.answered.fetch_add(1, Relaxed);
                line.acknowledged += 1;
                if self.shared.options.verify {
                    // What was acknowledged before this was sent stands before it.
                    self.anomalies.reordered += u64::from(reply.seq.0 <= after);
                    self.shared.convs[line.conv as usize].acknowledged.fetch_max(reply.seq.0, Relaxed);
                    self.places.hear(line.id, counter, reply.seq, Heard::Reply, &mut self.anomalies);
                }
            }
            Err(error) => {
                self.shared.failed(&error);
                let which = if error.is_definite() { &mut line.refused } else { &mut line.unknown };
                which.insert(counter);
            }
            Ok(_) => {
                self.shared.failed(&RequestError::Unknown);
                line.unknown.insert(counter);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Entry(entry) => self.entry(&entry),
            Event::Lost { .. } => self.anomalies.lost += 1,
            Event::Disconnected { reason: DisconnectReason::Protocol(_) } => self.anomalies.gaps += 1,
            Event::Disconnected { .. } => {
                let unasked = !std::mem::take(&mut self.cutting);
                self.shared.counts.disconnects.fetch_add(u64::from(unasked), Relaxed);
                if unasked && self.down_since.is_none() {
                    let now = self.shared.elapsed();
                    self.down_since = Some(now);
                    self.shared.outages.lost(now);
                }
            }
            Event::CaughtUp => self.caught_up = true,
            Event::Resumed => {
                self.resumed = true;
                if let Some(lost) = self.down_since.take() {
                    self.shared.outages.resumed(lost, self.shared.elapsed());
                }
            }
            _ => {}
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let now = self.shared.elapsed();
        let body = self.shared.options.body as usize;
        let found = self.inboxes.binary_search_by_key(&entry.conv, |(id, ..)| *id);
        let EntryBody::Message { text } = &entry.body else {
            if let Ok(at) = found {
                self.inboxes[at].2.entry(entry.seq, &mut self.anomalies);
            }
            return;
        };
        let verify = self.shared.options.verify;
        let stamp = if verify {
            Stamp::read(self.shared.run, entry.mid, entry.conv, text, body)
        } else {
            Stamp::glance(self.shared.run, entry.mid, text)
        };
        let Ok(at) = found else {
            self.anomalies.misdelivered += u64::from(stamp != Err(Unstamped::Foreign));
            return;
        };
        let (_, conv, inbox) = &mut self.inboxes[at];
        if verify {
            inbox.entry(entry.seq, &mut self.anomalies);
        }
        let stamp = match stamp {
            Ok(stamp) => stamp,
            Err(Unstamped::Foreign) => return,
            Err(Unstamped::Altered) => {
                self.anomalies.altered += 1;
                return;
            }
        };
        let Some(plan) = self.shared.layout.lines.get(stamp.line as usize) else {
            self.anomalies.altered += 1;
            return;
        };
        if verify {
            let author = self.shared.user_id(plan.user);
            if plan.conv != *conv || author != Some(entry.from) {
                self.anomalies.altered += 1;
                return;
            }
            if !inbox.message(entry.seq, stamp.line, stamp.counter, &mut self.anomalies) {
                return;
            }
            if plan.user == self.index {
                let (line, counter) = (stamp.line, stamp.counter);
                self.places.hear(line, counter, entry.seq, Heard::Push, &mut self.anomalies);
            }
        }
        if plan.user != self.index {
            self.shared.stats.delivered(stamp.intended, now);
        }
        self.shared.arrived(stamp.line, plan);
    }

    /// A page holds, in ascending order and without gaps, what was sent.
    fn page(
        &mut self,
        conv: ConvIndex,
        intended: Duration,
        before: Option<Seq>,
        outcome: &Result<Reply, RequestError>,
    ) {
        let page = match outcome {
            Ok(Reply::History(page)) => page,
            Ok(_) => return self.shared.failed(&RequestError::Unknown),
            Err(error) => return self.shared.failed(error),
        };
        let now = self.shared.elapsed();
        self.shared.stats.acknowledged(intended, now);
        self.shared.counts.answered.fetch_add(1, Relaxed);
        if self.shared.options.verify {
            self.check_page(conv, before, page);
        }
    }

    fn check_page(&mut self, conv: ConvIndex, before: Option<Seq>, page: &HistoryPage) {
        let Some(id) = self.shared.convs[conv as usize].id.get() else { return };
        for pair in page.entries.windows(2) {
            self.anomalies.reordered += u64::from(pair[1].seq <= pair[0].seq);
            self.anomalies.lost += pair[1].seq.0.saturating_sub(pair[0].seq.0 + 1);
        }
        // It reaches up to what was asked for, and down to the log's beginning if it says so.
        if let (Some(before), last) = (before, page.entries.last()) {
            let last = last.map_or(0, |entry| entry.seq.0);
            self.anomalies.lost += (before.0 - 1).saturating_sub(last);
            self.anomalies.phantom += u64::from(last >= before.0);
        }
        if !page.more {
            let first = page.entries.first().map_or(1, |entry| entry.seq.0);
            self.anomalies.lost += first.saturating_sub(1);
        }
        let body = self.shared.options.body as usize;
        for entry in &page.entries {
            let EntryBody::Message { text } = &entry.body else { continue };
            let stamp = Stamp::read(self.shared.run, entry.mid, *id, text, body);
            let plan = stamp.map(|stamp| self.shared.layout.lines.get(stamp.line as usize));
            let right = match plan {
                Ok(Some(plan)) => plan.conv == conv && self.shared.user_id(plan.user) == Some(entry.from),
                Ok(None) | Err(Unstamped::Altered) => false,
                Err(Unstamped::Foreign) => true,
            };
            self.anomalies.altered += u64::from(!right || entry.conv != *id);
        }
    }
}

/// A turn of the connection, if there is one.
async fn turn(connection: &mut Option<Connection<Ticket>>, until: Option<Instant>) {
    match (connection, until) {
        (Some(connection), until) => connection.turn(until).await,
        (None, Some(until)) => tokio::time::sleep_until(until).await,
        (None, None) => std::future::pending().await,
    }
}

fn is_refusal(error: &RequestError, code: ErrorCode) -> bool {
    matches!(error, RequestError::Refused(body) if body.code == code)
}

impl Shared {
    /// The number of a user, once they have logged in.
    fn user_id(&self, user: UserIndex) -> Option<UserId> {
        self.users.get(user as usize)?.get().copied()
    }

    fn group(&self, conv: ConvIndex) -> Option<GroupId> {
        match self.convs[conv as usize].id.get()?.parse() {
            protocol::Conversation::Group(group) => Some(group),
            _ => None,
        }
    }
}
