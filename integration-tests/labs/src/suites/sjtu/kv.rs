//! Part 5: a store over Raft. J19 to J21.
//!
//! The store is a state machine with three commands, all of them through the log. Left out on
//! purpose: separate clients; the tests talk to the servers, as SJTU's do.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base::clock;
use bytes::Bytes;
use futures::future::join_all;
use raft::config::Config;
use raft::rsm::{Rows, StateMachine};
use raft::storage::Read;
use raft::types::EntryId;
use serde::{Deserialize, Serialize};

use super::Style;
use crate::lab::{Lab, Timers};
use crate::sheet::{Test, test};
use crate::suites::raft::Servers;
use sim::cluster::Bare;
use sim::lock;

/// The time limit for the result of a command.
const RESULT_MAX: Duration = Duration::from_millis(2500);

pub(super) fn tests() -> Vec<Test> {
    let part = "part5";
    vec![
        test("J19", "sjtu", "puts, gets and a delete", basic).sjtu(part, "part5.basic_kv", 4),
        test("J20", "sjtu", "a store survives a restart", persist).sjtu(part, "part5.persist_kv", 3),
        test("J21", "sjtu", "a store moves as a snapshot", snapshot).sjtu(part, "part5.snapshot_kv", 3),
    ]
}

/// A command.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    Put(String, String),
    Get(String),
    Delete(String),
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    /// Whether the key existed, or exists now.
    found: bool,
    key: String,
    /// The value put, got or deleted.
    value: String,
}

/// The state machine.
struct Kv;

fn row_key(key: &str) -> Vec<u8> {
    [b"k", key.as_bytes()].concat()
}

fn value_of(rows: &(impl Read + ?Sized), key: &str) -> Option<String> {
    rows.get(&row_key(key)).map(|value| String::from_utf8_lossy(&value).into_owned())
}

impl StateMachine for Kv {
    type Command = Command;
    type Output = Outcome;
    type Query = ();
    type Answer = ();

    fn load(&mut self, _rows: &dyn Read) {}

    fn apply(&mut self, rows: &mut dyn Rows, _id: EntryId, command: Command) -> Outcome {
        let (key, value) = match command {
            Command::Put(key, value) => {
                rows.put(row_key(&key).into(), Bytes::from(value.clone()));
                (key, Some(value))
            }
            Command::Get(key) => {
                let value = value_of(&*rows, &key);
                (key, value)
            }
            Command::Delete(key) => {
                let value = value_of(&*rows, &key);
                rows.delete(&row_key(&key));
                (key, value)
            }
        };
        Outcome { found: value.is_some(), key, value: value.unwrap_or_default() }
    }

    fn query(&self, _rows: &dyn Read, _query: ()) {}
}

async fn set_up(lab: &Lab) -> anyhow::Result<Servers> {
    let config = Config { log_keep_bytes: 0, ..lab.config(Timers::Lab) };
    Servers::set_up(lab, Style::Sjtu, Bare::new("kv", || Kv), 3, config).await
}

fn found(key: &str, value: &str) -> Outcome {
    Outcome { found: true, key: key.to_owned(), value: value.to_owned() }
}

fn missing(key: &str) -> Outcome {
    Outcome { found: false, key: key.to_owned(), value: String::new() }
}

fn put(key: &str, value: &str) -> Command {
    Command::Put(key.to_owned(), value.to_owned())
}

fn get(key: &str) -> Command {
    Command::Get(key.to_owned())
}

/// Gives all commands to a server without waiting for their results, then checks those.
async fn run(servers: &Servers, leader: usize, commands: Vec<(Command, Outcome)>) -> anyhow::Result<()> {
    let replica = servers.cluster.replica::<Kv>(servers.name(leader)).context("the leader is dead")?;
    let (commands, expected): (Vec<_>, Vec<_>) = commands.into_iter().unzip();
    let results = join_all(commands.iter().map(|command| replica.execute(command, RESULT_MAX))).await;
    for ((command, expected), result) in commands.iter().zip(expected).zip(results) {
        let outcome = result.with_context(|| format!("{command:?} at {}", servers.name(leader)))?;
        ensure!(outcome == expected, "{command:?} was answered {outcome:?}, expected {expected:?}");
        servers.lab.count_op();
    }
    Ok(())
}

