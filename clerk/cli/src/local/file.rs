//! What is kept of a local cluster between commands.

use std::collections::BTreeMap;
use std::net::TcpListener;

use clerk::api::config::{Params, SESSIONS_LIMIT, SLOTS};
use clerk::api::{Address, GroupId};
pub(crate) use clerk_survey::reach::name;
use serde::{Deserialize, Serialize};

use crate::args::{self, Name};
use crate::failure::Failure;

/// Format 1 had no checksum.
pub(crate) const FORMAT: u32 = 2;
const CONTROLLER_SERVERS: u64 = 3;
const FIRST_GROUP: u64 = 101;
const HOST: &str = "127.0.0.1";
/// Ports from here to the next are tried: below those that systems give to callers.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A cluster's ports start at a multiple of this.
const PORT_STEP: u16 = 50;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    /// 0: a controller.
    pub(crate) group: u64,
    pub(crate) id: u64,
    pub(crate) address: Address,
    /// The port on which it shows itself over HTTP; none: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<u16>,
    /// It has made its data directory: never again may it start with an empty one.
    pub(crate) made: bool,
}

/// A local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    pub(crate) format: u32,
    /// Its id, which every connection names.
    pub(crate) cluster: String,
    /// Its key in hexadecimal digits, once its controllers have sent it. (Too wide for the numbers
    /// of many JSON readers.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    pub(crate) shards: u32,
    /// Sessions of a shard; none: the controllers' default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sessions_max: Option<u32>,
    /// Servers of a group, by default.
    pub(crate) replicas: u64,
    /// Groups it began with.
    pub(crate) groups: u64,
    /// Those groups have joined.
    pub(crate) joined: bool,
    /// The controllers were replaced by new ones, which wait for the history that the groups hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) recovering: bool,
    /// Its data are being deleted: none of its servers may be started any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) purging: bool,
    pub(crate) servers: BTreeMap<String, Server>,
}

impl Cluster {
    /// A new cluster, with ports that are free at this moment.
    pub(crate) fn plan(up: &args::Up) -> Result<Self, Failure> {
        let (groups, replicas) = (up.groups.unwrap_or(2), up.replicas.unwrap_or(3));
        let mut cluster = Self {
            format: FORMAT,
            cluster: format!("local-{:08x}", rand::random::<u32>()),
            key: None,
            shards: up.shards.unwrap_or(64),
            sessions_max: up.sessions_max,
            replicas,
            groups,
            joined: false,
            recovering: false,
            purging: false,
            servers: BTreeMap::new(),
        };
        let sizes = std::iter::once((0, CONTROLLER_SERVERS))
            .chain((FIRST_GROUP..).take(groups as usize).map(|group| (group, replicas)));
        let places: Vec<(u64, u64)> =
            sizes.flat_map(|(group, size)| (1..=size).map(move |id| (group, id))).collect();
        // First those of all servers, then those on which they show themselves.
        let ports = match up.port {
            Some(base) => given_ports(base, 2 * places.len())?,
            None => free_ports(2 * places.len())?,
        };
        let (listen, http) = ports.split_at(places.len());
        for ((group, id), (port, http)) in places.into_iter().zip(listen.iter().zip(http)) {
            cluster.add(group, id, *port, *http);
        }
        Ok(cluster)
    }

    /// A cluster of which nothing but these servers is known.
    pub(crate) fn of_servers(cluster: String, key: Option<u64>, servers: BTreeMap<String, Server>) -> Self {
        let mut found = Self {
            format: FORMAT,
            cluster,
            key: None,
            shards: 1,
            sessions_max: None,
            replicas: 1,
            groups: 1,
            joined: true,
            recovering: false,
            purging: false,
            servers,
        };
        found.learn_key(key);
        found
    }

    /// How it contradicts itself, in words: a file may have been written by hand, with its
    /// checksum.
    pub(crate) fn consistent(&self) -> Result<(), String> {
        let has_port = |server: &Server| port_of(server).is_some_and(|port| port > 0);
        let misnamed = self.servers.iter().find(|(key, server)| **key != name(server.group, server.id));
        let nowhere = self.servers.iter().find(|(_, server)| !has_port(server));
        if !(1..=SLOTS).contains(&self.shards) {
            Err(format!("{} shards", self.shards))
        } else if !(1..=SESSIONS_LIMIT).contains(&self.sessions_max()) {
            Err(format!("{} sessions of a shard", self.sessions_max()))
        } else if !(1..=100).contains(&self.groups) || !(1..=9).contains(&self.replicas) {
            Err(format!("{} groups of {} servers", self.groups, self.replicas))
        } else if self.of(GroupId::CONTROLLERS.0).next().is_none() {
            Err("no controllers".to_owned())
        } else if let Some((key, _)) = misnamed {
            Err(format!("server {key:?} has another group or id in its entry"))
        } else if let Some((key, server)) = nowhere {
            Err(format!("server {key:?} has no port in its address, {:?}", server.address))
        } else {
            Ok(())
        }
    }

