//! A device: a client of the library, and the task that writes down what it is told.

use std::sync::Arc;

use client::{Client, Event, Events, RequestError};
use protocol::{Entropy, EntryBody, Net, Request, UserId};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::people::Person;
use crate::{
    history::{Call, DeviceId, Outcome, Recorder, Reply, What},
    tap::Tap,
};

/// A running client. Every request through it is recorded.
pub(super) struct Device {
    pub(super) asker: Asker,
    /// Cancelled when its session has ended for good.
    over: CancellationToken,
    listener: JoinHandle<bool>,
}

/// What asks; several requests can be on their way at once.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) id: DeviceId,
    client: Client,
    recorder: Recorder,
}

/// What a device needs of the workload.
pub(super) struct Surroundings<'a, N> {
    pub(super) net: &'a N,
    pub(super) config: client::Config,
    pub(super) entropy: &'a Arc<dyn Entropy>,
    pub(super) tracker: &'a TaskTracker,
    pub(super) recorder: &'a Recorder,
}

impl Device {
    /// Starts a device of a user; nobody's, if it is only to register. `confirms`: whether it says what it
    /// has shown.
    pub(super) fn start<N: Net>(
        of: Option<(&Arc<Person>, UserId)>,
        address: &str,
        confirms: bool,
        around: &Surroundings<'_, N>,
    ) -> Self {
        let recorder = around.recorder.clone();
        let id = recorder.fresh_device();
        recorder.record(What::Started { device: id, user: of.map(|(_, user)| user) });
        let (client, events) = Client::start(
            Tap::new(around.net.clone(), id, recorder.clone()),
            address,
            around.config.clone(),
            Arc::clone(around.entropy),
            around.tracker,
        );
        let over = CancellationToken::new();
        let asker = Asker { id, client, recorder };
        let person = of.map(|(person, _)| Arc::clone(person));
        let listener = around.tracker.spawn(listen(asker.clone(), events, person, confirms, over.clone()));
        Self { asker, over, listener }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Ends it without logging out.
    pub(super) async fn close(self) {
        self.asker.client.close();
        let said = self.listener.await.unwrap_or(false);
        if !said {
            self.asker.recorder.record(What::Ended { device: self.asker.id });
        }
    }
}

/// Writes down what a device is told, until it ends. Returns whether the end was written down as well.
async fn listen(
    asker: Asker,
    mut events: Events,
    person: Option<Arc<Person>>,
    confirms: bool,
    over: CancellationToken,
) -> bool {
    let (device, recorder) = (asker.id, &asker.recorder);
    while let Some(event) = events.next().await {
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
                if let Some(person) = &person {
                    person.met(conv);
                    if !matches!(entry.body, EntryBody::Message { .. } | EntryBody::Opened { .. }) {
                        person.saw_change(conv);
                    }
                }
                recorder.record(What::Entry { device, entry: Box::new(entry) });
                if confirms {
                    // After it was recorded: where a later device starts is proved by the record.
                    asker.client.shown(conv, seq);
                }
                continue;
            }
            Event::SessionEnded { .. } => {
                recorder.record(What::Ended { device });
                over.cancel();
                asker.client.close();
                return true;
            }
        };
        recorder.record(what);
    }
    over.cancel();
    false
}

impl Asker {
    /// Asks, and records both the question and what became of it.
    pub(super) async fn ask(&self, request: Request) -> Outcome {
        let Some(call) = call(&request) else { return Outcome::Unknown };
        let operation = self.recorder.invoked(self.id, call);
        let outcome = outcome(self.client.request(request).await, reply);
        self.recorder.returned(operation, outcome.clone());
        outcome
    }

    /// All friends, page by page.
    pub(super) async fn friends(&self) -> Outcome {
        let operation = self.recorder.invoked(self.id, Call::Friends);
        let outcome = outcome(self.client.friends().await, |friends| Reply::Friends { friends });
        self.recorder.returned(operation, outcome.clone());
        outcome
    }

    /// All groups, page by page.
    pub(super) async fn groups(&self) -> Outcome {
        let operation = self.recorder.invoked(self.id, Call::Groups);
        let outcome = outcome(self.client.groups().await, |groups| Reply::Groups { groups });
        self.recorder.returned(operation, outcome.clone());
        outcome
    }

    /// Asks what needs no record of its own.
    pub(super) async fn ask_aside(&self, request: Request) -> Result<client::Reply, RequestError> {
        self.client.request(request).await
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
