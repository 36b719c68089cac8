//! MapReduce (Lab 1): the labs' seven tests, and what no lab tests: kills at any moment, workers
//! that are stopped and continue, a coordinator that dies, a network that loses messages, and
//! results in the store that count exactly once.
//!
//! Adapted: the inputs are texts of random words instead of eight books. A worker whose connection
//! ends is given up at once, so a crash does not cost the labs' ten seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use base::clock;
use bytes::Bytes;
use clerk::api::kv::Write;
use futures::future::try_join_all;
use mapreduce::Kind;
use rand::RngExt as _;

use crate::lab::mapreduce::{Job, Process};
use crate::lab::{Lab, Setup, Store};
use crate::sheet::{Scenario, scenario};

/// The labs' time limit for a job.
const JOB_MS: u64 = 110_000;

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("MR1", counts),
        scenario("MR2", indexes),
        scenario("MR3", maps),
        scenario("MR4", reduces),
        scenario("MR5", |lab| job_count(lab, 4)),
        scenario("MR5-classic", |lab| job_count(lab, 2)),
        scenario("MR6", |lab| early_exit(lab, 4)),
        scenario("MR6-classic", |lab| early_exit(lab, 3)),
        scenario("MR7", |lab| crash(lab, 3, 0)),
        scenario("MR7-classic", |lab| crash(lab, 4, 1000)),
        scenario("MR-stop", stopped),
        scenario("MR-coordinator", takeover),
        scenario("MR-lossy", counts),
        scenario("MR-store", into_store),
        scenario("MR-dice", dice),
        scenario("MR-away", away),
        scenario("MR-locked", locked),
        scenario("MR-changed", changed),
        scenario("MR-lost", lost),
        scenario("MR-twins", twins),
        scenario("MR-input", from_store),
    ]
}

/// Starts a coordinator, and workers a second later.
async fn started(lab: &Lab, job: &Job, workers: usize) -> anyhow::Result<(Process, Vec<Process>)> {
    let coordinator = job.coordinator()?;
    lab.sleep(1000).await;
    Ok((coordinator, job.workers(workers)?))
}

async fn plain(lab: &Lab, app: &str, workers: usize) -> anyhow::Result<Job> {
    let job = Job::new(lab, app)?;
    let (mut coordinator, _workers) = started(lab, &job, workers).await?;
    job.ends("the coordinator", &mut coordinator, JOB_MS).await?;
    Ok(job)
}

async fn counts(lab: Lab) -> anyhow::Result<()> {
    plain(&lab, "wc", 3).await?.check_output("wc").await
}

async fn indexes(lab: Lab) -> anyhow::Result<()> {
    plain(&lab, "indexer", 2).await?.check_output("indexer").await
}

async fn maps(lab: Lab) -> anyhow::Result<()> {
    let output = plain(&lab, "mtiming", 2).await?.output()?;
    let workers = output.iter().filter(|line| line.starts_with("times-")).count();
    ensure!(workers == 2, "{workers} workers did maps, not 2: {output:?}");
    let parallel = |line: &String| {
        line.strip_prefix("parallel-").is_some_and(|line| line.split(' ').skip(1).any(|count| count == "2"))
    };
    ensure!(output.iter().any(parallel), "no two maps ran at once: {output:?}");
    Ok(())
}

async fn reduces(lab: Lab) -> anyhow::Result<()> {
    let output = plain(&lab, "rtiming", 2).await?.output()?;
    let parallel = output.iter().filter(|line| line.ends_with(" 2")).count();
    ensure!(output.len() == 10 && parallel >= 2, "fewer than two reduces ran beside another: {output:?}");
    Ok(())
}

