//! What is kept of a local cluster between commands.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use base::clock;
use clerk::api::{Address, GroupId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::args::{self, Name};
use crate::failure::Failure;

/// Format 1 had no checksum.
const FORMAT: u32 = 2;
const CONTROLLERS: u64 = 3;
const FIRST_GROUP: u64 = 101;
const HOST: &str = "127.0.0.1";
/// Ports from here to the next are tried: below those that systems give to callers.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A cluster's ports start at a multiple of this.
const PORT_STEP: u16 = 50;
/// Another command works on the same cluster at most so long.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// A server's name: `ctrl.1`, `101.2`.
pub(crate) fn name(group: u64, id: u64) -> String {
    match group {
        0 => format!("ctrl.{id}"),
        group => format!("{group}.{id}"),
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    /// 0: a controller.
    pub(crate) group: u64,
    pub(crate) id: u64,
    pub(crate) address: Address,
    /// It has made its data directory: never again may it start with an empty one.
    pub(crate) made: bool,
}

/// A local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    format: u32,
    /// Its id, which every connection names.
    pub(crate) cluster: String,
    /// Its key in hexadecimal digits, once its controllers have told it. (Too wide for the numbers of many JSON readers.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    pub(crate) shards: u32,
    /// Servers of a group, unless told otherwise.
    pub(crate) replicas: u64,
    /// Groups it began with.
    pub(crate) groups: u64,
    /// Those groups have joined.
    pub(crate) joined: bool,
    /// The controllers were replaced by new ones, which wait for the history that the groups hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) recovering: bool,
    pub(crate) servers: BTreeMap<String, Server>,
}

/// A cluster as it stands in its file: the checksum tells that nothing in it went bad or was changed by hand (rule 60).
#[derive(Serialize, Deserialize)]
struct Checked {
    cluster: Cluster,
    checksum: u32,
}

fn checksum(cluster: &Cluster) -> Result<u32, serde_json::Error> {
    const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    Ok(CRC.checksum(&serde_json::to_vec(cluster)?))
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
            replicas,
            groups,
            joined: false,
            recovering: false,
            servers: BTreeMap::new(),
        };
        let sizes = std::iter::once((0, CONTROLLERS))
            .chain((FIRST_GROUP..).take(groups as usize).map(|group| (group, replicas)));
        let places: Vec<(u64, u64)> =
            sizes.flat_map(|(group, size)| (1..=size).map(move |id| (group, id))).collect();
        let ports = match up.port {
            Some(base) => given_ports(base, places.len())?,
            None => free_ports(places.len())?,
        };
        for ((group, id), port) in places.into_iter().zip(ports) {
            cluster.add(group, id, port);
        }
        Ok(cluster)
    }

    fn add(&mut self, group: u64, id: u64, port: u16) {
        let server = Server { group, id, address: format!("{HOST}:{port}"), made: false };
        self.servers.insert(name(group, id), server);
    }

    /// Adds a group on the next free ports behind those in use.
    pub(crate) fn add_group(&mut self, group: u64, replicas: u64) -> Result<(), Failure> {
        let port =
            |server: &Server| server.address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let last = self.servers.values().filter_map(port).max().unwrap_or(PORTS.start);
        let mut ports = (last.saturating_add(1)..u16::MAX).filter(|port| is_free(*port));
        for id in 1..=replicas {
            let port = ports.next().ok_or_else(|| Failure::new("no_port", "no port is free"))?;
            self.add(group, id, port);
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
        } else if up.port.is_some_and(|wanted| !same_port(wanted)) {
            format!("its first port is that of {}", port.map_or("nothing", String::as_str))
        } else {
            return Ok(());
        };
        let next = "leave the option out to go on with this cluster, or name another --dir";
        Err(Failure::usage(format!("there is a cluster already, and {contradiction}")).next(next))
    }

    /// Its key; 0 while it is not known.
    pub(crate) fn key(&self) -> u64 {
        self.key.as_deref().and_then(|key| u64::from_str_radix(key, 16).ok()).unwrap_or_default()
    }

    /// Takes note of the key. Whether there was anything to note.
    pub(crate) fn learn_key(&mut self, key: u64) -> bool {
        let is_news = self.key() == 0 && key != 0;
        if is_news {
            self.key = Some(format!("{key:016x}"));
        }
        is_news
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
        let ids = self.servers.values().map(|server| server.group).filter(|group| *group > 0);
        ids.map(|group| (GroupId(group), self.addresses(group))).collect()
    }

    /// The groups a new cluster begins with.
    pub(crate) fn first_groups(&self) -> BTreeMap<GroupId, Vec<Address>> {
        let mut groups = self.groups();
        groups.retain(|group, _| (FIRST_GROUP..FIRST_GROUP + self.groups).contains(&group.0));
        groups
    }

    /// The server at an address.
    pub(crate) fn name_at(&self, group: u64, address: &Address) -> Option<String> {
        self.of(group).find(|server| server.address == *address).map(|server| name(group, server.id))
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

/// The place of a local cluster.
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.path.join("cluster.json")
    }

    /// The data directory of a server.
    pub(crate) fn of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Renames a server's data directory, if there is one, to a name that nobody has; that name.
    pub(crate) fn set_aside(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        let data = self.of(name);
        if !data.exists() {
            return Ok(None);
        }
        let mut names = (1_u32..).map(|number| self.of(&format!("{name}.lost-{number}")));
        let Some(aside) = names.find(|path| !path.exists()) else { return Ok(None) };
        std::fs::rename(&data, &aside)
            .with_context(|| format!("cannot rename {} to {}", data.display(), aside.display()))?;
        Ok(Some(aside))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        self.file().exists()
    }

    pub(crate) fn load(&self) -> Result<Cluster, Failure> {
        let path = self.file();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let failure =
                    Failure::new("no_cluster", format!("there is no cluster in {}", self.path.display()));
                return Err(failure.next("clerk up starts one; --dir or --controllers name another"));
            }
            Err(error) => return Err(Failure::new("io", format!("cannot read {}: {error}", path.display()))),
        };
        let bad = |what: &dyn std::fmt::Display| {
            let message = format!("{}: {what}; nothing was done", path.display());
            Failure::new("bad_cluster_file", message).next(
                "put back the text that clerk wrote, from a copy; the servers' data beside it is not touched by this",
            )
        };
        // First the format: another one may have other fields.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| bad(&error))?;
        let format = value.pointer("/cluster/format").or_else(|| value.get("format"));
        let format = format.and_then(serde_json::Value::as_u64);
        if format.is_some_and(|format| format != u64::from(FORMAT)) {
            let format = format.unwrap_or_default();
            return Err(bad(&format!("format {format}, this build reads {FORMAT}")));
        }
        let Checked { cluster, checksum: wanted } =
            serde_json::from_value(value).map_err(|error| bad(&format!("damaged: {error}")))?;
        if checksum(&cluster).map_err(|error| bad(&error))? != wanted {
            return Err(bad(&"its checksum does not match: it went bad, or was changed by hand"));
        }
        Ok(cluster)
    }

    /// Writes the file anew beside the old one, and then in its place.
    pub(crate) fn save(&self, cluster: &Cluster) -> Result<(), Failure> {
        let write = || -> anyhow::Result<()> {
            let draft = self.path.join("cluster.json.new");
            let checked = Checked { cluster: cluster.clone(), checksum: checksum(cluster)? };
            let text = serde_json::to_string_pretty(&checked)? + "\n";
            std::fs::write(&draft, text)?;
            File::open(&draft)?.sync_all()?;
            std::fs::rename(&draft, self.file())?;
            Ok(())
        };
        Ok(write().with_context(|| format!("cannot write {}", self.file().display()))?)
    }

    /// Keeps other commands from starting and stopping servers here. Makes the directory.
    pub(crate) async fn lock(&self) -> Result<File, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::new("io", format!("cannot use {}: {error}", self.path.display()))
        };
        std::fs::create_dir_all(&self.path).map_err(cannot)?;
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(self.path.join("cluster.lock"));
        let lock = lock.map_err(cannot)?;
        let until = clock::now().after(LOCK_PATIENCE);
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if clock::now() >= until {
                return Err(Failure::new("busy", "another command starts or stops servers of this cluster"));
            }
            clock::sleep(Duration::from_millis(50)).await;
        }
        Ok(lock)
    }

    /// Deletes the data of a cluster, and the directory if nothing else is in it.
    pub(crate) fn purge(&self, cluster: &Cluster) -> Result<(), Failure> {
        for name in cluster.names() {
            let path = self.of(&name);
            if path.exists() {
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("cannot delete {}", path.display()))?;
            }
        }
        for file in ["cluster.json", "cluster.json.new", "cluster.lock"] {
            // What is not there is deleted already; anything else shows when the directory is used again.
            let _ = std::fs::remove_file(self.path.join(file));
        }
        let _ = std::fs::remove_dir(&self.path);
        Ok(())
    }
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

