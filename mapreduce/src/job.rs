//! Who does what: the state of a job, a pure value without clock, file or socket.
//!
//! All maps come before all reduces. A task is given to one worker. It is given again when its attempt failed, when
//! the worker is gone, or when the newest attempt is older than ten seconds and than three times the median of its
//! kind: then a twin runs beside it, at most one attempt a worker. Backup tasks are this same rule. The first attempt
//! that is done wins; what comes later is noted and changes nothing.
//!
//! An app that fails on a record says so, and after three such reports of one task the job has failed. A worker that
//! is gone or falls silent is no report.
//!
//! Left out on purpose: which worker is near to which input.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An attempt may run for so long before a twin is started (the labs' ten seconds). A worker that said nothing for so
/// long is shown as lost.
pub const SILENT: Duration = Duration::from_secs(10);
/// A twin also waits for so many medians of what attempts of its kind took.
const MEDIANS: u32 = 3;
/// Reports of one task that end the job.
const REPORTS_MAX: usize = 3;
/// A task that was tried so often never will be done.
const ATTEMPTS_MAX: usize = 1000;
/// Tasks of one kind.
pub const TASKS_MAX: usize = 10_000;
/// Workers that are remembered; beyond, the one heard longest ago is forgotten.
const WORKERS_MAX: usize = 1000;
/// Bytes kept of the text of a report.
const REPORT_BYTES_MAX: usize = 2000;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Reads an input and writes a file for each reducer.
    Map,
    /// Reads its file of every map and writes an output.
    Reduce,
}

/// A task by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Task {
    /// What it does.
    pub kind: Kind,
    /// Which one, from 0 on.
    pub number: u32,
}

/// What a worker is told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// This task.
    Run {
        /// The task.
        task: Task,
        /// The number of this attempt, which no other attempt of the job has.
        attempt: u64,
        /// To a reducer: each map, and the attempt that won it.
        #[serde(deserialize_with = "base::codec::bounded::<TASKS_MAX, _, _>")]
        maps: Vec<(u32, u64)>,
    },
    /// Nothing now: ask again.
    Wait,
    /// Nothing any more: the job is over.
    Exit,
}

/// What an attempt did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Records that a map read, or keys that a reducer reduced.
    pub records: u64,
    /// Bytes that it read.
    pub bytes: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Done first: it won.
    Won,
    /// Done, or given up, after another had won.
    Late,
    /// The app failed.
    Failed,
    /// The worker is gone.
    Gone,
}

/// One try at a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number.
    pub number: u64,
    /// Who tries.
    pub worker: u64,
    /// When it began, since the coordinator's start.
    pub since: Duration,
    /// When and how it ended.
    pub ended: Option<(Duration, End)>,
    /// What it did, once it is done.
    pub work: Work,
}

/// What is known of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Every try of this coordinator's.
    #[serde(deserialize_with = "base::codec::bounded::<ATTEMPTS_MAX, _, _>")]
    pub attempts: Vec<Attempt>,
    /// The attempt that won.
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

    /// When its newest attempt began, if somebody is at it.
    fn newest(&self) -> Option<Duration> {
        if self.winner.is_some() { None } else { self.live().map(|attempt| attempt.since).max() }
    }

    /// The attempt that won, if this coordinator has seen it.
    pub fn won(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| Some(attempt.number) == self.winner)
    }
}

/// A job as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The maps.
    #[serde(deserialize_with = "base::codec::bounded::<TASKS_MAX, _, _>")]
    pub maps: Vec<State>,
    /// The reduces.
    #[serde(deserialize_with = "base::codec::bounded::<TASKS_MAX, _, _>")]
    pub reduces: Vec<State>,
    /// Workers, and when each was last heard; the newest last.
    #[serde(deserialize_with = "base::codec::bounded::<WORKERS_MAX, _, _>")]
    pub workers: Vec<(u64, Duration)>,
    /// Time since the coordinator's start.
    pub now: Duration,
    /// Why the job failed.
    pub failure: Option<String>,
}

impl View {
    /// All tasks.
    pub fn tasks(&self) -> impl Iterator<Item = &State> {
        self.maps.iter().chain(&self.reduces)
    }

    /// Tasks that are done, and all tasks.
    pub fn progress(&self) -> (usize, usize) {
        (self.tasks().filter(|state| state.winner.is_some()).count(), self.tasks().count())
    }
}

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    view: View,
    next_attempt: u64,
}

impl Job {
    /// A job whose attempts are numbered from `first_attempt` on. Another coordinator of the same job needs other
    /// numbers, because files are named by them.
    pub fn new(maps: u32, reduces: u32, first_attempt: u64) -> Self {
        let tasks = |count| (0..count).map(|_| State::default()).collect();
        let view = View { maps: tasks(maps), reduces: tasks(reduces), ..View::default() };
        Self { view, next_attempt: first_attempt }
    }

    fn tasks(&mut self, kind: Kind) -> &mut Vec<State> {
        match kind {
            Kind::Map => &mut self.view.maps,
            Kind::Reduce => &mut self.view.reduces,
        }
    }

    fn state(&mut self, task: Task) -> Option<&mut State> {
        self.tasks(task.kind).get_mut(usize::try_from(task.number).ok()?)
    }

