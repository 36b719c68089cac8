//! The settings that all servers share, and the Raft settings that follow from them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;

use base::process::LogFormat;
use raft::config::Config;

use crate::address::{HttpAddress, check_address};
use crate::descriptors::Wished;

/// The settings that all servers share; each binary flattens them into its own.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ServerArgs {
    /// Name of the cluster; callers that name another one are refused
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// Which of the members this server is.
    #[arg(long)]
    pub id: u64,
    /// All servers of the group, including this one. Their ids are part of the data and stay;
    /// addresses may change
    #[arg(long, value_name = "1=HOST:PORT,2=HOST:PORT,...")]
    pub members: Members,
    /// The address to listen on: one port for clients and members.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: String,
    /// Where this server shows metrics, health and its status over HTTP; a port alone is one of this
    /// host. Without this there is no such port
    #[arg(long, value_name = "[HOST:]PORT")]
    pub http: Option<HttpAddress>,
    /// The directory of all data of this server
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The first start of this server, with an empty data directory. Without this it is refused: a
    /// member that lost its data must not come back as if it had never voted, under any id
    #[arg(long)]
    pub new: bool,
    /// Milliseconds between two heartbeats of a leader
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub heartbeat_ms: u64,
    /// Shortest time without a leader after which a server asks for votes; the longest is twice this.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub election_ms: u64,
    /// Upper bound on the bytes of log in memory before a compaction [default: 16 MiB]
    #[arg(long, value_name = "BYTES")]
    pub log_bytes_max: Option<usize>,
    /// Free bytes on the disk below which the server accepts only what frees space [default: 256
    /// MiB, or a twentieth of the disk if that is less]
    #[arg(long, value_name = "BYTES")]
    pub disk_reserve_bytes: Option<u64>,
    /// A request that takes so many milliseconds is remembered as slow, with where its time went; 0:
    /// none is
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub slow_request_ms: u64,
    /// How a line of the log looks: text, or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Connections of clients at once; beyond, idle ones make room [default: what the limit of file descriptors allows,
    /// at most 4,096].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub clients_max: Option<u32>,
    /// Connections at once on which clients wait for new configurations [default: the same, at most 1,024].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub watchers_max: Option<u32>,
    /// Connections of servers of other groups at once [default: the same, at most 512].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub groups_max: Option<u32>,
    /// Checks --data-dir instead of serving; no server may have it open. Prints as JSON what is
    /// sound and what is not, changes nothing, needs no other setting, and exits with 1 if
    /// something is damaged
    #[arg(long)]
    pub check: bool,
    /// A TOML file with these settings under the same names; the command line takes precedence
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ServerArgs {
    /// The limits of connections that were set.
    pub fn connections(&self) -> Wished {
        let wished = |max: Option<u32>| max.map(|max| max as usize);
        Wished {
            clients: wished(self.clients_max),
            watchers: wished(self.watchers_max),
            groups: wished(self.groups_max),
            http: self.http.is_some(),
        }
    }

    /// Checks everything that can be checked without touching anything.
    ///
    /// # Errors
    /// One line that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        let is_name = |text: &str| {
            !text.is_empty() && text.len() <= 200 && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !is_name(&self.cluster) {
            return Err("--cluster: a name of 1 to 200 visible ASCII characters is needed".to_owned());
        }
        if !self.members.0.contains_key(&self.id) {
            return Err(format!("--id {}: not among --members {}", self.id, self.members));
        }
        check_address(&self.listen).map_err(|why| format!("--listen {}: {why}", self.listen))
    }
}

/// Ids and addresses of the servers of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members(pub BTreeMap<u64, String>);

impl std::fmt::Display for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let members = self.0.iter().map(|(id, address)| format!("{id}={address}")).collect::<Vec<_>>();
        f.write_str(&members.join(","))
    }
}

impl FromStr for Members {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MEMBERS_MAX: usize = 9;
        let mut members = BTreeMap::new();
        for part in text.split(',') {
            let (id, address) =
                part.split_once('=').ok_or_else(|| format!("`{part}` is not of the form ID=HOST:PORT"))?;
            let id = id.trim().parse::<u64>().ok().filter(|id| *id > 0);
            let id = id.ok_or_else(|| format!("`{part}`: an id is a number from 1"))?;
            check_address(address).map_err(|why| format!("`{part}`: {why}"))?;
            if members.insert(id, address.to_owned()).is_some() {
                return Err(format!("id {id} appears twice"));
            }
        }
        if members.len() > MEMBERS_MAX {
            return Err(format!("a group has at most {MEMBERS_MAX} members"));
        }
        if members.values().collect::<BTreeSet<_>>().len() < members.len() {
            return Err("two members have the same address".to_owned());
        }
        Ok(Self(members))
    }
}

