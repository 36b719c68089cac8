//! `mr status`: the tasks of a job as a table, a document or a page.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use mapreduce::api::{Coordinate, Reply, Request, Unreachable};
use mapreduce::files::{Directory, Spec};
use mapreduce::job::{Attempt, Kind, SILENT, State, Task, View};
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

/// A worker as it is shown: its process id, and what tells it from those of other machines.
pub(crate) fn name_of(worker: u64) -> String {
    format!("{}.{:x}", worker & u64::from(u32::MAX), worker >> 32)
}

pub(crate) async fn status(args: &StatusArgs) -> anyhow::Result<i32> {
    let (directory, spec) = Directory::open(&args.dir)?;
    let (view, note) = match ask(&directory, &spec).await {
        Ok(view) => (view, String::new()),
        Err(why) => of_marks(&directory, &spec, &why)?,
    };
    match &args.html {
        Some(path) => std::fs::write(path, page::page(&view))?,
        None if args.json => println!("{}", serde_json::to_string(&view)?),
        None => println!("{}{note}", table(&view)),
    }
    Ok(0)
}

/// What is known without a coordinator, and how the job ended.
fn of_marks(directory: &Directory, spec: &Spec, why: &Unreachable) -> std::io::Result<(View, String)> {
    let tasks = |kind, count| -> std::io::Result<Vec<State>> {
        let winner = |number| directory.marked(Task { kind, number });
        (0..count).map(|number| Ok(State { winner: winner(number)?, ..State::default() })).collect()
    };
    let (maps, reduces) = (tasks(Kind::Map, spec.maps())?, tasks(Kind::Reduce, spec.reduces)?);
    let failure = directory.finished();
    let note = match failure.as_deref() {
        Some("") => "The job is done.\n".to_owned(),
        Some(_) => "The job failed: `mr resume` goes on.\n".to_owned(),
        None => format!("The job is not done, and {why}: `mr resume` goes on.\n"),
    };
    let failure = failure.filter(|why| !why.is_empty());
    Ok((View { maps, reduces, failure, ..View::default() }, note))
}

/// A row a live attempt, and a row a task without any.
fn table(view: &View) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["task", "state", "worker", "attempts", "age s", "records", "MiB"]);
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (kind, states) in [("map", &view.maps), ("reduce", &view.reduces)] {
        for (number, state) in states.iter().enumerate() {
            rows(view, &format!("{kind} {number}"), state, &mut table);
        }
    }
    let ((done, all), workers) = (view.progress(), view.workers.len());
    let lost = view.workers.iter().filter(|(_, heard)| view.now.saturating_sub(*heard) > SILENT).count();
    let failure = view.failure.as_ref().map_or(String::new(), |why| format!("failed: {why}\n"));
    format!(
        "{table}\n{done} of {all} tasks done; {workers} workers were heard, {lost} of them not for 10 s\n{failure}"
    )
}

fn rows(view: &View, task: &str, state: &State, table: &mut Table) {
    let mut row = |word: &str, attempt: Option<&Attempt>| {
        let age = attempt.map_or(String::new(), |attempt| {
            let until = attempt.ended.map_or(view.now, |(at, _)| at);
            format!("{:.1}", until.saturating_sub(attempt.since).as_secs_f64())
        });
        let work = attempt.map(|attempt| attempt.work).unwrap_or_default();
        let worker = attempt.map_or(String::new(), |attempt| name_of(attempt.worker));
        let mib = format!("{:.1}", work.bytes as f64 / f64::from(1 << 20));
        let (attempts, records) = (state.attempts.len().to_string(), work.records.to_string());
        table.add_row([task, word, &worker, &attempts, &age, &records, &mib]);
    };
    if state.winner.is_some() {
        return row("done", state.won());
    }
    let is_heard = |attempt: &Attempt| {
        let mut of_it = view.workers.iter().filter(|(worker, _)| *worker == attempt.worker);
        of_it.any(|(_, heard)| view.now.saturating_sub(*heard) <= SILENT)
    };
    let live =
        state.live().map(|attempt| row(if is_heard(attempt) { "running" } else { "silent" }, Some(attempt)));
    if live.count() == 0 {
        row("idle", None);
    }
}
