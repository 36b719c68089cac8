//! A table that was damaged is found, answers nobody, and is replaced (correctness rule 69): whole
//! replicas over memory disks, on a clock that stands still while anything can happen.

use std::collections::BTreeMap;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use raft::config::Config;
use raft::core::message::{Body, Message};
use raft::rsm::toy::{self, Cell, Command, Toy};
use raft::rsm::{ExecuteError, Parts, Replica, Role, start};
use raft::storage::memory::MemoryDisk;
use raft::transport::memory::Network;
use raft::types::{Membership, NodeId};

const SECOND: Duration = Duration::from_secs(1);
const SUM: Bytes = Bytes::from_static(b"sum");

/// Adds to the sum at one server; returns what it is then.
async fn add(server: &Replica<Toy>, number: u64) -> Result<u64, ExecuteError> {
    let outcome = server.execute(&Command::add(SUM, number), SECOND).await?;
    Ok(outcome.ok().and_then(|outcome| outcome.after).map_or(0, |cell| cell.number()))
}

struct Group {
    network: Network,
    disks: BTreeMap<NodeId, MemoryDisk>,
    servers: BTreeMap<NodeId, Replica<Toy>>,
}

impl Group {
    async fn new(size: u64) -> Self {
        let disks = (1..=size).map(|id| (NodeId(id), MemoryDisk::new())).collect();
        let mut group = Self { network: Network::default(), disks, servers: BTreeMap::new() };
        for id in (1..=size).map(NodeId) {
            group.start(id).await;
        }
        group
    }

    async fn start(&mut self, me: NodeId) {
        let (log, table) = self.disks[&me].open();
        let members = Membership::of(self.disks.keys().copied());
        let parts =
            Parts { log, table, config: Config::default(), ..Parts::in_memory(me, &members, &self.network) };
        let replica = start(parts, Toy).await.expect("the disk is in order");
        self.servers.insert(me, replica);
    }

