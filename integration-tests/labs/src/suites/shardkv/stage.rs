//! Three controllers, three groups, a clerk that knows what it wrote, and clerks that work beside
//! it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use base::clock;
use clerk::api::GroupId;
use clerk::api::config::{Config, NewGroup};
use rand::RngExt;
use rand::distr::{Alphanumeric, SampleString};
use tokio::task::JoinSet;

use crate::lab::client::Client;
use crate::lab::{Change, Lab, Setup, Store, leave};
use crate::suites::versioned::Done;
use sim::Generator;

pub(super) const SHARDS: u32 = 10;
const SERVERS: u64 = 3;
/// The groups.
pub(super) const GROUPS: [u64; 3] = [100, 101, 102];
/// Concurrent gets are counted until none has ended for this long.
const QUIET: Duration = Duration::from_secs(2);
/// The labs' tolerance above the size that starts a compaction.
const RAFT_STATE_TOLERANCE: usize = 8;

/// The labs' config, clerk, keys and expected values.
pub(super) struct Stage {
    pub(super) lab: Lab,
    pub(super) store: Store,
    pub(super) clerk: Client,
    pub(super) keys: Vec<String>,
    pub(super) values: Vec<String>,
    random: Generator,
    newcomers: BTreeMap<GroupId, NewGroup>,
}

/// A random text of letters and digits.
pub(super) fn text(random: &mut Generator, length: usize) -> String {
    Alphanumeric.sample_string(random, length)
}

impl Stage {
    /// Starts everything; nobody has joined. Ten keys, one in each shard.
    pub(super) async fn up(lab: &Lab, raft_state_max: Option<usize>) -> anyhow::Result<Self> {
        Self::up_with_keys(lab, raft_state_max, SHARDS as usize).await
    }

    /// With `count` keys, the same number in each shard.
    pub(super) async fn up_with_keys(
        lab: &Lab,
        raft_state_max: Option<usize>,
        count: usize,
    ) -> anyhow::Result<Self> {
        let setup = Setup { shards: SHARDS, controllers: SERVERS, raft_state_max };
        let store = lab.store(setup).await?;
        let [one, two, three] = GROUPS;
        let add = |group| store.add_group(group, SERVERS);
        futures::future::try_join3(add(one), add(two), add(three)).await?;
        lab.set_peers(SERVERS);
        // Asked once, while all are up: the labs' Join needs no group that answers.
        let Change::Join(newcomers) = store.newcomers(&GROUPS).await? else {
            anyhow::bail!("newcomers are to join");
        };
        Ok(Self {
            lab: lab.clone(),
            clerk: store.client(),
            keys: keys(&store, count),
            values: vec![String::new(); count],
            random: lab.random("values"),
            newcomers,
            store,
        })
    }

    // Configurations.

    pub(super) async fn join(&self, groups: &[u64]) -> anyhow::Result<()> {
        self.lab.step(&format!("join {groups:?}"));
        let joins = |(group, _): &(&GroupId, &NewGroup)| groups.contains(&group.0);
        let joining = self.newcomers.iter().filter(joins).map(|(group, new)| (*group, new.clone()));
        self.store.change(Change::Join(joining.collect())).await
    }

    pub(super) async fn leave(&self, groups: &[u64]) -> anyhow::Result<()> {
        self.lab.step(&format!("leave {groups:?}"));
        self.store.change(leave(groups)).await
    }

    pub(super) async fn config(&self) -> anyhow::Result<Config> {
        self.store.query(None).await
    }

    // Servers.

    pub(super) async fn shut(&self, group: u64) -> anyhow::Result<()> {
        self.lab.step(&format!("shut group {group}"));
        self.store.kill_group(group).await
    }

    pub(super) async fn restart(&self, group: u64) -> anyhow::Result<()> {
        self.lab.step(&format!("restart group {group}"));
        self.store.start_group(group).await
    }

    /// Shuts server `number` (from 1) of every group.
    pub(super) async fn shut_one_of_each(&self, number: u64) -> anyhow::Result<()> {
        self.lab.step(&format!("shut server {number} of every group"));
        for group in GROUPS {
            self.store.kill(group, number).await?;
        }
        Ok(())
    }

    /// Restarts server `number` of every group.
    pub(super) async fn restart_one_of_each(&self, number: u64) -> anyhow::Result<()> {
        self.lab.step(&format!("restart server {number} of every group"));
        for group in GROUPS {
            self.store.start(group, number).await?;
        }
        Ok(())
    }

    // Keys and values.

    pub(super) fn text(&mut self, length: usize) -> String {
        text(&mut self.random, length)
    }

    pub(super) fn random_ms(&mut self, below: u64) -> u64 {
        self.random.random_range(0..below)
    }

    /// Puts a random text of this length into every key.
    pub(super) async fn put_all(&mut self, length: usize) -> anyhow::Result<()> {
        for number in 0..self.keys.len() {
            let value = self.text(length);
            self.put(number, &value).await?;
        }
        Ok(())
    }

    pub(super) async fn put(&mut self, number: usize, value: &str) -> anyhow::Result<()> {
        self.clerk.put(&self.keys[number], value).await?;
        value.clone_into(&mut self.values[number]);
        Ok(())
    }

