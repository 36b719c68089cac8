//! The command line.

use std::time::Duration;

use clap::Parser;

use crate::rows::{ROWS, Row};

/// Measures what happens to the store as it grows: one line per figure, with its limit. Every size
/// is an option, so that a row can be tried with small sizes; the defaults take long and need tens
/// of gigabytes of disk.
#[derive(Debug, Parser)]
#[command(name = "growth", version)]
pub(crate) struct Args {
    /// Rows to measure: keys, shards, entries, configs, restart, catch-up, move [default: all].
    #[arg(value_name = "ROW", value_parser = parse_row)]
    pub(crate) rows: Vec<Row>,
    /// Keys of the larger store (row "keys").
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub(crate) keys: u64,
    /// Shards of the larger store (row "shards").
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(11..=16_384))]
    pub(crate) shards: u32,
    /// Log entries after which the store is measured again (row "entries")
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) entries: u64,
    /// Configurations after which the store is measured again (row "configs")
    #[arg(long, default_value_t = 1000)]
    pub(crate) configs: u64,
    /// MiB of the table that a follower starts with, of the data that a follower missed, and of the
    /// shard that moves
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) mib: u64,
    /// Bytes of a value in those
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub(crate) value_bytes: u32,
    /// Rounds of a comparison of two stores; each figure is the median of them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Seconds of a measurement.
    #[arg(long, default_value = "3", value_parser = parse_seconds)]
    pub(crate) seconds: Duration,
    /// Exit 1 if a limit is missed.
    #[arg(long)]
    pub(crate) strict: bool,
}

fn parse_row(name: &str) -> Result<Row, String> {
    let names = || ROWS.map(|row| row.name).join(", ");
    ROWS.into_iter().find(|row| row.name == name).ok_or_else(|| format!("no such row; there are {}", names()))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("0.1 to 3600 seconds".to_owned()),
    }
}
