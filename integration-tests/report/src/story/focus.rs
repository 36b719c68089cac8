//! Where to look first, and what happened there.
//!
//! The first operation that could not be placed, if there is one; otherwise another error;
//! otherwise the moment at which the test failed.
//!
//! Left out on purpose: causes. The page shows the facts; the reader finds the reason.

use clerk::api::config::shard_of;
use serde::Serialize;

use super::moments::{Kind, said};
use super::servers::{DOWN, Server};
use super::{Story, clients, group_of, server_names};
use crate::Verdict;
use crate::words::{list, micros, seconds};
use judge::history::Operation;
use sim::record::{Recording, What};

/// At most this many operations that show that an answer is wrong are listed,
const WITNESSES_MAX: usize = 2;
/// and at most this many changes of a shard during one of them.
const PARTS_MAX: usize = 4;

/// The stretch to look at first.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Focus {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Its content, in a sentence.
    pub(crate) what: String,
    /// The circumstances, a sentence each.
    pub(crate) context: Vec<String>,
    /// The key to look at.
    pub(crate) key: Option<String>,
}

/// The focus of a run.
pub(super) fn of(recording: &Recording, verdicts: &[Verdict], story: &Story) -> Focus {
    let unplaced = verdicts.iter().flat_map(|verdict| &verdict.unplaced);
    let operations = unplaced.filter_map(|one| Some((recording.history.get(one.operation)?, &one.words)));
    let failed_at = micros(recording.header.failed_at_ns);
    if let Some((first, words)) = operations.min_by_key(|(operation, _)| operation.end_ns()) {
        let (from, to) = (micros(first.call_ns), first.return_ns.map_or(failed_at, micros));
        let when = format!("{} to {}", seconds(from), seconds(to));
        let why = if words.is_empty() { "" } else { ": " };
        let what = format!(
            "From {when}: {}. This answer fits nowhere in the order of operations{why}{words}.",
            said(first)
        );
        let mut context = context(story, from, to);
        let mut about = Vec::new();
        about.extend(
            answered_by(recording, first).map(|server| format!("The answer came from server {server}.")),
        );
        about.extend(shard_then(story, first).map(|then| format!("{then}.")));
        let unplaced = verdicts.iter().flat_map(|verdict| &verdict.unplaced);
        let same = unplaced.filter(|one| recording.history.get(one.operation) == Some(first));
        let witnesses = same.flat_map(|one| &one.witnesses).filter_map(|one| recording.history.get(*one));
        let witnesses = witnesses.filter(|one| *one != first);
        about.extend(witnesses.take(WITNESSES_MAX).map(|one| contradicted_by(recording, story, one)));
        context.splice(0..0, about);
        return Focus { from, to, what, context, key: Some(first.key.clone()) };
    }
    let key = verdicts.iter().find(|verdict| verdict.words.is_some()).map(|verdict| verdict.key.clone());
    let (at, what) = match story.moments.iter().find(|one| one.kind == Kind::Wrong) {
        Some(wrong) => (wrong.at, format!("At {}: {}.", seconds(wrong.at), wrong.text)),
        None => (failed_at, format!("At {}, where the test noticed the failure.", seconds(failed_at))),
    };
    Focus { from: at, to: at, what, context: context(story, at, at), key }
}

/// The server that the client of an operation last heard before it had its answer.
fn answered_by(recording: &Recording, operation: &Operation) -> Option<String> {
    let servers = server_names(&recording.events);
    let names = clients::names(&recording.history, &recording.events, &servers);
    let name = names.get(&operation.client.to_string())?;
    let meanwhile = operation.call_ns..=operation.return_ns?;
    let heard = recording.events.iter().rev().filter(|event| meanwhile.contains(&event.at_ns));
    heard.filter(|event| event.at.as_ref() == Some(name)).find_map(|event| match &event.what {
        What::Arrived { kind, from, .. } if kind == "reply" && servers.contains(from) => Some(from.clone()),
        _ => None,
    })
}

