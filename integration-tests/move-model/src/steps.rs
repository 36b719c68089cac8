//! What may happen next in a state of the world.
//!
//! A step is *fair* when it must happen sooner or later without any client and without any message that was
//! sent before: adopting, and what a mover that begins now brings about.

use std::collections::BTreeMap;
use std::fmt;

use clerk::api::ConfigNum;
use shardkv::shard::{Next as Moved, ShardState};

use super::bugs::Bug;
use super::group::{Model, Verb};
use super::histories::name;
use super::messages::{Body, Message, MessageId, both, insert};
use super::values::{GROUPS_MAX, Group, NO_ROWS, Packed, RowsId, Shard, World, group_id, position};
use super::{Dead, Mover, Stop};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Adopt { group: u8, num: ConfigNum },
    Write { group: u8, shard: u8, value: u8, key: u8, delete: bool },
    Deliver { message: MessageId, wipes: bool },
    Entry { group: u8, shard: u8, verb: Verb, num: ConfigNum },
    Send(MessageId),
    Stop { group: u8 },
    Die { group: u8 },
    ReturnEmpty { group: u8 },
}

/// A step, and the world after it.
pub(super) struct Next {
    pub(super) step: Step,
    pub(super) world: World,
    pub(super) fair: bool,
}

/// The world in which steps are looked for, and those that were found.
struct Looking<'a> {
    world: &'a World,
    groups: [Group; GROUPS_MAX],
    found: Vec<Next>,
}

impl Model {
    /// Every step from `world`.
    ///
    /// # Errors
    /// The property that a step breaks, with the step.
    pub(super) fn steps(&mut self, world: &World) -> Result<Vec<Next>, (Step, &'static str)> {
        let groups = self.unpack(&world.groups);
        let mut looking = Looking { world, groups, found: Vec::new() };
        for (group, _) in groups.iter().enumerate().filter(|(_, group)| group.running) {
            self.adoptions(&mut looking, group);
            self.writes(&mut looking, group);
            self.entries(&mut looking, group)?;
            self.ends(&mut looking, group);
        }
        if self.options.one_message_a_step {
            for message in self.sayable(groups, world.sent) {
                let mut sent = self.sets.get(world.sent).clone();
                insert(&mut sent, message);
                let world = World { sent: self.sets.id(&sent), ..*world };
                let fair = self.pushes_now(&groups, self.messages.get(message));
                looking.found.push(Next { step: Step::Send(message), world, fair });
            }
        }
        self.deliveries(&mut looking)?;
        Ok(looking.found)
    }

    /// The world after one group changed, and maybe said something about it.
    fn after(&mut self, looking: &Looking<'_>, at: usize, group: Group, says: Option<MessageId>) -> World {
        let mut world = *looking.world;
        world.groups[at] = group.pack();
        let mut groups = looking.groups;
        groups[at] = group;
        world.sent = if self.options.one_message_a_step {
            let mut sent = self.sets.get(world.sent).clone();
            says.into_iter().for_each(|says| _ = insert(&mut sent, says));
            self.sets.id(&sent)
        } else {
            self.close(groups, world.sent, at, says)
        };
        world
    }

    fn adoptions(&mut self, looking: &mut Looking<'_>, group: usize) {
        for num in (0..=self.newest().0).map(ConfigNum) {
            let Some(after) = self.adopt(group, &looking.groups[group], num, false) else { continue };
            let mut world = self.after(looking, group, after, None);
            for shard in 0..self.shards {
                // The shard's first life begins without rows.
                if world.truth(shard).is_none() && after.shards[shard].state == ShardState::Serving {
                    world.set_truth(shard, NO_ROWS);
                }
            }
            let step = Step::Adopt { group: group as u8, num };
            looking.found.push(Next { step, world, fair: true });
        }
    }

