//! Leader completeness (Figure 3): a leader has every entry that was committed in an earlier term.
//! What some replica applied was committed; a new leader's log, as its disk holds it, must have it.

use std::collections::{BTreeMap, BTreeSet};

use raft::rsm::Role;
use raft::types::{EntryId, Term};

use super::{Invariant, Turn};
use crate::Name;

#[derive(Default)]
pub(super) struct LeaderCompleteness {
    committed: BTreeMap<Name, EntryId>,
    checked: BTreeSet<(Name, Term)>,
}

impl Invariant for LeaderCompleteness {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        let group = turn.seen.group.clone();
        let committed = self.committed.entry(group.clone()).or_default();
        if turn.status.role == Role::Leader
            && committed.term < turn.status.term
            && self.checked.insert((group, turn.status.term))
        {
            let kept = committed.index < turn.journal.marker.index
                || turn.journal.term(committed.index) == Some(committed.term);
            if !kept {
                return Err(format!(
                    "leader completeness: {} leads term {} without entry {} of term {}, which was committed",
                    turn.seen.name, turn.status.term, committed.index.0, committed.term.0
                ));
            }
        }
        let applied = turn.status.applied.id;
        if applied.index > committed.index {
            *committed = applied;
        }
        Ok(())
    }
}
