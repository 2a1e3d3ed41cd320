//! A million events, as a run of many users leaves them, from history to verdict.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use loadgen::{
    History, Verdict, canary, check,
    history::{Bounds, Call, DeviceId, Event, OperationId, Outcome, Reply, What},
};
use protocol::{ClientMsgId, ConversationId, Entry, EntryBody, GroupId, Seq, UserId};
use std::time::Duration;

const EVENTS: usize = 1_000_000;
const GROUPS: u64 = 100;
/// Members of each group, with a device each: every message is delivered so often.
const MEMBERS: u64 = 8;

/// Groups of users who talk in turn; all is delivered to all, and read at the end.
fn history() -> History {
    let mut all = Vec::with_capacity(EVENTS + 10_000);
    let user = |number: u64| UserId::new(number + 1).expect("a small number");
    let device = |number: u64| DeviceId(number as u32);
    let conv = |group: u64| ConversationId::group(GroupId::new(group + 1).expect("a small number"));
    let mut operations = 0;
    let ask = |all: &mut Vec<What>, by: u64, call: Call, reply: Reply| {
        let operation = OperationId(operations);
        operations += 1;
        all.push(What::Invoked { operation, device: device(by), call });
        all.push(What::Returned { operation, outcome: Outcome::Ok { reply } });
    };
    let mut ask = ask;
    for number in 0..GROUPS * MEMBERS {
        all.push(What::Started { device: device(number), user: Some(user(number)) });
        ask(&mut all, number, Call::Login, Reply::LoggedIn { user: user(number) });
    }
    let mut logs: Vec<Vec<Entry>> = (0..GROUPS).map(|_| Vec::new()).collect();
    let mut turn = 0_u64;
    while all.len() < EVENTS {
        let (group, round) = (turn % GROUPS, turn / GROUPS);
        turn += 1;
        let by = group * MEMBERS + round % MEMBERS;
        let mut mid = [0; 16];
        mid[..8].copy_from_slice(&turn.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        let mid = ClientMsgId(mid);
        let (log, conv) = (&mut logs[group as usize], conv(group));
        let seq = Seq(log.len() as u64 + 1);
        let group_id = GroupId::new(group + 1).expect("a small number");
        let body = match round {
            0 => {
                let reply = Reply::GroupCreated { group: group_id, seq };
                ask(&mut all, by, Call::CreateGroup { mid, name: "club".into() }, reply);
                EntryBody::Created { title: "club".into() }
            }
            1..MEMBERS => {
                ask(&mut all, by, Call::Join { mid, group: group_id }, Reply::Appended { seq });
                EntryBody::Joined
            }
            _ => {
                let text = canary::text(conv, &turn.to_string());
                ask(&mut all, by, Call::Send { mid, conv, text: text.clone() }, Reply::Appended { seq });
                EntryBody::Message { text }
            }
        };
        let entry = Entry { conv, seq, at: 0, from: user(by), name: "somebody".into(), mid, body };
        for member in 0..MEMBERS.min(round + 1) {
            let device = device(group * MEMBERS + member);
            all.push(What::Entry { device, entry: Box::new(entry.clone()) });
        }
        log.push(entry);
    }
    for (group, log) in logs.iter().enumerate() {
        for member in 0..MEMBERS {
            let entries = log[member as usize..].to_vec();
            let user = user(group as u64 * MEMBERS + member);
            all.push(What::Final { user, conv: conv(group as u64), entries });
        }
    }
    let at = |index: usize| Duration::from_micros(10 * index as u64);
    let events = all.into_iter().enumerate().map(|(index, what)| Event { at: at(index), what }).collect();
    History { bounds: Bounds::default(), events }
}

fn checker(c: &mut Criterion) {
    let history = history();
    assert_eq!(check(&history), Verdict::Valid);
    let mut group = c.benchmark_group("checker");
    group.throughput(Throughput::Elements(history.events.len() as u64));
    group.sample_size(10);
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("a million events", |b| b.iter(|| check(&history)));
    group.finish();
}

criterion_group!(benches, checker);
criterion_main!(benches);
