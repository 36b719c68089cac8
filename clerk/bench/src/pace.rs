//! The open loop: operations begin by a schedule, whether or not earlier ones have ended.
//!
//! Operation n of a phase is due n / rate seconds after the phase began. Due operations wait in a
//! backlog for a client. The client learns when its operation was due, and latency counts from
//! there. So a pause of the cluster is felt by every operation that should have begun in it, not
//! only by those that had begun before (no coordinated omission). The backlog limits how many may
//! wait; more are dropped. Dropped and left-over operations are counted separately, because an
//! operation that was never done has no latency.
//!
//! tokio's timers have steps of a millisecond, which is longer than an operation takes; a kernel
//! timer keeps the schedule.
//!
//! Left out on purpose: arrivals at random times.

use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

/// Operations due within this are released together: at high rates one wake-up each would cost more than
/// the operations.
const TOGETHER: Duration = Duration::from_micros(50);

/// When operations are due.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: Instant,
    rate: f64,
}

impl Schedule {
    pub fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate }
    }

    /// Operations due by `now`.
    fn due_by(&self, now: Instant) -> u64 {
        if now < self.start {
            return 0;
        }
        let mut due = (now.since(self.start).as_secs_f64() * self.rate) as u64;
        // The numbers are inexact; the moments decide.
        while self.moment(due) <= now {
            due += 1;
        }
        due
    }

    /// When operation `number` (from 0) is due.
    fn moment(&self, number: u64) -> Instant {
        self.start.after(Duration::from_secs_f64(number as f64 / self.rate))
    }
}

/// What is due and not begun.
pub struct Backlog {
    waiting: Mutex<Waiting>,
    arrived: Semaphore,
    limit: usize,
}

#[derive(Default)]
struct Waiting {
    moments: VecDeque<Instant>,
    dropped: u64,
}

impl Backlog {
    pub fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { waiting: Mutex::default(), arrived: Semaphore::new(0), limit }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, moments: impl Iterator<Item = Instant>) {
        let mut waiting = self.waiting();
        let before = waiting.moments.len();
        for moment in moments {
            if waiting.moments.len() < self.limit {
                waiting.moments.push_back(moment)
            } else {
                waiting.dropped += 1
            }
        }
        self.arrived.add_permits(waiting.moments.len() - before);
    }

    /// When the next operation was due, as soon as there is one; none at the end.
    pub async fn take(&self) -> Option<Instant> {
        self.arrived.acquire().await.ok()?.forget();
        self.waiting().moments.pop_front()
    }

    /// Ends it. What still waits is dropped.
    fn close(&self) {
        self.arrived.close();
        let mut waiting = self.waiting();
        waiting.dropped += waiting.moments.len() as u64;
        waiting.moments.clear();
    }

    /// Operations that never began.
    pub fn dropped(&self) -> u64 {
        self.waiting().dropped
    }
}

/// Keeps a schedule until `end`, or until `stop`, and closes the backlog.
pub async fn pace(
    schedule: Schedule,
    backlog: &Backlog,
    timer: Timer,
    end: Instant,
    stop: impl Future<Output = ()>,
) {
    let keep = async {
        let mut released = 0;
        while clock::now() < end {
            let due = schedule.due_by(clock::now().min(end));
            backlog.offer((released..due).map(|number| schedule.moment(number)));
            released = due;
            timer.sleep_until(schedule.moment(released).max(clock::now().after(TOGETHER)).min(end)).await;
        }
        // Woken too late for the last ones: they never begin, which is counted as well.
        let rest = (released..schedule.due_by(end)).map(|number| schedule.moment(number));
        backlog.offer(rest.filter(|moment| *moment < end));
    };
    tokio::select! {
        biased;
        () = stop => {}
        () = keep => {}
    }
    backlog.close();
}

/// Sleeps of microseconds; where the kernel has no more timers, of milliseconds.
pub enum Timer {
    Exact(AsyncFd<OwnedFd>),
    Coarse,
}

