//! A worker: asks for a task, does it and reports it, until the job is over.
//!
//! A panic of the app is caught and reported with its input and record. If the app exits, the
//! worker ends, as in the labs. A worker that cannot reach the coordinator keeps trying for a
//! while, because another one may take the job over. Then it ends. It ends with success if it ever
//! got an order, because then the job is probably over.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use base::clock;
use futures::FutureExt as _;

use crate::api::{Coordinate, Reply, Request};
use crate::files::{self, Directory, Input, Spec};
use crate::input;
use crate::job::{Kind, Order, Task, Work};
use crate::program::{Fault, Groups, PAIRS_BYTES_MAX, Pairs, Program, bytes_of, group, part_of, too_much};
use crate::store::Store;

/// How long to try a coordinator that does not answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// A worker, and the number by which the coordinator knows it.
pub struct Worker<'a> {
    pub coordinator: &'a dyn Coordinate,
    pub directory: &'a Directory,
    pub spec: &'a Spec,
    pub program: &'a dyn Program,
    pub store: Option<&'a Store>,
    pub me: u64,
}

impl Worker<'_> {
    /// Works until the job is over, as far as the worker can know that.
    ///
    /// # Errors
    /// The app ended its process, so this worker has to end immediately. Or no coordinator ever
    /// answered.
    pub async fn run(&self) -> anyhow::Result<()> {
        let mut has_worked = false;
        loop {
            let order = match self.ask(Request::Ask(self.me)).await {
                Ok(Reply::Order(order)) => order,
                Ok(_) => bail!("the coordinator answers another question"),
                Err(_) if has_worked || self.is_finished() => return Ok(()),
                Err(error) => return Err(error),
            };
            has_worked = true;
            let (task, attempt, maps) = match order {
                Order::Run { task, attempt, maps } => (task, attempt, maps),
                Order::Wait => {
                    base::mutant!("exit-at-wait", return Ok(()));
                    continue;
                }
                Order::Exit => return Ok(()),
            };
            let request = match self.work(task, attempt, &maps).await {
                Ok(work) => Request::Done(task, attempt, work),
                Err(Fault::Exit) => bail!("the app ended its process"),
                Err(Fault::Failed(record, text)) => {
                    Request::Failed(task, attempt, format!("{}, record {record:?}: {text}", self.place(task)))
                }
            };
            // If nobody hears it, the task is done again.
            let _ = self.ask(request).await;
        }
    }

    /// Asks until a coordinator answers, patience ends or the job is over.
    async fn ask(&self, request: Request) -> anyhow::Result<Reply> {
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

    fn place(&self, task: Task) -> String {
        match (task.kind, &self.spec.input) {
            (Kind::Reduce, _) => format!("reducer {}", task.number),
            (Kind::Map, Input::Store { .. }) => format!("shard {}", task.number),
            (Kind::Map, Input::Files(files)) => {
                files.get(task.number as usize).map_or(String::new(), |(_, path)| path.display().to_string())
            }
        }
    }

    async fn work(&self, task: Task, attempt: u64, maps: &[(u32, u64)]) -> Result<Work, Fault> {
        // After a panic, this tells which record failed.
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
        let (mut work, mut after, mut room) = (Work::default(), None, PAIRS_BYTES_MAX);
        let mut parts: Vec<Pairs> = vec![Pairs::new(); self.spec.reduces as usize];
        loop {
            let (records, next) = input::page(self.spec, self.store, number, after.as_ref()).await?;
            for (name, text) in records {
                record.clone_from(&name);
                let pairs = self.program.map(&name, &text).await?;
                let bytes = pairs.iter().map(|(key, value)| bytes_of(key, value)).sum();
                room = room.checked_sub(bytes).ok_or_else(|| too_much(&name))?;
                for pair in pairs {
                    parts[part_of(&pair.0, self.spec.reduces) as usize].push(pair);
                }
                work = Work { records: work.records + 1, bytes: work.bytes + text.len() as u64 };
            }
            match next {
                Some(_) => after = next,
                None => break,
            }
        }
        for (reduce, part) in (0..).zip(parts) {
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
        let (mut groups, mut bytes) = (Groups::new(), 0);
        for (map, attempt) in maps {
            let name = files::intermediate(*map, number, *attempt);
            let (pairs, read) = self.pairs(&name)?;
            bytes += read;
            if bytes > PAIRS_BYTES_MAX {
                let text = format!("more than {PAIRS_BYTES_MAX} bytes of pairs: run it with more --reduces");
                return Err(Fault::of(name, text));
            }
            group(&mut groups, pairs);
        }
        let mut pairs = self.program.reduce(&groups, record).await?;
        if let (Some(output), Some(store)) = (&self.spec.output, self.store) {
            check_keys(&pairs, number, self.spec.reduces)?;
            // Every attempt sends the same pairs: those of the first attempt (rule 92).
            let name = format!("results-{number}");
            let made = self.directory.make_once(&name, &base::codec::encode(&pairs));
            made.map_err(|error| unwritten(&name, &error))?;
            if !base::mutant!("own-results-sent") {
                pairs = self.pairs(&name)?.0;
            }
            let sent = store.send(self.spec.id, number, output, &pairs).await;
            sent.map_err(|error| Fault::of(&output.prefix, error))?;
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
        Ok(Work { records: groups.len() as u64, bytes: bytes as u64 })
    }

    /// The pairs in a file, and its bytes.
    fn pairs(&self, name: &str) -> Result<(Pairs, usize), Fault> {
        let bytes = self.directory.read(name).map_err(|error| Fault::of(name, error))?;
        let pairs = base::codec::decode(&bytes, PAIRS_BYTES_MAX * 2);
        Ok((pairs.map_err(|error| Fault::of(name, error))?, bytes.len()))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Fault> {
        self.directory.replace(name, bytes).map_err(|error| unwritten(name, &error))
    }
}

/// In the store, a key has one value of one reducer (rule 92). Files have no such rule: a command
/// may print anything.
fn check_keys(pairs: &[(String, String)], number: u32, reduces: u32) -> Result<(), Fault> {
    const WHY: &str =
        "printed twice, or not given to this reducer: into the store a reduce prints each of its keys once";
    let mut seen = BTreeSet::new();
    let odd = pairs.iter().find(|(key, _)| !seen.insert(key) || part_of(key, reduces) != number);
    odd.map_or(Ok(()), |(key, _)| Err(Fault::of(key, WHY)))
}

fn unwritten(name: &str, error: &std::io::Error) -> Fault {
    Fault::of(name, format!("cannot be written: {error}"))
}

/// Does the complete job in one process, without workers: what their output must be.
pub async fn sequential(program: &dyn Program, files: &[(String, PathBuf)]) -> Result<Pairs, Fault> {
    let mut groups = Groups::new();
    for (name, path) in files {
        let text = input::read(path).map_err(|why| Fault::of(name, why))?;
        group(&mut groups, program.map(name, &text).await?);
    }
    program.reduce(&groups, &mut String::new()).await
}

#[cfg(test)]
mod tests;
