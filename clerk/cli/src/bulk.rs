//! Many records: `load` and `dump`.
//!
//! A load keeps many puts in flight, but puts of one shard keep the order of the file: a key that
//! appears twice ends with its last value. Shards are spread over workers, each with one put at a
//! time, so a load opens one session per shard.
//!
//! Records that are read ahead or in flight have a bound in bytes, not in number: a record holds
//! its share of the budget from when it is read until it is stored.
//!
//! Errors in a file are found before anything is written: it is read twice. A pipe can be read only
//! once, so an error there comes with the number of records that were loaded before it.
//!
//! A dump reads some shards at a time, page by page, and sorts by key. Each page is a consistent
//! read; the dump as a whole is not (correctness rule 45). Shards of groups that do not answer are
//! left out and named, and the output then has no last line: it is incomplete.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use clerk::api::config::{Params, shard_of};
use clerk::api::kv::Item;
use clerk::api::{GroupId, ShardId};
use clerk::kv::{Clerk, Error, Page};
use futures::stream::{self, StreamExt};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::admin::ranges;
use crate::args;
use crate::context::Context;
use crate::failure::{Failure, on_interrupt};
use crate::output::{Stream, json_bytes};
use crate::records::{Missing, Record, Writer, each_record};
use crate::sort::Sorter;

const WORKERS: u32 = 64;
/// Records read ahead for a worker.
const AHEAD: usize = 16;
/// Bytes of records that are read ahead or under way; a larger record goes alone.
const BUDGET_BYTES_MAX: u32 = 8 << 20;
/// The overhead of a record, besides its bytes.
const RECORD_BYTES: u64 = 256;
const PAGE_ROWS: u32 = 4096;
/// Shards read at the same time.
const SHARDS_AT_ONCE: usize = 8;

