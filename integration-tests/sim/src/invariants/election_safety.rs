//! Election safety (Figure 3): at most one leader in a term.

use std::collections::BTreeMap;

use raft::rsm::Role;
use raft::types::Term;

use super::{Invariant, Turn};
use crate::Name;

#[derive(Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<(Name, Term), Name>,
}

impl Invariant for ElectionSafety {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        if turn.status.role != Role::Leader {
            return Ok(());
        }
        let term = turn.status.term;
        let place = (turn.seen.group.clone(), term);
        let leader = self.leaders.entry(place).or_insert_with(|| turn.seen.name.clone());
        if *leader != turn.seen.name {
            return Err(format!("election safety: {leader} and {} both lead term {term}", turn.seen.name));
        }
        Ok(())
    }
}
