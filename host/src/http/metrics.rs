//! The page that Prometheus reads: a pure function of a server's status and of what it measured.
//!
//! Names follow Prometheus' rules: base units, counters end in `_total`, labels have few values.
//! Each sample carries the group and the replica. Shards are summed by state; each shard on its own
//! is shown only when it is asked for.

use std::collections::BTreeMap;

use base::times::{BOUNDS_MICROS, Counted};
use clerk::api::status::{CtrlStatus, KvStatus, ReplicaStatus, Role, ShardPhase};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::Shown;
use crate::measures::{Ended, Measures, VerbCounted};

/// The whole page; `shards`: each shard on its own, too.
pub(super) fn text(shown: &Shown, measures: &Measures, shards: bool) -> String {
    let mut page = Page::new(shown);
    page.gauge(
        "build_info",
        "The version of the program, as a label.",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    requests(&mut page, measures);
    replica(&mut page, shown.replica());
    peers(&mut page, shown.replica());
    connections(&mut page, shown.replica());
    match shown {
        Shown::Controller(status) => controller(&mut page, status),
        Shown::Group(status) => group(&mut page, status, shards),
    }
    page.encode()
}

/// Families in the making, in the order of their names.
struct Page {
    prefix: &'static str,
    constant: Vec<LabelPair>,
    families: BTreeMap<String, MetricFamily>,
}

impl Page {
    fn new(shown: &Shown) -> Self {
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
    fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value as f64);
        let mut metric = Metric::default();
        metric.set_gauge(gauge);
        self.add(name, help, MetricType::GAUGE, labels, metric);
    }

    #[expect(clippy::cast_precision_loss, reason = "all numbers are floating point to Prometheus")]
    fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        self.add(name, help, MetricType::COUNTER, labels, metric);
    }

    #[expect(clippy::cast_precision_loss, reason = "all numbers are floating point to Prometheus")]
    fn times(&mut self, name: &str, help: &str, labels: &[(&str, &str)], counted: &Counted) {
        let bucket = |(bound, count): (u64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound as f64 / 1e6);
            bucket.set_cumulative_count(count);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_sample_count(counted.count);
        histogram.set_sample_sum(counted.micros as f64 / 1e6);
        histogram.set_bucket(BOUNDS_MICROS.into_iter().zip(counted.at_most).map(bucket).collect());
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        self.add(name, help, MetricType::HISTOGRAM, labels, metric);
    }

    fn encode(self) -> String {
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

fn requests(page: &mut Page, measures: &Measures) {
    page.gauge("requests_in_flight", "Requests that are being answered.", &[], measures.in_progress());
    for VerbCounted { name, ended, times } in measures.read() {
        for (outcome, count) in Ended::ALL.into_iter().zip(ended) {
            let labels = [("verb", name), ("outcome", outcome.name())];
            page.counter("requests_total", "Requests that ended, by verb and outcome.", &labels, count);
        }
        let help = "From the arrival of a request to its answer.";
        page.times("request_duration_seconds", help, &[("verb", name)], &times);
    }
}

fn replica(page: &mut Page, replica: &ReplicaStatus) {
    let leads = u64::from(replica.role == Role::Leader);
    page.gauge("raft_leader", "1: this replica leads its group.", &[], leads);
    let knows = u64::from(replica.leader.is_some());
    page.gauge("raft_has_leader", "1: this replica knows of a leader.", &[], knows);
    page.gauge("raft_term", "The term of this replica.", &[], replica.term);
    page.gauge("raft_commit_index", "The last entry that it knows to be committed.", &[], replica.commit);
    page.gauge("raft_applied_index", "The last entry that it applied.", &[], replica.applied);
    let help = "Bytes of entries that are committed and not applied.";
    page.gauge("raft_unapplied_bytes", help, &[], replica.unapplied_bytes);
    page.gauge("raft_log_bytes", "Bytes of log in memory.", &[], replica.log_bytes);
    page.counter("raft_alarms_total", "Signs that a promise does not hold.", &[], replica.alarms);
    let help = "Messages of peers that were refused.";
    page.counter("raft_refused_messages_total", help, &[], replica.refused_messages);
    let help = "1: the table differs from the other replicas', and is replaced.";
    page.gauge("raft_table_bad", help, &[], u64::from(replica.table_bad));
    let help = "1: this server lost a part of its log, and gets it back.";
    page.gauge("raft_repairing", help, &[], u64::from(replica.owes.is_some()));
    page.counter("wal_syncs_total", "Synced writes of the log.", &[], replica.wal_syncs);
    let help = "Synced writes that took longer than the shortest election timeout.";
    page.counter("wal_slow_syncs_total", help, &[], replica.slow_syncs);
    page.gauge("disk_free_bytes", "Free bytes of the disk with the data.", &[], replica.disk.free_bytes);
    let help = "With fewer free bytes only what frees space is accepted.";
    page.gauge("disk_reserve_bytes", help, &[], replica.disk.reserve_bytes);
    page.gauge(
        "disk_full",
        "1: the disk has less free space than its reserve.",
        &[],
        u64::from(replica.disk.low),
    );
}

/// The others, as a leader sees them.
fn peers(page: &mut Page, replica: &ReplicaStatus) {
    for (peer, follower) in &replica.followers {
        let peer = peer.to_string();
        let labels = [("peer", peer.as_str())];
        let help = "Committed entries that a peer is not known to have. Of leaders only.";
        page.gauge("raft_peer_lag_entries", help, &labels, follower.lacks);
        let help = "Time since a peer was heard. Of leaders only.";
        page.gauge("raft_peer_silence_seconds", help, &labels, follower.silent_seconds);
    }
}

fn connections(page: &mut Page, replica: &ReplicaStatus) {
    let connections = &replica.connections;
    for (service, places) in &connections.open {
        let labels = [("service", service.as_str())];
        page.gauge("connections", "Open connections, by what they are for.", &labels, places.open);
        page.gauge("connections_max", "How many may be open.", &labels, places.max);
    }
    page.counter("connections_accepted_total", "Connections that were taken.", &[], connections.accepted);
    let help = "Idle connections that were closed for new ones.";
    page.counter("connections_made_room_total", help, &[], connections.made_room);
    let help = "Connections that were refused, by reason.";
    let own = [("no_place", connections.turned_away), ("malformed", connections.malformed)];
    let refused = replica.refused.iter().map(|(reason, count)| (reason.as_str(), *count));
    for (reason, count) in own.into_iter().chain(refused) {
        page.counter("connections_refused_total", help, &[("reason", reason)], count);
    }
    let help = "Bytes of requests and answers that wait on connections.";
    page.gauge("connections_waiting_bytes", help, &[], connections.waiting_bytes);
}

const CONFIG_HELP: &str = "The configuration that this server follows.";

fn controller(page: &mut Page, status: &CtrlStatus) {
    page.gauge("config_number", CONFIG_HELP, &[], status.config.0);
    let help = "1: it waits for the configurations that the groups hold.";
    page.gauge("recovering", help, &[], u64::from(status.recovering));
}

fn group(page: &mut Page, status: &KvStatus, shards: bool) {
    page.gauge("config_number", CONFIG_HELP, &[], status.config.0);
    let help = "1: every shard is where that configuration wants it.";
    page.gauge("settled", help, &[], u64::from(status.settled));
    for phase in ShardPhase::ALL {
        let count = status.shards.iter().filter(|shard| shard.phase == phase).count();
        page.gauge(
            "shards",
            "Shards that the group holds, by state.",
            &[("state", phase.name())],
            count as u64,
        );
    }
    page.gauge(
        "keys",
        "Keys of the shards that the group holds.",
        &[],
        status.shards.iter().map(|it| it.rows).sum(),
    );
    let bytes = status.shards.iter().map(|it| it.bytes).sum();
    page.gauge("key_bytes", "Bytes of those keys and their values.", &[], bytes);
    page.gauge("sessions", "Sessions of clients that are open.", &[], status.sessions.open);
    let help = "Sessions that were dropped for new ones.";
    page.counter("sessions_expired_total", help, &[], status.sessions.evicted);
    let help = "New sessions that were refused because all others were in use.";
    page.counter("sessions_refused_total", help, &[], status.sessions.refused);
    let help = "Shards that arrived with an end that did not match. Each is a bug.";
    page.counter("move_wipes_total", help, &[], status.wipes);
    if shards {
        for it in &status.shards {
            let shard = it.shard.to_string();
            let labels = [("shard", shard.as_str())];
            page.gauge("shard_keys", "Keys of a shard.", &labels, it.rows);
            page.gauge("shard_bytes", "Bytes of a shard's keys and values.", &labels, it.bytes);
        }
    }
}
