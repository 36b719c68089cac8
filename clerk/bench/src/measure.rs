//! Counts and latencies of a run: in total, by phase, and by second.
//!
//! An operation is counted in the window of the second in which it ends; a full window goes into
//! the series and into its phase. The last window of a phase is rarely a full second: a short one
//! is joined to the window before it, so that no point of the series covers only a few
//! milliseconds.

use std::time::Duration;

use base::clock::Instant;
use clerk::kv::Error;
use hdrhistogram::Histogram;

use super::record::Op;
use super::result::{Figures, Latencies, Second};

/// The longest distinguishable latency, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
const DIGITS: u8 = 3;
const WINDOW: Duration = Duration::from_secs(1);
/// A window of at least this length stays separate.
const WINDOW_MIN: Duration = Duration::from_millis(500);
/// An operation that begins this much later than it was due is late.
const LATE: Duration = Duration::from_millis(1);

pub struct Measure {
    started: Instant,
    phase: Option<Phase>,
    series: Vec<Second>,
    /// All phases that count.
    total: Window,
    seconds: f64,
    /// When the last operation of phases that count was acknowledged.
    last: Option<Instant>,
    longest_gap_ns: u64,
    last_error: Option<String>,
}

/// The phase that runs.
struct Phase {
    name: String,
    /// It is part of the result.
    counts: bool,
    started: Instant,
    total: Window,
    full: Option<Window>,
    current: Window,
}

struct Window {
    started: Instant,
    /// Set when it is full.
    length: Duration,
    read: Histogram<u64>,
    write: Histogram<u64>,
    errors: u64,
    unknown: u64,
    missing: u64,
    late: u64,
    dropped: u64,
}

impl Window {
    fn new(started: Instant) -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS)
                .expect("these bounds and digits are allowed")
        };
        Self {
            started,
            length: Duration::ZERO,
            read: histogram(),
            write: histogram(),
            errors: 0,
            unknown: 0,
            missing: 0,
            late: 0,
            dropped: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds, so everything fits.
        let _ = self.read.add(&other.read);
        let _ = self.write.add(&other.write);
        self.length += other.length;
        self.errors += other.errors;
        self.unknown += other.unknown;
        self.missing += other.missing;
        self.late += other.late;
        self.dropped += other.dropped;
    }

    fn clear(&mut self, started: Instant) {
        self.read.reset();
        self.write.reset();
        (self.started, self.length) = (started, Duration::ZERO);
        (self.errors, self.unknown, self.missing, self.late, self.dropped) = (0, 0, 0, 0, 0);
    }

    fn operations(&self) -> u64 {
        self.read.len() + self.write.len()
    }

    fn figures(&self, seconds: f64, last_error: Option<String>) -> Figures {
        let operations = self.operations();
        Figures {
            operations,
            seconds,
            throughput: if seconds > 0.0 { operations as f64 / seconds } else { 0.0 },
            errors: self.errors,
            last_error,
            unknown: self.unknown,
            missing: self.missing,
            late: self.late,
            dropped: self.dropped,
            read: latencies(&self.read),
            write: latencies(&self.write),
        }
    }
}

fn latencies(histogram: &Histogram<u64>) -> Latencies {
    let some = !histogram.is_empty();
    let quantile = |quantile| some.then(|| histogram.value_at_quantile(quantile).min(histogram.max()));
    Latencies {
        count: histogram.len(),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        max_us: some.then(|| histogram.max()),
    }
}

