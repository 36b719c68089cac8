//! One client: asks, waits, counts, and asks again.
//!
//! The work between two operations is kept small, because the client usually shares a machine with
//! the servers. Keys and values are written into one buffer, which is reused as soon as nobody
//! holds it, and an operation is recorded only if that was asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::clock::{self, Instant};
use bytes::{Bytes, BytesMut};
use clerk::api::Version;
use clerk::api::kv::Write;
use clerk::kv::{Error, Got};
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::keys::Keys;
use super::pace::Backlog;
use super::plan::Load;
use super::record::{Entry, Op, Outcome};
use super::run::Run;

/// The pause after an immediate refusal, so that a closed loop does not spin.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);

/// What the clients of a phase do, and when.
pub struct Work {
    pub load: Load,
    pub keys: Keys,
    pub source: Source,
    pub end: Instant,
    /// Ends the phase early; operations in flight are waited for.
    pub stop: CancellationToken,
}

/// Where operations come from.
pub enum Source {
    /// A client begins one when its last one has ended.
    Closed,
    /// A schedule.
    Open(Backlog),
    /// Every key once, `count` keys.
    Once { next: AtomicU64, count: u64 },
}

/// An operation to be done.
struct Task {
    op: Op,
    index: u64,
    /// Of a put: keys that are written in the same call.
    more: Vec<u64>,
    due: Instant,
}

/// One client, in a phase.
pub struct Client {
    run: Arc<Run>,
    work: Arc<Work>,
    random: StdRng,
    id: u64,
    number: u64,
    /// Versions it has seen, where conditional puts need them.
    seen: BTreeMap<u64, u64>,
    buffer: BytesMut,
    /// The number of operations in flight; the record of a single one, if there is one.
    asking: u64,
    entry: Option<Entry>,
}

/// What came back: a get's findings, or a write's version.
enum Reply {
    Got(Got),
    Written(Version),
}

impl Client {
    pub fn new(run: Arc<Run>, work: Arc<Work>) -> Self {
        Self {
            id: run.new_client(),
            run,
            work,
            random: rand::make_rng(),
            number: 0,
            seen: BTreeMap::new(),
            buffer: BytesMut::new(),
            asking: 0,
            entry: None,
        }
    }

    /// Until the phase is over, or the run is interrupted.
    pub async fn live(mut self) {
        let interrupted = self.run.interrupted.clone();
        tokio::select! {
            biased;
            () = self.work() => {}
            () = interrupted.cancelled() => self.abandon(),
        }
    }

    async fn work(&mut self) {
        while let Some(task) = self.next().await {
            let refused =
                if task.more.is_empty() { self.perform(task).await } else { self.perform_batch(task).await };
            if refused {
                clock::sleep(AFTER_REFUSAL).await;
            }
        }
    }

    async fn next(&mut self) -> Option<Task> {
        let work = Arc::clone(&self.work);
        let due = match &work.source {
            Source::Closed | Source::Once { .. } => {
                let now = clock::now();
                (now < work.end && !work.stop.is_cancelled()).then_some(now)?
            }
            Source::Open(backlog) => backlog.take().await?,
        };
        if let Source::Once { next, count } = &work.source {
            let index = next.fetch_add(work.load.batch, Ordering::Relaxed);
            let more = (index + 1..(index + work.load.batch).min(*count)).collect();
            return (index < *count).then_some(Task { op: Op::Put, index, more, due });
        }
        let index = work.keys.pick(&mut self.random);
        let op = work.load.pick(&mut self.random);
        let more = if op == Op::Put { work.load.batch - 1 } else { 0 };
        let more = (0..more).map(|_| work.keys.pick(&mut self.random)).collect();
        Some(Task { op, index, more, due })
    }

    /// Does one operation and notes its outcome; returns whether it was refused.
    async fn perform(&mut self, Task { op, index, due, .. }: Task) -> bool {
        self.number += 1;
        let (key, value) = self.write_out(op, index);
        let expected = (op == Op::Cas).then(|| self.seen.get(&index).copied().unwrap_or(0));
        let begun = clock::now();
        // Only a schedule knows of operations that begin late.
        let due = if self.work.load.rate.is_some() { due } else { begun };
        if self.run.record.is_some() {
            self.entry = Some(Entry::new(self.id, op, &key, value.as_deref(), expected, begun.as_nanos()));
        }
        self.asking = 1;
        let result = self.ask(op, key, value.unwrap_or_default(), expected).await;
        self.asking = 0;
        let now = clock::now();
        let (outcome, version, output) = self.judge(op, result, (due, begun, now));
        if let Some(version) = version.filter(|_| self.work.load.cas > 0) {
            self.seen.insert(index, if op == Op::Delete { 0 } else { version });
        }
        self.record(outcome, version, output, now);
        if outcome == Outcome::Unknown {
            self.id = self.run.new_client();
        }
        outcome == Outcome::Fail && version.is_none()
    }

