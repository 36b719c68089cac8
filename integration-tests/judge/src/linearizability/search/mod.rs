//! Builds the possible orders, reply by reply, and so decides what the rules leave open.
//!
//! Just-in-time linearization (Lowe, "Testing for linearizability", 2017): the replies are
//! processed in time order. After each reply there is a set of *situations*. A situation says which
//! of the pending operations are already placed, and what the key then holds. At a reply, every
//! situation in which its operation is not placed yet is extended with pending operations that fit,
//! until it is; situations where that is impossible are dropped. If none is left, there is no
//! order. At the end, any remaining situation is an order, and the proof.
//!
//! There are few situations at a time, because
//! - [`Facts`] say who wrote what: a value is left only when all its readers are placed, and only
//!   for the append that the values show;
//! - an operation that only reads is placed as soon as it fits, and a chain of writes with its
//!   reads as soon as it is complete and disturbs nobody;
//! - an operation of unknown outcome that nobody saw may be left out, and of those that are alike
//!   ([`alike`]) the one called first is taken; of two situations that differ only in how many of
//!   them were taken, the thriftier one is kept.
//!
//! [`EVALUATED_MAX`] and [`SITUATIONS_MAX`] bound time and memory. Beyond them the search continues
//! with the thriftiest situations. If those lead to no order, it has decided nothing. That is the
//! one case in which an acceptance is not exact.

mod alike;
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::alike::{Alike, Taken};
use self::model::{Model, State, UNSEEN};
use super::values::Facts;
use crate::history::{Op, Operation, Outcome};

/// The limit of steps for one key.
const EVALUATED_MAX: u64 = 20_000_000;
/// The limit of situations that are kept from one reply to the next, or processed at one reply.
const SITUATIONS_MAX: usize = 4_000;

/// The result of the search. Operations are indexes into the key's history.
#[derive(Debug)]
pub(super) enum Found {
    /// An order that explains everything.
    Order(Vec<usize>),
    /// There is an order up to the reply of this operation, and none with it.
    Impossible { stuck: usize },
    /// Gave up; the longest order so far.
    Undecided(Vec<usize>),
}

/// Searches for an order of one key's operations.
pub(super) fn run(operations: &[&Operation], facts: Option<&Facts>) -> Found {
    Search::new(operations, facts).run()
}

/// One possible state of affairs.
#[derive(Clone, Debug)]
struct Situation {
    /// The operations of the window that are placed.
    placed: Vec<u32>,
    state: State,
    taken: Taken,
    /// The operation placed last, in `Search::trail`.
    last: usize,
}

/// Situations, by the placed operations and what the key holds. Each keeps only the ways to reach
/// it that no other way beats.
type Situations = BTreeMap<(Vec<u32>, u32), Vec<Way>>;

/// A way to get to a situation.
#[derive(Clone, Debug)]
struct Way {
    state: State,
    taken: Taken,
    last: usize,
}

impl Way {
    /// Whether everything that is possible after `other` is possible here.
    fn is_as_good(&self, other: &Self) -> bool {
        self.state.covers(other.state) && self.taken.is_thrifty(&other.taken)
    }
}

