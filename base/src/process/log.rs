//! The server's log: `log` in its data directory, one event per line, rotated by size.
//!
//! When `log` has reached its limit it becomes `log.1`, that one `log.2`, and so on; the oldest is
//! dropped. An event is written with one call, so a rotation never cuts a line.
//!
//! The environment variable `CLERK_LOG` sets the level at the start (`debug`, or
//! `raft=debug,info`; default `info`), and [`set_log_level`] while the process runs.

mod file;
mod level;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry, fmt};

use self::file::Rotating;
pub use self::level::{LevelError, check as check_log_level};
use crate::socket::wire::LOG_DIRECTIVE;

/// Bytes of one file of the log.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Old files kept beside the present one.
const OLD_FILES: u32 = 3;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, span, module, message and fields: for people.
    #[default]
    Text,
    /// A JSON object: `timestamp`, `level`, `target`, `fields` with the message, and `span`.
    Json,
}

impl LogFormat {
    /// As it is called on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Text, Self::Json].into_iter().find(|format| format.name() == text);
        known.ok_or_else(|| "use text or json".to_owned())
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be written.
    #[error("{}: cannot write the log: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// CLERK_LOG is not understood.
    #[error("CLERK_LOG={value}: {why}")]
    Level {
        /// Its value.
        value: String,
        /// The reason.
        why: LevelError,
    },
}

/// The level of a running log, and how it is changed.
struct Level {
    text: String,
    handle: Handle<EnvFilter, Registry>,
}

static LEVEL: OnceLock<Mutex<Level>> = OnceLock::new();

/// Writes the log of this process to `path`. A line that cannot be written is lost, and nothing
/// else happens: the disk is watched elsewhere.
///
/// # Errors
/// [`LogError`].
pub fn start_log(path: &Path, format: LogFormat) -> Result<(), LogError> {
    let value = std::env::var("CLERK_LOG")
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| "info".to_owned());
    let filter = filter(&value).map_err(|why| LogError::Level { value: value.clone(), why })?;
    let file = Rotating::open(path, FILE_BYTES_MAX)
        .map_err(|error| LogError::File { path: path.to_owned(), error })?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer()
        .with_ansi(false)
        // It would report on standard error what it could not write, and panic if that is on the
        // same full disk.
        .log_internal_errors(false)
        .with_writer(Mutex::new(file));
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().with_span_list(false).boxed(),
    };
    let log = tracing_subscriber::registry().with(filter).with(lines);
    // Only a second call can fail, and then the first log stays, with its level.
    if tracing::subscriber::set_global_default(log).is_ok() {
        let _ = LEVEL.set(Mutex::new(Level { text: value, handle }));
    }
    Ok(())
}

/// The level of the log: what was set last. None, if the process has no log.
pub fn log_level() -> Option<String> {
    let level = LEVEL.get()?.lock().unwrap_or_else(PoisonError::into_inner);
    Some(level.text.clone())
}

/// Sets the level of the log until it is set again or the process ends; returns the one before. A
/// process without a log does nothing.
///
/// # Errors
/// [`LevelError`]; then the level stays.
pub fn set_log_level(text: &str) -> Result<Option<String>, LevelError> {
    let filter = filter(text)?;
    let Some(level) = LEVEL.get() else { return Ok(None) };
    let mut level = level.lock().unwrap_or_else(PoisonError::into_inner);
    // It fails only when the log is gone, and that lives as long as the process.
    let _ = level.handle.reload(filter);
    let before = std::mem::replace(&mut level.text, text.to_owned());
    drop(level);
    // (After the change: who turns the log up sees that it worked.)
    tracing::warn!(before, now = text, "the level of this log was set");
    Ok(Some(before))
}

/// The directive of tarpc comes first, so that a text that names tarpc itself takes precedence.
fn filter(text: &str) -> Result<EnvFilter, LevelError> {
    level::check(text)?;
    EnvFilter::try_new(format!("{LOG_DIRECTIVE},{text}"))
        .map_err(|error| LevelError::Other(super::one_line(&error.to_string())))
}
