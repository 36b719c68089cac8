//! The simulator: the production code on one thread, with a virtual clock, network and disk that
//! one seed decides.
//!
//! ```
//! use std::time::Duration;
//!
//! use sim::cluster::{Cluster, Kind, Shape};
//!
//! // A group of three servers on a simulated network elects its first leader.
//! let elect = |seed| {
//!     sim::run(seed, |world| async move {
//!         let cluster = Cluster::new(&world, Shape::drawn(&world));
//!         cluster.add(Kind::Toy, 3);
//!         cluster.ready(Duration::from_secs(10)).await
//!     })
//! };
//! let (one, again, other) = (elect(7)?, elect(7)?, elect(8)?);
//! assert_eq!(one.trace, again.trace, "a seed is the same run again");
//! assert_ne!(one.trace, other.trace);
//! # Ok::<(), sim::Failure>(())
//! ```
//!
//! tokio's clock is paused, so it moves only when every task is idle. Messages, disk writes and
//! faults are events of one queue ([`queue`]). The pump takes one event, waits for its time, lets
//! it happen, waits until everything that it caused is idle again, and then checks the invariants:
//! one event per turn. The timers of the code under test are tokio's own, which fire in a fixed
//! order.
//!
//! Everything random is drawn from generators derived from (seed, name): of a link, a disk, a
//! client, the faults. So one number replays a run. If two runs of a seed differ, some code looks
//! at a clock, a hash map's order or an unseeded generator.
//!
//! [`network`]: the labs' network. [`disk`]: delays and power cuts. [`cluster`]: nodes, their
//! crashes and restarts. [`clerks`]: the product's clients. [`toy`]: a small service for runs of a
//! single group. [`faults`]: what goes wrong, and when.
//!
//! Left out on purpose: disk errors (they end a process, which is a crash), and clocks that drift.

pub mod clerks;
pub mod cluster;
pub mod disk;
pub mod faults;
pub mod invariants;
pub mod network;
pub mod queue;
pub mod record;
pub mod toy;
pub mod workload;

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use rand::SeedableRng;
use tokio::sync::{Notify, oneshot};

pub use queue::Label;
use queue::{Event, Queue};

use crate::record::Tape;

/// The generator used everywhere in simulations.
pub type Generator = rand::rngs::Xoshiro256PlusPlus;

/// A name of a node, a client or a fault. Servers' addresses are their names.
pub type Name = Arc<str>;

/// A check that runs after every event.
type Check = Box<dyn FnMut() -> Result<(), String> + Send>;

/// A run with more events than this will never end.
const EVENTS_MAX: u64 = 20_000_000;

/// One simulated world. Clones share it.
#[derive(Clone)]
pub struct World {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    queue: Mutex<Queue>,
    earlier: Notify,
    checks: Mutex<Vec<Check>>,
    failure: Mutex<Option<String>>,
    failed: Notify,
    printed: bool,
    /// None: nobody will read it.
    recorded: Option<Mutex<Tape>>,
}

/// Ignores poison: if a holder panicked, the run has failed and says so.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run that completed.
#[derive(Debug)]
pub struct Run<T> {
    /// What the run's main future returned.
    pub output: T,
    /// Hash over everything that happened.
    pub trace: u64,
    pub events: u64,
    /// Its length in virtual time.
    pub virtual_time: Duration,
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// Virtual time since the start.
    pub at: Duration,
    /// What went wrong.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} failed at {:.6} virtual seconds: {}", self.seed, self.at.as_secs_f64(), self.what)
    }
}

impl std::error::Error for Failure {}

