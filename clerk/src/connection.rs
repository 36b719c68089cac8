//! How a request reaches a server and its answer comes back.
//!
//! All other code uses [`Connection`]: over sockets that is [`TarpcConnection`], in a simulation
//! the simulated network. Both return an answer, or a [`CallError`] that says whether the server
//! can have acted (correctness rule 27).

mod find;
mod pool;

use std::time::Duration;

use futures::future::BoxFuture;

pub use self::find::{NotFound, find};
pub use self::pool::{Options, TarpcConnection};

use crate::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use crate::api::kv::{KvRefusal, KvReply, KvRequest};
use crate::api::push::{PushReply, PushRequest, Sender};
use crate::api::{Address, GroupId};

/// What a call brings: the server's reply or its refusal, or why there is neither.
pub type Called<Reply, Refusal> = Result<Result<Reply, Refusal>, CallError>;

/// A call that brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server was not reached: definitely nothing was done.
    #[error("{address}: not reached: {why}")]
    NotSent {
        /// The server.
        address: Address,
        /// The reason.
        why: String,
    },
    /// The server has too much to do: definitely nothing was done, and it may be done there a
    /// little later.
    #[error("{address}: busy: {why}")]
    Busy {
        /// The server.
        address: Address,
        /// Its words.
        why: String,
    },
    /// The request left and no answer came: it is not known what was done.
    #[error("{address}: no answer: {why}")]
    Lost {
        /// The server.
        address: Address,
        /// The reason.
        why: String,
    },
    /// The server belongs to another cluster or group, or uses another version: do not try again.
    #[error("{address}: {why}")]
    Refused {
        /// The server.
        address: Address,
        /// Its words.
        why: String,
    },
}

/// Calls to servers of one cluster, one request and one answer at a time each.
pub trait Connection: Send + Sync {
    /// Asks a server of group `group`.
    fn kv<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        request: KvRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<KvReply, KvRefusal>>;

    /// Asks a server of group `group` as the group `sender`, which hands a shard over to it.
    fn push<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        sender: Sender,
        request: PushRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<PushReply, KvRefusal>>;

    /// Asks a controller.
    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        request: CtrlRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<CtrlReply, CtrlRefusal>>;
}
