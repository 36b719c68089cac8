//! What every program has in common apart from its work: settings, log, signals, and its end.
//!
//! * [`load`] reads settings (the command line overrides the file); a bad one is one line on stderr
//!   and exit 1.
//! * [`run`] runs a main future on a single-threaded runtime. Any failure on the way ends in
//!   [`fail`]: one line on stderr, the same in the log, exit 1.
//! * [`start_log`] opens a log that is rotated; [`set_log_level`] changes what it takes.
//! * [`end`] ends a process that must not continue, at once and with a status that names the cause
//!   (correctness rule 29). A panic anywhere also ends a process: half a replica must not go on
//!   voting.
//!
//! Left out on purpose: daemonizing and supervision (the command line and systemd do that),
//! reloading settings while running, and what only servers need (crate `host`).

mod fatal;
mod log;
mod settings;

use std::fmt;
use std::future::Future;
use std::path::Path;

pub use fatal::{Fatal, end};
pub use log::{LevelError, LogError, LogFormat, check_log_level, log_level, set_log_level, start_log};
pub use settings::{Refused, check_asked, load, parse};

/// Ends the process with exit 1 after one line on stderr (and in the log, if there is one already).
pub fn fail(why: &dyn fmt::Display) -> ! {
    fatal::end_with(1, one_line(&why.to_string()))
}

/// Runs a server's main future to its end on a runtime of one thread; an error ends in [`fail`].
pub fn run<E: fmt::Display>(main: impl Future<Output = Result<(), E>>) {
    fatal::end_on_panic();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| fail(&format!("cannot start a runtime: {error}")));
    let result = runtime.block_on(main);
    // Handlers that still wait must not keep the process alive.
    runtime.shutdown_background();
    if let Err(error) = result {
        fail(&error);
    }
}

/// Waits for SIGTERM or SIGINT; returns the one that came.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn shutdown_signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        biased;
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn program() -> String {
    let name = std::env::args_os().next();
    let name = name.as_deref().and_then(|path| Path::new(path).file_name());
    name.map_or_else(|| "server".to_owned(), |name| name.to_string_lossy().into_owned())
}
