//! Connections over TCP, kept open and reopened.
//!
//! tarpc's client never reconnects and believes any deadline (correctness rule 46), so this pool
//! wraps it: per address and group one connection for ordinary calls, and one for watches, which
//! may be quiet for seconds.
//!
//! * Callers of an address without a connection wait for one and the same dial, at most
//!   `connect_timeout`: a dead address costs nobody more.
//! * The task that drives a connection notices at once when it ends; the next call dials.
//! * If a call ends without an answer, and nothing at all was heard on its connection since it
//!   began, the connection is given up: the host may have vanished, and TCP would notice only after
//!   minutes. Other calls that wait on it may finish.
//! * Calls in flight on a connection and addresses in the pool are bounded; the least recently used
//!   address makes room.
//!
//! `NotSent` means that the request definitely did not leave: no connection, no room, no time.
//! `Busy` is a server's answer. Every other call without an answer is `Lost`.
//!
//! Each connection names the cluster, and its key as soon as that is known (correctness rule 51). A
//! client takes the first key that it meets and keeps it; a server has its own, which no connection
//! changes. A connection that was made before the key was known is made again.
//!
//! Left out on purpose: retries and back-off (the caller knows what may be repeated), and parallel
//! connections to one address (one can carry what a server can answer).

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::clock;
use base::socket::wire::{self, ClientTransport};
use base::socket::{self, DialError, FRAME_BYTES_MAX, Hello, Purpose, Refusals, Stream, admit_server, dial};
use dashmap::DashMap;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tarpc::client::RpcError;
use tarpc::context;
use tokio::sync::Semaphore;

use super::{CallError, Called, Connection};
use crate::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use crate::api::kv::{KvRefusal, KvReply, KvRequest};
use crate::api::push::{PushReply, PushRequest, Sender};
use crate::api::rpc::{
    ShardCtrlerClient, ShardCtrlerRequest, ShardCtrlerResponse, ShardKvClient, ShardKvRequest,
    ShardKvResponse, ShardPushClient, ShardPushRequest, ShardPushResponse,
};
use crate::api::{Address, GroupId, Incarnation};

/// Longest deadline of a call; a longer one means this.
const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// A call that ended sooner than this without an answer says nothing about its connection.
const PATIENCE: Duration = Duration::from_millis(250);

/// A client that met a server without the key of its cluster asks again after this time.
const ASK_KEY_AGAIN: Duration = Duration::from_millis(500);

/// Settings of a [`TarpcConnection`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster that is meant; servers of another one refuse.
    pub cluster: String,
    /// Its key.
    pub key: socket::Key,
    /// Whether the first key that is met is kept, if none is known. Default: yes. A server's key comes from its
    /// group's log instead.
    pub keeps_key: bool,
    /// The group of the server that calls; none: a client.
    pub from_group: Option<GroupId>,
    /// Where refusals are counted and told. Default: somewhere that nobody sees.
    pub refusals: Arc<Refusals>,
    /// Time for a connection and its handshake. Default 1 s.
    pub connect_timeout: Duration,
    /// Bytes of a request or an answer. Default 72 MiB.
    pub frame_bytes_max: usize,
    /// Calls at once on one connection; more wait. Default 1,024.
    pub in_flight_max: usize,
    /// Connections kept. Default 1,024.
    pub connections_max: usize,
}

impl Options {
    /// The defaults, for `cluster`.
    pub fn of(cluster: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            key: socket::Key::default(),
            keeps_key: true,
            from_group: None,
            refusals: Arc::default(),
            connect_timeout: Duration::from_secs(1),
            frame_bytes_max: FRAME_BYTES_MAX,
            in_flight_max: 1024,
            connections_max: 1024,
        }
    }

    /// For a server, which has a key of its own and tells in its status who refuses it.
    pub fn of_server(here: &socket::Here, refusals: Arc<Refusals>) -> Self {
        let (key, from_group) = (here.key.clone(), Some(GroupId(here.group)));
        Self { key, keeps_key: false, from_group, refusals, ..Self::of(&here.cluster) }
    }
}

