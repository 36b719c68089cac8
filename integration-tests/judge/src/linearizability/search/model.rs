//! One key as the search sees it: a value, a version, and what each operation does to them.
//!
//! Values are numbers, and all values that nobody saw share one. Where [`Facts`] say who wrote
//! what, a value is the write that made it, and the search skips steps that no reader allows.
//! Elsewhere (values that repeat, or pieces that end with another piece) a value is its text, and
//! each text has a number.
//!
//! Versions follow the usual rules: a write over a value makes the next version; a write to a
//! missing key makes a later one, since deletes may have raised it. If no operation names a
//! version, versions do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::super::values::Facts;
use crate::history::{Op, Operation, Outcome};

/// The bytes of texts that are kept for one key.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// The bytes that are searched to find out which texts can have been seen.
const LOOKED_THROUGH_MAX: usize = 1 << 30;

const MISSING: u32 = 0;
/// A value that nobody saw.
pub(super) const UNSEEN: u32 = u32::MAX;

/// What the key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    pub(super) value: u32,
    version: u64,
    /// Whether the version is exactly this one, or any from this one on.
    exact: bool,
}

impl State {
    /// Whether it may have every version that `other` may have.
    pub(super) fn covers(self, other: Self) -> bool {
        let (mine, others) = (self.versions(), other.versions());
        mine.start() <= others.start() && others.end() <= mine.end()
    }

    /// The versions that the key may have.
    pub(super) fn versions(self) -> RangeInclusive<u64> {
        if self.exact { self.version..=self.version } else { self.version..=u64::MAX }
    }
}

enum Values<'a> {
    Written(&'a Facts),
    Text(Texts),
}

/// The values that were read, to see whether a text can be part of one.
struct Visible<'a> {
    outputs: BTreeSet<&'a str>,
    /// Too much to search: everything counts as visible.
    is_everything: bool,
}

impl<'a> Visible<'a> {
    fn new(operations: &[&'a Operation]) -> Self {
        let gets = operations.iter().filter(|one| one.op == Op::Get);
        let outputs: BTreeSet<&str> = gets.filter_map(|one| one.output.as_deref()).collect();
        let bytes: usize = outputs.iter().map(|output| output.len()).sum();
        Self { outputs, is_everything: bytes.saturating_mul(operations.len()) > LOOKED_THROUGH_MAX }
    }

    fn has(&self, text: &str) -> bool {
        self.is_everything || self.outputs.iter().any(|output| output.contains(text))
    }
}

/// Texts by number.
struct Texts {
    numbers: BTreeMap<String, u32>,
    texts: Vec<String>,
    bytes: usize,
}

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(UNSEEN);
        self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        self.bytes += 2 * text.len() + 64;
        number
    }
}

pub(super) struct Model<'a> {
    operations: &'a [&'a Operation],
    values: Values<'a>,
    /// For a get the value that it saw, for a put the value that it makes.
    own: Vec<u32>,
    /// For a write that begins a chain and builds on nothing: the latest call in that chain.
    whole_at: Vec<u64>,
    /// Whether any operation names a version.
    pub(super) counts: bool,
}

