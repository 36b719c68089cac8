//! A page in Prometheus' text format, in the making: families of metrics, and the labels that each of
//! their samples has.

use std::collections::BTreeMap;
use std::time::Duration;

use base::times::{BOUNDS_AMOUNTS, BOUNDS_MICROS, Counted};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use crate::http::Shown;

/// Families in the making, in the order of their names.
pub(super) struct Page {
    prefix: &'static str,
    constant: Vec<LabelPair>,
    families: BTreeMap<String, MetricFamily>,
}

impl Page {
    pub(super) fn new(shown: &Shown) -> Self {
        let (prefix, group) = match shown {
            Shown::Controller(_) => ("shardctrler", "ctrl".to_owned()),
            Shown::Group(status) => ("shardkv", status.group.to_string()),
        };
        let replica = shown.replica().id.to_string();
        let constant = vec![label("group", &group), label("replica", &replica)];
        Self { prefix, constant, families: BTreeMap::new() }
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, labels: &[(&str, &str)], metric: Metric) {
        let name = format!("{}_{name}", self.prefix);
        let mut metric = metric;
        let labels = labels.iter().map(|(name, value)| label(name, value));
        metric.set_label(self.constant.iter().cloned().chain(labels).collect());
        let family = self.families.entry(name).or_insert_with_key(|name| {
            let mut family = MetricFamily::default();
            family.set_name(name.clone());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        family.mut_metric().push(metric);
    }

    #[expect(clippy::cast_precision_loss, reason = "all numbers are floating point to Prometheus")]
    pub(super) fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.gauge_of(name, help, labels, value as f64);
    }

    /// A gauge of seconds.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: Duration) {
        self.gauge_of(name, help, &[], value.as_secs_f64());
    }

    fn gauge_of(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::default();
        metric.set_gauge(gauge);
        self.add(name, help, MetricType::GAUGE, labels, metric);
    }

    #[expect(clippy::cast_precision_loss, reason = "all numbers are floating point to Prometheus")]
    pub(super) fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        self.add(name, help, MetricType::COUNTER, labels, metric);
    }

    /// A histogram of times.
    pub(super) fn times(&mut self, name: &str, help: &str, labels: &[(&str, &str)], counted: &Counted) {
        self.histogram(name, help, labels, counted, (&BOUNDS_MICROS, 1e6));
    }

    /// A histogram of amounts.
    pub(super) fn amounts(&mut self, name: &str, help: &str, counted: &Counted) {
        self.histogram(name, help, &[], counted, (&BOUNDS_AMOUNTS, 1.0));
    }

    /// One whose numbers are shown divided by `scale`.
    #[expect(clippy::cast_precision_loss, reason = "all numbers are floating point to Prometheus")]
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        counted: &Counted,
        (bounds, scale): (&[u64], f64),
    ) {
        let bucket = |(bound, count): (&u64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / scale);
            bucket.set_cumulative_count(count);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_sample_count(counted.count);
        histogram.set_sample_sum(counted.sum as f64 / scale);
        histogram.set_bucket(bounds.iter().zip(counted.at_most).map(bucket).collect());
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        self.add(name, help, MetricType::HISTOGRAM, labels, metric);
    }

    pub(super) fn encode(self) -> String {
        let mut families: Vec<MetricFamily> = self.families.into_values().collect();
        families.extend(ProcessCollector::for_self().collect());
        let mut page = Vec::new();
        // Only an empty family or a failing writer is an error; there is neither.
        let encoded = TextEncoder::new().encode(&families, &mut page);
        encoded.map_or_else(|error| format!("# {error}\n"), |()| String::from_utf8_lossy(&page).into_owned())
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}
