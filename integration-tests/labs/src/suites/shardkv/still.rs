//! Shards that stay where they are: their owner serves them, and nobody else does.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use clerk::ctrl::CtrlClerk;

use super::stage::{GROUPS, Stage};
use crate::lab::{Change, Lab, Timers};
use sim::cluster::Kind;

/// Half of the ten shards belong to each of two groups.
const HALF: usize = 5;

/// Two groups, puts in every shard.
async fn two_groups(lab: &Lab) -> anyhow::Result<Stage> {
    let mut stage = Stage::up(lab, None).await?;
    stage.join(&[GROUPS[0]]).await?;
    stage.join(&[GROUPS[1]]).await?;
    stage.put_all(20).await?;
    stage.check_all().await?;
    Ok(stage)
}

/// H01: without one of two groups exactly half of the keys can be read.
pub(super) async fn static_shards(lab: Lab) -> anyhow::Result<()> {
    let mut stage = two_groups(&lab).await?;
    stage.shut(101).await?;
    stage.check_logs().await?;
    let count = stage.count_gets(|| stage.store.client()).await?;
    ensure!(count == HALF, "{count} of 10 gets came back without group 101, expected {HALF}");
    stage.restart(101).await?;
    stage.check_all().await
}

/// H02: clerks that believe that group 100 owns everything get nothing from it that it does not
/// own.
pub(super) async fn rejection(lab: Lab) -> anyhow::Result<()> {
    const ROGUE: &str = "rogue";
    const ROGUES: u64 = 3;
    let stage = two_groups(&lab).await?;
    let cluster = stage.store.ground.cluster().ok_or_else(|| anyhow!("this test needs the simulator"))?;
    // Controllers that look like those of the same cluster, whose only configuration is another.
    cluster.add_named(ROGUE, Kind::Ctrl, ROGUES, lab.config(Timers::Product));
    cluster.ready(Duration::from_secs(20)).await.map_err(|why| anyhow!(why))?;
    let addresses = cluster.addresses(ROGUE);
    let admin =
        CtrlClerk::new(stage.store.ground.connection("rogue admin"), addresses.clone(), lab.derive(ROGUE));
    let Change::Join(everything) = stage.store.newcomers(&GROUPS[..1]).await? else {
        anyhow::bail!("newcomers are to join");
    };
    admin.change(Change::Join(everything)).await?;
    let clerk = || {
        let name = lab.fresh_name("misled client");
        stage.store.client_of(&name, addresses.clone())
    };
    let count = stage.count_gets(clerk).await?;
    ensure!(
        count == HALF,
        "{count} of 10 gets came back from group 100 alone, expected {HALF}: those it owns"
    );
    Ok(())
}
