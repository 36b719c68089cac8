//! The tasks of a replica, and where they run.

use tokio::sync::oneshot;

use crate::storage;

/// Where the tasks of a replica run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Synced writes, applier, flusher and streamer have a thread each. The driver stays on the
    /// caller's runtime, beside the sockets: requests that arrive together form one round, with no
    /// cross-thread wake-up.
    Own,
    /// All on the caller's runtime: simulations.
    Shared,
}

/// A task that runs for the replica.
pub(super) enum Task {
    Spawned(tokio::task::JoinHandle<()>),
    Thread { done: oneshot::Receiver<()>, thread: std::thread::JoinHandle<()> },
}

impl Task {
    /// The new thread calls `prepare` first.
    pub(super) fn start<F: Future<Output = ()> + Send + 'static>(
        threads: Threads,
        name: &str,
        prepare: fn(),
        future: F,
    ) -> Self {
        match threads {
            Threads::Shared => Self::Spawned(tokio::spawn(future)),
            Threads::Own => {
                let (ended, done) = oneshot::channel();
                let span = tracing::Span::current();
                let run = move || {
                    let _in = span.entered();
                    prepare();
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()
                        .unwrap_or_else(|error| storage::no_runtime(&error));
                    runtime.block_on(future);
                    let _ = ended.send(());
                };
                let thread = storage::start_thread(name, run);
                Self::Thread { done, thread }
            }
        }
    }

    pub(super) async fn end(self) {
        match self {
            Self::Spawned(handle) => {
                let _ = handle.await;
            }
            Self::Thread { done, thread } => {
                let _ = done.await;
                // A panic of that thread has already been reported by the panic hook.
                let _ = thread.join();
            }
        }
    }
}
