//! The classic replicated store (6.824 Lab 3, 6.5840 2024 Lab 4; KR01 to KR23): one group, clients
//! that put, append and get, each write exactly once.
//!
//! In the generic test (`generic`) only one client writes each key. It compares each value with its
//! own writes, and at the end another client checks that every piece is there, once, in order. In
//! the linearizable tests clients share keys, and only the judge knows. It judges all tests at
//! their end.

use anyhow::{Context, bail, ensure};
use base::clock;
use rand::RngExt;
use tokio::task::JoinHandle;

use super::one_group::{
    GROUP, Generic, ITERATIONS, RAFT_STATE_MAX, SPEED_OPS, check_installed, check_log_size, check_rows_size,
    check_speed, client_of, connect_all, named, partition, within_3_s,
};
use super::versioned::Done;
use crate::lab::client::Client;
use crate::lab::{Lab, Store};
use crate::sheet::{Scenario, scenario};
use sim::Generator;
use sim::network::majority_without;

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let with = |id, parameters| scenario(id, move |lab| generic(lab, parameters));
    let one = Generic::of(1, 5);
    let five = Generic::of(5, 5);
    let many = Generic::of(15, 7).crash().partitions().random_keys();
    let twenty = Generic::of(20, 5).snapshots();
    vec![
        with("KR01", one),
        scenario("KR02", |lab| speed(lab, None)),
        with("KR03", five),
        with("KR04", five),
        scenario("KR05", one_key),
        scenario("KR06", one_partition),
        with("KR07", one.partitions()),
        with("KR08", five.partitions()),
        with("KR09", one.crash()),
        with("KR10", five.crash()),
        with("KR11", five.crash()),
        with("KR12", five.crash().partitions()),
        with("KR13", five.crash().partitions()),
        with("KR14", many),
        // With snapshots.
        scenario("KR15", snapshot_rpc),
        scenario("KR16", snapshot_size),
        scenario("KR17", |lab| speed(lab, Some(RAFT_STATE_MAX))),
        with("KR18", one.crash().snapshots()),
        with("KR19", twenty.crash()),
        with("KR20", five.snapshots()),
        with("KR21", five.crash().snapshots()),
        with("KR22", five.crash().partitions().snapshots()),
        with("KR23", many.snapshots()),
    ]
}

/// The generic test.
async fn generic(lab: Lab, parameters: Generic) -> anyhow::Result<()> {
    let store = parameters.set_up(&lab).await?;
    let mut reader = store.client();
    for iteration in 0..ITERATIONS {
        lab.step(&format!("iteration {iteration}"));
        let done = Done::default();
        let clients = start_clients(&store, parameters, &done);
        let partitioner = parameters.begin_trouble(&store).await?;
        lab.sleep(5000).await;
        done.tell();
        parameters.end_trouble(&store, partitioner).await?;
        for (me, client) in (0..).zip(clients) {
            let pieces = client.await?.with_context(|| format!("client {me}"))?;
            let (value, _) = reader.get(&me.to_string()).await?;
            if !parameters.random_keys {
                check_pieces(me, &value, pieces)?;
            }
        }
        parameters.check_sizes(&store).await?;
    }
    Ok(())
}

fn start_clients(store: &Store, parameters: Generic, done: &Done) -> Vec<JoinHandle<anyhow::Result<u64>>> {
    let start = |me| {
        let client = store.client();
        let random = store.lab.random(&store.lab.fresh_name("choices"));
        let done = done.clone();
        if parameters.random_keys {
            tokio::spawn(shared_keys(client, me, parameters.clients, random, done))
        } else {
            tokio::spawn(own_key(client, me, random, done))
        }
    };
    (0..parameters.clients).map(start).collect()
}

/// The piece that client `me` adds the `number`th time.
fn piece(me: u64, number: u64) -> String {
    format!("x {me} {number} y")
}

/// A client with a key that nobody else writes. Returns how many pieces it appended.
async fn own_key(mut client: Client, me: u64, mut random: Generator, done: Done) -> anyhow::Result<u64> {
    let key = me.to_string();
    let mut expected = String::new();
    let mut pieces = 0;
    client.put(&key, "").await?;
    while !done.is_over() {
        if random.random_bool(0.5) {
            let piece = piece(me, pieces);
            client.append(&key, &piece).await?;
            expected += &piece;
            pieces += 1;
        } else {
            client.check(&key, &expected).await?;
        }
    }
    Ok(pieces)
}

/// A client that works with shared keys. Returns how many pieces it wrote.
async fn shared_keys(
    mut client: Client,
    me: u64,
    keys: u64,
    mut random: Generator,
    done: Done,
) -> anyhow::Result<u64> {
    let mut pieces = 0;
    while !done.is_over() {
        let key = random.random_range(0..keys).to_string();
        let piece = piece(me, pieces);
        if random.random_bool(0.5) {
            client.append(&key, &piece).await?;
            pieces += 1;
        } else if random.random_bool(0.1) {
            client.put(&key, &piece).await?;
            pieces += 1;
        } else {
            client.get(&key).await?;
        }
    }
    Ok(pieces)
}

