//! A stream of what a replica applies, to watch a state machine from outside: the labs' `applyCh`.
//!
//! The state itself is in the rows. So after a start, and after an installed snapshot, the stream
//! says where the rows are ([`Observation::Restored`]) and continues with exactly the next index.

use tokio::sync::mpsc;

use super::machine::{Rows, StateMachine};
use crate::storage::{Read, applied};
use crate::types::EntryId;

/// One step of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation<C> {
    /// The rows contain everything up to here; the next entry is the one after it.
    Restored(EntryId),
    /// A command was applied. Only the empty entries of new leaders come between commands.
    Applied(EntryId, C),
}

/// A state machine that reports what it applies.
#[derive(Debug)]
pub struct Observed<S: StateMachine> {
    inner: S,
    /// None: the observer is gone, or fell behind by more than its buffer.
    observer: Option<mpsc::Sender<Observation<S::Command>>>,
}

/// Wraps `machine`; the receiver gets what is applied. If an observer falls behind by more than
/// `buffer` steps, it loses the stream (the stream ends); the replica never waits for it.
pub fn observe<S: StateMachine>(
    machine: S,
    buffer: usize,
) -> (Observed<S>, mpsc::Receiver<Observation<S::Command>>)
where
    S::Command: Clone,
{
    let (observer, stream) = mpsc::channel(buffer);
    (Observed { inner: machine, observer: Some(observer) }, stream)
}

impl<S: StateMachine> Observed<S> {
    fn tell(&mut self, step: Observation<S::Command>) {
        if self.observer.as_ref().is_some_and(|observer| observer.try_send(step).is_err()) {
            self.observer = None;
        }
    }
}

impl<S: StateMachine> StateMachine for Observed<S>
where
    S::Command: Clone,
{
    type Command = S::Command;
    type Output = S::Output;
    type Query = S::Query;
    type Answer = S::Answer;

    fn load(&mut self, rows: &dyn Read) {
        self.inner.load(rows);
        self.tell(Observation::Restored(applied(rows).id));
    }

    fn apply(&mut self, rows: &mut dyn Rows, id: EntryId, command: Self::Command) -> Self::Output {
        let output = self.inner.apply(rows, id, command.clone());
        self.tell(Observation::Applied(id, command));
        output
    }

    fn query(&self, rows: &dyn Read, query: Self::Query) -> Self::Answer {
        self.inner.query(rows, query)
    }
}
