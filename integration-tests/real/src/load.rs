//! Clients that work while something happens to the cluster, and the judgement of what they saw.
//!
//! [`Load`] is a closed loop with every kind of operation over few keys. At its end each key is
//! read once more, so that a silent loss is noticed. [`Open`] is an open loop of three kinds of
//! operations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use super::client::Target;
use super::open::open_loop;
use judge::history::{Op, Operation, Outcome, write};
use judge::linearizability;
use sim::clerks::KvStore;
use sim::workload::{Answer, Mix, Recorder, Request};

/// Checks a history.
///
/// # Panics
/// When something acknowledged was lost, duplicated or out of order. The history is kept, and the
/// message names its file.
pub fn checked(history: Vec<Operation>) -> Vec<Operation> {
    if let Err(anomaly) = linearizability::check(&history) {
        let file = tempfile::Builder::new().prefix("history-").suffix(".jsonl").tempfile();
        let (file, path) = file.and_then(|file| Ok(file.keep()?)).expect("a file for the history");
        write(file, &history).expect("the history is written");
        panic!("{anomaly}\nthe history is kept: {}", path.display());
    }
    history
}

pub(super) fn on_own_thread<T: Send + 'static>(
    work: impl AsyncFnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(LocalSet::new().run_until(work()))
    })
}

/// Clients in a closed loop.
pub struct Load {
    recorder: Recorder,
    thread: JoinHandle<()>,
}

impl Load {
    /// This many clients on this many keys, all kinds of operations.
    pub fn start(target: &Target, clients: u64, keys: usize) -> Self {
        let run = format!("{:08x}", rand::random::<u32>());
        let keys: Vec<String> = (0..keys).map(|key| format!("{run}-{key}")).collect();
        let mix =
            Mix { shares: [35, 25, 25, 5, 10], keys: keys.clone(), think_max: Duration::from_millis(5) };
        let recorder = Recorder::default();
        let (target, shared) = (target.clone(), recorder.clone());
        let thread = on_own_thread(async move || {
            let mut tasks = JoinSet::new();
            for seed in 0..clients {
                let store = Box::new(KvStore::of(target.clerk()));
                tasks.spawn_local(shared.clone().client(store, mix.clone(), seed));
            }
            while let Some(ended) = tasks.join_next().await {
                ended.expect("a client ends when it is told to");
            }
            read_all(&shared, &target, keys).await;
        });
        Self { recorder, thread }
    }

    /// Waits until `more` operations were acknowledged.
    ///
    /// # Panics
    /// When that takes half a minute.
    pub fn await_acknowledged(&self, more: u64) {
        let goal = self.recorder.acknowledged() + more;
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while self.recorder.acknowledged() < goal {
            assert!(
                std::time::Instant::now() < until,
                "only {} of {goal} operations",
                self.recorder.acknowledged()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops the clients, reads every key once more and checks everything that clients saw; prints
    /// totals.
    ///
    /// # Panics
    /// When the history is wrong, or has fewer than `least` acknowledged operations.
    pub fn finish(self, what: &str, least: u64) {
        self.recorder.stop();
        self.thread.join().expect("the load ends");
        let history = checked(self.recorder.take());
        let count = |outcome| history.iter().filter(|one| one.outcome == outcome).count() as u64;
        let (done, unknown) = (count(Outcome::Ok), count(Outcome::Unknown));
        println!(
            "{what}: {done} operations acknowledged, {unknown} unknown, longest pause {:?}",
            pause(&history)
        );
        assert!(done >= least, "vacuous: {done} operations, at least {least} are needed");
    }
}

/// The longest time in which nothing was acknowledged.
fn pause(history: &[Operation]) -> Duration {
    let done = history.iter().filter(|one| one.outcome == Outcome::Ok);
    let mut times: Vec<u64> = done.filter_map(|one| one.return_ns).collect();
    times.sort_unstable();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    Duration::from_millis(longest.unwrap_or(0) / 1_000_000)
}

pub(super) async fn read_all(recorder: &Recorder, target: &Target, keys: Vec<String>) {
    let mut store = KvStore::of(target.clerk());
    for key in keys {
        let request = Request { op: Op::Get, key, value: None, expected: None };
        let answer = recorder.run(recorder.new_client(), &mut store, &request).await;
        assert!(matches!(answer, Answer::Done { .. }), "{} cannot be read at the end", request.key);
    }
}

/// The result of an open loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Operations begun.
    pub begun: u64,
    /// Operations without an acknowledgement.
    pub failed: u64,
    /// The longest time of an operation, counted from when it was due.
    pub slowest: Duration,
}

/// Clients in an open loop.
pub struct Open {
    recorder: Recorder,
    over: Arc<AtomicBool>,
    thread: JoinHandle<OpenReport>,
}

impl Open {
    /// Runs `per_second` operations a second, in turn a get, a put and an append, over `keys`.
    pub fn start(target: &Target, per_second: u32, keys: Vec<String>) -> Self {
        let (recorder, over) = (Recorder::default(), Arc::new(AtomicBool::new(false)));
        let (shared, stop, target) = (recorder.clone(), Arc::clone(&over), target.clone());
        let thread = on_own_thread(async move || {
            let (clerk, mut report) = (target.clerk(), OpenReport::default());
            let begin = |number| {
                let request = request(number, &keys);
                let (recorder, mut store) = (shared.clone(), KvStore::of(clerk.clone()));
                async move {
                    let answer = recorder.run(recorder.new_client(), &mut store, &request).await;
                    matches!(answer, Answer::Done { .. })
                }
            };
            let note = |is_done: bool, took: Duration| {
                report.failed += u64::from(!is_done);
                report.slowest = report.slowest.max(took);
            };
            report.begun = open_loop(per_second, &stop, begin, note).await;
            read_all(&shared, &target, keys).await;
            report
        });
        Self { recorder, over, thread }
    }

    /// Stops it, reads every key once more and checks everything that clients saw.
    ///
    /// # Panics
    /// When the history is wrong.
    pub fn finish(self) -> OpenReport {
        self.over.store(true, Ordering::Relaxed);
        let report = self.thread.join().expect("the open loop ends");
        checked(self.recorder.take());
        report
    }
}

fn request(number: u64, keys: &[String]) -> Request {
    let op = [Op::Get, Op::Put, Op::Append][number as usize % 3];
    // Each key gets each kind of operation.
    let key = keys[(number / 3) as usize % keys.len()].clone();
    let value = (op != Op::Get).then(|| format!("[{number}]"));
    Request { op, key, value, expected: None }
}
