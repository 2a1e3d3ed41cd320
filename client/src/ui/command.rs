//! What a person can type after the login.

use protocol::{ConversationId, GroupId, UserId};

/// How many entries `history` shows when it is not told.
const HISTORY_DEFAULT: u32 = 20;
/// How many it shows at most.
const HISTORY_MAX: u32 = 1000;

/// A command, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    ShowMe,
    UpdateList,
    Passwd,
    Quit,
    Chat { user: UserId, text: String },
    GroupChat { group: GroupId, text: String },
    AddFriend(UserId),
    RemoveFriend(UserId),
    Block(UserId),
    Unblock(UserId),
    JoinGroup(GroupId),
    QuitGroup(GroupId),
    DeleteGroup(GroupId),
    List(GroupId),
    CreateGroup { name: String, description: String },
    Kick { group: GroupId, user: UserId },
    FriendHistory { user: UserId, count: u32 },
    GroupHistory { group: GroupId, count: u32 },
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadCommand<'a> {
    /// No command has that name.
    Unknown(&'a str),
    /// That is not how it is written.
    Usage(&'static Usage),
}

/// How a command is written, and what it does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) name: &'static str,
    pub(crate) form: &'static str,
    pub(crate) does: &'static str,
}

/// Every command, in the order in which `help` lists them.
pub(crate) const USAGES: &[Usage] = &[
    usage("help", "help", "list all commands"),
    usage("chat", "chat:friendid:message", "send a message to a friend"),
    usage("groupchat", "groupchat:groupid:message", "send a message to a group"),
    usage("addfriend", "addfriend:friendid", "add a friend"),
    usage("removefriend", "removefriend:friendid", "end a friendship"),
    usage("block", "block:userid", "let a user neither write to you nor add you"),
    usage("unblock", "unblock:userid", "end a block"),
    usage("creategroup", "creategroup:groupname:groupdesc", "create a group"),
    usage("joingroup", "joingroup:groupid", "join a group"),
    usage("quitgroup", "quitgroup:groupid", "leave a group; its creator deletes it by leaving"),
    usage("deletegroup", "deletegroup:groupid", "delete a group of your own"),
    usage("kick", "kick:groupid:userid", "remove a member of a group of your own"),
    usage("list", "list:groupid", "list the members of a group"),
    usage("showme", "showme", "show yourself, your friends and your groups"),
    usage("updatelist", "updatelist", "ask the server for the lists, and show them"),
    usage(
        "history",
        "history:friend:friendid[:count] or history:group:groupid[:count]",
        "show older messages",
    ),
    usage("passwd", "passwd", "change your password; your other sessions end"),
    usage("quit", "quit", "log out and leave"),
];

const fn usage(name: &'static str, form: &'static str, does: &'static str) -> Usage {
    Usage { name, form, does }
}

