//! `bench`: loads the cluster, measures it, and reports the results.
//!
//! Clients work in a closed loop, each with one operation in flight, or by a schedule (`pace`). A
//! run is a sequence of phases: keys written beforehand, a warm-up, and the requested phases. Only
//! the last kind counts (`plan`, `engine`). Meanwhile a watcher looks for elections and new
//! configurations, and measures the processes (`watch`). The result is one document (`result`),
//! from which everything else is made: the text for people (`text`), the page with charts (`html`),
//! and comparisons (`compare`).
//!
//! Every written value and piece is unique, and keys carry the run's id, so the record of a run
//! (`--history`) can be judged alone: its state starts empty. An operation of unknown outcome has
//! no return, and its client continues under a new id. Ctrl-C ends the run at once; operations in
//! flight are then unknown, and the record is complete.
//!
//! Left out on purpose: load from several machines at once, think times, and scans.

mod compare;
mod engine;
mod scaling;
mod text;
mod watch;

use self::engine::{Engine, Until};
use crate::args::{self, BenchVerb};
use crate::context::Context;
use crate::failure::{self, Failure};
use clerk_bench::plan::{Load, Plan, Workload, plan};
use clerk_bench::record::Record;
use clerk_bench::result::{Report, save};

pub(crate) async fn bench(context: &Context, bench: &args::Bench) -> Result<(), Failure> {
    match &bench.verb {
        None => run(context, &bench.run).await,
        Some(BenchVerb::Compare(compare)) => compare::compare(context, compare),
        Some(BenchVerb::Scaling(asked)) => scaling::scaling(context, asked).await,
    }
}

async fn run(context: &Context, run: &args::Run) -> Result<(), Failure> {
    let workload = run.workload.as_deref().map(Workload::read).transpose()?;
    let mut plan = plan(&run.settings, &run.phases, workload)?;
    if run.history.is_some() {
        plan.record()?;
    }
    let reach = context.reach().await?;
    let record = run.history.as_deref().map(Record::create).transpose()?;
    let mut engine = Engine::new(context, &reach, &plan, record).await?;
    play(&mut engine, &plan).await?;
    let interrupted = engine.is_interrupted();
    let report = engine.finish().await?;
    let document = report.document();
    if let Some(path) = &run.files.save {
        save(path, &format!("{document}\n"))?;
    }
    if let Some(path) = &run.files.html {
        save(path, &clerk_bench::html::report(&report))?;
    }
    context.output.answer(&document, || text::report(&report));
    conclude(&report, interrupted)
}

/// Everything that was asked for, in its order.
async fn play(engine: &mut Engine, plan: &Plan) -> Result<(), Failure> {
    let first = &plan.phases[0].load;
    if plan.preload {
        let single =
            Load { rate: None, backlog: None, reads: 0, appends: 0, cas: 0, deletes: 0, ..first.clone() };
        let load = Load { batch: plan.preload_batch(first), ..single };
        engine.play("preload", false, &load, Until::EveryKey).await?;
    }
    if let Some(warmup) = plan.warmup {
        engine.play("warm-up", false, first, Until::Passed(warmup)).await?;
    }
    for phase in &plan.phases {
        engine.play(&phase.name, true, &phase.load, Until::Passed(phase.length)).await?;
    }
    Ok(())
}

/// How a run ends whose result is printed already.
fn conclude(report: &Report, interrupted: bool) -> Result<(), Failure> {
    if interrupted {
        return Err(failure::interrupted().answered());
    }
    match report.figures.operations {
        0 => Err(Failure::new("unavailable", "no operation succeeded")
            .next("`clerk status` shows who is down")
            .answered()),
        _ => Ok(()),
    }
}
