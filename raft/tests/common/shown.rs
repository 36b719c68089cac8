//! How golden scripts show what happened: one line each, ids as `index@term`.

use raft::config::Config;
use raft::core::message::{Body, Chunk, Mark, Message, Verdict};
use raft::core::progress::{Feed, Progress};
use raft::core::role::Role;
use raft::storage::Save;
use raft::types::{Entry, EntryId, Index, NodeId, Payload};

use super::{Cluster, Crash, Flying, Seen};

/// None: not worth a line.
pub(crate) fn seen(seen: &Seen) -> Option<String> {
    Some(match seen {
        Seen::Sent { flying: Flying { from, to, message }, lost } => {
            format!("{from:?} -> {to:?} {}{}", shown_message(message), if *lost { " (lost)" } else { "" })
        }
        Seen::Saved(id, save, _) => format!("{id:?} saves {}", shown_save(save)),
        Seen::Committed(_, _, entries) if entries.is_empty() => return None,
        Seen::Committed(id, _, entries) => format!("{id:?} commits {}", entries_of(entries)),
        Seen::Applied(..) => return None,
        Seen::Confirmed(id, read, index) => format!("{id:?} answers read {} once {index} is applied", read.0),
        Seen::Aborted(id, read) => format!("{id:?} aborts read {}", read.0),
        Seen::Staged(id, chunk) => format!("{id:?} stages {}", shown_chunk(chunk)),
        Seen::DroppedStaged(id) => format!("{id:?} drops what it staged"),
        Seen::Installed(id, snapshot) => format!("{id:?} installs {snapshot}"),
        Seen::Refused(id, refused) => format!("{id:?} refuses the message: {refused}"),
        Seen::Role(id, role) => format!("{id:?} {role}"),
        Seen::Alarm(id, alarm) => format!("{id:?} raises an alarm: {alarm}"),
        Seen::Crashed(id) => format!("{id:?} is down"),
    })
}

pub(crate) fn shown_message(message: &Message) -> String {
    let yes = |granted: bool| if granted { "yes" } else { "no" };
    let body = match &message.body {
        Body::PreVote { last } => format!("would you vote for me? my last is {last}"),
        Body::PreVoteReply { asked, granted } => format!("{} for {asked:?}, I would", yes(*granted)),
        Body::Vote { last } => format!("vote for me, my last is {last}"),
        Body::VoteReply { granted } => format!("{}, my vote", yes(*granted)),
        // (What the receiver has acknowledged is shown only if it does not have it: by what it saves.)
        Body::Append { prev, entries, commit, round, acked: _, differs } => {
            let carried = if entries.is_empty() { "nothing".to_owned() } else { entries_of(entries) };
            format!(
                "append after {prev}: {carried}; commit {commit}{}{}",
                shown_round(*round),
                shown_mark("; most had", differs)
            )
        }
        Body::AppendReply { verdict, round, disk_low, owes, table, room } => {
            let low = match (disk_low, owes) {
                (true, false) => ", disk nearly full",
                (false, true) => ", owes more",
                (true, true) => ", disk nearly full, owes more",
                (false, false) => "",
            };
            let needs =
                table.needs.map_or(String::new(), |index| format!(", needs a snapshot from {index} on"));
            let table = shown_mark(", table", &table.mark) + &needs + &shown_room(*room);
            match verdict {
                Verdict::Matched(index) => {
                    format!("matched up to {index}{}{low}{table}", shown_round(*round))
                }
                Verdict::Conflict { at, try_at } => {
                    format!("conflict at {at}, try {try_at}{}{low}{table}", shown_round(*round))
                }
            }
        }
        Body::Chunk(chunk) => format!("chunk {}", shown_chunk(chunk)),
        Body::ChunkReply { snapshot, cursor, resume } => {
            let cursor = cursor.as_ref().map_or("nothing".to_owned(), |key| row_number(key));
            if *resume {
                format!("of {snapshot} there is {cursor}, go on from there")
            } else {
                format!("staged of {snapshot}: {cursor}")
            }
        }
    };
    format!("{:?}: {body}", message.term)
}

fn shown_round(round: u64) -> String {
    if round == 0 { String::new() } else { format!(", round {round}") }
}

