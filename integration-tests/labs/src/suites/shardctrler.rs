//! The shard controller of 6.824 2020 to 6.5840 2024 (Lab 4A, 5A in 2024): three replicated
//! servers, a reliable network, ten shards.
//!
//! The originals are three functions; here every scenario is separate and does its own set-up. The
//! groups are names only: nobody serves shards in these tests.
//!
//! Adapted: the originals' checks of minimal transfers looked at group ids that never existed and
//! so could not fail (C05, C06, C10, C11); these look at the groups that do exist.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use clerk::api::config::{AddressBook, Config, NewGroup};
use clerk::api::{ConfigNum, GroupId, Incarnation, ShardId};
use clerk::ctrl::CtrlClerk;

use crate::lab::{Change, Lab, Setup, Store, leave};
use crate::sheet::{Scenario, scenario};

const SHARDS: u32 = 10;
const SERVERS: u64 = 3;

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("C01", leave_join),
        scenario("C02", historical_queries),
        scenario("C03", moves),
        scenario("C04", concurrent_leave_join),
        scenario("C05", |lab| minimal_after_joins(lab, false)),
        scenario("C06", |lab| minimal_after_leaves(lab, false)),
        scenario("C07", minimal_again),
        scenario("C08", multi_leave_join),
        scenario("C09", concurrent_multi),
        scenario("C10", |lab| minimal_after_joins(lab, true)),
        scenario("C11", |lab| minimal_after_leaves(lab, true)),
        scenario("C12", same_config_on_servers),
    ]
}

/// Three controllers and an admin.
struct Controllers {
    lab: Lab,
    store: Store,
    /// The key of the cluster.
    key: u64,
}

impl Controllers {
    async fn up(lab: Lab) -> anyhow::Result<Self> {
        let store = lab.store(Setup { shards: SHARDS, controllers: SERVERS, raft_state_max: None }).await?;
        lab.set_peers(SERVERS);
        let key = store.query(None).await?.key;
        Ok(Self { lab, store, key })
    }

    async fn change(&self, change: Change) -> anyhow::Result<()> {
        self.lab.count_op();
        self.store.change(change).await
    }

    async fn join(&self, group: u64, servers: &[&str]) -> anyhow::Result<()> {
        self.change(join(self.key, &[(group, servers)])).await
    }

    async fn leave(&self, groups: &[u64]) -> anyhow::Result<()> {
        self.change(forced(groups)).await
    }

    async fn move_shard(&self, shard: u32, group: u64) -> anyhow::Result<()> {
        self.change(Change::Move { shard: ShardId(shard), group: GroupId(group) }).await
    }

    async fn query(&self) -> anyhow::Result<Config> {
        self.lab.count_op();
        self.store.query(None).await
    }

    /// The labs' `check`: exactly these groups, every shard on one of them, as evenly as can be.
    async fn check(&self, groups: &[u64]) -> anyhow::Result<Config> {
        let config = self.query().await?;
        let found: Vec<u64> = config.groups.keys().map(|group| group.0).collect();
        ensure!(found == groups, "the groups are {found:?}, expected {groups:?}");
        let mut counts: BTreeMap<GroupId, u32> = config.groups.keys().map(|group| (*group, 0)).collect();
        for (shard, assignment) in config.assignments() {
            let Some(owner) = assignment.owner else {
                ensure!(groups.is_empty(), "shard {shard} has no owner");
                continue;
            };
            *counts.get_mut(&owner).with_context(|| format!("shard {shard} is on {owner}, which left"))? += 1;
        }
        let (most, least) = (counts.values().max(), counts.values().min());
        let uneven = most.zip(least).is_some_and(|(most, least)| *most > least + 1);
        ensure!(!uneven, "uneven: {counts:?}");
        Ok(config)
    }

    /// The server list of a group.
    async fn servers_are(&self, group: u64, expected: &[&str]) -> anyhow::Result<()> {
        let (_, book) = self.store.admin_named("servers").query(None).await?;
        let found = book_of(&book, group);
        ensure!(found == expected, "the servers of group {group} are {found:?}, expected {expected:?}");
        Ok(())
    }
}

