//! A server's place on the network, its requests and its answers.
//!
//! Left out on purpose: services by name. One handler decides what a server serves, and Raft has a
//! separate inbox beside it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use clerk::api::GroupId;
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
use clerk::api::push::{PushReply, PushRequest, Sender};
use futures::future::BoxFuture;
use raft::core::message::Message;
use raft::transport::Inbox;
use raft::types::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{Identity, lock};

/// A request on the network.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Kv(GroupId, KvRequest),
    /// To a group, from another one that hands a shard over.
    Push(GroupId, Sender, PushRequest),
    Ctrl(CtrlRequest),
}

impl Request {
    /// The group that is addressed; 0: the controllers.
    pub(super) fn group(&self) -> u64 {
        match self {
            Self::Kv(group, _) | Self::Push(group, ..) => group.0,
            Self::Ctrl(_) => 0,
        }
    }
}

/// A reply on the network.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Kv(Result<KvReply, KvRefusal>),
    /// From a group, to one that hands a shard over.
    Push(Result<PushReply, KvRefusal>),
    Ctrl(Result<CtrlReply, CtrlRefusal>),
    /// This server serves something else.
    Refused(String),
}

/// What a server does with a request.
pub type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Reply> + Send + Sync>;

/// One life of a server on the network.
pub struct Server {
    handler: Handler,
    pub(super) inbox: Option<Inbox>,
    /// None: every caller is let in.
    pub(super) identity: Option<Identity>,
    tasks: Mutex<JoinSet<()>>,
    served: AtomicU64,
}

impl Server {
    /// A server that answers with `handler` and takes Raft messages in `inbox`.
    pub fn new(handler: Handler, inbox: Option<Inbox>) -> Arc<Self> {
        Self::with_identity(handler, inbox, None)
    }

    /// The same; callers that do not fit its identity are refused.
    pub fn with_identity(handler: Handler, inbox: Option<Inbox>, identity: Option<Identity>) -> Arc<Self> {
        Arc::new(Self { handler, inbox, identity, tasks: Mutex::default(), served: AtomicU64::new(0) })
    }

    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Drops what it is doing, at once.
    pub fn kill(&self) {
        lock(&self.tasks).abort_all();
    }

    /// Requests it got, from callers and from its peers.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Takes a message of Raft.
    pub(super) fn take(&self, sender: NodeId, message: Message, is_answer: bool) {
        self.served.fetch_add(u64::from(!is_answer), Ordering::Relaxed);
        if let Some(inbox) = &self.inbox {
            inbox.deliver(sender, message);
        }
    }

    /// Starts to work on a request.
    pub(super) fn serve(&self, request: Request, reply: oneshot::Sender<Reply>) {
        self.served.fetch_add(1, Ordering::Relaxed);
        let answer = (self.handler)(request);
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _ = reply.send(answer.await);
        });
    }
}
