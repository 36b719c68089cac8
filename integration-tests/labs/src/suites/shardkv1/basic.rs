//! Lab 5A, with no clients beside the scenario's own clerk, and the configurations alone
//! (shardcfg).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use base::clock;
use clerk::api::config::{AddressBook, Config, NewGroup, Params, Sealed};
use clerk::api::placement::Placement;
use clerk::api::{GroupId, Incarnation, ShardId};
use shardctrler::change::Present;
use shardctrler::rebalance::rebalance;

use super::controller::{Controller, Group, owns};
use super::stage::{FIRST, MANY_GROUPS, SERVERS, SHARDS, Stage, check_config, start_group};
use crate::lab::{Change, Lab, Setup, leave};
use crate::suites::versioned::{Done, check_get};

/// A Join of a group that nobody runs.
fn join_of_names(key: u64, group: u64, servers: &[&str]) -> Change {
    let addresses = servers.iter().map(|server| (*server).to_owned()).collect();
    let group_data = NewGroup { key, incarnation: Incarnation(group), addresses };
    Change::Join(BTreeMap::from([(GroupId(group), group_data)]))
}

/// Configurations without a server: what the controllers would make of changes.
struct Configs {
    config: Sealed,
    book: AddressBook,
    incarnations: BTreeMap<GroupId, Incarnation>,
}

impl Configs {
    fn change(&mut self, change: &Change) -> anyhow::Result<()> {
        let Self { config, book, incarnations } = self;
        let present = Present { config, book, incarnations, placement: &Placement::default() };
        let next = present.decide(change)?.with_context(|| format!("{change:?} changed nothing"))?;
        self.config = next.config;
        self.book = next.book.unwrap_or_else(|| self.book.clone());
        self.incarnations.extend(next.incarnations);
        Ok(())
    }

    fn servers_are(&self, group: u64, expected: &[&str]) -> anyhow::Result<()> {
        let found = self.book.addresses(GroupId(group));
        ensure!(found == expected, "the servers of group {group} are {found:?}, expected {expected:?}");
        Ok(())
    }
}

/// N00.
pub(super) async fn shardcfg(_: Lab) -> anyhow::Result<()> {
    const KEY: u64 = 7;
    let params = Params { shard_count: SHARDS, ..Params::default() };
    let (one, two) = (["x", "y", "z"], ["a", "b", "c"]);
    let mut configs = Configs {
        config: Sealed::new(Config::zero(KEY, params)),
        book: AddressBook::default(),
        incarnations: BTreeMap::new(),
    };
    check_config(&configs.config, &[])?;
    configs.change(&join_of_names(KEY, 1, &one))?;
    check_config(&configs.config, &[1])?;
    configs.change(&join_of_names(KEY, 2, &two))?;
    check_config(&configs.config, &[1, 2])?;
    configs.servers_are(1, &one)?;
    configs.servers_are(2, &two)?;
    configs.change(&leave(&[1]))?;
    check_config(&configs.config, &[2])?;
    // Adapted: our Leave of the last group must say that nobody serves then.
    configs.change(&Change::Leave { groups: BTreeSet::from([GroupId(2)]), force: true })?;
    check_config(&configs.config, &[])
}

/// N01.
pub(super) async fn init_query(lab: Lab) -> anyhow::Result<()> {
    let store = lab.store(Setup { shards: SHARDS, controllers: SERVERS, raft_state_max: None }).await?;
    lab.set_peers(SERVERS);
    let key = store.query(None).await?.key;
    store.change(join_of_names(key, FIRST, &["xxx"])).await?;
    let config = store.query(None).await?;
    lab.count_op();
    ensure!(config.num.0 == 1, "the first configuration has number {}, expected 1", config.num);
    let owner = config.owner(ShardId(0));
    ensure!(owner == Some(GroupId(FIRST)), "shard 0 is on {owner:?}, expected group {FIRST}");
    check_config(&config, &[FIRST])
}

/// N02.
pub(super) async fn static_one_group(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::with_keys(&lab).await?;
    let leader = stage.store.leader(&FIRST.to_string()).await?;
    lab.step(&format!("shut {leader}"));
    stage.store.ground.kill(&leader).await?;
    stage.check_all().await
}

/// N03.
pub(super) async fn join_basic(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::with_keys(&lab).await?;
    let before = stage.controller.query().await?.num.0;
    let joined = stage.join_new(1).await?;
    let two = joined[0].id;
    let after = stage.controller.query().await?.num.0;
    ensure!(after == before + 1, "a join turned configuration {before} into {after}");
    ensure!(stage.is_member(two).await?, "group {two} joined and is no member");
    stage.check_shutdown_sharding(FIRST).await?;
    stage.check_all().await?;
    stage.check_shutdown_sharding(two).await?;
    stage.check_all().await
}

/// N04.
pub(super) async fn delete_basic(lab: Lab) -> anyhow::Result<()> {
    const RAFT_STATE_MAX: usize = 10_000;
    const VALUE_LENGTH: usize = 1000;
    const MORE_MAX: usize = 10_000;
    let mut stage = Stage::up(&lab, Some(RAFT_STATE_MAX)).await?;
    stage.spread_puts(VALUE_LENGTH).await?;
    let before = stage.rows_bytes(FIRST).await?;
    let joined = stage.join_new(1).await?;
    for _ in 0..5 {
        stage.check_all().await?;
    }
    let (one, two) = (stage.rows_bytes(FIRST).await?, stage.rows_bytes(joined[0].id).await?);
    let limit = before + MORE_MAX;
    ensure!(
        one + two <= limit,
        "the groups hold {one} and {two} bytes, together at most {limit} are allowed"
    );
    Ok(())
}

