//! Random schedules over small clusters of pure cores: everything that a network, a disk, an
//! applier and a power supply may do, in any order. After every step the properties of Figure 3 and
//! the promises of reads are checked. Then everything heals, and progress is required.
//!
//! `SEEDS=n` runs n schedules, `SEED=x` runs the one of that seed.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use raft::ExecuteError;
use raft::config::Config;
use raft::core::Raft;
use raft::core::ready::ReadId;
use raft::types::{EntryId, NodeId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use common::oracle::{Oracle, Totals};
use common::{Cluster, Crash, small_config};

const STEPS: u32 = 6_000;

struct Run {
    random: StdRng,
    cluster: Cluster,
    oracle: Oracle,
    commands: u64,
    reads: u64,
    /// How likely, in a thousand steps, faults are in this run.
    losses: u32,
    doubles: u32,
    crashes: u32,
    cuts: u32,
    /// The server whose log loses its last saves now and then when it crashes, in runs that have one.
    frail: Option<NodeId>,
    corruptions: u32,
    /// How fast time passes beside messages.
    haste: u32,
    /// How likely the next message is one of the oldest.
    order: f64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let size = if random.random_bool(0.5) { 3 } else { 5 };
        let entry_bytes = 60;
        let config = Config {
            append_bytes_max: entry_bytes * random.random_range(1..6),
            in_flight_messages_max: random.random_range(1..5),
            in_flight_bytes_max: entry_bytes * random.random_range(2..20),
            uncommitted_bytes_max: entry_bytes * random.random_range(5..40),
            unapplied_bytes_max: entry_bytes * random.random_range(1..20),
            pending_reads_max: random.random_range(2..20),
            apply_backlog_bytes_max: entry_bytes * random.random_range(1..20),
            log_keep_bytes: entry_bytes * random.random_range(0..5),
            log_bytes_max: entry_bytes * 6,
            log_bytes_hard_max: entry_bytes * random.random_range(7..30),
            quiet_start: random.random_bool(0.3),
            ..small_config(seed)
        };
        // In some runs elections never end: timeouts are shorter than most answers take.
        let storm = random.random_bool(0.4);
        let config = if storm {
            Config { heartbeat_ticks: 1, election_ticks_min: 2, election_ticks_max: 4, ..config }
        } else {
            config
        };
        let mut cluster = Cluster::new(size, config);
        cluster.instant = false;
        cluster.chunk_rows = [1, 2, 5, 20][random.random_range(0..4)];
        cluster.keep_entries = [0, 5, 30, 1000][random.random_range(0..4)];
        let mood = |random: &mut StdRng, most: u32| {
            if random.random_bool(0.3) { 0 } else { random.random_range(0..most) }
        };
        Self {
            losses: mood(&mut random, 200),
            doubles: mood(&mut random, 150),
            crashes: mood(&mut random, 40),
            cuts: mood(&mut random, 20),
            frail: random.random_bool(0.6).then(|| NodeId(random.random_range(1..=size))),
            corruptions: mood(&mut random, 4),
            haste: random.random_range(6..30),
            order: random.random_range(0.2..1.0),
            random,
            cluster,
            oracle: Oracle::default(),
            commands: 0,
            reads: 0,
        }
    }

    /// A server that takes inputs, if the one drawn does; leaders are drawn more often for clients.
    fn draw(&mut self, for_client: bool) -> Option<NodeId> {
        let leaders = self.cluster.leaders();
        let ids = if for_client && !leaders.is_empty() && self.random.random_bool(0.9) {
            leaders
        } else {
            self.cluster.ids()
        };
        let id = ids[self.random.random_range(0..ids.len())];
        self.cluster.is_free(id).then_some(id)
    }

    fn step(&mut self) {
        let mut fault = self.random.random_range(0..1000);
        for (likely, happens) in [
            (self.losses, Self::lose as fn(&mut Self)),
            (self.doubles, Self::double),
            (self.crashes, Self::crash_or_restart),
            (self.cuts, Self::cut_or_heal),
            (self.corruptions, Self::corrupt_table),
        ] {
            if fault < likely {
                return happens(self);
            }
            fault -= likely;
        }
        let acted = match self.random.random_range(0..100) {
            drawn @ 0..60 if drawn < self.haste => {
                self.draw(false).inspect(|id| self.cluster.input_only(*id, Raft::tick))
            }
            0..60 => self.deliver(),
            60..72 => self.propose(),
            72..77 => self.read(),
            77..79 => self.draw(false).inspect(|id| {
                self.cluster.compact(*id);
                if self.random.random_bool(0.2) {
                    self.cluster.overtake(*id);
                }
            }),
            79..80 => self.draw(false).inspect(|id| self.toggle_disk(*id)),
            80..90 => {
                let id = self.draw(false);
                for _ in 0..self.random.random_range(1..8) {
                    id.map(|id| self.cluster.apply_one(id));
                }
                None
            }
            90..94 => self.draw(false).inspect(|id| {
                self.cluster.read_one_run(*id);
                self.cluster.read_one_chunk(*id);
            }),
            94..99 => self.draw(false).inspect(|id| {
                self.cluster.tell_events(*id);
                self.tell_hash(*id);
            }),
            _ => self.draw(false).inspect(|id| self.cluster.drop_views(*id)),
        };
        self.oracle.watch(&mut self.cluster);
        // A round may have one input or many before its effects, and a crash between any two of them.
        if let Some(id) = acted
            && self.random.random_bool(0.7)
        {
            let crash = (self.random.random_range(0..3000) < self.crashes).then(|| {
                [Crash::BeforeSave, Crash::AfterSave, Crash::AfterSend][self.random.random_range(0..3)]
            });
            self.cluster.effects(id, crash);
        }
    }

    fn deliver(&mut self) -> Option<NodeId> {
        let waiting = self.cluster.pool.len();
        if waiting == 0 {
            return None;
        }
        // Mostly in order, sometimes any.
        let at = if self.random.random_bool(self.order) {
            self.random.random_range(0..waiting.min(4))
        } else {
            self.random.random_range(0..waiting)
        };
        let to = self.cluster.deliver_only(at);
        self.cluster.is_free(to).then_some(to)
    }

    fn propose(&mut self) -> Option<NodeId> {
        let id = self.draw(true)?;
        self.commands += 1;
        let command = Bytes::from(format!("c{}", self.commands));
        let freeing = self.random.random_bool(0.1);
        let _ = self.cluster.input_only(id, |raft| raft.propose(command, freeing));
        Some(id)
    }

    fn read(&mut self) -> Option<NodeId> {
        let id = self.draw(true)?;
        self.reads += 1;
        let read = ReadId(self.reads);
        if self.cluster.input_only(id, |raft| raft.read(read)).is_ok() {
            self.oracle.asked(&self.cluster, id, read);
        }
        Some(id)
    }

    fn toggle_disk(&mut self, id: NodeId) {
        let low = self.random.random_bool(0.1);
        self.cluster.input_only(id, |raft| raft.set_disk_low(low));
    }

    fn double(&mut self) {
        let waiting = self.cluster.pool.len();
        if (1..300).contains(&waiting) {
            let again = self.cluster.pool[self.random.random_range(0..waiting)].clone();
            let at = self.random.random_range(0..=waiting);
            self.cluster.pool.insert(at, again);
        }
    }

    fn lose(&mut self) {
        let waiting = self.cluster.pool.len();
        if waiting == 0 {
            return;
        }
        let at = self.random.random_range(0..waiting);
        let lost = self.cluster.pool.remove(at);
        if self.cluster.is_free(lost.from) && self.random.random_bool(0.3) {
            self.cluster.input_only(lost.from, |raft| raft.unreachable(lost.to));
        }
    }

    fn crash_or_restart(&mut self) {
        if let Some(frail) = self.frail.filter(|_| self.random.random_bool(0.2)) {
            // Mostly little, now and then everything.
            let saves = if self.random.random_bool(0.2) { 1000 } else { self.random.random_range(1..6) };
            self.cluster.damage(frail, saves);
            self.oracle.totals.damages += 1;
            if self.random.random_bool(0.7) {
                self.cluster.restart(frail);
            }
            return self.oracle.watch(&mut self.cluster);
        }
        let ids = self.cluster.ids();
        let down: Vec<NodeId> = ids.iter().copied().filter(|id| !self.cluster.is_up(*id)).collect();
        if !down.is_empty() && self.random.random_bool(0.6) {
            let id = down[self.random.random_range(0..down.len())];
            self.cluster.restart(id);
        } else if let leading = self.random.random_bool(0.5)
            && let Some(id) = self.draw(leading)
        {
            self.cluster.crash(id);
            // Many come back at once, before anybody noticed: what they forgot matters most then.
            if self.random.random_bool(0.5) {
                self.cluster.restart(id);
            }
        }
        self.oracle.watch(&mut self.cluster);
    }

    /// As the driver does when nothing is left to apply.
    fn tell_hash(&mut self, id: NodeId) {
        let (raft, table) = (self.cluster.raft(id), &self.cluster.servers[&id].table);
        if table.applied().index == raft.commit() {
            let (index, hash) = (table.applied().index, table.hash());
            self.cluster.input_only(id, |raft| raft.hashed(index, hash));
        }
    }

    /// One table at a time goes wrong: a minority. Of three servers it is the one whose log is damaged, too: one that
    /// owes (rule 62) and one whose table is bad (rule 69) are two that do not stand, and the third may lack what the
    /// first promised to have.
    fn corrupt_table(&mut self) {
        if self.cluster.servers.values().all(|server| server.table.damage == 0) {
            let ids = self.cluster.ids();
            let drawn = ids[self.random.random_range(0..ids.len())];
            let id = self.frail.filter(|_| ids.len() == 3).unwrap_or(drawn);
            self.cluster.server(id).table.damage = 1;
            self.oracle.totals.corruptions += 1;
        }
    }

    fn cut_or_heal(&mut self) {
        if self.random.random_bool(0.4) {
            self.cluster.cut.clear();
            return;
        }
        let ids = self.cluster.ids();
        let one = ids[self.random.random_range(0..ids.len())];
        let two = ids[self.random.random_range(0..ids.len())];
        match self.random.random_range(0..3) {
            0 => self.cluster.isolate(one),
            1 => drop(self.cluster.cut.insert((one, two))),
            _ => self.cluster.cut.extend([(one, two), (two, one)]),
        }
    }

    /// Everything works from here on: the group must come to serve again, and to agree.
    fn heal(&mut self) {
        self.cluster.cut.clear();
        for id in self.cluster.ids() {
            if !self.cluster.is_up(id) {
                self.cluster.restart(id);
            }
            self.cluster.input_only(id, |raft| raft.set_disk_low(false));
        }
        self.oracle.watch(&mut self.cluster);
        self.cluster.instant = true;
        self.cluster.chunk_rows = 100;
        let mut goal: Option<EntryId> = None;
        // (Enough for the slowest settings: an entry in a message, and a message on its way at a time.)
        for _ in 0..1_500 {
            self.quiet_tick();
            // As the driver does.
            for id in self.cluster.ids() {
                if self.cluster.raft(id).log().bytes() > self.cluster.config.log_bytes_max {
                    self.cluster.compact(id);
                }
            }
            // What was proposed to a leader of the past may be lost: set another goal then.
            let term = self.cluster.ids().iter().map(|id| self.cluster.raft(*id).term()).max();
            goal = goal.filter(|goal| Some(goal.term) == term);
            if let Some(wanted) = goal
                && self.cluster.ids().iter().all(|id| self.cluster.servers[id].table.applied() >= wanted)
                && self.oracle.open_reads(&self.cluster) == 0
            {
                if self.cluster.servers.values().all(|server| server.table.damage == 0) {
                    return;
                }
                // A difference shows where something was applied.
                goal = None;
            }
            if goal.is_none() {
                goal = self.propose_and_read();
            }
        }
        for id in self.cluster.ids() {
            let (raft, table) = (self.cluster.raft(id), &self.cluster.servers[&id].table);
            let (last, commit, applied) = (raft.log().last(), raft.commit(), table.applied());
            let role = self.cluster.shown_role(id);
            let (owes, bad) = (raft.owes(), raft.is_table_bad());
            eprintln!("n{id} {role}, last {last} commit {commit} applied {applied}: {:?}", raft.role());
            eprintln!("   owes {owes:?}, bad table {bad}, {} bytes unapplied", raft.unapplied_bytes());
        }
        panic!("no progress after everything healed: goal {goal:?}");
    }

    fn quiet_tick(&mut self) {
        for id in self.cluster.ids() {
            self.tell_hash(id);
            self.cluster.tick(id);
            self.oracle.watch(&mut self.cluster);
        }
        // What is sent meanwhile arrives a tick later.
        for _ in 0..self.cluster.pool.len() {
            self.cluster.deliver(0);
            self.oracle.watch(&mut self.cluster);
        }
    }

    fn propose_and_read(&mut self) -> Option<EntryId> {
        let id = *self.cluster.leaders().last()?;
        self.reads += 1;
        let read = ReadId(self.reads);
        match self.cluster.input_only(id, |raft| raft.propose(Bytes::from_static(b"healed"), false)) {
            Ok(entry) => {
                if self.cluster.input_only(id, |raft| raft.read(read)).is_ok() {
                    self.oracle.asked(&self.cluster, id, read);
                }
                Some(entry)
            }
            Err(ExecuteError::Busy | ExecuteError::DiskFull | ExecuteError::NotLeader { .. }) => None,
            Err(other) => panic!("the core says {other}"),
        }
    }
}

fn schedule(seed: u64) -> Totals {
    let mut run = Run::new(seed);
    for _ in 0..STEPS {
        run.step();
        run.oracle.watch(&mut run.cluster);
    }
    run.heal();
    Totals { resumed: run.cluster.resumed, ..run.oracle.totals }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn random_schedules_keep_every_promise_and_make_progress_once_healed() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(200),
    };
    let mut sum = Totals::default();
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        let totals = catch_unwind(AssertUnwindSafe(|| schedule(seed))).unwrap_or_else(|_| {
            panic!("replay with: SEED={seed} cargo test -p raft --test properties");
        });
        sum.add(totals);
    }
    println!("{runs} schedules: {sum:?}");
    if runs >= 50 {
        sum.assert_at_least(runs);
    }
}
