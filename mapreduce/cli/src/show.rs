//! How a job is shown: a table of its tasks, and a page with a lane for each worker and a bar for
//! each attempt.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use base::html::{escape, head};
use comfy_table::{CellAlignment, Table, presets};
use mapreduce::{Attempt, Directory, End, Job, SILENT, Spec, State};

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:24px;color:#222;background:#fff}\
.lane{display:flex;margin:3px 0}.lane b{width:11em;font-weight:normal}.lane div{position:relative;flex:1;height:20px;\
background:#f3f3f3}i{position:absolute;height:20px;min-width:1px;overflow:hidden;color:#fff;font:11px/20px system-ui;\
text-indent:3px}.map{background:#3b6ea5}.reduce{background:#2f855a}.late{background:#a0a0a0}\
.gone,.failed{background:#c0392b}.live{opacity:.45}";

/// A worker's process id, and a part that tells it from workers of other machines.
fn name_of(worker: u64) -> String {
    format!("{}.{:x}", worker & u64::from(u32::MAX), worker >> 32)
}

/// All tasks, each with the name of its kind.
fn tasks(job: &Job) -> impl Iterator<Item = (&'static str, usize, &State)> {
    let maps = job.maps.iter().enumerate().map(|(number, state)| ("map", number, state));
    maps.chain(job.reduces.iter().enumerate().map(|(number, state)| ("reduce", number, state)))
}

/// How long an attempt has taken so far.
fn took(job: &Job, attempt: &Attempt) -> Duration {
    attempt.ended.map_or(job.now, |(at, _)| at).saturating_sub(attempt.since)
}

/// What the marks tell without a coordinator, and how the job ended.
pub(super) fn of_marks(
    directory: &Directory,
    spec: &Spec,
    why: &anyhow::Error,
) -> anyhow::Result<(Job, String)> {
    let (mut job, ending) = (directory.look(spec, 0)?, directory.finished());
    let note = match ending.as_deref() {
        Some("") => "The job is done.\n".to_owned(),
        Some(_) => "The job failed: `mr resume` goes on.\n".to_owned(),
        None => format!("The job is not done, and {why:#}: `mr resume` goes on.\n"),
    };
    job.failure = ending.filter(|why| !why.is_empty());
    Ok((job, note))
}

/// A row for each live attempt, and one for each task without any.
pub(super) fn table(job: &Job) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["task", "state", "worker", "attempts", "age s", "records", "MiB"]);
    table.column_iter_mut().skip(3).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    let lost = |worker: u64| {
        let heard = job.workers.iter().find(|(other, _)| *other == worker);
        heard.is_none_or(|(_, heard)| job.now.saturating_sub(*heard) > SILENT)
    };
    for (kind, number, state) in tasks(job) {
        let mut row = |word: &str, attempt: Option<&Attempt>| {
            let of = |text: fn(&Job, &Attempt) -> String| attempt.map_or(String::new(), |one| text(job, one));
            table.add_row([
                format!("{kind} {number}"),
                word.to_owned(),
                of(|_, attempt| name_of(attempt.worker)),
                state.attempts.len().to_string(),
                of(|job, attempt| format!("{:.1}", took(job, attempt).as_secs_f64())),
                of(|_, attempt| attempt.work.records.to_string()),
                of(|_, attempt| format!("{:.1}", attempt.work.bytes as f64 / f64::from(1 << 20))),
            ]);
        };
        let won = state.attempts.iter().find(|attempt| Some(attempt.number) == state.winner);
        match (state.winner, state.live().count()) {
            (Some(_), _) => row("done", won),
            (None, 0) => row("idle", None),
            (None, _) => state
                .live()
                .for_each(|one| row(if lost(one.worker) { "silent" } else { "running" }, Some(one))),
        }
    }
    let ((done, all), workers) = (job.progress(), job.workers.len());
    let lost = job.workers.iter().filter(|(worker, _)| lost(*worker)).count();
    let failure = job.failure.as_ref().map_or(String::new(), |why| format!("failed: {why}\n"));
    format!(
        "{table}\n{done} of {all} tasks done; {workers} workers were heard, {lost} of them not for 10 s\n{failure}"
    )
}

/// The page of a job.
pub(super) fn page(job: &Job) -> String {
    let mut lanes: BTreeMap<u64, String> = BTreeMap::new();
    let ends = tasks(job).flat_map(|(_, _, state)| &state.attempts).map(|one| one.since + took(job, one));
    let length = ends.max().unwrap_or(job.now).as_secs_f64().max(0.001);
    for (kind, number, state) in tasks(job) {
        for attempt in &state.attempts {
            let class = match attempt.ended {
                None => "live",
                Some((_, End::Won)) => "won",
                Some((_, End::Late)) => "late",
                Some((_, End::Failed)) => "failed",
                Some((_, End::Gone)) => "gone",
            };
            let (from, took) = (attempt.since.as_secs_f64(), took(job, attempt).as_secs_f64());
            let (left, width) = (from / length * 100.0, took / length * 100.0);
            let _ = write!(
                lanes.entry(attempt.worker).or_default(),
                "<i class=\"{kind} {class}\" style=\"left:{left:.2}%;width:{width:.2}%\" \
                 title=\"{kind} {number}, attempt {}: {class}, {took:.2} s from {from:.2} s on\">{kind} {number}</i>",
                attempt.number,
            );
        }
    }
    let lane = |(worker, bars): (&u64, &String)| {
        format!("<div class=\"lane\"><b>{}</b><div>{bars}</div></div>\n", name_of(*worker))
    };
    format!(
        "{}<h1>A job of {} maps and {} reduces</h1>\n\
         <p>A lane is a worker, a bar an attempt at a task; the lanes are {length:.1} s long. Blue: a map that won; \
         green: a reduce that won; grey: a twin that came late; red: the worker was gone, or the app failed; pale: still \
         running.</p>\n{}{}</body></html>\n",
        head("mr: a job", "", STYLE),
        job.maps.len(),
        job.reduces.len(),
        job.failure.as_ref().map_or(String::new(), |why| format!("<p><b>Failed:</b> {}</p>\n", escape(why))),
        lanes.iter().map(lane).collect::<String>(),
    )
}
