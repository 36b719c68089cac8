//! The handle of a running replica.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::clock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::channels::{Counters, Request};
use super::machine::{StateMachine, encode_command};
use super::marks::Marks;
use super::measured::Measured;
use super::reader::Reader;
use super::status::{Leadership, Status};
use super::task::Task;
use super::waiter::{CommandWaiter, QueryWaiter};
use crate::storage::{Kept, Table};
use crate::types::{EntryId, ExecuteError};

/// Handle of a running replica. Clones share it; the replica stops when the last one is gone.
pub struct Replica<S: StateMachine> {
    pub(super) shared: Arc<Shared<S>>,
}

impl<S: StateMachine> Clone for Replica<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

pub(super) struct Shared<S: StateMachine> {
    pub(super) requests: mpsc::Sender<Request<CommandWaiter<S>, QueryWaiter<S>>>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) table: Arc<dyn Table>,
    pub(super) table_bad: Arc<AtomicBool>,
    pub(super) counters: Arc<Counters>,
    pub(super) kept: Arc<dyn Kept>,
    pub(super) reader: Reader,
    pub(super) stop: CancellationToken,
    pub(super) tasks: Mutex<Vec<Task>>,
}

impl<S: StateMachine> Drop for Shared<S> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A command that has a place in the log, and its future output.
#[derive(Debug)]
pub struct Placed<T> {
    /// Its place.
    pub id: EntryId,
    reply: oneshot::Receiver<Result<T, ExecuteError>>,
}

impl<T> Placed<T> {
    /// Waits for the output.
    ///
    /// # Errors
    /// [`ExecuteError::NotExecuted`] or [`ExecuteError::Unknown`].
    pub async fn output(self) -> Result<T, ExecuteError> {
        self.reply.await.unwrap_or(Err(ExecuteError::Unknown))
    }
}

impl<S: StateMachine> Replica<S> {
    /// Runs `command` through the log and returns its output, within `deadline`.
    ///
    /// # Errors
    /// [`ExecuteError`]; after the deadline [`ExecuteError::Unknown`].
    pub async fn execute(&self, command: &S::Command, deadline: Duration) -> Result<S::Output, ExecuteError> {
        self.run(command, false, deadline, None).await
    }

    /// Like [`Self::execute`], for commands that free space: accepted while the disk is nearly full.
    ///
    /// # Errors
    /// As there.
    pub async fn execute_freeing(
        &self,
        command: &S::Command,
        deadline: Duration,
    ) -> Result<S::Output, ExecuteError> {
        self.run(command, true, deadline, None).await
    }

    /// Like one of the two, and says in `marks` how far it got.
    ///
    /// # Errors
    /// As there.
    pub async fn execute_marked(
        &self,
        command: &S::Command,
        freeing: bool,
        deadline: Duration,
        marks: &Marks,
    ) -> Result<S::Output, ExecuteError> {
        self.run(command, freeing, deadline, Some(marks.clone())).await
    }

    async fn run(
        &self,
        command: &S::Command,
        freeing: bool,
        deadline: Duration,
        marks: Option<Marks>,
    ) -> Result<S::Output, ExecuteError> {
        let (reply, answer) = oneshot::channel();
        let waiter = CommandWaiter { reply, placed: None, marks };
        self.ask(Request::Propose { command: encode_command(command), freeing, waiter })?;
        wait(answer, deadline).await
    }

    /// Proposes `command` and returns as soon as it has a place in the leader's log (the labs'
    /// `Start`).
    ///
    /// # Errors
    /// [`ExecuteError`]; nothing was proposed then.
    pub async fn propose(&self, command: &S::Command) -> Result<Placed<S::Output>, ExecuteError> {
        let (reply, answer) = oneshot::channel();
        let (placed, place) = oneshot::channel();
        let waiter = CommandWaiter { reply, placed: Some(placed), marks: None };
        self.ask(Request::Propose { command: encode_command(command), freeing: false, waiter })?;
        let id = place.await.unwrap_or(Err(ExecuteError::Unknown))?;
        Ok(Placed { id, reply: answer })
    }

