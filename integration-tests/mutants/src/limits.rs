//! Tests of limits (correctness rules 77, 101, 104, 105, 130 to 133), each in a situation that storms
//! rarely reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::clock;
use base::socket::{Arrival, Counters, Hello, Here, Limits, Listener, dial, wire};
use bytes::Bytes;
use clerk::api::config::Params;
use clerk::api::ctrl::{Change, CtrlRefusal, CtrlReply, CtrlRequest};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest, Write};
use clerk::api::push::{PushReply, PushRequest, Sender};
use clerk::api::{Address, ConfigNum, GroupId, ShardId, Version};
use clerk::connection::{CallError, Connection};
use clerk::group::{Attempts, GroupClient};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use raft::config::Law;
use raft::core::pace::Demand;
use raft::rsm::MapRows;
use raft::rsm::sessions::Sessions;
use raft::storage::Save;
use raft::types::{Entry, EntryId, HardState, Payload, Term};
use raft_disk::wal::{LogOptions, open_log};
use sim::World;
use sim::clerks::Admin;
use sim::cluster::{Cluster, Kind, Shape};
use sim::disk::Temper;
use tarpc::client::Channel;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LIMIT: Duration = Duration::from_secs(5);

fn on_its_own<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

fn here() -> Here {
    Here { cluster: "blue".into(), group: 101, node: 1, incarnation: 7, ..Here::default() }
}

fn hello(cluster: &str) -> Hello {
    Hello { cluster: cluster.into(), group: 101, ..Hello::default() }
}

/// Callers that are refused close nobody's connection (rule 101).
pub(crate) fn callers() -> Result<(), String> {
    on_its_own(async {
        let limits = Limits { clients_max: 2, ..Limits::default() };
        let listener = Listener::bind("127.0.0.1:0", limits).await.map_err(|error| error.to_string())?;
        let address = listener.address().to_string();
        let serve = move |arrival: Arrival| async move {
            let stream = arrival.admit(&here()).await;
            if stream.is_some() {
                std::future::pending::<()>().await;
            }
        };
        let serving = tokio::spawn(async move { listener.run(serve).await });
        let mut clients = Vec::new();
        for _ in 0..2 {
            clients.push(dial(&address, &hello("blue"), LIMIT).await.map_err(|error| error.to_string())?.0);
        }
        for _ in 0..4 {
            if dial(&address, &hello("red"), LIMIT).await.is_ok() {
                return Err("a client of another cluster is let in".to_owned());
            }
        }
        for client in &mut clients {
            let closed = clock::timeout(Duration::from_millis(200), client.read(&mut [0; 8])).await;
            if closed.is_ok() {
                return Err("callers that are refused closed the connection of a client".to_owned());
            }
        }
        serving.abort();
        Ok(())
    })
}

/// A server of 1 MiB for what waits. It answers a text with itself, but for "never".
async fn small_server() -> Result<(String, Arc<Counters>, tokio::task::JoinHandle<()>), String> {
    let limits = Limits { server_bytes_max: 1 << 20, ..Limits::default() };
    let listener = Listener::bind("127.0.0.1:0", limits).await.map_err(|error| error.to_string())?;
    let (address, counters) = (listener.address().to_string(), listener.counters());
    let serve = |arrival: Arrival| async move {
        let Some(stream) = arrival.admit(&here()).await else { return };
        let answer = tarpc::server::serve(|_, text: String| async move {
            if text.starts_with("never") {
                std::future::pending::<()>().await;
            }
            Ok(text)
        });
        wire::serve(stream, 1024, LIMIT, answer).await;
    };
    let serving = tokio::spawn(async move {
        listener.run(serve).await;
    });
    Ok((address, counters, serving))
}

/// Frames that are never complete (rule 103).
pub(crate) fn slow_callers() -> Result<(), String> {
    on_its_own(async {
        let (address, counters, serving) = small_server().await?;
        let mut callers = Vec::new();
        for _ in 0..60 {
            let (mut stream, _) =
                dial(&address, &hello("blue"), LIMIT).await.map_err(|error| error.to_string())?;
            // It may be closed meanwhile.
            let _ = stream.write_all(&60_000_u32.to_be_bytes()).await;
            let _ = stream.write_all(&[1; 50_000]).await;
            callers.push(stream);
            clock::sleep(Duration::from_millis(5)).await;
        }
        clock::sleep(Duration::from_millis(300)).await;
        let waiting = counters.waiting_bytes();
        serving.abort();
        match waiting {
            0..1_500_000 => Ok(()),
            _ => Err(format!("{waiting} bytes wait on the connections of a server that may keep 1 MiB")),
        }
    })
}

