//! Counts the bytes that wait on connections (correctness rule 103): of incomplete frames, of
//! requests in progress, and of answers that the other end has not read.
//!
//! Each connection may keep a limited number of them waiting ([`Bounds::connection`]), and have
//! half as many requests as all together; beyond, a request is answered "busy" without being
//! executed. All connections together have a bound too ([`Bounds::server`]), once for what others
//! keep waiting, and once for requests in progress. If others keep more waiting, a connection is
//! closed ([`super::crowd`] says which one), no matter which connection needs the room. If more
//! requests are in progress, new requests are "busy": the server's own work is no reason to close a
//! connection.
//!
//! Left out on purpose: members of the same group. They are few, and their messages have their own
//! limits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{self, Instant};

/// Answers of a connection that may wait when others keep half of the total bound waiting.
const CROWDED_BYTES_MAX: usize = 64 << 10;

/// Bytes that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) connection: usize,
    pub(super) server: usize,
}

/// The bytes of all connections.
#[derive(Debug)]
pub(super) struct Ledger {
    bounds: Bounds,
    /// Bytes that others keep waiting: of incomplete frames and unread answers.
    kept: AtomicUsize,
    /// Bytes of requests in progress.
    requests: AtomicUsize,
}

impl Ledger {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, kept: AtomicUsize::new(0), requests: AtomicUsize::new(0) })
    }

    pub(super) fn total(&self) -> usize {
        self.kept.load(Ordering::Relaxed) + self.requests.load(Ordering::Relaxed)
    }

    /// Whether others keep so little waiting that `bytes` more fit.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        crate::mutant!("waiting-bytes-without-bound", return true);
        self.kept.load(Ordering::Relaxed).saturating_add(bytes) <= self.bounds.server
    }

    /// Whether others keep too much waiting.
    pub(super) fn is_over(&self) -> bool {
        !self.has_room(0)
    }

    fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > self.bounds.server
    }

    fn change(&self, before: (usize, usize), after: (usize, usize)) {
        if before == after {
            return;
        }
        // A sum that wraps around on the way is right at its end.
        self.kept.fetch_add(after.0.wrapping_sub(before.0), Ordering::Relaxed);
        self.requests.fetch_add(after.1.wrapping_sub(before.1), Ordering::Relaxed);
    }
}

/// The bytes of one connection.
#[derive(Debug)]
pub(super) struct Account {
    ledger: Arc<Ledger>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Bytes of an incomplete frame.
    unread: usize,
    unread_since: Option<Instant>,
    /// Bytes of requests in progress.
    requests: usize,
    /// Bytes of answers that were made and not encoded.
    answers: usize,
    /// Bytes of answers that the system has not taken.
    unwritten: usize,
    /// A time not later than the arrival of the oldest of them, and how many there were then.
    unwritten_since: Option<(Instant, usize)>,
    /// The connection must close: its bytes are no longer counted.
    closed: bool,
}

/// A request or an answer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Request,
    Answer,
}

impl Waiting {
    fn of(&mut self, what: What) -> &mut usize {
        match what {
            What::Request => &mut self.requests,
            What::Answer => &mut self.answers,
        }
    }

    fn kept(&self) -> usize {
        self.unread + self.answers + self.unwritten
    }

    /// As the ledger counts it.
    fn counted(&self) -> (usize, usize) {
        if self.closed { (0, 0) } else { (self.kept(), self.requests) }
    }
}

