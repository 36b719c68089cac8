//! One run of one test.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use base::clock;
use futures::FutureExt as _;

use crate::lab::{Lab, Options, Tally};
use crate::sheet::Test;
use judge::history::Operation;
use judge::linearizability;
use sim::record::{Tape, What};
use sim::workload::Recorder;
use sim::{self, World};

/// The labs' limit for one test.
pub const TEST_LIMIT: Duration = Duration::from_secs(120);

/// The judge could not decide in time: neither passed nor failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("undecided: {0}")]
pub struct Undecided(pub String);

/// What a run proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything held.
    Passed,
    /// Something did not hold.
    Failed(String),
    /// It could not be decided. Not a pass.
    Unknown(String),
}

/// The outcome of a finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub verdict: Verdict,
    /// Virtual time (on real processes: real time).
    pub virtual_time: Duration,
    pub wall_time: Duration,
    /// The numbers of the labs' result line.
    pub tally: Tally,
    /// Hash over everything that happened; 0 on real processes.
    pub trace: u64,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }
}

/// Plays `test` in a simulated world.
pub fn run(test: &Test, options: &Options) -> Outcome {
    simulate(test, options, None).0
}

/// Plays `test` and records it on `tape`; returns the outcome, and what clients saw.
pub fn record(test: &Test, options: &Options, tape: &mut Tape) -> (Outcome, Vec<Operation>) {
    simulate(test, options, Some(tape))
}

fn simulate(test: &Test, options: &Options, tape: Option<&mut Tape>) -> (Outcome, Vec<Operation>) {
    let start = Instant::now();
    let recorder = Recorder::default();
    let mut lab = None;
    let played = sim::run_recorded(options.seed, tape, |world| {
        let played = Lab::simulated(world.clone(), options.clone(), recorder.clone());
        lab = Some(played.clone());
        async move { watched(test, played, &world).await }
    });
    let tally = lab.map(|lab| lab.tally()).unwrap_or_default();
    let (verdict, virtual_time, trace) = match played {
        Ok(run) => (run.output, run.virtual_time, run.trace),
        Err(failure) => (Verdict::Failed(failure.what), failure.at, 0),
    };
    let seed = options.seed;
    let outcome = Outcome { seed, verdict, virtual_time, wall_time: start.elapsed(), tally, trace };
    (outcome, recorder.take())
}

async fn watched(test: &Test, lab: Lab, world: &World) -> Result<Verdict, String> {
    let verdict = judged(test, lab).await;
    if let Verdict::Failed(text) = &verdict {
        world.record(None, None, || What::Failed { text: text.clone() });
    }
    Ok(verdict)
}

/// Runs the scenario under its time limit, and judges the history of its clients.
async fn judged(test: &Test, lab: Lab) -> Verdict {
    let recorder = lab.recorder().clone();
    let played = clock::timeout(TEST_LIMIT, (test.play)(lab)).await;
    let limit = || Err(anyhow!("not over after {} s", TEST_LIMIT.as_secs()));
    let outcome = played.unwrap_or_else(|_| limit());
    let outcome = outcome.and_then(|()| Ok(recorder.judged(linearizability::check)?));
    match outcome {
        Ok(()) => Verdict::Passed,
        Err(error) if error.is::<Undecided>() => Verdict::Unknown(error.to_string()),
        Err(error) => Verdict::Failed(format!("{error:#}")),
    }
}

/// Plays `test` on real processes.
pub fn run_real(test: &Test, options: &Options) -> Outcome {
    let start = Instant::now();
    let lab = Lab::real(options.clone(), Recorder::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let verdict = match runtime {
        Ok(runtime) => {
            let verdict = runtime.block_on(guarded(test, lab.clone()));
            runtime.shutdown_background();
            verdict
        }
        Err(error) => Verdict::Unknown(format!("cannot start a runtime: {error}")),
    };
    let wall_time = start.elapsed();
    let tally = lab.tally();
    Outcome { seed: options.seed, verdict, virtual_time: wall_time, wall_time, tally, trace: 0 }
}

/// A panic (of a server that does not start, say) fails the test, not the grader.
async fn guarded(test: &Test, lab: Lab) -> Verdict {
    let played = std::panic::AssertUnwindSafe(judged(test, lab)).catch_unwind().await;
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        Verdict::Failed(format!("panicked: {text}"))
    })
}
