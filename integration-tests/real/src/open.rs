//! The open loop: operations begin on schedule, whether earlier ones have returned or not, so that
//! a pause cannot hide itself.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::clock;
use tokio::task::JoinSet;

/// The limit of operations in flight, if the store cannot keep up. Late ones count from when they
/// were due.
const AT_ONCE_MAX: usize = 1000;

/// Begins `per_second` operations a second until it is `over`, and waits for all. `begin` gets the
/// number of each; `ended` gets whether it was done and how long it took. Returns how many there
/// were.
///
pub(crate) async fn open_loop<F>(
    per_second: u32,
    over: &AtomicBool,
    mut begin: impl FnMut(u64) -> F,
    mut ended: impl FnMut(bool, Duration),
) -> u64
where
    F: Future<Output = bool> + 'static,
{
    let (mut tasks, mut begun, start) = (JoinSet::new(), 0, clock::now());
    while !over.load(Ordering::Relaxed) || !tasks.is_empty() {
        let is_over = over.load(Ordering::Relaxed);
        let due = start.after(Duration::from_secs(begun) / per_second);
        tokio::select! {
            biased;
            Some(done) = tasks.join_next() => {
                let (is_done, took) = done.expect("an operation ends");
                ended(is_done, took);
            }
            () = clock::sleep_until(due), if !is_over && tasks.len() < AT_ONCE_MAX => {
                let operation = begin(begun);
                tasks.spawn_local(async move { (operation.await, due.elapsed()) });
                begun += 1;
            }
        }
    }
    begun
}
