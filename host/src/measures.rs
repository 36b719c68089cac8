//! What a server measures of the requests that it answers: how many, with what outcome, and how
//! long they took.
//!
//! A request costs two reads of the clock, four additions, and what its [`Trace`] costs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::times::{Counted, Times};
use clerk::api::server::SlowRequest;
use clerk::api::status::Requests;

use crate::slow::{SlowLog, Trace};

/// How a request ended, as far as operators tell requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was answered.
    Ok,
    /// The request itself was wrong or came too late: nothing was done.
    Refused,
    /// Another group serves the shard.
    WrongGroup,
    /// The shard is not here yet.
    NotReady,
    /// Another replica leads.
    NotLeader,
    /// A limit was reached.
    Busy,
    /// Nobody can tell whether it was done, or nobody waits for the answer any more.
    Unknown,
}

impl Ended {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Refused,
        Self::WrongGroup,
        Self::NotReady,
        Self::NotLeader,
        Self::Busy,
        Self::Unknown,
    ];

    /// As a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::WrongGroup => "wrong_group",
            Self::NotReady => "not_ready",
            Self::NotLeader => "not_leader",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
        }
    }
}

/// The requests of one verb.
#[derive(Debug, Default)]
struct Verb {
    ended: [AtomicU64; Ended::ALL.len()],
    times: Times,
}

/// Counts a server's requests.
#[derive(Debug)]
pub struct Measures {
    names: &'static [&'static str],
    verbs: Vec<Verb>,
    in_progress: AtomicU64,
    slow: SlowLog,
}

/// A request in progress. Dropped without [`Running::end`], it counts as [`Ended::Unknown`].
#[derive(Debug)]
pub struct Running<'a> {
    measures: &'a Measures,
    verb: usize,
    trace: Trace,
    ended: Ended,
}

/// What was counted of a verb.
#[derive(Clone, Debug)]
pub struct VerbCounted {
    /// Its name.
    pub name: &'static str,
    /// By [`Ended::ALL`].
    pub ended: [u64; Ended::ALL.len()],
    /// What its requests took.
    pub times: Counted,
}

impl Measures {
    /// Counts requests of these verbs; a request names its verb by its place in `names`.
    pub fn new(names: &'static [&'static str]) -> Self {
        let verbs = names.iter().map(|_| Verb::default()).collect();
        Self { names, verbs, in_progress: AtomicU64::new(0), slow: SlowLog::default() }
    }

    /// Also keeps requests that take `limit` or longer, if it is not zero, except for those verbs which
    /// wait on purpose.
    #[must_use]
    pub fn with_slow(self, limit: Duration, patient: &'static [&'static str]) -> Self {
        Self { slow: SlowLog::new(limit, patient), ..self }
    }

    /// A request begins.
    ///
    /// # Panics
    /// If there is no such verb.
    pub fn begin(&self, verb: usize) -> Running<'_> {
        assert!(verb < self.verbs.len(), "a verb without a name");
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        Running { measures: self, verb, trace: Trace::default(), ended: Ended::Unknown }
    }

    /// Requests that are in progress.
    pub fn in_progress(&self) -> u64 {
        self.in_progress.load(Ordering::Relaxed)
    }

    /// The slow requests that are remembered, the newest first.
    pub fn slow(&self) -> Vec<SlowRequest> {
        self.slow.read()
    }

    /// How many requests were slow.
    pub fn slow_count(&self) -> u64 {
        self.slow.count()
    }

    /// What was counted so far, by verb.
    pub fn read(&self) -> Vec<VerbCounted> {
        let verb = |(name, verb): (&&'static str, &Verb)| VerbCounted {
            name,
            ended: std::array::from_fn(|ended| verb.ended[ended].load(Ordering::Relaxed)),
            times: verb.times.read(),
        };
        self.names.iter().zip(&self.verbs).map(verb).collect()
    }

    /// The same for a status.
    pub fn requests(&self) -> BTreeMap<String, Requests> {
        let some = self.read().into_iter().filter(|it| it.times.count > 0);
        let one = |VerbCounted { name, ended, times }: VerbCounted| {
            let ended = Ended::ALL.into_iter().zip(ended).filter(|(_, count)| *count > 0);
            let ended = ended.map(|(ended, count)| (ended.name().to_owned(), count)).collect();
            let Counted { at_most, count, sum: micros } = times;
            (name.to_owned(), Requests { ended, count, micros, at_most: at_most.to_vec() })
        };
        some.map(one).collect()
    }
}

impl Running<'_> {
    /// Its way, as far as it is known.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The request ended.
    pub fn end(mut self, ended: Ended) {
        self.ended = ended;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let verb = &self.measures.verbs[self.verb];
        verb.ended[self.ended as usize].fetch_add(1, Ordering::Relaxed);
        let took = self.trace.took();
        verb.times.note(took);
        self.measures.slow.note(self.measures.names[self.verb], &self.trace, took, self.ended.name());
        self.measures.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, Measures};

    #[test]
    fn a_request_counts_once_under_its_verb_and_its_outcome() {
        let measures = Measures::new(&["get", "put"]);
        let (first, second) = (measures.begin(1), measures.begin(1));
        assert_eq!(measures.in_progress(), 2);
        first.end(Ended::NotReady);
        drop(second);
        assert_eq!(measures.in_progress(), 0);
        let read = measures.read();
        assert_eq!((read[0].name, read[0].times.count), ("get", 0));
        assert_eq!((read[1].ended, read[1].times.count), ([0, 0, 0, 1, 0, 0, 1], 2));
    }

    #[test]
    fn every_outcome_has_a_number_and_a_name_of_its_own() {
        for (number, ended) in Ended::ALL.into_iter().enumerate() {
            assert_eq!(ended as usize, number);
            assert_eq!(Ended::ALL.iter().filter(|other| other.name() == ended.name()).count(), 1);
        }
    }
}