impl Measure {
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            phase: None,
            series: Vec::new(),
            total: Window::new(started),
            seconds: 0.0,
            last: None,
            longest_gap_ns: 0,
            last_error: None,
        }
    }

    /// A phase begins. Only one that `counts` is part of the totals.
    pub fn begin(&mut self, name: &str, counts: bool, now: Instant) {
        if counts {
            self.last.get_or_insert(now);
        }
        self.phase = Some(Phase {
            name: name.to_owned(),
            counts,
            started: now,
            total: Window::new(now),
            full: None,
            current: Window::new(now),
        });
    }

    /// An operation that was due at `due` and begun at `begun` was acknowledged at `now`.
    pub fn done(&mut self, op: Op, due: Instant, begun: Instant, now: Instant) {
        self.gap(now);
        let Some(window) = self.window(now) else { return };
        let micros = u64::try_from(now.since(due).as_micros()).unwrap_or(u64::MAX).max(1);
        let histogram = if op == Op::Get { &mut window.read } else { &mut window.write };
        histogram.saturating_record(micros);
        window.late += u64::from(begun.since(due) > LATE);
    }

    /// A get found nothing.
    pub fn missing(&mut self, now: Instant) {
        if let Some(window) = self.window(now) {
            window.missing += 1;
        }
    }

    pub fn error(&mut self, error: &Error, now: Instant) {
        self.last_error = Some(error.to_string());
        if let Some(window) = self.window(now) {
            window.errors += 1;
        }
    }

    pub fn unknown(&mut self, now: Instant) {
        if let Some(window) = self.window(now) {
            window.unknown += 1;
        }
    }

    fn gap(&mut self, now: Instant) {
        if !self.phase.as_ref().is_some_and(|phase| phase.counts) {
            return;
        }
        if let Some(last) = &mut self.last {
            let gap = u64::try_from(now.since(*last).as_nanos()).unwrap_or(u64::MAX);
            self.longest_gap_ns = self.longest_gap_ns.max(gap);
            *last = now.max(*last);
        }
    }

    /// The window of `now`. Full ones before it are put away.
    fn window(&mut self, now: Instant) -> Option<&mut Window> {
        let phase = self.phase.as_mut()?;
        while now.since(phase.current.started) >= WINDOW {
            let next = phase.current.started.after(WINDOW);
            phase.current.length = WINDOW;
            // The window put away last makes the next one: histograms are large.
            let mut fresh = match phase.full.take() {
                Some(full) => {
                    put_away(&mut self.series, self.started, &phase.name, phase.counts, &full);
                    full
                }
                None => Window::new(next),
            };
            fresh.clear(next);
            phase.total.add(&phase.current);
            phase.full = Some(std::mem::replace(&mut phase.current, fresh));
        }
        Some(&mut phase.current)
    }

    /// Ends the phase, which was to end at `end`; returns its figures. A pause at its end counts
    /// like any other.
    pub fn end(&mut self, now: Instant, end: Instant, dropped: u64) -> Figures {
        self.gap(now.min(end));
        if let Some(window) = self.window(now) {
            window.dropped += dropped;
            window.length = now.since(window.started);
        }
        let Some(Phase { name, counts, started, mut total, full, current }) = self.phase.take() else {
            return Figures::default();
        };
        total.add(&current);
        let mut last = vec![current];
        match full {
            Some(mut full) if last[0].length < WINDOW_MIN => {
                full.add(&last[0]);
                last[0] = full;
            }
            full => last.splice(0..0, full).for_each(drop),
        }
        for window in &last {
            put_away(&mut self.series, self.started, &name, counts, window);
        }
        let seconds = now.since(started).as_secs_f64();
        if counts {
            self.total.add(&total);
            self.seconds += seconds;
        }
        total.figures(seconds, self.last_error.clone().filter(|_| total.errors > 0))
    }

    /// Operations of the phase so far, and the rest of a line for people.
    pub fn line(&self) -> (u64, String) {
        let Some(phase) = &self.phase else { return (0, String::new()) };
        let sum = |count: fn(&Window) -> u64| count(&phase.total) + count(&phase.current);
        let (errors, unknown) = (sum(|window| window.errors), sum(|window| window.unknown));
        (sum(Window::operations), format!("{errors} errors, {unknown} unknown"))
    }

    /// The figures of all phases that counted.
    pub fn totals(&self) -> Figures {
        self.total.figures(self.seconds, self.last_error.clone().filter(|_| self.total.errors > 0))
    }

    pub fn longest_gap_ms(&self) -> f64 {
        self.longest_gap_ns as f64 / 1e6
    }

    pub fn series(&self) -> Vec<Second> {
        self.series.clone()
    }
}

fn put_away(series: &mut Vec<Second>, started: Instant, phase: &str, measured: bool, window: &Window) {
    let at = window.started.since(started).as_secs_f64();
    let figures = window.figures(window.length.as_secs_f64(), None);
    series.push(Second { at_s: at, phase: phase.to_owned(), measured, figures });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::clock;
    use clerk::kv::Error;

    use super::{Measure, Op};

    async fn pass(millis: u64) -> clock::Instant {
        clock::sleep(Duration::from_millis(millis)).await;
        clock::now()
    }

    #[tokio::test(start_paused = true)]
    async fn operations_are_counted_in_their_second_and_their_phase() {
        let start = clock::now();
        let mut measure = Measure::new(start);
        measure.begin("warm-up", false, start);
        let now = pass(100).await;
        measure.done(Op::Put, now, now, now);
        let now = pass(100).await;
        assert_eq!(measure.end(now, now, 0).operations, 1);
        measure.begin("load", true, now);
        let phase = now;
        // In the seconds 0, 2, 2 and 3, the last of which is too short to stand alone.
        for (wait, op) in [(500, Op::Get), (1600, Op::Put), (700, Op::Put), (300, Op::Get)] {
            let begun = clock::now();
            let now = pass(wait).await;
            measure.done(op, begun, begun, now);
        }
        let now = clock::now();
        measure.error(&Error::Refused { why: "no".into() }, now);
        measure.unknown(now);
        measure.missing(now);
        let figures = measure.end(now, now, 5);
        assert_eq!((figures.operations, figures.errors, figures.unknown), (4, 1, 1));
        assert_eq!((figures.missing, figures.dropped, figures.late), (1, 5, 0));
        assert_eq!(figures.last_error.as_deref(), Some("no"));
        assert_eq!((figures.read.count, figures.write.count), (2, 2));
        assert_eq!(figures, measure.totals(), "the warm-up does not count");
        let seconds: Vec<(u64, u64, bool)> = (measure.series().iter())
            .map(|second| (second.figures.operations, (second.at_s * 10.0).round() as u64, second.measured))
            .collect();
        assert_eq!(seconds, [(1, 0, false), (1, 2, true), (0, 12, true), (3, 22, true)]);
        assert!((measure.longest_gap_ms() - 1600.0).abs() < 1.0);
        assert!((now.since(phase).as_secs_f64() - figures.seconds).abs() < 1e-9);
    }

    #[tokio::test(start_paused = true)]
    async fn latency_counts_from_when_an_operation_was_due() {
        let start = clock::now();
        let mut measure = Measure::new(start);
        measure.begin("load", true, start);
        let begun = pass(40).await;
        let now = pass(2).await;
        measure.done(Op::Get, start, begun, now);
        let figures = measure.end(now, now, 0);
        assert_eq!(figures.late, 1);
        assert!((41_000..=43_000).contains(&figures.read.p50_us.unwrap()), "{figures:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_at_the_end_counts_but_not_what_comes_after_it() {
        let start = clock::now();
        let mut measure = Measure::new(start);
        measure.begin("load", true, start);
        let end = pass(60).await;
        let now = pass(500).await;
        measure.end(now, end, 0);
        assert!((measure.longest_gap_ms() - 60.0).abs() < 1.0, "{}", measure.longest_gap_ms());
    }
}
