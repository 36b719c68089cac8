//! How replicas and clients use the network: Raft's transport, and the product's connection.
//!
//! Left out on purpose: pools and lanes, which belong to real sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::clock;
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
use clerk::api::push::{PushReply, PushRequest, Sender};
use clerk::api::{Address, GroupId};
use clerk::connection::{CallError, Called, Connection};
use futures::future::BoxFuture;
use raft::core::message::Message;
use raft::transport::Transport;
use raft::types::NodeId;

use super::{Name, Network, Pass, Reply, Request};

/// A replica's way to its peers.
pub struct PeerTransport {
    pub network: Network,
    /// The replica's name on it.
    pub from: Name,
    pub me: NodeId,
    pub peers: BTreeMap<NodeId, Name>,
}

impl Transport for PeerTransport {
    fn send(&self, to: NodeId, message: Message) {
        if let Some(name) = self.peers.get(&to) {
            self.network.post(&self.from, self.me, name, to, &message);
        }
    }
}

/// The calls of one client, or of one server to others.
pub struct Calls {
    pub network: Network,
    /// The caller's name on it.
    pub from: Name,
    /// Whether the calling server still lives; clients always do.
    pub alive: Option<Arc<AtomicBool>>,
    /// The cluster that it means; none: it is let in everywhere.
    pub pass: Option<Pass>,
}

impl Calls {
    async fn within(&self, to: &Address, request: Request, deadline: Duration) -> Result<Reply, CallError> {
        if self.alive.as_ref().is_some_and(|alive| !alive.load(Ordering::Relaxed)) {
            // A dead server's task on its way out.
            return std::future::pending().await;
        }
        let name: Name = to.as_str().into();
        let late = || CallError::Lost { address: to.clone(), why: "deadline".to_owned() };
        let call = self.network.call(&self.from, self.pass.as_ref(), &name, &request);
        let reply = clock::timeout(deadline, call).await.map_err(|_| late())??;
        match reply {
            Reply::Refused(why) => Err(CallError::Refused { address: to.clone(), why }),
            reply => Ok(reply),
        }
    }
}

fn odd(to: &Address) -> CallError {
    CallError::Refused { address: to.clone(), why: "the reply answers another question".to_owned() }
}

impl Connection for Calls {
    fn kv<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        request: KvRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<KvReply, KvRefusal>> {
        Box::pin(async move {
            match self.within(to, Request::Kv(group, request), deadline).await? {
                Reply::Kv(reply) => Ok(reply),
                _ => Err(odd(to)),
            }
        })
    }

    fn push<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        sender: Sender,
        request: PushRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<PushReply, KvRefusal>> {
        Box::pin(async move {
            match self.within(to, Request::Push(group, sender, request), deadline).await? {
                Reply::Push(reply) => Ok(reply),
                _ => Err(odd(to)),
            }
        })
    }

    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        request: CtrlRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<CtrlReply, CtrlRefusal>> {
        Box::pin(async move {
            match self.within(to, Request::Ctrl(request), deadline).await? {
                Reply::Ctrl(reply) => Ok(reply),
                _ => Err(odd(to)),
            }
        })
    }
}
