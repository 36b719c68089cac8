//! Who gets which shard after groups joined or left, or their weights changed: pure, deterministic,
//! and with the fewest moves that reach a balance (correctness rules 42, 140).
//!
//! Each shard's rows are held by one group: its owner or, while it has none, the group that had it
//! last. A move is a shard that goes to another group; a shard that never had an owner moves for
//! free. A group's share of the n shards is in proportion to its weight: with equal weights n / g. A
//! group is due its share rounded down, and those whose share is no whole number may be due one more,
//! as many as it takes. A group keeps its shards up to its due, so the fewest moves come from giving
//! the extra shards to the groups that hold the most beyond their share. It follows that nothing
//! moves among balanced groups that stay: a new group is filled from groups above their due, and the
//! shards of a leaving group go to groups below it.
//!
//! A pinned shard is at its group, whatever is due. A group with more pinned shards than its share
//! keeps these alone, and the others share the rest.
//!
//! Ties are broken by ids: of equally full groups the smaller ids get the extra shards; a group
//! gives away its highest shards; shards without an owner go, in order, to the groups in order.
//!
//! Left out on purpose: sizes and loads of shards (`clerk balance` plans by those), and which machines
//! groups share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use clerk::api::config::Assignment;
use clerk::api::placement::Placement;
use clerk::api::{GroupId, ShardId};

/// The shards that a group holds.
#[derive(Default)]
struct Held {
    pinned: Vec<usize>,
    free: Vec<usize>,
}

impl Held {
    fn count(&self) -> usize {
        self.pinned.len() + self.free.len()
    }
}

/// The owner of each shard once `groups` share them all; nobody if there are no groups.
pub fn rebalance(
    shards: &[Assignment],
    groups: &BTreeSet<GroupId>,
    placement: &Placement,
) -> Vec<Option<GroupId>> {
    let mut owners = vec![None; shards.len()];
    if groups.is_empty() {
        return owners;
    }
    let mut held: BTreeMap<GroupId, Held> = groups.iter().map(|group| (*group, Held::default())).collect();
    let mut homeless = Vec::new();
    for ((number, shard), assignment) in (0..).map(ShardId).enumerate().zip(shards) {
        let pin = placement.pin(shard).filter(|_| !base::mutant!("pins-ignored"));
        if let Some(holds) = pin.and_then(|group| held.get_mut(&group)) {
            holds.pinned.push(number);
        } else if let Some(holds) = holder(*assignment).and_then(|group| held.get_mut(&group)) {
            holds.free.push(number);
        } else {
            homeless.push(number);
        }
    }
    let due = dues(&held, shards.len(), placement);
    for (group, holds) in &mut held {
        let room = due[group].saturating_sub(holds.pinned.len());
        let kept = if base::mutant!("deal-anew") { 0 } else { room.min(holds.free.len()) };
        homeless.extend(holds.free.drain(kept..));
    }
    homeless.sort_unstable();
    base::mutant!("deal-by-clock", homeless.sort_by_key(|it| *it as u64 ^ base::clock::now().as_nanos()));
    let mut homeless = homeless.into_iter();
    for (group, holds) in held {
        let missing = due[&group].saturating_sub(holds.count());
        let gets = homeless.by_ref().take(missing);
        for shard in holds.pinned.into_iter().chain(holds.free).chain(gets) {
            owners[shard] = Some(group);
        }
    }
    owners
}

/// The group where a shard's rows are.
pub fn holder(assignment: Assignment) -> Option<GroupId> {
    assignment.owner.or(assignment.last_owner)
}

