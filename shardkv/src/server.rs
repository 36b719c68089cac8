//! The sockets of a replica: connections to its one port go to the service or to its peers' inbox.
//!
//! Left out on purpose: the meaning of requests (`service`), and everything about starting a
//! process (`main`).

use std::convert::Infallible;
use std::sync::Arc;

use base::socket::{Arrival, Here, Known, Listener, Purpose, admit};
use clerk::api::push::Sender;
use clerk::api::{GroupId, Incarnation, rpc};
use raft::transport::tcp::TcpTransport;

use crate::service::Service;

/// Serves every connection of `listener`. Never ends on its own; dropping it closes them all.
pub async fn serve(
    listener: Listener,
    here: Here,
    transport: Arc<TcpTransport>,
    service: Arc<Service>,
) -> Infallible {
    let here = Arc::new(here);
    let handle = move |arrival: Arrival| {
        let (here, service) = (Arc::clone(&here), Arc::clone(&service));
        async move {
            match arrival.hello().purpose {
                Purpose::Push => serve_push(arrival, &here, service).await,
                _ => serve_client(arrival, &here, service).await,
            }
        }
    };
    host::accept(listener, transport, handle).await
}

/// Serves a group that hands shards over, if it is the one that the cluster knows (correctness rule 58).
async fn serve_push(arrival: Arrival, here: &Here, service: Arc<Service>) {
    let hello = arrival.hello();
    let sender = Sender { group: GroupId(hello.from_group), incarnation: Incarnation(hello.incarnation) };
    let incarnation = service.registered(sender.group).map(|incarnation| incarnation.0);
    if let Err(refusal) = admit(hello, here, &Known { incarnation, ..Known::default() }) {
        return arrival.refuse(&refusal).await;
    }
    let Some(stream) = arrival.admit(here).await else { return };
    let group = service.group();
    let handle = move |request| {
        let service = Arc::clone(&service);
        async move { service.handle_push(group, sender, request).await }
    };
    rpc::serve_push(stream, group, handle).await;
}

async fn serve_client(arrival: Arrival, here: &Here, service: Arc<Service>) {
    let Some(stream) = arrival.admit(here).await else { return };
    let (group, room) = (service.group(), stream.room());
    let handle = move |request| {
        let (service, room) = (Arc::clone(&service), room.clone());
        async move { service.handle_on(&room, group, request).await }
    };
    rpc::serve_kv(stream, group, handle).await;
}
