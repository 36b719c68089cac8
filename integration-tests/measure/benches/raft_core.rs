//! The Raft core alone: three cores in memory, stepped in turn, each followed by carrying out its
//! Readys.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use measure::core::Trio;

const ENTRIES: u64 = 10_000;

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("core");
    for in_flight in [1, 16, 64, 256, 1024] {
        let entries = if in_flight == 1 { ENTRIES / 10 } else { ENTRIES };
        group.throughput(Throughput::Elements(entries));
        let mut trio = Trio::elected();
        group.bench_function(BenchmarkId::new("commit, in flight", in_flight), |bencher| {
            bencher.iter(|| trio.commit(entries, in_flight));
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
