//! Bytes to requests, and entries to bytes.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use protocol::{
    ClientMsgId, Entry, EntryBody, LineDecoder, Push, Request, Seq, ServerLine, message::write_push,
};

fn request(text_bytes: usize) -> Vec<u8> {
    let mut line = Vec::new();
    let send = protocol::message::Send {
        mid: ClientMsgId([7; 16]),
        conv: "d1-2".parse().expect("a conversation"),
        text: "x".repeat(text_bytes),
    };
    Request::Send(send).write(&mut line, Some(1));
    line
}

fn entry(text_bytes: usize) -> Entry {
    Entry {
        conv: "d1-2".parse().expect("a conversation"),
        seq: Seq(1000),
        at: 1_700_000_000_000,
        from: "1".parse().expect("a user"),
        name: "kirito".into(),
        mid: ClientMsgId([7; 16]),
        body: EntryBody::Message { text: "x".repeat(text_bytes) },
    }
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    for bytes in [32, 1024, 60_000] {
        let line = request(bytes);
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(format!("split and parse a send of {bytes} bytes"), |b| {
            let mut decoder = LineDecoder::new(128 * 1024);
            b.iter(|| {
                decoder.push(&line);
                let line = decoder.next_line().expect("a line").expect("short enough");
                Request::parse(line).expect("a request")
            });
        });
        let push = Push::Entry(entry(bytes));
        group.bench_function(format!("write an entry of {bytes} bytes"), |b| {
            b.iter_batched_ref(
                || Vec::with_capacity(bytes + 512),
                |out| write_push(out, &push),
                BatchSize::SmallInput,
            );
        });
        let mut pushed = Vec::new();
        write_push(&mut pushed, &push);
        group.bench_function(format!("parse an entry of {bytes} bytes"), |b| {
            b.iter(|| ServerLine::parse(&pushed).expect("a push"));
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
