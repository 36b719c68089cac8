//! What a job runs: an app of the table, a trial of the labs' tests, or two commands.
//!
//! A command is given to the shell. `--map` gets a record's text on its standard input and its name as MR_NAME, and
//! prints lines `key TAB value`. `--reduce` gets the lines of one reducer, sorted by their keys, and prints lines of
//! the same form. A command that ends with another code than 0 has failed.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use xxhash_rust::xxh3::xxh3_64;

use crate::apps::{self, App};
use crate::files::Run;
use crate::trials::{Host, Trial};

/// Keys and their values, in the order in which maps emitted them.
pub type Groups = BTreeMap<String, Vec<String>>;

/// Pairs of a task, in bytes.
pub const PAIRS_BYTES_MAX: usize = 1 << 30;

/// Why a program did not do a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It failed: the record, and a text.
    Failed(String, String),
    /// It ended its process.
    Exit,
}

impl Fault {
    /// It failed: the record, and a text.
    pub fn of(record: impl Into<String>, text: impl ToString) -> Self {
        Self::Failed(record.into(), text.to_string())
    }
}

/// A program.
pub enum Program {
    /// One of [`apps`].
    App(&'static dyn App),
    /// One of the labs' trials.
    Trial(Trial),
    /// Two commands.
    Commands {
        /// For the shell.
        map: String,
        /// For the shell.
        reduce: String,
    },
}

/// What maps emit.
#[derive(Default)]
pub struct Emitted {
    /// The pairs.
    pub pairs: Vec<(String, String)>,
    bytes: usize,
}

impl Emitted {
    /// Takes a pair. What is too much is noticed after the record.
    pub fn emit(&mut self, key: String, value: String) {
        if self.bytes <= PAIRS_BYTES_MAX {
            self.bytes += key.len() + value.len() + 48;
            self.pairs.push((key, value));
        }
    }

    /// Deals the pairs to reducers, by their keys.
    pub fn deal(self, reduces: u32) -> Vec<Vec<(String, String)>> {
        let mut parts: Vec<_> = (0..reduces.max(1)).map(|_| Vec::new()).collect();
        for (key, value) in self.pairs {
            parts[part_of(&key, reduces) as usize].push((key, value));
        }
        parts
    }
}

impl Program {
    /// The program of a job.
    ///
    /// # Errors
    /// The names that there are.
    pub fn of(run: &Run) -> Result<Self, String> {
        match run {
            Run::Commands { map, reduce } => Ok(Self::Commands { map: map.clone(), reduce: reduce.clone() }),
            Run::App(name) => apps::find(name)
                .map(Self::App)
                .or_else(|| Trial::find(name).map(Self::Trial))
                .ok_or_else(|| format!("no app is called {name:?}; there are {}", apps::names().join(", "))),
        }
    }

    /// Maps one record.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn map(&self, host: &Host, name: &str, text: &str, emitted: &mut Emitted) -> Result<(), Fault> {
        match self {
            Self::App(app) => app.map(name, text, &mut |key, value| emitted.emit(key, value)),
            Self::Trial(trial) => trial.map(host, name, text, emitted).await?,
            Self::Commands { map, .. } => {
                let printed = shell(map, name, text.to_owned()).await.map_err(|why| Fault::of(name, why))?;
                lines(&printed).for_each(|(key, value)| emitted.emit(key, value));
            }
        }
        match emitted.bytes > PAIRS_BYTES_MAX {
            true => {
                Err(Fault::of(name, format!("it emits more than {PAIRS_BYTES_MAX} bytes: split the input")))
            }
            false => Ok(()),
        }
    }

    /// Reduces all keys of one reducer. `at` is told each key before it is reduced.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn reduce(
        &self,
        host: &Host,
        groups: &Groups,
        mut at: impl FnMut(&str),
    ) -> Result<Vec<(String, String)>, Fault> {
        if let Self::Commands { reduce, .. } = self {
            let pairs = groups.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
            let text: String = pairs.map(|(key, value)| format!("{key}\t{value}\n")).collect();
            let printed = shell(reduce, "", text).await;
            return Ok(lines(&printed.map_err(|why| Fault::of("the whole reducer", why))?).collect());
        }
        let mut reduced = Vec::with_capacity(groups.len());
        for (key, values) in groups {
            at(key);
            let value = match self {
                Self::App(app) => app.reduce(key, values),
                Self::Trial(trial) => trial.reduce(host, key, values).await?,
                Self::Commands { .. } => String::new(),
            };
            reduced.push((key.clone(), value));
        }
        Ok(reduced)
    }
}

/// The reducer of a key.
pub fn part_of(key: &str, reduces: u32) -> u32 {
    u32::try_from(xxh3_64(key.as_bytes()) % u64::from(reduces.max(1))).unwrap_or(0)
}

fn lines(printed: &str) -> impl Iterator<Item = (String, String)> {
    let pair = |line: &str| {
        let (key, value) = line.split_once('\t').unwrap_or((line, ""));
        (key.to_owned(), value.to_owned())
    };
    printed.lines().filter(|line| !line.is_empty()).map(pair)
}

/// Runs a command on a thread of its own: what it printed.
async fn shell(command: &str, name: &str, input: String) -> Result<String, String> {
    let (command, name) = (command.to_owned(), name.to_owned());
    let run = tokio::task::spawn_blocking(move || run_shell(&command, &name, input.into_bytes()));
    run.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn run_shell(command: &str, name: &str, input: Vec<u8>) -> Result<String, String> {
    let text = |error: std::io::Error| format!("{command:?}: {error}");
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("MR_NAME", name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(text)?;
    // A command that reads no further is judged by how it ends.
    let stdin = child.stdin.take();
    let feeder = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let mut printed = Vec::new();
    let limit = PAIRS_BYTES_MAX as u64;
    let read = child.stdout.take().map(|stdout| stdout.take(limit + 1).read_to_end(&mut printed));
    if printed.len() as u64 > limit {
        let _ = child.kill();
    }
    let status = child.wait().map_err(text)?;
    drop(feeder.join());
    read.transpose().map_err(text)?;
    if printed.len() as u64 > limit {
        return Err(format!("{command:?} prints more than {limit} bytes: split the input"));
    }
    if !status.success() {
        return Err(format!("{command:?} ended with {status}"));
    }
    String::from_utf8(printed).map_err(|_| format!("{command:?} prints what is not UTF-8"))
}

#[cfg(test)]
mod tests;
