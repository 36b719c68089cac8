//! The document of a survey: what `clerk status -o json` prints (docs/cli.md).

use std::collections::BTreeSet;

use clerk::api::placement::Placement;
use clerk::api::status::{CtrlStatus, KvStatus, ReplicaStatus, Sessions, ShardStatus};
use clerk::api::{Address, ConfigNum, Digest, GroupId};
use serde_json::{Value, json};

use crate::reach::{self, Reach};
use crate::survey::{Survey, speaker};

/// A server, up or down.
pub struct Server<'a> {
    /// Its name.
    pub name: String,
    /// Its place.
    pub address: &'a Address,
    /// What it says, if it answers.
    pub status: Option<&'a ReplicaStatus>,
    /// What it knows besides its log.
    pub known: Known,
    /// The newest entry that a server of its group has committed.
    pub committed: u64,
}

/// A server's knowledge of configurations, and what it had to discard.
#[derive(Clone, Copy, Default)]
pub struct Known {
    pub config: ConfigNum,
    pub digest: Option<Digest>,
    /// A controller that waits to be recovered.
    pub recovering: bool,
    pub wipes: u64,
    /// Of a replica of a group.
    pub sessions: Option<Sessions>,
}

impl Server<'_> {
    /// Entries that are committed in its group, and not applied here.
    pub fn behind(&self) -> Option<u64> {
        self.status.map(|status| self.committed.saturating_sub(status.applied))
    }
}

/// The newest entry that one of these has committed.
pub fn committed<'a>(replicas: impl Iterator<Item = &'a ReplicaStatus>) -> u64 {
    replicas.map(|replica| replica.commit).max().unwrap_or_default()
}

/// The controllers of a survey.
pub fn controllers<'a>(reach: &Reach, survey: &'a Survey) -> Vec<Server<'a>> {
    let answered = survey.controllers.iter().filter_map(|(_, status)| status.as_ref().ok());
    let committed = committed(answered.map(|status| &status.replica));
    let server = |(place, (address, status)): (usize, &'a (Address, Result<_, String>))| {
        let status: Option<&CtrlStatus> = status.as_ref().ok();
        let known = status.map(|status| Known {
            config: status.config,
            digest: status.digest,
            recovering: status.recovering,
            wipes: 0,
            sessions: None,
        });
        let status = status.map(|status| &status.replica);
        let name = reach.name_of(0, address, status.map(|status| status.id), place);
        Server { name, address, status, known: known.unwrap_or_default(), committed }
    };
    survey.controllers.iter().enumerate().map(server).collect()
}

/// The replicas of a group.
pub fn replicas<'a>(reach: &Reach, survey: &'a Survey, group: GroupId) -> Vec<Server<'a>> {
    let answers = || survey.groups.get(&group).into_iter().flatten();
    let answered = answers().filter_map(|(_, status)| status.as_ref().ok());
    let committed = committed(answered.map(|status| &status.replica));
    let server = |(place, (address, status)): (usize, &'a (Address, Result<KvStatus, String>))| {
        let status = status.as_ref().ok();
        let known = status.map(|status| Known {
            config: status.config,
            digest: status.digest,
            recovering: false,
            wipes: status.wipes,
            sessions: Some(status.sessions),
        });
        let status = status.map(|status| &status.replica);
        let name = reach.name_of(group.0, address, status.map(|status| status.id), place);
        Server { name, address, status, known: known.unwrap_or_default(), committed }
    };
    survey.groups.get(&group).into_iter().flatten().enumerate().map(server).collect()
}

/// The number of the newest configuration.
pub fn newest(survey: &Survey) -> ConfigNum {
    survey.config.as_ref().map(|config| config.num).unwrap_or_default()
}

/// A server: an element of "controllers" or "replicas".
pub fn server_document(group: u64, server: &Server<'_>) -> Value {
    let Server { name, address, status, known, .. } = server;
    let field = |value: fn(&ReplicaStatus) -> Value| status.map(value);
    let leader = status.and_then(|status| status.leader).map(|leader| reach::name(group, leader));
    let refused_peers = status.map(|status| names(group, &status.refused_peers));
    let followers = status.map(|status| {
        let followers = status.followers.iter();
        followers.map(|(id, it)| (reach::name(group, *id), json!(it))).collect::<serde_json::Map<_, _>>()
    });
    json!({
        "name": name,
        "address": address,
        "pid": field(|status| status.pid.into()),
        "up": status.is_some(),
        "role": field(|status| json!(status.role)),
        "term": field(|status| status.term.into()),
        "leader": leader,
        "commit": field(|status| status.commit.into()),
        "applied": field(|status| status.applied.into()),
        "log_bytes": field(|status| status.log_bytes.into()),
        "table_hash": field(|status| hex(status.table_hash).into()),
        "unapplied_bytes": field(|status| status.unapplied_bytes.into()),
        "wal_syncs": field(|status| status.wal_syncs.into()),
        "slow_syncs": field(|status| status.slow_syncs.into()),
        "followers": followers,
        "pace": field(|status| json!(status.pace)),
        "refused": field(|status| json!(status.refused)),
        "refused_by": field(|status| json!(status.refused_by)),
        "owes": field(|status| status.owes.clone().into()),
        "refused_messages": field(|status| status.refused_messages.into()),
        "alarms": field(|status| status.alarms.into()),
        "last_alarm": field(|status| json!(status.last_alarm)),
        "table_bad": field(|status| status.table_bad.into()),
        "refused_peers": refused_peers,
        "behind": server.behind(),
        "config": status.map(|_| known.config.0),
        "digest": known.digest.map(|digest| digest.to_string()),
        "wipes": status.map(|_| known.wipes),
        "sessions": known.sessions.map(|sessions| json!(sessions)),
        "connections": field(|status| json!(status.connections)),
        "disk": field(|status| json!(status.disk)),
        "http": field(|status| json!(status.http)),
    })
}

