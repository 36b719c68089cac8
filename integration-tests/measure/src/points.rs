//! The measurements and their targets, in one place.

use super::load::{BATCH, Measured, Work};

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name on the command line and in results.
    pub name: &'static str,
    /// Its description, for people.
    pub text: &'static str,
    pub how: How,
}

/// How a point is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By the closed loop, in every round, on every store.
    Loop(Work),
    /// The Raft core alone, with this many proposals in flight, in every round.
    Core(usize),
    /// The memory of a server with many keys: once, at the end, on our store.
    Memory,
}

const fn work(clients: usize, reads: u32, batch: u64) -> How {
    How::Loop(Work { clients, reads, batch })
}

/// All points, in the order in which they are measured.
pub static POINTS: [Point; 9] = [
    Point { name: "put-1", text: "put, 1 client", how: work(1, 0, 1) },
    Point { name: "put-64", text: "put, 64 clients", how: work(64, 0, 1) },
    Point { name: "put-256", text: "put, 256 clients", how: work(256, 0, 1) },
    Point { name: "get-1", text: "get, 1 client", how: work(1, 100, 1) },
    Point { name: "get-64", text: "get, 64 clients", how: work(64, 100, 1) },
    Point { name: "mixed-64", text: "get or put, one to one, 64 clients", how: work(64, 50, 1) },
    Point { name: "batch-64", text: "16 puts a call, 64 callers", how: work(64, 0, BATCH) },
    Point { name: "core", text: "the Raft core alone, 256 proposals in flight", how: How::Core(256) },
    Point { name: "memory", text: "memory with a million keys", how: How::Memory },
];

/// A figure of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Operations per second.
    Rate,
    /// Median time of a call.
    P50,
    /// 99th percentile of it.
    P99,
    /// Processor time of all servers, per operation.
    ServerCpu,
    /// The largest memory of a server.
    Memory,
}

impl Metric {
    pub fn of(self, measured: &Measured) -> f64 {
        match self {
            Self::Rate => measured.rate,
            Self::P50 => measured.p50_ms,
            Self::P99 => measured.p99_ms,
            Self::ServerCpu => measured.server_us,
            Self::Memory => measured.rss_mib,
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Rate => "op/s",
            Self::P50 => "p50 ms",
            Self::P99 => "p99 ms",
            Self::ServerCpu => "us/op",
            Self::Memory => "MiB",
        }
    }

    /// Whether more is better.
    pub fn grows(self) -> bool {
        self == Self::Rate
    }

    /// Whether `figure` is as good as `bar`.
    pub fn reaches(self, figure: f64, bar: f64) -> bool {
        if self.grows() { figure >= bar } else { figure <= bar }
    }
}

/// A figure that our store must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    pub point: &'static str,
    pub metric: Metric,
    /// The required figure on a machine with two cores that runs the servers and the load.
    pub must: f64,
    /// The figure that we aim for there.
    pub aim: f64,
    /// The peer of this figure, and what it reached on the machine that `must` was set for. On a
    /// faster or slower machine the same ratio to the peer, measured in the same run, is what
    /// counts.
    pub peer: Option<(&'static str, f64)>,
}

impl Target {
    /// The peer, and the required ratio of our figure to the peer's.
    pub fn ratio(&self) -> Option<(&'static str, f64)> {
        self.peer.map(|(peer, figure)| (peer, self.must / figure))
    }
}

const fn target(point: &'static str, metric: Metric, must: f64, aim: f64) -> Target {
    Target { point, metric, must, aim, peer: None }
}

const fn beside(mut target: Target, peer: &'static str, figure: f64) -> Target {
    target.peer = Some((peer, figure));
    target
}

/// All targets. The peers' figures: etcd 3.5 and Redis 7.0 on a quiet machine with two cores.
pub static TARGETS: [Target; 11] = [
    beside(target("put-1", Metric::P50, 0.45, 0.35), "etcd", 0.95),
    beside(target("put-64", Metric::Rate, 35_000.0, 70_000.0), "etcd", 8_600.0),
    beside(target("put-256", Metric::Rate, 50_000.0, 90_000.0), "etcd", 11_300.0),
    beside(target("get-64", Metric::Rate, 80_000.0, 150_000.0), "etcd", 14_100.0),
    beside(target("get-1", Metric::P50, 0.25, 0.2), "etcd", 0.57),
    beside(target("mixed-64", Metric::Rate, 35_000.0, 80_000.0), "etcd", 6_000.0),
    beside(target("put-64", Metric::P99, 5.0, 3.0), "etcd", 18.0),
    beside(target("put-64", Metric::ServerCpu, 35.0, 20.0), "etcd", 156.0),
    beside(target("batch-64", Metric::Rate, 150_000.0, 250_000.0), "redis", 207_600.0),
    target("core", Metric::Rate, 1_000_000.0, 2_000_000.0),
    target("memory", Metric::Memory, 400.0, 200.0),
];

/// The point of this name.
pub fn point(name: &str) -> Option<&'static Point> {
    POINTS.iter().find(|point| point.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Metric, POINTS, TARGETS, point};

    #[test]
    fn every_target_is_a_figure_of_a_point_and_its_aim_is_the_better_one() {
        for target in TARGETS {
            assert!(point(target.point).is_some(), "{}", target.point);
            assert!(
                target.metric.reaches(target.aim, target.must) && target.aim != target.must,
                "{target:?}"
            );
        }
        let names: BTreeSet<&str> = POINTS.iter().map(|point| point.name).collect();
        assert_eq!(names.len(), POINTS.len());
    }

    #[test]
    fn more_operations_and_less_time_are_better() {
        assert!(Metric::Rate.reaches(2.0, 1.0) && !Metric::Rate.reaches(1.0, 2.0));
        assert!(Metric::P99.reaches(1.0, 2.0) && !Metric::P99.reaches(2.0, 1.0));
        assert!(Metric::Memory.reaches(1.0, 1.0));
    }
}
