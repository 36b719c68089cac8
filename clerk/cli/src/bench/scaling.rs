//! `bench scaling`: what more groups bring.
//!
//! It starts a new cluster and runs the same closed loop against 1, 2, 4 groups, without a break:
//! in between the next groups join, and their shards move while clients use them. On a machine with
//! few cores more groups only share the same cores. With `--replica-cpu` each server gets a fixed
//! share of a processor, as if it had its own small machine, so that the system is measured, not
//! the machine.
//!
//! All groups run from the start; those that have not joined yet have nothing to do. Each
//! measurement begins some seconds after the shards have arrived.

mod caps;
mod page;
mod stage;
mod table;

use std::time::Instant;

use clerk::api::ctrl::Change;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::stage::{Stage, group_id};
use super::engine::{Engine, Until};
use clerk_survey::join::{Joining, newcomers};

use crate::args;
use crate::context::{Context, Reach};
use crate::failure::{self, Failure, on_interrupt};
use crate::settle::{settle, shown};
use clerk_bench::plan::{Load, Plan, plan};
use clerk_bench::result::{Figures, PhaseResult, Report, save};

const FORMAT: &str = "clerk-bench-scaling/1";
/// Clients for each group of the last step: all groups have to be busy all the time, and a group
/// with few operations in flight makes small batches, each of which costs more.
const CLIENTS_PER_GROUP: u64 = 1024;
const WARMUP_SECONDS: f64 = 2.0;
const CPU_MIN: f64 = 0.01;
const CPU_MAX: f64 = 64.0;
const GROUPS_MAX: u64 = 20;

/// What is saved and printed for programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Scaling {
    format: String,
    /// Processors each server may use; null: not limited.
    replica_cpu: Option<f64>,
    replicas: u64,
    steps: Vec<Step>,
    rebalances: Vec<Rebalance>,
    run: Report,
}

/// A measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Step {
    groups: u64,
    /// Throughput, compared with the first step.
    ratio: f64,
    #[serde(flatten)]
    figures: Figures,
    server_cpu_us_per_operation: Option<f64>,
    /// Of the server that was limited most: percentage of periods in which it used up its share.
    throttled_percent: Option<f64>,
}

/// Groups that joined.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Rebalance {
    from_groups: u64,
    to_groups: u64,
    config: u64,
    shards_moved: u64,
    /// From the change until every shard was served by its new group.
    rebalance_seconds: f64,
    /// Of the load meanwhile.
    #[serde(flatten)]
    figures: Figures,
}

pub(super) async fn scaling(context: &Context, asked: &args::Scaling) -> Result<(), Failure> {
    let plan = checked(asked)?;
    let mut stage = Stage::new(context, asked)?;
    let result = measure(&mut stage, asked, &plan).await;
    let (place, keep) = (stage.path().display().to_string(), asked.keep);
    drop(stage);
    on_interrupt("interrupted: the cluster of this measurement is gone", "");
    if keep {
        context.output.note(format!("the cluster is kept, and runs: clerk --dir {place} status"));
        on_interrupt("interrupted: the cluster is kept, and runs", format!("clerk --dir {place} status"));
    }
    let scaling = result?.ok_or_else(failure::interrupted)?;
    let document = serde_json::to_value(&scaling).unwrap_or_default();
    if let Some(path) = &asked.files.save {
        save(path, &format!("{document}\n"))?;
    }
    if let Some(path) = &asked.files.html {
        save(path, &page::page(&scaling))?;
    }
    context.output.answer(&document, || table::text(&scaling));
    Ok(())
}

/// The load of every step.
fn checked(asked: &args::Scaling) -> Result<Plan, Failure> {
    let groups = &asked.groups;
    let ascending = groups.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || groups.iter().any(|groups| !(1..=GROUPS_MAX).contains(groups)) {
        let message = format!("--groups: numbers from 1 to {GROUPS_MAX}, each larger than the one before");
        return Err(Failure::usage(message));
    }
    if let Some(share) = asked.replica_cpu.filter(|share| !(CPU_MIN..=CPU_MAX).contains(share)) {
        return Err(Failure::usage(format!("--replica-cpu {share}: processors from {CPU_MIN} to {CPU_MAX}")));
    }
    if asked.settings.rate.is_some() {
        return Err(Failure::usage("scaling is measured in a closed loop: --rate has no place in it"));
    }
    let mut settings = asked.settings.clone();
    settings.clients.get_or_insert(CLIENTS_PER_GROUP * groups.last().copied().unwrap_or(1));
    settings.warmup.get_or_insert(WARMUP_SECONDS);
    settings.preload = true;
    settings.label.get_or_insert_with(|| "Throughput against groups".to_owned());
    Ok(plan(&settings, &[], None)?)
}

