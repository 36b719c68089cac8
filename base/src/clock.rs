//! The only access to time.
//!
//! Production code never calls `tokio::time` itself: it sleeps, times out and reads the time here.
//! In production these are tokio's own functions. In a simulation tokio's clock is paused and moves
//! only when every task is idle, in steps of a millisecond. One virtual microsecond is then one
//! tokio millisecond ([`simulate`]), so that delays well below a millisecond differ.

use std::cell::Cell;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant as TokioInstant;

/// How much slower tokio's clock runs in a simulation: 1 virtual us = 1 tokio ms.
const SIMULATED_SCALE: u32 = 1000;

thread_local! {
    static SIMULATED: Cell<Option<TokioInstant>> = const { Cell::new(None) };
}
static EPOCH: OnceLock<TokioInstant> = OnceLock::new();

/// Time since an epoch of this process (in a simulation: of this run). Monotonic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// Nanoseconds since the epoch.
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Time elapsed since `earlier`; zero when `earlier` is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Time elapsed since this instant.
    pub fn elapsed(self) -> Duration {
        now().since(self)
    }

    /// This instant plus `delay`.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }
}

/// The present.
pub fn now() -> Instant {
    match SIMULATED.get() {
        Some(epoch) => Instant(epoch.elapsed() / SIMULATED_SCALE),
        None => Instant(EPOCH.get_or_init(TokioInstant::now).elapsed()),
    }
}

/// Milliseconds since 1970, for people: it may jump, and nothing is decided by it.
pub fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn scaled(delay: Duration) -> Duration {
    match SIMULATED.get() {
        Some(_) => delay.saturating_mul(SIMULATED_SCALE),
        None => delay,
    }
}

/// Waits for `delay`.
pub async fn sleep(delay: Duration) {
    tokio::time::sleep(scaled(delay)).await;
}

/// Waits until `when`; returns at once if that has passed.
pub async fn sleep_until(when: Instant) {
    sleep(when.since(now())).await;
}

/// The time given to a future ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct TimedOut;

/// Runs `future` for at most `limit`.
///
/// # Errors
/// [`TimedOut`] when the limit passed first; the future is dropped then.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, TimedOut> {
    tokio::time::timeout(scaled(limit), future).await.map_err(|_| TimedOut)
}

/// Makes this thread's time virtual until the guard is dropped. Call it inside a current-thread
/// runtime whose clock is paused, once per simulated run.
#[must_use]
pub fn simulate() -> Simulated {
    SIMULATED.set(Some(TokioInstant::now()));
    Simulated(())
}

/// Whether this thread's time is virtual.
pub fn is_simulated() -> bool {
    SIMULATED.get().is_some()
}

/// Guard of [`simulate`].
#[derive(Debug)]
pub struct Simulated(());

impl Drop for Simulated {
    fn drop(&mut self) {
        SIMULATED.set(None);
    }
}

/// A steady beat of `period`, its first beat after `phase`. Missed beats collapse into one.
#[derive(Debug)]
pub struct Ticker {
    next: Instant,
    period: Duration,
}

impl Ticker {
    /// A ticker whose first beat comes `phase` from now.
    pub fn new(period: Duration, phase: Duration) -> Self {
        Self { next: now().after(phase), period }
    }

    /// Waits for the next beat. Dropping the future loses no beat.
    pub async fn tick(&mut self) {
        sleep_until(self.next).await;
        self.advance();
    }

    /// Whether a beat is due; takes it if so.
    pub fn due(&mut self) -> bool {
        let due = now() >= self.next;
        if due {
            self.advance();
        }
        due
    }

    fn advance(&mut self) {
        self.next = self.next.after(self.period).max(now());
    }
}
