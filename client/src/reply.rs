//! Replies, typed by what was asked.

use protocol::{
    Request,
    message::{
        Appended, CursorsSet, FriendsPage, GroupCreated, GroupsPage, HistoryPage, LoggedIn, MembersPage,
        Registered,
    },
};
use serde::de::Error as _;
use serde_json::{from_str, value::RawValue};

/// The answer to a request that was carried out.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named after their contents")]
pub enum Reply {
    Done,
    Registered(Registered),
    LoggedIn(LoggedIn),
    CursorsSet(CursorsSet),
    Appended(Appended),
    GroupCreated(GroupCreated),
    Friends(FriendsPage),
    Groups(GroupsPage),
    Members(MembersPage),
    History(HistoryPage),
}

impl Reply {
    /// Reads the `ok` of the reply to `request`.
    pub(crate) fn parse(request: &Request, ok: &RawValue) -> Result<Self, serde_json::Error> {
        let ok = ok.get();
        Ok(match request {
            Request::Ping | Request::Logout | Request::Ack(_) => Self::Done,
            Request::Register(_) => Self::Registered(from_str(ok)?),
            Request::Login(_) => {
                let reply: LoggedIn = from_str(ok)?;
                if reply.token.is_none() {
                    return Err(serde_json::Error::missing_field("token"));
                }
                Self::LoggedIn(reply)
            }
            Request::Resume(_) => Self::LoggedIn(from_str(ok)?),
            Request::Cursors(_) => Self::CursorsSet(from_str(ok)?),
            Request::Befriend(_)
            | Request::Unfriend(_)
            | Request::Block(_)
            | Request::Unblock(_)
            | Request::Join(_)
            | Request::Quit(_)
            | Request::DeleteGroup(_)
            | Request::RemoveMember(_)
            | Request::Passwd(_)
            | Request::Send(_) => Self::Appended(from_str(ok)?),
            Request::CreateGroup(_) => Self::GroupCreated(from_str(ok)?),
            Request::Friends(_) => Self::Friends(from_str(ok)?),
            Request::Groups(_) => Self::Groups(from_str(ok)?),
            Request::Members(_) => Self::Members(from_str(ok)?),
            Request::History(_) => Self::History(from_str(ok)?),
        })
    }
}
