//! Three groups under random histories, with messages that stay deliverable forever, in any order,
//! any number of times: loss, delay, repetition, reordering and any number of movers at once. Groups
//! start again and forget what was changed, or remember little; a mover may see an older table than
//! its memory; Seals may be late. The exhaustive search of the same protocol is a model; this is the
//! code.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::machine::changes::{Lag, Limits};
use crate::machine::plan::{Move, Next as ToSend, Sealing, Sizes};

#[derive(Clone, PartialEq)]
enum Message {
    Push { to: usize, from: usize, command: Command, num: u64, shard: ShardId },
    At { from: usize, num: u64, shard: ShardId, copied: Copied, to: usize },
    Seal { from: usize, num: u64, shard: ShardId, frozen: Frozen },
    Done { from: usize, num: u64, shard: ShardId },
    Refused { from: usize, num: u64, shard: ShardId },
}

struct Storm {
    random: StdRng,
    configs: Vec<Sealed>,
    groups: Vec<Group>,
    /// The table of each group some entries ago.
    older: Vec<MapRows>,
    messages: Vec<Message>,
    /// What an observer of acknowledged writes expects.
    truth: BTreeMap<Bytes, (String, u64)>,
    writes: u64,
    moved: u64,
    reopened: u64,
    /// Shards that were sealed when all but some named changes had been copied.
    copied: u64,
    started_over: u64,
    /// Senders may say that another end is expected: then pushes start over now and then.
    wrong_ends: bool,
}

/// Little at once, so that much happens.
const SIZES: Sizes = Sizes {
    chunk: ScanLimit { rows: 2, bytes: 1 << 20 },
    seal: ScanLimit { rows: 3, bytes: 1 << 20 },
    hold: Lag { rows: 4, bytes: 1 << 20 },
    round: Lag { rows: 6, bytes: 1 << 20 },
    round_entries: 8,
};

const IDS: [GroupId; 3] = [GroupId(1), GroupId(2), GroupId(3)];