async fn basic(lab: Lab) -> anyhow::Result<()> {
    let servers = set_up(&lab).await?;
    let leader = servers.check_one_leader().await?;
    let pair = |number: u64| (format!("k{number}"), format!("v{}", 10 * number));
    let puts = (1..=10).map(pair).map(|(key, value)| (put(&key, &value), found(&key, &value)));
    run(&servers, leader, puts.collect()).await?;
    let gets = (1..=10).map(pair).map(|(key, value)| (get(&key), found(&key, &value)));
    run(&servers, leader, gets.collect()).await?;
    run(&servers, leader, vec![(Command::Delete("k5".to_owned()), found("k5", "v50"))]).await?;
    run(&servers, leader, vec![(get("k5"), missing("k5"))]).await?;
    let last = servers.check_one_leader().await?;
    let (first, last) = (servers.name(leader), servers.name(last));
    ensure!(first == last, "the leader changed from {first} to {last} although nothing failed");
    Ok(())
}

/// A get during which the leader may change: at most five tries, 0.2 s apart.
async fn get_patiently(servers: &Servers, key: &str, expected: Outcome) -> anyhow::Result<()> {
    for _ in 0..5 {
        let leader = servers.check_one_leader().await?;
        let Some(replica) = servers.cluster.replica::<Kv>(servers.name(leader)) else { continue };
        if let Ok(outcome) = replica.execute(&get(key), RESULT_MAX).await {
            ensure!(outcome == expected, "get {key} was answered {outcome:?}, expected {expected:?}");
            servers.lab.count_op();
            return Ok(());
        }
        servers.sleep(200).await;
    }
    bail!("get {key} has no result after five tries")
}

async fn persist(lab: Lab) -> anyhow::Result<()> {
    let servers = set_up(&lab).await?;
    let leader = servers.check_one_leader().await?;
    let pair = |number: u64| (format!("k{number}"), format!("v{number}"));
    let puts = (0..10).map(pair).map(|(key, value)| (put(&key, &value), found(&key, &value)));
    run(&servers, leader, puts.collect()).await?;
    run(&servers, leader, vec![(Command::Delete("k0".to_owned()), found("k0", "v0"))]).await?;
    servers.disconnect(&[0, 1, 2]);
    servers.restart(&[0, 1, 2]).await?;
    servers.sleep(2000).await;
    for (key, value) in (1..10).map(pair) {
        get_patiently(&servers, &key, found(&key, &value)).await?;
    }
    get_patiently(&servers, "k0", missing("k0")).await
}

/// Compacts a server's log.
///
/// Adapted: the product keeps what a follower that it heard in the last 1.2 s still lacks, so this
/// retries until that follower counts as silent.
async fn compact(servers: &Servers, server: usize) -> anyhow::Result<()> {
    let begin = clock::now();
    while begin.elapsed() < Duration::from_secs(2) {
        let seen = servers.seen(server).context("the server is dead")?;
        if lock(&seen.journal).entries.is_empty() {
            return Ok(());
        }
        if let Some(replica) = servers.cluster.replica::<Kv>(servers.name(server)) {
            replica.compact();
        }
        servers.sleep(100).await;
    }
    bail!("{} did not compact its log", servers.name(server))
}

async fn snapshot(lab: Lab) -> anyhow::Result<()> {
    let servers = set_up(&lab).await?;
    let leader = servers.check_one_leader().await?;
    let (away, other) = (leader + 1, leader + 2);
    servers.disconnect(&[away]);
    let pair = |number: u64| (format!("k{number}"), format!("v{number}"));
    let puts = (0..50).map(pair).map(|(key, value)| (put(&key, &value), found(&key, &value)));
    run(&servers, leader, puts.collect()).await?;
    compact(&servers, leader).await?;
    compact(&servers, other).await?;
    servers.sleep(2000).await;
    servers.connect(&[away]);
    servers.sleep(2000).await;
    let seen = servers.seen(away).context("the server is dead")?;
    ensure!(seen.probe.table.installed().is_some(), "{} was not sent a snapshot", seen.name);
    for (key, value) in (0..50).map(pair) {
        let there = value_of(&*seen.probe.table, &key);
        ensure!(there.as_deref() == Some(&*value), "{} has {there:?} as {key}", seen.name);
    }
    let leader = servers.check_one_leader().await?;
    let gets = (0..50).map(pair).map(|(key, value)| (get(&key), found(&key, &value)));
    run(&servers, leader, gets.collect()).await
}
