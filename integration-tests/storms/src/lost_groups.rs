//! Shards whose rows are lost with a group, or with one that seems to be lost (rule 143).
//!
//! First a source is cut off after it has sealed a shard and before the new owner has it. The shard is
//! declared lost, and the source comes back without the controllers: it must not serve again. Then a
//! group dies forever in the middle of moves. What it had begins anew, empty, with versions above the
//! old ones, and all other shards have lost nothing. One group at most serves a shard at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use clerk::api::config::{SLOTS, shard_of};
use clerk::api::ctrl::Change;
use clerk::api::{ConfigNum, GroupId, ShardId, Version};
use clerk::ctrl::CtrlClerk;
use clerk::kv::{Clerk, Got, Options};
use rand::RngExt;
use shardkv::machine::Standing;
use shardkv::shard::ShardState;

use super::{Report, at_least};
use sim::cluster::{Cluster, Kind, Shape};
use sim::{Failure, Generator, Name, World, invariants, run};

pub(super) const GROUPS: [GroupId; 3] = [GroupId(101), GroupId(102), GroupId(103)];
pub(super) const SHARDS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(20);
/// Between Seal and Activate there is a message, and no more.
const LOOK: Duration = Duration::from_micros(50);

/// A run of one seed.
///
/// # Errors
/// What it violated.
pub fn play(seed: u64) -> Result<Report, Failure> {
    let outcome = run(seed, |world| async move { lose_groups(world).await });
    let done = outcome.map_err(|failure| Failure { seed, ..failure })?;
    Ok(Report { trace: done.trace, events: done.events, ..done.output })
}

/// A cluster whose groups have joined, with an operator and a client.
pub(super) struct Stage {
    world: World,
    pub(super) cluster: Cluster,
    ctrl: CtrlClerk,
    pub(super) clerk: Clerk,
    /// What each key was at last, by its shard: one key for each.
    known: BTreeMap<ShardId, (Bytes, Version)>,
    random: Generator,
    written: u64,
}

async fn lose_groups(world: World) -> Result<Report, String> {
    let mut stage = Stage::set(&world).await?;
    stage.write_all().await?;
    let caught = stage.cut_a_source_off().await?;
    world.note(&format!("a source was cut off in mid-move: {caught}"));
    let lost = stage.lose_a_group().await?;
    at_least("shards that were lost", lost as u64, 1)?;
    let (configs, acknowledged) = (stage.config().await?.0, stage.written);
    let mut report = Report { configs, acknowledged, ..Report::default() };
    report.tally.interrupted = u64::from(caught);
    Ok(report)
}

fn key_of(shard: ShardId) -> Bytes {
    let mut keys = (0..SLOTS).map(|number| Bytes::from(format!("k{number}")));
    keys.find(|key| shard_of(key, SHARDS) == shard).unwrap_or_default()
}

fn shards() -> impl Iterator<Item = ShardId> {
    (0..SHARDS).map(ShardId)
}

fn clerk_of(cluster: &Cluster, world: &World, name: &str) -> Clerk {
    let options = Options { seed: world.derive(name), deadline: PATIENCE, sessions: true };
    Clerk::new(Arc::new(cluster.client(name)), cluster.addresses("ctrl"), options)
}

impl Stage {
    /// Another client.
    pub(super) fn clerk_named(&self, name: &str) -> Clerk {
        clerk_of(&self.cluster, &self.world, name)
    }

    pub(super) async fn set(world: &World) -> Result<Self, String> {
        let cluster = Cluster::new(world, Shape::drawn(world));
        invariants::watch(&cluster);
        cluster.add(Kind::Ctrl, 3);
        for group in GROUPS {
            cluster.add(Kind::Kv(group), 3);
        }
        cluster.ready(Duration::from_secs(10)).await?;
        let admin = sim::clerks::Admin::new(&cluster);
        let mut newcomers = BTreeMap::new();
        for group in GROUPS {
            newcomers.insert(group, admin.newcomer(group, cluster.addresses(&group.to_string())).await?);
        }
        let addresses = cluster.addresses("ctrl");
        let ctrl = CtrlClerk::new(Arc::new(cluster.client("operator")), addresses, world.derive("operator"));
        let clerk = clerk_of(&cluster, world, "client");
        let random = world.generator("lost groups");
        let world = world.clone();
        let stage = Self { world, cluster, ctrl, clerk, known: BTreeMap::new(), random, written: 0 };
        stage.change(Change::Join(newcomers)).await?;
        stage.settle(&GROUPS).await?;
        Ok(stage)
    }

