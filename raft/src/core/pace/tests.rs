//! The law in a small world: clients that write as fast as they may, one member, and a clock.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::{Around, Bucket, Demand, Lack, Look, Member, Standing};
use crate::config::Law;

const MB: u64 = 1_000_000;
/// Bytes of one write.
const WRITE: u64 = 64 << 10;
/// Clients write for so long before the member lags.
const BEFORE: f64 = 20.0;

/// Speeds in MB/s.
#[derive(Clone, Copy, Debug)]
struct Speeds {
    writes: u64,
    rows: u64,
    entries: u64,
}

/// One leader, and one member.
struct World {
    law: Law,
    tick: Duration,
    room: u64,
    demand: Demand,
    member: Member,
    bucket: Option<Bucket>,
    written: u64,
    taken: u64,
    /// Rows that are not staged.
    rows: u64,
    /// Entries that it lacks.
    lag: u64,
    /// What was written in the last ticks.
    recent: VecDeque<u64>,
    now: f64,
    /// The least that was written in a second.
    least: u64,
    most_kept: u64,
    paced: Duration,
    second: (u64, u32),
}

impl World {
    fn new(speeds: Speeds, room: u64, tick: Duration) -> Self {
        let mut world = Self {
            law: Law::default(),
            tick,
            room,
            demand: Demand::default(),
            member: Member::default(),
            bucket: None,
            written: 0,
            taken: 0,
            rows: 0,
            lag: 0,
            recent: VecDeque::new(),
            now: 0.0,
            least: u64::MAX,
            most_kept: 0,
            paced: Duration::ZERO,
            second: (0, 0),
        };
        // (It takes all that is written.)
        let level = Speeds { entries: speeds.writes * 2, ..speeds };
        while world.now < BEFORE {
            world.step(level);
        }
        (world.now, world.least, world.most_kept) = (0.0, u64::MAX, 0);
        world
    }

    fn in_a_tick(&self, speed: u64) -> u64 {
        speed * MB / 1_000_000 * u64::try_from(self.tick.as_micros()).unwrap()
    }

    fn step(&mut self, speeds: Speeds) {
        let mut wanted = self.in_a_tick(speeds.writes) as i64;
        let mut admitted = 0;
        while wanted > 0 && self.bucket.is_none_or(|bucket| bucket.is_open()) {
            let write = WRITE.min(wanted as u64);
            wanted -= write as i64;
            admitted += write;
            if let Some(bucket) = &mut self.bucket {
                bucket.take(write as usize);
            }
        }
        self.written += admitted;
        self.lag += admitted;
        if self.rows > 0 {
            let taken = self.in_a_tick(speeds.rows).min(self.rows);
            (self.rows, self.taken) = (self.rows - taken, self.taken + taken);
        } else {
            let taken = self.in_a_tick(speeds.entries).min(self.lag);
            (self.lag, self.taken) = (self.lag - taken, self.taken + taken);
        }
        self.most_kept = self.most_kept.max(self.lag);
        self.recent.push_back(admitted);
        if self.tick * u32::try_from(self.recent.len()).unwrap() > Duration::from_millis(250) {
            self.recent.pop_front();
        }
        let lack = match self.rows {
            0 => Lack::Entries { bytes: self.lag, is_recent: self.lag <= self.recent.iter().sum() },
            left => Lack::Rows { left, since: self.lag },
        };
        let look = Look { is_heard: true, lack, taken: self.taken };
        self.demand.tick(&self.law, self.tick, self.written, self.bucket.is_some());
        let around = Around { law: &self.law, tick: self.tick, demand: &self.demand, room: self.room };
        self.member.tick(&around, &look);
        self.bucket = self.member.pace().map(|pace| {
            let mut bucket = self.bucket.unwrap_or(Bucket::of(pace));
            bucket.fill(pace, self.tick);
            bucket
        });
        self.paced += if self.bucket.is_some() { self.tick } else { Duration::ZERO };
        self.now += self.tick.as_secs_f64();
        self.second = (self.second.0 + admitted, self.second.1 + 1);
        if self.tick * self.second.1 >= Duration::from_secs(1) {
            self.least = self.least.min(self.second.0);
            self.second = (0, 0);
        }
    }

    /// Goes on until the member is level or given up, with what it took; none: neither.
    fn play(&mut self, speeds: Speeds, seconds: f64) -> Option<(Standing, f64)> {
        let until = self.now + seconds;
        let begun = self.now;
        while self.now < until {
            self.step(speeds);
            let standing = self.member.standing();
            if matches!(standing, Standing::Level | Standing::GivenUp) {
                return Some((standing, self.now - begun));
            }
        }
        None
    }

