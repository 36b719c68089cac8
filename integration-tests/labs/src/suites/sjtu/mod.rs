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
use crate::sheet::{Test, test};

/// The tests of this folder.
pub fn tests() -> Vec<Test> {
    [part1(), part2(), part3(), snapshot::tests(), kv::tests()].into_iter().flatten().collect()
}

macro_rules! on {
    ($servers:literal, $scenario:expr) => {
        with(Style::Sjtu, $servers, Compacts::Never, $scenario)
    };
}

fn part1() -> Vec<Test> {
    let part = "part1";
    vec![
        test("J01", "sjtu", "leader election", on!(3, leader_election)).sjtu(
            part,
            "part1.leader_election",
            10,
        ),
        test("J02", "sjtu", "re-election after failures", on!(5, re_election)).sjtu(
            part,
            "part1.re_election",
            10,
        ),
    ]
}

fn part2() -> Vec<Test> {
    let part = "part2";
    let fail_agree = |lab| raft::fail_agree_without(lab, 0);
    vec![
        test("J03", "sjtu", "basic agreement", on!(3, raft::basic_agree)).sjtu(part, "part2.basic_agree", 10),
        test("J04", "sjtu", "agreement while the leader is away", on!(3, fail_agree)).sjtu(
            part,
            "part2.fail_agree",
            10,
        ),
        test("J05", "sjtu", "no agreement without a majority", on!(5, raft::fail_no_agree)).sjtu(
            part,
            "part2.fail_no_agree",
            5,
        ),
        test("J06", "sjtu", "commands started at once", on!(3, raft::concurrent_starts)).sjtu(
            part,
            "part2.concurrent_start",
            5,
        ),
        test("J07", "sjtu", "rejoin of a leader that was cut off", on!(3, raft::rejoin)).sjtu(
            part,
            "part2.rejoin",
            5,
        ),
        test("J08", "sjtu", "fast backup over logs that differ", on!(5, raft::backup)).sjtu(
            part,
            "part2.backup",
            5,
        ),
        test("J09", "sjtu", "few requests", on!(3, raft::count)).sjtu(part, "part2.rpc_count", 5),
    ]
}

fn part3() -> Vec<Test> {
    let part = "part3";
    let figure_8 = |iterations| move |lab| raft::figure_8(lab, Figure8 { iterations, cuts: true });
    let unreliable_agree = |lab| raft::unreliable_agree(lab, false);
    vec![
        test("J10", "sjtu", "persistence", on!(3, raft::persist_1)).sjtu(part, "part3.persist1", 5),
        test("J11", "sjtu", "more persistence", on!(5, raft::persist_2_classic)).sjtu(
            part,
            "part3.persist2",
            5,
        ),
        test("J12", "sjtu", "a leader comes back alone", on!(3, persist_3)).sjtu(part, "part3.persist3", 5),
        test("J13", "sjtu", "Figure 8", on!(5, figure_8(1000))).sjtu(part, "part3.figure8", 2),
        test("J14", "sjtu", "unreliable agreement", on!(5, unreliable_agree)).unreliable().sjtu(
            part,
            "part3.unreliable_agree",
            2,
        ),
        test("J15", "sjtu", "Figure 8 (unreliable)", on!(5, figure_8(100))).unreliable().sjtu(
            part,
            "part3.unreliable_figure_8",
            1,
        ),
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
