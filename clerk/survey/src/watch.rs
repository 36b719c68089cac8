//! Looks at a cluster again and again, and remembers what a single survey cannot say: what happened in
//! a second, how long ago a server that is silent now has answered, and what it said then.
//!
//! Bounded by the cluster: of each server and group the last answer is kept, of the history the newest
//! configurations, of the past ten minutes of a few figures a group.

mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::clock::{self, Instant};
use clerk::api::config::Sealed;
use clerk::api::{ConfigNum, ShardId};
use clerk::ctrl::CtrlClerk;
use serde_json::{Value, json};

use self::memory::Memory;
use crate::changes::{id, with, with_moved};
use crate::document::{document, newest};
use crate::health::health;
use crate::moves::{move_document, moving};
use crate::rates::rates;
use crate::reach::Reach;
use crate::slow::Slow;
use crate::survey::{Survey, again, survey};

/// A server that answers later than this does not answer: what hangs is seen within two seconds.
const ANSWER_MAX: Duration = Duration::from_millis(850);
/// The same where nothing is known of the cluster yet, and one question follows the other.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(2);
/// After a pause longer than this, a difference says nothing of a second.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Owners of shards that a history shows, of all its configurations together.
const OWNERS_MAX: usize = 1 << 18;
/// How long slow requests are asked for.
const SLOW_ANSWER_MAX: Duration = Duration::from_millis(250);
/// How long the history is asked for.
const HISTORY_ANSWER_MAX: Duration = Duration::from_secs(1);

/// What is seen of a cluster at one moment.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Everything but the history and the past.
    pub state: Arc<Value>,
    /// The configurations.
    pub history: Arc<Value>,
    /// Figures of the last minutes.
    pub past: Arc<Value>,
    /// Slow requests of all servers. The same value as long as they are the same.
    pub slow: Arc<Value>,
}

impl Seen {
    /// All of it in one document.
    pub fn whole(&self) -> Value {
        let parts = [&self.history, &self.past, &self.slow];
        parts.into_iter().fold((*self.state).clone(), |whole, part| with(whole, (**part).clone()))
    }
}

/// When a move was first seen, and how many rows it had sent then.
#[derive(Clone, Copy)]
struct Begun {
    at: Instant,
    rows: u64,
}

/// Looks at a cluster.
pub struct Watcher {
    reach: Reach,
    /// The name of the server that looks.
    me: String,
    writable: bool,
    ctrl: CtrlClerk,
    last: Option<(Instant, Survey)>,
    memory: Memory,
    moves: BTreeMap<(ShardId, ConfigNum), Begun>,
    configs: Vec<Sealed>,
    /// When each of them was seen first, unless it was there before.
    seen_at: BTreeMap<ConfigNum, u64>,
    history: Arc<Value>,
    slow: (Slow, Arc<Value>),
}

impl Watcher {
    /// Looks at this cluster as the server `me`. `writable`: whether changes may be asked for.
    pub fn new(reach: Reach, me: String, writable: bool) -> Self {
        let ctrl = reach.ctrl(clock::now());
        Self {
            reach,
            me,
            writable,
            ctrl,
            last: None,
            memory: Memory::default(),
            moves: BTreeMap::new(),
            configs: Vec::new(),
            seen_at: BTreeMap::new(),
            history: Arc::new(json!({"history": [], "history_from": 0})),
            slow: (Slow::default(), Arc::new(Slow::default().document())),
        }
    }

    /// Looks now. Takes a second at most, two at first.
    pub async fn look(&mut self) -> Seen {
        let begun = clock::now();
        let survey = match &self.last {
            Some((_, last)) => again(&self.reach, &self.ctrl, last, ANSWER_MAX).await,
            None => survey(&self.reach, begun.after(FIRST_ANSWER_MAX)).await,
        };
        let rates = self
            .last
            .as_ref()
            .filter(|(at, _)| begun.since(*at) < PAUSE_MAX)
            .map(|(at, before)| rates(&self.reach, before, &survey, begun.since(*at).as_secs_f64()));
        self.learn(&survey);
        self.memory.note(&self.reach, &survey, rates.as_ref());
        if self.slow.0.learn(&self.reach, &survey, SLOW_ANSWER_MAX).await {
            self.slow.1 = Arc::new(self.slow.0.document());
        }
        self.read_history(newest(&survey)).await;
        let asked = begun.elapsed();
        let state = self.state(&survey, rates, asked);
        self.last = Some((begun, survey));
        Seen {
            state: Arc::new(state),
            history: Arc::clone(&self.history),
            past: Arc::new(self.memory.past()),
            slow: Arc::clone(&self.slow.1),
        }
    }

