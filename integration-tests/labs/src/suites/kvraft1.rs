//! The replicated store of conditional puts (6.5840 2025 and 2026, Labs 4B and 4C; KV01 to KV22):
//! one group, and clients without sessions, whose puts are executed at most once because each names
//! the version it met.
//!
//! In the generic test (`generic`) they race for one key, whose version must equal the number of
//! their puts, or for a hundred. Clients must finish while servers are still being cut off from
//! each other. The judge checks all three iterations together at the end.

use std::time::Duration;

use anyhow::{Context, ensure};
use base::clock;

use super::one_group::{
    GROUP, Generic, ITERATIONS, RAFT_STATE_MAX, SPEED_OPS, check_installed, check_log_size, check_rows_size,
    check_speed, client_of, connect_all, named, partition, within_3_s,
};
use super::versioned::{
    Puts, check_get, check_put_concurrent, one_client_put, put_at_least_once, spawn_clients_and_wait,
};
use crate::lab::client::Put;
use crate::lab::{Lab, Net};
use crate::sheet::{Scenario, scenario};
use sim::network::majority_without;

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let with = |id, parameters| scenario(id, move |lab| generic(lab, parameters));
    let one = Generic::of(1, 5);
    let five = Generic::of(5, 5);
    let many = Generic::of(15, 7).crash().partitions().random_keys();
    let twenty = Generic::of(20, 5).snapshots();
    vec![
        with("KV01", one),
        scenario("KV02", |lab| speed(lab, None)),
        with("KV03", five),
        with("KV04", five),
        scenario("KV05", one_partition),
        scenario("KV05-reliable", one_partition),
        with("KV06", one.partitions()),
        with("KV07", five.partitions()),
        with("KV08", one.crash()),
        with("KV09", five.crash()),
        with("KV10", five.crash()),
        with("KV11", five.crash().partitions()),
        with("KV12", five.crash().partitions()),
        with("KV13", many),
        // With snapshots.
        scenario("KV14", snapshot_rpc),
        scenario("KV15", snapshot_size),
        scenario("KV16", |lab| speed(lab, Some(RAFT_STATE_MAX))),
        with("KV17", one.crash().snapshots()),
        with("KV18", twenty.crash()),
        with("KV19", five.snapshots()),
        with("KV20", five.crash().snapshots()),
        with("KV21", five.crash().partitions().snapshots()),
        with("KV22", many.snapshots()),
    ]
}

/// The generic test.
async fn generic(lab: Lab, parameters: Generic) -> anyhow::Result<()> {
    const LOAD_MS: u64 = 1000;
    let store = parameters.set_up(&lab).await?;
    let keys: Vec<String> = if parameters.random_keys {
        (0..100).map(|number| format!("k{number}")).collect()
    } else {
        vec!["k".to_owned()]
    };
    let reliable = lab.net() == Net::Reliable && !parameters.crash && !parameters.partitions;
    let mut reader = store.versioned_client();
    let mut puts = Puts::default();
    for iteration in 0..ITERATIONS {
        lab.step(&format!("iteration {iteration}"));
        let load = spawn_clients_and_wait(&store, parameters.clients, LOAD_MS, |me, client, done| {
            // No two clients of a run are the same, so that all texts are unique.
            let me = iteration * parameters.clients + me;
            let random = parameters.random_keys.then(|| lab.random(&format!("keys of client {me}")));
            let keys = keys.clone();
            async move { one_client_put(client, me, &keys, random, done).await }
        });
        let (load, partitioner) = tokio::join!(load, parameters.begin_trouble(&store));
        puts += load?.into_iter().sum();
        if !parameters.random_keys {
            check_put_concurrent(&mut reader, &keys[0], puts, reliable).await?;
        }
        parameters.end_trouble(&store, partitioner?).await?;
        parameters.check_sizes(&store).await?;
    }
    Ok(())
}

/// One client's puts, one after the other.
async fn speed(lab: Lab, raft_state_max: Option<usize>) -> anyhow::Result<()> {
    /// The labs' histogram of 2026 has no room for a longer one.
    const LONGEST: Duration = Duration::from_millis(500);
    let store = lab.one_group(3, raft_state_max).await?;
    let mut client = store.versioned_client();
    client.get("k").await.context("before the clock runs")?;
    let start = clock::now();
    for number in 0..u64::from(SPEED_OPS) {
        let before = clock::now();
        let put = client.put_if("k", &number.to_string(), number).await?;
        ensure!(put == Put::Ok, "put k at version {number} was answered {put:?}");
        ensure!(before.elapsed() < LONGEST, "the put at version {number} took {:?}", before.elapsed());
    }
    check_speed(&store, start)?;
    let (_, version) = client.get("k").await?;
    ensure!(version == u64::from(SPEED_OPS), "k has version {version} after {SPEED_OPS} puts");
    Ok(())
}

