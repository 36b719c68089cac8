//! Two groups of one replica each, a controller of paper, and a network that loses answers: what the
//! tasks beside the state machine do by themselves.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use base::clock;
use bytes::Bytes;
use clerk::api::config::{AddressBook, Assignment, Config, Params, Place, Registered, Sealed};
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest, News};
use clerk::api::push::Cursor;
use clerk::api::status::{KvStatus, ShardPhase};
use clerk::api::{Digest, Incarnation, Seq, SessionId, Ticket, Version};
use clerk::connection::CallError;
use futures::future::BoxFuture;
use raft::core::message::Message;
use raft::rsm::{self, Parts, Threads};
use raft::storage::memory::MemoryDisk;
use raft::transport::{Transport, mailbox};
use raft::types::Membership;

use super::*;
use crate::push::IN_FLIGHT_BYTES_MAX;

const KEY: u64 = 7;
const A: GroupId = GroupId(101);
const B: GroupId = GroupId(102);
const PARAMS: Params =
    Params { shard_count: 4, key_bytes_max: 64, value_bytes_max: 1 << 20, sessions_max: 8 };

type KvResult = Result<KvReply, KvRefusal>;
type PushResult = Result<PushReply, KvRefusal>;

/// What a reliable network saw of Installs with rows, and which of them it spoils, by number.
#[derive(Default)]
struct Installs {
    sent: usize,
    bytes_under_way: usize,
    bytes_under_way_max: usize,
    lost: Range<usize>,
    /// Whether the receiver is busy.
    busy: bool,
    refused: usize,
    /// A server that names another one as the leader.
    hints: Option<(Address, Address)>,
    /// A server that does not answer, and how often it was asked.
    silent: Option<Address>,
    in_vain: usize,
}

/// The world: every other answer to a group's request is lost, unless Installs are watched, and there is one
/// controller, `ctrl`.
#[derive(Default)]
struct World {
    installs: Mutex<Option<Installs>>,
    groups: Mutex<BTreeMap<GroupId, Arc<Service>>>,
    disks: Mutex<BTreeMap<GroupId, MemoryDisk>>,
    /// Whether the disks of group A are nearly full.
    full: watch::Sender<bool>,
    configs: watch::Sender<Vec<Sealed>>,
    /// What the controller says of groups.
    book: Mutex<AddressBook>,
    calls: AtomicU64,
    starts: AtomicU64,
}

impl World {
    /// Appends a configuration in which `owners` own the shards.
    fn publish(&self, owners: [Option<GroupId>; 4]) {
        self.configs.send_modify(|configs| {
            let next = match configs.last() {
                None => Config::zero(KEY, PARAMS),
                Some(before) => Config {
                    num: ConfigNum(before.num.0 + 1),
                    before: before.digest(),
                    shards: before
                        .shards
                        .iter()
                        .zip(owners)
                        .map(|(before, owner)| Assignment {
                            owner,
                            last_owner: before.owner.or(before.last_owner),
                        })
                        .collect(),
                    groups: owners.into_iter().flatten().map(|group| (group, self.life(group))).collect(),
                    ..before.config().as_ref().clone()
                },
            };
            configs.push(Sealed::new(next));
        });
    }

    /// The life of a group's data, which it drew.
    fn life(&self, group: GroupId) -> Incarnation {
        let service = self.groups.lock().expect("no panic").get(&group).cloned();
        // One that is not there has some.
        service.map_or(Incarnation(group.0), |it| it.standing.borrow().incarnation.expect("it has its name"))
    }

    /// The controllers know the groups as they are.
    fn register(&self) {
        // Two ways to the same server.
        let addresses = |group: GroupId| vec![group.to_string(), format!("{group}, too")];
        let of = |group: GroupId| (group, Registered::new(self.life(group), addresses(group)));
        let groups = BTreeMap::from([A, B].map(of));
        *self.book.lock().expect("no panic") =
            AddressBook { version: 1, key: KEY, groups, ..AddressBook::default() };
    }

    /// A configuration as its number and digest.
    fn place(&self, num: u64) -> Place {
        self.configs.borrow()[num as usize].place()
    }