/// N05.
pub(super) async fn join_leave_basic(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::with_keys(&lab).await?;
    let joined = stage.join_new(1).await?;
    stage.check_shutdown_sharding(FIRST).await?;
    stage.check_all().await?;
    stage.controller.leave(FIRST).await?;
    ensure!(!stage.is_member(FIRST).await?, "group {FIRST} left and is still a member");
    stage.shut(FIRST).await?;
    stage.check_all().await?;
    stage.restart(FIRST).await?;
    stage.controller.join(&stage.first).await?;
    stage.check_all().await?;
    stage.check_shutdown_sharding(joined[0].id).await
}

/// N06, N07.
pub(super) async fn many_join_leave(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::with_keys(&lab).await?;
    let joined = stage.join_new(MANY_GROUPS).await?;
    stage.check_shutdown_sharding(joined[0].id).await?;
    stage.check_all().await?;
    stage.leave_and_remove(&joined).await?;
    stage.check_all().await
}

/// N08.
pub(super) async fn shutdown(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::with_keys(&lab).await?;
    let joined = stage.join_new(2).await?;
    stage.check_shutdown_sharding(joined[0].id).await?;
    stage.check_all().await?;
    let all: Vec<u64> = [FIRST].into_iter().chain(joined.iter().map(|group| group.id)).collect();
    for group in &all {
        stage.shut(*group).await?;
    }
    for group in &all {
        stage.restart(*group).await?;
    }
    stage.check_all().await
}

/// N09.
pub(super) async fn progress_shutdown(lab: Lab) -> anyhow::Result<()> {
    const WITHIN: Duration = Duration::from_secs(2);
    let mut stage = Stage::with_keys(&lab).await?;
    let joined = stage.join_new(4).await?;
    let config = stage.controller.query().await?;
    let others: BTreeSet<GroupId> = joined[2..].iter().map(|group| GroupId(group.id)).collect();
    for group in &joined[..2] {
        stage.shut(group.id).await?;
    }
    let keys =
        stage.keys_where(|shard| config.owner(ShardId(shard)).is_some_and(|owner| others.contains(&owner)));
    ensure!(!keys.is_empty(), "groups {others:?} own no key");
    let start = clock::now();
    for (key, value) in &keys {
        check_get(&mut stage.clerk, key, value, 1).await?;
    }
    let took = start.elapsed();
    ensure!(
        took <= WITHIN,
        "{} gets of groups that are up took {took:?}, at most {WITHIN:?} are allowed",
        keys.len()
    );
    Ok(())
}

/// Shards that never move while `group` joins and leaves again and again, of groups that give to it
/// or get from it. Every round is played, because the shards that come and go need not be the same
/// each time.
fn stable_shards(config: &Config, group: GroupId) -> BTreeSet<u32> {
    const ROUNDS: usize = 20;
    let with = |groups: &BTreeSet<GroupId>| groups | &BTreeSet::from([group]);
    let mut shards = config.shards.clone();
    let (mut moved, mut part) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..2 * ROUNDS {
        let ids = config.group_ids();
        let groups = if round % 2 == 0 { with(&ids) } else { ids };
        let owners = rebalance(&shards, &groups, &Placement::default());
        for ((number, assignment), owner) in (0..).zip(&mut shards).zip(owners) {
            if assignment.owner != owner {
                moved.insert(number);
                part.extend([assignment.owner, owner].into_iter().flatten());
            }
            assignment.last_owner = assignment.owner;
            assignment.owner = owner;
        }
    }
    let stable = config.assignments().filter(|(shard, assignment)| {
        !moved.contains(&shard.0) && assignment.owner.is_some_and(|owner| part.contains(&owner))
    });
    stable.map(|(shard, _)| shard.0).collect()
}

/// Joins and leaves a group until it is told to stop; returns how often.
async fn come_and_go(controller: Controller, group: Group, done: Done) -> anyhow::Result<u32> {
    let mut times = 0;
    while !done.is_over() {
        controller.join(&group).await?;
        controller.leave(group.id).await?;
        times += 1;
    }
    Ok(times)
}

/// N10.
pub(super) async fn progress_join(lab: Lab) -> anyhow::Result<()> {
    const RESTLESS: u64 = 7;
    const LASTS: Duration = Duration::from_secs(4);
    const WITHIN: Duration = Duration::from_secs(8);
    const GETS_MIN: u64 = 100;
    let mut stage = Stage::with_keys(&lab).await?;
    stage.join_new(4).await?;
    let group = start_group(&stage.store, RESTLESS).await?;
    let config = stage.controller.query().await?;
    let stable = stable_shards(&config, GroupId(RESTLESS));
    let keys = stage.keys_where(|shard| stable.contains(&shard));
    ensure!(!keys.is_empty(), "no shard of {config:?} is stable while group {RESTLESS} comes and goes");
    let done = Done::default();
    let restless = tokio::spawn(come_and_go(Controller::new(&stage.store), group, done.clone()));
    let (start, mut gets) = (clock::now(), 0);
    while start.elapsed() < LASTS {
        for (key, value) in &keys {
            check_get(&mut stage.clerk, key, value, 1).await?;
            gets += 1;
        }
    }
    let took = start.elapsed();
    done.tell();
    let times = restless.await??;
    ensure!(times > 0, "group {RESTLESS} never came and went");
    ensure!(took <= WITHIN, "{LASTS:?} of gets took {took:?}, at most {WITHIN:?} are allowed");
    ensure!(gets >= GETS_MIN, "{gets} gets of stable shards in {took:?}, at least {GETS_MIN} are expected");
    let config = stage.controller.query().await?;
    ensure!(!owns(&config, RESTLESS), "group {RESTLESS} left and owns a shard");
    Ok(())
}
