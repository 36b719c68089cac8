//! Many records: `load` and `dump`.
//!
//! A load keeps many puts under way, but puts of one shard keep the order of the file: a key that appears
//! twice ends with its last value. Shards are spread over workers, each with one put at a time, so a
//! load opens one session a shard.
//!
//! What is wrong with a file is found before anything is written: it is read twice. What comes through a pipe can
//! be read only once, so what is found there is told with the number of records that were loaded before it.
//!
//! A dump reads some shards at a time, page by page, and sorts by key. Each page is a consistent read;
//! the whole is not (correctness rule 45).

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use clerk::api::ShardId;
use clerk::api::config::{Params, shard_of};
use clerk::api::kv::Item;
use clerk::kv::Clerk;
use futures::stream::{self, StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Stream, json_bytes};
use crate::records::{Missing, Record, Writer, each_record};
use crate::sort::Sorter;

const WORKERS: u32 = 64;
/// Records read ahead for a worker.
const AHEAD: usize = 16;
const PAGE_ROWS: u32 = 4096;
/// Shards read at the same time.
const SHARDS_AT_ONCE: usize = 8;

struct Line {
    number: u64,
    key: Bytes,
    value: Bytes,
    /// Of the file.
    bytes: u64,
}

pub(crate) async fn load(context: &Context, load: &args::Load) -> Result<(), Failure> {
    let clerk = context.reach().await?.clerk(context.operation_timeout());
    let params = clerk.limits().await?;
    if is_file(&load.file) {
        check(load).await?;
    }
    let (file, bytes) = open(&load.file)?;
    let bar = context.output.bar(bytes);
    let started = Instant::now();
    let mut workers = JoinSet::new();
    let lanes: Vec<mpsc::Sender<Line>> = (0..WORKERS.min(params.shard_count))
        .map(|_| {
            let (lane, lines) = mpsc::channel(AHEAD);
            workers.spawn(put_all(clerk.clone(), lines));
            lane
        })
        .collect();
    // Reading a pipe may take for ever; it must not hold up the puts.
    let (sender, lines) = mpsc::channel(WORKERS as usize);
    let partial = load.partial;
    let reader = tokio::task::spawn_blocking(move || read_lines(file, partial, &sender));
    let (records, read) = deal(lines, lanes, params, &bar).await;
    // A worker that failed closed its lane, so its failure comes first.
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|error| Failure::new("io", format!("a worker failed: {error}")))??;
    }
    bar.finish_and_clear();
    read.map_err(|failure| {
        let message = format!("{}; {records} records before that were loaded", failure.message);
        Failure { message, ..failure }
    })?;
    let missing = reader.await.context("cannot read the file")?;
    if let Some(missing) = &missing {
        context.output.note(format!("not a whole file: {missing}"));
    }
    let seconds = started.elapsed().as_secs_f64();
    let document = json!({"loaded": records, "seconds": seconds, "missing": missing});
    context.output.answer(&document, || format!("loaded {records} records in {seconds:.1} s\n"));
    Ok(())
}

/// Whether this can be read twice.
fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file())
}

/// Reads a whole file and loads nothing, so that one that is not whole changes nothing.
async fn check(load: &args::Load) -> Result<(), Failure> {
    let (file, partial) = (open(&load.file)?.0, load.partial);
    let read = tokio::task::spawn_blocking(move || each_record(file, partial, |_| true).map(drop));
    read.await.context("cannot read the file")?.map_err(|failure| {
        let message = format!("{}; nothing was loaded", failure.message);
        Failure { message, ..failure }
    })
}

/// Gives each record to the worker of its shard; how many there were, and what ended it before the end.
async fn deal(
    mut lines: mpsc::Receiver<Result<Line, Failure>>,
    lanes: Vec<mpsc::Sender<Line>>,
    params: Params,
    bar: &ProgressBar,
) -> (u64, Result<(), Failure>) {
    let mut records = 0;
    while let Some(line) = lines.recv().await {
        let line = match line {
            Ok(line) => line,
            Err(failure) => return (records, Err(failure)),
        };
        let (lane, bytes) = (shard_of(&line.key, params.shard_count).0 as usize % lanes.len(), line.bytes);
        if lanes[lane].send(line).await.is_err() {
            break;
        }
        records += 1;
        bar.inc(if bar.length().is_some() { bytes } else { 1 });
        bar.set_message(format!("{records} records"));
    }
    (records, Ok(()))
}

