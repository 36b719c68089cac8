//! A job of MapReduce, its coordinators and workers, as scenarios drive them.
//!
//! In the simulator a worker is a task: dropping it kills it, not polling it stops it, and its
//! process id is its number. On real processes it is the program `mr-trials`, which is `mr`
//! with the apps of the labs' tests. Both work in a directory on a real disk.

mod processes;
mod simulated;
pub mod trials;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{anyhow, ensure};
use base::clock;
use mapreduce::{Directory, Fault, Input, Kind, Output, Run, Spec, Task, sequential};
use rand::RngExt as _;

use super::{Lab, Store};
use real::Place;
use simulated::Seat;

/// Reducers of every job of the labs.
const REDUCES: u32 = 10;
/// The labs' inputs are books; two names matter to the early exit's app.
const NAMES: [&str; 8] = [
    "being_ernest",
    "dorian_gray",
    "frankenstein",
    "grimm",
    "huckleberry_finn",
    "metamorphosis",
    "sherlock",
    "tom",
];

/// A coordinator or a worker.
pub enum Process {
    /// A task.
    Task(simulated::Task),
    /// A process of this machine.
    Child(processes::Running),
}

impl Process {
    /// Waits until it has ended; returns whether it ended well.
    pub async fn ended(&mut self) -> bool {
        match self {
            Self::Task(task) => task.ended().await,
            Self::Child(child) => child.ended().await,
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        match self {
            Self::Task(task) => task.kill(),
            Self::Child(child) => child.kill(),
        }
    }

    /// Stops it as SIGSTOP does, or lets it continue.
    pub fn stop(&self, stopped: bool) {
        match self {
            Self::Task(task) => task.stop(stopped),
            Self::Child(child) => child.stop(stopped),
        }
    }
}

/// A job.
pub struct Job {
    lab: Lab,
    place: Place,
    directory: Directory,
    spec: Spec,
    seat: Seat,
    store: Option<mapreduce::Store>,
}

impl Job {
    /// A job of the labs: this app over eight files.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn new(lab: &Lab, app: &str) -> anyhow::Result<Self> {
        let place = Place::new();
        let files = write_books(lab, &place)?;
        Self::make(lab, place, app, Input::Files(files), None, None)
    }

    /// The same, with results added to the values at `prefix` in the store.
    ///
    /// # Errors
    /// As there.
    pub fn into_store(lab: &Lab, app: &str, store: &Store, prefix: &str) -> anyhow::Result<Self> {
        let place = Place::new();
        let files = write_books(lab, &place)?;
        let output = Output { prefix: prefix.to_owned(), add: true };
        Self::make(lab, place, app, Input::Files(files), Some(output), Some(store))
    }

    /// A job over the rows of the store whose keys begin with `prefix`.
    ///
    /// # Errors
    /// As there.
    pub fn from_store(lab: &Lab, app: &str, store: &Store, prefix: &str) -> anyhow::Result<Self> {
        let input = Input::Store { prefix: prefix.to_owned(), shards: store.setup.shards };
        Self::make(lab, Place::new(), app, input, None, Some(store))
    }

    fn make(
        lab: &Lab,
        place: Place,
        app: &str,
        input: Input,
        output: Option<Output>,
        store: Option<&Store>,
    ) -> anyhow::Result<Self> {
        let spec = Spec {
            id: lab.derive(&lab.fresh_name("job")),
            run: Run::App(app.to_owned()),
            input,
            reduces: REDUCES,
            output,
            controllers: store.map(|store| store.ground.addresses("ctrl")).unwrap_or_default(),
            cluster: super::processes::CLUSTER.to_owned(),
        };
        let directory = Directory::create(&place.path().join("job"), &spec)?;
        let store = store.map(|store| mapreduce::Store(store.client().clerk));
        Ok(Self { lab: lab.clone(), place, directory, spec, seat: Seat::default(), store })
    }