struct Search<'a> {
    operations: &'a [&'a Operation],
    model: Model<'a>,
    alike: Alike,
    /// Operations that must be placed, by call; the highest version at which each of them and all
    /// later ones still fit; and how many have been called.
    by_call: Vec<usize>,
    ceilings: Vec<u64>,
    called: usize,
    /// Operations that have been called and have no reply yet, or whose reply is now.
    window: Vec<usize>,
    /// Operations that are placed in every situation, and have left every window.
    done: Vec<bool>,
    now: u64,
    /// Each placed operation with the one placed before it. The first entry is an anchor.
    trail: Vec<(usize, usize)>,
    evaluated: u64,
    /// Whether situations were given up.
    is_cut: bool,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [&'a Operation], facts: Option<&'a Facts>) -> Self {
        let model = Model::new(operations, facts);
        let is_seen = |at: usize| facts.is_some_and(|facts| facts.seen[at]);
        let (mut by_call, mut optional): (Vec<usize>, Vec<usize>) =
            (0..operations.len()).partition(|at| operations[*at].outcome != Outcome::Unknown || is_seen(*at));
        // A get without a reply says nothing. A write that nobody saw can only help to count
        // versions.
        optional.retain(|at| match operations[*at].op {
            Op::Get => false,
            Op::Delete => true,
            Op::Put | Op::Append | Op::Cas => model.counts || !model.is_unseen(*at),
        });
        by_call.sort_by_key(|at| operations[*at].call_ns);
        optional.sort_by_key(|at| operations[*at].call_ns);
        let mut ceilings = vec![u64::MAX; by_call.len() + 1];
        for place in (0..by_call.len()).rev() {
            ceilings[place] = ceilings[place + 1].min(model.ceiling(by_call[place]));
        }
        Self {
            alike: Alike::new(operations, &optional, |at| model.text(at)),
            operations,
            model,
            by_call,
            ceilings,
            called: 0,
            window: Vec::new(),
            done: vec![false; operations.len()],
            now: 0,
            trail: vec![(0, 0)],
            evaluated: 0,
            is_cut: false,
        }
    }

    fn run(&mut self) -> Found {
        let mut replies = self.by_call.clone();
        replies.sort_by_key(|at| (self.operations[*at].end_ns(), *at));
        let mut situations = Situations::new();
        let (placed, state, taken) = (Vec::new(), self.model.start(), Taken::default());
        keep(&mut situations, Situation { placed, state, taken, last: 0 });
        for reply in replies {
            if self.done[reply] {
                continue;
            }
            self.on_calls(self.operations[reply].end_ns());
            let next = self.on_reply(reply, &situations);
            let is_over = self.evaluated > EVALUATED_MAX || self.model.is_full();
            if next.is_empty() || is_over {
                return if self.is_cut || is_over {
                    Found::Undecided(self.order(&situations))
                } else {
                    Found::Impossible { stuck: reply }
                };
            }
            situations = self.thin_out(next);
        }
        Found::Order(self.order(&situations))
    }

    /// The order of the situation that got furthest.
    fn order(&self, situations: &Situations) -> Vec<usize> {
        let orders = situations.values().flatten().map(|way| way.last);
        let mut at = orders.max_by_key(|last| self.length(*last)).unwrap_or(0);
        let mut order = Vec::new();
        while at > 0 {
            order.push(self.trail[at].1);
            at = self.trail[at].0;
        }
        order.reverse();
        order
    }

    fn length(&self, mut last: usize) -> usize {
        let mut length = 0;
        while last > 0 {
            length += 1;
            last = self.trail[last].0;
        }
        length
    }

    fn on_calls(&mut self, now: u64) {
        self.now = now;
        let open = self.by_call[self.called..].iter();
        let called: Vec<usize> = open.copied().take_while(|at| self.operations[*at].call_ns <= now).collect();
        self.called += called.len();
        self.window.extend(called);
    }

    /// Extends every situation until `reply` is placed.
    fn on_reply(&mut self, reply: usize, situations: &Situations) -> Situations {
        let mut met = Situations::new();
        let mut next = Situations::new();
        let mut open: Vec<Situation> = Vec::new();
        for ((placed, _), ways) in situations {
            open.extend(ways.iter().cloned().map(|way| Situation::of(placed, way)));
        }
        let mut count = open.len();
        while let Some(mut situation) = open.pop() {
            if !situation.has(reply) {
                self.settle(&mut situation);
            }
            if situation.has(reply) {
                situation.placed.retain(|at| *at as usize != reply);
                keep(&mut next, situation);
                continue;
            }
            if count > SITUATIONS_MAX || self.evaluated > EVALUATED_MAX || self.model.is_full() {
                self.is_cut = true;
                continue;
            }
            for follower in self.followers(&situation) {
                if keep(&mut met, follower.clone()) {
                    open.push(follower);
                    count += 1;
                }
            }
        }
        self.window.retain(|at| *at != reply);
        self.done[reply] = true;
        next
    }

    /// Forgets the operations without a reply that are placed in every situation, and keeps the
    /// thriftiest situations if there are too many.
    fn thin_out(&mut self, mut situations: Situations) -> Situations {
        let everywhere: Vec<usize> = self
            .window
            .iter()
            .copied()
            .filter(|at| self.operations[*at].outcome == Outcome::Unknown)
            .filter(|at| situations.keys().all(|(placed, _)| placed.contains(&(*at as u32))))
            .collect();
        if !everywhere.is_empty() {
            self.window.retain(|at| !everywhere.contains(at));
            everywhere.iter().for_each(|at| self.done[*at] = true);
            let short = |mut placed: Vec<u32>| {
                placed.retain(|at| !everywhere.contains(&(*at as usize)));
                placed
            };
            situations = situations
                .into_iter()
                .map(|((placed, state), ways)| ((short(placed), state), ways))
                .collect();
        }
        let count: usize = situations.values().map(Vec::len).sum();
        if count <= SITUATIONS_MAX {
            return situations;
        }
        self.is_cut = true;
        let mut all: Vec<Situation> = Vec::new();
        for ((placed, _), ways) in situations {
            all.extend(ways.into_iter().map(|way| Situation::of(&placed, way)));
        }
        all.sort_by_key(|situation| situation.taken.count());
        let mut kept = Situations::new();
        for situation in all.into_iter().take(SITUATIONS_MAX / 2) {
            keep(&mut kept, situation);
        }
        kept
    }

    /// Places operations that fit here and matter nowhere else: reads, refusals, deletes that found
    /// nothing (any other delete may be needed later), and complete chains while nobody looks.
    fn settle(&mut self, situation: &mut Situation) {
        loop {
            let before = situation.last;
            let value = self.model.spent(situation.state.value, |at| self.done[at] || situation.has(at));
            situation.state.value = value;
            for at in self.window.clone() {
                if situation.has(at) {
                    continue;
                }
                if value == UNSEEN {
                    self.place_whole(situation, at);
                }
                if self.only_reads(at) && self.after(situation, at) == Some(situation.state) {
                    self.place(situation, at, situation.state);
                }
            }
            if situation.last == before {
                return;
            }
        }
    }

    fn only_reads(&self, at: usize) -> bool {
        let one = self.operations[at];
        match (one.op, one.outcome) {
            (_, Outcome::Fail) => true,
            (_, Outcome::Unknown) => false,
            (Op::Get, Outcome::Ok) => true,
            (Op::Delete, Outcome::Ok) => one.version == Some(0),
            (Op::Put | Op::Append | Op::Cas, Outcome::Ok) => false,
        }
    }

    /// Places a chain at once, where the value that it leaves does not matter.
    fn place_whole(&mut self, situation: &mut Situation, root: usize) {
        for at in self.model.whole_chain(root, self.now).into_iter().flatten() {
            self.place(situation, at, situation.state);
        }
    }

    fn after(&mut self, situation: &Situation, at: usize) -> Option<State> {
        self.evaluated += self.model.cost(situation.state, at);
        let has = |at: usize| self.done[at] || situation.has(at);
        let state = self.model.after(situation.state, at, has)?;
        // Versions only grow: no operation that needs a lower one may be left out.
        let least = *state.versions().start();
        let is_left = |one: &usize| *one != at && self.model.ceiling(*one) < least && !situation.has(*one);
        let is_late = self.ceilings[self.called] < least || self.window.iter().any(is_left);
        (!is_late).then_some(state)
    }

    /// The situations one step further.
    fn followers(&mut self, situation: &Situation) -> Vec<Situation> {
        let mut found = Vec::new();
        for at in self.window.clone() {
            if situation.has(at) {
                continue;
            }
            if let Some(state) = self.after(situation, at) {
                let mut follower = situation.clone();
                self.hide_before(&mut follower, at);
                self.place(&mut follower, at, state);
                found.push(follower);
            }
        }
        for (class, at) in self.alike.next(&situation.taken, situation.state) {
            if self.operations[at].call_ns > self.now {
                continue;
            }
            if let Some(state) = self.after(situation, at).filter(|state| *state != situation.state) {
                let mut follower = situation.clone();
                self.trail.push((follower.last, at));
                follower.last = self.trail.len() - 1;
                follower.state = state;
                self.alike.take(&mut follower.taken, class, state);
                found.push(follower);
            }
        }
        found
    }

    /// Complete chains are placed just before a write that overwrites them anyway.
    fn hide_before(&mut self, situation: &mut Situation, at: usize) {
        if !self.model.wipes(at) {
            return;
        }
        for root in self.window.clone() {
            if root != at && !situation.has(root) {
                self.place_whole(situation, root);
            }
        }
    }

    fn place(&mut self, situation: &mut Situation, at: usize, state: State) {
        self.trail.push((situation.last, at));
        situation.last = self.trail.len() - 1;
        situation.state = state;
        let at = at as u32;
        if let Err(place) = situation.placed.binary_search(&at) {
            situation.placed.insert(place, at);
        }
    }
}

impl Situation {
    fn of(placed: &[u32], Way { state, taken, last }: Way) -> Self {
        Self { placed: placed.to_vec(), state, taken, last }
    }

    fn has(&self, at: usize) -> bool {
        self.placed.binary_search(&(at as u32)).is_ok()
    }
}

/// Adds a situation, unless an equally good one exists; drops those that are now worse.
fn keep(situations: &mut Situations, Situation { placed, state, taken, last }: Situation) -> bool {
    let ways = situations.entry((placed, state.value)).or_default();
    let new = Way { state, taken, last };
    if ways.iter().any(|way| way.is_as_good(&new)) {
        return false;
    }
    ways.retain(|way| !new.is_as_good(way));
    ways.push(new);
    true
}
