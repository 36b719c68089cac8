//! `bench compare`: two saved results, figure by figure.
//!
//! One run each proves little: on a machine that others also use, figures of the very same program
//! differ by a tenth or two. So every figure is judged against a threshold (`--noise`), differing
//! settings are listed first, and short runs are named.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use clerk_bench::result::{FORMAT, Figures, Report, load};
use clerk_bench::words;

/// A shorter run is called short.
const SECONDS_MIN: f64 = 10.0;

/// Which way a figure is better.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

struct Row {
    phase: String,
    what: &'static str,
    unit: &'static str,
    a: Option<f64>,
    b: Option<f64>,
    better: Better,
}

pub(super) fn compare(context: &Context, compare: &args::Compare) -> Result<(), Failure> {
    if !(compare.noise >= 0.0 && compare.noise <= 1000.0) {
        return Err(Failure::usage(format!("--noise {}: a percentage from 0", compare.noise)));
    }
    let (a, b): (Report, Report) = (load(&compare.a, FORMAT)?, load(&compare.b, FORMAT)?);
    let names = [name(&a, &compare.a), name(&b, &compare.b)];
    let (rows, differs) = (rows(&a, &b), differences(&a, &b));
    let cautions = cautions(&names, &a, &b);
    let noise = compare.noise / 100.0;
    let row = |row: &Row| {
        json!({
            "phase": row.phase, "what": row.what, "unit": row.unit, "a": row.a, "b": row.b,
            "ratio": row.ratio(), "verdict": row.verdict(noise),
        })
    };
    let document = json!({
        "a": names[0], "b": names[1], "noise_percent": compare.noise, "differs": differs,
        "cautions": cautions, "rows": rows.iter().map(row).collect::<Vec<Value>>(),
    });
    context.output.answer(&document, || people(&names, &rows, &differs, &cautions, compare.noise));
    Ok(())
}

fn name(report: &Report, path: &std::path::Path) -> String {
    report.label.clone().unwrap_or_else(|| path.display().to_string())
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.b.zip(self.a).filter(|(_, a)| *a > 0.0).map(|(b, a)| b / a)
    }

    fn verdict(&self, noise: f64) -> &'static str {
        let (Some(a), Some(b)) = (self.a, self.b) else { return "unknown" };
        let larger = match self.ratio() {
            Some(ratio) if ratio > 1.0 + noise => true,
            Some(ratio) if ratio < 1.0 / (1.0 + noise) => false,
            Some(_) => return "noise",
            None if b > a => true,
            None => return "same",
        };
        if larger == (self.better == Better::More) { "better" } else { "worse" }
    }
}

fn rows(a: &Report, b: &Report) -> Vec<Row> {
    let mut rows = figures("", &a.figures, &b.figures);
    let mut row = |what, unit, a, b| {
        rows.push(Row { phase: String::new(), what, unit, a, b, better: Better::Less });
    };
    row("longest pause", "ms", Some(a.longest_gap_ms), Some(b.longest_gap_ms));
    let (used, used_b) = (&a.processes, &b.processes);
    row("server CPU", "us/op", used.server_cpu_us_per_operation, used_b.server_cpu_us_per_operation);
    let memory = |used: &clerk_bench::result::Processes| {
        used.server_memory_bytes_max.map(|bytes| bytes as f64 / f64::from(1 << 20))
    };
    row("server memory", "MiB", memory(used), memory(used_b));
    row(
        "load generator CPU",
        "us/op",
        used.generator_cpu_us_per_operation,
        used_b.generator_cpu_us_per_operation,
    );
    let measured = |report: &Report| report.phases.iter().filter(|phase| phase.measured).count();
    if measured(a) > 1 || measured(b) > 1 {
        for phase in a.phases.iter().filter(|phase| phase.measured) {
            let other = b.phases.iter().find(|other| other.measured && other.name == phase.name);
            if let Some(other) = other {
                rows.extend(figures(&phase.name, &phase.figures, &other.figures));
            }
        }
    }
    rows
}

