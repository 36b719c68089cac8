//! Peers over TCP.
//!
//! Each peer has two lanes with a connection each: `control`, and `bulk` for snapshot chunks, which
//! are big and may wait. A lane is a queue bounded in bytes and a task that writes everything
//! queued, up to a limit, as one frame. Messages that come while a frame is being written go
//! together in the next, and messages of a lane arrive in the order they were sent.
//!
//! Frames go one way. Raft's messages are one-way and name what they answer, so an answer to each
//! frame would carry no information, and would cost both ends a wake-up and a packet. This is why
//! peers do not use tarpc, which answers every request.
//!
//! When a dial or a write fails, when the peer reads nothing for two seconds, or when it closes the
//! connection, messages in flight may be lost: the core learns that the peer is unreachable. The
//! lane then drops its queue and rests, for 50 ms at first, up to a second later, with jitter. It
//! also drops messages that come meanwhile, so that a returning peer is not flooded with stale
//! messages. A connection *from* the peer ends the rest: evidently it is back.
//!
//! Both ends say who they are, once per connection, and each judges the other by the same function
//! ([`base::socket::admit`]): a server of another cluster, with other founders, with other data
//! than it had voted with, or a second process of a running server is refused (rules 32, 48, 50,
//! 51, 53). [`Peers`] remembers the data, `Alive` the processes. To show that its process runs, the
//! control lane dials even without messages, and sends something a few times a second.
//!
//! Left out on purpose: membership that changes.

mod lane;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::clock;
use base::socket::wire::FrameReader;
use base::socket::{Arrival, FRAME_BYTES_MAX, Hello, Here, Known, Purpose, Refusal, Refusals, admit};
use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;

use self::lane::{Lane, Sender};
use super::alive::Alive;
use super::{Inbox, Transport};
use crate::core::message::Message;
use crate::types::NodeId;

/// Messages of one frame.
const BATCH_MESSAGES_MAX: usize = 1024;

/// A peer's connection that is silent for this long is closed. A leader sends many times a second;
/// the others dial again when they have something to send.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The end of a killed process's connection may be noticed a moment after its successor's
/// connection arrives.
const GRACE: Duration = Duration::from_millis(50);

/// Remembers the data with which each peer was met (correctness rule 32).
pub trait Peers: Send + Sync {
    /// The incarnation `peer` was met with.
    fn met(&self, peer: NodeId) -> Option<u64>;

    /// Stores the first incarnation that `peer` is met with, durably before it returns.
    fn remember(&self, peer: NodeId, incarnation: u64);
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
    /// A connection that reads nothing for this long has failed. Default 2 s.
    pub stall_timeout: Duration,
    /// A process that was not heard for this long may have ended, and another one may take its
    /// place (correctness rule 53). Peers send something four times as often. Default 1 s, as long
    /// as an election takes.
    pub alive_timeout: Duration,
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
            alive_timeout: Duration::from_secs(1),
        }
    }
}

/// The two sides of the transport.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This replica.
    pub here: Here,
    /// The addresses of the group's servers; this one's own is not used.
    pub members: BTreeMap<NodeId, String>,
    /// Bounds.
    pub limits: Limits,
    /// Seed of the jitter.
    pub seed: u64,
    /// Where refusals are counted, and reported in the status.
    pub refusals: Arc<Refusals>,
}