/// An operation that an answer contradicts, with the server that answered it and the state of its
/// shard.
fn contradicted_by(recording: &Recording, story: &Story, witness: &Operation) -> String {
    let answered = answered_by(recording, witness).map(|server| format!(", answered by server {server}"));
    let then = shard_then(story, witness).map(|then| format!(". {then}"));
    format!(
        "It contradicts this, from {} on: {}{}{}.",
        seconds(micros(witness.call_ns)),
        said(witness),
        answered.unwrap_or_default(),
        then.unwrap_or_default()
    )
}

/// The shard of a key, and who served that shard during an operation.
fn shard_then(story: &Story, operation: &Operation) -> Option<String> {
    // (All shards have an owner from the first configuration with a group on.)
    let last = story.shards.last().map(|row| row.shard).filter(|last| *last > 0)?;
    let count = Some(last + 1).filter(|count| *count as usize == story.shards.len())?;
    let shard = shard_of(operation.key.as_bytes(), count).0;
    let row = story.shards.iter().find(|row| row.shard == shard)?;
    let (from, to) = (micros(operation.call_ns), operation.return_ns.map_or(u64::MAX, micros));
    let parts = row.parts.iter().filter(|part| part.from <= to && from < part.to);
    let texts: Vec<&str> = parts.take(PARTS_MAX).map(|part| part.text.as_str()).collect();
    (!texts.is_empty())
        .then(|| format!("Its key is in shard {shard}, of which then: {}", texts.join(", then ")))
}

/// The circumstances in a stretch of time, a sentence each.
fn context(story: &Story, from: u64, to: u64) -> Vec<String> {
    let overlaps = |start: u64, end: u64| start <= to && from < end.max(start + 1);
    let mut lines = Vec::new();
    let steps: Vec<&str> = story
        .steps
        .iter()
        .filter(|step| overlaps(step.from, step.to))
        .map(|step| step.text.as_str())
        .collect();
    if !steps.is_empty() {
        lines.push(format!("The test was at: {}.", steps.join("; ")));
    }
    let mut groups: Vec<&str> = story.servers.iter().map(|server| server.group.as_str()).collect();
    groups.dedup();
    for group in groups {
        let members: Vec<&Server> =
            story.servers.iter().filter(|server| group_of(&server.name) == group).collect();
        lines.extend(of_group(group, &members, &overlaps));
    }
    for row in &story.shards {
        let several = row.parts.iter().find(|part| part.owners.len() > 1 && overlaps(part.from, part.to));
        lines.extend(several.map(|part| format!("Shard {}: {}.", row.shard, part.text)));
    }
    let weather = story.weather.iter().filter(|stretch| overlaps(stretch.from, stretch.to));
    lines.extend(weather.map(|stretch| format!("The network was {}.", stretch.text)));
    lines
}

fn of_group(group: &str, members: &[&Server], overlaps: &impl Fn(u64, u64) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut leaders = Vec::new();
    let mut down = Vec::new();
    for server in members {
        for role in server.roles.iter().filter(|role| overlaps(role.from, role.to)) {
            let term = role.term.map(|term| format!(" (term {term})")).unwrap_or_default();
            match role.role.as_str() {
                "leader" => leaders.push(format!("{}{term}", server.name)),
                DOWN => down.push(server.name.clone()),
                _ => {}
            }
        }
    }
    match leaders.len() {
        0 => lines.push(format!("Group {group} had no leader.")),
        1 => {}
        _ => lines.push(format!(
            "In group {group} several servers took themselves for the leader: {}.",
            list(&leaders)
        )),
    }
    if !down.is_empty() {
        down.dedup();
        lines.push(format!("Down: {}.", list(&down)));
    }
    for server in members {
        let cut = server.cuts.iter().find(|cut| cut.is_inside() && overlaps(cut.from, cut.to));
        if let Some(cut) = cut.filter(|cut| cut.reaches <= cut.size / 2) {
            let others: Vec<&String> = cut.both.iter().chain(&cut.not_heard_by).chain(&cut.deaf_to).collect();
            lines.push(format!(
                "Server {} was cut off from {} and reached only {} of {}, which is not a majority.",
                server.name,
                list(&others),
                cut.reaches,
                cut.size
            ));
        }
    }
    lines
}
