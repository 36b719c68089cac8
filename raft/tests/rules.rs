//! Rules of docs/correctness.md that neither a golden script nor a random schedule would miss: who may
//! stand for election and when, partial partitions, and the credit of the applier.

mod common;

use bytes::Bytes;
use raft::config::Config;
use raft::core::message::{Body, Chunk};
use raft::core::ready::Apply;
use raft::core::role::Role;
use raft::core::{Raft, Refused};
use raft::storage::Restored;
use raft::types::{EntryId, Index, Membership, NodeId, Term};

use common::{Cluster, entry, message, small_config};

/// Rule 50. Rows of a group with other members belong to another group, from any sender.
#[test]
fn a_chunk_of_another_membership_is_refused_and_changes_nothing() {
    let members = Membership::of([1, 2, 3].map(NodeId));
    let mut raft = Raft::new(NodeId(2), members.clone(), small_config(1), Restored::default(), EntryId::ZERO);
    let rows = vec![(Bytes::from_static(b"key"), Bytes::from_static(b"value"))];
    let chunk = |membership: Membership| {
        message(7, Body::Chunk(Chunk::new(EntryId::new(7, 10), membership, None, rows.clone(), true)))
    };
    for ids in [&[1][..], &[1, 2], &[1, 2, 3, 4], &[1, 2, 4]] {
        let other = Membership::of(ids.iter().copied().map(NodeId));
        assert_eq!(raft.step(NodeId(1), chunk(other)), Err(Refused::OtherMembers));
        assert_eq!((raft.term(), raft.leader(), raft.is_staging()), (Term(0), None, false));
        let ready = raft.take_ready();
        assert!(ready.send.is_empty() && ready.save.is_none() && ready.apply.is_empty());
    }
    assert_eq!(raft.step(NodeId(1), chunk(members)), Ok(()));
    assert!(raft.is_staging());
}

/// Cuts every link but these.
fn only_links(cluster: &mut Cluster, links: &[(u64, u64)]) {
    for one in cluster.ids() {
        for other in cluster.ids() {
            if !links.contains(&(one.0, other.0)) && !links.contains(&(other.0, one.0)) {
                cluster.cut.insert((one, other));
            }
        }
    }
}

/// Rule 5. Pre-vote without check-quorum leaves an old leader in place that only one server hears;
/// check-quorum without pre-vote lets a server that is cut off depose leader after leader.
#[test]
fn a_partial_partition_ends_with_one_lasting_leader() {
    // Size, leader when it begins, links that are left, and who may lead at its end.
    type Case<'a> = (u64, u64, &'a [(u64, u64)], &'a [u64]);
    let cases: [Case<'_>; 3] = [
        // Two of three do not hear each other: the leader stays.
        (3, 1, &[(1, 3), (2, 3)], &[1]),
        // All hear only server 2, the old leader too: nobody else can lead.
        (5, 1, &[(2, 1), (2, 3), (2, 4), (2, 5)], &[2]),
        // 4, who leads, hears only 2, and 5 only 3.
        (5, 4, &[(1, 2), (1, 3), (2, 3), (4, 2), (5, 3)], &[1, 2, 3]),
    ];
    for (size, first, links, leaders) in cases {
        for seed in 0..20 {
            let mut cluster = Cluster::new(size, small_config(seed));
            cluster.elect(NodeId(first));
            let patience = cluster.config.election_ticks_max;
            only_links(&mut cluster, links);
            cluster.pass(30 * patience);
            let now = cluster.leaders();
            assert!(now.len() == 1 && leaders.contains(&now[0].0), "{links:?} seed {seed}: {now:?}");
            let (leader, term) = (now[0], cluster.raft(now[0]).term());
            let id = cluster.propose(leader, "served");
            cluster.pass(50 * patience);
            assert_eq!(cluster.leaders(), [leader], "{links:?} seed {seed}: the leader changed");
            assert_eq!(cluster.raft(leader).term(), term, "{links:?} seed {seed}: it was deposed in between");
            assert!(cluster.raft(leader).commit() >= id.index, "{links:?} seed {seed}: nothing commits");
        }
    }
}

/// Rule 3.
#[test]
fn a_server_that_is_no_voter_stands_for_nothing() {
    let members = Membership::of([1, 2].map(NodeId));
    let mut raft = Raft::new(NodeId(3), members, small_config(1), Restored::default(), EntryId::ZERO);
    for _ in 0..1000 {
        raft.tick();
        assert!(raft.take_ready().is_empty());
    }
    assert!(matches!(raft.role(), Role::Follower { leader: None }));
}

/// Rule 7: neither refused candidates nor leaders of the past keep a server from trying itself.
#[test]
fn what_is_refused_resets_no_election_timer() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, small_config(seed));
        let longest = cluster.config.election_ticks_max;
        cluster.server(NodeId(2)).disk.entries = vec![entry(1, 1, ""), entry(2, 2, "")];
        cluster.server(NodeId(2)).disk.hard_state.term.0 = 2;
        cluster.restart(NodeId(2));
        let mut ticks = 0;
        loop {
            ticks += 1;
            cluster.tick(NodeId(2));
            if matches!(cluster.raft(NodeId(2)).role(), Role::PreCandidate { .. }) {
                break;
            }
            assert!(ticks <= longest, "seed {seed}: {ticks} ticks and no attempt");
            // Each term is a newer one, and the log is shorter: no vote.
            let (term, last, prev) = (2 + u64::from(ticks), EntryId::ZERO, EntryId::new(2, 2));
            cluster.step(NodeId(1), NodeId(2), message(term, Body::Vote { last }));
            cluster.step(NodeId(1), NodeId(2), message(term, Body::PreVote { last }));
            let old = Body::Append {
                prev,
                entries: Vec::new(),
                commit: Index(0),
                round: 0,
                acked: EntryId::ZERO,
                differs: None,
            };
            cluster.step(NodeId(3), NodeId(2), message(2, old));
            cluster.effects(NodeId(2), None);
        }
        assert!(cluster.raft(NodeId(2)).hard_state().vote.is_none());
    }
}