    fn add(&mut self, group: u64, id: u64, port: u16, http: u16) {
        let address = format!("{HOST}:{port}");
        let server = Server { group, id, address, http: Some(http), made: false };
        self.servers.insert(name(group, id), server);
    }

    /// Adds a group on the next free ports after those in use.
    pub(crate) fn add_group(&mut self, group: u64, replicas: u64) -> Result<(), Failure> {
        let used = self.servers.values().flat_map(|server| [port_of(server), server.http]);
        let last = used.flatten().max().unwrap_or(PORTS.start);
        let mut ports = (last.saturating_add(1)..u16::MAX).filter(|port| is_free(*port));
        let mut next = || ports.next().ok_or_else(|| Failure::new("no_port", "no port is free"));
        for id in 1..=replicas {
            self.add(group, id, next()?, next()?);
        }
        Ok(())
    }

    /// Refuses sizes that contradict those of this cluster.
    pub(crate) fn check(&self, up: &args::Up) -> Result<(), Failure> {
        let port = self.servers.get(&name(0, 1)).map(|server| &server.address);
        let same_port = |wanted: u16| port.is_some_and(|address| *address == format!("{HOST}:{wanted}"));
        let contradiction = if up.groups.is_some_and(|groups| groups != self.groups) {
            format!("its number of groups at the start was {} (clerk add-group adds one)", self.groups)
        } else if up.replicas.is_some_and(|replicas| replicas != self.replicas) {
            format!("its groups have {} servers", self.replicas)
        } else if up.shards.is_some_and(|shards| shards != self.shards) {
            format!("it has {} shards", self.shards)
        } else if up.sessions_max.is_some_and(|sessions| sessions != self.sessions_max()) {
            format!("its shards have {} sessions", self.sessions_max())
        } else if up.port.is_some_and(|wanted| !same_port(wanted)) {
            format!("its first port is that of {}", port.map_or("nothing", String::as_str))
        } else {
            return Ok(());
        };
        let next = "leave the option out to go on with this cluster, or name another --dir";
        Err(Failure::usage(format!("there is a cluster already, and {contradiction}")).next(next))
    }

    fn sessions_max(&self) -> u32 {
        self.sessions_max.unwrap_or(Params::default().sessions_max)
    }

    /// Its key, once it is known.
    pub(crate) fn key(&self) -> Option<u64> {
        self.key.as_deref().and_then(|key| u64::from_str_radix(key, 16).ok()).filter(|key| *key != 0)
    }

    /// Takes note of the key, if it is known. Returns whether there was anything to note.
    pub(crate) fn learn_key(&mut self, key: Option<u64>) -> bool {
        let news = key.filter(|key| *key != 0 && self.key().is_none());
        if let Some(key) = news {
            self.key = Some(format!("{key:016x}"));
        }
        news.is_some()
    }

    /// Addresses of a group's servers, in the order of their ids; 0: the controllers.
    pub(crate) fn addresses(&self, group: u64) -> Vec<Address> {
        self.of(group).map(|server| server.address.clone()).collect()
    }

    pub(crate) fn of(&self, group: u64) -> impl Iterator<Item = &Server> {
        self.servers.values().filter(move |server| server.group == group)
    }

    /// All groups, with their addresses.
    pub(crate) fn groups(&self) -> BTreeMap<GroupId, Vec<Address>> {
        let ids =
            self.servers.values().map(|server| server.group).filter(|group| *group != GroupId::CONTROLLERS.0);
        ids.map(|group| (GroupId(group), self.addresses(group))).collect()
    }

    /// The groups a new cluster begins with.
    pub(crate) fn first_groups(&self) -> BTreeMap<GroupId, Vec<Address>> {
        let mut groups = self.groups();
        groups.retain(|group, _| (FIRST_GROUP..FIRST_GROUP + self.groups).contains(&group.0));
        groups
    }