    fn sender(&self, group: GroupId) -> Sender {
        Sender { group, incarnation: self.life(group) }
    }

    fn service(&self, group: GroupId) -> Arc<Service> {
        Arc::clone(&self.groups.lock().expect("no panic")[&group])
    }

    async fn start(self: &Arc<Self>, group: GroupId) {
        let disk = self.disks.lock().expect("no panic").entry(group).or_default().clone();
        let (log, table) = disk.open();
        let disk_low = if group == A { self.full.subscribe() } else { watch::channel(false).1 };
        let config = raft::config::Config { seed: group.0, ..Default::default() };
        let (_inbox, mailbox) = mailbox(16, 1 << 20);
        let machine = Machine::new(group);
        let standing = machine.standing();
        let parts = Parts {
            me: NodeId(1),
            membership: Membership::of([NodeId(1)]),
            config,
            log,
            table,
            transport: Arc::new(Alone),
            mailbox,
            threads: Threads::Shared,
            disk_low,
        };
        let replica = rsm::start(parts, machine).await.expect("a replica");
        let settings = Settings {
            group,
            members: BTreeMap::from([(NodeId(1), group.to_string())]),
            controllers: vec!["nobody".to_owned(), "ctrl".to_owned()],
            connection: Arc::clone(self) as Arc<dyn Connection>,
            seed: 7 + self.starts.fetch_add(1, Ordering::Relaxed),
            pid: 0,
            refusals: Arc::default(),
        };
        let service = Arc::new(Service::new(replica, standing, settings));
        self.groups.lock().expect("no panic").insert(group, service);
    }

    /// Kills both groups, with their volatile storage, and starts them again.
    async fn power_cut(self: &Arc<Self>) {
        for group in [A, B] {
            let service = self.groups.lock().expect("no panic").remove(&group).expect("it runs");
            service.replica().kill();
            drop(service);
            self.disks.lock().expect("no panic")[&group].power_cut();
        }
        for group in [A, B] {
            self.start(group).await;
        }
    }

    /// Asks a group until it does not say "later".
    async fn ask(&self, group: GroupId, request: KvRequest) -> KvResult {
        for _ in 0..1000 {
            match self.service(group).handle(group, request.clone()).await {
                Err(KvRefusal::NotReady { .. } | KvRefusal::NotLeader { .. }) => {
                    clock::sleep(Duration::from_millis(10)).await;
                }
                answer => return answer,
            }
        }
        panic!("group {group} is never ready for {request:?}")
    }

