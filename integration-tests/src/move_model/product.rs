//! The product's state machine, one command or question at a time, over rows in memory.
//!
//! Left out on purpose: everything between a group's log and its state machine.

use bytes::Bytes;
use clerk::api::config::{Assignment, Config, Params, shard_of};
use clerk::api::kv::Write;
use clerk::api::{ConfigNum, ShardId};
use raft::rsm::{MapRows, StateMachine};
use raft::storage::Row;
use raft::types::EntryId;
use shardkv::command::{Command, Outcome, Query};
use shardkv::state_machine::Machine;

use super::values::group_id;

/// Rows that belong to no shard's data: the group's own.
const GROUP_ROWS: u8 = 0x01;

/// The rows that travel.
pub(super) fn data(rows: &MapRows) -> Vec<Row> {
    let travels = |row: &(&Bytes, &Bytes)| row.0.first() != Some(&GROUP_ROWS);
    rows.0.iter().filter(travels).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The product's state machine after a command.
pub(super) struct Real {
    pub(super) machine: Machine,
    pub(super) table: MapRows,
    pub(super) outcome: Outcome,
}

pub(super) fn real(me: usize, before: &MapRows, command: Command) -> Real {
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
pub(super) fn asked(me: usize, before: &MapRows, query: Query) -> Real {
    let mut machine = Machine::new(group_id(me));
    machine.load(before);
    let outcome = Outcome::Reply(machine.query(before, query));
    Real { machine, table: before.clone(), outcome }
}

/// The rows of group 0 after it adopted some configurations.
pub(super) fn served(assignments: &[Vec<Assignment>]) -> MapRows {
    let adopt = |table: MapRows, config: Config| real(0, &table, Command::Adopt(config)).table;
    configs(assignments).into_iter().fold(MapRows::default(), adopt)
}
