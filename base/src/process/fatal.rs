//! The end of a process that must not continue (correctness rule 29).
//!
//! [`end`] ends it at once: it runs no exit handlers and no destructors. RocksDB's handlers wait
//! for background work, and meanwhile the other threads would go on voting and answering for half a
//! second. A separate thread prints the last words, and the end waits for it only [`WORDS_WAIT`]: a
//! log on a hanging disk, or a full pipe on standard error, does not keep the process alive.
//! Nothing here panics, even if nothing can be written.
//!
//! Left out on purpose: a second try of anything, and a core dump. The exit status gives the cause,
//! the log and standard error the reason.

use std::fmt;
use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

/// How long the end waits for its last words, which usually take less than a millisecond.
const WORDS_WAIT: Duration = Duration::from_millis(100);
/// The same after a panic: finding the names for a backtrace takes longer.
const TRACE_WAIT: Duration = Duration::from_millis(300);

/// Why a process cannot continue. The exit statuses are those of `sysexits.h`; docs/cli.md lists
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// The disk refused a write, a sync or a read.
    Disk,
    /// The group broke a promise: two servers committed different entries.
    Safety,
    /// Data of this server that this build cannot read.
    Format,
    /// The operating system refused something that a server needs: a thread, a socket.
    System,
    /// A bug in this program.
    Bug,
}

impl Fatal {
    /// The exit status of the process.
    pub const fn status(self) -> i32 {
        match self {
            Self::Format => 65,
            Self::Bug => 70,
            Self::System => 71,
            Self::Disk => 74,
            Self::Safety => 76,
        }
    }

    /// What happened, in two words.
    const fn cause(self) -> &'static str {
        match self {
            Self::Disk => "disk error",
            Self::Safety => "safety broken",
            Self::Format => "unreadable data",
            Self::System => "system error",
            Self::Bug => "bug",
        }
    }

    /// What was not done, and what to do next.
    const fn next(self) -> &'static str {
        match self {
            Self::Disk => {
                "this process ended at once, and acknowledged nothing that was not synced: look after the disk, then start it again"
            }
            Self::Safety => {
                "this process ended at once, before it made things worse: keep the data directories of the whole group, and find out whose data went back or changed before you start it again"
            }
            Self::Format => {
                "this process ended at once, and changed nothing: run the build that wrote these data, or judge them with `clerk check`"
            }
            Self::System => {
                "this process ended at once: give it what it lacks (threads, memory, file descriptors), then start it again"
            }
            Self::Bug => {
                "this process ended at once: report these lines and the log; it may be started again"
            }
        }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause())
    }
}

/// Ends this process at once with the exit status of `cause`, after one line in the log and on standard error.
///
/// # Panics
/// In a simulation, where a process is a task: its run fails, and says which seed replays it.
pub fn end(cause: Fatal, what: &dyn fmt::Display) -> ! {
    let line = super::one_line(&format!("{cause}: {what}; {}", cause.next()));
    assert!(!crate::clock::is_simulated(), "{line}");
    end_with(cause.status(), line)
}

/// Ends this process at once with `status`, after `line` in the log and on standard error.
pub(super) fn end_with(status: i32, line: String) -> ! {
    let span = tracing::Span::current();
    say(WORDS_WAIT, move || {
        let _in = span.entered();
        tracing::error!("{line}");
        print_line(&format!("{}: {line}", super::program()));
    });
    leave(status)
}

/// From now on a panic anywhere ends this process at once: half a replica must not go on voting.
pub(super) fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let cause = Fatal::Bug;
        let line = super::one_line(&format!("{cause}: {panic}; {}", cause.next()));
        // Taking the addresses is quick; their names are found by the thread that prints them.
        let trace = std::backtrace::Backtrace::force_capture();
        say(TRACE_WAIT, move || {
            // First what is already known: the names may come too late.
            print_line(&format!("{}: {line}", super::program()));
            tracing::error!("{line}");
            let trace = trace.to_string();
            tracing::error!("the panic's backtrace:\n{trace}");
            print_line(&trace);
        });
        leave(cause.status())
    }));
}

/// Lets another thread print something, and waits for it at most `wait`.
fn say(wait: Duration, words: impl FnOnce() + Send + 'static) {
    let (done, said) = mpsc::channel::<()>();
    let run = move || {
        words();
        drop(done);
    };
    // If no thread can be had, nothing is printed: the exit status gives the cause.
    if std::thread::Builder::new().name("last-words".to_owned()).spawn(run).is_ok() {
        let _ = said.recv_timeout(wait);
    }
}

/// A line on standard error. `eprintln!` panics if it cannot be written, for example on a full
/// disk.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Ends the process: no exit handlers, no destructors, no other thread's next step.
fn leave(status: i32) -> ! {
    signal_hook::low_level::exit(status)
}

#[cfg(test)]
mod tests {
    use super::Fatal;

    #[test]
    fn each_cause_has_a_status_and_words_of_its_own() {
        let all = [Fatal::Disk, Fatal::Safety, Fatal::Format, Fatal::System, Fatal::Bug];
        let statuses: Vec<i32> = all.iter().map(|cause| cause.status()).collect();
        assert_eq!(statuses, [74, 76, 65, 71, 70], "docs/cli.md says so");
        for words in [Fatal::cause, Fatal::next] {
            let said: std::collections::BTreeSet<&str> = all.iter().map(|cause| words(*cause)).collect();
            assert_eq!(said.len(), all.len(), "{said:?}");
        }
    }
}
