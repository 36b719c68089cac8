//! A server that lost a part of its log, knowing it or not (rules 62, 63): it keeps what it
//! promised, gets its entries again, and never helps a candidate to lead that lacks what was
//! committed with its help.

mod common;

use bytes::Bytes;
use raft::config::Config;
use raft::core::message::{Body, TableReport, Verdict};
use raft::core::role::Role;
use raft::core::{Raft, Refused};
use raft::storage::Restored;
use raft::types::{EntryId, HardState, Index, Membership, NodeId, Term};

use common::{Cluster, Seen, entry, message, small_config};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

/// A tick for everybody who is up; what was on its way before arrives.
fn pass(cluster: &mut Cluster, ticks: u32) {
    for _ in 0..ticks {
        cluster.ids().into_iter().filter(|id| cluster.is_up(*id)).collect::<Vec<_>>().into_iter().for_each(
            |id| {
                cluster.tick(id);
            },
        );
        for _ in 0..cluster.pool.len() {
            cluster.deliver(0);
        }
    }
}

/// Server 1 leads and has committed so many entries with server 2, while 3 was away.
fn committed_by_one_and_two(commands: u64, config: Config) -> Cluster {
    let mut cluster = Cluster::new(3, config);
    cluster.elect(ONE);
    cluster.isolate(THREE);
    for number in 0..commands {
        cluster.propose(ONE, &format!("c{number}"));
        cluster.deliver_all();
    }
    // The commit index travels with a heartbeat.
    pass(&mut cluster, 3);
    assert_eq!(cluster.raft(TWO).commit().0, commands + 1);
    cluster
}

fn owes(cluster: &Cluster, id: NodeId) -> Option<EntryId> {
    cluster.raft(id).owes()
}

/// The trial that lost an acknowledged write: the damaged follower and the one that was away elect each other.
#[test]
fn what_was_committed_with_a_damaged_server_is_not_lost_when_the_leader_dies() {
    for seed in 0..20 {
        let mut cluster = committed_by_one_and_two(5, small_config(seed));
        cluster.damage(TWO, 2);
        cluster.restart(TWO);
        let promised = EntryId::new(1, 6);
        assert_eq!(owes(&cluster, TWO), Some(promised));
        cluster.crash(ONE);
        cluster.cut.clear();
        let patience = cluster.config.election_ticks_max;
        pass(&mut cluster, 20 * patience);
        // Neither has all that was committed: nobody may lead, and the one that owes does not stand.
        assert_eq!(cluster.leaders(), [], "seed {seed}");
        assert!(matches!(cluster.raft(TWO).role(), Role::Follower { leader: None }));
        cluster.restart(ONE);
        pass(&mut cluster, 20 * patience);
        assert_eq!(cluster.leaders(), [ONE], "seed {seed}: only it has everything");
        for id in cluster.ids() {
            assert_eq!(cluster.raft(id).log().id_at(Index(6)), Some(promised), "seed {seed}");
            assert_eq!(owes(&cluster, id), None, "seed {seed}: {id}");
            assert_eq!(cluster.servers[&id].disk.promised, EntryId::ZERO);
        }
    }
}

/// The trial that left a follower stuck in silence: its leader believed it to be further than it was.
#[test]
fn a_damaged_follower_is_filled_again_whatever_it_lost() {
    for (commands, lost) in [(1, 1), (5, 1), (5, 3), (5, 6), (30, 25)] {
        for flushed in [false, true] {
            let mut cluster = committed_by_one_and_two(commands, small_config(3));
            if flushed {
                // The table is ahead of what is left of the log.
                cluster.server(TWO).table.flush();
            }
            cluster.damage(TWO, lost);
            cluster.restart(TWO);
            let patience = cluster.config.election_ticks_max;
            pass(&mut cluster, 2 * patience);
            assert_eq!(cluster.leaders(), [ONE], "the leader is not disturbed");
            assert_eq!(cluster.raft(TWO).log().last().index.0, commands + 1, "{lost} of {commands} lost");
            assert_eq!(owes(&cluster, TWO), None);
            // And it counts again.
            let id = cluster.propose(ONE, "more");
            cluster.deliver_all();
            assert_eq!(cluster.raft(ONE).commit(), id.index);
        }
    }
}

