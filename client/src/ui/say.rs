//! Sentences for errors, entries and times.

use client::RequestError;
use protocol::{Entry, EntryBody, ErrorBody, ErrorCode, GroupId, UnixMillis, UserId, ids::Conversation};

use super::{
    roster::{Roster, named},
    tell::Failure,
};

/// What stands where a message's text was.
const ERASED: &str = "(message deleted)";

/// What a command was about, for the sentence that says why it failed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About {
    pub(crate) user: Option<UserId>,
    pub(crate) group: Option<GroupId>,
}

/// Why a command failed.
pub(crate) fn failure(
    command: &'static str,
    about: About,
    error: &RequestError,
    roster: Option<&Roster>,
) -> Failure {
    let (code, message) = match error {
        RequestError::Refused(error) => (error.code.name(), refused(command, about, error, roster)),
        RequestError::Unknown => (
            "unknown_outcome",
            "no answer came; it may have happened or not, so look before you repeat it".into(),
        ),
        RequestError::TooManyRequests => {
            ("too_many_requests", "too many requests are waiting; try again".into())
        }
        RequestError::Closed => ("not_connected", "not connected; it was not done".into()),
    };
    Failure { command, code: code.into(), definite: error.is_definite(), message }
}

fn refused(command: &str, about: About, error: &ErrorBody, roster: Option<&Roster>) -> String {
    let user = match about.user {
        Some(user) => roster.map_or_else(|| format!("user {user}"), |roster| roster.user(user)),
        None => "that user".into(),
    };
    let group = match about.group {
        Some(group) => roster.map_or_else(|| format!("group {group}"), |roster| roster.group(group)),
        None => "that group".into(),
    };
    match error.code {
        ErrorCode::BadCredentials if command == "passwd" => "that is not your password".into(),
        ErrorCode::BadCredentials => "wrong account or password".into(),
        ErrorCode::Banned => "this account is banned; only the operators can change that".into(),
        ErrorCode::BadToken | ErrorCode::NotLoggedIn => "the session has ended; log in again".into(),
        ErrorCode::BadText if command != "creategroup" => "the message is empty or too long".into(),
        ErrorCode::FrameTooLong => "that is too long; it was not sent".into(),
        ErrorCode::NameTaken => "that name is taken".into(),
        ErrorCode::NoSuchUser => format!("there is no {user}"),
        ErrorCode::NoSuchGroup => format!("there is no {group}"),
        ErrorCode::NoSuchConversation if about.group.is_some() => {
            format!("there is no {group}, or you were never a member of it")
        }
        ErrorCode::NoSuchConversation => format!("there is no conversation with {user}"),
        ErrorCode::NotMember if command == "kick" => format!("{user} is not a member of {group}"),
        ErrorCode::NotMember => format!("you are not a member of {group}"),
        ErrorCode::AlreadyMember => format!("you are a member of {group} already"),
        ErrorCode::NotCreator => format!("only the creator of {group} can do that"),
        ErrorCode::NotFriends => format!("you and {user} are not friends"),
        ErrorCode::AlreadyFriends => format!("you and {user} are friends already"),
        ErrorCode::SelfTarget => "you cannot do that to yourself".into(),
        ErrorCode::Blocked => format!("{user} has blocked you"),
        ErrorCode::AlreadyBlocked => format!("you have blocked {user} already"),
        ErrorCode::NotBlocked => format!("you have not blocked {user}"),
        ErrorCode::Overloaded | ErrorCode::GoingAway => {
            "the server is busy; it was not done, try again later".into()
        }
        // The server's own words say more: which limit, which rule.
        _ => error.message.clone(),
    }
}

/// An entry on one line; `None` for what is not for people.
pub(crate) fn entry(entry: &Entry, roster: &Roster) -> Option<String> {
    let me = roster.user;
    let from = named(&entry.name, entry.from);
    let mine = entry.from == me;
    let who = if mine { "you".to_owned() } else { from.clone() };
    Some(match entry.conv.parse() {
        Conversation::Notices(_) if entry.body == EntryBody::PasswordChanged => {
            format!("{} your password was changed", time(entry.at))
        }
        Conversation::Notices(_) if entry.body == EntryBody::SessionsEnded => {
            format!("{} an operator ended your sessions", time(entry.at))
        }
        Conversation::Notices(_) => return None,
        Conversation::Direct(..) => {
            let other = roster.conversation(entry.conv);
            match &entry.body {
                EntryBody::Message { text } if mine => {
                    format!("{} {from} to {other}: {text}", time(entry.at))
                }
                EntryBody::Message { text } => format!("{} {from}: {text}", time(entry.at)),
                EntryBody::Erased if mine => {
                    format!("{} {from} to {other}: {ERASED}", time(entry.at))
                }
                EntryBody::Erased => format!("{} {from}: {ERASED}", time(entry.at)),
                EntryBody::Befriended if mine => format!("you added {other} as a friend"),
                EntryBody::Befriended => format!("{from} added you as a friend"),
                EntryBody::Unfriended if mine => format!("you removed {other} from your friends"),
                EntryBody::Unfriended => format!("{from} removed you from their friends"),
                EntryBody::Blocked if mine => format!("you blocked {other}"),
                EntryBody::Blocked => format!("{from} blocked you"),
                EntryBody::Unblocked if mine => format!("you unblocked {other}"),
                EntryBody::Unblocked => format!("{from} unblocked you"),
                body => unknown(&who, body.kind()),
            }
        }
        Conversation::Group(group) => {
            let group = roster.group(group);
            match &entry.body {
                EntryBody::Message { text } => format!("{} [{group}] {from}: {text}", time(entry.at)),
                EntryBody::Erased => format!("{} [{group}] {from}: {ERASED}", time(entry.at)),
                EntryBody::Created { .. } => format!("{who} created {group}"),
                EntryBody::Joined => format!("{who} joined {group}"),
                EntryBody::Left => format!("{who} left {group}"),
                EntryBody::Removed { user, .. } if *user == me => format!("{who} removed you from {group}"),
                EntryBody::Removed { user, user_name } => {
                    format!("{who} removed {} from {group}", named(user_name, *user))
                }
                EntryBody::Deleted => format!("{who} deleted {group}"),
                body => unknown(&who, body.kind()),
            }
        }
    })
}

