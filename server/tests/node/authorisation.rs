//! Who may do what: every operation, asked by everyone who can stand in some relation to its target. SPEC.md, section 4.
//!
//! The table's rows are generated from [`Op::ALL`], the list by which requests are parsed: an operation that it lacks cannot be asked for, and
//! for one that it has the compiler wants a row.

use std::fmt::Write as _;

use protocol::{
    ClientMsgId, ConversationId, GroupId, Request, Seq, Token, UserId,
    message::{
        ChangePassword, CreateGroup, GroupTarget, History, Login, Members, Op, Page, Password, Register,
        RemoveMember, Resume, Send, SetCursors, UserTarget,
    },
};
use serde_json::{Value, json};

use crate::harness::{TestNode, Wire, mid};

/// How the one who asks stands to the peer, and to the peer's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// Not logged in.
    Anonymous,
    /// Neither friend nor member.
    Stranger,
    Friend,
    /// A friend whom the peer has blocked.
    Blocked,
    /// A friend who has blocked the peer.
    Blocking,
    /// Was a friend.
    Unfriended,
    Member,
    /// The group's creator; elsewhere the peer is.
    Creator,
    /// Was removed from the group.
    Removed,
    /// Has left the group.
    Left,
    /// Was a member of the group when it was deleted.
    Deleted,
}

use Relation::*;

const RELATIONS: [Relation; 11] =
    [Anonymous, Stranger, Friend, Blocked, Blocking, Unfriended, Member, Creator, Removed, Left, Deleted];

/// Who and what an operation is tried on.
struct Scene {
    me: Wire,
    name: String,
    peer: UserId,
    /// A member of the group; no friend of anybody.
    other: UserId,
    group: GroupId,
    direct: ConversationId,
    /// Between the peer and the other.
    foreign: ConversationId,
}

