//! The two groups, what they say, and what each entry and message does to them, by the product's functions.
//!
//! Results are kept, so that each entry is applied once to each state of a group.

use std::hash::Hash;

use bytes::Bytes;
use clerk::api::config::{Assignment, Sealed};
use clerk::api::kv::{KvRefusal, Write};
use clerk::api::push::{Change, Copied, Cursor, Pos, PushReply, Reach};
use clerk::api::{ConfigNum, ShardId};
use raft::rsm::{MapRows, StateMachine};
use raft::storage::{APPLIED_KEY, Applied, ScanLimit};
use raft::types::EntryId;
use shardkv::changes::{Changes, Lag};
use shardkv::command::{Command, Outcome, Query};
use shardkv::copy;
use shardkv::machine::Machine;
use shardkv::plan::{Move, Next, Sealing, Sizes};
use shardkv::shard::ShardState;

use super::{Fault, Found, Scope};
use crate::messages::Sets;
use crate::product::{born, configs};
use crate::values::{SetId, Table, group_id};

/// The shard.
pub(super) const S: ShardId = ShardId(0);

/// Little at once, so that much happens.
const SIZES: Sizes = Sizes {
    chunk: ScanLimit { rows: 1, bytes: 1 << 20 },
    seal: ScanLimit { rows: 2, bytes: 1 << 20 },
    hold: Lag { rows: 2, bytes: 1 << 20 },
    round: Lag { rows: 1, bytes: 1 << 20 },
    round_entries: 100,
};

/// Group A: its table now and before its last entry, and what was changed since the shard leaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub(super) table: MapRows,
    pub(super) older: MapRows,
    pub(super) noted: Vec<(Pos, Bytes)>,
    /// The rows when it served the shard last.
    pub(super) truth: Vec<Change>,
    pub(super) writes: usize,
}

/// Something that was sent, or that may go through the log of group A.
#[derive(Clone, Debug)]
pub(super) enum Message {
    ToB(Command),
    /// B's answer about a move.
    At(ConfigNum, Copied),
    ToA(Command),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) a: u32,
    pub(super) b: u32,
    /// What A remembers begins after this.
    pub(super) since: Pos,
    pub(super) sent: SetId,
}

/// Numbers for things that are met again and again.
pub(super) struct Names<K, T> {
    pub(super) all: Vec<T>,
    pub(super) ids: Table<K, u32>,
}

impl<K: Eq + Hash, T> Names<K, T> {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), ids: Table::default() }
    }

    pub(super) fn id(&mut self, key: K, thing: impl FnOnce() -> T) -> u32 {
        let Self { all, ids } = self;
        *ids.entry(key).or_insert_with(|| {
            all.push(thing());
            u32::try_from(all.len() - 1).expect("few")
        })
    }
}

pub(super) struct Search {
    pub(super) scope: Scope,
    pub(super) configs: Vec<Sealed>,
    pub(super) sources: Names<Source, Source>,
    pub(super) receivers: Names<MapRows, MapRows>,
    pub(super) messages: Names<Bytes, Message>,
    pub(super) sets: Sets,
    pub(super) at_b: Table<(u32, u32), (u32, Option<u32>)>,
    pub(super) at_a: Table<(u32, u32), Option<u32>>,
    pub(super) planned: Table<(u32, Pos, u32), Vec<u32>>,
    pub(super) found: Found,
}

pub(super) fn applied(index: u64) -> Bytes {
    base::codec::encode(&Applied { id: EntryId::new(1, index), ..Applied::default() })
}

pub(super) fn index_of(table: &MapRows) -> u64 {
    raft::storage::applied(table).id.index.0
}

/// A state machine after the next entry of its log: its rows, what it says, and what it noted.
pub(super) fn step(me: usize, before: &MapRows, command: Command) -> (MapRows, Outcome, Vec<(Pos, Bytes)>) {
    let (mut machine, mut table) = (Machine::new(group_id(me)), before.clone());
    machine.load(&table);
    let index = index_of(before);
    let outcome = machine.apply(&mut table, EntryId::new(1, index + 1), command);
    table.0.insert(Bytes::from_static(APPLIED_KEY), applied(index + 1));
    let (after, upto) = (Pos::end_of(index), Pos::end_of(index + 1));
    let noted = match state(&table) {
        ShardState::Leaving { num, .. } => {
            let changes = std::sync::Arc::clone(&machine.standing().borrow().changes);
            changes.missing(S, num, after, upto, usize::MAX).map_or_else(Vec::new, |missing| missing.keys)
        }
        _ => Vec::new(),
    };
    (table, outcome, noted)
}

/// The rows after the next entry.
pub(super) fn next(me: usize, before: &MapRows, command: Command) -> MapRows {
    step(me, before, command).0
}

