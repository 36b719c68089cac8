//! Runs on real processes.

use anyhow::ensure;
use labs::grading::{Outcome, run_real};
use labs::lab::Options;
use labs::sheet::Test;
use real::check_binaries;

/// The tests that can run on real processes.
pub(super) fn fit(tests: Vec<Test>) -> anyhow::Result<Vec<Test>> {
    let fit: Vec<Test> = tests.into_iter().filter(|test| test.real).collect();
    ensure!(!fit.is_empty(), "none of these tests can run on real processes; `grade list` shows which can");
    check_binaries()?;
    Ok(fit)
}

/// Runs one after the other: each takes the machine for itself.
pub(super) fn play(jobs: &[(&Test, Options)], mut done: impl FnMut(usize, Outcome)) {
    for (position, (test, options)) in jobs.iter().enumerate() {
        done(position, run_real(test, options));
    }
}