pub(crate) fn names(group: u64, ids: &[u64]) -> Vec<String> {
    ids.iter().map(|id| reach::name(group, *id)).collect()
}

/// Too wide for the numbers of many JSON readers.
pub fn hex(word: u64) -> String {
    Digest(word).to_string()
}

/// What is known of a group: an element of "groups".
pub fn group_document(reach: &Reach, survey: &Survey, group: GroupId) -> Value {
    let status = survey.groups.get(&group).and_then(speaker);
    let shards = status.map_or(&[][..], |status| &status.shards);
    let servers = replicas(reach, survey, group);
    json!({
        "gid": group.0,
        "joined": survey.is_joined(group),
        "history": status.map(|status| status.history.word()),
        "history_text": status.map(|status| status.history.to_string()),
        "config": status.map(|status| status.config.0),
        "digest": status.and_then(|status| status.digest).map(|digest| digest.to_string()),
        "key": status.and_then(|status| status.key).map(hex),
        "incarnation": status.and_then(|status| status.incarnation).map(|it| hex(it.0)),
        "registered": status.and_then(|status| status.lost).map(|it| hex(it.0)),
        "lost_data": status.is_some_and(|status| status.lost.is_some()),
        "replicas": servers.iter().map(|server| server_document(group.0, server)).collect::<Vec<_>>(),
        "weight": weight(survey, group),
        "shards": shards.iter().map(shard_document).collect::<Vec<_>>(),
    })
}

/// The whole document.
pub fn document(reach: &Reach, survey: &Survey) -> Value {
    let servers = controllers(reach, survey);
    json!({
        "cluster": reach.cluster,
        "config": newest(survey).0,
        "digest": survey.config.as_ref().map(|config| config.digest().to_string()),
        "key": survey.config.as_ref().map(|config| hex(config.key)),
        "params": survey.config.as_ref().map(|config| json!(config.params)),
        "placement": survey.placement.as_ref().map(placement_document),
        "settled": survey.pending(newest(survey), &BTreeSet::new()).is_empty(),
        "controllers": servers.iter().map(|server| server_document(0, server)).collect::<Vec<_>>(),
        "groups": survey.groups.keys().map(|group| group_document(reach, survey, *group)).collect::<Vec<_>>(),
    })
}

/// A shard, as the group says that has it.
pub fn shard_document(shard: &ShardStatus) -> Value {
    json!({
        "shard": shard.shard.0,
        "state": shard.phase.name(),
        "move": shard.num.map(|num| num.0),
        "peer": shard.peer.map(|peer| peer.0),
        "rows": shard.rows,
        "bytes": shard.bytes,
        "progress": shard.progress,
        "load": json!(shard.load),
    })
}

/// The weights and pins that are in force.
pub fn placement_document(placement: &Placement) -> Value {
    let weights = placement.weights.iter().map(|(group, weight)| (group.to_string(), json!(weight)));
    let pins = placement.pins.iter().map(|(shard, group)| (shard.to_string(), json!(group.0)));
    json!({
        "version": placement.version,
        "weights": weights.collect::<serde_json::Map<_, _>>(),
        "pins": pins.collect::<serde_json::Map<_, _>>(),
        "move_rate": placement.move_rate,
    })
}

/// The weight of a group that has joined.
pub fn weight(survey: &Survey, group: GroupId) -> Option<u32> {
    let placement = survey.placement.as_ref().filter(|_| survey.is_joined(group))?;
    Some(placement.weight(group))
}

#[cfg(test)]
mod tests {
    use clerk::api::placement::Placement;
    use clerk::api::status::{ShardLoad, ShardPhase, ShardStatus};
    use clerk::api::{ConfigNum, GroupId, ShardId};
    use serde_json::json;

    use super::{placement_document, shard_document};

    #[test]
    fn a_shard_has_the_shape_of_the_contract() {
        let shard = ShardStatus {
            shard: ShardId(7),
            phase: ShardPhase::Handing,
            num: Some(ConfigNum(3)),
            peer: Some(GroupId(102)),
            rows: 10,
            bytes: 100,
            progress: Some(4),
            copy: None,
            load: ShardLoad { reads: 5, writes: 6, bytes: 700 },
        };
        let expected = json!({
            "shard": 7, "state": "handing", "move": 3, "peer": 102, "rows": 10, "bytes": 100, "progress": 4,
            "load": {"reads": 5, "writes": 6, "bytes": 700},
        });
        assert_eq!(shard_document(&shard), expected);
    }

    #[test]
    fn weights_and_pins_have_the_shape_of_the_contract() {
        let pins = [(ShardId(7), GroupId(102))].into();
        let placement = Placement { version: 3, pins, ..Placement::default() }.weighed(GroupId(101), 0);
        let expected = json!({"version": 3, "weights": {"101": 0}, "pins": {"7": 102}, "move_rate": null});
        assert_eq!(placement_document(&placement), expected);
    }
}
