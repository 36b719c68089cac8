//! Workers that count under a lock, and lose no count.
//!
//! Start a cluster, and name its controllers, which `bin/clerk status` lists:
//!
//! ```text
//! bin/clerk up
//! cargo run -p clerk --example lock -- 127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT
//! ```
//!
//! Reading and writing are two requests, so without the lock two workers could read the same count. (A put on condition
//! would do for one key. A lock is for what needs several.)

use std::time::Duration;

use clerk::lock::Lock;
use clerk::{Clerk, Options};

type Error = Box<dyn std::error::Error + Send + Sync>;

const WORKERS: u64 = 4;
const ROUNDS: u64 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let controllers = std::env::args().nth(1).ok_or("name the controllers: HOST:PORT,HOST:PORT,...")?;
    let controllers = controllers.split(',').map(str::to_owned).collect();
    let clerk = Clerk::connect(controllers, Options::default()).await?;
    clerk.put("count", "0").await?;

    let workers = (1..=WORKERS).map(|worker| work(clerk.clone(), worker)).map(tokio::spawn);
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }
    let count = read(&clerk).await?;
    println!("{WORKERS} workers counted to {count}");
    assert_eq!(count, WORKERS * ROUNDS);
    Ok(())
}

async fn work(clerk: Clerk, worker: u64) -> Result<(), Error> {
    // Each user of a lock needs a seed of its own.
    let lock = Lock::new(clerk.clone(), "lock", rand::random());
    for _ in 0..ROUNDS {
        let held = lock.acquire(Duration::from_secs(30)).await?;
        let count = read(&clerk).await? + 1;
        clerk.put("count", count.to_string()).await?;
        println!("worker {worker} has acquisition {} of the lock and counts {count}", held.fence());
        lock.release(held, Duration::from_secs(30)).await?;
    }
    Ok(())
}

async fn read(clerk: &Clerk) -> Result<u64, Error> {
    let value = clerk.get("count").await?.value.unwrap_or_default();
    Ok(std::str::from_utf8(&value)?.parse()?)
}
