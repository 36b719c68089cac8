//! What a join needs to know of the groups: where their servers are, and what data they have.

use std::collections::BTreeMap;
use std::str::FromStr;

use base::clock::Instant;
use clerk::api::config::NewGroup;
use clerk::api::status::KvStatus;
use clerk::api::{Address, GroupId, Incarnation};
use clerk::ctrl::CtrlClerk;

use crate::reach::Reach;
use crate::refused::Refused;
use crate::survey::Answers;

/// A group that joins, with its servers if they were named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Its id.
    pub group: GroupId,
    /// Its servers.
    pub addresses: Option<Vec<Address>>,
}

impl FromStr for Joining {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, addresses) = match text.split_once('=') {
            None => (text, None),
            Some((id, addresses)) => (id, Some(addresses.split(',').map(str::to_owned).collect::<Vec<_>>())),
        };
        let has_port = |address: &String| {
            address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if let Some(wrong) = addresses.iter().flatten().find(|address| !has_port(address)) {
            return Err(format!("`{wrong}` is not of the form HOST:PORT"));
        }
        Ok(Self { group: group(id)?, addresses })
    }
}

/// A group's id, as people write it.
///
/// # Errors
/// In words.
pub fn group(text: &str) -> Result<GroupId, String> {
    let id = text.parse::<u64>().ok().filter(|id| *id > 0);
    id.map(GroupId).ok_or_else(|| format!("`{text}`: a group's id is a number from 1"))
}

/// The addresses of the joining groups, and their data. `partial`: lists need not name all servers.
///
/// # Errors
/// A group that does not answer, is not known, or has other servers.
pub async fn newcomers(
    reach: &Reach,
    joining: &[Joining],
    partial: bool,
    until: Instant,
) -> Result<BTreeMap<GroupId, NewGroup>, Refused> {
    let mut groups = BTreeMap::new();
    for Joining { group, addresses } in joining {
        let is_named = addresses.is_some();
        let addresses = match addresses.clone().or_else(|| reach.known.get(group).cloned()) {
            Some(addresses) => addresses,
            None => known_addresses(&reach.ctrl(until), *group).await?,
        };
        let client = reach.group(*group, addresses.clone());
        let (incarnation, key) = client.data(until).await.map_err(|why| {
            Refused::new("unavailable", format!("group {group} does not answer: {why}"))
                .next("a group joins when its servers run and know its cluster: check them, and their --controllers")
        })?;
        if is_named && !partial {
            let answers = client.statuses().await;
            check_servers(*group, incarnation, &answers).map_err(|why| {
                Refused::new("wrong_servers", format!("the list does not name exactly the servers of group {group}: {why}"))
                    .next("name every server of the group, all of them running; or add --partial to use the list anyway")
            })?;
        }
        groups.insert(*group, NewGroup { key, incarnation, addresses });
    }
    Ok(groups)
}

/// Checks that a list names all servers of the group and no others, as far as they report. An
/// incomplete list would work until the servers in it are down.
pub fn check_servers(
    group: GroupId,
    incarnation: Incarnation,
    answers: &Answers<KvStatus>,
) -> Result<(), String> {
    let mut missing: BTreeMap<u64, &Address> = BTreeMap::new();
    let mut seen: BTreeMap<u64, &Address> = BTreeMap::new();
    for (address, answer) in answers {
        let status =
            answer.as_ref().map_err(|why| format!("no server of group {group} answers there: {why}"))?;
        if status.incarnation != Some(incarnation) {
            return Err(format!("{address} has the data of another group {group}"));
        }
        if let Some(other) = seen.insert(status.replica.id, address) {
            return Err(format!("{other} and {address} are one server"));
        }
        missing.extend(status.members.iter().map(|(id, address)| (*id, address)));
    }
    missing.retain(|id, _| !seen.contains_key(id));
    let shown: Vec<String> =
        missing.iter().map(|(id, address)| format!("{group}.{id} at {address}")).collect();
    if shown.is_empty() { Ok(()) } else { Err(format!("missing: {}", shown.join(", "))) }
}

/// The address book knows every group that ever joined.
async fn known_addresses(ctrl: &CtrlClerk, group: GroupId) -> Result<Vec<Address>, Refused> {
    let (_, mut book) = ctrl.query(None).await?;
    book.groups.remove(&group).map(|group| group.addresses).ok_or_else(|| {
        Refused::new("unknown_group", format!("the servers of group {group} are not known")).next(format!(
            "name its servers: clerk join {group}=HOST:PORT,...  (or start it: clerk add-group)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use clerk::api::{Address, GroupId, Incarnation};

    use super::check_servers;
    use crate::sample::answers;

    #[test]
    fn a_list_of_servers_has_to_name_each_member_once_and_nobody_else() {
        let members = [(1, "a:1"), (2, "b:1"), (3, "c:1")].map(|(id, at)| (id, at.to_owned()));
        let answer = |address: &str, id: u64, data: u64| {
            let mut status = answers(103, 1, &[]).remove(0).1.unwrap();
            status.replica.id = id;
            status.incarnation = Some(Incarnation(data));
            status.members = members.clone().into();
            (address.to_owned(), Ok(status))
        };
        let check = |answers: Vec<(Address, _)>| check_servers(GroupId(103), Incarnation(7), &answers);
        let all = || vec![answer("a:1", 1, 7), answer("b:1", 2, 7), answer("c:1", 3, 7)];
        assert_eq!(check(all()), Ok(()));
        assert!(check(all()[1..].to_vec()).unwrap_err().contains("missing: 103.1 at a:1"));
        let with = |other| [all(), vec![other]].concat();
        assert!(check(with(answer("d:1", 3, 8))).unwrap_err().contains("d:1 has the data of another group"));
        assert!(check(with(answer("d:1", 3, 7))).unwrap_err().contains("c:1 and d:1 are one server"));
        assert!(
            check(with(("d:1".to_owned(), Err("d:1: gone".to_owned())))).unwrap_err().contains("d:1: gone")
        );
    }
}
