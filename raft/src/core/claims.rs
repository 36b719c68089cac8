//! The table hashes that the servers of a group report, as their leader receives them (correctness
//! rule 69).
//!
//! A hash is chained over every change that was ever made to a table, so a table that once differed
//! differs at every later position too: the next report makes up for a lost one. One invariant: a
//! server is in a minority only at a position where a majority of all voters has one and the same
//! hash.
//!
//! Left out on purpose: who is right without a majority. Nobody can tell.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Index, Membership, NodeId};

/// The number of positions that are remembered, and of hashes that a server keeps of its own table.
pub(super) const KEPT_MAX: usize = 256;

/// Claims by position.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_index: BTreeMap<Index, BTreeMap<NodeId, u64>>,
    /// The position at which servers differ and there is no majority, and the ticks since that
    /// began.
    split: Option<(Index, u32)>,
}

/// How the tables of a group compare at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// No majority has reported the same hash yet, or all reports agree.
    Open,
    /// A majority has this hash, and these have others.
    Minority(u64, Vec<NodeId>),
}

impl Claims {
    /// `node` reports that its table had `hash` after the entry at `index`. Returns how the tables
    /// compare there.
    pub(super) fn note(&mut self, index: Index, node: NodeId, hash: u64, members: &Membership) -> Judgement {
        let told = self.by_index.entry(index).or_default();
        told.insert(node, hash);
        let judgement = judge(told, members);
        let differ = told.values().collect::<BTreeSet<_>>().len() > 1;
        match (&judgement, self.split) {
            (Judgement::Minority(..), _) => self.split = None,
            (Judgement::Open, None) if differ => self.split = Some((index, 0)),
            // All reports agree again at a later position.
            (Judgement::Open, Some((at, _))) if index > at && told.len() > 1 && !differ => self.split = None,
            (Judgement::Open, _) => {}
        }
        if self.by_index.len() > KEPT_MAX {
            self.by_index.pop_first();
        }
        judgement
    }

    /// A tick passed. Returns, once, a position at which servers have differed for `patience` ticks
    /// without a majority.
    pub(super) fn tick(&mut self, patience: u32) -> Option<Index> {
        let (at, ticks) = self.split.as_mut()?;
        *ticks = ticks.saturating_add(1);
        (*ticks == patience).then_some(*at)
    }
}

fn judge(told: &BTreeMap<NodeId, u64>, members: &Membership) -> Judgement {
    let held_by_most = |hash: &&u64| members.majority(|voter| told.get(&voter) == Some(*hash));
    let Some(hash) = told.values().find(held_by_most).copied() else { return Judgement::Open };
    let minority: Vec<NodeId> = told.iter().filter(|(_, other)| **other != hash).map(|(id, _)| *id).collect();
    if minority.is_empty() { Judgement::Open } else { Judgement::Minority(hash, minority) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Claims, Judgement, KEPT_MAX};
    use crate::types::{Index, Membership, NodeId};

    fn note_all(size: u64, told: &[(u64, u64)]) -> Judgement {
        let members = Membership::of((1..=size).map(NodeId));
        let mut claims = Claims::default();
        let notes = told.iter().map(|(id, hash)| claims.note(Index(256), NodeId(*id), *hash, &members));
        notes.last().unwrap_or(Judgement::Open)
    }

    #[test]
    fn only_a_majority_of_all_voters_says_who_is_wrong() {
        let minority =
            |hash, ids: &[u64]| Judgement::Minority(hash, ids.iter().copied().map(NodeId).collect());
        assert_eq!(note_all(3, &[(1, 7), (2, 7), (3, 8)]), minority(7, &[3]));
        assert_eq!(note_all(3, &[(1, 8), (2, 7), (3, 7)]), minority(7, &[1]));
        assert_eq!(note_all(3, &[(1, 7), (2, 8)]), Judgement::Open);
        assert_eq!(note_all(2, &[(1, 7), (2, 8)]), Judgement::Open);
        assert_eq!(note_all(3, &[(1, 7), (2, 8), (3, 9)]), Judgement::Open);
        assert_eq!(note_all(5, &[(1, 7), (2, 7), (3, 8), (4, 9)]), Judgement::Open);
        assert_eq!(note_all(5, &[(1, 7), (2, 7), (3, 8), (4, 9), (5, 7)]), minority(7, &[3, 4]));
        assert_eq!(note_all(3, &[(1, 7), (2, 7), (3, 7)]), Judgement::Open);
        // A server that is not a voter is judged, and judges nobody.
        assert_eq!(note_all(2, &[(1, 7), (9, 8), (8, 8)]), Judgement::Open);
    }

    #[test]
    fn a_split_that_lasts_is_reported_once_and_one_that_is_decided_never() {
        let members = Membership::of([1, 2, 3].map(NodeId));
        let mut claims = Claims::default();
        claims.note(Index(256), NodeId(1), 7, &members);
        claims.note(Index(256), NodeId(2), 8, &members);
        let told: Vec<Index> = (0..100).filter_map(|_| claims.tick(10)).collect();
        assert_eq!(told, [Index(256)]);
        claims.note(Index(512), NodeId(1), 17, &members);
        claims.note(Index(512), NodeId(2), 18, &members);
        claims.note(Index(512), NodeId(3), 17, &members);
        assert_eq!((0..100).find_map(|_| claims.tick(10)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let members = Membership::of([1, 2, 3].map(NodeId));
        let mut claims = Claims::default();
        for index in 0..10_000 {
            claims.note(Index(index), NodeId(1), 7, &members);
        }
        assert_eq!(claims.by_index.len(), KEPT_MAX);
    }

    proptest! {
        #[test]
        fn a_server_that_is_called_wrong_is_in_a_true_minority(hashes in proptest::collection::vec(0_u64..3, 1..8)) {
            let told: Vec<(u64, u64)> = (1..).zip(hashes.iter().copied()).collect();
            if let Judgement::Minority(hash, wrong) = note_all(hashes.len() as u64, &told) {
                let right = hashes.iter().filter(|other| **other == hash).count();
                prop_assert!(right * 2 > hashes.len() && right + wrong.len() == hashes.len());
            }
        }
    }
}