async fn put_all(clerk: Clerk, mut lines: mpsc::Receiver<Line>) -> Result<(), Failure> {
    while let Some(Line { number, key, value, .. }) = lines.recv().await {
        if let Err(error) = clerk.put(key, value).await {
            let failure = Failure::from(error);
            let message = format!("line {number}: {}", failure.message);
            return Err(Failure { message, ..failure }
                .next("lines before it may be loaded or not; loading the file again does no harm"));
        }
    }
    Ok(())
}

/// A file and its length; 0 if that is not known.
pub(crate) fn open(path: &Path) -> Result<(Box<dyn Read + Send>, u64), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(std::io::stdin()), 0));
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = file.metadata().map(|data| data.len()).unwrap_or(0);
    Ok((Box::new(file), bytes))
}

/// Hands the records to `to`, and what is missing at the end.
fn read_lines(
    file: Box<dyn Read + Send>,
    partial: bool,
    to: &mpsc::Sender<Result<Line, Failure>>,
) -> Missing {
    let each = |record: Record| {
        let Record { line: number, key, value, bytes } = record;
        let line = Line { number, key: Bytes::from(key), value: Bytes::from(value), bytes };
        to.blocking_send(Ok(line)).is_ok()
    };
    each_record(file, partial, each).unwrap_or_else(|failure| {
        // Nobody waits for it any more: another failure was first.
        let _ = to.blocking_send(Err(failure));
        None
    })
}

pub(crate) async fn dump(context: &Context) -> Result<(), Failure> {
    let clerk = context.reach().await?.clerk(context.operation_timeout());
    let mut sorter = Sorter::new();
    let bar = context.output.bar(0);
    let sort = |item: Item| sorter.add((item.key.to_vec(), item.value.to_vec(), item.version.0));
    read_all(&clerk, &bar, sort).await?;
    bar.finish_and_clear();
    let is_json = context.output.is_json();
    // On a thread of its own: the reader may pause for ever, and Ctrl-C has to be heard.
    let printed = tokio::task::spawn_blocking(move || print(sorter, is_json)).await;
    Ok(printed.context("cannot print")?.context("cannot sort")?)
}

fn print(sorter: Sorter, is_json: bool) -> std::io::Result<()> {
    let mut stream = Stream::new();
    let mut separator = "{\"rows\":[\n";
    let mut line = Vec::new();
    let mut records = Writer::default();
    if !is_json {
        stream.write(Writer::header().as_bytes());
    }
    sorter.finish(|(key, value, version)| {
        line.clear();
        if is_json {
            let row = json!({"key": json_bytes(&key), "value": json_bytes(&value), "version": version});
            line.extend_from_slice(std::mem::replace(&mut separator, ",\n").as_bytes());
            line.extend_from_slice(row.to_string().as_bytes());
        } else {
            records.record(&mut line, &key, &value);
        }
        stream.write(&line);
        Ok(())
    })?;
    if is_json {
        stream.write(if separator == ",\n" { b"\n]}\n" } else { b"{\"rows\":[]}\n" });
    } else {
        // Only now: what ends before here is not a whole dump.
        stream.write(records.trailer().as_bytes());
    }
    stream.finish();
    Ok(())
}

/// Hands every row of every shard to `each`, in no particular order.
pub(crate) async fn read_all(
    clerk: &Clerk,
    bar: &ProgressBar,
    mut each: impl FnMut(Item) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let shards = clerk.limits().await?.shard_count;
    let pages = stream::iter((0..shards).map(ShardId)).map(|shard| Box::pin(pages(clerk, shard)));
    let mut pages = pages.flatten_unordered(SHARDS_AT_ONCE);
    while let Some(page) = pages.try_next().await? {
        bar.inc(page.len() as u64);
        for item in page {
            each(item).context("cannot sort")?;
        }
    }
    Ok(())
}

fn pages(clerk: &Clerk, shard: ShardId) -> impl futures::Stream<Item = Result<Vec<Item>, Failure>> + '_ {
    stream::try_unfold(Some(None), move |after: Option<Option<Bytes>>| async move {
        let Some(after) = after else { return Ok(None) };
        let page = clerk.scan(shard, after.clone(), PAGE_ROWS).await?;
        let last = page.items.last().map(|item| item.key.clone());
        // An empty page that is not the last one would be asked for again for ever.
        let next = (!page.done && last.is_some()).then_some(last);
        Ok(Some((page.items, next)))
    })
}