    fn writes(&mut self, looking: &mut Looking<'_>, at: usize) {
        for shard in 0..self.shards {
            let group = looking.groups[at];
            if !self.takes_writes(&group, shard) {
                continue;
            }
            let truth = looking.world.truth(shard).unwrap_or(NO_ROWS);
            let last = self.library.rows(truth).iter().find(|row| row.0 == 0).map_or(0, |row| row.1 / 2);
            let value = last + 1;
            if value > self.options.writes {
                continue;
            }
            for key in 1..=self.options.keys {
                let here = group.shards[shard].rows;
                let deletes: &[bool] = if self.library.rows(here).iter().any(|row| row.0 == key) {
                    &[false, true]
                } else {
                    &[false]
                };
                for delete in deletes.iter().copied() {
                    let mut after = group;
                    after.shards[shard].rows = self.written(here, value, key, delete);
                    let mut world = self.after(looking, at, after, None);
                    world.set_truth(shard, self.written(truth, value, key, delete));
                    let step = Step::Write { group: at as u8, shard: shard as u8, value, key, delete };
                    looking.found.push(Next { step, world, fair: false });
                }
            }
        }
    }

    /// Rows after a write, each of which changes the shard's own row.
    pub(super) fn written(&mut self, rows: RowsId, value: u8, key: u8, delete: bool) -> RowsId {
        let mut rows: BTreeMap<u8, u8> = self.library.rows(rows).iter().copied().collect();
        rows.insert(0, value * 2 + u8::from(delete));
        if delete {
            rows.remove(&key)
        } else {
            rows.insert(key, value)
        };
        self.library.id(&rows.into_iter().collect::<Vec<_>>())
    }

    /// What a group's own movers bring through its log.
    fn entries(&mut self, looking: &mut Looking<'_>, at: usize) -> Result<(), (Step, &'static str)> {
        let groups = looking.groups;
        for shard in 0..self.shards {
            for (verb, num, fair) in self.wants(&groups, looking.world.sent, at, shard) {
                let before = groups[at].shards[shard];
                let Some(after) = self.entry(verb, before, num) else { continue };
                let step = Step::Entry { group: at as u8, shard: shard as u8, verb, num };
                if let Some(what) = self.too_early(&groups, before.state, shard, verb)
                    && self.options.inner
                {
                    return Err((step, what));
                }
                let world = self.after(looking, at, with(&groups[at], shard, after), None);
                looking.found.push(Next { step, world, fair });
            }
        }
        Ok(())
    }

    /// What is wrong with an entry that ends a move, if anything is.
    fn too_early(
        &self,
        groups: &[Group; GROUPS_MAX],
        state: ShardState,
        shard: usize,
        verb: Verb,
    ) -> Option<&'static str> {
        let ShardState::Handing { to, num, .. } = state else { return None };
        let receiver = &groups[position(to)];
        let there = receiver.shards[shard];
        let taken = there.taken >= Some(num);
        let comes = receiver.num < Some(num)
            || match there.state {
                ShardState::Awaiting { num: awaited } => awaited == num,
                ShardState::Handing { next: Moved::Mine { num: next }, .. } => next == num,
                _ => false,
            };
        match verb {
            Verb::Release if !taken => Some("released before the receiver had everything"),
            Verb::Reopen if taken => Some("reopened although the receiver had everything"),
            Verb::Reopen if comes => Some("reopened although the receiver could still take it"),
            _ => None,
        }
    }

    fn deliveries(&mut self, looking: &mut Looking<'_>) -> Result<(), (Step, &'static str)> {
        let groups = looking.groups;
        let fresh = self.fresh_requests(&groups);
        for (to, receiver) in groups.iter().enumerate().filter(|(_, group)| group.running) {
            let sent = self.sets.get(looking.world.sent);
            let requests: Vec<MessageId> = both(sent, &self.messages.requests_to[to]).collect();
            for id in requests {
                let message = self.messages.get(id);
                let shard = usize::from(message.shard);
                let applied = self.apply(message, receiver);
                if applied.shard == receiver.shards[shard] && !applied.wiped {
                    continue;
                }
                let step = Step::Deliver { message: id, wipes: applied.wiped };
                if applied.wiped && self.options.inner && self.options.mover == Mover::Careful {
                    return Err((step, "a mover that asked first sent an Activate that does not match"));
                }
                let answer = applied.answer.map(|body| Message { body, ..message });
                let answer = answer.map(|answer| self.messages.id(answer));
                let world = self.after(looking, to, with(receiver, shard, applied.shard), answer);
                looking.found.push(Next { step, world, fair: fresh.contains(&id) });
            }
        }
        Ok(())
    }

    /// A group's servers are switched off, or begin again without their rows.
    fn ends(&mut self, looking: &mut Looking<'_>, at: usize) {
        let group = looking.groups[at];
        let packed = |changed: Group| -> [Packed; GROUPS_MAX] {
            let mut groups = looking.world.groups;
            groups[at] = changed.pack();
            groups
        };
        let absent = group.shards.iter().all(|shard| shard.state == ShardState::Absent);
        let left = |group: &Group| group.num >= Some(self.left[at]);
        let others = || looking.groups.iter().filter(|group| group.running);
        let hands = |group: &Group| {
            let to_it =
                |shard: &Shard| matches!(shard.state, ShardState::Handing { to, .. } if to == group_id(at));
            group.shards.iter().any(to_it)
        };
        let may_stop = match self.options.stop {
            None => false,
            Some(Stop::AllAbsent) => true,
            Some(Stop::LeftAndAllAbsent) => left(&group),
            Some(Stop::EverybodyPastIt) => others().all(left),
            Some(Stop::NobodyHandsToIt) => others().all(left) && !others().any(hands),
        };
        if self.options.dead == Dead::AtAnyMoment && looking.world.dead().is_none() {
            let world = looking.world.without(at);
            looking.found.push(Next { step: Step::Die { group: at as u8 }, world, fair: false });
        }
        let mut changed = Vec::new();
        if may_stop && absent && self.left[at] <= self.newest() {
            changed.push((Step::Stop { group: at as u8 }, Group { running: false, ..group }));
        }
        if self.has(Bug::WipedGroupReturnsUnderItsId) && absent && left(&group) {
            changed.push((Step::ReturnEmpty { group: at as u8 }, Group::new()));
        }
        for (step, after) in changed {
            // It says nothing new: whatever it had to say of a settled shard it has said.
            let world = World { groups: packed(after), ..*looking.world };
            looking.found.push(Next { step, world, fair: false });
        }
    }

    /// A step in words.
    pub(super) fn told(&self, step: Step) -> Told<'_> {
        Told { model: self, step }
    }
}

