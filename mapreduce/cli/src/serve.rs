//! A coordinator as a process, and the workers that it starts.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use mapreduce::{Coordinator, Directory, PATIENCE, Spec, listen};

/// Pause between two checks of the workers.
const LOOK: Duration = Duration::from_millis(50);
/// So many workers may die in a row without a task getting done. Then something is wrong with all
/// of them.
const DEATHS_MAX: u32 = 50;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Workers to start here. A worker that dies is started again, and all end with the
    /// coordinator. 0: start them by hand (`mr worker`).
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=256))]
    workers: u32,
    /// The address where workers reach the coordinator. It belongs to this machine, and other
    /// machines know it.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT", value_parser = reachable)]
    listen: String,
    /// Writes a page with bars at the end: which worker did what, and when.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The address, if workers can reach it: they get exactly this one.
fn reachable(address: &str) -> Result<String, &'static str> {
    match address.parse::<std::net::SocketAddr>() {
        Ok(all) if all.ip().is_unspecified() => {
            Err("no worker can reach that: name an address of this machine")
        }
        _ => Ok(address.to_owned()),
    }
}

/// Runs a job to its end.
pub(super) async fn serve(directory: Directory, spec: Spec, serve: &Serve) -> anyhow::Result<i32> {
    let store = match spec.output {
        Some(_) => Some(crate::store(&spec, PATIENCE).await?),
        None => None,
    };
    let life = rand::random_range(1..u32::MAX);
    let coordinator = Arc::new(Coordinator::begin(directory.clone(), spec, store, life).await?);
    listen(&coordinator, &serve.listen).await?;
    let (shown, start) = (directory.place.display(), clock::now());
    let ended = tokio::select! {
        biased;
        signal = base::process::shutdown_signal() => {
            eprintln!("mr: {} stopped; `mr resume {shown}` goes on", signal?);
            return Ok(130);
        }
        ended = coordinator.end(keep_workers(serve.workers, &coordinator, &directory)) => ended,
    };
    if let Some(path) = &serve.html {
        crate::write_page(path, &coordinator.view())?;
    }
    let (all, took) = (coordinator.progress().1, start.elapsed().as_secs_f64());
    if ended? {
        eprintln!("mr: {all} tasks in {took:.2} s: {shown}/mr-out-*")
    } else {
        eprintln!("mr: another coordinator finished the job: {shown}/mr-out-*")
    }
    Ok(0)
}

/// The workers that a coordinator started. They end with it, however it ends.
struct Crew(Vec<Child>);

impl Drop for Crew {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Most have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Keeps so many workers running. Returns only if that is of no use, and says why.
async fn keep_workers(count: u32, coordinator: &Coordinator, directory: &Directory) -> String {
    let (mut crew, mut deaths, mut last_done) = (Crew(Vec::new()), 0, 0);
    // Hidden if standard error is not a terminal.
    let bar = ProgressBar::new(coordinator.progress().1 as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} tasks, {elapsed}");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while directory.exists() {
        let done = coordinator.progress().0;
        if done > last_done {
            (last_done, deaths) = (done, 0);
        }
        let mut last = None;
        crew.0.retain_mut(|child| {
            let ended = child.try_wait().unwrap_or_default();
            last = ended.or(last);
            ended.is_none()
        });
        deaths += u32::from(last.is_some());
        if let Some(status) = last.filter(|_| deaths > DEATHS_MAX) {
            return format!("{DEATHS_MAX} workers died and no task got done, the last with {status}");
        }
        while crew.0.len() < count as usize {
            match start(directory) {
                Ok(worker) => crew.0.push(worker),
                Err(error) => return format!("a worker does not start: {error}"),
            }
        }
        bar.set_position(done as u64);
        clock::sleep(LOOK).await;
    }
    "its directory was removed".to_owned()
}

/// The worker learns from its standard input that this process is gone.
fn start(directory: &Directory) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("worker").arg(&directory.place).arg("--tied");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
}
