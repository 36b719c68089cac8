//! The law of pace: how fast clients may write while a member lags (correctness rule 133).
//!
//! A member that takes less than is written lags more and more. If writes go on at full speed, the
//! log that is kept for it grows beyond its bound, and the member gets a snapshot; meanwhile as much
//! is written again. So the leader slows down writes, but only for a member that can arrive, and
//! never below a floor. A member that is too slow even for that is *given up*: it is named in the
//! status, no write waits for it, and it is sent no snapshot.
//!
//! All of it is a function of a few numbers, in bytes and bytes per second:
//!
//! * W, the *demand*: the most that was written per second, within the last minute in which no pace
//!   held. (While a pace holds, clients cannot write what they want. If W followed what they write
//!   then, the floors would sink with it.)
//! * s or d: what the member takes per second, rows or entries, while there is always more for it.
//! * R, the *room*: the bytes of log that may be kept.
//!
//! | the member | the pace | it is given up |
//! |---|---|---|
//! | gets a snapshot | (R/2 - log since the snapshot) * s / rows left, at least W/4 | when the log would not fit into R |
//! | gets entries, and was not level before | 3/4 d, at least W/4 | if it lacks no less after a minute |
//! | gets entries, and was level | 3/4 d, at least 3/4 W | the same |
//! | is level or silent | none | |
//!
//! With R = half of the table, the first line is s/4: at the end of the snapshot at most half of R
//! has been written. At 3/4 d, what the member lacks shrinks by d/4. One slow disk costs a group at
//! most a quarter of its speed. The slowest pace of all members holds.
//!
//! A member that was given up is tried again when less than d/2 is written for a while, or nothing
//! at all (it may be needed for the majority), and every ten minutes, without a pace. No promise of
//! the group depends on any of this.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Law;

/// Demand is known only after so many windows: a new leader's clients do not come all at once.
const WINDOWS_MIN: usize = 5;
/// The demand is the most of so many windows.
const WINDOWS_MAX: usize = 30;
/// What may be written at once after a pause, as a time at the pace.
const BURST: Duration = Duration::from_millis(50);

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has what was written, or lacks little.
    Level,
    /// It lacks more, and is on its way.
    Arriving,
    /// It is not heard.
    Silent,
    /// It takes less than is written even at the floor.
    GivenUp,
}

/// What a member lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Entries of so many bytes.
    Entries {
        /// The bytes.
        bytes: u64,
        /// It has everything that is older than a moment.
        is_recent: bool,
    },
    /// A snapshot.
    Rows {
        /// Bytes of rows that are not staged yet.
        left: u64,
        /// Bytes of entries that were written since.
        since: u64,
    },
}

/// What a leader sees of a member in a tick.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// It answers.
    pub is_heard: bool,
    /// What it lacks.
    pub lack: Lack,
    /// Bytes of rows and entries that it has taken, ever.
    pub taken: u64,
}

/// What is the same for all members.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The numbers.
    pub law: &'a Law,
    /// The length of a tick.
    pub tick: Duration,
    /// What clients write.
    pub demand: &'a Demand,
    /// R.
    pub room: u64,
}

/// The bytes of a window, per second.
fn per_second(bytes: u64, ticks: u32, tick: Duration) -> u64 {
    let micros = (tick * ticks).as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// A stretch of time in which something is counted.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    ticks: u32,
    at_begin: u64,
}

impl Stretch {
    fn begun(at_begin: u64) -> Self {
        Self { ticks: 0, at_begin }
    }

    fn has_lasted(&self, span: Duration, tick: Duration) -> bool {
        tick * self.ticks >= span
    }
}

/// What clients write.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// Bytes per second, of the newest windows without a pace.
    windows: VecDeque<u64>,
    window: Stretch,
    was_paced: bool,
    present: Option<u64>,
}

