//! The coordinator: a job behind a socket.
//!
//! `Ask` waits for up to a second for work. `Done` is answered once the mark of the winner is in the directory, so a
//! coordinator that dies forgets nothing: the next one reads the marks and goes on, its attempts numbered from a random
//! number on. Two side by side do no harm: a mark can be made once, and both go by it.
//!
//! When a worker's connection ends, its attempts are given up at once. A worker that stays connected but is silent is
//! noticed after ten seconds ([`crate::job`]).

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use base::socket::wire;
use base::socket::{Arrival, Here, Listener, Purpose, Refusal, Stream};
use tarpc::context::Context;
use tokio::sync::watch;

use crate::api::{MapReduce, Reply, Request};
use crate::files::{Directory, Spec};
use crate::job::{Job, Kind, Order, Task, View};

/// An `Ask` is answered within this.
const ASK_MAX: Duration = Duration::from_secs(1);
/// Requests of one connection at once: a worker has one, a person that looks another.
const IN_FLIGHT_MAX: usize = 16;
/// A connection that is silent for so long is closed; a worker may be at a task for hours.
const IDLE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a frame: the longest is the view of a job of many tasks.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

/// A coordinator.
pub struct Coordinator {
    directory: Directory,
    job: Mutex<Job>,
    changed: watch::Sender<()>,
    start: Instant,
}

impl Coordinator {
    /// Begins with the job of a directory, or goes on with it. `life` tells this coordinator from those before.
    ///
    /// # Errors
    /// The system's, about the marks.
    pub fn new(directory: Directory, spec: &Spec, life: u32) -> std::io::Result<Self> {
        let mut job = Job::new(spec.maps(), spec.reduces, u64::from(life) << 32);
        for (kind, count) in [(Kind::Map, spec.maps()), (Kind::Reduce, spec.reduces)] {
            for task in (0..count).map(|number| Task { kind, number }) {
                if let Some(winner) = win(&directory, task, None)? {
                    job.won(task, winner);
                }
            }
        }
        let (job, changed) = (Mutex::new(job), watch::Sender::new(()));
        let coordinator = Self { directory, job, changed, start: clock::now() };
        coordinator.look_for_losses(&mut coordinator.job());
        Ok(coordinator)
    }

    fn job(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn tell(&self) {
        self.changed.send_replace(());
    }

    /// Answers a request.
    pub async fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Ask { worker } => return Reply::Order(self.ask(worker).await),
            Request::View => return Reply::View(Box::new(self.view())),
            Request::Done { task, attempt, work } => {
                let mut job = self.job();
                self.look_for_losses(&mut job);
                if job.is_open(task) && job.failure().is_none() {
                    match win(&self.directory, task, Some(attempt)) {
                        Ok(winner) => winner.into_iter().for_each(|winner| job.won(task, winner)),
                        Err(error) => job.fail(format!("the directory of the job: {error}")),
                    }
                }
                if job.failure().is_none() {
                    job.done(task, attempt, work, self.now());
                }
            }
            Request::Failed { task, attempt, report } => {
                let mut job = self.job();
                self.look_for_losses(&mut job);
                job.failed(task, attempt, &report, self.now());
            }
        }
        self.tell();
        Reply::Noted
    }

    /// A result that the store lacks fails the job, whatever its task says then (rule 122).
    fn look_for_losses(&self, job: &mut Job) {
        self.directory.lost().into_iter().for_each(|why| job.fail(why));
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
            // An error means that the time is over: the next look is the last.
            let _ = clock::timeout(left, changed.changed()).await;
        }
    }

    /// A worker's connection has ended.
    pub fn gone(&self, worker: u64) {
        self.job().gone(worker, self.now());
        self.tell();
    }

    /// How the job is.
    pub fn view(&self) -> View {
        self.job().view(self.now())
    }

    /// Tasks that are done, and all.
    pub fn progress(&self) -> (usize, usize) {
        self.job().progress()
    }

    /// Waits until the job is over: why it failed, or none.
    pub async fn over(&self) -> Option<String> {
        let mut changed = self.changed.subscribe();
        loop {
            if self.job().is_over() {
                return self.job().failure().map(str::to_owned);
            }
            // The sender is here: it cannot be gone.
            let _ = changed.changed().await;
        }
    }
}

/// Marks this attempt as the winner of its task, or none; who is the winner. The mark comes first: what is answered must
/// outlive this process. If it dies before the output has its name, the next coordinator gives it.
fn win(directory: &Directory, task: Task, attempt: Option<u64>) -> std::io::Result<Option<u64>> {
    let winner = match attempt {
        Some(attempt) => Some(directory.mark(task, attempt)?),
        None => directory.marked(task)?,
    };
    if let (Some(winner), Kind::Reduce) = (winner, task.kind) {
        directory.publish(task.number, winner)?;
    }
    Ok(winner)
}

/// Serves every connection. Never ends by itself; dropping it closes them all.
pub async fn serve(listener: Listener, job: u64, coordinator: Arc<Coordinator>) -> Infallible {
    let here = Arc::new(Here { cluster: name_of(job), ..Here::default() });
    listener.run(move |arrival| on_arrival(arrival, Arc::clone(&here), Arc::clone(&coordinator))).await
}

/// The name that a connection to a job's coordinator says.
pub fn name_of(job: u64) -> String {
    format!("mr-{job:016x}")
}

async fn on_arrival(arrival: Arrival, here: Arc<Here>, coordinator: Arc<Coordinator>) {
    if arrival.hello().purpose != Purpose::Client {
        return arrival.refuse(&Refusal::NoShards).await;
    }
    if let Some(stream) = arrival.admit(&here).await {
        converse(stream, coordinator).await;
    }
}

#[derive(Clone)]
struct Server {
    coordinator: Arc<Coordinator>,
    /// Who asks on this connection.
    worker: Arc<OnceLock<u64>>,
}

impl MapReduce for Server {
    async fn mr(self, _: Context, request: Request) -> Reply {
        if let Request::Ask { worker } = request {
            self.worker.get_or_init(|| worker);
        }
        self.coordinator.handle(request).await
    }
}

/// Answers a connection until it ends.
async fn converse(stream: Stream, coordinator: Arc<Coordinator>) {
    let server = Server { coordinator, worker: Arc::default() };
    wire::serve(stream, IN_FLIGHT_MAX, IDLE_MAX, server.clone().serve()).await;
    server.worker.get().into_iter().for_each(|worker| server.coordinator.gone(*worker));
}

#[cfg(test)]
mod tests;
