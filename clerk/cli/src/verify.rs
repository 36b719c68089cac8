//! Compares the store with what was put into it: every loaded record must be there unchanged, every
//! acknowledged append of the record exactly once, and no piece twice. For `make demo`.
//!
//! The records must be of keys that nobody else wrote. That holds for those of a bench, whose keys
//! carry an id.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::args;
use crate::bulk::{in_part, open, read_all};
use crate::context::Context;
use crate::failure::Failure;
use crate::records::{Record, each_record};

/// A piece that was appended: its key and text, and whether that was acknowledged.
struct Piece {
    key: String,
    text: String,
    acknowledged: bool,
}

pub(crate) async fn verify(context: &Context, verify: &args::Verify) -> Result<(), Failure> {
    let mut stored: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
    let clerk = context.reach().await?.clerk(context.operation_timeout());
    let bar = context.output.bar(0);
    let unread = read_all(&clerk, &bar, |item| {
        stored.insert(item.key.to_vec(), item.value);
        Ok(())
    });
    if let Some(failure) = in_part(&unread.await?) {
        return Err(Failure::new("unavailable", failure.message).next(failure.next));
    }
    let mut records = 0;
    if let Some(path) = &verify.records {
        let mut differing = None;
        each_record(open(path)?.0, false, |Record { line, key, value, .. }| {
            records += 1;
            let same = stored.get(&key).is_some_and(|stored| *stored == value);
            if !same {
                let found = if stored.contains_key(&key) { "differs" } else { "is missing" };
                differing = Some(format!("line {line}: {:?} {found}", String::from_utf8_lossy(&key)));
            }
            same
        })?;
        if let Some(differing) = differing {
            return Err(Failure::new("verify_failed", differing));
        }
    }
    let mut appends = 0;
    for path in &verify.history {
        let history = BufReader::new(open(path)?.0);
        for piece in pieces(history)? {
            let value = stored.get(piece.key.as_bytes()).map_or(&[][..], |value| &value[..]);
            check(&piece, value)?;
            appends += u64::from(piece.acknowledged);
        }
    }
    let document = json!({"records": records, "appends": appends});
    context.output.answer(&document, || format!("verified {records} records, {appends} appends\n"));
    Ok(())
}

fn pieces(history: impl BufRead) -> Result<Vec<Piece>, Failure> {
    let mut pieces = Vec::new();
    for (number, line) in history.lines().enumerate() {
        let line = line.context("cannot read the history")?;
        let bad = |why: &str| Failure::new("bad_input", format!("history, line {}: {why}", number + 1));
        let operation: Value = serde_json::from_str(&line).map_err(|error| bad(&error.to_string()))?;
        let text = |field: &str| operation[field].as_str().map(str::to_owned);
        let op = text("op").ok_or_else(|| bad("no op"))?;
        match op.as_str() {
            "get" => {}
            "append" => pieces.push(Piece {
                key: text("key").ok_or_else(|| bad("no key"))?,
                text: text("value").ok_or_else(|| bad("no value"))?,
                acknowledged: operation["outcome"] == "ok",
            }),
            _ => return Err(bad("only gets and appends can be verified: others take values away")),
        }
    }
    Ok(pieces)
}

fn check(piece: &Piece, value: &[u8]) -> Result<(), Failure> {
    let wanted = piece.text.as_bytes();
    let times = if wanted.is_empty() {
        1
    } else {
        value.windows(wanted.len()).filter(|window| *window == wanted).count()
    };
    let why = match (times, piece.acknowledged) {
        (1, _) | (0, false) => return Ok(()),
        (0, true) => "was acknowledged, and is lost".to_owned(),
        (times, _) => format!("is there {times} times"),
    };
    Err(Failure::new("verify_failed", format!("append {:?} to {}: {why}", piece.text, piece.key)))
}

#[cfg(test)]
mod tests {
    use super::{Piece, check, pieces};

    #[test]
    fn an_acknowledged_piece_is_there_once_and_any_other_at_most_once() {
        let piece = |acknowledged| Piece { key: "k".into(), text: "[1.2]".into(), acknowledged };
        assert!(check(&piece(true), b"[1.1][1.2][1.3]").is_ok());
        assert!(check(&piece(true), b"[1.1]").unwrap_err().message.contains("lost"));
        assert!(check(&piece(false), b"[1.1]").is_ok());
        for acknowledged in [true, false] {
            assert!(check(&piece(acknowledged), b"[1.2][1.2]").unwrap_err().message.contains("2 times"));
        }
    }

    #[test]
    fn a_history_with_other_writes_is_refused() {
        let line =
            |op: &str| format!("{{\"op\":\"{op}\",\"key\":\"k\",\"value\":\"v\",\"outcome\":\"ok\"}}\n");
        let good = line("append") + &line("get");
        assert_eq!(pieces(good.as_bytes()).unwrap().len(), 1);
        assert!(pieces(line("delete").as_bytes()).is_err());
        assert!(pieces(&b"{"[..]).is_err());
    }
}