impl Demand {
    /// A tick passed; `written` bytes were written, ever.
    pub fn tick(&mut self, law: &Law, tick: Duration, written: u64, is_paced: bool) {
        let is_paced = is_paced && !base::mutant!("demand-shrinks-with-the-pace");
        self.was_paced |= is_paced;
        self.window.ticks = self.window.ticks.saturating_add(1);
        if !self.window.has_lasted(law.window, tick) {
            return;
        }
        let rate = per_second(written.saturating_sub(self.window.at_begin), self.window.ticks, tick);
        self.present = Some(rate);
        if !self.was_paced {
            self.windows.push_back(rate);
            if self.windows.len() > WINDOWS_MAX {
                self.windows.pop_front();
            }
        }
        (self.window, self.was_paced) = (Stretch::begun(written), is_paced);
    }

    /// W, once it is known.
    pub fn most(&self) -> Option<u64> {
        (self.windows.len() >= WINDOWS_MIN).then(|| self.windows.iter().max().copied()).flatten()
    }

    /// What was written per second in the last window.
    pub fn present(&self) -> Option<u64> {
        self.present
    }
}

/// A member, as the law sees it.
#[derive(Clone, Debug)]
pub struct Member {
    standing: Standing,
    /// It was level since it was heard.
    was_level: bool,
    /// It is tried again without a pace.
    is_trial: bool,
    /// What it takes is counted from here.
    window: Stretch,
    rows: bool,
    /// s or d, once it is known.
    takes: Option<u64>,
    /// How it stood when patience began: what it lacked, or had taken of a snapshot.
    mark: Stretch,
    /// Ticks since it was given up, and of those in which little was written.
    waited: u32,
    calm: u32,
    pace: Option<u64>,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            standing: Standing::Arriving,
            was_level: false,
            is_trial: false,
            window: Stretch::default(),
            rows: false,
            takes: None,
            mark: Stretch::default(),
            waited: 0,
            calm: 0,
            pace: None,
        }
    }
}