/// An answer of a server that owes counts for exactly what it says, even if the server agreed
/// further before.
#[test]
fn a_leader_takes_back_what_it_knew_of_a_server_that_owes() {
    let mut cluster = committed_by_one_and_two(5, small_config(1));
    let matched = |cluster: &Cluster| match cluster.raft(ONE).role() {
        Role::Leader(leader) => (leader.followers[&TWO].matched.0, leader.followers[&TWO].owes),
        _ => panic!("it leads"),
    };
    assert_eq!(matched(&cluster), (6, false));
    let reply = |verdict, owes| {
        message(
            1,
            Body::AppendReply {
                verdict,
                round: 0,
                disk_low: false,
                owes,
                table: TableReport::default(),
                room: u64::MAX,
            },
        )
    };
    // A late answer moves nothing.
    cluster.step(TWO, ONE, reply(Verdict::Matched(Index(3)), false));
    cluster.step(TWO, ONE, reply(Verdict::Conflict { at: Index(6), try_at: EntryId::new(1, 2) }, false));
    assert_eq!(matched(&cluster), (6, false));
    cluster.step(TWO, ONE, reply(Verdict::Matched(Index(3)), true));
    assert_eq!(matched(&cluster), (3, true));
    cluster.step(TWO, ONE, reply(Verdict::Matched(Index(4)), true));
    assert_eq!(matched(&cluster), (4, true));
    cluster.step(TWO, ONE, reply(Verdict::Conflict { at: Index(4), try_at: EntryId::new(1, 2) }, true));
    assert_eq!(matched(&cluster), (0, true), "of what it has nothing is known to agree");
    cluster.effects(ONE, None);
    cluster.deliver_all();
    assert_eq!(matched(&cluster), (6, false));
}

/// A copy of yesterday is put back, or the disk forgot what it had synced: the leader tells.
#[test]
fn a_server_that_was_set_back_learns_it_from_its_leader() {
    for saves in [1, 3, 5] {
        let mut cluster = committed_by_one_and_two(5, small_config(2));
        cluster.config.quiet_start = true;
        cluster.set_back(TWO, saves);
        cluster.restart(TWO);
        assert_eq!(owes(&cluster, TWO), None, "nothing shows it");
        cluster.seen.clear();
        pass(&mut cluster, 1);
        while owes(&cluster, TWO).is_none() && cluster.raft(TWO).log().last().index.0 < 6 {
            pass(&mut cluster, 1);
        }
        let promised = |seen: &Seen| match seen {
            Seen::Saved(id, save, _) if *id == TWO => save.promised,
            _ => None,
        };
        let told = cluster.seen.iter().find_map(promised);
        assert_eq!(told, Some(EntryId::new(1, 6)), "{saves} saves: it promised that, and saves so");
        let patience = cluster.config.election_ticks_max;
        pass(&mut cluster, 2 * patience);
        assert_eq!(cluster.leaders(), [ONE]);
        assert_eq!((owes(&cluster, TWO), cluster.raft(TWO).log().last().index.0), (None, 6));
    }
}

/// A server that was set back has an older vote too: during the shortest election timeout it gives
/// none, and does not stand for election.
#[test]
fn a_server_that_has_just_started_votes_for_nobody() {
    let members = Membership::of([ONE, TWO, THREE]);
    let config = Config { quiet_start: true, ..small_config(1) };
    let shortest = config.election_ticks_min;
    let last = EntryId::new(9, 99);
    let granted = |ticks: u32, body: Body| {
        let mut raft = Raft::new(TWO, members.clone(), config.clone(), Restored::default(), EntryId::ZERO);
        (0..ticks).for_each(|_| raft.tick());
        raft.take_ready();
        raft.step(THREE, message(9, body)).unwrap();
        let term = raft.term();
        let sent = raft.take_ready().send;
        let yes = sent.iter().any(|it| {
            matches!(
                it.message.body,
                Body::VoteReply { granted: true } | Body::PreVoteReply { granted: true, .. }
            )
        });
        (yes, term.0)
    };
    for ticks in 0..shortest {
        assert_eq!(granted(ticks, Body::Vote { last }), (false, 0), "after {ticks} ticks");
        assert_eq!(granted(ticks, Body::PreVote { last }), (false, 0), "after {ticks} ticks");
    }
    assert_eq!(granted(shortest, Body::Vote { last }), (true, 9));
    assert_eq!(granted(shortest, Body::PreVote { last }), (true, 0));
}

