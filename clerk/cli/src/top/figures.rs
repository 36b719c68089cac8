//! Figures in few letters.

use serde_json::Value;

/// Where a figure is not known.
pub(super) const NONE: &str = "-";

/// A text of a document; empty if there is none.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The elements of a list; none if it is none.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn or_none(value: Option<f64>, shown: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), shown)
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // 999.95 would be shown as 1000.0.
    while value >= base * 0.9995 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 99.95);
    format!("{value:.digits$}{}", units[unit])
}

/// A number: all of it up to 99,999.
pub(super) fn count(value: f64) -> String {
    // A sum of nothing is -0.
    let value = value + 0.0;
    if value.abs() < 100_000.0 {
        format!("{value:.0}")
    } else {
        scaled(value, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
    }
}

/// What happens in a second: a little is not nothing.
pub(super) fn rate(value: f64) -> String {
    if value > 0.0 && value < 9.95 { format!("{value:.1}") } else { count(value) }
}

pub(super) fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB"])
}

/// Seconds in milliseconds.
pub(super) fn millis(seconds: f64) -> String {
    let value = seconds * 1000.0;
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$}")
}

/// A time that passes.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        it if it < 120.0 => format!("{it:.0} s"),
        it if it < 7200.0 => format!("{:.0} min", it / 60.0),
        it => format!("{:.0} h", it / 3600.0),
    }
}

/// As many of so many marks.
pub(super) fn bar(share: f64, marks: usize) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    // Something is seen of anything.
    let full = ((share * marks as f64).floor() as usize).max(usize::from(share > 0.0)).min(marks);
    format!("[{}{}]", "#".repeat(full), ".".repeat(marks - full))
}

#[cfg(test)]
mod tests {
    use super::{bar, bytes, count, millis, rate, span};

    #[test]
    fn figures_are_short_and_keep_what_matters() {
        assert_eq!([-0.0, 99_999.0, 123_456.0, 5e9].map(count), ["0", "99999", "123k", "5.0G"]);
        assert_eq!([0.0, 0.5, 12.4].map(rate), ["0", "0.5", "12"]);
        assert_eq!(
            [10.0, 2048.0, 1023.9 * 1024.0, 5e10].map(bytes),
            ["10 B", "2.0 KiB", "1.0 MiB", "46.6 GiB"]
        );
        assert_eq!([0.0004, 0.0123, 1.5].map(millis), ["0.40", "12.3", "1500"]);
        assert_eq!([3.4, 130.0, 9000.0].map(span), ["3 s", "2 min", "2 h"]);
    }

    #[test]
    fn a_bar_is_never_longer_than_it_is() {
        assert_eq!(
            [0.0, 0.01, 0.5, 1.0, 7.0, f64::NAN].map(|it| bar(it, 4)),
            ["[....]", "[#...]", "[##..]", "[####]", "[####]", "[....]"]
        );
    }
}