    /// The ids of servers that answered: their names stay when they are silent.
    fn learn(&mut self, survey: &Survey) {
        for (group, answers) in &survey.groups {
            let answered = answers.iter().filter_map(|(address, it)| Some((address, it.as_ref().ok()?)));
            let ids = answered.map(|(address, status)| ((group.0, address.clone()), status.replica.id));
            self.reach.ids.extend(ids);
        }
        let there = |group: u64, address: &String| {
            let of_group = survey.groups.iter().filter(|(id, _)| id.0 == group);
            group == 0 || of_group.flat_map(|(_, answers)| answers).any(|(known, _)| known == address)
        };
        self.reach.ids.retain(|(group, address), _| there(*group, address));
    }

    fn state(&mut self, survey: &Survey, rates: Option<Value>, asked: Duration) -> Value {
        let ages = self.memory.ages(&self.reach, survey);
        let pending = survey.pending(newest(survey), &std::collections::BTreeSet::new());
        let more = json!({
            "at": clock::unix_millis(),
            "asked_ms": u64::try_from(asked.as_millis()).unwrap_or(u64::MAX),
            "seen_by": self.me,
            "writable": self.writable,
            "health": health(&self.reach, survey, &ages, pending.len()),
            "pending": pending,
            "moves": self.moves(survey),
            "last": self.memory.last(&self.reach, survey),
            "ages": ages,
            "rates": rates,
        });
        with(document(&self.reach, survey), more)
    }

    /// The shards on their way, with how fast they are.
    fn moves(&mut self, survey: &Survey) -> Vec<Value> {
        let (now, moving) = (clock::now(), moving(survey));
        self.moves.retain(|key, _| moving.iter().any(|it| (it.shard, it.num) == *key));
        let one = |it: &crate::moves::Moving| {
            let begun = Begun { at: now, rows: it.rows };
            let begun = *self.moves.entry((it.shard, it.num)).or_insert(begun);
            let seconds = now.since(begun.at).as_secs_f64();
            let sent = it.rows.saturating_sub(begun.rows);
            let rate = (seconds > 0.0 && sent > 0).then(|| sent as f64 / seconds);
            let left = rate.map(|rate| it.rows_total.saturating_sub(it.rows) as f64 / rate);
            let more = json!({"rows_per_second": rate, "seconds_left": left, "seconds": seconds});
            with(move_document(it), more)
        };
        moving.iter().map(one).collect()
    }

    /// Reads the configurations that are new, as far as they come at once.
    async fn read_history(&mut self, newest: ConfigNum) {
        let known = self.configs.last().map(|config| config.num);
        if known.is_some_and(|known| known >= newest) {
            return;
        }
        let mut is_new = false;
        let until = clock::now().after(HISTORY_ANSWER_MAX);
        while clock::now() < until {
            let after = self.configs.last().map(|config| config.num);
            let ctrl = self.ctrl.clone().with_deadline(until.since(clock::now()));
            let Ok(page) = ctrl.history(after).await else { break };
            if page.is_empty() {
                break;
            }
            is_new = true;
            self.configs.extend(page);
            self.forget_old_configs();
        }
        if !is_new {
            return;
        }
        // What was there when this server looked first may be of any age.
        if let Some(known) = known {
            let new = self.configs.iter().map(|config| config.num).filter(|num| *num > known);
            self.seen_at.extend(new.map(|num| (num, clock::unix_millis())));
        }
        self.history = Arc::new(self.history_document());
    }

    /// Keeps one more than is shown: it says what changed in the first that is.
    fn forget_old_configs(&mut self) {
        let shards = self.configs.last().map_or(1, |config| config.shards.len().max(1));
        let surplus = self.configs.len().saturating_sub((OWNERS_MAX / shards).max(2) + 1);
        self.configs.drain(..surplus);
        let oldest = self.configs.first().map(|config| config.num).unwrap_or_default();
        self.seen_at.retain(|num, _| *num >= oldest);
    }

    fn history_document(&self) -> Value {
        let shown = |(config, moved): (&Sealed, usize)| {
            let owners: Vec<u64> = config.shards.iter().map(|assignment| id(assignment.owner)).collect();
            json!({
                "num": config.num.0,
                "digest": config.digest().to_string(),
                "groups": config.groups.keys().map(|group| group.0).collect::<Vec<_>>(),
                "moved": moved,
                "lost": config.lost.iter().map(|shard| shard.0).collect::<Vec<_>>(),
                "owners": owners,
                "seen_at": self.seen_at.get(&config.num),
            })
        };
        // The first of a history that is cut is only there to be compared with.
        let is_cut = self.configs.first().is_some_and(|config| config.num > ConfigNum(0));
        let configs: Vec<Value> = with_moved(&self.configs).skip(usize::from(is_cut)).map(shown).collect();
        json!({"history_from": configs.first().map(|config| config["num"].clone()), "history": configs})
    }
}

#[cfg(test)]
mod tests;
