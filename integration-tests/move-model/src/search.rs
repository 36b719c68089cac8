//! The search: breadth first over every reachable state of one owner history, then backwards from the
//! settled ones over fair steps. A state that is not met on the way back is one from which the world may
//! never settle.

use std::hash::{Hash, Hasher};

use super::group::{Model, Verb};
use super::histories::History;
use super::steps::Step;
use super::values::{Mix, World};
use super::{Dead, Options};

/// What a search saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// States of the world.
    pub states: u64,
    /// Steps between them.
    pub steps: u64,
    /// Steps in which partial rows were wiped because they were not the sender's.
    pub wipes: u64,
    /// Steps in which a sealed shard was taken back.
    pub reopens: u64,
    /// Steps in which a group died.
    pub deaths: u64,
}

impl Seen {
    fn count(&mut self, step: Step) {
        self.steps += 1;
        match step {
            Step::Deliver { wipes: true, .. } => self.wipes += 1,
            Step::Entry { verb: Verb::Reopen, .. } => self.reopens += 1,
            Step::Die { .. } => self.deaths += 1,
            _ => {}
        }
    }

    /// Both together.
    pub(super) fn add(&mut self, other: Self) {
        self.states += other.states;
        self.steps += other.steps;
        self.wipes += other.wipes;
        self.reopens += other.reopens;
        self.deaths += other.deaths;
    }
}

/// A broken property, and the shortest way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property.
    pub what: &'static str,
    /// The steps, in words.
    pub trace: Vec<String>,
}

/// The property of liveness.
const STUCK: &str = "from here not everything can settle";

/// States in the order in which they were met, found by their hash.
struct States {
    all: Vec<World>,
    /// Where each was met first: the state before, and the step.
    before: Vec<(u32, Step)>,
    /// Positions plus 1, in an open table whose size is a power of two.
    slots: Vec<u32>,
}

impl States {
    fn new(first: World) -> Self {
        let mut states = Self { all: Vec::new(), before: Vec::new(), slots: vec![0; 1 << 10] };
        states.add(first, 0, Step::Stop { group: 0 });
        states
    }

    fn slot(&self, world: &World) -> usize {
        let mut hasher = Mix::default();
        world.hash(&mut hasher);
        let mask = self.slots.len() - 1;
        let mut slot = hasher.finish() as usize & mask;
        while let Some(at) = self.slots[slot].checked_sub(1)
            && self.all[at as usize] != *world
        {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The position of a state.
    fn add(&mut self, world: World, before: u32, step: Step) -> u32 {
        let slot = self.slot(&world);
        if let Some(at) = self.slots[slot].checked_sub(1) {
            return at;
        }
        self.all.push(world);
        self.before.push((before, step));
        let count = u32::try_from(self.all.len()).expect("few states");
        self.slots[slot] = count;
        if self.all.len() * 2 > self.slots.len() {
            self.slots = vec![0; self.slots.len() * 2];
            for at in 0..self.all.len() {
                let slot = self.slot(&self.all[at]);
                self.slots[slot] = at as u32 + 1;
            }
        }
        count - 1
    }

    /// The steps to a state, in words.
    fn trace(&self, model: &Model, at: u32) -> Vec<String> {
        let mut trace = Vec::new();
        let mut at = at;
        while at != 0 {
            let (before, step) = self.before[at as usize];
            trace.push(model.told(step).to_string());
            at = before;
        }
        trace.reverse();
        trace
    }
}

/// What lies within a history.
pub(super) struct Explored {
    states: States,
    /// Fair steps: to and from.
    fair: Vec<(u32, u32)>,
    seen: Seen,
    /// Whether every state was visited, as far as nothing was wrong.
    complete: bool,
    wrong: Option<(u32, Option<Step>, &'static str)>,
}

impl Explored {
    /// Every state that was met.
    pub(super) fn worlds(&self) -> &[World] {
        &self.states.all
    }
}

/// Visits states breadth first, until one is wrong or there are more than `limit`.
pub(super) fn explore(model: &mut Model, limit: usize) -> Explored {
    let all = World::new(model.groups);
    let mut states = States::new(match model.options.dead {
        Dead::FromTheStart(group) => all.without(group),
        Dead::Nobody | Dead::AtAnyMoment => all,
    });
    let mut fair = Vec::new();
    let mut seen = Seen::default();
    let mut wrong = None;
    let mut at = 0;
    while (at as usize) < states.all.len() && states.all.len() <= limit {
        let world = states.all[at as usize];
        let steps = match model.wrong(&world) {
            Some(what) => Err((None, what)),
            None => model.steps(&world).map_err(|(step, what)| (Some(step), what)),
        };
        let steps = match steps {
            Ok(steps) => steps,
            Err((step, what)) => {
                wrong = Some((at, step, what));
                break;
            }
        };
        for next in steps {
            seen.count(next.step);
            let to = states.add(next.world, at, next.step);
            if next.fair && to != at {
                fair.push((to, at));
            }
        }
        at += 1;
    }
    seen.states = states.all.len() as u64;
    let complete = states.all.len() <= limit;
    Explored { states, fair, seen, complete, wrong }
}

/// Searches one history: up to `limit` states, of which more are not an error.
///
/// # Errors
/// The first property that is broken, on a shortest way, and what was seen until then.
pub fn search(history: &History, options: Options, limit: usize) -> Result<Seen, Box<(Seen, Violation)>> {
    let mut model = Model::new(history, options);
    let Explored { states, fair, seen, complete, wrong } = explore(&mut model, limit);
    let (at, step, what) = match wrong {
        Some(wrong) => wrong,
        None if !complete => return Ok(seen),
        None => match stuck(&model, &states, fair) {
            Some(at) => (at, None, STUCK),
            None => return Ok(seen),
        },
    };
    let mut trace = states.trace(&model, at);
    trace.extend(step.map(|step| model.told(step).to_string()));
    Err(Box::new((seen, Violation { what, trace })))
}

/// A state from which the world may never settle: one where nothing fair happens if there is one, and the
/// one with the shortest way to it.
fn stuck(model: &Model, states: &States, mut fair: Vec<(u32, u32)>) -> Option<u32> {
    fair.sort_unstable();
    let mut settles: Vec<bool> = states.all.iter().map(|world| model.settled(world)).collect();
    let mut open: Vec<u32> = (0..).zip(&settles).filter(|(_, settles)| **settles).map(|(at, _)| at).collect();
    while let Some(to) = open.pop() {
        let first = fair.partition_point(|step| step.0 < to);
        for (_, from) in fair[first..].iter().take_while(|step| step.0 == to) {
            if !std::mem::replace(&mut settles[*from as usize], true) {
                open.push(*from);
            }
        }
    }
    let stuck: Vec<u32> = (0..).zip(&settles).filter(|(_, settles)| !**settles).map(|(at, _)| at).collect();
    let mut goes_on = vec![false; states.all.len()];
    fair.iter().for_each(|(_, from)| goes_on[*from as usize] = true);
    stuck.iter().find(|at| !goes_on[**at as usize]).or(stuck.first()).copied()
}
