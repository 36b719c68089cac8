//! The servers of a survey, one after the other, whatever they serve.

use clerk::api::status::ReplicaStatus;
use clerk::api::{Address, GroupId};

use crate::reach::Reach;
use crate::survey::Survey;

/// A server.
pub struct Server<'a> {
    /// Its group; 0: a controller.
    pub group: GroupId,
    /// Where it is.
    pub address: &'a Address,
    /// What it is called.
    pub name: String,
    /// What it says of itself, if it answers.
    pub status: Option<&'a ReplicaStatus>,
}

/// All of them: first the controllers, then group by group.
pub fn servers<'a>(reach: &Reach, survey: &'a Survey) -> Vec<Server<'a>> {
    let controllers = survey.controllers.iter().enumerate().map(|(place, (address, status))| {
        let status = status.as_ref().ok().map(|status| &status.replica);
        (GroupId::CONTROLLERS, place, address, status)
    });
    let of_groups = survey.groups.iter().flat_map(|(group, answers)| {
        answers.iter().enumerate().map(|(place, (address, status))| {
            let status = status.as_ref().ok().map(|status| &status.replica);
            (*group, place, address, status)
        })
    });
    let one = |(group, place, address, status): (GroupId, usize, &'a Address, Option<&'a ReplicaStatus>)| {
        let name = reach.name_of(group.0, address, status.map(|status| status.id), place);
        Server { group, address, name, status }
    };
    controllers.chain(of_groups).map(one).collect()
}
