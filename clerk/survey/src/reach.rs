//! How the servers of a cluster are reached, and what they are called.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::clock::{self, Instant};
use clerk::api::{Address, GroupId};
use clerk::connection::Connection;
use clerk::ctrl::CtrlClerk;
use clerk::group::GroupClient;

/// A server's name: `ctrl.1`, `101.2`.
pub fn name(group: u64, id: u64) -> String {
    match group {
        0 => format!("ctrl.{id}"),
        group => format!("{group}.{id}"),
    }
}

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Reach {
    /// Its name.
    pub cluster: String,
    /// Carries the requests.
    pub connection: Arc<dyn Connection>,
    /// Where its controllers are.
    pub controllers: Vec<Address>,
    /// Groups whose place is known without the controllers.
    pub known: BTreeMap<GroupId, Vec<Address>>,
    /// Ids of servers that are known without asking them, by group (0: the controllers) and address.
    pub ids: BTreeMap<(u64, Address), u64>,
}

impl Reach {
    /// A client of the controllers whose next request ends at `until`.
    pub fn ctrl(&self, until: Instant) -> CtrlClerk {
        let ctrl = CtrlClerk::new(Arc::clone(&self.connection), self.controllers.clone(), rand::random());
        ctrl.with_deadline(until.since(clock::now()))
    }

    /// A client of a group.
    pub fn group(&self, group: GroupId, addresses: Vec<Address>) -> GroupClient {
        GroupClient::new(Arc::clone(&self.connection), group, addresses, rand::random())
    }

    /// The name of a server: as it is known here, or else by its id, or else by its place.
    pub fn name_of(&self, group: u64, address: &Address, id: Option<u64>, place: usize) -> String {
        let known = self.ids.get(&(group, address.clone())).copied();
        name(group, known.or(id).unwrap_or(place as u64 + 1))
    }
}
