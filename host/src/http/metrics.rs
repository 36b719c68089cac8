//! The page that Prometheus reads: a pure function of a server's status and of what it measured.
//!
//! Names follow Prometheus' rules: base units, counters end in `_total`, labels have few values.
//! Each sample carries the group and the replica. Shards are summed by state; each shard on its own
//! is shown only when it is asked for.

mod page;

use std::time::Duration;

use clerk::api::status::{CtrlStatus, KvStatus, ReplicaStatus, Role, ShardPhase};
use raft::rsm::Measured;

use self::page::Page;
use super::{Moves, Shown};
use crate::measures::{Ended, Measures, VerbCounted};

/// What a server measured.
pub(super) struct Measurements<'a> {
    /// Of its requests.
    pub(super) requests: &'a Measures,
    /// Of its replica.
    pub(super) replica: Measured,
    /// Of the shards that move, if it has shards.
    pub(super) moves: Option<Moves>,
}

/// The whole page; `shards`: each shard on its own, too.
pub(super) fn text(shown: &Shown, measured: &Measurements<'_>, shards: bool) -> String {
    let mut page = Page::new(shown);
    page.gauge(
        "build_info",
        "The version of the program, as a label.",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    requests(&mut page, measured.requests);
    replica(&mut page, shown.replica());
    log(&mut page, shown.replica(), &measured.replica);
    snapshots(&mut page, &measured.replica);
    peers(&mut page, shown.replica());
    connections(&mut page, shown.replica());
    match shown {
        Shown::Controller(status) => controller(&mut page, status),
        Shown::Group(status) => {
            group(&mut page, status);
            moves(&mut page, status, measured.moves.unwrap_or_default());
            if shards {
                each_shard(&mut page, status);
            }
        }
    }
    page.encode()
}

fn requests(page: &mut Page, measures: &Measures) {
    page.gauge("requests_in_flight", "Requests that are being answered.", &[], measures.in_progress());
    let help = "Requests that took longer than the server's limit, `--slow-request-ms`.";
    page.counter("slow_requests_total", help, &[], measures.slow_count());
    for VerbCounted { name, ended, times } in measures.read() {
        for (outcome, count) in Ended::ALL.into_iter().zip(ended) {
            let labels = [("verb", name), ("outcome", outcome.name())];
            page.counter("requests_total", "Requests that ended, by verb and outcome.", &labels, count);
        }
        let help = "From the arrival of a request to its answer.";
        page.times("request_duration_seconds", help, &[("verb", name)], &times);
    }
}

fn replica(page: &mut Page, replica: &ReplicaStatus) {
    let leads = u64::from(replica.role == Role::Leader);
    page.gauge("raft_leader", "1: this replica leads its group.", &[], leads);
    let knows = u64::from(replica.leader.is_some());
    page.gauge("raft_has_leader", "1: this replica knows of a leader.", &[], knows);
    page.gauge("raft_term", "The term of this replica.", &[], replica.term);
    page.gauge("raft_commit_index", "The last entry that it knows to be committed.", &[], replica.commit);
    page.gauge("raft_applied_index", "The last entry that it applied.", &[], replica.applied);
    let help = "Bytes of entries that are committed and not applied.";
    page.gauge("raft_unapplied_bytes", help, &[], replica.unapplied_bytes);
    page.gauge("raft_log_bytes", "Bytes of log in memory.", &[], replica.log_bytes);
    page.counter("raft_alarms_total", "Signs that a promise does not hold.", &[], replica.alarms);
    let help = "Messages of peers that were refused.";
    page.counter("raft_refused_messages_total", help, &[], replica.refused_messages);
    let help = "1: the table differs from the other replicas', and is replaced.";
    page.gauge("raft_table_bad", help, &[], u64::from(replica.table_bad));
    let help = "1: this server lost a part of its log, and gets it back.";
    page.gauge("raft_repairing", help, &[], u64::from(replica.owes.is_some()));
    let help = "Bytes that clients may write per second, for a member that lags. 0: as many as they like.";
    page.gauge("raft_pace_bytes", help, &[], replica.pace.unwrap_or(0));
    disk(page, replica);
}

fn log(page: &mut Page, replica: &ReplicaStatus, measured: &Measured) {
    page.counter("wal_syncs_total", "Synced writes of the log.", &[], replica.wal_syncs);
    let help = "Synced writes that took longer than the shortest election timeout.";
    page.counter("wal_slow_syncs_total", help, &[], replica.slow_syncs);
    let help = "From the order to write a part of the log until it is synced.";
    page.times("wal_sync_duration_seconds", help, &[], &measured.saves);
    let help = "Entries that one synced write saved, of those writes that saved any.";
    page.amounts("raft_round_entries", help, &measured.round_entries);
    let help = "Bytes of the log's files, with those that are kept to be used again.";
    page.gauge("wal_bytes", help, &[], measured.log_file_bytes);
}

fn snapshots(page: &mut Page, measured: &Measured) {
    let help = "Leaders that this replica learned of, each of a new term.";
    page.counter("raft_leader_changes_total", help, &[], measured.leader_changes);
    let help = "Snapshots of which the last piece was sent.";
    page.counter("snapshots_sent_total", help, &[], measured.snapshots_sent);
    let help = "Snapshots that replaced the table.";
    page.counter("snapshots_installed_total", help, &[], measured.snapshots_installed);
    let help = "Losses that the leader made good: a part of the log, or the table.";
    for (what, count) in [("log", measured.log_repairs), ("table", measured.table_repairs)] {
        page.counter("raft_repairs_total", help, &[("what", what)], count);
    }
}

fn disk(page: &mut Page, replica: &ReplicaStatus) {
    page.gauge("disk_free_bytes", "Free bytes of the disk with the data.", &[], replica.disk.free_bytes);
    let help = "With fewer free bytes only what frees space is accepted.";
    page.gauge("disk_reserve_bytes", help, &[], replica.disk.reserve_bytes);
    page.gauge(
        "disk_full",
        "1: the disk has less free space than its reserve.",
        &[],
        u64::from(replica.disk.low),
    );
}

/// The others, as a leader sees them.
fn peers(page: &mut Page, replica: &ReplicaStatus) {
    for (peer, follower) in &replica.followers {
        let peer = peer.to_string();
        let labels = [("peer", peer.as_str())];
        let help = "Committed entries that a peer is not known to have. Of leaders only.";
        page.gauge("raft_peer_lag_entries", help, &labels, follower.lacks);
        let help = "Time since a peer was heard. Of leaders only.";
        page.gauge("raft_peer_silence_seconds", help, &labels, follower.silent_seconds);
    }
}

fn connections(page: &mut Page, replica: &ReplicaStatus) {
    let connections = &replica.connections;
    for (service, places) in &connections.open {
        let labels = [("service", service.as_str())];
        page.gauge("connections", "Open connections, by what they are for.", &labels, places.open);
        page.gauge("connections_max", "How many may be open.", &labels, places.max);
    }
    page.counter("connections_accepted_total", "Connections that were taken.", &[], connections.accepted);
    let help = "Idle connections that were closed for new ones.";
    page.counter("connections_made_room_total", help, &[], connections.made_room);
    let help = "Connections that were refused, by reason.";
    let own = [("no_place", connections.turned_away), ("malformed", connections.malformed)];
    let refused = replica.refused.iter().map(|(reason, count)| (reason.as_str(), *count));
    for (reason, count) in own.into_iter().chain(refused) {
        page.counter("connections_refused_total", help, &[("reason", reason)], count);
    }
    let help = "Bytes of requests and answers that wait on connections.";
    page.gauge("connections_waiting_bytes", help, &[], connections.waiting_bytes);
}

const CONFIG_HELP: &str = "The configuration that this server follows.";

fn controller(page: &mut Page, status: &CtrlStatus) {
    page.gauge("config_number", CONFIG_HELP, &[], status.config.0);
    let help = "1: it waits for the configurations that the groups hold.";
    page.gauge("recovering", help, &[], u64::from(status.recovering));
}

fn group(page: &mut Page, status: &KvStatus) {
    page.gauge("config_number", CONFIG_HELP, &[], status.config.0);
    let help = "1: every shard is where that configuration wants it.";
    page.gauge("settled", help, &[], u64::from(status.settled));
    for phase in ShardPhase::ALL {
        let count = status.shards.iter().filter(|shard| shard.phase == phase).count();
        page.gauge(
            "shards",
            "Shards that the group holds, by state.",
            &[("state", phase.name())],
            count as u64,
        );
    }
    page.gauge(
        "keys",
        "Keys of the shards that the group holds.",
        &[],
        status.shards.iter().map(|it| it.rows).sum(),
    );
    let bytes = status.shards.iter().map(|it| it.bytes).sum();
    page.gauge("key_bytes", "Bytes of those keys and their values.", &[], bytes);
    page.gauge("sessions", "Sessions of clients that are open.", &[], status.sessions.open);
    let help = "Sessions that were dropped for new ones.";
    page.counter("sessions_expired_total", help, &[], status.sessions.evicted);
    let help = "New sessions that were refused because all others were in use.";
    page.counter("sessions_refused_total", help, &[], status.sessions.refused);
    let help = "Shards that arrived with an end that did not match. Each is a bug.";
    page.counter("move_wipes_total", help, &[], status.wipes);
}

fn moves(page: &mut Page, status: &KvStatus, moves: Moves) {
    let help = "The newest configuration that this replica knows of.";
    page.gauge("config_newest_number", help, &[], moves.newest.0);
    let help = "Rows that this leader sent to other groups or took from them.";
    for (direction, rows) in [("out", moves.rows_out), ("in", moves.rows_in)] {
        page.counter("move_rows_total", help, &[("direction", direction)], rows);
    }
    let help = "For how long the move that waits longest has got nowhere. Of leaders only.";
    page.seconds("move_stalled_seconds", help, moves.stalled);
    page.counter("moves_total", "Shards that this leader gave away.", &[], status.moved.shards);
    let help = "How long nobody served the shard that this leader gave away last.";
    page.seconds("move_last_pause_seconds", help, Duration::from_micros(status.moved.last_pause_micros));
    let help = "Changed rows that are remembered, of shards that leave.";
    page.gauge("dirty_rows", help, &[], moves.dirty_rows);
}

fn each_shard(page: &mut Page, status: &KvStatus) {
    for it in &status.shards {
        let shard = it.shard.to_string();
        let labels = [("shard", shard.as_str())];
        page.gauge("shard_keys", "Keys of a shard.", &labels, it.rows);
        page.gauge("shard_bytes", "Bytes of a shard's keys and values.", &labels, it.bytes);
        let help = "Reads of a shard in a second. Of leaders only.";
        page.gauge("shard_reads_per_second", help, &labels, it.load.reads);
        let help = "Writes to a shard in a second. Of leaders only.";
        page.gauge("shard_writes_per_second", help, &labels, it.load.writes);
        let help = "Bytes of a shard that are read and written in a second. Of leaders only.";
        page.gauge("shard_load_bytes_per_second", help, &labels, it.load.bytes);
    }
}
