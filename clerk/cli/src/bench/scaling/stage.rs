//! A cluster for one measurement: started in its own directory, optionally with limited processes,
//! and gone afterwards, however the measurement ends.
//!
//! Every server is a child of this process, and this process starts nothing else, so the end is
//! simple: all its children are killed and waited for, even one that has just started and holds no
//! lock yet. The data are worth nothing by then.
//!
//! Left out on purpose: a clean end after SIGKILL of this program itself. `clerk down --dir D
//! --purge` is for that.

use std::path::{Path, PathBuf};

use clerk::api::GroupId;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use super::caps::Caps;
use crate::args;
use crate::cluster;
use crate::context::{Context, Reach};
use crate::failure::Failure;
use crate::local::{self, Directory};
use crate::survey::survey;
use clerk_bench::process::Proc;

const FIRST_GROUP: u64 = 101;

pub(super) struct Stage {
    pub(super) context: Context,
    pub(super) caps: Option<Caps>,
    /// Stays, running and without limits.
    keep: bool,
    /// Deleted with it, if the user did not name it.
    temporary: Option<TempDir>,
}

impl Stage {
    /// Finds a place; nothing is started yet.
    pub(super) fn new(context: &Context, scaling: &args::Scaling) -> Result<Self, Failure> {
        let caps = scaling.replica_cpu.map(Caps::find).transpose()?;
        let io = |error: std::io::Error| Failure::new("io", format!("cannot make a directory: {error}"));
        let (path, mut temporary) = match &context.named_directory {
            Some(path) if Directory::new(path).exists() => {
                let message =
                    format!("there is a cluster in {}; scaling needs one of its own", path.display());
                return Err(Failure::usage(message).next("name another --dir, or none"));
            }
            Some(path) => (path.clone(), None),
            None => {
                let made = tempfile::Builder::new().prefix("clerk-scaling.").tempdir().map_err(io)?;
                (made.path().to_owned(), Some(made))
            }
        };
        if let Some(temporary) = temporary.as_mut().filter(|_| scaling.keep) {
            temporary.disable_cleanup(true);
        }
        let context = context.local(&path);
        Ok(Self { context, caps, keep: scaling.keep, temporary })
    }

    pub(super) fn path(&self) -> &Path {
        &self.context.directory
    }

    /// Starts `most` groups, of which `first` join.
    pub(super) async fn start(
        &self,
        scaling: &args::Scaling,
        first: u64,
        most: u64,
    ) -> Result<Reach, Failure> {
        let up = args::Up {
            groups: Some(first),
            replicas: Some(scaling.replicas),
            shards: Some(scaling.shards),
            sessions_max: None,
            port: None,
        };
        let mut reach = cluster::bring_up(&self.context, &up).await?;
        for group in first..most {
            (reach, _) = cluster::start_group(&self.context, group_id(group), None).await?;
        }
        Ok(reach)
    }

    /// Limits the servers of groups; not the controllers, which have little to do.
    pub(super) async fn limit(&mut self, reach: &Reach) -> Result<(), Failure> {
        let Some(caps) = &mut self.caps else { return Ok(()) };
        let proc = Proc::default();
        for (group, answers) in survey(reach, self.context.settle_until()).await.groups {
            for (address, status) in answers {
                let unreached = |why: String| Failure::new("unavailable", format!("{address}: {why}"));
                let replica = status.map_err(unreached)?.replica;
                proc.serves(replica.pid, &address).map_err(unreached)?;
                caps.limit(&local::name(group.0, replica.id), replica.pid)?;
            }
        }
        Ok(())
    }
}

/// The group after `before` others.
pub(super) fn group_id(before: u64) -> GroupId {
    GroupId(FIRST_GROUP + before)
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        for pid in children() {
            // It has ended on its own, or is waited for: either way it is gone.
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        let directory = Directory::new(self.path());
        if let Ok(cluster) = directory.load() {
            match directory.purge(cluster) {
                Ok(()) => directory.vanish(),
                Err(failure) => self.context.output.note(format!("clerk: {}", failure.message)),
            }
        }
        drop(self.temporary.take());
    }
}

/// Processes that this process has started.
fn children() -> Vec<Pid> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let place = PathBuf::from(format!("/proc/{pid}"));
        let stat = std::fs::read_to_string(place.join("stat")).unwrap_or_default();
        let parent =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parent == Some(own)
    };
    pids.filter(is_ours).filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect()
}