/// The labs' checkClntAppends: the first `pieces` of client `me` are in a value, each once, in order.
fn check_pieces(me: u64, value: &str, pieces: u64) -> anyhow::Result<()> {
    let mut after = value;
    for number in 0..pieces {
        let piece = piece(me, number);
        let Some((_, rest)) = after.split_once(&piece) else {
            let how = if value.contains(&piece) { "not after the piece before it" } else { "missing" };
            bail!("client {me} appended {pieces} pieces: {piece:?} is {how}");
        };
        after = rest;
    }
    let found = value.matches(&format!("x {me} ")).count() as u64;
    ensure!(found == pieces, "client {me} appended {pieces} pieces, and the value holds {found} of it");
    Ok(())
}

/// One client's appends, one after the other.
async fn speed(lab: Lab, raft_state_max: Option<usize>) -> anyhow::Result<()> {
    let store = lab.one_group(3, raft_state_max).await?;
    let mut client = store.client();
    client.get("x").await.context("before the clock runs")?;
    let start = clock::now();
    for number in 0..u64::from(SPEED_OPS) {
        client.append("x", &piece(0, number)).await?;
    }
    check_speed(&store, start)?;
    let (value, _) = client.get("x").await?;
    check_pieces(0, &value, u64::from(SPEED_OPS))
}

/// Five clients append to one key.
async fn one_key(lab: Lab) -> anyhow::Result<()> {
    const CLIENTS: u64 = 5;
    const APPENDS: u64 = 10;
    let store = lab.one_group(3, None).await?;
    let mut reader = store.client();
    reader.put("k", "").await?;
    let append = |me| {
        let mut client = store.client();
        tokio::spawn(async move {
            for number in 0..APPENDS {
                client.append("k", &piece(me, number)).await?;
            }
            anyhow::Ok(())
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(append).collect();
    for client in clients {
        client.await??;
    }
    let (value, _) = reader.get("k").await?;
    (0..CLIENTS).try_for_each(|me| check_pieces(me, &value, APPENDS))
}

/// A leader in the minority: clients that reach the majority proceed, clients that reach the
/// minority wait until the partition heals.
async fn one_partition(lab: Lab) -> anyhow::Result<()> {
    let store = lab.one_group(5, None).await?;
    let mut everywhere = store.client();
    everywhere.put("1", "13").await?;

    lab.step("progress in the majority");
    let leader = store.leader(&GROUP.to_string()).await?;
    let servers = store.servers(GROUP);
    let (majority, minority) = majority_without(&leader, &servers);
    partition(&store, &majority, &minority)?;
    let (mut a, _) = client_of(&store, true, &majority)?;
    a.put("1", "14").await?;
    a.check("1", "14").await?;

    lab.step("no progress in the minority");
    let (mut b1, name1) = client_of(&store, true, &minority)?;
    let (mut b2, name2) = client_of(&store, true, &minority)?;
    let mut put = tokio::spawn(async move { b1.put("1", "15").await });
    let mut get = tokio::spawn(async move { b2.get("1").await });
    lab.sleep(1000).await;
    ensure!(!put.is_finished(), "a put in the minority came to an end");
    ensure!(!get.is_finished(), "a get in the minority came to an end");
    a.check("1", "14").await?;
    a.put("1", "16").await?;
    a.check("1", "16").await?;

    lab.step("completion after healing");
    connect_all(&store)?;
    store.limit_client(&name1, GROUP, &servers)?;
    store.limit_client(&name2, GROUP, &servers)?;
    lab.sleep(1000).await;
    // The labs do not really wait for the get: their second wait gives up at once.
    within_3_s(&mut put).await.context("the put that was sent to the minority")??;
    within_3_s(&mut get).await.context("the get that was sent to the minority")??;
    everywhere.check("1", "15").await
}

/// A server that missed so much that the log no longer has it must serve as part of a majority.
async fn snapshot_rpc(lab: Lab) -> anyhow::Result<()> {
    let store = lab.one_group(3, Some(RAFT_STATE_MAX)).await?;
    let mut everywhere = store.client();
    everywhere.put("a", "A").await?;
    everywhere.check("a", "A").await?;

    lab.step("a majority without server 3");
    let majority = named(&store, &[0, 1]);
    partition(&store, &majority, &named(&store, &[2]))?;
    let (mut client, _) = client_of(&store, true, &majority)?;
    for number in 0..50 {
        client.put(&number.to_string(), &number.to_string()).await?;
    }
    lab.sleep(1000).await;
    client.put("b", "B").await?;
    check_log_size(&store, RAFT_STATE_MAX).await?;

    lab.step("a majority with server 3, without server 2");
    let majority = named(&store, &[0, 2]);
    partition(&store, &majority, &named(&store, &[1]))?;
    let (mut client, _) = client_of(&store, true, &majority)?;
    client.put("c", "C").await?;
    client.put("d", "D").await?;
    for (key, value) in [("a", "A"), ("b", "B"), ("1", "1"), ("49", "49")] {
        client.check(key, value).await?;
    }
    check_installed(&store, &named(&store, &[2])[0])?;

    connect_all(&store)?;
    everywhere.put("e", "E").await?;
    for (key, value) in [("c", "C"), ("e", "E"), ("1", "1")] {
        everywhere.check(key, value).await?;
    }
    Ok(())
}

/// Many writes of few bytes leave a short log and few rows.
async fn snapshot_size(lab: Lab) -> anyhow::Result<()> {
    let store = lab.one_group(3, Some(RAFT_STATE_MAX)).await?;
    let mut client = store.client();
    for _ in 0..200 {
        for value in ["0", "1"] {
            client.put("x", value).await?;
            client.check("x", value).await?;
        }
    }
    check_log_size(&store, RAFT_STATE_MAX).await?;
    check_rows_size(&store).await
}