/// A room that does not limit the leader's window is not shown.
fn shown_room(room: u64) -> String {
    if room >= Config::default().in_flight_bytes_max as u64 {
        String::new()
    } else {
        format!(", room {room}")
    }
}

fn shown_mark(before: &str, mark: &Option<Mark>) -> String {
    mark.map_or(String::new(), |(index, hash)| format!("{before} hash {:04x} at {index}", hash & 0xffff))
}

fn shown_chunk(chunk: &Chunk) -> String {
    let rows: Vec<String> = chunk.rows.iter().map(|(key, _)| row_number(key)).collect();
    let done = if chunk.done { ", the last" } else { "" };
    format!("of {}: rows {}{done}", chunk.snapshot, rows.join(" "))
}

fn row_number(key: &[u8]) -> String {
    key.try_into().map_or_else(|_| format!("{key:?}"), |key| u64::from_be_bytes(key).to_string())
}

fn shown_save(save: &Save) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = save.hard_state {
        let vote = hard_state.vote.map_or("no vote".to_owned(), |vote| format!("vote {vote:?}"));
        parts.push(format!("{:?} {vote}", hard_state.term));
    }
    match save.promised {
        Some(EntryId::ZERO) => parts.push("owes nothing".to_owned()),
        Some(promised) => parts.push(format!("owes {promised}")),
        None => {}
    }
    if let Some(from) = save.truncate_from {
        parts.push(format!("nothing from {from} on"));
    }
    if !save.entries.is_empty() {
        parts.push(entries_of(&save.entries));
    }
    if let Some(marker) = save.marker {
        parts.push(format!("marker {marker}"));
    }
    parts.join(", ")
}

fn entries_of(entries: &[Entry]) -> String {
    let one = |entry: &Entry| match &entry.payload {
        Payload::Empty => format!("{}", entry.id),
        Payload::Command(bytes) if bytes.len() > 12 => format!("{}=[{} bytes]", entry.id, bytes.len()),
        Payload::Command(bytes) => format!("{}={}", entry.id, String::from_utf8_lossy(bytes)),
    };
    entries.iter().map(one).collect::<Vec<_>>().join(" ")
}

pub(crate) fn server(cluster: &Cluster, id: NodeId) -> String {
    if !cluster.is_up(id) {
        return format!("{id:?} is down");
    }
    let raft = cluster.raft(id);
    let log = raft.log();
    let ids = (log.marker().index.0 + 1..=log.last().index.0).filter_map(|at| log.id_at(Index(at)));
    let log_shown: Vec<String> = ids.map(|id| id.to_string()).collect();
    let applied = cluster.servers[&id].table.applied();
    let owes = raft.owes().map_or(String::new(), |promised| format!(", owes {promised}"));
    format!(
        "{id:?} {}, commit {}, applied {applied}, log {} | {}{owes}",
        cluster.shown_role(id),
        raft.commit(),
        log.marker(),
        log_shown.join(" ")
    )
}

pub(crate) fn progress(cluster: &Cluster, id: NodeId) -> Vec<String> {
    let Role::Leader(leader) = cluster.raft(id).role() else { return vec![format!("{id:?} leads nobody")] };
    let one = |(id, it): (&NodeId, &Progress)| {
        let feed = match &it.feed {
            Feed::Probe { waiting: true } => "probing, answer awaited".to_owned(),
            Feed::Probe { waiting: false } => "to be probed".to_owned(),
            Feed::Replicate { in_flight } => format!("streaming, {} on the way", in_flight.len()),
            Feed::Full => "full".to_owned(),
            Feed::Snapshot(stream) => match stream.snapshot {
                Some(snapshot) => format!("getting snapshot {snapshot}"),
                None if it.disk_low => "waiting for space".to_owned(),
                None => "getting a snapshot".to_owned(),
            },
        };
        format!("{id:?}: matched {}, next {}, {feed}", it.matched, it.next)
    };
    leader.followers.iter().map(one).collect()
}

pub(crate) fn parse_crash(text: &str) -> Crash {
    match text {
        "before-save" => Crash::BeforeSave,
        "after-save" => Crash::AfterSave,
        "after-send" => Crash::AfterSend,
        _ => panic!("no such point: {text}"),
    }
}
