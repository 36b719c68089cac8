//! Part B: the log. R04 to R13.

use anyhow::{bail, ensure};
use rand::RngExt;

use super::lab::RaftLab;
use super::machine::Value;
use super::mit;
use crate::sheet::{Scenario, scenario};
use sim::Generator;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("R04", mit(3, basic_agree)),
        scenario("R05", mit(3, rpc_bytes)),
        scenario("R06", mit(3, follower_failure)),
        scenario("R07", mit(3, leader_failure)),
        scenario("R08", mit(3, fail_agree)),
        scenario("R09", mit(5, fail_no_agree)),
        scenario("R10", mit(3, concurrent_starts)),
        scenario("R11", mit(3, rejoin)),
        scenario("R12", mit(5, backup)),
        scenario("R13", mit(3, count)),
    ]
}

pub(crate) async fn basic_agree(raft: RaftLab) -> anyhow::Result<()> {
    for number in 1..=3 {
        raft.check_not_committed(number, "before anybody started one")?;
        let found = raft.once(number * 100, 3).await?;
        ensure!(found == number, "expected command {number}, got command {found}");
    }
    Ok(())
}

/// A string of `letters` letters.
fn text(random: &mut Generator, letters: usize) -> String {
    (0..letters).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect()
}

async fn rpc_bytes(raft: RaftLab) -> anyhow::Result<()> {
    const LETTERS: usize = 5000;
    const COMMANDS: u64 = 10;
    let mut random = raft.lab.random("text");
    raft.once(99, 3).await?;
    let before = raft.cluster.network.bytes();
    let mut sent = 0;
    for number in 2..2 + COMMANDS {
        let value = text(&mut random, LETTERS);
        sent += value.len() as u64;
        let found = raft.once(value, 3).await?;
        ensure!(found == number, "expected command {number}, got command {found}");
    }
    // Each command once to each follower (and once for the leader), and some overhead.
    let most = 3 * sent + 50_000;
    let found = raft.cluster.network.bytes() - before;
    ensure!(found <= most, "too many bytes were sent: {found}, at most {most} are allowed");
    Ok(())
}

async fn follower_failure(raft: RaftLab) -> anyhow::Result<()> {
    raft.once(101, 3).await?;
    let first = raft.check_one_leader().await?;
    raft.disconnect(&[first + 1]);
    // Two of three continue.
    raft.once(102, 2).await?;
    raft.sleep(1000).await;
    raft.once(103, 2).await?;
    let second = raft.check_one_leader().await?;
    raft.disconnect(&[second + 1, second + 2]);
    // One of three accepts a command, but it is never committed.
    match raft.start(second, 104).await? {
        Some(started) => ensure!(started.number == 4, "expected command 4, got command {}", started.number),
        None => bail!("the leader {} refused a command", raft.name(second)),
    }
    raft.sleep(2000).await;
    raft.check_not_committed(4, "without a majority")
}

async fn leader_failure(raft: RaftLab) -> anyhow::Result<()> {
    raft.once(101, 3).await?;
    let first = raft.check_one_leader().await?;
    raft.disconnect(&[first]);
    // Two of three elect a leader and continue.
    raft.once(102, 2).await?;
    raft.sleep(1000).await;
    raft.once(103, 2).await?;
    let second = raft.check_one_leader().await?;
    raft.disconnect(&[second]);
    for server in 0..3 {
        raft.start(server, 104).await?;
    }
    raft.sleep(2000).await;
    raft.check_not_committed(4, "without a majority")
}

async fn fail_agree(raft: RaftLab) -> anyhow::Result<()> {
    fail_agree_without(raft, 1).await
}

/// Agreement while one server is away, counted from the leader (0 is the leader itself).
pub(crate) async fn fail_agree_without(raft: RaftLab, neighbour: usize) -> anyhow::Result<()> {
    raft.once(101, 3).await?;
    let away = raft.check_one_leader().await? + neighbour;
    raft.disconnect(&[away]);
    raft.once(102, 2).await?;
    raft.once(103, 2).await?;
    raft.sleep(1000).await;
    raft.once(104, 2).await?;
    raft.once(105, 2).await?;
    // All three agree again, on new commands and on those before.
    raft.connect(&[away]);
    raft.one(106, 3).await?;
    raft.sleep(1000).await;
    raft.one(107, 3).await?;
    Ok(())
}

pub(crate) async fn fail_no_agree(raft: RaftLab) -> anyhow::Result<()> {
    raft.once(10, 5).await?;
    let first = raft.check_one_leader().await?;
    let three = [first + 1, first + 2, first + 3];
    raft.disconnect(&three);
    match raft.start(first, 20).await? {
        Some(started) => ensure!(started.number == 2, "expected command 2, got command {}", started.number),
        None => bail!("the leader {} refused a command", raft.name(first)),
    }
    raft.sleep(2000).await;
    raft.check_not_committed(2, "without a majority")?;
    // The three may have elected one of themselves that does not know command 2.
    raft.connect(&three);
    let second = raft.check_one_leader().await?;
    match raft.start(second, 30).await? {
        Some(started) => {
            let number = started.number;
            ensure!((2..=3).contains(&number), "expected command 2 or 3, got command {number}");
        }
        None => bail!("the leader {} refused a command", raft.name(second)),
    }
    raft.one(1000, 5).await?;
    Ok(())
}

