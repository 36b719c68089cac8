//! What all pushes to one group share: the room for what is under way to it, and who answered last.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::clock;
use clerk::api::Address;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::machine::copy::CHUNK_BYTES;

/// Bytes of rows under way to one group, all shards together.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 1 << 20;
/// Time for an answer. It is short, because a message may be lost and repeating it is harmless. It
/// grows with the bytes, because a single row may be large.
pub(crate) const CALL: Duration = Duration::from_secs(1);
const CALL_BYTES_PER_SECOND: usize = 8 << 20;
/// A receiver that answered in this time, and not longer ago, is awake.
const AWAKE: Duration = Duration::from_millis(100);

/// State that all pushes to one group share.
pub(crate) struct Receiver {
    /// Bytes in flight to it.
    in_flight: Semaphore,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    /// The server that answered last, or that was named as the leader.
    leader: Option<Address>,
    /// When an answer came, and how long it took.
    newest: Option<(clock::Instant, Duration)>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { in_flight: Semaphore::new(IN_FLIGHT_BYTES_MAX), answers: Mutex::default() }
    }
}

impl Receiver {
    /// Whether a chunk of the usual size may leave now.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.available_permits() >= CHUNK_BYTES
    }

    /// Reserves room for a chunk, now or when its turn comes. A row that is larger than all the
    /// room travels alone.
    pub(crate) async fn room(&self, weight: usize, wait: bool) -> Option<SemaphorePermit<'_>> {
        let permits = u32::try_from(weight.min(IN_FLIGHT_BYTES_MAX)).unwrap_or(u32::MAX);
        if wait {
            self.in_flight.acquire_many(permits).await.ok()
        } else {
            self.in_flight.try_acquire_many(permits).ok()
        }
    }

    /// Time for the answer to a chunk. The receiver handles the bytes under way in order.
    pub(crate) fn time(&self, weight: usize) -> Duration {
        let ahead = IN_FLIGHT_BYTES_MAX - self.in_flight.available_permits();
        CALL + Duration::from_secs(1).mul_f64(ahead.max(weight) as f64 / CALL_BYTES_PER_SECOND as f64)
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn leader(&self) -> Option<Address> {
        self.lock().leader.clone()
    }

    pub(crate) fn set_leader(&self, leader: Option<Address>) {
        self.lock().leader = leader;
    }

    /// A question that was asked at that time was answered now.
    pub(crate) fn answered(&self, asked: clock::Instant) {
        self.lock().newest = Some((clock::now(), asked.elapsed()));
    }

    /// Whether its newest answer was quick, and is new.
    pub(crate) fn is_awake(&self) -> bool {
        self.lock().newest.is_some_and(|(at, took)| at.elapsed() <= AWAKE && took <= AWAKE)
    }
}
