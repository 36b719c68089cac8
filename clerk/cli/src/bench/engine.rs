//! Plays phases, one after the other, and makes the result.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::clock::{self, Instant};
use clerk::kv::Clerk;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::watch::{Snapshot, Watch};
use crate::context::{Context, Reach};
use crate::failure::Failure;
use crate::output::Output;
use clerk_bench::client::{Client, Source, Work};
use clerk_bench::keys::Keys;
use clerk_bench::measure::Measure;
use clerk_bench::pace::{Backlog, Schedule, Timer, pace};
use clerk_bench::plan::{Load, Plan};
use clerk_bench::process::Proc;
use clerk_bench::record::Record;
use clerk_bench::result::{FORMAT, Machine, PhaseResult, Processes, Report, RunFacts};
use clerk_bench::run::Run;

/// Longer than any phase.
const FOREVER: Duration = Duration::from_secs(10_000_000);

/// When a phase ends.
pub(super) enum Until {
    Passed(Duration),
    Stopped(CancellationToken),
    /// Every key was written once.
    EveryKey,
}

/// A run under way.
pub(super) struct Engine {
    run: Arc<Run>,
    output: Output,
    watch: Watch,
    started: Instant,
    report: Report,
    keys: u64,
    /// In the phases that count.
    used: Snapshot,
    interrupt: Signal,
    terminate: Signal,
}

impl Engine {
    pub(super) async fn new(
        context: &Context,
        reach: &Reach,
        plan: &Plan,
        record: Option<Record>,
    ) -> Result<Self, Failure> {
        let cannot = |error| Failure::new("io", format!("cannot wait for signals: {error}"));
        let interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let clerk = reach.clerk(context.operation_timeout());
        let limits = clerk.limits().await?;
        let largest = plan.phases.iter().map(|phase| phase.load.value_bytes).max().unwrap_or(0);
        if largest > u64::from(limits.value_bytes_max) {
            let limit = limits.value_bytes_max;
            let message = format!("values of {largest} bytes exceed this cluster's limit of {limit}");
            return Err(Failure::new("value_too_large", message));
        }
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = clock::now();
        let watch = Watch::start(reach, started, context.operation_timeout()).await?;
        let id = format!("{:08x}", rand::random::<u32>());
        let report = Report {
            format: FORMAT.to_owned(),
            clerk: env!("CARGO_PKG_VERSION").to_owned(),
            label: plan.label.clone(),
            started_unix_ms: u64::try_from(started_unix.as_millis()).unwrap_or(0),
            machine: machine(),
            cluster: watch.facts(),
            run: RunFacts {
                id: id.clone(),
                keys: plan.keys,
                preload: plan.preload,
                warmup_seconds: plan.warmup.unwrap_or_default().as_secs_f64(),
                history: record.is_some(),
            },
            config_start: config_num(&clerk, &watch),
            ..Report::default()
        };
        let run = Run::new(clerk, id, record, Measure::new(started));
        Ok(Self {
            run: Arc::new(run),
            output: context.output,
            watch,
            started,
            report,
            keys: plan.keys,
            used: Snapshot::default(),
            interrupt,
            terminate,
        })
    }

    /// A signal has ended the run.
    pub(super) fn is_interrupted(&self) -> bool {
        self.run.interrupted.is_cancelled()
    }

    /// The phase that ended last.
    pub(super) fn last(&self) -> Option<&PhaseResult> {
        self.report.phases.last()
    }

    /// Plays a phase, unless the run was interrupted. Only one that is `measured` is part of the totals.
    pub(super) async fn play(
        &mut self,
        name: &str,
        measured: bool,
        load: &Load,
        until: Until,
    ) -> Result<(), Failure> {
        if self.is_interrupted() {
            return Ok(());
        }
        let (before, start) = (self.watch.snapshot(), clock::now());
        let work = Arc::new(self.work(load, until, start));
        self.run.measure().begin(name, measured, start);
        let mut clients = JoinSet::new();
        for _ in 0..load.clients {
            clients.spawn(Client::new(Arc::clone(&self.run), Arc::clone(&work)).live());
        }
        if let Some(rate) = load.rate {
            clients.spawn(keep_pace(Arc::clone(&self.run), Arc::clone(&work), Schedule::new(start, rate)));
        }
        self.supervise(name, &work, clients).await?;
        let now = clock::now();
        let dropped = if let Source::Open(backlog) = &work.source { backlog.dropped() } else { 0 };
        let figures = self.run.measure().end(now, work.end, dropped);
        self.watch.sample();
        let used = self.watch.snapshot().since(&before);
        if measured {
            self.used.add(&used);
        }
        let each = |seconds: f64| (figures.operations > 0).then(|| seconds * 1e6 / figures.operations as f64);
        let (servers, _, why_not) = self.watch.processes(&used);
        let all_known = why_not.is_none() && !servers.is_empty();
        self.report.phases.push(PhaseResult {
            name: name.to_owned(),
            measured,
            at_s: start.since(self.started).as_secs_f64(),
            load: load.clone(),
            server_cpu_us_per_operation: each(used.total()).filter(|_| all_known),
            generator_cpu_us_per_operation: each(used.generator),
            figures,
        });
        Ok(())
    }

