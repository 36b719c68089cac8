//! A replicated state machine, and the rows that its commands see.

use base::codec::{self, Denied};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::storage::Read;
use crate::types::EntryId;

/// A command as an entry stores it, with room for later fields of all commands.
pub fn encode_command<C: Serialize>(command: &C) -> Bytes {
    codec::encode(&(command, Denied::NONE))
}

/// The inverse of [`encode_command`].
///
/// # Errors
/// [`codec::DecodeError`], which names an unknown field.
pub fn decode_command<C: DeserializeOwned>(bytes: &[u8]) -> Result<C, codec::DecodeError> {
    codec::decode::<(C, Denied)>(bytes, bytes.len()).map(|(command, _)| command)
}

/// A deterministic state machine whose state is rows (correctness rules 20 to 22).
pub trait StateMachine: Send + 'static {
    /// What changes the state. Goes through the log.
    type Command: Serialize + DeserializeOwned + Send + 'static;
    /// The answer to the command's sender, refusals included: `apply` cannot fail.
    type Output: Send + 'static;
    /// A question that changes nothing. Never leaves the process.
    type Query: Send + 'static;
    /// Its answer.
    type Answer: Send + 'static;

    /// Rebuilds the cache of the rows: at start, and after a snapshot replaced them all.
    fn load(&mut self, rows: &dyn Read);

    /// Applies one command. Deterministic and total: no clock, no randomness, no local settings.
    fn apply(&mut self, rows: &mut dyn Rows, id: EntryId, command: Self::Command) -> Self::Output;

    /// Answers from the rows as they are.
    fn query(&self, rows: &dyn Read, query: Self::Query) -> Self::Answer;
}

/// The rows as a command sees them: everything applied before it, and its own changes. All changes
/// of one command, and the applied id, reach the table in one atomic batch.
pub trait Rows: Read {
    /// Sets a row.
    fn put(&mut self, key: Bytes, value: Bytes);
    /// Removes a row.
    fn delete(&mut self, key: &[u8]);
    /// Removes every row with `start <= key < end`.
    fn delete_range(&mut self, start: &[u8], end: &[u8]);
}
