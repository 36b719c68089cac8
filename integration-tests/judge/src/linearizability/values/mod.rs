//! Judges one key by its values, where replies carry no versions.
//!
//! Every value and piece is written by exactly one operation. So a value identifies its writer, and
//! an appended value identifies all its writers down to its first piece.
//!
//! 1. This file takes the values apart. Every write whose value somebody saw gets its place in a
//!    *chain*: a put (or an append to a missing key) and the appends that followed it directly. Two
//!    values that contradict each other, a piece that nobody wrote, two appends to one value: each
//!    is an anomaly.
//! 2. [`zones`]: a chain with its reads is a block that nothing else may interrupt, and blocks are
//!    ordered by real time alone (Gibbons and Korach, "Testing Shared Memories", SIAM J. Comput.
//!    26, 1997).
//!
//! The time is linear in the length of the history and of its values, times a logarithm for
//! sorting.
//!
//! A rejection is always right. An acceptance is exact for gets, puts and appends, unknown outcomes
//! included: a write that nobody saw need not have happened. Deletes make "missing" a value that
//! many operations write, and conditional puts count versions that no reply shows. There the rules
//! are only necessary, and [`super::search`] decides.
//!
//! The result is `None` if values are not unique, are empty, or can be taken apart in two ways.
//!
//! Left out on purpose: appends that answer with the value they met.

mod blocks;
#[cfg(test)]
mod tests;
mod words;
mod zones;

use std::collections::{BTreeMap, BTreeSet};

use super::Anomaly;
use crate::history::{Op, Operation, Outcome};

/// Who wrote which value that was seen. Operations are indexes into the key's history.
#[derive(Debug)]
pub(super) struct Facts {
    /// The write whose value a get saw; none: it found the key missing, or is not a get.
    pub(super) saw: Vec<Option<usize>>,
    /// Whether a write's value, or one that builds on it, was seen.
    pub(super) seen: Vec<bool>,
    /// The write whose value a visible append met; none: the key was missing.
    pub(super) parent: Vec<Option<usize>>,
    /// The append that came directly after a write.
    pub(super) child: Vec<Option<usize>>,
    /// The gets that saw exactly this write's value, by their ends.
    pub(super) readers: Vec<Vec<usize>>,
}

impl Facts {
    /// A write and the appends directly after it, each with the gets that saw its value.
    pub(super) fn chain(&self, root: usize) -> impl Iterator<Item = (usize, &[usize])> {
        let writes = std::iter::successors(Some(root), |write| self.child[*write]);
        writes.map(|write| (write, &self.readers[write][..]))
    }
}

/// Checks the operations of one key.
pub(super) fn check(operations: &[&Operation]) -> Result<Option<Facts>, Anomaly> {
    let Some(mut chains) = Chains::new(operations) else { return Ok(None) };
    for (get, operation) in operations.iter().enumerate() {
        let (Op::Get, Outcome::Ok, Some(value)) = (operation.op, operation.outcome, &operation.output) else {
            continue;
        };
        if !chains.learn(get, value.as_bytes())? {
            return Ok(None);
        }
    }
    let mut facts = chains.facts;
    for readers in &mut facts.readers {
        readers.sort_by_key(|get| operations[*get].end_ns());
    }
    zones::check(operations, &facts)?;
    Ok(Some(facts))
}

fn text(operation: &Operation) -> &[u8] {
    operation.value.as_deref().unwrap_or_default().as_bytes()
}

/// Whether it sets or extends the value, as far as anybody knows.
fn writes(operation: &Operation) -> bool {
    matches!(operation.op, Op::Put | Op::Append | Op::Cas) && operation.outcome != Outcome::Fail
}

const DOUBLED: &str = "a doubled piece: a write took effect twice";

/// The possible last writer of a value.
enum Writer {
    One(usize),
    Several,
    Nobody,
}

struct Chains<'a> {
    operations: &'a [&'a Operation],
    /// Puts by value.
    whole: BTreeMap<&'a [u8], usize>,
    /// Appends by piece, and the lengths that pieces have.
    pieces: BTreeMap<&'a [u8], usize>,
    lengths: BTreeSet<usize>,
    /// For each write the value that it made, and a get that shows it.
    values: Vec<Option<(&'a [u8], usize)>>,
    facts: Facts,
}

