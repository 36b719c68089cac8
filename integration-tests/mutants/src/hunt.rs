//! Runs one planted bug against its tests, each in a separate process, so that a run that never
//! ends can be stopped: the simulator ends a run after a limit of events, but not a loop within one
//! event.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use real::process::cpu_time;

use crate::list::Mutant;
use crate::tests::seeds_max;

/// A run that uses more processor time than this hangs: the slowest needs a quarter of it. Wall
/// time would also count a machine that sleeps or is busy.
const RUN_MAX: Duration = Duration::from_secs(120);

/// The result of a planted bug.
pub(crate) struct Hunt {
    pub(crate) caught: Option<Catch>,
    pub(crate) took: Duration,
    /// Why it was not caught, or that its code was never reached.
    pub(crate) note: String,
}

/// The test that noticed.
pub(crate) struct Catch {
    pub(crate) test: &'static str,
    pub(crate) seed: u64,
    /// Seeds played of this test.
    pub(crate) seeds: u64,
    pub(crate) why: String,
}

/// How a process that runs seeds ended.
enum Played {
    Held { reached: u64 },
    Failed { seed: u64, why: String },
}

/// Runs `mutant` against its tests, `count` seeds of each from `first` on, until one notices.
///
/// # Errors
/// When a process cannot be started.
pub(crate) fn hunt(mutant: &Mutant, first: u64, count: u64) -> std::io::Result<Hunt> {
    let start = Instant::now();
    let mut reached = 0;
    for test in mutant.tests {
        match play_elsewhere(Some(mutant.name), test, first, count.min(seeds_max(test)))? {
            Played::Held { reached: more } => reached += more,
            Played::Failed { seed, why } => {
                // The same run without the bug: a test that fails anyway has caught nothing.
                if let Played::Failed { why, .. } = play_elsewhere(None, test, seed, 1)? {
                    let note = format!("{test} fails with seed {seed} without any bug: {why}");
                    return Ok(Hunt { caught: None, took: start.elapsed(), note });
                }
                let catch = Catch { test, seed, seeds: seed - first + 1, why };
                return Ok(Hunt { caught: Some(catch), took: start.elapsed(), note: String::new() });
            }
        }
    }
    let note = format!("no test noticed; the bug was reached {reached} times");
    Ok(Hunt { caught: None, took: start.elapsed(), note })
}

fn play_elsewhere(mutant: Option<&str>, test: &str, first: u64, count: u64) -> std::io::Result<Played> {
    let mut process = Command::new(std::env::current_exe()?)
        .args(["play", test, &first.to_string(), &count.to_string()])
        .env("MUTANT", mutant.unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = process.stdout.take().map(BufReader::new);
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in output.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let (mut seed, mut reached, mut used_before) = (first, 0, Duration::ZERO);
    let failure = loop {
        match lines.recv_timeout(RUN_MAX) {
            Ok(line) => match line.split_once(' ') {
                Some(("seed", number)) => {
                    seed = number.parse().unwrap_or(seed);
                    used_before = cpu_time(process.id()).unwrap_or_default();
                }
                Some(("reached", times)) => reached += times.parse().unwrap_or(0),
                Some(("failed", why)) => break Some(why.to_owned()),
                _ => {}
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let used = cpu_time(process.id());
                if used.is_some_and(|used| used < used_before + RUN_MAX) {
                    continue;
                }
                process.kill()?;
                break Some(format!("no end within {} s", RUN_MAX.as_secs()));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break None,
        }
    };
    let status = process.wait()?;
    let _ = reader.join();
    Ok(match failure {
        Some(why) => Played::Failed { seed, why },
        None if status.success() => Played::Held { reached },
        None => Played::Failed { seed, why: format!("the process died: {status}") },
    })
}
