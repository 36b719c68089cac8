//! The lanes of servers: each one's role, how far it has come, and whom it cannot talk to.
//!
//! Left out on purpose: cuts between a server and others outside its group have no shading of their
//! own; they are only named.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{group_of, server_names};
use crate::words::micros;
use sim::record::{Event, What};

/// The role of a server that does not run.
pub(crate) const DOWN: &str = "down";
/// Steps of progress kept per server, besides those of the last seconds.
const STEPS_MAX: u64 = 2000;
/// In this time before the end, every step is kept.
const NEAR: u64 = 3_000_000;

/// One lane.
#[derive(Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) cuts: Vec<Cut>,
    /// The time, the commit index, the applied index.
    pub(crate) progress: Vec<(u64, u64, u64)>,
}

/// A server's role for a while.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Role {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) role: String,
    pub(crate) term: Option<u64>,
}

/// The beginning or the end of a life.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mark {
    pub(crate) at: u64,
    pub(crate) crash: bool,
    pub(crate) life: u64,
}

/// Whom a server could not talk to for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Cut {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Servers of its group, in both directions.
    pub(crate) both: Vec<String>,
    /// Servers of its group that do not hear it, though it hears them.
    pub(crate) not_heard_by: Vec<String>,
    /// Servers of its group that it does not hear, though they hear it.
    pub(crate) deaf_to: Vec<String>,
    /// Servers outside its group, in any direction.
    pub(crate) others: Vec<String>,
    /// Servers of its group that it can talk to, including itself, dead or alive.
    pub(crate) reaches: usize,
    /// Servers of its group.
    pub(crate) size: usize,
}

impl Cut {
    /// Whether anything is cut inside the group.
    pub(crate) fn is_inside(&self) -> bool {
        !(self.both.is_empty() && self.not_heard_by.is_empty() && self.deaf_to.is_empty())
    }

    fn is_any(&self) -> bool {
        self.is_inside() || !self.others.is_empty()
    }

    /// Whether it has the same content, whatever the time.
    fn says_as(&self, other: &Self) -> bool {
        Self { from: 0, to: 0, ..self.clone() } == Self { from: 0, to: 0, ..other.clone() }
    }
}

/// The lanes, group by group.
pub(super) fn of(events: &[Event], end: u64) -> Vec<Server> {
    let names = server_names(events);
    let mut lanes: BTreeMap<&str, Server> = BTreeMap::new();
    for name in &names {
        let group = group_of(name).to_owned();
        let lane = Server {
            name: name.clone(),
            group,
            roles: Vec::new(),
            marks: Vec::new(),
            cuts: Vec::new(),
            progress: Vec::new(),
        };
        lanes.insert(name, lane);
    }
    for event in events {
        if let Some(lane) = event.at.as_deref().and_then(|at| lanes.get_mut(at)) {
            lane.on(event, end);
        }
    }
    for lane in lanes.values_mut() {
        lane.roles.retain(|role| role.from < role.to);
    }
    cuts(events, end, &names, &mut lanes);
    names.iter().filter_map(|name| lanes.remove(name.as_str())).collect()
}

impl Server {
    fn on(&mut self, event: &Event, end: u64) {
        let at = micros(event.at_ns);
        match &event.what {
            What::Start { life } => {
                self.marks.push(Mark { at, crash: false, life: *life });
                self.become_role(at, end, "follower", None);
            }
            What::Crash { life } => {
                self.marks.push(Mark { at, crash: true, life: *life });
                self.become_role(at, end, DOWN, None);
            }
            What::Role { role, .. } => self.become_role(at, end, role, event.term),
            What::Progress { commit, applied, .. } => self.progress(at, end, (*commit, *applied)),
            _ => {}
        }
    }

    fn become_role(&mut self, at: u64, end: u64, role: &str, term: Option<u64>) {
        if let Some(last) = self.roles.last_mut() {
            if last.role == role && last.term == term {
                return;
            }
            last.to = at;
        }
        self.roles.push(Role { from: at, to: end, role: role.to_owned(), term });
    }

    /// Far from the end, the last step of each small stretch of time represents all of them.
    fn progress(&mut self, at: u64, end: u64, (commit, applied): (u64, u64)) {
        let stretch = (end / STEPS_MAX).max(1);
        let replaces = |last: &(u64, u64, u64)| at + NEAR < end && last.0 / stretch == at / stretch;
        if self.progress.last().is_some_and(replaces) {
            self.progress.pop();
        }
        self.progress.push((at, commit, applied));
    }
}

fn cuts(events: &[Event], end: u64, names: &[String], lanes: &mut BTreeMap<&str, Server>) {
    let mut disabled: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut links = events.iter().filter(|event| matches!(event.what, What::Link { .. })).peekable();
    let mut touched: BTreeSet<&str> = BTreeSet::new();
    while let Some(event) = links.next() {
        let What::Link { from, to, up } = &event.what else { continue };
        if *up {
            disabled.remove(&(from.as_str(), to.as_str()));
        } else {
            disabled.insert((from, to));
        }
        touched.extend([from.as_str(), to.as_str()]);
        // Changes at one moment are one change.
        if links.peek().is_some_and(|next| next.at_ns == event.at_ns) {
            continue;
        }
        for name in std::mem::take(&mut touched) {
            if let Some(lane) = lanes.get_mut(name) {
                lane.cut(cut(name, names, &disabled, micros(event.at_ns), end));
            }
        }
    }
    for lane in lanes.values_mut() {
        lane.cuts.retain(|cut| cut.is_any() && cut.from < cut.to);
    }
}