    async fn status(&self, group: GroupId) -> KvStatus {
        match self.service(group).handle(group, KvRequest::Status).await {
            Ok(KvReply::Status(status)) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Waits until both groups have settled on configuration `num`.
    async fn settled(&self, num: u64) {
        for _ in 0..2000 {
            let (a, b) = (self.status(A).await, self.status(B).await);
            if [&a, &b].iter().all(|status| status.settled && status.config == ConfigNum(num)) {
                return;
            }
            clock::sleep(Duration::from_millis(10)).await;
        }
        panic!("not settled on {num}: {:?} {:?}", self.status(A).await, self.status(B).await);
    }

    /// Looks at what is seen of Installs.
    fn installs<T>(&self, look: impl FnOnce(&mut Installs) -> T) -> T {
        look(self.installs.lock().expect("no panic").get_or_insert_default())
    }

    /// Asks a group for a push until it does not say "later".
    async fn push_to(&self, group: GroupId, from: GroupId, request: PushRequest) -> PushResult {
        for _ in 0..1000 {
            match self.service(group).handle_push(group, self.sender(from), request.clone()).await {
                Err(KvRefusal::NotReady { .. } | KvRefusal::NotLeader { .. }) => {
                    clock::sleep(Duration::from_millis(10)).await;
                }
                answer => return answer,
            }
        }
        panic!("group {group} is never ready for {request:?}")
    }

    /// Like [`Connection::push`], on a reliable network.
    async fn watched(
        &self,
        to: &Address,
        group: GroupId,
        sender: Sender,
        request: PushRequest,
        deadline: Duration,
    ) -> Result<PushResult, CallError> {
        let (hint, silent) = self.installs(|installs| {
            let silent = installs.silent.as_ref() == Some(to);
            installs.in_vain += usize::from(silent);
            let hint = installs.hints.clone().filter(|(from, _)| from == to).map(|(_, leader)| leader);
            (hint, silent)
        });
        if silent {
            clock::sleep(deadline).await;
            return Err(CallError::Lost { address: to.clone(), why: "silent".to_owned() });
        }
        if hint.is_some() {
            return Ok(Err(KvRefusal::NotLeader { hint }));
        }
        let bytes = match &request {
            PushRequest::Install { rows, .. } => rows.iter().map(rows::weight).sum(),
            _ => 0,
        };
        let lost = self.installs(|installs| {
            installs.sent += usize::from(bytes > 0);
            installs.bytes_under_way += bytes;
            installs.bytes_under_way_max = installs.bytes_under_way_max.max(installs.bytes_under_way);
            bytes > 0 && installs.lost.contains(&installs.sent)
        });
        clock::sleep(Duration::from_millis(1)).await;
        let refused = self.installs(|installs| {
            let refused = installs.busy && bytes > 0;
            installs.refused += usize::from(refused);
            refused
        });
        let answer = match (lost, refused) {
            (true, _) => Err(CallError::Lost { address: to.clone(), why: "lost".to_owned() }),
            (false, true) => Ok(Err(KvRefusal::Busy)),
            (false, false) => Ok(self.service(group).handle_push(group, sender, request).await),
        };
        clock::sleep(Duration::from_millis(1)).await;
        self.installs(|installs| installs.bytes_under_way -= bytes);
        answer
    }

    fn newest(&self) -> ConfigNum {
        self.configs.borrow().last().map(|newest| newest.num).unwrap_or_default()
    }

    /// The controller's configuration of a number, if it is another one.
    fn other(&self, after: ConfigNum, digest: Digest) -> Option<Sealed> {
        let here = self.configs.borrow().get(after.0 as usize).cloned();
        here.filter(|here| here.digest() != digest)
    }

    async fn watch(&self, after: ConfigNum) -> Vec<Sealed> {
        let mut configs = self.configs.subscribe();
        let newer = |configs: &Vec<Sealed>| configs.last().is_some_and(|last| last.num > after);
        let _ = clock::timeout(Duration::from_secs(2), configs.wait_for(newer)).await;
        self.configs.borrow().iter().filter(|config| config.num > after).take(64).cloned().collect()
    }
}

impl Connection for World {
    fn kv<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        request: KvRequest,
        _deadline: Duration,
    ) -> BoxFuture<'a, Result<KvResult, CallError>> {
        Box::pin(async move {
            clock::sleep(Duration::from_millis(1)).await;
            let answer = self.service(group).handle(group, request).await;
            match self.calls.fetch_add(1, Ordering::Relaxed) % 2 {
                0 => Err(CallError::Lost { address: to.clone(), why: "lost".to_owned() }),
                _ => Ok(answer),
            }
        })
    }

    fn push<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        sender: Sender,
        request: PushRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<PushResult, CallError>> {
        Box::pin(async move {
            if self.installs.lock().expect("no panic").is_some() {
                return self.watched(to, group, sender, request, deadline).await;
            }
            clock::sleep(Duration::from_millis(1)).await;
            let answer = self.service(group).handle_push(group, sender, request).await;
            match self.calls.fetch_add(1, Ordering::Relaxed) % 2 {
                0 => Err(CallError::Lost { address: to.clone(), why: "lost".to_owned() }),
                _ => Ok(answer),
            }
        })
    }

    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        request: CtrlRequest,
        _deadline: Duration,
    ) -> BoxFuture<'a, Result<Result<CtrlReply, CtrlRefusal>, CallError>> {
        Box::pin(async move {
            if to != "ctrl" {
                return Err(CallError::NotSent { address: to.clone(), why: "nobody there".to_owned() });
            }
            let book = || self.book.lock().expect("no panic").clone();
            Ok(match request {
                CtrlRequest::Query(Some(asked)) => {
                    let newest = self.newest();
                    let config = self.configs.borrow().get(asked.0 as usize).cloned();
                    let unknown = CtrlRefusal::UnknownConfig { asked, newest };
                    config.map(|config| CtrlReply::Config(config, book())).ok_or(unknown)
                }
                CtrlRequest::Watch { after, digest, .. } => match self.other(after, digest) {
                    Some(here) => Err(CtrlRefusal::OtherHistory { here: here.place(), key: here.key }),
                    None => {
                        let configs = self.watch(after).await;
                        let (newest, book) = (self.newest(), book());
                        Ok(CtrlReply::Configs(Box::new(News { configs, newest, book })))
                    }
                },
                other => panic!("a group never asks {other:?}"),
            })
        })
    }
}

