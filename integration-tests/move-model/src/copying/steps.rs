//! What may happen next, what must hold, and how it ends.

use std::collections::BTreeSet;

use bytes::Bytes;
use clerk::api::push::Pos;
use raft::rsm::MapRows;
use raft::storage::APPLIED_KEY;
use shardkv::command::Command;
use shardkv::shard::ShardState;

use super::space::{Message, S, Search, World, applied, data, holds, index_of, next, state};
use crate::messages::{Bits, has, insert};

impl Search {
    /// Adds everything that can be said without a change of either group.
    pub(super) fn close(&mut self, mut world: World) -> World {
        let mut sent: Bits = self.sets.get(world.sent).clone();
        let mut fresh: Vec<u32> = Vec::new();
        fresh.extend(self.offered(world.a, world.b));
        let all = (0..self.messages.all.len() as u32).filter(|id| has(&sent, *id as u16));
        // Old ones may be answered, or followed, otherwise now.
        fresh.extend(all);
        let mut seen = BTreeSet::new();
        while let Some(id) = fresh.pop() {
            if !seen.insert(id) {
                continue;
            }
            insert(&mut sent, u16::try_from(id).expect("few messages"));
            match &self.messages.all[id as usize] {
                Message::At(..) => fresh.extend(self.plan(world.a, world.since, id)),
                Message::ToB(_) => {
                    let (after, answer) = self.receive(world.b, id);
                    fresh.extend(answer.filter(|_| after == world.b));
                }
                Message::ToA(_) => {}
            }
        }
        world.sent = self.sets.id(&sent);
        world
    }

    pub(super) fn enter(&mut self, a: u32, command: Command) -> Option<u32> {
        let message = self.message(Message::ToA(command.clone()));
        if let Some(known) = self.at_a.get(&(a, message)) {
            return *known;
        }
        let names = matches!(&command, Command::Seal { frozen, .. } if !frozen.keys.is_empty());
        let after = self.after(a, command);
        self.found.sealed += usize::from(names && after.is_some());
        self.at_a.insert((a, message), after);
        after
    }

    /// What A remembers once it is in another state.
    pub(super) fn since(&self, world: World, a: u32) -> Pos {
        let (before, after) = (&self.source(world.a).table, &self.source(a).table);
        match state(after) {
            ShardState::Leaving { .. } if state(before) != state(after) => Pos::end_of(index_of(after)),
            _ => world.since,
        }
    }

    pub(super) fn steps(&mut self, world: World) -> Vec<(String, World)> {
        let mut steps = Vec::new();
        let source = self.source(world.a).clone();
        let mut commands: Vec<(String, Command)> = Vec::new();
        if source.writes < self.scope.writes && matches!(state(&source.table), ShardState::Leaving { .. }) {
            for key in 0..self.scope.keys {
                let number = source.writes + 1;
                commands.push((format!("write {number} of key {key}"), self.write(key, number, false)));
                let delete = self.write(key, number, true);
                commands.extend(self.scope.deletes.then(|| (format!("delete key {key}"), delete)));
            }
        }
        let adopts = |table: &MapRows| {
            self.configs.get(shardkv::rows::config_num(table).map_or(0, |it| it.0 as usize + 1))
        };
        if let Some(config) = adopts(&source.table).cloned() {
            commands.push((format!("A adopts {}", config.num), Command::Adopt(config)));
        }
        let b = self.receivers.all[world.b as usize].clone();
        let of_b = adopts(&b).cloned();
        let sent = self.sets.get(world.sent).clone();
        for id in (0..self.messages.all.len() as u32).filter(|id| has(&sent, *id as u16)) {
            match self.messages.all[id as usize].clone() {
                Message::ToA(command) => commands.push((format!("A does {command:?}"), command)),
                Message::ToB(command) => {
                    let (after, answer) = self.receive(world.b, id);
                    if after != world.b {
                        let mut sent = sent.clone();
                        if let Some(answer) = answer {
                            insert(&mut sent, u16::try_from(answer).expect("few messages"));
                        }
                        let after = World { b: after, sent: self.sets.id(&sent), ..world };
                        steps.push((format!("B gets {command:?}"), after));
                    }
                }
                Message::At(..) => {}
            }
        }
        for (told, command) in commands {
            if let Some(a) = self.enter(world.a, command) {
                steps.push((told, World { a, since: self.since(world, a), ..world }));
            }
        }
        if let Some(config) = of_b {
            let told = format!("B adopts {}", config.num);
            let mut table = next(1, &b, Command::Adopt(config));
            table.0.insert(Bytes::from_static(APPLIED_KEY), applied(index_of(&b)));
            steps.push((told, World { b: self.receiver(table), ..world }));
        }
        if matches!(state(&source.table), ShardState::Leaving { .. }) {
            let oldest = source.noted.iter().map(|(pos, _)| *pos).find(|pos| *pos > world.since);
            let all = Pos::end_of(index_of(&source.table));
            for since in oldest.into_iter().chain([all]).filter(|since| *since > world.since) {
                steps.push((format!("A forgets up to {since:?}"), World { since, ..world }));
            }
        }
        steps
    }