    /// Puts several keys in one call, each a separate operation; returns whether one was refused.
    /// Nothing is recorded: a history has one operation of a client at a time.
    async fn perform_batch(&mut self, Task { index, more, due, .. }: Task) -> bool {
        let mut writes = Vec::with_capacity(1 + more.len());
        for index in std::iter::once(index).chain(more) {
            self.number += 1;
            let (key, value) = self.write_out(Op::Put, index);
            writes.push((key, Write::Put { value: value.unwrap_or_default(), expected: None }));
        }
        let begun = clock::now();
        let due = if self.work.load.rate.is_some() { due } else { begun };
        self.asking = writes.len() as u64;
        let results = self.run.clerk.batch(writes).await;
        self.asking = 0;
        let now = clock::now();
        let mut refused = false;
        for result in results {
            let (outcome, version, _) = self.judge(Op::Put, result.map(Reply::Written), (due, begun, now));
            refused |= outcome == Outcome::Fail && version.is_none();
        }
        refused
    }

    /// The key, and the written text: unique, and not part of any other written text.
    fn write_out(&mut self, op: Op, index: u64) -> (Bytes, Option<Bytes>) {
        const ROOM: usize = 64;
        let Self { run, work, buffer, id, number, .. } = self;
        let value_bytes = work.load.value_bytes as usize;
        buffer.reserve(2 * ROOM + value_bytes);
        // Writing into memory cannot fail.
        let _ = write!(buffer, "{}-{index}", run.id);
        let key = buffer.split().freeze();
        if matches!(op, Op::Get | Op::Delete) {
            return (key, None);
        }
        let _ = write!(buffer, "[{}.{id}.{number}]", run.id);
        buffer.resize(buffer.len().max(value_bytes), b'.');
        (key, Some(buffer.split().freeze()))
    }

    async fn ask(&self, op: Op, key: Bytes, value: Bytes, expected: Option<u64>) -> Result<Reply, Error> {
        let clerk = &self.run.clerk;
        let version = match op {
            Op::Get => return clerk.get(key).await.map(Reply::Got),
            Op::Put => clerk.put(key, value).await?,
            Op::Append => clerk.append(key, value).await?,
            Op::Delete => clerk.delete(key).await?,
            Op::Cas => clerk.put_if(key, value, Version(expected.unwrap_or(0))).await?,
        };
        Ok(Reply::Written(version))
    }

    /// Counts what came back.
    fn judge(
        &self,
        op: Op,
        result: Result<Reply, Error>,
        (due, begun, now): (Instant, Instant, Instant),
    ) -> (Outcome, Option<u64>, Option<Bytes>) {
        let mut measure = self.run.measure();
        match result {
            Ok(Reply::Got(Got { value, version })) => {
                measure.done(op, due, begun, now);
                if value.is_none() {
                    measure.missing(now);
                }
                (Outcome::Ok, Some(version.0), value)
            }
            Ok(Reply::Written(version)) => {
                measure.done(op, due, begun, now);
                (Outcome::Ok, Some(version.0), None)
            }
            // Done as asked: it compared.
            Err(Error::VersionMismatch { version }) => {
                measure.done(op, due, begun, now);
                (Outcome::Fail, Some(version.0), None)
            }
            Err(Error::Unknown | Error::Maybe) => {
                measure.unknown(now);
                (Outcome::Unknown, None, None)
            }
            Err(error) => {
                measure.error(&error, now);
                (Outcome::Fail, None, None)
            }
        }
    }

    fn record(&mut self, outcome: Outcome, version: Option<u64>, output: Option<Bytes>, now: Instant) {
        let Some(mut entry) = self.entry.take() else { return };
        entry.outcome = outcome;
        entry.version = version;
        entry.output = output.map(|value| String::from_utf8_lossy(&value).into_owned());
        entry.return_ns = (outcome != Outcome::Unknown).then(|| now.as_nanos());
        if let Some(record) = &self.run.record {
            record.write(&entry);
        }
    }

    /// The run was interrupted: what is under way is unknown.
    fn abandon(&mut self) {
        if self.asking > 0 {
            let now = clock::now();
            (0..self.asking).for_each(|_| self.run.measure().unknown(now));
            self.record(Outcome::Unknown, None, None, now);
        }
    }
}
