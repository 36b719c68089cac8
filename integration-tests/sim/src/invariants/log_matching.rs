//! Log matching (Figure 3): entries of the same index and term have the same content and the same
//! predecessor. Each entry is checked when it is saved, against every other that ever had its id.

use std::collections::BTreeMap;

use raft::types::{EntryId, Term};

use super::{Invariant, Turn};
use crate::Name;

#[derive(Default)]
pub(super) struct LogMatching {
    entries: BTreeMap<(Name, EntryId), (Term, u64)>,
}

impl Invariant for LogMatching {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        for (id, before, payload) in turn.fresh {
            let place = (turn.seen.group.clone(), *id);
            let known = self.entries.entry(place).or_insert((*before, *payload));
            if *known != (*before, *payload) {
                return Err(format!(
                    "log matching: {} saved entry {} of term {} with another content, or after another \
                     entry, than others did",
                    turn.seen.name, id.index.0, id.term.0
                ));
            }
        }
        Ok(())
    }
}
