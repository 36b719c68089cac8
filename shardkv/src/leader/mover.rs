//! The leader's task beside the state machine. It names the group's data, adopts configurations,
//! and pushes the shards that this group hands over.
//!
//! It holds no state. Everything it does follows from rows and from the controllers' answers. Every
//! step goes through the log and is judged again when it is applied. So two movers at the same
//! time, or one that slept, do no harm (correctness rules 37, 41). A mover lives for a term of
//! leadership: when the term ends, all its pushes end. It pushes several shards concurrently, with
//! a bound for each receiving group, so a group that does not answer delays only its own shards
//! (rule 40). Adopting does not wait for pushes, and pushes do not wait for adopting.
//!
//! Left out on purpose: how a shard is pushed (`push`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base::clock;
use clerk::api::config::{Place, Sealed};
use clerk::api::push::Sender;
use clerk::api::{GroupId, Incarnation, ShardId};
use clerk::connection::Connection;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use raft::rsm::{Leadership, Replica, Role};
use raft::storage::{Read, Table};
use raft::types::Term;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use crate::leader::configs::Knowledge;
use crate::leader::gate::Gates;
use crate::leader::pace::Pace;
use crate::leader::progress::Progress;
use crate::leader::push::Push;
use crate::leader::receiver::Receiver;
use crate::machine::command::Command;
use crate::machine::history::{self, Own};
use crate::machine::plan::{Move, Sizes};
use crate::machine::rows;
use crate::machine::shard::ShardState;
use crate::machine::{Machine, Standing};

/// Concurrent pushes to one group. Each may hold a chunk that waits for its turn.
const PUSHES_PER_GROUP_MAX: usize = 4;
/// The same for shards that are not copied: almost nothing travels.
const TINY_PUSHES_PER_GROUP_MAX: usize = 64;
/// A leader checks its rows at least this often. Normally it is woken.
const LOOK: Duration = Duration::from_millis(250);
const EXECUTE: Duration = Duration::from_secs(5);

/// The mover of one replica. It is idle unless that replica leads.
pub(crate) struct Mover {
    pub(crate) replica: Replica<Machine>,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) group: GroupId,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) knowledge: watch::Receiver<Knowledge>,
    pub(crate) progress: Progress,
    pub(crate) gates: Arc<Gates>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) sizes: Sizes,
    pub(crate) random: StdRng,
    /// The configuration that was found not to fit. It is reported once.
    pub(crate) refused: Option<Place>,
}

/// The pushes of one term.
#[derive(Default)]
struct Pushes {
    running: FuturesUnordered<BoxFuture<'static, ShardId>>,
    shards: BTreeMap<ShardId, Waiting>,
    receivers: BTreeMap<GroupId, Arc<Receiver>>,
    /// What is pushed next to each group, as it was when the rows were looked at.
    waiting: BTreeMap<GroupId, VecDeque<Waiting>>,
    /// When the rows are looked at again, and what was adopted then.
    next_look: Option<(clock::Instant, Option<Place>)>,
}

/// A shard that is to be pushed.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    shard: ShardId,
    to: GroupId,
    config: Place,
    is_tiny: bool,
}

impl Pushes {
    /// Waits for something of the mover, and goes on with the pushes meanwhile. They must never stand
    /// still: one may have its turn to read rows, or hold a shard.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some(shard) = self.running.next() => {
                    self.shards.remove(&shard);
                }
            }
        }
    }

    /// Whether more shards may be pushed to a group now, beside those that are.
    fn has_room(&self, next: &Waiting) -> bool {
        let running = self.shards.values().filter(|one| one.to == next.to && one.is_tiny == next.is_tiny);
        let max = if next.is_tiny { TINY_PUSHES_PER_GROUP_MAX } else { PUSHES_PER_GROUP_MAX };
        running.count() < max
    }

    /// The next shard to push. One whose state is another by now is harmless: its push ends at once.
    fn next(&mut self) -> Option<Waiting> {
        let groups: Vec<GroupId> = self.waiting.keys().copied().collect();
        for group in groups {
            while let Some(next) = self.waiting.get(&group).and_then(VecDeque::front).copied() {
                let is_running = self.shards.contains_key(&next.shard);
                if !is_running && !self.has_room(&next) {
                    break;
                }
                self.waiting.get_mut(&group).map(VecDeque::pop_front);
                if !is_running {
                    return Some(next);
                }
            }
        }
        None
    }
}