    fn silent(&mut self) {
        let look =
            Look { is_heard: false, lack: Lack::Entries { bytes: 0, is_recent: true }, taken: self.taken };
        let around = Around { law: &self.law, tick: self.tick, demand: &self.demand, room: self.room };
        self.member.tick(&around, &look);
    }
}

fn room_of(table: u64) -> u64 {
    (table / 2).max(1024 * MB)
}

/// A member that gets a table, and then what was written meanwhile.
fn streamed(
    writes: u64,
    rows: u64,
    entries: u64,
    table_mb: u64,
    tick_ms: u64,
) -> (World, Option<(Standing, f64)>) {
    let speeds = Speeds { writes, rows, entries };
    let mut world = World::new(speeds, room_of(table_mb * MB), Duration::from_millis(tick_ms));
    world.silent();
    world.rows = table_mb * MB;
    let end = world.play(speeds, 100_000.0);
    (world, end)
}

/// A member that lacks so many MB of entries.
fn lagging(writes: u64, entries: u64, lag_mb: u64, was_level: bool) -> (World, Option<(Standing, f64)>) {
    let speeds = Speeds { writes, rows: 80, entries };
    let mut world = World::new(speeds, room_of(0), Duration::from_millis(25));
    if !was_level {
        world.silent();
    }
    world.lag = lag_mb * MB;
    let end = world.play(speeds, 100_000.0);
    (world, end)
}

#[track_caller]
fn at_least(world: &World, mb: f64) {
    let least = world.least as f64 / MB as f64;
    assert!(least >= mb * 0.95, "{least} MB/s were written, the floor is {mb}");
}

#[track_caller]
fn within(end: Option<(Standing, f64)>, standing: Standing, seconds: std::ops::RangeInclusive<f64>) {
    let (found, took) = end.expect("it is level or given up");
    assert!(found == standing && seconds.contains(&took), "{found:?} after {took} s");
}

#[test]
fn a_member_that_was_away_for_four_seconds_arrives_without_a_pace() {
    let (world, end) = lagging(15, 80, 60, false);
    within(end, Standing::Level, 0.3..=1.0);
    assert_eq!(world.paced, Duration::ZERO);
    at_least(&world, 15.0);
}

#[test]
fn a_large_table_arrives_at_a_quarter_of_its_speed() {
    let (world, end) = streamed(60, 80, 80, 10_240, 25);
    within(end, Standing::Level, 130.0..=300.0);
    at_least(&world, 19.0);
    let (world, end) = streamed(60, 80, 80, 1 << 20, 250);
    within(end, Standing::Level, 13_000.0..=26_500.0);
    at_least(&world, 18.0);
    assert!(world.most_kept < world.room, "{} bytes are kept", world.most_kept);
}

/// A table that is as slow as this would need a pace below the floor.
#[test]
fn a_stream_that_is_slower_than_half_of_the_writes_is_given_up_and_the_floor_holds() {
    let (world, end) = streamed(120, 40, 80, 8192, 25);
    within(end, Standing::GivenUp, 55.0..=70.0);
    at_least(&world, 30.0);
    let (world, end) = streamed(60, 40, 80, 8192, 25);
    within(end, Standing::Level, 200.0..=400.0);
    at_least(&world, 15.0);
}

#[test]
fn a_slow_log_arrives_at_three_quarters_of_its_speed() {
    let (world, end) = streamed(30, 80, 12, 1024, 25);
    within(end, Standing::Level, 60.0..=300.0);
    at_least(&world, 9.0);
}

#[test]
fn a_member_that_cannot_arrive_is_given_up_after_a_minute_and_the_floor_holds() {
    let (mut world, end) = streamed(30, 80, 5, 1024, 25);
    within(end, Standing::GivenUp, 60.0..=90.0);
    at_least(&world, 7.5);
    assert_eq!(world.member.takes().map(|takes| takes / MB), Some(5), "the status says so");
    // Now nobody waits for it.
    let speeds = Speeds { writes: 30, rows: 80, entries: 5 };
    (world.least, world.paced, world.second) = (u64::MAX, Duration::ZERO, (0, 0));
    for _ in 0..400 {
        world.step(speeds);
    }
    at_least(&world, 30.0);
    assert_eq!((world.member.standing(), world.paced), (Standing::GivenUp, Duration::ZERO));
}

#[test]
fn a_member_that_falls_back_costs_a_quarter_at_most() {
    let (world, end) = lagging(30, 24, 200, true);
    assert!(end.is_some_and(|(standing, _)| standing == Standing::Level), "{end:?}");
    at_least(&world, 22.5);
    let (world, end) = lagging(30, 10, 200, true);
    within(end, Standing::GivenUp, 55.0..=70.0);
    at_least(&world, 22.5);
}