impl<'a> Chains<'a> {
    /// None if texts are empty or not unique.
    fn new(operations: &'a [&'a Operation]) -> Option<Self> {
        let count = operations.len();
        let mut texts = BTreeSet::new();
        let mut chains = Self {
            operations,
            whole: BTreeMap::new(),
            pieces: BTreeMap::new(),
            lengths: BTreeSet::new(),
            values: vec![None; count],
            facts: Facts {
                saw: vec![None; count],
                seen: vec![false; count],
                parent: vec![None; count],
                child: vec![None; count],
                readers: vec![Vec::new(); count],
            },
        };
        for (at, operation) in operations.iter().enumerate().filter(|(_, operation)| writes(operation)) {
            let text = text(operation);
            if text.is_empty() || !texts.insert(text) {
                return None;
            }
            if operation.op == Op::Append {
                chains.pieces.insert(text, at);
                chains.lengths.insert(text.len());
            } else {
                chains.whole.insert(text, at);
            }
        }
        Some(chains)
    }

    fn last_writer(&self, value: &[u8]) -> Writer {
        let mut found = self.whole.get(value).copied();
        for length in self.lengths.range(..=value.len()) {
            match (self.pieces.get(&value[value.len() - length..]), found) {
                (Some(_), Some(_)) => return Writer::Several,
                (Some(append), None) => found = Some(*append),
                (None, _) => {}
            }
        }
        found.map_or(Writer::Nobody, Writer::One)
    }

    /// Takes the value that `get` saw apart, down to what is already known. False: there is more
    /// than one way.
    fn learn(&mut self, get: usize, seen: &'a [u8]) -> Result<bool, Anomaly> {
        let mut value = seen;
        let mut child = None;
        loop {
            let writer = match self.last_writer(value) {
                Writer::One(writer) => writer,
                Writer::Several => return Ok(false),
                Writer::Nobody => return Err(self.nobodys(value, get)),
            };
            match child {
                None => {
                    self.facts.saw[get] = Some(writer);
                    self.facts.readers[writer].push(get);
                }
                Some(child) => self.link(writer, child, get)?,
            }
            match self.values[writer] {
                Some((known, _)) if known == value => return Ok(true),
                Some((_, other)) => return Err(self.contradiction(writer, other, get)),
                None => self.values[writer] = Some((value, get)),
            }
            self.facts.seen[writer] = true;
            let operation = self.operations[writer];
            value = match operation.op {
                Op::Append => &value[..value.len() - text(operation).len()],
                _ => return Ok(true),
            };
            if value.is_empty() {
                return Ok(true);
            }
            child = Some(writer);
        }
    }

    /// `append` came directly after `writer`.
    fn link(&mut self, writer: usize, append: usize, get: usize) -> Result<(), Anomaly> {
        self.facts.parent[append] = Some(writer);
        match self.facts.child[writer].replace(append) {
            Some(other) if other != append => {
                let witness = self.values[other].map_or(get, |(_, witness)| witness);
                let what = self
                    .difference(witness, get)
                    .unwrap_or("a lost append: two were added to the same value");
                let involved = [other, append, witness, get].map(|at| self.operations[at]);
                Err(Anomaly::new(what, &involved))
            }
            _ => Ok(()),
        }
    }

    /// No operation ends `value`: says what it looks like.
    fn nobodys(&self, value: &[u8], get: usize) -> Anomaly {
        let shown = self.operations[get];
        let refused = self.operations.iter().find(|one| {
            one.is_write()
                && one.outcome == Outcome::Fail
                && !text(one).is_empty()
                && value.ends_with(text(one))
        });
        if let Some(write) = refused {
            return Anomaly::new("a refused write took effect", &[write, shown]);
        }
        let Some(write) = self.last_of(value) else {
            return Anomaly::new("a read from nowhere: nobody wrote this value, or a piece in it", &[shown]);
        };
        let is_doubled = self.spelled(get).1;
        let what = if is_doubled { DOUBLED } else { "reordered pieces: a put's value is not first" };
        Anomaly::new(what, &[self.operations[write], shown])
    }

    /// Two values end with the same write and differ before it.
    fn contradiction(&self, writer: usize, one: usize, other: usize) -> Anomaly {
        let lost = "a lost write: two values end with the same piece, and one lacks a piece before it";
        let what = self.difference(one, other).unwrap_or(lost);
        Anomaly::new(what, &[writer, one, other].map(|at| self.operations[at]))
    }

    /// What is wrong with the values of two gets, apart from one lacking something.
    fn difference(&self, one: usize, other: usize) -> Option<&'static str> {
        let ((first, first_doubled), (second, second_doubled)) = (self.spelled(one), self.spelled(other));
        if first_doubled || second_doubled {
            return Some(DOUBLED);
        }
        let common = |list: &[usize], others: &[usize]| -> Vec<usize> {
            let others: BTreeSet<usize> = others.iter().copied().collect();
            list.iter().copied().filter(|write| others.contains(write)).collect()
        };
        (common(&first, &second) != common(&second, &first))
            .then_some("reordered pieces: two reads show the pieces they share in different orders")
    }

    /// The write with whose text a value ends.
    fn last_of(&self, value: &[u8]) -> Option<usize> {
        let ends = |at: &usize| writes(self.operations[*at]) && value.ends_with(text(self.operations[*at]));
        (0..self.operations.len()).filter(ends).max_by_key(|at| text(self.operations[*at]).len())
    }

    /// The writes whose texts make up a get's value, from the last one on, as far as they are
    /// known; and whether one occurs twice.
    fn spelled(&self, get: usize) -> (Vec<usize>, bool) {
        let mut value = self.operations[get].output.as_deref().unwrap_or_default().as_bytes();
        let mut found = Vec::new();
        while let Some(write) = self.last_of(value) {
            found.push(write);
            value = &value[..value.len() - text(self.operations[write]).len()];
        }
        let is_doubled = found.iter().collect::<BTreeSet<_>>().len() < found.len();
        (found, is_doubled)
    }
}
