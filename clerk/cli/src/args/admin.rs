//! The arguments of the verbs about configurations.

use clap::ValueEnum;
use std::str::FromStr;

use clerk::api::placement::{MOVE_RATE_MAX, WEIGHT_MAX};
use clerk::api::{GroupId, ShardId};
use clerk_survey::arrange;
use clerk_survey::join::{Joining, group};

pub(super) const RECOVER_HELP: &str = "Every group that the newest configuration names must answer. Nothing is changed \
before that.

A cluster of this machine: the remains of the controllers are stopped, their directories renamed, new ones started.
Elsewhere: start every controller at its address with an empty directory, --new and --recover, and then run
  clerk --controllers HOST:PORT,... recover-controllers 101=HOST:PORT,...

Examples:
  clerk recover-controllers
  clerk recover-controllers --without 103";

#[derive(Debug, clap::Args)]
pub(crate) struct Join {
    /// Groups, with their servers unless they are known. For a group that has joined, a different
    /// list corrects the known one.
    #[arg(value_name = "GROUP[=HOST:PORT,...]", required = true)]
    pub(crate) groups: Vec<Joining>,
    /// Accepts a list that lacks servers of its group, or names some that do not answer.
    #[arg(long)]
    pub(crate) partial: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Leave {
    /// The groups.
    #[arg(value_name = "GROUP", required = true, value_parser = group)]
    pub(crate) groups: Vec<GroupId>,
    /// Even if no group remains: all shards wait at their last holders.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Give {
    /// The shard.
    pub(crate) shard: ShardId,
    /// Its new group.
    #[arg(value_parser = group)]
    pub(crate) group: GroupId,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RecoverControllers {
    /// Groups and their servers, if this is not a cluster of this machine; one running group is
    /// enough.
    #[arg(value_name = "GROUP=HOST:PORT,...")]
    pub(crate) groups: Vec<Joining>,
    /// A group that is lost forever: configurations that it alone knows are given up.
    #[arg(long, value_name = "GROUP", value_parser = group)]
    pub(crate) without: Vec<GroupId>,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Waiting {
    /// Only shows what would move.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Does not wait until it has settled.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Weight {
    /// The group.
    #[arg(value_parser = group)]
    pub(crate) group: GroupId,
    /// Its weight: twice as much as another's is twice as many shards.
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(WEIGHT_MAX)))]
    pub(crate) weight: u32,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pin {
    /// The shard.
    pub(crate) shard: ShardId,
    /// The group where it stays.
    #[arg(value_parser = group)]
    pub(crate) group: GroupId,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Unpin {
    /// The shard.
    pub(crate) shard: ShardId,
}

/// What is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// The number of shards.
    #[default]
    Count,
    /// The bytes of their keys and values.
    Bytes,
    /// The reads and writes a second.
    Load,
}

impl From<By> for arrange::By {
    fn from(by: By) -> Self {
        match by {
            By::Count => Self::Count,
            By::Bytes => Self::Bytes,
            By::Load => Self::Load,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Balance {
    /// What is shared out.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) by: By,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeclareLost {
    /// The shards.
    #[arg(value_name = "SHARD", required = true)]
    pub(crate) shards: Vec<ShardId>,
    /// Gives up whatever the shards had, forever.
    #[arg(long)]
    pub(crate) accept_data_loss: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MoveRate {
    /// MiB a second, or `none`.
    pub(crate) rate: Rate,
}

/// A limit of moves, in MiB a second, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) Option<u32>);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "none" => Ok(Self(None)),
            Ok(mib) if (1..=MOVE_RATE_MAX).contains(&mib) => Ok(Self(Some(mib))),
            _ => Err(format!("`{text}`: a rate is 1 to {MOVE_RATE_MAX} MiB a second, or none")),
        }
    }
}
