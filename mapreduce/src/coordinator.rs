//! The coordinator: a job from start to end, and the socket where workers ask for work.
//!
//! `Ask` waits for up to a second for work. `Done` is answered after the winner's mark is in the
//! directory, so a coordinator that dies forgets nothing. The next coordinator reads the marks and
//! continues; its attempts get numbers from a random number on. Two coordinators at the same time
//! do no harm: a mark can be made only once, and both obey it.
//!
//! When a worker's connection ends, its attempts end too, immediately. A worker that stays
//! connected but is silent is noticed after ten seconds ([`crate::job`]).

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base::clock::{self, Instant};
use base::socket::wire;
use base::socket::{Arrival, Here, Limits, Listener, Purpose, Refusal};
use tarpc::context::Context;
use tokio::sync::watch;

use crate::api::{MapReduce, Reply, Request};
use crate::files::{ADDRESS, Directory, FINISHED, Spec};
use crate::job::{Job, Kind, Order, Task};
use crate::store::Store;

/// An `Ask` is answered within this time.
const ASK_MAX: Duration = Duration::from_secs(1);
/// The coordinator stays this long after the end, so that workers hear of it.
const LINGER: Duration = Duration::from_secs(1);
/// Pause between two checks whether another coordinator has ended the job.
const LOOK: Duration = Duration::from_millis(50);
/// Concurrent requests of one connection. A worker has one, and `mr status` another.
const IN_FLIGHT_MAX: usize = 16;
/// A connection that is silent for so long is closed. A worker may need hours for a task.
const IDLE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a frame. The longest is the view of a job with many tasks.
pub(crate) const FRAME_BYTES_MAX: usize = 32 << 20;

/// A coordinator.
pub struct Coordinator {
    directory: Directory,
    spec: Spec,
    /// Where the results go as well.
    store: Option<Store>,
    job: Mutex<Job>,
    changed: watch::Sender<()>,
    start: Instant,
}

impl Coordinator {
    /// Begins the job of a directory, or continues it. `life` is the random number from which
    /// attempts are numbered.
    pub async fn begin(
        directory: Directory,
        spec: Spec,
        store: Option<Store>,
        life: u32,
    ) -> anyhow::Result<Self> {
        if let (Some(store), Some(output)) = (&store, &spec.output) {
            store.hold(spec.id, Some(&output.prefix)).await?;
        }
        directory.reopen()?;
        let job = directory.look(&spec, u64::from(life) << 32)?;
        for (number, winner) in (0..).zip(job.reduces.iter().map(|state| state.winner)) {
            // The last coordinator may have died before it gave the output its name.
            winner.map_or(Ok(()), |winner| directory.publish(number, winner))?;
        }
        let store = store.filter(|_| spec.output.is_some());
        let (job, changed) = (Mutex::new(job), watch::Sender::new(()));
        Ok(Self { directory, spec, store, job, changed, start: clock::now() })
    }

    /// Waits until the job is over, or until `given_up` says why nobody works on it any more.
    /// Then ends the job; only this function does that. Returns false if another coordinator, which
    /// continued the job while this one lived, has ended it.
    ///
    /// # Errors
    /// Why the job failed, or what cannot be written down.
    pub async fn end(&self, given_up: impl Future<Output = String>) -> anyhow::Result<bool> {
        // The coordinator lives until workers had the time to hear of the end.
        let mut given_up = pin!(given_up);
        tokio::select! {
            biased;
            () = self.over() => {}
            ending = self.ended_elsewhere() => {
                ensure!(ending.is_empty(), "another coordinator of the job says: {ending}");
                return Ok(false);
            }
            why = &mut given_up => self.job().fail(why),
        }
        let failure = self.job().failure.clone();
        let (done, all) = self.progress();
        let is_kept = self.directory.exists();
        if is_kept {
            let ending = failure.as_deref().unwrap_or_default();
            let written = self.directory.replace(FINISHED, ending.as_bytes());
            written.with_context(|| format!("the job's end cannot be written ({ending})"))?;
        }
        // A job that failed keeps its prefix: its results may be half written, and `mr resume`
        // writes the rest.
        let keeps = self.store.is_some() && failure.is_some() && is_kept;
        if let Some(store) = self.store.as_ref().filter(|_| !keeps) {
            store.hold(self.spec.id, None).await?;
        }
        clock::sleep(LINGER).await;
        let next = "; its prefix in the store stays taken: `mr resume` writes the rest, `mr clean` frees it";
        let next = if keeps { next } else { "" };
        match failure {
            Some(why) => bail!("the job failed with {done} of {all} tasks done: {why}{next}"),
            None => Ok(true),
        }
    }

