//! Every lab test once, in virtual time. SEED in the environment chooses another seed; `make grade` shows
//! more, and repeats.

use std::path::Path;

use labs::grading::{campaign, catalogue, keep, score};
use labs::lab::Options;
use storms::seeds_asked;

#[test]
fn the_store_passes_every_test_of_every_lab() {
    let (seed, _) = seeds_asked();
    let tests = catalogue();
    let jobs: Vec<_> =
        tests.iter().map(|test| (test, Options { seed, net: test.net, timers: None })).collect();
    let mut told: Vec<Option<String>> = vec![None; jobs.len()];
    let mut failed = Vec::new();
    let mut graded = Vec::new();
    campaign::play(&jobs, campaign::threads(), |position, outcome| {
        let (test, options) = &jobs[position];
        told[position] = Some(score::lines(test, None, &outcome, false));
        let replay = format!("bin/grade {} --seed {seed}", test.id);
        if !outcome.passed() {
            let kept = keep(Path::new(env!("CARGO_TARGET_TMPDIR")), test, options, &outcome, &replay);
            let kept = kept.map_or_else(|error| error.to_string(), |path| path.display().to_string());
            failed.push(format!("{}: {:?}\n  replay: {replay}\n  kept: {kept}", test.id, outcome.verdict));
        }
        graded.push(score::Graded { test: (*test).clone(), runs: vec![outcome], replay });
        true
    });
    for lines in told.iter().flatten() {
        println!("{lines}");
    }
    let virtual_s: f64 =
        graded.iter().flat_map(|one| &one.runs).map(|run| run.virtual_time.as_secs_f64()).sum();
    println!("{} tests, {virtual_s:.0} virtual seconds, {} failed", graded.len(), failed.len());
    assert!(graded.len() == tests.len() && failed.is_empty(), "{}", failed.join("\n"));
    let over = score::over_time(&graded, None);
    assert!(over.is_empty(), "suites over the labs' limit of 600 virtual seconds: {over:?}");
}
