//! How messages reach other servers. A transport may lose, duplicate, delay and reorder. It must
//! not block its caller, and it must keep only a bounded number of bytes for each peer.

mod alive;
pub mod memory;
pub mod tcp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::core::message::Message;
use crate::types::NodeId;

/// The sending half, held by the driver. The receiving half is an [`Inbox`].
pub trait Transport: Send + Sync {
    /// Sends `message` to `to`, or drops it. Never blocks. The core learns of a noticed drop
    /// through [`Inbox::unreachable`].
    fn send(&self, to: NodeId, message: Message);
}

/// An arrival at a replica.
#[derive(Debug)]
pub enum Incoming {
    /// A peer's message.
    Message(NodeId, Message),
    /// A message to that peer was dropped, or its connection broke.
    Unreachable(NodeId),
}

/// Where a transport puts arrivals. Cheap to clone; bounded in messages and in bytes.
#[derive(Clone, Debug)]
pub struct Inbox {
    queue: mpsc::Sender<Incoming>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    dropped: Arc<AtomicU64>,
}

/// The driver's end of an [`Inbox`].
#[derive(Debug)]
pub struct Mailbox {
    queue: mpsc::Receiver<Incoming>,
    bytes: Arc<AtomicUsize>,
}

/// An inbox and its mailbox, for at most `messages_max` messages of `bytes_max` bytes together.
pub fn mailbox(messages_max: usize, bytes_max: usize) -> (Inbox, Mailbox) {
    let (sender, receiver) = mpsc::channel(messages_max);
    let bytes = Arc::new(AtomicUsize::new(0));
    let inbox = Inbox { queue: sender, bytes: Arc::clone(&bytes), bytes_max, dropped: Arc::default() };
    (inbox, Mailbox { queue: receiver, bytes })
}

impl Inbox {
    /// Delivers a message from `from`. If the replica lags by more than the bounds the message is
    /// dropped and counted; Raft repeats what matters.
    pub fn deliver(&self, from: NodeId, message: Message) {
        let weight = message.weight();
        let waiting = self.bytes.fetch_add(weight, Ordering::Relaxed);
        if waiting > self.bytes_max || self.queue.try_send(Incoming::Message(from, message)).is_err() {
            self.bytes.fetch_sub(weight, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells the core that a message to `peer` was lost.
    pub fn unreachable(&self, peer: NodeId) {
        let _ = self.queue.try_send(Incoming::Unreachable(peer));
    }

    /// Messages dropped because the replica lagged.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Mailbox {
    /// The next arrival; none when every inbox is gone.
    pub async fn receive(&mut self) -> Option<Incoming> {
        let incoming = self.queue.recv().await;
        incoming.inspect(|incoming| self.taken(incoming))
    }

    /// The next arrival if one is there.
    pub fn try_receive(&mut self) -> Option<Incoming> {
        self.queue.try_recv().ok().inspect(|incoming| self.taken(incoming))
    }

    fn taken(&self, incoming: &Incoming) {
        if let Incoming::Message(_, message) = incoming {
            self.bytes.fetch_sub(message.weight(), Ordering::Relaxed);
        }
    }
}
