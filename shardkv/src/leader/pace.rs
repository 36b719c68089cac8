//! A limit of the bytes a second that the leader of a group sends of shards that move. Operators set
//! it for the whole cluster while it runs (`clerk move-rate`, correctness rule 145).
//!
//! What was sent is a debt that is paid off at the permitted rate. A sender waits until
//! there is none, so one chunk is never cut and the mean rate is kept. A new rate holds for the debt,
//! too: no sender waits by an old one.
//!
//! Left out on purpose: sealing and what follows it. Clients wait there, and few bytes are left.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use tokio::sync::watch;

use crate::leader::configs::Knowledge;

/// How soon a new rate is noticed.
const LOOK: Duration = Duration::from_millis(100);
const MIB: f64 = 1_048_576.0;

/// The pace of all shards that one leader sends.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Debt>);

#[derive(Debug, Default)]
struct Debt {
    bytes: f64,
    /// When it was so large.
    at: Option<Instant>,
}

impl Debt {
    /// Notes that `bytes` are sent now, if nothing is owed; otherwise the time until then.
    fn send(&mut self, bytes: usize, per_second: f64, now: Instant) -> Result<(), Duration> {
        let paid = self.at.replace(now).map_or(0.0, |at| now.since(at).as_secs_f64() * per_second);
        self.bytes = (self.bytes - paid).max(0.0);
        // Less than a byte: whole nanoseconds do not divide evenly.
        if self.bytes < 1.0 {
            self.bytes += bytes as f64;
            return Ok(());
        }
        Err(Duration::from_secs_f64(self.bytes / per_second))
    }
}

impl Pace {
    /// Waits until so many bytes may be sent.
    pub(crate) async fn pass(&self, bytes: usize, knowledge: &watch::Receiver<Knowledge>) {
        loop {
            let Some(rate) = knowledge.borrow().move_rate else { return };
            let per_second = f64::from(rate.max(1)) * MIB;
            let sent =
                self.0.lock().unwrap_or_else(PoisonError::into_inner).send(bytes, per_second, clock::now());
            match sent {
                Ok(()) => return,
                Err(wait) => clock::sleep(wait.min(LOOK)).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::clock;
    use tokio::sync::watch;

    use super::Pace;
    use crate::leader::configs::Knowledge;

    /// Rule 145.
    #[tokio::test(start_paused = true)]
    async fn the_mean_rate_is_kept_and_a_new_one_holds_at_once() {
        let knowledge = watch::Sender::new(Knowledge::default());
        let (pace, receiver) = (Pace::default(), knowledge.subscribe());
        let set = |rate| knowledge.send_modify(|known| known.move_rate = rate);
        let took = async |chunks: usize| {
            let start = clock::now();
            for _ in 0..chunks {
                pace.pass(256 << 10, &receiver).await;
            }
            start.elapsed()
        };
        assert_eq!(took(1000).await, Duration::ZERO, "without a limit");
        set(Some(1));
        let slow = took(41).await;
        assert!((9.9..10.2).contains(&slow.as_secs_f64()), "40 waits for 256 KiB at 1 MiB/s: {slow:?}");
        set(Some(100));
        let fast = took(40).await;
        assert!(fast < Duration::from_millis(250), "{fast:?}");
        // A row that takes a minute at the old rate, and then a new rate.
        set(Some(1));
        pace.pass(60 << 20, &receiver).await;
        set(None);
        assert_eq!(took(1).await, Duration::ZERO);
    }
}
