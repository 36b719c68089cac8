//! How both servers use their port, and for how long.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use base::process;
use base::socket::{Arrival, Listener, Purpose};
use raft::transport::tcp::TcpTransport;
use tracing::Instrument;

use crate::error::HostError;

/// Takes connections from `listener`: peers go to `transport`, all others to `handle`. Never ends
/// on its own; dropping it closes every connection.
pub async fn accept<F, Fut>(listener: Listener, transport: Arc<TcpTransport>, handle: F) -> Infallible
where
    F: Fn(Arrival) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let span = tracing::Span::current();
    let serve = move |arrival: Arrival| {
        let (transport, handle) = (Arc::clone(&transport), handle.clone());
        let connection = async move {
            match arrival.hello().purpose {
                Purpose::PeerControl | Purpose::PeerBulk => transport.serve_peer(arrival).await,
                Purpose::Client | Purpose::Push => handle(arrival).await,
            }
        };
        connection.instrument(span.clone())
    };
    listener.run(serve).await
}

/// Serves at `listen` until a signal asks this process to stop, and then stops the replica.
///
/// # Errors
/// When signals cannot be waited for.
pub async fn until_signal(
    listen: SocketAddr,
    serving: impl Future<Output = Infallible>,
    stop: impl Future<Output = ()>,
) -> Result<(), HostError> {
    tracing::info!(%listen, "serving");
    let signal = tokio::select! {
        biased;
        signal = process::shutdown_signal() => signal?,
        never = serving => match never {},
    };
    tracing::info!(signal, "stopping");
    stop.await;
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use base::socket::Limits;
    use raft::config::Config;

    /// Rule 132.
    #[test]
    fn the_requests_of_one_connection_leave_the_others_a_part_of_the_logs_window() {
        let (limits, config) = (Limits::default(), Config::default());
        let window = config.uncommitted_bytes_max.min(config.unapplied_bytes_max);
        assert!(
            limits.server_bytes_max / 2 <= window / 4 * 3,
            "half of the requests may be of one connection"
        );
    }
}
