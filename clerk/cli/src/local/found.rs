//! Servers of a cluster whose file is gone or cannot be read, found through their processes.
//!
//! Each was started with the name of its cluster, the members of its group and the controllers, so
//! any running server of a group is enough to know the whole group. Servers that are found this way
//! can be shown and stopped; they are never started, because nothing shows which of them ran
//! before.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use super::directory::Directory;
use super::file::{Cluster, Server, name};
use super::process;
use crate::args::Name;
use crate::failure::Failure;
use crate::output::Output;

impl Directory {
    /// The cluster of the file, or else of the processes that run here.
    ///
    /// # Errors
    /// Of [`Self::load`], if none runs.
    pub(crate) fn load_or_find(&self, output: Output) -> Result<Cluster, Failure> {
        self.load().or_else(|failure| {
            let found = self.running();
            let cluster = found.map(|found| Cluster::found(&found)).ok_or_else(|| failure.clone())?;
            output.note(format!("clerk: {}", failure.message.trim_end_matches("; nothing was done")));
            output.note("       these are the servers that run here");
            Ok(cluster)
        })
    }

    /// Refuses to begin a cluster where servers of another one run, whose file is gone.
    ///
    /// # Errors
    /// `bad_cluster_file`.
    pub(crate) fn refuse_orphans(&self) -> Result<(), Failure> {
        let Some(running) = self.running() else { return Ok(()) };
        let message =
            format!("{} servers run in {}, and cluster.json is gone", running.len(), self.path().display());
        Err(Failure::new("bad_cluster_file", message)
            .next("put the file back, from a copy; or stop the servers: clerk down"))
    }

    /// The arguments of the servers that hold data directories here, each with its directory; none: there are none.
    fn running(&self) -> Option<Vec<(Name, Arguments)>> {
        let entries = std::fs::read_dir(self.path()).ok()?.flatten();
        let running: Vec<(Name, Arguments)> = entries
            .filter_map(|entry| {
                let name = entry.file_name().to_str().and_then(|name| Name::from_str(name).ok())?;
                let arguments = Arguments::of(process::holder(&entry.path())?, &entry.path())?;
                matches!(name, Name::Server(..)).then_some((name, arguments))
            })
            .collect();
        (!running.is_empty()).then_some(running)
    }
}

/// What a server was started with.
struct Arguments {
    named: BTreeMap<String, String>,
    /// The key of its cluster, if it has learned it.
    key: Option<u64>,
}

impl Arguments {
    fn of(pid: u32, data: &Path) -> Option<Self> {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        Some(Self { named: Self::pairs(&words), key: process::key_of(data) })
    }

    /// Options with their values; what stands alone is passed over.
    fn pairs(words: &[String]) -> BTreeMap<String, String> {
        let pair = |pair: &[String]| Some((pair[0].strip_prefix("--")?.to_owned(), pair[1].clone()));
        words.windows(2).filter_map(pair).collect()
    }

    fn text(&self, option: &str) -> &str {
        self.named.get(option).map_or("", String::as_str)
    }

    /// The members of its group.
    fn members(&self, group: u64) -> impl Iterator<Item = Server> {
        self.text("members").split(',').filter_map(move |member| {
            let (id, address) = member.split_once('=')?;
            Some(Server { group, id: id.parse().ok()?, address: address.to_owned(), http: None, made: true })
        })
    }

    /// The controllers that it was started with, numbered in their order.
    fn controllers(&self) -> impl Iterator<Item = Server> {
        let addresses = self.text("controllers").split(',').filter(|address| !address.is_empty());
        (1..).zip(addresses).map(|(id, address)| Server {
            group: 0,
            id,
            address: address.to_owned(),
            http: None,
            made: true,
        })
    }
}

impl Cluster {
    fn found(running: &[(Name, Arguments)]) -> Self {
        let mut servers = BTreeMap::new();
        for (at, arguments) in running {
            let Name::Server(group, _) = at else { continue };
            for server in arguments.members(*group).chain(arguments.controllers()) {
                servers.entry(name(server.group, server.id)).or_insert(server);
            }
        }
        let cluster = running.first().map(|(_, arguments)| arguments.text("cluster")).unwrap_or_default();
        let key = running.iter().find_map(|(_, arguments)| arguments.key);
        Self::of_servers(cluster.to_owned(), key, servers)
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Cluster};
    use crate::args::Name;

    #[test]
    fn one_server_tells_its_group_and_the_controllers() {
        let line = "shardkv --cluster c --id 2 --members 1=h:1,2=h:2 --listen h:2 --group 101 --controllers \
                    h:7,h:8 --data-dir /d/101.2 --new";
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let arguments = Arguments { named: Arguments::pairs(&words), key: Some(0xabc) };
        let cluster = Cluster::found(&[(Name::Server(101, 2), arguments)]);
        assert_eq!(cluster.names(), ["ctrl.1", "ctrl.2", "101.1", "101.2"]);
        assert_eq!((cluster.cluster.as_str(), cluster.key()), ("c", Some(0xabc)));
        assert_eq!(cluster.addresses(101), ["h:1", "h:2"]);
        assert_eq!(cluster.addresses(0), ["h:7", "h:8"]);
    }
}
