//! The answers to callers that wait for a command, a read or a start (rules 22b, 23, 27, 28, 31):
//! whole replicas over memory disks, on a clock that stands still while anything can happen.

use std::collections::BTreeMap;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use raft::config::Config;
use raft::core::message::{Body, Chunk, Message};
use raft::rsm::observe::{Observation, observe};
use raft::rsm::toy::{Cell, Command, Toy};
use raft::rsm::{ExecuteError, Parts, Replica, Role, StartError, StateMachine, start};
use raft::storage::memory::MemoryDisk;
use raft::storage::{APPLIED_KEY, Applied, Change, OpenError, Save};
use raft::transport::memory::Network;
use raft::types::{Entry, EntryId, HardState, Index, Membership, NodeId, Payload, Term};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

const KEY: Bytes = Bytes::from_static(b"last");

/// Sets the last number.
fn set(number: u64) -> Command {
    Command::put(KEY, number.to_be_bytes().to_vec())
}

/// The last number; 0 if none was set.
fn last(cell: Option<Cell>) -> u64 {
    cell.map_or(0, |cell| cell.number())
}

/// Sets the last number; returns the one before it.
async fn replace(server: &Replica<Toy>, number: u64) -> u64 {
    let done = server.execute(&set(number), SECOND).await.expect("it leads");
    last(done.expect("no version was expected").before)
}

/// Cuts the servers `alone` off from all others.
fn cut(network: &Network, alone: &[NodeId]) {
    let alone = alone.to_vec();
    network.lose(move |from, to, _| alone.contains(&from) || alone.contains(&to));
}

async fn begin_with<S: StateMachine>(
    me: u64,
    size: u64,
    disk: &MemoryDisk,
    config: Config,
    network: &Network,
    machine: S,
) -> Result<Replica<S>, StartError> {
    let (log, table) = disk.open();
    let members = Membership::of((1..=size).map(NodeId));
    let parts = Parts { config, log, table, ..Parts::in_memory(NodeId(me), &members, network) };
    start(parts, machine).await
}

async fn begin(
    me: u64,
    size: u64,
    disk: &MemoryDisk,
    config: Config,
    network: &Network,
) -> Result<Replica<Toy>, StartError> {
    begin_with(me, size, disk, config, network, Toy).await
}

async fn group(size: u64, config: Config) -> (BTreeMap<NodeId, Replica<Toy>>, Network) {
    let network = Network::default();
    let mut servers = BTreeMap::new();
    for me in 1..=size {
        let replica = begin(me, size, &MemoryDisk::new(), config.clone(), &network).await;
        servers.insert(NodeId(me), replica.expect("an empty disk is in order"));
    }
    (servers, network)
}

