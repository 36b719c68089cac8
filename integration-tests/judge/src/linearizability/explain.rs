//! Shows a verdict: for each key the order that was found, and the operations that have no place in
//! it.
//!
//! The replies of a rejected key are processed in their order. As long as all replies so far have
//! an order (pending operations may take effect or not), nothing is wrong. The first reply that
//! makes an order impossible is the one *without a place*. More replies never help, so a binary
//! search finds it unless the first guess is right. A read without a place is removed. A write may
//! have taken effect even if its reply is wrong, so it stays as an operation of unknown outcome.
//! Then the next one is searched for, until the rest has an order. The last reply is not always to
//! blame. If another operation shows the anomaly (a write with a wrong version, say) and the
//! history holds for longer without that one, it is removed instead.
//!
//! Left out on purpose: which of several equally good culprits was the program's fault.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

use super::{Anomaly, Found, by_key, check_clients, complete, judge};
use crate::history::{Client, Op, Operation, Outcome};

/// After this many operations of a key without a place, the order ends.
const UNPLACED_MAX: usize = 16;

/// The culprit is searched for only in keys with at most this many replies.
const SUSPECTED_MAX: usize = 3_000;

/// Roughly this many operations are judged, some repeatedly, to explain one key.
const JUDGED_MAX: usize = 1_000_000;

/// The ruling on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// There is an order.
    Linearizable,
    /// There is none.
    Broken,
    /// No rule is broken, but the search for an order gave up.
    Undecided,
}

/// An operation without a place. Operations are indexes into the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    pub operation: usize,
    /// The reason, in words.
    pub what: String,
    /// The operations that show it, possibly including this one.
    pub witnesses: Vec<usize>,
}

/// One key's verdict. Operations are indexes into the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVerdict {
    pub key: String,
    pub ruling: Ruling,
    /// The order that was found. It leaves out operations of unknown outcome that it does not need.
    /// A write that is also in `unplaced` took effect here, but its reply fits nowhere.
    pub order: Vec<usize>,
    /// The operations that could not be placed, in the order of their replies.
    pub unplaced: Vec<Unplaced>,
    /// The time at which the order ends because too much is wrong, in nanoseconds; none: it goes to
    /// the end.
    pub ends_ns: Option<u64>,
}

/// Explains every key of a history, accepted or not.
pub fn explain(history: &[Operation]) -> Vec<KeyVerdict> {
    let names = names(history);
    let explained = |(key, places): (&str, Vec<usize>)| Key::new(history, places, &names).explain(key);
    let mut verdicts: Vec<KeyVerdict> = by_key(history).into_iter().map(explained).collect();
    if let Err(anomaly) = check_clients(history) {
        let broken = anomaly.operations.last().and_then(|operation| name(&names, operation));
        let verdict = verdicts
            .iter_mut()
            .find(|verdict| verdict.key == anomaly.operations.last().map_or("", |one| &one.key));
        if let (Some(operation), Some(verdict)) = (broken, verdict) {
            verdict.ruling = Ruling::Broken;
            verdict.unplaced.push(unplaced(operation, &anomaly, &names));
        }
    }
    verdicts
}

/// Maps an operation to its place, by the fields that identify it.
type Names<'a> = BTreeMap<(&'a String, &'a Client, u64, u8), usize>;

fn names(history: &[Operation]) -> Names<'_> {
    let named = history.iter().enumerate();
    named.map(|(at, one)| ((&one.key, &one.client, one.call_ns, one.op as u8), at)).collect()
}

fn name(names: &Names<'_>, operation: &Operation) -> Option<usize> {
    names.get(&(&operation.key, &operation.client, operation.call_ns, operation.op as u8)).copied()
}

fn unplaced(operation: usize, anomaly: &Anomaly, names: &Names<'_>) -> Unplaced {
    let witnesses = anomaly.operations.iter().filter_map(|witness| name(names, witness)).collect();
    Unplaced { operation, what: anomaly.what.clone(), witnesses }
}

/// One key. Its operations are indexes into it.
struct Key<'a> {
    history: &'a [Operation],
    /// Their places in the history, ascending.
    places: Vec<usize>,
    operations: Vec<Cow<'a, Operation>>,
    /// The operations with a known outcome, by the time of their replies.
    replies: Vec<usize>,
    names: &'a Names<'a>,
    /// How many operations were judged.
    judged: Cell<usize>,
}

/// The first reply with which there is no order, and the reason.
type Break = Option<(usize, Anomaly)>;

impl<'a> Key<'a> {
    fn new(history: &'a [Operation], places: Vec<usize>, names: &'a Names<'a>) -> Self {
        let operations = complete(places.iter().map(|at| &history[*at]));
        let known = |at: &usize| operations[*at].outcome != Outcome::Unknown;
        let mut replies: Vec<usize> = (0..places.len()).filter(known).collect();
        replies.sort_by_key(|at| (operations[*at].end_ns(), *at));
        Self { history, places, operations, replies, names, judged: Cell::new(0) }
    }

    fn explain(&self, key: &str) -> KeyVerdict {
        let (mut found, mut next) = self.find_break(&[]);
        let ruling = match (&found, &next) {
            (_, Some(_)) => Ruling::Broken,
            (Some(accepted), None) if !accepted.is_whole => Ruling::Undecided,
            _ => Ruling::Linearizable,
        };
        let mut out = Vec::new();
        let mut shown = Vec::new();
        let mut ends_ns = None;
        while let Some((at, anomaly)) = next {
            let culprit = self.replies[at];
            let is_enough = out.len() == UNPLACED_MAX || self.judged.get() > JUDGED_MAX;
            if is_enough || out.contains(&culprit) {
                found = self.judge(at, &out).ok();
                ends_ns = Some(self.operations[culprit].end_ns());
                break;
            }
            let operation;
            (found, operation, next) = self.take_out(&mut out, culprit, &anomaly);
            shown.push(unplaced(self.places[operation], &anomaly, self.names));
        }
        shown.sort_by_key(|one| self.history[one.operation].end_ns());
        let order = found.map(|accepted| self.order(accepted, &out)).unwrap_or_default();
        KeyVerdict { key: key.to_owned(), ruling, order, unplaced: shown, ends_ns }
    }

