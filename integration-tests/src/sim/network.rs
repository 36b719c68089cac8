//! The labs' network, number for number.
//!
//! A *client end* is an ordered pair (from, to); each is enabled or disabled by itself. A call whose end
//! is disabled, or whose server is dead, fails after 0 to 99 ms, decided when it starts. Otherwise, while
//! the network is *reliable*, it takes 0.2 to 0.5 ms each way. While it is *unreliable*: 0 to 26 ms more
//! before the handler, one request in ten lost (which the caller learns at once), one reply in ten lost.
//! While the handler runs, and after it, the end and the server are looked at again: a server that died
//! or was cut off delivers no late reply.
//!
//! Raft's messages are one-way. A request of Raft is treated as the first half of a call, an answer as
//! the second: it is looked at again when it arrives. A lost one is not reported; one into a cut or to a
//! dead server is reported as unreachable after those 0 to 99 ms.
//!
//! *Chaos*, which the labs do not have: lost messages come after all, doubled ones too, up to a second late.
//!
//! Everything that travels is encoded and decoded by the production codec.
//!
//! Left out on purpose: the labs' long delays and long reordering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{clock, codec};
use bytes::Bytes;
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
use clerk::api::{Address, GroupId};
use clerk::connection::{CallError, Connection};
use futures::future::BoxFuture;
use raft::core::message::{Body, Message};
use raft::transport::{Inbox, Transport};
use raft::types::NodeId;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{Generator, Label, Name, World, lock};

/// Frames are limited as in production.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// The longest extra delay of an unreliable network before a handler, in ms.
const UNRELIABLE_DELAY_MS: u64 = 26;
/// The longest wait for the failure of a call that cannot arrive, in ms.
const UNREACHABLE_DELAY_MS: u64 = 99;
/// Lost requests, and lost replies, of an unreliable network, in percent.
const LOST_PERCENT: u32 = 10;
/// How often a running call looks whether its server is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A request as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// To a group.
    Kv(GroupId, KvRequest),
    /// To a controller.
    Ctrl(CtrlRequest),
}

/// A reply as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// From a group.
    Kv(Result<KvReply, KvRefusal>),
    /// From a controller.
    Ctrl(Result<CtrlReply, CtrlRefusal>),
    /// This server serves something else.
    Refused(String),
}

/// What a server does with a request.
pub type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Reply> + Send + Sync>;

/// One life of a server on the network.
pub struct Server {
    handler: Handler,
    inbox: Option<Inbox>,
    tasks: Mutex<JoinSet<()>>,
}

impl Server {
    /// A server that answers with `handler` and takes Raft messages in `inbox`.
    pub fn new(handler: Handler, inbox: Option<Inbox>) -> Arc<Self> {
        Arc::new(Self { handler, inbox, tasks: Mutex::default() })
    }

    /// Drops what it is doing, where it stands.
    pub fn kill(&self) {
        lock(&self.tasks).abort_all();
    }

    fn serve(&self, request: Request, reply: oneshot::Sender<Reply>) {
        let answer = (self.handler)(request);
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _ = reply.send(answer.await);
        });
    }
}

/// How well the network works at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Messages are delayed and lost.
    pub unreliable: bool,
    /// Raft's messages are doubled and come much too late.
    pub chaos: bool,
    /// So are requests: for services that tell a repeated request from a new one.
    pub chaos_requests: bool,
}

#[derive(Default)]
struct State {
    servers: BTreeMap<Name, Arc<Server>>,
    disabled: BTreeSet<(Name, Name)>,
    weather: Weather,
    links: BTreeMap<(Name, Name), Generator>,
    calls: u64,
    messages: u64,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Network {
    world: World,
    state: Arc<Mutex<State>>,
}

/// What one draw decided about one message.
struct Fate {
    delay: Duration,
    lost: bool,
    /// A second arrival, so much later.
    again: Option<Duration>,
}

impl Network {
    /// A network without servers.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), state: Arc::default() }
    }

    /// Puts a server on the network, in place of any of its name.
    pub fn attach(&self, name: &Name, server: Arc<Server>) {
        lock(&self.state).servers.insert(Arc::clone(name), server);
    }

    /// Takes a server off the network; it can neither be reached nor send from then on.
    pub fn detach(&self, name: &Name) -> Option<Arc<Server>> {
        lock(&self.state).servers.remove(name)
    }

    /// Enables or disables the client ends between two names, both ways.
    pub fn link(&self, one: &Name, other: &Name, enabled: bool) {
        self.direct(one, other, enabled);
        self.direct(other, one, enabled);
    }

    /// Enables or disables one client end.
    pub fn direct(&self, from: &Name, to: &Name, enabled: bool) {
        let mut state = lock(&self.state);
        let end = (Arc::clone(from), Arc::clone(to));
        if enabled {
            state.disabled.remove(&end);
        } else {
            state.disabled.insert(end);
        }
    }

