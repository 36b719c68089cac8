//! Charts over time as inline SVG: lines, the phases in the background, and marks where something
//! happened.

use std::fmt::Write as _;

use super::page::{count, escape};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 22.0;
/// About so many lines across.
const TICKS: f64 = 4.0;
/// Marks closer than this share a label.
const LABEL: f64 = 22.0;
/// A letter of a phase's name is about so wide.
const LETTER: f64 = 6.6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Main,
    Second,
    Faint,
}

impl Style {
    fn class(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Second => "second",
            Self::Faint => "faint",
        }
    }
}

/// A line: moments in seconds, and values; it is broken where there is none.
pub struct Line {
    pub name: String,
    pub style: Style,
    pub points: Vec<(f64, Option<f64>)>,
}

/// A phase.
pub struct Band {
    pub name: String,
    pub from_s: f64,
    pub to_s: f64,
    pub counts: bool,
}

/// Something that happened. Its number is its place.
pub struct MarkAt {
    pub at_s: f64,
    pub class: &'static str,
    pub text: String,
}

pub struct Chart<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub log: bool,
    pub lines: Vec<Line>,
    pub length_s: f64,
    pub bands: &'a [Band],
    pub marks: &'a [MarkAt],
}

/// Values to heights.
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Scale {
    fn linear(values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let step = nice(most / TICKS);
        let high = (most / step).ceil() * step;
        let ticks = (0..=(high / step).round() as u32).map(|tick| f64::from(tick) * step).collect();
        Self { log: false, low: 0.0, high, ticks }
    }

    /// Whole decades around the values, with 2 and 5 between them if they are few.
    fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = if most > 0.0 { (least, most) } else { (1.0, 10.0) };
        let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        let last = last.max(first + 1);
        let between: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades =
            (first..=last).flat_map(|decade| between.iter().map(move |of| of * 10_f64.powi(decade)));
        let (low, high) = (10_f64.powi(first), 10_f64.powi(last));
        Self { log: true, low, high, ticks: decades.filter(|tick| *tick <= high * 1.001).collect() }
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            value / self.high
        };
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

/// The next larger of 1, 2 and 5 times a power of ten.
pub fn nice(step: f64) -> f64 {
    let decade = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|of| of * decade).find(|nice| *nice >= step * 0.999).unwrap_or(step)
}

