//! Every field of every request, missing, twice, and with values that it cannot have.

use protocol::message::Op;

use super::{BadLine, bad};

/// What a field holds: a value that it can have, and some that it cannot.
#[derive(Debug, Clone, Copy)]
enum Form {
    Mid,
    Text,
    /// Of a user or a group.
    Number,
    Conv,
    Cursors,
    Token,
    Flag,
    /// A number from 0 on.
    Count,
}

/// A field, what it holds, and whether it may be missing.
type Field = (&'static str, Form, bool);

const MID: Field = ("mid", Form::Mid, false);

/// What each operation takes: SPEC.md, sections 4 and 5. The compiler wants an answer for each.
fn fields(op: Op) -> Vec<Field> {
    match op {
        Op::Ping | Op::Logout => vec![],
        Op::Register => vec![MID, ("name", Form::Text, false), ("password", Form::Text, false)],
        Op::Login => vec![("account", Form::Text, false), ("password", Form::Text, false)],
        Op::Passwd => vec![MID, ("old", Form::Text, false), ("new", Form::Text, false)],
        Op::Resume => {
            vec![("token", Form::Token, false), ("cursors", Form::Cursors, true), ("more", Form::Flag, true)]
        }
        Op::Cursors | Op::Ack => vec![("cursors", Form::Cursors, false), ("more", Form::Flag, true)],
        Op::Befriend | Op::Unfriend | Op::Block | Op::Unblock => vec![MID, ("user", Form::Number, false)],
        Op::Friends | Op::Groups => vec![("after", Form::Count, true)],
        Op::CreateGroup => vec![MID, ("name", Form::Text, false), ("description", Form::Text, false)],
        Op::Join | Op::Quit | Op::DeleteGroup => vec![MID, ("group", Form::Number, false)],
        Op::RemoveMember => vec![MID, ("group", Form::Number, false), ("user", Form::Number, false)],
        Op::Members => vec![("group", Form::Number, false), ("after", Form::Count, true)],
        Op::Send => vec![MID, ("conv", Form::Conv, false), ("text", Form::Text, false)],
        Op::History => {
            vec![("conv", Form::Conv, false), ("before", Form::Count, true), ("limit", Form::Count, true)]
        }
    }
}

impl Form {
    fn good(self) -> &'static str {
        match self {
            Self::Mid => "\"000000000000000000000000000000cc\"",
            Self::Text => "\"x\"",
            Self::Number | Self::Count => "77",
            Self::Conv => "\"g77\"",
            Self::Cursors => "{}",
            Self::Token => "\"0000000000000000000000000000000000000000000000000000000000000000\"",
            Self::Flag => "false",
        }
    }

    fn bad(self) -> &'static [&'static str] {
        match self {
            Self::Mid => &["7", "\"\"", "\"cc\"", "\"zz0000000000000000000000000000cc\"", "[]", "null"],
            Self::Text => &["7", "true", "[\"x\"]", "{}", "null"],
            Self::Number => &["0", "-1", "1.5", "\"77\"", "18446744073709551616", "[77]", "null"],
            Self::Conv => &["77", "\"\"", "\"77\"", "\"x77\"", "\"g-1\"", "\"d2-1\"", "[\"g77\"]", "null"],
            Self::Cursors => {
                &["[]", "7", "{\"x\":1}", "{\"g1\":-1}", "{\"g1\":\"1\"}", "{\"g1\":null}", "null"]
            }
            Self::Token => &["7", "\"\"", "\"00\"", "[]", "null"],
            Self::Flag => &["1", "\"true\"", "null"],
            // Null is what may be missing.
            Self::Count => &["-1", "1.5", "\"1\"", "18446744073709551616", "[]"],
        }
    }
}

/// What is wrong with one field of an otherwise good request, for each; in a session of all operations, before a login of those that come
/// there.
pub(super) fn bad_fields(in_a_session: bool) -> Vec<BadLine> {
    let before = |op| matches!(op, Op::Register | Op::Login | Op::Resume | Op::Cursors);
    let mut cases = Vec::new();
    for op in Op::ALL.into_iter().filter(|op| in_a_session || before(*op)) {
        let fields = fields(op);
        for (at, (name, form, optional)) in fields.iter().copied().enumerate() {
            let mut case = |what: String, replaced: &[&str]| {
                let mut line = format!("{{\"id\":1,\"op\":\"{}\"", op.name());
                for (other, (name, form, _)) in fields.iter().enumerate() {
                    let values = if other == at { replaced } else { &[form.good()] };
                    values.iter().for_each(|value| line += &format!(",\"{name}\":{value}"));
                }
                line.push('}');
                let expected = format!("bad_request {name}");
                cases.push(bad(&format!("{}, {name}: {what}", op.name()), line, &expected));
            };
            if !optional {
                case("missing".into(), &[]);
            }
            case("twice".into(), &[form.good(), form.good()]);
            for value in form.bad() {
                case((*value).into(), &[value]);
            }
        }
    }
    cases
}
