//! The state machine over rows in memory: operations of clients, and shards carried by hand.

mod formats;
mod kv;
mod lost;
mod moves;
mod storm;

use std::collections::BTreeMap;

use base::socket::Reservation;
use bytes::Bytes;
use clerk::api::config::{Assignment, Config, Params, Sealed, shard_of};
use clerk::api::kv::{KvRefusal, KvReply, Write};
use clerk::api::push::{Change, Copied, Cursor, End, Pos, PushReply, Reach};
use clerk::api::{ConfigNum, GroupId, Incarnation, Seq, SessionId, ShardId, Ticket, Version};
use raft::rsm::sessions::Sessions;
use raft::rsm::{MapRows, Rows, StateMachine};
use raft::storage::{APPLIED_KEY, Applied, Read, ScanLimit};
use raft::types::EntryId;

use super::Machine;
use crate::machine::changes::Limits;
use crate::machine::command::{Command, Outcome, Query};
use crate::machine::rows::Frozen;
use crate::machine::shard::{Next, ShardState};
use crate::machine::{copy, rows};

type Reply = Result<KvReply, KvRefusal>;

const PARAMS: Params = Params { shard_count: 2, key_bytes_max: 16, value_bytes_max: 32, sessions_max: 3 };
const KEY: u64 = 7;
const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

const ALL: ScanLimit = ScanLimit { rows: usize::MAX, bytes: usize::MAX };

type PushVerdict = Result<PushReply, KvRefusal>;

/// The life of a group's data in these tests.
fn life(group: GroupId) -> Incarnation {
    Incarnation(group.0 + 1000)
}

/// Configurations 0, 1, ... of a cluster with one owner for each shard and configuration.
fn history(params: Params, owners: &[&[Option<GroupId>]]) -> Vec<Sealed> {
    let mut configs = vec![Sealed::new(Config::zero(KEY, params))];
    for (num, owners) in (1..).zip(owners) {
        let before = configs.last().expect("configuration 0").clone();
        let shards = before.shards.iter().zip(owners.iter()).map(|(before, owner)| Assignment {
            owner: *owner,
            last_owner: before.owner.or(before.last_owner),
        });
        let groups = owners.iter().flatten().map(|group| (*group, life(*group))).collect();
        let (num, shards, digest) = (ConfigNum(num), shards.collect(), before.digest());
        let next = Config { num, shards, groups, before: digest, ..before.config().as_ref().clone() };
        configs.push(Sealed::new(next));
    }
    configs
}

/// A key that lies in `shard`.
fn key_in(shard: ShardId, n: usize) -> Bytes {
    let keys = (0..).map(|i| Bytes::from(format!("k{i}")));
    keys.filter(|key| shard_of(key, PARAMS.shard_count) == shard).nth(n).expect("there are enough")
}

fn put(value: &str) -> Write {
    Write::Put { value: Bytes::copy_from_slice(value.as_bytes()), expected: None }
}

fn put_if(value: &str, expected: u64) -> Write {
    Write::Put { value: Bytes::copy_from_slice(value.as_bytes()), expected: Some(Version(expected)) }
}

fn append(piece: &str) -> Write {
    Write::Append { piece: Bytes::copy_from_slice(piece.as_bytes()) }
}

fn written(version: u64) -> Reply {
    Ok(KvReply::Written { version: Version(version) })
}

fn value(value: &str, version: u64) -> Reply {
    Ok(KvReply::Value { value: Some(Bytes::copy_from_slice(value.as_bytes())), version: Version(version) })
}

fn missing() -> Reply {
    Ok(KvReply::Value { value: None, version: Version(0) })
}

fn ticket(session: SessionId, seq: u64) -> Option<Ticket> {
    Some(Ticket { session, seq: Seq(seq) })
}

/// One group: a machine and its rows.
struct Group {
    machine: Machine,
    rows: MapRows,
    index: u64,
    params: Params,
}

impl Group {
    /// A group whose data has its name.
    fn new(id: GroupId, params: Params) -> Self {
        let mut group = Self::unnamed(id, params);
        group.apply(Command::Init { incarnation: life(id) });
        group
    }

    fn unnamed(id: GroupId, params: Params) -> Self {
        Self { machine: Machine::new(id), rows: MapRows::default(), index: 0, params }
    }

    /// A group whose data has its name, with other limits for its memory of changes.
    fn with_limits(id: GroupId, params: Params, limits: Limits) -> Self {
        let mut group = Self { machine: Machine::with_limits(id, limits), ..Self::unnamed(id, params) };
        group.apply(Command::Init { incarnation: life(id) });
        group
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        self.machine.apply(&mut self.rows, EntryId::new(1, self.index), command)
    }

    fn adopt(&mut self, config: &Sealed) -> bool {
        self.apply(Command::Adopt(config.clone())) == Outcome::Changed(true)
    }

    fn home(&self, key: &Bytes) -> ShardId {
        shard_of(key, self.params.shard_count)
    }

    fn write_at(&mut self, config: u64, key: &Bytes, write: Write, ticket: Option<Ticket>) -> Reply {
        let (shard, key, config) = (self.home(key), key.clone(), ConfigNum(config));
        self.apply(Command::Write { shard, key, write, ticket, config }).reply()
    }

    fn batch(&mut self, shard: ShardId, writes: Vec<(Bytes, Write)>, ticket: Option<Ticket>) -> Reply {
        self.apply(Command::Batch { shard, writes, ticket, config: ConfigNum(0) }).reply()
    }

    fn write(&mut self, key: &Bytes, write: Write) -> Reply {
        self.write_at(0, key, write, None)
    }

