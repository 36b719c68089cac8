//! Part D: snapshots. R22 to R28.

use anyhow::ensure;
use futures::future::BoxFuture;

use super::lab::{Compacts, RaftLab};
use super::servers::Style;
use super::with;
use crate::lab::Lab;
use crate::sheet::{Test, test};

/// Bytes of log and hard state that no server may reach.
const LOG_BYTES_MAX: usize = 2000;

pub(super) fn tests() -> Vec<Test> {
    let all_crash = || compacting(all_crash);
    let init = || compacting(init);
    let mut tests: Vec<Test> = [Form::Now, Form::Year2021].into_iter().flat_map(common_tests).collect();
    tests.extend([
        test("R27", "raft", "crash and restart all servers", all_crash()).unreliable().mit(
            2025..=2026,
            "3D",
            "TestSnapshotAllCrash3D",
        ),
        test("R27-reliable", "raft", "crash and restart all servers", all_crash())
            .mit(2022..=2023, "2D", "TestSnapshotAllCrash2D")
            .mit(2024..=2024, "3D", "TestSnapshotAllCrash3D"),
        test("R28", "raft", "snapshot initialization after crash", init()).unreliable().mit(
            2025..=2026,
            "3D",
            "TestSnapshotInit3D",
        ),
        test("R28-reliable", "raft", "snapshot initialization after crash", init()).mit(
            2024..=2024,
            "3D",
            "TestSnapshotInit3D",
        ),
    ]);
    tests
}

fn compacting<F>(
    scenario: impl Fn(RaftLab) -> F + Clone + Send + Sync + 'static,
) -> impl Fn(Lab) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync + 'static
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    with(Style::Mit, 3, Compacts::EveryTen, scenario)
}

/// The scenario of R22 to R26 changed a little after its first year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As in 2021.
    Year2021,
    /// As since 2022.
    Now,
}

/// A fault that a server suffers again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Disconnect,
    Crash,
}

fn common_tests(form: Form) -> Vec<Test> {
    let all = [
        ("R22", "R22-2021", "snapshots basic", Trouble::None, false),
        ("R23", "R23-2021", "install snapshots (disconnect)", Trouble::Disconnect, false),
        ("R24", "R24-2021", "install snapshots (disconnect)", Trouble::Disconnect, true),
        ("R25", "R25-2021", "install snapshots (crash)", Trouble::Crash, false),
        ("R26", "R26-2021", "install snapshots (crash)", Trouble::Crash, true),
    ];
    let names = [
        ("TestSnapshotBasic2D", "TestSnapshotBasic3D"),
        ("TestSnapshotInstall2D", "TestSnapshotInstall3D"),
        ("TestSnapshotInstallUnreliable2D", "TestSnapshotInstallUnreliable3D"),
        ("TestSnapshotInstallCrash2D", "TestSnapshotInstallCrash3D"),
        ("TestSnapshotInstallUnCrash2D", "TestSnapshotInstallUnCrash3D"),
    ];
    let declare = |((now, then, title, trouble, unreliable), (classic, newer))| {
        let id = if form == Form::Now { now } else { then };
        let declared = test(id, "raft", title, compacting(move |raft| common(raft, trouble, form)));
        let declared = if unreliable { declared.unreliable() } else { declared };
        match form {
            Form::Year2021 => declared.mit(2021..=2021, "2D", classic),
            Form::Now => declared.mit(2022..=2023, "2D", classic).mit(2024..=2026, "3D", newer),
        }
    };
    all.into_iter().zip(names).map(declare).collect()
}

/// One server is away while the others commit so much that they compact their logs, then comes back.
async fn common(raft: RaftLab, trouble: Trouble, form: Form) -> anyhow::Result<()> {
    raft.one(raft.fresh(), 3).await?;
    let mut leader = raft.check_one_leader().await?;
    for iteration in 0..30 {
        let (victim, sender) = if iteration % 3 == 1 { (leader, leader + 1) } else { (leader + 1, leader) };
        match trouble {
            Trouble::None => {}
            Trouble::Disconnect => raft.disconnect(&[victim]),
            Trouble::Crash => raft.crash(&[victim]),
        }
        if trouble != Trouble::None {
            raft.one(raft.fresh(), 2).await?;
        }
        let (commands, servers) = match form {
            Form::Year2021 => (11, 2),
            Form::Now => (5 + raft.below(10), if trouble == Trouble::None { 3 } else { 2 }),
        };
        raft.start_many(sender, commands).await?;
        // Let the followers catch up.
        raft.one(raft.fresh(), servers).await?;
        check_log_size(&raft)?;
        match trouble {
            Trouble::None => continue,
            Trouble::Disconnect => raft.connect(&[victim]),
            Trouble::Crash => raft.restart(&[victim]).await?,
        }
        raft.one(raft.fresh(), 3).await?;
        leader = raft.check_one_leader().await?;
    }
    ensure!(trouble == Trouble::None || raft.installs() > 0, "nobody was ever sent a snapshot");
    Ok(())
}

fn check_log_size(raft: &RaftLab) -> anyhow::Result<()> {
    let bytes = raft.log_size();
    ensure!(bytes < LOG_BYTES_MAX, "a log has {bytes} bytes, it must stay below {LOG_BYTES_MAX}");
    Ok(())
}

async fn all_crash(raft: RaftLab) -> anyhow::Result<()> {
    raft.one(raft.fresh(), 3).await?;
    for _ in 0..5 {
        for _ in 0..5 + raft.below(10) {
            raft.one(raft.fresh(), 3).await?;
        }
        let before = raft.one(raft.fresh(), 3).await?;
        raft.crash(&[0, 1, 2]);
        raft.restart(&[0, 1, 2]).await?;
        let after = raft.one(raft.fresh(), 3).await?;
        ensure!(after > before, "command {after} came after command {before} and a restart of everybody");
    }
    Ok(())
}

async fn init(raft: RaftLab) -> anyhow::Result<()> {
    raft.one(raft.fresh(), 3).await?;
    // Enough for a first snapshot.
    for _ in 0..11 {
        raft.one(raft.fresh(), 3).await?;
    }
    // The first restart finds the snapshot, and what is saved after it must not lose it for the second.
    for _ in 0..2 {
        raft.crash(&[0, 1, 2]);
        raft.restart(&[0, 1, 2]).await?;
        raft.one(raft.fresh(), 3).await?;
    }
    Ok(())
}
