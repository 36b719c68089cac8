//! Lab 5A with clients that put at one key all the time.

use anyhow::Context;

use super::stage::{MANY_GROUPS, Stage};
use crate::lab::{Lab, Net, Store};
use crate::suites::versioned::{Puts, check_put_concurrent, one_client_put, spawn_clients_and_wait};

/// The key all clients put at.
const KEY: &str = "k0";

/// Clients put for `ms` milliseconds; returns their results together.
pub(super) async fn put_for(store: Store, clients: u64, ms: u64) -> anyhow::Result<Puts> {
    let work =
        |me, client, done| async move { one_client_put(client, me, &[KEY.to_owned()], None, done).await };
    let brought = spawn_clients_and_wait(&store, clients, ms, work).await?;
    Ok(brought.into_iter().sum())
}

/// The sums must be right, to the last put if nothing can have been lost.
pub(super) async fn check_puts(stage: &mut Stage, puts: Puts, nothing_lost: bool) -> anyhow::Result<()> {
    check_put_concurrent(&mut stage.clerk, KEY, puts, nothing_lost).await
}

/// N11 to N14: clients put for twenty seconds while eight groups join and leave.
pub(super) async fn concurrent(lab: Lab, clients: u64) -> anyhow::Result<()> {
    const LASTS_MS: u64 = 20_000;
    let mut stage = Stage::up(&lab, None).await?;
    let putting = tokio::spawn(put_for(stage.store.clone(), clients, LASTS_MS));
    let joined = stage.join_new(MANY_GROUPS).await?;
    stage.leave_and_remove(&joined).await?;
    let puts = putting.await?.context("a client")?;
    let reliable = lab.net() == Net::Reliable;
    check_puts(&mut stage, puts, reliable).await
}