impl World {
    fn new(seed: u64, tape: Option<Tape>) -> Self {
        let shared = Shared {
            seed,
            queue: Mutex::new(Queue::new(seed)),
            earlier: Notify::new(),
            checks: Mutex::default(),
            failure: Mutex::default(),
            failed: Notify::new(),
            printed: std::env::var_os("SIM_TRACE").is_some(),
            recorded: tape.map(Mutex::new),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// The generator for `name`.
    pub fn generator(&self, name: &str) -> Generator {
        Generator::seed_from_u64(self.derive(name))
    }

    /// A seed for `name`.
    pub fn derive(&self, name: &str) -> u64 {
        base::seed::derive(self.shared.seed, name)
    }

    /// Lets `action` happen `delay` from now. `bytes` enter the trace.
    pub fn after(&self, delay: Duration, label: Label, bytes: Bytes, action: impl FnOnce() + Send + 'static) {
        let when = clock::now().after(delay).as_nanos();
        let event = Event { label, bytes, action: Box::new(action) };
        if lock(&self.shared.queue).push(when, event) {
            self.shared.earlier.notify_one();
        }
    }

    /// Waits for an event `delay` from now.
    pub async fn pause(&self, delay: Duration, label: Label) {
        let (sender, receiver) = oneshot::channel();
        self.after(delay, label, Bytes::new(), move || {
            let _ = sender.send(());
        });
        // An error means that the queue is gone, and this task with it.
        let _ = receiver.await;
    }

    /// Adds a check that runs after every event.
    pub fn always(&self, check: impl FnMut() -> Result<(), String> + Send + 'static) {
        lock(&self.shared.checks).push(Box::new(check));
    }

    /// Enters something into the trace that did not come through the queue.
    pub fn note(&self, text: &str) {
        if self.shared.printed {
            println!("{:>14} {text}", clock::now().as_nanos());
        }
        lock(&self.shared.queue).note(text.as_bytes());
    }

    /// Whether this run is being recorded.
    pub fn is_recorded(&self) -> bool {
        self.shared.recorded.is_some()
    }

    /// Records what happened at `at`, in `term` if it has one, if this run is being recorded.
    pub fn record(&self, at: Option<&Name>, term: Option<u64>, what: impl FnOnce() -> record::What) {
        if let Some(recorded) = &self.shared.recorded {
            let at_ns = clock::now().as_nanos();
            let event = record::Event { at_ns, at: at.map(ToString::to_string), term, what: what() };
            lock(recorded).push(event);
        }
    }

    /// Takes what was recorded so far.
    fn take_recorded(&self) -> Tape {
        self.shared.recorded.as_ref().map(|recorded| std::mem::take(&mut *lock(recorded))).unwrap_or_default()
    }

    /// Ends the run as failed. The first failure counts.
    pub fn fail(&self, what: impl Into<String>) {
        lock(&self.shared.failure).get_or_insert_with(|| what.into());
        self.shared.failed.notify_one();
    }

    async fn failed(&self) -> String {
        loop {
            if let Some(what) = lock(&self.shared.failure).clone() {
                return what;
            }
            self.shared.failed.notified().await;
        }
    }

    /// Takes one event per turn, forever.
    async fn pump(self) {
        /// Shorter than the clock's grain, so it is rounded up to it: everybody else is idle when
        /// it is over.
        const TURN: Duration = Duration::from_nanos(1);
        loop {
            let Some(due) = lock(&self.shared.queue).next_at() else {
                self.shared.earlier.notified().await;
                continue;
            };
            if due > clock::now().as_nanos() {
                let wait = Duration::from_nanos(due - clock::now().as_nanos());
                tokio::select! {
                    biased;
                    () = self.shared.earlier.notified() => continue,
                    () = clock::sleep(wait) => {}
                }
            }
            let Some(event) = lock(&self.shared.queue).pop(clock::now().as_nanos()) else { continue };
            if self.shared.printed {
                let Label { kind, from, at } = &event.label;
                println!(
                    "{:>14} {kind} {from} -> {at} ({} bytes)",
                    clock::now().as_nanos(),
                    event.bytes.len()
                );
            }
            (event.action)();
            clock::sleep(TURN).await;
            self.check();
        }
    }

    fn check(&self) {
        if let Some(panicked) = PANICKED.take() {
            self.fail(format!("a task panicked: {panicked}"));
        }
        if lock(&self.shared.queue).trace().0 > EVENTS_MAX {
            self.fail(format!("no end after {EVENTS_MAX} events"));
        }
        let mut checks = lock(&self.shared.checks);
        if let Some(what) = checks.iter_mut().find_map(|check| check().err()) {
            self.fail(what);
        }
    }
}

impl Label {
    /// An event of one party.
    pub fn of(kind: &'static str, at: &Name) -> Self {
        Self { kind, from: Arc::clone(at), at: Arc::clone(at) }
    }
}

thread_local! {
    /// The first panic on this thread since the last check. tokio swallows panics of tasks.
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn watch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let inner = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let text = info.payload_as_str().unwrap_or("no text");
            let place = info.location().map_or_else(String::new, |place| format!(" ({place})"));
            PANICKED.with_borrow_mut(|slot| {
                slot.get_or_insert_with(|| format!("{text}{place}"));
            });
            inner(info);
        }));
    });
}

/// Runs `main` in a world of `seed`.
///
/// # Errors
/// The first [`Failure`]: an invariant, a panic of any task, or what `main` returned.
pub fn run<T, F>(seed: u64, main: impl FnOnce(World) -> F) -> Result<Run<T>, Failure>
where
    F: Future<Output = Result<T, String>>,
{
    run_recorded(seed, None, main)
}

