//! An open loop of reads and appends with the times of its operations, lap by lap, and the judgement
//! of what it saw.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sim::clerks::KvStore;
use sim::workload::{Answer, Recorder, Request};

use judge::history::Op;

use crate::client::Target;
use crate::load::{checked, on_own_thread, read_all};
use crate::open::open_loop;

/// The operations of a lap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lap {
    /// How many were acknowledged.
    pub done: usize,
    /// How many were not.
    pub failed: usize,
    /// The median of their times, from when they were due.
    pub median: Duration,
    /// Of a thousand, the slowest but one took this long.
    pub p999: Duration,
    /// The slowest.
    pub longest: Duration,
}

impl Lap {
    fn of((mut took, failed): (Vec<Duration>, usize)) -> Self {
        took.sort_unstable();
        let at = |thousandths: usize| took.get(took.len() * thousandths / 1000).copied().unwrap_or_default();
        let longest = took.last().copied().unwrap_or_default();
        Self { done: took.len(), failed, median: at(500), p999: at(999), longest }
    }
}

/// Half of them reads, half appends.
pub struct Paced {
    recorder: Recorder,
    over: Arc<AtomicBool>,
    ended: Arc<Mutex<(Vec<Duration>, usize)>>,
    thread: JoinHandle<()>,
}

impl Paced {
    /// Begins `per_second` operations a second over `keys`.
    pub fn start(target: &Target, per_second: u32, keys: Vec<String>) -> Self {
        let (recorder, over, ended) = (Recorder::default(), Arc::default(), Arc::default());
        let (shared, stop, target) = (recorder.clone(), Arc::clone(&over), target.clone());
        let times: Arc<Mutex<(Vec<Duration>, usize)>> = Arc::clone(&ended);
        let thread = on_own_thread(async move || {
            let clerk = target.clerk();
            let begin = |number: u64| {
                // Each key gets both.
                let key = keys[(number / 2) as usize % keys.len()].clone();
                let is_read = number.is_multiple_of(2);
                let (op, value) = match is_read {
                    true => (Op::Get, None),
                    false => (Op::Append, Some(format!("[{number}]"))),
                };
                let request = Request { op, key, value, expected: None };
                let (recorder, mut store) = (shared.clone(), KvStore::of(clerk.clone()));
                async move {
                    let answer = recorder.run(recorder.new_client(), &mut store, &request).await;
                    matches!(answer, Answer::Done { .. })
                }
            };
            let note = |is_done: bool, took: Duration| {
                let mut ended = times.lock().unwrap_or_else(PoisonError::into_inner);
                match is_done {
                    true => ended.0.push(took),
                    false => ended.1 += 1,
                }
            };
            open_loop(per_second, &stop, begin, note).await;
            read_all(&shared, &target, keys).await;
        });
        Self { recorder, over, ended, thread }
    }

    /// The operations that ended since the last call.
    pub fn lap(&self) -> Lap {
        Lap::of(std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Stops it, reads every key once more and checks everything that clients saw. Returns how many
    /// operations there were.
    ///
    /// # Panics
    /// When something acknowledged was lost, doubled or out of order.
    pub fn finish(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load ends");
        checked(self.recorder.take()).len()
    }
}