/// [`Connection`] over TCP. Must be used inside a tokio runtime; its connections live on the runtime of
/// the call that opened them.
pub struct TarpcConnection {
    kv: Pool<ShardKvClient>,
    push: Pool<ShardPushClient>,
    ctrl: Pool<ShardCtrlerClient>,
}

impl TarpcConnection {
    /// A pool without connections: they are opened when they are needed.
    pub fn new(options: Options) -> Self {
        let options = Arc::new(options);
        let (kv, push) = (Pool::new(Arc::clone(&options)), Pool::new(Arc::clone(&options)));
        Self { kv, push, ctrl: Pool::new(options) }
    }
}

impl Connection for TarpcConnection {
    fn kv<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        request: KvRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<KvReply, KvRefusal>> {
        let key = Key { address: to.clone(), group, sender: None, watch: false };
        let ask =
            move |client: ShardKvClient, context| async move { client.kv(context, group, request).await };
        Box::pin(self.kv.call(key, deadline, ask))
    }

    fn push<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        sender: Sender,
        request: PushRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<PushReply, KvRefusal>> {
        let key = Key { address: to.clone(), group, sender: Some(sender), watch: false };
        let ask =
            move |client: ShardPushClient, context| async move { client.push(context, group, request).await };
        Box::pin(self.push.call(key, deadline, ask))
    }

    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        request: CtrlRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<CtrlReply, CtrlRefusal>> {
        let watch = matches!(request, CtrlRequest::Watch { .. });
        let key = Key { address: to.clone(), group: GroupId::CONTROLLERS, sender: None, watch };
        let ask =
            move |client: ShardCtrlerClient, context| async move { client.ctrl(context, request).await };
        Box::pin(self.ctrl.call(key, deadline, ask))
    }
}

/// One of the generated clients.
trait Client: Clone + Send + Sync + 'static {
    /// A client, and what drives its connection until that ends.
    fn start(config: tarpc::client::Config, stream: Stream) -> (Self, BoxFuture<'static, ()>);
}

macro_rules! client {
    ($client:ty, $request:ty, $response:ty) => {
        impl Client for $client {
            fn start(config: tarpc::client::Config, stream: Stream) -> (Self, BoxFuture<'static, ()>) {
                let transport: ClientTransport<$request, $response> = wire::client(stream);
                let started = <$client>::new(config, transport);
                (started.client, started.dispatch.map(drop).boxed())
            }
        }
    };
}
client!(ShardKvClient, ShardKvRequest, ShardKvResponse);
client!(ShardPushClient, ShardPushRequest, ShardPushResponse);
client!(ShardCtrlerClient, ShardCtrlerRequest, ShardCtrlerResponse);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    address: Address,
    group: GroupId,
    /// Who pushes; none: a client.
    sender: Option<Sender>,
    watch: bool,
}

/// An open connection.
struct Live<C> {
    client: C,
    /// The key of the cluster, as far as both sides knew it at the handshake.
    key: u64,
    opened: clock::Instant,
    /// Not to be used any more.
    closed: Arc<AtomicBool>,
    permits: Semaphore,
    /// When the last answer came.
    heard: AtomicU64,
}

type Dialing<C> = Shared<BoxFuture<'static, Result<Arc<Live<C>>, CallError>>>;

/// What the pool has for a key: a dial, running or done.
struct Slot<C> {
    dialing: Mutex<Option<Dialing<C>>>,
    used: AtomicU64,
}

struct Pool<C> {
    options: Arc<Options>,
    slots: DashMap<Key, Arc<Slot<C>>>,
    uses: AtomicU64,
}

impl<C: Client> Pool<C> {
    fn new(options: Arc<Options>) -> Self {
        Self { options, slots: DashMap::new(), uses: AtomicU64::new(0) }
    }