#[test]
fn a_member_that_was_given_up_is_tried_again_when_less_is_written_and_every_ten_minutes() {
    let given_up = || {
        let (mut world, end) = lagging(30, 5, 100, true);
        within(end, Standing::GivenUp, 45.0..=70.0);
        world.room = u64::MAX;
        world
    };
    let until_tried = |world: &mut World, writes: u64| {
        let (begun, speeds) = (world.now, Speeds { writes, rows: 80, entries: 5 });
        while world.member.standing() == Standing::GivenUp {
            world.step(speeds);
            assert!(world.now < begun + 700.0, "it is never tried again");
        }
        world.now - begun
    };
    let took = until_tried(&mut given_up(), 2);
    assert!((9.0..14.0).contains(&took), "{took} s at 2 MB/s");
    let took = until_tried(&mut given_up(), 0);
    assert!((1.0..5.0).contains(&took), "{took} s at rest: it may be needed for a majority");
    let mut world = given_up();
    let took = until_tried(&mut world, 30);
    assert!((595.0..605.0).contains(&took), "{took} s at 30 MB/s");
    world.paced = Duration::ZERO;
    world.play(Speeds { writes: 30, rows: 80, entries: 5 }, 100.0);
    assert_eq!((world.member.standing(), world.paced), (Standing::GivenUp, Duration::ZERO));
}

#[test]
fn a_silent_member_costs_nothing() {
    let speeds = Speeds { writes: 30, rows: 80, entries: 80 };
    let mut world = World::new(speeds, room_of(0), Duration::from_millis(25));
    world.silent();
    assert_eq!((world.member.standing(), world.member.pace()), (Standing::Silent, None));
}

#[test]
fn a_bucket_lets_through_its_pace_and_no_more_than_a_moment_at_once() {
    let tick = Duration::from_millis(25);
    let mut bucket = Bucket::of(10 * MB);
    for _ in 0..400 {
        bucket.fill(10 * MB, tick);
    }
    let mut through = 0;
    while bucket.is_open() {
        bucket.take(1000);
        through += 1000;
    }
    assert!((490_000..=510_000).contains(&through), "{through} bytes after a pause");
    let mut through = 0;
    for _ in 0..400 {
        bucket.fill(10 * MB, tick);
        while bucket.is_open() {
            bucket.take(300_000);
            through += 300_000;
        }
    }
    assert!((99 * MB..=101 * MB).contains(&through), "{through} bytes in 10 s");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a member does: no pace is below a floor, and no more log is wanted for it than there is room.
    #[test]
    fn the_floor_and_the_room_hold_at_any_speed(
        writes in 2_u64..150,
        changes in proptest::collection::vec((1_u64..150, 0_u64..150), 1..6),
        table in prop_oneof![Just(0_u64), 100_u64..3000],
        lag in 0_u64..500,
        was_level in any::<bool>(),
    ) {
        let (rows, entries) = changes[0];
        let mut world = World::new(Speeds { writes, rows, entries }, 1024 * MB, Duration::from_millis(50));
        if !was_level {
            world.silent();
        }
        (world.rows, world.lag) = (table * MB, lag * MB);
        for (rows, entries) in changes.into_iter().cycle().take(12) {
            for _ in 0..600 {
                world.step(Speeds { writes, rows, entries });
                if let Some(pace) = world.member.pace() {
                    prop_assert!(pace >= writes * MB / 4 * 95 / 100, "{pace} beside {writes} MB/s");
                }
                if world.lag > world.room {
                    prop_assert!(world.member.standing() != Standing::Arriving, "{} bytes are kept", world.lag);
                }
            }
        }
    }

    /// A member that takes three quarters of what is written arrives, whatever it lacks.
    #[test]
    fn a_member_that_is_fast_enough_arrives(
        writes in 4_u64..100,
        faster in 0_u64..50,
        table in prop_oneof![Just(0_u64), 100_u64..4000],
        lag in 0_u64..500,
    ) {
        let speed = writes * 3 / 4 + faster + 1;
        let speeds = Speeds { writes, rows: speed, entries: speed };
        let mut world = World::new(speeds, room_of(table * MB), Duration::from_millis(50));
        world.silent();
        (world.rows, world.lag) = (table * MB, if table == 0 { lag * MB } else { 0 });
        let end = world.play(speeds, 5000.0);
        prop_assert_eq!(end.map(|(standing, _)| standing), Some(Standing::Level));
    }
}
