//! Medians, ratios, and the tables that show them.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::load::Measured;
use super::points::{How, Metric, POINTS, Point, TARGETS, Target};

/// The store whose targets these are.
pub const OURS: &str = "ours";

/// The measurements, by point and store, one per round.
#[derive(Clone, Debug, Default)]
pub struct Results {
    runs: BTreeMap<(&'static str, &'static str), Vec<Measured>>,
    /// Stores in the order in which they were added.
    stores: Vec<&'static str>,
}

/// The middle figure; of an even number of figures, the lower one of the two in the middle.
pub fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().checked_sub(1)? / 2).copied()
}

/// A table; columns whose head begins with `>` are aligned to the right.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.iter().map(|name| name.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (index, name) in head.iter().enumerate() {
        let side = if name.starts_with('>') { CellAlignment::Right } else { CellAlignment::Left };
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(side);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A figure with a sensible number of digits.
pub fn figure(value: f64) -> String {
    let digits = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

impl Results {
    /// Adds a measurement.
    pub fn add(&mut self, point: &'static str, store: &'static str, measured: Measured) {
        if !self.stores.contains(&store) {
            self.stores.push(store);
        }
        self.runs.entry((point, store)).or_default().push(measured);
    }

    fn runs(&self, point: &'static str, store: &'static str) -> &[Measured] {
        self.runs.get(&(point, store)).map_or(&[], Vec::as_slice)
    }

    /// The median of a figure over the rounds.
    pub fn median(&self, point: &'static str, store: &'static str, metric: Metric) -> Option<f64> {
        median(self.runs(point, store).iter().map(|run| metric.of(run)))
    }

    /// The state of a target: the median, and whether it reaches the target; none if it was not
    /// measured.
    pub fn verdict(&self, target: &Target) -> Option<(f64, bool)> {
        let median = self.median(target.point, OURS, target.metric)?;
        Some((median, target.metric.reaches(median, target.must)))
    }

    /// The state of a target beside its peer in this run: the ratio of the medians, and whether it
    /// is reached; none if one of the two was not measured.
    pub fn ratio_verdict(&self, target: &Target) -> Option<(f64, bool)> {
        let (peer, must) = target.ratio()?;
        let theirs = self.median(target.point, peer, target.metric)?;
        let ratio = self.median(target.point, OURS, target.metric)? / theirs;
        Some((ratio, target.metric.reaches(ratio, must)))
    }

    /// Targets that were measured and missed: by their ratio if the peer was measured too,
    /// otherwise by their figure.
    pub fn missed(&self) -> usize {
        let verdict = |target| self.ratio_verdict(target).or_else(|| self.verdict(target));
        TARGETS.iter().filter(|target| verdict(*target).is_some_and(|(_, passed)| !passed)).count()
    }

    fn failed(&self, point: &'static str, store: &'static str) -> u64 {
        self.runs(point, store).iter().map(|run| run.failed).sum()
    }

    /// Every point and store, medians of all rounds.
    pub fn medians(&self) -> String {
        let head = [
            "point",
            "store",
            ">op/s",
            ">p50 ms",
            ">p99 ms",
            ">server us/op",
            ">client us/op",
            ">MiB",
            ">failed",
        ];
        let loops = POINTS.iter().filter(|point| matches!(point.how, How::Loop(_)));
        let rows = loops.flat_map(|point| self.stores.iter().map(move |store| (point, *store)));
        table(&head, rows.filter_map(|(point, store)| self.row(point, store)))
    }

    fn row(&self, point: &Point, store: &'static str) -> Option<Vec<String>> {
        let runs = self.runs(point.name, store);
        let client = median(runs.iter().map(|run| run.client_us))?;
        let shown = |metric| self.median(point.name, store, metric).map(figure).unwrap_or_default();
        let own = [Metric::Rate, Metric::P50, Metric::P99, Metric::ServerCpu].map(shown);
        let ends = [figure(client), shown(Metric::Memory), self.failed(point.name, store).to_string()];
        Some([point.text.to_owned(), store.to_owned()].into_iter().chain(own).chain(ends).collect())
    }

    /// Every target: our figure and the others', the runs, and whether it is reached.
    pub fn targets(&self) -> String {
        let others: Vec<&'static str> = self.stores.iter().copied().filter(|store| *store != OURS).collect();
        let names: Vec<String> = others.iter().map(|store| format!(">{store}")).collect();
        let ratios: Vec<String> = others.iter().map(|store| format!(">to {store}")).collect();
        let mut head = vec!["target", "unit"];
        head.extend(names.iter().map(String::as_str));
        head.extend([">ours", "runs"]);
        head.extend(ratios.iter().map(String::as_str));
        head.extend([">must", ">aim", "", ">must, ratio", ""]);
        table(&head, TARGETS.iter().filter_map(|target| self.target_row(target, &others)))
    }

    fn target_row(&self, target: &Target, others: &[&'static str]) -> Option<Vec<String>> {
        let (ours, passed) = self.verdict(target)?;
        let text = POINTS.iter().find(|point| point.name == target.point)?.text;
        let theirs: Vec<Option<f64>> =
            others.iter().map(|store| self.median(target.point, store, target.metric)).collect();
        let runs = self.runs(target.point, OURS).iter().map(|run| figure(target.metric.of(run)));
        let dash = || "-".to_owned();
        let mut row = vec![text.to_owned(), target.metric.unit().to_owned()];
        row.extend(theirs.iter().map(|theirs| theirs.map_or_else(dash, figure)));
        row.extend([figure(ours), runs.collect::<Vec<_>>().join(" ")]);
        row.extend(theirs.iter().map(|theirs| theirs.map_or_else(dash, |it| format!("{:.2}x", ours / it))));
        row.extend([figure(target.must), figure(target.aim)]);
        let judged = |passed: bool| if passed { "pass" } else { "MISS" }.to_owned();
        row.push(judged(passed));
        row.push(target.ratio().map_or_else(dash, |(peer, must)| format!("{must:.2}x {peer}")));
        row.push(self.ratio_verdict(target).map_or_else(dash, |(_, passed)| judged(passed)));
        Some(row)
    }

    /// Everything for programs: each run, medians, and the state of the targets.
    pub fn document(&self) -> Value {
        let points: Vec<Value> = self
            .runs
            .iter()
            .map(|((point, store), runs)| {
                let (point, store) = (*point, *store);
                let of = |metric: Metric| self.median(point, store, metric);
                json!({
                    "point": point, "store": store, "runs": runs,
                    "median": {
                        "rate": of(Metric::Rate), "p50_ms": of(Metric::P50), "p99_ms": of(Metric::P99),
                        "server_us": of(Metric::ServerCpu), "rss_mib": of(Metric::Memory),
                    },
                })
            })
            .collect();
        let targets: Vec<Value> = TARGETS
            .iter()
            .filter_map(|target| {
                let (median, passed) = self.verdict(target)?;
                let ratios: BTreeMap<&str, f64> = self
                    .stores
                    .iter()
                    .filter(|store| **store != OURS)
                    .filter_map(|store| {
                        Some((*store, median / self.median(target.point, store, target.metric)?))
                    })
                    .collect();
                Some(json!({
                    "point": target.point, "unit": target.metric.unit(), "median": median,
                    "must": target.must, "aim": target.aim, "passed": passed, "ours_to": ratios,
                    "must_to": target.ratio().map(|(peer, must)| BTreeMap::from([(peer, must)])),
                    "passed_to": self.ratio_verdict(target).map(|(_, passed)| passed),
                }))
            })
            .collect();
        json!({ "points": points, "targets": targets })
    }
}

#[cfg(test)]
mod tests;