impl Command {
    /// Reads a line. It is split at the first colons only, so that messages keep theirs.
    pub(crate) fn parse(line: &str) -> Result<Self, BadCommand<'_>> {
        let (name, rest) = match line.split_once(':') {
            Some((name, rest)) => (name.trim(), Some(rest)),
            None => (line.trim(), None),
        };
        let usage = USAGES.iter().find(|usage| usage.name == name).ok_or(BadCommand::Unknown(name))?;
        Self::parse_arguments(name, rest).ok_or(BadCommand::Usage(usage))
    }

    fn parse_arguments(name: &str, rest: Option<&str>) -> Option<Self> {
        let Some(rest) = rest else {
            return match name {
                "help" => Some(Self::Help),
                "showme" => Some(Self::ShowMe),
                "updatelist" => Some(Self::UpdateList),
                "passwd" => Some(Self::Passwd),
                "quit" => Some(Self::Quit),
                _ => None,
            };
        };
        let user = || rest.trim().parse().ok();
        let group = || rest.trim().parse().ok();
        Some(match name {
            "chat" => {
                let (user, text) = rest.split_once(':')?;
                Self::Chat { user: user.trim().parse().ok()?, text: text.into() }
            }
            "groupchat" => {
                let (group, text) = rest.split_once(':')?;
                Self::GroupChat { group: group.trim().parse().ok()?, text: text.into() }
            }
            "addfriend" => Self::AddFriend(user()?),
            "removefriend" => Self::RemoveFriend(user()?),
            "block" => Self::Block(user()?),
            "unblock" => Self::Unblock(user()?),
            "joingroup" => Self::JoinGroup(group()?),
            "quitgroup" => Self::QuitGroup(group()?),
            "deletegroup" => Self::DeleteGroup(group()?),
            "list" => Self::List(group()?),
            "creategroup" => {
                let (name, description) = rest.split_once(':')?;
                Self::CreateGroup { name: name.trim().into(), description: description.trim().into() }
            }
            "kick" => {
                let (group, user) = rest.split_once(':')?;
                Self::Kick { group: group.trim().parse().ok()?, user: user.trim().parse().ok()? }
            }
            "history" => Self::parse_history(rest)?,
            _ => return None,
        })
    }

    fn parse_history(rest: &str) -> Option<Self> {
        let (of, rest) = rest.split_once(':')?;
        let (id, count) = match rest.split_once(':') {
            Some((id, count)) => (id.trim(), count.trim().parse().ok()?),
            None => (rest.trim(), HISTORY_DEFAULT),
        };
        if !(1..=HISTORY_MAX).contains(&count) {
            return None;
        }
        match of.trim() {
            "friend" => Some(Self::FriendHistory { user: id.parse().ok()?, count }),
            "group" => Some(Self::GroupHistory { group: id.parse().ok()?, count }),
            _ => None,
        }
    }

    /// The name it is typed by.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::ShowMe => "showme",
            Self::UpdateList => "updatelist",
            Self::Passwd => "passwd",
            Self::Quit => "quit",
            Self::Chat { .. } => "chat",
            Self::GroupChat { .. } => "groupchat",
            Self::AddFriend(_) => "addfriend",
            Self::RemoveFriend(_) => "removefriend",
            Self::Block(_) => "block",
            Self::Unblock(_) => "unblock",
            Self::JoinGroup(_) => "joingroup",
            Self::QuitGroup(_) => "quitgroup",
            Self::DeleteGroup(_) => "deletegroup",
            Self::List(_) => "list",
            Self::CreateGroup { .. } => "creategroup",
            Self::Kick { .. } => "kick",
            Self::FriendHistory { .. } | Self::GroupHistory { .. } => "history",
        }
    }

    /// The conversation it is about, if it writes to one or reads one; `Err` if it is the one with oneself.
    pub(crate) fn conversation(&self, me: UserId) -> Result<Option<ConversationId>, ()> {
        match self {
            Self::Chat { user, .. } | Self::FriendHistory { user, .. } => {
                ConversationId::direct(me, *user).map(Some).ok_or(())
            }
            Self::GroupChat { group, .. } | Self::GroupHistory { group, .. } => {
                Ok(Some(ConversationId::group(*group)))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let found = match Command::parse(line) {
            Ok(command) => format!("{command:?}"),
            Err(BadCommand::Unknown(name)) => format!("unknown {name}"),
            Err(BadCommand::Usage(usage)) => format!("usage {}", usage.form),
        };
        assert_eq!(found, expected, "{line:?}");
    }

    #[test]
    fn commands_are_split_at_the_first_colons_only() {
        check(
            "chat:2001:see: a:b",
            r#"Chat { user: 2001, text: "see: a:b" }"#.replace("2001", "UserId(2001)").as_str(),
        );
        check("groupchat:7: hi ", r#"GroupChat { group: GroupId(7), text: " hi " }"#);
        check(
            "creategroup:happy game:play: all day",
            r#"CreateGroup { name: "happy game", description: "play: all day" }"#,
        );
        check("creategroup:quiet:", r#"CreateGroup { name: "quiet", description: "" }"#);
        check(" addfriend : 5 ", "AddFriend(UserId(5))");
        check("kick:1:2", "Kick { group: GroupId(1), user: UserId(2) }");
        check("history:friend:2", "FriendHistory { user: UserId(2), count: 20 }");
        check("history:group:2:1000", "GroupHistory { group: GroupId(2), count: 1000 }");
        check("quit", "Quit");
        check(" showme ", "ShowMe");
        check("passwd", "Passwd");
    }

    #[test]
    fn what_is_no_command_says_why() {
        check("", "unknown ");
        check("dance:1", "unknown dance");
        check("CHAT:1:x", "unknown CHAT");
        check("chat", "usage chat:friendid:message");
        check("chat:kir:hello", "usage chat:friendid:message");
        check("chat:1", "usage chat:friendid:message");
        check("addfriend:0", "usage addfriend:friendid");
        check("creategroup:x", "usage creategroup:groupname:groupdesc");
        check("help:me", "usage help");
        check("passwd:secret", "usage passwd");
        for bad in ["history:1", "history:friend:1:0", "history:group:1:1001", "history:user:1"] {
            check(bad, "usage history:friend:friendid[:count] or history:group:groupid[:count]");
        }
    }
}
