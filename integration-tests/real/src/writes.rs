//! Puts at a fixed rate, and how long they take.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::client::Target;
use crate::load::on_own_thread;

/// More are not on their way, if the store cannot keep up.
const AT_ONCE_MAX: usize = 1000;

/// An open loop of puts.
pub struct Writes {
    over: Arc<AtomicBool>,
    took: Arc<Mutex<Vec<Duration>>>,
    failed: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writes {
    /// So many puts a second, of values of so many bytes, over `keys` keys of one shard.
    pub fn start(target: &Target, per_second: u32, bytes: usize, keys: u64) -> Self {
        let (over, took) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let failed = Arc::new(AtomicU64::new(0));
        let (stop, times, failures, target) = (over.clone(), took.clone(), failed.clone(), target.clone());
        let thread = on_own_thread(async move || {
            let (clerk, mut tasks, start) = (target.clerk(), JoinSet::new(), clock::now());
            let value: Bytes = (0..bytes).map(|_| rand::random::<u8>()).collect();
            let mut begun = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                if tasks.len() >= AT_ONCE_MAX {
                    note(
                        tasks.join_next().await.expect("there are some").expect("a put ends"),
                        &times,
                        &failures,
                    );
                }
                let due = start.after(Duration::from_secs(begun) / per_second);
                clock::sleep_until(due).await;
                let (clerk, value, key) =
                    (clerk.clone(), value.clone(), format!("{{writes}}{}", begun % keys));
                tasks.spawn_local(async move { (clerk.put(key, value).await.is_ok(), due.elapsed()) });
                begun += 1;
                while let Some(ended) = tasks.try_join_next() {
                    note(ended.expect("a put ends"), &times, &failures);
                }
            }
            while let Some(ended) = tasks.join_next().await {
                note(ended.expect("a put ends"), &times, &failures);
            }
        });
        Self { over, took, failed, thread }
    }

    /// How many puts came back since this was asked last, and how long 99 of 100 took at most, from when they should have begun.
    pub fn lap(&self) -> (usize, Duration) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap_or_else(PoisonError::into_inner));
        took.sort_unstable();
        (took.len(), took.get(took.len() * 99 / 100).copied().unwrap_or_default())
    }

    /// Stops; how many puts failed.
    ///
    /// # Panics
    /// When the loop panicked.
    pub fn finish(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the puts end");
        self.failed.load(Ordering::Relaxed)
    }
}

fn note((is_done, took): (bool, Duration), times: &Mutex<Vec<Duration>>, failures: &AtomicU64) {
    if is_done {
        times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    } else {
        failures.fetch_add(1, Ordering::Relaxed);
    }
}