impl Server {
    fn cut(&mut self, cut: Cut) {
        if let Some(last) = self.cuts.last_mut() {
            if last.says_as(&cut) {
                return;
            }
            last.to = cut.from;
        }
        self.cuts.push(cut);
    }
}

/// Whom `name` cannot talk to while these client ends are disabled.
fn cut(name: &str, names: &[String], disabled: &BTreeSet<(&str, &str)>, from: u64, to: u64) -> Cut {
    let group = group_of(name);
    let mut cut = Cut { from, to, ..Cut::default() };
    for other in names.iter().map(String::as_str).filter(|other| group_of(other) == group) {
        cut.size += 1;
        let (out, back) = (disabled.contains(&(name, other)), disabled.contains(&(other, name)));
        match (out, back) {
            (false, false) => cut.reaches += 1,
            (true, true) => cut.both.push(other.to_owned()),
            (true, false) => cut.not_heard_by.push(other.to_owned()),
            (false, true) => cut.deaf_to.push(other.to_owned()),
        }
    }
    let ends = disabled.iter().filter_map(|(from, to)| match (*from == name, *to == name) {
        (true, _) => Some(*to),
        (_, true) => Some(*from),
        _ => None,
    });
    let others: BTreeSet<&str> = ends.filter(|other| group_of(other) != group).collect();
    cut.others = others.into_iter().map(str::to_owned).collect();
    cut
}

#[cfg(test)]
mod tests {
    use super::{DOWN, of};
    use sim::record::{Event, What};

    fn event(at_us: u64, at: Option<&str>, term: Option<u64>, what: What) -> Event {
        Event { at_ns: at_us * 1000, at: at.map(str::to_owned), term, what }
    }

    fn role(role: &str) -> What {
        What::Role { role: role.to_owned(), leader: None }
    }

    fn link(from: &str, to: &str, up: bool) -> What {
        What::Link { from: from.to_owned(), to: to.to_owned(), up }
    }

    #[test]
    fn roles_follow_each_other_without_gaps_through_crashes() {
        let one = Some("1.1");
        let events = [
            event(0, one, None, What::Start { life: 1 }),
            event(0, one, Some(1), role("follower")),
            event(50, one, Some(1), role("follower")),
            event(100, one, Some(2), role("candidate")),
            event(120, one, Some(2), role("leader")),
            event(200, one, None, What::Crash { life: 1 }),
            event(300, one, None, What::Start { life: 2 }),
        ];
        let server = of(&events, 400).remove(0);
        let roles: Vec<_> =
            server.roles.iter().map(|role| (role.from, role.to, role.role.as_str(), role.term)).collect();
        assert_eq!(
            roles,
            [
                (0, 100, "follower", Some(1)),
                (100, 120, "candidate", Some(2)),
                (120, 200, "leader", Some(2)),
                (200, 300, DOWN, None),
                (300, 400, "follower", None),
            ]
        );
        assert_eq!(server.marks.iter().filter(|mark| mark.crash).count(), 1);
    }

    #[test]
    fn a_cut_names_who_is_on_the_other_side_and_in_which_direction() {
        let start = |name| event(0, Some(name), None, What::Start { life: 1 });
        let events = [
            start("1.1"),
            start("1.2"),
            start("1.3"),
            event(10, None, None, link("1.1", "1.2", false)),
            event(10, None, None, link("1.2", "1.1", false)),
            event(10, None, None, link("1.1", "1.3", false)),
            event(10, None, None, link("clerk", "1.3", false)),
            event(20, None, None, link("1.1", "1.2", true)),
            event(20, None, None, link("1.2", "1.1", true)),
            event(20, None, None, link("1.1", "1.3", true)),
        ];
        let servers = of(&events, 30);
        let [one, two, three] = &servers[..] else { panic!("{servers:?}") };
        assert_eq!((one.cuts[0].from, one.cuts[0].to), (10, 20));
        assert_eq!(
            (&one.cuts[0].both, &one.cuts[0].not_heard_by),
            (&vec!["1.2".into()], &vec!["1.3".into()])
        );
        assert_eq!((one.cuts[0].reaches, one.cuts[0].size, one.cuts.len()), (1, 3, 1));
        assert_eq!(two.cuts[0].both, ["1.1"]);
        assert_eq!(
            (&three.cuts[0].deaf_to, &three.cuts[0].others),
            (&vec!["1.1".into()], &vec!["clerk".into()])
        );
        assert!(!three.cuts[1].is_inside() && three.cuts[1].to == 30);
    }

    #[test]
    fn progress_is_thinned_early_and_whole_near_the_end() {
        let step =
            |at| event(at, Some("1.1"), None, What::Progress { commit: at, applied: at, log_bytes: 0 });
        let events: Vec<_> = (0..20_000).map(|number| step(number * 1000)).collect();
        let server = of(&events, 20_000_000).remove(0);
        let near = server.progress.iter().filter(|step| step.0 >= 17_000_000).count();
        assert_eq!(near, 3000);
        assert!(server.progress.len() < 3000 + 2000, "{}", server.progress.len());
        assert_eq!(server.progress.last(), Some(&(19_999_000, 19_999_000, 19_999_000)));
    }
}
