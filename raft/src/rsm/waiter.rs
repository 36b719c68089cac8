//! Callers that wait for the result of a command or a read.

use tokio::sync::oneshot;

use super::machine::StateMachine;
use super::marks::Marks;
use crate::types::{EntryId, ExecuteError};

/// A caller that waits for a proposal or a read.
pub(super) trait Waiter: Send + 'static {
    /// Tells it that nothing was done, and why.
    fn refuse(self, error: ExecuteError);

    /// Tells it, if it wants to know, that its command has a place in the log.
    fn placed(&mut self, _id: EntryId) {}

    /// Lets `mark` say how far it is, if it wants to know.
    fn marks(&self, _mark: impl FnOnce(&Marks)) {}

    /// Whether it waits no more.
    fn is_gone(&self) -> bool {
        false
    }
}

/// The result of a command or a read.
pub(super) type Verdict<T> = Result<T, ExecuteError>;
/// Where the result is sent.
pub(super) type Reply<T> = oneshot::Sender<Verdict<T>>;

/// Waits for a command.
pub(super) struct CommandWaiter<S: StateMachine> {
    pub(super) reply: Reply<S::Output>,
    pub(super) placed: Option<oneshot::Sender<Result<EntryId, ExecuteError>>>,
    pub(super) marks: Option<Marks>,
}

/// Waits for a read.
pub(super) struct QueryWaiter<S: StateMachine> {
    pub(super) query: S::Query,
    pub(super) reply: Reply<S::Answer>,
    pub(super) marks: Option<Marks>,
}

impl<S: StateMachine> Waiter for CommandWaiter<S> {
    fn refuse(self, error: ExecuteError) {
        if let Some(placed) = self.placed {
            let _ = placed.send(Err(error));
        }
        let _ = self.reply.send(Err(error));
    }

    fn placed(&mut self, id: EntryId) {
        if let Some(placed) = self.placed.take() {
            let _ = placed.send(Ok(id));
        }
    }

    fn marks(&self, mark: impl FnOnce(&Marks)) {
        if let Some(marks) = &self.marks {
            mark(marks);
        }
    }

    fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }
}

impl<S: StateMachine> Waiter for QueryWaiter<S> {
    fn refuse(self, error: ExecuteError) {
        let _ = self.reply.send(Err(error));
    }

    fn marks(&self, mark: impl FnOnce(&Marks)) {
        if let Some(marks) = &self.marks {
            mark(marks);
        }
    }
}
