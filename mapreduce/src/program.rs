//! What a job runs: an app of the table, a trial of the labs' tests, or two commands.
//!
//! A command is given to the shell. `--map` gets a record's text on its standard input and its name as MR_NAME, and
//! prints lines `key TAB value`. `--reduce` gets the lines of one reducer, sorted by their keys, and prints lines of
//! the same form. A command that ends with another code than 0 has failed.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

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

    /// Whether pairs were left out.
    pub fn is_full(&self) -> bool {
        self.bytes > PAIRS_BYTES_MAX
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
        let failed = |text| Fault::Failed(name.to_owned(), text);
        match self {
            Self::App(app) => app.map(name, text, &mut |key, value| emitted.emit(key, value)),
            Self::Trial(trial) => trial.map(host, name, text, emitted).await?,
            Self::Commands { map, .. } => {
                let printed = shell(map, name, text.to_owned()).await.map_err(failed)?;
                lines(&printed).for_each(|(key, value)| emitted.emit(key.to_owned(), value.to_owned()));
            }
        }
        match emitted.is_full() {
            true => Err(failed(format!("it emits more than {PAIRS_BYTES_MAX} bytes: split the input"))),
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
            let failed = |text| Fault::Failed("the whole reducer".to_owned(), text);
            let printed = shell(reduce, "", text).await.map_err(failed)?;
            return Ok(lines(&printed).map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
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

fn lines(printed: &str) -> impl Iterator<Item = (&str, &str)> {
    printed.lines().filter(|line| !line.is_empty()).map(|line| line.split_once('\t').unwrap_or((line, "")))
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
mod tests {
    use super::{Emitted, Fault, Program, run_shell};
    use crate::files::Run;
    use crate::trials::Host;

    #[tokio::test]
    async fn two_commands_count_words() {
        let run = Run::Commands {
            map: "tr ' ' '\\n' | sed 's/$/\\t1/'".to_owned(),
            reduce: "awk -F '\\t' '{n[$1] += $2} END {for (w in n) print w \"\\t\" n[w]}' | sort".to_owned(),
        };
        let program = Program::of(&run).unwrap();
        let mut emitted = Emitted::default();
        program.map(&Host::of(1), "x", "to be or not to be", &mut emitted).await.unwrap();
        let mut groups = super::Groups::new();
        emitted.pairs.into_iter().for_each(|(key, value)| groups.entry(key).or_default().push(value));
        let reduced = program.reduce(&Host::of(1), &groups, |_| {}).await.unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(reduced, [pair("be", "2"), pair("not", "1"), pair("or", "1"), pair("to", "2")]);
    }

    #[tokio::test]
    async fn a_command_that_fails_says_how() {
        let program = Program::of(&Run::Commands { map: "exit 3".into(), reduce: "cat".into() }).unwrap();
        let failed = program.map(&Host::of(1), "file", "x", &mut Emitted::default()).await.unwrap_err();
        let Fault::Failed(record, text) = failed else { panic!("{failed:?}") };
        assert!(record == "file" && text.contains("exit status: 3"), "{record} {text}");
        // More input than a pipe holds, to a command that reads none of it.
        assert_eq!(run_shell("echo $MR_NAME", "n", vec![b'x'; 1 << 20]), Ok("n\n".to_owned()));
    }
}