    /// Enables every client end.
    pub fn heal(&self) {
        lock(&self.state).disabled.clear();
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        lock(&self.state).weather = weather;
    }

    /// Calls and one-way messages that were tried.
    pub fn counts(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.calls, state.messages)
    }

    fn is_enabled(state: &State, from: &Name, to: &Name) -> bool {
        state.disabled.is_empty() || !state.disabled.contains(&(Arc::clone(from), Arc::clone(to)))
    }

    /// The server, if a message can leave for it now.
    fn reach(&self, from: &Name, to: &Name) -> Option<Arc<Server>> {
        let state = lock(&self.state);
        Self::is_enabled(&state, from, to).then(|| state.servers.get(to).cloned()).flatten()
    }

    /// Whether that life of the server is still there and the end still enabled.
    fn still(&self, from: &Name, to: &Name, server: &Arc<Server>) -> bool {
        self.reach(from, to).is_some_and(|now| Arc::ptr_eq(&now, server))
    }

    fn draw<T>(&self, from: &Name, to: &Name, draw: impl FnOnce(&mut Generator, Weather) -> T) -> T {
        let mut state = lock(&self.state);
        let weather = state.weather;
        let world = &self.world;
        let link = state
            .links
            .entry((Arc::clone(from), Arc::clone(to)))
            .or_insert_with(|| world.generator(&format!("link {from} -> {to}")));
        draw(link, weather)
    }

    /// How a message fares. Requests are the ones that unreliable networks delay.
    fn fate(&self, from: &Name, to: &Name, is_request: bool) -> Fate {
        self.draw(from, to, |random, weather| {
            let mut delay = Duration::from_nanos(random.random_range(200_000..500_000));
            if weather.unreliable && is_request {
                delay += Duration::from_millis(random.random_range(0..=UNRELIABLE_DELAY_MS));
            }
            let mut lost = weather.unreliable && random.random_range(0..100) < LOST_PERCENT;
            let mut again = None;
            if weather.chaos {
                let late = Duration::from_micros(random.random_range(0..1_000_000));
                match random.random_range(0..100) {
                    0..8 => again = Some(late),
                    8..12 => delay += late,
                    _ if lost && random.random_bool(0.5) => {
                        lost = false;
                        delay += late;
                    }
                    _ => {}
                }
            }
            Fate { delay, lost, again }
        })
    }

    fn unreachable_delay(&self, from: &Name, to: &Name) -> Duration {
        self.draw(from, to, |random, _| Duration::from_millis(random.random_range(0..=UNREACHABLE_DELAY_MS)))
    }

    /// A call, step by step as in the labs.
    async fn call(&self, from: &Name, to: &Name, request: &Request) -> Result<Reply, CallError> {
        let label = |kind| Label { kind, from: Arc::clone(from), at: Arc::clone(to) };
        let lost = |why: &str| CallError::Lost { address: to.to_string(), why: why.to_owned() };
        let bytes = codec::encode(request);
        lock(&self.state).calls += 1;
        let Some(server) = self.reach(from, to) else {
            self.world.pause(self.unreachable_delay(from, to), label("call fails")).await;
            return Err(CallError::NotSent { address: to.to_string(), why: "unreachable".to_owned() });
        };
        let fate = self.fate(from, to, true);
        self.travel(fate.delay, label("request"), bytes.clone()).await;
        if fate.lost {
            return Err(lost("request lost"));
        }
        if !lock(&self.state).servers.get(to).is_some_and(|now| Arc::ptr_eq(now, &server)) {
            return Err(lost("server died"));
        }
        let mut answer = Self::dispatch(&server, &bytes).map_err(|why| lost(&why))?;
        if let Some(late) = fate.again.filter(|_| lock(&self.state).weather.chaos_requests) {
            let (network, from, to) = (self.clone(), Arc::clone(from), Arc::clone(to));
            self.world.after(late, label("request again"), bytes.clone(), move || {
                if let Some(server) = network.reach(&from, &to) {
                    let _ = Self::dispatch(&server, &bytes);
                }
            });
        }
        let reply = loop {
            tokio::select! {
                biased;
                reply = &mut answer => break reply.map_err(|_| lost("server died"))?,
                () = clock::sleep(LOOK_EVERY) => {}
            }
            if !self.still(from, to, &server) {
                return Err(lost("cut off"));
            }
        };
        if !self.still(from, to, &server) {
            return Err(lost("cut off"));
        }
        let fate = self.fate(to, from, false);
        let bytes = codec::encode(&reply);
        self.travel(
            fate.delay,
            Label { kind: "reply", from: Arc::clone(to), at: Arc::clone(from) },
            bytes.clone(),
        )
        .await;
        if fate.lost {
            return Err(lost("reply lost"));
        }
        codec::decode(&bytes, FRAME_BYTES_MAX).map_err(|error| lost(&error.to_string()))
    }

    async fn travel(&self, delay: Duration, label: Label, bytes: Bytes) {
        let (arrived, arrival) = oneshot::channel();
        self.world.after(delay, label, bytes, move || {
            let _ = arrived.send(());
        });
        let _ = arrival.await;
    }

    fn dispatch(server: &Server, bytes: &Bytes) -> Result<oneshot::Receiver<Reply>, String> {
        let request = codec::decode(bytes, FRAME_BYTES_MAX).map_err(|error| error.to_string())?;
        let (sender, receiver) = oneshot::channel();
        server.serve(request, sender);
        Ok(receiver)
    }

    fn post(&self, from: &Name, me: NodeId, to: &Name, peer: NodeId, message: &Message) {
        let label = |kind| Label { kind, from: Arc::clone(from), at: Arc::clone(to) };
        lock(&self.state).messages += 1;
        let sender = lock(&self.state).servers.get(from).cloned();
        let Some(server) = self.reach(from, to) else {
            let Some(inbox) = sender.and_then(|sender| sender.inbox.clone()) else { return };
            let delay = self.unreachable_delay(from, to);
            self.world.after(delay, label("unreachable"), Bytes::new(), move || inbox.unreachable(peer));
            return;
        };
        if sender.is_none() {
            // The last words of a server that was just cut off.
            return;
        }
        let is_request = !is_answer(&message.body);
        let fate = self.fate(from, to, is_request);
        if fate.lost {
            return;
        }
        let bytes = codec::encode(message);
        let arrivals = std::iter::once(fate.delay).chain(fate.again.map(|late| fate.delay + late));
        for delay in arrivals {
            let (network, server) = (self.clone(), Arc::clone(&server));
            let (from, to, bytes) = (Arc::clone(from), Arc::clone(to), bytes.clone());
            let label = label(kind_of(&message.body));
            self.world.after(delay, label, bytes.clone(), move || {
                let alive =
                    lock(&network.state).servers.get(&to).is_some_and(|now| Arc::ptr_eq(now, &server));
                if !alive || (!is_request && !network.still(&from, &to, &server)) {
                    return;
                }
                let message = codec::decode(&bytes, FRAME_BYTES_MAX);
                if let (Some(inbox), Ok(message)) = (&server.inbox, message) {
                    inbox.deliver(me, message);
                }
            });
        }
    }
}

