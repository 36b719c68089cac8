//! The verbs and their arguments.

mod admin;
mod bench;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use clerk::api::config::SESSIONS_LIMIT;
use clerk::api::{Address, ConfigNum, GroupId};
use clerk_survey::join::group;

pub(crate) use self::admin::{
    Balance, DeclareLost, Give, Join, Leave, MoveRate, Pin, RecoverControllers, Unpin, Waiting, Weight,
};
pub(crate) use self::bench::{Bench, BenchVerb, Compare, Run, Scaling};
use crate::output::Format;

/// A sharded, replicated, linearizable key/value store: its clients, its administration, and clusters on
/// this machine.
#[derive(Debug, Parser)]
#[command(
    name = "clerk",
    version,
    after_help = "Examples:
  clerk up                     a cluster on this machine: 3 controllers, 2 groups of 3 servers
  clerk put greeting hello
  clerk get greeting
  clerk help join              each verb explains itself"
)]
pub(crate) struct Args {
    /// Directory of a local cluster [default: CLERK_DIR, or ./clerk-data].
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "controllers")]
    pub(crate) dir: Option<PathBuf>,
    /// The controllers of a cluster elsewhere [default: CLERK_CONTROLLERS].
    #[arg(long, global = true, value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub(crate) controllers: Option<Vec<Address>>,
    /// How answers are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Total time in seconds [default: 10 for keys, 120 for commands that wait until it has
    /// settled].
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Starts a cluster on this machine, or those of its servers that are down, and waits until it
    /// is healthy.
    #[command(after_help = "Example:\n  clerk up --groups 2 --replicas 3")]
    Up(Up),
    /// Stops servers: all, or those named.
    #[command(after_help = "Examples:\n  clerk down\n  clerk down 101.2\n  clerk down --purge")]
    Down(Down),
    /// Starts the servers of another group. `join` gives it shards.
    #[command(after_help = "Example:\n  clerk add-group 103 && clerk join 103")]
    AddGroup(AddGroup),
    /// Kills servers at once (SIGKILL), as a crash would.
    #[command(after_help = "Examples:\n  clerk kill 101.1\n  clerk kill 101 ctrl.2")]
    Kill(Names),
    /// Starts servers that are down, with their data.
    #[command(after_help = "Example:\n  clerk start 101.1")]
    Start(Names),
    /// Prints the end of servers' logs.
    #[command(after_help = "Example:\n  clerk logs 101.1 --lines 50")]
    Logs(Logs),
    /// Checks the data directory of a server that does not run: log, table, identity. Changes
    /// nothing.
    #[command(
        after_help = "Examples:\n  clerk check clerk-data/101.1\n  clerk check /var/lib/shardkv -o json"
    )]
    Check(Check),
    /// Prints the value of a key.
    #[command(after_help = "Examples:\n  clerk get greeting\n  clerk get --raw picture > picture.png")]
    Get(Get),
    /// Sets the value of a key.
    #[command(
        after_help = "Examples:\n  clerk put greeting hello\n  clerk put greeting hi --if-version 1\n  \
        clerk put picture - < picture.png\n  clerk put dash - --literal"
    )]
    Put(Put),
    /// Appends to a key's value.
    #[command(after_help = "Example:\n  clerk append greeting ', world'")]
    Append(Append),
    /// Removes a key.
    #[command(after_help = "Example:\n  clerk delete greeting")]
    Delete(Delete),
    /// Puts every record of a file: key, tab, value; \t, \n and \\ within them. An incomplete file
    /// is refused before anything is written; from a pipe, at its end.
    #[command(
        after_help = "Examples:\n  clerk load airports.tsv\n  clerk dump | clerk --dir other load -\n  \
            clerk load cut-short.tsv --partial"
    )]
    Load(Load),
    /// Prints every record, sorted by key, between a first and a last line that show `load` that
    /// the dump is complete. Not one atomic read: others may write meanwhile.
    #[command(after_help = "Example:\n  clerk dump > backup.tsv")]
    Dump,
    /// Compares the store with the loaded records and with the record of a bench.
    #[command(hide = true)]
    Verify(Verify),
    /// Lets groups join; shards move to them.
    #[command(after_help = "Examples:\n  clerk join 103 --dry-run\n  clerk join 103\n  \
        clerk join 104=a:7104,b:7104,c:7104")]
    Join(Join),
    /// Removes groups; their shards move to the others. Waits until their servers may be stopped.
    #[command(after_help = "Examples:\n  clerk leave 101\n  clerk leave 101 102 --force")]
    Leave(Leave),
    /// Moves one shard. Pins nothing: the next join or leave may move it again.
    #[command(after_help = "Example:\n  clerk move 7 102")]
    Move(Give),
    /// Sets how much a group is to carry, 100 unless told otherwise: shards are shared out in proportion.
    /// 0 moves all its shards away.
    #[command(after_help = "Examples:\n  clerk weight 103 200 --dry-run\n  clerk weight 103 0")]
    Weight(Weight),
    /// Moves a shard to a group, where it stays: no join, leave, weight or balance moves it.
    #[command(after_help = "Example:\n  clerk pin 7 102")]
    Pin(Pin),
    /// Allows a pinned shard to be moved again. Moves nothing.
    #[command(after_help = "Example:\n  clerk unpin 7")]
    Unpin(Unpin),
    /// Moves as few shards as bring each group within 10 % of its share: of the shards, their bytes,
    /// or their load.
    #[command(after_help = "Examples:\n  clerk balance --by bytes --dry-run\n  clerk balance --by load")]
    Balance(Balance),
    /// Limits how fast each group sends shards that move. It holds at once, also for moves that are under
    /// way.
    #[command(after_help = "Examples:\n  clerk move-rate 20\n  clerk move-rate none")]
    MoveRate(MoveRate),
    /// Begins shards anew, empty, whose rows are lost with a group that never returns. Refuses while a
    /// group has them.
    #[command(after_help = "Examples:\n  clerk leave 103 --no-wait && clerk declare-lost 7 9 --dry-run\n  \
        clerk declare-lost 7 9 --accept-data-loss")]
    DeclareLost(DeclareLost),
    /// Prints a configuration: which group serves which shard, and the groups' addresses.
    #[command(after_help = "Examples:\n  clerk query\n  clerk query 3")]
    Query(Query),
    /// Prints all configurations so far.
    #[command(after_help = "Example:\n  clerk history")]
    History,
    /// Prints the shards that are on their way: how far each is, and what it waits for.
    #[command(after_help = "Examples:\n  clerk moves\n  clerk moves --watch")]
    Moves(Moves),
    /// Prints how every server and shard is.
    #[command(after_help = "Examples:\n  clerk status\n  clerk status -o json | jq .settled")]
    Status,
    /// Prints the requests that took long, the newest first, and where their time went.
    #[command(after_help = "Examples:\n  clerk slow\n  clerk slow -o json | jq '.slow[0].stages'")]
    Slow,
    /// Prints the level of servers' logs, or sets it until they start again.
    #[command(
        after_help = "Examples:\n  clerk log-level\n  clerk log-level 101.2 shardkv=debug,info\n  clerk log-level all info"
    )]
    LogLevel(LogLevel),
    /// Shows the cluster live in this terminal: what is wrong, who leads, how fast it is, what moves. Not
    /// on a terminal it prints that once.
    #[command(
        after_help = "Examples:\n  clerk top          q quits, arrows scroll, s sorts the groups\n  clerk top | cat    once, as plain text"
    )]
    Top,
    /// Prints the page of a cluster as one file of HTML, which works without any server.
    #[command(
        after_help = "Examples:\n  clerk page > page.html\n  clerk status -o json > now.json && clerk page now.json > page.html"
    )]
    Page(Page),
    /// Starts new controllers after all of them lost their data, from the configurations that the groups hold.
    #[command(after_help = admin::RECOVER_HELP)]
    RecoverControllers(RecoverControllers),
    /// Loads the cluster and measures it; compares results.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Box<Bench>),
    /// Prints a completion script.
    #[command(
        after_help = "Example:\n  clerk completions bash > ~/.local/share/bash-completion/completions/clerk"
    )]
    Completions(Completions),
}