    /// All servers, controllers first.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut servers: Vec<&Server> = self.servers.values().collect();
        servers.sort_by_key(|server| (server.group, server.id));
        servers.into_iter().map(|server| name(server.group, server.id)).collect()
    }

    /// The servers that people mean.
    pub(crate) fn select(&self, names: &[Name]) -> Result<Vec<String>, Failure> {
        let mut selected = Vec::new();
        for wanted in names {
            let is_meant = |server: &Server| match *wanted {
                Name::All => true,
                Name::Group(group) => server.group == group,
                Name::Server(group, id) => (server.group, server.id) == (group, id),
            };
            let before = selected.len();
            selected.extend(self.names().into_iter().filter(|name| is_meant(&self.servers[name])));
            if selected.len() == before {
                let text = match *wanted {
                    Name::All => "all".to_owned(),
                    Name::Group(group) => format!("group {group}"),
                    Name::Server(group, id) => name(group, id),
                };
                let known = format!("there are {}", self.names().join(" "));
                return Err(Failure::new("unknown_server", format!("no server is called {text}")).next(known));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        selected.retain(|name| seen.insert(name.clone()));
        Ok(selected)
    }
}

fn port_of(server: &Server) -> Option<u16> {
    server.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((HOST, port)).is_ok()
}

fn given_ports(base: u16, count: usize) -> Result<Vec<u16>, Failure> {
    let ports: Vec<u16> = (base..=u16::MAX).take(count).collect();
    if ports.len() < count {
        return Err(Failure::usage(format!("--port {base}: {count} ports are needed from there")));
    }
    match ports.iter().find(|port| !is_free(**port)) {
        Some(port) => {
            let failure = Failure::new("port_busy", format!("port {port} is in use"));
            Err(failure.next("name another --port, or none: then a free range is found"))
        }
        None => Ok(ports),
    }
}

/// A range of free ports. The search begins at random, so that clusters that are planned at the
/// same time, or are down while others are planned, hardly ever collide.
fn free_ports(count: usize) -> Result<Vec<u16>, Failure> {
    let blocks = (PORTS.end - PORTS.start) / PORT_STEP;
    let first = rand::random_range(0..blocks);
    for block in 0..blocks {
        let base = PORTS.start + (first + block) % blocks * PORT_STEP;
        let ports: Vec<u16> = (base..).take(count).collect();
        if ports.len() == count && ports.iter().all(|port| is_free(*port)) {
            return Ok(ports);
        }
    }
    Err(Failure::new("no_port", "no range of ports is free").next("name one with --port"))
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::Cluster;
    use crate::args::{Args, Name, Up, Verb};

    pub(in crate::local) fn up(options: &str) -> Up {
        let line = format!("clerk up {options}");
        match Args::try_parse_from(line.split_whitespace()).unwrap().verb {
            Verb::Up(up) => up,
            verb => panic!("{verb:?}"),
        }
    }

    #[test]
    fn a_new_cluster_has_three_controllers_and_the_groups_asked_for() {
        let cluster = Cluster::plan(&up("--groups 2 --replicas 1")).unwrap();
        assert_eq!(cluster.names(), ["ctrl.1", "ctrl.2", "ctrl.3", "101.1", "102.1"]);
        assert_eq!(cluster.shards, 64);
        let ports: std::collections::BTreeSet<_> =
            cluster.servers.values().map(|server| server.address.clone()).collect();
        assert_eq!(ports.len(), 5);
    }

    #[test]
    fn sizes_that_contradict_the_cluster_are_refused() {
        let cluster = Cluster::plan(&up("--groups 2 --replicas 1")).unwrap();
        assert!(cluster.check(&up("")).is_ok());
        assert!(cluster.check(&up("--groups 2 --replicas 1 --shards 64 --sessions-max 4096")).is_ok());
        for options in ["--groups 3", "--replicas 3", "--shards 10", "--sessions-max 10", "--port 1"] {
            assert_eq!(cluster.check(&up(options)).unwrap_err().exit, 2, "{options}");
        }
    }

    #[test]
    fn servers_are_selected_by_the_names_people_use() {
        let mut cluster = Cluster::plan(&up("--groups 1 --replicas 3")).unwrap();
        cluster.add_group(9, 1).unwrap();
        let select = |names: &[&str]| {
            let names: Vec<Name> = names.iter().map(|name| name.parse().unwrap()).collect();
            cluster.select(&names).map_err(|failure| failure.code)
        };
        assert_eq!(select(&["101.2"]).unwrap(), ["101.2"]);
        assert_eq!(select(&["ctrl", "ctrl.1", "9"]).unwrap(), ["ctrl.1", "ctrl.2", "ctrl.3", "9.1"]);
        assert_eq!(select(&["all"]).unwrap().len(), 7);
        assert_eq!(select(&["102"]), Err("unknown_server"));
        assert_eq!(cluster.first_groups().len(), 1, "the added group joins only when it is told to");
    }
}
