//! The versioned key/value server of 6.5840 2025 and 2026 (Lab 2, kvsrv1): a put names the version it
//! replaces, so that it is at most once without any table of clients.
//!
//! Adapted: the server is a group with one member, the clerks have no sessions, and memory is what the server
//! keeps in rows.

use anyhow::{Context, ensure};
use bytes::Bytes;
use clerk::api::Version;
use clerk::kv::{Clerk, Error};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::kvsrv::crowd;
use super::versioned::{Puts, check_put_concurrent, one_client_put, spawn_clients_and_wait};
use crate::lab::Lab;
use crate::lab::client::Put;
use crate::sheet::{Scenario, scenario};

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("S01", reliable_put),
        scenario("S02", put_concurrent),
        scenario("S03", |lab| many_put_clients(lab, 20_000, 10)),
        scenario("S03-2025", |lab| many_put_clients(lab, 100_000, 200)),
        scenario("S04", unreliable_net),
    ]
}

async fn reliable_put(lab: Lab) -> anyhow::Result<()> {
    let store = lab.one_group(1, None).await?;
    let mut client = store.versioned_client();
    let mut put_is = async |key, version, expected: Put| {
        let put = client.put_if(key, "6.5840", version).await?;
        ensure!(
            put == expected,
            "put {key} at version {version} was answered {put:?}, expected {expected:?}"
        );
        anyhow::Ok(())
    };
    put_is("k", 0, Put::Ok).await?;
    put_is("k", 0, Put::Version).await?;
    put_is("y", 1, Put::NoKey).await?;
    client.check_version("k", "6.5840", 1).await?;
    client.check_version("y", "", 0).await
}

async fn put_concurrent(lab: Lab) -> anyhow::Result<()> {
    const CLIENTS: u64 = 10;
    let store = lab.one_group(1, None).await?;
    let keys = vec!["k".to_owned()];
    let puts = spawn_clients_and_wait(&store, CLIENTS, 1000, |me, client, done| {
        let keys = keys.clone();
        async move { one_client_put(client, me, &keys, None, done).await }
    })
    .await?;
    let puts: Puts = puts.into_iter().sum();
    check_put_concurrent(&mut store.versioned_client(), "k", puts, true).await
}

/// Clients that put one after the other, each using the version of the one before; returns what
/// they cost the server.
async fn many_put_clients(lab: Lab, clients: u64, bytes_each: usize) -> anyhow::Result<()> {
    const RAFT_STATE_MAX: usize = 1000;
    /// Adapted: the labs' clients come one after the other; here many at once, since a message takes longer.
    const AT_ONCE: usize = 64;
    let store = lab.one_group(1, Some(RAFT_STATE_MAX)).await?;
    let clerks = crowd(&store, clients, false);
    let connect = |clerk: Clerk| async move {
        match clerk.put_if("k", "", Version(1)).await {
            Err(Error::VersionMismatch { version: Version(0) }) => Ok(()),
            other => Err(anyhow::anyhow!("a put at version 1 of a missing key was answered {other:?}")),
        }
    };
    let connects = stream::iter(clerks.iter().cloned()).map(|clerk| Ok(connect(clerk)));
    connects.try_buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    lab.sleep(1000).await;
    let before = store.kept(1).await?;
    let value = Bytes::from(vec![b'v'; 1000]);
    for (version, clerk) in (0..).map(Version).zip(&clerks) {
        let put = clerk.put_if("k", value.clone(), version).await;
        put.with_context(|| format!("put at version {version}"))?;
        lab.count_op();
    }
    lab.sleep(1000).await;
    let (bytes, most) = (store.kept(1).await?.saturating_sub(before), bytes_each * usize::try_from(clients)?);
    ensure!(bytes <= most, "{clients} clients that put once cost {bytes} bytes, at most {most} are allowed");
    Ok(())
}

async fn unreliable_net(lab: Lab) -> anyhow::Result<()> {
    const ROUNDS: u64 = 100;
    let store = lab.one_group(1, None).await?;
    let mut client = store.versioned_client();
    let mut doubts = 0;
    for round in 0..ROUNDS {
        let mut tries = 0_u64;
        let put = loop {
            let put = client.put_if("k", &tries.to_string(), round).await?;
            tries += 1;
            if put != Put::Maybe {
                break put;
            }
            doubts += 1;
        };
        ensure!(
            tries == 1 || put == Put::Version,
            "round {round}: a put after a doubtful one was answered {put:?}: the doubtful one was not done, \
             although another version stood in its way"
        );
        client.check_version("k", "0", round + 1).await?;
    }
    ensure!(doubts > 0, "not one put was doubtful: the network lost nothing");
    Ok(())
}
