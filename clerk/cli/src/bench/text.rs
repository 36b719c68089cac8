//! A result for people.

use std::fmt::Write as _;

use super::plan::Load;
use super::result::{Figures, Latencies, PhaseResult, Report};
use crate::args::DistributionName;
use crate::output::table;

/// Of so many marks, the first are shown.
const MARKS: usize = 20;

pub(super) fn report(report: &Report) -> String {
    let mut text = String::new();
    let measured: Vec<&PhaseResult> = report.phases.iter().filter(|phase| phase.measured).collect();
    if measured.len() > 1 {
        text += &phases(&measured);
        text += "\nall phases\n";
    }
    text += &latencies(&report.figures);
    let figures = &report.figures;
    let _ = writeln!(
        text,
        "\n{} operations in {:.1} s: {:.0} a second",
        figures.operations, figures.seconds, figures.throughput
    );
    let _ = write!(text, "{} errors, {} of unknown outcome", figures.errors, figures.unknown);
    if let Some(error) = &figures.last_error {
        let _ = write!(text, " (the last error: {error})");
    }
    text += "\n";
    text += &warnings(report);
    let (start, stop) = (report.config_start, report.config_end);
    let gap = report.longest_gap_ms;
    let _ = writeln!(text, "longest pause {gap:.0} ms; configuration {start} to {stop}");
    text += &processes(report);
    for mark in report.marks.iter().take(MARKS) {
        let _ = writeln!(text, "at {:.1} s: {}", mark.at_s, mark.text);
    }
    if report.marks.len() > MARKS {
        let _ = writeln!(text, "and {} events more (--save, --html)", report.marks.len() - MARKS);
    }
    text
}

fn phases(phases: &[&PhaseResult]) -> String {
    let head =
        ["PHASE", "LOAD", ">OPS/S", ">READ P50", ">P99 MS", ">WRITE P50", ">P99 MS", ">ERRORS", ">CPU US/OP"];
    let row = |phase: &&PhaseResult| {
        let (read, write) = (&phase.figures.read, &phase.figures.write);
        vec![
            phase.name.clone(),
            load(&phase.load),
            format!("{:.0}", phase.figures.throughput),
            ms(read.p50_us),
            ms(read.p99_us),
            ms(write.p50_us),
            ms(write.p99_us),
            (phase.figures.errors + phase.figures.unknown).to_string(),
            phase.server_cpu_us_per_operation.map_or_else(dash, |us| format!("{us:.1}")),
        ]
    };
    table(&head, phases.iter().map(row))
}

/// What clients do, in a few words.
pub(super) fn load(load: &Load) -> String {
    let mut text = match load.rate {
        None => format!("{} clients", load.clients),
        Some(rate) => format!("{rate}/s by {} clients", load.clients),
    };
    let shares =
        [("reads", load.reads), ("appends", load.appends), ("cas", load.cas), ("deletes", load.deletes)];
    for (name, share) in shares.into_iter().filter(|(name, share)| *share > 0 || *name == "reads") {
        let _ = write!(text, ", {share} % {name}");
    }
    let _ = write!(text, ", {} B", load.value_bytes);
    if load.batch > 1 {
        let _ = write!(text, ", {} puts a call", load.batch);
    }
    if let (DistributionName::Zipfian, Some(skew)) = (load.distribution, load.skew) {
        let _ = write!(text, ", zipfian {skew}");
    }
    text
}

fn latencies(figures: &Figures) -> String {
    let head = ["", ">COUNT", ">P50 MS", ">P99 MS", ">P99.9 MS", ">MAX MS"];
    let row = |name: &str, of: &Latencies| {
        let us = [of.p50_us, of.p99_us, of.p999_us, of.max_us];
        let mut row = vec![name.to_owned(), of.count.to_string()];
        row.extend(us.map(ms));
        row
    };
    table(&head, [row("read", &figures.read), row("write", &figures.write)])
}

fn dash() -> String {
    "-".to_owned()
}

/// Microseconds as people read them.
pub(super) fn ms(us: Option<u64>) -> String {
    us.map_or_else(dash, |us| format!("{:.2}", us as f64 / 1000.0))
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What a reader should know before believing the figures.
pub(super) fn warnings(report: &Report) -> String {
    let figures = &report.figures;
    let mut text = String::new();
    if figures.dropped > 0 {
        let dropped = figures.dropped;
        let _ = writeln!(
            text,
            "{dropped} operations were due and never began: the rate was not reached, and the latencies leave them out"
        );
    }
    if figures.late > 0 {
        let _ = writeln!(
            text,
            "{} operations began late, for no client was free; their latency counts from when they were due",
            figures.late
        );
    }
    if figures.read.count > 0 && figures.missing * 2 > figures.read.count {
        let _ = writeln!(
            text,
            "{} of {} reads found nothing (--preload writes every key first)",
            figures.missing, figures.read.count
        );
    }
    text
}

fn processes(report: &Report) -> String {
    let processes = &report.processes;
    let mut parts = Vec::new();
    if let Some(us) = processes.server_cpu_us_per_operation {
        let count = processes.servers.len();
        parts.push(format!("servers used {us:.1} us of processor time an operation ({count} processes)"));
    }
    if let Some(bytes) = processes.server_memory_bytes_max {
        parts.push(format!("{} of memory", mib(bytes)));
    }
    if let Some(us) = processes.generator_cpu_us_per_operation {
        parts.push(format!("the load generator {us:.1} us"));
    }
    let mut text = if parts.is_empty() { String::new() } else { parts.join("; ") + "\n" };
    if let Some(why) = &processes.why_not {
        let _ = writeln!(text, "processor time of the servers is not known: {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{load, report};
    use crate::bench::result::sample;

    #[test]
    fn a_person_reads_throughput_latencies_events_and_what_was_used() {
        let text = report(&sample::report("a", 1000));
        for part in [
            "P99.9 MS",
            "10000 operations in 10.0 s: 1000 a second",
            "longest pause 12 ms; configuration 1 to 2",
            "servers used 50.0 us",
            "at 4.5 s: group 101: <101.2> leads",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("PHASE") && !text.contains("never began"), "{text}");
    }

    #[test]
    fn what_makes_figures_doubtful_is_said() {
        let mut run = sample::report("a", 1000);
        run.figures.dropped = 7;
        run.figures.missing = 4000;
        let second = run.phases[0].clone();
        run.phases.push(second);
        let text = report(&run);
        assert!(text.contains("7 operations were due and never began"), "{text}");
        assert!(text.contains("4000 of 5000 reads found nothing"), "{text}");
        assert!(text.contains("PHASE"), "{text}");
    }

    #[test]
    fn a_load_is_named_by_what_is_unusual_about_it() {
        let mut of = sample::report("a", 1).phases[0].load.clone();
        assert_eq!(load(&of), "64 clients, 50 % reads, 256 B");
        (of.rate, of.appends, of.skew) = (Some(2500.0), 10, Some(0.99));
        of.distribution = crate::args::DistributionName::Zipfian;
        assert_eq!(load(&of), "2500/s by 64 clients, 50 % reads, 10 % appends, 256 B, zipfian 0.99");
    }
}
