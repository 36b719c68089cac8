//! The tests that planted bugs are run against, by name: the graded scenarios by their ids ("R13"),
//! the suites, the search through the move protocol, and the storms of this program.

use ::storms::suites;
use labs::grading::{self, Verdict};
use labs::lab::Options;
use labs::sheet::Test;
use move_model::campaign::sweeps;
use move_model::classes;
use move_model::machine::compare;
use sim::run;

use crate::{cores, limits, storms};

/// It tries everything that can happen, so a seed has no effect.
const MODEL: &str = "move_model";
/// The same, for messages that nobody should send.
const DIFFERENCES: &str = "differences";
/// And for followers without room.
const BACKLOGS: &str = "backlogs";
/// And for a snapshot that the log overtook.
const STAGINGS: &str = "stagings";
/// And for entries that are kept for lagging members.
const KEPT: &str = "kept";
/// And for limits.
const LIMITS: [&str; 9] = [
    "callers",
    "slow_callers",
    "greedy_callers",
    "spare_files",
    "sessions",
    "busy_leaders",
    "demand",
    "paces",
    "retained",
];
/// A seed has no effect here either: groups of the search and of the product, shown another
/// history.
const TWO_HISTORIES: &str = "two_histories";
const STORMS: [&str; 13] = [
    "batches",
    "many_configurations",
    "elections",
    "snapshots",
    "long_snapshots",
    "moves",
    "bare_writes",
    "few_sessions",
    "identity",
    "damaged_tails",
    "set_back",
    "damaged_files",
    "debts",
];

fn graded(id: &str) -> Option<Test> {
    grading::catalogue().into_iter().find(|test| test.id == id)
}

/// Whether there is such a test.
pub(crate) fn exists(test: &str) -> bool {
    [MODEL, DIFFERENCES, BACKLOGS, STAGINGS, KEPT, TWO_HISTORIES].contains(&test)
        || LIMITS.contains(&test)
        || STORMS.contains(&test)
        || suites().contains_key(test)
        || graded(test).is_some()
}

/// The number of useful seeds.
pub(crate) fn seeds_max(test: &str) -> u64 {
    if [MODEL, DIFFERENCES, BACKLOGS, STAGINGS, KEPT, TWO_HISTORIES, "identity"].contains(&test)
        || LIMITS.contains(&test)
    {
        1
    } else {
        u64::MAX
    }
}

/// Plays one seed of a test.
///
/// # Errors
/// What the test found.
pub(crate) fn play(test: &str, seed: u64) -> Result<(), String> {
    let outcome = match test {
        "identity" => return storms::identity::play(),
        "damaged_files" => return storms::damage::damaged_files(seed),
        "debts" => return storms::damage::debts(),
        "damaged_tails" => run(seed, storms::damage::damaged_tails).map(drop),
        "set_back" => run(seed, storms::damage::set_back).map(drop),
        MODEL => return sweeps(false).iter().try_for_each(|sweep| sweep.run().map(drop)),
        DIFFERENCES => return cores::differences(),
        BACKLOGS => return cores::backlogs(),
        STAGINGS => return cores::stagings(),
        KEPT => return cores::kept(),
        "callers" => return limits::callers(),
        "slow_callers" => return limits::slow_callers(),
        "greedy_callers" => return limits::greedy_callers(),
        "spare_files" => return limits::spare_files(),
        "sessions" => return limits::sessions(),
        "busy_leaders" => return limits::busy_leaders(),
        "demand" => return limits::demand(),
        "paces" => return cores::paces(),
        "retained" => return cores::retained(),
        "many_configurations" => run(seed, limits::many_configurations).map(drop),
        "batches" => run(seed, limits::batches).map(drop),
        TWO_HISTORIES => {
            let mut histories = (2..=3).flat_map(|length| classes(length, 2, 1).into_keys());
            let options = move_model::Options::default();
            return histories.try_for_each(|history| compare(&history, options).map(drop));
        }
        "elections" => run(seed, storms::elections).map(drop),
        "snapshots" => run(seed, |world| storms::snapshots(world, false)).map(drop),
        "long_snapshots" => run(seed, |world| storms::snapshots(world, true)).map(drop),
        "moves" => run(seed, storms::moves).map(drop),
        "bare_writes" => run(seed, |world| storms::clerks(world, false)).map(drop),
        "few_sessions" => run(seed, |world| storms::clerks(world, true)).map(drop),
        _ => match suites().get(test) {
            Some(suite) => suite(seed).map(drop),
            None => return grade(test, seed),
        },
    };
    outcome.map_err(|failure| failure.to_string())
}

/// A test whose judge could not decide has noticed nothing.
fn grade(id: &str, seed: u64) -> Result<(), String> {
    let test = graded(id).ok_or_else(|| format!("there is no test {id:?}"))?;
    let options = Options { seed, net: test.net, timers: None };
    match grading::run(&test, &options).verdict {
        Verdict::Passed | Verdict::Unknown(_) => Ok(()),
        Verdict::Failed(why) => Err(why),
    }
}
