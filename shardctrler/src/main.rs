//! `shardctrler`: one replica of the shard controller as a process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base::process::{self, ServerArgs};
use base::socket::{Here, Limits, Listener};
use clap::Parser;
use clerk::api::config::{Params, SLOTS};
use raft::config::Config;
use raft::rsm::{self, Parts, Threads};
use raft::types::{Membership, NodeId};
use shardctrler::server;
use shardctrler::service::{Service, Settings};
use shardctrler::state_machine::Controller;
use tracing::Instrument;

/// A replica of the shard controller, which decides which group serves which shard.
///
/// The limits of the cluster are taken from the first start of all and kept for ever.
#[derive(Debug, Parser)]
#[command(name = "shardctrler", version)]
struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Shards of a new cluster.
    #[arg(long, value_name = "COUNT", default_value_t = Params::default().shard_count,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(SLOTS)))]
    shards: u32,
    /// Longest key of a new cluster.
    #[arg(long, value_name = "BYTES", default_value_t = Params::default().key_bytes_max,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    key_bytes_max: u32,
    /// Longest value of a new cluster.
    #[arg(long, value_name = "BYTES", default_value_t = Params::default().value_bytes_max,
          value_parser = clap::value_parser!(u32).range(1..=32 << 20))]
    value_bytes_max: u32,
}

impl Args {
    fn params(&self) -> Params {
        Params {
            shard_count: self.shards,
            key_bytes_max: self.key_bytes_max,
            value_bytes_max: self.value_bytes_max,
            ..Params::default()
        }
    }

    fn raft(&self) -> Config {
        let config = Config { seed: rand::random(), ..Config::default() };
        let config = config.with_timers(self.server.heartbeat_ms, self.server.election_ms);
        match self.server.log_bytes_max {
            Some(bytes) => config.with_log_bytes_max(bytes),
            None => config,
        }
    }
}

fn main() {
    let args = process::load::<Args>();
    let span = tracing::info_span!("server", group = "ctrl", node = args.server.id);
    process::run(run(args).instrument(span));
}
