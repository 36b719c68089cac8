//! Weights, pins and plans at three controllers, with several operators at the same time and a leader
//! that dies (rules 140, 141). The groups are names only, as in [`super::shardctrler`].

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use clerk::api::config::{Config, NewGroup};
use clerk::api::ctrl::CtrlRefusal;
use clerk::api::placement::Placement;
use clerk::api::{GroupId, Incarnation, ShardId};
use clerk::ctrl::{CtrlClerk, Error};

use crate::lab::{Change, Lab, Setup, Store, leave};
use crate::sheet::{Scenario, scenario};

const SHARDS: u32 = 60;
const GROUPS: std::ops::RangeInclusive<u64> = 1..=4;

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario("C13", many_operators), scenario("C14", one_of_two_plans)]
}

struct Controllers {
    lab: Lab,
    store: Store,
    key: u64,
}

impl Controllers {
    async fn up(lab: Lab) -> anyhow::Result<Self> {
        let store = lab.store(Setup { shards: SHARDS, controllers: 3, raft_state_max: None }).await?;
        lab.set_peers(3);
        let key = store.query(None).await?.key;
        let controllers = Self { lab, store, key };
        controllers.join(GROUPS).await?;
        Ok(controllers)
    }

    async fn join(&self, groups: impl IntoIterator<Item = u64>) -> anyhow::Result<()> {
        let group = |group: u64| {
            let addresses = vec![format!("host{group}:1")];
            (GroupId(group), NewGroup { key: self.key, incarnation: Incarnation(group), addresses })
        };
        self.store.change(Change::Join(groups.into_iter().map(group).collect())).await
    }

    async fn seen(&self) -> anyhow::Result<(Config, Placement)> {
        self.lab.count_op();
        let config = self.store.query(None).await?;
        Ok((config, self.store.admin_named("placement").placement().await?))
    }

    /// Checks that each group has its share, rounded up or down, and each pinned shard its group. No
    /// group has more pinned shards than its share.
    async fn check(&self) -> anyhow::Result<()> {
        let (config, placement) = self.seen().await?;
        let weight = |group: &GroupId| f64::from(placement.weight(*group));
        let total: f64 = config.groups.keys().map(weight).sum();
        for group in config.groups.keys() {
            let count = config.assignments().filter(|(_, it)| it.owner == Some(*group)).count();
            let share = f64::from(SHARDS) * weight(group) / total;
            let fits = (count as f64 - share).abs() < 1.0;
            ensure!(fits, "group {group} has {count} shards, its share is {share}: {placement:?}");
        }
        for (shard, group) in &placement.pins {
            ensure!(config.owner(*shard) == Some(*group), "shard {shard} is not at {group}: {config:?}");
        }
        Ok(())
    }

    async fn without_a_leader(&self) -> anyhow::Result<()> {
        let leader = self.store.leader("ctrl").await?;
        self.lab.step(&format!("without the leader, {leader}"));
        self.store.ground.kill(&leader).await
    }
}