pub(super) fn data(table: &MapRows) -> Vec<Change> {
    let all = ScanLimit { rows: usize::MAX, bytes: usize::MAX };
    copy::chunk(table, S, 1, &Reach::Start, all).0
}

pub(super) fn state(table: &MapRows) -> ShardState {
    shardkv::rows::state(table, S)
}

pub(super) fn holds(state: ShardState) -> bool {
    !matches!(state, ShardState::Absent | ShardState::Awaiting { .. })
}

impl Search {
    pub(super) fn new(scope: Scope) -> Self {
        let (a, b) = (Some(group_id(0)), Some(group_id(1)));
        let mut last = None;
        let mut assignments = vec![vec![Assignment::default()]];
        for owner in [a].into_iter().chain([b, a].into_iter().cycle().take(scope.moves)) {
            assignments.push(vec![Assignment { owner, last_owner: last }]);
            last = owner;
        }
        Self {
            scope,
            configs: configs(&assignments, false),
            sources: Names::new(),
            receivers: Names::new(),
            messages: Names::new(),
            sets: Sets::new(),
            at_b: Table::default(),
            at_a: Table::default(),
            planned: Table::default(),
            found: Found::default(),
        }
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.scope.fault == Some(fault)
    }

    pub(super) fn message(&mut self, message: Message) -> u32 {
        let key = match &message {
            Message::ToB(command) | Message::ToA(command) => raft::rsm::encode_command(command),
            Message::At(num, copied) => base::codec::encode(&(num, copied)),
        };
        self.messages.id(key, || message)
    }

    pub(super) fn receiver(&mut self, table: MapRows) -> u32 {
        self.receivers.id(table.clone(), || table)
    }

    pub(super) fn source_of(&mut self, source: Source) -> u32 {
        self.sources.id(source.clone(), || source)
    }

    pub(super) fn source(&self, id: u32) -> &Source {
        &self.sources.all[id as usize]
    }

    /// Both groups in configuration 1; A has rows.
    pub(super) fn start(&mut self) -> World {
        let adopt = |me: usize, table: MapRows| {
            self.configs[..2]
                .iter()
                .fold(table, |table, config| next(me, &table, Command::Adopt(config.clone())))
        };
        let (mut table, b) = (adopt(0, born(0)), adopt(1, born(1)));
        for key in 0..self.scope.before {
            table = next(0, &table, self.write(key, 0, false));
        }
        let truth = data(&table);
        let source = Source { older: table.clone(), table, noted: Vec::new(), truth, writes: 0 };
        let (a, b) = (self.source_of(source), self.receiver(b));
        World { a, b, since: Pos::default(), sent: SetId::default() }
    }

    pub(super) fn write(&self, key: usize, number: usize, delete: bool) -> Command {
        let value = Bytes::from(vec![b'0' + number as u8; 3]);
        let write = if delete { Write::Delete } else { Write::Put { value, expected: None } };
        let key = Bytes::from(vec![b'a' + key as u8]);
        Command::Write { shard: S, key, write, ticket: None, config: ConfigNum(1) }
    }

    /// A after an entry of its log, if that changes anything.
    pub(super) fn after(&mut self, a: u32, command: Command) -> Option<u32> {
        let before = self.source(a).clone();
        let is_write = matches!(command, Command::Write { .. });
        let command = match command {
            Command::Seal { shard, num, mut frozen } => {
                if self.has(Fault::SealIgnoresLastChange) {
                    frozen.upto = u64::MAX;
                }
                if self.has(Fault::SealWithoutKeys) {
                    frozen.keys.clear();
                }
                Command::Seal { shard, num, frozen }
            }
            command => command,
        };
        let (table, outcome, mut newly) = step(0, &before.table, command);
        let is_done = match &outcome {
            Outcome::Changed(changed) => *changed,
            Outcome::Reply(reply) => reply.is_ok(),
            Outcome::Push(_) => false,
        };
        if !is_done {
            return None;
        }
        let leaves = matches!(state(&table), ShardState::Leaving { .. });
        let mut noted =
            if leaves && state(&table) == state(&before.table) { before.noted } else { Vec::new() };
        if leaves && is_write {
            if self.has(Fault::ChangeNotNoted) {
                newly.pop();
            }
            noted.retain(|(_, known)| newly.iter().all(|(_, key)| key != known));
            noted.extend(newly);
        }
        let truth = if holds(state(&table)) { data(&table) } else { before.truth };
        let writes = before.writes + usize::from(is_write);
        Some(self.source_of(Source { older: before.table, table, noted, truth, writes }))
    }

