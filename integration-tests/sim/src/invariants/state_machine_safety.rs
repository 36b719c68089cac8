//! State-machine safety (Figure 3; correctness rule 21): replicas that applied up to the same index
//! applied the same entries and have the same hash over their rows.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use raft::storage::Applied;
use raft::types::Index;

use super::{Invariant, Turn};
use crate::Name;

#[derive(Default)]
pub(super) struct StateMachineSafety {
    applied: BTreeMap<(Name, Index), (Applied, Name)>,
}

impl Invariant for StateMachineSafety {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        // A table that was damaged without its knowledge is a different case: it is found by rule
        // 69.
        if turn.seen.damaged.load(Ordering::Relaxed) {
            return Ok(());
        }
        let applied = turn.status.applied;
        let place = (turn.seen.group.clone(), applied.id.index);
        let (known, who) = self.applied.entry(place).or_insert((applied, turn.seen.name.clone()));
        let (here, there) = (applied.id, known.id);
        if here != there {
            return Err(format!(
                "state-machine safety: {who} applied entry {} of term {}, {} that of term {}",
                there.index.0, there.term.0, turn.seen.name, here.term.0
            ));
        }
        if *known != applied {
            return Err(format!(
                "state-machine safety: {who} and {} have other rows after entry {} of term {}",
                turn.seen.name, here.index.0, here.term.0
            ));
        }
        Ok(())
    }
}
