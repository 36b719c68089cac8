//! The controller's port, on which clients and the other controllers arrive.
//!
//! A connection's Hello says what it is for. Clients get the service, peers get the transport. A
//! caller that names another cluster or group is refused, with the reason, before anything else is
//! read.
//!
//! Left out on purpose: all decisions. See [`crate::service`].

use std::convert::Infallible;
use std::sync::Arc;

use base::socket::{Arrival, Here, Listener, Purpose, Refusal};
use clerk::api::rpc;
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
    let handle = move |arrival| on_arrival(arrival, Arc::clone(&here), Arc::clone(&service));
    host::accept(listener, transport, handle).await
}

async fn on_arrival(arrival: Arrival, here: Arc<Here>, service: Arc<Service>) {
    if arrival.hello().purpose == Purpose::Push {
        return arrival.refuse(&Refusal::NoShards).await;
    }
    let Some(stream) = arrival.admit(&here).await else { return };
    let handle = move |request| {
        let service = Arc::clone(&service);
        async move { service.handle(request).await }
    };
    rpc::serve_ctrl(stream, handle).await;
}
