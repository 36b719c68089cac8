//! The answer of `bench scaling` for people: throughput against groups, as numbers and as bars.

use std::fmt::Write as _;

use super::{Scaling, Step};
use crate::output::table;
use clerk_bench::words::{load, ms};

/// Letters of the longest bar.
const BAR: f64 = 40.0;

pub(super) fn text(scaling: &Scaling) -> String {
    let mut text = String::new();
    if let Some(phase) = scaling.run.phases.iter().find(|phase| phase.measured) {
        let limit = scaling.replica_cpu.map_or_else(
            || "not limited".to_owned(),
            |share| format!("each limited to {share} of a processor"),
        );
        let _ = writeln!(text, "{}; groups of {} servers, {limit}\n", load(&phase.load), scaling.replicas);
    }
    let most = scaling.steps.iter().map(|step| step.figures.throughput).fold(1.0, f64::max);
    let head = [
        ">GROUPS",
        ">OPS/S",
        ">RATIO",
        ">READ P50",
        ">P99 MS",
        ">WRITE P50",
        ">P99 MS",
        ">CPU US/OP",
        ">THROTTLED",
        "",
    ];
    let row = |step: &Step| {
        let ends = ["#".repeat((step.figures.throughput / most * BAR).round() as usize)];
        let begins = [
            step.groups.to_string(),
            format!("{:.0}", step.figures.throughput),
            format!("{:.2}", step.ratio),
        ];
        begins.into_iter().chain(times_and_limits(step)).chain(ends).collect()
    };
    text += &table(&head, scaling.steps.iter().map(row));
    if !scaling.rebalances.is_empty() {
        text.push('\n');
        let head =
            ["REBALANCE", ">SHARDS", ">SECONDS", ">OPS/S MEANWHILE", ">P99 MS", ">LONGEST MS", ">ERRORS"];
        let row = |rebalance: &super::Rebalance| {
            let figures = &rebalance.figures;
            let (read, write) = (&figures.read, &figures.write);
            vec![
                format!("{} to {}", rebalance.from_groups, rebalance.to_groups),
                rebalance.shards_moved.to_string(),
                format!("{:.2}", rebalance.rebalance_seconds),
                format!("{:.0}", figures.throughput),
                ms(read.p99_us.max(write.p99_us)),
                ms(read.max_us.max(write.max_us)),
                (figures.errors + figures.unknown).to_string(),
            ]
        };
        text += &table(&head, scaling.rebalances.iter().map(row));
    }
    text
}

/// Of a step: 50th and 99th percentile of reads and of writes, processor time an operation, and how often the server
/// that was held back most was.
pub(super) fn times_and_limits(step: &Step) -> [String; 6] {
    let dash = || "-".to_owned();
    let (read, write) = (&step.figures.read, &step.figures.write);
    [
        ms(read.p50_us),
        ms(read.p99_us),
        ms(write.p50_us),
        ms(write.p99_us),
        step.server_cpu_us_per_operation.map_or_else(dash, |us| format!("{us:.1}")),
        step.throttled_percent.map_or_else(dash, |percent| format!("{percent:.0} %")),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{Rebalance, Scaling, Step};
    use super::text;
    use clerk_bench::result::sample;

    #[test]
    fn throughput_is_shown_against_groups() {
        let step = |groups: u64, ratio: f64| Step {
            groups,
            ratio,
            figures: sample::figures(groups * 1000, 1.0, 500),
            server_cpu_us_per_operation: Some(40.0),
            throttled_percent: Some(97.0),
        };
        let scaling = Scaling {
            replica_cpu: Some(0.1),
            replicas: 3,
            steps: vec![step(1, 1.0), step(2, 2.0), step(4, 4.0)],
            rebalances: vec![Rebalance {
                from_groups: 1,
                to_groups: 2,
                shards_moved: 32,
                ..Rebalance::default()
            }],
            run: sample::report("scaling", 1000),
            ..Scaling::default()
        };
        let text = text(&scaling);
        let bar = |groups: usize| "#".repeat(groups * 10);
        for part in ["limited to 0.1", "97 %", &bar(4), "1 to 2"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains(&"#".repeat(41)), "{text}");
        let html = super::super::page::page(&scaling);
        assert!(html.contains("4.00x") && html.contains("Rebalances"), "{html}");
        assert!(!html.contains("http:") && !html.contains("NaN"), "{html}");
    }
}
