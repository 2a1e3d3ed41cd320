//! The fixed screens.

use protocol::{
    GroupId, UserId,
    message::{Friend, MemberInfo, PresenceState, Role},
};

use super::{command::USAGES, roster::Roster, sanitize::right};

const MENU: [&str; 3] =
    ["========================", "1. login  2. register  3. quit", "========================"];
const USER_HEAD: &str = "--------------------------------login user-------------------------------";
const FRIENDS_HEAD: &str = "--------------------------------friend list------------------------------";
const GROUPS_HEAD: &str = "--------------------------------group list--------------------------------";
const MEMBERS_HEAD: &str = "-------------------------------group members------------------------------";
const COMMANDS_HEAD: &str = "-------------------------------command list-------------------------------";
const FOOT: &str = "--------------------------------------------------------------------------";
const HINT: &str = "Type `help` to see other commands.";

/// Columns of the lists: an id, a name, and the rest.
const ID: usize = 10;
const NAME: usize = 20;
const REST: usize = 40;
/// The rest, where it is two columns.
const HALF: usize = 20;

/// The menu.
pub(crate) fn menu() -> Vec<String> {
    MENU.map(String::from).to_vec()
}

/// An account was made.
pub(crate) fn registered(user: UserId) -> String {
    format!("registered, account:{user}")
}

/// The user, the friends and the groups.
pub(crate) fn lists(roster: &Roster) -> Vec<String> {
    let mut lines = vec![
        USER_HEAD.into(),
        format!("current user => account:{} username:{}", roster.user, roster.name),
        FRIENDS_HEAD.into(),
        row("ID", "NAME", "STATE"),
    ];
    let friends = roster.friends.iter().filter(|friend| friend.friend);
    lines.extend(friends.map(|friend| row(&friend.user.to_string(), &friend.name, friend_state(friend))));
    lines.extend([GROUPS_HEAD.into(), row("ID", "NAME", "DESC")]);
    let groups = roster.groups.iter();
    lines.extend(groups.map(|info| row(&info.group.to_string(), &info.name, &info.description)));
    lines.extend([FOOT.into(), HINT.into()]);
    lines
}

/// The commands.
pub(crate) fn help() -> Vec<String> {
    let mut lines = vec![COMMANDS_HEAD.into()];
    lines.extend(USAGES.iter().map(|usage| format!("{} => {}", usage.form, usage.does)));
    lines.push(FOOT.into());
    lines
}

/// A group's members.
pub(crate) fn members(group: GroupId, members: &[MemberInfo], roster: &Roster) -> Vec<String> {
    let member = |id: &str, name: &str, role: &str, state: &str| {
        format!("{}{}{}{}", right(id, ID), right(name, NAME), right(role, HALF), right(state, HALF))
    };
    let mut lines = vec![
        MEMBERS_HEAD.into(),
        format!("current group => {}", roster.group(group)),
        member("ID", "NAME", "ROLE", "STATE"),
    ];
    lines.extend(members.iter().map(|info| {
        let role = match info.role {
            Role::Creator => "creator",
            Role::Member => "member",
        };
        member(&info.user.to_string(), &info.name, role, state(info.state))
    }));
    lines.push(FOOT.into());
    lines
}

/// A state for people.
pub(crate) fn state(state: PresenceState) -> &'static str {
    match state {
        PresenceState::Online => "online",
        PresenceState::Offline => "offline",
        PresenceState::Unknown => "unknown",
    }
}

fn friend_state(friend: &Friend) -> &'static str {
    match (friend.state, friend.blocked) {
        (PresenceState::Online, true) => "online, blocked",
        (PresenceState::Offline, true) => "offline, blocked",
        (PresenceState::Unknown, true) => "unknown, blocked",
        (other, false) => state(other),
    }
}

fn row(id: &str, name: &str, rest: &str) -> String {
    format!("{}{}{}", right(id, ID), right(name, NAME), right(rest, REST))
}

#[cfg(test)]
mod tests {
    use protocol::message::GroupInfo;
    use unicode_width::UnicodeWidthStr;

    use super::*;

    fn friend(user: u64, name: &str) -> Friend {
        let user = UserId::new(user).unwrap();
        Friend { user, name: name.into(), state: PresenceState::Offline, friend: true, blocked: false }
    }

    fn group(group: u64, name: &str, description: &str) -> GroupInfo {
        let group = GroupId::new(group).unwrap();
        GroupInfo {
            group,
            name: name.into(),
            description: description.into(),
            role: Role::Creator,
            members: 1,
        }
    }

    #[test]
    fn the_lists_have_the_original_look() {
        let mut roster = Roster::new(UserId::new(2019).unwrap(), "kirito".into());
        roster.replace(vec![friend(2001, "kir")], vec![group(1, "happy game", "happy play")]);
        let expected = "\
--------------------------------login user-------------------------------
current user => account:2019 username:kirito
--------------------------------friend list------------------------------
        ID                NAME                                   STATE
      2001                 kir                                 offline
--------------------------------group list--------------------------------
        ID                NAME                                    DESC
         1          happy game                              happy play
--------------------------------------------------------------------------
Type `help` to see other commands.";
        assert_eq!(lists(&roster).join("\n"), expected);
    }

    #[test]
    fn wide_and_hostile_names_align() {
        let mut roster = Roster::new(UserId::new(1).unwrap(), "a".into());
        let mut blocked = friend(4, "gone");
        blocked.blocked = true;
        let stranger = Friend { friend: false, ..friend(5, "stranger") };
        roster.replace(
            vec![friend(2, "桐人"), friend(3, "a\u{202e}b"), blocked, stranger],
            vec![group(1, "快乐游戏", "一起玩"), group(2, "plain", "")],
        );
        let lines = lists(&roster);
        let rows: Vec<&String> = lines.iter().filter(|line| line.starts_with("      ")).collect();
        assert_eq!(rows.len(), 7, "{lines:?}");
        for row in rows {
            assert_eq!(row.width(), ID + NAME + REST, "{row}");
        }
        assert!(lines.iter().any(|line| line.contains("offline, blocked")));
        assert!(!lines.iter().any(|line| line.contains("stranger")));
    }
}
