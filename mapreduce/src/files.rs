//! The directory of a job, which coordinator and workers share.
//!
//! ```text
//! job.json             the job's description
//! mr-out-R             the output of reducer R, lines `key value`: the winner's
//! mr-job-ID/           for this job alone, whatever other jobs were or will be in this directory
//!     coordinator      the address where the coordinator listens
//!     mr-M-R.A         what attempt A of map M has for reducer R: pairs, by base::codec
//!     results-R        pairs of reducer R, if they go to the store: every attempt sends these
//!     reduced-R.A      the output of attempt A of reducer R
//!     won-map-M        the attempt that won a map (won-reduce-R: a reduce)
//!     finished         empty if the job is done; else the reason why it failed
//! ```
//!
//! A file appears complete or not at all: it is written under another name and then linked or
//! renamed. Marks and results can be made only once: the first attempt that makes them counts, and a
//! late twin finds them there.
//!
//! A worker or a coordinator may wake up after its job was cleaned away and another job uses the
//! directory. It then writes into a directory that is gone, and that fails (rule 120).

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::job::{Job, Kind, Task};

const SPEC: &str = "job.json";
/// The file with the address where the coordinator listens, or listened.
pub(crate) const ADDRESS: &str = "coordinator";
/// How the job ended: an empty text, or the reason why it failed.
pub(crate) const FINISHED: &str = "finished";

/// What maps read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// One task for each file: its name as it was given, and its path.
    Files(Vec<(String, PathBuf)>),
    /// One task for each shard of the store: the rows whose keys begin with `prefix`.
    Store {
        /// Keys begin with this.
        prefix: String,
        /// The number of the store's shards.
        shards: u32,
    },
}

/// Where the results go besides the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Put in front of each key.
    pub prefix: String,
    /// Values are numbers and are added to the value that is there. Otherwise they replace it.
    pub add: bool,
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// An app by its name.
    App(String),
    /// Two shell commands: map and reduce.
    Commands(String, String),
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The job's random id, which names its marks in the store.
    pub id: u64,
    pub run: Run,
    pub input: Input,
    /// The number of reduce tasks.
    pub reduces: u32,
    pub output: Option<Output>,
    /// The controllers of the store, if the job uses one.
    pub controllers: Vec<String>,
    /// The name of that cluster. Another cluster at these addresses is refused.
    pub cluster: String,
}

impl Spec {
    /// The number of map tasks.
    pub fn maps(&self) -> u32 {
        match &self.input {
            Input::Files(files) => files.len() as u32,
            Input::Store { shards, .. } => *shards,
        }
    }
}

/// A job's directory.
#[derive(Clone, Debug)]
pub struct Directory {
    pub place: PathBuf,
    /// The directory of the files that belong to this job alone.
    pub own: PathBuf,
}

impl Directory {
    fn of(place: PathBuf, job: u64) -> Self {
        let own = place.join(format!("mr-job-{job:016x}"));
        Self { place, own }
    }

