//! Disks that lose stored data: the files of a log, whole groups of which one server has such a
//! disk, and the core alone.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use base::clock;
use raft::config::Config;
use raft::core::Raft;
use raft::core::message::{Body, Message};
use raft::storage::memory::MemoryDisk;
use raft::storage::{Restored, Save};
use raft::types::{Entry, EntryId, HardState, Index, Membership, NodeId, Payload, Term};
use raft_disk::wal::steps::{Step, watch};
use raft_disk::wal::{LogOptions, judge, open_log};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sim::World;
use sim::cluster::{Cluster, Kind, Shape};
use sim::faults::{Fault, Nemesis, Plan};
use sim::invariants;
use sim::toy::ToyStore;
use sim::workload::{Recorder, Store};

use super::{judge as judge_history, mix};

/// A group of three, of which one loses saves whenever it crashes, while leaders die after their
/// commits. At the end all members have everything.
pub(crate) async fn damaged_tails(world: World) -> Result<(), String> {
    const FAULTS: &[(Fault, u32)] =
        &[(Fault::DamageTail, 45), (Fault::LoseLeader, 25), (Fault::CrashLeader, 15), (Fault::Partition, 15)];
    let quiet_max = Duration::from_millis(300);
    group(world, Plan { quiet_max, chaos_requests: false, ..Plan::of(FAULTS) }, Duration::from_secs(15)).await
}

/// A group of three, whose members are set back to an older disk one after the other.
pub(crate) async fn set_back(world: World) -> Result<(), String> {
    let plan = Plan { chaos_requests: false, ..Plan::of(&[(Fault::SetBack, 1)]) };
    group(world, plan, Duration::from_secs(20)).await
}

async fn group(world: World, plan: Plan, lasts: Duration) -> Result<(), String> {
    let cluster = Cluster::new(&world, Shape::drawn(&world));
    invariants::watch(&cluster);
    let servers = cluster.add(Kind::Toy, 3);
    cluster.ready(Duration::from_secs(10)).await?;
    let recorder = Recorder::default();
    for number in 0..4 {
        let name = format!("client {number}");
        let (calls, servers) = (cluster.client(&name), servers.clone());
        let store: Box<dyn Store> =
            Box::new(ToyStore { calls, servers, random: world.generator(&name), at: number % 3 });
        tokio::spawn(recorder.clone().client(store, mix([20, 20, 40, 5, 15]), world.derive(&name)));
    }
    let nemesis = Nemesis::new(&cluster, plan);
    let trouble = tokio::spawn(nemesis.clone().run());
    clock::sleep(lasts).await;
    nemesis.stop();
    let _ = trouble.await;
    clock::sleep(plan.down_max).await;
    nemesis.stop();
    cluster.ready(Duration::from_secs(5)).await?;
    recorder.stop();
    clock::sleep(Duration::from_secs(5)).await;
    cluster.caught_up(Duration::from_secs(5)).await?;
    judge_history(&recorder, 100)
}

/// A log in files: power cuts between a record and its sync, then a byte that goes bad.
pub(crate) fn damaged_files(seed: u64) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = root.path().join("raft");
    let options = LogOptions { file_bytes: 1500, keep_bytes: 4500, ..LogOptions::default() };
    let fail = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let mut log = open_log(&path, &options).map_err(|error| fail("open", &error))?;
    log.load().map_err(|error| fail("load", &error))?;
    let memory = MemoryDisk::new();
    let (mut model, _table) = memory.open();
    for number in 0..60 {
        let before = memory.restored();
        let save = draw(number, &before, &mut random);
        let cut = watched(&path, || futures::executor::block_on(log.save(&save)));
        futures::executor::block_on(model.save(&save));
        if let Some(cut) = cut {
            let found = judge(&cut).map_err(|error| fail("after a power cut", &error))?;
            if found.damage.is_some() || ![&before, &memory.restored()].contains(&&found.restored) {
                return Err(format!("after a power cut in save {number}: {found:?}"));
            }
        }
    }
    drop((log, model));
    let expected = memory.restored();
    let found = judge(&path).map_err(|error| fail("sound", &error))?;
    if found.damage.is_some() || found.restored != expected {
        return Err(format!("a sound log came back different: {found:?} is not {expected:?}"));
    }
    let promised = expected.promised.max(last(&expected));
    for (name, bytes) in logs(&path) {
        for _ in 0..20 {
            let mut bad = bytes.clone();
            bad[random.random_range(0..bytes.len())] ^= 1 << random.random_range(0..8);
            fs::write(&name, bad).map_err(|error| fail("write", &error))?;
            if let Ok(found) = judge(&path) {
                let Restored { hard_state, promised: kept, .. } = found.restored;
                if found.damage.is_some() && (hard_state, kept) != (expected.hard_state, promised) {
                    return Err(format!("damage took back {hard_state:?}, {kept}; it was {expected:?}"));
                }
            }
        }
        fs::write(&name, bytes).map_err(|error| fail("write", &error))?;
    }
    Ok(())
}