    /// The order, in places of the history. Refused operations fit everywhere, so they are not
    /// shown if their reply was removed.
    fn order(&self, accepted: Accepted, out: &[usize]) -> Vec<usize> {
        let is_out = |at: &usize| self.operations[*at].outcome == Outcome::Fail && out.contains(at);
        accepted.order.into_iter().filter(|at| !is_out(at)).map(|at| self.places[at]).collect()
    }

    /// An operation's place in the key.
    fn place(&self, operation: &Operation) -> Option<usize> {
        self.places.binary_search(&name(self.names, operation)?).ok()
    }

    /// Removes the operation without which the history holds longest: the culprit, or another one
    /// that shows the anomaly.
    fn take_out(
        &self,
        out: &mut Vec<usize>,
        culprit: usize,
        anomaly: &Anomaly,
    ) -> (Option<Accepted>, usize, Break) {
        let mut suspects = Vec::new();
        if self.replies.len() <= SUSPECTED_MAX {
            let witnesses = anomaly.operations.iter().filter_map(|witness| self.place(witness));
            suspects.extend(witnesses.filter(|at| {
                *at != culprit && !out.contains(at) && self.operations[*at].outcome != Outcome::Unknown
            }));
        }
        out.push(culprit);
        let mut best = (culprit, self.find_break(out));
        out.pop();
        for suspect in suspects {
            let Some((furthest, _)) = best.1.1 else { break };
            out.push(suspect);
            if self.judge(furthest + 1, out).is_ok() {
                best = (suspect, self.find_break(out));
            }
            out.pop();
        }
        let (operation, (found, next)) = best;
        out.push(operation);
        (found, operation, next)
    }

    /// An order of everything except `out`, or the place where it goes wrong.
    fn find_break(&self, out: &[usize]) -> (Option<Accepted>, Break) {
        match self.judge(self.replies.len(), out) {
            Ok(found) => (Some(found), None),
            Err(anomaly) => (None, Some(self.culprit(out, anomaly))),
        }
    }

    /// The first reply with which the history has no order, and the reason.
    fn culprit(&self, out: &[usize], mut anomaly: Anomaly) -> (usize, Anomaly) {
        let (mut fine, mut broken) = (0, self.replies.len());
        let mut is_guess_wrong = false;
        while fine + 1 < broken {
            // Usually it is the latest of the replies that show the anomaly.
            let shown = |operation: &Operation| {
                let at = self.place(operation)?;
                self.replies.iter().position(|reply| *reply == at)
            };
            let guess = anomaly.operations.iter().filter_map(shown).max().unwrap_or(0);
            let inside = |count: &usize| fine < *count && *count < broken;
            let guessed = [guess + 1, guess].into_iter().find(inside).filter(|_| !is_guess_wrong);
            let middle = guessed.unwrap_or(fine + (broken - fine) / 2);
            match self.judge(middle, out) {
                Ok(_) => fine = middle,
                Err(earlier) => {
                    is_guess_wrong = guessed == Some(guess);
                    (broken, anomaly) = (middle, earlier);
                }
            }
        }
        (broken - 1, anomaly)
    }

    /// Judges what was known after the first `count` replies.
    fn judge(&self, count: usize, out: &[usize]) -> Result<Accepted, Anomaly> {
        let now = match self.replies[..count].last() {
            Some(_) if count == self.replies.len() => u64::MAX,
            Some(last) => self.operations[*last].end_ns(),
            None if self.replies.is_empty() => u64::MAX,
            None => 0,
        };
        let mut answered = vec![false; self.places.len()];
        for at in &self.replies[..count] {
            answered[*at] = !out.contains(at);
        }
        let called = (0..self.places.len()).filter(|at| self.operations[*at].call_ns <= now);
        let (places, operations): (Vec<usize>, Vec<Cow<'_, Operation>>) =
            called.filter_map(|at| Some((at, as_known(&self.operations[at], answered[at])?))).unzip();
        let operations: Vec<&Operation> = operations.iter().map(|operation| &**operation).collect();
        self.judged.set(self.judged.get() + operations.len());
        let (order, is_whole) = match judge(&operations)? {
            Found::Order(order) => (order, true),
            Found::Undecided(order) => (order, false),
            Found::Impossible { .. } => (Vec::new(), false),
        };
        Ok(Accepted { order: order.into_iter().map(|at| places[at]).collect(), is_whole })
    }
}

struct Accepted {
    order: Vec<usize>,
    is_whole: bool,
}

/// What is known of an operation before or after its reply; none: nothing that matters.
fn as_known(operation: &Operation, answered: bool) -> Option<Cow<'_, Operation>> {
    match (operation.op, operation.outcome) {
        _ if answered => Some(Cow::Borrowed(operation)),
        (Op::Get, _) => None,
        (_, Outcome::Unknown) => Some(Cow::Borrowed(operation)),
        // It is known from the start that it had no effect, but not which version it met.
        (_, Outcome::Fail) => Some(Cow::Owned(Operation { version: None, ..operation.clone() })),
        (_, Outcome::Ok) => Some(Cow::Owned(Operation {
            outcome: Outcome::Unknown,
            return_ns: None,
            output: None,
            version: None,
            ..operation.clone()
        })),
    }
}
