//! Who counts, and what a majority has. Pure, and the only code that knows voters: a change of
//! membership would go here.

use std::collections::BTreeMap;

use crate::types::{Membership, NodeId};

/// The state of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A majority granted.
    Won,
    /// A majority can no longer grant.
    Lost,
    /// Open.
    Open,
}

impl Membership {
    /// Whether `node` counts (correctness rule 3).
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node)
    }

    /// The greatest value that a majority of voters has reached or passed.
    pub fn reached<T: Ord + Copy>(&self, value_of: impl Fn(NodeId) -> T) -> Option<T> {
        let mut values: Vec<T> = self.voters.iter().map(|voter| value_of(*voter)).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        base::mutant!("half-is-enough", return values.get((values.len() / 2).saturating_sub(1)).copied());
        values.get(self.voters.len() / 2).copied()
    }

    /// Whether a majority of voters satisfies `holds`.
    pub fn majority(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        self.reached(holds) == Some(true)
    }

    /// The state of an election with these answers.
    pub fn tally(&self, answers: &BTreeMap<NodeId, bool>) -> Tally {
        if self.majority(|voter| answers.get(&voter) == Some(&true)) {
            Tally::Won
        } else if self.majority(|voter| answers.get(&voter) != Some(&false)) {
            Tally::Open
        } else {
            Tally::Lost
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Tally;
    use crate::types::{Membership, NodeId};

    proptest! {
        #[test]
        fn reached_is_what_counting_says(values in proptest::collection::vec(0_u64..10, 1..8)) {
            let members = Membership::of((0..values.len() as u64).map(NodeId));
            let reached = members.reached(|node| values[node.0 as usize]).unwrap();
            let at_least = |bar: u64| values.iter().filter(|value| **value >= bar).count() * 2 > values.len();
            prop_assert!(at_least(reached));
            prop_assert!(!at_least(reached + 1));
        }

        #[test]
        fn an_election_is_never_both_won_and_open_to_others(
            answers in proptest::collection::vec(proptest::option::of(any::<bool>()), 1..8)
        ) {
            let members = Membership::of((0..answers.len() as u64).map(NodeId));
            let given = answers.iter().enumerate().filter_map(|(i, a)| a.map(|a| (NodeId(i as u64), a))).collect();
            let yes = answers.iter().filter(|a| **a == Some(true)).count();
            let no = answers.iter().filter(|a| **a == Some(false)).count();
            let expected = if yes * 2 > answers.len() { Tally::Won }
                else if (answers.len() - no) * 2 > answers.len() { Tally::Open } else { Tally::Lost };
            prop_assert_eq!(members.tally(&given), expected);
        }
    }
}
