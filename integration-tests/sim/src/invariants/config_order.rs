//! A group adopts configurations in order, each after the one before (correctness rule 36), and no
//! push ever ends with other rows than were sent.

use std::collections::BTreeMap;

use clerk::api::ConfigNum;

use super::{Invariant, Turn};
use crate::Name;

#[derive(Default)]
pub(super) struct ConfigOrder {
    last: BTreeMap<(Name, u64), Option<ConfigNum>>,
}

impl Invariant for ConfigOrder {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        let Some(standing) = turn.standing else { return Ok(()) };
        let life = (turn.seen.name.clone(), turn.seen.life);
        let before = self.last.insert(life, standing.config).flatten();
        if standing.config < before {
            return Err(format!(
                "{} went from configuration {before:?} back to {:?}",
                turn.seen.name, standing.config
            ));
        }
        if standing.wipes > 0 {
            return Err(format!("{} received a shard whose end did not match its rows", turn.seen.name));
        }
        Ok(())
    }
}