    /// Answers `query` linearizably (ReadIndex), within `deadline`.
    ///
    /// # Errors
    /// [`ExecuteError`]; after the deadline [`ExecuteError::Unknown`].
    pub async fn query(&self, query: S::Query, deadline: Duration) -> Result<S::Answer, ExecuteError> {
        self.read_marked(query, deadline, None).await
    }

    /// The same, and says in `marks` how far it got.
    ///
    /// # Errors
    /// As there.
    pub async fn query_marked(
        &self,
        query: S::Query,
        deadline: Duration,
        marks: &Marks,
    ) -> Result<S::Answer, ExecuteError> {
        self.read_marked(query, deadline, Some(marks.clone())).await
    }

    async fn read_marked(
        &self,
        query: S::Query,
        deadline: Duration,
        marks: Option<Marks>,
    ) -> Result<S::Answer, ExecuteError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Read { waiter: QueryWaiter { query, reply, marks } })?;
        wait(answer, deadline).await
    }

    fn ask(&self, request: Request<CommandWaiter<S>, QueryWaiter<S>>) -> Result<(), ExecuteError> {
        self.shared.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ExecuteError::Busy,
            mpsc::error::TrySendError::Closed(_) => ExecuteError::NotLeader { hint: None },
        })
    }

    /// Compacts the log now, as far as the table is (or can be made) durable and followers allow.
    pub fn compact(&self) {
        let _ = self.shared.requests.try_send(Request::Compact);
    }

    /// The present status of the replica.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Who leads, as far as this replica knows.
    pub fn leadership(&self) -> Leadership {
        *self.shared.leadership.borrow()
    }

    /// Follows the leadership: for tasks that need not wake up for every command.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.clone()
    }

    /// Follows the status; changed whenever role, term, leader, commit or applied changed.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.shared.status.clone()
    }

    /// Whether the table is bad (correctness rule 69): no client may be answered from it.
    pub fn is_table_bad(&self) -> bool {
        self.shared.table_bad.load(Ordering::Relaxed)
    }

    /// How long ago its loop turned last. It turns with every tick, unless a save takes long or the
    /// process does not run.
    pub fn since_last_tick(&self) -> Duration {
        let ticked = self.shared.counters.ticked.load(Ordering::Relaxed);
        Duration::from_nanos(clock::now().as_nanos().saturating_sub(ticked))
    }

    /// What it measured of its work since it started.
    pub fn measured(&self) -> Measured {
        self.shared.counters.measures.read(self.shared.kept.file_bytes())
    }

    /// Reads the applied rows on another thread than the one that drives Raft and answers sockets:
    /// a scan may wait for a disk, and that thread must not (correctness rule 80). Not
    /// linearizable, like [`Self::table`].
    pub async fn read<T: Send + 'static>(&self, read: impl FnOnce(&dyn Table) -> T + Send + 'static) -> T {
        self.shared.reader.read(read).await
    }

    /// The applied rows: not linearizable, for background work and local answers. Use it only to
    /// look up single rows; for the rest there is [`Self::read`]. Check [`Self::is_table_bad`]
    /// before a client is answered from them.
    pub fn table(&self) -> &Arc<dyn Table> {
        &self.shared.table
    }

    /// Ends every task and thread and releases the stores. Calls that wait get `Unknown`.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let tasks = std::mem::take(&mut *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.end().await;
        }
        // A read that is still running has the table open.
        self.shared.reader.end().await;
    }

    /// Drops every task where it is, as `kill -9` would. For simulations
    /// ([`super::Threads::Shared`]).
    pub fn kill(&self) {
        for task in self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Task::Spawned(handle) = task {
                handle.abort();
            }
        }
    }
}

async fn wait<T>(
    answer: oneshot::Receiver<Result<T, ExecuteError>>,
    deadline: Duration,
) -> Result<T, ExecuteError> {
    match clock::timeout(deadline, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) if base::mutant!("stop-tells-nobody") => std::future::pending().await,
        Ok(Err(_)) | Err(_) => Err(ExecuteError::Unknown),
    }
}
