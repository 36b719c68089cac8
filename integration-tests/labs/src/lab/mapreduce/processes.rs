//! `mr-trials` as processes. They need no lock files; the files tell the reaper of the place which
//! processes to kill.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use base::clock;
use rustix::process::{Pid, Signal, kill_process};

use super::Job;
use real::binary;

/// A process; killed when it is dropped.
pub struct Running {
    child: Child,
}

pub(super) fn coordinator(job: &Job) -> anyhow::Result<Running> {
    start(job, "coordinator", &["--workers", "0"])
}

pub(super) fn worker(job: &Job) -> anyhow::Result<Running> {
    start(job, "worker", &[])
}

fn start(job: &Job, verb: &str, arguments: &[&str]) -> anyhow::Result<Running> {
    let mut command = Command::new(binary("mr-trials"));
    command.arg(verb).arg(&job.directory.place).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().context("mr-trials")?;
    let own = job.place.path().join(format!("mr-{}", child.id()));
    std::fs::create_dir(&own)?;
    std::fs::write(own.join("lock"), child.id().to_string())?;
    Ok(Running { child })
}

impl Running {
    pub(super) async fn ended(&mut self) -> bool {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.success(),
                Ok(None) => clock::sleep(Duration::from_millis(10)).await,
                Err(_) => return false,
            }
        }
    }

    pub(super) fn kill(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn stop(&self, stopped: bool) {
        let signal = if stopped { Signal::STOP } else { Signal::CONT };
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // As there.
        let _ = pid.map(|pid| kill_process(pid, signal));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
