//! Two shell commands as a program.
//!
//! `--map` gets the text of a record on its standard input and the record's name in MR_NAME. It
//! prints lines `key TAB value`. `--reduce` gets the lines of one reducer, sorted by key, and
//! prints lines of the same form. A command fails if it ends with an exit code other than 0.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use futures::FutureExt as _;

use mapreduce::{Fault, Groups, Made, PAIRS_BYTES_MAX, Pairs, Program};

/// Two commands. They run in the process group of a guard. The guard is a shell that reads from
/// this process and kills its group when this process ends. So no command survives this process,
/// however it ends (rule 123).
pub(crate) struct Commands {
    map: String,
    reduce: String,
    guard: Child,
}

impl Commands {
    pub(crate) fn new(map: String, reduce: String) -> io::Result<Self> {
        let mut guard = Command::new("sh");
        guard.args(["-c", "read -r _; kill -9 0"]).stdin(Stdio::piped()).process_group(0);
        Ok(Self { map, reduce, guard: guard.spawn()? })
    }

    /// Runs a command on its own thread, and returns the pairs that it printed.
    async fn shell(&self, command: &str, name: &str, input: String) -> Result<Pairs, String> {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("MR_NAME", name).stdin(Stdio::piped()).stdout(Stdio::piped());
        shell.process_group(self.guard.id() as i32);
        let run = tokio::task::spawn_blocking(move || run(&mut shell, input.as_bytes()));
        let printed = run.await.map_err(io::Error::other).flatten().and_then(|printed| {
            String::from_utf8(printed).map_err(|_| io::Error::other("it prints what is not UTF-8"))
        });
        let printed = printed.map_err(|error| format!("{command:?}: {error}"))?;
        let pair = |line: &str| {
            let (key, value) = line.split_once('\t').unwrap_or((line, ""));
            (key.to_owned(), value.to_owned())
        };
        Ok(printed.lines().filter(|line| !line.is_empty()).map(pair).collect())
    }
}

impl Program for Commands {
    fn map<'a>(&'a self, name: &'a str, text: &'a str) -> Made<'a> {
        let run = self.shell(&self.map, name, text.to_owned());
        Box::pin(run.map(move |printed| printed.map_err(|why| Fault::of(name, why))))
    }

    fn reduce<'a>(&'a self, groups: &'a Groups, _: &'a mut String) -> Made<'a> {
        let pairs = groups.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        let text: String = pairs.map(|(key, value)| format!("{key}\t{value}\n")).collect();
        let run = self.shell(&self.reduce, "", text);
        Box::pin(run.map(|printed| printed.map_err(|why| Fault::of("the whole reducer", why))))
    }
}

/// What a command prints.
fn run(shell: &mut Command, input: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = shell.spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut printed = Vec::new();
    let read = std::thread::scope(|scope| {
        // A command that stops reading is judged by its exit code.
        scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(input)));
        // This closes its standard output: a command that prints more ends.
        stdout.map(|stdout| stdout.take(PAIRS_BYTES_MAX as u64 + 1).read_to_end(&mut printed))
    });
    let status = child.wait()?;
    read.transpose()?;
    if printed.len() > PAIRS_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it prints more than {PAIRS_BYTES_MAX} bytes: split the input"
        )));
    }
    if !status.success() {
        return Err(io::Error::other(format!("it ended with {status}")));
    }
    Ok(printed)
}

#[cfg(test)]
mod tests;