    pub(super) fn wrong(&self, world: World) -> Option<String> {
        let (source, b) = (self.source(world.a), &self.receivers.all[world.b as usize]);
        let (at_a, at_b) = (state(&source.table), state(b));
        if at_a.serves() && at_b.serves() {
            return Some(format!("both serve: {at_a:?}, {at_b:?}"));
        }
        if at_b.serves() && data(b) != source.truth {
            return Some(format!("B serves {:?}, and A had {:?}", data(b), source.truth));
        }
        if shardkv::rows::copied(b, S).wipes > 0 {
            return Some("a copy was wrong at its end".to_owned());
        }
        (!holds(at_a) && !holds(at_b)).then(|| "nobody has the rows".to_owned())
    }

    /// What happens from here without clients, with a mover that begins now. None: the shard gets to
    /// its place.
    pub(super) fn stuck(&mut self, mut world: World) -> Option<String> {
        let newest = self.configs.len() - 1;
        for _ in 0..60 {
            for (me, table) in
                [(0, self.source(world.a).table.clone()), (1, self.receivers.all[world.b as usize].clone())]
            {
                let num = shardkv::rows::config_num(&table).map_or(0, |num| num.0 as usize);
                if num < newest {
                    let config = self.configs[num + 1].clone();
                    match me {
                        0 => {
                            let a = self
                                .enter(world.a, Command::Adopt(config))
                                .expect("adopting waits for nothing");
                            world = World { a, since: self.since(world, a), ..world };
                        }
                        _ => world.b = self.receiver(next(1, &table, Command::Adopt(config))),
                    }
                }
            }
            // From B's side the other search goes on.
            if holds(state(&self.receivers.all[world.b as usize]))
                || state(&self.source(world.a).table) == ShardState::Serving
            {
                return None;
            }
            let Some(answer) = self.offered(world.a, world.b) else { continue };
            let message = match &self.messages.all[answer as usize] {
                Message::At(num, copied) => {
                    let (num, copied, source) = (*num, copied.clone(), self.source(world.a).clone());
                    let table = source.table.clone();
                    self.sends(&source, &table, world.since, num, &copied)
                }
                message => Some(message.clone()),
            };
            match message {
                Some(Message::ToA(command)) => {
                    if let Some(a) = self.enter(world.a, command) {
                        world = World { a, since: self.since(world, a), ..world };
                    }
                }
                Some(message) => {
                    let id = self.message(message);
                    world.b = self.receive(world.b, id).0;
                }
                None => {}
            }
        }
        let (a, b) = (state(&self.source(world.a).table), state(&self.receivers.all[world.b as usize]));
        Some(format!(
            "nothing goes on: {a:?}, {b:?}, {:?}",
            shardkv::rows::copied(&self.receivers.all[world.b as usize], S)
        ))
    }
}
