//! A server's report on its replica, in the types of the wire.

use clerk::api::status::{Connections, DiskStatus, Follower, ReplicaStatus, Role, Standing};
use raft::rsm::{self, Status};

use crate::disk::Disk;
use crate::measures::Measures;
use crate::open::Facts;

/// A replica's status in the types of the wire.
pub fn replica_status(facts: &Facts, status: &Status, measures: &Measures) -> ReplicaStatus {
    let refusals = facts.counters.refusals();
    ReplicaStatus {
        id: status.me.0,
        pid: facts.pid,
        role: match status.role {
            rsm::Role::Follower => Role::Follower,
            rsm::Role::PreCandidate | rsm::Role::Candidate => Role::Candidate,
            rsm::Role::Leader => Role::Leader,
        },
        term: status.term.0,
        leader: status.leader.map(|leader| leader.0),
        commit: status.commit.0,
        applied: status.applied.id.index.0,
        log_bytes: status.log_bytes as u64,
        table_hash: status.applied.hash,
        unapplied_bytes: status.unapplied_bytes as u64,
        wal_syncs: status.syncs,
        slow_syncs: status.slow_syncs,
        followers: status.followers.iter().map(|it| (it.id.0, follower(status, it))).collect(),
        pace: status.pace,
        refused: refusals.counted(),
        refused_by: refusals.refused_by(),
        owes: status.owes.map(|entry| entry.to_string()),
        refused_messages: status.refused_messages,
        alarms: status.alarms,
        last_alarm: status.last_alarm.as_deref().map(str::to_owned),
        table_bad: status.table_bad,
        refused_peers: status.disbelieved.iter().map(|peer| peer.0).collect(),
        connections: Connections::of(&facts.counters, facts.descriptors.unwrap_or(0)),
        disk: disk_status(&facts.disk),
        http: facts.http.map(|address| address.to_string()),
        requests: measures.requests(),
        slow_requests: measures.slow_count(),
    }
}

/// What is known of a disk that is watched.
fn disk_status(disk: &Disk) -> DiskStatus {
    DiskStatus {
        directory: disk.directory.display().to_string(),
        free_bytes: disk.free_bytes(),
        reserve_bytes: disk.reserve_bytes,
        low: disk.is_low(),
    }
}

/// Another server, as its leader sees it.
fn follower(status: &Status, follower: &rsm::Follower) -> Follower {
    let lacks = status.commit.0.saturating_sub(follower.matched.0);
    let rsm::Follower { silent_seconds, takes, wanted, .. } = *follower;
    let standing = match follower.standing {
        rsm::Standing::Level => Standing::Level,
        rsm::Standing::Arriving => Standing::Arriving,
        rsm::Standing::Silent => Standing::Silent,
        rsm::Standing::GivenUp => Standing::GivenUp,
    };
    Follower { lacks, silent_seconds, standing, takes, wanted }
}