/// The Raft settings that follow from the command line.
pub fn raft_config(args: &ServerArgs) -> Config {
    let config = Config { seed: rand::random(), ..Config::default() };
    let config = config.with_timers(args.heartbeat_ms, args.election_ms);
    match args.log_bytes_max {
        Some(bytes) => config.with_log_bytes_max(bytes),
        None => config,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use base::process::{Refused, parse};

    use super::ServerArgs;

    #[derive(Debug, clap::Parser)]
    struct Settings {
        #[command(flatten)]
        server: ServerArgs,
        #[arg(long, default_value_t = 64)]
        shards: u32,
    }

    const GOOD: &str = "--cluster c --id 1 --members 1=a:1,2=b:1 --listen a:1 --data-dir d";

    fn parsed(arguments: &str) -> Result<Settings, String> {
        let arguments = std::iter::once("server").chain(arguments.split_whitespace()).map(OsString::from);
        parse::<Settings>(arguments.collect()).map_err(|refused| match refused {
            Refused::Bad(why) => why,
            Refused::Shown(shown) => shown.to_string(),
        })
    }

    fn with_file(text: &str, arguments: &str) -> Result<Settings, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        parsed(&format!("{arguments} --config {}", file.path().display()))
    }

    #[test]
    fn the_command_line_counts_more_than_the_file() {
        let file = "cluster = 'c'\nid = 2\nlisten = 'b:1'\ndata-dir = 'd'\nnew = true\nshards = 10\n\
                    [members]\n1 = 'a:1'\n2 = 'b:1'\n";
        let settings = with_file(file, "--id 1 --shards=12").unwrap();
        assert_eq!((settings.server.id, settings.shards, settings.server.new), (1, 12, true));
        assert_eq!(settings.server.members.to_string(), "1=a:1,2=b:1");
        assert_eq!(settings.server.validate(), Ok(()));
    }

    #[test]
    fn a_bad_setting_is_one_line_that_names_it() {
        let cases = [
            (parsed("--cluster c"), "--id <ID>"),
            (parsed(&format!("{GOOD} --shards many")), "--shards"),
            (parsed(&format!("{GOOD} --colour red")), "--colour"),
            (parsed(&GOOD.replace("2=b:1", "2=b")), "a port is missing"),
            (parsed(&GOOD.replace("2=b:1", "1=b:1")), "id 1 appears twice"),
            (parsed(&GOOD.replace("2=b:1", "2=a:1")), "the same address"),
            (with_file("colour = 'red'", GOOD), "unknown setting `colour`"),
            (with_file("shards = 1.5", GOOD), "`shards`: not a value"),
            (with_file("shards", GOOD), "TOML parse error"),
            (parsed(&format!("{GOOD} --config /nowhere/at.all")), "/nowhere/at.all: No such file"),
        ];
        for (result, expected) in cases {
            let why = result.err().unwrap_or_else(|| panic!("accepted, expected: {expected}"));
            assert!(why.contains(expected), "{why:?} should contain {expected:?}");
            assert!(!why.contains('\n'), "{why:?}");
        }
    }

    #[test]
    fn a_server_that_is_not_a_member_is_refused() {
        let settings = parsed(&GOOD.replace("--id 1", "--id 7")).unwrap();
        assert_eq!(settings.server.validate(), Err("--id 7: not among --members 1=a:1,2=b:1".to_owned()));
        let settings = parsed(&GOOD.replace("--listen a:1", "--listen a:99999")).unwrap();
        assert!(settings.server.validate().unwrap_err().contains("--listen a:99999"));
    }

    #[test]
    fn defaults_hold_and_help_is_shown() {
        let settings = parsed(GOOD).unwrap();
        assert_eq!(
            (settings.server.heartbeat_ms, settings.server.election_ms, settings.shards),
            (100, 500, 64)
        );
        assert!(!settings.server.new);
        assert!(parsed("--help").unwrap_err().contains("--members"));
    }
}
