//! Weights, pins, and plans of several moves (rules 140, 141).

use super::*;

/// A plan from what is newest now.
fn plan(cluster: &Cluster, moves: &[(u32, u64)]) -> Change {
    let (config, placement) = (cluster.newest().0, cluster.placement());
    let moves = moves.iter().map(|(shard, group)| (ShardId(*shard), GroupId(*group))).collect();
    Change::Arrange { made_from: config.place(), placement: placement.version, moves }
}

fn counts(cluster: &Cluster) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for assignment in &cluster.newest().0.shards {
        *counts.entry(assignment.owner.map_or(0, |group| group.0)).or_default() += 1;
    }
    counts
}

#[test]
fn a_weight_moves_shards_at_once_and_is_kept_by_later_joins_and_leaves() {
    let mut cluster = Cluster::of(12);
    changed(cluster.change(join([101, 102, 103])));
    let (config, moves) = changed(cluster.change(weigh(103, 200)));
    assert_eq!((config, moves.len()), (2, 2));
    assert_eq!(counts(&cluster), [(101, 3), (102, 3), (103, 6)].into());
    assert_eq!(changed(cluster.change(weigh(103, 200))), (2, vec![]), "twice is harmless");
    assert_eq!(changed(cluster.change(weigh(101, 0))).1.len(), 3, "drained");
    assert_eq!(counts(&cluster), [(102, 4), (103, 8)].into());
    changed(cluster.change(join([104])));
    assert_eq!(counts(&cluster), [(102, 3), (103, 6), (104, 3)].into(), "a drained group gets none");
    changed(cluster.change(leave([103], false)));
    assert_eq!(
        cluster.placement().weights,
        [(GroupId(101), 0)].into(),
        "a group that leaves takes its weight along"
    );
    changed(cluster.change(join([103])));
    assert_eq!(counts(&cluster), [(102, 4), (103, 4), (104, 4)].into());
}

#[test]
fn a_pinned_shard_goes_to_its_group_and_stays_until_it_is_unpinned_or_the_group_leaves() {
    let mut cluster = Cluster::of(8);
    changed(cluster.change(join([101, 102])));
    let at_101 = |cluster: &Cluster, shard| cluster.newest().0.owner(ShardId(shard)) == Some(GroupId(101));
    assert!(at_101(&cluster, 0) && !at_101(&cluster, 7));
    let (config, moves) = changed(cluster.change(pin(7, 101)));
    let moved = Move { shard: ShardId(7), from: Some(GroupId(102)), to: Some(GroupId(101)) };
    assert_eq!((config, moves), (2, vec![moved]));
    assert_eq!(changed(cluster.change(pin(7, 101))), (2, vec![]), "twice is harmless");
    // A pin where the shard is already makes no configuration.
    assert_eq!(changed(cluster.change(pin(6, 102))), (2, vec![]));
    assert_eq!(cluster.placement().pins, [(ShardId(6), GroupId(102)), (ShardId(7), GroupId(101))].into());
    changed(cluster.change(join([103, 104, 105, 106])));
    assert!(at_101(&cluster, 7), "{:?}", cluster.newest().0);
    let pinned = CtrlRefusal::Pinned { shard: ShardId(7), group: GroupId(101) };
    assert_eq!(cluster.change(give(7, 102)), Err(pinned.clone()));
    let planned = plan(&cluster, &[(7, 102)]);
    assert_eq!(cluster.change(planned), Err(pinned));
    assert_eq!(changed(cluster.change(unpin(7))).1, vec![]);
    assert_eq!(changed(cluster.change(unpin(7))).1, vec![], "twice is harmless");
    assert_eq!(changed(cluster.change(give(7, 102))).1.len(), 1);
    changed(cluster.change(pin(7, 101)));
    changed(cluster.change(leave([101], false)));
    assert_eq!(cluster.placement().pins, [(ShardId(6), GroupId(102))].into());
    assert_eq!(counts(&cluster).len(), 5);
}

#[test]
fn wishes_that_nobody_can_fulfil_are_refused_by_name() {
    let mut cluster = Cluster::of(4);
    let refused = |cluster: &mut Cluster, change: Change| {
        let before = (cluster.newest(), cluster.placement());
        let refusal = cluster.change(change).expect_err("it cannot be done");
        assert_eq!((cluster.newest(), cluster.placement()), before, "{refusal}");
        refusal
    };
    let unknown = |group| CtrlRefusal::UnknownGroup(GroupId(group));
    assert_eq!(refused(&mut cluster, weigh(101, 0)), unknown(101), "there are no groups");
    assert_eq!(refused(&mut cluster, pin(0, 101)), unknown(101));
    changed(cluster.change(join([101, 102])));
    changed(cluster.change(leave([102], false)));
    assert_eq!(refused(&mut cluster, weigh(102, 50)), unknown(102), "it left");
    assert_eq!(refused(&mut cluster, pin(0, 102)), unknown(102));
    let no_shard = CtrlRefusal::UnknownShard { shard: ShardId(4), last: ShardId(3) };
    let wrong = plan(&cluster, &[(4, 101)]);
    for change in [pin(4, 101), unpin(4), wrong] {
        assert_eq!(refused(&mut cluster, change), no_shard);
    }
    assert_eq!(refused(&mut cluster, weigh(101, 0)), CtrlRefusal::NothingWeighs);
    changed(cluster.change(join([102])));
    changed(cluster.change(pin(2, 102)));
    let has_pins = CtrlRefusal::HasPins { group: GroupId(102), count: 1, first: ShardId(2) };
    assert_eq!(refused(&mut cluster, weigh(102, 0)), has_pins);
    changed(cluster.change(weigh(101, 0)));
    let to_drained = plan(&cluster, &[(0, 101)]);
    for change in [pin(0, 101), to_drained] {
        assert_eq!(refused(&mut cluster, change), CtrlRefusal::Drained(GroupId(101)));
    }
    assert_eq!(refused(&mut cluster, leave([102], false)), CtrlRefusal::NothingWeighs);
    let nowhere = plan(&cluster, &[(0, 109)]);
    assert_eq!(refused(&mut cluster, nowhere), unknown(109));
    // By force, all may leave, and nothing of them is kept.
    changed(cluster.change(leave([101, 102], true)));
    let Placement { weights, pins, .. } = cluster.placement();
    assert!(weights.is_empty() && pins.is_empty());
    changed(cluster.change(join([101])));
    assert_eq!(counts(&cluster), [(101, 4)].into());
}

