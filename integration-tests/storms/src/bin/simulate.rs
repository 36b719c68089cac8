//! Runs simulations: `simulate SUITE [FIRST_SEED [COUNT]]`; SEED and SEEDS in the environment do
//! the same. SIM_TRACE=1 prints every event; SIM_HISTORY=FILE keeps a history that was rejected;
//! SIM_LOG=1 shows the product's own log lines.

use std::process::ExitCode;

use storms::{campaign, seeds_asked, suites};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let known = suites();
    let name = arguments.next().unwrap_or_default();
    if name != "all" && !known.contains_key(name.as_str()) {
        let names: Vec<_> = known.keys().copied().collect();
        eprintln!("usage: simulate SUITE [FIRST_SEED [COUNT]]; suites: all {}", names.join(" "));
        return ExitCode::from(2);
    }
    let (first, count) = seeds_asked();
    let mut number = |otherwise| arguments.next().map_or(Ok(otherwise), |text| text.parse());
    let (Ok(first), Ok(count)) = (number(first), number(count)) else {
        eprintln!("seeds are numbers");
        return ExitCode::from(2);
    };
    if std::env::var_os("SIM_LOG").is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    }
    let mut failed = false;
    for suite in known.keys().filter(|suite| name == "all" || **suite == name) {
        let start = std::time::Instant::now();
        match campaign(suite, first, count) {
            Ok(total) => {
                let (seconds, trace) = (start.elapsed().as_secs_f64(), total.trace);
                println!("{suite}: {count} seeds from {first}: {total}; {seconds:.1} s\ntrace {trace:016x}");
            }
            Err(why) => {
                eprintln!("{why}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
