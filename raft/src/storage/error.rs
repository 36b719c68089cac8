//! What ends an open, and what ends the process.

use std::fmt;

use base::process::{Fatal, end};

/// A store that cannot be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data contradict themselves.
    #[error(
        "{path}: damaged: {what}; this replica cannot be used: its group goes on without it while a majority is up; keep the directory and see docs/when-it-refuses.md"
    )]
    Corrupt {
        /// Where.
        path: String,
        /// What was found.
        what: String,
    },
    /// Written by a newer build.
    #[error("{path}: data format {found}, this build reads up to {supported}: run a newer build")]
    NewerFormat {
        /// Where.
        path: String,
        /// Format found.
        found: u32,
        /// Newest format this build reads.
        supported: u32,
    },
    /// Written by an older build, in a format that is not read any more.
    #[error(
        "{path}: data format {found}, this build reads {supported}: dump with the build that wrote it (`clerk dump`), and load that into a new cluster"
    )]
    OlderFormat {
        /// Where.
        path: String,
        /// Format found.
        found: u32,
        /// The format this build reads.
        supported: u32,
    },
    /// No data, and the start was not told to make any (correctness rule 32).
    #[error(
        "{path}: no server's data is here; if this server never ran, start it once with --new; if it did, its data is gone: it must not come back under its old member id"
    )]
    Absent {
        /// Where.
        path: String,
    },
    /// Data, where none was expected.
    #[error(
        "{path}: a server's data is already here: start without --new, which is for the first start only"
    )]
    AlreadyThere {
        /// Where.
        path: String,
    },
    /// Data of another server.
    #[error(
        "{path}: this is the data of {found}, not of {expected}: check --data-dir, --cluster, --group and --id"
    )]
    AnotherServer {
        /// Where.
        path: String,
        /// Whose data it is.
        found: String,
        /// Whose data was expected.
        expected: String,
    },
    /// Made with other members (correctness rule 50).
    #[error(
        "{path}: the data of a group with the members {found}, and --members names {expected}: nothing was started; a \
         group keeps its ids (give these same ids; their addresses may change)"
    )]
    OtherMembers {
        /// Where.
        path: String,
        /// The ids it was made with.
        found: String,
        /// The ids given.
        expected: String,
    },
    /// Of a level that this build does not know.
    #[error(
        "{path}: data of level {found}, this build knows level {supported}: nothing was started, run a newer build"
    )]
    HigherLevel {
        /// Where.
        path: String,
        /// The level found.
        found: u32,
        /// The highest level this build knows.
        supported: u32,
    },
    /// Another process has it open.
    #[error("{path}: in use by {holder}: one process at a time")]
    InUse {
        /// Where.
        path: String,
        /// The process, as far as it is known.
        holder: String,
    },
    /// The operating system or RocksDB refused.
    #[error("{path}: cannot open: {what}")]
    Unavailable {
        /// Where.
        path: String,
        /// Its words.
        what: String,
    },
}

/// Ends the process after a disk error: the content of memory and disk is no longer known, and
/// retrying a failed sync has lost data elsewhere (correctness rule 29). Other causes:
/// [`base::process::end`].
pub fn fatal(doing: &str, error: &dyn fmt::Display) -> ! {
    end(Fatal::Disk, &format_args!("cannot {doing}: {error}"))
}

/// Ends the process over its own data that it cannot read: every replica of this build would read
/// them the same way, so continuing without them would be a guess.
pub fn unreadable(doing: &str, error: &dyn fmt::Display) -> ! {
    end(Fatal::Format, &format_args!("cannot {doing}: {error}"))
}