fn with(group: &Group, shard: usize, after: Shard) -> Group {
    let mut group = *group;
    group.shards[shard] = after;
    group
}

/// A step in words.
pub(super) struct Told<'a> {
    model: &'a Model,
    step: Step,
}

impl Told<'_> {
    fn message(&self, id: MessageId) -> String {
        let message = self.model.messages.get(id);
        let rows = |id: RowsId| format!("{:?}", self.model.library.rows(id));
        let says = match message.body {
            Body::Offer => "offers it".to_owned(),
            Body::QUESTION => "asks where the cursor is".to_owned(),
            Body::Install { after, rows: chunk } => {
                format!("Install after {}: {}", rows(after), rows(chunk))
            }
            Body::Activate { after, end } => format!("Activate at {}, which are {}", rows(after), rows(end)),
            Body::Cursor(at) => format!("the cursor is after {}", rows(at)),
            Body::Awaited => "it is awaited".to_owned(),
            Body::Done => "done".to_owned(),
            Body::Refused => "refused".to_owned(),
        };
        let (from, to) = (name(message.from.into()), name(message.to.into()));
        format!("push {} of shard {} from {from} to {to}: {says}", message.num, message.shard)
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |group: u8| name(group.into());
        match self.step {
            Step::Adopt { group, num } => write!(f, "{} adopts {num}", name(group)),
            Step::Write { group, shard, value, key, delete } => {
                let what = if delete { "deletes" } else { "writes" };
                write!(f, "a client {what} key {key} of shard {shard} at {} (write {value})", name(group))
            }
            Step::Deliver { message, wipes } => {
                let wipes = if wipes { " (mismatch: wiped)" } else { "" };
                write!(f, "applied: {}{wipes}", self.message(message))
            }
            Step::Entry { group, shard, verb, num } => {
                write!(f, "{}: {verb:?}({num}) of shard {shard}", name(group))
            }
            Step::Send(message) => write!(f, "sent: {}", self.message(message)),
            Step::Stop { group } => write!(f, "{} is switched off", name(group)),
            Step::Die { group } => write!(f, "{} dies", name(group)),
            Step::ReturnEmpty { group } => write!(f, "{} returns without its rows", name(group)),
        }
    }
}
