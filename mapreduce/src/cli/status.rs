//! `mr status`: the tasks of a job as a table, a document or a page.

use std::path::PathBuf;
use std::time::Duration;

use base::clock;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use mapreduce::api::{Coordinate, Reply, Request, Unreachable};
use mapreduce::files::{Directory, Spec};
use mapreduce::job::{Attempt, End, Kind, SILENT, State, Task, View};
use mapreduce::remote::Remote;

use super::{page, plan};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The job's directory.
    #[arg(default_value = plan::DIRECTORY)]
    dir: PathBuf,
    /// One JSON document.
    #[arg(long)]
    json: bool,
    /// Again each second, until the job is over.
    #[arg(long)]
    watch: bool,
    /// Writes a page of bars instead: who does what when.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What the coordinator says.
pub(crate) async fn ask(directory: &Directory, spec: &Spec) -> Result<View, Unreachable> {
    match Remote::new(directory.clone(), spec.id).call(Request::View).await? {
        Reply::View(view) => Ok(*view),
        _ => Err(Unreachable("it answers another question".to_owned())),
    }
}

pub(crate) async fn status(args: &StatusArgs) -> anyhow::Result<i32> {
    let (directory, spec) = Directory::open(&args.dir)?;
    loop {
        let (view, note) = match ask(&directory, &spec).await {
            Ok(view) => (view, String::new()),
            Err(why) => (of_marks(&directory, &spec)?, format!("{}\n", ending(&directory, &why))),
        };
        if let Some(path) = &args.html {
            std::fs::write(path, page::page(&view))?;
        } else if args.json {
            println!("{}", serde_json::to_string(&view)?);
        } else {
            let clear = if args.watch { "\x1b[2J\x1b[H" } else { "" };
            println!("{clear}{}{note}", table(&view));
        }
        if !args.watch || !note.is_empty() {
            return Ok(0);
        }
        clock::sleep(Duration::from_secs(1)).await;
    }
}

fn ending(directory: &Directory, why: &Unreachable) -> String {
    match directory.finished().as_deref() {
        Some("") => "The job is done.".to_owned(),
        Some(failure) => format!("The job failed: {failure}"),
        None => format!("The job is not done, and {why}: `mr resume` goes on."),
    }
}

/// What is known without a coordinator.
fn of_marks(directory: &Directory, spec: &Spec) -> std::io::Result<View> {
    let tasks = |kind, count| -> std::io::Result<Vec<State>> {
        let one = |number| {
            let winner = directory.marked(Task { kind, number })?;
            Ok(State { winner, ..State::default() })
        };
        (0..count).map(one).collect()
    };
    let (maps, reduces) = (tasks(Kind::Map, spec.maps())?, tasks(Kind::Reduce, spec.reduces)?);
    let failure = directory.finished().filter(|text| !text.is_empty());
    Ok(View { maps, reduces, failure, ..View::default() })
}

/// A row a live attempt, and a row a task without any.
fn table(view: &View) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["task", "state", "worker", "attempts", "age s", "records", "MiB"]);
    for column in 3..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (kind, states) in [("map", &view.maps), ("reduce", &view.reduces)] {
        for (number, state) in states.iter().enumerate() {
            rows(view, &format!("{kind} {number}"), state, &mut table);
        }
    }
    let done = view.maps.iter().chain(&view.reduces).filter(|state| state.winner.is_some()).count();
    let all = view.maps.len() + view.reduces.len();
    let lost = view.workers.iter().filter(|(_, heard)| view.now.saturating_sub(*heard) > SILENT).count();
    let failure = view.failure.as_ref().map_or(String::new(), |why| format!("failed: {why}\n"));
    let workers = view.workers.len();
    format!(
        "{table}\n{done} of {all} tasks done; {workers} workers were heard, {lost} of them not for 10 s\n{failure}"
    )
}

fn rows(view: &View, task: &str, state: &State, table: &mut Table) {
    let attempts = state.attempts.len().to_string();
    let mut row = |word: &str, attempt: Option<&Attempt>| {
        let worker = attempt.map_or(String::new(), |attempt| attempt.worker.to_string());
        let age = attempt.map_or(String::new(), |attempt| {
            let until = attempt.ended.map_or(view.now, |(at, _)| at);
            format!("{:.1}", until.saturating_sub(attempt.since).as_secs_f64())
        });
        let work = attempt.map(|attempt| attempt.work).unwrap_or_default();
        let mib = format!("{:.1}", work.bytes as f64 / f64::from(1 << 20));
        table.add_row([task, word, &worker, &attempts, &age, &work.records.to_string(), &mib]);
    };
    let won = state.attempts.iter().find(|attempt| matches!(attempt.ended, Some((_, End::Won))));
    if state.winner.is_some() {
        return row("done", won);
    }
    let live: Vec<_> = state.attempts.iter().filter(|attempt| attempt.ended.is_none()).collect();
    let heard = |worker| view.workers.iter().find(|(other, _)| *other == worker).map(|(_, heard)| *heard);
    for attempt in &live {
        let is_lost = heard(attempt.worker).is_none_or(|heard| view.now.saturating_sub(heard) > SILENT);
        row(if is_lost { "silent" } else { "running" }, Some(attempt));
    }
    if live.is_empty() {
        row("idle", None);
    }
}
