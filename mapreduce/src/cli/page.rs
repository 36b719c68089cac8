//! A job as a page: a lane a worker, a bar an attempt.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mapreduce::job::{Attempt, End, View};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 110.0;
const LANE: f64 = 26.0;
const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:24px;color:#222;background:#fff}\
svg{width:100%;max-width:1120px}text{font-size:11px;fill:#444}.bar text{fill:#fff}\
.map rect{fill:#3b6ea5}.reduce rect{fill:#2f855a}.late rect{fill:#a0a0a0}.gone rect,.failed rect{fill:#c0392b}\
.live rect{fill-opacity:.45}line{stroke:#ddd}";

/// The page of a job.
pub(crate) fn page(view: &View) -> String {
    let mut lanes: BTreeMap<u64, Vec<(String, &str, &Attempt)>> = BTreeMap::new();
    for (kind, states) in [("map", &view.maps), ("reduce", &view.reduces)] {
        for (number, state) in states.iter().enumerate() {
            for attempt in &state.attempts {
                lanes.entry(attempt.worker).or_default().push((format!("{kind} {number}"), kind, attempt));
            }
        }
    }
    let ends = lanes.values().flatten().map(|(.., attempt)| attempt.ended.map_or(view.now, |(at, _)| at));
    let length = ends.max().unwrap_or(view.now).as_secs_f64().max(0.001);
    let height = LANE * (lanes.len() + 1) as f64;
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>mr: a job</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>A job of {} maps and {} reduces</h1>\n\
         <p>A lane is a worker, a bar an attempt at a task. Blue: a map that won; green: a reduce that won; grey: a twin \
         that came late; red: the worker was gone, or the app failed; pale: still running.</p>\n{}\
         <svg viewBox=\"0 0 {} {height}\" role=\"img\">\n",
        view.maps.len(),
        view.reduces.len(),
        view.failure.as_ref().map_or(String::new(), |why| format!("<p><b>Failed:</b> {}</p>\n", escape(why))),
        LEFT + WIDTH + 10.0,
    );
    for (lane, (worker, attempts)) in lanes.iter().enumerate() {
        let y = LANE * lane as f64;
        let _ = writeln!(html, "<text x=\"0\" y=\"{}\">worker {worker}</text>", y + 16.0);
        attempts.iter().for_each(|bar| html.push_str(&bar_of(view, bar, y, length)));
    }
    for tick in 0..=5 {
        let (x, at) = (LEFT + WIDTH * f64::from(tick) / 5.0, length * f64::from(tick) / 5.0);
        let _ = writeln!(
            html,
            "<line x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{}\"/><text x=\"{}\" y=\"{}\">{at:.1} s</text>",
            height - LANE,
            x - 24.0,
            height - 8.0
        );
    }
    html + "</svg>\n</body></html>\n"
}

fn bar_of(view: &View, (task, kind, attempt): &(String, &str, &Attempt), y: f64, length: f64) -> String {
    let (until, class) = match attempt.ended {
        None => (view.now, format!("{kind} live")),
        Some((at, End::Won)) => (at, (*kind).to_owned()),
        Some((at, End::Late)) => (at, "late".to_owned()),
        Some((at, End::Failed)) => (at, "failed".to_owned()),
        Some((at, End::Gone)) => (at, "gone".to_owned()),
    };
    let scale = |seconds: f64| seconds / length * WIDTH;
    let (from, took) = (attempt.since.as_secs_f64(), until.saturating_sub(attempt.since).as_secs_f64());
    let (x, width) = (LEFT + scale(from), scale(took).max(1.0));
    let label = if width > 60.0 { task.as_str() } else { "" };
    format!(
        "<g class=\"bar {class}\"><title>{task}, attempt {}: {class}, {took:.2} s from {from:.2} s on</title>\
         <rect x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\"/>\
         <text x=\"{:.1}\" y=\"{}\">{label}</text></g>\n",
        attempt.number,
        y + 2.0,
        LANE - 6.0,
        x + 4.0,
        y + 16.0
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
