//! Starting servers and waiting until they answer.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use base::clock::{self, Instant};
use clerk::api::GroupId;
use clerk::api::ctrl::{CtrlReply, CtrlRequest};
use clerk::api::kv::{KvReply, KvRequest};
use clerk::api::status::Role;

use super::file::{Cluster, Directory, Server};
use super::{last_lines, process};
use crate::context::{Context, Reach};
use crate::failure::Failure;

const PERIOD: Duration = Duration::from_millis(50);
const STATUS: Duration = Duration::from_secs(1);
/// Lines of a log that explain a failed start.
const LINES: usize = 10;

/// Starts those of `names` that are down, and waits until they answer; their names.
pub(super) async fn start(
    context: &Context,
    directory: &Directory,
    cluster: &mut Cluster,
    names: &[String],
    until: Instant,
) -> Result<Vec<String>, Failure> {
    let mut children: BTreeMap<String, Child> = BTreeMap::new();
    for name in names {
        let data = directory.of(name);
        if process::holder(&data).is_none() {
            children.insert(name.clone(), process::spawn(cluster, &cluster.servers[name], &data)?);
        }
    }
    let started: Vec<String> = names.iter().filter(|name| children.contains_key(*name)).cloned().collect();
    let answered = wait_for_answers(context, directory, cluster, children, until).await;
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
    answered.map(|()| started)
}

async fn wait_for_answers(
    context: &Context,
    directory: &Directory,
    cluster: &Cluster,
    mut waiting: BTreeMap<String, Child>,
    until: Instant,
) -> Result<(), Failure> {
    let reach = Reach::local(cluster.clone());
    let bar = context.output.spinner();
    while !waiting.is_empty() {
        let names: Vec<&str> = waiting.keys().map(String::as_str).collect();
        bar.set_message(format!("waiting for {}", names.join(" ")));
        let mut ready = Vec::new();
        for (name, child) in &mut waiting {
            if let Ok(Some(_)) = child.try_wait() {
                return Err(failed(directory, name));
            }
            if answers(&reach, &cluster.servers[name]).await {
                ready.push(name.clone());
            }
        }
        for name in &ready {
            waiting.remove(name);
        }
        if clock::now() >= until && !waiting.is_empty() {
            let names: Vec<&str> = waiting.keys().map(String::as_str).collect();
            let failure = Failure::not_settled(format!("no answer in time from {}", names.join(" ")));
            return Err(failure.next("clerk logs NAME shows what a server does"));
        }
        clock::sleep(PERIOD).await;
    }
    bar.finish_and_clear();
    Ok(())
}

/// The failure of a server that ended, with its last words.
fn failed(directory: &Directory, name: &str) -> Failure {
    let data = directory.of(name);
    let mut lines = last_lines(&data.join("out"), LINES);
    if lines.is_empty() {
        lines = last_lines(&data.join("log"), LINES);
    }
    let words = if lines.is_empty() { "it said nothing".to_owned() } else { lines.join("\n  ") };
    let failure = Failure::new("start_failed", format!("{name} did not start: {words}"));
    failure.next(format!("its log: {}", data.join("log").display()))
}

async fn answers(reach: &Reach, server: &Server) -> bool {
    let Server { group, address, .. } = server;
    match group {
        0 => reach.connection.ctrl(address, CtrlRequest::Status, STATUS).await.is_ok(),
        group => reach.connection.kv(address, GroupId(*group), KvRequest::Status, STATUS).await.is_ok(),
    }
}

/// Waits until the controllers and every group have a leader.
pub(super) async fn wait_for_leaders(
    context: &Context,
    reach: &Reach,
    until: Instant,
) -> Result<(), Failure> {
    let groups = reach.local.iter().flat_map(|cluster| cluster.groups().into_keys());
    for group in std::iter::once(GroupId(0)).chain(groups) {
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
    while !has_leader(reach, group).await {
        if clock::now() >= until {
            let failure = Failure::not_settled(format!("no leader in time: {who}"));
            return Err(failure.next("clerk status shows who is down"));
        }
        clock::sleep(PERIOD).await;
    }
    bar.finish_and_clear();
    Ok(())
}

async fn has_leader(reach: &Reach, group: GroupId) -> bool {
    let servers: Vec<Server> =
        reach.local.iter().flat_map(|cluster| cluster.of(group.0).cloned().collect::<Vec<_>>()).collect();
    for server in &servers {
        let role = match group.0 {
            0 => match reach.connection.ctrl(&server.address, CtrlRequest::Status, STATUS).await {
                Ok(Ok(CtrlReply::Status(status))) => Some(status.replica.role),
                _ => None,
            },
            _ => match reach.connection.kv(&server.address, group, KvRequest::Status, STATUS).await {
                Ok(Ok(KvReply::Status(status))) => Some(status.replica.role),
                _ => None,
            },
        };
        if role == Some(Role::Leader) {
            return true;
        }
    }
    false
}
