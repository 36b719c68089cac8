//! Three controllers, groups that come and go, sixty keys with known values, and a clerk to check them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use base::clock;
use clerk::api::GroupId;
use clerk::api::config::Config;
use rand::RngExt;
use rand::distr::{Alphanumeric, SampleString};
use tokio::task::JoinSet;

use super::controller::{Controller, Group};
use crate::lab::client::{Client, Put};
use crate::lab::{Lab, Setup, Store};
use crate::suites::versioned::check_get;
use sim::Generator;

/// Shards.
pub(super) const SHARDS: u32 = 12;
/// Keys k0 to k59.
pub(super) const KEYS: usize = 5 * SHARDS as usize;
/// The number of groups that come and go in tests of many.
pub(super) const MANY_GROUPS: u64 = 8;
/// The group that owns everything at first.
pub(super) const FIRST: u64 = 1;
pub(super) const SERVERS: u64 = 3;
const VALUE_LENGTH: usize = 20;
/// Concurrent gets are counted until none has ended for this long.
const QUIET: Duration = Duration::from_secs(2);

/// The labs' test with its controller and clerk.
pub(super) struct Stage {
    pub(super) lab: Lab,
    pub(super) store: Store,
    pub(super) controller: Controller,
    pub(super) clerk: Client,
    /// The first group.
    pub(super) first: Group,
    /// What every key should be.
    pub(super) values: Vec<(String, String)>,
    newest: u64,
    random: Generator,
}

impl Stage {
    /// Starts controllers and the first group, which joins.
    pub(super) async fn up(lab: &Lab, raft_state_max: Option<usize>) -> anyhow::Result<Self> {
        let store = lab.store(Setup { shards: SHARDS, controllers: SERVERS, raft_state_max }).await?;
        lab.set_peers(SERVERS);
        let first = start_group(&store, FIRST).await?;
        let controller = Controller::new(&store);
        controller.init().await?;
        controller.join(&first).await?;
        Ok(Self {
            lab: lab.clone(),
            clerk: store.versioned_client(),
            controller,
            first,
            values: Vec::new(),
            newest: FIRST,
            random: lab.random("values"),
            store,
        })
    }

    /// The same with sixty keys put and checked.
    pub(super) async fn with_keys(lab: &Lab) -> anyhow::Result<Self> {
        let mut stage = Self::up(lab, None).await?;
        stage.spread_puts(VALUE_LENGTH).await?;
        Ok(stage)
    }

    /// Puts a random text of this length into every key, as new, and checks that each was put
    /// exactly once.
    pub(super) async fn spread_puts(&mut self, length: usize) -> anyhow::Result<()> {
        for number in 0..KEYS {
            let (key, value) = (format!("k{number}"), Alphanumeric.sample_string(&mut self.random, length));
            let put = self.clerk.put_if(&key, &value, 0).await?;
            // Doubtful: an attempt was executed, and its answer was lost. The check below decides.
            ensure!(matches!(put, Put::Ok | Put::Maybe), "put {key} as new was answered {put:?}");
            self.values.push((key, value));
        }
        self.check_all().await
    }

    /// Every key has its value, put once.
    pub(super) async fn check_all(&mut self) -> anyhow::Result<()> {
        for (key, value) in &self.values {
            check_get(&mut self.clerk, key, value, 1).await?;
        }
        Ok(())
    }

    /// A random time of less than `below` milliseconds.
    pub(super) fn random_ms(&mut self, below: u64) -> u64 {
        self.random.random_range(0..below)
    }

    // Groups.

    /// Starts a group under a new id.
    pub(super) async fn new_group(&mut self) -> anyhow::Result<Group> {
        self.newest += 1;
        start_group(&self.store, self.newest).await
    }

    /// Starts and joins `count` groups, one after the other.
    pub(super) async fn join_new(&mut self, count: u64) -> anyhow::Result<Vec<Group>> {
        let mut joined = Vec::new();
        for _ in 0..count {
            let group = self.new_group().await?;
            self.controller.join(&group).await?;
            joined.push(group);
        }
        Ok(joined)
    }

    /// Lets groups leave, one after the other, and removes them.
    pub(super) async fn leave_and_remove(&self, groups: &[Group]) -> anyhow::Result<()> {
        for group in groups {
            self.controller.leave(group.id).await?;
            self.remove(group).await?;
        }
        Ok(())
    }

