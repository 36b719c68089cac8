//! A group's replicated state: the configuration that it adopted, the state of each shard, and the
//! rows.
//!
//! All of it is rows, which commands change in log order. The struct only caches values that it
//! derives from the rows, and `load` rebuilds them. A shard is cached (its meta row and sessions)
//! if it is served; the cache is filled when it is first needed. Client operations are in `kv`,
//! transitions in `moves`.
//!
//! Left out on purpose: everything that waits or sends; also snapshots and recovery, which copy
//! rows.

pub mod changes;
pub mod check;
pub mod command;
pub mod copy;
pub mod history;
pub mod judge;
pub(crate) mod kv;
mod moves;
pub mod plan;
pub mod rows;
pub mod shard;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::socket::Reservation;
use bytes::Bytes;
use clerk::api::config::{Params, Place, Sealed};
use clerk::api::kv::{Adopted, KvRefusal, KvReply};
use clerk::api::{ConfigNum, GroupId, Incarnation, ShardId, status};
use raft::rsm::sessions::Sessions;
use raft::rsm::{Rows, StateMachine};
use raft::storage::Read;
use raft::types::{EntryId, Index};
use tokio::sync::watch;

use self::changes::{Changes, Limits, Noting};
use self::command::{Command, Outcome, Query};
use self::rows::Meta;
use self::shard::{Access, ShardState};

/// The replicated state machine of a group.
pub struct Machine {
    pub(crate) group: GroupId,
    pub(crate) config: Option<Sealed>,
    pub(crate) incarnation: Option<Incarnation>,
    /// Whether the group adopted a configuration that names it, with the data that is here.
    joined: bool,
    /// One for each shard of the cluster. Empty before configuration 0.
    shards: Vec<ShardState>,
    served: BTreeMap<ShardId, Served>,
    /// Position of the command that is being applied.
    applying: Index,
    standing: watch::Sender<Standing>,
    pub(crate) sessions: Arc<SessionCounts>,
    /// What was changed in the shards that leave.
    pub(crate) changes: Arc<Changes>,
}

/// The cache of a shard that is served.
pub(crate) struct Served {
    pub(crate) meta: Meta,
    pub(crate) sessions: Sessions,
}

/// What a replica has applied so far. Other tasks use it to refuse early and to wake up. Do not use
/// it to read rows: it may be ahead of the table by the batch that is being written.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub config: Option<ConfigNum>,
    /// The same, with its digest.
    pub place: Option<Place>,
    /// The key of the cluster, known with configuration 0.
    pub key: Option<u64>,
    /// Whether the group adopted a configuration that names it, with the data that is here.
    pub joined: bool,
    /// The cluster's limits, known with configuration 0.
    pub params: Option<Params>,
    /// State of each shard.
    pub shards: Vec<ShardState>,
    /// Whether this incarnation of the group's data has its name.
    pub incarnation: Option<Incarnation>,
    /// Position of the last command that changed any of this.
    pub changed: Index,
    /// Pushes whose end did not match and that started over, since this start. Each is a bug.
    pub wipes: u64,
    /// The sessions of clients.
    pub sessions: Arc<SessionCounts>,
    /// What was changed in the shards that leave: ahead of the table, like all of this.
    pub changes: Arc<Changes>,
}

/// Sessions of the shards that are cached, for the status. Told without waking anybody.
#[derive(Debug, Default)]
pub struct SessionCounts {
    open: AtomicU64,
    evicted: AtomicU64,
    refused: AtomicU64,
}

impl SessionCounts {
    /// As they are now.
    pub fn read(&self) -> status::Sessions {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        status::Sessions {
            open: read(&self.open),
            evicted: read(&self.evicted),
            refused: read(&self.refused),
        }
    }