/// A group of one has nobody to talk to.
struct Alone;

impl Transport for Alone {
    fn send(&self, _to: NodeId, _message: Message) {}
}

fn key(n: usize) -> Bytes {
    Bytes::from(format!("key {n}"))
}

fn append(n: usize, piece: &Bytes, ticket: Option<Ticket>, config: u64) -> KvRequest {
    KvRequest::Write {
        key: key(n),
        write: Write::Append { piece: piece.clone() },
        ticket,
        config: ConfigNum(config),
    }
}

async fn two_groups() -> Arc<World> {
    let world = Arc::new(World::default());
    world.publish([None; 4]);
    world.start(A).await;
    world.start(B).await;
    world.settled(0).await;
    while [A, B].iter().any(|group| world.service(*group).standing.borrow().incarnation.is_none()) {
        clock::sleep(Duration::from_millis(10)).await;
    }
    world.register();
    world
}

#[tokio::test(start_paused = true)]
async fn shards_follow_the_configurations_with_their_rows_and_sessions() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let shard = shard_of(&key(0), PARAMS.shard_count);
    let Ok(KvReply::Opened(session)) = world.ask(A, KvRequest::Open { shard, config: ConfigNum(1) }).await
    else {
        panic!("no session")
    };
    let ticket = Some(Ticket { session, seq: Seq(1) });
    // Four shards of about a megabyte each: several chunks.
    let piece = Bytes::from(vec![b'x'; 100_000]);
    let written = |version| Ok(KvReply::Written { version: Version(version) });
    assert_eq!(world.ask(A, append(0, &piece, ticket, 1)).await, written(1));
    for n in 1..40 {
        assert_eq!(world.ask(A, append(n, &piece, None, 1)).await, written(1));
    }
    world.publish([Some(B); 4]);
    // The clerk asks the new owner at once; the answer comes when the shard is there.
    assert_eq!(world.ask(B, append(0, &piece, ticket, 2)).await, written(1), "executed once");
    world.settled(2).await;
    for n in 0..40 {
        let get = KvRequest::Get { key: key(n), config: ConfigNum(2) };
        let expected = Ok(KvReply::Value { value: Some(piece.clone()), version: Version(1) });
        assert_eq!(world.ask(B, get).await, expected);
    }
    let (a, b) = (world.status(A).await, world.status(B).await);
    assert!(a.shards.is_empty());
    assert_eq!(b.shards.iter().map(|shard| shard.rows).sum::<u64>(), 40);
    assert!(b.shards.iter().all(|shard| shard.phase == ShardPhase::Serving));
    assert!(a.incarnation.is_some() && b.incarnation.is_some() && a.incarnation != b.incarnation);
    assert_eq!(world.service(A).wipes() + world.service(B).wipes(), 0);
    assert_eq!(
        world.service(A).handle(A, append(1, &piece, None, 2)).await,
        Err(KvRefusal::WrongGroup { config: ConfigNum(2) })
    );
}

