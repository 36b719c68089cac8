//! A worker: asks for a task, does it, says so, until the job is over.
//!
//! A panic of the app is caught and reported with its input and record. An exit ends the worker, as in the labs. A
//! worker that cannot reach the coordinator tries for a while, for another one may take the job over; then it ends,
//! well if it was once told what to do, for the job is probably over.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use base::clock;
use futures::FutureExt as _;
use xxhash_rust::xxh3::xxh3_64;

use crate::api::{Coordinate, Reply, Request, Unreachable};
use crate::files::{self, Directory, Input, Spec};
use crate::input::Records;
use crate::job::{Kind, Order, Task, Work};
use crate::program::{Emitted, Fault, Groups, PAIRS_BYTES_MAX, Program};
use crate::store::Store;
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
            let order = match self.ask(Request::Ask { worker: self.host.me }).await {
                Ok(Reply::Order(order)) => order,
                Ok(_) => return Ended::Unreachable(Unreachable("it answers another question".into())),
                Err(_) if has_worked || self.is_finished() => return Ended::Over,
                Err(error) => return Ended::Unreachable(error),
            };
            has_worked = true;
            match order {
                Order::Exit => return Ended::Over,
                Order::Wait => base::mutant!("exit-at-wait", return Ended::Over),
                Order::Run { task, attempt, maps } => {
                    let request = match self.work(task, attempt, &maps).await {
                        Ok(work) => Request::Done { task, attempt, work },
                        Err(Fault::Exit) => return Ended::Exit,
                        Err(Fault::Failed(record, text)) => {
                            let report = self.report(task, &record, &text);
                            Request::Failed { task, attempt, report }
                        }
                    };
                    // If nobody hears it, the task is done again.
                    let _ = self.ask(request).await;
                }
            }
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
        let place = match (&self.spec.input, task.kind) {
            (_, Kind::Reduce) => format!("reducer {}", task.number),
            (Input::Store { .. }, Kind::Map) => format!("shard {}", task.number),
            (Input::Files(files), Kind::Map) => {
                let file = files.get(usize::try_from(task.number).unwrap_or(usize::MAX));
                file.map_or_else(|| format!("input {}", task.number), |(_, path)| path.display().to_string())
            }
        };
        format!("{place}, record {record:?}: {text}")
    }

    async fn work(&self, task: Task, attempt: u64, maps: &[(u32, u64)]) -> Result<Work, Fault> {
        // Who fails must be known when the app panics.
        let mut record = String::new();
        let work = async {
            match task.kind {
                Kind::Map => self.map(task.number, attempt, &mut record).await,
                Kind::Reduce => self.reduce(task.number, maps, &mut record).await,
            }
        };
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
                Err(Fault::Failed(record, format!("the app panicked: {text}")))
            }
        }
    }

    async fn map(&self, number: u32, attempt: u64, record: &mut String) -> Result<Work, Fault> {
        let failed = |text| Fault::Failed(format!("map {number}"), text);
        let mut records = Records::of(self.spec, self.store, number).map_err(failed)?;
        let (mut work, mut emitted) = (Work::default(), Emitted::default());
        while let Some(page) = records.next().await.map_err(|(record, text)| Fault::Failed(record, text))? {
            for (name, text) in page {
                record.clone_from(&name);
                self.program.map(self.host, &name, &text, &mut emitted).await?;
                work.records += 1;
                work.bytes += text.len() as u64;
            }
        }
        let reduces = usize::try_from(self.spec.reduces).unwrap_or(1).max(1);
        let mut parts: Vec<Vec<(String, String)>> = vec![Vec::new(); reduces];
        for (key, value) in emitted.pairs {
            let part = xxh3_64(key.as_bytes()) % reduces as u64;
            parts[usize::try_from(part).unwrap_or(0)].push((key, value));
        }
        for (reduce, part) in (0..).zip(&parts) {
            let name = files::intermediate(number, reduce, attempt);
            self.directory
                .replace(&name, &base::codec::encode(part))
                .map_err(|error| wrote(&name, &error))?;
        }
        Ok(work)
    }

    async fn reduce(&self, number: u32, maps: &[(u32, u64)], record: &mut String) -> Result<Work, Fault> {
        let (groups, bytes) = self.gather(number, maps)?;
        let work = Work { records: groups.len() as u64, bytes };
        let mut pairs = self.program.reduce(self.host, &groups, |key| key.clone_into(record)).await?;
        if let (Some(output), Some(store)) = (&self.spec.output, self.store) {
            // Every attempt sends the same: what the first one has made (correctness of store.rs).
            let name = files::result(number);
            let made = self.directory.make_once(&name, &base::codec::encode(&pairs));
            made.map_err(|error| wrote(&name, &error))?;
            pairs = self.pairs(&name)?.0;
            let sent = store.send(self.spec.id, number, output, &pairs).await;
            sent.map_err(|error| Fault::Failed(output.prefix.clone(), error.to_string()))?;
        }
        let text: String = pairs.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
        let name = files::output(number);
        base::mutant!("rename-too-early", {
            if self.directory.make_once(&name, &text.as_bytes()[..text.len() / 2]).is_ok_and(|made| made) {
                clock::sleep(Duration::from_millis(20)).await;
                let _ = self.directory.replace(&name, text.as_bytes());
            }
        });
        self.directory.make_once(&name, text.as_bytes()).map_err(|error| wrote(&name, &error))?;
        Ok(work)
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
                return Err(Fault::Failed(name, text));
            }
            pairs.into_iter().for_each(|(key, value)| groups.entry(key).or_default().push(value));
        }
        Ok((groups, bytes))
    }

    fn pairs(&self, name: &str) -> Result<(Vec<(String, String)>, u64), Fault> {
        let failed = |text: String| Fault::Failed(name.to_owned(), text);
        let bytes = self.directory.read(name).map_err(|error| failed(error.to_string()))?;
        let pairs =
            base::codec::decode(&bytes, PAIRS_BYTES_MAX * 2).map_err(|error| failed(error.to_string()))?;
        Ok((pairs, bytes.len() as u64))
    }
}

fn wrote(name: &str, error: &std::io::Error) -> Fault {
    Fault::Failed(name.to_owned(), format!("cannot be written: {error}"))
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
        let text = crate::input::read(path).map_err(|why| Fault::Failed(name.clone(), why))?;
        program.map(host, name, &text, &mut emitted).await?;
    }
    let mut groups = Groups::new();
    emitted.pairs.into_iter().for_each(|(key, value)| groups.entry(key).or_default().push(value));
    program.reduce(host, &groups, |_| {}).await
}
