//! Peers over TCP.
//!
//! To each peer lead two lanes with a connection each: `control`, and `bulk` for snapshot chunks, which
//! are big and may wait. A lane is a queue bounded in bytes and a task that writes whatever is queued, up to
//! a limit, as one frame: what is said while a frame is on its way out travels together in the next, and
//! messages of a lane arrive in the order they were sent.
//!
//! Frames go one way. Raft's messages are one-way and name what they answer, so an answer to each frame
//! would tell nobody anything, and would cost both ends a wake-up and a packet: this is why peers do not
//! speak tarpc, which answers every request.
//!
//! When a dial or a write fails, when the peer takes nothing for two seconds, or when it closes the connection,
//! what was on its way may be lost: the core is told that the peer is unreachable. What the lane still holds
//! is dropped then, and the lane rests for 50 ms at first, up to a second later, with jitter; what is sent
//! meanwhile is dropped as well, so that nobody is flooded with stale messages on return. A connection
//! *from* the peer ends the rest: evidently it is back.
//!
//! Both ends say who they are, once per connection (rule 48), and with which data: a server that comes
//! back with other data than it had voted with is refused (rule 32). [`Peers`] remembers.
//!
//! Left out on purpose: membership that changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::socket::wire::{FrameReader, FrameWriter};
use base::socket::{Arrival, FRAME_BYTES_MAX, Hello, Here, Service, dial};
use base::{clock, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{Inbox, Transport};
use crate::core::message::Message;
use crate::types::NodeId;

/// Messages of one frame.
const BATCH_MESSAGES_MAX: usize = 1024;

/// First and longest rest of a lane that failed.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(1);

/// A peer's connection that is silent for so long is closed. A leader is heard many times a second;
/// the others dial again when they have something to say.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Remembers with which data each peer was met (correctness rule 32).
pub trait Peers: Send + Sync {
    /// Takes note of `from`'s incarnation, durably if it is the first one met.
    ///
    /// # Errors
    /// In words, when `from` was met with another incarnation before.
    fn check(&self, from: NodeId, incarnation: u64) -> Result<(), String>;
}

/// Bounds of a [`TcpTransport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes queued for a peer, ordinary messages. Default 64 MiB.
    pub control_bytes_max: usize,
    /// Bytes queued for a peer, snapshot chunks. Default 8 MiB.
    pub bulk_bytes_max: usize,
    /// Bytes of the messages of one frame; a larger message travels alone. Default 4 MiB.
    pub batch_bytes_max: usize,
    /// Bytes of one frame; it must fit the largest message. Default 72 MiB.
    pub frame_bytes_max: usize,
    /// Time for a connection and its handshake. Default 1 s.
    pub connect_timeout: Duration,
    /// A connection that takes nothing for so long has failed. Default 2 s.
    pub stall_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            control_bytes_max: 64 * MIB,
            bulk_bytes_max: 8 * MIB,
            batch_bytes_max: 4 * MIB,
            frame_bytes_max: FRAME_BYTES_MAX,
            connect_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(2),
        }
    }
}

/// Who talks to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This replica: cluster, group, node, incarnation of its data.
    pub here: Here,
    /// The addresses of the group's servers; this one's own is not used.
    pub members: BTreeMap<NodeId, String>,
    /// Bounds.
    pub limits: Limits,
    /// Seed of the jitter.
    pub seed: u64,
}

