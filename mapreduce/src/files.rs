//! The directory of a job, which coordinator and workers share.
//!
//! ```text
//! job.json         what is to be done
//! coordinator      where the coordinator listens
//! mr-M-R.A         what attempt A of map M has for reducer R: pairs, by base::codec
//! mr-result-R      pairs of reducer R, if they go to the store: every attempt sends these
//! mr-out-R         the output of reducer R: lines `key value`
//! won-map-M        the attempt that won a map (won-reduce-R: a reduce)
//! finished         empty: done; else why the job failed
//! ```
//!
//! A file appears whole or not at all: it is written under another name and then linked or renamed. Output, result and
//! mark can be made once: the first attempt that makes them counts, and a late twin finds them there.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::job::{Kind, Task};

const SPEC: &str = "job.json";
const ADDRESS: &str = "coordinator";
const FINISHED: &str = "finished";
/// Names that a job gives to its files begin so; nothing else is ever deleted.
const OURS: [&str; 6] = [SPEC, ADDRESS, FINISHED, "mr-", "won-", ".mr-"];

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
    /// Its description is damaged, or another build's.
    #[error("{path}: {why}")]
    BadSpec {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The system refuses.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// The system's words.
        error: io::Error,
    },
}

/// A job's directory.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes the directory of a new job.
    ///
    /// # Errors
    /// [`DirectoryError`]: among them that there is a job already.
    pub fn create(path: &Path, spec: &Spec) -> Result<Self, DirectoryError> {
        let shown = || path.display().to_string();
        fs::create_dir_all(path).map_err(|error| DirectoryError::Io { path: shown(), error })?;
        let path_of = path.canonicalize().map_err(|error| DirectoryError::Io { path: shown(), error })?;
        let directory = Self { path: path_of };
        let text = serde_json::to_vec_pretty(spec).expect("a job can be written down");
        match directory.make_once(SPEC, &text) {
            Ok(true) => Ok(directory),
            Ok(false) => Err(DirectoryError::Taken(shown())),
            Err(error) => Err(DirectoryError::Io { path: shown(), error }),
        }
    }

    /// Opens the directory of a job.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn open(path: &Path) -> Result<(Self, Spec), DirectoryError> {
        let shown = path.join(SPEC).display().to_string();
        let text = match fs::read(path.join(SPEC)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DirectoryError::NoJob(path.display().to_string()));
            }
            Err(error) => return Err(DirectoryError::Io { path: shown, error }),
        };
        let spec = serde_json::from_slice(&text)
            .map_err(|error| DirectoryError::BadSpec { path: shown.clone(), why: error.to_string() })?;
        let path = path.canonicalize().map_err(|error| DirectoryError::Io { path: shown, error })?;
        Ok((Self { path }, spec))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the job was not cleaned away.
    pub fn exists(&self) -> bool {
        self.path.join(SPEC).exists()
    }

    fn draft(&self, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let mut draft = tempfile::Builder::new().prefix(".mr-").tempfile_in(&self.path)?;
        draft.write_all(bytes)?;
        Ok(draft)
    }

    /// Makes a file, or replaces it.
    ///
    /// # Errors
    /// The system's.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.draft(bytes)?.persist(self.path.join(name)).map(drop).map_err(|error| error.error)
    }

    /// Makes a file unless it is there; whether it was made.
    ///
    /// # Errors
    /// The system's.
    pub fn make_once(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        match self.draft(bytes)?.persist_noclobber(self.path.join(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }

    /// Reads a file of the job.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    /// Marks an attempt as the one that won its task; the attempt that did, which may be an earlier one.
    ///
    /// # Errors
    /// The system's.
    pub fn mark(&self, task: Task, attempt: u64) -> io::Result<u64> {
        let name = mark(task);
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
        match self.read(&mark(task)) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).parse().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
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
        self.read(ADDRESS).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
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
        self.read(FINISHED).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Forgets how the job ended: it goes on.
    ///
    /// # Errors
    /// The system's.
    pub fn reopen(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(FINISHED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes the job's files, its description first, and the directory if nothing else is in it.
    ///
    /// # Errors
    /// The system's.
    pub fn clean(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(SPEC))?;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if OURS.iter().any(|ours| entry.file_name().to_string_lossy().starts_with(ours)) {
                fs::remove_file(entry.path())?;
            }
        }
        // Whatever else lies there is its owner's.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }
}

fn mark(task: Task) -> String {
    match task.kind {
        Kind::Map => format!("won-map-{}", task.number),
        Kind::Reduce => format!("won-reduce-{}", task.number),
    }
}

/// What an attempt of a map has for a reducer.
pub fn intermediate(map: u32, reduce: u32, attempt: u64) -> String {
    format!("mr-{map}-{reduce}.{attempt}")
}

/// The output of a reducer.
pub fn output(reduce: u32) -> String {
    format!("mr-out-{reduce}")
}

/// The pairs that a reducer sends to the store.
pub fn result(reduce: u32) -> String {
    format!("mr-result-{reduce}")
}
