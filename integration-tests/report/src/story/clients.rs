//! The lanes of clients, and the time at which each operation took effect, in the order found.
//!
//! A client whose operation has no outcome continues under a new id; its name on the network stays.
//! The history does not contain that name, but the requests show it: the client asked for the right
//! keys at the right times. If there are many ids and no names, an id that begins when another is
//! over shares its lane.
//!
//! Left out on purpose: certainty about names. Two clients that always ask for the same at the same
//! time cannot be told apart.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::Verdict;
use crate::words::{clean, micros, shorten};
use judge::history::{Client, Operation, Outcome};
use sim::record::{Event, What};

/// Up to this many ids have a lane each.
const LANES_OF_THEIR_OWN: usize = 16;
/// Longer values are cut to this length.
const VALUE_CHARS: usize = 72;

/// One lane.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Lane {
    pub(crate) label: String,
    /// Operations by index in the history, in order of their calls.
    pub(crate) operations: Vec<usize>,
}

/// One operation, shortened: its client, kind, key (by index in the list of keys), value, expected
/// version, output, version, call, return, outcome.
pub(crate) type Row = (
    String,
    &'static str,
    usize,
    Option<String>,
    Option<u64>,
    Option<String>,
    Option<u64>,
    u64,
    Option<u64>,
    Outcome,
);

/// The judge's verdict on a key, with times.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Judged {
    pub(crate) key: String,
    /// Operations in the order found, each with a moment at which it can have taken effect.
    pub(crate) points: Vec<(usize, u64)>,
    /// Operations, why they have no place, and the operations that show it.
    pub(crate) unplaced: Vec<(usize, String, Vec<usize>)>,
    pub(crate) words: Option<String>,
}

/// The lanes of all clients. Ids that have one name on the network share a lane: a client that went on under
/// a new id.
pub(crate) fn lanes(history: &[Operation], names: &BTreeMap<String, String>) -> Vec<Lane> {
    let mut clients: BTreeMap<&Client, Vec<usize>> = BTreeMap::new();
    for (place, operation) in history.iter().enumerate() {
        clients.entry(&operation.client).or_default().push(place);
    }
    let share = clients.len() > LANES_OF_THEIR_OWN;
    let mut clients: Vec<_> = clients.into_iter().collect();
    for (_, operations) in &mut clients {
        operations.sort_by_key(|place| history[*place].call_ns);
    }
    if share {
        clients.sort_by_key(|(_, operations)| history[operations[0]].call_ns);
    }
    let mut lanes: Vec<(Vec<&Client>, Vec<usize>)> = Vec::new();
    for (client, operations) in clients {
        let first = history[operations[0]].call_ns;
        let name = names.get(&client.to_string());
        let is_free = |lane: &(Vec<&Client>, Vec<usize>)| {
            lane.1.last().is_some_and(|last| over(&history[*last]) <= first)
        };
        let is_same = |lane: &(Vec<&Client>, Vec<usize>)| {
            name.is_some() && lane.0.iter().any(|other| names.get(&other.to_string()) == name)
        };
        let same = lanes.iter().position(|lane| is_same(lane) && is_free(lane));
        let place = same.or_else(|| lanes.iter().position(|lane| share && name.is_none() && is_free(lane)));
        match place.and_then(|place| lanes.get_mut(place)) {
            Some((ids, all)) => {
                ids.push(client);
                all.extend(operations);
            }
            None => lanes.push((vec![client], operations)),
        }
    }
    lanes.sort_by_key(|(ids, _)| ids.iter().min().copied().cloned());
    lanes.into_iter().map(|(ids, operations)| Lane { label: label(&ids), operations }).collect()
}

/// The time from which nobody waits for the operation. An unknown one was given up at a time that
/// nobody recorded.
fn over(operation: &Operation) -> u64 {
    operation.return_ns.unwrap_or(operation.call_ns)
}

fn label(clients: &[&Client]) -> String {
    if let [one] = clients {
        return clean(&one.to_string());
    }
    let name = |client: &Client| match client {
        Client::Number(number) => number.to_string(),
        Client::Name(name) => clean(name),
    };
    match clients {
        [first, second] => format!("clients {} and {}", name(first), name(second)),
        [first, more @ ..] => format!("client {} and {} more", name(first), more.len()),
        [] => String::new(),
    }
}

