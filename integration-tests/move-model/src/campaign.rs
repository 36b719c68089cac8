//! Which worlds are searched: a small size for every run, and a full one.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Bug, History, Mover, Options, Seen, Stop, Violation, classes, search};

/// Histories that are searched with the same options.
#[derive(Clone, Debug)]
pub struct Sweep {
    pub title: &'static str,
    /// Configurations after configuration 0.
    pub lengths: RangeInclusive<usize>,
    pub groups: usize,
    pub shards: usize,
    /// Options of the search.
    pub options: Options,
}

/// The result of a sweep.
#[derive(Clone, Debug, Default)]
pub struct Total {
    pub histories: usize,
    /// The number of them if different names for groups and shards count once.
    pub classes: usize,
    /// All searches together.
    pub seen: Seen,
    /// States of the largest search, and its history.
    pub largest: (u64, String),
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { histories, classes, seen, largest } = self;
        write!(
            f,
            "{histories} owner histories ({classes} classes), {} states, {} steps",
            seen.states, seen.steps
        )?;
        write!(f, ", {} wipes, at most {} states ({})", seen.wipes, largest.0, largest.1)
    }
}

/// The sweeps that must find nothing.
pub fn sweeps(full: bool) -> Vec<Sweep> {
    let quick = Options::default();
    let early = Options { mover: Mover::Early, ..quick };
    let stop = Options { writes: 1, stop: Some(Stop::EverybodyPastIt), ..quick };
    let single = Options { writes: 1, one_message_a_step: true, ..quick };
    let sweep = |title, longest, groups, shards, options| Sweep {
        title,
        lengths: 1..=longest,
        groups,
        shards,
        options,
    };
    let size = |everyday, larger| if full { larger } else { everyday };
    let write = |writes, options| Options { writes, ..options };
    vec![
        sweep("one shard", size(6, 7), 3, 1, quick),
        sweep("one shard, movers that do not ask", size(5, 6), 3, 1, early),
        sweep("one shard, three writes", size(4, 5), 3, 1, write(3, quick)),
        sweep("one shard, two keys, three writes", size(4, 5), 3, 1, Options { keys: 2, ..write(3, quick) }),
        sweep("one shard, groups that left are switched off", size(5, 6), 3, 1, stop),
        sweep("one shard, every message a separate step", size(4, 5), 2, 1, single),
        sweep("one shard, three groups, every message a separate step", size(3, 4), 3, 1, single),
        sweep("two shards", size(4, 5), 2, 2, write(0, quick)),
        sweep("two shards, one write each", size(3, 4), 2, 2, write(1, quick)),
        sweep("two shards, three groups", size(3, 4), 3, 2, write(0, quick)),
        sweep("two shards, three groups, one write each", size(2, 3), 3, 2, write(1, quick)),
        sweep(
            "two shards, three groups, groups that left are switched off",
            size(3, 4),
            3,
            2,
            write(0, stop),
        ),
        sweep("three shards, three groups", size(2, 3), 3, 3, write(0, quick)),
    ]
}

impl Sweep {
    /// Searches every class of histories, on as many threads as there are processors.
    ///
    /// # Errors
    /// The violation of the shortest history that has one.
    pub fn run(&self) -> Result<Total, String> {
        let all = |length| classes(length, self.groups, self.shards).into_iter();
        let jobs: Vec<(History, usize)> = self.lengths.clone().rev().flat_map(all).collect();
        let found: Mutex<Vec<Option<Result<Seen, Violation>>>> = Mutex::new(vec![None; jobs.len()]);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((at, job)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                jobs.get(at).map(|job| (at, job))
            } {
                let result = search(&job.0, self.options, usize::MAX).map_err(|wrong| wrong.1);
                found.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        let mut total = Total::default();
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        for ((history, count), result) in jobs.iter().zip(found).rev() {
            let seen = match result.ok_or("a search did not end")? {
                Ok(seen) => seen,
                Err(wrong) => return Err(format!("{}: {history}: {wrong}", self.title)),
            };
            total.histories += count;
            total.classes += 1;
            total.seen.states += seen.states;
            total.seen.steps += seen.steps;
            total.seen.wipes += seen.wipes;
            if seen.states > total.largest.0 {
                total.largest = (seen.states, history.to_string());
            }
        }
        Ok(total)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    {}", self.what, self.trace.join("\n    "))
    }
}

/// A hunt for a planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// The world with the bug.
    pub options: Options,
}

/// A bug that was found.
#[derive(Clone, Debug)]
pub struct Catch {
    /// The smallest history that shows it.
    pub history: History,
    /// The broken property, with the steps.
    pub violation: Violation,
    /// States that were visited before that.
    pub states: u64,
}

/// The limit of states per history in which a bug is searched for.
const HUNT_STATES_MAX: usize = 100_000;

impl Hunt {
    /// Searches for the bug in every history of up to four configurations, shortest first.
    pub fn run(&self) -> Option<Catch> {
        let mut states = 0;
        let histories = (1..=4).flat_map(|length| classes(length, 3, 1).into_keys());
        for history in histories {
            match search(&history, self.options, HUNT_STATES_MAX) {
                Ok(seen) => states += seen.states,
                Err(wrong) => {
                    let (seen, violation) = *wrong;
                    return Some(Catch { history, violation, states: states + seen.states });
                }
            }
        }
        None
    }
}

/// Every bug, and every wrong rule for switching groups off, with the movers that expose it.
pub fn hunts(inner: bool) -> Vec<Hunt> {
    let options = Options { inner, ..Options::default() };
    let bugs = Bug::ALL.into_iter().map(|bug| {
        let mover = match bug {
            Bug::InstallIgnoresTheCursor | Bug::ActivateDoesNotCompare | Bug::WipeKeepsTheCursor => {
                Mover::Early
            }
            _ => Mover::Careful,
        };
        Options { bug: Some(bug), mover, ..options }
    });
    let early = [Bug::RowsReadBeforeTheFreeze];
    let early = early.into_iter().map(|bug| Options { bug: Some(bug), mover: Mover::Early, ..options });
    let rules = [Stop::AllAbsent, Stop::LeftAndAllAbsent];
    let rules = rules.into_iter().map(|stop| Options { stop: Some(stop), writes: 0, ..options });
    bugs.chain(early).chain(rules).map(|options| Hunt { options }).collect()
}
