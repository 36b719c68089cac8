//! Who is let in: one pure function, [`admit`], for peers, clients and groups that push, on real
//! sockets and on a simulated network (correctness rules 32, 48, 50 to 53).
//!
//! It compares a caller's [`Hello`] with the server's identity ([`Here`]) and with what the server
//! knows of the caller ([`Known`]). A caller judges the answer by the same rules
//! ([`admit_answer`]): an answer is a Hello in the other direction.
//!
//! A key and a digest of founders that are 0 mean "not known yet" and fit any. The digest of the
//! founders does not contain the key: the digest never changes, and the key becomes known only
//! after the servers of a group talk to each other. So they are sent separately.
//!
//! Left out on purpose: changes of membership. [`Known::is_member`] is where they will be checked.

use super::here::fit;
use super::{Hello, Here, Key, Purpose, Reason, Welcome};

/// What a server knows of a caller, or of a server that it called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// It is another member of this group.
    pub is_member: bool,
    /// The incarnation of its data, from the first meeting. For a push: that of the group that
    /// pushes, as the configuration has it.
    pub incarnation: Option<u64>,
    /// The process that runs with this identity now: a connection of it is open and was heard
    /// lately.
    pub boot: Option<u64>,
}

/// Why there is no connection. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another name.
    #[error("this is cluster {here:?}, not {asked:?}: check the addresses")]
    OtherCluster {
        here: String,
        /// The name that the other side sent.
        asked: String,
    },
    /// The same name, but other controllers made it.
    #[error(
        "two clusters are named {name:?}: here is the one with key {here:016x}, and the caller means {asked:016x}; \
         nothing was done, check the addresses"
    )]
    OtherKey {
        name: String,
        here: u64,
        /// The key that the other side sent.
        asked: u64,
    },
    /// Another group.
    #[error("this server belongs to {}, not {}: check the addresses", of(*here), of(*asked))]
    OtherGroup { here: u64, asked: u64 },
    /// Another server of the group.
    #[error("this is server {here} of {}, not {asked}: check the addresses of the members", of(*group))]
    OtherReceiver { group: u64, here: u64, asked: u64 },
    /// The caller is no server of the group.
    #[error("server {from} is not a member of this group")]
    NotAMember { from: u64 },
    /// The group was founded with other servers (correctness rule 50).
    #[error(
        "server {from} was made with another list of members than server {here} ({asked:016x}, not {founders:016x}): \
         one of them belongs to another group, and is refused"
    )]
    OtherFounders {
        from: u64,
        here: u64,
        founders: u64,
        /// The digest that the other side sent.
        asked: u64,
    },
    /// The group that pushes has other data than the one that joined (correctness rule 58).
    #[error(
        "group {from} has other data than the group that joined (incarnation {asked:016x}, not {known:016x}): \
             nothing is taken from it; start its servers on the data that it joined with"
    )]
    OtherPusher {
        from: u64,
        /// The incarnation of its data that the cluster knows.
        known: u64,
        /// The incarnation that it claims.
        asked: u64,
    },
    /// The caller has lost its data, or is another server (correctness rule 32).
    #[error(
        "server {from} came back with other data (incarnation {asked}, not {known}): it may have forgotten its \
         votes and is refused"
    )]
    OtherIncarnation {
        from: u64,
        /// The incarnation it was met with.
        known: u64,
        /// The incarnation that it claims.
        asked: u64,
    },
    /// The server does not take shards from groups.
    #[error("this server takes no shards: check the addresses of the groups")]
    NoShards,
    /// Two processes have one identity (correctness rule 53).
    #[error(
        "two processes run as server {from} of {}, with copies of one data directory: process {asked:016x} is refused, \
         because {alive:016x} was here first and runs; stop one of them and delete its copy",
        of(*group)
    )]
    Twin { group: u64, from: u64, alive: u64, asked: u64 },
}

/// A group in words.
fn of(group: u64) -> String {
    match group {
        0 => "the controllers".to_owned(),
        group => format!("group {group}"),
    }
}