    /// Starts a coordinator, which begins the job or continues it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn coordinator(&self) -> anyhow::Result<Process> {
        match self.lab.world() {
            Ok(world) => Ok(Process::Task(simulated::coordinator(self, world)?)),
            Err(_) => Ok(Process::Child(processes::coordinator(self)?)),
        }
    }

    /// Starts a worker.
    ///
    /// # Errors
    /// When it does not start.
    pub fn worker(&self) -> anyhow::Result<Process> {
        match self.lab.world() {
            Ok(world) => Ok(Process::Task(simulated::worker(self, world)?)),
            Err(_) => Ok(Process::Child(processes::worker(self)?)),
        }
    }

    /// Starts `count` workers.
    ///
    /// # Errors
    /// When one does not start.
    pub fn workers(&self, count: usize) -> anyhow::Result<Vec<Process>> {
        self.lab.set_peers(count as u64);
        (0..count).map(|_| self.worker()).collect()
    }

    /// Starts a worker again and again, forever, `pause_ms` (at least 10) after each end.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn worker_forever(&self, pause_ms: u64) -> anyhow::Result<()> {
        loop {
            self.worker()?.ended().await;
            self.lab.sleep(pause_ms.max(10)).await;
        }
    }

    /// The lines of all outputs, sorted.
    ///
    /// # Errors
    /// When one is missing.
    pub fn output(&self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for reduce in 0..self.spec.reduces {
            let bytes = std::fs::read(self.directory.output(reduce))
                .map_err(|error| anyhow!("output {reduce} is missing: {error}"))?;
            lines.extend(String::from_utf8(bytes)?.lines().map(str::to_owned));
        }
        lines.sort();
        Ok(lines)
    }

    /// Tasks of a kind that are done.
    ///
    /// # Errors
    /// When the job's files cannot be read.
    pub fn done(&self, kind: Kind) -> anyhow::Result<usize> {
        let count = if kind == Kind::Map { self.spec.maps() } else { self.spec.reduces };
        let marks = (0..count).map(|number| self.directory.marked(Task { kind, number }));
        Ok(marks.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().count())
    }

    /// Fails unless the output is that of the sequential program for `app`.
    ///
    /// # Errors
    /// The first line that differs.
    pub async fn check_output(&self, app: &str) -> anyhow::Result<()> {
        let (found, expected) = (self.output()?, self.expected(app).await?);
        let mut expected: Vec<String> =
            expected.into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        expected.sort();
        for (found, expected) in found.iter().zip(&expected) {
            ensure!(found == expected, "the output has {found:?} where {expected:?} is expected");
        }
        ensure!(found.len() == expected.len(), "{} lines of output, not {}", found.len(), expected.len());
        (0..found.len()).for_each(|_| self.lab.count_op());
        Ok(())
    }

    /// The sequential program's result for the inputs.
    ///
    /// # Errors
    /// When an input cannot be read.
    pub async fn expected(&self, app: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let program = trials::find(app, &self.directory.own).map_err(anyhow::Error::msg)?;
        let Input::Files(files) = &self.spec.input else { anyhow::bail!("not a job over files") };
        match sequential(&*program, files).await {
            Ok(pairs) => Ok(pairs.into_iter().collect()),
            Err(Fault::Failed(record, text)) => Err(anyhow!("{record}: {text}")),
            Err(Fault::Exit) => Err(anyhow!("the sequential program ended")),
        }
    }

    /// Waits until a process has ended, at most `within_ms`.
    ///
    /// # Errors
    /// When it has not, or not well.
    pub async fn ends(&self, what: &str, process: &mut Process, within_ms: u64) -> anyhow::Result<()> {
        let within = std::time::Duration::from_millis(within_ms);
        let ended = clock::timeout(within, process.ended()).await;
        ensure!(
            ended.map_err(|_| anyhow!("{what} has not ended after {within_ms} ms"))?,
            "{what} ended badly"
        );
        Ok(())
    }
}

/// Eight texts whose words are distributed as in a language.
fn write_books(lab: &Lab, place: &Place) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut random = lab.random(&lab.fresh_name("books"));
    let words = if lab.world().is_ok() { 300 } else { 10_000 };
    let mut files = Vec::new();
    for name in NAMES {
        let mut text = String::new();
        for _ in 0..words {
            // Roughly Zipf: word n occurs in proportion to 1/n.
            let rank = 2000_f64.powf(random.random::<f64>());
            let _ = write!(text, "{} ", word(rank as usize));
        }
        let name = format!("pg-{name}.txt");
        let path = place.path().join(&name);
        std::fs::write(&path, text)?;
        files.push((name, path));
    }
    Ok(files)
}

fn word(mut rank: usize) -> String {
    let mut word = String::new();
    while rank > 0 {
        word.push(char::from(b'a' + u8::try_from(rank % 26).unwrap_or(0)));
        rank /= 26;
    }
    word
}
