//! The page of a run: one self-contained HTML file with charts, readable by somebody who never saw
//! this tool; light or dark like the reader's system.

pub mod chart;
pub mod page;

use std::fmt::Write as _;

use self::chart::{Band, Chart, Line, MarkAt, Style};
use self::page::{Page, count, escape, table};
use super::result::{Figures, Latencies, MarkKind, PhaseResult, Report, Second};
use super::words::{self, mib, ms};

/// Writes the page of a run.
pub fn report(report: &Report) -> String {
    let title = report.label.clone().unwrap_or_else(|| format!("Load test of cluster {}", report.cluster.id));
    let mut page = Page::new(&title);
    page.paragraph(&summary(report));
    page.tiles(&tiles(report));
    for warning in words::warnings(report).lines() {
        page.note(warning);
    }
    let timeline = Timeline::of(report);
    page.html(&timeline.charts(&report.series));
    page.html(&timeline.usage(report));
    page.section("What happened", &events(report));
    page.section("Results", &results(report));
    page.section("Processor time and memory", &processes(report));
    page.section("How it was run", &settings(report));
    page.section("How to read this", GLOSSARY);
    page.finish()
}

fn summary(report: &Report) -> String {
    let cluster = &report.cluster;
    format!(
        "{} of load against {} ({}, {} shards), begun {}.",
        seconds(report.figures.seconds),
        plural(cluster.groups, "group"),
        plural(cluster.servers, "server"),
        cluster.shards,
        page::date(report.started_unix_ms),
    )
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.0} seconds")
}

fn plural(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

fn tiles(report: &Report) -> Vec<(String, String)> {
    let figures = &report.figures;
    let mut tiles = vec![("operations a second".to_owned(), count(figures.throughput))];
    for (name, latencies) in [("read", &figures.read), ("write", &figures.write)] {
        if latencies.count > 0 {
            let pair = format!("{} / {} ms", ms(latencies.p50_us), ms(latencies.p99_us));
            tiles.push((format!("{name} p50 / p99"), pair));
        }
    }
    if let Some(us) = report.processes.server_cpu_us_per_operation {
        tiles.push(("server CPU an operation".to_owned(), format!("{us:.1} us")));
    }
    tiles.push(("longest pause".to_owned(), format!("{} ms", count(report.longest_gap_ms))));
    let failed = figures.errors + figures.unknown;
    tiles.push(("errors, unknown outcomes".to_owned(), count(failed as f64)));
    tiles
}

/// A part of the figures.
type Of = fn(&Figures) -> Latencies;

/// What all charts over time share.
pub struct Timeline {
    length_s: f64,
    bands: Vec<Band>,
    marks: Vec<MarkAt>,
}

impl Timeline {
    pub fn of(report: &Report) -> Self {
        let end = |phase: &PhaseResult| phase.at_s + phase.figures.seconds;
        let band = |phase: &PhaseResult| Band {
            name: phase.name.clone(),
            from_s: phase.at_s,
            to_s: end(phase),
            counts: phase.measured,
        };
        let mark = |mark: &super::result::Mark| MarkAt {
            at_s: mark.at_s,
            class: class(mark.kind),
            text: mark.text.clone(),
        };
        Self {
            length_s: report.phases.iter().map(end).fold(1.0, f64::max),
            bands: report.phases.iter().map(band).collect(),
            marks: report.marks.iter().map(mark).collect(),
        }
    }

    fn chart(&self, title: &str, unit: &str, log: bool, lines: Vec<Line>) -> String {
        Chart { title, unit, log, lines, length_s: self.length_s, bands: &self.bands, marks: &self.marks }
            .html()
    }

    /// Throughput, and latencies of reads and writes.
    pub fn charts(&self, series: &[Second]) -> String {
        let line = |name: &str, style: Style, value: &dyn Fn(&Second) -> Option<f64>| {
            let point = |second: &Second| (second.at_s + second.figures.seconds / 2.0, value(second));
            Line { name: name.to_owned(), style, points: series.iter().map(point).collect() }
        };
        let throughput = line("operations", Style::Main, &|second| Some(second.figures.throughput));
        let mut html = self.chart("Throughput", "operations a second", false, vec![throughput]);
        let kinds: [(&str, Of); 2] = [("Reads", |figures| figures.read), ("Writes", |figures| figures.write)];
        for (name, of) in kinds {
            if series.iter().any(|second| of(&second.figures).count > 0) {
                let at = |pick: fn(&Latencies) -> Option<u64>| {
                    move |second: &Second| pick(&of(&second.figures)).map(|us| us as f64 / 1000.0)
                };
                let lines = vec![
                    line("p50", Style::Main, &at(|latencies| latencies.p50_us)),
                    line("p99", Style::Second, &at(|latencies| latencies.p99_us)),
                    line("longest", Style::Faint, &at(|latencies| latencies.max_us)),
                ];
                html += &self.chart(&format!("{name}: latency"), "ms, logarithmic", true, lines);
            }
        }
        html
    }

    /// Processors and memory in use.
    pub fn usage(&self, report: &Report) -> String {
        let series = &report.processes.series;
        if series.is_empty() {
            return String::new();
        }
        let line = |name: &str, style: Style, value: fn(&super::result::Usage) -> f64| {
            let points = series.iter().enumerate().map(|(index, usage)| {
                let until = series.get(index + 1).map_or(usage.at_s + 1.0, |next| next.at_s);
                ((usage.at_s + until) / 2.0, Some(value(usage)))
            });
            Line { name: name.to_owned(), style, points: points.collect() }
        };
        let lines = vec![
            line("all servers", Style::Main, |usage| usage.server_cores),
            line("load generator", Style::Second, |usage| usage.generator_cores),
        ];
        let unit = format!("of {} in this machine", plural(report.machine.cores, "processor"));
        let mut html = self.chart("Processors in use", &unit, false, lines);
        let lines =
            vec![line("all servers", Style::Main, |usage| usage.server_memory_bytes as f64 / 1_048_576.0)];
        html += &self.chart("Memory", "MiB resident", false, lines);
        html
    }
}

fn class(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Election => "election",
        MarkKind::Configuration | MarkKind::Settled => "configuration",
        MarkKind::Down | MarkKind::Up => "server",
    }
}

