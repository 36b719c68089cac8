//! Nothing goes backwards: commit, applied and term within one life; and after a crash a replica has
//! at least what its table had made durable.

use std::collections::BTreeMap;

use raft::types::{Index, Term};

use super::{Invariant, Turn};
use crate::Name;

#[derive(Default)]
pub(super) struct Progress {
    last: BTreeMap<Name, (u64, Index, Index, Term)>,
}

impl Invariant for Progress {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        let Turn { seen, status, .. } = turn;
        let now = (seen.life, status.commit, status.applied.id.index, status.term);
        let last = self.last.insert(seen.name.clone(), now).filter(|last| last.0 == seen.life);
        let floor = last.unwrap_or((seen.life, Index(0), seen.floor.index, Term(0)));
        if now.1 < floor.1 || now.2 < floor.2 || now.3 < floor.3 {
            return Err(format!(
                "{} went backwards: its commit index, applied index and term were {}, {} and {}, and are {}, {} \
                 and {}",
                seen.name, floor.1, floor.2, floor.3, now.1, now.2, now.3
            ));
        }
        Ok(())
    }
}
