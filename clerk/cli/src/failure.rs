//! What went wrong, in the terms of the contract: a code for programs, a sentence for people, what
//! to do next, and the exit code.

use std::sync::{Mutex, PoisonError};

use clerk::{ctrl, kv};
use clerk_survey::refused::{Refused, STATUS};

/// The exit codes of the contract.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_SETTLED: i32 = 3;
const UNKNOWN: i32 = 4;
const INTERRUPTED: i32 = 130;

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// What to do; may be empty.
    pub(crate) next: String,
    pub(crate) exit: i32,
    /// The answer was printed anyway: only the exit code is left to give.
    pub(crate) answered: bool,
}

impl Failure {
    /// Failed, exit 1.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), next: String::new(), exit: FAILED, answered: false }
    }

    /// Wrong usage, exit 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: USAGE, ..Self::new("usage", message) }
    }

    /// Not settled in time, exit 3.
    pub(crate) fn not_settled(message: impl Into<String>) -> Self {
        Self { exit: NOT_SETTLED, ..Self::new("not_settled", message) }
    }

    /// Done as far as possible, exit 3.
    pub(crate) fn in_part(code: &'static str, message: impl Into<String>) -> Self {
        Self { exit: NOT_SETTLED, ..Self::new(code, message) }
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// The answer is on standard output already.
    pub(crate) fn answered(mut self) -> Self {
        self.answered = true;
        self
    }
}

static INTERRUPT: Mutex<(String, String)> = Mutex::new((String::new(), String::new()));

/// Sets the message and the next step for a Ctrl-C from here on.
pub(crate) fn on_interrupt(message: impl Into<String>, next: impl Into<String>) {
    *INTERRUPT.lock().unwrap_or_else(PoisonError::into_inner) = (message.into(), next.into());
}

/// The failure of a command that Ctrl-C ended.
pub(crate) fn interrupted() -> Failure {
    let (message, next) = INTERRUPT.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let message = if message.is_empty() { "interrupted".to_owned() } else { message };
    Failure { exit: INTERRUPTED, ..Failure::new("interrupted", message).next(next) }
}

impl From<clerk_bench::Error> for Failure {
    fn from(error: clerk_bench::Error) -> Self {
        let message = error.to_string();
        match error {
            clerk_bench::Error::Usage(_) => Self::usage(message),
            clerk_bench::Error::BadInput(_) => Self::new("bad_input", message),
            clerk_bench::Error::NoResult(_) => {
                Self::new("bad_input", message).next("`clerk bench --save FILE` writes such files")
            }
            clerk_bench::Error::Io(_) => Self::new("io", message),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new("io", format!("{error:#}"))
    }
}

const LOOK: &str = "read the key before writing it again";

impl From<kv::Error> for Failure {
    fn from(error: kv::Error) -> Self {
        let message = error.to_string();
        match error {
            kv::Error::Unknown => Self { exit: UNKNOWN, ..Self::new("unknown", message).next(LOOK) },
            kv::Error::Maybe => Self { exit: UNKNOWN, ..Self::new("maybe", message).next(LOOK) },
            kv::Error::VersionMismatch { .. } => Self::new("version_mismatch", message)
                .next("get the key, and put with --if-version and the version you saw"),
            kv::Error::ValueTooLarge { .. } | kv::Error::BatchTooLarge { .. } => {
                Self::new("value_too_large", message)
            }
            kv::Error::InvalidKey { .. } => Self::new("invalid_key", message),
            kv::Error::DiskFull => Self::new("disk_full", message).next("free space; it recovers on its own"),
            kv::Error::UnknownShard(_) => Self::new("unknown_shard", message),
            kv::Error::Unavailable { .. } => Self::new("unavailable", message).next(STATUS),
            kv::Error::Refused { .. } => Self::new("refused", message),
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let Refused { code, message, next, is_unknown } = refused;
        let exit = if is_unknown { UNKNOWN } else { FAILED };
        Self { exit, ..Self::new(code, message).next(next) }
    }
}

impl From<ctrl::Error> for Failure {
    fn from(error: ctrl::Error) -> Self {
        Refused::from(error).into()
    }
}