impl Account {
    pub(super) fn new(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::clone(ledger), waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the bytes of this connection, and the total with them; returns whether there are
    /// more than allowed.
    fn change(&self, change: impl FnOnce(&mut Waiting)) -> bool {
        let mut waiting = self.waiting();
        let before = waiting.counted();
        change(&mut waiting);
        let after = waiting.counted();
        self.ledger.change(before, after);
        after.0 > before.0 && self.ledger.is_over()
    }

    /// This much of an incomplete frame has arrived. Returns the same as [`Account::change`].
    pub(super) fn unread(&self, bytes: usize) -> bool {
        self.change(|waiting| {
            waiting.unread = bytes;
            let since = waiting.unread_since.filter(|_| bytes > 0);
            waiting.unread_since = (bytes > 0).then(|| since.unwrap_or_else(clock::now));
        })
    }

    /// A request came, or an answer was made.
    pub(super) fn add(&self, what: What, bytes: usize) -> bool {
        self.change(|waiting| *waiting.of(what) += bytes)
    }

    /// It is gone.
    pub(super) fn remove(&self, what: What, bytes: usize) {
        self.change(|waiting| *waiting.of(what) = waiting.of(what).saturating_sub(bytes));
    }

    /// This much more is to be written.
    pub(super) fn unwritten(&self, bytes: usize) -> bool {
        self.change(|waiting| {
            waiting.unwritten += bytes;
            let all = waiting.unwritten;
            waiting.unwritten_since.get_or_insert_with(|| (clock::now(), all));
        })
    }

    /// This much was written.
    pub(super) fn written(&self, bytes: usize) {
        self.change(|waiting| {
            waiting.unwritten = waiting.unwritten.saturating_sub(bytes);
            let left = waiting.unwritten;
            let since = waiting.unwritten_since.map(|(since, old)| (since, old.saturating_sub(bytes)));
            // Everything that waited then is gone: the rest came later.
            let renew =
                |(since, old): (Instant, usize)| if old == 0 { (clock::now(), left) } else { (since, old) };
            waiting.unwritten_since = since.map(renew).filter(|_| left > 0);
        });
    }

    /// Whether this connection keeps as much waiting as one may, or would have half of all requests
    /// with another one of `bytes` bytes, or all connections together have too much.
    pub(super) fn is_full_beside(&self, bytes: usize) -> bool {
        let Bounds { connection, server } = self.ledger.bounds;
        let waiting = self.waiting();
        let others = waiting.requests.saturating_sub(bytes);
        let share = if crate::mutant!("one-connection-takes-all") { server } else { server / 2 };
        let is_full = waiting.kept() >= connection || others >= share;
        is_full || self.ledger.is_over() || self.ledger.is_busy()
    }

    /// Whether making an answer is worthwhile: the connection is open, and keeps less waiting than
    /// it may. The limit is low when others keep much waiting; otherwise readers that take nothing
    /// would have many answers made.
    pub(super) fn awaits_answers(&self) -> bool {
        let Bounds { connection, server } = self.ledger.bounds;
        let max =
            if self.ledger.has_room(server / 2) { connection } else { connection.min(CROWDED_BYTES_MAX) };
        let waiting = self.waiting();
        !waiting.closed && waiting.answers + waiting.unwritten < max
    }

    /// Takes `bytes` for an answer that is about to be made, if there is room. An answer larger
    /// than the bound has room when no other waits.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let Bounds { connection, .. } = self.ledger.bounds;
        let mut waiting = self.waiting();
        let is_first = waiting.answers + waiting.unwritten == 0;
        let fits = is_first || waiting.kept() + bytes <= connection;
        if !fits || !self.ledger.has_room(bytes) {
            return false;
        }
        let before = waiting.counted();
        waiting.answers += bytes;
        self.ledger.change(before, waiting.counted());
        true
    }

    /// How long the other end has kept something waiting, the rest of a frame or an unread answer,
    /// and how many bytes.
    pub(super) fn keeps(&self) -> Option<(Instant, usize)> {
        let waiting = self.waiting();
        let unwritten = waiting.unwritten_since.map(|(since, _)| since);
        let since = waiting.unread_since.into_iter().chain(unwritten).min()?;
        Some((since, waiting.kept()))
    }

    /// The connection must close, and all its bytes with it.
    pub(super) fn close(&self) {
        self.change(|waiting| waiting.closed = true);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Account, Bounds, CROWDED_BYTES_MAX, Ledger, What};
    use crate::clock;