impl Timer {
    #[expect(
        deprecated,
        reason = "its successor wants a promise that no code here may make; this type keeps its file"
    )]
    pub fn exact() -> Self {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(std::io::Error::from);
        timer.and_then(AsyncFd::new).map_or(Self::Coarse, Self::Exact)
    }

    async fn sleep_until(&self, moment: Instant) {
        let left = moment.since(clock::now());
        if left.is_zero() {
            return;
        }
        match self {
            Self::Exact(timer) if sleep_exactly(timer, left).await.is_ok() => {}
            _ => clock::sleep_until(moment).await,
        }
    }
}

async fn sleep_exactly(timer: &AsyncFd<OwnedFd>, left: Duration) -> std::io::Result<()> {
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: left.try_into().map_err(std::io::Error::other)?,
    };
    timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
    loop {
        let mut ready = timer.readable().await?;
        let mut beats = [0_u8; 8];
        let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut beats)?));
        match read {
            Ok(read) => return read.map(drop),
            Err(_would_block) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use base::clock;

    use super::{Backlog, Schedule, Timer, pace};

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[tokio::test(start_paused = true)]
    async fn operations_are_due_by_the_clock_alone() {
        let start = clock::now();
        for rate in [1.0, 3.0, 1000.0, 12_345.6] {
            let schedule = Schedule::new(start, rate);
            assert_eq!(schedule.due_by(start), 1, "the first begins at once");
            let count = schedule.due_by(start.after(Duration::from_secs(10)));
            assert!((count as f64 - rate * 10.0).abs() <= 1.0, "{rate}: {count}");
            for number in [0, 1, 2, 999, 100_000] {
                let moment = schedule.moment(number);
                assert_eq!(schedule.due_by(moment), number + 1, "{rate}");
            }
        }
        assert_eq!(Schedule::new(start.after(ms(5)), 1000.0).due_by(start), 0);
    }

    /// A client whose operations take no time, except that the first one after 100 ms takes `pause`; the
    /// latencies, and what was dropped.
    async fn latencies(rate: f64, limit: u64, pause: Duration) -> (Vec<Duration>, u64) {
        let start = clock::now();
        let backlog = Backlog::new(limit);
        let client = async {
            let (mut latencies, mut paused) = (Vec::new(), false);
            while let Some(due) = backlog.take().await {
                if !paused && start.elapsed() >= ms(100) {
                    paused = true;
                    clock::sleep(pause).await;
                }
                latencies.push(due.elapsed());
            }
            latencies
        };
        let end = start.after(Duration::from_secs(1));
        let schedule = Schedule::new(start, rate);
        let ((), latencies) = tokio::join!(pace(schedule, &backlog, Timer::Coarse, end, pending()), client);
        (latencies, backlog.dropped())
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_felt_by_all_operations_that_should_have_begun_in_it() {
        let (latencies, dropped) = latencies(100.0, 1000, ms(500)).await;
        assert_eq!((latencies.len(), dropped), (100, 0), "the schedule was kept");
        let slow = latencies.iter().filter(|latency| **latency > ms(2)).count();
        // A closed loop would have seen one slow operation. Here: every 10 ms one, over 500 ms.
        assert!((49..=51).contains(&slow), "{slow}");
        assert!(latencies.iter().max().unwrap() >= &ms(490));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_backlog_does_not_hold_is_dropped_and_counted() {
        let (latencies, dropped) = latencies(100.0, 20, ms(500)).await;
        assert_eq!(latencies.len() as u64 + dropped, 100);
        assert!((28..=31).contains(&dropped), "{dropped}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_at_the_end_is_dropped_and_counted() {
        let (latencies, dropped) = latencies(100.0, 1000, Duration::from_secs(5)).await;
        assert_eq!(latencies.len() as u64 + dropped, 100);
        assert!(dropped >= 85, "{dropped}");
    }
}