    async fn call<T, F, Fut>(&self, key: Key, deadline: Duration, ask: F) -> Result<T, CallError>
    where
        F: FnOnce(C, context::Context) -> Fut,
        Fut: Future<Output = Result<T, RpcError>>,
    {
        let end = clock::now().after(deadline.min(DEADLINE_MAX));
        let not_sent = |why: &str| CallError::NotSent { address: key.address.clone(), why: why.into() };
        let live = clock::timeout(deadline, self.live(&key))
            .await
            .map_err(|_| not_sent("no connection in time"))??;
        let permit = clock::timeout(end.since(clock::now()), live.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(not_sent("too many calls in flight")) };
        let asked = clock::now();
        let remaining = end.since(asked);
        if remaining.is_zero() {
            return Err(not_sent("no time left"));
        }
        let mut context = context::current();
        context.deadline = std::time::Instant::now() + remaining;
        let _waiting = Waiting { live: &live, asked };
        let answer = ask(live.client.clone(), context).await;
        if matches!(answer, Ok(_) | Err(RpcError::Server(_))) {
            live.heard.store(clock::now().as_nanos(), Ordering::Relaxed);
        }
        answer.map_err(|error| call_error(key.address, error))
    }

    /// The open connection of `key`, dialed if there is none.
    async fn live(&self, key: &Key) -> Result<Arc<Live<C>>, CallError> {
        let slot = self.slot(key);
        // A dial that all its callers left may have ended long ago, and its connection too: then
        // the second turn dials again.
        for _ in 0..2 {
            let dialing = {
                let mut dialing = slot.dialing.lock().unwrap_or_else(PoisonError::into_inner);
                match &*dialing {
                    Some(running) if running.peek().is_none() => running.clone(),
                    Some(done) if matches!(done.peek(), Some(Ok(live)) if self.is_usable(live)) => {
                        done.clone()
                    }
                    _ => dialing.insert(self.dial(key)).clone(),
                }
            };
            let live = dialing.await?;
            if self.is_usable(&live) {
                return Ok(live);
            }
        }
        Err(CallError::NotSent { address: key.address.clone(), why: "the connection ended at once".into() })
    }

    /// A connection that was made before the key was known is made again if the key is known now.
    /// If neither side knew the key, it is made again to ask whether the server knows it now.
    fn is_usable(&self, live: &Live<C>) -> bool {
        let key = self.options.key.on_wire();
        let asks_again = self.options.keeps_key && key == 0 && live.opened.elapsed() >= ASK_KEY_AGAIN;
        live.is_open() && (key == 0 || live.key == key) && !asks_again
    }

    fn slot(&self, key: &Key) -> Arc<Slot<C>> {
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        let slot = self.slots.get(key).map(|slot| Arc::clone(&slot));
        let slot = slot.unwrap_or_else(|| {
            self.make_room();
            let fresh = || Arc::new(Slot { dialing: Mutex::new(None), used: AtomicU64::new(now) });
            Arc::clone(&self.slots.entry(key.clone()).or_insert_with(fresh))
        });
        slot.used.store(now, Ordering::Relaxed);
        slot
    }

    /// Forgets the least recently used connection, if there are too many. Calls on it continue.
    fn make_room(&self) {
        if self.slots.len() < self.options.connections_max {
            return;
        }
        let used = |slot: &Slot<C>| slot.used.load(Ordering::Relaxed);
        let oldest = self.slots.iter().min_by_key(|slot| used(slot)).map(|slot| slot.key().clone());
        if let Some(oldest) = oldest {
            self.slots.remove(&oldest);
        }
    }