    const BOUNDS: Bounds = Bounds { connection: 10_000, server: 20_000 };

    #[test]
    fn what_waits_is_counted_until_it_is_gone() {
        let ledger = Ledger::new(BOUNDS);
        let (one, other) = (Account::new(&ledger), Account::new(&ledger));
        assert!(!one.unread(5000) && !one.add(What::Request, 2000) && !other.unwritten(8000));
        assert!(!one.is_full_beside(0) && ledger.total() == 15_000);
        assert!(other.add(What::Answer, 7001), "more than all may have");
        assert!(one.is_full_beside(0) && other.is_full_beside(0));
        one.unread(0);
        other.written(7000);
        assert_eq!(ledger.total(), 2000 + 1000 + 7001);
        other.close();
        other.remove(What::Answer, 7001);
        other.unwritten(100);
        assert_eq!(ledger.total(), 2000, "who has to go is not counted");
        assert!(!one.add(What::Request, 30_000) && !ledger.is_over(), "work closes nothing");
        assert!(one.is_full_beside(32_000), "and new requests are busy");
        drop((one, other));
        assert_eq!(ledger.total(), 0);
    }

    #[test]
    fn what_is_worked_on_takes_no_room_of_what_is_kept_waiting_and_no_connection_has_all_of_it() {
        let ledger = Ledger::new(BOUNDS);
        let (one, other) = (Account::new(&ledger), Account::new(&ledger));
        one.add(What::Request, 12_000);
        assert!(!one.is_full_beside(2001), "its answers are taken");
        assert!(one.take(5000) && one.take(5000));
        assert!(one.is_full_beside(2000) && !other.is_full_beside(0), "others have the other half");
    }

    #[test]
    fn room_is_taken_before_something_is_made() {
        let ledger = Ledger::new(BOUNDS);
        let (one, other) = (Account::new(&ledger), Account::new(&ledger));
        assert!(one.take(9000) && !one.take(2000), "more than a connection may have");
        assert!(one.awaits_answers());
        assert!(!one.add(What::Answer, 1000) && !one.awaits_answers(), "as much as one may have");
        one.remove(What::Answer, 1000);
        let gone = Account::new(&ledger);
        gone.close();
        assert!(!gone.awaits_answers());
        assert!(other.take(11_000), "alone, one of any size has room");
        assert!(!Account::new(&ledger).take(1), "more than all may have");
        one.remove(What::Answer, 9000);
        assert!(one.take(9000));
    }

    #[test]
    fn who_has_answers_that_were_not_taken_gets_few_more_when_others_keep_much_waiting() {
        let ledger = Ledger::new(Bounds { connection: 1 << 20, server: 4 << 20 });
        let (one, fresh) = (Account::new(&ledger), Account::new(&ledger));
        assert!(one.take(CROWDED_BYTES_MAX) && one.awaits_answers());
        fresh.unread(2 << 20);
        assert!(!one.awaits_answers() && fresh.awaits_answers());
        one.remove(What::Answer, 1);
        assert!(one.awaits_answers());
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_of_what_waits_is_that_of_its_oldest_byte() {
        let account = Account::new(&Ledger::new(BOUNDS));
        let second = || clock::sleep(Duration::from_secs(1));
        let age = || account.keeps().map(|(since, _)| since.elapsed().as_secs());
        assert_eq!(age(), None);
        account.unwritten(100);
        second().await;
        account.unwritten(100);
        account.written(99);
        assert_eq!(age(), Some(1));
        account.written(2);
        assert_eq!(age(), Some(0), "the first hundred are gone");
        second().await;
        account.written(99);
        assert_eq!(age(), None);
        account.unread(1);
        second().await;
        account.unread(50);
        assert_eq!(age(), Some(1));
        account.unread(0);
        assert_eq!(age(), None);
    }
}