/// Judges a caller.
///
/// # Errors
/// The first thing that does not fit.
pub fn admit(hello: &Hello, here: &Here, known: &Known) -> Result<(), Refusal> {
    let (key, asked) = (here.key.on_wire(), hello.key);
    if hello.cluster != here.cluster {
        return Err(Refusal::OtherCluster { here: here.cluster.clone(), asked: hello.cluster.clone() });
    }
    if !fit(key, asked) && !crate::mutant!("key-not-compared") {
        return Err(Refusal::OtherKey { name: here.cluster.clone(), here: key, asked });
    }
    if hello.group != here.group {
        return Err(Refusal::OtherGroup { here: here.group, asked: hello.group });
    }
    if hello.to != 0 && hello.to != here.node {
        return Err(Refusal::OtherReceiver { group: here.group, here: here.node, asked: hello.to });
    }
    match hello.purpose {
        Purpose::Client => Ok(()),
        Purpose::Push => admit_pusher(hello, known),
        Purpose::PeerControl | Purpose::PeerBulk => admit_peer(hello, here, known),
    }
}

fn admit_peer(hello: &Hello, here: &Here, known: &Known) -> Result<(), Refusal> {
    let from = hello.from;
    if !fit(hello.founders, here.founders) && !crate::mutant!("founders-not-compared") {
        let (founders, asked) = (here.founders, hello.founders);
        return Err(Refusal::OtherFounders { from, here: here.node, founders, asked });
    }
    if !known.is_member {
        return Err(Refusal::NotAMember { from });
    }
    if let Some(known) = other_life(hello, known) {
        return Err(Refusal::OtherIncarnation { from, known, asked: hello.incarnation });
    }
    match known.boot {
        Some(alive) if alive != hello.boot && !crate::mutant!("twin-let-in") => {
            Err(Refusal::Twin { group: here.group, from, alive, asked: hello.boot })
        }
        _ => Ok(()),
    }
}

/// The other incarnation with which the caller was known, if it is not this one.
fn other_life(hello: &Hello, known: &Known) -> Option<u64> {
    known.incarnation.filter(|known| *known != hello.incarnation)
}

fn admit_pusher(hello: &Hello, known: &Known) -> Result<(), Refusal> {
    match other_life(hello, known) {
        Some(known) => Err(Refusal::OtherPusher { from: hello.from_group, known, asked: hello.incarnation }),
        None => Ok(()),
    }
}

/// Judges the answer to `hello`, which the server `here` sent to a peer of which it knows `known`.
///
/// # Errors
/// As [`admit`].
pub fn admit_answer(hello: &Hello, welcome: &Welcome, here: &Here, known: &Known) -> Result<(), Refusal> {
    if crate::mutant!("welcome-not-checked") {
        return Ok(());
    }
    let turned = Hello {
        key: welcome.key,
        from: hello.to,
        to: here.node,
        group: here.group,
        incarnation: welcome.incarnation,
        boot: welcome.boot,
        founders: welcome.founders,
        ..hello.clone()
    };
    admit(&turned, here, known)
}

/// Judges the answer to a caller without an identity: a client, or a server that asks another
/// group. A client `keeps` the first key that it meets; a server's own key comes from its group's
/// log (correctness rule 51).
///
/// # Errors
/// [`Refusal::OtherKey`].
pub fn admit_server(cluster: &str, key: &Key, keeps: bool, welcome: &Welcome) -> Result<(), Refusal> {
    let known = if keeps && welcome.key != 0 { key.learn(welcome.key) } else { key.on_wire() };
    if !fit(known, welcome.key) && !crate::mutant!("welcome-not-checked") {
        return Err(Refusal::OtherKey { name: cluster.to_owned(), here: welcome.key, asked: known });
    }
    Ok(())
}

