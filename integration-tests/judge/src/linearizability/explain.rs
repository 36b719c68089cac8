//! Shows a verdict: for each key the order that was found, and what has no place in it.
//!
//! A key that is rejected is gone through in the order of its replies: as long as everything answered so far
//! has an order (what is under way may take effect or not), nothing is wrong. The reply that makes that
//! impossible is the one *without a place*; since more replies never help, it is found by halving, unless the
//! first guess is right. A read without a place is taken out. A write's effect may be real even if its reply is
//! wrong, so it goes on as an operation of unknown outcome. Then the next one is looked for, until the rest has
//! an order. The reply that came last is not always to blame: if things go well for longer without another one
//! that shows the anomaly (a write with a wrong version, say), that one is taken out instead.
//!
//! Left out on purpose: which of several equally good culprits was the program's fault.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

use super::{Anomaly, Found, by_key, check_clients, complete, judge};
use crate::history::{Client, Op, Operation, Outcome};

/// At most this many operations of a key are found to have no place; the order ends there.
const UNPLACED_MAX: usize = 16;

/// In keys with at most this many replies it is asked whom to blame.
const SUSPECTED_MAX: usize = 3_000;

/// About so many operations are judged, some again and again, to explain one key.
const JUDGED_MAX: usize = 1_000_000;

/// What is said of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// There is an order.
    Linearizable,
    /// There is none.
    Broken,
    /// No rule is broken, and the search for an order gave up.
    Undecided,
}

/// An operation without a place. Operations are named by their place in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// The operation.
    pub operation: usize,
    /// Why, in words.
    pub what: String,
    /// The operations that show it, this one perhaps among them.
    pub witnesses: Vec<usize>,
}

/// One key's verdict. Operations are named by their place in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVerdict {
    /// The key.
    pub key: String,
    /// What is said of it.
    pub ruling: Ruling,
    /// The order found. Operations of unknown outcome that it does not need are left out. A write that is also in
    /// `unplaced` had its effect here, but its reply fits nowhere.
    pub order: Vec<usize>,
    /// The operations that could not be placed, in the order of their replies.
    pub unplaced: Vec<Unplaced>,
    /// Where the order ends because too much is wrong, in nanoseconds; none: it goes to the end.
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

/// Where an operation stands, by what tells it apart.
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

/// One key. Its operations are named by their place in it.
struct Key<'a> {
    history: &'a [Operation],
    /// Their places in the history, ascending.
    places: Vec<usize>,
    operations: Vec<Cow<'a, Operation>>,
    /// Those with a known outcome, by the time of their replies.
    replies: Vec<usize>,
    names: &'a Names<'a>,
    /// How many operations were judged.
    judged: Cell<usize>,
}

/// Where it goes wrong: the first reply with which there is no order, and why.
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

    /// The order, in places of the history. What was refused is everywhere at home and so nowhere to be shown if
    /// its reply is out.
    fn order(&self, accepted: Accepted, out: &[usize]) -> Vec<usize> {
        let is_out = |at: &usize| self.operations[*at].outcome == Outcome::Fail && out.contains(at);
        accepted.order.into_iter().filter(|at| !is_out(at)).map(|at| self.places[at]).collect()
    }

    /// An operation's place in the key.
    fn place(&self, operation: &Operation) -> Option<usize> {
        self.places.binary_search(&name(self.names, operation)?).ok()
    }

    /// Takes out the operation without which it goes well for longest: the culprit, or another one that
    /// shows the anomaly.
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

    /// An order of everything but what is `out`, or where it goes wrong.
    fn find_break(&self, out: &[usize]) -> (Option<Accepted>, Break) {
        match self.judge(self.replies.len(), out) {
            Ok(found) => (Some(found), None),
            Err(anomaly) => (None, Some(self.culprit(out, anomaly))),
        }
    }

    /// The first reply with which the history has no order, and why.
    fn culprit(&self, out: &[usize], mut anomaly: Anomaly) -> (usize, Anomaly) {
        let (mut fine, mut broken) = (0, self.replies.len());
        let mut is_guess_wrong = false;
        while fine + 1 < broken {
            // Most often it is the latest of the replies that show the anomaly.
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
        // That it had no effect is known from the start; what it met, is not.
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