/// One server alone, damaged: it does not lead a log that lacks what it acknowledged, and says which entry is missing.
#[test]
fn a_group_of_one_that_owes_serves_nobody_and_says_what_it_lacks() {
    let mut cluster = Cluster::new(1, small_config(1));
    cluster.elect(ONE);
    for number in 0..5 {
        cluster.propose(ONE, &format!("c{number}"));
    }
    cluster.damage(ONE, 2);
    cluster.restart(ONE);
    let patience = cluster.config.election_ticks_max;
    pass(&mut cluster, 20 * patience);
    assert_eq!(cluster.leaders(), []);
    assert_eq!(owes(&cluster, ONE), Some(EntryId::new(1, 6)));
    assert!(cluster.input(ONE, |raft| raft.propose(Bytes::from_static(b"x"), false)).is_err());
}

/// All of a group lost their last save, each knows it: nobody leads. The one that comes back with everything does.
#[test]
fn a_group_that_owes_as_a_whole_waits_for_one_who_does_not() {
    let mut cluster = committed_by_one_and_two(5, small_config(4));
    for id in [ONE, TWO] {
        cluster.damage(id, 2);
        cluster.restart(id);
    }
    cluster.cut.clear();
    let patience = cluster.config.election_ticks_max;
    pass(&mut cluster, 50 * patience);
    assert_eq!(cluster.leaders(), [], "server 3 has less than the others have promised");
    assert_eq!((owes(&cluster, ONE), owes(&cluster, THREE)), (Some(EntryId::new(1, 6)), None));
}

/// Terms decide before positions, as in votes: a short log of a later term reaches a long one of an earlier.
#[test]
fn a_promise_is_compared_in_voting_order() {
    let members = Membership::of([ONE, TWO, THREE]);
    let restored = Restored {
        hard_state: HardState { term: Term(3), vote: None },
        entries: vec![entry(1, 1, "a")],
        promised: EntryId::new(2, 3),
        ..Restored::default()
    };
    let fresh = || Raft::new(TWO, members.clone(), small_config(1), restored.clone(), EntryId::ZERO);
    let votes = |last: EntryId| {
        let mut raft = fresh();
        raft.step(THREE, message(4, Body::Vote { last })).unwrap();
        let sent = raft.take_ready().send;
        sent.iter().any(|it| matches!(it.message.body, Body::VoteReply { granted: true }))
    };
    assert!(votes(EntryId::new(2, 3)) && votes(EntryId::new(3, 1)) && votes(EntryId::new(2, 4)));
    assert!(!votes(EntryId::new(1, 9)) && !votes(EntryId::new(2, 2)));
    // Its log gets as long as it was, with older entries: that is not what it promised.
    let append = |raft: &mut Raft, term, entries| {
        let (prev, commit, acked) = (EntryId::new(1, 1), Index(0), EntryId::ZERO);
        raft.step(
            THREE,
            message(term, Body::Append { prev, entries, commit, round: 0, acked, differs: None }),
        )
        .unwrap();
        raft.check();
        let save = raft.take_ready().save.unwrap_or_default();
        raft.saved();
        save.promised
    };
    let mut raft = fresh();
    assert_eq!(append(&mut raft, 3, vec![entry(1, 2, "b"), entry(1, 3, "c"), entry(1, 4, "d")]), None);
    assert_eq!(raft.owes(), Some(EntryId::new(2, 3)));
    assert_eq!(append(&mut raft, 4, vec![entry(4, 2, "e")]), Some(EntryId::ZERO));
    assert_eq!(raft.owes(), None);
}

#[test]
fn an_acknowledgement_that_cannot_be_is_refused() {
    let members = Membership::of([ONE, TWO, THREE]);
    let mut raft = Raft::new(TWO, members, small_config(1), Restored::default(), EntryId::ZERO);
    for acked in [EntryId::new(3, 1), EntryId::new(1, 1 << 62)] {
        let (prev, entries, commit) = (EntryId::ZERO, Vec::new(), Index(0));
        let append = Body::Append { prev, entries, commit, round: 0, acked, differs: None };
        let refused = raft.step(THREE, message(2, append));
        assert!(matches!(refused, Err(Refused::Impossible(_))), "{refused:?}");
        assert_eq!(raft.owes(), None);
    }
}
