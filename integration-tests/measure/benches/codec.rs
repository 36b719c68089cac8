//! Typical frames: a client's write, and an Append with the entries of a round.

use base::codec;
use bytes::Bytes;
use clerk::api::kv::{KvRequest, Write};
use clerk::api::{ConfigNum, Seq, SessionId, Ticket};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use raft::core::message::{Body, Message};
use raft::types::{Entry, EntryId, Index, Payload, Term};
use serde::Serialize;
use serde::de::DeserializeOwned;

const VALUE_BYTES: usize = 256;
const ENTRIES: u64 = 64;
const LIMIT: usize = 1 << 20;

fn both_ways<T: Serialize + DeserializeOwned>(criterion: &mut Criterion, name: &str, value: &T, count: u64) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(count));
    group.bench_function(format!("encode {name}"), |bencher| bencher.iter(|| codec::encode(value)));
    let bytes = codec::encode(value);
    group.bench_function(format!("decode {name}"), |bencher| {
        bencher.iter(|| codec::decode::<T>(&bytes, LIMIT).expect("what was just encoded"));
    });
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let request = KvRequest::Write {
        key: Bytes::from_static(b"{0000123}07"),
        write: Write::Put { value: Bytes::from(vec![7; VALUE_BYTES]), expected: None },
        ticket: Some(Ticket { session: SessionId(12), seq: Seq(345) }),
        config: ConfigNum(6),
    };
    both_ways(criterion, "a write request", &request, 1);
}

fn append(criterion: &mut Criterion) {
    let command = Bytes::from(vec![7; VALUE_BYTES + 44]);
    let entry = |index| Entry::new(EntryId::new(3, 1000 + index), Payload::Command(command.clone()));
    let entries = (1..=ENTRIES).map(entry).collect();
    let prev = EntryId::new(3, 1000);
    let message = Message::new(
        Term(3),
        Body::Append { prev, entries, commit: Index(990), round: 8, acked: EntryId::ZERO, differs: None },
    );
    both_ways(criterion, "an Append of 64 entries", &message, ENTRIES);
}

criterion_group!(benches, write, append);
criterion_main!(benches);
