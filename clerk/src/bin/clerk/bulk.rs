//! Many records: `load` and `dump`.
//!
//! A load keeps many puts under way, but puts of one shard keep the order of the file: a key that appears
//! twice ends with its last value. Shards are spread over workers, each with one put at a time, so a
//! load opens one session a shard.
//!
//! A dump reads some shards at a time, page by page, and sorts by key. Each page is a consistent read;
//! the whole is not (correctness rule 45).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
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
use crate::escape;
use crate::failure::Failure;
use crate::output::{Stream, json_bytes};
use crate::sort::Sorter;

const WORKERS: u32 = 64;
/// Records read ahead for a worker.
const AHEAD: usize = 16;
const PAGE_ROWS: u32 = 4096;
/// Shards read at the same time.
const SHARDS_AT_ONCE: usize = 8;
/// A line with the largest key and value a cluster may allow, each byte escaped, and some.
const LINE_BYTES_MAX: u64 = 80 << 20;

struct Line {
    number: u64,
    key: Bytes,
    value: Bytes,
}

pub(crate) async fn load(context: &Context, load: &args::Load) -> Result<(), Failure> {
    let clerk = context.clerk().await?;
    let params = clerk.limits().await?;
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
    let reader = std::thread::spawn(move || read_lines(file, &sender));
    let read = deal(lines, lanes, params, &bar).await;
    // A worker that failed closed its lane, so its failure comes first.
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|error| Failure::new("io", format!("a worker failed: {error}")))??;
    }
    let records = read?;
    drop(reader);
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let document = json!({"loaded": records, "seconds": seconds});
    context.output.answer(&document, || format!("loaded {records} records in {seconds:.1} s\n"));
    Ok(())
}

/// Gives each record to the worker of its shard; how many there were.
async fn deal(
    mut lines: mpsc::Receiver<Result<(Line, u64), Failure>>,
    lanes: Vec<mpsc::Sender<Line>>,
    params: Params,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let mut records = 0;
    while let Some(line) = lines.recv().await {
        let (line, bytes) = line?;
        let lane = shard_of(&line.key, params.shard_count).0 as usize % lanes.len();
        if lanes[lane].send(line).await.is_err() {
            break;
        }
        records += 1;
        bar.inc(if bar.length().is_some() { bytes } else { 1 });
        bar.set_message(format!("{records} records"));
    }
    Ok(records)
}

async fn put_all(clerk: Clerk, mut lines: mpsc::Receiver<Line>) -> Result<(), Failure> {
    while let Some(Line { number, key, value }) = lines.recv().await {
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

fn read_lines(file: Box<dyn Read + Send>, to: &mpsc::Sender<Result<(Line, u64), Failure>>) {
    let each = |number, key, value, bytes| {
        let line = Line { number, key: Bytes::from(key), value: Bytes::from(value) };
        to.blocking_send(Ok((line, bytes))).is_ok()
    };
    if let Err(failure) = each_record(file, each) {
        // Nobody waits for it any more: another failure was first.
        let _ = to.blocking_send(Err(failure));
    }
}

/// Hands each record with the number and the length of its line to `each`, until that says stop.
pub(crate) fn each_record(
    file: Box<dyn Read + Send>,
    mut each: impl FnMut(u64, Vec<u8>, Vec<u8>, u64) -> bool,
) -> Result<(), Failure> {
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let bytes = read.with_context(|| format!("cannot read line {number}"))? as u64;
        if bytes == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if bytes == LINE_BYTES_MAX {
            return Err(Failure::new("bad_input", format!("line {number}: longer than any record")));
        }
        let record = escape::read_record(&line)
            .map_err(|why| Failure::new("bad_input", format!("line {number}: {why}")))?;
        if !each(number, record.0, record.1, bytes) {
            break;
        }
    }
    Ok(())
}

pub(crate) async fn dump(context: &Context) -> Result<(), Failure> {
    let clerk = context.clerk().await?;
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
    sorter.finish(|(key, value, version)| {
        line.clear();
        if is_json {
            let row = json!({"key": json_bytes(&key), "value": json_bytes(&value), "version": version});
            line.extend_from_slice(std::mem::replace(&mut separator, ",\n").as_bytes());
            line.extend_from_slice(row.to_string().as_bytes());
        } else {
            escape::write_record(&mut line, &key, &value);
        }
        stream.write(&line);
        Ok(())
    })?;
    if is_json {
        stream.write(if separator == ",\n" { b"\n]}\n" } else { b"{\"rows\":[]}\n" });
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

#[cfg(test)]
mod tests {
    use super::each_record;

    fn records(text: &'static str) -> (Vec<String>, Option<String>) {
        let mut records = Vec::new();
        let result = each_record(Box::new(text.as_bytes()), |number, key, value, bytes| {
            let (key, value) = (String::from_utf8(key).unwrap(), String::from_utf8(value).unwrap());
            records.push(format!("{number} {key}={value} {bytes}"));
            true
        });
        (records, result.err().map(|failure| failure.message))
    }

    #[test]
    fn a_file_is_read_line_by_line_with_or_without_a_last_newline() {
        assert_eq!(records("a\t1\nb\t2").0, ["1 a=1 4", "2 b=2 3"]);
        assert_eq!(records("a\t1\r\n").0, ["1 a=1\r 5"]);
        assert_eq!(records(""), (Vec::new(), None));
    }

    #[test]
    fn a_bad_line_is_named() {
        let (records, failure) = records("a\t1\n\nb\t2\n");
        assert_eq!(records.len(), 1);
        assert!(failure.unwrap().starts_with("line 2: no tab"));
    }
}
