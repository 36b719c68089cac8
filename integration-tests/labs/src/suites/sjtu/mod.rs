//! SJTU CSE 2021, Lab 3. Each test is played three times for one grade; all must pass.
//!
//! Most of it mirrors MIT's Raft tests ([`super::raft`]) with other parameters; those scenarios are
//! used from there. New are another re-election, the Figure 8 whose leaders are cut off and
//! restarted, the snapshot tests, which count what a server had to apply one by one (`snapshot`),
//! and a small store over Raft (`kv`).
//!
//! Adapted: our timers are those of MIT's labs (heartbeat 200 ms, election 600 to 1,200 ms) instead
//! of 150 ms, 300 to 500 ms and 1 s.
//!
//! Left out on purpose: part 5 as it is since 2022 (a file system).

mod kv;
mod snapshot;

use anyhow::ensure;

use super::raft::{self, Compacts, Figure8, RaftLab, Style, with};
use crate::sheet::{Scenario, scenario};

/// The scenarios of this folder.
pub(crate) fn scenarios() -> Vec<Scenario> {
    [raft_scenarios(), snapshot::scenarios(), kv::scenarios()].into_iter().flatten().collect()
}

/// The scenario `id` on this many servers that never compact.
fn on<F>(
    id: &'static str,
    servers: u64,
    play: impl Fn(RaftLab) -> F + Clone + Send + Sync + 'static,
) -> Scenario
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    scenario(id, with(Style::Sjtu, servers, Compacts::Never, play))
}

fn raft_scenarios() -> Vec<Scenario> {
    let figure_8 = |iterations| move |lab| raft::figure_8(lab, Figure8 { iterations, cuts: true });
    vec![
        on("J01", 3, leader_election),
        on("J02", 5, re_election),
        on("J03", 3, raft::basic_agree),
        on("J04", 3, |lab| raft::fail_agree_without(lab, 0)),
        on("J05", 5, raft::fail_no_agree),
        on("J06", 3, raft::concurrent_starts),
        on("J07", 3, raft::rejoin),
        on("J08", 5, raft::backup),
        on("J09", 3, raft::count),
        on("J10", 3, raft::persist_1),
        on("J11", 5, raft::persist_2_classic),
        on("J12", 3, persist_3),
        on("J13", 5, figure_8(1000)),
        on("J14", 5, |lab| raft::unreliable_agree(lab, false)),
        on("J15", 5, figure_8(100)),
    ]
}

async fn leader_election(raft: RaftLab) -> anyhow::Result<()> {
    raft.sleep(300).await;
    raft.check_one_leader().await?;
    raft.sleep(2000).await;
    let term = raft.check_terms()?;
    raft.sleep(2000).await;
    let later = raft.check_terms()?;
    ensure!(later == term, "the term changed from {term} to {later} although nothing failed");
    raft.check_one_leader().await?;
    Ok(())
}

async fn re_election(raft: RaftLab) -> anyhow::Result<()> {
    let first = raft.check_one_leader().await?;
    raft.disconnect(&[first]);
    let second = raft.check_one_leader().await?;
    ensure!(second != first, "{} leads although it is cut off", raft.name(first));
    raft.disconnect(&[second]);
    let third = raft.check_one_leader().await?;
    ensure!(![first, second].contains(&third), "{} leads although it is cut off", raft.name(third));
    raft.disconnect(&[third]);
    raft.sleep(1000).await;
    raft.check_no_leader()?;
    raft.connect(&[first]);
    raft.sleep(1000).await;
    raft.check_one_leader().await?;
    Ok(())
}

async fn persist_3(raft: RaftLab) -> anyhow::Result<()> {
    raft::persist_3(raft.clone()).await?;
    raft.wait(4, 3, None).await?;
    Ok(())
}