pub(crate) async fn concurrent_starts(raft: RaftLab) -> anyhow::Result<()> {
    for attempt in 0..5 {
        if attempt > 0 {
            // Wait until things settle.
            raft.sleep(3000).await;
        }
        if concurrent_starts_once(&raft).await? {
            return Ok(());
        }
    }
    bail!("the term changed too often")
}

/// False: the term changed.
async fn concurrent_starts_once(raft: &RaftLab) -> anyhow::Result<bool> {
    let leader = raft.check_one_leader().await?;
    let Some(first) = raft.start(leader, 1).await? else { return Ok(false) };
    let started = raft.start_all(leader, 100..105).await?;
    let in_term = started.into_iter().flatten().filter(|it| it.term == first.term);
    let numbers: Vec<u64> = in_term.map(|it| it.number).collect();
    if (0..raft.len()).any(|server| raft.status(server).is_none_or(|it| it.term.0 != first.term)) {
        return Ok(false);
    }
    let mut values = Vec::new();
    for number in numbers {
        match raft.wait(number, raft.len(), Some(first.term)).await? {
            Some(value) => values.push(value),
            None => return Ok(false),
        }
    }
    let missing = (100..105).map(Value::Number).find(|value| !values.contains(value));
    ensure!(missing.is_none(), "{} is missing among the committed commands", missing.unwrap_or(0.into()));
    Ok(true)
}

pub(crate) async fn rejoin(raft: RaftLab) -> anyhow::Result<()> {
    raft.one(101, 3).await?;
    // A leader that is cut off accepts commands that nobody will ever see.
    let first = raft.check_one_leader().await?;
    raft.disconnect(&[first]);
    for value in 102..=104 {
        raft.start(first, value).await?;
    }
    // A new leader commits another command 2, and is cut off in its turn.
    raft.one(103, 2).await?;
    let second = raft.check_one_leader().await?;
    raft.disconnect(&[second]);
    raft.connect(&[first]);
    raft.one(104, 2).await?;
    raft.connect(&[second]);
    raft.one(105, 3).await?;
    Ok(())
}

pub(crate) async fn backup(raft: RaftLab) -> anyhow::Result<()> {
    raft.one(raft.fresh(), 5).await?;
    // A leader and one follower, alone, accept many commands that will not be committed.
    let first = raft.check_one_leader().await?;
    let others = [first + 2, first + 3, first + 4];
    raft.disconnect(&others);
    raft.start_many(first, 50).await?;
    raft.sleep(500).await;
    // The other three commit many others.
    raft.disconnect(&[first, first + 1]);
    raft.connect(&others);
    for _ in 0..50 {
        raft.one(raft.fresh(), 3).await?;
    }
    // Their leader and one of them, alone, accept more that will not be committed.
    let second = raft.check_one_leader().await?;
    let other = if (first + 2) % 5 == second { second + 1 } else { first + 2 };
    raft.disconnect(&[other]);
    raft.start_many(second, 50).await?;
    raft.sleep(500).await;
    // The first leader, its follower and the one that was away: three logs that differ much.
    raft.disconnect(&[0, 1, 2, 3, 4]);
    raft.connect(&[first, first + 1, other]);
    for _ in 0..50 {
        raft.one(raft.fresh(), 3).await?;
    }
    raft.connect(&[0, 1, 2, 3, 4]);
    raft.one(raft.fresh(), 5).await?;
    Ok(())
}

/// The number of commands whose requests are counted.
const COUNTED: u64 = 10;

pub(crate) async fn count(raft: RaftLab) -> anyhow::Result<()> {
    raft.check_one_leader().await?;
    let first = raft.requests();
    ensure!((1..=30).contains(&first), "{first} requests to elect the first leader, expected 1 to 30");
    for attempt in 0..5 {
        if attempt > 0 {
            raft.sleep(3000).await;
        }
        if count_once(&raft).await? {
            let before = raft.requests();
            raft.sleep(1000).await;
            let idle = raft.requests() - before;
            ensure!(idle <= 3 * 20, "{idle} requests in one second of idleness, at most 60 are allowed");
            return Ok(());
        }
    }
    bail!("the term changed too often")
}

/// False: the term changed.
async fn count_once(raft: &RaftLab) -> anyhow::Result<bool> {
    let leader = raft.check_one_leader().await?;
    let before = raft.requests();
    let Some(first) = raft.start(leader, 1).await? else { return Ok(false) };
    let values: Vec<u64> = (0..=COUNTED).map(|_| raft.fresh()).collect();
    let all = raft.start_all(leader, values.iter().copied()).await?;
    for (expected, started) in (first.number + 1..).zip(all) {
        match started.filter(|it| it.term == first.term) {
            Some(started) => {
                let found = started.number;
                ensure!(found == expected, "expected command {expected}, got command {found}");
            }
            None => return Ok(false),
        }
    }
    for (number, value) in (first.number + 1..=first.number + COUNTED).zip(values) {
        match raft.wait(number, raft.len(), Some(first.term)).await? {
            None => return Ok(false),
            Some(found) => {
                ensure!(found == Value::from(value), "command {number} is {found}, expected {value}");
            }
        }
    }
    if (0..raft.len()).any(|server| raft.status(server).is_none_or(|it| it.term.0 != first.term)) {
        return Ok(false);
    }
    let (found, most) = (raft.requests() - before, (COUNTED + 1 + 3) * 3);
    ensure!(found <= most, "{found} requests for {} commands, at most {most} are allowed", COUNTED + 2);
    Ok(true)
}