    /// As a client does it: until there is room.
    fn open(&mut self, shard: ShardId) -> SessionId {
        loop {
            match self.apply(Command::Open { shard, config: ConfigNum(0) }).reply() {
                Ok(KvReply::Opened(session)) => return session,
                Err(KvRefusal::Busy) => {}
                other => panic!("no session: {other:?}"),
            }
        }
    }

    fn get(&self, key: &Bytes) -> Reply {
        let (shard, key, config) = (self.home(key), key.clone(), ConfigNum(0));
        self.machine
            .query(&self.rows, Query::Get { shard, key, config, room: Reservation::default() })
            .reply()
    }

    fn scan(&self, shard: ShardId, after: Option<Bytes>, limit: u32) -> Reply {
        self.machine
            .query(
                &self.rows,
                Query::Scan { shard, after, limit, config: ConfigNum(0), room: Reservation::default() },
            )
            .reply()
    }

    fn ask(&self, shard: ShardId, config: &Sealed) -> PushVerdict {
        self.machine.query(&self.rows, Query::Cursor { shard, config: config.place() }).push()
    }

    fn state(&self, shard: ShardId) -> ShardState {
        self.machine.state(shard).expect("the shard exists")
    }

    /// The same, before a configuration is known, too.
    fn state_of(&self, shard: ShardId) -> ShardState {
        self.machine.state(shard).unwrap_or_default()
    }

    /// The rows that travel with a shard.
    fn pushed(&self, shard: ShardId) -> Vec<Change> {
        copy::chunk(&self.rows, shard, self.params.shard_count, &Reach::Start, ALL).0
    }

    /// The counters of a shard.
    fn end(&self, shard: ShardId) -> End {
        copy::end(&self.rows, shard, self.params.shard_count, false)
    }

    /// The rows with the one that says what was applied.
    fn table(&self) -> MapRows {
        let mut table = self.rows.clone();
        let applied = Applied { id: EntryId::new(1, self.index), ..Applied::default() };
        table.0.insert(Bytes::from_static(APPLIED_KEY), base::codec::encode(&applied));
        table
    }

    /// A machine that loads the same rows must know the same: caches are derived.
    fn check_cache(&self) {
        let mut fresh = Machine::new(self.machine.group);
        fresh.load(&self.rows);
        assert_eq!(fresh.config, self.machine.config);
        assert_eq!(fresh.shards, self.machine.shards);
        assert_eq!(fresh.incarnation, self.machine.incarnation);
        assert_eq!(fresh.joined, self.machine.joined);
        for (shard, served) in &self.machine.served {
            assert_eq!(served.meta, rows::meta(&self.rows, *shard));
            assert_eq!(served.sessions, Sessions::load(rows::sessions_prefix(*shard), &self.rows));
            assert!(self.state(*shard).serves(), "only served shards are cached");
        }
        let standing = self.machine.standing();
        let standing = standing.borrow();
        assert_eq!(standing.config, self.machine.num());
        assert_eq!(standing.shards, self.machine.shards);
    }
}

/// The cursor after these first rows.
fn cursor_after(rows: &[Change]) -> Cursor {
    let Some((last, _)) = rows.last() else { return Cursor::default() };
    Cursor { reach: Reach::Key(last.clone()), pos: Pos::end_of(100) }
}

/// Adds rows to the copy; none: only moves the cursor.
fn install(shard: ShardId, config: &Sealed, after: &Cursor, rows: &[Change]) -> Command {
    let to = if rows.is_empty() { Cursor { reach: Reach::End, ..after.clone() } } else { cursor_after(rows) };
    Command::Install { shard, config: config.place(), after: after.clone(), to, rows: rows.to_vec() }
}

fn activate(shard: ShardId, config: &Sealed, after: &Cursor, end: End) -> Command {
    Command::Activate { shard, config: config.place(), after: after.clone(), rows: Vec::new(), end }
}

/// Seals a shard that nobody changes.
fn seal(shard: ShardId, num: u64) -> Command {
    let frozen = Frozen { from: Pos::end_of(100), upto: 100, keys: Vec::new() };
    Command::Seal { shard, num: ConfigNum(num), frozen }
}

fn release(shard: ShardId, num: u64) -> Command {
    Command::Release { shard, num: ConfigNum(num) }
}

fn reopen(shard: ShardId, num: u64) -> Command {
    Command::Reopen { shard, num: ConfigNum(num) }
}

/// The cursor in an answer.
#[track_caller]
fn cursor_in(verdict: PushVerdict, num: u64) -> Cursor {
    match verdict {
        Ok(PushReply::Copied { num: of, copied, .. }) if of == ConfigNum(num) => copied.cursor,
        other => panic!("no cursor: {other:?}"),
    }
}

fn done(num: u64) -> PushVerdict {
    Ok(PushReply::Done { num: ConfigNum(num) })
}

fn refused(num: u64) -> PushVerdict {
    Ok(PushReply::Refused { num: ConfigNum(num) })
}

fn not_ready(num: u64) -> KvRefusal {
    KvRefusal::NotReady { config: ConfigNum(num), ask: None }
}

fn awaiting(num: u64) -> ShardState {
    ShardState::Awaiting { num: ConfigNum(num) }
}

fn leaving(to: GroupId, num: u64) -> ShardState {
    ShardState::Leaving { to, num: ConfigNum(num) }
}

fn handing(to: GroupId, num: u64, next: Next) -> ShardState {
    ShardState::Handing { to, num: ConfigNum(num), next }
}
