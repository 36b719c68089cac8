//! A replica's status, from its own rows. It was true a moment ago, and is not linearizable.

use std::collections::BTreeMap;

use clerk::api::config::{Config, Sealed};
use clerk::api::status::{KvStatus, ReplicaStatus, Sessions, ShardLoad, ShardPhase, ShardStatus};
use clerk::api::{GroupId, ShardId};
use raft::storage::Read;

use crate::leader::{Knowledge, Progress};
use crate::load::Loads;
use crate::machine::rows;
use crate::machine::shard::ShardState;

/// The status of a replica of `group`, as far as its rows and its log tell.
///
pub(crate) fn of(
    group: GroupId,
    replica: ReplicaStatus,
    rows: &dyn Read,
    progress: &Progress,
    loads: &Loads,
    known: &Knowledge,
) -> KvStatus {
    let config = rows::config(rows);
    let states = rows::states(rows);
    let settled = config.is_some() && states.iter().all(|(_, state)| state.settled());
    let shards = match &config {
        Some(config) => states
            .into_iter()
            .filter_map(|(shard, state)| shard_status(rows, config, progress, shard, state))
            .map(|status| ShardStatus { load: loads.of(status.shard), ..status })
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
        sessions: Sessions::default(),
        moved: progress.ended(),
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
    let (phase, peer) = match state {
        ShardState::Absent => return None,
        ShardState::Awaiting { .. } => (ShardPhase::Awaiting, assignment.last_owner),
        ShardState::Serving => (ShardPhase::Serving, None),
        ShardState::Leaving { to, .. } => (ShardPhase::Leaving, Some(to)),
        ShardState::Handing { to, .. } => (ShardPhase::Handing, Some(to)),
        ShardState::Parked => (ShardPhase::Parked, None),
    };
    let num = state.moving();
    let copy = num.and_then(|num| progress.of(shard, num));
    let progress = match state {
        ShardState::Awaiting { .. } => Some(rows::copied(rows, shard).rows),
        _ => copy.map(|copy| copy.rows),
    };
    let meta = rows::meta(rows, shard);
    let (rows, bytes, load) = (meta.rows, meta.bytes, ShardLoad::default());
    Some(ShardStatus { shard, phase, num, peer, rows, bytes, progress, copy, load })
}
