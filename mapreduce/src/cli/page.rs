//! A job as a page: a lane a worker, a bar an attempt.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mapreduce::job::{Attempt, End, View};

use super::status::name_of;

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:24px;color:#222;background:#fff}\
.lane{display:flex;margin:3px 0}.lane b{width:11em;font-weight:normal}.lane div{position:relative;flex:1;height:20px;\
background:#f3f3f3}i{position:absolute;height:20px;min-width:1px;overflow:hidden;color:#fff;font:11px/20px system-ui;\
text-indent:3px}.map{background:#3b6ea5}.reduce{background:#2f855a}.late{background:#a0a0a0}\
.gone,.failed{background:#c0392b}.live{opacity:.45}";

/// The page of a job.
pub(crate) fn page(view: &View) -> String {
    let mut lanes: BTreeMap<u64, String> = BTreeMap::new();
    let all = || view.tasks().flat_map(|state| &state.attempts);
    let end = |attempt: &Attempt| attempt.ended.map_or(view.now, |(at, _)| at);
    let length = all().map(end).max().unwrap_or(view.now).as_secs_f64().max(0.001);
    for (kind, states) in [("map", &view.maps), ("reduce", &view.reduces)] {
        for (number, attempt) in
            (0..).zip(states).flat_map(|(n, state)| state.attempts.iter().map(move |one| (n, one)))
        {
            let class = match attempt.ended {
                None => "live",
                Some((_, End::Won)) => "won",
                Some((_, End::Late)) => "late",
                Some((_, End::Failed)) => "failed",
                Some((_, End::Gone)) => "gone",
            };
            let (from, took) =
                (attempt.since.as_secs_f64(), end(attempt).saturating_sub(attempt.since).as_secs_f64());
            let _ = write!(
                lanes.entry(attempt.worker).or_default(),
                "<i class=\"{kind} {class}\" style=\"left:{:.2}%;width:{:.2}%\" \
                 title=\"{kind} {number}, attempt {}: {class}, {took:.2} s from {from:.2} s on\">{kind} {number}</i>",
                from / length * 100.0,
                took / length * 100.0,
                attempt.number,
            );
        }
    }
    let lanes: String = lanes
        .iter()
        .map(|(worker, bars)| {
            format!("<div class=\"lane\"><b>{}</b><div>{bars}</div></div>\n", name_of(*worker))
        })
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>mr: a job</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>A job of {} maps and {} reduces</h1>\n\
         <p>A lane is a worker, a bar an attempt at a task; the lanes are {length:.1} s long. Blue: a map that won; \
         green: a reduce that won; grey: a twin that came late; red: the worker was gone, or the app failed; pale: still \
         running.</p>\n{}{lanes}</body></html>\n",
        view.maps.len(),
        view.reduces.len(),
        view.failure.as_ref().map_or(String::new(), |why| format!("<p><b>Failed:</b> {}</p>\n", escape(why))),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