/// Like [`run`], and puts what happened onto `tape` if there is one, however the run ended.
///
/// # Errors
/// As there.
pub fn run_recorded<T, F>(
    seed: u64,
    mut tape: Option<&mut Tape>,
    main: impl FnOnce(World) -> F,
) -> Result<Run<T>, Failure>
where
    F: Future<Output = Result<T, String>>,
{
    watch_panics();
    PANICKED.take();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets can always be built");
    let world_of_run = RefCell::new(None);
    let body = runtime.block_on(async {
        let _virtual_time = clock::simulate();
        let world = World::new(seed, tape.as_deref_mut().map(std::mem::take));
        world_of_run.replace(Some(world.clone()));
        let pump = tokio::spawn(world.clone().pump());
        let main = panic::catch_unwind(AssertUnwindSafe(|| main(world.clone())));
        let outcome = match main {
            Ok(main) => tokio::select! {
                biased;
                what = world.failed() => Err(what),
                outcome = futures::FutureExt::catch_unwind(AssertUnwindSafe(main)) => {
                    outcome.unwrap_or_else(|_| Err(panicked()))
                }
            },
            Err(_) => Err(panicked()),
        };
        pump.abort();
        let at = Duration::from_nanos(clock::now().as_nanos());
        outcome.map(|output| (output, at)).map_err(|what| Failure { seed, at, what })
    });
    // Tasks end here, before the world does.
    drop(runtime);
    let world: Option<World> = world_of_run.take();
    if let Some(world) = &world {
        // Both keep the world alive.
        let checks = std::mem::take(&mut *lock(&world.shared.checks));
        let events = lock(&world.shared.queue).abandon();
        drop((checks, events));
    }
    if let (Some(tape), Some(world)) = (tape, &world) {
        *tape = world.take_recorded();
    }
    let (output, virtual_time) = body?;
    let (events, trace) = world.map_or((0, 0), |world| lock(&world.shared.queue).trace());
    Ok(Run { output, trace, events, virtual_time })
}

fn panicked() -> String {
    format!("panicked: {}", PANICKED.take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{Label, lock, run};

    fn play(seed: u64) -> (Vec<u32>, u64) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let seen_too = Arc::clone(&seen);
        let run = run(seed, |world| async move {
            for number in 0..20 {
                let (world, seen) = (world.clone(), Arc::clone(&seen_too));
                tokio::spawn(async move {
                    world.pause(Duration::from_nanos(1500), Label::of("tie", &"x".into())).await;
                    lock(&seen).push(number);
                });
            }
            world.pause(Duration::from_millis(1), Label::of("end", &"x".into())).await;
            Ok(())
        });
        let trace = run.unwrap().trace;
        (lock(&seen).clone(), trace)
    }

    #[test]
    fn the_seed_decides_between_events_of_the_same_instant() {
        assert_eq!(play(1), play(1));
        assert_ne!(play(1), play(2));
        assert_eq!(play(3).0.len(), 20);
    }

    #[test]
    fn an_event_is_over_before_the_next_one_of_the_same_instant_begins() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&order);
        run(5, |world| async move {
            for number in 0..10 {
                let (world, order) = (world.clone(), Arc::clone(&order));
                tokio::spawn(async move {
                    world.pause(Duration::from_nanos(10), Label::of("tie", &"x".into())).await;
                    lock(&order).push(number);
                    for _ in 0..50 {
                        tokio::task::yield_now().await;
                    }
                    lock(&order).push(number);
                });
            }
            world.pause(Duration::from_millis(1), Label::of("end", &"x".into())).await;
            Ok(())
        })
        .unwrap();
        assert!(lock(&seen).chunks(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_broken_invariant_and_a_panic_in_a_task_end_the_run() {
        let broken = run(1, |world| async move {
            let start = base::clock::now();
            world.always(move || {
                if start.elapsed() > Duration::from_millis(5) { Err("too late".into()) } else { Ok(()) }
            });
            loop {
                world.pause(Duration::from_millis(1), Label::of("beat", &"x".into())).await;
            }
            #[allow(unreachable_code)]
            Ok(())
        });
        let broken = broken.unwrap_err();
        assert!(broken.to_string().contains("seed 1 failed at 0.005"), "{broken}");
        let panicked = run(2, |world| async move {
            tokio::spawn(async { panic!("planted") });
            loop {
                world.pause(Duration::from_millis(1), Label::of("beat", &"x".into())).await;
            }
            #[allow(unreachable_code)]
            Ok(())
        });
        assert!(panicked.unwrap_err().what.contains("planted"));
    }

    #[test]
    fn virtual_hours_take_no_time() {
        let run = run(1, |world| async move {
            world.pause(Duration::from_secs(36_000), Label::of("end", &"x".into())).await;
            Ok(())
        });
        assert!(run.unwrap().virtual_time >= Duration::from_secs(36_000));
    }
}
