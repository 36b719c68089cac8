//! What any server answers about itself, whatever it serves.

use clerk::api::server::{ServerReply, ServerRequest};

use crate::measures::Measures;

/// The answer of the server with these measures.
pub fn about(measures: &Measures, request: ServerRequest) -> ServerReply {
    match request {
        ServerRequest::Slow => ServerReply::Slow(measures.slow()),
    }
}
