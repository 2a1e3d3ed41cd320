//! A device: a client of the library, and the task that writes down what it is told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{Client, Event, Events, RequestError};
use protocol::{Conversation, Entropy, Entry, EntryBody, Net, Request, UserId};
use tokio::{select, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::people::{People, Person};
use crate::{
    history::{Call, DeviceId, OperationId, Outcome, Recorder, Reply, What},
    tap::{Tap, Valve},
};

/// A running client. Every request through it is recorded.
pub(super) struct Device {
    pub(super) asker: Asker,
    /// Shut, it takes nothing from its connection.
    pub(super) valve: Valve,
    /// Cancelled when it has ended for good.
    over: CancellationToken,
    listener: JoinHandle<()>,
}

/// What asks; several requests can be on their way at once.
#[derive(Clone)]
pub(super) struct Asker {
    client: Client,
    pub(super) plug: Plug,
}

/// What a device is pulled out by: its tasks are dropped where they stand.
#[derive(Debug, Clone)]
pub(super) struct Plug {
    device: DeviceId,
    recorder: Recorder,
    life: Arc<Mutex<Life>>,
    pulled: CancellationToken,
}

/// What the record says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    /// It has ended by itself or in good order.
    Ended,
    /// It was gone at once: whatever comes later nobody has seen.
    Pulled,
}

impl Plug {
    /// The device is gone at once.
    pub(super) fn pull(&self) {
        let mut life = self.life();
        if *life == Life::Running {
            self.recorder.record(What::Crashed { device: self.device });
            *life = Life::Pulled;
        }
        drop(life);
        self.pulled.cancel();
    }

    /// When that has happened.
    pub(super) async fn pulled(&self) {
        self.pulled.cancelled().await;
    }

    fn end(&self) {
        let mut life = self.life();
        if *life == Life::Running {
            self.recorder.record(What::Ended { device: self.device });
            *life = Life::Ended;
        }
    }

    /// Writes down what the device is told, unless it is gone.
    fn record(&self, what: What) {
        let life = self.life();
        if *life == Life::Running {
            self.recorder.record(what);
        }
    }

    fn invoked(&self, call: Call) -> Option<OperationId> {
        let life = self.life();
        (*life != Life::Pulled).then(|| self.recorder.invoked(self.device, call))
    }

    fn returned(&self, operation: OperationId, outcome: Outcome) -> Outcome {
        let life = self.life();
        let outcome = if *life == Life::Pulled { Outcome::Unknown } else { outcome };
        self.recorder.returned(operation, outcome.clone());
        outcome
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        // It says what was recorded, at any point of a writer but one, where a device ends twice.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a device needs of the workload.
pub(super) struct Surroundings<'a, N> {
    pub(super) net: &'a N,
    pub(super) config: client::Config,
    pub(super) entropy: &'a Arc<dyn Entropy>,
    pub(super) tracker: &'a TaskTracker,
    pub(super) recorder: &'a Recorder,
}

/// Whose device it is.
pub(super) struct Owner<'a> {
    pub(super) user: UserId,
    pub(super) person: &'a Arc<Person>,
    pub(super) people: &'a Arc<People>,
}

impl Device {
    /// Starts a device of a user; nobody's, if it is only to register. `confirms`: whether it says what it
    /// has shown.
    pub(super) fn start<N: Net>(
        of: Option<&Owner<'_>>,
        address: &str,
        confirms: bool,
        around: &Surroundings<'_, N>,
    ) -> Self {
        let recorder = around.recorder.clone();
        let device = recorder.fresh_device();
        recorder.record(What::Started { device, user: of.map(|owner| owner.user) });
        let valve = Valve::default();
        let (client, events, task) = Client::new(
            Tap::new(around.net.clone(), device, recorder.clone()).with_valve(valve.clone()),
            address,
            around.config.clone(),
            Arc::clone(around.entropy),
        );
        let pulled = CancellationToken::new();
        let plug = Plug { device, recorder, life: Arc::new(Mutex::new(Life::Running)), pulled };
        let unplugged = plug.clone();
        around.tracker.spawn(async move {
            select! {
                // A device that is gone does nothing more.
                biased;
                () = unplugged.pulled() => {}
                () = task => {}
            }
        });
        let over = CancellationToken::new();
        let asker = Asker { client, plug };
        let known = of.map(|owner| (Arc::clone(owner.person), Arc::clone(owner.people)));
        let listener = around.tracker.spawn(listen(asker.clone(), events, known, confirms, over.clone()));
        Self { asker, valve, over, listener }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled() || self.asker.plug.pulled.is_cancelled()
    }

    /// When it is.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Ends it without logging out.
    pub(super) async fn close(self) {
        self.valve.open();
        self.asker.client.close();
        // One that panicked has said so.
        let _ = self.listener.await;
        self.asker.plug.end();
    }
}

/// Writes down what a device is told, until it ends.
async fn listen(
    asker: Asker,
    mut events: Events,
    known: Option<(Arc<Person>, Arc<People>)>,
    confirms: bool,
    over: CancellationToken,
) {
    let device = asker.plug.device;
    loop {
        let event = select! {
            // A device that is gone shows nothing more.
            biased;
            () = asker.plug.pulled() => break,
            event = events.next() => event,
        };
        let Some(event) = event else { break };
        let what = match event {
            Event::Connected => What::Connected { device },
            Event::Disconnected { .. } => What::Disconnected { device },
            Event::Reconnecting { .. } => continue,
            Event::Resumed => What::Resumed { device },
            Event::CaughtUp => What::CaughtUp { device },
            Event::Lost { conv, after } => What::Lost { device, conv, after },
            Event::Presence { user, state } => What::Presence { device, user, state },
            Event::Entry(entry) => {
                let (conv, seq) = (entry.conv, entry.seq);
                if let Some((person, people)) = &known {
                    learn(person, people, &entry);
                }
                asker.plug.record(What::Entry { device, entry: Box::new(entry) });
                if confirms {
                    // After it was recorded: where a later device starts is proved by the record.
                    asker.client.shown(conv, seq);
                }
                continue;
            }
            Event::SessionEnded { .. } => {
                asker.plug.end();
                asker.client.close();
                break;
            }
        };
        asker.plug.record(what);
    }
    over.cancel();
}

