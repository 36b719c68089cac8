//! `grade list`.

use std::io::Write as _;

use comfy_table::{Table, presets};
use labs::grading::{catalogue, score, select};

use super::args::{Format, List};

pub(super) fn list(args: &List) -> anyhow::Result<bool> {
    let tests = select(catalogue(), &args.select.words, args.select.sheet)?;
    let text = match args.output {
        Format::Json => serde_json::to_string_pretty(&score::list_json(&tests, args.select.sheet))?,
        Format::Text => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            table.set_header(["id", "suite", "part", "name", "network", "real", "sheets"]);
            for test in &tests {
                let entry = args.select.sheet.map_or_else(|| test.newest(), |sheet| test.on(sheet));
                let sheets: Vec<String> = test.entries.iter().map(|entry| entry.sheet.to_string()).collect();
                table.add_row([
                    test.id,
                    test.suite,
                    entry.map_or("-", |entry| entry.part),
                    entry.map_or("-", |entry| entry.name),
                    score::net(test).trim_end_matches(" network"),
                    if test.real { "yes" } else { "" },
                    &short(&sheets),
                ]);
            }
            format!("{table}\n{} tests", tests.len())
        }
    };
    // A reader that has seen enough closes the pipe.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(true)
}

/// Consecutive years as a range.
fn short(sheets: &[String]) -> String {
    let mut ranges: Vec<(&str, &str)> = Vec::new();
    for sheet in sheets {
        let follows = |last: &str| {
            let years = (last.parse::<u16>(), sheet.parse::<u16>());
            matches!(years, (Ok(last), Ok(next)) if next == last + 1)
        };
        match ranges.last_mut() {
            Some((_, last)) if follows(last) => *last = sheet,
            _ => ranges.push((sheet, sheet)),
        }
    }
    let range = |(first, last): &(&str, &str)| {
        if first == last { (*first).to_owned() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(" ")
}
