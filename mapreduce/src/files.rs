//! The directory of a job, which coordinator and workers share.
//!
//! ```text
//! job.json             what is to be done
//! mr-out-R             the output of reducer R, lines `key value`: what its winner had
//! mr-job-ID/           this job's alone, whatever other job lived or will live here
//!     coordinator      where the coordinator listens
//!     mr-M-R.A         what attempt A of map M has for reducer R: pairs, by base::codec
//!     results-R        pairs of reducer R, if they go to the store: every attempt sends these
//!     reduced-R.A      what attempt A of reducer R has as its output
//!     won-map-M        the attempt that won a map (won-reduce-R: a reduce)
//!     finished         empty: done; else why the job failed
//!     lost             which result the store does not have and never will
//! ```
//!
//! A file appears whole or not at all: it is written under another name and then linked or renamed. Marks and results
//! can be made once: the first attempt that makes them counts, and a late twin finds them there.
//!
//! A worker or a coordinator may wake up when its job was cleaned away and another one lives here. It writes into a
//! directory that is gone, which fails (rule 120).

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::job::{Kind, Task};

const SPEC: &str = "job.json";
const ADDRESS: &str = "coordinator";
const FINISHED: &str = "finished";
const LOST: &str = "lost";

/// What maps read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A task a file: its name as it was given, and its path.
    Files(Vec<(String, PathBuf)>),
    /// A task a shard of the store: the rows whose keys begin with `prefix`.
    Store {
        /// What keys begin with.
        prefix: String,
        /// Shards of the store.
        shards: u32,
    },
}

/// Where the results go besides the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What is put before each key.
    pub prefix: String,
    /// Values are numbers, and are added to what is there; else they replace it.
    pub add: bool,
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// An app or a trial by its name.
    App(String),
    /// Two commands for the shell.
    Commands {
        /// Text in, lines `key TAB value` out.
        map: String,
        /// Sorted lines `key TAB value` in, lines `key TAB value` out.
        reduce: String,
    },
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its random id: names its marks in the store.
    pub id: u64,
    /// What is run.
    pub run: Run,
    /// What maps read.
    pub input: Input,
    /// Reduce tasks.
    pub reduces: u32,
    /// Where the results go besides the files.
    pub output: Option<Output>,
    /// The controllers of the store, if the job uses one.
    pub controllers: Vec<String>,
}

impl Spec {
    /// Map tasks.
    pub fn maps(&self) -> u32 {
        match &self.input {
            Input::Files(files) => u32::try_from(files.len()).unwrap_or(u32::MAX),
            Input::Store { shards, .. } => *shards,
        }
    }
}

/// Why a job's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Somebody else's.
    #[error(
        "{0} holds another job: `mr resume` goes on with it, `mr clean` removes it, --dir names another place"
    )]
    Taken(String),
    /// No job.
    #[error("{0} holds no job: `mr run --dir` makes one")]
    NoJob(String),
    /// No job, but a file that would be overwritten.
    #[error("{0} is there already: move it away, or --dir names another place")]
    Remains(String),
    /// The system refuses, or a description is damaged or another build's: the path, and why.
    #[error("{0}: {1}")]
    Unusable(String, String),
}

/// A job's directory.
#[derive(Clone, Debug)]
pub struct Directory {
    place: PathBuf,
    /// What is this job's alone.
    own: PathBuf,
}

impl Directory {
    fn of(place: PathBuf, job: u64) -> Self {
        let own = place.join(format!("mr-job-{job:016x}"));
        Self { place, own }
    }

    /// Makes the directory of a new job.
    ///
    /// # Errors
    /// [`DirectoryError`]: among them that there is a job already.
    pub fn create(path: &Path, spec: &Spec) -> Result<Self, DirectoryError> {
        let shown = || path.display().to_string();
        let unusable = |error: io::Error| DirectoryError::Unusable(shown(), error.to_string());
        let text = serde_json::to_vec_pretty(spec).map_err(|error| unusable(error.into()))?;
        fs::create_dir_all(path).map_err(unusable)?;
        let directory = Self::of(path.canonicalize().map_err(unusable)?, spec.id);
        let document = directory.place.join(SPEC);
        if document.exists() {
            return Err(DirectoryError::Taken(shown()));
        }
        if let Some(left) =
            (0..spec.reduces).map(|reduce| directory.output(reduce)).find(|path| path.exists())
        {
            return Err(DirectoryError::Remains(left.display().to_string()));
        }
        fs::create_dir(&directory.own).map_err(unusable)?;
        match directory.make_once(&document, &text).map_err(unusable)? {
            true => Ok(directory),
            false => Err(DirectoryError::Taken(shown())),
        }
    }

    /// Opens the directory of a job.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn open(path: &Path) -> Result<(Self, Spec), DirectoryError> {
        let document = path.join(SPEC);
        let unusable =
            |error: io::Error| DirectoryError::Unusable(document.display().to_string(), error.to_string());
        let text = fs::read(&document).map_err(|error| match error.kind() {
            ErrorKind::NotFound => DirectoryError::NoJob(path.display().to_string()),
            _ => unusable(error),
        })?;
        let spec: Spec = serde_json::from_slice(&text).map_err(|error| unusable(error.into()))?;
        Ok((Self::of(path.canonicalize().map_err(unusable)?, spec.id), spec))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// Where the files are that are this job's alone.
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// Whether the job was not cleaned away.
    pub fn exists(&self) -> bool {
        // What cannot be seen for a moment is there.
        self.own.try_exists().unwrap_or(true)
    }

