//! The three services as they are called over the network, and the server's side of a client
//! connection.
//!
//! A connection's requests are handled concurrently, up to a bound, and answered in the order in
//! which they finish. The caller tells answers apart; a caller that needs an order waits for one
//! answer before the next request (correctness rule 46). When a connection ends, its unfinished
//! requests are dropped; they may or may not take effect.
//!
//! Left out on purpose: the meaning of the requests. The handler is a plain function over the
//! transport-free service, the same one that a simulation calls.

use std::future::Future;
use std::time::Duration;

use base::socket::Stream;
use base::socket::wire;
use tarpc::context::Context;

use super::GroupId;
use super::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use super::kv::{KvRefusal, KvReply, KvRequest};
use super::push::{PushReply, PushRequest};

/// Requests of one connection handled at the same time. Our callers stay below it; beyond it the
/// answer is "busy", and nothing is done.
pub const IN_FLIGHT_MAX: usize = 2048;

/// A client connection that is silent for this long is closed; the pool at the other end opens
/// another.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// A server of a replica group.
#[tarpc::service]
pub trait ShardKv {
    /// Asks a server of `group`.
    async fn kv(group: GroupId, request: KvRequest) -> Result<KvReply, KvRefusal>;
}

/// A server of a replica group, as another group pushes shards to it.
#[tarpc::service]
pub trait ShardPush {
    /// Asks a server of `group`.
    async fn push(group: GroupId, request: PushRequest) -> Result<PushReply, KvRefusal>;
}

/// A shard controller.
#[tarpc::service]
pub trait ShardCtrler {
    /// Asks a controller.
    async fn ctrl(request: CtrlRequest) -> Result<CtrlReply, CtrlRefusal>;
}

/// What one group serves.
#[derive(Clone)]
struct OfGroup<F> {
    group: GroupId,
    handle: F,
}

impl<F> OfGroup<F> {
    async fn answer<Req, Fut, Reply>(self, group: GroupId, request: Req) -> Result<Reply, KvRefusal>
    where
        F: Fn(Req) -> Fut,
        Fut: Future<Output = Result<Reply, KvRefusal>>,
    {
        if group != self.group {
            return Err(KvRefusal::Malformed(format!("this is group {}, not {group}", self.group)));
        }
        // Boxed early: the future is large, and tarpc moves it several times.
        Box::pin((self.handle)(request)).await
    }
}

impl<F, Fut> ShardKv for OfGroup<F>
where
    F: Fn(KvRequest) -> Fut,
    Fut: Future<Output = Result<KvReply, KvRefusal>>,
{
    async fn kv(self, _: Context, group: GroupId, request: KvRequest) -> Result<KvReply, KvRefusal> {
        self.answer(group, request).await
    }
}

impl<F, Fut> ShardPush for OfGroup<F>
where
    F: Fn(PushRequest) -> Fut,
    Fut: Future<Output = Result<PushReply, KvRefusal>>,
{
    async fn push(self, _: Context, group: GroupId, request: PushRequest) -> Result<PushReply, KvRefusal> {
        self.answer(group, request).await
    }
}

#[derive(Clone)]
struct CtrlServer<F>(F);

impl<F, Fut> ShardCtrler for CtrlServer<F>
where
    F: Fn(CtrlRequest) -> Fut,
    Fut: Future<Output = Result<CtrlReply, CtrlRefusal>>,
{
    async fn ctrl(self, _: Context, request: CtrlRequest) -> Result<CtrlReply, CtrlRefusal> {
        (self.0)(request).await
    }
}

/// Serves an admitted client connection of a server of `group` until it ends.
pub async fn serve_kv<F, Fut>(stream: Stream, group: GroupId, handle: F)
where
    F: Fn(KvRequest) -> Fut + Clone,
    Fut: Future<Output = Result<KvReply, KvRefusal>>,
{
    wire::serve(stream, IN_FLIGHT_MAX, IDLE_MAX, ShardKv::serve(OfGroup { group, handle })).await;
}

/// Serves an admitted connection of a group that pushes shards to `group`, until it ends.
pub async fn serve_push<F, Fut>(stream: Stream, group: GroupId, handle: F)
where
    F: Fn(PushRequest) -> Fut + Clone,
    Fut: Future<Output = Result<PushReply, KvRefusal>>,
{
    wire::serve(stream, IN_FLIGHT_MAX, IDLE_MAX, ShardPush::serve(OfGroup { group, handle })).await;
}

/// Serves an admitted client connection of a controller until it ends.
pub async fn serve_ctrl<F, Fut>(stream: Stream, handle: F)
where
    F: Fn(CtrlRequest) -> Fut + Clone,
    Fut: Future<Output = Result<CtrlReply, CtrlRefusal>>,
{
    wire::serve(stream, IN_FLIGHT_MAX, IDLE_MAX, CtrlServer(handle).serve()).await;
}