    async fn over(&self) {
        // This value holds the sender, so the channel is open.
        let _ = self.changed.subscribe().wait_for(|()| self.job().is_over()).await;
    }

    async fn ended_elsewhere(&self) -> String {
        loop {
            match self.directory.finished() {
                Some(ending) => return ending,
                None => clock::sleep(LOOK).await,
            }
        }
    }

    fn job(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Answers a request.
    pub async fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Ask(worker) => return Reply::Order(self.ask(worker).await),
            Request::View => return Reply::View(Box::new(self.view())),
            Request::Failed(task, attempt, report) => self.job().failed(task, attempt, report, self.now()),
            Request::Done(task, attempt, work) => {
                let mut job = self.job();
                if job.is_open(task) && job.failure.is_none() {
                    match win(&self.directory, task, attempt) {
                        Ok(winner) => job.won(task, winner),
                        Err(error) => job.fail(format!("the directory of the job: {error}")),
                    }
                }
                if job.failure.is_none() {
                    job.done(task, attempt, work, self.now());
                }
            }
        }
        self.changed.send_replace(());
        Reply::Noted
    }

    async fn ask(&self, worker: u64) -> Order {
        let until = clock::now().after(ASK_MAX);
        let mut changed = self.changed.subscribe();
        loop {
            let order = self.job().ask(worker, self.now());
            let left = until.since(clock::now());
            if order != Order::Wait || left.is_zero() {
                return order;
            }
            // An error means that the time is over: the next check is the last.
            let _ = clock::timeout(left, changed.changed()).await;
        }
    }

    /// A worker's connection has ended.
    pub fn gone(&self, worker: u64) {
        self.job().gone(worker, self.now());
        self.changed.send_replace(());
    }

    /// The state of the job.
    pub fn view(&self) -> Job {
        let mut job = self.job().clone();
        job.now = self.now();
        job
    }

    /// The number of tasks that are done, and of all tasks.
    pub fn progress(&self) -> (usize, usize) {
        self.job().progress()
    }
}

/// Marks this attempt as the winner of its task, and returns the winner. The mark comes before
/// the answer, because what was answered must outlive this process.
fn win(directory: &Directory, task: Task, attempt: u64) -> std::io::Result<u64> {
    let winner = directory.mark(task, attempt)?;
    if task.kind == Kind::Reduce {
        directory.publish(task.number, winner)?;
    }
    Ok(winner)
}

/// Listens at an address, writes it into the job's directory, and serves every connection as long
/// as this process lives.
pub async fn listen(coordinator: &Arc<Coordinator>, address: &str) -> anyhow::Result<()> {
    let limits = Limits { frame_bytes_max: FRAME_BYTES_MAX, ..Limits::default() };
    let listener = Listener::bind(address, limits).await?;
    coordinator.directory.replace(ADDRESS, listener.address().to_string().as_bytes())?;
    let here = Arc::new(Here { cluster: name_of(coordinator.spec.id), ..Here::default() });
    let coordinator = Arc::clone(coordinator);
    let arrived = move |arrival| on_arrival(arrival, Arc::clone(&here), Arc::clone(&coordinator));
    tokio::spawn(listener.run(arrived));
    Ok(())
}

/// The name that a caller of a job's coordinator sends.
pub(crate) fn name_of(job: u64) -> String {
    format!("mr-{job:016x}")
}

async fn on_arrival(arrival: Arrival, here: Arc<Here>, coordinator: Arc<Coordinator>) {
    if arrival.hello().purpose != Purpose::Client {
        return arrival.refuse(&Refusal::NoShards).await;
    }
    let Some(stream) = arrival.admit(&here).await else { return };
    let server = Server { coordinator, worker: Arc::default() };
    wire::serve(stream, IN_FLIGHT_MAX, IDLE_MAX, server.clone().serve()).await;
    server.worker.get().into_iter().for_each(|worker| server.coordinator.gone(*worker));
}

#[derive(Clone)]
struct Server {
    coordinator: Arc<Coordinator>,
    /// The worker on this connection.
    worker: Arc<OnceLock<u64>>,
}

impl MapReduce for Server {
    async fn mr(self, _: Context, request: Request) -> Reply {
        if let Request::Ask(worker) = request {
            self.worker.get_or_init(|| worker);
        }
        self.coordinator.handle(request).await
    }
}

#[cfg(test)]
mod tests;