/// Waits for a leader among `servers` that has committed an entry of its term.
async fn leader(servers: &BTreeMap<NodeId, Replica<Toy>>) -> NodeId {
    for _ in 0..1000 {
        for (id, server) in servers {
            if server.query(KEY, SECOND).await.is_ok() {
                return *id;
            }
        }
        clock::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody leads");
}

#[tokio::test(start_paused = true)]
async fn stepping_down_answers_nobody_and_a_newer_term_answers_unknown() {
    let (servers, network) = group(3, Config::default()).await;
    let old = leader(&servers).await;
    let server = servers[&old].clone();
    cut(&network, &[old]);
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.execute(&set(7), HOUR).await }
    });
    clock::sleep(10 * SECOND).await;
    assert_ne!(server.status().role, Role::Leader, "check-quorum ended its leadership");
    assert!(!waiting.is_finished(), "it may still commit: nobody can tell yet");
    // The others went on, over the place that the command had.
    let others: BTreeMap<_, _> =
        servers.iter().filter(|(id, _)| **id != old).map(|(id, it)| (*id, it.clone())).collect();
    let new = leader(&others).await;
    assert_eq!(replace(&others[&new], 8).await, 0);
    network.heal();
    let verdict = clock::timeout(10 * SECOND, waiting).await.expect("not only at its deadline");
    assert_eq!(verdict.expect("no panic"), Err(ExecuteError::Unknown));
    let now = leader(&servers).await;
    assert_eq!(
        servers[&now].query(KEY, SECOND).await.map(last),
        Ok(8),
        "the command was lost, as it turned out"
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_without_majority_is_unknown_at_its_deadline_and_at_the_end() {
    let (servers, network) = group(3, Config::default()).await;
    let id = leader(&servers).await;
    let server = servers[&id].clone();
    cut(&network, &[id]);
    let asked = clock::now();
    let (one, two) = (set(1), set(2));
    let (first, second) = (server.execute(&one, SECOND / 4), server.execute(&two, HOUR));
    let end = async {
        clock::sleep(SECOND / 2).await;
        server.stop().await;
    };
    let (first, second, ()) = futures::join!(first, second, end);
    assert_eq!((first, second), (Err(ExecuteError::Unknown), Err(ExecuteError::Unknown)));
    assert!(asked.elapsed() < SECOND, "nobody waits longer than it has to");
    assert_eq!(server.execute(&set(3), SECOND).await, Err(ExecuteError::NotLeader { hint: None }));
}

#[tokio::test(start_paused = true)]
async fn a_read_without_majority_ends_with_its_deadline_or_with_the_leadership() {
    let (servers, network) = group(3, Config::default()).await;
    let id = leader(&servers).await;
    let server = servers[&id].clone();
    cut(&network, &[id]);
    let (short, long) = futures::join!(server.query(KEY, SECOND / 10), server.query(KEY, HOUR));
    assert_eq!(short, Err(ExecuteError::Unknown));
    assert_eq!(long, Err(ExecuteError::NotLeader { hint: None }), "the caller is to look elsewhere");
}

#[tokio::test(start_paused = true)]
async fn a_read_sees_what_was_acknowledged_before_it_on_any_leader() {
    let (servers, network) = group(3, Config::default()).await;
    for round in 1..=10 {
        let id = leader(&servers).await;
        assert_eq!(replace(&servers[&id], round).await, round - 1);
        cut(&network, &[id]);
        let others: BTreeMap<_, _> =
            servers.iter().filter(|(other, _)| **other != id).map(|(id, it)| (*id, it.clone())).collect();
        let next = leader(&others).await;
        assert_eq!(others[&next].query(KEY, SECOND).await.map(last), Ok(round));
        assert!(servers[&id].query(KEY, SECOND / 10).await.is_err(), "who leads no more confirms nothing");
        network.heal();
    }
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_queue_are_busy_at_once() {
    let (servers, _network) = group(1, Config { requests_max: 2, ..Config::default() }).await;
    let server = servers[&leader(&servers).await].clone();
    let calls = (0..5).map(|number| async move { (number, number) }).map(|call| {
        let server = server.clone();
        async move { server.execute(&set(call.await.0), SECOND).await }
    });
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| **answer == Err(ExecuteError::Busy)).count(), 3);
}

/// A disk whose log holds entries of `terms` after `marker`, and whose table was applied up to
/// `applied`.
async fn disk(marker: EntryId, terms: &[u64], applied: EntryId, installed: bool) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut log, table) = disk.open();
    let first = marker.index.0 + 1;
    let entries = terms
        .iter()
        .zip(first..)
        .map(|(term, index)| Entry::new(EntryId::new(*term, index), Payload::Empty))
        .collect();
    let hard_state = Some(HardState { term: Term(9), vote: None });
    let marker = (marker != EntryId::ZERO).then_some(marker);
    if marker.is_some() {
        log.save(&Save { marker, ..Save::default() }).await;
    }
    log.save(&Save { hard_state, entries, ..Save::default() }).await;
    let row = base::codec::encode(&Applied { id: applied, hash: 0 });
    let key = Bytes::from_static(APPLIED_KEY);
    if installed {
        table.stage_start();
        table.stage(vec![(key, row)]);
        table.switch(applied).await;
    } else if applied != EntryId::ZERO {
        table.write(vec![Change::Put(key, row)]);
        table.flush().await;
    }
    disk
}