/// The shortened operations, and the keys they name.
pub(crate) fn rows(history: &[Operation]) -> (Vec<Row>, Vec<String>) {
    let mut keys: BTreeMap<&str, usize> =
        history.iter().map(|operation| (operation.key.as_str(), 0)).collect();
    for (place, number) in keys.values_mut().enumerate() {
        *number = place;
    }
    let value = |value: &Option<String>| value.as_ref().map(|value| shorten(value, VALUE_CHARS));
    let row = |operation: &Operation| {
        let op = match operation.op {
            judge::history::Op::Get => "get",
            judge::history::Op::Put => "put",
            judge::history::Op::Append => "append",
            judge::history::Op::Delete => "delete",
            judge::history::Op::Cas => "cas",
        };
        let returned = operation.return_ns.filter(|_| operation.outcome != Outcome::Unknown).map(micros);
        (
            operation.client.to_string(),
            op,
            keys.get(operation.key.as_str()).copied().unwrap_or_default(),
            value(&operation.value),
            operation.expected_version,
            value(&operation.output),
            operation.version,
            micros(operation.call_ns),
            returned,
            operation.outcome,
        )
    };
    let rows = history.iter().map(row).collect();
    (rows, keys.into_keys().map(str::to_owned).collect())
}

/// The longest time before the first request of an operation.
const FIRST_REQUEST: u64 = 100_000;
/// This much of a key is found in a request.
const KEY_CHARS: usize = 20;

/// The name on the network of each client: the one that most often asked for the right keys at the
/// right times.
pub(crate) fn names(history: &[Operation], events: &[Event], servers: &[String]) -> BTreeMap<String, String> {
    let mut requests: Vec<(u64, &str, &str)> = Vec::new();
    for event in events {
        if let (What::Sent { kind, text, .. }, Some(at)) = (&event.what, event.at.as_deref())
            && kind == "request"
            && !servers.iter().any(|server| server == at)
        {
            requests.push((micros(event.at_ns), at, text));
        }
    }
    let mut votes: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
    for operation in history {
        let call = micros(operation.call_ns);
        let until = operation.return_ns.map_or(call + FIRST_REQUEST, micros).min(call + FIRST_REQUEST);
        let key: String = operation.key.chars().take(KEY_CHARS).collect();
        let first = requests.partition_point(|request| request.0 < call);
        let meanwhile = requests[first..].iter().take_while(|request| request.0 <= until);
        let of_client = votes.entry(operation.client.to_string()).or_default();
        let value: Option<String> =
            operation.value.as_ref().map(|value| value.chars().take(KEY_CHARS).collect());
        let mut named = BTreeSet::new();
        for (at, name, text) in meanwhile {
            if text.contains(&key) && named.insert(*name) {
                // Values are unique, and the first request leaves at once.
                let says_value =
                    value.as_ref().is_some_and(|value| !value.is_empty() && text.contains(value));
                *of_client.entry(name).or_default() +=
                    1 + 10 * usize::from(*at == call) + 100 * usize::from(says_value);
            }
        }
    }
    let most = |of_client: BTreeMap<&str, usize>| {
        of_client.into_iter().max_by_key(|(_, votes)| *votes).map(|(name, _)| name.to_owned())
    };
    votes.into_iter().filter_map(|(client, of_client)| Some((client, most(of_client)?))).collect()
}

/// The verdicts, with a moment for each operation that has a place.
pub(crate) fn judged(history: &[Operation], verdicts: &[Verdict], end: u64) -> Vec<Judged> {
    let exists = |place: &usize| *place < history.len();
    let judged = |verdict: &Verdict| {
        let order: Vec<usize> = verdict.order.iter().copied().filter(exists).collect();
        let of_key = verdict.unplaced.iter().filter(|one| exists(&one.operation));
        let unplaced: BTreeSet<usize> = of_key.clone().map(|one| one.operation).collect();
        Judged {
            key: verdict.key.clone(),
            points: points(history, &order, &unplaced, end),
            unplaced: of_key
                .map(|one| {
                    let witnesses = one.witnesses.iter().copied().filter(|place| *place != one.operation);
                    (one.operation, one.words.clone(), witnesses.filter(exists).collect())
                })
                .collect(),
            words: verdict.words.clone(),
        }
    };
    verdicts.iter().map(judged).collect()
}

