//! Threads of their own for what waits for disks.
//!
//! [`LogThread`] is a log whose saves run on a separate thread, so that a synced write blocks only
//! the callers that wait for it: the driver shares its runtime with the replica's sockets.
//!
//! Left out on purpose: several concurrent saves. The law of effects allows one at a time.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use base::process::{Fatal, end};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Log, LogWriter, Save};

/// A log that was not written for this long gets a call to [`Log::rest`] (correctness rule 61).
const IDLE: Duration = Duration::from_millis(50);
/// And another one after this time: entries that it keeps for others may no longer be needed (rule
/// 79).
const IDLE_AGAIN: Duration = Duration::from_secs(2);

/// Starts a thread; ends the process if there is none to be had.
pub fn start_thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    started.unwrap_or_else(|error| end(Fatal::System, &format_args!("cannot start a thread: {error}")))
}

/// Ends the process: the operating system gives no runtime to a thread.
pub fn no_runtime(error: &io::Error) -> ! {
    end(Fatal::System, &format_args!("cannot start a runtime: {error}"))
}

/// Lowers the calling thread's priority: usually nobody waits for it. Best effort; Linux only.
pub fn stand_back() {
    #[cfg(target_os = "linux")]
    if let Ok(now) = rustix::process::getpriority_process(None) {
        let _ = rustix::process::setpriority_process(None, now + 5);
    }
}

/// A save, and the channel that gets the number of synced writes once it is durable.
type Job = (Save, oneshot::Sender<u64>);

/// A log on a separate thread. Dropping it waits until the log is closed.
pub struct LogThread {
    /// None only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    syncs: u64,
}

impl LogThread {
    /// Gives `log`, which has been loaded, a thread. Ends the process if there is no thread to be
    /// had.
    pub fn start(mut log: Box<dyn Log>) -> Self {
        let syncs = log.syncs();
        let (jobs, queue) = mpsc::channel::<Job>();
        let span = tracing::Span::current();
        let run = move || {
            let _in = span.entered();
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.unwrap_or_else(|error| no_runtime(&error));
            let mut patience = IDLE_AGAIN;
            loop {
                match queue.recv_timeout(patience) {
                    Ok((save, done)) => {
                        runtime.block_on(log.save(&save));
                        let _ = done.send(log.syncs());
                        patience = IDLE;
                    }
                    // A save that has come meanwhile goes first.
                    Err(RecvTimeoutError::Timeout) => {
                        patience = if log.rest() { Duration::ZERO } else { IDLE_AGAIN };
                    }
                    Err(RecvTimeoutError::Disconnected) => {
                        log.rest();
                        break;
                    }
                }
            }
        };
        Self { jobs: Some(jobs), thread: Some(start_thread("raft-log", run)), syncs }
    }
}

impl LogWriter for LogThread {
    fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()> {
        async move {
            let (done, durable) = oneshot::channel();
            let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send((save.clone(), done)).is_ok());
            match durable.await {
                Ok(syncs) if sent => self.syncs = syncs,
                // Only a panic of that thread leads here, and that ends the process.
                _ => end(Fatal::Bug, &"the thread that writes the log is gone"),
            }
        }
        .boxed()
    }

    fn syncs(&self) -> u64 {
        self.syncs
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has already been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LogThread;
    use crate::storage::{Log, LogWriter, OpenError, Restored, Save};
    use crate::types::{HardState, Term};
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use std::sync::{Arc, Mutex};

    /// Terms as they were saved, and a zero for each rest.
    struct Slow(Arc<Mutex<Vec<u64>>>);

    impl LogWriter for Slow {
        fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()> {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.0.lock().unwrap().push(save.hard_state.unwrap().term.0);
            futures::future::ready(()).boxed()
        }

        fn syncs(&self) -> u64 {
            self.0.lock().unwrap().iter().filter(|term| **term > 0).count() as u64
        }
    }

    impl Log for Slow {
        fn load(&mut self) -> Result<Restored, OpenError> {
            Ok(Restored::default())
        }

        fn rest(&mut self) -> bool {
            self.0.lock().unwrap().push(0);
            false
        }
    }

    fn save(term: u64) -> Save {
        Save { hard_state: Some(HardState { term: Term(term), vote: None }), ..Save::default() }
    }

    #[tokio::test]
    async fn a_save_is_durable_when_it_returns_and_holds_up_nobody_else() {
        let durable = Arc::new(Mutex::new(Vec::new()));
        let mut log = LogThread::start(Box::new(Slow(Arc::clone(&durable))));
        let mut others = 0;
        for term in 1..=3 {
            let save = save(term);
            let mut saving = log.save(&save);
            let turns = loop {
                tokio::select! {
                    biased;
                    () = &mut saving => break others,
                    () = tokio::task::yield_now() => others += 1,
                }
            };
            drop(saving);
            assert!(turns > 0, "other tasks had their turn");
            let kept = durable.lock().unwrap().iter().filter(|term| **term > 0).count() as u64;
            assert_eq!((kept, log.syncs()), (term, term));
        }
        drop(log);
        assert_eq!(*durable.lock().unwrap(), [1, 2, 3, 0]);
    }

    /// Rule 61: once after the last save, not between saves that follow each other, and at the end.
    #[tokio::test]
    async fn a_log_rests_once_there_is_no_save_for_a_while() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut log = LogThread::start(Box::new(Slow(Arc::clone(&seen))));
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        assert_eq!(*seen.lock().unwrap(), [0; 0], "nothing was saved, nothing is to be done");
        log.save(&save(1)).await;
        log.save(&save(2)).await;
        let start = std::time::Instant::now();
        while seen.lock().unwrap().len() < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            assert!(start.elapsed().as_secs() < 20, "{seen:?}");
        }
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        log.save(&save(3)).await;
        drop(log);
        assert_eq!(*seen.lock().unwrap(), [1, 2, 0, 3, 0]);
    }
}
