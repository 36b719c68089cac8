//! A group's replica as others see it: requests in, replies out, no sockets.
//!
//! Operations on keys go through the log or through a confirmed read. Only the leader does either.
//! If the applied state already shows that the leader must refuse, it refuses before the request
//! costs a log entry. Such a refusal promises nothing about later. Other requests can be answered
//! by any replica, from its own rows.
//!
//! Groups that push shards use a separate service ([`Service::handle_push`]), so a client can only
//! make the rows of clients. A group that lost its data answers every request with that fact
//! (correctness rules 57, 58).
//!
//! The service owns two tasks: one follows the controllers, and the other is the mover. Both end
//! with it. Left out on purpose: sockets (`server`), and waiting for a shard to arrive (the clerk
//! asks again).

mod pushes;
mod shown;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use base::socket::Room;
use bytes::Bytes;
use clerk::api::config::{Params, shard_of};
use clerk::api::kv::{BATCH_BYTES_MAX, KvRefusal, KvReply, KvRequest, Write, check_key};
use clerk::api::push::{PushReply, PushRequest, Sender};
use clerk::api::{Address, ConfigNum, GroupId, Incarnation, ShardId};
use clerk::connection::Connection;
use host::{Facts, Measures, Trace};
use raft::rsm::{ExecuteError, Replica, Role};
use raft::types::NodeId;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use self::pushes::Offers;
use crate::leader::{ConfigWatcher, Gates, Knowledge, Mover, Progress};
use crate::load::Loads;
use crate::machine::command::{Command, Outcome, Query};
use crate::machine::plan::Sizes;
use crate::machine::rows;
use crate::machine::{Machine, Standing};
use crate::measured;

/// A request that has no answer after this time gets a timeout as its answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a service needs besides its replica.
pub struct Settings {
    pub group: GroupId,
    /// The addresses of the group's replicas, for hints to the leader.
    pub members: BTreeMap<NodeId, Address>,
    pub controllers: Vec<Address>,
    /// The connection to controllers and to other groups.
    pub connection: Arc<dyn Connection>,
    /// Seed of this replica's random choices: back-off, and the incarnation of a new group.
    pub seed: u64,
    /// What its status shows besides the replica.
    pub facts: Facts,
    /// How much of a shard that moves is sent at once.
    pub sizes: Sizes,
}

/// What a request has with it besides its words.
struct On<'a> {
    room: &'a Room,
    trace: &'a Trace,
}

/// One replica of a group.
pub struct Service {
    group: GroupId,
    members: BTreeMap<NodeId, Address>,
    facts: Facts,
    replica: Replica<Machine>,
    standing: watch::Receiver<Standing>,
    knowledge: watch::Receiver<Knowledge>,
    named: watch::Sender<ConfigNum>,
    progress: Progress,
    gates: Arc<Gates>,
    offers: Offers,
    /// Rows of other groups that were taken.
    rows_taken: AtomicU64,
    measures: Measures,
    loads: Loads,
    tasks: std::sync::Mutex<JoinSet<()>>,
}

impl Service {
    /// Serves `replica`, whose machine gave `standing` ([`Machine::standing`]). Starts the tasks
    /// beside it on the caller's runtime.
    pub fn new(replica: Replica<Machine>, standing: watch::Receiver<Standing>, settings: Settings) -> Self {
        let Settings { group, members, controllers, connection, seed, facts, sizes } = settings;
        let me = replica.status().me;
        let random = |task: &str| {
            StdRng::seed_from_u64(base::seed::derive(seed, &format!("shardkv {group}.{me} {task}")))
        };
        let knowledge = Arc::new(watch::Sender::new(Knowledge::default()));
        let progress = Progress::default();
        let gates = Arc::new(Gates::default());
        let mover = Mover {
            replica: replica.clone(),
            connection: Arc::clone(&connection),
            group,
            standing: standing.clone(),
            knowledge: knowledge.subscribe(),
            progress: progress.clone(),
            gates: Arc::clone(&gates),
            pace: Arc::default(),
            sizes,
            random: random("mover"),
            refused: None,
        };
        let (named, named_receiver) = watch::channel(ConfigNum(0));
        let watcher = ConfigWatcher {
            group,
            named: named_receiver,
            connection,
            controllers,
            standing: standing.clone(),
            knowledge: Arc::clone(&knowledge),
            random: random("follower"),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(watcher.run().in_current_span());
        tasks.spawn(mover.run().in_current_span());
        let loads = Loads::default();
        tasks.spawn(loads.clone().follow().in_current_span());
        let (knowledge, tasks) = (knowledge.subscribe(), std::sync::Mutex::new(tasks));
        let measures = Measures::new(&measured::VERBS).with_slow(facts.slow, &[]);
        Self {
            group,
            members,
            facts,
            replica,
            standing,
            knowledge,
            named,
            progress,
            gates,
            offers: Offers::default(),
            rows_taken: AtomicU64::new(0),
            measures,
            loads,
            tasks,
        }
    }

    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The replica that it serves.
    pub fn replica(&self) -> &Replica<Machine> {
        &self.replica
    }

    /// Pushes whose end did not match since this replica started. Each is a bug.
    pub fn wipes(&self) -> u64 {
        self.standing.borrow().wipes
    }

    /// Ends the tasks and the replica.
    pub async fn stop(&self) {
        self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).abort_all();
        self.replica.stop().await;
    }