fn figures(phase: &str, a: &Figures, b: &Figures) -> Vec<Row> {
    let ms = |us: Option<u64>| us.map(|us| us as f64 / 1000.0);
    let count = |count: u64| Some(count as f64);
    let rows = [
        ("throughput", "op/s", Some(a.throughput), Some(b.throughput)),
        ("read p50", "ms", ms(a.read.p50_us), ms(b.read.p50_us)),
        ("read p99", "ms", ms(a.read.p99_us), ms(b.read.p99_us)),
        ("read p99.9", "ms", ms(a.read.p999_us), ms(b.read.p999_us)),
        ("write p50", "ms", ms(a.write.p50_us), ms(b.write.p50_us)),
        ("write p99", "ms", ms(a.write.p99_us), ms(b.write.p99_us)),
        ("write p99.9", "ms", ms(a.write.p999_us), ms(b.write.p999_us)),
        ("errors", "", count(a.errors), count(b.errors)),
        ("unknown", "", count(a.unknown), count(b.unknown)),
        ("dropped", "", count(a.dropped), count(b.dropped)),
    ];
    let row = |(what, unit, a, b)| {
        let better = if what == "throughput" { Better::More } else { Better::Less };
        Row { phase: phase.to_owned(), what, unit, a, b, better }
    };
    // What neither has says nothing.
    let some = |row: &Row| row.a.is_some_and(|a| a > 0.0) || row.b.is_some_and(|b| b > 0.0);
    rows.into_iter().map(row).filter(some).collect()
}

/// Everything that differs between both runs, apart from the figures.
fn differences(a: &Report, b: &Report) -> Vec<String> {
    let facts = |report: &Report| {
        let (machine, cluster, run) = (&report.machine, &report.cluster, &report.run);
        let mut facts = vec![
            ("version of clerk", report.clerk.clone()),
            ("system", format!("{} with {} processors", machine.os, machine.cores)),
            (
                "cluster",
                format!("{} groups, {} servers, {} shards", cluster.groups, cluster.servers, cluster.shards),
            ),
            ("keys", run.keys.to_string()),
            ("preload", run.preload.to_string()),
            ("warm-up", format!("{} s", run.warmup_seconds)),
            ("history", run.history.to_string()),
        ];
        let loads: Vec<String> = (report.phases.iter().filter(|phase| phase.measured))
            .map(|phase| format!("{} ({})", phase.name, words::load(&phase.load)))
            .collect();
        facts.push(("load", loads.join("; ")));
        facts
    };
    let pairs = facts(a).into_iter().zip(facts(b));
    pairs.filter(|((_, a), (_, b))| a != b).map(|((what, a), (_, b))| format!("{what}: {a} | {b}")).collect()
}

fn cautions(names: &[String; 2], a: &Report, b: &Report) -> Vec<String> {
    let mut cautions = Vec::new();
    for (name, report) in names.iter().zip([a, b]) {
        if report.figures.seconds < SECONDS_MIN {
            cautions.push(format!("{name} ran {:.1} s: short runs vary more", report.figures.seconds));
        }
        if report.figures.dropped > 0 {
            cautions.push(format!(
                "{name} did not reach its rate: its latencies leave out operations that never began"
            ));
        }
        if !report.marks.is_empty() {
            let count = report.marks.len();
            cautions.push(format!(
                "in {name} the cluster changed ({count} events, the first: {})",
                report.marks[0].text
            ));
        }
    }
    cautions
}