/// Requests of one client that are not answered (rule 132).
pub(crate) fn greedy_callers() -> Result<(), String> {
    on_its_own(async {
        let (address, _, serving) = small_server().await?;
        let channel = async || -> Result<Channel<String, String>, String> {
            let (stream, _) =
                dial(&address, &hello("blue"), LIMIT).await.map_err(|error| error.to_string())?;
            Ok(tarpc::client::new(tarpc::client::Config::default(), wire::client(stream)).spawn())
        };
        let greedy = channel().await?;
        let text = format!("never{}", "x".repeat(50_000));
        let asked: Vec<_> = (0..40)
            .map(|_| {
                let (greedy, text) = (greedy.clone(), text.clone());
                tokio::spawn(async move { greedy.call(tarpc::context::current(), text).await })
            })
            .collect();
        clock::sleep(Duration::from_millis(500)).await;
        let other = channel().await?;
        let answer = other.call(tarpc::context::current(), "y".repeat(30_000)).await;
        asked.iter().for_each(tokio::task::JoinHandle::abort);
        serving.abort();
        answer.map(drop).map_err(|error| format!("beside 40 requests of another client: {error}"))
    })
}

/// The next file of a log cannot be made, while the present one has room (rule 104).
pub(crate) fn spare_files() -> Result<(), String> {
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = root.path().join("raft");
    let options = LogOptions { file_bytes: 8000, keep_bytes: 16_000, ..LogOptions::default() };
    let mut log = open_log(&path, &options).map_err(|error| error.to_string())?;
    log.load().map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink("/dev/full", path.join("1.log")).map_err(|error| error.to_string())?;
    let hard_state = Some(HardState { term: Term(1), vote: None });
    let mut save = |save: &Save| {
        futures::executor::block_on(log.save(save));
        // So the thread that makes the next file has ended when the log checks it.
        std::thread::sleep(Duration::from_millis(5));
    };
    save(&Save { hard_state, ..Save::default() });
    for index in 1..=20 {
        let command = Payload::Command(Bytes::from(vec![index as u8; 100]));
        save(&Save { entries: vec![Entry::new(EntryId::new(1, index), command)], ..Save::default() });
    }
    Ok(())
}

/// More clients than sessions (rule 131).
pub(crate) fn sessions() -> Result<(), String> {
    const SESSIONS: u32 = 16;
    let mut rows = MapRows::default();
    let mut sessions = Sessions::load(Bytes::from_static(b"s"), &rows);
    let mut ids: Vec<u64> = (0..SESSIONS).filter_map(|_| sessions.open(&mut rows, SESSIONS)).collect();
    let mut opened = 0;
    for seq in 1..=100 {
        for id in &mut ids {
            sessions.record(&mut rows, *id, seq, Bytes::from_static(b"done"));
        }
        // Others want one, too.
        opened += (0..4).filter_map(|_| sessions.open(&mut rows, SESSIONS)).count();
    }
    match opened {
        0..100 => Ok(()),
        _ => Err(format!("clients took {opened} sessions from {SESSIONS} others that use them")),
    }
}

/// Server "c" leads and is busy three times of four; the others name it.
struct BusyLeader {
    calls: AtomicU64,
    astray: AtomicU64,
}

impl Connection for BusyLeader {
    fn kv<'a>(
        &'a self,
        to: &'a Address,
        _: GroupId,
        _: KvRequest,
        _: Duration,
    ) -> BoxFuture<'a, Result<Result<KvReply, KvRefusal>, CallError>> {
        async move {
            if to != "c" {
                self.astray.fetch_add(1, Ordering::Relaxed);
                return Ok(Err(KvRefusal::NotLeader { hint: Some("c".to_owned()) }));
            }
            match self.calls.fetch_add(1, Ordering::Relaxed) % 4 {
                3 => Ok(Ok(KvReply::Value { value: None, version: Version(0) })),
                _ => Err(CallError::Busy { address: to.clone(), why: "so many requests".to_owned() }),
            }
        }
        .boxed()
    }

    fn push<'a>(
        &'a self,
        to: &'a Address,
        _: GroupId,
        _: Sender,
        _: PushRequest,
        _: Duration,
    ) -> BoxFuture<'a, Result<Result<PushReply, KvRefusal>, CallError>> {
        async move { Err(CallError::Refused { address: to.clone(), why: "no group".to_owned() }) }.boxed()
    }

    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        _: CtrlRequest,
        _: Duration,
    ) -> BoxFuture<'a, Result<Result<CtrlReply, CtrlRefusal>, CallError>> {
        async move { Err(CallError::Refused { address: to.clone(), why: "no controller".to_owned() }) }
            .boxed()
    }
}

/// A leader that is busy is asked again (rule 130).
pub(crate) fn busy_leaders() -> Result<(), String> {
    on_its_own(async {
        let leader = Arc::new(BusyLeader { calls: AtomicU64::new(0), astray: AtomicU64::new(0) });
        let addresses = ["a", "b", "c"].map(str::to_owned).to_vec();
        let group = GroupClient::new(Arc::clone(&leader) as Arc<dyn Connection>, GroupId(1), addresses, 7);
        let get = KvRequest::Get { key: Bytes::from_static(b"key"), config: ConfigNum(1) };
        for _ in 0..10 {
            let until = clock::now().after(LIMIT);
            let asked = group.ask(&get, until, &mut Attempts::repeatable()).await;
            asked.map_err(|error| error.to_string())?;
        }
        match leader.astray.load(Ordering::Relaxed) {
            0..=3 => Ok(()),
            astray => Err(format!("{astray} requests went to servers that do not lead")),
        }
    })
}

