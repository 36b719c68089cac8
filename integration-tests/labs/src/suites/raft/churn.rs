//! Part C, second half: many failures while commands are started all the time. R17 to R21.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use futures::future::try_join_all;

use super::lab::RaftLab;
use super::machine::Value;
use super::mit;
use crate::sheet::{Scenario, scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    let crashes = |raft| figure_8(raft, Figure8 { iterations: 1000, cuts: false });
    vec![
        scenario("R17", mit(5, crashes)),
        scenario("R18", mit(5, |raft| unreliable_agree(raft, true))),
        scenario("R19", mit(5, figure_8_unreliable)),
        scenario("R20", mit(5, churn)),
        scenario("R21", mit(5, churn)),
    ]
}

/// How often a leader is lost, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure8 {
    pub(crate) iterations: u64,
    /// Leaders are cut off, and killed only when they are to come back, instead of killed at once.
    pub(crate) cuts: bool,
}

/// Usually short: enough for a command to spread, but often not to a majority. Sometimes long
/// enough for an election.
async fn pause(raft: &RaftLab) {
    let ms = if raft.chance(100) { raft.below(500) } else { raft.below(13) };
    raft.sleep(ms).await;
}

/// Leaders fail as soon as they have accepted a command, so that old entries remain that must not
/// be committed by counting (Figure 8 of the paper).
pub(crate) async fn figure_8(raft: RaftLab, how: Figure8) -> anyhow::Result<()> {
    raft.one(raft.fresh(), 1).await?;
    let mut up = [true; 5];
    for _ in 0..how.iterations {
        let value = raft.fresh();
        let mut leader = None;
        for server in (0..5).filter(|server| up[*server]) {
            if raft.start(server, value).await?.is_some() {
                leader = Some(server);
            }
        }
        pause(&raft).await;
        if let Some(leader) = leader {
            if how.cuts {
                raft.disconnect(&[leader])
            } else {
                raft.crash(&[leader])
            }
            up[leader] = false;
        }
        if up.iter().filter(|up| **up).count() < 3 {
            let lucky = raft.any();
            if !up[lucky] {
                raft.restart(&[lucky]).await?;
                up[lucky] = true;
            }
        }
    }
    let back: Vec<usize> = (0..5).filter(|server| how.cuts || !up[*server]).collect();
    raft.restart(&back).await?;
    raft.one(raft.fresh(), 5).await?;
    Ok(())
}

/// Five commands at a time. `ends_reliable`: the network becomes reliable for the last one, in
/// MIT's labs, not in SJTU's.
pub(crate) async fn unreliable_agree(raft: RaftLab, ends_reliable: bool) -> anyhow::Result<()> {
    let mut beside = Vec::new();
    for round in 1..50 {
        for number in 0..4 {
            let raft = raft.clone();
            beside.push(tokio::spawn(async move { raft.one(100 * round + number, 1).await }));
        }
        raft.one(round, 1).await?;
    }
    if ends_reliable {
        raft.set_reliable();
    }
    for agreed in beside {
        agreed.await??;
    }
    raft.one(if ends_reliable { 100 } else { 4096 }, 5).await?;
    Ok(())
}

async fn figure_8_unreliable(raft: RaftLab) -> anyhow::Result<()> {
    raft.one(raft.below(10_000), 1).await?;
    let mut up = [true; 5];
    for iteration in 0..1000 {
        if iteration == 200 {
            raft.set_long_reordering();
        }
        let mut leader = None;
        for (server, is_up) in up.iter().enumerate() {
            // (Servers that are cut off may accept commands as well.)
            let started = raft.start(server, raft.below(10_000)).await?;
            if started.is_some() && *is_up {
                leader = Some(server);
            }
        }
        pause(&raft).await;
        if let Some(leader) = leader.filter(|_| raft.chance(500)) {
            raft.disconnect(&[leader]);
            up[leader] = false;
        }
        if up.iter().filter(|up| **up).count() < 3 {
            let lucky = raft.any();
            raft.connect(&[lucky]);
            up[lucky] = true;
        }
    }
    raft.connect(&[0, 1, 2, 3, 4]);
    raft.one(raft.below(10_000), 5).await?;
    Ok(())
}

/// Starts commands until told to stop; returns those that were committed.
async fn churn_client(raft: RaftLab, me: u64, stop: Arc<AtomicBool>) -> anyhow::Result<Vec<Value>> {
    let mut committed = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let value = raft.fresh();
        let mut accepted = None;
        for server in 0..raft.len() {
            accepted = raft.start(server, value).await?.or(accepted);
        }
        let Some(started) = accepted else {
            raft.sleep(79 + 17 * me).await;
            continue;
        };
        for pause in [10, 20, 50, 100, 200] {
            if let (1.., Some(found)) = raft.n_committed(started.number)? {
                committed.extend(Some(found).filter(|found| *found == Value::Number(value)));
                break;
            }
            raft.sleep(pause).await;
        }
    }
    Ok(committed)
}

async fn churn(raft: RaftLab) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let client = |me| tokio::spawn(churn_client(raft.clone(), me, Arc::clone(&stop)));
    let clients: Vec<_> = (0..3).map(client).collect();
    for _ in 0..20 {
        if raft.chance(200) {
            raft.disconnect(&[raft.any()]);
        }
        if raft.chance(500) {
            come_back(&raft, raft.any()).await?;
        }
        if raft.chance(200) {
            raft.crash(&[raft.any()]);
        }
        raft.sleep(700).await;
    }
    raft.sleep(1000).await;
    raft.set_reliable();
    for server in 0..raft.len() {
        come_back(&raft, server).await?;
    }
    stop.store(true, Ordering::Relaxed);
    let mut committed = Vec::new();
    for values in try_join_all(clients).await? {
        committed.extend(values?);
    }
    // (In an unlucky run there never was a majority for long enough, and nothing has been committed
    // so far.)
    raft.sleep(1000).await;
    let last = raft.one(raft.fresh(), raft.len()).await?;
    let mut log = BTreeSet::new();
    for number in 1..=last {
        let value = raft.wait(number, raft.len(), None).await?;
        log.insert(value.context("waited for, but not there")?.to_string());
    }
    let lost = committed.iter().find(|value| !log.contains(&value.to_string()));
    ensure!(lost.is_none(), "{} was committed, but is lost", lost.unwrap_or(&Value::Number(0)));
    Ok(())
}

/// Starts a server if it is dead, and connects it.
async fn come_back(raft: &RaftLab, server: usize) -> anyhow::Result<()> {
    if raft.is_alive(server) {
        raft.connect(&[server]);
        return Ok(());
    }
    raft.restart(&[server]).await
}
