//! When a push may hold its shard, and for how long: each hold that fails makes the next one later and
//! longer.

use std::time::Duration;

use base::clock;

/// How long a hold lasts at first.
pub(super) const HOLD_MIN: Duration = Duration::from_millis(50);
const HOLD_MAX: Duration = Duration::from_millis(250);
const HOLD_PAUSE_MIN: Duration = Duration::from_millis(200);
const HOLD_PAUSE_MAX: Duration = Duration::from_secs(5);

/// When the shard may be held, and for how long.
pub(super) struct Holds {
    /// The next one lasts so long at most.
    pub(super) limit: Duration,
    /// After this pause.
    pause: Duration,
    next: Option<clock::Instant>,
    /// The shard was held at this time, and sealed then.
    pub(super) since: Option<clock::Instant>,
}

impl Holds {
    pub(super) fn new() -> Self {
        Self { limit: HOLD_MIN, pause: HOLD_PAUSE_MIN, next: None, since: None }
    }

    pub(super) fn is_due(&self) -> bool {
        self.next.is_none_or(|next| clock::now() >= next)
    }

    pub(super) fn failed(&mut self) {
        self.next = Some(clock::now().after(self.pause));
        self.pause = (self.pause * 2).min(HOLD_PAUSE_MAX);
        self.limit = (self.limit * 2).min(HOLD_MAX);
    }
}