#[tokio::test(start_paused = true)]
async fn many_configurations_at_once_are_adopted_one_by_one_and_rings_do_not_block() {
    let world = two_groups().await;
    let (a, b) = (Some(A), Some(B));
    for n in 0..40 {
        world.publish(if n % 2 == 0 { [a, b, a, b] } else { [b, a, b, a] });
    }
    world.publish([None; 4]);
    world.publish([b, b, b, a]);
    world.settled(42).await;
    assert_eq!(world.status(B).await.shards.len(), 3);
    let Ok(KvReply::Config(config, book)) = world.ask(B, KvRequest::Config).await else {
        panic!("no config")
    };
    assert_eq!((config.num, book.version), (ConfigNum(42), 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_for_another_group_or_of_impossible_size_is_refused() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let service = world.service(A);
    assert!(matches!(service.handle(B, KvRequest::Status).await, Err(KvRefusal::Malformed(_))));
    let large = Bytes::from(vec![0; PARAMS.value_bytes_max as usize + 1]);
    let refused = service.handle(A, append(0, &large, None, 1)).await;
    assert!(matches!(refused, Err(KvRefusal::ValueTooLarge { .. })));
    let get = KvRequest::Get { key: Bytes::from(vec![b'k'; 65]), config: ConfigNum(1) };
    assert!(matches!(service.handle(A, get).await, Err(KvRefusal::InvalidKey { .. })));
    let open = KvRequest::Open { shard: ShardId(4), config: ConfigNum(1) };
    assert_eq!(service.handle(A, open).await, Err(KvRefusal::UnknownShard(ShardId(4))));
    let ticket = Some(Ticket { session: SessionId(99), seq: Seq(1) });
    let expired = service.handle(A, append(0, &Bytes::from_static(b"x"), ticket, 1)).await;
    assert_eq!(expired, Err(KvRefusal::SessionExpired));
}

#[tokio::test(start_paused = true)]
async fn a_move_goes_on_after_a_power_cut_without_any_client() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let piece = Bytes::from(vec![b'x'; 200_000]);
    for n in 0..40 {
        world.ask(A, append(n, &piece, None, 1)).await.expect("written");
    }
    world.publish([Some(B); 4]);
    let mut interrupted = 0;
    for _ in 0..6 {
        clock::sleep(Duration::from_millis(600)).await;
        interrupted += u32::from(!world.status(A).await.settled);
        world.power_cut().await;
    }
    assert!(interrupted > 1, "the cuts must fall into the move");
    world.settled(2).await;
    for n in 0..40 {
        let get = KvRequest::Get { key: key(n), config: ConfigNum(2) };
        let expected = Ok(KvReply::Value { value: Some(piece.clone()), version: Version(1) });
        assert_eq!(world.ask(B, get).await, expected);
    }
    assert_eq!(world.service(B).wipes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_what_needs_space_and_lets_deletes_reads_and_shards_go() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let piece = Bytes::from_static(b"x");
    world.ask(A, append(0, &piece, None, 1)).await.expect("written");
    world.ask(A, append(1, &piece, None, 1)).await.expect("written");
    world.full.send_replace(true);
    clock::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.ask(A, append(0, &piece, None, 1)).await, Err(KvRefusal::DiskFull));
    let delete = KvRequest::Write { key: key(1), write: Write::Delete, ticket: None, config: ConfigNum(1) };
    assert_eq!(world.ask(A, delete).await, Ok(KvReply::Written { version: Version(1) }));
    let get = |config| KvRequest::Get { key: key(0), config: ConfigNum(config) };
    let expected = Ok(KvReply::Value { value: Some(piece.clone()), version: Version(1) });
    assert_eq!(world.ask(A, get(1)).await, expected);
    world.publish([Some(B); 4]);
    world.settled(2).await;
    assert_eq!(world.ask(B, get(2)).await, expected);
    // Nothing can come back before there is space; then it does, by itself.
    world.publish([Some(A); 4]);
    clock::sleep(Duration::from_secs(5)).await;
    assert!(!world.status(B).await.settled);
    world.full.send_replace(false);
    world.settled(3).await;
    assert_eq!(world.ask(A, get(3)).await, expected);
}

#[tokio::test(start_paused = true)]
async fn everything_ends_with_stop() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let service = world.service(A);
    service.stop().await;
    let get = KvRequest::Get { key: key(0), config: ConfigNum(1) };
    assert!(service.handle(A, get).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_future_of_a_request_is_of_moderate_size() {
    let world = two_groups().await;
    let service = world.service(A);
    let future = service.handle(A, KvRequest::Get { key: key(1), config: ConfigNum(1) });
    let bytes = std::mem::size_of_val(&future);
    assert!(bytes <= 2048, "each request in flight takes {bytes} bytes, and they are copied");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_would_make_too_large_an_entry_is_refused_before_the_log() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let shard = shard_of(&key(0), PARAMS.shard_count);
    let batch = |count| {
        let write = || (key(0), Write::Append { piece: Bytes::from(vec![b'x'; 5000]) });
        let writes = std::iter::repeat_with(write).take(count).collect();
        KvRequest::Batch { shard, writes, ticket: None, config: ConfigNum(1) }
    };
    let refused = world.ask(A, batch(220)).await;
    assert!(
        matches!(&refused, Err(KvRefusal::Malformed(why)) if why.contains("send it in parts")),
        "{refused:?}"
    );
    assert!(matches!(world.ask(A, batch(20)).await, Ok(KvReply::Batch { results }) if results.len() == 20));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_would_make_too_large_an_entry_is_refused_before_the_log() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let row = |it: usize| {
        let key = Bytes::from(format!("{{chunk}}{it:06}"));
        (rows::value_key(&key), rows::value_row(Version(1), &[&[b'x'; 5000]]))
    };
    let chunk = |count: usize| PushRequest::Install {
        shard: shard_of(b"{chunk}", PARAMS.shard_count),
        config: world.place(1),
        from: B,
        after: Cursor::default(),
        rows: (0..count).map(row).collect(),
    };
    let refused = world.push_to(A, B, chunk(220)).await;
    assert!(
        matches!(&refused, Err(KvRefusal::Malformed(why)) if why.contains("exceeds the limit")),
        "{refused:?}"
    );
    // One that is small enough goes on to be judged by what the shard is: here served already.
    let judged = world.push_to(A, B, chunk(20)).await;
    assert_eq!(judged, Ok(PushReply::AlreadyDone { num: ConfigNum(1) }));
}

/// Group A serves everything, with `count` rows of 100 kB in one shard; what is sent of it is watched.
async fn a_large_shard(count: usize) -> Arc<World> {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    for n in 0..count {
        world.ask(A, large(n, Some(Bytes::from(vec![b'x'; 100_000])))).await.expect("written");
    }
    world.installs(|_| {});
    world
}

/// A row of the large shard: written, or read.
fn large(n: usize, value: Option<Bytes>) -> KvRequest {
    let key = Bytes::from(format!("{{large}}{n}"));
    match value {
        Some(piece) => {
            KvRequest::Write { key, write: Write::Append { piece }, ticket: None, config: ConfigNum(1) }
        }
        None => KvRequest::Get { key, config: ConfigNum(2) },
    }
}

async fn all_arrived(world: &World, count: usize) {
    world.settled(2).await;
    for n in 0..count {
        let expected = Ok(KvReply::Value { value: Some(vec![b'x'; 100_000].into()), version: Version(1) });
        assert_eq!(world.ask(B, large(n, None)).await, expected);
    }
    assert_eq!(world.service(B).wipes(), 0);
}

/// Chunks of two rows each, and what is on its way at most.
const CHUNKS: usize = 60;
const CHUNKS_UNDER_WAY: usize = IN_FLIGHT_BYTES_MAX / 200_000;

#[tokio::test(start_paused = true)]
async fn chunks_of_a_shard_are_on_their_way_together_within_a_bound_and_sent_once() {
    let world = a_large_shard(2 * CHUNKS).await;
    world.publish([Some(B); 4]);
    all_arrived(&world, 2 * CHUNKS).await;
    world.installs(|installs| {
        let at_once = IN_FLIGHT_BYTES_MAX / 2..=IN_FLIGHT_BYTES_MAX;
        assert!(at_once.contains(&installs.bytes_under_way_max), "{} at once", installs.bytes_under_way_max);
        // The shards' own rows travel, too.
        assert!(installs.sent <= CHUNKS + 4, "{} sent", installs.sent);
    });
}

#[tokio::test(start_paused = true)]
async fn a_chunk_lost_in_the_middle_is_sent_again_with_those_behind_it_and_once() {
    let world = a_large_shard(2 * CHUNKS).await;
    world.installs(|installs| installs.lost = 30..31);
    world.publish([Some(B); 4]);
    all_arrived(&world, 2 * CHUNKS).await;
    let sent = world.installs(|installs| installs.sent);
    assert!(sent > CHUNKS + 4 && sent <= CHUNKS + 5 + CHUNKS_UNDER_WAY, "{sent} sent");
}

#[tokio::test(start_paused = true)]
async fn a_busy_receiver_is_sent_one_chunk_at_a_time_with_pauses() {
    let world = a_large_shard(2 * CHUNKS).await;
    world.publish([Some(B); 4]);
    while world.installs(|installs| installs.sent) < 30 {
        clock::sleep(Duration::from_millis(1)).await;
    }
    world.installs(|installs| installs.busy = true);
    clock::sleep(Duration::from_secs(1)).await;
    let refused = world.installs(|installs| std::mem::take(&mut installs.busy).then_some(installs.refused));
    // Another one every ten milliseconds at most, behind what was on its way.
    assert!(refused.is_some_and(|refused| refused <= CHUNKS_UNDER_WAY + 100), "{refused:?} refused");
    all_arrived(&world, 2 * CHUNKS).await;
}

/// A second is lost for each question to a server whose disk hangs.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_went_silent_is_asked_once_and_then_the_others() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let (first, second) = (B.to_string(), format!("{B}, too"));
    world.installs(|installs| installs.hints = Some((first, second.clone())));
    world.publish([Some(B), Some(A), Some(A), Some(A)]);
    world.settled(2).await;
    // The leader of group B is remembered: the second server. Now another one leads.
    world.installs(|installs| (installs.hints, installs.silent) = (None, Some(second)));
    let started = clock::now();
    world.publish([Some(B), Some(B), Some(A), Some(A)]);
    world.settled(3).await;
    assert_eq!(world.installs(|installs| installs.in_vain), 1);
    assert!(started.elapsed() < Duration::from_millis(1300), "{:?}", started.elapsed());
}

/// Waits until a group's status says so.
async fn until(world: &World, group: GroupId, says: impl Fn(&KvStatus) -> bool) {
    for _ in 0..2000 {
        if says(&world.status(group).await) {
            return;
        }
        clock::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {:?}", world.status(group).await);
}

/// The controllers are made anew, with this key: they know configuration 0 and what `owners` make of it.
fn remade(world: &World, key: u64, owners: &[[Option<GroupId>; 4]]) {
    let params = Params { sessions_max: 9, ..PARAMS };
    world.configs.send_replace(vec![Sealed::new(Config::zero(key, params))]);
    world.book.lock().expect("no panic").key = key;
    owners.iter().for_each(|owners| world.publish(*owners));
}

#[tokio::test(start_paused = true)]
async fn a_group_does_not_follow_controllers_that_were_made_anew_and_says_so() {
    for key in [KEY, KEY + 1] {
        let world = two_groups().await;
        world.publish([Some(A); 4]);
        world.settled(1).await;
        let piece = Bytes::from_static(b"x");
        world.ask(A, append(0, &piece, None, 1)).await.expect("written");
        // They would move everything to group B, and group A would drop it.
        remade(&world, key, &[[Some(B); 4], [Some(B); 4]]);
        until(&world, A, |status| status.history.word() == "other").await;
        clock::sleep(Duration::from_secs(20)).await;
        let status = world.status(A).await;
        assert_eq!((status.config, status.shards.len()), (ConfigNum(1), 4), "{status:?}");
        let get = KvRequest::Get { key: key_of_first(), config: ConfigNum(2) };
        let expected = Ok(KvReply::Value { value: Some(piece.clone()), version: Version(1) });
        assert_eq!(world.ask(A, get).await, expected, "it serves what it serves");
    }
}

fn key_of_first() -> Bytes {
    key(0)
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_ahead_of_the_controllers_serves_on_and_says_so_until_they_are_back() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.publish([Some(B); 4]);
    world.settled(2).await;
    let all = world.configs.borrow().clone();
    world.configs.send_replace(all[..2].to_vec());
    until(&world, B, |status| status.history.word() == "ahead").await;
    let write = append(0, &Bytes::from_static(b"x"), None, 2);
    assert_eq!(world.ask(B, write).await, Ok(KvReply::Written { version: Version(1) }));
    world.configs.send_replace(all);
    until(&world, B, |status| status.history.word() == "ok").await;
    world.publish([Some(A); 4]);
    world.settled(3).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_of_lost_controllers_and_not_adopted_is_forgotten() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    // Group A hands everything to a group that is not there, and hears of one more configuration.
    world.publish([Some(GroupId(103)); 4]);
    world.publish([Some(B); 4]);
    until(&world, A, |status| status.config == ConfigNum(2)).await;
    let held = |world: &World| world.service(A).knowledge.borrow().newest.as_ref().map(|it| it.num);
    while held(&world) != Some(ConfigNum(3)) {
        clock::sleep(Duration::from_millis(10)).await;
    }
    let known = world.configs.borrow()[..3].to_vec();
    world.configs.send_replace(known);
    world.publish([Some(A); 4]);
    let here = world.place(3);
    for _ in 0..2000 {
        let newest = world.service(A).knowledge.borrow().newest.as_ref().map(Sealed::place);
        if newest == Some(here) {
            assert_eq!(world.status(A).await.history.word(), "ok");
            return;
        }
        clock::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never hears of {here}");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_lost_its_data_answers_nothing_but_that() {
    let world = two_groups().await;
    world.publish([Some(A), Some(A), Some(B), Some(B)]);
    world.settled(1).await;
    let registered = world.life(B);
    // Both servers are one here: its disk is replaced by an empty one.
    let service = world.groups.lock().expect("no panic").remove(&B).expect("it runs");
    service.replica().kill();
    drop(service);
    world.disks.lock().expect("no panic").insert(B, MemoryDisk::new());
    world.start(B).await;
    until(&world, B, |status| status.lost == Some(registered)).await;
    let own = world.life(B);
    assert_ne!(own, registered);
    let lost = KvRefusal::LostData { group: B, registered, own };
    let get = |n| KvRequest::Get { key: key(n), config: ConfigNum(1) };
    for request in (0..20).map(get).chain([KvRequest::Config, KvRequest::History]) {
        assert_eq!(world.service(B).handle(B, request).await, Err(lost.clone()));
    }
    let question = PushRequest::Install {
        shard: ShardId(2),
        config: world.place(1),
        from: A,
        after: Cursor::default(),
        rows: Vec::new(),
    };
    let answer = world.service(B).handle_push(B, world.sender(A), question).await;
    assert_eq!(answer, Err(lost));
    // Nor does it push anything to others.
    let from_wiped =
        PushRequest::Activate { shard: ShardId(0), config: world.place(1), from: B, end: Cursor::default() };
    let answer = world.service(A).handle_push(A, world.sender(B), from_wiped).await;
    assert!(matches!(&answer, Err(KvRefusal::Malformed(why)) if why.contains("other data")), "{answer:?}");
    assert_eq!(world.status(B).await.shards, []);
}

#[tokio::test(start_paused = true)]
async fn a_group_pushes_in_no_other_groups_name() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let end = Cursor::default();
    let of_c = PushRequest::Activate { shard: ShardId(0), config: world.place(1), from: GroupId(9), end };
    let answer = world.push_to(A, B, of_c).await;
    assert!(matches!(&answer, Err(KvRefusal::Malformed(why)) if why.contains("of group 9")), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_none_are_refused_before_the_log() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let before = world.service(A).replica().status().commit;
    let shard = ShardId(0);
    let key = Bytes::from([&[0x10][..], &shard.0.to_be_bytes()].concat());
    let install = PushRequest::Install {
        shard,
        config: world.place(1),
        from: B,
        after: Cursor::default(),
        rows: vec![(key, Bytes::from_static(b"garbage"))],
    };
    let answer = world.push_to(A, B, install).await;
    assert!(matches!(answer, Err(KvRefusal::Malformed(_))), "{answer:?}");
    assert_eq!(world.service(A).replica().status().commit, before);
    let long = Cursor { last: Some(vec![0; 1 << 20].into()), ..Cursor::default() };
    let activate = PushRequest::Activate { shard, config: world.place(1), from: B, end: long };
    assert!(matches!(world.push_to(A, B, activate).await, Err(KvRefusal::Malformed(_))));
}