    /// Dials in a separate task, so that a caller who gives up does not take the dial from the
    /// others.
    fn dial(&self, key: &Key) -> Dialing<C> {
        let (address, options) = (key.address.clone(), Arc::clone(&self.options));
        let (cluster, known, group) = (options.cluster.clone(), options.key.on_wire(), key.group.0);
        let from_group = options.from_group.unwrap_or(GroupId::CONTROLLERS).0;
        let watches = key.watch;
        let hello = Hello { cluster, key: known, group, from_group, watches, ..Hello::default() };
        let hello = match key.sender {
            None => hello,
            Some(Sender { group: GroupId(from_group), incarnation: Incarnation(incarnation) }) => {
                Hello { purpose: Purpose::Push, from_group, incarnation, ..hello }
            }
        };
        let task = tokio::spawn(open(address.clone(), hello, options));
        let result = task.map(move |joined| match joined {
            Ok(result) => result.map(Arc::new),
            Err(_) => Err(CallError::NotSent { address, why: "the runtime is shutting down".into() }),
        });
        result.boxed().shared()
    }
}

/// A call that waits. Whether it ends by its deadline or its caller gives up: without any answer since
/// it began, the connection is given up, too.
struct Waiting<'a, C> {
    live: &'a Live<C>,
    asked: clock::Instant,
}

impl<C> Drop for Waiting<'_, C> {
    fn drop(&mut self) {
        let heard = self.live.heard.load(Ordering::Relaxed) >= self.asked.as_nanos();
        if !heard && self.asked.elapsed() >= PATIENCE {
            self.live.closed.store(true, Ordering::Relaxed);
        }
    }
}

impl<C> Live<C> {
    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }
}

async fn open<C: Client>(
    address: Address,
    hello: Hello,
    options: Arc<Options>,
) -> Result<Live<C>, CallError> {
    let refused = |why: String| {
        options.refusals.set_refused_by(&address, Some(why.clone()));
        CallError::Refused { address: address.clone(), why }
    };
    let (stream, welcome) = match dial(&address, &hello, options.connect_timeout).await {
        Ok(dialed) => dialed,
        Err(DialError::Refused(why)) => return Err(refused(why)),
        Err(DialError::Unreachable(why) | DialError::Busy(why)) => {
            return Err(CallError::NotSent { address, why });
        }
    };
    if let Err(refusal) = admit_server(&options.cluster, &options.key, options.keeps_key, &welcome) {
        options.refusals.count(refusal.reason());
        return Err(refused(refusal.to_string()));
    }
    options.refusals.set_refused_by(&address, None);
    // What both know, or what one of them knows: the other has heard it.
    let key = if welcome.key == 0 { hello.key } else { welcome.key };
    // The permits below are the bound; tarpc's own must not come first.
    let mut config = tarpc::client::Config::default();
    config.max_in_flight_requests = usize::MAX;
    config.pending_request_buffer = options.in_flight_max.max(1);
    let (client, dispatch) = C::start(config, stream.with_frame_bytes_max(options.frame_bytes_max));
    let closed = Arc::new(AtomicBool::new(false));
    let end = CloseOnDrop(Arc::clone(&closed));
    tokio::spawn(async move {
        let _end = end;
        dispatch.await;
    });
    let opened = clock::now();
    Ok(Live {
        client,
        key,
        opened,
        closed,
        permits: Semaphore::new(options.in_flight_max),
        heard: AtomicU64::new(0),
    })
}

/// Marks a connection as ended, also when the task that drives it is dropped with its runtime.
struct CloseOnDrop(Arc<AtomicBool>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn call_error(address: Address, error: RpcError) -> CallError {
    match error {
        // Only the encoder fails here: nothing left.
        RpcError::Send(error) => CallError::Refused { address, why: error.to_string() },
        RpcError::Server(error) if error.kind == io::ErrorKind::WouldBlock => {
            CallError::Busy { address, why: error.detail }
        }
        RpcError::Server(error) if error.kind == io::ErrorKind::FileTooLarge => {
            CallError::Refused { address, why: error.detail }
        }
        RpcError::Server(error) => CallError::Lost { address, why: error.detail },
        RpcError::DeadlineExceeded => CallError::Lost { address, why: "no answer in time".into() },
        RpcError::Shutdown | RpcError::Channel(_) => {
            CallError::Lost { address, why: "the connection broke".into() }
        }
    }
}

#[cfg(test)]
mod tests;
