//! The handles that an application holds: one to ask with, one to listen with.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::{
    ClientMsgId, ConversationId, Entropy, GroupId, Net, Request, Seq, Token, UserId,
    message::{
        Appended, ChangePassword, CreateGroup, Cursors, Friend, GroupCreated, GroupInfo, GroupTarget,
        History, HistoryPage, LoggedIn, Login, MemberInfo, Members, Page, Password, Register, Registered,
        RemoveMember, Resume, Send, UserTarget,
    },
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{config::Config, connection::Driver, error::RequestError, event::Event, reply::Reply};

/// Requests on their way to the task; when it is full, asking waits. The task takes them at once and has its own
/// limit, so a few are enough.
const COMMANDS_MAX: usize = 16;

/// Asks a server. Cheap to clone; when the last clone is dropped, or one is closed, the client ends without logging out.
///
/// A request goes on when the future that awaits its reply is dropped.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Box<Command>>,
    shared: Arc<Shared>,
    entropy: Arc<dyn Entropy>,
}

/// What a client tells unasked. Dropped, what would have been told is discarded.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Box<Event>>);

/// A request and where its outcome goes.
pub(crate) struct Command {
    pub(crate) request: Request,
    pub(crate) outcome: oneshot::Sender<Result<Reply, RequestError>>,
}

