//! When a request got how far on its way through a replica: for the caller that finds it slow.
//!
//! A mark costs an addition to memory and, at most once a command and once a round, a look at the
//! clock. The caller keeps the marks, so it has them also if no answer comes in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::clock::{self, Instant};

/// A part of a request's way. Each begins where the one before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has a place in the leader's log.
    Placed,
    /// This server's own save is durable.
    Saved,
    /// A read waits to be confirmed.
    Asked,
    /// It is committed, or a read is confirmed.
    Agreed,
}

impl Step {
    const ALL: [Self; 4] = [Self::Placed, Self::Saved, Self::Asked, Self::Agreed];
}

/// The marks of one request. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Marks(Arc<[AtomicU64; Step::ALL.len()]>);

impl Marks {
    /// It got there now.
    pub(super) fn set(&self, step: Step) {
        self.set_at(step, clock::now());
    }

    /// It got there at `at`. (Zero would mean that it did not.)
    pub(super) fn set_at(&self, step: Step, at: Instant) {
        self.0[step as usize].store(at.as_nanos().max(1), Ordering::Relaxed);
    }

    /// When it got there, in nanoseconds of this process; none, if it did not.
    pub fn nanos(&self, step: Step) -> Option<u64> {
        Some(self.0[step as usize].load(Ordering::Relaxed)).filter(|nanos| *nanos > 0)
    }
}
