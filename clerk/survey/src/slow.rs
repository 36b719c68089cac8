//! The slow requests of all servers: where time went when something took long.
//!
//! Each server remembers its own, a bounded number. A server is asked only if it has had one since it was
//! asked last; its status says so. What a server said stays here while it is silent.

use std::collections::BTreeMap;
use std::time::Duration;

use clerk::api::server::{SLOW_REQUESTS_MAX, ServerReply, ServerRequest, SlowRequest};
use clerk::api::status::ReplicaStatus;
use clerk::statuses::ask_server;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::reach::Reach;
use crate::servers::{Server, servers};
use crate::survey::Survey;

/// What a server said: of which process, how many there had been, and those that it remembered.
#[derive(Default)]
struct Said {
    pid: u32,
    count: u64,
    requests: Vec<SlowRequest>,
}

/// What all servers said.
#[derive(Default)]
pub struct Slow(BTreeMap<String, Said>);

impl Slow {
    /// Asks the servers of a survey that have something new. Returns whether anything changed.
    pub async fn learn(&mut self, reach: &Reach, survey: &Survey, limit: Duration) -> bool {
        let all = servers(reach, survey);
        let known = self.0.len();
        self.0.retain(|name, _| all.iter().any(|server| server.name == *name));
        let mut changed = self.0.len() < known;
        let news = all
            .iter()
            .filter_map(|server| Some((server, server.status.filter(|it| self.is_new(server, it))?)));
        let asked = news.map(|(server, status)| async move {
            let reply = match status.slow_requests {
                // It was started anew.
                0 => Ok(ServerReply::Slow(Vec::new())),
                _ => {
                    let connection = &*reach.connection;
                    ask_server(connection, server.group, server.address, ServerRequest::Slow, limit).await
                }
            };
            (server, status, reply)
        });
        for (server, status, reply) in join_all(asked).await {
            // One that does not answer now is asked again the next time.
            let Ok(ServerReply::Slow(requests)) = reply else { continue };
            let said = Said { pid: status.pid, count: status.slow_requests, requests };
            self.0.insert(server.name.clone(), said);
            changed = true;
        }
        changed
    }

    fn is_new(&self, server: &Server<'_>, status: &ReplicaStatus) -> bool {
        match self.0.get(&server.name) {
            Some(said) => (said.pid, said.count) != (status.pid, status.slow_requests),
            None => status.slow_requests > 0,
        }
    }

    /// All of them with their servers' names, the newest first, as many as one server remembers.
    pub fn newest(&self) -> Vec<(&str, &SlowRequest)> {
        let all =
            self.0.iter().flat_map(|(name, said)| said.requests.iter().map(move |it| (name.as_str(), it)));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(_, request)| std::cmp::Reverse(request.at));
        all.truncate(SLOW_REQUESTS_MAX);
        all
    }

    /// The same for programs.
    pub fn document(&self) -> Value {
        let all = self.newest().into_iter().map(|(name, request)| json!(request.shown(name)));
        json!({"slow": all.collect::<Vec<_>>()})
    }
}