/// What one frame carries, in the order it was sent.
#[derive(Debug, Serialize, Deserialize)]
struct Batch(#[serde(deserialize_with = "base::codec::bounded::<BATCH_MESSAGES_MAX, _, _>")] Vec<Message>);

/// [`Transport`] over TCP. Dropping it ends its connections to peers.
pub struct TcpTransport {
    here: Here,
    peers: Arc<dyn Peers>,
    inbox: Inbox,
    lanes: BTreeMap<NodeId, Lanes>,
    counters: Arc<Counters>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

struct Lanes {
    control: Arc<Lane>,
    bulk: Arc<Lane>,
}

#[derive(Default)]
struct Counters {
    dropped: AtomicU64,
    refused: AtomicU64,
}

impl TcpTransport {
    /// Starts the lanes, on the runtime of the caller. Connections are made when there is something to say.
    pub fn start(settings: Settings, peers: Arc<dyn Peers>, inbox: Inbox) -> Self {
        let mut lanes = BTreeMap::new();
        let mut tasks = Vec::new();
        let counters: Arc<Counters> = Arc::default();
        for (&peer, address) in settings.members.iter().filter(|(member, _)| member.0 != settings.here.node) {
            let mut start = |service, bytes_max| {
                let lane = Arc::new(Lane::new(bytes_max));
                let name = format!("{service:?} {peer}");
                let sender = Sender {
                    lane: Arc::clone(&lane),
                    peer,
                    address: address.clone(),
                    hello: hello(&settings.here, peer, service),
                    limits: settings.limits,
                    peers: Arc::clone(&peers),
                    inbox: inbox.clone(),
                    counters: Arc::clone(&counters),
                    jitter: StdRng::seed_from_u64(seed::derive(settings.seed, &name)),
                    failures: 0,
                    trouble: None,
                };
                tasks.push(AbortOnDropHandle::new(tokio::spawn(sender.run())));
                lane
            };
            let control = start(Service::PeerControl, settings.limits.control_bytes_max);
            let bulk = start(Service::PeerBulk, settings.limits.bulk_bytes_max);
            lanes.insert(peer, Lanes { control, bulk });
        }
        Self { here: settings.here, peers, inbox, lanes, counters, _tasks: tasks }
    }

    /// Messages dropped on their way out: no connection, or a full queue.
    pub fn dropped(&self) -> u64 {
        self.counters.dropped.load(Ordering::Relaxed)
    }

    /// Connections that failed because one side refused the other (correctness rules 32, 48).
    pub fn refused(&self) -> u64 {
        self.counters.refused.load(Ordering::Relaxed)
    }

    /// Serves a peer's connection until it ends; refuses who is not a peer of this replica.
    pub async fn serve_peer(&self, arrival: Arrival) {
        let hello = arrival.hello();
        let from = NodeId(hello.from);
        let Some(lanes) = self.lanes.get(&from) else {
            let why = format!("server {from} is not a member of this group");
            return self.refuse(arrival, why).await;
        };
        // Whether the caller means this server comes first: nothing is remembered of strangers.
        let mismatch = self.here.mismatch(hello);
        let mismatch = mismatch.or_else(|| self.peers.check(from, hello.incarnation).err());
        if let Some(why) = mismatch {
            return self.refuse(arrival, why).await;
        }
        let Some(stream) = arrival.admit(&self.here).await else { return };
        lanes.control.peer_is_back.notify_one();
        lanes.bulk.peer_is_back.notify_one();
        let mut frames = FrameReader::<Batch>::new(stream);
        while let Some(batch) = frames.next(IDLE_MAX).await {
            for message in batch.0 {
                self.inbox.deliver(from, message);
            }
        }
    }

    async fn refuse(&self, arrival: Arrival, why: String) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        arrival.refuse(why).await;
    }
}

impl Transport for TcpTransport {
    fn send(&self, to: NodeId, message: Message) {
        let Some(lanes) = self.lanes.get(&to) else { return };
        let lane = if message.is_bulk() { &lanes.bulk } else { &lanes.control };
        if !lane.push(message) {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            self.inbox.unreachable(to);
        }
    }
}

fn hello(here: &Here, to: NodeId, service: Service) -> Hello {
    Hello {
        cluster: here.cluster.clone(),
        service,
        group: here.group,
        from: here.node,
        to: to.0,
        incarnation: here.incarnation,
        boot: here.boot,
        founders: here.founders,
        key: here.key.get(),
        ..Hello::default()
    }
}

/// What waits for one peer.
struct Lane {
    queue: Mutex<Queue>,
    bytes_max: usize,
    filled: Notify,
    peer_is_back: Notify,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// The lane failed a moment ago: nothing is taken in.
    resting: bool,
}

impl Lane {
    fn new(bytes_max: usize) -> Self {
        Self { queue: Mutex::default(), bytes_max, filled: Notify::new(), peer_is_back: Notify::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room. A message larger than the bound has room in an empty queue.
    fn push(&self, message: Message) -> bool {
        let weight = message.weight();
        let mut queue = self.queue();
        let was_empty = queue.messages.is_empty();
        if queue.resting || (!was_empty && queue.bytes + weight > self.bytes_max) {
            return false;
        }
        queue.bytes += weight;
        queue.messages.push_back(message);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
        true
    }

    async fn wait_filled(&self) {
        while self.queue().messages.is_empty() {
            self.filled.notified().await;
        }
    }

    /// The oldest messages, at least one if there is any, and their bytes.
    fn take(&self, bytes_max: usize) -> (Vec<Message>, usize) {
        let mut queue = self.queue();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(message) = queue.messages.front() {
            let weight = message.weight();
            if batch.len() == BATCH_MESSAGES_MAX || (!batch.is_empty() && bytes + weight > bytes_max) {
                break;
            }
            bytes += weight;
            batch.extend(queue.messages.pop_front());
        }
        queue.bytes -= bytes;
        (batch, bytes)
    }

    /// Drops what waits, and all that comes until [`Lane::wake`]. Returns how many were dropped.
    fn rest(&self) -> usize {
        let mut queue = self.queue();
        let dropped = queue.messages.len();
        *queue = Queue { resting: true, ..Queue::default() };
        dropped
    }

    fn wake(&self) {
        self.queue().resting = false;
    }
}

/// The task of a lane.
struct Sender {
    lane: Arc<Lane>,
    peer: NodeId,
    address: String,
    hello: Hello,
    limits: Limits,
    peers: Arc<dyn Peers>,
    inbox: Inbox,
    counters: Arc<Counters>,
    jitter: StdRng,
    /// Failures since the last frame that was taken.
    failures: u32,
    /// The last failure reported; each is logged once.
    trouble: Option<String>,
}

impl Sender {
    async fn run(mut self) {
        let mut link: Option<FrameWriter> = None;
        loop {
            if let Some(open) = &mut link {
                tokio::select! {
                    biased;
                    () = open.closed() => {
                        // What was written last may never have been read.
                        link = None;
                        self.inbox.unreachable(self.peer);
                    }
                    () = self.lane.wait_filled() => {}
                }
            }
            self.lane.wait_filled().await;
            let open = match link.take() {
                Some(open) => Ok(open),
                None => self.connect().await,
            };
            let outcome = match open {
                Ok(mut open) => self.deliver(&mut open).await.map(|()| open),
                Err(why) => Err(why),
            };
            match outcome {
                Ok(open) => {
                    link = Some(open);
                    self.failures = 0;
                    if self.trouble.take().is_some() {
                        tracing::info!(peer = %self.peer, lane = ?self.hello.service, "peer reached again");
                    }
                }
                Err(why) => self.rest(why).await,
            }
        }
    }

    async fn connect(&self) -> Result<FrameWriter, String> {
        let dialed = dial(&self.address, &self.hello, self.limits.connect_timeout).await;
        let (stream, welcome) = dialed.map_err(|error| {
            if let base::socket::DialError::Refused(_) = error {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
            }
            error.to_string()
        })?;
        self.peers.check(self.peer, welcome.incarnation).inspect_err(|_| {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        let stream = stream.with_frame_bytes_max(self.limits.frame_bytes_max);
        Ok(FrameWriter::new(stream, self.limits.stall_timeout))
    }

    async fn deliver(&self, link: &mut FrameWriter) -> Result<(), String> {
        let (batch, _) = self.lane.take(self.limits.batch_bytes_max);
        let count = batch.len() as u64;
        link.write(&Batch(batch)).await.map_err(|error| {
            self.counters.dropped.fetch_add(count, Ordering::Relaxed);
            error.to_string()
        })
    }

    /// After a failure: everything is dropped, the core is told, and for a while nothing is tried.
    async fn rest(&mut self, why: String) {
        let dropped = self.lane.rest();
        self.counters.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        self.inbox.unreachable(self.peer);
        if self.trouble.as_ref() != Some(&why) {
            let lane = self.hello.service;
            tracing::warn!(peer = %self.peer, address = self.address, ?lane, why, "peer not reached");
            self.trouble = Some(why);
        }
        let longest = REST_MIN.saturating_mul(1 << self.failures.min(10)).min(REST_MAX);
        self.failures = self.failures.saturating_add(1);
        let rest = longest.mul_f64(self.jitter.random_range(0.5..1.0));
        tokio::select! {
            biased;
            () = self.lane.peer_is_back.notified() => {}
            () = clock::sleep(rest) => {}
        }
        self.lane.wake();
    }
}

#[cfg(test)]
mod tests;
