//! Starts servers and waits until they answer.
//!
//! The process that holds a data directory may serve, may still be stopping (after a SIGTERM, or an
//! interrupted `down`), or may still be starting (an interrupted `up`). Only its answer shows
//! which. So a server is up when the process that holds its directory answers. If no process holds
//! the directory, a new one is started; if another process took the directory first and has ended
//! since, a new one is started again. All waiting ends with the time of the command.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;
use std::time::Duration;

use base::clock::{self, Instant};
use clerk::api::GroupId;
use clerk::api::status::{ReplicaStatus, Role};
use clerk::connection::CallError;
use clerk::statuses;
use futures::future::join_all;

use super::last_lines;
use crate::context::{Context, Reach};
use crate::failure::Failure;
use crate::local::{Cluster, Directory, Server, process, token};

const PERIOD: Duration = Duration::from_millis(50);
const STATUS: Duration = Duration::from_secs(1);
/// Lines of a log that explain a failed start.
const LINES: usize = 10;
/// A process that was found running counts as up after this many answers: one that was told to stop
/// may still answer once.
const ANSWERS: u32 = 2;
/// What to do when a server belongs to another cluster.
const STRANGER: &str =
    "stop the process at that address; a group that is new belongs to the cluster of its controllers";
/// A process that ends may keep its port this long after it has released its directory.
const PORT_PATIENCE: Duration = Duration::from_secs(2);

/// Starts those of `names` that are down, and waits until all of them answer; the names of those that were started.
pub(super) async fn start(
    context: &Context,
    directory: &Directory,
    cluster: &mut Cluster,
    names: &[String],
    until: Instant,
) -> Result<Vec<String>, Failure> {
    token::make(directory.path())?;
    let mut start = Start { directory, cluster, waiting: BTreeMap::new(), started: BTreeSet::new() };
    start.waiting = names.iter().map(|name| (name.clone(), Waiting::default())).collect();
    let answered = start.all(context, until).await;
    let started = start.started;
    // Also when one failed: those that made their directories must never start as new again.
    let mut changed = false;
    for (name, server) in &mut cluster.servers {
        if !server.made && process::is_made(&directory.of(name)) {
            server.made = true;
            changed = true;
        }
    }
    if changed {
        directory.save(cluster)?;
    }
    answered.map(|()| names.iter().filter(|name| started.contains(*name)).cloned().collect())
}

/// A server that does not answer yet.
#[derive(Default)]
struct Waiting {
    /// The process that was started for it.
    child: Option<Child>,
    /// Answers of a process that was found.
    answers: u32,
    /// What was heard last.
    said: String,
    /// Since when its port is in use by a process without its directory.
    port_busy: Option<Instant>,
}

impl Waiting {
    /// Whether another process may follow one that ended with these words: it met a process that
    /// has the directory, or one that released the directory and has its port for a moment longer.
    fn may_try_again(&mut self, words: &[String]) -> bool {
        let says = |what: &str| words.iter().any(|line| line.contains(what));
        says("one process at a time")
            || says("is in use by") && self.port_busy.get_or_insert_with(clock::now).elapsed() < PORT_PATIENCE
    }
}

struct Start<'a> {
    directory: &'a Directory,
    cluster: &'a Cluster,
    waiting: BTreeMap<String, Waiting>,
    started: BTreeSet<String>,
}

