//! How a replica starts: its parts, the rule that log and table fit, and its tasks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::applier::{Applier, Done, respond};
use super::channels::Counters;
use super::chores::{Flusher, Streamer};
use super::compaction::Compaction;
use super::driver::Driver;
use super::held::Held;
use super::machine::StateMachine;
use super::reader::Reader;
use super::replica::{Replica, Shared};
use super::saved::Saved;
use super::saves::Saves;
use super::status::{Leadership, Status};
use super::task::{Task, Threads};
use crate::config::{Config, InvalidConfig};
use crate::core::Raft;
use crate::storage::memory::MemoryDisk;
use crate::storage::{self, Log, LogThread, LogWriter, OpenError, Restored, Save, Table};
use crate::transport::memory::Network;
use crate::transport::{Mailbox, Transport};
use crate::types::{EntryId, Membership, NodeId};

/// What a replica is made of.
pub struct Parts {
    /// This server.
    pub me: NodeId,
    /// The group.
    pub membership: Membership,
    /// Its settings.
    pub config: Config,
    /// Its log.
    pub log: Box<dyn Log>,
    /// Its table.
    pub table: Arc<dyn Table>,
    /// Its transport to the others.
    pub transport: Arc<dyn Transport>,
    /// Messages from them.
    pub mailbox: Mailbox,
    /// Where its tasks run.
    pub threads: Threads,
    /// Whether the disk's free bytes are below the reserve: refuse operations that need space
    /// (correctness rule 35).
    pub disk_low: watch::Receiver<bool>,
}

