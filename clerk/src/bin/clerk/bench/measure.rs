//! Counts and latencies of a run.

use base::clock::Instant;
use clerk::kv::Error;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::record::Op;
use crate::output::table;

/// Longest latency told apart, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

pub(super) struct Measure {
    started: Instant,
    /// When the last operation was acknowledged.
    last: Instant,
    longest_gap_ns: u64,
    errors: u64,
    last_error: Option<String>,
    unknown: u64,
    read: Option<Histogram<u64>>,
    write: Option<Histogram<u64>>,
}

impl Measure {
    pub(super) fn new(started: Instant) -> Self {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).ok();
        Self {
            started,
            last: started,
            longest_gap_ns: 0,
            errors: 0,
            last_error: None,
            unknown: 0,
            read: histogram(),
            write: histogram(),
        }
    }

    /// An operation was acknowledged at `now`.
    pub(super) fn done(&mut self, op: Op, nanos: u64, now: Instant) {
        let histogram = if op == Op::Get { &mut self.read } else { &mut self.write };
        if let Some(histogram) = histogram {
            histogram.saturating_record((nanos / 1000).max(1));
        }
        self.gap(now);
    }

    fn gap(&mut self, now: Instant) {
        let gap = now.as_nanos().saturating_sub(self.last.as_nanos());
        self.longest_gap_ns = self.longest_gap_ns.max(gap);
        self.last = self.last.max(now);
    }

    pub(super) fn error(&mut self, error: &Error) {
        self.errors += 1;
        self.last_error = Some(error.to_string());
    }

    pub(super) fn unknown(&mut self) {
        self.unknown += 1;
    }

    fn operations(&self) -> u64 {
        [&self.read, &self.write].into_iter().flatten().map(Histogram::len).sum()
    }

    /// Operations so far, and the rest of a line for people.
    pub(super) fn line(&self) -> (u64, String) {
        (self.operations(), format!("{} errors, {} unknown", self.errors, self.unknown))
    }

    /// The result. A pause at the end of the run counts like any other.
    pub(super) fn report(&mut self, end: Instant, start: u64, stop: u64) -> Report {
        let now = base::clock::now();
        self.gap(now.min(end));
        Report {
            operations: self.operations(),
            seconds: now.since(self.started).as_secs_f64(),
            errors: self.errors,
            last_error: self.last_error.clone(),
            unknown: self.unknown,
            longest_gap_ms: self.longest_gap_ns as f64 / 1e6,
            configs: (start, stop),
            read: Latencies::of(self.read.as_ref()),
            write: Latencies::of(self.write.as_ref()),
        }
    }
}

pub(super) struct Report {
    pub(super) operations: u64,
    seconds: f64,
    errors: u64,
    last_error: Option<String>,
    unknown: u64,
    longest_gap_ms: f64,
    configs: (u64, u64),
    read: Latencies,
    write: Latencies,
}

struct Latencies {
    count: u64,
    /// p50, p99, p99.9 and the longest; none without any.
    us: Option<[u64; 4]>,
}

impl Latencies {
    fn of(histogram: Option<&Histogram<u64>>) -> Self {
        let Some(histogram) = histogram.filter(|histogram| !histogram.is_empty()) else {
            return Self { count: 0, us: None };
        };
        let quantile = |quantile| histogram.value_at_quantile(quantile).min(histogram.max());
        let us = Some([quantile(0.5), quantile(0.99), quantile(0.999), histogram.max()]);
        Self { count: histogram.len(), us }
    }

    fn document(&self) -> Value {
        let us = |index: usize| self.us.map(|us| us[index]);
        json!({
            "count": self.count,
            "p50_us": us(0),
            "p99_us": us(1),
            "p999_us": us(2),
            "max_us": us(3),
        })
    }

    fn row(&self, name: &str) -> Vec<String> {
        let us = |index: usize| {
            self.us.map_or_else(|| "-".to_owned(), |us| format!("{:.2}", us[index] as f64 / 1000.0))
        };
        vec![name.to_owned(), self.count.to_string(), us(0), us(1), us(2), us(3)]
    }
}

impl Report {
    fn throughput(&self) -> f64 {
        if self.seconds > 0.0 { self.operations as f64 / self.seconds } else { 0.0 }
    }

    pub(super) fn document(&self) -> Value {
        json!({
            "operations": self.operations,
            "seconds": self.seconds,
            "throughput": self.throughput(),
            "errors": self.errors,
            "unknown": self.unknown,
            "longest_gap_ms": self.longest_gap_ms,
            "config_start": self.configs.0,
            "config_end": self.configs.1,
            "read": self.read.document(),
            "write": self.write.document(),
        })
    }

    pub(super) fn text(&self) -> String {
        let head = ["", ">COUNT", ">P50 MS", ">P99 MS", ">P99.9 MS", ">MAX MS"];
        let mut text = table(&head, [self.read.row("read"), self.write.row("write")]);
        text += &format!(
            "\n{} operations in {:.1} s: {:.0} a second\n",
            self.operations,
            self.seconds,
            self.throughput()
        );
        text += &format!("{} errors, {} of unknown outcome", self.errors, self.unknown);
        if let Some(error) = &self.last_error {
            text += &format!(" (the last error: {error})");
        }
        let (start, stop) = self.configs;
        text += &format!("\nlongest pause {:.0} ms; configuration {start} to {stop}\n", self.longest_gap_ms);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::clock;
    use serde_json::json;

    use super::{Measure, Op};

    #[tokio::test(start_paused = true)]
    async fn a_report_has_the_shape_of_the_contract() {
        let started = clock::now();
        let mut measure = Measure::new(started);
        clock::sleep(Duration::from_millis(40)).await;
        measure.done(Op::Get, 2_000_000, clock::now());
        clock::sleep(Duration::from_millis(60)).await;
        let report = measure.report(clock::now(), 3, 5);
        let expected = json!({
            "operations": 1, "seconds": 0.1, "throughput": 10.0, "errors": 0, "unknown": 0,
            "longest_gap_ms": 60.0, "config_start": 3, "config_end": 5,
            "read": {"count": 1, "p50_us": 2000, "p99_us": 2000, "p999_us": 2000, "max_us": 2000},
            "write": {"count": 0, "p50_us": null, "p99_us": null, "p999_us": null, "max_us": null},
        });
        let mut document = report.document();
        for (name, expected) in expected.as_object().unwrap() {
            let found = document[name].take();
            match expected.as_f64().filter(|_| name != "operations") {
                Some(number) => assert!((found.as_f64().unwrap() - number).abs() < 0.2, "{name}: {found}"),
                None if name == "read" => assert_eq!(found["count"], 1),
                None => assert_eq!(found, *expected, "{name}"),
            }
        }
        assert_eq!(document.as_object().unwrap().len(), expected.as_object().unwrap().len());
    }
}
