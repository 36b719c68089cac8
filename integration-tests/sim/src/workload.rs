//! Clients: each does one random operation at a time and records what it saw.
//!
//! The same clients run in simulations and against real processes: they know only [`Store`] and the
//! clock of [`base::clock`]. Every value and piece is unique, so that the checker can tell who
//! wrote what. After an operation without an outcome a client continues under a new id.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use futures::future::BoxFuture;
use rand::rngs::Xoshiro256PlusPlus as Generator;
use rand::{RngExt, SeedableRng};

use crate::lock;
use judge::history::{Client, Op, Operation, Outcome};

/// What a client asks of a store.
#[derive(Clone, Debug)]
pub struct Request {
    pub op: Op,
    pub key: String,
    /// The value, or the piece.
    pub value: Option<String>,
    /// The expected version of an [`Op::Cas`].
    pub expected: Option<u64>,
}

/// What the store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done; a get of a missing key has no output and version 0.
    Done {
        output: Option<Bytes>,
        /// The key's version.
        version: u64,
    },
    /// A conditional put met this version.
    Mismatch(u64),
    /// Definitely not done.
    Refused,
    /// It is not known whether it was done.
    Unknown,
}

/// A store as a client sees it.
pub trait Store: Send {
    /// Does one operation.
    fn run<'a>(&'a mut self, request: &'a Request) -> BoxFuture<'a, Answer>;
}

/// A store that does several writes in one batch.
pub trait Batches: Sync {
    /// Does them; one answer each.
    fn run_batch<'a>(&'a self, requests: &'a [Request]) -> BoxFuture<'a, Vec<Answer>>;
}

/// What clients do.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Shares of get, put, append, delete, cas.
    pub shares: [u32; 5],
    pub keys: Vec<String>,
    /// Longest pause between two operations.
    pub think_max: Duration,
}

/// The record that all clients write. Clones share it.
#[derive(Clone, Default)]
pub struct Recorder {
    shared: Arc<Recorded>,
}

#[derive(Default)]
struct Recorded {
    operations: Mutex<Vec<Operation>>,
    clients: AtomicU64,
    acknowledged: AtomicU64,
    over: AtomicBool,
}

impl Recorder {
    /// Acknowledged operations so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Tells the clients to stop after their present operation.
    pub fn stop(&self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }

    /// Whether clients are to stop.
    pub fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed)
    }

    /// A new client id.
    pub fn new_client(&self) -> u64 {
        self.shared.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The result of `judge` on the history so far. (A long history is large, so it is not copied.)
    pub fn judged<T>(&self, judge: impl FnOnce(&[Operation]) -> T) -> T {
        judge(&lock(&self.shared.operations))
    }

    /// Takes the history.
    pub fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut lock(&self.shared.operations))
    }

    /// Does one operation as `client` and records it. A failed or unknown get is not recorded: it says
    /// nothing.
    pub async fn run(&self, client: u64, store: &mut dyn Store, request: &Request) -> Answer {
        let call_ns = clock::now().as_nanos();
        let slot = self.open(client, request, call_ns);
        let answer = store.run(request).await;
        self.close(slot, &answer);
        answer
    }

    /// Does several writes as one batch. Each is recorded as an operation of a separate client: in
    /// the record they are concurrent.
    pub async fn run_batch(&self, clients: &[u64], store: &dyn Batches, requests: &[Request]) -> Vec<Answer> {
        let call_ns = clock::now().as_nanos();
        let opened = clients.iter().zip(requests);
        let slots: Vec<usize> =
            opened.map(|(client, request)| self.open(*client, request, call_ns)).collect();
        let answers = store.run_batch(requests).await;
        for (slot, answer) in slots.into_iter().zip(&answers) {
            self.close(slot, answer);
        }
        answers
    }

    fn close(&self, slot: usize, answer: &Answer) {
        let return_ns = clock::now().as_nanos();
        let mut operations = lock(&self.shared.operations);
        let record = &mut operations[slot];
        record.return_ns = Some(return_ns);
        match answer {
            Answer::Done { output, version } => {
                record.outcome = Outcome::Ok;
                record.output = output.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                record.version = Some(*version);
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Answer::Mismatch(version) => {
                record.outcome = Outcome::Fail;
                record.version = Some(*version);
            }
            Answer::Refused => record.outcome = Outcome::Fail,
            Answer::Unknown => record.return_ns = None,
        }
    }

    /// An operation is in the record from its call on: if it is cut short, it is unknown.
    ///
    fn open(&self, client: u64, request: &Request, call_ns: u64) -> usize {
        let mut operations = lock(&self.shared.operations);
        operations.push(Operation {
            client: Client::Number(client),
            op: request.op,
            key: request.key.clone(),
            value: request.value.clone(),
            expected_version: request.expected,
            output: None,
            version: None,
            call_ns,
            return_ns: None,
            outcome: Outcome::Unknown,
        });
        operations.len() - 1
    }

    /// One client, until [`Recorder::stop`].
    pub async fn client(self, store: Box<dyn Store>, mix: Mix, seed: u64) {
        let mut random = Generator::seed_from_u64(seed);
        let think = mix.think_max.mul_f64(random.random());
        let (client, seen) = (self.new_client(), vec![0; mix.keys.len()]);
        let working = Working { recorder: self.clone(), store, mix, random, client, seen, number: 0 };
        closed_loop(|| self.is_over(), Some(think), working).await;
    }
}

/// A client of the workload.
struct Working {
    recorder: Recorder,
    store: Box<dyn Store>,
    mix: Mix,
    random: Generator,
    client: u64,
    /// The newest version seen of each key.
    seen: Vec<u64>,
    /// Operations so far.
    number: u64,
}

impl Caller for Working {
    async fn call(&mut self) -> Option<Duration> {
        let key = self.random.random_range(0..self.mix.keys.len());
        let op = pick(&mut self.random, self.mix.shares);
        self.number += 1;
        let value = match op {
            Op::Get | Op::Delete => None,
            Op::Put | Op::Append | Op::Cas => Some(format!("[{}.{}]", self.client, self.number)),
        };
        let expected = (op == Op::Cas).then_some(self.seen[key]);
        let request = Request { op, key: self.mix.keys[key].clone(), value, expected };
        match self.recorder.run(self.client, &mut *self.store, &request).await {
            Answer::Done { version, .. } => self.seen[key] = if op == Op::Delete { 0 } else { version },
            Answer::Mismatch(version) => self.seen[key] = version,
            Answer::Refused => {}
            Answer::Unknown => self.client = self.recorder.new_client(),
        }
        Some(self.mix.think_max.mul_f64(self.random.random()))
    }
}

/// A client of a closed loop.
pub trait Caller {
    /// One call. Returns the pause after it, if there is one.
    fn call(&mut self) -> impl Future<Output = Option<Duration>>;
}

/// The closed loop of one client: it has one call in flight, and begins the next one when that is
/// answered.
pub async fn closed_loop(is_over: impl Fn() -> bool, mut pause: Option<Duration>, mut caller: impl Caller) {
    loop {
        if let Some(pause) = pause {
            clock::sleep(pause).await;
        }
        if is_over() {
            break;
        }
        pause = caller.call().await;
    }
}

fn pick(random: &mut Generator, shares: [u32; 5]) -> Op {
    const OPS: [Op; 5] = [Op::Get, Op::Put, Op::Append, Op::Delete, Op::Cas];
    let mut draw = random.random_range(0..shares.iter().sum());
    for (op, share) in OPS.into_iter().zip(shares) {
        if draw < share {
            return op;
        }
        draw -= share;
    }
    Op::Get
}
