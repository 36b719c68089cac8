//! What a replica says about itself, from its own rows: true a moment ago, and not linearizable.

use std::collections::BTreeMap;

use clerk::api::config::{Config, Sealed};
use clerk::api::status::{Connections, DiskStatus, KvStatus, ReplicaStatus, Role, ShardPhase, ShardStatus};
use clerk::api::{GroupId, ShardId};
use raft::host::Facts;
use raft::rsm::Status;
use raft::storage::Read;

use crate::configs::Knowledge;
use crate::mover::Progress;
use crate::rows;
use crate::shard::ShardState;

/// The status of a replica of `group`, as far as its rows and its log tell.
pub(crate) fn of(
    group: GroupId,
    replica: ReplicaStatus,
    rows: &dyn Read,
    progress: &Progress,
    known: &Knowledge,
) -> KvStatus {
    let config = rows::config(rows);
    let states = rows::states(rows);
    let settled = config.is_some() && states.iter().all(|(_, state)| state.settled());
    let shards = match &config {
        Some(config) => states
            .into_iter()
            .filter_map(|(shard, state)| shard_status(rows, config, progress, shard, state))
            .collect(),
        None => Vec::new(),
    };
    KvStatus {
        replica,
        group,
        incarnation: rows::incarnation(rows),
        digest: config.as_ref().map(Sealed::digest),
        key: config.as_ref().map(|config| config.key),
        history: known.history.clone(),
        lost: known.lost.map(|(registered, _)| registered),
        config: config.map(|config| config.num).unwrap_or_default(),
        settled,
        shards,
        members: BTreeMap::new(),
        wipes: 0,
    }
}

/// A replica's status in the words of the wire.
pub(crate) fn replica(facts: &Facts, status: &Status) -> ReplicaStatus {
    use raft::rsm::Role as RaftRole;
    let refusals = facts.counters.refusals();
    ReplicaStatus {
        id: status.me.0,
        pid: facts.pid,
        role: match status.role {
            RaftRole::Follower => Role::Follower,
            RaftRole::PreCandidate | RaftRole::Candidate => Role::Candidate,
            RaftRole::Leader => Role::Leader,
        },
        term: status.term.0,
        leader: status.leader.map(|leader| leader.0),
        commit: status.commit.0,
        applied: status.applied.id.index.0,
        log_bytes: status.log_bytes as u64,
        table_hash: status.applied.hash,
        wal_syncs: status.syncs,
        refused: refusals.counted(),
        refused_by: refusals.refused_by(),
        owes: status.owes.map(|entry| entry.to_string()),
        refused_messages: status.refused_messages,
        alarms: status.alarms,
        last_alarm: status.last_alarm.as_deref().map(str::to_owned),
        table_bad: status.table_bad,
        refused_peers: status.disbelieved.iter().map(|peer| peer.0).collect(),
        connections: Connections::of(&facts.counters, facts.descriptors),
        disk: DiskStatus::of(&facts.disk),
    }
}

fn shard_status(
    rows: &dyn Read,
    config: &Config,
    progress: &Progress,
    shard: ShardId,
    state: ShardState,
) -> Option<ShardStatus> {
    let assignment = config.shards.get(shard.0 as usize).copied().unwrap_or_default();
    let (phase, peer, progress) = match state {
        ShardState::Absent => return None,
        ShardState::Awaiting => {
            (ShardPhase::Awaiting, assignment.last_owner, Some(rows::cursor(rows, shard).rows))
        }
        ShardState::Serving => (ShardPhase::Serving, None, None),
        ShardState::Handing { to } => (ShardPhase::Handing, Some(to), progress.of(shard, config.num)),
        ShardState::Parked => (ShardPhase::Parked, None, None),
    };
    let meta = rows::meta(rows, shard);
    Some(ShardStatus { shard, phase, peer, rows: meta.rows, bytes: meta.bytes, progress })
}
