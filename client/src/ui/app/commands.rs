//! Carrying out commands, and telling their outcomes.

use client::{Reply, RequestError};
use protocol::{
    ClientMsgId, ConversationId, Entry, GroupId, Request, Seq, UserId,
    message::{ChangePassword, CreateGroup, GroupTarget, Password, RemoveMember, Send, UserTarget},
};
use serde_json::{Map, Value, json};

use super::App;
use crate::ui::{
    command::Command,
    input::Ask,
    roster::Roster,
    say::{self, About},
    tell::{Failure, Tell},
};

/// Entries asked for at once.
const HISTORY_PAGE: u32 = 100;

impl App {
    /// Carries out a command and tells its outcome.
    pub(super) async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Help => {
                self.output.tell(&Tell::Help);
            }
            Command::ShowMe => {
                let fresh = self.roster.as_ref().is_some_and(|roster| !roster.stale);
                if fresh || self.refresh("showme").await {
                    self.tell_lists();
                }
            }
            Command::UpdateList => {
                if self.refresh("updatelist").await {
                    self.tell_lists();
                }
            }
            Command::List(group) => self.members(group).await,
            Command::FriendHistory { count, .. } | Command::GroupHistory { count, .. } => {
                self.history(&command, count).await;
            }
            Command::Passwd => self.passwd().await,
            // The session's loop ends at it.
            Command::Quit => {}
            _ => self.change(command).await,
        }
    }

    fn tell_lists(&mut self) {
        if let Some(roster) = &self.roster {
            self.output.tell(&Tell::Lists(roster));
        }
    }

    /// Asks for the passwords, hidden if they are typed at a terminal, and changes it.
    async fn passwd(&mut self) {
        const NAME: &str = "passwd";
        let prompts = [Ask::Secret("old password:"), Ask::Secret("new password:")];
        let Some([old, new]) = self.form(NAME, prompts).await else { return };
        // What a person cannot see they may mistype.
        if self.interactive {
            let Some([again]) = self.form(NAME, [Ask::Secret("new password again:")]).await else { return };
            if again != new {
                return self.fail(Failure::local(NAME, "bad_password", "the new passwords are not the same"));
            }
        }
        let mid = self.typed_mid();
        let request = Request::Passwd(ChangePassword { mid, old: Password(old), new: Password(new) });
        let client = self.client.clone();
        match self.taking(async move { client.request(request).await }).await {
            Some(Ok(reply)) => {
                let mut details = Map::new();
                if let Reply::Appended(appended) = reply {
                    details.insert("seq".into(), json!(appended.seq));
                }
                let message = "your password is changed; your other sessions have ended".into();
                self.output.tell(&Tell::Done { command: NAME, message, details });
            }
            Some(Err(error)) => {
                self.forget_typed(mid);
                self.fail_with(NAME, About::default(), &error);
            }
            None => {}
        }
    }

    async fn members(&mut self, group: GroupId) {
        let client = self.client.clone();
        let result = self.taking(async move { client.members(group).await }).await;
        match (result, &self.roster) {
            (Some(Ok(members)), Some(roster)) => {
                self.output.tell(&Tell::Members { group, members: &members, roster });
            }
            (Some(Err(error)), _) => self.fail_with("list", About { group: Some(group), user: None }, &error),
            _ => {}
        }
    }

    async fn history(&mut self, command: &Command, count: u32) {
        let Some(conv) = self.conversation(command) else { return };
        let client = self.client.clone();
        let pages = async move {
            let (mut entries, mut more, mut before): (Vec<Entry>, bool, Option<Seq>) =
                (Vec::new(), true, None);
            while more && entries.len() < count as usize {
                let left = (count as usize - entries.len()).min(HISTORY_PAGE as usize) as u32;
                let mut page = client.history(conv, before, Some(left)).await?;
                before = page.entries.first().map(|entry| entry.seq);
                more = page.more && before.is_some();
                page.entries.append(&mut entries);
                entries = page.entries;
            }
            Ok::<_, RequestError>((entries, more))
        };
        let result = self.taking(Box::pin(pages)).await;
        match (result, &self.roster) {
            (Some(Ok((entries, more))), Some(roster)) => {
                self.output.tell(&Tell::History { conv, entries: &entries, more, roster });
            }
            (Some(Err(error)), _) => self.fail_with(command.name(), about(command), &error),
            _ => {}
        }
    }

    /// Carries out a command that changes something.
    async fn change(&mut self, command: Command) {
        let Some(conv) = self.target(&command) else { return };
        let mid = self.typed_mid();
        let (name, about) = (command.name(), about(&command));
        let Some(request) = request(command.clone(), mid, conv) else { return };
        let client = self.client.clone();
        let reply = match self.taking(async move { client.request(request).await }).await {
            Some(Ok(reply)) => reply,
            Some(Err(error)) => {
                // If it happened all the same, its entry is news.
                self.forget_typed(mid);
                return self.fail_with(name, about, &error);
            }
            None => return,
        };
        let (message, details) = self.settle(&command, reply).await;
        // In a pipe the next command waits for the entry, so that a message is told before what follows it, and is
        // confirmed if the next command is to quit.
        let told = !self.interactive && self.entry_of(mid).await;
        let is_message = matches!(command, Command::Chat { .. } | Command::GroupChat { .. });
        let message = match (message, &self.roster) {
            _ if told && is_message && !self.output.is_json() => String::new(),
            (Some(message), _) => message,
            (None, roster) => roster.as_ref().map_or_else(String::new, |roster| outcome(&command, roster)),
        };
        self.output.tell(&Tell::Done { command: name, message, details });
    }

    /// What the reply says, and reads the lists that the sentence needs.
    async fn settle(&mut self, command: &Command, reply: Reply) -> (Option<String>, Map<String, Value>) {
        let mut details = Map::new();
        let mut message = None;
        match (command, reply) {
            (Command::CreateGroup { name, .. }, Reply::GroupCreated(created)) => {
                if let Some(roster) = &mut self.roster {
                    roster.remember(created.group, name.clone());
                    roster.stale = true;
                }
                details.insert("group".into(), json!(created.group));
                details.insert("seq".into(), json!(created.seq));
                message = Some(format!("group created, groupid:{}", created.group));
            }
            (_, Reply::Appended(appended)) => drop(details.insert("seq".into(), json!(appended.seq))),
            _ => {}
        }
        if matches!(command, Command::AddFriend(_) | Command::JoinGroup(_)) {
            // A name that was not known before; without the lists the sentence has a number for it.
            self.reload().await;
        }
        (message, details)
    }

    /// The conversation that a command writes to; `None` if it may not be carried out.
    fn target(&mut self, command: &Command) -> Option<Option<ConversationId>> {
        let me = self.roster.as_ref()?.user;
        let target = command.conversation(me);
        if target.is_err() {
            self.fail(Failure::local(command.name(), "self_target", "you cannot do that to yourself"));
        }
        target.ok()
    }

    fn conversation(&mut self, command: &Command) -> Option<ConversationId> {
        self.target(command).flatten()
    }

    fn fail_with(&mut self, command: &'static str, about: About, error: &RequestError) {
        let failure = say::failure(command, about, error, self.roster.as_ref());
        self.fail(failure);
    }
}