    /// A new session was asked for where there were `before`.
    pub(crate) fn asked(&self, is_opened: bool, before: usize, after: usize) {
        if is_opened {
            self.open.fetch_add(1, Ordering::Relaxed);
            let evicted = (before + 1).saturating_sub(after);
            self.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
            self.gone(evicted);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn gone(&self, sessions: usize) {
        self.open.fetch_sub(sessions as u64, Ordering::Relaxed);
    }
}

impl Standing {
    /// Judges a client's request for `shard` that carries configuration `asked`.
    ///
    /// # Errors
    /// `NotReady`, `WrongGroup` or `UnknownShard`. No session records any of them.
    pub fn judge(&self, shard: ShardId, asked: ConfigNum) -> Result<(), KvRefusal> {
        judge(self.config, &self.shards, shard, asked)
    }

    /// The move by which this group awaits the shard.
    pub(crate) fn awaits(&self, shard: ShardId) -> Option<ConfigNum> {
        match self.shards.get(shard.0 as usize) {
            Some(ShardState::Awaiting { num }) => Some(*num),
            _ => None,
        }
    }
}

fn judge(
    config: Option<ConfigNum>,
    shards: &[ShardState],
    shard: ShardId,
    asked: ConfigNum,
) -> Result<(), KvRefusal> {
    let Some(config) = config else { return Err(KvRefusal::NotReady { config: ConfigNum(0), ask: None }) };
    let state = shards.get(shard.0 as usize).ok_or(KvRefusal::UnknownShard(shard))?;
    match shard::access(*state, config, asked) {
        Access::Serve => Ok(()),
        Access::WrongGroup { ask } => Err(KvRefusal::WrongGroup { config, ask }),
        Access::NotReady => Err(KvRefusal::NotReady { config, ask: None }),
    }
}

impl Machine {
    /// The state of `group` before its rows are loaded.
    pub fn new(group: GroupId) -> Self {
        Self::with_limits(group, Limits::default())
    }

    /// The same with other limits for the memory of changes.
    pub fn with_limits(group: GroupId, limits: Limits) -> Self {
        let changes = Arc::new(Changes::with(limits));
        let standing = Standing { changes: Arc::clone(&changes), ..Standing::default() };
        let sessions = Arc::clone(&standing.sessions);
        Self {
            group,
            config: None,
            incarnation: None,
            joined: false,
            shards: Vec::new(),
            served: BTreeMap::new(),
            applying: Index(0),
            standing: watch::Sender::new(standing),
            sessions,
            changes,
        }
    }

    /// A channel that follows the applied state.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(crate) fn num(&self) -> Option<ConfigNum> {
        self.config.as_ref().map(|config| config.num)
    }

    /// The cluster's limits, once configuration 0 is adopted.
    pub(crate) fn params(&self) -> Option<Params> {
        self.config.as_ref().map(|config| config.params)
    }

    pub(crate) fn state(&self, shard: ShardId) -> Option<ShardState> {
        self.shards.get(shard.0 as usize).copied()
    }

    /// Writes a shard's new state and remembers it.
    pub(crate) fn set_state(&mut self, rows: &mut dyn Rows, shard: ShardId, state: ShardState) {
        rows::put_state(rows, shard, state);
        self.note_changes(shard, state, self.applying.0);
        let goes_on = state.serves() && self.state(shard).is_some_and(ShardState::serves);
        if !goes_on && !base::mutant!("cache-survives-move") {
            self.forget_served(shard);
        }
        if let Some(slot) = self.shards.get_mut(shard.0 as usize) {
            *slot = state;
        }
        self.standing.send_modify(|standing| {
            if let Some(slot) = standing.shards.get_mut(shard.0 as usize) {
                *slot = state;
            }
            standing.changed = self.applying;
        });
    }

    /// Empties the cache of a shard.
    pub(crate) fn forget_served(&mut self, shard: ShardId) {
        if let Some(served) = self.served.remove(&shard) {
            self.sessions.gone(served.sessions.len());
        }
    }

    /// Writes the configuration that is adopted now and remembers it.
    pub(crate) fn set_config(&mut self, rows: &mut dyn Rows, config: Sealed) {
        rows::put_config(rows, &config);
        if !self.joined && config.groups.contains_key(&self.group) {
            rows::put_joined(rows, config.num);
            self.joined = true;
        }
        self.shards.resize(config.shards.len(), ShardState::Absent);
        self.config = Some(config);
        self.publish();
    }

    /// Publishes the state to the tasks beside the state machine.
    fn publish(&self) {
        let (config, params, incarnation) = (self.num(), self.params(), self.incarnation);
        let (place, key) = (self.config.as_ref().map(Sealed::place), self.config.as_ref().map(|it| it.key));
        self.standing.send_modify(|standing| {
            standing.config = config;
            standing.place = place;
            standing.key = key;
            standing.joined = self.joined;
            standing.params = params;
            standing.incarnation = incarnation;
            standing.shards.clone_from(&self.shards);
            standing.changed = self.applying;
        });
    }

    pub(crate) fn count_wipe(&self) {
        self.standing.send_modify(|standing| standing.wipes += 1);
    }

    fn init(&mut self, rows: &mut dyn Rows, incarnation: Incarnation) -> bool {
        if self.incarnation.is_some() {
            return false;
        }
        rows::put_incarnation(rows, incarnation);
        self.incarnation = Some(incarnation);
        self.publish();
        tracing::info!(group = %self.group, %incarnation, "this group's data got its name");
        true
    }

    pub(crate) fn judge(&self, shard: ShardId, asked: ConfigNum) -> Result<Params, KvRefusal> {
        base::mutant!("owner-judged-at-propose-only", return self.params().ok_or(KvRefusal::NotExecuted));
        judge(self.num(), &self.shards, shard, asked)?;
        self.params().ok_or(KvRefusal::NotReady { config: ConfigNum(0), ask: None })
    }

    fn act(&mut self, rows: &mut dyn Rows, command: Command) -> Outcome {
        match command {
            Command::Init { incarnation } => Outcome::Changed(self.init(rows, incarnation)),
            Command::Adopt(config) => Outcome::Changed(self.adopt(rows, config)),
            Command::Open { shard, config } => Outcome::Reply(self.open(rows, shard, config)),
            Command::Write { shard, key, write, ticket, config } => {
                Outcome::Reply(self.write(rows, shard, &key, write, ticket, config))
            }
            Command::Batch { shard, writes, ticket, config } => {
                Outcome::Reply(self.batch(rows, shard, writes, ticket, config))
            }
            Command::Install { shard, config, after, to, rows: changes } => {
                Outcome::Push(self.install(rows, shard, config, (&after, to), changes))
            }
            Command::Activate { shard, config, after, rows: changes, end } => {
                Outcome::Push(self.activate(rows, shard, config, &after, (changes, end)))
            }
            Command::Seal { shard, num, frozen } => Outcome::Changed(self.seal(rows, shard, num, &frozen)),
            Command::Release { shard, num } => Outcome::Changed(self.release(rows, shard, num)),
            Command::Reopen { shard, num } => Outcome::Changed(self.reopen(rows, shard, num)),
        }
    }

    /// The cache of a shard that is served.
    pub(crate) fn served(&mut self, rows: &dyn Read, shard: ShardId) -> &mut Served {
        let counts = &self.sessions;
        self.served.entry(shard).or_insert_with(|| {
            let sessions = Sessions::load(rows::sessions_prefix(shard), rows);
            counts.open.fetch_add(sessions.len() as u64, Ordering::Relaxed);
            Served { meta: rows::meta(rows, shard), sessions }
        })
    }
}

impl StateMachine for Machine {
    type Command = Command;
    type Output = Outcome;
    type Query = Query;
    type Answer = Outcome;

