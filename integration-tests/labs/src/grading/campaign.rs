//! Many runs, on several threads: each simulation has its own thread while it runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use super::{Outcome, run};
use crate::lab::Options;
use crate::sheet::Test;

/// Runs every job and passes its outcome to `done` as soon as it is over, with the job's position.
/// Takes no new jobs once `done` says so.
pub fn play(jobs: &[(&Test, Options)], threads: usize, mut done: impl FnMut(usize, Outcome) -> bool) {
    let next = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (sender, outcomes) = mpsc::channel();
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            let sender = sender.clone();
            let (next, over) = (&next, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some((test, options)) = jobs.get(position) else { break };
                    let outcome = run(test, options);
                    if sender.send((position, outcome)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (position, outcome) in outcomes {
            if !done(position, outcome) {
                over.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// The number of threads that the machine has for us.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
