//! Rows about a lot of data that has to be read or sent at once.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clerk::api::Address;
use measure::load::{self, Measured, Scale, Work};
use measure::ours::Ours;
use measure::summary::figure;

use crate::args::Args;
use crate::rows::{KEYS, VALUE_BYTES, fill_mib};
use crate::{Limit, Line, watch};

const GROUP: u64 = 101;
/// The time limit of a start.
const START_SECONDS: f64 = 5.0;
/// The least speed at which a follower catches up, and a shard moves.
const MIB_PER_SECOND: f64 = 100.0;
/// Slow calls may take this many times as long meanwhile.
const P99_TIMES: f64 = 2.0;
/// The load beside it: light, so that its times are those of the store and not of a queue.
const BESIDE: Work = Work { clients: 4, reads: 50, batch: 1 };

/// A follower of the group: its name and its address.
async fn follower(ours: &Ours) -> Result<(String, Address)> {
    let leader = ours.cluster().leader(GROUP);
    let status = ours.cluster().status();
    let other = status.group(GROUP).iter().find(|replica| replica.name != leader);
    other.map(|replica| (replica.name.clone(), replica.address.clone())).context("a follower")
}

/// Starts a server while others continue their work on this thread.
async fn start(ours: &Ours, name: &str) -> Result<()> {
    let mut command = ours.cluster().command(&["start", name]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "clerk start {name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Measures the time from the start of a follower with a large table until it has applied what the
/// leader had committed.
pub(crate) async fn restart(args: &Args) -> Result<Vec<Line>> {
    let ours = Ours::start();
    fill_mib(&ours, "large", args).await?;
    let (name, address) = follower(&ours).await?;
    let commit = watch::leader(&ours, GROUP).await?.commit;
    watch::applied(&ours, GROUP, &address, commit).await?;
    ours.cluster().ok(&["kill", &name]);
    let begun = Instant::now();
    let (started, applied) =
        tokio::join!(start(&ours, &name), watch::applied(&ours, GROUP, &address, commit));
    started.and(applied)?;
    let what = format!("start with a table of {} MiB, until it follows", args.mib);
    let measured = begun.elapsed().as_secs_f64();
    Ok(vec![Line { what, measured, unit: "s", limit: Limit::AtMost(START_SECONDS) }])
}

/// A follower that missed much catches up, under a light load.
pub(crate) async fn catch_up(args: &Args) -> Result<Vec<Line>> {
    let ours = Ours::start();
    load::fill(&ours, 0..KEYS, VALUE_BYTES).await?;
    let (name, address) = follower(&ours).await?;
    ours.cluster().ok(&["kill", &name]);
    fill_mib(&ours, "missed", args).await?;
    watch::quiet(&ours).await?;
    let scale = Scale { time: args.seconds, ..Scale::default() };
    let before = load::run(&ours, BESIDE, scale).await?;
    let commit = watch::leader(&ours, GROUP).await?.commit;
    let repair = async {
        let begun = Instant::now();
        start(&ours, &name).await?;
        watch::applied(&ours, GROUP, &address, commit).await?;
        Ok(begun.elapsed())
    };
    let (during, took) = load::run_during(&ours, BESIDE, scale, repair).await?;
    let speed = args.mib as f64 / took.as_secs_f64();
    let what = format!("{} MiB missed, caught up in {} s", args.mib, figure(took.as_secs_f64()));
    Ok(vec![
        Line { what, measured: speed, unit: "MiB/s", limit: Limit::AtLeast(MIB_PER_SECOND) },
        slower(&before, &during),
    ])
}

fn slower(before: &Measured, during: &Measured) -> Line {
    let what = format!("p99 beside it {} -> {} ms", figure(before.p99_ms), figure(during.p99_ms));
    Line { what, measured: during.p99_ms / before.p99_ms, unit: "x", limit: Limit::AtMost(P99_TIMES) }
}

/// A large shard moves to another group.
pub(crate) async fn move_shard(args: &Args) -> Result<Vec<Line>> {
    const TAG: &str = "large";
    let ours = Ours::up(&["--groups", "2"]);
    fill_mib(&ours, TAG, args).await?;
    let (shard, _, to) = watch::owner(&ours, TAG).await?;
    let mut command =
        ours.cluster().command(&["move", &shard.to_string(), &to.to_string(), "--timeout", "1200"]);
    let begun = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let took = begun.elapsed().as_secs_f64();
    ensure!(output.status.success(), "clerk move: {}", String::from_utf8_lossy(&output.stderr));
    let what = format!("a shard of {} MiB, settled in {} s", args.mib, figure(took));
    let (measured, limit) = (args.mib as f64 / took, Limit::AtLeast(MIB_PER_SECOND));
    Ok(vec![Line { what, measured, unit: "MiB/s", limit }])
}