/// Each operator sets weights, pins and unpins; nobody's wish is lost, and everything is in force at
/// the end, also after the leader's death.
async fn many_operators(lab: Lab) -> anyhow::Result<()> {
    let controllers = Controllers::up(lab).await?;
    let operators = GROUPS.map(|number| {
        let clerk = controllers.store.admin_named(&format!("operator {number}"));
        tokio::spawn(async move {
            let group = GroupId(number);
            for weight in [50, 300, 100 * number as u32] {
                clerk.change(Change::Weigh { group, weight }).await?;
            }
            for shard in [10 * number as u32, 10 * number as u32 + 1].map(ShardId) {
                clerk.change(Change::Pin { shard, group }).await?;
            }
            clerk.change(Change::Unpin { shard: ShardId(10 * number as u32) }).await?;
            Ok::<_, Error>(())
        })
    });
    for operator in operators.collect::<Vec<_>>() {
        operator.await??;
    }
    // A pin moves one shard and nothing else, so the counts are made even again.
    controllers.join([5]).await?;
    controllers.check().await?;
    controllers.without_a_leader().await?;
    let (_, placement) = controllers.seen().await?;
    let weights: BTreeMap<GroupId, u32> = (2..=4).map(|group| (GroupId(group), 100 * group as u32)).collect();
    let pins: BTreeMap<ShardId, GroupId> =
        GROUPS.map(|group| (ShardId(10 * group as u32 + 1), GroupId(group))).collect();
    ensure!((&placement.weights, &placement.pins) == (&weights, &pins), "{placement:?}");
    // Drained, then gone; what it had wished is gone, too.
    let admin = controllers.store.admin_named("admin");
    let refused = admin.change(Change::Weigh { group: GroupId(2), weight: 0 }).await;
    ensure!(matches!(refused, Err(Error::Refused(CtrlRefusal::HasPins { .. }))), "{refused:?}");
    admin.change(Change::Unpin { shard: ShardId(21) }).await?;
    admin.change(Change::Weigh { group: GroupId(2), weight: 0 }).await?;
    controllers.check().await?;
    controllers.store.change(leave(&[2, 3])).await?;
    controllers.check().await?;
    let (_, placement) = controllers.seen().await?;
    let left: Vec<u64> = placement.weights.keys().map(|group| group.0).collect();
    ensure!(left == [4], "weights of groups that left: {placement:?}");
    Ok(())
}

/// A plan by what is newest: a shard of one group goes to another one.
async fn plan(clerk: &CtrlClerk, number: u64) -> Result<Change, Error> {
    let (config, _) = clerk.query(None).await?;
    let placement = clerk.placement().await?;
    let shard = ShardId(number as u32 % SHARDS);
    let from = config.owner(shard).unwrap_or_default();
    let to = GroupId(from.0 % GROUPS.end() + 1);
    let moves = [(shard, to)].into();
    Ok(Change::Arrange { made_from: config.place(), placement: placement.version, moves })
}

/// Two operators plan from the same configuration. One plan is made, the other refused, even if the
/// leader dies between the plan and the change.
async fn one_of_two_plans(lab: Lab) -> anyhow::Result<()> {
    const ROUNDS: u64 = 6;
    let controllers = Controllers::up(lab).await?;
    let clerks = ["one", "other"].map(|name| controllers.store.admin_named(name));
    for round in 0..ROUNDS {
        let before = controllers.store.query(None).await?.num;
        let mut plans = Vec::new();
        for (number, clerk) in (0..).zip(&clerks) {
            plans.push((clerk.clone(), plan(clerk, 2 * round + number).await?));
        }
        if round == ROUNDS / 2 {
            controllers.without_a_leader().await?;
        }
        let changes =
            plans.into_iter().map(|(clerk, plan)| tokio::spawn(async move { clerk.change(plan).await }));
        let mut made = 0;
        for change in changes.collect::<Vec<_>>() {
            match change.await? {
                Ok(_) => made += 1,
                Err(Error::Refused(CtrlRefusal::Outdated { .. })) => {}
                Err(error) => bail!("{error}"),
            }
        }
        let after = controllers.store.query(None).await?.num;
        ensure!((made, after.0) == (1, before.0 + 1), "{made} plans were made, from {before} to {after}");
    }
    // A pin makes no configuration here, and a plan that does not know it is refused all the same.
    let late = plan(&clerks[0], 3).await?;
    let owner = controllers.store.query(None).await?.owner(ShardId(3)).unwrap_or_default();
    clerks[1].change(Change::Pin { shard: ShardId(3), group: owner }).await?;
    let refused = clerks[0].change(late).await;
    ensure!(matches!(refused, Err(Error::Refused(CtrlRefusal::Outdated { .. }))), "{refused:?}");
    Ok(())
}
