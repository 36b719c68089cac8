//! The product's state machine, one command or question at a time, over rows in memory.
//!
//! Left out on purpose: everything between a group's log and its state machine.

use bytes::Bytes;
use clerk::api::config::{Assignment, Config, Params, Sealed, shard_of};
use clerk::api::kv::Write;
use clerk::api::{ConfigNum, GroupId, Incarnation, ShardId};
use raft::rsm::{MapRows, StateMachine};
use raft::storage::Row;
use raft::types::EntryId;
use shardkv::command::{Command, Outcome, Query};
use shardkv::machine::Machine;

use super::values::group_id;

/// The key of the cluster.
const KEY: u64 = 7;

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

/// The life of a group's data.
fn life(group: GroupId) -> Incarnation {
    Incarnation(group.0 + 1000)
}

/// The rows of a group that has its name and knows no configuration.
pub(super) fn born(me: usize) -> MapRows {
    real(me, &MapRows::default(), Command::Init { incarnation: life(group_id(me)) }).table
}

/// One history: each configuration follows the one before. Another one has a group more, from configuration 1 on.
pub(super) fn configs(assignments: &[Vec<Assignment>], other: bool) -> Vec<Sealed> {
    let params = Params { shard_count: assignments[0].len() as u32, ..Params::default() };
    let mut configs: Vec<Sealed> = Vec::new();
    for (num, shards) in (0..).map(ConfigNum).zip(assignments) {
        let before = configs.last().map(Sealed::digest).unwrap_or_default();
        let more = (other && num > ConfigNum(0)).then_some(GroupId(999));
        let groups = shards.iter().filter_map(|it| it.owner).chain(more);
        let groups = groups.map(|group| (group, life(group))).collect();
        let config = Config { num, before, shards: shards.clone(), groups, ..Config::zero(KEY, params) };
        configs.push(Sealed::new(config));
    }
    configs
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
    let outcome = machine.query(before, query);
    Real { machine, table: before.clone(), outcome }
}

/// The rows of group 0 after it adopted some configurations.
pub(super) fn served(assignments: &[Vec<Assignment>]) -> MapRows {
    let adopt = |table: MapRows, config: Sealed| real(0, &table, Command::Adopt(config)).table;
    configs(assignments, false).into_iter().fold(born(0), adopt)
}
