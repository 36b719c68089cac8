//! `compare`: this store beside etcd and Redis Cluster, measured in the same run by the same loop.
//!
//! Every store runs its servers on this machine, with its defaults for durability. All of them keep
//! running while one is measured. In each round every point is measured on every store, one after
//! the other. The order of the stores changes from round to round, so that a slow minute of the
//! machine does not hit the same store each time. Results go to standard output, progress to
//! standard error.
//!
//! Exit 0: measured (with `--strict`: and every target reached); 1: something failed; 2: wrong
//! usage.

mod args;
mod etcd;
mod peer;
mod redis_cluster;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use measure::load::{self, Measured, Scale};
use measure::ours::Ours;
use measure::points::{How, Point};
use measure::store::System;
use measure::summary::{OURS, Results, figure};
use real::check_binaries;
use serde_json::json;

use self::args::{Args, Which};

/// The pause between two measurements, so that the first one can finish its work.
const PAUSE: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let args = Args::parse();
    match load::on_one_thread(compare(&args)) {
        Ok(missed) if args.strict && missed > 0 => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything; returns how many targets were missed.
async fn compare(args: &Args) -> Result<usize> {
    let scale = Scale {
        keys: args.keys,
        value_bytes: args.value_bytes as usize,
        time: args.seconds,
        ..Scale::default()
    };
    let mut systems = Vec::new();
    for which in &args.stores {
        let system = start(*which).await?;
        eprintln!("{} {} runs", system.name(), system.version());
        load::fill(&*system, 0..scale.keys, scale.value_bytes).await?;
        systems.push(system);
    }
    let mut results = Results::default();
    for round in 0..args.rounds as usize {
        for point in args.points.iter().map(|named| named.0) {
            measure(point, &systems, round, scale, &mut results).await?;
        }
        if !systems.is_empty() {
            let first = systems.remove(0);
            systems.push(first);
        }
    }
    let memory = args.points.iter().find(|named| named.0.how == How::Memory);
    if let (Some(point), Some(ours)) = (memory, systems.iter().find(|system| system.name() == OURS)) {
        eprintln!("{}", point.0.text);
        load::fill(&**ours, scale.keys..args.memory_keys, scale.value_bytes).await?;
        results.add(
            point.0.name,
            OURS,
            Measured { rss_mib: load::rss_mib(&ours.pids()), ..Measured::default() },
        );
    }
    report(args, &systems, &results)
}

async fn start(which: Which) -> Result<Box<dyn System>> {
    Ok(match which {
        Which::Ours => {
            check_binaries()?;
            Box::new(Ours::start())
        }
        Which::Etcd => Box::new(etcd::Etcd::start().await?),
        Which::Redis => Box::new(redis_cluster::Redis::start().await?),
    })
}

async fn measure(
    point: &'static Point,
    systems: &[Box<dyn System>],
    round: usize,
    scale: Scale,
    results: &mut Results,
) -> Result<()> {
    match point.how {
        How::Memory => {}
        How::Core(in_flight) => {
            let rate = measure::core::entries_per_second(in_flight, scale.time);
            eprintln!("round {}: {}: {} op/s", round + 1, point.text, figure(rate));
            results.add(point.name, OURS, Measured { rate, ..Measured::default() });
        }
        How::Loop(work) => {
            for system in systems {
                tokio::time::sleep(PAUSE).await;
                let measured = load::run(&**system, work, scale);
                let measured =
                    measured.await.with_context(|| format!("{}, {}", point.text, system.name()))?;
                eprintln!(
                    "round {}: {}: {}: {} op/s, p50 {} ms, p99 {} ms",
                    round + 1,
                    point.text,
                    system.name(),
                    figure(measured.rate),
                    figure(measured.p50_ms),
                    figure(measured.p99_ms)
                );
                results.add(point.name, system.name(), measured);
            }
        }
    }
    Ok(())
}

fn report(args: &Args, systems: &[Box<dyn System>], results: &Results) -> Result<usize> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{} keys, values of {} bytes, {} rounds of {} s a point, {cores} processors for servers and clients together\n",
        args.keys,
        args.value_bytes,
        args.rounds,
        args.seconds.as_secs_f64()
    );
    for system in systems {
        println!("{} {}: {}", system.name(), system.version(), system.promise());
    }
    println!("\nmedians\n{}", results.medians());
    println!("targets\n{}", results.targets());
    if let Some(file) = &args.json {
        let stores = systems
            .iter()
            .map(|it| json!({"name": it.name(), "version": it.version(), "promise": it.promise()}));
        let mut document = results.document();
        document["stores"] = stores.collect();
        document["settings"] = json!({
            "keys": args.keys, "value_bytes": args.value_bytes, "rounds": args.rounds,
            "seconds": args.seconds.as_secs_f64(), "processors": cores,
        });
        let text = serde_json::to_string_pretty(&document)?;
        std::fs::write(file, text + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(results.missed())
}
