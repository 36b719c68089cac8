//! The weather, and what it does to one message.
//!
//! Left out on purpose: weather that differs from link to link. To disturb one server alone, cut
//! its ends.

use std::fmt;
use std::time::Duration;

use rand::RngExt;

use super::Generator;

/// The longest extra delay of an unreliable network before a handler, in ms.
const UNRELIABLE_DELAY_MS: u64 = 26;
/// The longest wait for the failure of a call that cannot arrive, in ms.
const UNREACHABLE_DELAY_MS: u64 = 99;
/// The same with long delays.
const LONG_DELAY_MS: u64 = 6999;
/// What long reordering adds to a reply: at least this, in ms, and the range above it.
const REORDERED_MS: u64 = 200;
const REORDERED_MORE_MS: u64 = 1999;
/// How many of 900 replies long reordering delays.
const REORDERED_OF_900: u32 = 600;
/// Lost requests, and lost replies, of an unreliable network, in percent.
const LOST_PERCENT: u32 = 10;

/// How well the network works at present. By default it is reliable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Messages are delayed and lost.
    pub unreliable: bool,
    /// Unreachable servers are noticed late.
    pub long_delays: bool,
    /// Two thirds of all replies and answers come much later. As in the labs, this is independent
    /// of `unreliable`.
    pub long_reordering: bool,
    /// Raft's messages are duplicated and arrive much too late.
    pub chaos: bool,
    /// Requests too: for services that can tell a repeated request from a new one.
    pub chaos_requests: bool,
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.unreliable { "unreliable" } else { "reliable" })?;
        let more = [
            (self.long_delays, "long delays"),
            (self.long_reordering, "long reordering"),
            (self.chaos, "chaos"),
            (self.chaos_requests, "chaos of requests"),
        ];
        more.iter().filter(|(is_so, _)| *is_so).try_for_each(|(_, word)| write!(f, ", {word}"))
    }
}

impl Weather {
    /// How a message fares: unreliable networks delay requests, long reordering replies and answers.
    pub(super) fn fate(self, random: &mut Generator, is_request: bool) -> Fate {
        let mut delay = Duration::from_nanos(random.random_range(200_000..500_000));
        if self.unreliable && is_request {
            delay += Duration::from_millis(random.random_range(0..=UNRELIABLE_DELAY_MS));
        }
        let mut lost = self.unreliable && random.random_range(0..100) < LOST_PERCENT;
        let may_be_reordered = self.long_reordering && !is_request && !lost;
        if may_be_reordered && random.random_range(0..900) < REORDERED_OF_900 {
            let most = random.random_range(0..=REORDERED_MORE_MS);
            delay += Duration::from_millis(REORDERED_MS + random.random_range(0..=most));
        }
        let mut again = None;
        if self.chaos {
            let late = Duration::from_micros(random.random_range(0..1_000_000));
            match random.random_range(0..100) {
                0..8 => again = Some(late),
                8..12 => delay += late,
                _ if lost && random.random_bool(0.5) => {
                    lost = false;
                    delay += late;
                }
                _ => {}
            }
        }
        Fate { delay, lost, again }
    }

    /// When the failure of a call that cannot arrive is reported.
    pub(super) fn unreachable_delay(self, random: &mut Generator) -> Duration {
        let most = if self.long_delays { LONG_DELAY_MS } else { UNREACHABLE_DELAY_MS };
        Duration::from_millis(random.random_range(0..=most))
    }
}

/// What one draw decided about one message.
pub(super) struct Fate {
    pub(super) delay: Duration,
    pub(super) lost: bool,
    /// A second arrival, this much later.
    pub(super) again: Option<Duration>,
}

impl Fate {
    /// Why the message will not arrive.
    pub(super) fn word(&self) -> Option<&'static str> {
        self.lost.then_some("lost")
    }
}