/// A range of free ports. The search begins at random, so that clusters that are planned at the same time,
/// or are down while others are planned, hardly ever meet.
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
mod tests {
    use clap::Parser;

    use super::{Cluster, Directory, name};
    use crate::args::{Args, Name, Up, Verb};

    fn up(options: &str) -> Up {
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
        assert!(cluster.check(&up("--groups 2 --replicas 1 --shards 64")).is_ok());
        for options in ["--groups 3", "--replicas 3", "--shards 10", "--port 1"] {
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

    #[tokio::test]
    async fn a_cluster_is_found_again_and_purged_without_a_trace() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::new(&parent.path().join("d"));
        assert_eq!(directory.load().unwrap_err().code, "no_cluster");
        let cluster = Cluster::plan(&up("--groups 1 --replicas 1")).unwrap();
        let lock = directory.lock().await.unwrap();
        directory.save(&cluster).unwrap();
        assert_eq!(directory.load().unwrap(), cluster);
        std::fs::create_dir(directory.of(&name(101, 1))).unwrap();
        directory.purge(&cluster).unwrap();
        drop(lock);
        assert!(!directory.path().exists());
    }

    #[test]
    fn a_file_that_was_cut_damaged_or_changed_by_hand_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::new(parent.path());
        let cluster = Cluster::plan(&up("--groups 1 --replicas 1")).unwrap();
        directory.save(&cluster).unwrap();
        let good = std::fs::read(directory.file()).unwrap();
        let loaded = |bad: &[u8]| {
            std::fs::write(directory.file(), bad).unwrap();
            directory.load().map_err(|failure| failure.code)
        };
        for cut in 0..good.len() - 2 {
            assert!(loaded(&good[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // White space may go bad: it says nothing.
            assert!(loaded(&bad).is_err() || loaded(&bad) == Ok(cluster.clone()), "bit {bit}");
        }
        let edited = String::from_utf8(good.clone()).unwrap().replace("\"shards\": 64", "\"shards\": 65");
        assert_eq!(loaded(edited.as_bytes()), Err("bad_cluster_file"));
        assert_eq!(loaded(&good), Ok(cluster));
    }
}