/// A record under way, with its share of the budget.
struct Line {
    record: Record,
    _share: OwnedSemaphorePermit,
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
    // Reading a pipe may take forever; it must not delay the puts.
    let (sender, lines) = mpsc::channel(WORKERS as usize);
    let (partial, runtime) = (load.partial, Handle::current());
    let budget = Arc::new(Semaphore::new(BUDGET_BYTES_MAX as usize));
    on_interrupt(
        "interrupted: a part of the records is loaded",
        "loading the file again does no harm, unless others write the same keys",
    );
    let reader = tokio::task::spawn_blocking(move || read_lines(file, partial, &runtime, &budget, &sender));
    let (records, read) = deal(lines, lanes, params, &bar).await;
    // A worker that failed closed its lane, so its failure comes first.
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|error| Failure::new("io", format!("a worker failed: {error}")))??;
    }
    bar.finish_and_clear();
    read.map_err(|failure| {
        let message = format!("{}; {records} records before that were loaded", failure.message);
        or_partial(Failure { message, ..failure })
    })?;
    let missing = reader.await.context("cannot read the file")?;
    if let Some(missing) = &missing {
        context.output.note(format!("the file is incomplete: {missing}"));
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

/// Reads the file once without loading anything, so that an incomplete file changes nothing.
async fn check(load: &args::Load) -> Result<(), Failure> {
    let (file, partial) = (open(&load.file)?.0, load.partial);
    let read = tokio::task::spawn_blocking(move || each_record(file, partial, |_| true).map(drop));
    read.await.context("cannot read the file")?.map_err(|failure| {
        let message = format!("{}; nothing was loaded", failure.message);
        or_partial(Failure { message, ..failure })
    })
}

/// The advice for an incomplete file.
fn or_partial(failure: Failure) -> Failure {
    match failure.code {
        "incomplete" => {
            failure.next("load a complete file; --partial loads the complete lines that are there")
        }
        _ => failure,
    }
}

/// Gives each record to the worker of its shard; returns how many there were, and what ended it
/// early.
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
        let Record { key, bytes, .. } = &line.record;
        let (lane, bytes) = (shard_of(key, params.shard_count).0 as usize % lanes.len(), *bytes);
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
    while let Some(Line { record, _share }) = lines.recv().await {
        let Record { line, key, value, .. } = record;
        if let Err(error) = clerk.put(key, value).await {
            let failure = Failure::from(error);
            let message = format!("line {line}: {}", failure.message);
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
    runtime: &Handle,
    budget: &Arc<Semaphore>,
    to: &mpsc::Sender<Result<Line, Failure>>,
) -> Missing {
    let each = |record: Record| {
        let weight =
            u32::try_from(record.bytes + RECORD_BYTES).unwrap_or(BUDGET_BYTES_MAX).min(BUDGET_BYTES_MAX);
        // Nobody waits for it any more if another failure was first.
        let share = runtime.block_on(async {
            tokio::select! {
                () = to.closed() => None,
                share = Arc::clone(budget).acquire_many_owned(weight) => share.ok(),
            }
        });
        share.is_some_and(|_share| to.blocking_send(Ok(Line { record, _share })).is_ok())
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
    let unread = read_all(&clerk, &bar, sort).await?;
    bar.finish_and_clear();
    let (is_json, failure) = (context.output.is_json(), in_part(&unread));
    // On a separate thread: the reader may pause forever, and Ctrl-C has to work.
    let printed = tokio::task::spawn_blocking(move || print(sorter, &unread, is_json)).await;
    printed.context("cannot print")?.context("cannot sort")?;
    failure.map_or(Ok(()), Err)
}

/// A shard of which some rows or all could not be read.
pub(crate) struct Unread {
    shard: ShardId,
    why: String,
}

/// The failure of a dump that lacks something.
pub(crate) fn in_part(unread: &[Unread]) -> Option<Failure> {
    let first = unread.first()?;
    let shards: Vec<ShardId> = unread.iter().map(|unread| unread.shard).collect();
    let message = format!("the dump is incomplete: shards {} are missing: {}", ranges(&shards), first.why);
    let next = "`clerk status` shows who is down; `load --partial` loads what was printed";
    Some(Failure::in_part("incomplete", message).next(next).answered())
}

fn print(sorter: Sorter, unread: &[Unread], is_json: bool) -> std::io::Result<()> {
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
        let missing: Vec<Value> =
            unread.iter().map(|unread| json!({"shard": unread.shard.0, "why": unread.why})).collect();
        stream.write(if separator == ",\n" { b"\n]" } else { b"{\"rows\":[]" });
        stream.write(format!(",\"missing\":{}}}\n", Value::Array(missing)).as_bytes());
    } else if unread.is_empty() {
        // Only now: output that ends before this line is an incomplete dump.
        stream.write(records.trailer().as_bytes());
    }
    stream.finish();
    Ok(())
}

/// Passes every row of every shard to `each`, in no particular order; returns the shards that it
/// could not read, ascending.
pub(crate) async fn read_all(
    clerk: &Clerk,
    bar: &ProgressBar,
    mut each: impl FnMut(Item) -> std::io::Result<()>,
) -> Result<Vec<Unread>, Failure> {
    let shards = clerk.limits().await?.shard_count;
    let silent = Silent::default();
    let pages = stream::iter((0..shards).map(ShardId)).map(|shard| Box::pin(pages(clerk, &silent, shard)));
    let mut pages = pages.flatten_unordered(SHARDS_AT_ONCE);
    let mut unread = Vec::new();
    while let Some(page) = pages.next().await {
        match page {
            Err(shard) => unread.push(shard),
            Ok(items) => {
                bar.inc(items.len() as u64);
                for item in items {
                    each(item).context("cannot sort")?;
                }
            }
        }
    }
    unread.sort_by_key(|unread| unread.shard);
    Ok(unread)
}

/// Groups that did not answer, with the reason, so that their other shards are not waited for in
/// vain. A group that answers and does not serve a shard yet is asked for the others.
type Silent = Mutex<BTreeMap<GroupId, String>>;

async fn page(clerk: &Clerk, silent: &Silent, shard: ShardId, after: Option<Bytes>) -> Result<Page, Unread> {
    let owner = || clerk.cache().current().and_then(|view| view.config.owner(shard));
    let known = || silent.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(why) = owner().and_then(|owner| known().get(&owner).cloned()) {
        return Err(Unread { shard, why });
    }
    clerk.scan(shard, after, PAGE_ROWS).await.map_err(|error| {
        let why = error.to_string();
        if let Error::Unavailable { silent: Some(group), .. } = error {
            known().insert(group, why.clone());
        }
        Unread { shard, why }
    })
}

fn pages<'a>(
    clerk: &'a Clerk,
    silent: &'a Silent,
    shard: ShardId,
) -> impl futures::Stream<Item = Result<Vec<Item>, Unread>> + 'a {
    stream::try_unfold(Some(None), move |after: Option<Option<Bytes>>| async move {
        let Some(after) = after else { return Ok(None) };
        let page = page(clerk, silent, shard, after).await?;
        let last = page.items.last().map(|item| item.key.clone());
        // An empty page that is not the last one would be asked for again forever.
        let next = (!page.done && last.is_some()).then_some(last);
        Ok(Some((page.items, next)))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;
    use std::time::Duration;

    use base::clock;
    use clerk::api::config::{AddressBook, Assignment, Config, Params, Registered, Sealed};
    use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
    use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
    use clerk::api::push::{PushReply, PushRequest, Sender};
    use clerk::api::{Address, ConfigNum, GroupId, Incarnation, ShardId};
    use clerk::connection::{CallError, Connection};
    use clerk::kv::{Clerk, Options};
    use futures::future::{BoxFuture, FutureExt};
    use indicatif::ProgressBar;
    use tokio::runtime::Handle;
    use tokio::sync::{Semaphore, mpsc};

    use super::{BUDGET_BYTES_MAX, Unread, read_all, read_lines};

    const NOT_YET: ShardId = ShardId(4);
    const SILENT: GroupId = GroupId(2);

    /// Sixteen shards of some groups. One shard is not served yet, and no server of the second group is reached.
    struct Fake {
        groups: u64,
    }

    impl Fake {
        fn owner(&self, shard: u64) -> GroupId {
            GroupId(1 + shard % self.groups)
        }

        async fn read_all(self) -> Vec<Unread> {
            let options = Options { deadline: Duration::from_secs(2), ..Options::default() };
            let clerk = Clerk::new(Arc::new(self), vec!["controller".to_owned()], options);
            read_all(&clerk, &ProgressBar::hidden(), |_| Ok(())).await.expect("controllers answer")
        }
    }

    impl Connection for Fake {
        fn kv<'a>(
            &'a self,
            to: &'a Address,
            group: GroupId,
            request: KvRequest,
            _: Duration,
        ) -> BoxFuture<'a, Result<Result<KvReply, KvRefusal>, CallError>> {
            if group == SILENT {
                let error = CallError::NotSent { address: to.clone(), why: "nobody there".to_owned() };
                return async { Err(error) }.boxed();
            }
            let answer = match request {
                KvRequest::Scan { shard: NOT_YET, config, .. } => {
                    Err(KvRefusal::NotReady { config, ask: None })
                }
                KvRequest::Scan { .. } => Ok(KvReply::Page { items: Vec::new(), done: true }),
                other => panic!("a dump does not ask for {other:?}"),
            };
            async { Ok(answer) }.boxed()
        }

        fn push<'a>(
            &'a self,
            _: &'a Address,
            _: GroupId,
            _: Sender,
            _: PushRequest,
            _: Duration,
        ) -> BoxFuture<'a, Result<Result<PushReply, KvRefusal>, CallError>> {
            panic!("clients push nothing")
        }

        fn ctrl<'a>(
            &'a self,
            to: &'a Address,
            request: CtrlRequest,
            _: Duration,
        ) -> BoxFuture<'a, Result<Result<CtrlReply, CtrlRefusal>, CallError>> {
            let params = Params { shard_count: 16, ..Params::default() };
            let groups = || (0..self.groups).map(|shard| self.owner(shard));
            let registered = |group| Registered::new(Incarnation(1), vec![format!("group {group}")]);
            let registered = groups().map(|group| (group, registered(group))).collect();
            let book = AddressBook { version: 1, key: 7, groups: registered, ..AddressBook::default() };
            let assigned = |shard| Assignment { owner: Some(self.owner(shard)), last_owner: None };
            let shards = (0..16).map(assigned).collect();
            let groups = groups().map(|group| (group, Incarnation(1))).collect();
            let config = Config { num: ConfigNum(1), shards, groups, ..Config::zero(7, params) };
            let answer = match request {
                CtrlRequest::Query(_) => Ok(Ok(CtrlReply::Config(Sealed::new(config), book))),
                _ => Err(CallError::NotSent { address: to.clone(), why: "only questions".to_owned() }),
            };
            async { answer }.boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_does_not_serve_one_shard_yet_is_asked_for_all_others() {
        let unread = Fake { groups: 1 }.read_all().await;
        assert_eq!(unread.iter().map(|unread| unread.shard).collect::<Vec<_>>(), [NOT_YET]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_group_is_waited_for_once_and_all_its_shards_are_named() {
        let started = clock::now();
        let unread = Fake { groups: 2 }.read_all().await;
        let shards: Vec<u64> = unread.iter().map(|unread| unread.shard.0.into()).collect();
        assert_eq!(shards, [1, 3, 4, 5, 7, 9, 11, 13, 15]);
        assert!(unread[0].why.contains("nobody there"), "{}", unread[0].why);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn records_under_way_share_one_budget() {
        const RECORDS: usize = 40;
        let value = "x".repeat(1 << 20);
        let text: String = (0..RECORDS).map(|number| format!("k{number}\t{value}\n")).collect();
        let budget = Arc::new(Semaphore::new(BUDGET_BYTES_MAX as usize));
        let (sender, mut lines) = mpsc::channel(RECORDS);
        let runtime = Handle::current();
        let reader = tokio::task::spawn_blocking(move || {
            read_lines(Box::new(Cursor::new(text)), false, &runtime, &budget, &sender)
        });
        let mut under_way = Vec::new();
        while let Ok(Some(line)) = tokio::time::timeout(Duration::from_millis(300), lines.recv()).await {
            under_way.push(line.expect("a record"));
        }
        assert_eq!(
            under_way.len(),
            (BUDGET_BYTES_MAX >> 20) as usize - 1,
            "nothing is stored, so no more is read"
        );
        let mut stored = under_way.len();
        drop(under_way);
        while let Some(line) = lines.recv().await {
            drop(line.expect("a record"));
            stored += 1;
        }
        assert_eq!(stored, RECORDS);
        assert_eq!(reader.await.expect("it ends"), None);
    }
}
