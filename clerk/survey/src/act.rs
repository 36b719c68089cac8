//! Changes that are asked for in JSON: `{"verb": "move", "shard": 7, "group": 102}`. They are planned
//! and made exactly as the verbs of the command line do it.

use std::collections::BTreeSet;

use base::clock::Instant;
use clerk::api::ctrl::Change;
use clerk::api::{Address, GroupId, ShardId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arrange::{By, arrange};
use crate::changes::{changed_document, planned_document, with};
use crate::forecast::forecast;
use crate::join::{Joining, newcomers};
use crate::reach::Reach;
use crate::refused::Refused;
use crate::survey::survey;

/// Groups that one request may name.
const NAMED_MAX: usize = 64;

/// A group that joins: its id, or its id and its servers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Named {
    Id(u64),
    Full { gid: u64, servers: Option<Vec<Address>> },
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
enum Asked {
    Join {
        groups: Vec<Named>,
        #[serde(default)]
        partial: bool,
    },
    Leave {
        groups: BTreeSet<u64>,
        #[serde(default)]
        force: bool,
    },
    Move {
        shard: u32,
        group: u64,
    },
    Weight {
        group: u64,
        weight: u32,
    },
    Balance {
        #[serde(default)]
        by: Option<String>,
    },
    Pin {
        shard: u32,
        group: u64,
    },
    Unpin {
        shard: u32,
    },
}

/// A change that was asked for, well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act(Asked);

fn usage(message: impl Into<String>) -> Refused {
    Refused::new("usage", message).next("docs/operations.md lists what can be asked for")
}

fn id(group: u64) -> Result<GroupId, Refused> {
    if group == 0 { Err(usage("a group's id is a number from 1")) } else { Ok(GroupId(group)) }
}

impl Act {
    /// Reads JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(json: &[u8]) -> Result<Self, Refused> {
        let asked: Asked = serde_json::from_slice(json)
            .map_err(|error| usage(format!("this is not a change, nothing was done: {error}")))?;
        let named = match &asked {
            Asked::Join { groups, .. } => groups.len(),
            Asked::Leave { groups, .. } => groups.len(),
            _ => 1,
        };
        if named == 0 || named > NAMED_MAX {
            return Err(usage(format!("name 1 to {NAMED_MAX} groups")));
        }
        Ok(Self(asked))
    }

    /// In a few words, for a log.
    pub fn words(&self) -> String {
        format!("{:?}", self.0)
    }

    /// The change, and what else there is to tell of it.
    async fn change(&self, reach: &Reach, until: Instant) -> Result<(Change, Value), Refused> {
        let shard = ShardId;
        let change = match &self.0 {
            Asked::Join { groups, partial } => {
                let joining = |named: &Named| match named {
                    Named::Id(group) => Ok(Joining { group: id(*group)?, addresses: None }),
                    Named::Full { gid, servers } => {
                        Ok(Joining { group: id(*gid)?, addresses: servers.clone() })
                    }
                };
                let groups = groups.iter().map(joining).collect::<Result<Vec<_>, Refused>>()?;
                Change::Join(newcomers(reach, &groups, *partial, until).await?)
            }
            Asked::Leave { groups, force } => {
                let groups = groups.iter().map(|group| id(*group)).collect::<Result<_, _>>()?;
                Change::Leave { groups, force: *force }
            }
            Asked::Move { shard: number, group } => {
                Change::Move { shard: shard(*number), group: id(*group)? }
            }
            Asked::Weight { group, weight } => Change::Weigh { group: id(*group)?, weight: *weight },
            Asked::Pin { shard: number, group } => Change::Pin { shard: shard(*number), group: id(*group)? },
            Asked::Unpin { shard: number } => Change::Unpin { shard: shard(*number) },
            Asked::Balance { by } => {
                let by = by.as_deref().map_or(Ok(By::default()), str::parse).map_err(usage)?;
                let arranged = arrange(reach, by, until).await?;
                return Ok((arranged.change, arranged.told.document()));
            }
        };
        Ok((change, json!({})))
    }

    /// What it would make; makes nothing.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn plan(&self, reach: &Reach, until: Instant) -> Result<Value, Refused> {
        let (change, more) = self.change(reach, until).await?;
        let plan = reach.ctrl(until).plan(change).await?;
        let forecast = forecast(&survey(reach, until).await, &plan.moves);
        Ok(with(planned_document(&plan, &forecast), more))
    }

    /// Makes it, and does not wait until it has settled.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn make(&self, reach: &Reach, until: Instant) -> Result<Value, Refused> {
        let started = base::clock::now();
        let (change, more) = self.change(reach, until).await?;
        let changed = reach.ctrl(until).change(change).await?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(with(changed_document(&changed, false, seconds), more))
    }
}

#[cfg(test)]
mod tests {
    use super::{Act, Asked, NAMED_MAX, Named};

    fn read(json: &str) -> Result<Asked, String> {
        Act::read(json.as_bytes()).map(|act| act.0).map_err(|refused| refused.message)
    }

    #[test]
    fn each_verb_is_read_as_the_page_sends_it() {
        let full = Named::Full { gid: 104, servers: Some(vec!["a:1".to_owned()]) };
        let join = Asked::Join { groups: vec![Named::Id(103), full], partial: false };
        assert_eq!(read(r#"{"verb":"join","groups":[103,{"gid":104,"servers":["a:1"]}]}"#), Ok(join));
        let leave = Asked::Leave { groups: [101].into(), force: true };
        assert_eq!(read(r#"{"verb":"leave","groups":[101],"force":true}"#), Ok(leave));
        assert_eq!(
            read(r#"{"verb":"move","shard":7,"group":102}"#),
            Ok(Asked::Move { shard: 7, group: 102 })
        );
        assert_eq!(
            read(r#"{"verb":"weight","group":103,"weight":200}"#),
            Ok(Asked::Weight { group: 103, weight: 200 })
        );
        assert_eq!(read(r#"{"verb":"balance"}"#), Ok(Asked::Balance { by: None }));
        assert_eq!(read(r#"{"verb":"pin","shard":7,"group":102}"#), Ok(Asked::Pin { shard: 7, group: 102 }));
        assert_eq!(read(r#"{"verb":"unpin","shard":7}"#), Ok(Asked::Unpin { shard: 7 }));
    }

    #[test]
    fn what_is_no_change_is_refused_in_words() {
        for wrong in [
            "",
            "{",
            "[]",
            "null",
            r#"{"verb":"purge"}"#,
            r#"{"verb":"move","shard":-1,"group":102}"#,
            r#"{"verb":"move","shard":7}"#,
            r#"{"verb":"unpin","shard":7,"force":true}"#,
            r#"{"verb":"leave","groups":[]}"#,
            "{\"verb\":\"unpin\",\"shard\":\u{0}7}",
        ] {
            assert!(!read(wrong).expect_err(wrong).is_empty());
        }
        let many: Vec<u64> = (1..=NAMED_MAX as u64 + 1).collect();
        assert!(read(&format!(r#"{{"verb":"leave","groups":{many:?}}}"#)).is_err());
        assert!(read(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))).is_err(), "no stack ends");
    }
}
