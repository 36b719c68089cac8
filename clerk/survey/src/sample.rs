//! Made-up answers of servers, for the tests of everything that judges them.

use std::collections::BTreeMap;
use std::sync::Arc;

use clerk::api::config::{AddressBook, Assignment, Config, Params, Sealed};
use clerk::api::status::{
    History, KvStatus, Moved, ReplicaStatus, Role, Sessions, ShardLoad, ShardPhase, ShardStatus,
};
use clerk::api::{ConfigNum, GroupId, Incarnation, ShardId};

use clerk::connection::{Options, TarpcConnection};

use crate::reach::Reach;
use crate::survey::{Answers, Survey};

/// A configuration with these owners.
pub fn config(num: u64, owners: &[Option<u64>]) -> Sealed {
    let params = Params { shard_count: owners.len() as u32, ..Params::default() };
    let assignment = |owner: &Option<u64>| Assignment { owner: owner.map(GroupId), last_owner: None };
    let groups = owners.iter().flatten().map(|group| (GroupId(*group), Incarnation(*group))).collect();
    let shards = owners.iter().map(assignment).collect();
    Sealed::new(Config { num: ConfigNum(num), shards, groups, ..Config::zero(7, params) })
}

/// What a group of two servers says, of which one is down.
pub fn answers(group: u64, num: u64, shards: &[(u32, ShardPhase)]) -> Answers<KvStatus> {
    let moving = |phase: &ShardPhase| {
        matches!(phase, ShardPhase::Awaiting | ShardPhase::Leaving | ShardPhase::Handing)
    };
    let shard = |(shard, phase): &(u32, ShardPhase)| ShardStatus {
        shard: ShardId(*shard),
        phase: *phase,
        num: moving(phase).then_some(ConfigNum(num)),
        peer: None,
        rows: 0,
        bytes: 0,
        progress: None,
        load: ShardLoad::default(),
        copy: None,
    };
    let replica = ReplicaStatus { id: 1, role: Role::Leader, ..ReplicaStatus::default() };
    let status = KvStatus {
        replica,
        group: GroupId(group),
        incarnation: None,
        config: ConfigNum(num),
        digest: None,
        key: None,
        history: History::Same,
        lost: None,
        settled: !shards.iter().any(|(_, phase)| moving(phase)),
        shards: shards.iter().map(shard).collect(),
        members: BTreeMap::new(),
        sessions: Sessions::default(),
        moved: Moved::default(),
        wipes: 0,
    };
    vec![("a".to_owned(), Ok(status)), ("b".to_owned(), Err("down".to_owned()))]
}

/// A survey without controllers.
pub fn survey(config: Sealed, groups: Vec<(u64, Answers<KvStatus>)>) -> Survey {
    let groups = groups.into_iter().map(|(group, answers)| (GroupId(group), answers));
    let groups = groups.collect::<BTreeMap<_, _>>();
    Survey {
        config: Some(config),
        book: AddressBook::default(),
        placement: None,
        controllers: Vec::new(),
        groups,
    }
}

/// A cluster that nobody can reach.
pub fn reach() -> Reach {
    let connection = Arc::new(TarpcConnection::new(Options::of("sample")));
    let cluster = "sample".to_owned();
    let (known, ids) = (BTreeMap::new(), BTreeMap::new());
    Reach { cluster, connection, controllers: Vec::new(), known, ids }
}