fn book_of(book: &AddressBook, group: u64) -> Vec<String> {
    book.addresses(GroupId(group)).to_vec()
}

fn join(key: u64, groups: &[(u64, &[&str])]) -> Change {
    let group = |(group, servers): &(u64, &[&str])| {
        let addresses = servers.iter().map(|server| (*server).to_owned()).collect();
        // An id comes back with the incarnation that it had: these have one each.
        (GroupId(*group), NewGroup { key, incarnation: Incarnation(*group), addresses })
    };
    Change::Join(groups.iter().map(group).collect())
}

/// Adapted: our Leave of the last group must say that nobody serves then.
fn forced(groups: &[u64]) -> Change {
    match leave(groups) {
        Change::Leave { groups, .. } => Change::Leave { groups, force: true },
        change => change,
    }
}

fn three(name: u64) -> [String; 3] {
    ["a", "b", "c"].map(|letter| format!("{name}{letter}"))
}

/// The steps of the first scenario; returns the configurations on the way, which the labs remember
/// for the second.
async fn basic_steps(controllers: &Controllers) -> anyhow::Result<Vec<Config>> {
    let mut seen = vec![controllers.query().await?];
    controllers.check(&[]).await?;
    controllers.join(1, &["x", "y", "z"]).await?;
    seen.push(controllers.check(&[1]).await?);
    controllers.join(2, &["a", "b", "c"]).await?;
    seen.push(controllers.check(&[1, 2]).await?);
    controllers.servers_are(1, &["x", "y", "z"]).await?;
    controllers.servers_are(2, &["a", "b", "c"]).await?;
    controllers.leave(&[1]).await?;
    seen.push(controllers.check(&[2]).await?);
    controllers.leave(&[2]).await?;
    seen.push(controllers.check(&[]).await?);
    Ok(seen)
}

async fn leave_join(lab: Lab) -> anyhow::Result<()> {
    basic_steps(&Controllers::up(lab).await?).await.map(drop)
}

async fn historical_queries(lab: Lab) -> anyhow::Result<()> {
    let controllers = Controllers::up(lab).await?;
    let seen = basic_steps(&controllers).await?;
    for server in controllers.store.ground.servers("ctrl") {
        controllers.lab.step(&format!("without {server}"));
        controllers.store.ground.kill(&server).await?;
        for config in &seen {
            let found = controllers.store.query(Some(config.num.0)).await?;
            ensure!(found == *config, "configuration {} is {found:?} now, it was {config:?}", config.num);
        }
        controllers.store.ground.start(&server).await?;
    }
    Ok(())
}

async fn moves(lab: Lab) -> anyhow::Result<()> {
    let controllers = Controllers::up(lab).await?;
    controllers.join(503, &["3a", "3b", "3c"]).await?;
    controllers.join(504, &["4a", "4b", "4c"]).await?;
    give(&controllers, |shard| if shard < SHARDS / 2 { 503 } else { 504 }).await?;
    // Balancing may have put them there already; only a move puts them the other way round.
    give(&controllers, |shard| if shard < SHARDS / 2 { 504 } else { 503 }).await?;
    controllers.leave(&[503]).await?;
    controllers.leave(&[504]).await
}

/// Moves each shard to its owner; every move that changes something must make a new configuration.
async fn give(controllers: &Controllers, owner: impl Fn(u32) -> u64) -> anyhow::Result<()> {
    for shard in 0..SHARDS {
        let before = controllers.query().await?;
        controllers.move_shard(shard, owner(shard)).await?;
        if before.owner(ShardId(shard)) != Some(GroupId(owner(shard))) {
            let after = controllers.query().await?;
            ensure!(
                after.num > before.num,
                "a move must make a new configuration, it is still {}",
                after.num
            );
        }
    }
    let config = controllers.query().await?;
    for shard in 0..SHARDS {
        let (found, expected) = (config.owner(ShardId(shard)), GroupId(owner(shard)));
        ensure!(found == Some(expected), "shard {shard} is on {found:?}, expected {expected}");
    }
    Ok(())
}

