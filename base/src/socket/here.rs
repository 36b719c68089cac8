//! The identity of a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The key of a cluster (correctness rule 51), once it is known. Clones share it.
///
/// Messages say 0 while it is not known, and so does the number in here.
#[derive(Clone, Debug, Default)]
pub struct Key(Arc<AtomicU64>);

impl Key {
    /// A key that may be known already.
    pub fn new(key: Option<u64>) -> Self {
        Self::from_wire(key.unwrap_or(0))
    }

    /// A key as a message said it.
    pub fn from_wire(key: u64) -> Self {
        Self(Arc::new(AtomicU64::new(key)))
    }

    /// The key.
    pub fn get(&self) -> Option<u64> {
        Some(self.on_wire()).filter(|key| *key != 0)
    }

    /// The key as messages say it.
    pub fn on_wire(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether a connection on which the other side sent `other` may continue: an unknown key fits
    /// any.
    pub fn fits(&self, other: u64) -> bool {
        fit(self.on_wire(), other)
    }

    /// Stores the key unless one is known; returns the key that is known then.
    pub fn learn(&self, key: u64) -> u64 {
        match self.0.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => key,
            Err(known) => known,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Key {}

/// Whether two numbers of messages are the same, or one of them is not known yet (0).
pub(super) fn fit(one: u64, other: u64) -> bool {
    one == 0 || other == 0 || one == other
}

/// The identity of a server, which a Hello is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    pub cluster: String,
    pub key: Key,
    /// Its group; 0: the controllers.
    pub group: u64,
    pub node: u64,
    /// The incarnation of its data.
    pub incarnation: u64,
    /// Drawn at the start of its process.
    pub boot: u64,
    /// Digest of the members that founded its group.
    pub founders: u64,
}

/// What a connection was let in with. It is judged again with every frame that arrives, because a
/// key may become known later.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) here: Key,
    /// The key that the caller sent.
    pub(super) said: u64,
}

impl Guard {
    pub(super) fn holds(&self) -> bool {
        self.here.fits(self.said)
    }
}
