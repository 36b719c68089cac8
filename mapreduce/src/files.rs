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

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::job::{Job, Kind, Task};

const SPEC: &str = "job.json";
/// Where the coordinator listens, or listened.
pub(crate) const ADDRESS: &str = "coordinator";
/// How the job ended: an empty text, or why it failed.
pub(crate) const FINISHED: &str = "finished";

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
    /// An app by its name.
    App(String),
    /// Two commands for the shell: map and reduce.
    Commands(String, String),
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
    /// The name of that cluster: another one at these addresses is not it.
    pub cluster: String,
}

impl Spec {
    /// Map tasks.
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
    /// Where it is.
    pub place: PathBuf,
    /// Where the files are that are this job's alone.
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
    /// Among them that there is a job already, or a file that would be overwritten.
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
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        Ok(self.draft(bytes)?.persist(self.own.join(name)).map(drop)?)
    }

    /// Makes a file unless it is there; whether it was made.
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

    /// The text of a file, if it is there.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.read(name).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What is known without a coordinator: who won which task. Attempts are numbered from `next_attempt` on.
    pub fn look(&self, spec: &Spec, next_attempt: u64) -> io::Result<Job> {
        let mut job = Job::new(spec.maps(), spec.reduces, next_attempt);
        let of = |kind, count| (0..count).map(move |number| Task { kind, number });
        for task in of(Kind::Map, spec.maps()).chain(of(Kind::Reduce, spec.reduces)) {
            self.marked(task)?.into_iter().for_each(|winner| job.won(task, winner));
        }
        Ok(job)
    }

    /// How the job ended, if it has: an empty text, or why it failed.
    pub fn finished(&self) -> Option<String> {
        self.text(FINISHED)
    }

    /// Marks an attempt as the one that won its task; the attempt that did, which may be an earlier one.
    pub(crate) fn mark(&self, task: Task, attempt: u64) -> io::Result<u64> {
        let name = mark_of(task);
        if self.make_once(&name, attempt.to_string().as_bytes())? {
            return Ok(attempt);
        }
        self.marked(task)?.ok_or_else(|| io::Error::other(format!("{name} is damaged: clean the job")))
    }

    /// The attempt that won a task, if one did.
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

    /// Gives its name to a reducer's output: to what its winner had. Harmless when repeated.
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

    /// Forgets how the job ended: it goes on.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        or_gone(fs::remove_file(self.own.join(FINISHED)))
    }

    /// Deletes the job's files, its description last so that it can be done again, and the directory if nothing else
    /// is in it.
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
pub(crate) fn intermediate(map: u32, reduce: u32, attempt: u64) -> String {
    let attempt = if base::mutant!("any-attempt-read") { 0 } else { attempt };
    format!("mr-{map}-{reduce}.{attempt}")
}

/// What an attempt of a reducer has as its output.
pub(crate) fn reduced(reduce: u32, attempt: u64) -> String {
    format!("reduced-{reduce}.{attempt}")
}

#[cfg(test)]
mod tests;
