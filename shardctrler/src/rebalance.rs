//! Who gets which shard after groups joined or left: pure, deterministic, and with the fewest moves
//! that reach max - min <= 1 (correctness rule 42).
//!
//! Each shard's rows are held by one group: its owner or, while it has none, the group that had it
//! last. A move is a shard that goes to another group; a shard that never had an owner moves for
//! free. With n shards and g groups every group is due n / g shards, and n mod g groups are due one
//! more. A group keeps its shards up to its due, so the fewest moves come from giving the extra
//! shards to the groups that hold the most. It follows that nothing moves among balanced groups
//! that stay: a new group is filled from groups above their due, and the shards of a leaving group
//! go to groups below it.
//!
//! Ties are broken by ids: of equally full groups the smaller ids get the extra shards; a group
//! gives away its highest shards; shards without an owner go, in order, to the groups in order.
//!
//! Left out on purpose: sizes and loads of shards, and which machines groups share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use clerk::api::GroupId;
use clerk::api::config::Assignment;

/// The owner of each shard once `groups` share them all; nobody if there are no groups.
pub fn rebalance(shards: &[Assignment], groups: &BTreeSet<GroupId>) -> Vec<Option<GroupId>> {
    let mut owners = vec![None; shards.len()];
    if groups.is_empty() {
        return owners;
    }
    let mut held: BTreeMap<GroupId, Vec<usize>> = groups.iter().map(|group| (*group, Vec::new())).collect();
    let mut homeless = Vec::new();
    for (shard, assignment) in shards.iter().enumerate() {
        match holder(*assignment).and_then(|group| held.get_mut(&group)) {
            Some(holds) => holds.push(shard),
            None => homeless.push(shard),
        }
    }
    let due = dues(&held, shards.len());
    for (group, holds) in &mut held {
        let kept = if base::mutant!("deal-anew") { 0 } else { due[group].min(holds.len()) };
        homeless.extend(holds.drain(kept..));
    }
    homeless.sort_unstable();
    base::mutant!("deal-by-clock", homeless.sort_by_key(|it| *it as u64 ^ base::clock::now().as_nanos()));
    let mut homeless = homeless.into_iter();
    for (group, mut holds) in held {
        let missing = due[&group] - holds.len();
        holds.extend(homeless.by_ref().take(missing));
        for shard in holds {
            owners[shard] = Some(group);
        }
    }
    owners
}

/// The group where a shard's rows are.
pub fn holder(assignment: Assignment) -> Option<GroupId> {
    assignment.owner.or(assignment.last_owner)
}

/// How many shards each group is due: the extra ones go to the groups that hold the most.
fn dues(held: &BTreeMap<GroupId, Vec<usize>>, shards: usize) -> BTreeMap<GroupId, usize> {
    let (even, extra) = (shards / held.len(), shards % held.len());
    let extra = if base::mutant!("extra-for-all") { held.len() } else { extra };
    let mut fullest = held.iter().map(|(group, holds)| (Reverse(holds.len()), *group)).collect::<Vec<_>>();
    fullest.sort_unstable();
    let due = |(position, (_, group)): (usize, (_, GroupId))| (group, even + usize::from(position < extra));
    fullest.into_iter().enumerate().map(due).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use clerk::api::GroupId;
    use clerk::api::config::Assignment;
    use proptest::prelude::*;

    use super::{holder, rebalance};

    fn groups(ids: impl IntoIterator<Item = u64>) -> BTreeSet<GroupId> {
        ids.into_iter().map(GroupId).collect()
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

    /// The fewest moves of all balanced assignments, by trying every assignment.
    fn fewest_moves(shards: &[Assignment], groups: &BTreeSet<GroupId>) -> usize {
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
            .filter(|owners| is_balanced(owners, groups))
            .map(|owners| moves(shards, &owners))
            .min()
            .expect("some assignment is balanced")
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
                    rebalance(&present, &groups)
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
                let owners = rebalance(present, groups);
                if groups.is_empty() {
                    assert!(owners.iter().all(Option::is_none));
                } else {
                    assert!(is_balanced(&owners, groups), "{owners:?}");
                    let fewest = fewest_moves(present, groups);
                    assert_eq!(moves(present, &owners), fewest, "{present:?} -> {owners:?}");
                }
            });
        }

        #[test]
        fn among_balanced_groups_that_stay_nothing_moves(count in 1_usize..=64, steps in steps(12, 64)) {
            let steps = steps.into_iter().filter(|step| !matches!(step, Step::Move(..))).collect::<Vec<_>>();
            run(count, &steps, |present, before, after| {
                let staying = before & after;
                for (old, new) in present.iter().zip(rebalance(present, after)) {
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
            let owners = rebalance(&shards, &groups(1..=joined));
            assert_eq!(moves(&shards, &owners), moved);
            shards = succeed(&shards, &owners);
        }
    }

    #[test]
    fn parked_shards_go_back_to_their_last_holder_as_far_as_balance_allows() {
        let shards = vec![Assignment { owner: None, last_owner: Some(GroupId(1)) }; 10];
        assert_eq!(moves(&shards, &rebalance(&shards, &groups([1]))), 0);
        assert_eq!(moves(&shards, &rebalance(&shards, &groups([1, 2]))), 5);
        assert_eq!(moves(&shards, &rebalance(&shards, &groups([2]))), 10);
    }

    #[test]
    fn more_groups_than_shards_leave_some_groups_without() {
        let owners = rebalance(&[Assignment::default(); 2], &groups(1..=5));
        assert_eq!(owners, [Some(GroupId(1)), Some(GroupId(2))]);
    }
}