/// A small batch that would make a lot (rule 105).
pub(crate) async fn batches(world: World) -> Result<(), String> {
    const GROUP: GroupId = GroupId(101);
    let shape = Shape { params: Params { shard_count: 1, ..Params::default() }, ..Shape::drawn(&world) };
    let cluster = Cluster::new(&world, shape);
    cluster.add(Kind::Ctrl, 3);
    let servers = cluster.add(Kind::Kv(GROUP), 1);
    cluster.ready(Duration::from_secs(10)).await?;
    let admin = Admin::new(&cluster);
    let newcomer = admin.newcomer(GROUP, cluster.addresses(&GROUP.to_string())).await?;
    admin.change(Change::Join([(GROUP, newcomer)].into())).await;
    let (calls, to) = (cluster.client("client"), servers[0].to_string());
    let config = ConfigNum(1);
    let ask = async |request: KvRequest| calls.kv(&to, GROUP, request, LIMIT).await;
    let put = |value: Bytes| Write::Put { value, expected: None };
    let mut tries = 0;
    for key in 0..8 {
        let key = Bytes::from(format!("key {key}"));
        let write = put(Bytes::from(vec![0; 1_000_000]));
        while !matches!(
            ask(KvRequest::Write { key: key.clone(), write: write.clone(), ticket: None, config }).await,
            Ok(Ok(KvReply::Written { .. }))
        ) {
            clock::sleep(Duration::from_millis(50)).await;
            tries += 1;
            if tries > 200 {
                return Err("vacuous: nothing is written".to_owned());
            }
        }
    }
    let append = Write::Append { piece: Bytes::from_static(b"x") };
    let writes: Vec<_> = (0..8).map(|key| (Bytes::from(format!("key {key}")), append.clone())).collect();
    loop {
        let batch = KvRequest::Batch { shard: ShardId(0), writes: writes.clone(), ticket: None, config };
        match ask(batch).await {
            Ok(Err(KvRefusal::BatchTooLarge { .. })) => return Ok(()),
            Ok(Err(KvRefusal::Busy)) => clock::sleep(Duration::from_millis(50)).await,
            answer => return Err(format!("eight bytes write eight megabytes: {answer:?}")),
        }
    }
}

/// A new group lags by hundreds of configurations (rule 102).
pub(crate) async fn many_configurations(world: World) -> Result<(), String> {
    const GROUPS: [GroupId; 2] = [GroupId(101), GroupId(103)];
    const NEW: GroupId = GroupId(102);
    const CHANGES: u64 = 260;
    const CURRENT_WITHIN: Duration = Duration::from_secs(2);
    let shape = Shape { params: Params { shard_count: 2, ..Params::default() }, ..Shape::drawn(&world) };
    let cluster = Cluster::new(&world, Shape { disks: Temper::Steady, ..shape });
    cluster.add(Kind::Ctrl, 1);
    GROUPS.iter().for_each(|group| drop(cluster.add(Kind::Kv(*group), 1)));
    cluster.ready(Duration::from_secs(10)).await?;
    let admin = Admin::new(&cluster);
    for group in GROUPS {
        let newcomer = admin.newcomer(group, cluster.addresses(&group.to_string())).await?;
        admin.change(Change::Join([(group, newcomer)].into())).await;
    }
    for number in 0..CHANGES {
        admin.change(Change::Move { shard: ShardId(0), group: GROUPS[number as usize % 2] }).await;
    }
    cluster.add(Kind::Kv(NEW), 1);
    cluster.ready(Duration::from_secs(10)).await?;
    let begun = clock::now();
    let adopted = || {
        let new = cluster.seen().into_iter().find(|seen| *seen.group == *NEW.to_string())?;
        let place = new.probe.standing.as_ref()?.borrow().place;
        Some(place?.num.0)
    };
    while adopted().is_none_or(|num| num < CHANGES) {
        if begun.elapsed() > CURRENT_WITHIN {
            return Err(format!(
                "after {CURRENT_WITHIN:?} a new group has adopted {:?} of {CHANGES}",
                adopted()
            ));
        }
        clock::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// What clients want does not shrink while they are slowed down (rule 133).
pub(crate) fn demand() -> Result<(), String> {
    let (law, tick) = (Law::default(), Duration::from_millis(100));
    let (mut demand, mut written) = (Demand::default(), 0);
    let mut pass = |ticks: u32, bytes: u64, is_paced: bool| {
        for _ in 0..ticks {
            written += bytes;
            demand.tick(&law, tick, written, is_paced);
        }
        demand.most()
    };
    let before = pass(1000, 1_000_000, false);
    match (before, pass(1000, 250_000, true)) {
        (Some(10_000_000), Some(10_000_000)) => Ok(()),
        other => Err(format!("10 MB/s were wanted, and then and now it is {other:?}")),
    }
}
