//! What any server answers about itself, whatever it serves.

use base::process;
use clerk::api::server::{ServerReply, ServerRequest};

use crate::measures::Measures;

/// The answer of the server with these measures.
pub fn about(measures: &Measures, request: ServerRequest) -> ServerReply {
    match request {
        ServerRequest::Slow => ServerReply::Slow(measures.slow()),
        ServerRequest::LogLevel(None) => ServerReply::LogLevel(process::log_level().unwrap_or_default()),
        ServerRequest::LogLevel(Some(text)) => match process::set_log_level(&text) {
            Ok(_) => ServerReply::LogLevel(text),
            Err(why) => ServerReply::Refused(why.to_string()),
        },
    }
}
