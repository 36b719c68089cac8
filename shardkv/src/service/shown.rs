//! What a replica shows of itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use clerk::api::status::KvStatus;
use futures::FutureExt;
use futures::future::BoxFuture;
use host::{Measures, Moves, Observed, Shown};
use raft::rsm::Measured;
use raft::storage::Table;

use super::Service;
use crate::status;

impl Service {
    pub(super) async fn status(&self) -> KvStatus {
        let replica = host::replica_status(&self.facts, &self.replica.status(), &self.measures);
        let (group, progress, known) = (self.group, self.progress.clone(), self.knowledge.borrow().clone());
        let loads = self.loads.clone();
        let read = move |table: &dyn Table| status::of(group, replica, table, &progress, &loads, &known);
        let status = self.replica.read(read).await;
        let members = self.members.iter().map(|(id, address)| (id.0, address.clone())).collect();
        let sessions = self.standing.borrow().sessions.read();
        KvStatus { members, wipes: self.wipes(), sessions, ..status }
    }
}

impl Observed for Service {
    fn shown(&self) -> BoxFuture<'_, Shown> {
        async { Shown::Group(Box::new(self.status().await)) }.boxed()
    }

    fn measures(&self) -> &Measures {
        &self.measures
    }

    fn replica_measured(&self) -> Measured {
        self.replica.measured()
    }

    fn moves(&self) -> Option<Moves> {
        let (adopted, dirty_rows) = {
            let standing = self.standing.borrow();
            (standing.config, standing.changes.rows() as u64)
        };
        let newest = self.knowledge.borrow().newest.as_ref().map(|newest| newest.num);
        Some(Moves {
            newest: newest.max(adopted).unwrap_or_default(),
            rows_out: self.progress.rows_sent(),
            rows_in: self.rows_taken.load(Ordering::Relaxed),
            stalled: self.progress.stalled(),
            dirty_rows,
        })
    }

    fn since_last_tick(&self) -> Duration {
        self.replica.since_last_tick()
    }
}
