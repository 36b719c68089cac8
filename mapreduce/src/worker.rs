//! A worker: asks for a task, does it, says so, until the job is over.
//!
//! A panic of the app is caught and reported with its input and record. An exit ends the worker, as in the labs. A
//! worker that cannot reach the coordinator tries for a while, for another one may take the job over; then it ends,
//! well if it was once told what to do, for the job is probably over.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use base::clock;
use futures::FutureExt as _;

use crate::api::{Coordinate, Reply, Request, Unreachable};
use crate::files::{self, Directory, Input, Output, Spec};
use crate::input;
use crate::job::{Kind, Order, Task, Work};
use crate::program::{Emitted, Fault, Groups, PAIRS_BYTES_MAX, Program, part_of};
use crate::store::{Store, StoreError};
use crate::trials::Host;

/// A coordinator that does not answer is tried so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// How a worker ended.
#[derive(Debug)]
pub enum Ended {
    /// The job is over, as far as it can be known.
    Over,
    /// The app ended its process: this worker is to end at once, with a failure.
    Exit,
    /// No coordinator ever answered.
    Unreachable(Unreachable),
}

/// A worker.
pub struct Worker<'a> {
    /// The way to the coordinator.
    pub coordinator: &'a dyn Coordinate,
    /// The job's files.
    pub directory: &'a Directory,
    /// The job.
    pub spec: &'a Spec,
    /// What it runs.
    pub program: &'a Program,
    /// The store, if the job uses one.
    pub store: Option<&'a Store>,
    /// Who this is.
    pub host: &'a Host,
}