const BENCH_EXAMPLES: &str = "Examples:
  clerk bench --clients 64 --seconds 10 --reads 50 --appends 10
  clerk bench --preload --reads 95 --distribution zipfian --html report.html
  clerk bench --rate 5000 --warmup 2 --save before.json
  clerk bench --phase few,clients=4 --phase many,clients=256 --phase steady,rate=3000
  clerk bench compare before.json after.json
  clerk bench scaling --groups 1,2,4 --replica-cpu 0.1";

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Groups 101, 102, ... of a new cluster [default: 2].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) groups: Option<u64>,
    /// Servers of a group in a new cluster [default: 3].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(crate) replicas: Option<u64>,
    /// Shards of a new cluster [default: 64].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub(crate) shards: Option<u32>,
    /// Sessions of a shard of a new cluster: clients that write there at the same time [default: 4096].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(SESSIONS_LIMIT)))]
    pub(crate) sessions_max: Option<u32>,
    /// First port of a new cluster; the others follow it [default: a free range].
    #[arg(long, value_name = "BASE", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Down {
    /// `101.2`, `101`, `ctrl.1`, `ctrl` or `all` [default: all].
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<Name>,
    /// Also deletes the data of the whole cluster.
    #[arg(long, conflicts_with = "names")]
    pub(crate) purge: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddGroup {
    /// The id of the new group.
    #[arg(value_name = "GROUP", value_parser = group)]
    pub(crate) group: GroupId,
    /// Its servers [default: as many as the other groups have].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(crate) replicas: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Moves {
    /// Prints it again each second until nothing moves any more.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Names {
    /// `101.2`, `101`, `ctrl.1`, `ctrl` or `all`.
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<Name>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) names: Names,
    /// Lines of each server.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    pub(crate) lines: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The key.
    pub(crate) key: OsString,
    /// Prints only the value's bytes, without a newline.
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    /// The key.
    pub(crate) key: OsString,
    /// Its value; `-`: from standard input.
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: OsString,
    /// Uses VALUE literally, even `-`.
    #[arg(long)]
    pub(crate) literal: bool,
    /// Only if the key has this version; 0: only if it is absent.
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Append {
    /// The key.
    pub(crate) key: OsString,
    /// The text to append; `-`: from standard input.
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: OsString,
    /// Uses VALUE literally, even `-`.
    #[arg(long)]
    pub(crate) literal: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The key.
    pub(crate) key: OsString,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// The file; `-`: standard input.
    pub(crate) file: PathBuf,
    /// Loads the complete lines of an incomplete file: a dump without its last line, or one whose
    /// number of records or checksum does not match. A last line without a newline is left out.
    #[arg(long)]
    pub(crate) partial: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The data directory of one server.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The file that was loaded.
    #[arg(long, value_name = "FILE")]
    pub(crate) records: Option<PathBuf>,
    /// A record that a bench made.
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Page {
    /// A document of `clerk status -o json`, or what a controller shows as /v1/state; `-`: standard input
    /// [default: the chosen cluster as it is now].
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Query {
    /// Its number [default: the newest].
    #[arg(value_name = "NUMBER")]
    pub(crate) num: Option<ConfigNum>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Servers of a local cluster, as people name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    All,
    /// A group (0: the controllers).
    Group(u64),
    /// A server of a group.
    Server(u64, u64),
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: a name is like 101.2, 101, ctrl.1, ctrl or all");
        let group = |text: &str| match text {
            "ctrl" => Ok(0),
            text => text.parse().ok().filter(|group| *group > 0).ok_or_else(wrong),
        };
        match text.split_once('.') {
            None if text == "all" => Ok(Self::All),
            None => Ok(Self::Group(group(text)?)),
            Some((of, id)) => Ok(Self::Server(group(of)?, id.parse().map_err(|_| wrong())?)),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| *duration <= Duration::from_secs(1_000_000))
        .ok_or_else(|| format!("`{text}`: seconds are a number above 0"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use clerk::api::GroupId;

    use clerk_survey::join::Joining;

    use super::{Args, Name};

    #[test]
    fn the_definition_of_the_command_line_holds() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example() {
        for verb in Args::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("clerk {}", verb.get_name())), "{}", verb.get_name());
        }
    }

    #[test]
    fn names_of_servers() {
        let cases = [
            ("all", Name::All),
            ("ctrl", Name::Group(0)),
            ("ctrl.1", Name::Server(0, 1)),
            ("101", Name::Group(101)),
            ("101.2", Name::Server(101, 2)),
        ];
        for (text, name) in cases {
            assert_eq!(text.parse(), Ok(name));
        }
        for text in ["", "0", "x", "101.", "101.x", "control.1", "1.2.3"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn groups_that_join() {
        let joining = |text: &str| text.parse::<Joining>();
        assert_eq!(joining("103"), Ok(Joining { group: GroupId(103), addresses: None }));
        let addresses = Some(vec!["a:1".to_owned(), "b:2".to_owned()]);
        assert_eq!(joining("103=a:1,b:2"), Ok(Joining { group: GroupId(103), addresses }));
        for text in ["0", "x=a:1", "103=", "103=a", "103=a:1,:2", "103=a:99999"] {
            assert!(joining(text).is_err(), "{text}");
        }
    }

    #[test]
    fn global_options_may_stand_on_either_side_of_the_verb() {
        for line in ["clerk -o json get key", "clerk get key -o json"] {
            assert!(Args::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in ["clerk --timeout 0 status", "clerk --dir a --controllers b:1 status", "clerk get"] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        assert!(Args::try_parse_from(["clerk", "put", "key", "-"]).is_ok());
        assert!(Args::try_parse_from(["clerk", "put", "key", "-5"]).is_ok());
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogLevel {
    /// A server (101.2, ctrl.1), a group (101, ctrl), or all.
    #[arg(value_name = "SERVER|GROUP|all", default_value = "all")]
    pub(crate) whose: String,
    /// off, error, warn, info, debug or trace; or the same for parts of the program:
    /// raft=debug,info.
    pub(crate) level: Option<String>,
}
