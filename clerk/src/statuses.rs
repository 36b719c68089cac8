//! What servers report of themselves: any server answers at once, from its own rows.
//!

use std::time::Duration;

use crate::api::ctrl::{CtrlReply, CtrlRequest};
use crate::api::kv::{KvReply, KvRequest};
use crate::api::server::{ServerReply, ServerRequest};
use crate::api::status::{CtrlStatus, KvStatus};
use crate::api::{Address, GroupId};
use crate::connection::{CallError, Connection};

/// The status of a server of `group`.
///
/// # Errors
/// [`CallError`], also if what answers has no status to tell.
pub async fn of_replica(
    connection: &dyn Connection,
    group: GroupId,
    address: &Address,
    limit: Duration,
) -> Result<KvStatus, CallError> {
    match connection.kv(address, group, KvRequest::Status, limit).await? {
        Ok(KvReply::Status(status)) => Ok(*status),
        Ok(_) => Err(odd(address, "an answer to another question".to_owned())),
        Err(refusal) => Err(odd(address, refusal.to_string())),
    }
}

/// The status of a controller.
///
/// # Errors
/// As [`of_replica`].
pub async fn of_controller(
    connection: &dyn Connection,
    address: &Address,
    limit: Duration,
) -> Result<CtrlStatus, CallError> {
    match connection.ctrl(address, CtrlRequest::Status, limit).await? {
        Ok(CtrlReply::Status(status)) => Ok(*status),
        Ok(_) => Err(odd(address, "an answer to another question".to_owned())),
        Err(refusal) => Err(odd(address, refusal.to_string())),
    }
}

/// What a server answers about itself; group 0: a controller.
///
/// # Errors
/// As [`of_replica`].
pub async fn ask_server(
    connection: &dyn Connection,
    group: GroupId,
    address: &Address,
    request: ServerRequest,
    limit: Duration,
) -> Result<ServerReply, CallError> {
    let foreign = || odd(address, "an answer to another question".to_owned());
    if group == GroupId::CONTROLLERS {
        return match connection.ctrl(address, CtrlRequest::Server(request), limit).await? {
            Ok(CtrlReply::Server(reply)) => Ok(reply),
            Ok(_) => Err(foreign()),
            Err(refusal) => Err(odd(address, refusal.to_string())),
        };
    }
    match connection.kv(address, group, KvRequest::Server(request), limit).await? {
        Ok(KvReply::Server(reply)) => Ok(reply),
        Ok(_) => Err(foreign()),
        Err(refusal) => Err(odd(address, refusal.to_string())),
    }
}

fn odd(address: &Address, why: String) -> CallError {
    CallError::Lost { address: address.clone(), why }
}