#[tokio::test(start_paused = true)]
async fn a_replica_starts_only_where_log_and_table_fit() {
    let at = EntryId::new;
    let none = EntryId::ZERO;
    // Marker, terms after it, applied, whether a snapshot made the table; and whether that fits.
    let cases: [(EntryId, &[u64], EntryId, bool, bool); 9] = [
        (none, &[], none, false, true),
        (none, &[1, 1, 2], at(1, 2), false, true),
        (at(1, 2), &[2, 2], at(1, 2), false, true),
        (at(1, 2), &[2, 2], at(2, 4), false, true),
        // Switched to a snapshot, and killed before the log was dropped.
        (none, &[1, 1, 2], at(3, 7), true, true),
        // A table older than the log's first entry, newer than its last one, of another term, and one
        // whose log is gone.
        (at(1, 2), &[2, 2], at(1, 1), false, false),
        (none, &[1, 1, 2], at(2, 4), false, false),
        (none, &[1, 1, 2], at(2, 2), false, false),
        (none, &[], at(1, 1), false, false),
    ];
    for (marker, terms, applied, installed, fits) in cases {
        let disk = disk(marker, terms, applied, installed).await;
        let started = begin(1, 3, &disk, Config::default(), &Network::default()).await;
        let what = format!("log {marker} {terms:?}, table {applied}, installed {installed}");
        match started {
            Ok(replica) => {
                assert!(fits, "{what}");
                assert_eq!(replica.status().applied.id, applied, "{what}");
                if installed {
                    assert_eq!(
                        (disk.restored().marker, disk.restored().entries.len()),
                        (applied, 0),
                        "{what}"
                    );
                }
            }
            Err(StartError::Open(OpenError::Corrupt { what: why, .. })) => {
                assert!(!fits, "{what}: {why}");
                assert!(why.contains(&applied.to_string()), "{what}: {why}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_whose_rows_do_not_name_it_is_refused_and_the_replica_goes_on() {
    let network = Network::default();
    let server = begin(1, 3, &MemoryDisk::new(), Config::default(), &network).await.expect("an empty disk");
    let (other, _) = network.join(NodeId(2));
    let of_leader = |body| Message::new(Term(5), body);
    let row = |id| {
        let applied = Applied { id, hash: 0 };
        (Bytes::from_static(APPLIED_KEY), base::codec::encode(&applied))
    };
    for rows in
        [Vec::new(), vec![row(EntryId::new(5, 8))], vec![(Bytes::from_static(APPLIED_KEY), Bytes::new())]]
    {
        let snapshot = EntryId::new(5, 9);
        let membership = Membership::of((1..=3).map(NodeId));
        let chunk = Chunk::new(snapshot, membership, None, rows, true);
        other.send(NodeId(1), of_leader(Body::Chunk(chunk)));
        clock::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.status().applied.id, EntryId::ZERO, "nothing was installed");
    }
    let entries = vec![Entry::new(EntryId::new(5, 1), Payload::Empty)];
    let (prev, commit, acked) = (EntryId::ZERO, Index(1), EntryId::ZERO);
    let append = Body::Append { prev, entries, commit, round: 1, acked, differs: None };
    other.send(NodeId(1), of_leader(append));
    clock::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.status().applied.id, EntryId::new(5, 1), "the applier is alive");
}

#[tokio::test(start_paused = true)]
async fn an_observer_goes_on_at_exactly_the_next_index_after_a_restart() {
    let network = Network::default();
    let disk = MemoryDisk::new();
    let mut next = Index(1);
    for life in 0..3_u64 {
        let (machine, mut stream) = observe(Toy, 64);
        let server = begin_with(1, 1, &disk, Config::default(), &network, machine).await.expect("in order");
        while server.query(KEY, SECOND).await.is_err() {
            clock::sleep(Duration::from_millis(10)).await;
        }
        for number in 0..5 {
            let done = server.execute(&set(10 * life + number), SECOND).await;
            assert!(done.expect("a single server leads").is_ok());
        }
        let Some(Observation::Restored(at)) = stream.recv().await else {
            panic!("the stream begins with the rows")
        };
        assert!(at.index < next, "nothing that was not applied before is skipped");
        let mut last = at.index;
        for _ in 0..(next.0 - 1 - at.index.0) + 6 {
            match stream.try_recv() {
                Ok(Observation::Applied(id, _)) => {
                    // Between two commands lies at most the empty entry of a new term.
                    assert!(id.index > last && id.index.0 <= last.0 + 2, "{} follows {last}", id.index);
                    last = id.index;
                }
                Ok(Observation::Restored(_)) => panic!("rows are replaced only by a snapshot"),
                Err(_) => break,
            }
        }
        assert_eq!(last, server.status().applied.id.index, "everything applied was told");
        next = last.next();
        if life == 1 {
            server.table().flush().await;
        }
        server.stop().await;
    }
}
