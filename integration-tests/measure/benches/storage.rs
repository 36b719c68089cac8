//! Both stores of a replica on a real disk: synced saves of the log, and batches and reads of the table.

use std::path::Path;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use raft::storage::{Batch, Change, Log, Save, ScanLimit, Table};
use raft::types::{Entry, EntryId, HardState, Payload, Term};
use raft_disk::rocksdb::{TableOptions, open_table};
use raft_disk::wal::{LogOptions, open_log};
use rand::rngs::Xoshiro256PlusPlus as Generator;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tokio::runtime::{Builder, Runtime};

const VALUE_BYTES: usize = 256;
const ROWS: u64 = 100_000;
/// The log of this measurement is compacted after this many entries; a replica's log is compacted
/// by bytes.
const COMPACT_ENTRIES: u64 = 50_000;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Incompressible bytes.
fn value(random: &mut Generator) -> Bytes {
    let mut value = vec![0; VALUE_BYTES];
    random.fill_bytes(&mut value);
    Bytes::from(value)
}

/// A log that is written the way a replica writes it.
struct Writer {
    log: Box<dyn Log>,
    next: u64,
    compacted: u64,
    command: Bytes,
    runtime: Runtime,
}

impl Writer {
    fn new(directory: &Path) -> Self {
        let mut log = open_log(directory, &LogOptions::default()).expect("a log");
        log.load().expect("an empty log");
        let runtime = runtime();
        let hard_state = Some(HardState { term: Term(1), vote: None });
        runtime.block_on(log.save(&Save { hard_state, ..Save::default() }));
        Self { log, next: 1, compacted: 0, command: value(&mut Generator::seed_from_u64(1)), runtime }
    }

    fn save(&mut self, count: u64) {
        let entry = |index| Entry::new(EntryId::new(1, index), Payload::Command(self.command.clone()));
        let entries = (self.next..self.next + count).map(entry).collect();
        let due = self.next - self.compacted >= COMPACT_ENTRIES;
        let marker = due.then(|| EntryId::new(1, self.next - 1));
        self.compacted = marker.map_or(self.compacted, |marker| marker.index.0);
        self.next += count;
        self.runtime.block_on(self.log.save(&Save { entries, marker, ..Save::default() }));
    }
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    for count in [1, 16, 64, 256] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut writer = Writer::new(directory.path());
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("synced save, entries", count), |bencher| {
            bencher.iter(|| writer.save(count));
        });
    }
    group.finish();
}

fn row_key(number: u64) -> Bytes {
    Bytes::from(format!("row {number:012}"))
}

fn batch(random: &mut Generator, rows: u64, pick: impl Fn(&mut Generator, u64) -> u64) -> Batch {
    (0..rows).map(|at| Change::Put(row_key(pick(random, at)), value(random))).collect()
}

fn table(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let table = open_table(directory.path(), &TableOptions::default()).expect("a table");
    let mut random = Generator::seed_from_u64(2);
    for first in (0..ROWS).step_by(1000) {
        table.write(batch(&mut random, 1000, |_, at| first + at));
    }
    runtime().block_on(table.flush());
    let mut group = criterion.benchmark_group("table");
    for count in [1, 64, 256] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("write, rows", count), |bencher| {
            let make = || batch(&mut random, count, |random, _| random.random_range(0..ROWS));
            bencher.iter_batched(make, |batch| table.write(batch), criterion::BatchSize::SmallInput);
        });
    }
    group.throughput(Throughput::Elements(1));
    read(&mut group, &*table);
    group.finish();
}

fn read(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>, table: &dyn Table) {
    let mut random = Generator::seed_from_u64(3);
    group.bench_function("get", |bencher| {
        bencher.iter_batched(
            || row_key(random.random_range(0..ROWS)),
            |key| table.get(&key).expect("it is there"),
            criterion::BatchSize::SmallInput,
        );
    });
    let limit = ScanLimit { rows: 100, bytes: usize::MAX };
    group.throughput(Throughput::Elements(limit.rows as u64));
    group.bench_function("scan, rows/100", |bencher| {
        bencher.iter_batched(
            || row_key(random.random_range(0..ROWS - 100)),
            |key| table.scan(&key, None, limit),
            criterion::BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, log, table);
criterion_main!(benches);
