//! The identity of a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The key of a cluster (correctness rule 51), once it is known; 0 until then. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Key(Arc<AtomicU64>);

impl Key {
    /// A key that is already known (0: not yet).
    pub fn new(key: u64) -> Self {
        Self(Arc::new(AtomicU64::new(key)))
    }

    /// The key; 0 while it is not known.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether a connection on which the other side sent `other` may continue: an unknown key fits
    /// any.
    pub fn fits(&self, other: u64) -> bool {
        fit(self.get(), other)
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

/// Whether two numbers are the same, or one of them is not known yet (0).
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
