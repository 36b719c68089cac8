//! Puts at a fixed rate, and their times.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::client::Target;
use crate::load::on_own_thread;
use crate::open::open_loop;

/// An open loop of puts.
pub struct Writes {
    over: Arc<AtomicBool>,
    took: Arc<Mutex<Vec<Duration>>>,
    failed: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Writes {
    /// Starts `per_second` puts a second, of values of `bytes` bytes, over `keys` keys of one
    /// shard.
    pub fn start(target: &Target, per_second: u32, bytes: usize, keys: u64) -> Self {
        let (over, took) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let failed = Arc::new(AtomicU64::new(0));
        let (stop, times, failures, target) = (over.clone(), took.clone(), failed.clone(), target.clone());
        let thread = on_own_thread(async move || {
            let clerk = target.clerk();
            let value: Bytes = (0..bytes).map(|_| rand::random::<u8>()).collect();
            let put = |number: u64| {
                let (clerk, value, key) =
                    (clerk.clone(), value.clone(), format!("{{writes}}{}", number % keys));
                async move { clerk.put(key, value).await.is_ok() }
            };
            let note = |is_done, took| {
                if is_done {
                    times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
                } else {
                    failures.fetch_add(1, Ordering::Relaxed);
                }
            };
            open_loop(per_second, &stop, put, note).await;
        });
        Self { over, took, failed, thread }
    }

    /// The number of puts that returned since the last call, and the 99th percentile of their
    /// times, from when they were due.
    pub fn lap(&self) -> (usize, Duration) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap_or_else(PoisonError::into_inner));
        took.sort_unstable();
        (took.len(), took.get(took.len() * 99 / 100).copied().unwrap_or_default())
    }

    /// Stops; returns the number of failed puts.
    ///
    /// # Panics
    /// When the loop panicked.
    pub fn finish(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the puts end");
        self.failed.load(Ordering::Relaxed)
    }
}