/// A leader in the minority: clients that reach the majority proceed, clients that reach the
/// minority wait until the partition heals.
async fn one_partition(lab: Lab) -> anyhow::Result<()> {
    let store = lab.one_group(5, None).await?;
    let mut everywhere = store.versioned_client();
    let version = put_at_least_once(&mut everywhere, "1", "13", 0).await?;

    lab.step("progress in the majority");
    // Adapted: 2026 takes the leader from the clerk's memory, which ours does not show; 2025 asks the servers.
    let leader = store.leader(&GROUP.to_string()).await?;
    let servers = store.servers(GROUP);
    let (majority, minority) = majority_without(&leader, &servers);
    partition(&store, &majority, &minority)?;
    let (mut a, _) = client_of(&store, false, &majority)?;
    let version = put_at_least_once(&mut a, "1", "14", version).await?;
    check_get(&mut a, "1", "14", version).await?;

    lab.step("no progress in the minority");
    let (mut b1, name1) = client_of(&store, false, &minority)?;
    let (mut b2, name2) = client_of(&store, false, &minority)?;
    let mut put = tokio::spawn(async move { put_at_least_once(&mut b1, "1", "15", version).await });
    let mut get = tokio::spawn(async move { b2.get("1").await });
    lab.sleep(1000).await;
    ensure!(!put.is_finished(), "a put in the minority came to an end");
    ensure!(!get.is_finished(), "a get in the minority came to an end");
    check_get(&mut a, "1", "14", version).await?;
    let version = put_at_least_once(&mut a, "1", "16", version).await?;
    check_get(&mut a, "1", "16", version).await?;

    lab.step("completion after healing");
    connect_all(&store)?;
    store.limit_client(&name1, GROUP, &servers)?;
    store.limit_client(&name2, GROUP, &servers)?;
    lab.sleep(1000).await;
    // The labs do not really wait for the get: their second wait gives up at once.
    let version = within_3_s(&mut put).await.context("the put that was sent to the minority")??;
    within_3_s(&mut get).await.context("the get that was sent to the minority")??;
    check_get(&mut everywhere, "1", "15", version).await
}

/// A server that missed so much that the log no longer has it must serve as part of a majority.
async fn snapshot_rpc(lab: Lab) -> anyhow::Result<()> {
    let store = lab.one_group(3, Some(RAFT_STATE_MAX)).await?;
    let mut everywhere = store.versioned_client();
    let a = put_at_least_once(&mut everywhere, "a", "A", 0).await?;
    check_get(&mut everywhere, "a", "A", a).await?;

    lab.step("a majority without server 3");
    let majority = named(&store, &[0, 1]);
    partition(&store, &majority, &named(&store, &[2]))?;
    let (mut client, _) = client_of(&store, false, &majority)?;
    for number in 0..50 {
        put_at_least_once(&mut client, &number.to_string(), &number.to_string(), 0).await?;
    }
    lab.sleep(1000).await;
    let b = put_at_least_once(&mut client, "b", "B", 0).await?;
    check_log_size(&store, RAFT_STATE_MAX).await?;

    lab.step("a majority with server 3, without server 2");
    let majority = named(&store, &[0, 2]);
    partition(&store, &majority, &named(&store, &[1]))?;
    let (mut client, _) = client_of(&store, false, &majority)?;
    let c = put_at_least_once(&mut client, "c", "C", 0).await?;
    let d = put_at_least_once(&mut client, "d", "D", 0).await?;
    for (key, value, version) in [("a", "A", a), ("b", "B", b), ("1", "1", 1), ("49", "49", 1)] {
        check_get(&mut client, key, value, version).await?;
    }
    check_installed(&store, &named(&store, &[2])[0])?;

    connect_all(&store)?;
    let e = put_at_least_once(&mut everywhere, "e", "E", 0).await?;
    for (key, value, version) in [("c", "C", c), ("d", "D", d), ("e", "E", e), ("1", "1", 1)] {
        check_get(&mut everywhere, key, value, version).await?;
    }
    Ok(())
}

/// Many writes of few bytes leave a short log and few rows.
async fn snapshot_size(lab: Lab) -> anyhow::Result<()> {
    let store = lab.one_group(3, Some(RAFT_STATE_MAX)).await?;
    let mut client = store.versioned_client();
    let mut version = 0;
    for _ in 0..200 {
        for value in ["0", "1"] {
            version = put_at_least_once(&mut client, "x", value, version).await?;
            check_get(&mut client, "x", value, version).await?;
        }
    }
    check_log_size(&store, RAFT_STATE_MAX).await?;
    check_rows_size(&store).await
}