fn unknown(who: &str, kind: &str) -> String {
    format!("{who} did something that this version does not know ({kind})")
}

/// A time in UTC: `2026-11-23 18:46:40`.
pub(crate) fn time(at: UnixMillis) -> String {
    let seconds = at.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date of the proleptic Gregorian calendar, in eras of 400 years that begin in March.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use protocol::{ClientMsgId, Seq};

    use super::*;

    #[test]
    fn times() {
        let check = |at, expected: &str| assert_eq!(time(at), expected);
        check(0, "1970-01-01 00:00:00");
        check(951_782_399_999, "2000-02-28 23:59:59");
        check(951_782_400_000, "2000-02-29 00:00:00");
        check(1_700_000_000_000, "2023-11-14 22:13:20");
        check(4_102_444_799_000, "2099-12-31 23:59:59");
        check(-1, "1969-12-31 23:59:59");
        // A hostile time is no reason to panic.
        time(i64::MAX);
        time(i64::MIN);
    }

    #[test]
    fn entries_are_told_in_plain_sentences() {
        let mut roster = Roster::new(UserId::new(2).unwrap(), "kir".into());
        roster.remember(GroupId::new(7).unwrap(), "happy game".into());
        let check = |conv: &str, from: u64, body: EntryBody, expected: Option<&str>| {
            let line = Entry {
                conv: conv.parse().unwrap(),
                seq: Seq(1),
                at: 0,
                from: UserId::new(from).unwrap(),
                name: if from == 1 { "kirito".into() } else { "kir".into() },
                mid: ClientMsgId([0; 16]),
                body,
            };
            assert_eq!(entry(&line, &roster).as_deref(), expected);
        };
        let text = || EntryBody::Message { text: "a: b".into() };
        check("d1-2", 1, text(), Some("1970-01-01 00:00:00 kirito(1): a: b"));
        check("d1-2", 2, text(), Some("1970-01-01 00:00:00 kir(2) to user 1: a: b"));
        check("g7", 1, text(), Some("1970-01-01 00:00:00 [happy game(7)] kirito(1): a: b"));
        check("g8", 2, text(), Some("1970-01-01 00:00:00 [group 8] kir(2): a: b"));
        check("d1-2", 1, EntryBody::Erased, Some("1970-01-01 00:00:00 kirito(1): (message deleted)"));
        let own = Some("1970-01-01 00:00:00 kir(2) to user 1: (message deleted)");
        check("d1-2", 2, EntryBody::Erased, own);
        let in_group = Some("1970-01-01 00:00:00 [happy game(7)] kirito(1): (message deleted)");
        check("g7", 1, EntryBody::Erased, in_group);
        check("d1-2", 1, EntryBody::Befriended, Some("kirito(1) added you as a friend"));
        check("d1-2", 2, EntryBody::Blocked, Some("you blocked user 1"));
        check("g7", 2, EntryBody::Joined, Some("you joined happy game(7)"));
        let removed =
            |user: u64| EntryBody::Removed { user: UserId::new(user).unwrap(), user_name: "x".into() };
        check("g7", 1, removed(2), Some("kirito(1) removed you from happy game(7)"));
        check("g7", 1, removed(3), Some("kirito(1) removed x(3) from happy game(7)"));
        let sticker = EntryBody::Other { kind: "sticker".into() };
        check("g7", 1, sticker, Some("kirito(1) did something that this version does not know (sticker)"));
        let opened = EntryBody::Opened { opened: "g7".parse().unwrap(), after: Seq(0), title: "x".into() };
        check("u2", 1, opened, None);
        let changed = Some("1970-01-01 00:00:00 your password was changed");
        check("u2", 2, EntryBody::PasswordChanged, changed);
        let ended = Some("1970-01-01 00:00:00 an operator ended your sessions");
        check("u2", 2, EntryBody::SessionsEnded, ended);
    }
}