    pub(super) async fn change(&self, change: Change) -> Result<ConfigNum, String> {
        Ok(self.ctrl.change(change).await.map_err(|error| error.to_string())?.config)
    }

    pub(super) async fn config(&self) -> Result<ConfigNum, String> {
        Ok(self.ctrl.query(None).await.map_err(|error| error.to_string())?.0.num)
    }

    /// What the leader of a group has applied.
    fn standing(&self, group: GroupId) -> Option<Standing> {
        Some(self.cluster.leader(&group.to_string())?.probe.standing?.borrow().clone())
    }

    fn state(&self, group: GroupId, shard: ShardId) -> Option<ShardState> {
        self.standing(group)?.shards.get(shard.0 as usize).copied()
    }

    /// Waits until these groups have adopted the newest configuration and no shard of theirs moves.
    pub(super) async fn settle(&self, groups: &[GroupId]) -> Result<(), String> {
        let newest = Some(self.config().await?);
        let is_settled = |group: &GroupId| {
            self.standing(*group)
                .is_some_and(|it| it.config == newest && it.shards.iter().all(|it| it.settled()))
        };
        self.until("settled", PATIENCE, || groups.iter().all(is_settled)).await
    }

    async fn until(&self, what: &str, limit: Duration, is_so: impl Fn() -> bool) -> Result<(), String> {
        let start = clock::now();
        while !is_so() {
            if start.elapsed() > limit {
                return Err(format!("not {what} after {limit:?}"));
            }
            clock::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn write_all(&mut self) -> Result<(), String> {
        for shard in shards() {
            self.write(shard).await?;
        }
        Ok(())
    }

    /// Writes a value that never was; returns its version.
    async fn write(&mut self, shard: ShardId) -> Result<Version, String> {
        self.written += 1;
        let value = Bytes::from(format!("value {} {}", self.written, "x".repeat(100)));
        let put = self.clerk.put(key_of(shard), value.clone()).await;
        let version = put.map_err(|error| format!("shard {shard}: {error}"))?;
        let before = self.known.insert(shard, (value, version)).map_or(Version(0), |(_, before)| before);
        if version <= before {
            return Err(format!("shard {shard}: version {version} came after {before}"));
        }
        Ok(version)
    }

    /// Each shard has what was written at last; those that were lost have nothing.
    async fn check(&self, lost: &BTreeSet<ShardId>) -> Result<(), String> {
        for (shard, (value, version)) in &self.known {
            let got =
                self.clerk.get(key_of(*shard)).await.map_err(|error| format!("shard {shard}: {error}"))?;
            let expected = match lost.contains(shard) {
                true => Got { value: None, version: Version(0) },
                false => Got { value: Some(value.clone()), version: *version },
            };
            if got != expected {
                return Err(format!("shard {shard} has {got:?}, expected {expected:?}"));
            }
        }
        Ok(())
    }

    async fn declare_lost(&self, shards: BTreeSet<ShardId>) -> Result<(), String> {
        let (config, _) = self.ctrl.query(None).await.map_err(|error| error.to_string())?;
        self.change(Change::DeclareLost { shards, made_from: config.place() }).await.map(drop)
    }

    /// Links or cuts each server of one group and each server of another, both ways.
    fn link(&self, one: &str, other: &str, enabled: bool) {
        let names = |group: &str| -> Vec<Name> {
            self.cluster.names().into_iter().filter(|name| *sim::cluster::group_of(name) == *group).collect()
        };
        for one in names(one) {
            for other in names(other) {
                self.cluster.network.link(&one, &other, enabled);
            }
        }
    }

    /// Returns whether some source was caught between Seal and the end of its move.
    async fn cut_a_source_off(&mut self) -> Result<bool, String> {
        let [from, to, _] = GROUPS;
        for shard in shards() {
            if !self.state(from, shard).is_some_and(ShardState::serves) {
                continue;
            }
            self.change(Change::Move { shard, group: to }).await?;
            let sealed =
                || matches!(self.state(from, shard), Some(ShardState::Handing { .. } | ShardState::Absent));
            self.until("sealed", PATIENCE, sealed).await?;
            for other in ["ctrl", "102", "103"] {
                self.link("101", other, false);
            }
            clock::sleep(Duration::from_secs(2)).await;
            if matches!(self.state(to, shard), Some(ShardState::Awaiting { .. })) {
                self.begin_beside_a_source(shard).await?;
                return Ok(true);
            }
            self.cluster.network.heal();
            // It gets the shard back: there is something to lose later.
            self.change(Change::Move { shard, group: from }).await?;
            self.settle(&GROUPS).await?;
        }
        Ok(false)
    }

    async fn begin_beside_a_source(&mut self, shard: ShardId) -> Result<(), String> {
        let [from, to, other] = GROUPS;
        self.declare_lost([shard].into()).await?;
        self.settle(&[to, other]).await?;
        self.check_one_lost(shard).await?;
        self.write(shard).await?;
        // The source comes back, without the controllers: it can only ask the new owner.
        self.link("101", "102", true);
        self.link("101", "103", true);
        clock::sleep(Duration::from_secs(3)).await;
        if self.state(from, shard).is_none_or(ShardState::serves) {
            return Err(format!("group {from} serves the old life of shard {shard} again"));
        }
        self.cluster.network.heal();
        self.settle(&GROUPS).await?;
        self.check(&BTreeSet::new()).await
    }

    async fn check_one_lost(&self, shard: ShardId) -> Result<(), String> {
        let got = self.clerk.get(key_of(shard)).await.map_err(|error| format!("shard {shard}: {error}"))?;
        match got.value {
            None => Ok(()),
            Some(value) => Err(format!("shard {shard} still has {value:?}")),
        }
    }

    /// Loses a group in mid-move, forever; returns the number of shards that were lost with it.
    async fn lose_a_group(&mut self) -> Result<usize, String> {
        let victim = GROUPS[self.random.random_range(0..GROUPS.len())];
        let staying: Vec<GroupId> = GROUPS.into_iter().filter(|group| *group != victim).collect();
        for _ in 0..4 {
            let shard = ShardId(self.random.random_range(0..SHARDS));
            let group = GROUPS[self.random.random_range(0..GROUPS.len())];
            self.change(Change::Move { shard, group }).await?;
        }
        clock::sleep(Duration::from_micros(self.random.random_range(0..30_000))).await;
        self.cluster.remove(&victim.to_string());
        self.change(Change::Leave { groups: [victim].into(), force: false }).await?;
        let newest = Some(self.config().await?);
        let is_there = |group: &GroupId| self.standing(*group).is_some_and(|it| it.config == newest);
        self.until("adopted", PATIENCE, || staying.iter().all(is_there)).await?;
        // What moves between groups that live arrives.
        clock::sleep(Duration::from_secs(5)).await;
        let serves = |group: &GroupId, shard| self.state(*group, shard).is_some_and(ShardState::serves);
        let lost: BTreeSet<ShardId> =
            shards().filter(|shard| !staying.iter().any(|group| serves(group, *shard))).collect();
        let count = lost.len();
        if count > 0 {
            self.declare_lost(lost.clone()).await?;
        }
        self.settle(&staying).await?;
        self.check(&lost).await?;
        let floor = self.config().await?.0 << 32;
        for shard in shards() {
            let version = self.write(shard).await?;
            if lost.contains(&shard) && version.0 <= floor {
                return Err(format!("shard {shard} begins at version {version}"));
            }
        }
        for name in self.cluster.names() {
            self.cluster.crash(&name);
        }
        self.cluster.start_all();
        self.cluster.ready(Duration::from_secs(10)).await?;
        self.check(&BTreeSet::new()).await?;
        Ok(count)
    }
}