impl Start<'_> {
    async fn all(&mut self, context: &Context, until: Instant) -> Result<(), Failure> {
        let reach = Reach::local(self.cluster.clone());
        let bar = context.output.spinner();
        loop {
            self.spawn()?;
            self.ask(&reach, until).await?;
            let left = until.since(clock::now());
            if left.is_zero() {
                // One answer has to do.
                self.waiting.retain(|_, waiting| waiting.answers == 0);
            }
            let names: Vec<&str> = self.waiting.keys().map(String::as_str).collect();
            if names.is_empty() {
                bar.finish_and_clear();
                return Ok(());
            }
            bar.set_message(format!("waiting for {}", names.join(" ")));
            if left.is_zero() {
                let said: Vec<&str> = self.waiting.values().map(|waiting| waiting.said.as_str()).collect();
                let message = format!("no answer in time from {}: {}", names.join(" "), said.join("; "));
                return Err(Failure::not_settled(message).next("clerk logs NAME shows what a server does"));
            }
            clock::sleep(left.min(PERIOD)).await;
        }
    }

    /// Starts a process for each server whose directory nobody holds.
    fn spawn(&mut self) -> Result<(), Failure> {
        for (name, waiting) in &mut self.waiting {
            let data = self.directory.of(name);
            if let Some(child) = &mut waiting.child {
                if matches!(child.try_wait(), Ok(None)) {
                    continue;
                }
                // Another process may have the directory, or had it and goes.
                let words = last_words(self.directory, name);
                if process::holder(&data).is_none() && !waiting.may_try_again(&words) {
                    return Err(failed(self.directory, name, &words));
                }
                waiting.said = words.join("; ");
                waiting.child = None;
            }
            if process::holder(&data).is_none() {
                waiting.child = Some(process::spawn(self.cluster, &self.cluster.servers[name], &data)?);
                waiting.answers = 0;
                self.started.insert(name.clone());
            }
        }
        Ok(())
    }

    /// Asks those that are waited for, and crosses off those that are up.
    async fn ask(&mut self, reach: &Reach, until: Instant) -> Result<(), Failure> {
        let limit = until.since(clock::now()).clamp(PERIOD, STATUS);
        let servers = self.waiting.keys().map(|name| &self.cluster.servers[name]);
        let answers = join_all(servers.map(|server| status(reach, server, limit))).await;
        let names: Vec<String> = self.waiting.keys().cloned().collect();
        for (name, answer) in names.into_iter().zip(answers) {
            let Some(waiting) = self.waiting.get_mut(&name) else { continue };
            match answer {
                Ok(status) if process::holder(&self.directory.of(&name)) == Some(status.pid) => {
                    waiting.answers += 1;
                    if waiting.child.is_some() || waiting.answers >= ANSWERS {
                        self.waiting.remove(&name);
                    }
                }
                // What answers there has another directory, or has just gone.
                Ok(status) => {
                    waiting.said = format!("process {} answers at the address of {name}", status.pid)
                }
                Err(error @ CallError::Refused { .. }) => {
                    let message = format!("{name} does not belong to this cluster: {error}");
                    return Err(Failure::new("start_failed", message).next(STRANGER));
                }
                Err(error) => waiting.said = error.to_string(),
            }
        }
        Ok(())
    }
}

/// What a server that ended printed last, or else the end of its log.
fn last_words(directory: &Directory, name: &str) -> Vec<String> {
    let data = directory.of(name);
    let lines = last_lines(&data.join("out"), LINES);
    if lines.is_empty() { last_lines(&data.join("log"), LINES) } else { lines }
}

fn failed(directory: &Directory, name: &str, words: &[String]) -> Failure {
    let words = if words.is_empty() { "it said nothing".to_owned() } else { words.join("\n  ") };
    let failure = Failure::new("start_failed", format!("{name} did not start: {words}"));
    failure.next(format!("its log: {}", directory.of(name).join("log").display()))
}

async fn status(reach: &Reach, server: &Server, limit: Duration) -> Result<ReplicaStatus, CallError> {
    let (connection, address) = (&*reach.connection, &server.address);
    Ok(match server.group {
        0 => statuses::of_controller(connection, address, limit).await?.replica,
        group => statuses::of_replica(connection, GroupId(group), address, limit).await?.replica,
    })
}

/// Waits until the controllers and every group have a leader.
pub(super) async fn wait_for_leaders(
    context: &Context,
    reach: &Reach,
    until: Instant,
) -> Result<(), Failure> {
    let groups = reach.local.iter().flat_map(|cluster| cluster.groups().into_keys());
    for group in std::iter::once(GroupId::CONTROLLERS).chain(groups) {
        wait_for_leader(context, reach, group, until).await?;
    }
    Ok(())
}

/// Waits until a group (0: the controllers) has a leader.
pub(super) async fn wait_for_leader(
    context: &Context,
    reach: &Reach,
    group: GroupId,
    until: Instant,
) -> Result<(), Failure> {
    let who = if group.0 == 0 { "the controllers".to_owned() } else { format!("group {group}") };
    let bar = context.output.spinner();
    bar.set_message(format!("waiting until {who} have a leader"));
    while !has_leader(reach, group, until).await? {
        let left = until.since(clock::now());
        if left.is_zero() {
            let failure = Failure::not_settled(format!("no leader in time: {who}"));
            return Err(failure.next("clerk status shows who is down"));
        }
        clock::sleep(left.min(PERIOD)).await;
    }
    bar.finish_and_clear();
    Ok(())
}

async fn has_leader(reach: &Reach, group: GroupId, until: Instant) -> Result<bool, Failure> {
    let limit = until.since(clock::now()).clamp(PERIOD, STATUS);
    let servers: Vec<&Server> = reach.local.iter().flat_map(|cluster| cluster.of(group.0)).collect();
    let answers = join_all(servers.into_iter().map(|server| status(reach, server, limit))).await;
    if answers.iter().flatten().any(|status| status.role == Role::Leader) {
        return Ok(true);
    }
    match answers
        .into_iter()
        .find_map(|answer| answer.err().filter(|error| matches!(error, CallError::Refused { .. })))
    {
        Some(refused) => {
            let message = format!("a server is not of this cluster: {refused}");
            Err(Failure::new("start_failed", message).next(STRANGER))
        }
        None => Ok(false),
    }
}