impl Refusal {
    /// The reason under which it is counted.
    pub fn reason(&self) -> Reason {
        match self {
            Self::OtherCluster { .. } => Reason::OtherCluster,
            Self::OtherKey { .. } => Reason::OtherKey,
            Self::OtherGroup { .. } => Reason::OtherGroup,
            Self::OtherReceiver { .. } => Reason::OtherReceiver,
            Self::NotAMember { .. } => Reason::NotAMember,
            Self::OtherFounders { .. } => Reason::OtherFounders,
            Self::OtherIncarnation { .. } | Self::OtherPusher { .. } => Reason::OtherIncarnation,
            Self::Twin { .. } => Reason::Twin,
            Self::NoShards => Reason::NoShards,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, Reason, Refusal, admit, admit_answer, admit_server};
    use crate::socket::{Hello, Here, Key, Purpose, Refusals, Welcome};

    const KEY: u64 = 0xaaaa;
    const FOUNDERS: u64 = 0xf0;

    fn here() -> Here {
        let key = Key::from_wire(KEY);
        Here {
            cluster: "blue".into(),
            key,
            group: 101,
            node: 1,
            incarnation: 11,
            boot: 111,
            founders: FOUNDERS,
        }
    }

    /// The Hello of server 2 to server 1.
    fn peer() -> Hello {
        Hello {
            cluster: "blue".into(),
            key: KEY,
            purpose: Purpose::PeerControl,
            group: 101,
            from: 2,
            to: 1,
            incarnation: 22,
            boot: 222,
            founders: FOUNDERS,
            ..Hello::default()
        }
    }

    fn client() -> Hello {
        Hello { cluster: "blue".into(), key: KEY, group: 101, ..Hello::default() }
    }

    fn push() -> Hello {
        Hello { purpose: Purpose::Push, from_group: 102, incarnation: 33, ..client() }
    }

    const MET: Known = Known { is_member: true, incarnation: Some(22), boot: Some(222) };
    const NEVER_MET: Known = Known { is_member: true, incarnation: None, boot: None };
    const STRANGER: Known = Known { is_member: false, incarnation: None, boot: None };

    fn judged(hello: &Hello, known: &Known) -> Option<Reason> {
        admit(hello, &here(), known).err().map(|refusal| refusal.reason())
    }

    #[test]
    fn who_fits_is_let_in_and_each_difference_is_refused_by_name() {
        let bulk = |hello: Hello| Hello { purpose: Purpose::PeerBulk, ..hello };
        let pushing = Known { incarnation: Some(33), ..STRANGER };
        let cases = [
            (peer(), MET, None),
            (bulk(peer()), MET, None),
            (peer(), NEVER_MET, None),
            (client(), STRANGER, None),
            (push(), pushing, None),
            (push(), STRANGER, None),
            // Unknown values fit any.
            (Hello { key: 0, ..peer() }, MET, None),
            (Hello { key: 0, ..client() }, STRANGER, None),
            (Hello { founders: 0, ..peer() }, MET, None),
            (Hello { to: 0, ..client() }, STRANGER, None),
            // Another process, while no other is alive.
            (Hello { boot: 223, ..peer() }, Known { boot: None, ..MET }, None),
            (Hello { cluster: "red".into(), ..peer() }, MET, Some(Reason::OtherCluster)),
            (Hello { cluster: "red".into(), ..client() }, STRANGER, Some(Reason::OtherCluster)),
            (Hello { cluster: String::new(), ..push() }, pushing, Some(Reason::OtherCluster)),
            (Hello { key: 0xbbbb, ..peer() }, MET, Some(Reason::OtherKey)),
            (Hello { key: 0xbbbb, ..client() }, STRANGER, Some(Reason::OtherKey)),
            (Hello { key: 0xbbbb, ..push() }, pushing, Some(Reason::OtherKey)),
            (Hello { group: 102, ..peer() }, MET, Some(Reason::OtherGroup)),
            (Hello { group: 0, ..client() }, STRANGER, Some(Reason::OtherGroup)),
            (Hello { group: 0, ..push() }, pushing, Some(Reason::OtherGroup)),
            (Hello { to: 3, ..peer() }, MET, Some(Reason::OtherReceiver)),
            (Hello { to: 3, ..client() }, STRANGER, Some(Reason::OtherReceiver)),
            (Hello { founders: 0xf1, ..peer() }, MET, Some(Reason::OtherFounders)),
            (bulk(Hello { founders: 0xf1, ..peer() }), NEVER_MET, Some(Reason::OtherFounders)),
            (Hello { from: 7, ..peer() }, STRANGER, Some(Reason::NotAMember)),
            (bulk(Hello { from: 7, ..peer() }), STRANGER, Some(Reason::NotAMember)),
            (Hello { incarnation: 23, ..peer() }, MET, Some(Reason::OtherIncarnation)),
            (Hello { incarnation: 0, ..peer() }, MET, Some(Reason::OtherIncarnation)),
            (Hello { incarnation: 34, ..push() }, pushing, Some(Reason::OtherIncarnation)),
            (Hello { boot: 223, ..peer() }, MET, Some(Reason::Twin)),
            (bulk(Hello { boot: 223, ..peer() }), MET, Some(Reason::Twin)),
        ];
        for (hello, known, expected) in cases {
            assert_eq!(judged(&hello, &known), expected, "{hello:?} {known:?}");
        }
    }

    #[test]
    fn a_server_that_does_not_know_its_key_yet_takes_any_until_it_does() {
        let here = Here { key: Key::default(), ..here() };
        let other = Hello { key: 0xbbbb, ..client() };
        assert_eq!(admit(&other, &here, &STRANGER), Ok(()));
        here.key.learn(KEY);
        assert!(matches!(admit(&other, &here, &STRANGER), Err(Refusal::OtherKey { asked: 0xbbbb, .. })));
    }

    #[test]
    fn an_answer_is_judged_like_a_caller() {
        // Server 1 called server 2.
        let hello = Hello { from: 1, to: 2, incarnation: 11, boot: 111, ..peer() };
        let welcome =
            Welcome { key: KEY, incarnation: 22, boot: 222, founders: FOUNDERS, ..Welcome::default() };
        let judged = |welcome: Welcome, known: &Known| {
            admit_answer(&hello, &welcome, &here(), known).err().map(|refusal| refusal.reason())
        };
        assert_eq!(judged(welcome, &MET), None);
        assert_eq!(judged(welcome, &NEVER_MET), None);
        assert_eq!(judged(Welcome { key: 0, founders: 0, ..welcome }, &MET), None);
        assert_eq!(judged(Welcome { key: 0xbbbb, ..welcome }, &MET), Some(Reason::OtherKey));
        assert_eq!(judged(Welcome { founders: 0xf1, ..welcome }, &MET), Some(Reason::OtherFounders));
        assert_eq!(judged(Welcome { incarnation: 23, ..welcome }, &MET), Some(Reason::OtherIncarnation));
        assert_eq!(judged(Welcome { boot: 223, ..welcome }, &MET), Some(Reason::Twin));
        let key = |key: u64, said: u64| {
            admit_server("blue", &Key::from_wire(key), false, &Welcome { key: said, ..welcome })
        };
        assert!(key(KEY, KEY).is_ok() && key(0, KEY).is_ok() && key(KEY, 0).is_ok());
        let text = key(KEY, 0xbbbb).unwrap_err().to_string();
        assert!(text.contains("000000000000aaaa") && text.contains("000000000000bbbb"), "{text}");
        let met = Key::default();
        assert!(admit_server("blue", &met, false, &welcome).is_ok() && met.get().is_none());
        assert!(admit_server("blue", &met, true, &welcome).is_ok() && met.get() == Some(KEY));
        assert!(admit_server("blue", &met, true, &Welcome { key: 0xbbbb, ..welcome }).is_err());
    }

    #[test]
    fn every_refusal_is_one_line_and_counted_by_its_reason() {
        let refusals = Refusals::default();
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            (0..=place).for_each(|_| refusals.count(reason));
            assert_eq!(refusals.counted()[reason.name()], place as u64 + 1);
        }
        let pusher = Known { incarnation: Some(34), ..STRANGER };
        let pusher = admit(&push(), &here(), &pusher).unwrap_err().to_string();
        assert!(pusher.starts_with("group 102 has other data"), "{pusher}");
        let twin = admit(&Hello { boot: 223, ..peer() }, &here(), &MET).unwrap_err().to_string();
        assert!(twin.contains("server 2 of group 101") && twin.contains("was here first"), "{twin}");
        assert!(!twin.contains('\n') && !twin.contains("  "), "{twin}");
        refusals.set_refused_by("a:2", Some(twin.clone()));
        assert_eq!(refusals.refused_by(), [("a:2".to_owned(), twin)].into());
        refusals.set_refused_by("a:2", None);
        assert!(refusals.refused_by().is_empty());
    }
}
