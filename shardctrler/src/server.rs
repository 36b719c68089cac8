//! The controller's door: one port, on which clients and the other controllers arrive.
//!
//! What a connection is for stands in its Hello. Clients get the service, peers get the transport;
//! whoever means another cluster or group is refused in words before anything is read of him.
//!
//! Left out on purpose: everything that decides anything. See [`crate::service`].

use std::convert::Infallible;
use std::sync::Arc;

use base::socket::{Arrival, Here, Listener, Refusal, Service as Purpose};
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
    if arrival.hello().service == Purpose::Push {
        return arrival.refuse(&Refusal::NoShards).await;
    }
    let Some(stream) = arrival.admit(&here).await else { return };
    let handle = move |request| {
        let service = Arc::clone(&service);
        async move { service.handle(request).await }
    };
    rpc::serve_ctrl(stream, handle).await;
}