    /// Answers one request to `group`.
    ///
    /// # Errors
    /// [`KvRefusal`], which says what to do next.
    pub async fn handle(&self, group: GroupId, request: KvRequest) -> Result<KvReply, KvRefusal> {
        self.handle_on(&Room::default(), group, request).await
    }

    /// The same for a request on a connection, where the answer needs room.
    ///
    /// # Errors
    /// The same.
    pub async fn handle_on(
        &self,
        room: &Room,
        group: GroupId,
        request: KvRequest,
    ) -> Result<KvReply, KvRefusal> {
        let running = self.measures.begin(measured::verb(&request));
        let answer = self.answered(&On { room, trace: running.trace() }, group, request).await;
        running.end(measured::ended(&answer));
        answer
    }

    async fn answered(&self, on: &On<'_>, group: GroupId, request: KvRequest) -> Result<KvReply, KvRefusal> {
        self.meant(group)?;
        if !matches!(request, KvRequest::Status | KvRequest::Server(_)) {
            self.has_its_data()?;
        }
        let named = named(&request);
        let answer = self.answer(on, request).await;
        if let Err(KvRefusal::NotReady { config, .. }) = answer {
            self.heard_of(named, config);
        }
        answer
    }

    /// Answers one request to `group` from a group that hands a shard over.
    ///
    /// # Errors
    /// [`KvRefusal`], which says what to do next.
    pub async fn handle_push(
        &self,
        group: GroupId,
        sender: Sender,
        request: PushRequest,
    ) -> Result<PushReply, KvRefusal> {
        let running = self.measures.begin(measured::PUSH);
        let answer = self.pushed(running.trace(), group, sender, request).await;
        running.end(measured::ended(&answer));
        answer
    }

    async fn pushed(
        &self,
        trace: &Trace,
        group: GroupId,
        sender: Sender,
        request: PushRequest,
    ) -> Result<PushReply, KvRefusal> {
        self.meant(group)?;
        self.has_its_data()?;
        self.knows(sender).map_err(KvRefusal::Malformed)?;
        if request.from() != sender.group {
            let text =
                format!("a push of group {} on a connection of group {}", request.from(), sender.group);
            return Err(KvRefusal::Malformed(text));
        }
        let named = request.config().num;
        let answer = self.answer_push(trace, request).await;
        if let Err(KvRefusal::NotReady { config, .. }) = answer {
            self.heard_of(named, config);
        }
        answer
    }

    /// Whether a group that wants to push shards is the one that the cluster knows.
    ///
    /// # Errors
    /// The reason, as a text.
    pub fn knows(&self, sender: Sender) -> Result<(), String> {
        match self.registered(sender.group).filter(|registered| *registered != sender.incarnation) {
            Some(registered) if !base::mutant!("pusher-not-checked") => Err(format!(
                "group {} has other data ({:016x}) than the group that joined ({:016x}): nothing is taken from it",
                sender.group, sender.incarnation.0, registered.0
            )),
            _ => Ok(()),
        }
    }

    /// The incarnation that the cluster knows for a group, as far as this replica has heard.
    pub fn registered(&self, group: GroupId) -> Option<Incarnation> {
        self.knowledge.borrow().book.incarnation(group)
    }

