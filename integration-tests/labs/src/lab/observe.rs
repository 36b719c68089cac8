//! Puts the roles, the progress and the shards of simulated servers into the recording of a run.

use std::collections::BTreeMap;

use raft::rsm::{Role, Status};
use shardkv::machine::Standing;
use shardkv::shard::ShardState;

use sim::cluster::{Cluster, Seen};
use sim::record::What;
use sim::{Name, World};

/// The last recorded state of a server.
#[derive(Default)]
struct Known {
    life: u64,
    role: Option<(Role, u64, Option<u64>)>,
    progress: (u64, u64),
    shards: Vec<ShardState>,
}

/// Follows `cluster` from now on, if its run is recorded.
pub(super) fn watch(cluster: &Cluster) {
    if !cluster.world.is_recorded() {
        return;
    }
    let mut known: BTreeMap<Name, Known> = BTreeMap::new();
    let watched = cluster.clone();
    cluster.world.always(move || {
        for seen in watched.seen() {
            let known = known.entry(seen.name.clone()).or_default();
            if known.life != seen.life {
                *known = Known { life: seen.life, ..Known::default() };
            }
            look(&watched.world, &seen, known);
        }
        Ok(())
    });
}

fn look(world: &World, seen: &Seen, known: &mut Known) {
    let status = seen.probe.status.borrow().clone();
    let name = Some(&seen.name);
    let role = (status.role, status.term.0, status.leader.map(|leader| leader.0));
    if known.role != Some(role) {
        known.role = Some(role);
        world.record(name, Some(status.term.0), || What::Role {
            role: word(status.role).to_owned(),
            leader: role.2,
        });
    }
    let progress = (status.commit.0, status.applied.id.index.0);
    if known.progress != progress {
        known.progress = progress;
        let Status { log_bytes, .. } = status;
        let (commit, applied) = progress;
        let what = || What::Progress { commit, applied, log_bytes: log_bytes as u64 };
        world.record(name, Some(status.term.0), what);
    }
    if let Some(standing) = &seen.probe.standing {
        shards(world, &seen.name, &standing.borrow(), known);
    }
}

fn shards(world: &World, name: &Name, standing: &Standing, known: &mut Known) {
    for (shard, state) in standing.shards.iter().enumerate() {
        if known.shards.get(shard) != Some(state) {
            let config = standing.config.map_or(0, |config| config.0);
            let shard = u32::try_from(shard).unwrap_or(u32::MAX);
            world.record(Some(name), None, || What::Shard { shard, state: shard_word(*state), config });
        }
    }
    known.shards.clone_from(&standing.shards);
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

fn shard_word(state: ShardState) -> String {
    match state {
        ShardState::Absent => "absent".to_owned(),
        ShardState::Awaiting { .. } => "awaiting".to_owned(),
        ShardState::Serving => "serving".to_owned(),
        ShardState::Leaving { to, .. } => format!("leaving to {to}"),
        ShardState::Handing { to, .. } => format!("handing to {to}"),
        ShardState::Parked => "parked".to_owned(),
    }
}
