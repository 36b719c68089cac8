//! A replicated counter in one file: three servers in one process, in memory.
//!
//! Run it: `cargo run -p raft --example counter`
//!
//! A service is a state machine, here [`Counter`]: it says what commands do to rows. In return it
//! gets a handle. `execute` returns once a majority has the command, whichever server leads.
//! `query` reads what the last acknowledged command left. Then a leader is stopped, and nothing is
//! lost.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use raft::transport::memory::Network;
use raft::{EntryId, ExecuteError, Membership, NodeId, Parts, Read, Replica, Rows, StateMachine, start};

/// The service. All its state is one row, so it needs no code for snapshots and recovery.
struct Counter;

const KEY: &[u8] = b"count";

fn count(rows: &dyn Read) -> u64 {
    rows.get(KEY).and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?))).unwrap_or(0)
}

impl StateMachine for Counter {
    type Command = u64; // add this
    type Output = u64; // the count after it
    type Query = ();
    type Answer = u64; // the count

    fn load(&mut self, _rows: &dyn Read) {}

    fn apply(&mut self, rows: &mut dyn Rows, _id: EntryId, add: u64) -> u64 {
        let sum = count(rows).wrapping_add(add);
        rows.put(Bytes::from_static(KEY), Bytes::copy_from_slice(&sum.to_be_bytes()));
        sum
    }

    fn query(&self, rows: &dyn Read, (): ()) -> u64 {
        count(rows)
    }
}

/// Runs `call` on the present leader.
async fn on_leader<T, F: AsyncFn(&Replica<Counter>) -> Result<T, ExecuteError>>(
    servers: &BTreeMap<NodeId, Replica<Counter>>,
    call: F,
) -> T {
    loop {
        for server in servers.values() {
            if let Ok(answer) = call(server).await {
                return answer;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let second = Duration::from_secs(1);
    let members = Membership::of([1, 2, 3].map(NodeId));
    let network = Network::default();
    let mut servers = BTreeMap::new();
    for me in members.voters.iter().copied() {
        servers.insert(me, start(Parts::in_memory(me, &members, &network), Counter).await?);
    }

    for add in 1..=10 {
        // A counter that must not count twice would use sessions: see raft::rsm::sessions.
        let sum = on_leader(&servers, async |server| server.execute(&add, second).await).await;
        println!("added {add:2}, the count is {sum}");
    }

    let leader =
        on_leader(&servers, async |server| server.query((), second).await.map(|_| server.status().me)).await;
    println!("server {leader} leads; stopping it");
    if let Some(server) = servers.remove(&leader) {
        network.leave(leader);
        server.stop().await;
    }

    let sum = on_leader(&servers, async |server| server.query((), second).await).await;
    println!("the two others agree that the count is {sum}");
    assert_eq!(sum, 55);
    Ok(())
}
