//! Figures as people read them.

use std::fmt::Write as _;

use crate::plan::Load;
use crate::result::Report;
use crate::settings::DistributionName;

/// What clients do, in a few words.
pub fn load(load: &Load) -> String {
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

/// What stands for a figure that is not known.
pub fn dash() -> String {
    "-".to_owned()
}

/// Microseconds as people read them.
pub fn ms(us: Option<u64>) -> String {
    us.map_or_else(dash, |us| format!("{:.2}", us as f64 / 1000.0))
}

pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What a reader should know before believing the figures.
pub fn warnings(report: &Report) -> String {
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
