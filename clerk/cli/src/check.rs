//! `check`: checks a server's data directory. The server's own program does it: it knows what it
//! wrote.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::local::program;

pub(crate) fn check(context: &Context, check: &args::Check) -> Result<(), Failure> {
    let directory = &check.directory;
    let at = directory.display();
    if directory.join("cluster.json").exists() {
        let failure = Failure::usage(format!("{at}: a cluster's directory: the servers' are within it"));
        return Err(failure.next(format!("clerk check {}", directory.join("101.1").display())));
    }
    let output = Command::new(program(program_of(directory)?)?)
        .arg("--data-dir")
        .arg(directory)
        .arg("--check")
        .stdin(Stdio::null())
        .output()
        .context("cannot run the server's program")?;
    let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it said nothing").to_owned();
        return Err(Failure::new("not_checked", said));
    };
    context.output.answer(&report, || shown(&report));
    if report["sound"] == true {
        Ok(())
    } else {
        Err(Failure::new("damaged", format!("{at}: not sound")).answered())
    }
}

/// Which program wrote it. The file may be damaged: then any of them says so.
fn program_of(directory: &Path) -> Result<&'static str, Failure> {
    let identity = directory.join("identity");
    let text = match std::fs::read(&identity) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) if directory.is_dir() => String::new(),
        Err(error) => {
            let message = format!("cannot read {}: {error}", directory.display());
            return Err(Failure::new("not_checked", message));
        }
    };
    let is_controller = text.lines().any(|line| line.trim() == "group 0");
    Ok(if is_controller { "shardctrler" } else { "shardkv" })
}

fn shown(report: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut shown = format!("{}\n", text(&report["directory"]));
    for part in report["parts"].as_array().into_iter().flatten() {
        let (name, verdict) = (text(&part["part"]), text(&part["verdict"]));
        shown += &format!("{name:<14} {verdict:<11} {}\n", text(&part["found"]));
        if let Some(next) = part["next"].as_str().filter(|next| !next.is_empty()) {
            shown += &format!("{:<14} next: {next}\n", "");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{program_of, shown};

    #[test]
    fn the_program_is_the_one_that_wrote_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        assert_eq!(program_of(place).unwrap(), "shardkv");
        std::fs::write(place.join("identity"), "format 3\ncluster c\ngroup 0\nnode 1\n").unwrap();
        assert_eq!(program_of(place).unwrap(), "shardctrler");
        std::fs::write(place.join("identity"), b"format 3\ncluster c\xff\ngroup 101\n").unwrap();
        assert_eq!(program_of(place).unwrap(), "shardkv");
        assert!(program_of(&place.join("nowhere")).is_err());
    }

    #[test]
    fn each_part_has_its_verdict_and_what_to_do() {
        let part = |verdict, next| json!({"part": "log", "verdict": verdict, "found": "x", "next": next});
        let report = json!({"directory": "d", "parts": [part("sound", ""), part("damaged", "do it")]});
        assert_eq!(
            shown(&report),
            "d\nlog            sound       x\nlog            damaged     x\n               next: do it\n"
        );
    }
}