/// Rule 8.
#[test]
fn each_attempt_draws_its_own_timeout() {
    let mut cluster = Cluster::new(3, small_config(5));
    let (shortest, longest) = (cluster.config.election_ticks_min, cluster.config.election_ticks_max);
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let mut ticks = 0;
        while cluster.pool.is_empty() {
            cluster.tick(NodeId(1));
            ticks += 1;
        }
        cluster.pool.clear();
        assert!((shortest..=longest).contains(&ticks), "{ticks}");
        drawn.insert(ticks);
    }
    assert!(drawn.len() > 5, "100 attempts drew only {drawn:?}");
}

/// Rule 8: the documented numbers, and no range so narrow that votes split forever.
#[test]
fn timers_have_their_documented_values_and_must_fit() {
    let timers = |config: &Config| {
        let ticks = [config.heartbeat_ticks, config.election_ticks_min, config.election_ticks_max];
        ticks.map(|ticks| (config.tick * ticks).as_millis())
    };
    assert_eq!(timers(&Config::default()), [100, 500, 1000]);
    assert_eq!(timers(&Config::default().with_timers(200, 600)), [200, 600, 1200]);
    assert_eq!(Config::default().validate(), Ok(()));
    let narrow = Config { election_ticks_max: 39, ..Config::default() };
    assert!(narrow.validate().unwrap_err().to_string().contains("twice the shortest"));
    let hasty = Config { election_ticks_min: 7, ..Config::default() };
    assert!(hasty.validate().unwrap_err().to_string().contains("two heartbeats"));
}

/// Rule 22b: a slow applier is not buried.
#[test]
fn the_applier_gets_what_its_credit_covers_and_the_rest_later() {
    let weight = entry(1, 1, "command").weight();
    let config = Config { apply_backlog_bytes_max: 3 * weight, ..small_config(1) };
    let longest = config.election_ticks_max;
    let alone = Membership::of([NodeId(1)]);
    let mut raft = Raft::new(NodeId(1), alone, config, Restored::default(), EntryId::ZERO);
    let turn = |raft: &mut Raft| {
        let mut handed = 0;
        loop {
            let ready = raft.take_ready();
            if ready.is_empty() {
                return handed;
            }
            let weights = ready.apply.iter().filter_map(|item| match item {
                Apply::Entry(entry) => Some(entry.weight()),
                _ => None,
            });
            handed += weights.sum::<usize>();
            raft.saved();
        }
    };
    for _ in 0..longest {
        raft.tick();
    }
    let first = turn(&mut raft);
    assert!(matches!(raft.role(), Role::Leader(_)));
    raft.applied_bytes(first);
    for _ in 0..10 {
        raft.propose(Bytes::from_static(b"command"), false).expect("a leader");
    }
    let mut sum = 0;
    while sum < 10 * weight {
        let handed = turn(&mut raft);
        assert!((weight..=3 * weight).contains(&handed), "{handed} bytes at once");
        assert_eq!(turn(&mut raft), 0, "without news from the applier there is no more");
        raft.applied_bytes(handed);
        sum += handed;
    }
}

/// The flusher does not wait for the streamer: the log may be compacted beyond a view that a chunk was read from.
#[test]
fn a_chunk_that_a_compaction_overtook_is_not_sent_and_the_stream_starts_over() {
    let (leader, lagging) = (NodeId(1), NodeId(3));
    let mut cluster = Cluster::new(3, Config { log_keep_bytes: 0, ..small_config(1) });
    cluster.elect(leader);
    let command = |cluster: &mut Cluster, text: &str| {
        cluster.propose(leader, text);
        cluster.deliver_all();
    };
    cluster.isolate(lagging);
    command(&mut cluster, "a");
    let silent = cluster.config.election_ticks_max + 2;
    cluster.pass(silent);
    cluster.compact(leader);
    assert!(cluster.raft(leader).log().marker().index.0 > 1, "what the other lacks is gone");
    cluster.cut.clear();
    cluster.instant = false;
    while !cluster.read_one_chunk(leader) {
        cluster.pass(1);
    }
    // Its view is of now. More is committed, applied and flushed, and the leader hears of that first.
    command(&mut cluster, "b");
    while cluster.apply_one(leader) {}
    cluster.compact(leader);
    cluster.overtake(leader);
    cluster.tell_events(leader);
    cluster.effects(leader, None);
    let marker = cluster.raft(leader).log().marker();
    let sent = |flying: &common::Flying| match &flying.message.body {
        Body::Chunk(chunk) => Some(chunk.snapshot),
        _ => None,
    };
    assert_eq!(cluster.pool.iter().filter_map(sent).find(|snapshot| *snapshot < marker), None);
    cluster.instant = true;
    cluster.effects(leader, None);
    cluster.pass(silent);
    let (led, followed) = (cluster.raft(leader).log().last(), cluster.raft(lagging).log().last());
    assert_eq!(led, followed);
}