/// Two workers, and two more at once (2026) or when the first two are at work.
async fn job_count(lab: Lab, first: usize) -> anyhow::Result<()> {
    let job = Job::new(&lab, "jobcount")?;
    let (mut coordinator, _workers) = started(&lab, &job, first).await?;
    lab.sleep(1000).await;
    let _more = job.workers(4 - first)?;
    lab.set_peers(4);
    job.ends("the coordinator", &mut coordinator, JOB_MS).await?;
    let output = job.output()?;
    ensure!(output == ["a 8"], "maps ran more or less often than 8 times: {output:?}");
    Ok(())
}

async fn early_exit(lab: Lab, workers: usize) -> anyhow::Result<()> {
    let job = Job::new(&lab, "early_exit")?;
    let (coordinator, mut processes) = started(&lab, &job, workers).await?;
    processes.push(coordinator);
    let ends = processes.iter_mut().map(|process| Box::pin(process.ended()));
    let (well, ..) = futures::future::select_all(ends).await;
    let early = job.output()?;
    ensure!(well, "the first that ended did so badly");
    for process in &mut processes {
        let _ = clock::timeout(Duration::from_secs(25), process.ended()).await;
    }
    ensure!(early == job.output()?, "the output changed after the first process had ended");
    job.check_output("early_exit").await
}

async fn crash(lab: Lab, workers: usize, pause_ms: u64) -> anyhow::Result<()> {
    let job = Job::new(&lab, "crash")?;
    let mut coordinator = job.coordinator()?;
    lab.set_peers(workers as u64);
    lab.sleep(1000).await;
    let crew = try_join_all((0..workers).map(|_| job.worker_forever(pause_ms)));
    tokio::select! {
        biased;
        ended = job.ends("the coordinator", &mut coordinator, JOB_MS) => ended?,
        failed = crew => bail!("a worker does not start: {failed:?}"),
    }
    job.check_output("nocrash").await
}

/// Not from the labs: a worker falls silent in the middle of a map. Its task is given to another
/// after ten seconds. It continues when everything is over, and changes nothing.
async fn stopped(lab: Lab) -> anyhow::Result<()> {
    let job = Job::new(&lab, "jobcount")?;
    let (mut coordinator, mut workers) = started(&lab, &job, 3).await?;
    lab.sleep(1000).await;
    workers[0].stop(true);
    job.ends("the coordinator", &mut coordinator, 60_000).await?;
    let output = job.output()?;
    ensure!(output == ["a 9"], "eight maps and one twin, not {output:?}");
    workers[0].stop(false);
    job.ends("the stopped worker", &mut workers[0], 40_000).await?;
    ensure!(output == job.output()?, "the worker that was stopped changed the output");
    Ok(())
}

/// Not from the labs: finished work is not done again, and the rest is.
async fn takeover(lab: Lab) -> anyhow::Result<()> {
    let job = Job::new(&lab, "jobcount")?;
    let (mut coordinator, _workers) = started(&lab, &job, 3).await?;
    let mut random = lab.random("when the coordinator dies");
    lab.sleep(random.random_range(2000..8000)).await;
    coordinator.kill();
    lab.sleep(random.random_range(1..3000)).await;
    let mut coordinator = job.coordinator()?;
    job.ends("the second coordinator", &mut coordinator, JOB_MS).await?;
    let output = job.output()?;
    let maps: u64 = output.first().and_then(|line| line.strip_prefix("a ")?.parse().ok()).unwrap_or(0);
    // Tasks that were running when it died may be done twice.
    ensure!(output.len() == 1 && (8..=11).contains(&maps), "{output:?}");
    Ok(())
}

async fn two_groups(lab: &Lab) -> anyhow::Result<Store> {
    let store = lab.store(Setup { shards: 10, controllers: 3, raft_state_max: None }).await?;
    for group in [1, 2] {
        store.add_group(group, 3).await?;
    }
    store.join(&[1, 2]).await?;
    Ok(store)
}

