//! The lock of 6.5840 2025 and 2026 (Lab 2), built on conditional puts alone: here the product's
//! own, [`clerk::lock`].
//!
//! Adapted: clerks without sessions, so that a lost answer leaves the lock in doubt as in the labs.

use anyhow::{bail, ensure};
use base::clock;
use clerk::api::Version;
use clerk::lock::{Held, Lock, LockError};
use rand::RngExt;

use super::versioned::{Done, spawn_clients_and_wait};
use crate::lab::client::{Client, FOREVER, Put};
use crate::lab::{Lab, Store};
use crate::sheet::{Scenario, scenario};

const LASTS_MS: u64 = 2000;

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let of_2026 = |id, clients| scenario(id, move |lab| contend(lab, clients, true));
    let of_2025 = |id, clients| scenario(id, move |lab| contend(lab, clients, false));
    vec![
        scenario("L01", basic),
        scenario("L02", nested),
        of_2026("L03", 1),
        of_2026("L04", 10),
        of_2026("L05", 1),
        of_2026("L06", 10),
        of_2025("L03-2025", 1),
        of_2025("L04-2025", 10),
        of_2025("L05-2025", 1),
        of_2025("L06-2025", 10),
        scenario("L-fence", cleared),
    ]
}

/// A name of twelve random letters.
fn random_name(lab: &Lab, which: &str) -> String {
    let mut random = lab.random(which);
    (0..12).map(|_| random.random_range('a'..='z')).collect()
}

fn lock(client: &Client, lab: &Lab, name: &str) -> Lock {
    Lock::new(client.clerk.clone(), name.to_owned(), lab.derive(&lab.fresh_name("lock user")))
}

async fn acquire(lab: &Lab, lock: &Lock) -> anyhow::Result<Held> {
    let held = lock.acquire(FOREVER).await?;
    lab.count_op();
    Ok(held)
}

async fn release(lab: &Lab, lock: &Lock, held: Held) -> anyhow::Result<()> {
    lock.release(held, FOREVER).await?;
    lab.count_op();
    Ok(())
}

async fn one_server(lab: &Lab) -> anyhow::Result<Store> {
    lab.one_group(1, None).await
}

async fn basic(lab: Lab) -> anyhow::Result<()> {
    let store = one_server(&lab).await?;
    let client = store.versioned_client();
    let lock = lock(&client, &lab, &random_name(&lab, "lock"));
    let held = acquire(&lab, &lock).await?;
    release(&lab, &lock, held).await
}

async fn nested(lab: Lab) -> anyhow::Result<()> {
    let store = one_server(&lab).await?;
    let client = store.versioned_client();
    let one = lock(&client, &lab, &random_name(&lab, "one"));
    let two = lock(&client, &lab, &random_name(&lab, "two"));
    let (held_one, held_two) = (acquire(&lab, &one).await?, acquire(&lab, &two).await?);
    release(&lab, &two, held_two).await?;
    release(&lab, &one, held_one).await?;
    let (held_two, held_one) = (acquire(&lab, &two).await?, acquire(&lab, &one).await?);
    release(&lab, &one, held_one).await?;
    let held_one = acquire(&lab, &one).await?;
    release(&lab, &two, held_two).await?;
    release(&lab, &one, held_one).await
}

/// Clients that hold the lock in turn. In 2026 each first nests two locks; in 2025 there is one, "l".
async fn contend(lab: Lab, clients: u64, of_2026: bool) -> anyhow::Result<()> {
    let store = one_server(&lab).await?;
    let names = if of_2026 {
        (random_name(&lab, "one"), Some(random_name(&lab, "two")))
    } else {
        ("l".to_owned(), None)
    };
    let turns = spawn_clients_and_wait(&store, clients, LASTS_MS, |me, client, done| {
        let (lab, names) = (lab.clone(), names.clone());
        async move { hold_in_turn(lab, client, me, names, done).await }
    })
    .await?;
    ensure!(turns.iter().sum::<u64>() > 0, "nobody ever got the lock");
    Ok(())
}

/// One client until it is told to stop; returns how often it held the lock.
async fn hold_in_turn(
    lab: Lab,
    mut client: Client,
    me: u64,
    (name, other): (String, Option<String>),
    done: Done,
) -> anyhow::Result<u64> {
    let contended = lock(&client, &lab, &name);
    if let Some(other) = other {
        let other = lock(&client, &lab, &other);
        let (held, held_other) = (acquire(&lab, &contended).await?, acquire(&lab, &other).await?);
        release(&lab, &contended, held).await?;
        release(&lab, &other, held_other).await?;
    }
    client.put_if("l0", "", 0).await?;
    let (mut turns, mut fence) = (0, Version(0));
    while !done.is_over() {
        let held = acquire(&lab, &contended).await?;
        ensure!(held.fence() > fence, "a later acquisition has fence {} after {fence}", held.fence());
        fence = held.fence();
        let (value, version) = client.get("l0").await?;
        ensure!(value.is_empty() && version > 0, "two clients hold the lock: {me} and {value}");
        for (value, version) in [(me.to_string(), version), (String::new(), version + 1)] {
            let put = client.put_if("l0", &value, version).await?;
            ensure!(
                matches!(put, Put::Ok | Put::Maybe),
                "the holder's put was answered {put:?}: two hold the lock"
            );
            lab.sleep(10).await;
        }
        release(&lab, &contended, held).await?;
        turns += 1;
    }
    Ok(turns)
}

/// Not from the labs: what an operator can do about a holder that is gone.
async fn cleared(lab: Lab) -> anyhow::Result<()> {
    let store = one_server(&lab).await?;
    let (one, other) = (store.versioned_client(), store.versioned_client());
    let (mine, yours) = (lock(&one, &lab, "l"), lock(&other, &lab, "l"));
    let held = acquire(&lab, &mine).await?;
    let start = clock::now();
    let waited = yours.acquire(std::time::Duration::from_millis(300)).await;
    ensure!(matches!(waited, Err(LockError::TimedOut { .. })), "a held lock was acquired: {waited:?}");
    ensure!(start.elapsed().as_millis() < 1000, "waiting 300 ms took {:?}", start.elapsed());
    yours.clear().await?;
    let next = acquire(&lab, &yours).await?;
    ensure!(next.fence() > held.fence(), "fence {} after fence {}", next.fence(), held.fence());
    match mine.release(held, FOREVER).await {
        Err(LockError::NotHeld) => {}
        other => bail!("the release of a cleared lock was answered {other:?}"),
    }
    release(&lab, &yours, next).await
}
