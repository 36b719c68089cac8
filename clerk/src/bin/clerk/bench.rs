//! `bench`: clients in a closed loop, each with one operation under way, over keys of their own run.
//!
//! Every written value and piece is unique, and keys carry the run's id, so the record of a run
//! (`--history`) can be judged by itself: its state starts empty. An operation of unknown outcome has no
//! return, and its client goes on under a new id. Ctrl-C ends the run at once; what was under way then is
//! unknown, and the record is whole.
//!
//! Left out on purpose: an open loop (arrivals that do not wait), and think times.

mod measure;
mod record;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use clerk::api::Version;
use clerk::kv::{Clerk, Error};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::measure::Measure;
use self::record::{Entry, Op, Outcome, Record};
use crate::args;
use crate::context::Context;
use crate::failure::{self, Failure};

/// After a refusal that came at once, so that a closed loop does not spin.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);

struct Run {
    clerk: Clerk,
    bench: Mix,
    /// Part of every key and value.
    id: String,
    end: Instant,
    /// Ends operations in mid-air.
    interrupted: CancellationToken,
    clients: AtomicU64,
    measure: Mutex<Measure>,
    record: Option<Record>,
}

/// What clients do.
struct Mix {
    keys: u64,
    value_bytes: usize,
    /// Of a hundred, summed up: gets, appends, conditional puts, deletes. The rest: puts.
    shares: [(Op, u32); 4],
}

impl Mix {
    fn of(bench: &args::Bench) -> Result<Self, Failure> {
        let shares = [
            (Op::Get, bench.reads),
            (Op::Append, bench.appends),
            (Op::Cas, bench.cas),
            (Op::Delete, bench.deletes),
        ];
        if shares.iter().map(|(_, share)| u64::from(*share)).sum::<u64>() > 100 {
            return Err(Failure::usage("--reads, --appends, --cas and --deletes are more than 100 together"));
        }
        Ok(Self { keys: bench.keys, value_bytes: bench.value_bytes, shares })
    }

    /// Whether clients have to remember versions.
    fn compares(&self) -> bool {
        self.shares.iter().any(|(op, share)| *op == Op::Cas && *share > 0)
    }

    fn pick(&self, random: &mut StdRng) -> Op {
        let mut draw = random.random_range(0..100);
        for (op, share) in self.shares {
            if draw < share {
                return op;
            }
            draw -= share;
        }
        Op::Put
    }
}

pub(crate) async fn bench(context: &Context, bench: &args::Bench) -> Result<(), Failure> {
    let mix = Mix::of(bench)?;
    let record = bench.history.as_deref().map(Record::create).transpose()?;
    let clerk = context.clerk().await?;
    clerk.limits().await?;
    let config_start = config_num(&clerk).await;
    let started = clock::now();
    let run = Arc::new(Run {
        clerk: clerk.clone(),
        bench: mix,
        id: format!("{:08x}", rand::random::<u32>()),
        end: started.after(bench.seconds),
        interrupted: CancellationToken::new(),
        clients: AtomicU64::new(0),
        measure: Mutex::new(Measure::new(started)),
        record,
    });
    let mut clients = JoinSet::new();
    for _ in 0..bench.clients {
        clients.spawn(client(Arc::clone(&run)));
    }
    let signalled = supervise(context, &run, clients).await?;
    if let Some(record) = &run.record {
        record.finish()?;
    }
    let config_end = config_num(&clerk).await;
    let report = run.measure().report(run.end, config_start, config_end);
    context.output.answer(&report.document(), || report.text());
    if signalled {
        return Err(failure::interrupted().answered());
    }
    match report.operations {
        0 => Err(Failure::new("unavailable", "no operation succeeded")
            .next("`clerk status` shows who is down")
            .answered()),
        _ => Ok(()),
    }
}

/// Waits until all clients have ended, and shows how they are doing; whether a signal ended them.
async fn supervise(context: &Context, run: &Run, mut clients: JoinSet<()>) -> Result<bool, Failure> {
    const SHOW: Duration = Duration::from_millis(500);
    let cannot = |error| Failure::new("io", format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let bar = context.output.spinner();
    let mut shown = (clock::now(), 0);
    loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => run.interrupted.cancel(),
            _ = terminate.recv() => run.interrupted.cancel(),
            ended = clients.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => return Err(Failure::new("io", format!("a client failed: {error}"))),
                None => break,
            },
            () = clock::sleep(SHOW.saturating_sub(shown.0.elapsed())) => {
                let (total, line) = run.measure().line();
                let rate = (total - shown.1) as f64 / shown.0.elapsed().as_secs_f64();
                let left = run.end.since(clock::now()).as_secs();
                bar.set_message(format!("{rate:.0} operations/s, {line}, {left} s left"));
                shown = (clock::now(), total);
            }
        }
    }
    bar.finish_and_clear();
    Ok(run.interrupted.is_cancelled())
}