fn is_answer(body: &Body) -> bool {
    matches!(
        body,
        Body::PreVoteReply { .. }
            | Body::VoteReply { .. }
            | Body::AppendReply { .. }
            | Body::ChunkReply { .. }
    )
}

fn kind_of(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "pre-vote",
        Body::PreVoteReply { .. } => "pre-vote reply",
        Body::Vote { .. } => "vote",
        Body::VoteReply { .. } => "vote reply",
        Body::Append { entries, .. } if entries.is_empty() => "heartbeat",
        Body::Append { .. } => "append",
        Body::AppendReply { .. } => "append reply",
        Body::Chunk(_) => "chunk",
        Body::ChunkReply { .. } => "chunk reply",
    }
}

/// A replica's way to its peers.
pub struct PeerTransport {
    /// The network.
    pub network: Network,
    /// The replica's name on it.
    pub from: Name,
    /// The replica.
    pub me: NodeId,
    /// Its peers' names.
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
    /// The network.
    pub network: Network,
    /// The caller's name on it.
    pub from: Name,
    /// Whether the calling server still lives; clients always do.
    pub alive: Option<Arc<AtomicBool>>,
}

impl Calls {
    async fn within(&self, to: &Address, request: Request, deadline: Duration) -> Result<Reply, CallError> {
        if self.alive.as_ref().is_some_and(|alive| !alive.load(Ordering::Relaxed)) {
            // A dead server's task on its way out.
            return std::future::pending().await;
        }
        let name: Name = to.as_str().into();
        let late = || CallError::Lost { address: to.clone(), why: "deadline".to_owned() };
        let call = self.network.call(&self.from, &name, &request);
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
    ) -> BoxFuture<'a, Result<Result<KvReply, KvRefusal>, CallError>> {
        Box::pin(async move {
            match self.within(to, Request::Kv(group, request), deadline).await? {
                Reply::Kv(reply) => Ok(reply),
                _ => Err(odd(to)),
            }
        })
    }

    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        request: CtrlRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<Result<CtrlReply, CtrlRefusal>, CallError>> {
        Box::pin(async move {
            match self.within(to, Request::Ctrl(request), deadline).await? {
                Reply::Ctrl(reply) => Ok(reply),
                _ => Err(odd(to)),
            }
        })
    }
}

#[cfg(test)]
mod tests;
