//! The frame of a page, its tables, and how numbers and times are written.

use std::fmt::Write as _;

use base::html;
pub use base::html::escape;

/// A page that is being written.
pub struct Page {
    html: String,
}

const STYLE: &str = include_str!("style.css");

impl Page {
    pub fn new(title: &str) -> Self {
        let head = html::head(title, "", STYLE);
        let html = format!("{head}<main>\n<h1>{}</h1>\n", escape(title));
        Self { html }
    }

    pub fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.html, "<p>{}</p>", escape(text));
    }

    /// Something to know before believing the figures.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.html, "<p class=\"note\">{}</p>", escape(text));
    }

    /// A few large numbers, each with its name.
    pub fn tiles(&mut self, tiles: &[(String, String)]) {
        self.html += "<div class=\"tiles\">\n";
        for (name, value) in tiles {
            let (name, value) = (escape(name), escape(value));
            let _ = writeln!(self.html, "<div><strong>{value}</strong><span>{name}</span></div>");
        }
        self.html += "</div>\n";
    }

    /// Takes HTML as it is.
    pub fn html(&mut self, html: &str) {
        self.html += html;
    }

    /// A part with a head; `html` is taken as it is.
    pub fn section(&mut self, head: &str, html: &str) {
        let _ = writeln!(self.html, "<section>\n<h2>{}</h2>\n{html}\n</section>", escape(head));
    }

    pub fn finish(self) -> String {
        self.html + "</main>\n</body>\n</html>\n"
    }
}

/// A table; its cells are HTML. Columns whose head begins with `>` are aligned to the right. Empty heads: none.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let class = |index: usize| if head[index].starts_with('>') { " class=\"number\"" } else { "" };
    let mut html = "<div class=\"wide\"><table>\n".to_owned();
    if head.iter().any(|name| !name.is_empty()) {
        html += "<tr>";
        for (index, name) in head.iter().enumerate() {
            let _ = write!(html, "<th{}>{}</th>", class(index), escape(name.trim_start_matches('>')));
        }
        html += "</tr>\n";
    }
    for row in rows {
        html += "<tr>";
        for (index, cell) in row.iter().enumerate().take(head.len()) {
            let _ = write!(html, "<td{}>{cell}</td>", class(index));
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

/// A whole number, with its thousands apart.
pub fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", &*digits), |rest| ("-", rest));
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

/// A moment in UTC, as `2026-01-31 23:59 UTC`.
pub fn date(unix_ms: u64) -> String {
    let minutes = unix_ms / 60_000;
    let (mut days, minute_of_day) = (minutes / 1440, minutes % 1440);
    let is_leap =
        |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (minute_of_day / 60, minute_of_day % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC", days + 1)
}

#[cfg(test)]
mod tests {
    use super::{count, date, escape};

    #[test]
    fn numbers_have_their_thousands_apart() {
        let cases =
            [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1_234_567.0, "1,234,567"), (-1234.0, "-1,234")];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_704_067_199_000), "2023-12-31 23:59 UTC");
        assert_eq!(date(1_709_208_000_000), "2024-02-29 12:00 UTC");
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
