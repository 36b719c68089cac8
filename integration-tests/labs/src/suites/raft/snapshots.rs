//! Part D: snapshots. R22 to R28.

use anyhow::ensure;
use futures::future::BoxFuture;

use super::lab::{Compacts, RaftLab};
use super::servers::Style;
use super::with;
use crate::lab::Lab;
use crate::sheet::{Scenario, scenario};

/// Bytes of log and hard state that no server may reach.
const LOG_BYTES_MAX: usize = 2000;

pub(super) fn scenarios() -> Vec<Scenario> {
    let now = |id, trouble| scenario(id, compacting(move |raft| common(raft, trouble, Form::Now)));
    let of_2021 = |id, trouble| scenario(id, compacting(move |raft| common(raft, trouble, Form::Year2021)));
    vec![
        now("R22", Trouble::None),
        now("R23", Trouble::Disconnect),
        now("R24", Trouble::Disconnect),
        now("R25", Trouble::Crash),
        now("R26", Trouble::Crash),
        of_2021("R22-2021", Trouble::None),
        of_2021("R23-2021", Trouble::Disconnect),
        of_2021("R24-2021", Trouble::Disconnect),
        of_2021("R25-2021", Trouble::Crash),
        of_2021("R26-2021", Trouble::Crash),
        scenario("R27", compacting(all_crash)),
        scenario("R27-reliable", compacting(all_crash)),
        scenario("R28", compacting(init)),
        scenario("R28-reliable", compacting(init)),
    ]
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