    /// B after a message, and its answer.
    pub(super) fn receive(&mut self, b: u32, message: u32) -> (u32, Option<u32>) {
        if let Some(known) = self.at_b.get(&(b, message)) {
            return *known;
        }
        let before = self.receivers.all[b as usize].clone();
        let Message::ToB(mut command) = self.messages.all[message as usize].clone() else { return (b, None) };
        let here = shardkv::rows::copied(&before, S).cursor;
        match &mut command {
            // (It must move the cursor nevertheless.)
            Command::Install { after, to, .. }
                if self.has(Fault::InstallIgnoresTheCursor)
                    && to.reach >= here.reach
                    && to.pos >= here.pos
                    && *to != here =>
            {
                *after = here;
            }
            Command::Activate { after, .. } if self.has(Fault::ActivateIgnoresTheCursor) => *after = here,
            _ => {}
        }
        let (Command::Install { config, .. } | Command::Activate { config, .. }) = &command else {
            return (b, None);
        };
        let num = config.num;
        let (mut table, outcome, _) = step(1, &before, command);
        // Nobody asks how long its log is.
        table.0.insert(Bytes::from_static(APPLIED_KEY), applied(index_of(&before)));
        let answer = self.answer(num, outcome.push());
        let result = (self.receiver(table), answer);
        self.at_b.insert((b, message), result);
        result
    }

    pub(super) fn answer(&mut self, num: ConfigNum, reply: Result<PushReply, KvRefusal>) -> Option<u32> {
        let message = match reply {
            Ok(PushReply::Copied { copied, .. }) => Message::At(num, copied),
            Ok(PushReply::Done { num }) => Message::ToA(Command::Release { shard: S, num }),
            Ok(PushReply::Refused { num }) => Message::ToA(Command::Reopen { shard: S, num }),
            Err(_) => return None,
        };
        Some(self.message(message))
    }

    /// B's answer to an offer of the move that A is in.
    pub(super) fn offered(&mut self, a: u32, b: u32) -> Option<u32> {
        let num = match state(&self.source(a).table) {
            ShardState::Leaving { num, .. } | ShardState::Handing { num, .. } => num,
            _ => return None,
        };
        let mut machine = Machine::new(group_id(1));
        let table = self.receivers.all[b as usize].clone();
        machine.load(&table);
        let config = self.configs[num.0 as usize].place();
        let outcome = machine.query(&table, Query::Cursor { shard: S, config });
        self.answer(num, outcome.push())
    }

    /// What A sends after an answer of B, from its table now and from the older one.
    pub(super) fn plan(&mut self, a: u32, since: Pos, answer: u32) -> Vec<u32> {
        if let Some(known) = self.planned.get(&(a, since, answer)) {
            return known.clone();
        }
        let Message::At(num, copied) = self.messages.all[answer as usize].clone() else { return Vec::new() };
        let source = self.source(a).clone();
        let mut planned = Vec::new();
        for table in [&source.table, &source.older] {
            let mut table = table.clone();
            if self.has(Fault::OlderTable) {
                table.0.insert(Bytes::from_static(APPLIED_KEY), applied(index_of(&source.table)));
            }
            let sent = self.sends(&source, &table, since, num, &copied);
            planned.extend(sent.into_iter().map(|message| self.message(message)));
        }
        planned.sort_unstable();
        planned.dedup();
        self.planned.insert((a, since, answer), planned.clone());
        planned
    }

    pub(super) fn sends(
        &mut self,
        source: &Source,
        table: &MapRows,
        since: Pos,
        num: ConfigNum,
        copied: &Copied,
    ) -> Option<Message> {
        let changes = Changes::default();
        if matches!(state(&source.table), ShardState::Leaving { num: leaving, .. } if leaving == num) {
            let known = if self.has(Fault::SinceForgotten) { Pos::default() } else { since };
            changes.start(S, num, known);
            for (pos, key) in source.noted.iter().filter(|(pos, _)| *pos > since) {
                changes.note(S, key, 1, *pos);
            }
        }
        let what = Move { shard: S, num, to: group_id(1), shard_count: 1, sizes: SIZES };
        let (config, after) = (self.configs[num.0 as usize].place(), copied.cursor.clone());
        let install = |to: Cursor, rows| {
            Message::ToB(Command::Install { shard: S, config, after: after.clone(), to, rows })
        };
        Some(match what.next(table, &changes, copied)? {
            Next::Lags => return None,
            Next::Install { to, rows } => {
                self.found.started_over += usize::from(to.reach == Reach::Start);
                install(to, rows)
            }
            Next::Activate { rows, end } => {
                Message::ToB(Command::Activate { shard: S, config, after, rows, end })
            }
            Next::Hold => match what.sealing(table, &changes, &copied.cursor) {
                Sealing::Seal(frozen) => Message::ToA(Command::Seal { shard: S, num, frozen }),
                Sealing::First(to, rows) => install(to, rows),
                Sealing::Not => return None,
            },
        })
    }
}
