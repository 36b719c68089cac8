//! Part 5: a store over Raft. J19 to J21.
//!
//! The store is the toy state machine; all its commands go through the log. Left out on
//! purpose: separate clients; the tests talk to the servers, as SJTU's do.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base::clock;
use bytes::Bytes;
use futures::future::join_all;
use raft::Config;
use raft::rsm::toy::{self, Change, Command, Toy};

use super::Style;
use crate::lab::{Lab, Timers};
use crate::sheet::{Scenario, scenario};
use crate::suites::raft::Servers;
use sim::cluster::Bare;
use sim::lock;

/// The time limit for the result of a command.
const RESULT_MAX: Duration = Duration::from_millis(2500);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![scenario("J19", basic), scenario("J20", persist), scenario("J21", snapshot)]
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

impl Outcome {
    /// As the toy reports it: a delete has the value that it removed.
    fn of(key: &Bytes, outcome: toy::Outcome) -> Self {
        let cell = outcome.after.or(outcome.before);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = cell.as_ref().map_or_else(String::new, |cell| text(&cell.value));
        Self { found: cell.is_some(), key: text(key), value }
    }
}

async fn set_up(lab: &Lab) -> anyhow::Result<Servers> {
    let config = Config { log_keep_bytes: 0, ..lab.config(Timers::Lab) };
    Servers::set_up(lab, Style::Sjtu, Bare::new("kv", || Toy), 3, config).await
}

fn found(key: &str, value: &str) -> Outcome {
    Outcome { found: true, key: key.to_owned(), value: value.to_owned() }
}

fn missing(key: &str) -> Outcome {
    Outcome { found: false, key: key.to_owned(), value: String::new() }
}

fn put(key: &str, value: &str) -> Command {
    Command::put(key.to_owned(), value.to_owned())
}

fn get(key: &str) -> Command {
    Command::new(key.to_owned(), Change::Get)
}

fn delete(key: &str) -> Command {
    Command::new(key.to_owned(), Change::Delete)
}

/// Gives all commands to a server without waiting for their results, then checks those.
async fn run(servers: &Servers, leader: usize, commands: Vec<(Command, Outcome)>) -> anyhow::Result<()> {
    let replica = servers.cluster.replica::<Toy>(servers.name(leader)).context("the leader is dead")?;
    let (commands, expected): (Vec<_>, Vec<_>) = commands.into_iter().unzip();
    let results = join_all(commands.iter().map(|command| replica.execute(command, RESULT_MAX))).await;
    for ((command, expected), result) in commands.iter().zip(expected).zip(results) {
        let result = result.with_context(|| format!("{command:?} at {}", servers.name(leader)))?;
        let outcome = Outcome::of(&command.key, result.ok().context("no version was expected")?);
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
    run(&servers, leader, vec![(delete("k5"), found("k5", "v50"))]).await?;
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
        let Some(replica) = servers.cluster.replica::<Toy>(servers.name(leader)) else { continue };
        let command = get(key);
        if let Ok(Ok(outcome)) = replica.execute(&command, RESULT_MAX).await {
            let outcome = Outcome::of(&command.key, outcome);
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
    run(&servers, leader, vec![(delete("k0"), found("k0", "v0"))]).await?;
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
        if let Some(replica) = servers.cluster.replica::<Toy>(servers.name(server)) {
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
        let there = toy::look(&*seen.probe.table, key.as_bytes()).map(|cell| cell.value);
        ensure!(there.as_deref() == Some(value.as_bytes()), "{} has {there:?} as {key}", seen.name);
    }
    let leader = servers.check_one_leader().await?;
    let gets = (0..50).map(pair).map(|(key, value)| (get(&key), found(&key, &value)));
    run(&servers, leader, gets.collect()).await
}
