//! The event queue: what happens next, in virtual nanoseconds.
//!
//! tokio's paused clock has a grain of one virtual microsecond. Inside a grain this queue decides,
//! and between events of the same nanosecond a seeded draw does. Every event that happens enters a
//! rolling hash, so two runs are the same exactly if their traces are.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::Xxh3Default;

use super::{Generator, Name};

/// What an event is, for the trace.
#[derive(Clone, Debug)]
pub struct Label {
    /// Its kind: a word.
    pub kind: &'static str,
    /// Who caused it.
    pub from: Name,
    /// Where it happens.
    pub at: Name,
}

pub(super) type Action = Box<dyn FnOnce() + Send>;

pub(super) struct Event {
    pub(super) label: Label,
    pub(super) bytes: bytes::Bytes,
    pub(super) action: Action,
}

pub(super) struct Queue {
    events: BTreeMap<(u64, u32, u64), Event>,
    ties: Generator,
    pushed: u64,
    trace: Xxh3Default,
    happened: u64,
}

impl Queue {
    pub(super) fn new(seed: u64) -> Self {
        let ties = Generator::seed_from_u64(base::seed::derive(seed, "ties"));
        Self { events: BTreeMap::new(), ties, pushed: 0, trace: Xxh3Default::new(), happened: 0 }
    }

    /// Adds an event at `when`; true if it comes before all others.
    pub(super) fn push(&mut self, when: u64, event: Event) -> bool {
        let key = (when, self.ties.random(), self.pushed);
        self.pushed += 1;
        self.events.insert(key, event);
        self.events.first_key_value().is_some_and(|(first, _)| *first == key)
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.events.first_key_value().map(|(key, _)| key.0)
    }

    /// Takes the next event and enters it into the trace as happening `now`.
    pub(super) fn pop(&mut self, now: u64) -> Option<Event> {
        let (key, event) = self.events.pop_first()?;
        self.happened += 1;
        self.trace.update(&now.to_le_bytes());
        self.trace.update(&key.0.to_le_bytes());
        for part in [event.label.kind, &event.label.from, &event.label.at] {
            self.trace.update(part.as_bytes());
        }
        self.trace.update(&event.bytes);
        Some(event)
    }

    /// Removes events that will not happen any more.
    pub(super) fn abandon(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.events)
    }

    /// Adds something to the trace that did not come through the queue.
    pub(super) fn note(&mut self, bytes: &[u8]) {
        self.trace.update(bytes);
    }

    /// Events so far, and the rolling hash over them.
    pub(super) fn trace(&self) -> (u64, u64) {
        (self.happened, self.trace.digest())
    }
}
