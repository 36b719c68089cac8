//! Runs every planted bug ([`base::mutants`]) against the tests that should notice it.
//!
//! `mutants` runs all, `mutants NAME...` some. Each test of a bug is run with up to SEEDS seeds
//! (200) from SEED (1) on, until one fails that does not fail without the bug. `mutants list` names
//! them, and `MUTANT=NAME mutants play TEST SEED [COUNT]` repeats a catch.
//!
//! It ends with a table of which test noticed what. It succeeds if at most one bug escaped.

mod cores;
mod hunt;
mod limits;
mod list;
mod storms;
mod tests;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hunt::Hunt;
use list::{MUTANTS, Mutant};

const SEEDS: u64 = 200;
const THREADS: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("play") => play(&arguments[1..]),
        Some("list") => list_all(),
        _ => hunt_all(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// The listed bugs with the files they are planted in, if list and sources agree.
fn planted() -> Result<Vec<(&'static Mutant, String)>, String> {
    let mut places = list::places().map_err(|error| format!("the sources cannot be read: {error}"))?;
    let mut found = Vec::new();
    for mutant in MUTANTS {
        let files = places.remove(mutant.name).ok_or(format!("{} is planted nowhere", mutant.name))?;
        if let Some(test) = mutant.tests.iter().find(|test| !tests::exists(test)) {
            return Err(format!("{}: there is no test {test:?}", mutant.name));
        }
        found.push((mutant, files.join(", ")));
    }
    match places.keys().next() {
        Some(name) => Err(format!("{name} is planted and not listed")),
        None => Ok(found),
    }
}

fn known(name: &str) -> Result<&'static Mutant, String> {
    let mutant = MUTANTS.iter().find(|mutant| mutant.name == name);
    mutant.ok_or_else(|| format!("no planted bug is called {name:?}: see `mutants list`"))
}

fn number(text: Option<&String>, otherwise: u64) -> Result<u64, String> {
    text.map_or(Ok(otherwise), |text| text.parse().map_err(|_| format!("{text:?} is not a number")))
}

/// Runs seeds of a test with the bug that MUTANT names, until one fails.
fn play(arguments: &[String]) -> Result<bool, String> {
    let chosen = std::env::var("MUTANT").ok().filter(|name| !name.is_empty());
    let chosen = chosen.map(|name| known(&name)).transpose()?;
    let test = arguments.first().filter(|test| tests::exists(test)).ok_or("play which test?")?;
    let (first, count) = (number(arguments.get(1), 1)?, number(arguments.get(2), 1)?);
    for seed in first..first.saturating_add(count) {
        println!("seed {seed}");
        // (For this thread; others that a test starts read MUTANT themselves.)
        base::mutants::choose(chosen.map(|mutant| mutant.name));
        let outcome = tests::play(test, seed);
        println!("reached {}", base::mutants::reached());
        if let Err(why) = outcome {
            println!("failed {}", why.replace('\n', "; "));
            return Ok(false);
        }
    }
    Ok(true)
}

fn list_all() -> Result<bool, String> {
    for (mutant, files) in planted()? {
        println!("{:<28} {files}\n    {}\n    {}", mutant.name, mutant.breaks, mutant.tests.join(", "));
    }
    Ok(true)
}

fn hunt_all(names: &[String]) -> Result<bool, String> {
    let wanted = names.iter().map(|name| known(name)).collect::<Result<Vec<_>, _>>()?;
    let mut planted = planted()?;
    if !wanted.is_empty() {
        planted.retain(|(mutant, _)| wanted.iter().any(|wanted| wanted.name == mutant.name));
    }
    let of_environment = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let first = number(of_environment("SEED").as_ref(), 1)?;
    let count = number(of_environment("SEEDS").as_ref(), SEEDS)?;
    let start = Instant::now();
    let hunts = in_threads(&planted, first, count)?;
    print_table(&planted, &hunts);
    let caught = hunts.iter().filter(|hunt| hunt.caught.is_some()).count();
    println!("\n{caught} of {} planted bugs caught; {:.0} s", hunts.len(), start.elapsed().as_secs_f64());
    Ok(caught + usize::from(wanted.is_empty()) >= hunts.len())
}

fn in_threads(planted: &[(&'static Mutant, String)], first: u64, count: u64) -> Result<Vec<Hunt>, String> {
    let next = AtomicUsize::new(0);
    let hunts: Mutex<BTreeMap<usize, std::io::Result<Hunt>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((mutant, _)) = planted.get(at) else { break };
                    let hunt = hunt::hunt(mutant, first, count);
                    if let Ok(hunt) = &hunt {
                        report(mutant, hunt);
                    }
                    hunts.lock().unwrap_or_else(PoisonError::into_inner).insert(at, hunt);
                }
            });
        }
    });
    let hunts = hunts.into_inner().unwrap_or_else(PoisonError::into_inner);
    hunts.into_values().collect::<Result<_, _>>().map_err(|error| format!("no process: {error}"))
}

fn seconds(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64())
}

fn report(mutant: &Mutant, hunt: &Hunt) {
    const WHY_MAX: usize = 160;
    let took = seconds(hunt.took);
    match &hunt.caught {
        Some(catch) => {
            let why: String = catch.why.chars().take(WHY_MAX).collect();
            println!("{:<28} caught by {} seed {}, {took} s: {why}", mutant.name, catch.test, catch.seed);
        }
        None => println!("{:<28} ESCAPED, {took} s: {}", mutant.name, hunt.note),
    }
}

fn print_table(planted: &[(&'static Mutant, String)], hunts: &[Hunt]) {
    println!("\n| planted bug | in | what it breaks | caught by | seeds | s |\n|---|---|---|---|---|---|");
    for ((mutant, files), hunt) in planted.iter().zip(hunts) {
        let (by, seeds) = match &hunt.caught {
            Some(catch) => (catch.test, catch.seeds.to_string()),
            None => ("nobody", String::from("-")),
        };
        let (name, breaks, took) = (mutant.name, mutant.breaks, seconds(hunt.took));
        println!("| `{name}` | {files} | {breaks} | {by} | {seeds} | {took} |");
    }
}
