//! A coordinator as a process, and the workers that it starts beside itself.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::clock;
use base::socket::{Limits, Listener};
use clap::Args;
use clerk::lock::Held;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mapreduce::coordinator::{self, Coordinator, FRAME_BYTES_MAX};
use mapreduce::files::{Directory, Spec};
use mapreduce::store::Store;

use super::page;

/// Workers hear within this that the job is over.
const LINGER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);
/// Workers that died one after the other while no task got done: something is wrong with all of them.
const DEATHS_MAX: u32 = 50;
/// Another coordinator of this job may be just giving the lock back.
const LOCK_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Workers to start here; those that die are started again. 0: others are started by hand (`mr worker`).
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=256))]
    workers: u32,
    /// Where workers reach the coordinator.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: String,
    /// Writes a page of bars at the end: who did what when.
    #[arg(long, value_name = "FILE")]
    html: Option<std::path::PathBuf>,
}

/// Does a job to its end.
pub(crate) async fn coordinate(directory: Directory, spec: Spec, serve: &Serve) -> anyhow::Result<i32> {
    let lock = match &spec.output {
        None => None,
        Some(output) => {
            let store = Store::connect(&spec.controllers).await?;
            let held = store.lock(spec.id, &output.prefix, LOCK_MAX).await?;
            Some((store, held))
        }
    };
    let life = rand::random_range(1..u32::MAX);
    let coordinator = Arc::new(Coordinator::new(directory.clone(), &spec, life)?);
    let limits = Limits { frame_bytes_max: FRAME_BYTES_MAX, ..Limits::default() };
    let listener = Listener::bind(&serve.listen, limits).await?;
    directory.set_address(&listener.address().to_string())?;
    tokio::spawn(coordinator::serve(listener, spec.id, Arc::clone(&coordinator)));
    let mut workers = Workers { directory: directory.clone(), children: Vec::new(), deaths: 0, done: 0 };
    let start = clock::now();
    let ended = tokio::select! {
        biased;
        signal = base::process::shutdown_signal() => {
            workers.kill();
            eprintln!("mr: {} stopped; `mr resume {}` goes on", signal?, directory.path().display());
            return Ok(130);
        }
        failure = coordinator.over() => failure,
        ending = finished_elsewhere(&directory) => {
            workers.kill();
            anyhow::ensure!(ending.is_empty(), "another coordinator of the job says: {ending}");
            eprintln!("mr: another coordinator finished the job: {}/mr-out-*", directory.path().display());
            return Ok(0);
        }
        failure = workers.keep(serve.workers, &coordinator) => Some(failure),
    };
    let took = start.elapsed();
    finish(&directory, &spec, ended.as_deref(), lock).await?;
    if let Some(path) = &serve.html {
        std::fs::write(path, page::page(&coordinator.view())).context("the page")?;
    }
    clock::sleep(LINGER).await;
    workers.kill();
    told(&directory, &spec, &coordinator, took, ended)
}

/// How the job ended at another coordinator that went on with it while this one lived.
async fn finished_elsewhere(directory: &Directory) -> String {
    loop {
        match directory.finished() {
            Some(ending) => return ending,
            None => clock::sleep(LOOK).await,
        }
    }
}

/// Says how the job ended, and gives its lock back.
async fn finish(
    directory: &Directory,
    spec: &Spec,
    failure: Option<&str>,
    lock: Option<(Store, Held)>,
) -> anyhow::Result<()> {
    if directory.exists() {
        directory.finish(failure)?;
    }
    // What is not finished keeps its lock: its words may be half written, and `mr resume` writes the rest.
    if let (Some((store, held)), Some(output), None) = (lock, &spec.output, failure) {
        store.unlock(spec.id, &output.prefix, held).await?;
    }
    Ok(())
}

fn told(
    directory: &Directory,
    spec: &Spec,
    coordinator: &Coordinator,
    took: Duration,
    failure: Option<String>,
) -> anyhow::Result<i32> {
    let (done, all) = coordinator.progress();
    let shown = directory.path().display();
    if let Some(why) = failure {
        let next = match &spec.output {
            None => String::new(),
            Some(output) => format!(
                "; the lock of {:?} in the store stays held: `mr resume` writes the rest, `mr clean` frees it",
                output.prefix
            ),
        };
        anyhow::bail!("the job failed with {done} of {all} tasks done: {why}{next}");
    }
    let work = coordinator.view().maps.into_iter().flat_map(|map| map.attempts).map(|attempt| attempt.work);
    let (records, bytes) = work.fold((0, 0), |sum, work| (sum.0 + work.records, sum.1 + work.bytes));
    let took = took.as_secs_f64();
    eprintln!("mr: {all} tasks, {records} records, {bytes} bytes in {took:.2} s: {shown}/mr-out-*");
    Ok(0)
}

/// The workers beside a coordinator.
struct Workers {
    directory: Directory,
    children: Vec<Child>,
    deaths: u32,
    done: usize,
}

impl Workers {
    /// Keeps so many running. Ends only if that is of no use: why.
    async fn keep(&mut self, count: u32, coordinator: &Coordinator) -> String {
        let bar = bar(coordinator);
        loop {
            if let Err(why) = self.look(count, coordinator) {
                bar.finish_and_clear();
                return why;
            }
            bar.set_position(coordinator.progress().0 as u64);
            clock::sleep(LOOK).await;
        }
    }

    fn look(&mut self, count: u32, coordinator: &Coordinator) -> Result<(), String> {
        if !self.directory.exists() {
            return Err("its directory was removed".to_owned());
        }
        let done = coordinator.progress().0;
        if done > self.done {
            (self.done, self.deaths) = (done, 0);
        }
        let mut last = None;
        self.children.retain_mut(|child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                last = Some(status);
                false
            }
            Err(_) => false,
        });
        if let Some(status) = last {
            self.deaths += 1;
            if self.deaths > DEATHS_MAX {
                return Err(format!(
                    "{DEATHS_MAX} workers died and no task got done, the last with {status}"
                ));
            }
        }
        while self.children.len() < count as usize {
            self.children.push(self.start().map_err(|error| format!("a worker does not start: {error}"))?);
        }
        Ok(())
    }

    fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").arg(self.directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).spawn()
    }

    fn kill(&mut self) {
        for child in &mut self.children {
            // Most have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn bar(coordinator: &Coordinator) -> ProgressBar {
    let all = coordinator.progress().1 as u64;
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} tasks, {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