    fn load(&mut self, rows: &dyn Read) {
        if !base::mutant!("cache-survives-snapshot") {
            self.served.clear();
            self.sessions.open.store(0, Ordering::Relaxed);
        }
        self.incarnation = rows::incarnation(rows);
        self.joined = rows::joined(rows).is_some();
        self.config = rows::config(rows);
        self.shards = vec![ShardState::Absent; self.config.as_ref().map_or(0, |config| config.shards.len())];
        self.changes.clear();
        // What was changed before is not known.
        let since = raft::storage::applied(rows).id.index.0;
        for (shard, state) in rows::states(rows) {
            self.note_changes(shard, state, since);
            if let Some(slot) = self.shards.get_mut(shard.0 as usize) {
                *slot = state;
            }
        }
        self.publish();
    }

    fn apply(&mut self, rows: &mut dyn Rows, id: EntryId, command: Command) -> Outcome {
        self.applying = id.index;
        let changes = Arc::clone(&self.changes);
        Noting::apply(rows, &changes, self.shards.len() as u32, id.index, |rows| self.act(rows, command))
    }

    fn query(&self, rows: &dyn Read, query: Query) -> Outcome {
        match query {
            // An answer that nobody waits for is not made: reading for it would delay all others.
            Query::Get { room, .. } | Query::Scan { room, .. } if !room.is_awaited() => {
                Outcome::Reply(Err(KvRefusal::Busy))
            }
            Query::Get { shard, key, config, room } => {
                Outcome::Reply(self.get(rows, shard, &key, config).and_then(|reply| fits(reply, &room)))
            }
            Query::Scan { shard, after, limit, config, room } => {
                let page = self.scan(rows, shard, after.as_deref(), limit, config);
                Outcome::Reply(page.and_then(|reply| fits(reply, &room)))
            }
            Query::Cursor { shard, config } => Outcome::Push(self.cursor(rows, shard, config)),
            Query::History => {
                let adopted = Adopted { configs: rows::configs(rows) };
                Outcome::Reply(Ok(KvReply::Adopted(Box::new(adopted))))
            }
        }
    }
}

/// An answer, if there is room for it (rule 103): many answers may be made before the first one is
/// taken.
fn fits(reply: KvReply, room: &Reservation) -> Result<KvReply, KvRefusal> {
    let bytes = match &reply {
        KvReply::Value { value, .. } => value.as_ref().map_or(0, Bytes::len),
        KvReply::Page { items, .. } => items.iter().map(|item| item.key.len() + item.value.len()).sum(),
        _ => 0,
    };
    if room.take(bytes) { Ok(reply) } else { Err(KvRefusal::Busy) }
}

#[cfg(test)]
pub(crate) mod tests;