/// How many shards each group is due.
fn dues(held: &BTreeMap<GroupId, Held>, shards: usize, placement: &Placement) -> BTreeMap<GroupId, usize> {
    let mut due = BTreeMap::new();
    let weigh = |group: &GroupId| if base::mutant!("weights-ignored") { 1 } else { placement.weight(*group) };
    let mut open: BTreeMap<GroupId, u64> = held.keys().map(|group| (*group, weigh(group).into())).collect();
    // No change leaves it so (`Present::decide`), and a sum of 0 would divide by it.
    if open.values().all(|weight| *weight == 0) {
        open.values_mut().for_each(|weight| *weight = 1);
    }
    let mut left = shards as u64;
    let (total, floors) = loop {
        let total: u64 = open.values().sum();
        let pinned = |group: &GroupId| held[group].pinned.len() as u64;
        let beyond = |(group, weight): &(&GroupId, &u64)| pinned(group) * total > left * **weight;
        let full: Vec<GroupId> = open.iter().filter(beyond).map(|(group, _)| *group).collect();
        if full.is_empty() {
            break (total, open.into_iter().map(|(group, weight)| (group, left * weight)));
        }
        for group in full {
            open.remove(&group);
            left -= pinned(&group);
            due.insert(group, held[&group].pinned.len());
        }
    };
    let mut extra = left;
    let mut fullest = Vec::new();
    for (group, share) in floors {
        let floor = share / total;
        extra -= floor;
        let beyond = held[&group].count() as i64 - floor as i64;
        fullest.push((share % total == 0, Reverse(beyond), group));
        due.insert(group, floor as usize);
    }
    fullest.sort_unstable();
    let extra = if base::mutant!("extra-for-all") { fullest.len() } else { extra as usize };
    for (_, _, group) in fullest.into_iter().take(extra) {
        due.entry(group).and_modify(|due| *due += 1);
    }
    due
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use clerk::api::config::Assignment;
    use clerk::api::placement::Placement;
    use clerk::api::{GroupId, ShardId};
    use proptest::prelude::*;

    use super::{holder, rebalance};

    fn groups(ids: impl IntoIterator<Item = u64>) -> BTreeSet<GroupId> {
        ids.into_iter().map(GroupId).collect()
    }

    /// The owners if these groups weigh the same.
    fn balanced(shards: &[Assignment], ids: impl IntoIterator<Item = u64>) -> Vec<Option<GroupId>> {
        rebalance(shards, &groups(ids), &Placement::default())
    }

    /// The shards after `owners` took over: as the configurations remember them.
    fn succeed(shards: &[Assignment], owners: &[Option<GroupId>]) -> Vec<Assignment> {
        let next = |(old, owner): (&Assignment, &Option<GroupId>)| Assignment {
            owner: *owner,
            last_owner: holder(*old),
        };
        shards.iter().zip(owners).map(next).collect()
    }

    fn moves(shards: &[Assignment], owners: &[Option<GroupId>]) -> usize {
        let moved = |(old, owner): &(&Assignment, &Option<GroupId>)| {
            holder(**old).is_some_and(|at| Some(at) != **owner)
        };
        shards.iter().zip(owners).filter(moved).count()
    }

    fn is_balanced(owners: &[Option<GroupId>], groups: &BTreeSet<GroupId>) -> bool {
        let mut counts: BTreeMap<GroupId, usize> = groups.iter().map(|group| (*group, 0)).collect();
        for owner in owners {
            match owner.and_then(|group| counts.get_mut(&group)) {
                Some(count) => *count += 1,
                None => return false,
            }
        }
        counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0) <= 1
    }

    /// The fewest moves of all assignments that are balanced, by trying every assignment.
    fn fewest_moves(
        shards: &[Assignment],
        groups: &BTreeSet<GroupId>,
        is_balanced: impl Fn(&[Option<GroupId>]) -> bool,
    ) -> usize {
        let ids = groups.iter().copied().collect::<Vec<_>>();
        let total = ids.len().pow(shards.len() as u32);
        let assignment = |mut number: usize| {
            (0..shards.len())
                .map(|_| {
                    let group = ids[number % ids.len()];
                    number /= ids.len();
                    Some(group)
                })
                .collect::<Vec<_>>()
        };
        (0..total)
            .map(assignment)
            .filter(|owners| is_balanced(owners))
            .map(|owners| moves(shards, &owners))
            .min()
            .expect("some assignment is balanced")
    }

    /// Each group's share of the shards, found without any arithmetic of whole numbers: as much as its
    /// pinned shards, or `level` for each unit of weight if that is more. The level is searched.
    fn shares(groups: &BTreeSet<GroupId>, shards: usize, placement: &Placement) -> BTreeMap<GroupId, f64> {
        let share = |group: &GroupId, level: f64| {
            let pinned = placement.pinned_to(*group).count() as f64;
            pinned.max(f64::from(placement.weight(*group)) * level)
        };
        let (mut low, mut high) = (0.0, shards as f64 + 1.0);
        for _ in 0..200 {
            let level = f64::midpoint(low, high);
            let total: f64 = groups.iter().map(|group| share(group, level)).sum();
            if total < shards as f64 { low = level } else { high = level }
        }
        groups.iter().map(|group| (*group, share(group, low))).collect()
    }

    /// Whether each group has its share, rounded up or down, and the pinned shards are where they
    /// should be.
    fn is_as_wished(owners: &[Option<GroupId>], groups: &BTreeSet<GroupId>, placement: &Placement) -> bool {
        let shares = shares(groups, owners.len(), placement);
        let count = |group: &GroupId| owners.iter().filter(|owner| **owner == Some(*group)).count();
        let fits = |(group, share): (&GroupId, &f64)| (count(group) as f64 - share).abs() < 1.0 - 1e-6;
        let pinned = |(shard, group): (&ShardId, &GroupId)| owners[shard.0 as usize] == Some(*group);
        owners.iter().all(Option::is_some) && shares.iter().all(fits) && placement.pins.iter().all(pinned)
    }

    /// Some weights, at least one of them above 0, and pins to groups that have one.
    fn placements(groups: u64, shards: u32) -> impl Strategy<Value = Placement> {
        let weight = prop_oneof![Just(0_u32), Just(50), Just(100), Just(150), 1_u32..=10_000];
        let weights = proptest::collection::vec(weight, groups as usize);
        let pins = proptest::collection::btree_map(0..shards, 1..=groups, 0..=shards as usize / 2);
        (weights, pins, 1..=groups).prop_map(|(weights, pins, heavy)| {
            let mut placement = Placement::default();
            for (group, weight) in (1..).zip(weights) {
                let weight = if group == heavy { weight.max(1) } else { weight };
                placement = placement.weighed(GroupId(group), weight);
            }
            let heavy = |(shard, group): (u32, u64)| {
                let drained = placement.weight(GroupId(group)) == 0;
                (!drained).then_some((ShardId(shard), GroupId(group)))
            };
            let pins = pins.into_iter().filter_map(heavy).collect();
            Placement { pins, ..placement }
        })
    }

    /// Shards that were dealt somehow.
    fn dealt(groups: u64, shards: usize) -> impl Strategy<Value = Vec<Assignment>> {
        let owner = proptest::option::weighted(0.8, 1..=groups);
        let shard = (owner.clone(), owner).prop_map(|(owner, last_owner)| Assignment {
            owner: owner.map(GroupId),
            last_owner: last_owner.map(GroupId),
        });
        proptest::collection::vec(shard, shards)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(u64),
        Leave(u64),
        Move(usize, u64),
    }

    fn steps(groups_max: u64, shards: usize) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1..=groups_max).prop_map(Step::Join),
            3 => (1..=groups_max).prop_map(Step::Leave),
            2 => (0..shards, 1..=groups_max).prop_map(|(shard, group)| Step::Move(shard, group)),
        ];
        proptest::collection::vec(step, 1..25)
    }

    /// Runs the steps and passes every rebalancing to `check`: shards before, groups before and
    /// after.
    fn run(
        shards: usize,
        steps: &[Step],
        mut check: impl FnMut(&[Assignment], &BTreeSet<GroupId>, &BTreeSet<GroupId>),
    ) {
        let mut present = vec![Assignment::default(); shards];
        let mut joined = BTreeSet::new();
        for step in steps {
            let mut groups = joined.clone();
            let owners = match step {
                Step::Move(shard, group) => {
                    if !joined.contains(&GroupId(*group)) {
                        continue;
                    }
                    let mut owners = present.iter().map(|assignment| assignment.owner).collect::<Vec<_>>();
                    owners[*shard] = Some(GroupId(*group));
                    owners
                }
                Step::Join(group) | Step::Leave(group) => {
                    let changed = match step {
                        Step::Join(_) => groups.insert(GroupId(*group)),
                        _ => groups.remove(&GroupId(*group)),
                    };
                    if !changed {
                        continue;
                    }
                    check(&present, &joined, &groups);
                    rebalance(&present, &groups, &Placement::default())
                }
            };
            present = succeed(&present, &owners);
            joined = groups;
        }
    }

    fn config() -> ProptestConfig {
        ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn no_assignment_is_balanced_with_fewer_moves(count in 1_usize..=6, steps in steps(4, 6)) {
            let steps = steps
                .into_iter()
                .filter(|step| !matches!(step, Step::Move(shard, _) if *shard >= count))
                .collect::<Vec<_>>();
            run(count, &steps, |present, _, groups| {
                let owners = rebalance(present, groups, &Placement::default());
                if groups.is_empty() {
                    assert!(owners.iter().all(Option::is_none));
                } else {
                    assert!(is_balanced(&owners, groups), "{owners:?}");
                    let fewest = fewest_moves(present, groups, |owners| is_balanced(owners, groups));
                    assert_eq!(moves(present, &owners), fewest, "{present:?} -> {owners:?}");
                }
            });
        }

        /// Rule 140.
        #[test]
        fn by_weights_and_pins_no_assignment_is_balanced_with_fewer_moves(
            shards in dealt(4, 6),
            joined in proptest::collection::btree_set(1_u64..=3, 1..=3),
            placement in placements(3, 6),
        ) {
            let groups = groups(joined);
            let placement = placement.of(&groups);
            prop_assume!(placement.weighs(&groups));
            let owners = rebalance(&shards, &groups, &placement);
            prop_assert!(is_as_wished(&owners, &groups, &placement), "{owners:?} {placement:?}");
            let fewest = fewest_moves(&shards, &groups, |owners| is_as_wished(owners, &groups, &placement));
            prop_assert_eq!(moves(&shards, &owners), fewest);
        }

        /// Rule 140.
        #[test]
        fn what_is_balanced_by_weights_stays_and_a_drained_group_ends_empty(
            shards in dealt(12, 200),
            joined in proptest::collection::btree_set(1_u64..=10, 1..=10),
            placement in placements(10, 200),
        ) {
            let groups = groups(joined);
            let placement = placement.of(&groups);
            prop_assume!(placement.weighs(&groups));
            let owners = rebalance(&shards, &groups, &placement);
            prop_assert!(is_as_wished(&owners, &groups, &placement), "{owners:?} {placement:?}");
            let drained = |group: &GroupId| placement.weight(*group) == 0;
            prop_assert!(owners.iter().flatten().all(|group| groups.contains(group) && !drained(group)));
            prop_assert_eq!(&rebalance(&shards, &groups, &placement), &owners, "equal inputs");
            let after = succeed(&shards, &owners);
            prop_assert_eq!(moves(&after, &rebalance(&after, &groups, &placement)), 0);
        }

        #[test]
        fn among_balanced_groups_that_stay_nothing_moves(count in 1_usize..=64, steps in steps(12, 64)) {
            let steps = steps.into_iter().filter(|step| !matches!(step, Step::Move(..))).collect::<Vec<_>>();
            run(count, &steps, |present, before, after| {
                let staying = before & after;
                for (old, new) in present.iter().zip(rebalance(present, after, &Placement::default())) {
                    let stays = |group: Option<GroupId>| group.filter(|id| staying.contains(id));
                    if let (Some(from), Some(to)) = (stays(old.owner), stays(new)) {
                        assert_eq!(from, to);
                    }
                }
            });
        }
    }

    #[test]
    fn a_second_group_takes_half_of_the_shards_and_a_third_one_a_third() {
        let mut shards = vec![Assignment::default(); 64];
        let expected = [(1, 0), (2, 32), (3, 21), (4, 16), (5, 12)];
        for (joined, moved) in expected {
            let owners = balanced(&shards, 1..=joined);
            assert_eq!(moves(&shards, &owners), moved);
            shards = succeed(&shards, &owners);
        }
    }

    #[test]
    fn parked_shards_go_back_to_their_last_holder_as_far_as_balance_allows() {
        let shards = vec![Assignment { owner: None, last_owner: Some(GroupId(1)) }; 10];
        assert_eq!(moves(&shards, &balanced(&shards, [1])), 0);
        assert_eq!(moves(&shards, &balanced(&shards, [1, 2])), 5);
        assert_eq!(moves(&shards, &balanced(&shards, [2])), 10);
    }

    /// Rule 140.
    #[test]
    fn a_group_of_twice_the_weight_gets_twice_the_shards_and_a_drained_one_gives_its_own_away() {
        let shards = vec![Assignment::default(); 60];
        let counts = |owners: &[Option<GroupId>]| {
            [1, 2, 3].map(|group| owners.iter().filter(|owner| **owner == Some(GroupId(group))).count())
        };
        let even = balanced(&shards, 1..=3);
        assert_eq!(counts(&even), [20, 20, 20]);
        let shards = succeed(&shards, &even);
        let heavy = rebalance(&shards, &groups(1..=3), &Placement::default().weighed(GroupId(3), 200));
        assert_eq!((counts(&heavy), moves(&shards, &heavy)), ([15, 15, 30], 10));
        let drained = rebalance(&shards, &groups(1..=3), &Placement::default().weighed(GroupId(1), 0));
        assert_eq!((counts(&drained), moves(&shards, &drained)), ([0, 30, 30], 20));
        // More pinned shards than a share: the group keeps these, and nothing else.
        let pins = (0..40).map(|shard| (ShardId(shard), GroupId(2))).collect();
        let pinned = rebalance(&shards, &groups(1..=3), &Placement { pins, ..Placement::default() });
        assert_eq!((counts(&pinned), moves(&shards, &pinned)), ([10, 40, 10], 30));
    }

    #[test]
    fn more_groups_than_shards_leave_some_groups_without() {
        let owners = balanced(&[Assignment::default(); 2], 1..=5);
        assert_eq!(owners, [Some(GroupId(1)), Some(GroupId(2))]);
    }
}
