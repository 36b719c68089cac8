//! A log whose saves run on a thread of their own, so that a synced write holds up nobody but those who wait
//! for it: the driver shares its runtime with the replica's sockets.
//!
//! Left out on purpose: several saves under way. The law of effects has one at a time.

use std::sync::mpsc;
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Log, OpenError, Restored, Save, fatal, start_thread};

/// A save, and whom to tell the number of synced writes once it is durable.
type Job = (Save, oneshot::Sender<u64>);

/// A [`Log`] on a thread of its own. Dropping it waits until the log is closed.
pub struct LogThread {
    /// None only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    syncs: u64,
}

impl LogThread {
    /// Gives `log`, which has been loaded, a thread. Ends the process if there is none to be had.
    pub fn start(mut log: Box<dyn Log>) -> Self {
        let syncs = log.syncs();
        let (jobs, queue) = mpsc::channel::<Job>();
        let span = tracing::Span::current();
        let run = move || {
            let _in = span.entered();
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.unwrap_or_else(|error| fatal("start a runtime", &error));
            while let Ok((save, done)) = queue.recv() {
                runtime.block_on(log.save(&save));
                let _ = done.send(log.syncs());
            }
        };
        Self { jobs: Some(jobs), thread: Some(start_thread("raft-log", run)), syncs }
    }
}

impl Log for LogThread {
    fn load(&mut self) -> Result<Restored, OpenError> {
        panic!("a log is loaded before it gets its thread")
    }

    fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()> {
        async move {
            let (done, durable) = oneshot::channel();
            let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send((save.clone(), done)).is_ok());
            match durable.await {
                Ok(syncs) if sent => self.syncs = syncs,
                // Only a panic of that thread leads here, and that ends the process.
                _ => fatal("write the log", &"its thread is gone"),
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
    use crate::storage::{Log, OpenError, Restored, Save};
    use crate::types::{HardState, Term};
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use std::sync::{Arc, Mutex};

    struct Slow(Arc<Mutex<Vec<u64>>>);

    impl Log for Slow {
        fn load(&mut self) -> Result<Restored, OpenError> {
            Ok(Restored::default())
        }

        fn save<'a>(&'a mut self, save: &'a Save) -> BoxFuture<'a, ()> {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.0.lock().unwrap().push(save.hard_state.unwrap().term.0);
            futures::future::ready(()).boxed()
        }

        fn syncs(&self) -> u64 {
            self.0.lock().unwrap().len() as u64
        }
    }

    #[tokio::test]
    async fn a_save_is_durable_when_it_returns_and_holds_up_nobody_else() {
        let durable = Arc::new(Mutex::new(Vec::new()));
        let mut log = LogThread::start(Box::new(Slow(Arc::clone(&durable))));
        let mut others = 0;
        for term in 1..=3 {
            let hard_state = Some(HardState { term: Term(term), vote: None });
            let save = Save { hard_state, ..Save::default() };
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
            assert_eq!((durable.lock().unwrap().len() as u64, log.syncs()), (term, term));
        }
        drop(log);
        assert_eq!(*durable.lock().unwrap(), [1, 2, 3]);
    }
}