pub fn events(report: &Report) -> String {
    if report.marks.is_empty() {
        return "<p>No election, no new configuration, and every server answered throughout.</p>".to_owned();
    }
    let rows = report.marks.iter().enumerate().map(|(index, mark)| {
        let kind = match mark.kind {
            MarkKind::Election => "election",
            MarkKind::Configuration => "configuration",
            MarkKind::Settled => "settled",
            MarkKind::Down => "server down",
            MarkKind::Up => "server up",
        };
        let dot = format!("<span class=\"dot {}\"></span>{kind}", class(mark.kind));
        vec![(index + 1).to_string(), format!("{:.1} s", mark.at_s), dot, escape(&mark.text)]
    });
    let mut html = table(&[">#", ">seen at", "kind", "what"], rows);
    html += "<p class=\"small\">The numbers are those in the charts. An event is seen up to a fifth of a second \
             after it happened.</p>";
    html
}

fn results(report: &Report) -> String {
    let head = [
        "phase",
        "load",
        ">operations",
        ">a second",
        "",
        ">p50 ms",
        ">p99 ms",
        ">p99.9 ms",
        ">longest ms",
        ">errors",
        ">unknown",
        ">CPU us/op",
    ];
    let mut rows = Vec::new();
    for phase in &report.phases {
        let name = escape(&phase.name) + if phase.measured { "" } else { " <i>(not counted)</i>" };
        let cpu = phase.server_cpu_us_per_operation;
        push_rows(&mut rows, [name, escape(&words::load(&phase.load))], &phase.figures, cpu);
    }
    if report.phases.iter().filter(|phase| phase.measured).count() > 1 {
        let cpu = report.processes.server_cpu_us_per_operation;
        push_rows(&mut rows, ["<b>all that count</b>".to_owned(), String::new()], &report.figures, cpu);
    }
    table(&head, rows)
}

