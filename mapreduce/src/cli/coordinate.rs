//! A coordinator as a process, and the workers that it starts beside itself.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base::clock;
use base::socket::{Limits, Listener};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mapreduce::coordinator::{self, Coordinator, FRAME_BYTES_MAX};
use mapreduce::files::{Directory, Spec};
use mapreduce::store::{PATIENCE, Store};
use rustix::process::{Pid, Signal, kill_process_group};

use super::page;

/// Workers hear within this that the job is over.
const LINGER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);
/// Workers that died one after the other while no task got done: something is wrong with all of them.
const DEATHS_MAX: u32 = 50;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Workers to start here; those that die are started again, and all end with the coordinator. 0: others are started
    /// by hand (`mr worker`).
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=256))]
    workers: u32,
    /// Where workers reach the coordinator: an address of this machine that the others know.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT", value_parser = reachable)]
    listen: String,
    /// Writes a page of bars at the end: who did what when.
    #[arg(long, value_name = "FILE")]
    html: Option<std::path::PathBuf>,
}

/// Workers are told this very address.
fn reachable(address: &str) -> Result<String, &'static str> {
    match address.parse::<std::net::SocketAddr>() {
        Ok(all) if all.ip().is_unspecified() => {
            Err("no worker can reach that: name an address of this machine")
        }
        _ => Ok(address.to_owned()),
    }
}

/// Does a job to its end.
pub(crate) async fn coordinate(directory: Directory, spec: Spec, serve: &Serve) -> anyhow::Result<i32> {
    let mut store = None;
    if let Some(output) = &spec.output {
        let there = store.insert(Store::connect(&spec.controllers, PATIENCE).await?);
        there.claim(spec.id, &output.prefix).await?;
    }
    let coordinator = Arc::new(Coordinator::new(directory.clone(), &spec, rand::random_range(1..u32::MAX))?);
    let limits = Limits { frame_bytes_max: FRAME_BYTES_MAX, ..Limits::default() };
    let listener = Listener::bind(&serve.listen, limits).await?;
    directory.set_address(&listener.address().to_string())?;
    tokio::spawn(coordinator::serve(listener, spec.id, Arc::clone(&coordinator)));
    let (shown, start) = (directory.path().display(), clock::now());
    let mut workers = Workers { directory: directory.clone(), children: Vec::new(), deaths: 0, done: 0 };
    let failure = tokio::select! {
        biased;
        signal = base::process::shutdown_signal() => {
            eprintln!("mr: {} stopped; `mr resume {shown}` goes on", signal?);
            return Ok(130);
        }
        failure = coordinator.over() => failure,
        ending = finished_elsewhere(&directory) => {
            ensure!(ending.is_empty(), "another coordinator of the job says: {ending}");
            eprintln!("mr: another coordinator finished the job: {shown}/mr-out-*");
            return Ok(0);
        }
        failure = workers.keep(serve.workers, &coordinator) => Some(failure),
    };
    let (took, view) = (start.elapsed().as_secs_f64(), coordinator.view());
    let is_kept = directory.exists();
    if is_kept {
        directory.finish(failure.as_deref())?;
    }
    // A job that failed keeps its prefix: its words may be half written, and `mr resume` writes the rest.
    if let Some(store) = store.filter(|_| failure.is_none() || !is_kept) {
        store.release(spec.id).await?;
    }
    if let Some(path) = &serve.html {
        std::fs::write(path, page::page(&view)).context("the page")?;
    }
    clock::sleep(LINGER).await;
    let (done, all) = view.progress();
    if let Some(why) = failure {
        let next = match &spec.output {
            Some(_) if is_kept => {
                "; its prefix in the store stays taken: `mr resume` writes the rest, `mr clean` frees it"
            }
            _ => "",
        };
        bail!("the job failed with {done} of {all} tasks done: {why}{next}");
    }
    eprintln!("mr: {all} tasks in {took:.2} s: {shown}/mr-out-*");
    Ok(0)
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

/// The workers beside a coordinator; they end with it, however it ends.
struct Workers {
    directory: Directory,
    children: Vec<Child>,
    deaths: u32,
    done: usize,
}

impl Workers {
    /// Keeps so many running. Ends only if that is of no use: why.
    async fn keep(&mut self, count: u32, coordinator: &Coordinator) -> String {
        // Hidden where standard error is no terminal.
        let all = coordinator.progress().1 as u64;
        let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:40} {pos} of {len} tasks, {elapsed}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        loop {
            let done = coordinator.progress().0;
            if let Err(why) = self.look(count, done) {
                bar.finish_and_clear();
                return why;
            }
            bar.set_position(done as u64);
            clock::sleep(LOOK).await;
        }
    }

    fn look(&mut self, count: u32, done: usize) -> Result<(), String> {
        if !self.directory.exists() {
            return Err("its directory was removed".to_owned());
        }
        if done > self.done {
            (self.done, self.deaths) = (done, 0);
        }
        let mut last = None;
        self.children.retain_mut(|child| {
            let ended = child.try_wait().unwrap_or_default();
            last = ended.or(last);
            ended.is_none()
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

    /// A worker in a process group of its own, with the commands that it runs. It sees by its standard input that this
    /// process is gone.
    fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").arg(self.directory.path()).arg("--tied").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Most have ended.
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            let _ = child.wait();
        }
    }
}