fn user(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

impl Scene {
    async fn new(node: &TestNode, relation: Relation, number: usize) -> Self {
        let name = |who: &str| format!("{who}{number}");
        let (my_number, mut me) = node.user(&name("me")).await;
        let (peer_number, mut peer) = node.user(&name("peer")).await;
        let (other_number, mut other) = node.user(&name("other")).await;
        let direct = ConversationId::direct(user(my_number), user(peer_number)).unwrap();
        let to = |op: &str, user: u64| json!({"op": op, "mid": mid(), "user": user});
        peer.ok(to("befriend", other_number)).await;
        if matches!(relation, Friend | Blocked | Blocking | Unfriended) {
            me.ok(to("befriend", peer_number)).await;
        }
        match relation {
            Blocked => drop(peer.ok(to("block", my_number)).await),
            Blocking => drop(me.ok(to("block", peer_number)).await),
            Unfriended => drop(me.ok(to("unfriend", peer_number)).await),
            _ => {}
        }
        let creator = if relation == Creator { &mut me } else { &mut peer };
        let create = json!({"op": "create_group", "mid": mid(), "name": "g", "description": ""});
        let group = creator.ok(create).await["group"].as_u64().unwrap();
        let within = |op: &str| json!({"op": op, "mid": mid(), "group": group});
        other.ok(within("join")).await;
        if matches!(relation, Member | Removed | Left | Deleted) {
            me.ok(within("join")).await;
        }
        match relation {
            Removed => {
                let remove = json!({"op": "remove_member", "mid": mid(), "group": group, "user": my_number});
                peer.ok(remove).await;
            }
            Left => drop(me.ok(within("quit")).await),
            Deleted => drop(peer.ok(within("delete_group")).await),
            _ => {}
        }
        if relation == Anonymous {
            me = node.connect().await;
        }
        Self {
            me,
            name: name("me"),
            peer: user(peer_number),
            other: user(other_number),
            group: GroupId::new(group).unwrap(),
            direct,
            foreign: ConversationId::direct(user(peer_number), user(other_number)).unwrap(),
        }
    }

    /// An operation on every target that it can have: how the table calls it, and the request.
    fn requests_of(&self, op: Op) -> Vec<(&'static str, Request)> {
        let mid: ClientMsgId = mid().parse().unwrap();
        let password = |text: &str| Password(text.into());
        let (user, group) = (UserTarget { mid, user: self.peer }, GroupTarget { mid, group: self.group });
        let send = |conv| Request::Send(Send { mid, conv, text: "x".into() });
        let history = |conv| Request::History(History { conv, before: None, limit: None });
        let notices = ConversationId::notices(self.peer);
        let of_group = ConversationId::group(self.group);
        let request = match op {
            Op::Send => {
                return vec![
                    ("send to the peer", send(self.direct)),
                    ("send to the group", send(of_group)),
                    ("send to others", send(self.foreign)),
                    ("send to notices", send(notices)),
                ];
            }
            Op::History => {
                return vec![
                    ("history with peer", history(self.direct)),
                    ("history of group", history(of_group)),
                    ("history of others", history(self.foreign)),
                    ("history of notices", history(notices)),
                ];
            }
            Op::Ping => Request::Ping,
            Op::Register => {
                let name = format!("new {}", self.name);
                Request::Register(Register { mid, name, password: password("x") })
            }
            Op::Login => Request::Login(Login { account: self.name.clone(), password: password(&self.name) }),
            Op::Resume => Request::Resume(Resume { token: Token([0; 32]), cursors: [].into(), more: false }),
            Op::Cursors => Request::Cursors(SetCursors { cursors: [].into(), more: false }),
            Op::Logout => Request::Logout,
            Op::Passwd => {
                Request::Passwd(ChangePassword { mid, old: password(&self.name), new: password("x") })
            }
            Op::Ack => {
                let cursors = [(self.direct, Seq(1)), (self.foreign, Seq(1))].into();
                Request::Ack(SetCursors { cursors, more: false })
            }
            Op::Befriend => Request::Befriend(user),
            Op::Unfriend => Request::Unfriend(user),
            Op::Block => Request::Block(user),
            Op::Unblock => Request::Unblock(user),
            Op::Friends => Request::Friends(Page::default()),
            Op::CreateGroup => {
                Request::CreateGroup(CreateGroup { mid, name: "h".into(), description: String::new() })
            }
            Op::Join => Request::Join(group),
            Op::Quit => Request::Quit(group),
            Op::DeleteGroup => Request::DeleteGroup(group),
            Op::RemoveMember => {
                Request::RemoveMember(RemoveMember { mid, group: self.group, user: self.other })
            }
            Op::Groups => Request::Groups(Page::default()),
            Op::Members => Request::Members(Members { group: self.group, after: 0 }),
        };
        vec![(op.name(), request)]
    }

    /// All rows of the table, in the order of [`Op::ALL`].
    fn requests(&self) -> Vec<(&'static str, Request)> {
        let of = |op| {
            let rows = self.requests_of(op);
            assert!(!rows.is_empty() && rows.iter().all(|(_, request)| request.op() == op), "{op:?}");
            rows
        };
        Op::ALL.into_iter().flat_map(of).collect()
    }
}

async fn answer(wire: &mut Wire, request: &Request) -> String {
    let mut line = Vec::new();
    request.write(&mut line, Some(7));
    wire.send(line).await;
    let reply: Value = wire.reply(7).await;
    match reply["error"]["code"].as_str() {
        Some(code) => code.into(),
        None => "ok".into(),
    }
}

/// `.`: it is done. A code of three letters: it is refused, see [`CODES`].
const TABLE: &str = "
                   anon stra frie bldb blng unfr memb crea remv left dele
send to the peer    nli  nfr  .    blk  .    nfr  nfr  nfr  nfr  nfr  nfr
send to the group   nli  nme  nme  nme  nme  nme  .    .    nme  nme  nsg
send to others      nli  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc
send to notices     nli  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc
ack                 nli  .    .    .    .    .    .    .    .    .    .
ping                .    .    .    .    .    .    .    .    .    .    .
register            .    .    .    .    .    .    .    .    .    .    .
login               .    ali  ali  ali  ali  ali  ali  ali  ali  ali  ali
resume              bto  ali  ali  ali  ali  ali  ali  ali  ali  ali  ali
cursors             brq  brq  brq  brq  brq  brq  brq  brq  brq  brq  brq
logout              nli  .    .    .    .    .    .    .    .    .    .
passwd              nli  .    .    .    .    .    .    .    .    .    .
befriend            nli  .    afr  afr  afr  .    .    .    .    .    .
unfriend            nli  nfr  .    .    .    nfr  nfr  nfr  nfr  nfr  nfr
block               nli  .    .    .    abl  .    .    .    .    .    .
unblock             nli  nbl  nbl  nbl  .    nbl  nbl  nbl  nbl  nbl  nbl
friends             nli  .    .    .    .    .    .    .    .    .    .
create_group        nli  .    .    .    .    .    .    .    .    .    .
join                nli  .    .    .    .    .    ame  ame  .    .    nsg
quit                nli  nme  nme  nme  nme  nme  .    .    nme  nme  nsg
delete_group        nli  nme  nme  nme  nme  nme  ncr  .    nme  nme  nsg
remove_member       nli  nme  nme  nme  nme  nme  ncr  .    nme  nme  nsg
groups              nli  .    .    .    .    .    .    .    .    .    .
members             nli  nme  nme  nme  nme  nme  .    .    nme  nme  nsg
history with peer   nli  nsc  .    .    .    .    nsc  nsc  nsc  nsc  nsc
history of group    nli  nsc  nsc  nsc  nsc  nsc  .    .    .    .    .
history of others   nli  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc
history of notices  nli  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc  nsc
";

const CODES: [(&str, &str); 16] = [
    (".", "ok"),
    ("abl", "already_blocked"),
    ("afr", "already_friends"),
    ("ali", "already_logged_in"),
    ("ame", "already_member"),
    ("blk", "blocked"),
    ("brq", "bad_request"),
    ("bto", "bad_token"),
    ("nbl", "not_blocked"),
    ("ncr", "not_creator"),
    ("nfr", "not_friends"),
    ("nli", "not_logged_in"),
    ("nme", "not_member"),
    ("nsc", "no_such_conversation"),
    ("nsg", "no_such_group"),
    ("idr", "id_reused"),
];

fn short(code: &str) -> &str {
    CODES.iter().find(|(_, long)| *long == code).map_or(code, |(short, _)| short)
}

#[tokio::test]
async fn every_operation_in_every_relation() {
    let node = TestNode::in_memory().await;
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    for (column, relation) in RELATIONS.into_iter().enumerate() {
        let count = Scene::new(&node, relation, column * 100 + 99).await.requests().len();
        for row in 0..count {
            // A scene of its own for each: what one does would change the next.
            let mut scene = Scene::new(&node, relation, column * 100 + row).await;
            let (name, request) = scene.requests().swap_remove(row);
            let code = answer(&mut scene.me, &request).await;
            if rows.len() <= row {
                rows.push((name, Vec::new()));
            }
            rows[row].1.push(short(&code).to_owned());
        }
    }
    let mut table =
        String::from("\n                   anon stra frie bldb blng unfr memb crea remv left dele\n");
    for (name, cells) in rows {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:<4}")).collect();
        let _ = writeln!(table, "{}", format!("{name:<20}{}", cells.join(" ")).trim_end());
    }
    assert_eq!(table, TABLE, "\n{table}");
}
