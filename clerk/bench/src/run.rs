//! What all clients of a run share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clerk::kv::Clerk;
use tokio_util::sync::CancellationToken;

use super::measure::Measure;
use super::record::Record;

/// What all clients share.
pub struct Run {
    pub clerk: Clerk,
    /// Part of every key and value.
    pub id: String,
    /// Ends operations in mid-air.
    pub interrupted: CancellationToken,
    pub record: Option<Record>,
    clients: AtomicU64,
    measure: Mutex<Measure>,
}

impl Run {
    pub fn new(clerk: Clerk, id: String, record: Option<Record>, measure: Measure) -> Self {
        let (interrupted, clients) = (CancellationToken::new(), AtomicU64::new(0));
        Self { clerk, id, interrupted, record, clients, measure: Mutex::new(measure) }
    }

    pub fn measure(&self) -> MutexGuard<'_, Measure> {
        self.measure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn new_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed) + 1
    }
}
