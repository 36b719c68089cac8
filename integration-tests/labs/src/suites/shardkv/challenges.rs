//! The labs' challenges: a group deletes what it handed over, and serves what it has while it waits
//! for more.

use anyhow::ensure;
use clerk::api::GroupId;
use clerk::api::ShardId;

use super::stage::{GROUPS, Stage};
use crate::lab::Lab;

/// H12: shards go round with every log compacted after every entry; then all servers together may
/// not hold more than each shard's owners need.
pub(super) async fn delete(lab: Lab) -> anyhow::Result<()> {
    const KEYS: usize = 30;
    const VALUE_BYTES: usize = 1000;
    const BYTES_MAX: usize = 3 * ((KEYS - 3) * 1000 + 2 * 3 * 1000 + 6000);
    let mut stage = Stage::up_with_keys(&lab, Some(1), KEYS).await?;
    stage.join(&[100]).await?;
    stage.put_all(VALUE_BYTES).await?;
    check_three(&mut stage).await?;
    for _ in 0..2 {
        stage.join(&[101]).await?;
        stage.leave(&[100]).await?;
        stage.join(&[102]).await?;
        lab.sleep(3000).await;
        check_three(&mut stage).await?;
        stage.leave(&[101]).await?;
        stage.join(&[100]).await?;
        stage.leave(&[102]).await?;
        lab.sleep(3000).await;
        check_three(&mut stage).await?;
    }
    stage.join(&[101]).await?;
    stage.join(&[102]).await?;
    for _ in 0..3 {
        lab.sleep(1000).await;
        check_three(&mut stage).await?;
    }
    let mut total = 0;
    for server in GROUPS.into_iter().flat_map(|group| stage.store.servers(group)) {
        let (log, rows) = stage.store.ground.bytes(&server).await?;
        total += log + rows;
    }
    ensure!(
        total <= BYTES_MAX,
        "the servers hold {total} bytes of log and rows, at most {BYTES_MAX} are allowed"
    );
    stage.check_all().await
}

async fn check_three(stage: &mut Stage) -> anyhow::Result<()> {
    for number in 0..3 {
        stage.check(number).await?;
    }
    Ok(())
}

/// The keys whose shards belong to `group` now.
async fn keys_of(stage: &Stage, group: u64) -> anyhow::Result<Vec<usize>> {
    let config = stage.config().await?;
    let owned = |key: &String| config.owner(ShardId(stage.store.shard_of(key))) == Some(GroupId(group));
    let keys = stage.keys.iter().enumerate().filter(|(_, key)| owned(key)).map(|(number, _)| number);
    Ok(keys.collect())
}

/// Each of these keys can be read and written: checked, put with `mark` after its value, and
/// checked.
async fn use_keys(stage: &mut Stage, keys: &[usize], mark: &str) -> anyhow::Result<()> {
    for number in keys {
        stage.check(*number).await?;
        let value = format!("{}{mark}", stage.values[*number]);
        stage.put(*number, &value).await?;
        stage.check(*number).await?;
    }
    Ok(())
}

async fn put_everywhere(stage: &mut Stage, value: &str) -> anyhow::Result<()> {
    for number in 0..stage.keys.len() {
        stage.put(number, value).await?;
    }
    Ok(())
}

/// H13: a group keeps serving its shards while it waits for others that cannot arrive.
pub(super) async fn unaffected(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up(&lab, Some(100)).await?;
    stage.join(&[100]).await?;
    put_everywhere(&mut stage, "100").await?;
    stage.join(&[101]).await?;
    let owned = keys_of(&stage, 101).await?;
    lab.sleep(1000).await;
    for number in &owned {
        stage.put(*number, "101").await?;
    }
    stage.shut(100).await?;
    // Group 101 owns everything now, and the rest can never arrive.
    stage.leave(&[100]).await?;
    lab.sleep(1000).await;
    use_keys(&mut stage, &owned, "-1").await
}

/// H14: of the shards that come from two groups at once, those that can arrive do, and are served.
pub(super) async fn partial(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up(&lab, Some(100)).await?;
    stage.join(&GROUPS).await?;
    lab.sleep(1000).await;
    put_everywhere(&mut stage, "100").await?;
    let owned = keys_of(&stage, 102).await?;
    stage.shut(100).await?;
    stage.leave(&[100, 102]).await?;
    lab.sleep(1000).await;
    use_keys(&mut stage, &owned, "-2").await
}
