//! What happens to the cluster during a run: elections, configurations, servers that go and come,
//! and the resources of the processes.
//!
//! The watcher asks a few times a second, in a thread with its own connections, so that neither the
//! questions nor the files of /proc delay a measured operation. A mark's time is when it was seen:
//! a fifth of a second after it happened, or later while nobody answers.

mod marks;
mod usage;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use base::clock::{self, Instant};
use tokio::sync::{Notify, oneshot};

use self::marks::Seen;
pub(super) use self::usage::Snapshot;
use self::usage::Tracker;
use crate::context::Reach;
use crate::failure::Failure;
use crate::survey::survey;
use clerk_bench::result::{ClusterFacts, Mark, Process, Usage};

const PERIOD: Duration = Duration::from_millis(200);
/// The longest time for one look at all servers.
const LOOK: Duration = Duration::from_secs(6);

/// A watch over a cluster, until it is dropped.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    started: Instant,
    /// The time for one look at all servers.
    look: Duration,
    stop: Notify,
    state: Mutex<State>,
}

struct State {
    facts: ClusterFacts,
    seen: Option<Seen>,
    marks: Vec<Mark>,
    tracker: Tracker,
}

impl Watch {
    /// Begins to watch; comes back when everybody was asked once, within `patience`. Times count from
    /// `started`.
    pub(super) async fn start(reach: &Reach, started: Instant, patience: Duration) -> Result<Self, Failure> {
        let state = State {
            facts: ClusterFacts::default(),
            seen: None,
            marks: Vec::new(),
            tracker: Tracker::new(started),
        };
        let shared = Arc::new(Shared {
            started,
            look: LOOK.min(patience),
            stop: Notify::new(),
            state: Mutex::new(state),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start a runtime")?;
        let (watched, reach, (first, asked)) =
            (Arc::clone(&shared), reach.with_own_connections(), oneshot::channel());
        let thread = std::thread::Builder::new().name("watch".to_owned());
        let thread = thread.spawn(move || runtime.block_on(watch(&watched, &reach, first)));
        let thread = Some(thread.context("cannot start a thread")?);
        // Its thread ends only after the first answer, or because it panicked: then nothing is known.
        let _ = asked.await;
        Ok(Self { shared, thread })
    }

    /// The cluster as it was at first.
    pub(super) fn facts(&self) -> ClusterFacts {
        self.shared.state().facts.clone()
    }

    /// The newest configuration's number, as of the last look.
    pub(super) fn config(&self) -> u64 {
        self.shared.state().seen.as_ref().map_or(0, |seen| seen.config)
    }

    /// What processes have used up to now.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.shared.state().tracker.snapshot()
    }

    /// Notes what processes used since the last time.
    pub(super) fn sample(&self) {
        self.shared.state().tracker.sample(clock::now());
    }

    pub(super) fn marks(&self) -> Vec<Mark> {
        self.shared.state().marks.clone()
    }

    pub(super) fn usage(&self) -> Vec<Usage> {
        self.shared.state().tracker.series()
    }

    /// Processes as they are now, with the time they used between two snapshots: servers, the load
    /// generator, and why some servers are missing.
    pub(super) fn processes(&self, used: &Snapshot) -> (Vec<Process>, Option<Process>, Option<String>) {
        self.shared.state().tracker.processes(used)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // It panicked: what it saw until then counts.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch(shared: &Shared, reach: &Reach, first: oneshot::Sender<()>) {
    let mut first = Some(first);
    loop {
        let begun = clock::now();
        let asked = tokio::select! {
            biased;
            () = shared.stop.notified() => return,
            survey = survey(reach, begun.after(shared.look)) => survey,
        };
        shared.state().look(reach, &asked, shared.started);
        if let Some(first) = first.take() {
            // Who waited for it may have been interrupted.
            let _ = first.send(());
        }
        tokio::select! {
            biased;
            () = shared.stop.notified() => return,
            () = clock::sleep(PERIOD.saturating_sub(begun.elapsed())) => {}
        }
    }
}

impl State {
    fn look(&mut self, reach: &Reach, survey: &crate::survey::Survey, started: Instant) {
        let now = clock::now();
        let seen = Seen::of(reach, survey, self.seen.as_ref());
        self.tracker.follow(&seen.processes);
        self.tracker.sample_if_due(now);
        match &self.seen {
            None => {
                self.facts = marks::facts(reach, survey);
                self.tracker.begin(now);
            }
            Some(before) => {
                self.marks.extend(marks::between(before, &seen, now.since(started).as_secs_f64()))
            }
        }
        self.seen = Some(seen);
    }
}
