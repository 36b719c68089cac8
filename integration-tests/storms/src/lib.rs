//! Storms: simulated runs with random faults, one file per subject. Each is a function of a seed;
//! [`campaign`] runs many.
//!
//! ```
//! let total = storms::campaign("idle_restart", 1, 1)?;
//! assert!(total.acknowledged > 0);
//! # Ok::<(), String>(())
//! ```

pub mod damaged_tables;
pub mod lost_groups;
pub mod moving_reads;
pub mod other_histories;
pub mod overload;
pub mod raft_faults;
pub mod shard_moves;
pub mod slow_member;
pub mod strangers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::faults::Tally;
use sim::{Failure, lock};

/// The numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Hash over everything that happened.
    pub trace: u64,
    pub events: u64,
    /// Operations acknowledged to clients.
    pub acknowledged: u64,
    /// Configurations made.
    pub configs: u64,
    pub tally: Tally,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { crashes, interrupted, partitions, storms, damaged, set_back } = self.tally;
        write!(
            f,
            "{} events, {} acknowledged operations, {} configurations, {crashes} crashes \
             ({interrupted} in mid-move), {partitions} partitions, {storms} storms, {damaged} damaged logs, \
             {set_back} servers set back",
            self.events, self.acknowledged, self.configs
        )
    }
}

/// A run in which too little happened proves nothing.
fn at_least(what: &str, found: u64, wanted: u64) -> Result<(), String> {
    if found < wanted {
        return Err(format!("vacuous: {found} {what}, at least {wanted} are needed"));
    }
    Ok(())
}

/// A suite: runs one seed.
pub type Play = fn(u64) -> Result<Report, Failure>;

/// The suites by name.
pub fn suites() -> BTreeMap<&'static str, Play> {
    let suites: [(&'static str, Play); 11] = [
        ("raft_faults", raft_faults::play),
        ("overload", overload::play),
        ("slow_member", slow_member::play),
        ("damaged_tables", damaged_tables::play),
        ("shard_moves", shard_moves::play),
        ("idle_restart", shard_moves::idle_restart),
        ("rings", shard_moves::rings),
        ("lost_groups", lost_groups::play),
        ("moving_reads", moving_reads::play),
        ("strangers", strangers::play),
        ("other_histories", other_histories::play),
    ];
    suites.into()
}

/// Runs `count` seeds of the suite `name` from `first` on, on two threads, and sums up the reports.
///
/// # Errors
/// The line that replays the smallest seed that failed, and the reason.
///
/// # Panics
/// When there is no such suite.
pub fn campaign(name: &str, first: u64, count: u64) -> Result<Report, String> {
    const THREADS: usize = 2;
    let play = suites()[name];
    let next = AtomicU64::new(first);
    let total = Mutex::new(Report::default());
    let failed: Mutex<BTreeMap<u64, Failure>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) || !lock(&failed).is_empty() {
                        break;
                    }
                    match play(seed) {
                        Ok(report) => add(&mut lock(&total), &report),
                        Err(failure) => drop(lock(&failed).insert(seed, failure)),
                    }
                }
            });
        }
    });
    let failed = lock(&failed).pop_first();
    match failed {
        None => Ok(*lock(&total)),
        Some((seed, failure)) => {
            Err(format!("{name}: {failure}\nreplay: make sim SUITE={name} SEED={seed} SEEDS=1"))
        }
    }
}

fn add(total: &mut Report, report: &Report) {
    total.trace ^= report.trace;
    total.events += report.events;
    total.acknowledged += report.acknowledged;
    total.configs += report.configs;
    total.tally.crashes += report.tally.crashes;
    total.tally.interrupted += report.tally.interrupted;
    total.tally.partitions += report.tally.partitions;
    total.tally.storms += report.tally.storms;
    total.tally.damaged += report.tally.damaged;
    total.tally.set_back += report.tally.set_back;
}

/// SEED and SEEDS of the environment: the first seed, and how many.
///
/// # Panics
/// When one of them is not a number.
pub fn seeds_asked() -> (u64, u64) {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| {
            text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"))
        })
    };
    (number("SEED", 1), number("SEEDS", 20))
}
