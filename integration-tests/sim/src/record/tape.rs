//! What is kept of a run while it is recorded.
//!
//! Nearly all events are messages, saves and progress, and a run of two virtual minutes with many
//! groups makes gigabytes of them. Of those the newest are kept, up to a number and a size. The
//! state of servers (their lives, roles and shards), changes of the network and steps of the test
//! are rare and kept completely, up to a limit. So a picture is complete from the beginning except
//! for messages. The cause often shows long before the test ends: a run that is repeated can be
//! recorded up to a given time ([`Tape::until`]).
//!
//! Left out on purpose: a limit on what clients saw. The judge needs all of it in any case.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Event, What};

/// The limit for frequent events.
const FREQUENT: Limit = Limit { events: 500_000, bytes: 64 << 20 };
/// The limit for rare events.
const RARE: Limit = Limit { events: 200_000, bytes: 32 << 20 };

#[derive(Clone, Copy, Debug)]
struct Limit {
    events: usize,
    /// Of texts.
    bytes: usize,
}

/// What a recording does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Messages, saves and steps of progress; in an endless run, any event.
    pub events: u64,
    /// They happened up to this virtual nanosecond,
    pub until_ns: u64,
    /// and from this one on.
    pub from_ns: Option<u64>,
}

/// The newest events of a run.
#[derive(Debug)]
pub struct Tape {
    frequent: Kept,
    rare: Kept,
    next: u64,
    until_ns: u64,
    left_out: LeftOut,
}

#[derive(Debug)]
struct Kept {
    limit: Limit,
    /// With their numbers.
    events: VecDeque<(u64, Event)>,
    bytes: usize,
}

impl Default for Tape {
    fn default() -> Self {
        Self::of(FREQUENT, RARE)
    }
}

impl Tape {
    fn of(frequent: Limit, rare: Limit) -> Self {
        let kept = |limit| Kept { limit, events: VecDeque::new(), bytes: 0 };
        let left_out = LeftOut::default();
        Self { frequent: kept(frequent), rare: kept(rare), next: 0, until_ns: u64::MAX, left_out }
    }

    /// One that takes no frequent events after this virtual nanosecond.
    pub fn until(until_ns: u64) -> Self {
        Self { until_ns, ..Self::default() }
    }

    /// What it does not hold, so far.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Adds an event, the newest.
    pub fn push(&mut self, event: Event) {
        let number = self.next;
        self.next += 1;
        let frequent = is_frequent(&event.what);
        if frequent && event.at_ns > self.until_ns {
            self.left_out.events += 1;
            self.left_out.from_ns.get_or_insert(event.at_ns);
            return;
        }
        let kept = if frequent { &mut self.frequent } else { &mut self.rare };
        kept.bytes += text_bytes(&event.what);
        kept.events.push_back((number, event));
        while kept.events.len() > kept.limit.events || kept.bytes > kept.limit.bytes {
            let Some((_, oldest)) = kept.events.pop_front() else { break };
            kept.bytes -= text_bytes(&oldest.what);
            self.left_out.events += 1;
            self.left_out.until_ns = self.left_out.until_ns.max(oldest.at_ns);
        }
    }

    /// What was kept, in order, and what was not.
    pub fn finish(self) -> (Vec<Event>, LeftOut) {
        let mut events: Vec<(u64, Event)> =
            self.rare.events.into_iter().chain(self.frequent.events).collect();
        events.sort_by_key(|(number, _)| *number);
        (events.into_iter().map(|(_, event)| event).collect(), self.left_out)
    }
}

fn is_frequent(what: &What) -> bool {
    match what {
        What::Sent { .. } | What::Arrived { .. } | What::Saved { .. } | What::Progress { .. } => true,
        What::Start { .. }
        | What::Crash { .. }
        | What::Role { .. }
        | What::Link { .. }
        | What::Weather { .. }
        | What::Shard { .. }
        | What::Step { .. }
        | What::Failed { .. } => false,
    }
}

fn text_bytes(what: &What) -> usize {
    match what {
        What::Sent { text, .. }
        | What::Arrived { text, .. }
        | What::Weather { text }
        | What::Step { text }
        | What::Failed { text } => text.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{LeftOut, Limit, Tape};
    use crate::record::{Event, What};

    fn event(at_ns: u64, what: What) -> Event {
        Event { at_ns, at: None, term: None, what }
    }

    fn message(at_ns: u64, bytes: usize) -> Event {
        let (kind, from, text) = ("append".to_owned(), "1.1".to_owned(), "x".repeat(bytes));
        event(at_ns, What::Arrived { kind, from, text })
    }

    fn times(tape: Tape) -> (Vec<u64>, LeftOut) {
        let (events, left_out) = tape.finish();
        (events.into_iter().map(|event| event.at_ns).collect(), left_out)
    }

    fn small() -> Tape {
        Tape::of(Limit { events: 3, bytes: 100 }, Limit { events: 2, bytes: 100 })
    }

    #[test]
    fn what_is_frequent_does_not_drive_out_what_is_rare() {
        let mut tape = small();
        tape.push(event(0, What::Start { life: 1 }));
        (1..=10).for_each(|at| tape.push(message(at, 1)));
        tape.push(event(11, What::Crash { life: 1 }));
        assert_eq!(times(tape), (vec![0, 8, 9, 10, 11], LeftOut { events: 7, until_ns: 7, from_ns: None }));

        let mut tape = small();
        (0..4).for_each(|at| tape.push(event(at, What::Start { life: at })));
        assert_eq!(times(tape), (vec![2, 3], LeftOut { events: 2, until_ns: 1, from_ns: None }));
    }

    #[test]
    fn a_tape_with_an_end_takes_only_what_is_rare_after_it() {
        let mut tape = Tape { until_ns: 4, ..small() };
        (1..=10).for_each(|at| tape.push(message(at, 1)));
        tape.push(event(11, What::Crash { life: 1 }));
        assert_eq!(times(tape), (vec![2, 3, 4, 11], LeftOut { events: 7, until_ns: 1, from_ns: Some(5) }));
    }

    #[test]
    fn long_texts_count_by_their_bytes() {
        let mut tape = small();
        [40, 40, 40, 101].into_iter().zip(1..).for_each(|(bytes, at)| tape.push(message(at, bytes)));
        tape.push(message(5, 10));
        assert_eq!(times(tape), (vec![5], LeftOut { events: 4, until_ns: 4, from_ns: None }));
        assert_eq!(times(small()), (Vec::new(), LeftOut::default()));
    }
}
