//! Runs tests and reports the results.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context, ensure};
use comfy_table::{CellAlignment, Table, presets};
use labs::grading::score::{self, Graded, Part};
use labs::grading::{Outcome, campaign, catalogue, keep, select};
use labs::lab::{Options, Timers};
use labs::sheet::{Sheet, Test};

use super::args::{Format, Play};
use super::live::{self, Live};
use super::real;
use super::results::{self, Line};

/// Returns whether everything passed.
pub(super) fn play(args: &Play) -> anyhow::Result<bool> {
    let tests = select(catalogue(), &args.select.words, args.select.sheet)?;
    let tests = if args.real { real::fit(tests)? } else { tests };
    let start = Instant::now();
    let graded = match args.repeat {
        Some(_) => many(args, &tests)?,
        None => each(args, &tests)?,
    };
    if let Some(path) = &args.junit {
        let text = score::junit(&graded, args.select.sheet)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let over = if args.repeat.is_none() && !args.real {
        score::over_time(&graded, args.select.sheet)
    } else {
        Vec::new()
    };
    let (parts, total) = score::parts(&graded, args.select.sheet);
    match args.output {
        Format::Json => println!("{:#}", score::results_json(&graded, args.seed)),
        Format::Text => {
            println!("\n{}", summary(&parts, &total));
            for (suite, time) in &over {
                let limit = score::SUITE_LIMIT.as_secs();
                println!("suite {suite} took {:.0} virtual s, the limit is {limit} s", time.as_secs_f64());
            }
            println!("{}", last_line(&total, start.elapsed().as_secs_f64(), over.is_empty()));
        }
    }
    Ok(total.failed + total.unknown == 0 && over.is_empty())
}

fn last_line(total: &Part, wall_s: f64, in_time: bool) -> String {
    let Part { passed, failed, unknown, .. } = total;
    let word = if failed + unknown == 0 && in_time { "PASS" } else { "FAIL" };
    let points = total.points.map_or_else(String::new, |(earned, all)| format!(", {earned} of {all} points"));
    format!(
        "{word}: {passed} passed, {failed} failed, {unknown} unknown{points}; {:.0} virtual s in {wall_s:.1} s",
        total.virtual_s
    )
}

fn summary(parts: &[(String, Part)], total: &Part) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let points = total.points.is_some();
    let mut header = vec!["part", "passed", "failed", "unknown", "virtual s", "wall s"];
    header.extend(points.then_some("points"));
    table.set_header(header);
    let all = ("all".to_owned(), total.clone());
    for (name, part) in parts.iter().chain([&all]) {
        let mut row = vec![
            name.clone(),
            part.passed.to_string(),
            part.failed.to_string(),
            part.unknown.to_string(),
            format!("{:.1}", part.virtual_s),
            format!("{:.1}", part.wall_s),
        ];
        row.extend(part.points.map(|(earned, all)| format!("{earned}/{all}")));
        table.add_row(row);
    }
    for column in 1..=6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The command that repeats one run.
fn replay(args: &Play, test: &Test, seed: u64) -> String {
    let timers = match args.timers.map(Timers::from) {
        None => "",
        Some(Timers::Lab) => " --timers lab",
        Some(Timers::Product) => " --timers product",
    };
    let real = if args.real { " --real" } else { "" };
    let mutant = std::env::var("MUTANT").map_or_else(|_| String::new(), |name| format!("MUTANT={name} "));
    format!("{mutant}bin/grade {} --seed {seed}{timers}{real}", test.id)
}

fn options(args: &Play, test: &Test, seed: u64) -> Options {
    Options { seed, net: test.net, timers: args.timers.map(Timers::from) }
}

/// Runs jobs as the arguments say; `done` gets each result, in any order.
fn perform(args: &Play, jobs: &[(&Test, Options)], mut done: impl FnMut(usize, Outcome)) {
    if args.real {
        return real::play(jobs, done);
    }
    let threads = args.jobs.map_or_else(campaign::threads, usize::from);
    campaign::play(jobs, threads, |position, outcome| {
        done(position, outcome);
        true
    });
}

/// Runs each test once (as often as its sheet says), and reports in the labs' lines and in order.
fn each(args: &Play, tests: &[Test]) -> anyhow::Result<Vec<Graded>> {
    let repeats = args.select.sheet.map_or(1, Sheet::repeats);
    let job = |test, run: u64| (test, options(args, test, args.seed + run));
    let jobs: Vec<(&Test, Options)> =
        tests.iter().flat_map(|test| (0..repeats).map(move |run| job(test, run))).collect();
    say(args, &header(args, tests.len(), jobs.len()));
    let mut outcomes: Vec<Option<Outcome>> = vec![None; jobs.len()];
    let mut told = 0;
    perform(args, &jobs, |position, outcome| {
        outcomes[position] = Some(outcome);
        while let Some(outcome) = outcomes.get(told).and_then(Option::as_ref) {
            tell(args, &jobs[told], outcome);
            told += 1;
        }
    });
    let mut runs = outcomes.into_iter().flatten();
    let graded = tests.iter().map(|test| {
        let runs: Vec<Outcome> = runs.by_ref().take(repeats as usize).collect();
        let seed = runs.iter().find(|run| !run.passed()).or(runs.first()).map_or(args.seed, |run| run.seed);
        Graded { test: test.clone(), runs, replay: replay(args, test, seed) }
    });
    let graded: Vec<Graded> = graded.collect();
    ensure!(graded.iter().all(|graded| !graded.runs.is_empty()), "some tests were not run");
    Ok(graded)
}

fn header(args: &Play, tests: usize, runs: usize) -> String {
    let sheet = args.select.sheet.map_or_else(String::new, |sheet| format!(" of sheet {sheet}"));
    let ground = if args.real {
        "real processes, TCP, RocksDB, SIGKILL"
    } else {
        "simulated: messages 0.2-0.5 ms each way, a synced save 0.2 ms, all drawn from the seed"
    };
    format!("{tests} tests{sheet}, {runs} runs, seed {}; {ground}", args.seed)
}

fn say(args: &Play, text: &str) {
    match args.output {
        // A reader that has seen enough closes the pipe.
        Format::Text => drop(writeln!(std::io::stdout(), "{text}")),
        Format::Json => eprintln!("{text}"),
    }
}

fn tell(args: &Play, (test, options): &(&Test, Options), outcome: &Outcome) {
    say(args, &score::lines(test, args.select.sheet, outcome, args.real));
    if !outcome.passed() {
        explain(args, test, options, outcome);
    }
}

fn explain(args: &Play, test: &Test, options: &Options, outcome: &Outcome) {
    let replay = replay(args, test, outcome.seed);
    say(args, &format!("  replay: {replay}"));
    if args.real {
        return;
    }
    match keep(&args.failures, test, options, outcome, &replay) {
        Ok(kept) => say(args, &format!("  look at: {0}/page.html (log: bin/grade log {0})", kept.display())),
        Err(error) => eprintln!("grade: the failure could not be kept: {error:#}"),
    }
}

/// Runs each test with many seeds, and shows a table.
fn many(args: &Play, tests: &[Test]) -> anyhow::Result<Vec<Graded>> {
    let repeat = args.repeat.unwrap_or(1);
    let mode = if args.real { "real" } else { "simulated" };
    let commit = results::commit();
    let job = |test, run: u64| (test, options(args, test, args.seed + run));
    let jobs: Vec<(&Test, Options)> =
        tests.iter().flat_map(|test| (0..repeat).map(move |run| job(test, run))).collect();
    eprintln!("{}", header(args, tests.len(), jobs.len()));
    let line = |test: &Test| Line {
        commit: commit.clone(),
        test: test.id.to_owned(),
        mode: mode.to_owned(),
        first_seed: args.seed,
        ..Line::default()
    };
    let mut lines: Vec<Line> = tests.iter().map(line).collect();
    let mut runs: Vec<Vec<Outcome>> = vec![Vec::new(); tests.len()];
    let mut live = Live::new();
    let mut kept = Ok(());
    perform(args, &jobs, |position, outcome| {
        let place = position / repeat as usize;
        lines[place].add(&outcome);
        runs[place].push(outcome);
        // Saves each test as soon as it is through: an interrupted campaign of hours keeps its
        // results.
        if lines[place].runs == repeat && kept.is_ok() {
            kept = results::append(&args.results, &lines[place]);
        }
        live.update(&lines, jobs.len() as u64);
    });
    live.end();
    runs.iter_mut().for_each(|runs| runs.sort_by_key(|run| run.seed));
    kept?;
    say(args, &live::table(&lines).to_string());
    for (test, run) in
        tests.iter().zip(&runs).flat_map(|(test, runs)| runs.iter().map(move |run| (test, run)))
    {
        if !run.passed() {
            tell(args, &(test, options(args, test, run.seed)), run);
        }
    }
    let totals = results::totals(&args.results, &commit)?;
    let (all, failed) = totals
        .values()
        .fold((0, 0), |(all, failed), line| (all + line.runs, failed + line.failed_seeds.len()));
    let file = args.results.display();
    say(args, &format!("commit {commit} in {file}: {all} runs so far, {failed} failed"));
    let graded = tests.iter().zip(runs).map(|(test, runs)| {
        let seed = runs.iter().find(|run| !run.passed()).or(runs.first()).map_or(args.seed, |run| run.seed);
        Graded { test: test.clone(), runs, replay: replay(args, test, seed) }
    });
    Ok(graded.collect())
}