/// Whom and what a command is about.
fn about(command: &Command) -> About {
    let user = |user: &UserId| About { user: Some(*user), group: None };
    let group = |group: &GroupId| About { user: None, group: Some(*group) };
    match command {
        Command::Chat { user: other, .. } | Command::FriendHistory { user: other, .. } => user(other),
        Command::AddFriend(other)
        | Command::RemoveFriend(other)
        | Command::Block(other)
        | Command::Unblock(other) => user(other),
        Command::GroupChat { group: id, .. } | Command::GroupHistory { group: id, .. } => group(id),
        Command::JoinGroup(id) | Command::QuitGroup(id) | Command::DeleteGroup(id) | Command::List(id) => {
            group(id)
        }
        Command::Kick { group, user } => About { user: Some(*user), group: Some(*group) },
        Command::Help
        | Command::ShowMe
        | Command::UpdateList
        | Command::Passwd
        | Command::Quit
        | Command::CreateGroup { .. } => About::default(),
    }
}

/// The request that a command stands for, if it is one request.
fn request(command: Command, mid: ClientMsgId, conv: Option<ConversationId>) -> Option<Request> {
    Some(match command {
        Command::Chat { text, .. } | Command::GroupChat { text, .. } => {
            Request::Send(Send { mid, conv: conv?, text })
        }
        Command::AddFriend(user) => Request::Befriend(UserTarget { mid, user }),
        Command::RemoveFriend(user) => Request::Unfriend(UserTarget { mid, user }),
        Command::Block(user) => Request::Block(UserTarget { mid, user }),
        Command::Unblock(user) => Request::Unblock(UserTarget { mid, user }),
        Command::JoinGroup(group) => Request::Join(GroupTarget { mid, group }),
        Command::QuitGroup(group) => Request::Quit(GroupTarget { mid, group }),
        Command::DeleteGroup(group) => Request::DeleteGroup(GroupTarget { mid, group }),
        Command::CreateGroup { name, description } => {
            Request::CreateGroup(CreateGroup { mid, name, description })
        }
        Command::Kick { group, user } => Request::RemoveMember(RemoveMember { mid, group, user }),
        _ => return None,
    })
}

/// The sentence for a command that was carried out.
fn outcome(command: &Command, roster: &Roster) -> String {
    match command {
        Command::Chat { user, .. } => format!("sent to {}", roster.user(*user)),
        Command::GroupChat { group, .. } => format!("sent to {}", roster.group(*group)),
        Command::AddFriend(user) => format!("{} is your friend now", roster.user(*user)),
        Command::RemoveFriend(user) => format!("{} is no longer your friend", roster.user(*user)),
        Command::Block(user) => format!("{} is blocked", roster.user(*user)),
        Command::Unblock(user) => format!("{} is no longer blocked", roster.user(*user)),
        Command::JoinGroup(group) => format!("you joined {}", roster.group(*group)),
        Command::QuitGroup(group) if roster.created(*group) => {
            format!("you left {}, and as its creator deleted it", roster.group(*group))
        }
        Command::QuitGroup(group) => format!("you left {}", roster.group(*group)),
        Command::DeleteGroup(group) => format!("{} is deleted", roster.group(*group)),
        Command::Kick { group, user } => {
            format!("{} is removed from {}", roster.user(*user), roster.group(*group))
        }
        _ => String::new(),
    }
}