    /// Makes the directory of a new job.
    ///
    /// # Errors
    /// Also if the directory holds a job already, or a file that would be overwritten.
    pub fn create(path: &Path, spec: &Spec) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let text = serde_json::to_vec_pretty(spec).context(shown.clone())?;
        fs::create_dir_all(path).context(shown.clone())?;
        let directory = Self::of(path.canonicalize().context(shown.clone())?, spec.id);
        let document = directory.place.join(SPEC);
        let mut outputs = (0..spec.reduces).map(|reduce| directory.output(reduce));
        if let Some(left) = outputs.find(|left| left.exists() && !document.exists()) {
            bail!("{} is there already: move it away, or --dir names another place", left.display());
        }
        fs::create_dir(&directory.own).context(shown.clone())?;
        let made = directory.make_once(&document, &text);
        if !matches!(made, Ok(true)) {
            let _ = fs::remove_dir(&directory.own);
        }
        let next = "`mr resume` goes on with it, `mr clean` removes it, --dir names another place";
        ensure!(made.context(shown.clone())?, "{shown} holds another job: {next}");
        Ok(directory)
    }

    /// Opens the directory of a job.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Spec)> {
        let document = path.join(SPEC);
        let text = match fs::read(&document) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("{} holds no job: `mr run --dir` makes one", path.display())
            }
            text => text.context(document.display().to_string())?,
        };
        let spec: Spec = serde_json::from_slice(&text).context(document.display().to_string())?;
        Ok((Self::of(path.canonicalize()?, spec.id), spec))
    }

    /// Whether the job's files are still there: false after a clean.
    pub fn exists(&self) -> bool {
        // If this cannot be seen for a moment, assume that they are there.
        self.own.try_exists().unwrap_or(true)
    }

    fn draft(&self, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let mut draft = NamedTempFile::new_in(&self.own)?;
        draft.write_all(bytes)?;
        Ok(draft)
    }

    /// Makes a file, or replaces it.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        Ok(self.draft(bytes)?.persist(self.own.join(name)).map(drop)?)
    }

    /// Makes a file unless it exists. Returns whether this call made it.
    pub(crate) fn make_once(&self, name: impl AsRef<Path>, bytes: &[u8]) -> io::Result<bool> {
        match self.draft(bytes)?.persist_noclobber(self.own.join(name)) {
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
            made => Ok(made.map(|_| true)?),
        }
    }

    /// Reads a file of the job.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.own.join(name))
    }

    /// The text of a file, if it exists.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.read(name).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What is known without a coordinator: the winner of each task. New attempts get numbers
    /// from `next_attempt` on.
    pub fn look(&self, spec: &Spec, next_attempt: u64) -> io::Result<Job> {
        let mut job = Job::new(spec.maps(), spec.reduces, next_attempt);
        let of = |kind, count| (0..count).map(move |number| Task { kind, number });
        for task in of(Kind::Map, spec.maps()).chain(of(Kind::Reduce, spec.reduces)) {
            self.marked(task)?.into_iter().for_each(|winner| job.won(task, winner));
        }
        Ok(job)
    }

    /// How the job ended, if it has: an empty text, or the reason why it failed.
    pub fn finished(&self) -> Option<String> {
        self.text(FINISHED)
    }

    /// Marks an attempt as the winner of its task. Returns the winner, which may be an earlier
    /// attempt.
    pub(crate) fn mark(&self, task: Task, attempt: u64) -> io::Result<u64> {
        let name = mark_of(task);
        if self.make_once(&name, attempt.to_string().as_bytes())? {
            return Ok(attempt);
        }
        self.marked(task)?.ok_or_else(|| io::Error::other(format!("{name} is damaged: clean the job")))
    }

    /// The winner of a task, if there is one.
    pub fn marked(&self, task: Task) -> io::Result<Option<u64>> {
        match self.read(&mark_of(task)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            bytes => Ok(String::from_utf8_lossy(&bytes?).parse().ok()),
        }
    }

    /// The output of a reducer.
    pub fn output(&self, reduce: u32) -> PathBuf {
        self.place.join(format!("mr-out-{reduce}"))
    }

    /// Gives the winner's output of a reducer its final name. Repeating this is harmless.
    pub(crate) fn publish(&self, reduce: u32, winner: u64) -> io::Result<()> {
        let output = self.output(reduce);
        base::mutant!("rename-too-early", return Ok(()));
        match fs::rename(self.own.join(reduced(reduce, winner)), &output) {
            Err(error) if error.kind() == ErrorKind::NotFound && self.own.exists() && output.exists() => {
                Ok(())
            }
            renamed => renamed,
        }
    }

    /// Deletes the note of how the job ended, so that the job continues.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        or_gone(fs::remove_file(self.own.join(FINISHED)))
    }

    /// Deletes the job's files. The job's description goes last, so that an interrupted clean can
    /// be done again. Deletes the directory if it is empty then.
    pub fn clean(&self, spec: &Spec) -> io::Result<()> {
        (0..spec.reduces).try_for_each(|reduce| or_gone(fs::remove_file(self.output(reduce))))?;
        or_gone(fs::remove_dir_all(&self.own))?;
        or_gone(fs::remove_file(self.place.join(SPEC)))?;
        // All other files there belong to the user.
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

/// The file with what an attempt of a map has for a reducer.
pub(crate) fn intermediate(map: u32, reduce: u32, attempt: u64) -> String {
    let attempt = if base::mutant!("any-attempt-read") { 0 } else { attempt };
    format!("mr-{map}-{reduce}.{attempt}")
}

/// The file with the output of an attempt of a reducer.
pub(crate) fn reduced(reduce: u32, attempt: u64) -> String {
    format!("reduced-{reduce}.{attempt}")
}

#[cfg(test)]
mod tests;