/// The newest configuration's number, as far as anybody tells.
async fn config_num(clerk: &Clerk) -> u64 {
    const LIMIT: Duration = Duration::from_secs(2);
    let known = || clerk.cache().current().map(|view| view.config.num);
    if let Some(num) = known() {
        clerk.cache().refresh(num, clock::now().after(LIMIT)).await;
    }
    known().unwrap_or_default().0
}

/// One client, until the run is over.
async fn client(run: Arc<Run>) {
    let mut random: StdRng = rand::make_rng();
    let mut id = run.new_client();
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut number = 0_u64;
    while clock::now() < run.end && !run.interrupted.is_cancelled() {
        number += 1;
        let index = random.random_range(0..run.bench.keys);
        let op = run.bench.pick(&mut random);
        let mut entry = Entry {
            client: id,
            op,
            key: format!("{}-{index}", run.id),
            value: run.value(op, id, number),
            expected_version: (op == Op::Cas).then(|| seen.get(&index).copied().unwrap_or(0)),
            output: None,
            version: None,
            call_ns: clock::now().as_nanos(),
            return_ns: None,
            outcome: Outcome::Unknown,
        };
        let refused = run.perform(&mut entry).await;
        if let Some(version) = entry.version.filter(|_| run.bench.compares()) {
            seen.insert(index, if op == Op::Delete { 0 } else { version });
        }
        if entry.outcome == Outcome::Unknown {
            id = run.new_client();
        }
        if let Some(record) = &run.record {
            record.write(&entry);
        }
        if refused {
            clock::sleep(AFTER_REFUSAL).await;
        }
    }
}

impl Run {
    fn measure(&self) -> MutexGuard<'_, Measure> {
        self.measure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What is written: unique, and no part of anything else that is written.
    fn value(&self, op: Op, client: u64, number: u64) -> Option<String> {
        if matches!(op, Op::Get | Op::Delete) {
            return None;
        }
        let mut value = format!("[{}.{client}.{number}]", self.id);
        while value.len() < self.bench.value_bytes {
            value.push('.');
        }
        Some(value)
    }

    /// Does one operation and notes what became of it; whether it was refused.
    async fn perform(&self, entry: &mut Entry) -> bool {
        let result = tokio::select! {
            biased;
            () = self.interrupted.cancelled() => Err(Error::Unknown),
            result = self.ask(entry) => result,
        };
        let now = clock::now();
        let nanos = now.as_nanos().saturating_sub(entry.call_ns);
        let mut measure = self.measure();
        let (outcome, refused) = match result {
            Ok((output, version)) => {
                (entry.output, entry.version) = (output, Some(version));
                measure.done(entry.op, nanos, now);
                (Outcome::Ok, false)
            }
            // Done as asked: it compared.
            Err(Error::VersionMismatch { version }) => {
                entry.version = Some(version.0);
                measure.done(entry.op, nanos, now);
                (Outcome::Fail, false)
            }
            Err(Error::Unknown | Error::Maybe) => {
                measure.unknown();
                (Outcome::Unknown, false)
            }
            Err(error) => {
                measure.error(&error);
                (Outcome::Fail, true)
            }
        };
        entry.outcome = outcome;
        entry.return_ns = (outcome != Outcome::Unknown).then(|| now.as_nanos());
        refused
    }

    async fn ask(&self, entry: &Entry) -> Result<(Option<String>, u64), Error> {
        let (clerk, key) = (&self.clerk, entry.key.clone());
        let value = || entry.value.clone().unwrap_or_default();
        let version = match entry.op {
            Op::Get => {
                let got = clerk.get(key).await?;
                let output = got.value.map(|value| String::from_utf8_lossy(&value).into_owned());
                return Ok((output, got.version.0));
            }
            Op::Put => clerk.put(key, value()).await?,
            Op::Append => clerk.append(key, value()).await?,
            Op::Delete => clerk.delete(key).await?,
            Op::Cas => clerk.put_if(key, value(), Version(entry.expected_version.unwrap_or(0))).await?,
        };
        Ok((None, version.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::Mix;
    use super::record::Op;

    #[test]
    fn what_is_left_of_the_hundred_are_puts() {
        let shares = [(Op::Get, 50), (Op::Append, 0), (Op::Cas, 20), (Op::Delete, 0)];
        let mix = Mix { keys: 1, value_bytes: 1, shares };
        let mut random = StdRng::seed_from_u64(1);
        let picks: Vec<Op> = (0..10_000).map(|_| mix.pick(&mut random)).collect();
        let count = |op: Op| picks.iter().filter(|pick| **pick == op).count();
        assert!((4500..5500).contains(&count(Op::Get)));
        assert!((2500..3500).contains(&count(Op::Put)));
        assert!((1500..2500).contains(&count(Op::Cas)));
        assert_eq!(count(Op::Append) + count(Op::Delete), 0);
    }
}