/// Ten clerks at once; all of them must succeed.
async fn ten_clerks<F>(
    controllers: &Controllers,
    act: impl Fn((CtrlClerk, u64), u64) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    const CLERKS: u64 = 10;
    let clerk = |number| (controllers.store.admin_named(&format!("clerk {number}")), controllers.key);
    let tasks: Vec<_> = (0..CLERKS).map(|number| tokio::spawn(act(clerk(number), number))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn concurrent_leave_join(lab: Lab) -> anyhow::Result<()> {
    let controllers = Controllers::up(lab).await?;
    ten_join(&controllers).await
}

async fn ten_join(controllers: &Controllers) -> anyhow::Result<()> {
    ten_clerks(controllers, |(clerk, key), number| async move {
        let group = 100 + 10 * number;
        clerk.change(join(key, &[(group + 1000, &[&format!("s{group}a")])])).await?;
        clerk.change(join(key, &[(group, &[&format!("s{group}b")])])).await?;
        clerk.change(forced(&[group + 1000])).await?;
        Ok(())
    })
    .await?;
    let groups: Vec<u64> = (0..10).map(|number| 100 + 10 * number).collect();
    controllers.check(&groups).await.map(drop)
}

async fn ten_multi_join(controllers: &Controllers) -> anyhow::Result<()> {
    ten_clerks(controllers, |(clerk, key), number| async move {
        let group = 1000 + number;
        let servers = three(group);
        let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
        let (one, two) = (format!("s{}a", group + 1000), format!("s{}a", group + 2000));
        clerk
            .change(join(key, &[(group, &servers), (group + 1000, &[&one]), (group + 2000, &[&two])]))
            .await?;
        clerk.change(forced(&[group + 1000, group + 2000])).await?;
        Ok(())
    })
    .await?;
    let groups: Vec<u64> = (0..10).map(|number| 1000 + number).collect();
    controllers.check(&groups).await.map(drop)
}

/// Ten groups, joined one by one or several at once; then the five of 11 to 15.
async fn fifteen(lab: Lab, at_once: bool) -> anyhow::Result<(Controllers, Config)> {
    let controllers = Controllers::up(lab).await?;
    if at_once {
        ten_multi_join(&controllers).await?
    } else {
        ten_join(&controllers).await?
    }
    let before = controllers.query().await?;
    let servers: Vec<[String; 3]> = (11..=15).map(three).collect();
    let servers: Vec<Vec<&str>> =
        servers.iter().map(|three| three.iter().map(String::as_str).collect()).collect();
    let five: Vec<(u64, &[&str])> = (11..=15).zip(servers.iter().map(Vec::as_slice)).collect();
    if at_once {
        controllers.change(join(controllers.key, &five)).await?;
    } else {
        for (group, servers) in five {
            controllers.join(group, servers).await?;
        }
    }
    Ok((controllers, before))
}

/// No shard may move between two groups that were there all the time.
fn nothing_moved_between(groups: &BTreeSet<GroupId>, before: &Config, after: &Config) -> anyhow::Result<()> {
    for (shard, assignment) in before.assignments() {
        let (from, to) = (assignment.owner, after.owner(shard));
        let stayed = |owner: Option<GroupId>| owner.is_some_and(|owner| groups.contains(&owner));
        ensure!(
            !(stayed(from) && stayed(to) && from != to),
            "shard {shard} moved from {from:?} to {to:?} without need"
        );
    }
    Ok(())
}

async fn minimal_after_joins(lab: Lab, at_once: bool) -> anyhow::Result<()> {
    let (controllers, before) = fifteen(lab, at_once).await?;
    let after = controllers.query().await?;
    nothing_moved_between(&before.group_ids(), &before, &after)
}

async fn minimal_after_leaves(lab: Lab, at_once: bool) -> anyhow::Result<()> {
    let (controllers, _) = fifteen(lab, at_once).await?;
    let before = controllers.query().await?;
    if at_once {
        controllers.leave(&[11, 12, 13, 14, 15]).await?;
    } else {
        for group in 11..=15 {
            controllers.leave(&[group]).await?;
        }
    }
    let after = controllers.query().await?;
    for (shard, assignment) in before.assignments() {
        let stayed = assignment.owner.filter(|owner| after.groups.contains_key(owner));
        ensure!(
            stayed.is_none() || stayed == after.owner(shard),
            "shard {shard} left {stayed:?}, which is still there"
        );
    }
    Ok(())
}

async fn minimal_again(lab: Lab) -> anyhow::Result<()> {
    const MOVED_MAX: usize = SHARDS as usize / 3 + 1;
    let controllers = Controllers::up(lab).await?;
    controllers.join(1, &["x", "y", "z"]).await?;
    controllers.join(2, &["a", "b", "c"]).await?;
    let first = controllers.query().await?;
    controllers.join(3, &["i", "j", "k"]).await?;
    let second = controllers.query().await?;
    let moved = |before: &Config, after: &Config| -> Vec<ShardId> {
        let shards = before.assignments().map(|(shard, _)| shard);
        shards.filter(|shard| before.owner(*shard) != after.owner(*shard)).collect()
    };
    let joined = moved(&first, &second);
    for shard in &joined {
        ensure!(second.owner(*shard) == Some(GroupId(3)), "shard {shard} moved, but not to the new group");
    }
    ensure!(
        joined.len() <= MOVED_MAX,
        "{} shards moved at the join, at most {MOVED_MAX} need to",
        joined.len()
    );
    controllers.leave(&[1]).await?;
    let third = controllers.query().await?;
    let left = moved(&second, &third);
    for shard in &left {
        ensure!(
            second.owner(*shard) == Some(GroupId(1)),
            "shard {shard} moved, but not from the group that left"
        );
    }
    ensure!(left.len() <= MOVED_MAX, "{} shards moved at the leave, at most {MOVED_MAX} need to", left.len());
    Ok(())
}

async fn multi_leave_join(lab: Lab) -> anyhow::Result<()> {
    let controllers = Controllers::up(lab).await?;
    controllers.check(&[]).await?;
    controllers.change(join(controllers.key, &[(1, &["x", "y", "z"]), (2, &["a", "b", "c"])])).await?;
    controllers.check(&[1, 2]).await?;
    controllers.join(3, &["j", "k", "l"]).await?;
    controllers.check(&[1, 2, 3]).await?;
    controllers.servers_are(1, &["x", "y", "z"]).await?;
    controllers.servers_are(2, &["a", "b", "c"]).await?;
    controllers.servers_are(3, &["j", "k", "l"]).await?;
    controllers.leave(&[1, 3]).await?;
    controllers.check(&[2]).await?;
    controllers.servers_are(2, &["a", "b", "c"]).await?;
    controllers.leave(&[2]).await
}

async fn concurrent_multi(lab: Lab) -> anyhow::Result<()> {
    ten_multi_join(&Controllers::up(lab).await?).await
}

async fn same_config_on_servers(lab: Lab) -> anyhow::Result<()> {
    let controllers = Controllers::up(lab).await?;
    ten_multi_join(&controllers).await?;
    let before = controllers.query().await?;
    let (_, book) = controllers.store.admin_named("book").query(None).await?;
    let leader = controllers.store.leader("ctrl").await?;
    controllers.lab.step(&format!("without the leader, {leader}"));
    controllers.store.ground.kill(&leader).await?;
    let after = controllers.query().await?;
    ensure!(after == before, "the new leader's configuration is {after:?}, the old one's was {before:?}");
    let (_, after) = controllers.store.admin_named("book again").query(None).await?;
    ensure!(after == book, "the new leader's servers are {after:?}, the old one's were {book:?}");
    if before.num == ConfigNum(0) {
        bail!("nothing was configured");
    }
    Ok(())
}
