//! Messages with both their ends, and fewer of them if there are too many for a page.
//!
//! An arrival belongs to the oldest message of the same kind and content on the same link that has
//! not arrived yet. If there is none left, it is the second arrival of a duplicated message.
//!
//! Left out on purpose: which of several messages of equal content it was.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::words::{clean, list, micros, seconds, shorten, topic};
use sim::record::{Event, LeftOut, Recording, What};

/// All messages in this time before the failure are kept, if there are not too many.
const NEAR: u64 = 3_000_000;
/// At most this many of those are kept, the latest.
const NEAR_MAX: usize = 30_000;
/// About this many of the earlier ones are kept.
const EARLY_MAX: usize = 20_000;
/// Longer contents are cut to this length.
const TEXT_CHARS: usize = 110;

/// Messages, with each name, kind and text written once.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Messages {
    pub(crate) names: Vec<String>,
    /// Kind, and the topic by which it is coloured.
    pub(crate) kinds: Vec<(String, &'static str)>,
    pub(crate) texts: Vec<String>,
    /// In order of sending: sent, arrived, from, to, kind, text, fate (a text).
    pub(crate) rows: Vec<Row>,
    /// What was left out, in words.
    pub(crate) note: Option<String>,
}

type Row = (Option<u64>, Option<u64>, usize, usize, usize, usize, Option<usize>);

/// One message.
struct Message<'a> {
    sent: Option<u64>,
    arrived: Option<u64>,
    from: &'a str,
    to: &'a str,
    kind: &'a str,
    topic: &'static str,
    text: &'a str,
    fate: Option<&'a str>,
}

impl Message<'_> {
    fn at(&self) -> u64 {
        self.sent.or(self.arrived).unwrap_or_default()
    }
}

/// The messages of `recording`.
pub(crate) fn of(recording: &Recording) -> Messages {
    let all = pair(&recording.events);
    let (kept, note) = thin(all, micros(recording.header.failed_at_ns));
    let notes = [left_out(recording), note].into_iter().flatten().collect::<Vec<_>>();
    let note = (!notes.is_empty()).then(|| notes.join(" "));
    let mut messages = Messages { note, ..Messages::default() };
    let (mut names, mut kinds, mut texts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for message in kept {
        let from = place(&mut names, &mut messages.names, message.from, clean);
        let to = place(&mut names, &mut messages.names, message.to, clean);
        let topic = message.topic;
        let kind = place(&mut kinds, &mut messages.kinds, message.kind, |kind| (clean(kind), topic));
        let shown = |text: &str| shorten(&clean(text), TEXT_CHARS);
        let text = place(&mut texts, &mut messages.texts, message.text, shown);
        let fate = message.fate.map(|fate| place(&mut texts, &mut messages.texts, fate, shown));
        messages.rows.push((message.sent, message.arrived, from, to, kind, text, fate));
    }
    messages
}

/// The index of `word` in `list`; a new word is added at the end.
fn place<'a, T>(
    known: &mut BTreeMap<&'a str, usize>,
    list: &mut Vec<T>,
    word: &'a str,
    make: impl Fn(&str) -> T,
) -> usize {
    *known.entry(word).or_insert_with(|| {
        list.push(make(word));
        list.len() - 1
    })
}

/// What the recording of a long run does not contain, in words.
pub(crate) fn left_out(recording: &Recording) -> Option<String> {
    let LeftOut { events, until_ns, from_ns } = recording.left_out;
    let shown = |ns| seconds(micros(ns));
    let before = (until_ns > 0).then(|| format!("up to {}", shown(until_ns)));
    let after = from_ns.map(|from| format!("from {} on", shown(from)));
    (events > 0).then(|| {
        let when = list(&[before, after].into_iter().flatten().collect::<Vec<_>>());
        format!(
            "The run is long: {events} messages, saves and steps of progress were not kept, those {when}."
        )
    })
}

fn pair(events: &[Event]) -> Vec<Message<'_>> {
    let mut messages: Vec<Message> = Vec::new();
    let mut under_way: BTreeMap<(&str, &str, &str, &str), VecDeque<usize>> = BTreeMap::new();
    for event in events {
        let Some(at) = event.at.as_deref() else { continue };
        let us = Some(micros(event.at_ns));
        let topic = topic(&event.what);
        match &event.what {
            What::Sent { kind, to, text, fate } => {
                if fate.is_none() {
                    under_way.entry((at, to, kind, text)).or_default().push_back(messages.len());
                }
                let fate = fate.as_deref();
                messages.push(Message { sent: us, arrived: None, from: at, to, kind, topic, text, fate });
            }
            What::Arrived { kind, from, text } => {
                let sent = under_way.get_mut(&(from, at, kind, text)).and_then(VecDeque::pop_front);
                match sent.and_then(|place| messages.get_mut(place)) {
                    Some(message) => message.arrived = us,
                    None => messages.push(Message {
                        sent: None,
                        arrived: us,
                        from,
                        to: at,
                        kind,
                        topic,
                        text,
                        fate: None,
                    }),
                }
            }
            _ => {}
        }
    }
    messages.sort_by_key(Message::at);
    messages
}