impl Storm {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let owners: Vec<Vec<Option<GroupId>>> = (0..12)
            .map(|_| {
                (0..2)
                    .map(|_| random.random_bool(0.8).then(|| *IDS.choose(&mut random).expect("three")))
                    .collect()
            })
            .collect();
        let owners: Vec<_> = owners.iter().map(|owners| &owners[..]).collect();
        let configs = history(PARAMS, &owners);
        let limits = Limits { rows: if seed.is_multiple_of(3) { 4 } else { 100 }, ..Limits::default() };
        let groups = IDS.into_iter().map(|id| Group::with_limits(id, PARAMS, limits)).collect();
        Self {
            random,
            configs,
            groups,
            older: vec![MapRows::default(); 3],
            messages: Vec::new(),
            truth: BTreeMap::new(),
            writes: 0,
            moved: 0,
            reopened: 0,
            copied: 0,
            started_over: 0,
            wrong_ends: seed % 5 == 1,
        }
    }

    fn num(&self, group: usize) -> Option<u64> {
        self.groups[group].machine.num().map(|num| num.0)
    }

    fn adopt(&mut self, group: usize) {
        let next = self.num(group).map_or(0, |num| num as usize + 1);
        if let Some(config) = self.configs.get(next).cloned() {
            self.groups[group].adopt(&config);
        }
    }

    fn write(&mut self, group: usize) {
        let key = key_in(ShardId(self.random.random_range(0..2)), self.random.random_range(0..4));
        let delete = self.random.random_bool(0.2);
        self.writes += 1;
        let text = self.writes.to_string();
        let write = if delete { Write::Delete } else { put(&text) };
        if let Ok(KvReply::Written { version }) = self.groups[group].write(&key, write) {
            let before = self.truth.get(&key).map_or(0, |(_, version)| *version);
            if delete {
                assert!(version.0 == 0 || version.0 == before)
            } else {
                assert!(version.0 > before, "versions never return")
            }
            let text = if delete { String::new() } else { text };
            self.truth.insert(key, (text, before.max(version.0)));
        }
    }

    /// What a mover of `group` sends now, from its rows and its memory.
    fn send(&mut self, group: usize) {
        let shard = ShardId(self.random.random_range(0..2));
        let (to, num) = match self.groups[group].state_of(shard) {
            ShardState::Leaving { to, num } | ShardState::Handing { to, num, .. } => (to, num.0),
            _ => return,
        };
        let what = Move { shard, num: ConfigNum(num), to, shard_count: PARAMS.shard_count, sizes: SIZES };
        let to = IDS.iter().position(|id| *id == to).expect("one of three");
        let at: Vec<_> = self
            .messages
            .iter()
            .filter_map(|message| match message {
                Message::At { from, num: n, shard: s, copied, to: t }
                    if (*from, *n, *s, *t) == (group, num, shard, to) =>
                {
                    Some(copied.clone())
                }
                _ => None,
            })
            .collect();
        // Mostly the newest answer.
        let at = if self.random.random_bool(0.7) { at.last() } else { at.choose(&mut self.random) };
        let Some(at) = at.cloned() else { return self.ask(group, to, shard, num) };
        let source = &self.groups[group];
        // What was written last may not be in the table yet.
        let table = if self.random.random_bool(0.2) { self.older[group].clone() } else { source.table() };
        let (config, changes) = (&self.configs[num as usize], &source.machine.changes);
        let (place, after) = (config.place(), at.cursor.clone());
        let Some(next) = what.next(&table, changes, &at) else { return };
        let command = match next {
            ToSend::Lags => return,
            ToSend::Install { to, rows } => {
                self.started_over += u64::from(to.reach == Reach::Start);
                Command::Install { shard, config: place, after, to, rows }
            }
            ToSend::Activate { .. } if self.wrong_ends && self.random.random_bool(0.1) => {
                activate(shard, config, &after, End { rows: 99, ..End::default() })
            }
            ToSend::Activate { rows, end } => Command::Activate { shard, config: place, after, rows, end },
            ToSend::Hold => match what.sealing(&table, changes, &after) {
                Sealing::Seal(frozen) => {
                    let sealed = Message::Seal { from: group, num, shard, frozen };
                    if !self.messages.contains(&sealed) {
                        self.messages.push(sealed);
                    }
                    return;
                }
                Sealing::First(to, rows) => Command::Install { shard, config: place, after, to, rows },
                Sealing::Not => return,
            },
        };
        self.say(Message::Push { to, from: group, command, num, shard });
    }

    fn say(&mut self, message: Message) {
        if !self.messages.contains(&message) {
            self.messages.push(message);
        }
    }

    /// A receiver says how far it is.
    fn ask(&mut self, group: usize, to: usize, shard: ShardId, num: u64) {
        let answer = self.groups[to].ask(shard, &self.configs[num as usize]);
        self.heard(answer, group, to, (shard, num));
    }

    fn heard(&mut self, answer: PushVerdict, from: usize, to: usize, (shard, num): (ShardId, u64)) {
        let answer = match answer {
            Ok(PushReply::Copied { copied, .. }) => Message::At { from, num, shard, copied, to },
            Ok(PushReply::Done { num }) => Message::Done { from, num: num.0, shard },
            Ok(PushReply::Refused { num }) => Message::Refused { from, num: num.0, shard },
            Err(KvRefusal::NotReady { .. }) => return,
            other => panic!("{other:?}"),
        };
        // The newest answer is the last.
        self.messages.retain(|message| *message != answer);
        self.messages.push(answer);
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Push { to, from, command, num, shard } => {
                let answer = self.groups[to].apply(command).push();
                self.heard(answer, from, to, (shard, num));
            }
            Message::Seal { from, num, shard, frozen } => {
                let is_copied = frozen.from < Pos::end_of(frozen.upto) && !frozen.keys.is_empty();
                let seal = Command::Seal { shard, num: ConfigNum(num), frozen };
                let sealed = self.groups[from].apply(seal) == Outcome::Changed(true);
                self.copied += u64::from(sealed && is_copied);
            }
            Message::Done { from, num, shard } => {
                let released = self.groups[from].apply(release(shard, num)) == Outcome::Changed(true);
                self.moved += u64::from(released);
            }
            Message::Refused { from, num, shard } => {
                let reopened = self.groups[from].apply(reopen(shard, num)) == Outcome::Changed(true);
                self.reopened += u64::from(reopened);
            }
            // Remembered for `send`.
            Message::At { .. } => {}
        }
    }

    fn step(&mut self) {
        let group = self.random.random_range(0..3);
        if self.random.random_bool(0.2) {
            self.older[group] = self.groups[group].table();
        }
        if self.random.random_bool(0.002) {
            // It starts again.
            let table = self.groups[group].table();
            self.groups[group].machine.load(&table);
        }
        match self.random.random_range(0..10) {
            // Moves have time to end, mostly.
            0 if self.random.random_bool(0.15) => self.adopt(group),
            0..4 => self.write(group),
            4..7 => self.send(group),
            // Mostly what was sent lately, and now and then something old.
            _ => {
                let lately = self.messages.len().saturating_sub(8);
                let from = if self.random.random_bool(0.7) { lately } else { 0 };
                if let Some(message) = self.messages[from..].choose(&mut self.random).cloned() {
                    self.deliver(message);
                }
            }
        }
    }

    fn is_settled(&self) -> bool {
        let shards = |group: &Group| group.machine.shards.iter().all(|state| state.settled());
        (0..3).all(|group| self.num(group) == Some(12)) && self.groups.iter().all(shards)
    }

    fn is_newest(&self, group: &Group, shard: ShardId) -> bool {
        let written = self.truth.iter().filter(|(key, _)| shard_of(key, PARAMS.shard_count) == shard);
        written.into_iter().all(|(key, (text, version))| {
            let row = group.rows.get(&rows::value_key(key)).map(|row| rows::parse_value(&row));
            if text.is_empty() {
                row.is_none()
            } else {
                row == Some((Version(*version), Bytes::copy_from_slice(text.as_bytes())))
            }
        })
    }

    fn check(&self) {
        for shard in [ShardId(0), ShardId(1)] {
            let states: Vec<_> = self.groups.iter().map(|group| group.machine.state(shard)).collect();
            let serving: Vec<_> = self.groups.iter().filter(|group| group.state_of(shard).serves()).collect();
            assert!(serving.len() <= 1, "two servers of {shard}: {states:?}");
            assert!(
                serving.iter().all(|group| self.is_newest(group, shard)),
                "serves lost or old rows of {shard}"
            );
            let holds = |group: &Group| {
                let state = group.state_of(shard);
                !matches!(state, ShardState::Absent | ShardState::Awaiting { .. })
                    && self.is_newest(group, shard)
            };
            let written = self.truth.keys().any(|key| shard_of(key, PARAMS.shard_count) == shard);
            assert!(!written || self.groups.iter().any(holds), "nobody holds the newest rows of {shard}");
        }
        for group in &self.groups {
            assert!(
                self.wrong_ends || group.machine.standing().borrow().wipes == 0,
                "no push has to start over"
            );
            for (n, state) in group.machine.shards.iter().enumerate() {
                if *state == ShardState::Absent {
                    assert!(group.pushed(ShardId(n as u32)).is_empty(), "absent, with rows");
                }
            }
        }
    }
}

#[test]
fn one_server_and_the_newest_rows_whatever_the_network_does() {
    let (mut moved, mut reopened, mut settled, mut copied, mut started_over) = (0, 0, 0, 0, 0);
    for seed in 0..80 {
        let mut storm = Storm::new(seed);
        for step in 0..6000 {
            storm.step();
            if step % 16 == 0 {
                storm.check();
            }
            if storm.is_settled() {
                settled += 1;
                break;
            }
        }
        storm.check();
        storm.groups.iter().for_each(Group::check_cache);
        moved += storm.moved;
        reopened += storm.reopened;
        copied += storm.copied;
        started_over += storm.started_over;
    }
    let seen = format!(
        "{moved} moves, {reopened} refused, {settled} histories settled, {copied} sealed with changes, \
         {started_over} copies that started over"
    );
    println!("{seen}");
    assert!(moved > 80 && reopened > 10 && settled > 30, "vacuous: {seen}");
    assert!(copied > 20 && started_over > 20, "vacuous: {seen}");
}