impl Member {
    /// A tick passed.
    pub fn tick(&mut self, around: &Around<'_>, look: &Look) {
        let standing = self.judge(around, look);
        if standing != self.standing {
            self.turn(standing, look);
        }
        self.pace = None;
        match self.standing {
            Standing::Arriving => self.arrive(around, look),
            Standing::GivenUp => {
                self.waited = self.waited.saturating_add(1);
                let calm = self.is_calm(around);
                self.calm = if calm { self.calm.saturating_add(1) } else { 0 };
            }
            Standing::Level | Standing::Silent => {}
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// What it takes per second, if that was measured since it lags.
    pub fn takes(&self) -> Option<u64> {
        self.takes
    }

    /// The pace that it needs, in bytes per second.
    pub fn pace(&self) -> Option<u64> {
        self.pace
    }

    fn judge(&self, around: &Around<'_>, look: &Look) -> Standing {
        let law = around.law;
        if !look.is_heard {
            return Standing::Silent;
        }
        if let Lack::Entries { bytes, is_recent } = look.lack {
            // (It comes nearer before it counts as level again, so that it does not change all the time.)
            let enough = if self.standing == Standing::Level { law.level_bytes } else { law.level_bytes / 4 };
            if is_recent || bytes <= enough {
                return Standing::Level;
            }
        }
        match self.standing {
            Standing::GivenUp if !self.is_tried_again(around) => Standing::GivenUp,
            _ => Standing::Arriving,
        }
    }

    fn turn(&mut self, standing: Standing, look: &Look) {
        let before = std::mem::replace(&mut self.standing, standing);
        match standing {
            Standing::Level => (self.was_level, self.takes) = (true, None),
            Standing::Silent => (self.was_level, self.takes) = (false, None),
            Standing::Arriving => {
                self.is_trial = before == Standing::GivenUp && self.calm == 0;
                self.was_level &= before != Standing::GivenUp;
                self.begin(look);
            }
            Standing::GivenUp => {}
        }
        (self.waited, self.calm) = (0, 0);
    }

    /// It begins to take rows, or entries.
    fn begin(&mut self, look: &Look) {
        self.rows = matches!(look.lack, Lack::Rows { .. });
        (self.window, self.takes) = (Stretch::begun(look.taken), None);
        self.mark_now(look);
    }

    fn mark_now(&mut self, look: &Look) {
        self.mark = Stretch::begun(match look.lack {
            Lack::Entries { bytes, .. } => bytes,
            Lack::Rows { .. } => look.taken,
        });
    }

    fn arrive(&mut self, around: &Around<'_>, look: &Look) {
        let Around { law, tick, .. } = *around;
        if self.rows != matches!(look.lack, Lack::Rows { .. }) {
            self.begin(look);
        }
        self.window.ticks = self.window.ticks.saturating_add(1);
        self.mark.ticks = self.mark.ticks.saturating_add(1);
        if self.window.has_lasted(law.window, tick) {
            let taken = look.taken.saturating_sub(self.window.at_begin);
            self.takes = Some(per_second(taken, self.window.ticks, tick));
            self.window = Stretch::begun(look.taken);
        }
        let kept = match look.lack {
            Lack::Entries { bytes, .. } => bytes,
            Lack::Rows { since, .. } => since,
        };
        let is_time = self.mark.has_lasted(law.patience, tick);
        if kept > around.room || is_time && self.is_hopeless(around, look) {
            return self.turn(Standing::GivenUp, look);
        }
        if is_time {
            self.mark_now(look);
        }
        if !self.is_trial {
            self.pace = self.law(around, look.lack);
        }
    }

    /// The floor: no pace for this member is slower.
    fn floor(&self, around: &Around<'_>) -> Option<u64> {
        let quarter = around.demand.most()? / 4;
        let floor = if self.was_level && !self.rows { 3 * quarter } else { quarter };
        Some(floor.max(around.law.least))
    }

    fn law(&self, around: &Around<'_>, lack: Lack) -> Option<u64> {
        let (takes, floor) = (self.takes?, self.floor(around)?);
        let pace = match lack {
            Lack::Entries { .. } => takes / 4 * 3,
            Lack::Rows { left, since } => {
                let room = u128::from((around.room / 2).saturating_sub(since));
                u64::try_from(room * u128::from(takes) / u128::from(left.max(1))).unwrap_or(u64::MAX)
            }
        };
        Some(if base::mutant!("pace-without-floor") { pace } else { pace.max(floor) })
    }

    /// Whether it lacks no less than before, or the log would not fit at the end of its snapshot.
    fn is_hopeless(&self, around: &Around<'_>, look: &Look) -> bool {
        base::mutant!("nobody-given-up", return false);
        match look.lack {
            Lack::Entries { bytes, .. } => bytes >= self.mark.at_begin,
            Lack::Rows { left, since } => {
                let floor = self.floor(around).unwrap_or(around.law.least);
                let takes = u128::from(self.takes.unwrap_or(0).max(1));
                let more = u128::from(floor.min(around.demand.most().unwrap_or(floor))) * u128::from(left);
                look.taken <= self.mark.at_begin || u128::from(since) + more / takes > u128::from(around.room)
            }
        }
    }

    /// Whether so little is written now that it could take twice of it.
    fn is_calm(&self, around: &Around<'_>) -> bool {
        let takes = self.takes.unwrap_or(0);
        around.demand.present().is_some_and(|present| present < takes / 2 || present == 0)
    }

    fn is_tried_again(&self, around: &Around<'_>) -> bool {
        base::mutant!("given-up-never-retried", return false);
        let Around { law, tick, demand, .. } = *around;
        let is_idle = demand.present() == Some(0) && tick * self.waited >= law.window;
        is_idle || tick * self.calm >= law.calm || tick * self.waited >= law.retry
    }
}

/// Lets bytes through at a pace.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    pace: u64,
    /// Bytes that may be written now; below zero after a large write.
    bytes: i64,
}

impl Bucket {
    /// A bucket for this pace.
    pub fn of(pace: u64) -> Self {
        Self { pace, bytes: 0 }
    }

    /// The pace.
    pub fn pace(&self) -> u64 {
        self.pace
    }

    /// The pace is this now, and a tick passed.
    pub fn fill(&mut self, pace: u64, tick: Duration) {
        let of = |span: Duration| {
            i64::try_from(u128::from(pace) * span.as_micros() / 1_000_000).unwrap_or(i64::MAX)
        };
        self.pace = pace;
        self.bytes = self.bytes.saturating_add(of(tick)).min(of(BURST.max(2 * tick)));
    }

    /// Whether something may be written now.
    pub fn is_open(&self) -> bool {
        self.bytes > 0
    }

    /// So many bytes were written.
    pub fn take(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