/// Keeps what happened near the failure, the votes, and a sample of the rest.
fn thin(all: Vec<Message<'_>>, failed_at: u64) -> (Vec<Message<'_>>, Option<String>) {
    let total = all.len();
    let near = all.partition_point(|message| message.at() + NEAR < failed_at);
    let limited = near.max(total.saturating_sub(NEAR_MAX));
    let whole = match all.get(limited) {
        Some(first) if limited > near => failed_at.saturating_sub(first.at()),
        _ => NEAR,
    };
    let near = limited;
    let is_vote = |message: &Message| message.topic == "vote";
    let (votes, others): (usize, usize) =
        all[..near].iter().fold(
            (0, 0),
            |(votes, others), one| if is_vote(one) { (votes + 1, others) } else { (votes, others + 1) },
        );
    if votes + others <= EARLY_MAX {
        return (all, None);
    }
    let all_votes = votes <= EARLY_MAX / 2;
    let one_in = if all_votes { others / (EARLY_MAX - votes) + 1 } else { (votes + others) / EARLY_MAX + 1 };
    let mut number = 0;
    let keeps = |(place, message): &(usize, Message)| {
        if *place >= near || (all_votes && is_vote(message)) {
            return true;
        }
        number += 1;
        number % one_in == 1
    };
    let kept: Vec<Message> = all.into_iter().enumerate().filter(keeps).map(|(_, message)| message).collect();
    let votes = if all_votes { "every vote, and " } else { "" };
    let note = format!(
        "This page holds {} of {total} messages: all of the last {} before the failure, {votes}one in {one_in} \
         of the earlier ones. `grade log` shows all that were recorded.",
        kept.len(),
        seconds(whole),
    );
    (kept, Some(note))
}

#[cfg(test)]
mod tests {
    use super::of;
    use sim::record::{Event, Header, LeftOut, Recording, What};

    fn sent(at_us: u64, kind: &str, text: &str, fate: Option<&str>) -> Event {
        let fate = fate.map(str::to_owned);
        let what = What::Sent { kind: kind.to_owned(), to: "1.2".to_owned(), text: text.to_owned(), fate };
        Event { at_ns: at_us * 1000, at: Some("1.1".to_owned()), term: None, what }
    }

    fn arrived(at_us: u64, kind: &str, text: &str) -> Event {
        let what = What::Arrived { kind: kind.to_owned(), from: "1.1".to_owned(), text: text.to_owned() };
        Event { at_ns: at_us * 1000, at: Some("1.2".to_owned()), term: None, what }
    }

    fn recording(events: Vec<Event>, failed_at_us: u64) -> Recording {
        let header = Header {
            test: "T".to_owned(),
            title: String::new(),
            seed: 1,
            options: Vec::new(),
            failure: String::new(),
            failed_at_ns: failed_at_us * 1000,
            replay: String::new(),
        };
        Recording { header, events, left_out: LeftOut::default(), history: Vec::new() }
    }

    #[test]
    fn ends_are_paired_through_loss_reordering_and_doubling() {
        let events = vec![
            sent(10, "append", "a", Some("lost")),
            sent(11, "append", "a", None),
            sent(12, "append", "b", None),
            arrived(20, "append", "b"),
            arrived(21, "append", "a"),
            arrived(30, "append", "a"),
        ];
        let rows = of(&recording(events, 100)).rows;
        let times: Vec<_> = rows.iter().map(|row| (row.0, row.1, row.6.is_some())).collect();
        assert_eq!(
            times,
            [
                (Some(10), None, true),
                (Some(11), Some(21), false),
                (Some(12), Some(20), false),
                (None, Some(30), false)
            ]
        );
    }

    #[test]
    fn too_many_messages_are_thinned_far_from_the_failure_only() {
        let message = |number: u64| {
            let kind = if number.is_multiple_of(1000) { "vote" } else { "append" };
            sent(number * 100, kind, &number.to_string(), None)
        };
        let messages = of(&recording((0..100_000).map(message).collect(), 10_000_000));
        let near = messages.rows.iter().filter(|row| row.0 >= Some(7_000_000)).count();
        assert_eq!(near, 30_000);
        assert!((40_000..=51_000).contains(&messages.rows.len()), "{}", messages.rows.len());
        let votes = messages.rows.iter().filter(|row| messages.kinds[row.4].1 == "vote").count();
        assert_eq!(votes, 100);
        let note = messages.note.unwrap();
        assert!(note.contains("of 100000 messages: all of the last 3.000 s"), "{note}");
        assert!(of(&recording((0..1000).map(message).collect(), 10)).note.is_none());

        // So many at the end that not even the last seconds are complete.
        let burst = |number: u64| sent(7_000_000 + number * 30, "append", &number.to_string(), None);
        let messages = of(&recording((0..100_000).map(burst).collect(), 10_000_000));
        let near = messages.rows.iter().filter(|row| row.0 >= Some(9_100_000)).count();
        assert!(near == 30_000 && messages.rows.len() < 51_000, "{near} of {}", messages.rows.len());
        assert!(messages.note.unwrap().contains("all of the last 0.900 s"));
    }
}
