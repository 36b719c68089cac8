//! Part A: leader election. R01 to R03.

use anyhow::ensure;

use super::lab::RaftLab;
use super::mit;
use crate::sheet::{Scenario, scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("R01", mit(3, initial_election)),
        scenario("R02", mit(3, re_election)),
        scenario("R03", mit(7, many_elections)),
    ]
}

async fn initial_election(raft: RaftLab) -> anyhow::Result<()> {
    raft.check_one_leader().await?;
    raft.sleep(50).await;
    let term = raft.check_terms()?;
    ensure!(term >= 1, "the term is {term}, but should be at least 1");
    raft.sleep(2000).await;
    let later = raft.check_terms()?;
    // Adapted: MIT's labs only warn.
    ensure!(later == term, "the term changed from {term} to {later} although nothing failed");
    raft.check_one_leader().await?;
    Ok(())
}

async fn re_election(raft: RaftLab) -> anyhow::Result<()> {
    let first = raft.check_one_leader().await?;
    // The leader disappears: a new one is elected.
    raft.disconnect(&[first]);
    raft.check_one_leader().await?;
    // The old leader comes back and disturbs nobody.
    raft.connect(&[first]);
    let second = raft.check_one_leader().await?;
    // Without a majority nobody leads.
    raft.disconnect(&[second, second + 1]);
    raft.sleep(2000).await;
    raft.check_no_leader()?;
    // A majority elects a leader, and the return of the last server changes nothing.
    raft.connect(&[second + 1]);
    raft.check_one_leader().await?;
    raft.connect(&[second]);
    raft.check_one_leader().await?;
    Ok(())
}

async fn many_elections(raft: RaftLab) -> anyhow::Result<()> {
    raft.check_one_leader().await?;
    for _ in 1..10 {
        let three = [raft.any(), raft.any(), raft.any()];
        raft.disconnect(&three);
        // Four of seven are left, or more: the leader among them, or else a new one.
        raft.check_one_leader().await?;
        raft.connect(&three);
    }
    raft.check_one_leader().await?;
    Ok(())
}
