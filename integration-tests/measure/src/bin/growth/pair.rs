//! Two stores side by side, measured alternately.

use std::time::Duration;

use anyhow::Result;
use measure::load::{self, Measured, Scale, Work};
use measure::ours::Ours;
use measure::points::Metric;
use measure::summary::{figure, median};

use crate::args::Args;
use crate::rows::VALUE_BYTES;
use crate::{Limit, Line, watch};

/// Speed and 99th percentile of the larger store must be this close to those of the small one.
const WITHIN: f64 = 0.2;
/// The pause between two measurements.
const PAUSE: Duration = Duration::from_millis(300);
const WORKS: [(&str, Work); 2] =
    [("put", Work { clients: 64, reads: 0, batch: 1 }), ("get", Work { clients: 64, reads: 100, batch: 1 })];

/// The lines of a comparison; each store comes with its number of keys.
pub(crate) async fn compare(args: &Args, small: (&Ours, u64), large: (&Ours, u64)) -> Result<Vec<Line>> {
    for (ours, _) in [small, large] {
        watch::quiet(ours).await?;
    }
    let mut lines = Vec::new();
    for (name, work) in WORKS {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for round in 0..args.rounds {
            for (who, (ours, keys), runs) in [("small", small, &mut before), ("large", large, &mut after)] {
                tokio::time::sleep(PAUSE).await;
                let scale = Scale { keys, value_bytes: VALUE_BYTES, time: args.seconds, ..Scale::default() };
                let run = load::run(ours, work, scale).await?;
                let (rate, p99) = (figure(run.rate), figure(run.p99_ms));
                eprintln!("round {}: {name}, {who} store: {rate} op/s, p99 {p99} ms", round + 1);
                runs.push(run);
            }
        }
        lines.extend(ratios(name, &before, &after));
    }
    Ok(lines)
}

/// The remaining share of the speed, and the factor by which slow calls get slower.
fn ratios(name: &str, small: &[Measured], large: &[Measured]) -> Vec<Line> {
    let line = |metric: Metric, what: &str, limit: Limit| {
        let of = |runs: &[Measured]| median(runs.iter().map(|run| metric.of(run))).unwrap_or(f64::NAN);
        let (small, large) = (of(small), of(large));
        let what =
            format!("{name}, 64 clients: {what} {} -> {} {}", figure(small), figure(large), metric.unit());
        Line { what, measured: large / small, unit: "x", limit }
    };
    vec![
        line(Metric::Rate, "speed", Limit::AtLeast(1.0 - WITHIN)),
        line(Metric::P99, "time", Limit::AtMost(1.0 + WITHIN)),
    ]
}

#[cfg(test)]
mod tests {
    use measure::load::Measured;

    use super::ratios;

    #[test]
    fn a_store_that_lost_a_third_of_its_speed_misses_and_one_that_lost_a_tenth_does_not() {
        let run = |rate, p99_ms| [Measured { rate, p99_ms, ..Measured::default() }];
        let lines = ratios("put", &run(30_000.0, 4.0), &run(27_000.0, 4.5));
        assert!(lines.iter().all(super::Line::passed), "{lines:?}");
        let lines = ratios("put", &run(30_000.0, 4.0), &run(20_000.0, 5.0));
        assert!(lines.iter().all(|line| !line.passed()), "{lines:?}");
        assert_eq!(lines[0].what, "put, 64 clients: speed 30,000 -> 20,000 op/s");
        assert_eq!(lines[1].measured, 1.25);
    }
}
