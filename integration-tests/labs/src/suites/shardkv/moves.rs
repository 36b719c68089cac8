//! Shards that move while clients work, servers fail, and the network loses messages.

use std::time::Duration;

use base::clock;
use rand::RngExt;

use super::stage::{GROUPS, Stage, Workers, text};
use crate::lab::{Lab, Net};

/// H03: data follows its shard to a group that joins, and back out of one that leaves.
pub(super) async fn join_leave(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up(&lab, None).await?;
    stage.join(&[100]).await?;
    stage.put_all(5).await?;
    stage.check_all().await?;
    stage.join(&[101]).await?;
    stage.check_append_all(5).await?;
    stage.leave(&[100]).await?;
    stage.check_append_all(5).await?;
    // By then the data must be gone from group 100.
    lab.sleep(1000).await;
    stage.check_logs().await?;
    stage.shut(100).await?;
    stage.check_all().await
}

/// H04: the same with compacted logs, and all servers restart.
pub(super) async fn snapshot(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up_with_keys(&lab, Some(1000), 30).await?;
    stage.join(&[100]).await?;
    stage.put_all(20).await?;
    stage.check_all().await?;
    stage.join(&[101]).await?;
    stage.join(&[102]).await?;
    stage.leave(&[100]).await?;
    stage.check_append_all(20).await?;
    stage.leave(&[101]).await?;
    stage.join(&[100]).await?;
    stage.check_append_all(20).await?;
    lab.sleep(1000).await;
    stage.check_all().await?;
    lab.sleep(1000).await;
    stage.check_logs().await?;
    shut_all(&stage).await?;
    restart_all(&stage).await?;
    stage.check_all().await
}

/// H05: servers that were down while the configuration changed learn of it.
pub(super) async fn miss_change(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up(&lab, Some(1000)).await?;
    stage.join(&[100]).await?;
    stage.put_all(20).await?;
    stage.check_all().await?;
    stage.join(&[101]).await?;
    stage.shut_one_of_each(1).await?;
    stage.join(&[102]).await?;
    stage.leave(&[101]).await?;
    stage.leave(&[100]).await?;
    stage.check_append_all(20).await?;
    stage.join(&[101]).await?;
    stage.check_append_all(20).await?;
    stage.restart_one_of_each(1).await?;
    stage.check_append_all(20).await?;
    lab.sleep(2000).await;
    stage.shut_one_of_each(2).await?;
    stage.join(&[100]).await?;
    stage.leave(&[102]).await?;
    stage.check_append_all(20).await?;
    stage.restart_one_of_each(2).await?;
    stage.check_all().await
}

/// H06: appends while groups join, leave, stop in mid-move and come back.
pub(super) async fn concurrent_1(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up(&lab, Some(100)).await?;
    stage.join(&[100]).await?;
    stage.put_all(5).await?;
    let appenders = stage.appenders(5, Some(10));
    lab.sleep(150).await;
    stage.join(&[101]).await?;
    lab.sleep(500).await;
    stage.join(&[102]).await?;
    lab.sleep(500).await;
    stage.leave(&[100]).await?;
    stage.shut(100).await?;
    lab.sleep(100).await;
    stage.shut(101).await?;
    lab.sleep(100).await;
    stage.shut(102).await?;
    stage.leave(&[102]).await?;
    lab.sleep(100).await;
    restart_all(&stage).await?;
    lab.sleep(100).await;
    stage.join(&[100]).await?;
    stage.leave(&[101]).await?;
    lab.sleep(500).await;
    stage.join(&[101]).await?;
    lab.sleep(1000).await;
    stage.stop(appenders).await?;
    stage.check_all().await
}

/// H07: all shards go from group to group, and back.
pub(super) async fn concurrent_2(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up(&lab, None).await?;
    for group in [101, 100, 102] {
        stage.join(&[group]).await?;
    }
    stage.put_all(1).await?;
    let appenders = stage.appenders(1, Some(50));
    stage.leave(&[100]).await?;
    stage.leave(&[102]).await?;
    lab.sleep(3000).await;
    stage.join(&[100]).await?;
    stage.join(&[102]).await?;
    stage.leave(&[101]).await?;
    lab.sleep(3000).await;
    stage.join(&[101]).await?;
    stage.leave(&[100]).await?;
    stage.leave(&[102]).await?;
    lab.sleep(3000).await;
    stage.shut(101).await?;
    stage.shut(102).await?;
    lab.sleep(1000).await;
    stage.restart(101).await?;
    stage.restart(102).await?;
    lab.sleep(2000).await;
    stage.stop(appenders).await?;
    stage.check_all().await
}