    fn work(&self, load: &Load, until: Until, start: Instant) -> Work {
        let (mut stop, mut length) = (CancellationToken::new(), FOREVER);
        let mut source = match load.backlog {
            None => Source::Closed,
            Some(backlog) => Source::Open(Backlog::new(backlog)),
        };
        match until {
            Until::Passed(passed) => length = passed,
            Until::Stopped(token) => stop = token,
            Until::EveryKey => source = Source::Once { next: AtomicU64::new(0), count: self.keys },
        }
        Work { load: load.clone(), keys: Keys::new(load, self.keys), source, end: start.after(length), stop }
    }

    /// Waits until all clients have ended, and shows their progress.
    async fn supervise(&mut self, name: &str, work: &Work, mut clients: JoinSet<()>) -> Result<(), Failure> {
        const SHOW: Duration = Duration::from_millis(500);
        let bar = self.output.spinner();
        let mut shown = (clock::now(), 0);
        loop {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => self.run.interrupted.cancel(),
                _ = self.terminate.recv() => self.run.interrupted.cancel(),
                ended = clients.join_next() => match ended {
                    Some(Ok(())) => {}
                    Some(Err(error)) => return Err(Failure::new("io", format!("a client failed: {error}"))),
                    None => break,
                },
                () = clock::sleep(SHOW.saturating_sub(shown.0.elapsed())) => {
                    let (total, line) = self.run.measure().line();
                    let rate = total.saturating_sub(shown.1) as f64 / shown.0.elapsed().as_secs_f64();
                    let left = work.end.since(clock::now());
                    let left = if left > FOREVER / 2 { String::new() } else { format!(", {} s left", left.as_secs()) };
                    bar.set_message(format!("{name}: {rate:.0} operations/s, {line}{left}"));
                    shown = (clock::now(), total);
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The result of all phases.
    pub(super) async fn finish(mut self) -> Result<Report, Failure> {
        if let Some(record) = &self.run.record {
            record.finish()?;
        }
        self.report.config_end = config_num(&self.run.clerk, &self.watch);
        let measure = self.run.measure();
        self.report.figures = measure.totals();
        self.report.longest_gap_ms = measure.longest_gap_ms();
        self.report.series = measure.series();
        drop(measure);
        self.report.marks = self.watch.marks();
        let operations = self.report.figures.operations;
        let each = |seconds: f64| (operations > 0).then(|| seconds * 1e6 / operations as f64);
        let (servers, generator, why_not) = self.watch.processes(&self.used);
        let (series, all_known) = (self.watch.usage(), why_not.is_none() && !servers.is_empty());
        self.report.processes = Processes {
            server_cpu_us_per_operation: each(self.used.total()).filter(|_| all_known),
            server_memory_bytes_max: series
                .iter()
                .map(|usage| usage.server_memory_bytes)
                .max()
                .filter(|_| all_known),
            generator_cpu_us_per_operation: each(self.used.generator).filter(|_| generator.is_some()),
            why_not,
            servers,
            generator,
            series,
        };
        Ok(self.report)
    }
}

/// Keeps the schedule of an open loop until its end.
async fn keep_pace(run: Arc<Run>, work: Arc<Work>, schedule: Schedule) {
    let stop = async {
        tokio::select! {
            () = work.stop.cancelled() => {}
            () = run.interrupted.cancelled() => {}
        }
    };
    if let Source::Open(backlog) = &work.source {
        pace(schedule, backlog, Timer::exact(), work.end, stop).await;
    }
}

fn machine() -> Machine {
    Machine {
        os: std::env::consts::OS.to_owned(),
        cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64),
        memory_bytes: Proc::default().machine_memory_bytes(),
    }
}

/// The newest configuration's number, as far as anybody has reported. Nobody is asked: controllers
/// that are silent would take their time.
fn config_num(clerk: &Clerk, watch: &Watch) -> u64 {
    let known = clerk.cache().current().map(|view| view.config.num);
    known.unwrap_or_default().0.max(watch.config())
}
