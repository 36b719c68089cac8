mod formats;
mod placement;
mod recovery;

use std::collections::{BTreeMap, BTreeSet};

use clerk::api::config::{AddressBook, Assignment, Config, Move, NewGroup, Params, Registered, Sealed};
use clerk::api::ctrl::{Change, CtrlRefusal, CtrlReply, Recovery};
use clerk::api::placement::Placement;
use clerk::api::{ConfigNum, Digest, GroupId, Incarnation, Seq, SessionId, ShardId, Ticket};
use proptest::prelude::*;
use raft::rsm::{MapRows, StateMachine};
use raft::types::EntryId;

use super::{Command, Controller, Query, Verdict};
use crate::rows;

const KEY: u64 = 7;

/// A controller with its rows and one open session.
struct Cluster {
    machine: Controller,
    rows: MapRows,
    session: SessionId,
    seq: u64,
}

impl Cluster {
    fn of(shard_count: u32) -> Self {
        let mut cluster =
            Self { machine: Controller::default(), rows: MapRows::default(), session: SessionId(0), seq: 0 };
        cluster.machine.load(&cluster.rows);
        cluster
            .apply(Command::Init { params: Params { shard_count, ..Params::default() }, key: KEY })
            .unwrap();
        cluster.session = cluster.open();
        cluster
    }

    fn apply(&mut self, command: Command) -> Verdict {
        self.machine.apply(&mut self.rows, EntryId::ZERO, command)
    }

    /// As a client does: retries until there is room.
    fn open(&mut self) -> SessionId {
        let opened = |answer| if let Ok(CtrlReply::Opened(session)) = answer { Some(session) } else { None };
        (0..99).find_map(|_| opened(self.apply(Command::Open))).expect("room at last")
    }

    fn change(&mut self, change: Change) -> Verdict {
        self.seq += 1;
        self.repeat(change)
    }

    /// The last change's ticket once more.
    fn repeat(&mut self, change: Change) -> Verdict {
        let ticket = Ticket { session: self.session, seq: Seq(self.seq) };
        self.apply(Command::Change { ticket, change })
    }

    fn query(&self, query: Query) -> Verdict {
        self.machine.query(&self.rows, query)
    }

    fn placement(&self) -> Placement {
        match self.query(Query::Placement) {
            Ok(CtrlReply::Placement(placement)) => *placement,
            other => panic!("{other:?}"),
        }
    }

    fn newest(&self) -> (Sealed, AddressBook) {
        match self.query(Query::Config(None)) {
            Ok(CtrlReply::Config(config, book)) => (config, book),
            other => panic!("{other:?}"),
        }
    }
}

fn new_group(id: u64) -> NewGroup {
    let addresses = (1..=3).map(|node| format!("host{node}:{id}")).collect();
    NewGroup { key: KEY, incarnation: Incarnation(id * 1000), addresses }
}

fn join(ids: impl IntoIterator<Item = u64>) -> Change {
    Change::Join(ids.into_iter().map(|id| (GroupId(id), new_group(id))).collect())
}

fn join_as(id: u64, group: NewGroup) -> Change {
    Change::Join(BTreeMap::from([(GroupId(id), group)]))
}

fn leave(ids: impl IntoIterator<Item = u64>, force: bool) -> Change {
    Change::Leave { groups: ids.into_iter().map(GroupId).collect(), force }
}

fn give(shard: u32, group: u64) -> Change {
    Change::Move { shard: ShardId(shard), group: GroupId(group) }
}