fn last(state: &Restored) -> EntryId {
    state.entries.last().map_or(state.marker, |entry| entry.id)
}

fn draw(number: u64, state: &Restored, random: &mut StdRng) -> Save {
    let term = Term(1 + number / 10);
    let last = last(state);
    let voted = HardState { term, vote: Some(NodeId(1 + number % 3)) };
    let mut save = Save { hard_state: number.is_multiple_of(10).then_some(voted), ..Save::default() };
    match random.random_range(0..10) {
        0 => save.promised = Some(EntryId { term, index: Index(last.index.0 + 100) }),
        1 | 2 if !state.entries.is_empty() => save.marker = Some(last),
        _ => {
            let id = EntryId { term, index: last.index.next() };
            let bytes = vec![number as u8; random.random_range(10..200)];
            save.entries = vec![Entry::new(id, Payload::Command(bytes.into()))];
        }
    }
    save
}

/// The files of the log, with their content.
fn logs(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let logs = files.filter(|file| file.extension().is_some_and(|extension| extension == "log"));
    logs.filter_map(|file| Some((file.clone(), fs::read(&file).ok()?))).collect()
}

/// Runs `save`; returns what a power cut would leave of the directory between the record and its
/// sync: nothing of the record.
fn watched(path: &Path, save: impl FnOnce()) -> Option<PathBuf> {
    let copy = path.with_file_name("cut");
    let _ = fs::remove_dir_all(&copy);
    let before = logs(path);
    let seen = Rc::new(RefCell::new(false));
    let (source, target, taken) = (path.to_owned(), copy.clone(), Rc::clone(&seen));
    watch(Some(Box::new(move |step| {
        if step == Step::Written && !taken.replace(true) {
            let _ = fs::create_dir_all(&target);
            // First the manifest: files that it does not name yet do no harm.
            let _ = fs::copy(source.join("manifest"), target.join("manifest"));
            for entry in fs::read_dir(&source).into_iter().flatten().flatten() {
                if entry.file_name() != "manifest" {
                    let _ = fs::copy(entry.path(), target.join(entry.file_name()));
                }
            }
            for (file, bytes) in &before {
                let _ = fs::write(target.join(file.file_name().unwrap_or_default()), bytes);
            }
        }
    })));
    save();
    watch(None);
    seen.take().then_some(copy)
}

/// The core alone: which candidates a server that owes votes for, and when its debt ends.
pub(crate) fn debts() -> Result<(), String> {
    let members = Membership::of([1, 2, 3].map(NodeId));
    let entry = |term, index| Entry::new(EntryId::new(term, index), Payload::Empty);
    let restored = Restored {
        hard_state: HardState { term: Term(3), vote: None },
        entries: vec![entry(1, 1)],
        promised: EntryId::new(2, 3),
        ..Restored::default()
    };
    let config = Config { quiet_start: false, ..Config::default() };
    let mut raft = Raft::new(NodeId(2), members, config, restored, EntryId::ZERO);
    let (prev, commit, acked) = (EntryId::new(1, 1), Index(0), EntryId::ZERO);
    let entries = vec![entry(1, 2), entry(1, 3), entry(1, 4)];
    let append = Body::Append { prev, entries, commit, round: 0, acked, differs: None };
    raft.step(NodeId(3), Message::new(Term(3), append)).map_err(|refused| refused.to_string())?;
    let save = raft.take_ready().save.unwrap_or_default();
    match save.promised {
        None => Ok(()),
        Some(promised) => Err(format!("a longer log of an older term ended the debt: {promised}")),
    }
}