    /// Removes a group that left and is done.
    pub(super) async fn remove(&self, group: &Group) -> anyhow::Result<()> {
        self.store.ground.remove(&group.id.to_string()).await
    }

    pub(super) async fn shut(&self, group: u64) -> anyhow::Result<()> {
        self.lab.step(&format!("shut group {group}"));
        self.store.kill_group(group).await
    }

    pub(super) async fn restart(&self, group: u64) -> anyhow::Result<()> {
        self.lab.step(&format!("restart group {group}"));
        self.store.start_group(group).await
    }

    /// Whether a group is joined.
    pub(super) async fn is_member(&self, group: u64) -> anyhow::Result<bool> {
        Ok(self.controller.query().await?.groups.contains_key(&GroupId(group)))
    }

    /// The labs' checkShutdownSharding: without this group not all keys can be read, and those that can are
    /// right.
    pub(super) async fn check_shutdown_sharding(&self, group: u64) -> anyhow::Result<()> {
        self.shut(group).await?;
        let mut gets = JoinSet::new();
        for (key, value) in self.values.clone() {
            let mut clerk = self.store.versioned_client();
            gets.spawn(async move { check_get(&mut clerk, &key, &value, 1).await });
        }
        let mut count = 0;
        while let Ok(Some(got)) = clock::timeout(QUIET, gets.join_next()).await {
            got??;
            count += 1;
        }
        ensure!(
            count < KEYS,
            "all {KEYS} keys were read without group {group}: was everything moved off it?"
        );
        self.restart(group).await
    }

    /// Keys of the shards that `wanted` selects, with their values.
    pub(super) fn keys_where(&self, wanted: impl Fn(u32) -> bool) -> Vec<(String, String)> {
        let is_wanted = |(key, _): &&(String, String)| wanted(self.store.shard_of(key));
        self.values.iter().filter(is_wanted).cloned().collect()
    }

    /// Bytes of the largest table of a group's servers.
    ///
    /// Adapted: the rows as they are read, not as a disk would bring them back. Gets make no
    /// entries here, so nothing makes a small table durable between the checks; the log still has
    /// the deletes.
    pub(super) async fn rows_bytes(&self, group: u64) -> anyhow::Result<usize> {
        let Some(cluster) = self.store.ground.cluster() else {
            return Ok(self.store.bytes(group).await?.1);
        };
        let servers = cluster.seen().into_iter().filter(|seen| *seen.group == *group.to_string());
        let bytes = servers.map(|seen| {
            let rows = seen.probe.table.scan(
                &[],
                None,
                raft::storage::ScanLimit { rows: usize::MAX, bytes: usize::MAX },
            );
            rows.iter().map(|(key, value)| key.len() + value.len()).sum()
        });
        bytes.max().with_context(|| format!("no server of group {group} runs"))
    }
}

/// Starts a group; it owns nothing yet.
pub(super) async fn start_group(store: &Store, id: u64) -> anyhow::Result<Group> {
    store.add_group(id, SERVERS).await?;
    Ok(Group { id, joining: store.newcomers(&[id]).await? })
}

/// The labs' CheckConfig: exactly these groups, every shard on one of them, as evenly as can be.
pub(super) fn check_config(config: &Config, groups: &[u64]) -> anyhow::Result<()> {
    let found: Vec<u64> = config.groups.keys().map(|group| group.0).collect();
    ensure!(found == groups, "the groups are {found:?}, expected {groups:?}");
    let mut counts: BTreeMap<GroupId, u32> = config.groups.keys().map(|group| (*group, 0)).collect();
    for (shard, assignment) in config.assignments() {
        let Some(owner) = assignment.owner else {
            ensure!(groups.is_empty(), "shard {shard} has no owner");
            continue;
        };
        let count = counts
            .get_mut(&owner)
            .with_context(|| format!("shard {shard} is on {owner}, which is no group"))?;
        *count += 1;
    }
    let (most, least) = (counts.values().max(), counts.values().min());
    let uneven = most.zip(least).is_some_and(|(most, least)| *most > least + 1);
    ensure!(!uneven, "the shards are shared unevenly: {counts:?}");
    Ok(())
}
