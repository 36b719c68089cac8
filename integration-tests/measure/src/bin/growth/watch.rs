//! Watches servers, and asks the controllers, while the load runs on the same thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clerk::api::config::shard_of;
use clerk::api::ctrl::Change;
use clerk::api::kv::{KvReply, KvRequest};
use clerk::api::status::{KvStatus, ReplicaStatus, Role};
use clerk::api::{Address, GroupId, ShardId};
use clerk::ctrl::CtrlClerk;
use measure::ours::Ours;
use measure::store::System as _;
use real::process::cpu_time_of;

/// The pause between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
/// The longest wait.
const PATIENCE: Duration = Duration::from_secs(1200);

/// The status that a server of a group reports.
pub(crate) async fn status(ours: &Ours, group: u64, address: &Address) -> Result<KvStatus> {
    let limit = Duration::from_secs(1);
    let asked = ours.connection().kv(address, GroupId(group), KvRequest::Status, limit).await;
    match asked? {
        Ok(KvReply::Status(status)) => Ok(*status),
        Ok(reply) => bail!("{address} answered {reply:?}"),
        Err(refusal) => bail!("{address}: {refusal}"),
    }
}

/// The addresses of a group's servers.
pub(crate) async fn addresses(ours: &Ours, group: u64) -> Result<Vec<Address>> {
    let (_, book) = controllers(ours).query(None).await?;
    let registered = book.groups.get(&GroupId(group));
    registered.map(|it| it.addresses.clone()).with_context(|| format!("group {group} is not known"))
}

/// The leader of a group.
pub(crate) async fn leader(ours: &Ours, group: u64) -> Result<ReplicaStatus> {
    let mut found: Vec<ReplicaStatus> = Vec::new();
    for address in addresses(ours, group).await? {
        found.extend(status(ours, group, &address).await.ok().map(|status| status.replica));
    }
    let leading = found.into_iter().filter(|replica| replica.role == Role::Leader);
    leading.max_by_key(|replica| replica.term).with_context(|| format!("group {group} has no leader"))
}

/// Waits until a server has applied the log up to `index`.
pub(crate) async fn applied(ours: &Ours, group: u64, address: &Address, index: u64) -> Result<()> {
    let start = Instant::now();
    loop {
        let seen = status(ours, group, address).await;
        if seen.as_ref().is_ok_and(|status| status.replica.applied >= index) {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "{address} does not come to entry {index}: {seen:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the servers are nearly idle: compactions that a fill left over must not be measured,
/// and would slow down the other store as well.
pub(crate) async fn quiet(ours: &Ours) -> Result<()> {
    const WINDOW: Duration = Duration::from_secs(2);
    /// A share of one processor; heartbeats take less.
    const IDLE: f64 = 0.1;
    let pids = ours.pids();
    let start = Instant::now();
    loop {
        let before = cpu_time_of(&pids);
        tokio::time::sleep(WINDOW).await;
        if cpu_time_of(&pids).saturating_sub(before) < WINDOW.mul_f64(IDLE) {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "its servers do not come to rest");
    }
}

fn controllers(ours: &Ours) -> CtrlClerk {
    CtrlClerk::new(Arc::clone(ours.connection()), ours.controllers(), rand::random())
}

/// The shard of a key, the group that owns it, and another group.
pub(crate) async fn owner(ours: &Ours, key: &str) -> Result<(ShardId, GroupId, GroupId)> {
    let (config, book) = controllers(ours).query(None).await?;
    let shard = shard_of(key.as_bytes(), config.params.shard_count);
    let owner = config.owner(shard).context("nobody owns the shard")?;
    let other = book.groups.keys().find(|group| **group != owner).context("there is one group only")?;
    Ok((shard, owner, *other))
}

/// Moves a shard back and forth between two groups until `configs` configurations were made, and
/// waits until the last is settled.
pub(crate) async fn move_to_and_fro(ours: &Ours, configs: u64) -> Result<()> {
    let (shard, home, other) = owner(ours, "any").await?;
    let ctrl = controllers(ours);
    for number in 0..configs.next_multiple_of(2) {
        let group = if number % 2 == 0 { other } else { home };
        ctrl.change(Change::Move { shard, group }).await?;
    }
    let start = Instant::now();
    while !ours.cluster().status().settled {
        ensure!(start.elapsed() < PATIENCE, "the configurations do not settle");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    eprintln!("{configs} configurations settled {:?} after the last change", start.elapsed());
    Ok(())
}