    pub(super) async fn check(&mut self, number: usize) -> anyhow::Result<()> {
        self.clerk.check(&self.keys[number], &self.values[number]).await
    }

    pub(super) async fn check_all(&mut self) -> anyhow::Result<()> {
        for number in 0..self.keys.len() {
            self.check(number).await?;
        }
        Ok(())
    }

    /// Checks a key and appends a random text to it.
    pub(super) async fn check_append(&mut self, number: usize, length: usize) -> anyhow::Result<()> {
        self.check(number).await?;
        let piece = self.text(length);
        self.clerk.append(&self.keys[number], &piece).await?;
        self.values[number] += &piece;
        Ok(())
    }

    pub(super) async fn check_append_all(&mut self, length: usize) -> anyhow::Result<()> {
        for number in 0..self.keys.len() {
            self.check_append(number, length).await?;
        }
        Ok(())
    }

    // Judges.

    /// No server's log may be larger than eight times the limit that starts a compaction.
    ///
    /// Adapted: without a limit the labs want that there is no snapshot. Our state is always rows; what must
    /// not be there is a compacted log, and only the simulator can look into one.
    pub(super) async fn check_logs(&self) -> anyhow::Result<()> {
        let servers = GROUPS.into_iter().flat_map(|group| self.store.servers(group));
        for server in servers {
            if let Some(max) = self.store.setup.raft_state_max {
                let (log, _) = self.store.ground.bytes(&server).await?;
                let allowed = RAFT_STATE_TOLERANCE * max;
                ensure!(log <= allowed, "the log of {server} has {log} bytes, at most {allowed} are allowed");
            } else if let Some(cluster) = self.store.ground.cluster() {
                let marker = cluster.compacted(&server);
                ensure!(
                    marker.index.0 == 0,
                    "{server} compacted its log up to {marker:?}, and nobody asked for it"
                );
            }
        }
        Ok(())
    }

    /// Ten new clerks, made by `clerk`, read one key each, all at once. Returns how many came back
    /// before none did for two seconds.
    pub(super) async fn count_gets(&self, clerk: impl Fn() -> Client) -> anyhow::Result<usize> {
        let mut gets = JoinSet::new();
        for (key, value) in self.keys.iter().zip(&self.values) {
            let (mut clerk, key, value) = (clerk(), key.clone(), value.clone());
            gets.spawn(async move { clerk.check(&key, &value).await });
        }
        let mut count = 0;
        while let Ok(Some(got)) = clock::timeout(QUIET, gets.join_next()).await {
            got??;
            count += 1;
        }
        Ok(count)
    }

    // Clerks beside the scenario's.

    /// One new clerk per key: appends texts of this length, with a pause after each if one is
    /// given.
    pub(super) fn appenders(&self, length: usize, pause_ms: Option<u64>) -> Workers {
        self.workers(|number, mut clerk, mut random, done| {
            let (lab, key) = (self.lab.clone(), self.keys[number].clone());
            let mut value = self.values[number].clone();
            async move {
                while !done.is_over() {
                    let piece = text(&mut random, length);
                    clerk.append(&key, &piece).await?;
                    value += &piece;
                    if let Some(pause_ms) = pause_ms {
                        lab.sleep(pause_ms).await;
                    }
                }
                Ok(value)
            }
        })
    }

    /// As many new clerks as keys, each with its number and its own generator.
    pub(super) fn workers<F>(&self, work: impl Fn(usize, Client, Generator, Done) -> F) -> Workers
    where
        F: Future<Output = anyhow::Result<String>> + Send + 'static,
    {
        let done = Done::default();
        let mut tasks = JoinSet::new();
        for number in 0..self.keys.len() {
            let random = self.lab.random(&format!("worker {number}"));
            let work = work(number, self.store.client(), random, done.clone());
            tasks.spawn(async move { Ok((number, work.await.with_context(|| format!("clerk {number}"))?)) });
        }
        Workers { done, tasks }
    }

    /// Stops the appenders and takes over what they wrote.
    pub(super) async fn stop(&mut self, workers: Workers) -> anyhow::Result<()> {
        self.lab.step("stop the clerks");
        for (number, value) in workers.stop().await? {
            self.values[number] = value;
        }
        Ok(())
    }
}

/// Clerks at work, in tasks that end with this value.
pub(super) struct Workers {
    done: Done,
    tasks: JoinSet<anyhow::Result<(usize, String)>>,
}

impl Workers {
    /// Tells them to stop and waits for each; returns their results, by number.
    pub(super) async fn stop(mut self) -> anyhow::Result<BTreeMap<usize, String>> {
        self.done.tell();
        let mut brought = BTreeMap::new();
        while let Some(worker) = self.tasks.join_next().await {
            brought.extend([worker??]);
        }
        Ok(brought)
    }
}

/// This many keys, the same number in each shard; the first ten are of shards 0 to 9.
fn keys(store: &Store, count: usize) -> Vec<String> {
    let of_shard =
        |shard| (0_u32..).map(|number| number.to_string()).filter(move |key| store.shard_of(key) == shard);
    let mut shards: Vec<_> = (0..SHARDS).map(of_shard).collect();
    let mut keys = Vec::with_capacity(count);
    while keys.len() < count {
        keys.extend(shards.iter_mut().filter_map(Iterator::next));
    }
    keys
}
