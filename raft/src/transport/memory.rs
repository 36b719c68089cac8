//! A network between the servers of one process, for examples and tests.
//!
//! Messages arrive at once, or are lost. Left out on purpose: delays, duplicates and disorder,
//! which are the simulator's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Inbox, Mailbox, Transport, mailbox};
use crate::core::message::Message;
use crate::types::NodeId;

/// Limits of each server's mailbox.
const MAILBOX_MESSAGES: usize = 1024;
const MAILBOX_BYTES: usize = 1 << 20;

/// Whether a message is lost: from, to, message.
type Loses = Box<dyn Fn(NodeId, NodeId, &Message) -> bool + Send>;

#[derive(Default)]
struct Wires {
    inboxes: BTreeMap<NodeId, Inbox>,
    loses: Option<Loses>,
}

/// The network. Clones share it.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Wires>>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Network").field(&self.with(|wires| wires.inboxes.len())).finish()
    }
}

/// One server's access.
struct Link {
    from: NodeId,
    network: Network,
}

impl Network {
    /// Connects a server, in the place of an earlier one with the same id.
    pub fn join(&self, me: NodeId) -> (Arc<dyn Transport>, Mailbox) {
        let (inbox, mailbox) = mailbox(MAILBOX_MESSAGES, MAILBOX_BYTES);
        self.with(|wires| wires.inboxes.insert(me, inbox));
        (Arc::new(Link { from: me, network: self.clone() }), mailbox)
    }

    /// Disconnects a server.
    pub fn leave(&self, me: NodeId) {
        self.with(|wires| wires.inboxes.remove(&me));
    }

    /// From now on every message is lost for which `loses(from, to, message)` is true.
    pub fn lose(&self, loses: impl Fn(NodeId, NodeId, &Message) -> bool + Send + 'static) {
        self.with(|wires| wires.loses = Some(Box::new(loses)));
    }

    /// From now on no message is lost.
    pub fn heal(&self) {
        self.with(|wires| wires.loses = None);
    }

    fn with<T>(&self, run: impl FnOnce(&mut Wires) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Transport for Link {
    fn send(&self, to: NodeId, message: Message) {
        self.network.with(|wires| {
            let is_lost = wires.loses.as_ref().is_some_and(|loses| loses(self.from, to, &message));
            if let Some(inbox) = wires.inboxes.get(&to).filter(|_| !is_lost) {
                inbox.deliver(self.from, message);
            }
        });
    }
}