    async fn leader(&self) -> NodeId {
        for _ in 0..2000 {
            for (id, server) in &self.servers {
                if server.query(SUM, SECOND / 10).await.is_ok() {
                    return *id;
                }
            }
            clock::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody leads");
    }

    async fn add(&self, number: u64) -> u64 {
        loop {
            if let Ok(sum) = add(&self.servers[&self.leader().await], number).await {
                return sum;
            }
        }
    }

    /// Changes the row without the server's knowledge.
    fn corrupt(&self, id: NodeId) {
        let value = Bytes::copy_from_slice(&1_000_000_u64.to_be_bytes());
        let other = |_: &Bytes| toy::row(&Cell { version: 1, value: value.clone() });
        assert!(self.disks[&id].corrupt_row(&toy::row_key(&SUM), other));
    }

    async fn until(&self, why: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..3000 {
            if holds(self) {
                return;
            }
            clock::sleep(Duration::from_millis(10)).await;
        }
        panic!("{why}: {:?}", self.servers.values().map(Replica::status).collect::<Vec<_>>());
    }

    fn rows_are(&self, expected: u64) -> bool {
        self.servers
            .values()
            .all(|server| toy::count(&**server.table(), &SUM) == expected && !server.is_table_bad())
    }
}

fn is_chunk(message: &Message) -> bool {
    matches!(message.body, Body::Chunk(_))
}

#[tokio::test(start_paused = true)]
async fn a_follower_whose_table_went_wrong_goes_on_to_acknowledge_and_gets_another_table() {
    let mut group = Group::new(3).await;
    group.add(1).await;
    let leader = group.leader().await;
    group.until("all have it", |group| group.rows_are(1)).await;
    let victim = *group.servers.keys().find(|id| **id != leader).expect("there are three");
    group.network.lose(|_, _, message| is_chunk(message));
    group.corrupt(victim);
    assert_eq!(group.add(1).await, 2);
    group.until("it is found", |group| group.servers[&victim].is_table_bad()).await;
    let status = group.servers[&victim].status();
    assert!(status.table_bad && status.alarms == 1, "{status:?}");
    assert!(status.last_alarm.is_some_and(|text| text.contains("table differs")));
    let told = group.servers[&leader].status();
    assert!(told.last_alarm.is_some_and(|text| text.contains(&format!("table of {victim} differs"))));
    // With one server more away its acknowledgements are needed.
    let third = *group.servers.keys().find(|id| ![leader, victim].contains(id)).expect("there are three");
    group.network.lose(move |_, to, message| is_chunk(message) || to == third);
    assert_eq!(add(&group.servers[&leader], 1).await, Ok(3));
    let nobody = group.servers[&victim].query(SUM, SECOND).await;
    assert!(matches!(nobody, Err(ExecuteError::NotLeader { .. })), "{nobody:?}");
    // The mark survives a crash, and nothing is applied meanwhile.
    group.servers[&victim].kill();
    group.start(victim).await;
    assert!(group.servers[&victim].status().table_bad, "known before the first message");
    let applied = group.servers[&victim].status().applied;
    assert_eq!(group.add(1).await, 4);
    assert_eq!(group.servers[&victim].status().applied, applied);
    group.network.heal();
    group.until("its table is replaced", |group| group.rows_are(4)).await;
    group.servers[&victim].kill();
    group.start(victim).await;
    assert!(!group.servers[&victim].status().table_bad, "the mark is gone with the rows");
    assert_eq!(group.add(1).await, 5);
    group.until("it goes on as before", |group| group.rows_are(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_table_went_wrong_steps_down_and_answers_nobody() {
    let group = Group::new(3).await;
    group.add(1).await;
    let leader = group.leader().await;
    group.until("all have it", |group| group.rows_are(1)).await;
    group.network.lose(|_, _, message| is_chunk(message));
    group.corrupt(leader);
    // What it says before anybody can know is wrong.
    let _ = add(&group.servers[&leader], 1).await;
    group.until("it is found", |group| group.servers[&leader].is_table_bad()).await;
    let answers = futures::join!(group.servers[&leader].query(SUM, SECOND), add(&group.servers[&leader], 1));
    assert!(matches!(answers, (Err(_), Err(_))), "{answers:?}");
    let other = group.leader().await;
    assert_ne!(other, leader);
    let sum = group.servers[&other].query(SUM, SECOND).await;
    assert_eq!(sum.map(|cell| cell.map_or(0, |cell| cell.number())), Ok(2));
    // It does not stand, however long nobody else is there.
    let others: Vec<NodeId> = group.servers.keys().copied().filter(|id| *id != leader).collect();
    group.network.lose(move |_, to, message| is_chunk(message) || others.contains(&to));
    clock::sleep(60 * SECOND).await;
    assert_eq!(group.servers[&leader].status().role, Role::Follower);
    group.network.heal();
    group.until("its table is replaced", |group| group.rows_are(2)).await;
}

#[tokio::test(start_paused = true)]
async fn tables_that_differ_one_to_one_raise_an_alarm_and_both_go_on() {
    let group = Group::new(2).await;
    group.add(1).await;
    let leader = group.leader().await;
    group.until("both have it", |group| group.rows_are(1)).await;
    let other = NodeId(3 - leader.0);
    group.corrupt(other);
    assert_eq!(group.add(1).await, 2);
    group.until("the alarm rings", |group| group.servers[&leader].status().alarms == 1).await;
    let alarm = group.servers[&leader].status().last_alarm.expect("there is one");
    assert!(alarm.contains("no majority"), "{alarm}");
    assert!(group.servers.values().all(|server| !server.is_table_bad()));
    assert_eq!(group.add(1).await, 3);
}

/// Positions divisible by 256 are compared also if the group never comes to rest.
#[tokio::test(start_paused = true)]
async fn a_difference_is_found_under_load() {
    let group = Group::new(3).await;
    group.add(1).await;
    let leader = group.leader().await;
    group.until("all have it", |group| group.rows_are(1)).await;
    let victim = *group.servers.keys().find(|id| **id != leader).expect("there are three");
    group.corrupt(victim);
    let mut sent = 0;
    while group.servers[&victim].status().alarms == 0 {
        let placed = group.servers[&leader].propose(&Command::add(SUM, 1)).await;
        assert!(placed.is_ok(), "it leads");
        sent += 1;
        assert!(sent < 2000, "nobody notices");
        if sent % 8 == 0 {
            clock::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(sent <= 600, "found after {sent} commands");
}
