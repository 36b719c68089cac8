//! Who does what: the state of a job, a pure value without clock, file or socket.
//!
//! All maps come before all reduces. Each task goes to one worker. It is assigned again if its
//! attempt failed, or if the worker is gone. It also gets a twin, a second attempt beside the
//! first, if its newest attempt is older than ten seconds and than three times the median of its
//! kind. A worker has at most one attempt. The backup tasks of the paper are this same rule. The
//! first attempt that is done wins. Later ones are recorded and change nothing.
//!
//! An app that fails on a record reports that. After three such reports about one task the job has
//! failed. A worker that is gone or silent has reported nothing.
//!
//! Left out on purpose: data locality, that is, which worker is near which input.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An attempt may run for so long before a twin is started (the labs' ten seconds). A worker that
/// was silent for so long is shown as lost.
pub const SILENT: Duration = Duration::from_secs(10);
/// A twin also waits for so many times the median duration of its kind.
const MEDIANS: u32 = 3;
/// So many reports about one task end the job.
const REPORTS_MAX: usize = 3;
/// A task that was tried so often will never be done.
const ATTEMPTS_MAX: usize = 1000;
/// Tasks of one kind.
pub const TASKS_MAX: usize = 10_000;
/// The number of workers that are remembered. Beyond that, the one that was heard longest ago is
/// forgotten.
const WORKERS_MAX: usize = 1000;
/// Bytes of a report's text that are kept.
const REPORT_BYTES_MAX: usize = 2000;

/// What a task does: a map reads an input and writes a file for each reducer, a reduce reads its file of every map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    Map,
    Reduce,
}

/// A task. Numbers begin at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Task {
    pub kind: Kind,
    pub number: u32,
}

/// What a worker gets to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// An attempt, whose number no other attempt of the job has. A reducer learns which attempt
    /// of each map won.
    Run {
        task: Task,
        attempt: u64,
        #[serde(deserialize_with = "base::codec::bounded::<TASKS_MAX, _, _>")]
        maps: Vec<(u32, u64)>,
    },
    /// Ask again.
    Wait,
    /// The job is over.
    Exit,
}

/// How many records a map read or keys a reducer reduced, and how many bytes were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    pub records: u64,
    pub bytes: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It was done first.
    Won,
    /// Another attempt had won before it was done or given up.
    Late,
    /// The app failed.
    Failed,
    /// The worker is gone.
    Gone,
}

/// One try at a task. Times are counted from the coordinator's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub number: u64,
    pub worker: u64,
    pub since: Duration,
    pub ended: Option<(Duration, End)>,
    pub work: Work,
}

/// What is known of a task: every attempt under this coordinator, and the winner, which may be
/// from an earlier coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    #[serde(deserialize_with = "base::codec::bounded::<ATTEMPTS_MAX, _, _>")]
    pub attempts: Vec<Attempt>,
    pub winner: Option<u64>,
}

impl State {
    /// Attempts that are not over.
    pub fn live(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.ended.is_none())
    }

    fn is_idle(&self) -> bool {
        self.winner.is_none() && self.live().next().is_none()
    }
}

/// A job. `mr status` gets it in this form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    #[serde(deserialize_with = "base::codec::bounded::<TASKS_MAX, _, _>")]
    pub maps: Vec<State>,
    #[serde(deserialize_with = "base::codec::bounded::<TASKS_MAX, _, _>")]
    pub reduces: Vec<State>,
    /// Workers, and when each was last heard, the newest last.
    #[serde(deserialize_with = "base::codec::bounded::<WORKERS_MAX, _, _>")]
    pub workers: Vec<(u64, Duration)>,
    /// When this copy was made.
    pub now: Duration,
    /// Why the job cannot be done.
    pub failure: Option<String>,
    next_attempt: u64,
}

impl Job {
    /// A job whose attempts get numbers from `next_attempt` on. Each coordinator of a job needs
    /// other numbers, because they name files.
    pub(crate) fn new(maps: u32, reduces: u32, next_attempt: u64) -> Self {
        let tasks = |count| (0..count).map(|_| State::default()).collect();
        Self { maps: tasks(maps), reduces: tasks(reduces), next_attempt, ..Self::default() }
    }

    fn tasks(&mut self, kind: Kind) -> &mut Vec<State> {
        match kind {
            Kind::Map => &mut self.maps,
            Kind::Reduce => &mut self.reduces,
        }
    }

    fn state(&mut self, task: Task) -> Option<&mut State> {
        self.tasks(task.kind).get_mut(task.number as usize)
    }

    /// What `worker` has to do now. A worker that asks again, because an answer was lost, gets
    /// the same task again.
    pub(crate) fn ask(&mut self, worker: u64, now: Duration) -> Order {
        self.hear(worker, now);
        if self.is_over() {
            return Order::Exit;
        }
        let left = self.maps.iter().filter(|map| map.winner.is_none()).count();
        let early = base::mutant!("reduce-before-last-map") && left == 1;
        let kind = if left == 0 || early { Kind::Reduce } else { Kind::Map };
        // It no longer works on a task that another has won.
        self.leave(worker, now, true, End::Late);
        let Some(place) = pick(self.tasks(kind), worker, now) else { return Order::Wait };
        let next = self.next_attempt;
        let state = &mut self.tasks(kind)[place];
        let mine = state.live().find(|attempt| attempt.worker == worker).map(|attempt| attempt.number);
        if mine.is_none() {
            if state.attempts.len() == ATTEMPTS_MAX {
                self.fail(format!("{kind:?} task {place} was tried {ATTEMPTS_MAX} times and never done"));
                return Order::Exit;
            }
            let attempt = Attempt { number: next, worker, since: now, ended: None, work: Work::default() };
            state.attempts.push(attempt);
            self.next_attempt += 1;
        }
        let won = (0..).zip(&self.maps).filter(|_| kind == Kind::Reduce);
        let maps = won.filter_map(|(number, map)| Some((number, map.winner?))).collect();
        Order::Run { task: Task { kind, number: place as u32 }, attempt: mine.unwrap_or(next), maps }
    }