impl Mover {
    /// Works whenever the replica leads. Ends with the replica.
    pub(crate) async fn run(mut self) {
        let mut leadership = self.replica.watch_leadership();
        loop {
            let Ok(term) = leadership.wait_for(|it| it.role == Role::Leader).await.map(|it| it.term) else {
                return;
            };
            let mut lost = leadership.clone();
            let over = lost.wait_for(move |it| !leads(it, term));
            tokio::select! {
                biased;
                _ = over => {}
                // The state machine is gone.
                () = self.lead() => return,
            }
            self.progress.clear();
        }
    }

    async fn lead(&mut self) {
        let mut pushes = Pushes::default();
        loop {
            self.standing.mark_unchanged();
            self.knowledge.mark_unchanged();
            pushes.meanwhile(self.written()).await;
            self.step(&mut pushes).await;
            tokio::select! {
                biased;
                Some(shard) = pushes.running.next() => {
                    pushes.shards.remove(&shard);
                }
                changed = self.standing.changed() => {
                    if changed.is_err() { return; }
                }
                changed = self.knowledge.changed() => {
                    if changed.is_err() { return; }
                }
                () = clock::sleep(LOOK) => {}
            }
        }
    }

    /// Waits until the table holds the change that woke the mover: the state machine notifies
    /// before the batch is written.
    async fn written(&self) {
        let index = self.standing.borrow().changed;
        let mut status = self.replica.watch();
        let written = status.wait_for(|status| status.applied.id.index >= index);
        let _ = clock::timeout(LOOK, written).await;
    }

    /// Pushes what waits, and looks at the rows if they may ask for something else.
    async fn step(&mut self, pushes: &mut Pushes) {
        let (now, adopted) = (clock::now(), self.standing.borrow().place);
        let is_idle = pushes.waiting.values().all(VecDeque::is_empty);
        if is_idle
            || pushes.next_look.is_none_or(|(at, then)| at <= now || then != adopted)
            || self.has_news()
        {
            self.look(pushes).await;
            // Many shards take long to look at, and each of them wakes the mover when it moves.
            let pause = LOOK.max(now.elapsed() * 4);
            pushes.next_look = Some((clock::now().after(pause), self.standing.borrow().place));
        }
        let Some(shard_count) = self.standing.borrow().params.map(|params| params.shard_count) else {
            return;
        };
        let Some(incarnation) = self.standing.borrow().incarnation else { return };
        while let Some(next) = pushes.next() {
            let sender = Sender { group: self.group, incarnation };
            let push = self.push(pushes, next.shard, (next.config, next.to), sender, shard_count);
            pushes.shards.insert(next.shard, next);
            pushes.running.push(Box::pin(push.run()));
        }
        // The leader of a group is remembered from one move to the next.
        let book = Arc::clone(&self.knowledge.borrow().book);
        pushes.receivers.retain(|group, _| book.groups.contains_key(group));
    }

    /// Whether the next configuration is known.
    fn has_news(&self) -> bool {
        self.knowledge.borrow().next(self.standing.borrow().place).is_some()
    }

    /// Does what the rows ask for, and notes which shards are to be pushed.
    async fn look(&mut self, pushes: &mut Pushes) {
        let table = Arc::clone(self.replica.table());
        let sizes = self.sizes;
        let read = move |table: &dyn Table| {
            // A few configurations may move many shards.
            let mut moves = BTreeMap::new();
            let mut move_of = |num| {
                let digest = *moves.entry(num).or_insert_with(|| rows::digest(table, num));
                digest.map(|digest| Place { num, digest })
            };
            let mut moving: Vec<_> = rows::states(table)
                .into_iter()
                .filter_map(|(shard, state)| {
                    Some((shard, receiver(state)?, state.moving().and_then(&mut move_of)?))
                })
                .map(|(shard, to, config)| (urgency(table, shard, &sizes), shard, to, config))
                .collect();
            moving.sort_unstable_by_key(|(urgency, shard, ..)| (*urgency, *shard));
            (rows::place(table), moving)
        };
        if rows::incarnation(&*table).is_none() {
            let incarnation = Incarnation(self.random.random());
            pushes.meanwhile(self.execute(Command::Init { incarnation })).await;
        }
        let (mut adopted, mut moving) = pushes.meanwhile(self.replica.read(read)).await;
        let next = self.knowledge.borrow().next(adopted);
        if next.is_some_and(|next| self.is_ours(&*table, &next)) {
            pushes.meanwhile(self.adopt(adopted)).await;
            (adopted, moving) = pushes.meanwhile(self.replica.read(read)).await;
        }
        pushes.waiting.clear();
        if adopted.is_none() {
            return;
        }
        for (urgency, shard, to, config) in moving {
            let is_tiny = urgency.1.is_none();
            pushes.waiting.entry(to).or_default().push_back(Waiting { shard, to, config, is_tiny });
        }
    }