/// A value at an axis.
pub fn tick(value: f64) -> String {
    match value {
        value if value >= 1000.0 => count(value),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

impl Chart<'_> {
    /// The chart with its head.
    pub fn html(&self) -> String {
        let mut html = format!(
            "<figure>\n<div class=\"head\"><h3>{}</h3><span class=\"small\">{}</span><span class=\"legend\">",
            escape(self.title),
            escape(self.unit)
        );
        for line in self.lines.iter().filter(|_| self.lines.len() > 1) {
            let (class, name) = (line.style.class(), escape(&line.name));
            let _ = write!(
                html,
                "<span><svg viewBox=\"0 0 26 8\"><path class=\"series {class}\" d=\"M1 4H25\"/></svg>{name}</span>"
            );
        }
        let _ = write!(
            html,
            "</span></div>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(self.title)
        );
        let values = || self.lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, value)| *value));
        let scale = if self.log { Scale::logarithmic(values()) } else { Scale::linear(values()) };
        self.bands(&mut html);
        self.axes(&mut html, &scale);
        for line in self.lines.iter().rev() {
            self.line(&mut html, &scale, line);
        }
        self.marks(&mut html);
        html + "</svg>\n</figure>\n"
    }

    fn x(&self, seconds: f64) -> f64 {
        let share = seconds / self.length_s.max(1e-9);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn bands(&self, html: &mut String) {
        for (index, band) in self.bands.iter().enumerate() {
            let (from, to) = (self.x(band.from_s), self.x(band.to_s));
            let kind = match (band.counts, index % 2) {
                (false, _) => " off",
                (true, 0) => "",
                (true, _) => " even",
            };
            let (width, height) = (to - from, HEIGHT - TOP - BOTTOM);
            let _ = writeln!(
                html,
                "<rect class=\"band{kind}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            );
            if index > 0 {
                let bottom = HEIGHT - BOTTOM;
                let _ = writeln!(html, "<path class=\"edge\" d=\"M{from:.1} {TOP}V{bottom:.1}\"/>");
            }
            let room = ((width - LETTER).max(0.0) / LETTER) as usize;
            let length = band.name.chars().count();
            if room >= 3 && self.bands.len() > 1 {
                let shown: String =
                    band.name.chars().take(if length > room { room - 1 } else { room }).collect();
                let more = if length > room { "…" } else { "" };
                let (x, y) = (from + 3.0, TOP - 20.0);
                let _ = writeln!(html, "<text x=\"{x:.1}\" y=\"{y:.1}\">{}{more}</text>", escape(&shown));
            }
        }
    }

    fn axes(&self, html: &mut String, scale: &Scale) {
        for value in &scale.ticks {
            let (y, right, x) = (scale.y(*value), WIDTH - RIGHT, LEFT - 6.0);
            let _ = writeln!(html, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            let (text, below) = (tick(*value), y + 4.0);
            let _ = writeln!(html, "<text x=\"{x:.1}\" y=\"{below:.1}\" text-anchor=\"end\">{text}</text>");
        }
        let step = nice(self.length_s / 10.0);
        let mut at = 0.0;
        while at <= self.length_s * 1.0001 {
            let (x, y) = (self.x(at), HEIGHT - 6.0);
            let anchor = if at == 0.0 { "start" } else { "middle" };
            // The last one would stand out over the edge.
            if x < WIDTH - RIGHT - 8.0 {
                let _ = writeln!(
                    html,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{} s</text>",
                    tick(at)
                );
            }
            at += step;
        }
    }

    fn line(&self, html: &mut String, scale: &Scale, line: &Line) {
        let class = line.style.class();
        let (mut path, mut length) = (String::new(), 0);
        let mut alone = Vec::new();
        let mut finish = |path: &mut String, length: &mut u32, last: Option<(f64, f64)>| {
            if *length == 1 {
                alone.extend(last);
            } else if *length > 1 {
                let _ = writeln!(html, "<path class=\"series {class}\" d=\"{path}\"/>");
            }
            path.clear();
            *length = 0;
        };
        let mut last = None;
        for (at, value) in &line.points {
            // A logarithmic axis has no place for nothing.
            let Some(value) = value.filter(|value| !scale.log || *value > 0.0) else {
                finish(&mut path, &mut length, last);
                continue;
            };
            let (x, y) = (self.x(*at), scale.y(value));
            let _ = write!(path, "{}{x:.1} {y:.1}", if length == 0 { "M" } else { "L" });
            length += 1;
            last = Some((x, y));
        }
        finish(&mut path, &mut length, last);
        for (x, y) in alone {
            let _ = writeln!(html, "<circle class=\"point {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.2\"/>");
        }
        // The texts that a pointer shows.
        for (at, value) in &line.points {
            if let Some(value) = value {
                let (x, y, name) = (self.x(*at), scale.y(*value), escape(&line.name));
                let _ = writeln!(
                    html,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\" fill-opacity=\"0\"><title>{at:.1} s: {name} {}</title></circle>",
                    tick(*value)
                );
            }
        }
    }

    fn marks(&self, html: &mut String) {
        let bottom = HEIGHT - BOTTOM;
        let mut label: Option<(f64, usize, usize, &str)> = None;
        let mut labels = Vec::new();
        for (index, mark) in self.marks.iter().enumerate() {
            let x = self.x(mark.at_s);
            let _ = writeln!(
                html,
                "<path class=\"mark {}\" d=\"M{x:.1} {TOP}V{bottom:.1}\"><title>{:.1} s: {}</title></path>",
                mark.class,
                mark.at_s,
                escape(&mark.text)
            );
            label = match label {
                Some((at, first, _, class)) if x - at < LABEL => Some((at, first, index + 1, class)),
                done => {
                    labels.extend(done);
                    Some((x, index + 1, index + 1, mark.class))
                }
            };
        }
        labels.extend(label);
        for (x, first, last, class) in labels {
            let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
            let y = TOP - 5.0;
            let _ = writeln!(
                html,
                "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{numbers}</text>"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Band, Chart, Line, MarkAt, Scale, Style, nice, tick};

    #[test]
    fn axes_have_round_numbers() {
        for (step, expected) in
            [(1.0, 1.0), (1.1, 2.0), (3.0, 5.0), (7.0, 10.0), (0.03, 0.05), (1234.0, 2000.0)]
        {
            assert!((nice(step) / expected - 1.0).abs() < 1e-9, "{step}");
        }
        let scale = Scale::linear([870.0].into_iter());
        assert_eq!(scale.ticks, [0.0, 500.0, 1000.0]);
        let scale = Scale::logarithmic([0.4, 30.0].into_iter());
        assert_eq!((tick(scale.low), tick(scale.high)), ("0.1".to_owned(), "100".to_owned()));
        assert!(scale.y(0.1) > scale.y(1.0) && scale.y(1.0) > scale.y(100.0));
    }

    #[test]
    fn lines_break_where_nothing_was_measured() {
        let points = [Some(1.0), Some(2.0), None, Some(3.0), None, Some(1.0), Some(0.0)];
        let points = points.into_iter().enumerate().map(|(at, value)| (at as f64, value)).collect();
        let line = Line { name: "p50".to_owned(), style: Style::Main, points };
        let chart = Chart {
            title: "t",
            unit: "u",
            log: false,
            lines: vec![line],
            length_s: 7.0,
            bands: &[],
            marks: &[],
        };
        let html = chart.html();
        assert_eq!(html.matches("class=\"series main\"").count(), 2, "{html}");
        assert_eq!(html.matches("class=\"point main\"").count(), 1, "{html}");
    }

    #[test]
    fn marks_that_are_close_share_a_label() {
        let mark = |at_s: f64| MarkAt { at_s, class: "election", text: "<x>".to_owned() };
        let marks = [mark(1.0), mark(1.1), mark(1.2), mark(50.0)];
        let bands = [
            Band { name: "a".to_owned(), from_s: 0.0, to_s: 50.0, counts: true },
            Band { name: "a long name for a short time".to_owned(), from_s: 50.0, to_s: 55.0, counts: true },
        ];
        let chart = Chart {
            title: "t",
            unit: "u",
            log: true,
            lines: Vec::new(),
            length_s: 100.0,
            bands: &bands,
            marks: &marks,
        };
        let html = chart.html();
        assert!(html.contains(">1-3</text>") && html.contains(">4</text>"), "{html}");
        assert!(html.contains("&lt;x&gt;") && html.contains("…</text>"), "{html}");
    }
}