/// Everything from the first process to the last operation; none if it was interrupted.
async fn measure(stage: &mut Stage, asked: &args::Scaling, plan: &Plan) -> Result<Option<Scaling>, Failure> {
    let groups = &asked.groups;
    let (first, most) = (groups[0], groups[groups.len() - 1]);
    let stop = listen()?;
    let reach = stage.start(asked, first, most).await?;
    if stop.is_cancelled() {
        return Ok(None);
    }
    stage.limit(&reach).await?;
    let mut scaling = Scaling {
        format: FORMAT.to_owned(),
        replica_cpu: asked.replica_cpu,
        replicas: asked.replicas,
        ..Scaling::default()
    };
    let mut engine = Engine::new(&stage.context, &reach, plan, None).await?;
    let load = plan.phases[0].load.clone();
    let writes = Load { reads: 0, appends: 0, cas: 0, deletes: 0, ..load.clone() };
    engine.play("preload", false, &writes, Until::EveryKey).await?;
    let mut before: Option<u64> = None;
    for groups in groups.iter().copied() {
        if let Some(before) = before {
            scaling.rebalances.extend(rebalance(stage, &mut engine, &reach, &load, (before, groups)).await?);
        }
        let warmup = Until::Passed(plan.warmup.unwrap_or_default());
        engine.play(&format!("warm-up {groups}"), false, &load, warmup).await?;
        let throttled = stage.caps.as_ref().map(|caps| caps.throttled());
        let name = if groups == 1 { "1 group".to_owned() } else { format!("{groups} groups") };
        engine.play(&name, true, &load, Until::Passed(plan.phases[0].length)).await?;
        if engine.is_interrupted() || stop.is_cancelled() {
            return Ok(None);
        }
        let throttled = throttled.zip(stage.caps.as_ref()).and_then(|(before, caps)| {
            let pairs = caps.throttled().into_iter().zip(before);
            pairs.map(|(now, before)| now.percent_since(before)).max_by(f64::total_cmp)
        });
        scaling
            .steps
            .extend(engine.last().map(|phase| step(groups, phase, throttled, scaling.steps.first())));
        before = Some(groups);
    }
    scaling.run = engine.finish().await?;
    Ok(Some(scaling))
}

fn step(groups: u64, phase: &PhaseResult, throttled_percent: Option<f64>, first: Option<&Step>) -> Step {
    let base = first.map_or(phase.figures.throughput, |first| first.figures.throughput);
    Step {
        groups,
        ratio: if base > 0.0 { phase.figures.throughput / base } else { 0.0 },
        figures: phase.figures.clone(),
        server_cpu_us_per_operation: phase.server_cpu_us_per_operation,
        throttled_percent,
    }
}

/// More groups join while the load goes on; nothing if it was interrupted.
async fn rebalance(
    stage: &Stage,
    engine: &mut Engine,
    reach: &Reach,
    load: &Load,
    (from, to): (u64, u64),
) -> Result<Option<Rebalance>, Failure> {
    let done = CancellationToken::new();
    let name = format!("rebalance {from} to {to}");
    let joined = async {
        let joined = join(stage, reach, (from, to)).await;
        done.cancel();
        joined
    };
    tokio::pin!(joined);
    let mut outcome = None;
    {
        let played = engine.play(&name, false, load, Until::Stopped(done.clone()));
        tokio::pin!(played);
        loop {
            tokio::select! {
                // It ends when the groups have joined, or at once when it is interrupted.
                played = &mut played => {
                    played?;
                    break;
                }
                joined = &mut joined, if outcome.is_none() => outcome = Some(joined),
            }
        }
    }
    if engine.is_interrupted() {
        return Ok(None);
    }
    let Some(outcome) = outcome else { return Ok(None) };
    let mut rebalance = outcome?;
    rebalance.figures = engine.last().map(|phase| phase.figures.clone()).unwrap_or_default();
    Ok(Some(rebalance))
}

async fn join(stage: &Stage, reach: &Reach, (from, to): (u64, u64)) -> Result<Rebalance, Failure> {
    // Each join has the whole time of the command.
    let context = &stage.context.local(stage.path());
    let joining: Vec<Joining> =
        (from..to).map(|before| Joining { group: group_id(before), addresses: None }).collect();
    let groups = newcomers(&reach.asked(), &joining, false, context.data_until()).await?;
    let started = Instant::now();
    let changed = reach.ctrl(context.data_until()).change(Change::Join(groups)).await?;
    let none = Default::default();
    let settled = settle(reach, changed.config, &none, context.settle_until(), context.output.quiet()).await;
    settled.map_err(|pending| {
        let num = changed.config;
        Failure::not_settled(format!("configuration {num} is not settled in time: {}", shown(&pending)))
    })?;
    Ok(Rebalance {
        from_groups: from,
        to_groups: to,
        config: changed.config.0,
        shards_moved: changed.moves.len() as u64,
        rebalance_seconds: started.elapsed().as_secs_f64(),
        figures: Figures::default(),
    })
}

/// Is cancelled by the first signal, so that none ends the program before its servers are gone.
fn listen() -> Result<CancellationToken, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let cannot = |error| Failure::new("io", format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let token = CancellationToken::new();
    let told = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.cancel();
    });
    Ok(token)
}
