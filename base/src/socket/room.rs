//! Room for answers on a connection (correctness rule 103), for code that makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::crowd::{Crowd, Seat};
use super::ledger::Bounds;

/// The room for answers on a connection; unlimited by default.
#[derive(Clone, Debug, Default)]
pub struct Room(Option<Arc<Seat>>);

impl Room {
    pub(super) fn of(seat: Option<Arc<Seat>>) -> Self {
        Self(seat)
    }

    /// Room for `bytes` bytes, of a connection that nobody reads.
    pub fn bounded(bytes: usize) -> Self {
        let crowd = Crowd::new(|_| 0, Bounds { connection: bytes, server: usize::MAX });
        Self(Some(Arc::new(Seat::new(&crowd))))
    }

    /// Room for one answer.
    pub fn reservation(&self) -> Reservation {
        Reservation(Arc::new(Reserved { seat: self.0.clone(), bytes: AtomicUsize::new(0) }))
    }
}

/// Room for one answer. Taken room is given back when the last clone is dropped.
#[derive(Clone, Debug, Default)]
pub struct Reservation(Arc<Reserved>);

#[derive(Debug, Default)]
struct Reserved {
    seat: Option<Arc<Seat>>,
    bytes: AtomicUsize,
}

impl Reservation {
    /// Whether a caller awaits the answer, and has any room. Check this before reading something
    /// large.
    pub fn is_awaited(&self) -> bool {
        self.0.seat.as_ref().is_none_or(|seat| seat.awaits_answers())
    }

    /// Takes room for an answer of `bytes` bytes, which is about to be made; returns whether there
    /// was room.
    pub fn take(&self, bytes: usize) -> bool {
        let Some(seat) = &self.0.seat else { return true };
        let is_taken = seat.take(bytes);
        if is_taken {
            self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        is_taken
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            seat.give_back(self.bytes.load(Ordering::Relaxed));
        }
    }
}
