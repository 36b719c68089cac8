//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use measure::points::{self, POINTS, Point};

/// Measures this store beside etcd and Redis Cluster, all on this machine, in the same run: three
/// servers of each on loopback, one closed loop of clients for all, in alternating rounds. Shows
/// medians, ratios, and the state of the targets.
#[derive(Debug, Parser)]
#[command(name = "compare", version)]
pub(crate) struct Args {
    /// Stores to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Which::Ours, Which::Etcd, Which::Redis])]
    pub(crate) stores: Vec<Which>,
    /// What to measure: put-1, put-64, put-256, get-1, get-64, mixed-64, batch-64, core, memory [default: all].
    #[arg(long, value_delimiter = ',', value_parser = parse_point, hide_default_value = true,
          default_values_t = POINTS.iter().map(Named::of))]
    pub(crate) points: Vec<Named>,
    /// Rounds; each figure is the median of them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Seconds of a measurement, after 0.7 s of warm-up
    #[arg(long, default_value = "3", value_parser = parse_seconds)]
    pub(crate) seconds: Duration,
    /// Keys.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(16..=100_000_000))]
    pub(crate) keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) value_bytes: u32,
    /// Keys of the point "memory".
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(16..=100_000_000))]
    pub(crate) memory_keys: u64,
    /// Writes everything as one JSON document to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Exit 1 if a target is missed.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// This store: one group of three servers
    Ours,
    /// etcd: three members
    Etcd,
    /// Redis Cluster: three masters, three replicas, the append-only file always synced
    Redis,
}

/// A point, by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named(pub(crate) &'static Point);

impl Named {
    fn of(point: &'static Point) -> Self {
        Self(point)
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

fn parse_point(name: &str) -> Result<Named, String> {
    let names = || POINTS.map(|point| point.name).join(", ");
    points::point(name).map(Named).ok_or_else(|| format!("no such point; there are {}", names()))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("0.1 to 3600 seconds".to_owned())
    }
}
