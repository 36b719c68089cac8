//! The page of `bench scaling`: throughput against groups, then the whole run over time.

use std::fmt::Write as _;

use super::table::times_and_limits;
use super::{Scaling, Step};
use clerk_bench::html::chart::nice;
use clerk_bench::html::page::{Page, count, table};
use clerk_bench::html::{GLOSSARY, Timeline, events, processes, settings};
use clerk_bench::words::{load, ms};

const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 26.0;

pub(super) fn page(scaling: &Scaling) -> String {
    let run = &scaling.run;
    let mut page = Page::new(run.label.as_deref().unwrap_or("Throughput against groups"));
    page.paragraph(&summary(scaling));
    page.html(&bars(&scaling.steps));
    page.section("Results", &results(scaling));
    page.section("Rebalances", &rebalances(scaling));
    let timeline = Timeline::of(run);
    let charts = timeline.charts(&run.series) + &timeline.usage(run);
    page.section("The run over time", &charts);
    page.section("What happened", &events(run));
    page.section("Processor time and memory", &processes(run));
    page.section("How it was run", &settings(run));
    page.section("How to read this", GLOSSARY);
    page.finish()
}

fn summary(scaling: &Scaling) -> String {
    let load = scaling.run.phases.iter().find(|phase| phase.measured).map(|phase| load(&phase.load));
    let limit = match scaling.replica_cpu {
        Some(share) => {
            format!("each server may use {share} of a processor, as if it had a small machine of its own")
        }
        None => "all servers share this machine, so more groups need not bring more".to_owned(),
    };
    format!(
        "The same load ({}) against more and more groups of {} servers. Groups join while the load runs; {limit}.",
        load.unwrap_or_default(),
        scaling.replicas
    )
}

/// A bar for each number of groups, and where it would end if the first grew in proportion.
fn bars(steps: &[Step]) -> String {
    let Some(first) = steps.first() else { return String::new() };
    let ideal = |step: &Step| first.figures.throughput * step.groups as f64 / first.groups as f64;
    let most = steps.iter().map(|step| ideal(step).max(step.figures.throughput)).fold(1.0, f64::max);
    let mark = nice(most / 4.0);
    let high = (most / mark).ceil() * mark;
    let y = |value: f64| HEIGHT - BOTTOM - value / high * (HEIGHT - TOP - BOTTOM);
    let mut html =
        "<figure>\n<div class=\"head\"><h3>Throughput against groups</h3><span class=\"small\">operations a \
                    second; the dashed line is the first bar in proportion to the groups</span></div>\n"
            .to_owned();
    let _ = writeln!(
        html,
        "<svg viewBox=\"0 0 1000 {HEIGHT}\" role=\"img\" aria-label=\"throughput against groups\">"
    );
    for index in 0..=(high / mark).round() as u32 {
        let value = f64::from(index) * mark;
        let (at, below, left) = (y(value), y(value) + 4.0, LEFT - 6.0);
        let _ = writeln!(html, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{WIDTH}\"/>");
        let _ =
            writeln!(html, "<text x=\"{left}\" y=\"{below:.1}\" text-anchor=\"end\">{}</text>", count(value));
    }
    let room = (WIDTH - LEFT) / steps.len() as f64;
    let width = (room * 0.6).min(110.0);
    for (index, step) in steps.iter().enumerate() {
        let middle = LEFT + room * (index as f64 + 0.5);
        let (left, top) = (middle - width / 2.0, y(step.figures.throughput));
        let height = HEIGHT - BOTTOM - top;
        let _ = writeln!(
            html,
            "<rect class=\"bar\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\"/>"
        );
        let (from, to, at) = (left - 8.0, left + width + 8.0, y(ideal(step)));
        let _ = writeln!(html, "<path class=\"series second\" d=\"M{from:.1} {at:.1}H{to:.1}\"/>");
        let (above, below) = (top.min(at) - 7.0, HEIGHT - 8.0);
        let (value, ratio) = (count(step.figures.throughput), step.ratio);
        let _ = writeln!(
            html,
            "<text class=\"value\" x=\"{middle:.1}\" y=\"{above:.1}\" text-anchor=\"middle\">{value} ({ratio:.2}x)</text>"
        );
        let name = if step.groups == 1 { "1 group".to_owned() } else { format!("{} groups", step.groups) };
        let _ =
            writeln!(html, "<text x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{name}</text>");
    }
    html + "</svg>\n</figure>\n"
}

fn results(scaling: &Scaling) -> String {
    let head = [
        ">groups",
        ">operations a second",
        ">ratio",
        ">read p50 ms",
        ">p99 ms",
        ">write p50 ms",
        ">p99 ms",
        ">CPU us/op",
        ">at its limit",
    ];
    let rows = scaling.steps.iter().map(|step| {
        let begins = [step.groups.to_string(), count(step.figures.throughput), format!("{:.2}x", step.ratio)];
        begins.into_iter().chain(times_and_limits(step)).collect()
    });
    let mut html = table(&head, rows);
    if scaling.replica_cpu.is_some() {
        html += "<p class=\"small\">\"At its limit\": of the server that was held back most, the periods (mostly of 20 ms) \
                 in which it had used up its share and waited for the next.</p>";
    }
    html
}

fn rebalances(scaling: &Scaling) -> String {
    if scaling.rebalances.is_empty() {
        return "<p>None.</p>".to_owned();
    }
    let head = [
        "groups",
        ">shards moved",
        ">seconds",
        ">operations a second meanwhile",
        ">p99 ms",
        ">longest ms",
        ">errors, unknown",
    ];
    let rows = scaling.rebalances.iter().map(|rebalance| {
        let figures = &rebalance.figures;
        vec![
            format!("{} to {}", rebalance.from_groups, rebalance.to_groups),
            rebalance.shards_moved.to_string(),
            format!("{:.2}", rebalance.rebalance_seconds),
            count(figures.throughput),
            ms(figures.read.p99_us.max(figures.write.p99_us)),
            ms(figures.read.max_us.max(figures.write.max_us)),
            count((figures.errors + figures.unknown) as f64),
        ]
    });
    table(&head, rows)
}
