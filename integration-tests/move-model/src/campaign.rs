//! Which worlds are searched: a size for every day, and a full one.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Bug, Dead, History, Mover, Options, Seen, Stop, Violation, classes, search};

/// Histories that are searched with the same options.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// What it is called.
    pub title: &'static str,
    /// Configurations after configuration 0.
    pub lengths: RangeInclusive<usize>,
    /// Groups.
    pub groups: usize,
    /// Shards.
    pub shards: usize,
    /// Whether each history is searched once for each of its groups, which is dead.
    pub each_dead: bool,
    /// What is searched.
    pub options: Options,
}

/// What a sweep saw.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Owner histories.
    pub histories: usize,
    /// Of them, with different names for groups and shards counted once.
    pub classes: usize,
    /// All searches together.
    pub seen: Seen,
    /// States of the largest, and its history.
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
        write!(f, ", {} reopens, {} deaths", seen.reopens, seen.deaths)?;
        write!(f, ", {} wipes, at most {} states ({})", seen.wipes, largest.0, largest.1)
    }
}

/// The sweeps that must find nothing.
pub fn sweeps(full: bool) -> Vec<Sweep> {
    let quick = Options::default();
    let early = Options { mover: Mover::Early, ..quick };
    let stop = Options { writes: 1, stop: Some(Stop::NobodyHandsToIt), ..quick };
    let single = Options { writes: 1, one_message_a_step: true, ..quick };
    let dies = Options { dead: Dead::AtAnyMoment, ..quick };
    let sweep = |title, longest, groups, shards, options| Sweep {
        title,
        lengths: 1..=longest,
        groups,
        shards,
        each_dead: false,
        options,
    };
    let size = |everyday, larger| if full { larger } else { everyday };
    let write = |writes, options| Options { writes, ..options };
    vec![
        sweep("one shard, no writes", size(6, 7), 3, 1, write(0, quick)),
        sweep("one shard, one write", size(5, 6), 3, 1, write(1, quick)),
        sweep("one shard, two writes", size(4, 5), 3, 1, quick),
        sweep("one shard, movers that do not ask", size(4, 5), 3, 1, early),
        sweep("one shard, two keys, three writes", size(3, 4), 3, 1, Options { keys: 2, ..write(3, quick) }),
        sweep("one shard, groups that left are switched off", size(5, 6), 3, 1, stop),
        Sweep { each_dead: true, ..sweep("one shard, one group is dead", size(5, 6), 3, 1, write(1, quick)) },
        sweep("one shard, one group dies", size(5, 6), 3, 1, write(0, dies)),
        sweep("one shard, one write, one group dies", size(4, 5), 3, 1, write(1, dies)),
        sweep("one shard, every message a step of its own", size(4, 5), 2, 1, single),
        sweep("one shard, three groups, every message a step of its own", size(3, 4), 3, 1, single),
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
        sweep("two shards, one group dies", size(3, 4), 2, 2, write(0, dies)),
        sweep("two shards, three groups, one group dies", size(2, 3), 3, 2, write(0, dies)),
        sweep("three shards, three groups", size(2, 3), 3, 3, write(0, quick)),
    ]
}

impl Sweep {
    /// The searches of a history, which stands for `count`; those after the first one stand for none.
    fn jobs(&self, history: &History, count: usize) -> Vec<(History, usize, Options)> {
        let dead: Vec<Dead> = if self.each_dead {
            history.groups().into_iter().map(Dead::FromTheStart).collect()
        } else {
            vec![self.options.dead]
        };
        let job = |(at, dead)| {
            let count = if at == 0 { count } else { 0 };
            (history.clone(), count, Options { dead, ..self.options })
        };
        dead.into_iter().enumerate().map(job).collect()
    }

    /// Searches every class of histories, on as many threads as there are processors.
    ///
    /// # Errors
    /// The violation of the shortest history that has one.
    pub fn run(&self) -> Result<Total, String> {
        let all = |length| classes(length, self.groups, self.shards).into_iter();
        let all = self.lengths.clone().rev().flat_map(all);
        let jobs: Vec<(History, usize, Options)> =
            all.flat_map(|(history, count)| self.jobs(&history, count)).collect();
        let found: Mutex<Vec<Option<Result<Seen, Violation>>>> = Mutex::new(vec![None; jobs.len()]);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((at, job)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                jobs.get(at).map(|job| (at, job))
            } {
                let result = search(&job.0, job.2, usize::MAX).map_err(|wrong| wrong.1);
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
        for ((history, count, _), result) in jobs.iter().zip(found).rev() {
            let seen = match result.ok_or("a search did not end")? {
                Ok(seen) => seen,
                Err(wrong) => return Err(format!("{}: {history}: {wrong}", self.title)),
            };
            total.histories += count;
            total.classes += usize::from(*count > 0);
            total.seen.add(seen);
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
    /// How.
    pub violation: Violation,
    /// States that were visited until then.
    pub states: u64,
}

/// States of one history in which a bug is looked for.
const HUNT_STATES_MAX: usize = 100_000;

impl Hunt {
    /// Looks for the bug in every history of up to four configurations, shortest first.
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

/// Every bug, and every wrong rule for switching groups off, with the movers that bring it to light.
pub fn hunts(inner: bool) -> Vec<Hunt> {
    let options = Options { inner, ..Options::default() };
    let bugs = Bug::ALL.into_iter().map(|bug| {
        let dead = match bug {
            Bug::AdoptWaits | Bug::SealWithoutAnAnswer => Dead::FromTheStart(1),
            Bug::SealForAnotherMove => Dead::FromTheStart(2),
            _ => Dead::Nobody,
        };
        let mover = match bug {
            Bug::InstallIgnoresTheCursor | Bug::ActivateDoesNotCompare | Bug::WipeKeepsTheCursor => {
                Mover::Early
            }
            _ => Mover::Careful,
        };
        Options { bug: Some(bug), mover, dead, ..options }
    });
    let early = [Bug::RowsReadBeforeTheFreeze];
    let early = early.into_iter().map(|bug| Options { bug: Some(bug), mover: Mover::Early, ..options });
    let rules = [Stop::AllAbsent, Stop::LeftAndAllAbsent, Stop::EverybodyPastIt];
    let rules = rules.into_iter().map(|stop| Options { stop: Some(stop), writes: 0, ..options });
    bugs.chain(early).chain(rules).map(|options| Hunt { options }).collect()
}