/// The content of one frame, in the order it was sent.
#[derive(Debug, Serialize, Deserialize)]
struct Batch(#[serde(deserialize_with = "base::codec::bounded::<BATCH_MESSAGES_MAX, _, _>")] Vec<Message>);

/// [`Transport`] over TCP. Dropping it ends its connections to peers.
pub struct TcpTransport {
    side: Arc<Side>,
    lanes: BTreeMap<NodeId, Lanes>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// This server's knowledge of itself and of its peers, shared by all lanes.
struct Side {
    here: Here,
    peers: Arc<dyn Peers>,
    alive: Alive,
    inbox: Inbox,
    limits: Limits,
    refusals: Arc<Refusals>,
    counters: Counters,
}

impl Side {
    fn known(&self, peer: NodeId, is_member: bool) -> Known {
        Known { is_member, incarnation: self.peers.met(peer), boot: self.alive.boot(peer) }
    }

    /// A peer was let in, or let this server in.
    fn meet(&self, peer: NodeId, incarnation: u64) {
        if self.peers.met(peer).is_none() {
            self.peers.remember(peer, incarnation);
        }
    }

    fn count(&self, refusal: &Refusal) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        self.refusals.count(refusal.reason());
    }
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

/// The verdict on a peer, repeated after a moment if it seems to run twice.
async fn graciously(judge: impl Fn() -> Result<(), Refusal>) -> Result<(), Refusal> {
    match judge() {
        Err(Refusal::Twin { .. }) => {
            clock::sleep(GRACE).await;
            judge()
        }
        verdict => verdict,
    }
}

impl TcpTransport {
    /// Starts the lanes, on the runtime of the caller.
    pub fn start(settings: Settings, peers: Arc<dyn Peers>, inbox: Inbox) -> Self {
        let Settings { here, members, limits, seed, refusals } = settings;
        let alive = Alive::new(limits.alive_timeout);
        let side =
            Arc::new(Side { here, peers, alive, inbox, limits, refusals, counters: Counters::default() });
        let mut lanes = BTreeMap::new();
        let mut tasks = Vec::new();
        for (&peer, address) in members.iter().filter(|(member, _)| member.0 != side.here.node) {
            let mut start = |purpose, bytes_max| {
                let lane = Arc::new(Lane::new(bytes_max));
                let sender = Sender::new(&side, Arc::clone(&lane), peer, address.clone(), purpose, seed);
                tasks.push(AbortOnDropHandle::new(tokio::spawn(sender.run())));
                lane
            };
            let control = start(Purpose::PeerControl, limits.control_bytes_max);
            let bulk = start(Purpose::PeerBulk, limits.bulk_bytes_max);
            lanes.insert(peer, Lanes { control, bulk });
        }
        Self { side, lanes, _tasks: tasks }
    }

    /// Messages dropped before they were sent: no connection, or a full queue.
    pub fn dropped(&self) -> u64 {
        self.side.counters.dropped.load(Ordering::Relaxed)
    }

    /// Connections that failed because one side refused the other.
    pub fn refused(&self) -> u64 {
        self.side.counters.refused.load(Ordering::Relaxed)
    }

    fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        let from = NodeId(hello.from);
        admit(hello, &self.side.here, &self.side.known(from, self.lanes.contains_key(&from)))
    }

    /// Serves a peer's connection until it ends; refuses callers that are not peers of this
    /// replica.
    pub async fn serve_peer(&self, arrival: Arrival) {
        let side = &self.side;
        let verdict = graciously(|| self.judge(arrival.hello())).await;
        let Hello { from, incarnation, boot, key, .. } = *arrival.hello();
        let (from, lanes) = match (verdict, self.lanes.get(&NodeId(from))) {
            (Ok(()), Some(lanes)) => (NodeId(from), lanes),
            (verdict, _) => {
                let refusal = verdict.err().unwrap_or(Refusal::NotAMember { from });
                side.counters.refused.fetch_add(1, Ordering::Relaxed);
                return arrival.refuse(&refusal).await;
            }
        };
        // Nothing is remembered of strangers.
        side.meet(from, incarnation);
        let open = side.alive.open(from, boot);
        let Some(stream) = arrival.welcome(&side.here).await else { return };
        lanes.control.peer_is_back();
        lanes.bulk.peer_is_back();
        let mut frames = FrameReader::<Batch>::new(stream);
        while let Some(batch) = frames.next(IDLE_MAX).await {
            // Another process has taken its place, or this server has learned that it belongs to another cluster.
            if !open.heard() || !side.here.key.fits(key) {
                tracing::warn!(peer = %from, boot, "connection closed: the peer has to introduce itself again");
                return;
            }
            for message in batch.0 {
                side.inbox.deliver(from, message);
            }
        }
    }
}

impl Transport for TcpTransport {
    fn send(&self, to: NodeId, message: Message) {
        let Some(lanes) = self.lanes.get(&to) else { return };
        let lane = if message.is_bulk() { &lanes.bulk } else { &lanes.control };
        if !lane.push(message) {
            self.side.counters.dropped.fetch_add(1, Ordering::Relaxed);
            self.side.inbox.unreachable(to);
        }
    }
}

#[cfg(test)]
mod tests;
