//! A server whose table is marked bad knows it, also after a restart, and does not lead
//! (correctness rule 69).

use raft::rsm::Role;

use super::{Invariant, Turn};

pub(super) struct BadTables;

impl Invariant for BadTables {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        let Turn { seen, status, .. } = turn;
        // The mark is made after the replica knows, and removed before the replica hears of that.
        if seen.probe.table.is_bad() && (!status.table_bad || status.role == Role::Leader) {
            return Err(format!(
                "{} has a table that is marked bad, is {:?}, and {} that its table is bad",
                seen.name,
                status.role,
                if status.table_bad { "knows" } else { "does not know" }
            ));
        }
        Ok(())
    }
}