#[test]
fn a_plan_is_refused_if_anything_that_it_was_made_from_has_changed() {
    let mut cluster = Cluster::of(8);
    changed(cluster.change(join([101, 102])));
    let (mine, yours) = (plan(&cluster, &[(0, 102), (1, 102)]), plan(&cluster, &[(0, 102)]));
    assert_eq!(cluster.query(Query::Plan(mine.clone())), cluster.change(mine.clone()));
    assert_eq!(counts(&cluster), [(101, 2), (102, 6)].into(), "one configuration for both moves");
    let outdated = |made_from, newest| {
        Err(CtrlRefusal::Outdated { made_from: ConfigNum(made_from), newest: ConfigNum(newest) })
    };
    assert_eq!(cluster.change(yours), outdated(1, 2), "another operator was faster");
    assert_eq!(cluster.change(mine), outdated(1, 2));
    // A pin that moves nothing makes no configuration, and a plan must still not pass it over.
    let late = plan(&cluster, &[(3, 102)]);
    changed(cluster.change(pin(2, 101)));
    assert_eq!(cluster.change(late), outdated(2, 2));
    let again = plan(&cluster, &[(0, 102)]);
    assert_eq!(changed(cluster.change(again)), (2, vec![]), "it is there already");
}

/// Rule 143.
#[test]
fn shards_that_are_declared_lost_keep_their_owners() {
    let mut cluster = Cluster::of(4);
    let lost = |cluster: &Cluster, shards: &[u32]| {
        let (shards, made_from) = (shards.iter().copied().map(ShardId).collect(), cluster.newest().0.place());
        Change::DeclareLost { shards, made_from }
    };
    let unowned = lost(&cluster, &[0]);
    assert_eq!(cluster.change(unowned), Err(CtrlRefusal::Unowned(ShardId(0))));
    changed(cluster.change(join([101, 102])));
    let early = lost(&cluster, &[0]);
    changed(cluster.change(leave([102], false)));
    let outdated = CtrlRefusal::Outdated { made_from: ConfigNum(1), newest: ConfigNum(2) };
    assert_eq!(cluster.change(early), Err(outdated), "its owner may be another one now");
    let (nothing, beyond) = (lost(&cluster, &[]), lost(&cluster, &[3, 4]));
    assert_eq!(cluster.change(nothing), Err(CtrlRefusal::NothingNamed));
    let unknown = CtrlRefusal::UnknownShard { shard: ShardId(4), last: ShardId(3) };
    assert_eq!(cluster.change(beyond), Err(unknown));
    let before = cluster.newest().0;
    let declared = lost(&cluster, &[1, 3]);
    assert_eq!(changed(cluster.change(declared)), (3, vec![]));
    let after = cluster.newest().0;
    assert_eq!(after.lost, [ShardId(1), ShardId(3)].into());
    assert_eq!((after.before, after.group_ids()), (before.digest(), before.group_ids()));
    assert!(before.shards.iter().zip(&after.shards).all(|(old, new)| old.owner == new.owner));
    changed(cluster.change(join([103])));
    assert!(cluster.newest().0.lost.is_empty(), "the next configuration begins nothing anew");
}

/// Rule 145.
#[test]
fn a_limit_of_moves_makes_no_configuration() {
    let mut cluster = Cluster::of(4);
    let limited = |cluster: &mut Cluster, mib| {
        assert_eq!(changed(cluster.change(Change::MoveRate { mib })), (0, vec![]));
        match cluster.query(Query::History { after: None }) {
            Ok(CtrlReply::Configs(news)) => (news.move_rate, cluster.placement().version),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(limited(&mut cluster, Some(20)), (Some(20), 1));
    assert_eq!(limited(&mut cluster, Some(20)), (Some(20), 1), "twice is harmless");
    assert_eq!(limited(&mut cluster, None), (None, 2));
    let check = |mib| crate::change::check(&Change::MoveRate { mib });
    assert_eq!(check(Some(0)), Err(CtrlRefusal::InvalidRate { mib: 0, limit: 100_000 }));
    assert!(check(Some(100_001)).is_err() && check(Some(1)).is_ok() && check(None).is_ok());
}
