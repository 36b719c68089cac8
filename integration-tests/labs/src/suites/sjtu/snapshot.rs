//! Part 4: snapshots. J16 to J18.
//!
//! Adapted: "applied since the start" counts commands that were applied one by one, not those that a snapshot
//! brought, nor those that a restart found in the rows.

use anyhow::ensure;

use super::{Compacts, RaftLab, Style, with};
use crate::sheet::{Scenario, scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("J16", with(Style::Sjtu, 3, Compacts::WhenTold, basic)),
        scenario("J17", with(Style::Sjtu, 3, Compacts::WhenTold, restore)),
        scenario("J18", with(Style::Sjtu, 3, Compacts::WhenTold, replace)),
    ]
}

async fn many(raft: &RaftLab, commands: u64, servers: usize) -> anyhow::Result<()> {
    for _ in 0..commands {
        raft.one(raft.fresh(), servers).await?;
    }
    Ok(())
}

fn check_applied(raft: &RaftLab, server: usize, below: u64) -> anyhow::Result<()> {
    let applied = raft.one_by_one(server);
    let name = raft.name(server);
    ensure!(applied < below, "{name} applied {applied} commands one by one, expected fewer than {below}");
    Ok(())
}

async fn basic(raft: RaftLab) -> anyhow::Result<()> {
    let leader = raft.check_one_leader().await?;
    let (away, other) = (leader + 1, leader + 2);
    raft.disconnect(&[away]);
    many(&raft, 99, 2).await?;
    raft.compact(leader).await?;
    raft.compact(other).await?;
    raft.sleep(2000).await;
    raft.connect(&[away]);
    raft.one(1024, 3).await?;
    check_applied(&raft, away, 90)
}

async fn restore(raft: RaftLab) -> anyhow::Result<()> {
    let leader = raft.check_one_leader().await?;
    many(&raft, 99, 3).await?;
    raft.compact(leader).await?;
    raft.sleep(2000).await;
    raft.restart(&[leader]).await?;
    raft.one(1024, 3).await?;
    check_applied(&raft, leader, 90)
}

async fn replace(raft: RaftLab) -> anyhow::Result<()> {
    let leader = raft.check_one_leader().await?;
    many(&raft, 29, 3).await?;
    raft.compact(leader).await?;
    many(&raft, 30, 3).await?;
    raft.compact(leader).await?;
    raft.sleep(2000).await;
    raft.restart(&[leader]).await?;
    raft.one(1024, 3).await?;
    check_applied(&raft, leader, 50)
}
