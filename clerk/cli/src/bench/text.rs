//! A result for people.

use std::fmt::Write as _;

use clerk_bench::result::{Figures, Latencies, PhaseResult, Report};
use clerk_bench::words::{dash, load, mib, ms, warnings};

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
    use clerk_bench::result::sample;
    use clerk_bench::settings::DistributionName;
    use clerk_bench::words::load;

    use super::report;

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
        of.distribution = DistributionName::Zipfian;
        assert_eq!(load(&of), "2500/s by 64 clients, 50 % reads, 10 % appends, 256 B, zipfian 0.99");
    }
}
