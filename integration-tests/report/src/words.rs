//! Events and times as people read them.
//!
//! Text from outside (keys, values, the text of messages) is shown without control characters: a
//! key may not move the cursor of a terminal.
//!
//! Left out on purpose: the width of characters that fill two cells.

use sim::record::{TOPICS, What};

/// Microseconds, in which the report counts.
pub(super) fn micros(ns: u64) -> u64 {
    ns / 1000
}

/// "3.214 s".
pub(super) fn seconds(us: u64) -> String {
    format!("{}.{:03} s", us / 1_000_000, us % 1_000_000 / 1000)
}

/// "3.214159", for a log.
pub(super) fn stamp(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// `text` with every control character as its escape.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for letter in text.chars() {
        // Besides the control characters: those that change the direction of writing.
        let turns = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || turns {
            cleaned.extend(letter.escape_default());
        } else {
            cleaned.push(letter);
        }
    }
    cleaned
}

/// At most about `most` characters of `text`: its head, its tail and its length.
///
pub(super) fn shorten(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let head: String = text.chars().take(most / 3).collect();
    let tail: String = text.chars().skip(count - (most - most / 3)).collect();
    format!("{head}…{tail} ({count} characters)")
}

/// "a", "a and b", "a, b and c".
pub(super) fn list<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => "nobody".to_owned(),
        [one] => one.as_ref().to_owned(),
        [most @ .., last] => {
            let most: Vec<&str> = most.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", most.join(", "), last.as_ref())
        }
    }
}

/// The topic as one of [`TOPICS`].
pub(super) fn topic(what: &What) -> &'static str {
    TOPICS.into_iter().find(|topic| *topic == what.topic()).unwrap_or("test")
}

/// An event in a column of its server.
pub(super) fn describe(what: &What, term: Option<u64>) -> String {
    let text = match what {
        What::Start { life: 1 } => "starts".to_owned(),
        What::Start { life } => format!("starts again, life {life}"),
        What::Crash { life } => format!("CRASHES, end of life {life}"),
        What::Role { role, leader } => {
            let role = if role == "leader" { "LEADER" } else { role };
            let of = leader.filter(|_| role == "follower").map(|leader| format!(" of {leader}"));
            let term = term.map(|term| format!(", term {term}"));
            format!("{role}{}{}", of.unwrap_or_default(), term.unwrap_or_default())
        }
        What::Progress { commit, applied, log_bytes } => {
            format!("commit {commit} applied {applied} log {log_bytes} B")
        }
        What::Sent { kind, to, text, fate } => {
            let fate = fate.as_ref().map(|fate| format!(" !! {}", fate.to_uppercase()));
            format!("-> {to} {kind} {text}{}", fate.unwrap_or_default())
        }
        What::Arrived { kind, from, text } => format!("<- {from} {kind} {text}"),
        What::Saved { kind } => format!("durable: {kind}"),
        What::Link { from, to, up: true } => format!("link {from} -> {to} works again"),
        What::Link { from, to, up: false } => format!("link {from} -> {to} is cut"),
        What::Weather { text } => format!("network: {text}"),
        What::Shard { shard, state, config } => format!("shard {shard} {state}, configuration {config}"),
        What::Step { text } => format!("== {text}"),
        What::Failed { text } => format!("FAILED: {text}"),
    };
    clean(text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::{clean, list, seconds, shorten, stamp};

    #[test]
    fn times_are_seconds_with_their_zeros() {
        assert_eq!((seconds(3_014_159), stamp(3_014_159)), ("3.014 s".into(), "3.014159".into()));
    }

    #[test]
    fn hostile_text_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}"), "a\\u{1b}[2Jb\\nc\\u{202e}");
    }

    #[test]
    fn long_text_keeps_its_ends() {
        assert_eq!(shorten("short", 9), "short");
        assert_eq!(shorten("abcdefghijklmnop", 9), "abc…klmnop (16 characters)");
    }

    #[test]
    fn names_are_listed_as_in_a_sentence() {
        assert_eq!(list::<&str>(&[]), "nobody");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    }
}
