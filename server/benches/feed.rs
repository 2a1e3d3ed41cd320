//! One entry to 1, 50 and 1,000 local sessions: through the feed, into each session's output.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::{ClientMsgId, Entry, EntryBody, Seq};
use server::{
    feed::{FeedCell, Found, Line},
    outbox::{Outbox, Wakes},
};

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("feed");
    for readers in [1usize, 50, 1000] {
        group.throughput(Throughput::Elements(readers as u64));
        group.bench_function(format!("deliver an entry to {readers} sessions"), |b| {
            let cell = FeedCell::new("g1".parse().expect("a conversation"), Arc::default());
            let user = "1".parse().expect("a user");
            let places: Vec<_> = (0..readers)
                .map(|_| {
                    let outbox = Outbox::new(user);
                    let place = cell.lock().attach(Arc::clone(&outbox));
                    (outbox, place)
                })
                .collect();
            cell.lock().start(Seq(0));
            let mut out = Vec::with_capacity(512);
            let mut seq = Seq(0);
            b.iter(|| {
                let entry = Entry {
                    conv: cell.conv,
                    seq: seq.next(),
                    at: 0,
                    from: user,
                    name: "kirito".into(),
                    mid: ClientMsgId([0; 16]),
                    body: EntryBody::Message { text: "x".repeat(32) },
                };
                let mut wakes = Wakes::default();
                cell.lock().confirm([Arc::new(Line::new(entry))], &mut wakes);
                wakes.fire();
                for (outbox, place) in &places {
                    out.clear();
                    assert_eq!(outbox.take().signals.len(), 1);
                    let mut feed = cell.lock();
                    let Found::Lines(lines) = feed.look(*place, seq) else { panic!("it is in memory") };
                    for line in lines {
                        out.extend_from_slice(&line.bytes);
                    }
                }
                seq = seq.next();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