/// H08: all groups restart again and again in mid-move.
pub(super) async fn concurrent_3(lab: Lab) -> anyhow::Result<()> {
    const LASTS: Duration = Duration::from_secs(12);
    let mut stage = Stage::up(&lab, Some(300)).await?;
    stage.join(&[100]).await?;
    stage.put_all(1).await?;
    let appenders = stage.appenders(1, None);
    let start = clock::now();
    while start.elapsed() < LASTS {
        stage.join(&[102]).await?;
        stage.join(&[101]).await?;
        pause(&mut stage).await;
        shut_all(&stage).await?;
        restart_all(&stage).await?;
        pause(&mut stage).await;
        stage.leave(&[101]).await?;
        stage.leave(&[102]).await?;
        pause(&mut stage).await;
    }
    lab.sleep(2000).await;
    stage.stop(appenders).await?;
    stage.check_all().await
}

/// H09: one clerk on a network that loses messages.
pub(super) async fn unreliable_1(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up(&lab, Some(100)).await?;
    stage.join(&[100]).await?;
    stage.put_all(5).await?;
    stage.join(&[101]).await?;
    stage.join(&[102]).await?;
    stage.leave(&[100]).await?;
    for number in 0..20 {
        stage.check_append(number % 10, 5).await?;
    }
    stage.join(&[100]).await?;
    stage.leave(&[101]).await?;
    for number in 0..20 {
        stage.check(number % 10).await?;
    }
    Ok(())
}

/// H10: appends on a network that loses messages.
pub(super) async fn unreliable_2(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up(&lab, Some(100)).await?;
    stage.join(&[100]).await?;
    stage.put_all(5).await?;
    let appenders = stage.appenders(5, None);
    come_and_go(&stage).await?;
    stage.store.set_net(Net::Reliable)?;
    stage.stop(appenders).await?;
    stage.check_all().await
}

/// H11: every kind of operation, at random keys; the history of all clients is the judge.
pub(super) async fn unreliable_3(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::up(&lab, Some(100)).await?;
    stage.join(&[100]).await?;
    stage.put_all(5).await?;
    let clerks = random_clerks(&stage);
    come_and_go(&stage).await?;
    stage.store.set_net(Net::Reliable)?;
    clerks.stop().await.map(drop)
}

/// Clerks that append half of the time, and otherwise put once in ten, or get; at random keys.
fn random_clerks(stage: &Stage) -> Workers {
    stage.workers(|_, mut clerk, mut random, done| {
        let keys = stage.keys.clone();
        async move {
            while !done.is_over() {
                let key = &keys[random.random_range(0..keys.len())];
                if random.random_bool(0.5) {
                    clerk.append(key, &text(&mut random, 5)).await?;
                } else if random.random_bool(0.1) {
                    clerk.put(key, &text(&mut random, 5)).await?;
                } else {
                    clerk.get(key).await?;
                }
            }
            Ok(String::new())
        }
    })
}

/// The changes of H10 and H11.
async fn come_and_go(stage: &Stage) -> anyhow::Result<()> {
    stage.lab.sleep(150).await;
    stage.join(&[101]).await?;
    stage.lab.sleep(500).await;
    stage.join(&[102]).await?;
    stage.lab.sleep(500).await;
    stage.leave(&[100]).await?;
    stage.lab.sleep(500).await;
    stage.leave(&[101]).await?;
    stage.lab.sleep(500).await;
    stage.join(&[101]).await?;
    stage.join(&[100]).await?;
    stage.lab.sleep(2000).await;
    Ok(())
}

async fn pause(stage: &mut Stage) {
    let ms = stage.random_ms(900);
    stage.lab.sleep(ms).await;
}

async fn shut_all(stage: &Stage) -> anyhow::Result<()> {
    for group in GROUPS {
        stage.shut(group).await?;
    }
    Ok(())
}

async fn restart_all(stage: &Stage) -> anyhow::Result<()> {
    for group in GROUPS {
        stage.restart(group).await?;
    }
    Ok(())
}
