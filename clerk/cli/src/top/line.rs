//! A line of a terminal, in pieces that look different. What others wrote never reaches the terminal as
//! it is: names and sentences come over the network, and a terminal obeys what they contain.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// How a piece looks where there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    #[default]
    Plain,
    Head,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Look {
    fn code(self, is_coloured: bool) -> &'static str {
        match (self, is_coloured) {
            (Self::Plain, _) => "",
            (Self::Head, _) | (Self::Warn | Self::Bad, false) => "\x1b[1m",
            (Self::Dim, _) => "\x1b[2m",
            (Self::Good, false) => "",
            (Self::Good, true) => "\x1b[32m",
            (Self::Warn, true) => "\x1b[33m",
            (Self::Bad, true) => "\x1b[1;31m",
        }
    }
}

/// A text, and how it looks.
pub(super) type Piece = (Look, String);

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line(Vec<Piece>);

impl Line {
    pub(super) fn of(look: Look, text: impl AsRef<str>) -> Self {
        Self::default().with(look, text)
    }

    /// The same with a piece at its end.
    pub(super) fn with(mut self, look: Look, text: impl AsRef<str>) -> Self {
        self.0.push((look, clean(text.as_ref())));
        self
    }

    /// With another one at its end, or below it if the two do not fit.
    pub(super) fn beside(mut self, other: Self, width: usize) -> Vec<Self> {
        if self.width() + 2 + other.width() > width {
            return vec![self, other];
        }
        self.0.push((Look::Plain, "  ".to_owned()));
        self.0.extend(other.0);
        vec![self]
    }

    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// Its beginning, as far as it fits.
    pub(super) fn cut(self, width: usize) -> Self {
        let mut left = width;
        let fit = |(look, text): Piece| {
            let text = prefix(&text, left).to_owned();
            left -= text.width();
            (look, text)
        };
        Self(self.0.into_iter().map(fit).collect())
    }

    /// Without anything but text.
    pub(super) fn text(&self) -> String {
        let text: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        text.trim_end().to_owned()
    }

    /// For a terminal.
    pub(super) fn drawn(&self, is_coloured: bool) -> String {
        let piece = |(look, text): &Piece| match look.code(is_coloured) {
            "" => text.clone(),
            code => format!("{code}{text}\x1b[0m"),
        };
        self.0.iter().map(piece).collect()
    }
}

/// The same without what a terminal would obey, and without what takes no place or turns the direction.
pub(super) fn clean(text: &str) -> String {
    let is_shown = |letter: &char| letter.width().is_some_and(|width| width > 0) && !letter.is_control();
    text.chars().map(|letter| if is_shown(&letter) { letter } else { '?' }).collect()
}

/// As much of it as fits.
pub(super) fn prefix(text: &str, width: usize) -> &str {
    let mut left = width;
    let end = text.char_indices().find(|(_, letter)| {
        let width = letter.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        !fits
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// A sentence in lines, after an indent. A word that is longer than a line is cut.
pub(super) fn wrapped(look: Look, text: &str, indent: usize, width: usize) -> Vec<Line> {
    let room = width.saturating_sub(indent).max(1);
    let (mut lines, mut now) = (Vec::new(), String::new());
    for word in clean(text).split(' ') {
        let word = prefix(word, room);
        if !now.is_empty() && now.width() + 1 + word.width() > room {
            lines.push(std::mem::take(&mut now));
        }
        if !now.is_empty() {
            now.push(' ');
        }
        now.push_str(word);
    }
    lines.push(now);
    lines.iter().map(|line| Line::of(look, format!("{:indent$}{line}", ""))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Line, Look, clean, prefix, wrapped};

    #[test]
    fn what_a_terminal_obeys_does_not_reach_it() {
        let hostile = "a\x1b]0;title\x07b\rc\n\u{9b}2Jd\u{202e}e\u{200b}f";
        assert_eq!(clean(hostile), "a?]0;title?b?c??2Jd?e?f");
        let line = Line::of(Look::Bad, hostile).with(Look::Plain, "\x1b[2J");
        assert!(!line.text().chars().any(char::is_control));
        assert_eq!(line.drawn(true).matches('\x1b').count(), 2, "its own colour, and its end");
    }

    #[test]
    fn a_line_is_cut_by_the_columns_that_letters_take() {
        assert_eq!(prefix("größe", 4), "größ");
        assert_eq!(prefix("表示板", 5), "表示", "a wide letter takes two");
        let line = Line::of(Look::Head, "abc").with(Look::Plain, "def");
        assert_eq!(line.cut(4).text(), "abcd");
    }

    #[test]
    fn a_sentence_is_wrapped_between_words() {
        let lines = |width| -> Vec<String> {
            wrapped(Look::Plain, "Group 101 has no leader.", 2, width).iter().map(Line::text).collect()
        };
        assert_eq!(lines(80), ["  Group 101 has no leader."]);
        assert_eq!(lines(14), ["  Group 101", "  has no", "  leader."]);
        assert!(lines(5).iter().all(|line| line.len() <= 5));
    }
}