    fn meant(&self, group: GroupId) -> Result<(), KvRefusal> {
        if group != self.group {
            let text = format!("this server belongs to group {}, not to {group}", self.group);
            return Err(KvRefusal::Malformed(text));
        }
        Ok(())
    }

    /// A group that lost its data is never served as an empty one (correctness rule 57).
    fn has_its_data(&self) -> Result<(), KvRefusal> {
        match self.knowledge.borrow().lost {
            Some((registered, own)) => Err(KvRefusal::LostData { group: self.group, registered, own }),
            None => Ok(()),
        }
    }

    /// Notes that somebody knows a newer configuration than this group.
    fn heard_of(&self, named: ConfigNum, adopted: ConfigNum) {
        if named > adopted {
            self.named.send_if_modified(|newest| named > std::mem::replace(newest, named.max(*newest)));
        }
    }

    async fn answer(&self, on: &On<'_>, request: KvRequest) -> Result<KvReply, KvRefusal> {
        let On { room, trace } = on;
        match request {
            KvRequest::Open { shard, config } => {
                trace.about(shard);
                let _within = self.gates.pass(shard).await;
                self.admit(shard, config)?;
                // It is small, and sessions are bounded. A client needs one to delete.
                self.execute(trace, Command::Open { shard, config }, true).await
            }
            KvRequest::Get { key, config } => {
                let shard = self.home(&key, config)?;
                trace.about(shard);
                let room = room.reservation();
                let get = Query::Get { shard, key, config, room: room.clone() };
                let reply = self.query(trace, get).await?.reply();
                self.has_read(shard, reply)
            }
            KvRequest::Write { key, write, ticket, config } => {
                self.leading()?;
                let home = shard_of(&key, self.params()?.shard_count);
                trace.about(home);
                let _within = self.gates.pass(home).await;
                let shard = self.home(&key, config)?;
                let params = self.params()?;
                write.check(params)?;
                self.loads.write(shard, params.shard_count, 1, key.len() + write.bytes());
                let freeing = matches!(write, Write::Delete);
                self.execute(trace, Command::Write { shard, key, write, ticket, config }, freeing).await
            }
            KvRequest::Batch { shard, writes, ticket, config } => {
                trace.about(shard);
                let _within = self.gates.pass(shard).await;
                self.admit(shard, config)?;
                let params = self.params()?;
                for (key, write) in &writes {
                    check_key(key, params)?;
                    write.check(params)?;
                }
                self.loads.write(shard, params.shard_count, writes.len(), check_batch(&writes)?);
                let freeing = writes.iter().all(|(_, write)| matches!(write, Write::Delete));
                self.execute(trace, Command::Batch { shard, writes, ticket, config }, freeing).await
            }
            KvRequest::Scan { shard, after, limit, config } => {
                trace.about(shard);
                self.admit(shard, config)?;
                let room = room.reservation();
                let page = Query::Scan { shard, after, limit, config, room: room.clone() };
                self.has_read(shard, self.query(trace, page).await?.reply())
            }
            KvRequest::Config => self.config(),
            // (Boxed: the future of every request is as large as that of the largest.)
            KvRequest::Status => Ok(KvReply::Status(Box::new(Box::pin(self.status()).await))),
            KvRequest::History => self.query(trace, Query::History).await?.reply(),
            KvRequest::Server(request) => Ok(KvReply::Server(host::about(&self.measures, request))),
        }
    }

    fn has_read(&self, shard: ShardId, reply: Result<KvReply, KvRefusal>) -> Result<KvReply, KvRefusal> {
        let reply = reply?;
        self.loads.read(shard, || self.params().map_or(0, |params| params.shard_count), &reply);
        Ok(reply)
    }

    /// The newest configuration that this replica has heard of or adopted.
    fn config(&self) -> Result<KvReply, KvRefusal> {
        let (newest, book) = {
            let known = self.knowledge.borrow();
            (known.newest.clone(), known.book.as_ref().clone())
        };
        let table = self.replica.table();
        let config = match newest {
            Some(newest) if Some(newest.num) >= rows::config_num(&**table) => Some(newest),
            _ => rows::config(&**table),
        };
        let config = config.ok_or(KvRefusal::NotReady { config: ConfigNum(0), ask: None })?;
        // Rule 69. What it adopted is a row like others.
        if self.replica.is_table_bad() {
            return Err(KvRefusal::NotLeader { hint: self.address(self.replica.leadership().leader) });
        }
        Ok(KvReply::Config(config, book))
    }