    /// Adopts the next configurations. Each is judged again when it is applied, so several may be
    /// in the log at the same time.
    async fn adopt(&self, adopted: Option<Place>) {
        let run = self.knowledge.borrow().run(adopted);
        futures::future::join_all(run.into_iter().map(|config| self.execute(Command::Adopt(config)))).await;
    }

    /// Whether a configuration may go through the log: it fits this group, the group's data is not
    /// lost, and this build knows everything in it.
    fn is_ours(&mut self, table: &dyn Read, next: &Sealed) -> bool {
        let (adopted, incarnation) = (rows::config(table), rows::incarnation(table));
        let own = Own { group: self.group, incarnation, adopted: adopted.as_ref() };
        let lost = {
            let known = self.knowledge.borrow();
            history::lost(self.group, incarnation, &self.standing.borrow(), &known.book).is_some()
        };
        let verdict = match history::fits(own, next) {
            Ok(()) if lost => "the group lost its data".to_owned(),
            Ok(()) if !next.is_understood() => "a newer build made it: upgrade this server".to_owned(),
            Ok(()) => return true,
            Err(why) => format!("{why:?}"),
        };
        if self.refused != Some(next.place()) {
            self.refused = Some(next.place());
            tracing::error!(group = %self.group, config = %next.place(), why = verdict, "not adopted");
        }
        false
    }

    fn push(
        &mut self,
        pushes: &mut Pushes,
        shard: ShardId,
        (config, to): (Place, GroupId),
        me: Sender,
        shard_count: u32,
    ) -> Push {
        let receiver = pushes.receivers.entry(to).or_default();
        Push {
            replica: self.replica.clone(),
            changes: Arc::clone(&self.standing.borrow().changes),
            gates: Arc::clone(&self.gates),
            connection: Arc::clone(&self.connection),
            knowledge: self.knowledge.clone(),
            progress: self.progress.clone(),
            receiver: Arc::clone(receiver),
            pace: Arc::clone(&self.pace),
            me,
            config,
            what: Move { shard, num: config.num, to, shard_count, sizes: self.sizes },
            complained: AtomicBool::new(false),
            random: StdRng::seed_from_u64(self.random.random()),
        }
    }

    /// The group's own commands free space, here or elsewhere, or take almost none. A full disk
    /// must not keep a shard from leaving it (correctness rule 35).
    async fn execute(&self, command: Command) {
        if let Err(error) = self.replica.execute_freeing(&command, EXECUTE).await {
            tracing::debug!(group = %self.group, %error, "mover");
            clock::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Which shards are pushed first: tiny ones, for which there is none, then those that nobody serves,
/// then small ones. They are many, and a large one would hold them up.
fn urgency(table: &dyn Table, shard: ShardId, sizes: &Sizes) -> (bool, Option<u64>) {
    let meta = rows::meta(table, shard);
    // It counts keys, and a shard has other rows: the push itself looks at all of them.
    let is_tiny = meta.rows < sizes.seal.rows as u64 / 2 && meta.bytes < sizes.seal.bytes as u64 / 2;
    (rows::state(table, shard).serves(), (!is_tiny).then_some(meta.bytes))
}

/// The group that the shard moves to.
fn receiver(state: ShardState) -> Option<GroupId> {
    match state {
        ShardState::Leaving { to, .. } | ShardState::Handing { to, .. } => Some(to),
        _ => None,
    }
}

fn leads(it: &Leadership, term: Term) -> bool {
    it.role == Role::Leader && it.term == term
}