/// What the handles tell the task without waiting.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// What the application has shown and the task has not heard of. At most one seq for each conversation.
    pub(crate) shown: Mutex<Cursors>,
    /// `shown` has changed.
    pub(crate) said: Notify,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    pub(crate) fn take_shown(&self) -> Cursors {
        std::mem::take(&mut *self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Events {
    /// The next event, or `None` when the client has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await.map(|event| *event)
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok().map(|event| *event)
    }
}

impl Client {
    /// Starts a client of the server at `addr` (`HOST:PORT`) on the tracker. It connects at once.
    pub fn start<N: Net>(
        net: N,
        addr: &str,
        config: Config,
        entropy: Arc<dyn Entropy>,
        tracker: &TaskTracker,
    ) -> (Self, Events) {
        let (client, events, task) = Self::new(net, addr, config, entropy);
        tracker.spawn(task);
        (client, events)
    }

    /// A client whose task the caller drives.
    pub fn new<N: Net>(
        net: N,
        addr: &str,
        config: Config,
        entropy: Arc<dyn Entropy>,
    ) -> (Self, Events, impl Future<Output = ()> + std::marker::Send + use<N>) {
        let (commands, commands_taken) = mpsc::channel(COMMANDS_MAX);
        // When it is full, the task stops reading its socket.
        let (events, events_taken) = mpsc::channel(config.events_max.max(1));
        let shared = Arc::new(Shared::default());
        let mut seed = [0; 8];
        entropy.fill(&mut seed);
        let seed = u64::from_le_bytes(seed);
        let driver = Driver::new(net, addr, config, seed, commands_taken, events, Arc::clone(&shared));
        (Self { commands, shared, entropy }, Events(events_taken), driver.run())
    }

    /// Asks anything.
    ///
    /// # Errors
    /// Why there is no reply; see [`RequestError::is_definite`].
    pub async fn request(&self, request: Request) -> Result<Reply, RequestError> {
        let (outcome, taken) = oneshot::channel();
        let command = Box::new(Command { request, outcome });
        self.commands.send(command).await.map_err(|_| RequestError::Closed)?;
        // The task answers everything that it took; what it did not take was never sent.
        taken.await.unwrap_or(Err(RequestError::Closed))
    }

    /// A fresh idempotency key.
    pub fn fresh_mid(&self) -> ClientMsgId {
        ClientMsgId::random(&*self.entropy)
    }

    /// Makes an account.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn register(&self, name: &str, password: &str) -> Result<Registered, RequestError> {
        let (mid, name, password) = (self.fresh_mid(), name.into(), Password(password.into()));
        match self.request(Request::Register(Register { mid, name, password })).await? {
            Reply::Registered(reply) => Ok(reply),
            _ => Err(RequestError::Unknown),
        }
    }

    /// Opens a session of an account, given by number or name. The client then keeps it over reconnects, without the
    /// password.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn login(&self, account: &str, password: &str) -> Result<LoggedIn, RequestError> {
        let login = Login { account: account.into(), password: Password(password.into()) };
        self.logged_in(Request::Login(login)).await
    }

    /// Goes on with a session that another client opened, from what that one had received.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn resume(&self, token: Token, cursors: Cursors) -> Result<LoggedIn, RequestError> {
        self.logged_in(Request::Resume(Resume { token, cursors, more: false })).await
    }

    async fn logged_in(&self, request: Request) -> Result<LoggedIn, RequestError> {
        match self.request(request).await? {
            Reply::LoggedIn(reply) => Ok(reply),
            _ => Err(RequestError::Unknown),
        }
    }

    /// Changes the user's password. Every other session of the user ends; this one goes on.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn change_password(&self, old: &str, new: &str) -> Result<Appended, RequestError> {
        let (mid, old, new) = (self.fresh_mid(), Password(old.into()), Password(new.into()));
        self.append(Request::Passwd(ChangePassword { mid, old, new })).await
    }

    /// Confirms what was shown, ends the session, and then the client.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn logout(&self) -> Result<(), RequestError> {
        self.request(Request::Logout).await.map(drop)
    }

    /// Befriends a user.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn befriend(&self, user: UserId) -> Result<Appended, RequestError> {
        self.append(Request::Befriend(self.user_target(user))).await
    }

    /// Ends a friendship.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn unfriend(&self, user: UserId) -> Result<Appended, RequestError> {
        self.append(Request::Unfriend(self.user_target(user))).await
    }

    /// Keeps a user from sending to this one and from befriending them.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn block(&self, user: UserId) -> Result<Appended, RequestError> {
        self.append(Request::Block(self.user_target(user))).await
    }

    /// Ends a block.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn unblock(&self, user: UserId) -> Result<Appended, RequestError> {
        self.append(Request::Unblock(self.user_target(user))).await
    }

    /// Creates a group.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn create_group(&self, name: &str, description: &str) -> Result<GroupCreated, RequestError> {
        let (mid, name, description) = (self.fresh_mid(), name.into(), description.into());
        match self.request(Request::CreateGroup(CreateGroup { mid, name, description })).await? {
            Reply::GroupCreated(reply) => Ok(reply),
            _ => Err(RequestError::Unknown),
        }
    }

    /// Joins a group.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn join(&self, group: GroupId) -> Result<Appended, RequestError> {
        self.append(Request::Join(self.group_target(group))).await
    }

    /// Leaves a group; when its creator does, it is deleted.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn quit(&self, group: GroupId) -> Result<Appended, RequestError> {
        self.append(Request::Quit(self.group_target(group))).await
    }

    /// Deletes a group of one's own.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn delete_group(&self, group: GroupId) -> Result<Appended, RequestError> {
        self.append(Request::DeleteGroup(self.group_target(group))).await
    }

    /// Removes a member of a group of one's own.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn remove_member(&self, group: GroupId, user: UserId) -> Result<Appended, RequestError> {
        let mid = self.fresh_mid();
        self.append(Request::RemoveMember(RemoveMember { mid, group, user })).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn send(&self, conv: ConversationId, text: &str) -> Result<Appended, RequestError> {
        self.send_with(self.fresh_mid(), conv, text).await
    }

    /// Sends a message with a given idempotency key.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn send_with(
        &self,
        mid: ClientMsgId,
        conv: ConversationId,
        text: &str,
    ) -> Result<Appended, RequestError> {
        self.append(Request::Send(Send { mid, conv, text: text.into() })).await
    }

    async fn append(&self, request: Request) -> Result<Appended, RequestError> {
        match self.request(request).await? {
            Reply::Appended(reply) => Ok(reply),
            _ => Err(RequestError::Unknown),
        }
    }

    /// All friends and blocked users, by number.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn friends(&self) -> Result<Vec<Friend>, RequestError> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let Reply::Friends(page) = self.request(Request::Friends(Page { after })).await? else {
                return Err(RequestError::Unknown);
            };
            all.extend(page.friends);
            match next_page(after, page.next) {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// All of the user's groups, by number.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn groups(&self) -> Result<Vec<GroupInfo>, RequestError> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let Reply::Groups(page) = self.request(Request::Groups(Page { after })).await? else {
                return Err(RequestError::Unknown);
            };
            all.extend(page.groups);
            match next_page(after, page.next) {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// All members of a group, by number.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn members(&self, group: GroupId) -> Result<Vec<MemberInfo>, RequestError> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let Reply::Members(page) = self.request(Request::Members(Members { group, after })).await? else {
                return Err(RequestError::Unknown);
            };
            all.extend(page.members);
            match next_page(after, page.next) {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// The newest entries below `before`, at most `limit`, in ascending order.
    ///
    /// # Errors
    /// As for [`Self::request`].
    pub async fn history(
        &self,
        conv: ConversationId,
        before: Option<Seq>,
        limit: Option<u32>,
    ) -> Result<HistoryPage, RequestError> {
        match self.request(Request::History(History { conv, before, limit })).await? {
            Reply::History(page) => Ok(page),
            _ => Err(RequestError::Unknown),
        }
    }

    /// Says that the application has shown a conversation up to `seq`. The client confirms it soon, and
    /// before a [`Self::logout`] asked for afterwards.
    pub fn shown(&self, conv: ConversationId, seq: Seq) {
        let mut shown = self.shared.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = shown.entry(conv).or_default();
        *highest = seq.max(*highest);
        drop(shown);
        self.shared.said.notify_one();
    }

    /// Ends the client without logging out.
    pub fn close(&self) {
        self.shared.stop.cancel();
    }

    fn user_target(&self, user: UserId) -> UserTarget {
        UserTarget { mid: self.fresh_mid(), user }
    }

    fn group_target(&self, group: GroupId) -> GroupTarget {
        GroupTarget { mid: self.fresh_mid(), group }
    }
}

/// Where the next page of a list starts. A list that does not advance has none.
fn next_page(after: u64, next: Option<u64>) -> Option<u64> {
    next.filter(|next| *next > after)
}