    fn leading(&self) -> Result<(), KvRefusal> {
        let leadership = self.replica.leadership();
        match leadership.role {
            Role::Leader => Ok(()),
            _ => Err(KvRefusal::NotLeader { hint: self.address(leadership.leader) }),
        }
    }

    fn address(&self, node: Option<NodeId>) -> Option<Address> {
        node.and_then(|node| self.members.get(&node).cloned())
    }

    fn params(&self) -> Result<Params, KvRefusal> {
        self.standing.borrow().params.ok_or(KvRefusal::NotReady { config: ConfigNum(0), ask: None })
    }

    /// Refuses early if this leader's applied state shows that it does not serve the shard.
    fn admit(&self, shard: ShardId, config: ConfigNum) -> Result<(), KvRefusal> {
        self.leading()?;
        self.judge(shard, config)
    }

    /// Refuses what is not served here, and says who has a shard that is awaited.
    fn judge(&self, shard: ShardId, config: ConfigNum) -> Result<(), KvRefusal> {
        let standing = self.standing.borrow();
        standing.judge(shard, config).map_err(|refusal| match (refusal, standing.awaits(shard)) {
            (KvRefusal::NotReady { config, .. }, Some(num)) => {
                KvRefusal::NotReady { config, ask: self.offers.of(shard, num) }
            }
            (refusal, _) => refusal,
        })
    }

    /// The shard of a key, if it is served here.
    fn home(&self, key: &[u8], config: ConfigNum) -> Result<ShardId, KvRefusal> {
        self.leading()?;
        let params = self.params()?;
        check_key(key, params)?;
        let shard = shard_of(key, params.shard_count);
        self.judge(shard, config)?;
        Ok(shard)
    }

    /// `freeing`: the command frees space.
    async fn execute(&self, trace: &Trace, command: Command, freeing: bool) -> Result<KvReply, KvRefusal> {
        let outcome = self.replica.execute_marked(&command, freeing, DEADLINE, trace.marks()).await;
        self.run(outcome)?.reply()
    }

    fn run(&self, outcome: Result<Outcome, ExecuteError>) -> Result<Outcome, KvRefusal> {
        outcome.map_err(|error| self.refusal(error))
    }

    async fn query(&self, trace: &Trace, query: Query) -> Result<Outcome, KvRefusal> {
        match self.replica.query_marked(query, DEADLINE, trace.marks()).await {
            Ok(answer) => Ok(answer),
            // A read changes nothing, so no outcome is unknown.
            Err(ExecuteError::Unknown) => Err(KvRefusal::NotExecuted),
            Err(error) => Err(self.refusal(error)),
        }
    }

    fn refusal(&self, error: ExecuteError) -> KvRefusal {
        match error {
            ExecuteError::NotLeader { hint } => KvRefusal::NotLeader { hint: self.address(hint) },
            ExecuteError::Unknown => KvRefusal::Unknown,
            ExecuteError::NotExecuted => KvRefusal::NotExecuted,
            ExecuteError::Busy => KvRefusal::Busy,
            ExecuteError::DiskFull => KvRefusal::DiskFull,
        }
    }
}

/// The configuration that a request names.
fn named(request: &KvRequest) -> ConfigNum {
    match request {
        KvRequest::Open { config, .. }
        | KvRequest::Get { config, .. }
        | KvRequest::Write { config, .. }
        | KvRequest::Batch { config, .. }
        | KvRequest::Scan { config, .. } => *config,
        KvRequest::Config | KvRequest::Status | KvRequest::History | KvRequest::Server(_) => ConfigNum(0),
    }
}

/// Refuses a batch that would make an entry larger than a single write may be. An entry that does
/// not fit a frame between replicas could be logged but never replicated (correctness rules 22b,
/// 49). Returns its bytes.
fn check_batch(writes: &[(Bytes, Write)]) -> Result<usize, KvRefusal> {
    let bytes: usize = writes.iter().map(|(key, write)| key.len() + write.bytes()).sum();
    if writes.len() > 1 && bytes > BATCH_BYTES_MAX {
        let text =
            format!("a batch of {bytes} bytes exceeds the limit of {BATCH_BYTES_MAX}: send it in parts");
        return Err(KvRefusal::Malformed(text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
