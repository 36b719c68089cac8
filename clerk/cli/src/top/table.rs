//! A table that drops its least important columns until it fits.

use unicode_width::UnicodeWidthStr as _;

use super::line::{Line, Look, Piece, clean};

/// A column: its head, and how soon it is dropped. 0: never.
pub(super) struct Column {
    head: &'static str,
    is_right: bool,
    rank: u8,
}

/// A column of words.
pub(super) const fn left(head: &'static str, rank: u8) -> Column {
    Column { head, is_right: false, rank }
}

/// A column of figures.
pub(super) const fn right(head: &'static str, rank: u8) -> Column {
    Column { head, is_right: true, rank }
}

/// Between two columns.
const GAP: usize = 2;

/// The lines of a table, its head first. Columns without any text are left out.
pub(super) fn table(columns: &[Column], rows: &[Vec<Piece>], width: usize) -> Vec<Line> {
    let rows: Vec<Vec<Piece>> = rows.iter().map(|row| row.iter().map(cleaned).collect()).collect();
    let widest =
        |place: usize| rows.iter().map(|row| row.get(place).map_or(0, |(_, text)| text.width())).max();
    let widths: Vec<usize> = (0..columns.len()).map(|place| widest(place).unwrap_or(0)).collect();
    let mut shown: Vec<usize> = (0..columns.len()).filter(|place| widths[*place] > 0).collect();
    let wide = |place: usize| widths[place].max(columns[place].head.len());
    loop {
        let total: usize = shown.iter().map(|place| wide(*place) + GAP).sum();
        let last = shown.iter().enumerate().max_by_key(|(_, place)| columns[**place].rank);
        match last {
            Some((at, place)) if total > width + GAP && columns[*place].rank > 0 => _ = shown.remove(at),
            _ => break,
        }
    }
    let line = |cell: &dyn Fn(usize) -> Piece| {
        let one = |line: Line, (at, place): (usize, &usize)| {
            let (look, text) = cell(*place);
            let blank = " ".repeat(wide(*place).saturating_sub(text.width()));
            let gap = if at == 0 { "" } else { "  " };
            if columns[*place].is_right {
                line.with(Look::Plain, format!("{gap}{blank}")).with(look, text)
            } else {
                line.with(Look::Plain, gap).with(look, text).with(Look::Plain, blank)
            }
        };
        shown.iter().enumerate().fold(Line::default(), one).cut(width)
    };
    let head = line(&|place| (Look::Head, columns[place].head.to_owned()));
    let rows = rows.iter().map(|row| line(&|place| row.get(place).cloned().unwrap_or_default()));
    std::iter::once(head).chain(rows).collect()
}

fn cleaned((look, text): &Piece) -> Piece {
    (*look, clean(text))
}

#[cfg(test)]
mod tests {
    use super::super::line::{Line, Look};
    use super::{left, right, table};

    #[test]
    fn a_table_drops_its_least_important_columns_until_it_fits() {
        let columns = [left("NAME", 0), right("ROWS", 1), right("HASH", 2), left("NOTE", 3)];
        let cell = |text: &str| (Look::Plain, text.to_owned());
        let rows = [
            vec![cell("a"), cell("1"), cell("abcdef"), cell("")],
            vec![cell("bcdef"), cell("22"), cell("0"), cell("")],
        ];
        let text = |width| -> Vec<String> { table(&columns, &rows, width).iter().map(Line::text).collect() };
        let all = ["NAME   ROWS    HASH", "a         1  abcdef", "bcdef    22       0"];
        assert_eq!(text(80), all, "nobody has a note");
        assert_eq!(text(19), all);
        assert_eq!(text(18), ["NAME   ROWS", "a         1", "bcdef    22"]);
        assert_eq!(text(10), ["NAME", "a", "bcdef"]);
        assert_eq!(text(3), ["NAM", "a", "bcd"]);
    }
}