impl Parts {
    /// Parts for an example or a test: everything in memory, on the caller's runtime, with the
    /// default settings. Change what is to be different:
    /// `Parts { config, ..Parts::in_memory(me, &members, &network) }`.
    pub fn in_memory(me: NodeId, membership: &Membership, network: &Network) -> Self {
        let (transport, mailbox) = network.join(me);
        let (log, table) = MemoryDisk::new().open();
        let (_never, disk_low) = watch::channel(false);
        let config = Config { seed: me.0, ..Config::default() };
        let (membership, threads) = (membership.clone(), Threads::Shared);
        Self { me, membership, config, log, table, transport, mailbox, threads, disk_low }
    }
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The stores do not fit each other, or cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// The start rule (docs/storage.md): log and table must fit. Returns what the log must save first,
/// if anything.
///
/// # Errors
/// [`OpenError::Corrupt`] when they do not fit.
pub fn start_rule(
    restored: &mut Restored,
    applied: EntryId,
    installed: Option<EntryId>,
) -> Result<Option<Save>, OpenError> {
    let marker = restored.marker;
    let at = applied.index.0.checked_sub(marker.index.0);
    let term_there = match at {
        None => None,
        Some(0) => Some(marker.term),
        Some(position) => usize::try_from(position - 1)
            .ok()
            .and_then(|position| restored.entries.get(position))
            .map(|entry| entry.id.term),
    };
    if term_there == Some(applied.term) {
        return Ok(None);
    }
    let last = restored.entries.last().map_or(marker, |entry| entry.id);
    // The log was damaged, and the table is ahead of what is left of it (rule 62).
    let is_ahead = restored.promised > last && applied.index > marker.index;
    if installed == Some(applied) || is_ahead {
        // Or the process ended between the switch and the save that drops the log: drop it now.
        let truncate_from = Some(marker.index.next());
        restored.marker = applied;
        restored.entries.clear();
        return Ok(Some(Save { truncate_from, marker: Some(applied), ..Save::default() }));
    }
    Err(OpenError::Corrupt {
        path: "log and table".to_owned(),
        what: format!("the table was applied up to {applied}, but the log holds {marker} to {last}"),
    })
}

/// For the status: files that this server does not need are damaged.
fn unreadable(files: usize) -> Option<Arc<str>> {
    let text = format!("{files} log files, kept for lagging members, were damaged and are removed");
    (files > 0).then(|| text.into())
}

/// Starts a replica of `machine`.
///
/// # Errors
/// [`StartError`], before anything runs.
#[expect(clippy::too_many_lines, reason = "wiring: each queue and each task is named once")]
pub async fn start<S: StateMachine>(parts: Parts, machine: S) -> Result<Replica<S>, StartError> {
    let Parts { me, membership, config, mut log, table, transport, mailbox, threads, disk_low } = parts;
    config.validate()?;
    let mut restored = log.load()?;
    let applied = storage::applied(&*table);
    if let Some(save) = start_rule(&mut restored, applied.id, table.installed())? {
        log.save(&save).await;
    }
    let kept = log.kept();
    let table_bytes = table.bytes();
    kept.set_table_bytes(table_bytes);
    let last_alarm = unreadable(log.unreadable_files());
    let log: Box<dyn LogWriter> = match threads {
        Threads::Own => Box::new(LogThread::start(log)),
        Threads::Shared => log,
    };
    let mut raft = Raft::new(me, membership.clone(), config.clone(), restored, applied.id);
    let is_bad = table.is_bad() && !base::mutant!("bad-table-forgotten");
    if is_bad {
        raft.start_with_bad_table();
    }
    let table_bad = Arc::new(AtomicBool::new(is_bad));
    let (status_sender, status) = watch::channel(Status {
        syncs: log.syncs(),
        last_alarm: last_alarm.clone(),
        ..Status::of(&raft, &config, applied)
    });
    let status_sender = Arc::new(status_sender);
    let (leadership_sender, leadership) = watch::channel(Leadership::of(&raft));
    let (requests, request_queue) = mpsc::channel(config.requests_max);
    let (event_sender, events) = mpsc::unbounded_channel();
    let (items, queue) = mpsc::unbounded_channel();
    let (responses, turns) = mpsc::unbounded_channel();
    let (chores, chore_queue) = mpsc::unbounded_channel();
    let (reads, read_queue) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let ticked = base::clock::now().as_nanos().into();
    let counters = Arc::new(Counters { ticked, ..Counters::default() });
    // Ticks of the replicas of a group must not beat in step.
    let mut random = StdRng::seed_from_u64(config.seed ^ me.0);
    let phase = config.tick.mul_f64(random.random());
    let compaction = Compaction::next(0, &config, &mut random);
    let flusher = Flusher {
        table: Arc::clone(&table),
        chores: chore_queue,
        events: event_sender.clone(),
        stop: stop.clone(),
    };
    let streamer = Streamer {
        table: Arc::clone(&table),
        kept: Arc::clone(&kept),
        membership,
        config: config.clone(),
        orders: read_queue,
        events: event_sender.clone(),
        stop: stop.clone(),
    };
    let applier = Applier {
        machine,
        table: Arc::clone(&table),
        queue,
        events: event_sender,
        responses,
        status: Arc::clone(&status_sender),
        stop: stop.clone(),
        applied,
        is_bad,
        table_bad: Arc::clone(&table_bad),
        staging: None,
        done: Done::new(&config),
        waiters: VecDeque::new(),
        asked: BTreeMap::new(),
        confirmed: VecDeque::new(),
        agreed: base::clock::now(),
    };
    let driver = Driver {
        raft,
        held: Held::new(config.held_bytes_max),
        saves: Saves::default(),
        table_bytes,
        config,
        log,
        kept: Arc::clone(&kept),
        transport,
        mailbox,
        mailbox_open: true,
        requests: request_queue,
        events,
        applier: items,
        handing: Vec::new(),
        marked: Saved::default(),
        chores,
        reads,
        disk_low,
        status: status_sender,
        leadership: leadership_sender,
        counters: Arc::clone(&counters),
        stop: stop.clone(),
        next_read: 0,
        compaction,
        random,
        last_alarm,
        table_bad: Arc::clone(&table_bad),
        rested: applied,
        is_checked: threads == Threads::Shared,
    };
    let tasks = vec![
        Task::Spawned(tokio::spawn(driver.run(phase).in_current_span())),
        Task::Spawned(tokio::spawn(respond(turns))),
        Task::start(threads, "raft-applier", || (), applier.run()),
        Task::start(threads, "raft-flusher", storage::stand_back, flusher.run()),
        Task::start(threads, "raft-streamer", || (), streamer.run()),
    ];
    Ok(Replica {
        shared: Arc::new(Shared {
            requests,
            status,
            leadership,
            reader: Reader::new(Arc::clone(&table), threads),
            table,
            table_bad,
            counters,
            kept,
            stop,
            tasks: Mutex::new(tasks),
        }),
    })
}