/// A row for reads and one for writes.
fn push_rows(rows: &mut Vec<Vec<String>>, names: [String; 2], figures: &Figures, cpu: Option<f64>) {
    let kinds = [("read", &figures.read), ("write", &figures.write)];
    let mut first = true;
    for (kind, of) in kinds.into_iter().filter(|(_, of)| of.count > 0) {
        let once = |text: String| if first { text } else { String::new() };
        let mut row: Vec<String> = names.iter().map(|name| once(name.clone())).collect();
        row.push(count(of.count as f64));
        row.push(count(if figures.seconds > 0.0 { of.count as f64 / figures.seconds } else { 0.0 }));
        row.push(kind.to_owned());
        row.extend([of.p50_us, of.p99_us, of.p999_us, of.max_us].map(ms));
        row.push(once(count(figures.errors as f64)));
        row.push(once(count(figures.unknown as f64)));
        row.push(once(cpu.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"))));
        rows.push(row);
        first = false;
    }
    if first {
        let errors = [count(figures.errors as f64), count(figures.unknown as f64)];
        let mut row = names.to_vec();
        row.extend(["0".to_owned(), "0".to_owned()]);
        row.extend(std::iter::repeat_n("-".to_owned(), 5));
        row.extend(errors);
        row.push("-".to_owned());
        rows.push(row);
    }
}

pub fn processes(report: &Report) -> String {
    let processes = &report.processes;
    let mut html = String::new();
    if let Some(why) = &processes.why_not {
        let _ = write!(html, "<p>Not known of all servers: {}.</p>", escape(why));
    }
    let operations = report.figures.operations.max(1) as f64;
    let rows = processes.servers.iter().chain(&processes.generator).map(|process| {
        vec![
            escape(&process.name),
            process.pid.to_string(),
            format!("{:.2}", process.cpu_seconds),
            format!("{:.1}", process.cpu_seconds * 1e6 / operations),
            mib(process.memory_bytes),
            mib(process.memory_bytes_max),
        ]
    });
    let head = ["process", ">pid", ">CPU s", ">CPU us/op", ">memory", ">most memory"];
    html += &table(&head, rows);
    html
}

pub fn settings(report: &Report) -> String {
    let (run, machine) = (&report.run, &report.machine);
    let memory = machine.memory_bytes.map_or_else(String::new, |bytes| format!(", {} of memory", mib(bytes)));
    let mut rows = vec![
        vec!["load generator".to_owned(), format!("clerk {}", escape(&report.clerk))],
        vec![
            "its machine".to_owned(),
            format!("{}, {}{memory}", escape(&machine.os), plural(machine.cores, "processor")),
        ],
        vec!["cluster".to_owned(), escape(&report.cluster.id)],
        vec![
            "keys".to_owned(),
            format!(
                "{}{}",
                count(run.keys as f64),
                if run.preload { ", each written once beforehand" } else { ", none written beforehand" }
            ),
        ],
        vec!["configuration".to_owned(), format!("{} to {}", report.config_start, report.config_end)],
    ];
    if run.history {
        rows.push(vec![
            "recorded".to_owned(),
            "every operation, which costs the load generator time".to_owned(),
        ]);
    }
    table(&["", ""], rows)
}

pub const GLOSSARY: &str = "<dl>
<dt>operation</dt><dd>One get, put, append, conditional put or delete of one key. Only what the cluster acknowledged \
is counted: a write is then synced to the disks of a majority of the key's group.</dd>
<dt>p50, p99, p99.9</dt><dd>Half of the operations were at most as slow as p50; of a hundred, one was slower than p99; \
of a thousand, one was slower than p99.9.</dd>
<dt>closed loop, open loop</dt><dd>With \"N clients\", a client begins an operation when its last one has ended: a slow \
cluster is asked less. With \"R/s\", operations begin by a clock, and latency counts from when each was due: a pause is \
felt by all that should have begun in it.</dd>
<dt>longest pause</dt><dd>The longest time in which no operation at all was acknowledged.</dd>
<dt>unknown outcome</dt><dd>No answer came in time. It may have been done, once, or not.</dd>
<dt>election</dt><dd>A group has a new leader. Its keys pause until there is one.</dd>
<dt>configuration</dt><dd>Says which group serves which shard. A new one moves shards while they are used; \"settled\" \
means that all of them have arrived.</dd>
<dt>CPU an operation</dt><dd>Processor time of all servers of the cluster together, replicas and controllers, divided by \
the acknowledged operations.</dd>
</dl>";

#[cfg(test)]
mod tests {
    use super::report;
    use crate::result::sample;

    #[test]
    fn a_page_stands_alone_and_shows_figures_charts_and_events() {
        let html = report(&sample::report("before <the> change", 1000));
        assert!(html.starts_with("<!doctype html>"));
        for part in [
            "before &lt;the&gt; change",
            "Throughput",
            "Reads: latency",
            "Writes: latency",
            "Processors in use",
            "group 101: &lt;101.2&gt; leads",
            "64 clients, 50 % reads, 256 B",
            "prefers-color-scheme: dark",
        ] {
            assert!(html.contains(part), "{part}");
        }
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert!(html.matches("<svg").count() >= 5);
        // Nothing is fetched, nothing runs.
        for part in ["http:", "https:", "<script", "<link", "<img", "url(", "@import", "<the>"] {
            assert!(!html.contains(part), "{part}");
        }
        assert!(!html.contains("NaN") && !html.contains("inf"), "a number is missing");
    }

    #[test]
    fn a_run_without_anything_has_a_page_too() {
        let html = report(&Default::default());
        assert!(html.contains("No election") && !html.contains("NaN"), "{html}");
    }
}