    /// What `worker` is to do now. One that asks again, because an answer was lost, is told the same again.
    pub fn ask(&mut self, worker: u64, now: Duration) -> Order {
        self.hear(worker, now);
        if self.is_over() {
            return Order::Exit;
        }
        let left = self.view.maps.iter().filter(|map| map.winner.is_none()).count();
        let early = base::mutant!("reduce-before-last-map") && left == 1;
        let kind = if left == 0 || early { Kind::Reduce } else { Kind::Map };
        // It is no longer at a task that another has won.
        self.leave(worker, now, true, End::Late);
        let Some(place) = self.pick(kind, worker, now) else { return Order::Wait };
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
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        let won = (0..).zip(&self.view.maps).filter(|_| kind == Kind::Reduce);
        let maps = won.filter_map(|(number, map)| Some((number, map.winner?))).collect();
        Order::Run { task: Task { kind, number }, attempt: mine.unwrap_or(next), maps }
    }

    /// The place of the task that `worker` gets: what it has already, what nobody has, or the oldest that may have a
    /// twin.
    fn pick(&mut self, kind: Kind, worker: u64, now: Duration) -> Option<usize> {
        let tasks = self.tasks(kind);
        let has = |state: &State| state.live().any(|attempt| attempt.worker == worker);
        if let Some(place) = tasks.iter().position(has).or_else(|| tasks.iter().position(State::is_idle)) {
            return Some(place);
        }
        let at_work = tasks.iter().enumerate().filter_map(|(place, state)| Some((state.newest()?, place)));
        let (since, place) = at_work.min()?;
        let patience = patience(tasks);
        (now.saturating_sub(since) >= patience).then_some(place)
    }

    /// What `worker` was at ends so, if its task is won by another, or whatever it is.
    fn leave(&mut self, worker: u64, now: Duration, only_won: bool, end: End) {
        let tasks = self.view.maps.iter_mut().chain(&mut self.view.reduces);
        let left = tasks.filter(|state| !only_won || state.winner.is_some());
        for attempt in left.flat_map(|state| &mut state.attempts) {
            if attempt.worker == worker && attempt.ended.is_none() {
                attempt.ended = Some((now, end));
            }
        }
    }

    fn hear(&mut self, worker: u64, now: Duration) {
        let workers = &mut self.view.workers;
        workers.retain(|(other, _)| *other != worker);
        workers.push((worker, now));
        if workers.len() > WORKERS_MAX {
            workers.remove(0);
        }
    }

    /// Whether there is such a task, and nobody has won it yet.
    pub fn is_open(&mut self, task: Task) -> bool {
        self.state(task).is_some_and(|state| state.winner.is_none())
    }

    /// This attempt, perhaps one of an earlier coordinator's, has won. The first one counts.
    pub fn won(&mut self, task: Task, attempt: u64) {
        if let Some(state) = self.state(task) {
            state.winner.get_or_insert(attempt);
        }
    }

    /// An attempt is done.
    pub fn done(&mut self, task: Task, attempt: u64, work: Work, now: Duration) {
        self.won(task, attempt);
        let Some(state) = self.state(task) else { return };
        let end = if state.winner == Some(attempt) { End::Won } else { End::Late };
        let Some(one) = state.attempts.iter_mut().find(|one| one.number == attempt) else { return };
        let is_new = !matches!(one.ended, Some((_, End::Won | End::Late)));
        let worker = one.worker;
        if is_new {
            (one.ended, one.work) = (Some((now, end)), work);
        }
        self.hear(worker, now);
    }

    /// The app failed in an attempt. Hearing it twice counts once.
    pub fn failed(&mut self, task: Task, attempt: u64, report: &str, now: Duration) {
        let Some(state) = self.state(task).filter(|state| state.winner.is_none()) else { return };
        let mut live = state.attempts.iter_mut().filter(|one| one.ended.is_none());
        let Some(one) = live.find(|one| one.number == attempt) else { return };
        one.ended = Some((now, End::Failed));
        let is_report = |one: &&Attempt| matches!(one.ended, Some((_, End::Failed)));
        if state.attempts.iter().filter(is_report).count() >= REPORTS_MAX {
            self.fail(report.to_owned());
        }
    }

    /// A worker's connection ended: what it was at is free again at once.
    pub fn gone(&mut self, worker: u64, now: Duration) {
        self.leave(worker, now, false, End::Gone);
    }

    /// The job cannot be done. The first reason counts.
    pub fn fail(&mut self, mut why: String) {
        why.truncate(why.floor_char_boundary(REPORT_BYTES_MAX));
        self.view.failure.get_or_insert(why);
    }

    /// Why the job failed.
    pub fn failure(&self) -> Option<&str> {
        self.view.failure.as_deref()
    }

    /// Whether there is nothing more to do.
    pub fn is_over(&self) -> bool {
        self.view.failure.is_some() || self.view.tasks().all(|state| state.winner.is_some())
    }

    /// Tasks that are done, and all tasks.
    pub fn progress(&self) -> (usize, usize) {
        self.view.progress()
    }

    /// Everything, to be shown.
    pub fn view(&self, now: Duration) -> View {
        View { now, ..self.view.clone() }
    }
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
