//! The product's state machine, one command or question at a time, over rows in memory.
//!
//! Left out on purpose: everything between a group's log and its state machine.

use std::collections::BTreeMap;

use bytes::Bytes;
use clerk::api::config::{Assignment, Config, Params, shard_of};
use clerk::api::kv::Write;
use clerk::api::{ConfigNum, ShardId};
use raft::rsm::{Rows, StateMachine};
use raft::storage::{Read, Row, ScanLimit};
use raft::types::EntryId;
use shardkv::command::{Command, Outcome, Query};
use shardkv::state_machine::Machine;

use super::values::group_id;

/// Rows in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RealRows(BTreeMap<Bytes, Bytes>);

impl Read for RealRows {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key).cloned()
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
        let rows = self.0.range(Bytes::copy_from_slice(start)..);
        rows.take_while(|(key, _)| end.is_none_or(|end| key[..] < *end))
            .take(limit.rows)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

impl Rows for RealRows {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.0.insert(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.remove(key);
    }

    fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.0.retain(|key, _| key[..] < *start || key[..] >= *end);
    }
}

/// Rows that belong to no shard's data: the group's own.
const GROUP_ROWS: u8 = 0x01;

impl RealRows {
    /// The rows that travel.
    pub(super) fn data(&self) -> Vec<Row> {
        let travels = |row: &(&Bytes, &Bytes)| row.0.first() != Some(&GROUP_ROWS);
        self.0.iter().filter(travels).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// The product's state machine after a command.
pub(super) struct Real {
    pub(super) machine: Machine,
    pub(super) table: RealRows,
    pub(super) outcome: Outcome,
}

pub(super) fn real(me: usize, before: &RealRows, command: Command) -> Real {
    let (mut machine, mut table) = (Machine::new(group_id(me)), before.clone());
    machine.load(&table);
    let outcome = machine.apply(&mut table, EntryId::new(1, 1), command);
    Real { machine, table, outcome }
}

pub(super) fn configs(assignments: &[Vec<Assignment>]) -> Vec<Config> {
    let params = Params { shard_count: assignments[0].len() as u32, ..Params::default() };
    let numbered = (0..).map(ConfigNum).zip(assignments);
    numbered.map(|(num, shards)| Config { num, shards: shards.clone(), ..Config::zero(params) }).collect()
}

/// A client's key in a shard.
pub(super) fn key(shard: usize, shards: usize) -> Bytes {
    let mut keys = (0_u32..).map(|number| Bytes::from(format!("k{number}")));
    let home = |key: &Bytes| shard_of(key, shards as u32) == ShardId(shard as u32);
    keys.find(home).expect("there is one")
}

/// A write, whose value is as long as its number, so that the shard's own row changes with each.
pub(super) fn write(shards: usize, value: u8, delete: bool) -> Command {
    let put = Write::Put { value: Bytes::from(vec![b'v'; value.into()]), expected: None };
    let write = if delete { Write::Delete } else { put };
    Command::Write { shard: ShardId(0), key: key(0, shards), write, ticket: None, config: ConfigNum(0) }
}

/// What a state machine answers to a question, which changes nothing.
pub(super) fn asked(me: usize, before: &RealRows, query: Query) -> Real {
    let mut machine = Machine::new(group_id(me));
    machine.load(before);
    let outcome = Outcome::Reply(machine.query(before, query));
    Real { machine, table: before.clone(), outcome }
}

/// The rows of group 0 after it adopted some configurations.
pub(super) fn served(assignments: &[Vec<Assignment>]) -> RealRows {
    let adopt = |table: RealRows, config: Config| real(0, &table, Command::Adopt(config)).table;
    configs(assignments).into_iter().fold(RealRows::default(), adopt)
}