    fn draft(&self, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let mut draft = NamedTempFile::new_in(&self.own)?;
        draft.write_all(bytes)?;
        Ok(draft)
    }

    /// Makes a file, or replaces it.
    ///
    /// # Errors
    /// The system's.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.draft(bytes)?.persist(self.own.join(name)).map(drop).map_err(|error| error.error)
    }

    /// Makes a file unless it is there; whether it was made.
    ///
    /// # Errors
    /// The system's.
    pub fn make_once(&self, name: impl AsRef<Path>, bytes: &[u8]) -> io::Result<bool> {
        match self.draft(bytes)?.persist_noclobber(self.own.join(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }

    /// Reads a file of the job.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.own.join(name))
    }

    /// The text of a file, if it is there.
    fn text(&self, name: &str) -> Option<String> {
        self.read(name).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Marks an attempt as the one that won its task; the attempt that did, which may be an earlier one.
    ///
    /// # Errors
    /// The system's.
    pub fn mark(&self, task: Task, attempt: u64) -> io::Result<u64> {
        let name = mark_of(task);
        if self.make_once(&name, attempt.to_string().as_bytes())? {
            return Ok(attempt);
        }
        self.marked(task)?.ok_or_else(|| io::Error::other(format!("{name} is damaged: clean the job")))
    }

    /// The attempt that won a task, if one did.
    ///
    /// # Errors
    /// The system's.
    pub fn marked(&self, task: Task) -> io::Result<Option<u64>> {
        match self.read(&mark_of(task)) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).parse().ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The output of a reducer.
    pub fn output(&self, reduce: u32) -> PathBuf {
        self.place.join(format!("mr-out-{reduce}"))
    }

    /// Gives its name to a reducer's output: to what its winner had. Harmless when repeated.
    ///
    /// # Errors
    /// The system's.
    pub fn publish(&self, reduce: u32, winner: u64) -> io::Result<()> {
        let output = self.output(reduce);
        base::mutant!("rename-too-early", return Ok(()));
        match fs::rename(self.own.join(reduced(reduce, winner)), &output) {
            Err(error) if error.kind() == ErrorKind::NotFound && self.own.exists() && output.exists() => {
                Ok(())
            }
            renamed => renamed,
        }
    }

    /// Says where the coordinator listens.
    ///
    /// # Errors
    /// The system's.
    pub fn set_address(&self, address: &str) -> io::Result<()> {
        self.replace(ADDRESS, address.as_bytes())
    }

    /// Where the coordinator listens, or listened.
    pub fn address(&self) -> Option<String> {
        self.text(ADDRESS)
    }

    /// Says how the job ended.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(&self, failure: Option<&str>) -> io::Result<()> {
        self.replace(FINISHED, failure.unwrap_or_default().as_bytes())
    }

    /// How the job ended, if it has: an empty text, or why it failed.
    pub fn finished(&self) -> Option<String> {
        self.text(FINISHED)
    }

    /// Says that the store lacks a result, and why. The first word counts, and no coordinator forgets it.
    ///
    /// # Errors
    /// The system's.
    pub fn lose(&self, why: &str) -> io::Result<()> {
        self.make_once(LOST, why.as_bytes()).map(drop)
    }

    /// Which result the store lacks, if one.
    pub fn lost(&self) -> Option<String> {
        self.text(LOST)
    }

    /// Forgets how the job ended: it goes on.
    ///
    /// # Errors
    /// The system's.
    pub fn reopen(&self) -> io::Result<()> {
        or_gone(fs::remove_file(self.own.join(FINISHED)))
    }

    /// Deletes the job's files, its description last so that it can be done again, and the directory if nothing else
    /// is in it.
    ///
    /// # Errors
    /// The system's.
    pub fn clean(&self, spec: &Spec) -> io::Result<()> {
        (0..spec.reduces).try_for_each(|reduce| or_gone(fs::remove_file(self.output(reduce))))?;
        or_gone(fs::remove_dir_all(&self.own))?;
        or_gone(fs::remove_file(self.place.join(SPEC)))?;
        // Whatever else lies there is its owner's.
        let _ = fs::remove_dir(&self.place);
        Ok(())
    }
}

fn or_gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn mark_of(task: Task) -> String {
    let kind = if task.kind == Kind::Map { "map" } else { "reduce" };
    format!("won-{kind}-{}", task.number)
}

/// What an attempt of a map has for a reducer.
pub fn intermediate(map: u32, reduce: u32, attempt: u64) -> String {
    let attempt = if base::mutant!("any-attempt-read") { 0 } else { attempt };
    format!("mr-{map}-{reduce}.{attempt}")
}

/// The pairs that a reducer sends to the store.
pub fn results(reduce: u32) -> String {
    format!("results-{reduce}")
}

/// What an attempt of a reducer has as its output.
pub fn reduced(reduce: u32, attempt: u64) -> String {
    format!("reduced-{reduce}.{attempt}")
}

#[cfg(test)]
mod tests;