/// Workers of a job are killed, stopped and started again until its coordinator has ended, with
/// pauses of at most the given number of milliseconds. Returns those that are still stopped.
async fn storm(
    lab: &Lab,
    job: &Job,
    coordinator: &mut Process,
    mut workers: Vec<Process>,
    (kills, pause_ms): (usize, u64),
) -> anyhow::Result<Vec<Process>> {
    let mut random = lab.random(&lab.fresh_name("storm"));
    let mut asleep = Vec::new();
    let disturb = async {
        for kill in 0..kills {
            lab.sleep(random.random_range(5..pause_ms)).await;
            let place = random.random_range(0..workers.len());
            let mut victim = std::mem::replace(&mut workers[place], job.worker()?);
            match kill % 4 {
                0 => {
                    victim.stop(true);
                    asleep.push(victim);
                }
                _ => victim.kill(),
            }
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! {
        biased;
        ended = job.ends("the coordinator", coordinator, JOB_MS) => ended?,
        failed = disturb => failed?,
    }
    Ok(asleep)
}

type Counts = BTreeMap<String, u64>;

/// Adds what a job should have counted.
async fn add_counts(job: &Job, expected: &mut Counts) -> anyhow::Result<()> {
    for (word, count) in job.expected("wc").await? {
        *expected.entry(word).or_default() += count.parse::<u64>()?;
    }
    Ok(())
}

/// Not from the labs: two jobs, one after the other, add their counts to the store while workers
/// are killed and stopped at any moment, and a shard moves. Stopped workers continue after all of
/// it.
async fn into_store(lab: Lab) -> anyhow::Result<()> {
    let store = two_groups(&lab).await?;
    let (mut expected, mut asleep, mut jobs) = (Counts::new(), Vec::new(), Vec::new());
    let pause_ms = if lab.world().is_ok() { 60 } else { 400 };
    for round in 0..2 {
        let job = Job::into_store(&lab, "wc", &store, "wc/")?;
        let mut coordinator = job.coordinator()?;
        let storming = storm(&lab, &job, &mut coordinator, job.workers(3)?, (12, pause_ms));
        let moving = async {
            lab.sleep(20).await;
            store.move_shard(3, 1 + round).await
        };
        let (stopped, moved) = futures::join!(storming, moving);
        moved?;
        asleep.extend(stopped?);
        job.check_output("wc").await?;
        add_counts(&job, &mut expected).await?;
        jobs.push(job);
    }
    asleep.iter().for_each(|worker| worker.stop(false));
    lab.sleep(3000).await;
    check_counts(&store, "wc/", &expected).await
}

/// Not from the labs: an app whose attempts differ. All reducers have read the same attempt of each
/// map, and the store has what the files have, no matter who sent it.
async fn dice(lab: Lab) -> anyhow::Result<()> {
    let store = two_groups(&lab).await?;
    let job = Job::into_store(&lab, "dice", &store, "dice/")?;
    let (mut coordinator, workers) = started(&lab, &job, 3).await?;
    while job.done(Kind::Map)? < 8 {
        lab.sleep(20).await;
    }
    let asleep = storm(&lab, &job, &mut coordinator, workers, (30, 400)).await?;
    asleep.iter().for_each(|worker| worker.stop(false));
    lab.sleep(3000).await;
    let (mut drawn, mut expected) = (BTreeMap::new(), Counts::new());
    for line in job.output()? {
        let (key, value) = line.split_once(' ').ok_or_else(|| anyhow!("{line:?} has no value"))?;
        let (name, value) = (key.rsplit_once('-').unwrap_or_default().0, value.parse::<u64>()?);
        let first = *drawn.entry(name.to_owned()).or_insert(value / 1000);
        ensure!(value / 1000 == first, "{key} was mapped to {}, others of its map to {first}", value / 1000);
        expected.insert(key.to_owned(), value);
    }
    ensure!(expected.len() == 480, "{} keys, not 480", expected.len());
    check_counts(&store, "dice/", &expected).await
}

/// Not from the labs: all servers are away when reducers want to write.
async fn away(lab: Lab) -> anyhow::Result<()> {
    let store = two_groups(&lab).await?;
    let job = Job::into_store(&lab, "wc", &store, "wc/")?;
    let mut coordinator = job.coordinator()?;
    lab.sleep(2000).await;
    let servers: Vec<_> = ["ctrl", "1", "2"].iter().flat_map(|group| store.ground.servers(group)).collect();
    for server in &servers {
        store.ground.kill(server).await?;
    }
    let _workers = job.workers(3)?;
    lab.sleep(if lab.world().is_ok() { 35_000 } else { 5000 }).await;
    ensure!(job.done(Kind::Reduce)? == 0, "a reduce was done without a store");
    for server in &servers {
        store.ground.start(server).await?;
    }
    job.ends("the coordinator", &mut coordinator, JOB_MS).await?;
    let mut expected = Counts::new();
    add_counts(&job, &mut expected).await?;
    check_counts(&store, "wc/", &expected).await
}

/// Not from the labs: while a job adds its counts, others write one of its keys. A mark that was
/// made meanwhile would hide the missing count from every later attempt.
async fn changed(lab: Lab) -> anyhow::Result<()> {
    let store = two_groups(&lab).await?;
    let job = Job::into_store(&lab, "wc", &store, "wc/")?;
    let expected = job.expected("wc").await?;
    let key = expected.keys().next().map(|word| format!("wc/{word}")).unwrap_or_default();
    let strangers = (0..3).map(|_| store.client().clerk).map(async |clerk| -> anyhow::Result<()> {
        loop {
            clerk.put(key.clone(), "1").await?;
        }
    });
    let mut first = job.coordinator()?;
    let _workers = job.workers(3)?;
    let ended = tokio::select! {
        biased;
        ended = first.ended() => ended,
        failed = try_join_all(strangers) => bail!("a stranger does not write: {failed:?}"),
    };
    ensure!(!ended, "a job ended well although one of its counts is missing");
    let (mut second, _more) = started(&lab, &job, 3).await?;
    ensure!(!second.ended().await, "another coordinator forgot that a count is missing");
    Ok(())
}

/// Not from the labs: the same, and nobody is left who knows what became of the batch. Its mark
/// tells the next attempt.
async fn lost(lab: Lab) -> anyhow::Result<()> {
    let store = two_groups(&lab).await?;
    let output = mapreduce::Output { prefix: "n/".to_owned(), add: true };
    let words: Vec<(String, String)> = (1..=60).map(|word| (format!("w{word}"), word.to_string())).collect();
    for job in 1..=50 {
        let strangers = (0..3).map(|_| store.client().clerk).map(async |clerk| -> anyhow::Result<()> {
            loop {
                clerk.put("n/w7", "1").await?;
            }
        });
        let sender = || mapreduce::Store(store.client().clerk);
        let first = tokio::select! {
            biased;
            first = async { sender().send(job, 0, &output, &words).await } => first,
            failed = try_join_all(strangers) => bail!("a stranger does not write: {failed:?}"),
        };
        if let Err(why) = first {
            let second = sender().send(job, 0, &output, &words).await;
            ensure!(second.is_err(), "first {why}, and then all was well");
            return Ok(());
        }
    }
    bail!("strangers wrote all the time, and nothing was lost")
}

/// Not from the labs: of two jobs whose prefixes overlap the second is refused until the first one
/// is done.
async fn locked(lab: Lab) -> anyhow::Result<()> {
    let store = two_groups(&lab).await?;
    let (first, second) =
        (Job::into_store(&lab, "wc", &store, "wc/")?, Job::into_store(&lab, "wc", &store, "wc/a")?);
    let mut coordinator = first.coordinator()?;
    lab.sleep(2000).await;
    let refused = clock::timeout(Duration::from_secs(5), second.coordinator()?.ended()).await;
    ensure!(matches!(refused, Ok(false)), "two jobs write under one prefix: {refused:?}");
    for (job, prefix) in [(&first, "wc/"), (&second, "wc/a")] {
        if prefix == "wc/a" {
            coordinator = job.coordinator()?;
        }
        let _workers = job.workers(3)?;
        job.ends("the coordinator", &mut coordinator, JOB_MS).await?;
        let mut expected = Counts::new();
        add_counts(job, &mut expected).await?;
        if prefix == "wc/" {
            check_counts(&store, prefix, &expected).await?;
        }
    }
    Ok(())
}

async fn check_counts(store: &Store, prefix: &str, expected: &Counts) -> anyhow::Result<()> {
    let clerk = store.client().clerk;
    for (word, count) in expected {
        let got = clerk.get(format!("{prefix}{word}")).await?.value;
        let got = got.map(|value| String::from_utf8_lossy(&value).into_owned());
        ensure!(got == Some(count.to_string()), "{word} was counted as {got:?}, not {count}");
    }
    Ok(())
}

/// Not from the labs: attempts at the same reducers that run side by side write each word once.
async fn twins(lab: Lab) -> anyhow::Result<()> {
    let store = two_groups(&lab).await?;
    let output = mapreduce::Output { prefix: "n/".to_owned(), add: true };
    let words: Vec<(String, String)> = (1..=60).map(|word| (format!("w{word}"), word.to_string())).collect();
    let mut random = lab.random("twins");
    for job in 1..=5 {
        let delays: Vec<u64> = (0..3).map(|_| random.random_range(0..6)).collect();
        let sends = delays.into_iter().map(|delay| {
            let (lab, output, words) = (&lab, &output, &words);
            let sender = mapreduce::Store(store.client().clerk);
            async move {
                lab.sleep(delay).await;
                sender.send(job, 0, output, words).await.map_err(|error| anyhow!(error))
            }
        });
        try_join_all(sends).await?;
    }
    let expected = (1..=60_u64).map(|word| (format!("w{word}"), 5 * word)).collect();
    check_counts(&store, "n/", &expected).await
}

/// Not from the labs: one map task per shard. Each row is read once, wherever its shard is by then.
/// The job's own records, which are in the store too, are not read.
async fn from_store(lab: Lab) -> anyhow::Result<()> {
    const ROWS: usize = 3000;
    let store = two_groups(&lab).await?;
    let clerk = store.client().clerk;
    let output = mapreduce::Output { prefix: "other/".to_owned(), add: false };
    let other = mapreduce::Store(store.client().clerk);
    other.hold(7, Some("other/")).await?;
    other.send(7, 0, &output, &[("key".to_owned(), "all of".to_owned())]).await?;
    let rows: Vec<usize> = (0..ROWS).collect();
    for rows in rows.chunks(200) {
        let row = |row: &usize| (format!("doc/{row}"), format!("all of them have word w{} and all", row % 7));
        let writes = rows
            .iter()
            .map(row)
            .map(|(key, text)| (Bytes::from(key), Write::Put { value: Bytes::from(text), expected: None }));
        clerk.batch(writes).await.into_iter().try_for_each(|put| put.map(drop))?;
    }
    let job = Job::from_store(&lab, "slow", &store, "")?;
    let mut coordinator = job.coordinator()?;
    let _workers = job.workers(3)?;
    store.add_group(3, 3).await?;
    while job.done(Kind::Map)? == 0 {
        lab.sleep(20).await;
    }
    store.join(&[3]).await?;
    let done = job.done(Kind::Map)?;
    ensure!(done < 10, "nothing was read while shards moved");
    job.ends("the coordinator", &mut coordinator, JOB_MS).await?;
    let found: BTreeSet<String> = job.output()?.into_iter().collect();
    let words = [
        ("all", 2 * ROWS + 1),
        ("of", ROWS + 1),
        ("and", ROWS),
        ("have", ROWS),
        ("them", ROWS),
        ("word", ROWS),
    ];
    let expected = words.iter().chain(&[("w", ROWS)]);
    let expected: BTreeSet<String> = expected.map(|(word, count)| format!("{word} {count}")).collect();
    ensure!(found == expected, "{found:?}");
    Ok(())
}