impl Worker<'_> {
    /// Works until the job is over.
    pub async fn run(&self) -> Ended {
        let mut has_worked = false;
        loop {
            let (task, attempt, maps) = match self.ask(Request::Ask { worker: self.host.me }).await {
                Ok(Reply::Order(Order::Exit)) => return Ended::Over,
                Ok(Reply::Order(Order::Run { task, attempt, maps })) => (task, attempt, maps),
                Ok(Reply::Order(Order::Wait)) => {
                    base::mutant!("exit-at-wait", return Ended::Over);
                    has_worked = true;
                    continue;
                }
                Ok(_) => return Ended::Unreachable(Unreachable("it answers another question".into())),
                Err(_) if has_worked || self.is_finished() => return Ended::Over,
                Err(error) => return Ended::Unreachable(error),
            };
            has_worked = true;
            let request = match self.work(task, attempt, &maps).await {
                Ok(work) => Request::Done { task, attempt, work },
                Err(Fault::Exit) => return Ended::Exit,
                Err(Fault::Failed(record, text)) => {
                    Request::Failed { task, attempt, report: self.report(task, &record, &text) }
                }
            };
            // If nobody hears it, the task is done again.
            let _ = self.ask(request).await;
        }
    }

    /// Asks until somebody answers, or patience or the job is over.
    async fn ask(&self, request: Request) -> Result<Reply, Unreachable> {
        let until = clock::now().after(PATIENCE);
        loop {
            match self.coordinator.call(request.clone()).await {
                Err(error) if clock::now() >= until || self.is_finished() => return Err(error),
                Err(_) => clock::sleep(PAUSE).await,
                answer => return answer,
            }
        }
    }

    fn is_finished(&self) -> bool {
        !self.directory.exists() || self.directory.finished().is_some()
    }

    fn report(&self, task: Task, record: &str, text: &str) -> String {
        let file = match &self.spec.input {
            Input::Files(files) => files.get(usize::try_from(task.number).unwrap_or(usize::MAX)),
            Input::Store { .. } => None,
        };
        let place = match (task.kind, file) {
            (Kind::Reduce, _) => format!("reducer {}", task.number),
            (Kind::Map, Some((_, path))) => path.display().to_string(),
            (Kind::Map, None) => format!("shard {}", task.number),
        };
        format!("{place}, record {record:?}: {text}")
    }

    async fn work(&self, task: Task, attempt: u64, maps: &[(u32, u64)]) -> Result<Work, Fault> {
        // Who fails must be known when the app panics.
        let mut record = String::new();
        let work = async {
            match task.kind {
                Kind::Map => self.map(task.number, attempt, &mut record).await,
                Kind::Reduce => self.reduce(task.number, attempt, maps, &mut record).await,
            }
        };
        AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            Err(Fault::of(record, format!("the app panicked: {text}")))
        })
    }

    async fn map(&self, number: u32, attempt: u64, record: &mut String) -> Result<Work, Fault> {
        let (mut work, mut emitted, mut after) = (Work::default(), Emitted::default(), None);
        loop {
            let (records, next) = input::page(self.spec, self.store, number, after.as_ref()).await?;
            for (name, text) in records {
                record.clone_from(&name);
                self.program.map(self.host, &name, &text, &mut emitted).await?;
                work.records += 1;
                work.bytes += text.len() as u64;
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        for (reduce, part) in (0..).zip(emitted.deal(self.spec.reduces)) {
            self.write(&files::intermediate(number, reduce, attempt), &base::codec::encode(&part))?;
        }
        Ok(work)
    }

    async fn reduce(
        &self,
        number: u32,
        attempt: u64,
        maps: &[(u32, u64)],
        record: &mut String,
    ) -> Result<Work, Fault> {
        let (groups, bytes) = self.gather(number, maps)?;
        let work = Work { records: groups.len() as u64, bytes };
        let mut pairs = self.program.reduce(self.host, &groups, |key| key.clone_into(record)).await?;
        if let (Some(output), Some(store)) = (&self.spec.output, self.store) {
            check_keys(&pairs, number, self.spec.reduces)?;
            // Every attempt sends the same: what the first one has made (rule 92).
            let name = files::results(number);
            let made = self.directory.make_once(&name, &base::codec::encode(&pairs));
            made.map_err(|error| wrote(&name, &error))?;
            if !base::mutant!("own-results-sent") {
                pairs = self.pairs(&name)?.0;
            }
            let sent = store.send(self.spec.id, number, output, &pairs).await;
            sent.map_err(|error| self.not_sent(output, &error))?;
        }
        let text: String = pairs.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
        base::mutant!("rename-too-early", {
            let name = self.directory.output(number);
            if self.directory.make_once(&name, &text.as_bytes()[..text.len() / 2]).is_ok_and(|made| made) {
                clock::sleep(Duration::from_millis(20)).await;
                let _ = std::fs::write(&name, &text);
            }
        });
        self.write(&files::reduced(number, attempt), text.as_bytes())?;
        Ok(work)
    }

    /// The next attempt would find the part's mark and call it sent. So what is lost is written down first: no later
    /// attempt and no other coordinator can then end the job well (rule 122).
    fn not_sent(&self, output: &Output, error: &StoreError) -> Fault {
        let text = error.to_string();
        match error {
            StoreError::Changed(..) if !base::mutant!("loss-forgotten") => match self.directory.lose(&text) {
                Ok(()) => Fault::of(&output.prefix, text),
                Err(why) => Fault::of(&output.prefix, format!("{text} (and that cannot be noted: {why})")),
            },
            _ => Fault::of(&output.prefix, text),
        }
    }

    /// What all maps have for a reducer.
    fn gather(&self, number: u32, maps: &[(u32, u64)]) -> Result<(Groups, u64), Fault> {
        let (mut groups, mut bytes) = (Groups::new(), 0);
        for (map, attempt) in maps {
            let name = files::intermediate(*map, number, *attempt);
            let (pairs, read) = self.pairs(&name)?;
            bytes += read;
            if bytes > PAIRS_BYTES_MAX as u64 {
                let text = format!("more than {PAIRS_BYTES_MAX} bytes of pairs: run it with more --reduces");
                return Err(Fault::of(name, text));
            }
            pairs.into_iter().for_each(|(key, value)| groups.entry(key).or_default().push(value));
        }
        Ok((groups, bytes))
    }

    fn pairs(&self, name: &str) -> Result<(Vec<(String, String)>, u64), Fault> {
        let bytes = self.directory.read(name).map_err(|error| Fault::of(name, error))?;
        let pairs =
            base::codec::decode(&bytes, PAIRS_BYTES_MAX * 2).map_err(|error| Fault::of(name, error))?;
        Ok((pairs, bytes.len() as u64))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Fault> {
        self.directory.replace(name, bytes).map_err(|error| wrote(name, &error))
    }
}

/// In the store a key has one value of one reducer (rule 92). A command may print anything: in files that is its own
/// affair.
fn check_keys(pairs: &[(String, String)], number: u32, reduces: u32) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    match pairs.iter().find(|(key, _)| !seen.insert(key) || part_of(key, reduces) != number) {
        None => Ok(()),
        Some((key, _)) => Err(Fault::of(
            key,
            "printed twice, or not given to this reducer: into the store a reduce prints each of its keys once",
        )),
    }
}

fn wrote(name: &str, error: &std::io::Error) -> Fault {
    Fault::of(name, format!("cannot be written: {error}"))
}

/// The whole job in one go, without workers: what their output must be.
///
/// # Errors
/// The record, and a text.
pub async fn sequential(
    program: &Program,
    host: &Host,
    files: &[(String, std::path::PathBuf)],
) -> Result<Vec<(String, String)>, Fault> {
    let mut emitted = Emitted::default();
    for (name, path) in files {
        let text = input::read(path).map_err(|why| Fault::of(name, why))?;
        program.map(host, name, &text, &mut emitted).await?;
    }
    let mut groups = Groups::new();
    emitted.pairs.into_iter().for_each(|(key, value)| groups.entry(key).or_default().push(value));
    program.reduce(host, &groups, |_| {}).await
}

#[cfg(test)]
mod tests;
