//! The connection to one peer: a queue bounded in bytes, and the task that writes its content.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::backoff::BackOff;
use base::socket::wire::FrameWriter;
use base::socket::{DialError, Hello, Purpose, admit_answer, dial};
use base::{clock, seed};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;

use super::{BATCH_MESSAGES_MAX, Batch, Side, graciously};
use crate::core::message::Message;
use crate::types::NodeId;

/// First and longest rest of a lane that failed.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(1);

/// The messages that wait for one peer.
pub(super) struct Lane {
    queue: Mutex<Queue>,
    bytes_max: usize,
    filled: Notify,
    peer_is_back: Notify,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// The lane failed a moment ago: it takes no messages.
    resting: bool,
}

impl Lane {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { queue: Mutex::default(), bytes_max, filled: Notify::new(), peer_is_back: Notify::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room. A message larger than the bound has room in an empty queue.
    pub(super) fn push(&self, message: Message) -> bool {
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
    pub(super) fn take(&self, bytes_max: usize) -> (Vec<Message>, usize) {
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

    /// Drops the queue, and all messages until [`Lane::wake`]. Returns how many were dropped.
    pub(super) fn rest(&self) -> usize {
        let mut queue = self.queue();
        let dropped = queue.messages.len();
        *queue = Queue { resting: true, ..Queue::default() };
        dropped
    }

    pub(super) fn wake(&self) {
        self.queue().resting = false;
    }

    /// A connection came from the peer.
    pub(super) fn peer_is_back(&self) {
        self.peer_is_back.notify_one();
    }
}

/// A connection to the peer.
struct Link {
    frames: FrameWriter,
    /// The process at its other end.
    boot: u64,
    /// The key of the cluster, as far as this server knew it when it introduced itself.
    key: u64,
}

/// The task of a lane.
pub(super) struct Sender {
    side: Arc<Side>,
    lane: Arc<Lane>,
    peer: NodeId,
    address: String,
    purpose: Purpose,
    jitter: StdRng,
    /// Rests after failures; short again after a frame that was taken.
    back_off: BackOff,
    /// The last failure reported; each is logged once.
    trouble: Option<String>,
}

impl Sender {
    pub(super) fn new(
        side: &Arc<Side>,
        lane: Arc<Lane>,
        peer: NodeId,
        address: String,
        purpose: Purpose,
        seed: u64,
    ) -> Self {
        let jitter = StdRng::seed_from_u64(seed::derive(seed, &format!("{purpose:?} {peer}")));
        let back_off = BackOff::new(REST_MIN, REST_MAX);
        Self { side: Arc::clone(side), lane, peer, address, purpose, jitter, back_off, trouble: None }
    }

    pub(super) async fn run(mut self) {
        let mut link: Option<Link> = None;
        loop {
            if let Some(open) = &mut link {
                tokio::select! {
                    biased;
                    () = open.frames.closed() => {
                        // The last write may never have been read.
                        link = None;
                        self.side.inbox.unreachable(self.peer);
                    }
                    () = self.wait() => {}
                }
            }
            if link.is_none() {
                self.wait().await;
            }
            let open = match link.take().filter(|link| self.still_fits(link)) {
                Some(open) => Ok(open),
                None => self.connect().await,
            };
            let outcome = match open {
                Ok(mut open) => self.deliver(&mut open.frames).await.map(|()| open),
                Err(why) => Err(why),
            };
            match outcome {
                Ok(open) => {
                    link = Some(open);
                    self.back_off.reset();
                    if self.trouble.take().is_some() {
                        tracing::info!(peer = %self.peer, lane = ?self.purpose, "peer reached again");
                    }
                }
                Err(why) => self.rest(why).await,
            }
        }
    }

    /// Waits until there is something to send. The control lane also sends after a while without
    /// messages, to show that this process runs.
    async fn wait(&self) {
        if self.purpose == Purpose::PeerControl {
            let beat = self.side.limits.alive_timeout / 4;
            let _ = clock::timeout(beat, self.lane.wait_filled()).await;
        } else {
            self.lane.wait_filled().await;
        }
    }

    /// Whether the other end of a connection is still the process that is heard, and whether this
    /// server would still introduce itself the same way.
    fn still_fits(&self, link: &Link) -> bool {
        let alive = self.side.alive.boot(self.peer);
        alive.is_none_or(|alive| alive == link.boot) && self.side.here.key.on_wire() == link.key
    }

    fn hello(&self) -> Hello {
        let here = &self.side.here;
        Hello {
            cluster: here.cluster.clone(),
            key: here.key.on_wire(),
            purpose: self.purpose,
            group: here.group,
            from: here.node,
            to: self.peer.0,
            incarnation: here.incarnation,
            boot: here.boot,
            founders: here.founders,
            ..Hello::default()
        }
    }

    async fn connect(&self) -> Result<Link, String> {
        let (side, hello) = (&self.side, self.hello());
        let refused = |why: String| {
            side.refusals.set_refused_by(&self.address, Some(why.clone()));
            why
        };
        let dialed = dial(&self.address, &hello, side.limits.connect_timeout).await;
        let (stream, welcome) = dialed.map_err(|error| match error {
            DialError::Refused(why) => {
                side.counters.refused.fetch_add(1, Ordering::Relaxed);
                refused(why)
            }
            error => error.to_string(),
        })?;
        let judge = || admit_answer(&hello, &welcome, &side.here, &side.known(self.peer, true));
        if let Err(refusal) = graciously(judge).await {
            side.count(&refusal);
            return Err(refused(refusal.to_string()));
        }
        side.meet(self.peer, welcome.incarnation);
        side.refusals.set_refused_by(&self.address, None);
        let stream = stream.with_frame_bytes_max(side.limits.frame_bytes_max);
        let frames = FrameWriter::new(stream, side.limits.stall_timeout);
        Ok(Link { frames, boot: welcome.boot, key: hello.key })
    }

    async fn deliver(&self, link: &mut FrameWriter) -> Result<(), String> {
        let (batch, _) = self.lane.take(self.side.limits.batch_bytes_max);
        let count = batch.len() as u64;
        link.write(&Batch(batch)).await.map_err(|error| {
            self.side.counters.dropped.fetch_add(count, Ordering::Relaxed);
            error.to_string()
        })
    }

    /// After a failure: drops everything, tells the core, and tries nothing for a while.
    async fn rest(&mut self, why: String) {
        let dropped = self.lane.rest();
        self.side.counters.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        self.side.inbox.unreachable(self.peer);
        if self.trouble.as_ref() != Some(&why) {
            tracing::warn!(peer = %self.peer, address = self.address, lane = ?self.purpose, why, "peer not reached");
            self.trouble = Some(why);
        }
        let rest = self.back_off.pause(&mut self.jitter);
        tokio::select! {
            biased;
            () = self.lane.peer_is_back.notified() => {}
            () = clock::sleep(rest) => {}
        }
        self.lane.wake();
    }
}