fn changed(verdict: Verdict) -> (u64, Vec<Move>) {
    match verdict {
        Ok(CtrlReply::Changed { config, moves }) => (config.0, moves),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_answered_before_configuration_0_and_the_first_parameters_win() {
    let mut machine = Controller::default();
    let mut rows = MapRows::default();
    machine.load(&rows);
    assert_eq!(machine.query(&rows, Query::Config(None)), Err(CtrlRefusal::NotExecuted));
    assert_eq!(machine.apply(&mut rows, EntryId::ZERO, Command::Open), Err(CtrlRefusal::NotExecuted));
    for shard_count in [10, 20] {
        let params = Params { shard_count, ..Params::default() };
        machine
            .apply(&mut rows, EntryId::ZERO, Command::Init { params, key: u64::from(shard_count) })
            .unwrap();
    }
    let zero = Sealed::new(Config::zero(10, Params { shard_count: 10, ..Params::default() }));
    let expected = Ok(CtrlReply::Config(zero, AddressBook { key: 10, ..AddressBook::default() }));
    assert_eq!(machine.query(&rows, Query::Config(None)), expected);
}

#[test]
fn several_groups_that_join_or_leave_at_once_are_one_configuration() {
    let mut cluster = Cluster::of(10);
    let (config, moves) = changed(cluster.change(join([101, 102])));
    assert_eq!((config, moves.len()), (1, 10));
    assert!(moves.iter().all(|moved| moved.from.is_none()));
    assert_eq!(changed(cluster.change(join([103, 104, 105]))).0, 2);
    let (config, moves) = changed(cluster.change(leave([101, 103], false)));
    assert_eq!((config, moves.len()), (3, 4));
    let (newest, book) = cluster.newest();
    assert_eq!(newest.group_ids(), BTreeSet::from([GroupId(102), GroupId(104), GroupId(105)]));
    assert_eq!(book.version, 2);
    assert_eq!(book.groups.len(), 5, "the book keeps groups that left: rows may still lie there");
}

#[test]
fn joining_a_known_group_again_is_harmless_or_corrects_its_servers_and_with_other_data_is_refused() {
    let mut cluster = Cluster::of(10);
    changed(cluster.change(join([101])));
    let mut same = new_group(101);
    same.addresses.reverse();
    assert_eq!(changed(cluster.change(join_as(101, same))), (1, vec![]));

    let moved = NewGroup { addresses: vec!["elsewhere:1".into()], ..new_group(101) };
    let known = |cluster: &Cluster| {
        let (config, book) = cluster.newest();
        assert_eq!(rows::book_version(&cluster.rows), book.version);
        (config.num.0, book.version, book.addresses(GroupId(101)).to_vec())
    };
    assert_eq!(known(&cluster), (1, 1, new_group(101).addresses));
    assert_eq!(changed(cluster.change(join_as(101, moved.clone()))), (1, vec![]));
    assert_eq!(
        known(&cluster),
        (1, 2, moved.addresses.clone()),
        "a new version of the book, no new configuration"
    );
    assert_eq!(changed(cluster.change(join_as(101, moved.clone()))), (1, vec![]));
    assert_eq!(known(&cluster), (1, 2, moved.addresses));
    let wiped = NewGroup { incarnation: Incarnation(7), ..new_group(101) };
    assert_eq!(cluster.change(join_as(101, wiped)), Err(CtrlRefusal::OtherIncarnation(GroupId(101))));
    let alone = NewGroup { addresses: vec![], ..new_group(102) };
    assert_eq!(cluster.change(join_as(102, alone)), Err(CtrlRefusal::InvalidGroup(GroupId(102))));
    assert_eq!(cluster.change(join([0])), Err(CtrlRefusal::InvalidGroup(GroupId(0))));
    assert_eq!(cluster.change(join([])), Err(CtrlRefusal::NothingNamed));
    assert_eq!(cluster.newest().0.num, ConfigNum(1));
}

#[test]
fn leaving_twice_is_harmless() {
    let mut cluster = Cluster::of(10);
    changed(cluster.change(join([101, 102, 103])));
    assert_eq!(changed(cluster.change(leave([101], false))).0, 2);
    assert_eq!(changed(cluster.change(leave([101], false))), (2, vec![]));
    assert_eq!(changed(cluster.change(leave([101, 102], false))).0, 3, "the other one leaves");
    assert_eq!(cluster.change(leave([102, 109], false)), Err(CtrlRefusal::UnknownGroup(GroupId(109))));
    assert_eq!(cluster.newest().0.group_ids(), BTreeSet::from([GroupId(103)]));
}

#[test]
fn one_bad_group_of_several_lets_none_of_them_in() {
    let mut cluster = Cluster::of(10);
    assert_eq!(cluster.change(join([0, 101])), Err(CtrlRefusal::InvalidGroup(GroupId(0))));
    changed(cluster.change(join([101])));
    assert_eq!(cluster.change(leave([101, 102], true)), Err(CtrlRefusal::UnknownGroup(GroupId(102))));
    assert_eq!(cluster.newest().0.group_ids(), BTreeSet::from([GroupId(101)]));
}

#[test]
fn a_group_that_left_returns_with_its_data_wherever_it_is_now_and_never_with_other_data() {
    let mut cluster = Cluster::of(10);
    changed(cluster.change(join([101, 102])));
    changed(cluster.change(leave([101], false)));
    let wiped = NewGroup { incarnation: Incarnation(7), ..new_group(101) };
    assert_eq!(cluster.change(join_as(101, wiped)), Err(CtrlRefusal::OtherIncarnation(GroupId(101))));
    let moved = NewGroup { addresses: vec!["elsewhere:1".into()], ..new_group(101) };
    assert_eq!(changed(cluster.change(join_as(101, moved.clone()))).0, 3);
    let (_, book) = cluster.newest();
    assert_eq!((book.version, book.addresses(GroupId(101))), (2, &moved.addresses[..]));
}

#[test]
fn the_last_group_leaves_only_by_force_and_its_shards_stay_parked_where_they_are() {
    let mut cluster = Cluster::of(4);
    changed(cluster.change(join([101])));
    assert_eq!(cluster.change(leave([101], false)), Err(CtrlRefusal::LastGroup));
    let (_, moves) = changed(cluster.change(leave([101], true)));
    assert_eq!(moves[3], Move { shard: ShardId(3), from: Some(GroupId(101)), to: None });
    let parked = Assignment { owner: None, last_owner: Some(GroupId(101)) };
    assert_eq!(cluster.newest().0.shards, [parked; 4]);

    // The next owner gets the shards from where they are parked.
    let (_, moves) = changed(cluster.change(join([102])));
    assert_eq!(moves[0], Move { shard: ShardId(0), from: Some(GroupId(101)), to: Some(GroupId(102)) });
    let moved = Assignment { owner: Some(GroupId(102)), last_owner: Some(GroupId(101)) };
    assert_eq!(cluster.newest().0.shards, [moved; 4]);
}

#[test]
fn the_last_owner_is_remembered_over_configurations_without_owner() {
    let mut cluster = Cluster::of(2);
    changed(cluster.change(join([101, 102])));
    changed(cluster.change(leave([101, 102], true)));
    changed(cluster.change(join([103])));
    changed(cluster.change(leave([103], true)));
    let parked = Assignment { owner: None, last_owner: Some(GroupId(103)) };
    assert_eq!(cluster.newest().0.shards, [parked; 2]);
    let expected = Assignment { owner: None, last_owner: Some(GroupId(101)) };
    match cluster.query(Query::Config(Some(ConfigNum(2)))) {
        Ok(CtrlReply::Config(config, _)) => assert_eq!(config.shards[0], expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_moved_shard_is_not_pinned() {
    let mut cluster = Cluster::of(4);
    changed(cluster.change(join([101, 102])));
    let moves =
        [(0, 102), (1, 102)].map(|(shard, group)| changed(cluster.change(give(shard, group))).1.len());
    assert_eq!(moves.iter().sum::<usize>(), 2);
    assert_eq!(changed(cluster.change(give(0, 102))), (3, vec![]), "already there: harmless");
    assert_eq!(cluster.change(give(0, 9)), Err(CtrlRefusal::UnknownGroup(GroupId(9))));
    let unknown = CtrlRefusal::UnknownShard { shard: ShardId(4), last: ShardId(3) };
    assert_eq!(cluster.change(give(4, 101)), Err(unknown));
    let (config, moves) = changed(cluster.change(join([103])));
    assert_eq!((config, moves.len()), (4, 2), "group 101 gets one back, group 103 gets one");
}

#[test]
fn a_repeated_change_gets_its_first_verdict_whatever_happened_since() {
    let mut cluster = Cluster::of(10);
    let first = cluster.change(join([101]));
    let other = cluster.open();
    let (mine, seq) =
        (std::mem::replace(&mut cluster.session, other), std::mem::replace(&mut cluster.seq, 0));
    changed(cluster.change(join([102])));
    changed(cluster.change(leave([101], false)));

    (cluster.session, cluster.seq) = (mine, seq);
    assert_eq!(cluster.repeat(join([101])), first);
    assert_eq!(cluster.newest().0.num, ConfigNum(3));

    let refused = cluster.change(leave([109], false));
    assert_eq!(refused, Err(CtrlRefusal::UnknownGroup(GroupId(109))));
    (cluster.session, cluster.seq) = (other, 2);
    changed(cluster.change(join([109])));
    (cluster.session, cluster.seq) = (mine, 2);
    assert_eq!(cluster.repeat(leave([109], false)), refused, "a refusal is recorded, too");

    cluster.seq = 1;
    assert_eq!(cluster.repeat(join([101])), Err(CtrlRefusal::StaleSeq));
    cluster.session = SessionId(99);
    assert_eq!(cluster.repeat(join([101])), Err(CtrlRefusal::SessionExpired));
}

#[test]
fn a_session_beyond_the_limit_expires_and_its_change_is_never_executed() {
    let mut cluster = Cluster::of(10);
    for _ in 0..Params::default().sessions_max {
        cluster.open();
    }
    assert_eq!(cluster.change(join([101])), Err(CtrlRefusal::SessionExpired));
    assert_eq!(cluster.newest().0.num, ConfigNum(0));
}

#[test]
fn a_plan_says_what_the_change_will_do_and_does_nothing() {
    let mut cluster = Cluster::of(10);
    changed(cluster.change(join([101, 102])));
    let steps = [join([103]), give(0, 103), leave([101], false), leave([9], false), leave([102, 103], true)];
    for change in steps {
        let before = cluster.rows.0.clone();
        let planned = cluster.query(Query::Plan(change.clone()));
        assert_eq!(cluster.rows.0, before);
        assert_eq!(cluster.change(change), planned);
    }
}

#[test]
fn history_comes_in_pages_without_a_gap() {
    let mut cluster = Cluster::of(10);
    changed(cluster.change(join([101, 102])));
    for round in 0..100 {
        let (config, _) = cluster.newest();
        let other = if config.owner(ShardId(0)) == Some(GroupId(101)) { 102 } else { 101 };
        assert_eq!(changed(cluster.change(give(0, other))).0, round + 2);
    }
    let mut numbers = Vec::new();
    let mut pages = 0;
    loop {
        let after = numbers.last().copied();
        match cluster.query(Query::History { after }) {
            Ok(CtrlReply::Configs(news)) if news.configs.is_empty() => break,
            Ok(CtrlReply::Configs(news)) => numbers.extend(news.configs.iter().map(|config| config.num)),
            other => panic!("{other:?}"),
        }
        pages += 1;
    }
    assert_eq!(numbers, (0..=101).map(ConfigNum).collect::<Vec<_>>());
    assert_eq!(pages, 2);
    let beyond = Query::History { after: Some(ConfigNum(u64::MAX)) };
    assert!(matches!(cluster.query(beyond), Ok(CtrlReply::Configs(news)) if news.configs.is_empty()));
    let unknown = CtrlRefusal::UnknownConfig { asked: ConfigNum(102), newest: ConfigNum(101) };
    assert_eq!(cluster.query(Query::Config(Some(ConfigNum(102)))), Err(unknown));
}

#[test]
fn a_cluster_remembers_a_bounded_number_of_group_ids() {
    let mut cluster = Cluster::of(10);
    let limit = clerk::api::config::GROUPS_MAX;
    changed(cluster.change(join(1..=u64::from(limit))));
    let next = u64::from(limit) + 1;
    assert_eq!(cluster.change(join([next])), Err(CtrlRefusal::TooManyGroups { limit }));
}

fn weigh(group: u64, weight: u32) -> Change {
    Change::Weigh { group: GroupId(group), weight }
}

fn pin(shard: u32, group: u64) -> Change {
    Change::Pin { shard: ShardId(shard), group: GroupId(group) }
}

fn unpin(shard: u32) -> Change {
    Change::Unpin { shard: ShardId(shard) }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        2 => (0_u64..6, prop_oneof![Just(0_u32), Just(100), Just(250)])
            .prop_map(|(group, weight)| weigh(group, weight)),
        2 => (0_u32..9, 0_u64..6).prop_map(|(shard, group)| pin(shard, group)),
        1 => (0_u32..9).prop_map(unpin),
        3 => proptest::collection::btree_set(1_u64..6, 0..3).prop_map(join),
        3 => (proptest::collection::btree_set(1_u64..6, 0..3), any::<bool>())
            .prop_map(|(groups, force)| leave(groups, force)),
        2 => (0_u32..9, 0_u64..6).prop_map(|(shard, group)| give(shard, group)),
    ];
    proptest::collection::vec(change, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// The cache equals the rows: a restarted controller continues exactly like one that was never
    /// stopped, and each configuration follows from the one before.
    #[test]
    fn a_restart_changes_nothing(changes in changes(), restart in any::<proptest::sample::Index>()) {
        let mut steady = Cluster::of(8);
        let mut restarted = Cluster::of(8);
        let at = restart.index(changes.len());
        for (step, change) in changes.into_iter().enumerate() {
            if step == at {
                restarted.machine = Controller::default();
                restarted.machine.load(&restarted.rows);
            }
            let before = steady.newest().0;
            prop_assert_eq!(steady.change(change.clone()), restarted.change(change));
            prop_assert_eq!(&steady.rows.0, &restarted.rows.0);
            let after = steady.newest().0;
            prop_assert!(after.num.0 <= before.num.0 + 1);
            let (placement, groups) = (steady.placement(), after.group_ids());
            prop_assert!(groups.is_empty() || placement.weighs(&groups));
            prop_assert_eq!(&placement.of(&groups), &placement, "nothing is kept of who left");
            for (shard, group) in &placement.pins {
                prop_assert_eq!(after.owner(*shard), Some(*group));
                prop_assert!(placement.weight(*group) > 0);
            }
            if after.num != before.num {
                for (old, new) in before.shards.iter().zip(&after.shards) {
                    prop_assert_eq!(new.last_owner, old.owner.or(old.last_owner));
                    prop_assert_eq!(new.owner.is_none(), after.groups.is_empty());
                    prop_assert!(new.owner.is_none_or(|owner| after.groups.contains_key(&owner)));
                }
            } else {
                prop_assert_eq!(before, after);
            }
        }
    }
}

#[test]
fn configurations_are_chained_by_their_digests_and_name_each_group_with_its_data() {
    let mut cluster = Cluster::of(10);
    changed(cluster.change(join([101, 102])));
    changed(cluster.change(leave([101], false)));
    let Ok(CtrlReply::Configs(news)) = cluster.query(Query::History { after: None }) else {
        panic!("no history")
    };
    assert_eq!(news.configs[0].before, Digest(0));
    for pair in news.configs.windows(2) {
        assert_eq!((pair[1].before, pair[1].key), (pair[0].digest(), KEY));
    }
    let named = &news.configs[1].groups;
    assert_eq!(named[&GroupId(102)], Incarnation(102_000));
    assert_eq!(news.book.incarnation(GroupId(101)), Some(Incarnation(101_000)), "also of one that left");
}

#[test]
fn a_group_of_another_cluster_does_not_join_whatever_its_name() {
    let mut cluster = Cluster::of(10);
    for key in [0, KEY + 1] {
        let refused = cluster.change(join_as(101, NewGroup { key, ..new_group(101) }));
        assert_eq!(refused, Err(CtrlRefusal::OtherCluster { group: GroupId(101), key, own: KEY }));
    }
    assert_eq!(cluster.newest().0.num, ConfigNum(0));
}