    /// Ends the attempts of `worker` in this way: all of them, or only those whose task another
    /// attempt has won.
    fn leave(&mut self, worker: u64, now: Duration, only_won: bool, end: End) {
        let tasks = self.maps.iter_mut().chain(&mut self.reduces);
        let left = tasks.filter(|state| !only_won || state.winner.is_some());
        for attempt in left.flat_map(|state| &mut state.attempts) {
            if attempt.worker == worker && attempt.ended.is_none() {
                attempt.ended = Some((now, end));
            }
        }
    }

    fn hear(&mut self, worker: u64, now: Duration) {
        self.workers.retain(|(other, _)| *other != worker);
        self.workers.push((worker, now));
        if self.workers.len() > WORKERS_MAX {
            self.workers.remove(0);
        }
    }

    /// Whether this task exists and has no winner yet.
    pub(crate) fn is_open(&mut self, task: Task) -> bool {
        self.state(task).is_some_and(|state| state.winner.is_none())
    }

    /// This attempt has won, perhaps under an earlier coordinator. The first one counts.
    pub(crate) fn won(&mut self, task: Task, attempt: u64) {
        if let Some(state) = self.state(task) {
            state.winner.get_or_insert(attempt);
        }
    }

    /// An attempt is done.
    pub(crate) fn done(&mut self, task: Task, attempt: u64, work: Work, now: Duration) {
        self.won(task, attempt);
        let Some(state) = self.state(task) else { return };
        let end = if state.winner == Some(attempt) { End::Won } else { End::Late };
        let Some(one) = state.attempts.iter_mut().find(|one| one.number == attempt) else { return };
        if !matches!(one.ended, Some((_, End::Won | End::Late))) {
            (one.ended, one.work) = (Some((now, end)), work);
        }
        let worker = one.worker;
        self.hear(worker, now);
    }

    /// The app failed in an attempt. A repeated report counts once.
    pub(crate) fn failed(&mut self, task: Task, attempt: u64, report: String, now: Duration) {
        let Some(state) = self.state(task).filter(|state| state.winner.is_none()) else { return };
        let mut live = state.attempts.iter_mut().filter(|one| one.ended.is_none());
        let Some(one) = live.find(|one| one.number == attempt) else { return };
        one.ended = Some((now, End::Failed));
        let is_report = |one: &&Attempt| matches!(one.ended, Some((_, End::Failed)));
        if state.attempts.iter().filter(is_report).count() >= REPORTS_MAX {
            self.fail(report);
        }
    }

    /// A worker's connection ended: its task is free immediately.
    pub(crate) fn gone(&mut self, worker: u64, now: Duration) {
        self.leave(worker, now, false, End::Gone);
    }

    /// The job cannot be done. The first reason counts.
    pub(crate) fn fail(&mut self, mut why: String) {
        why.truncate(why.floor_char_boundary(REPORT_BYTES_MAX));
        self.failure.get_or_insert(why);
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_over(&self) -> bool {
        let (done, all) = self.progress();
        self.failure.is_some() || done == all
    }

    /// The number of tasks that are done, and of all tasks.
    pub fn progress(&self) -> (usize, usize) {
        let tasks = || self.maps.iter().chain(&self.reduces);
        (tasks().filter(|state| state.winner.is_some()).count(), tasks().count())
    }
}

/// The place of the task that `worker` gets: its current one, else one that nobody has, else the
/// oldest that may have a twin.
fn pick(tasks: &[State], worker: u64, now: Duration) -> Option<usize> {
    let has = |state: &State| state.live().any(|attempt| attempt.worker == worker);
    let free = tasks.iter().position(has).or_else(|| tasks.iter().position(State::is_idle));
    free.or_else(|| {
        let at_work = tasks.iter().enumerate().filter(|(_, state)| state.winner.is_none());
        let newest = |state: &State| state.live().map(|attempt| attempt.since).max();
        let (since, place) = at_work.filter_map(|(place, state)| Some((newest(state)?, place))).min()?;
        (now.saturating_sub(since) >= patience(tasks)).then_some(place)
    })
}

/// How old the newest attempt at a task must be before a twin is started.
fn patience(tasks: &[State]) -> Duration {
    base::mutant!("backup-at-once", return Duration::ZERO);
    base::mutant!("reissue-never", return Duration::MAX);
    let took = |attempt: &Attempt| match attempt.ended {
        Some((at, End::Won)) => Some(at.saturating_sub(attempt.since)),
        _ => None,
    };
    let mut times: Vec<Duration> = tasks.iter().flat_map(|state| &state.attempts).filter_map(took).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    SILENT.max(median.saturating_mul(MEDIANS))
}

#[cfg(test)]
mod tests;