impl<'a> Model<'a> {
    pub(super) fn new(operations: &'a [&'a Operation], facts: Option<&'a Facts>) -> Self {
        let names = |one: &&Operation| {
            let replied = one.version.filter(|_| one.outcome != Outcome::Unknown);
            one.expected_version.max(replied).is_some_and(|number| number > 0)
        };
        let counts = operations.iter().any(names);
        let (values, own) = match facts {
            Some(facts) => {
                let own = (0..operations.len()).map(|at| match facts.saw[at] {
                    Some(write) => written(write),
                    None if facts.seen[at] => written(at),
                    None if operations[at].op == Op::Get => MISSING,
                    None => UNSEEN,
                });
                (Values::Written(facts), own.collect())
            }
            None => {
                let mut texts = Texts { numbers: BTreeMap::new(), texts: vec![String::new()], bytes: 0 };
                let visible = Visible::new(operations);
                let own = operations.iter().map(|one| match (one.op, &one.output) {
                    (Op::Get, None) => MISSING,
                    (Op::Get, Some(value)) => texts.number(value),
                    _ => {
                        let text = one.value.as_deref().unwrap_or_default();
                        if visible.has(text) { texts.number(text) } else { UNSEEN }
                    }
                });
                let own = own.collect();
                (Values::Text(texts), own)
            }
        };
        let mut model = Self { operations, values, own, whole_at: Vec::new(), counts };
        if let (Some(facts), false) = (facts, counts) {
            model.whole_at = (0..operations.len()).map(|at| model.last_call(facts, at)).collect();
        }
        model
    }

    fn last_call(&self, facts: &Facts, at: usize) -> u64 {
        let one = self.operations[at];
        let is_placed = facts.seen[at] || one.outcome == Outcome::Ok;
        let is_root = one.op == Op::Put || (one.op == Op::Append && !facts.seen[at]);
        if !is_placed || !is_root {
            return u64::MAX;
        }
        let whole = facts
            .chain(at)
            .flat_map(|(write, gets)| gets.iter().chain([&write]).copied().collect::<Vec<_>>());
        whole.map(|at| self.operations[at].call_ns).max().unwrap_or(u64::MAX)
    }

    pub(super) fn start(&self) -> State {
        State { value: MISSING, version: 0, exact: true }
    }

    /// Whether it may not grow any further.
    pub(super) fn is_full(&self) -> bool {
        match &self.values {
            Values::Written(_) => false,
            Values::Text(texts) => texts.bytes > TEXT_BYTES_MAX || texts.texts.len() >= UNSEEN as usize,
        }
    }

    /// The cost of trying an operation: one, or more if a text has to be made.
    pub(super) fn cost(&self, state: State, at: usize) -> u64 {
        match &self.values {
            Values::Text(texts) if self.operations[at].op == Op::Append => {
                1 + texts.texts.get(state.value as usize).map_or(0, |text| text.len() as u64 / 64)
            }
            _ => 1,
        }
    }

    /// The highest version at which an operation may still fit.
    pub(super) fn ceiling(&self, at: usize) -> u64 {
        let one = self.operations[at];
        match (one.op, one.outcome, one.version) {
            (_, Outcome::Unknown, _) | (_, _, None | Some(0)) => u64::MAX,
            (Op::Put | Op::Append | Op::Cas, Outcome::Ok, Some(number)) => number - 1,
            (Op::Get | Op::Delete, Outcome::Ok, Some(number)) => number,
            (Op::Cas, Outcome::Fail, Some(number)) => number,
            (_, Outcome::Fail, _) => u64::MAX,
        }
    }

    /// The number of an operation's text.
    pub(super) fn text(&self, at: usize) -> u32 {
        self.own[at]
    }

    /// Whether it writes a value that nobody saw.
    pub(super) fn is_unseen(&self, at: usize) -> bool {
        self.own[at] == UNSEEN
    }

    /// The chain of writes and reads that this put begins, if it can take effect as a unit at
    /// `now`: all of it has been called. (An append whose value nobody saw is such a chain, too.)
    pub(super) fn whole_chain(&self, root: usize, now: u64) -> Option<Vec<usize>> {
        if self.whole_at.get(root).is_none_or(|call| *call > now) {
            return None;
        }
        match &self.values {
            Values::Written(facts) => Some(
                facts
                    .chain(root)
                    .flat_map(|(write, gets)| [write].into_iter().chain(gets.iter().copied()))
                    .collect(),
            ),
            Values::Text(_) => None,
        }
    }

    /// The value as it matters from here on: a value that nobody will see any more is as good as
    /// one that nobody saw.
    pub(super) fn spent(&self, value: u32, has: impl Fn(usize) -> bool) -> u32 {
        match &self.values {
            Values::Written(facts) if value != MISSING && value != UNSEEN => {
                let write = value as usize - 1;
                let is_spent =
                    facts.child[write].is_none() && facts.readers[write].iter().rev().all(|get| has(*get));
                if is_spent { UNSEEN } else { value }
            }
            _ => value,
        }
    }

    /// Whether nothing later depends on what was there before.
    pub(super) fn wipes(&self, at: usize) -> bool {
        !self.counts && matches!(self.operations[at].op, Op::Put | Op::Delete)
    }

    /// The state after an operation takes effect; none if that contradicts its reply or another's.
    /// `has` says which operations are placed.
    pub(super) fn after(&mut self, state: State, at: usize, has: impl Fn(usize) -> bool) -> Option<State> {
        let one = self.operations[at];
        let reported = one.version.filter(|_| one.outcome != Outcome::Unknown);
        if one.outcome == Outcome::Fail {
            return match (one.op, reported) {
                (Op::Cas, Some(met)) if met == one.expected_version.unwrap_or_default() => None,
                (Op::Cas, Some(met)) => at_version(state, met),
                _ => Some(state),
            };
        }
        match one.op {
            Op::Get => named(state, reported).filter(|state| state.value == self.own[at]),
            Op::Delete => {
                let state = named(state, reported)?;
                let is_free = state.value == MISSING || self.may_leave(state.value, at, has);
                is_free.then_some(State { value: MISSING, ..state })
            }
            Op::Put | Op::Append => self.written(state, at, reported, has),
            Op::Cas => {
                let state = at_version(state, one.expected_version.unwrap_or_default())?;
                self.written(state, at, reported, has)
            }
        }
    }

    fn written(
        &mut self,
        state: State,
        at: usize,
        reported: Option<u64>,
        has: impl Fn(usize) -> bool,
    ) -> Option<State> {
        let value =
            if self.operations[at].op == Op::Append { self.appended(state.value, at)? } else { self.own[at] };
        if !self.may_leave(state.value, at, has) {
            return None;
        }
        if !self.counts {
            return Some(State { value, ..state });
        }
        let exact = state.exact && state.value != MISSING;
        let next = State { value, version: state.version + 1, exact };
        match reported {
            Some(number) => at_version(next, number),
            None => Some(next),
        }
    }

    fn appended(&mut self, value: u32, at: usize) -> Option<u32> {
        match &mut self.values {
            Values::Written(facts) if !facts.seen[at] => Some(UNSEEN),
            Values::Written(facts) => {
                (facts.parent[at].map_or(MISSING, written) == value).then_some(self.own[at])
            }
            Values::Text(_) if value == UNSEEN || self.own[at] == UNSEEN => Some(UNSEEN),
            Values::Text(texts) => {
                let piece = self.operations[at].value.as_deref().unwrap_or_default();
                let before = if value == MISSING { "" } else { &texts.texts[value as usize] };
                let whole = format!("{before}{piece}");
                Some(texts.number(&whole))
            }
        }
    }

    /// Whether all readers of this value are placed, and no reader shows another write after it.
    fn may_leave(&self, value: u32, by: usize, has: impl Fn(usize) -> bool) -> bool {
        let Values::Written(facts) = &self.values else { return true };
        if value == MISSING || value == UNSEEN {
            return true;
        }
        let write = value as usize - 1;
        // The readers are sorted by their ends: the unplaced ones are last.
        facts.child[write].is_none_or(|child| child == by)
            && facts.readers[write].iter().rev().all(|get| has(*get))
    }
}

/// The value that a write made.
fn written(write: usize) -> u32 {
    u32::try_from(write + 1).unwrap_or(UNSEEN)
}

fn named(state: State, reported: Option<u64>) -> Option<State> {
    reported.map_or(Some(state), |number| at_version(state, number))
}

/// Whether the key's version can be `number` (0: it is missing); the state that then holds.
fn at_version(state: State, number: u64) -> Option<State> {
    match (state.value, number) {
        (MISSING, 0) => Some(state),
        (MISSING, _) | (_, 0) => None,
        _ if state.exact => (state.version == number).then_some(state),
        _ => (number >= state.version).then_some(State { version: number, exact: true, ..state }),
    }
}