/// Moments in the given order, each between its operation's call and return: halfway between the
/// earliest and the latest that the order allows. The replies of `late` operations are not
/// believed.
fn points(history: &[Operation], order: &[usize], late: &BTreeSet<usize>, end: u64) -> Vec<(usize, u64)> {
    let mut earliest = Vec::with_capacity(order.len());
    let mut soonest = 0;
    for place in order {
        soonest = soonest.max(micros(history[*place].call_ns));
        earliest.push(soonest);
    }
    let mut points = Vec::with_capacity(order.len());
    let mut latest = end;
    for (place, soonest) in order.iter().zip(earliest).rev() {
        let returned = history[*place].return_ns.filter(|_| !late.contains(place));
        latest = latest.min(returned.map_or(end, micros));
        points.push((*place, soonest + latest.saturating_sub(soonest) / 2));
    }
    points.reverse();
    points
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{lanes, names, points};
    use judge::history::{Client, Op, Operation, Outcome};
    use sim::record::{Event, What};

    fn operation(client: u64, call_us: u64, return_us: Option<u64>) -> Operation {
        Operation {
            client: Client::Number(client),
            op: Op::Get,
            key: "k".into(),
            value: None,
            expected_version: None,
            output: None,
            version: Some(0),
            call_ns: call_us * 1000,
            return_ns: return_us.map(|us| us * 1000),
            outcome: if return_us.is_some() { Outcome::Ok } else { Outcome::Unknown },
        }
    }

    #[test]
    fn points_are_in_order_and_inside_of_their_operations() {
        let history = [
            operation(1, 0, Some(100)),
            operation(2, 10, Some(30)),
            operation(3, 40, None),
            operation(4, 20, Some(60)),
        ];
        let order = [1, 3, 2, 0];
        let points = points(&history, &order, &BTreeSet::new(), 1000);
        assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{points:?}");
        for (place, at) in points {
            let one = &history[place];
            assert!(
                one.call_ns / 1000 <= at && at <= one.return_ns.unwrap_or(u64::MAX) / 1000,
                "{place} at {at}"
            );
        }
    }

    #[test]
    fn clients_are_known_on_the_network_by_what_they_ask() {
        let history: Vec<_> = (0..20)
            .flat_map(|round| [(1, round * 100), (2, round * 100 + 1)])
            .map(|(client, call)| operation(client, call, Some(call + 50)))
            .collect();
        let request = |from: &str, at_us: u64, key: &str| {
            let what = What::Sent {
                kind: "request".into(),
                to: "1.1".into(),
                text: format!("get {key} (config 1)"),
                fate: None,
            };
            Event { at_ns: at_us * 1000, at: Some(from.into()), term: None, what }
        };
        let mut events = Vec::new();
        for round in 0..20 {
            events.push(request("second", round * 100 + 1, "k"));
            events.push(request("first", round * 100 + u64::from(round == 7) * 60, "k"));
            events.push(request("stranger", round * 100 + 2, "another"));
        }
        events.sort_by_key(|event| event.at_ns);
        let names = names(&history, &events, &["1.1".to_owned()]);
        assert_eq!(names["client 2"], "second");
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn few_clients_have_a_lane_each_and_many_share() {
        let few: Vec<_> =
            (0..5).map(|client| operation(client, client * 10, Some(client * 10 + 5))).collect();
        assert_eq!(lanes(&few, &BTreeMap::new()).len(), 5);
        let many: Vec<_> =
            (0..50).map(|client| operation(client, client * 10, Some(client * 10 + 15))).collect();
        let lanes = lanes(&many, &BTreeMap::new());
        assert_eq!((lanes.len(), lanes[0].label.as_str()), (2, "client 0 and 24 more"));
    }
}
