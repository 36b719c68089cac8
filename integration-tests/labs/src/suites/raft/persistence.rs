//! Part C, first half: a server's knowledge survives the server. R14 to R16.

use super::lab::RaftLab;
use super::mit;
use crate::sheet::{Scenario, scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("R14", mit(3, persist_1)),
        scenario("R15", mit(5, persist_2)),
        scenario("R15-classic", mit(5, persist_2_classic)),
        scenario("R16", mit(3, persist_3)),
    ]
}

pub(crate) async fn persist_1(raft: RaftLab) -> anyhow::Result<()> {
    raft.one(11, 3).await?;
    // All crash at once.
    raft.crash(&[0, 1, 2]);
    raft.restart(&[0, 1, 2]).await?;
    raft.one(12, 3).await?;
    // The leader crashes and is back at once.
    let first = raft.check_one_leader().await?;
    raft.restart(&[first]).await?;
    raft.one(13, 3).await?;
    // The leader crashes and comes back after something was committed.
    let second = raft.check_one_leader().await?;
    raft.crash(&[second]);
    raft.one(14, 2).await?;
    raft.restart(&[second]).await?;
    raft.wait(4, 3, None).await?;
    // The same with a follower.
    let third = raft.check_one_leader().await? + 1;
    raft.crash(&[third]);
    raft.one(15, 2).await?;
    raft.restart(&[third]).await?;
    raft.one(16, 3).await?;
    Ok(())
}

async fn persist_2(raft: RaftLab) -> anyhow::Result<()> {
    let mut value = 11;
    for _ in 0..5 {
        raft.one(value, 5).await?;
        let leader = raft.check_one_leader().await?;
        raft.crash(&[leader + 1, leader + 2]);
        raft.one(value + 1, 3).await?;
        raft.crash(&[leader, leader + 3, leader + 4]);
        // Two of five do nothing; the third knows the last command.
        raft.restart(&[leader + 1, leader + 2]).await?;
        raft.sleep(1000).await;
        raft.restart(&[leader + 3]).await?;
        raft.one(value + 2, 3).await?;
        raft.restart(&[leader + 4, leader]).await?;
        value += 3;
    }
    raft.one(1000, 5).await?;
    Ok(())
}

/// As until 2024: servers are removed by disconnecting them, and two of them never crash.
pub(crate) async fn persist_2_classic(raft: RaftLab) -> anyhow::Result<()> {
    let mut value = 11;
    for _ in 0..5 {
        raft.one(value, 5).await?;
        let leader = raft.check_one_leader().await?;
        raft.disconnect(&[leader + 1, leader + 2]);
        raft.one(value + 1, 3).await?;
        raft.disconnect(&[leader, leader + 3, leader + 4]);
        raft.restart(&[leader + 1, leader + 2]).await?;
        raft.sleep(1000).await;
        raft.restart(&[leader + 3]).await?;
        raft.one(value + 2, 3).await?;
        raft.connect(&[leader + 4, leader]);
        value += 3;
    }
    raft.one(1000, 5).await?;
    Ok(())
}

pub(crate) async fn persist_3(raft: RaftLab) -> anyhow::Result<()> {
    raft.one(101, 3).await?;
    let leader = raft.check_one_leader().await?;
    raft.disconnect(&[leader + 2]);
    raft.one(102, 2).await?;
    // Of the two that know the command only the leader comes back at first.
    raft.crash(&[leader, leader + 1]);
    raft.connect(&[leader + 2]);
    raft.restart(&[leader]).await?;
    raft.one(103, 2).await?;
    raft.restart(&[leader + 1]).await?;
    raft.one(104, 3).await?;
    Ok(())
}