/// What an entry tells its reader.
fn learn(person: &Person, people: &People, entry: &Entry) {
    person.met(entry.conv);
    if !matches!(entry.body, EntryBody::Message { .. } | EntryBody::Opened { .. }) {
        person.saw_change(entry.conv);
    }
    // The reply may have been lost.
    if let (EntryBody::Created { title }, Conversation::Group(group)) = (&entry.body, entry.conv.parse()) {
        people.made_group(title, group);
    }
}

impl Asker {
    /// Asks, and records both the question and what became of it.
    pub(super) async fn ask(&self, request: Request) -> Outcome {
        let Some(call) = call(&request) else { return Outcome::Unknown };
        self.recorded(call, async { outcome(self.client.request(request).await, reply) }).await
    }

    /// All friends, page by page.
    pub(super) async fn friends(&self) -> Outcome {
        let asked = async { outcome(self.client.friends().await, |friends| Reply::Friends { friends }) };
        self.recorded(Call::Friends, asked).await
    }

    /// All groups, page by page.
    pub(super) async fn groups(&self) -> Outcome {
        let asked = async { outcome(self.client.groups().await, |groups| Reply::Groups { groups }) };
        self.recorded(Call::Groups, asked).await
    }

    /// Asks what needs no record of its own.
    pub(super) async fn ask_aside(&self, request: Request) -> Result<client::Reply, RequestError> {
        self.client.request(request).await
    }

    async fn recorded(&self, call: Call, asked: impl Future<Output = Outcome>) -> Outcome {
        // A device that is gone asks nothing.
        let Some(operation) = self.plug.invoked(call) else { return Outcome::Failed { code: None } };
        let outcome = select! {
            // What has come back to a device that is gone nobody has seen.
            biased;
            () = self.plug.pulled() => Outcome::Unknown,
            outcome = asked => outcome,
        };
        self.plug.returned(operation, outcome)
    }
}

fn outcome<T>(result: Result<T, RequestError>, reply: impl FnOnce(T) -> Reply) -> Outcome {
    match result {
        Ok(ok) => Outcome::Ok { reply: reply(ok) },
        Err(RequestError::Refused(error)) => Outcome::Failed { code: Some(error.code) },
        Err(RequestError::TooManyRequests | RequestError::Closed) => Outcome::Failed { code: None },
        Err(RequestError::Unknown) => Outcome::Unknown,
    }
}

/// The record of a request, of those that a workload makes.
fn call(request: &Request) -> Option<Call> {
    Some(match request.clone() {
        Request::Register(r) => Call::Register { mid: r.mid, name: r.name },
        Request::Login(_) => Call::Login,
        Request::Logout => Call::Logout,
        Request::Befriend(r) => Call::Befriend { mid: r.mid, user: r.user },
        Request::Unfriend(r) => Call::Unfriend { mid: r.mid, user: r.user },
        Request::Block(r) => Call::Block { mid: r.mid, user: r.user },
        Request::Unblock(r) => Call::Unblock { mid: r.mid, user: r.user },
        Request::CreateGroup(r) => Call::CreateGroup { mid: r.mid, name: r.name },
        Request::Join(r) => Call::Join { mid: r.mid, group: r.group },
        Request::Quit(r) => Call::Quit { mid: r.mid, group: r.group },
        Request::DeleteGroup(r) => Call::DeleteGroup { mid: r.mid, group: r.group },
        Request::RemoveMember(r) => Call::RemoveMember { mid: r.mid, group: r.group, user: r.user },
        Request::Send(r) => Call::Send { mid: r.mid, conv: r.conv, text: r.text },
        Request::History(r) => Call::History { conv: r.conv, before: r.before, limit: r.limit },
        Request::Members(r) => Call::Members { group: r.group },
        Request::Friends(_) => Call::Friends,
        Request::Groups(_) => Call::Groups,
        // No workload changes passwords.
        Request::Passwd(_) => return None,
        Request::Ping | Request::Resume(_) | Request::Cursors(_) | Request::Ack(_) => return None,
    })
}

/// The record of a reply.
fn reply(reply: client::Reply) -> Reply {
    match reply {
        client::Reply::Done | client::Reply::CursorsSet(_) => Reply::Done,
        client::Reply::Registered(r) => Reply::Registered { user: r.user },
        client::Reply::LoggedIn(r) => Reply::LoggedIn { user: r.user },
        client::Reply::Appended(r) => Reply::Appended { seq: r.seq },
        client::Reply::GroupCreated(r) => Reply::GroupCreated { group: r.group, seq: r.seq },
        client::Reply::Friends(r) => Reply::Friends { friends: r.friends },
        client::Reply::Groups(r) => Reply::Groups { groups: r.groups },
        client::Reply::Members(r) => Reply::Members { members: r.members },
        client::Reply::History(r) => Reply::History { entries: r.entries, more: r.more },
    }
}
