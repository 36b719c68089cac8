//! State-machine safety (Figure 3; correctness rule 21): replicas that applied up to the same index
//! applied the same, down to the hash over their rows.

use std::collections::BTreeMap;

use raft::storage::Applied;
use raft::types::Index;

use super::{Invariant, Turn};
use crate::sim::Name;

#[derive(Default)]
pub(super) struct StateMachineSafety {
    applied: BTreeMap<(Name, Index), (Applied, Name)>,
}

impl Invariant for StateMachineSafety {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        let applied = turn.status.applied;
        let place = (turn.seen.group.clone(), applied.id.index);
        let (known, who) = self.applied.entry(place).or_insert((applied, turn.seen.name.clone()));
        if *known != applied {
            return Err(format!(
                "state-machine safety: {who} applied {known:?}, {} applied {applied:?}",
                turn.seen.name
            ));
        }
        Ok(())
    }
}
