//! Two groups of one replica each, a controller of paper, and a network that loses answers: what the
//! tasks beside the state machine do by themselves.

mod histories;
mod moves;
mod pushes;
mod requests;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use base::clock;
use bytes::Bytes;
use clerk::api::config::{AddressBook, Assignment, Config, Params, Place, Registered, Sealed};
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest, News};
use clerk::api::push::{Cursor, End, Reach};
use clerk::api::status::{KvStatus, ShardPhase};
use clerk::api::{Digest, Incarnation, Seq, SessionId, Ticket, Version};
use clerk::connection::CallError;
use futures::future::BoxFuture;
use host::Facts;
use raft::core::message::Message;
use raft::rsm::{self, Parts, Threads};
use raft::storage::memory::MemoryDisk;
use raft::transport::{Transport, mailbox};
use raft::types::Membership;

use super::*;
use crate::leader::receiver::IN_FLIGHT_BYTES_MAX;
use crate::machine::copy;

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
    /// The limit of moves.
    move_rate: Mutex<Option<u32>>,
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
            facts: Facts::default(),
            sizes: Sizes::USUAL,
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
            PushRequest::Install { rows, .. } => rows.iter().map(copy::weight).sum(),
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
                        let move_rate = *self.move_rate.lock().expect("no panic");
                        Ok(CtrlReply::Configs(Box::new(News { configs, newest, book, move_rate })))
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
