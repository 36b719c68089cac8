//! Keeps what is needed to understand a failure: the run is repeated, recorded, and written to its
//! own directory.

use std::path::{Path, PathBuf};

use super::{Outcome, Verdict, record, score};
use crate::lab::Options;
use crate::sheet::Test;
use anyhow::{Context, ensure};
use judge::history::Operation;
use judge::linearizability::{KeyVerdict, explain};
use sim::record::{Header, LeftOut, Recording, Tape};

/// Writes the directory of a failed run into `place`, and returns its path.
///
/// # Errors
/// When it cannot be written, or the repeated run differs.
pub fn keep(
    place: &Path,
    test: &Test,
    options: &Options,
    outcome: &Outcome,
    replay: &str,
) -> anyhow::Result<PathBuf> {
    let mut tape = Tape::default();
    let (again, history) = record(test, options, &mut tape);
    let verdicts = explain(&history);
    if let Some(until) = wrong_earlier(&verdicts, &history, tape.left_out()) {
        tape = Tape::until(until);
        record(test, options, &mut tape);
    }
    let (events, left_out) = tape.finish();
    let failure = match (&again.verdict, &outcome.verdict) {
        (Verdict::Failed(why) | Verdict::Unknown(why), _) => why.clone(),
        (Verdict::Passed, first) => format!("{first:?}; but the same seed passed when it was recorded"),
    };
    ensure!(
        again.verdict == outcome.verdict && again.trace == outcome.trace,
        "the same seed is another run when it is recorded: {:?}, then {:?}",
        outcome.verdict,
        again.verdict
    );
    let mut options_shown = vec![("network".to_owned(), score::net(test).to_owned())];
    options_shown.push((
        "timers".to_owned(),
        options.timers.map_or_else(|| "the test's own".to_owned(), |timers| format!("{timers:?}")),
    ));
    if let Ok(mutant) = std::env::var("MUTANT") {
        options_shown.push(("planted bug".to_owned(), mutant));
    }
    let header = Header {
        test: test.id.to_owned(),
        title: test.title.to_owned(),
        seed: options.seed,
        options: options_shown,
        failure,
        failed_at_ns: u64::try_from(again.virtual_time.as_nanos()).unwrap_or(u64::MAX),
        replay: replay.to_owned(),
    };
    let verdicts: Vec<report::Verdict> = verdicts.into_iter().map(Into::into).collect();
    let directory = place.join(format!("{}-seed-{}", test.id, options.seed));
    report::directory::write(&directory, &Recording { header, events, left_out, history }, &verdicts)
        .with_context(|| format!("cannot write {}", directory.display()))?;
    Ok(directory)
}

/// If the first wrong answer came before the recording of a long run begins: the time, a little
/// after that answer, at which another recording should end.
fn wrong_earlier(verdicts: &[KeyVerdict], history: &[Operation], left_out: LeftOut) -> Option<u64> {
    const NEAR_NS: u64 = 500_000_000;
    let unplaced = verdicts.iter().flat_map(|verdict| &verdict.unplaced);
    let wrong = unplaced.filter_map(|one| history.get(one.operation)?.return_ns).min()?;
    (left_out.events > 0 && wrong < left_out.until_ns + NEAR_NS).then_some(wrong + NEAR_NS)
}