fn people(names: &[String; 2], rows: &[Row], differs: &[String], cautions: &[String], noise: f64) -> String {
    let mut text = format!("A: {}\nB: {}\n\n", names[0], names[1]);
    let number = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    };
    let mut last_phase = "";
    let mut lines = Vec::new();
    for row in rows {
        if row.phase != last_phase {
            lines.push(vec![format!("{}:", row.phase)]);
            last_phase = &row.phase;
        }
        lines.push(vec![
            format!("{}{} {}", if row.phase.is_empty() { "" } else { "  " }, row.what, row.unit)
                .trim_end()
                .to_owned(),
            number(row.a),
            number(row.b),
            row.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            match row.verdict(noise / 100.0) {
                "noise" => String::new(),
                verdict => verdict.to_owned(),
            },
        ]);
    }
    text += &table(&["", ">A", ">B", ">B/A", ""], lines);
    let list = |text: &mut String, head: &str, lines: &[String]| {
        if !lines.is_empty() {
            let _ = writeln!(text, "\n{head}");
            lines.iter().for_each(|line| text.extend(["  ", line, "\n"]));
        }
    };
    list(&mut text, "not the same in both runs (A | B):", differs);
    list(&mut text, "mind:", cautions);
    let _ = writeln!(
        text,
        "\nDifferences below {noise} % are called noise here (they have no mark). One run each proves little: \
         repeat both, in turns, and compare the medians."
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{Better, Row, cautions, differences, people, rows};
    use clerk_bench::result::sample;

    fn verdict(a: Option<f64>, b: Option<f64>, better: Better) -> &'static str {
        Row { phase: String::new(), what: "x", unit: "", a, b, better }.verdict(0.2)
    }

    #[test]
    fn small_differences_are_noise_and_large_ones_have_a_direction() {
        assert_eq!(verdict(Some(100.0), Some(119.0), Better::More), "noise");
        assert_eq!(verdict(Some(119.0), Some(100.0), Better::More), "noise", "the same the other way round");
        assert_eq!(verdict(Some(100.0), Some(121.0), Better::More), "better");
        assert_eq!(verdict(Some(100.0), Some(121.0), Better::Less), "worse");
        assert_eq!(verdict(Some(100.0), Some(80.0), Better::Less), "better");
        assert_eq!(verdict(Some(0.0), Some(3.0), Better::Less), "worse");
        assert_eq!(verdict(Some(0.0), Some(0.0), Better::Less), "same");
        assert_eq!(verdict(None, Some(3.0), Better::Less), "unknown");
    }

    #[test]
    fn two_runs_are_compared_figure_by_figure() {
        let (a, b) = (sample::report("before", 1000), sample::report("after", 2000));
        let names = ["before".to_owned(), "after".to_owned()];
        let text = people(&names, &rows(&a, &b), &differences(&a, &b), &cautions(&names, &a, &b), 20.0);
        let line =
            |part: &str| text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{text}"));
        let words: Vec<&str> = line("throughput").split_whitespace().collect();
        assert_eq!(words, ["throughput", "op/s", "1000", "2000", "2.00", "better"]);
        let words: Vec<&str> = line("read p50").split_whitespace().collect();
        assert_eq!(words, ["read", "p50", "ms", "0.80", "0.80", "1.00"]);
        assert!(text.contains("in before the cluster changed"), "{text}");
        assert!(!text.contains("not the same"), "{text}");
    }

    #[test]
    fn other_settings_are_named() {
        let a = sample::report("a", 1000);
        let mut b = a.clone();
        b.phases[0].load.clients = 8;
        b.run.keys = 5;
        let differs = differences(&a, &b);
        assert_eq!(differs.len(), 2, "{differs:?}");
        assert!(differs[1].contains("64 clients") && differs[1].contains("| load (8 clients"), "{differs:?}");
    }

    #[test]
    fn phases_of_the_same_name_are_compared_too() {
        let mut a = sample::report("a", 1000);
        let mut second = a.phases[0].clone();
        second.name = "other".to_owned();
        a.phases.push(second);
        let rows = rows(&a, &a);
        let of = |phase: &str| rows.iter().filter(|row| row.phase == phase).count();
        assert_eq!((of("load"), of("other")), (7, 7));
    }
}
