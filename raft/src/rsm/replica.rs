//! The handle of a running replica.

use std::sync::Arc;
use std::time::Duration;

use super::StateMachine;
use crate::config::{Config, InvalidConfig};
use crate::storage::{Applied, Log, OpenError, Table};
use crate::transport::{Mailbox, Transport};
use crate::types::{Index, Membership, NodeId, Term};

/// What a replica is made of.
pub struct Parts {
    /// This server.
    pub me: NodeId,
    /// The group.
    pub membership: Membership,
    /// Its settings.
    pub config: Config,
    /// Its log.
    pub log: Box<dyn Log>,
    /// Its table.
    pub table: Arc<dyn Table>,
    /// Its way to the others.
    pub transport: Arc<dyn Transport>,
    /// What arrives from them.
    pub mailbox: Mailbox,
    /// Where its tasks run.
    pub threads: Threads,
    /// Free bytes of the disk are below the reserve: refuse what needs space (correctness rule 35).
    pub disk_low: tokio::sync::watch::Receiver<bool>,
}

/// Where the tasks of a replica run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Driver, applier and flusher have a thread each, so that a synced write blocks nobody else.
    Own,
    /// All on the caller's runtime: simulations.
    Shared,
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The stores do not fit each other, or cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why a command or a query has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// Another server leads; surely not done.
    #[error("not the leader")]
    NotLeader {
        /// The leader, if known.
        hint: Option<NodeId>,
    },
    /// The outcome cannot be told any more (correctness rules 27, 28).
    #[error("outcome unknown")]
    Unknown,
    /// Another entry took the command's place; surely not done.
    #[error("not executed")]
    NotExecuted,
    /// A limit is reached; surely not done.
    #[error("busy")]
    Busy,
    /// A disk of the group is nearly full; surely not done.
    #[error("disk nearly full")]
    DiskFull,
}

/// How a replica is. Published after every round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This server.
    pub me: NodeId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows of.
    pub leader: Option<NodeId>,
    /// Its commit index.
    pub commit: Index,
    /// The last entry applied, with the chained hash.
    pub applied: Applied,
    /// Bytes of log in memory.
    pub log_bytes: usize,
    /// Bytes of entries that are not committed, and the limit at which proposals are refused.
    pub uncommitted_bytes: usize,
    /// That limit.
    pub uncommitted_bytes_max: usize,
    /// Synced writes since the start.
    pub syncs: u64,
}

/// A server's part in its group, without the data that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader or waits for one.
    Follower,
    /// Asks whether it could win (pre-vote).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Handle of a running replica. Clones share it.
pub struct Replica<S: StateMachine> {
    marker: std::marker::PhantomData<fn(S)>,
}

impl<S: StateMachine> Clone for Replica<S> {
    fn clone(&self) -> Self {
        todo!()
    }
}

/// Starts a replica of `machine`.
///
/// # Errors
/// [`StartError`], before anything runs.
pub fn start<S: StateMachine>(_parts: Parts, _machine: S) -> Result<Replica<S>, StartError> {
    todo!()
}

impl<S: StateMachine> Replica<S> {
    /// Runs `command` through the log and returns its output, within `deadline`.
    ///
    /// # Errors
    /// [`ExecuteError`]; after the deadline [`ExecuteError::Unknown`].
    pub async fn execute(
        &self,
        _command: S::Command,
        _deadline: Duration,
    ) -> Result<S::Output, ExecuteError> {
        todo!()
    }

    /// Like [`Self::execute`], for commands that free space: accepted while the disk is nearly full.
    ///
    /// # Errors
    /// As there.
    pub async fn execute_freeing(
        &self,
        _command: S::Command,
        _deadline: Duration,
    ) -> Result<S::Output, ExecuteError> {
        todo!()
    }

    /// Answers `query` linearizably (ReadIndex), within `deadline`.
    ///
    /// # Errors
    /// [`ExecuteError`]; after the deadline [`ExecuteError::Unknown`].
    pub async fn query(&self, _query: S::Query, _deadline: Duration) -> Result<S::Answer, ExecuteError> {
        todo!()
    }

    /// How the replica is.
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Follows the status; changed whenever role, term, leader, commit or applied changed.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<Status> {
        todo!()
    }

    /// The rows as applied so far: not linearizable, for background work and local answers.
    pub fn table(&self) -> &Arc<dyn Table> {
        todo!()
    }

    /// Ends every task and thread and releases the stores. Calls that wait get `Unknown`.
    pub async fn stop(&self) {
        todo!()
    }
}
