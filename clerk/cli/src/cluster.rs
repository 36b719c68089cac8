//! Clusters on this machine: server processes started, stopped and watched.
//!
//! The next command finishes an interrupted one: half a purge ([`Directory`]), half a start
//! (`health`), and the join of a new cluster's groups, which is made once and never again.
//!
//! Left out on purpose: restarting servers that die (that is what the replicas are for), and
//! machines other than this one.

mod health;
mod stop;

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use base::clock;
use clerk::api::config::NewGroup;
use clerk::api::ctrl::Change;
use clerk::api::{ConfigNum, GroupId};
use serde_json::{Value, json};

pub(crate) use self::stop::{down, kill};

use crate::args::{self, Name};
use crate::context::{Context, Reach};
use crate::failure::{Failure, on_interrupt};
use crate::local::{Cluster, Directory, process, token};
use crate::settle::{settle, shown};
use crate::status;

/// What is up is shown at the end, however long it took.
const SHOW: Duration = Duration::from_secs(1);

pub(crate) async fn up(context: &Context, up: &args::Up) -> Result<(), Failure> {
    let reach = bring_up(context, up).await?;
    let until = context.settle_until().max(clock::now().after(SHOW));
    status::print_started(&reach, context.output, until, &token::path(&context.directory)).await;
    Ok(())
}

/// Starts a cluster, or those of its servers that are down, and waits until it is healthy.
pub(crate) async fn bring_up(context: &Context, up: &args::Up) -> Result<Reach, Failure> {
    let directory = Directory::new(&context.directory);
    let until = context.settle_until();
    let _lock = directory.lock(until).await?;
    let mut cluster = if directory.exists() {
        let cluster = directory.load()?;
        cluster.check(up)?;
        cluster
    } else {
        directory.refuse_orphans()?;
        Cluster::plan(up)?
    };
    directory.save(&cluster)?;
    on_interrupt("interrupted: servers that were started go on running", "clerk down stops them");
    let names = cluster.names();
    health::start(context, &directory, &mut cluster, &names, until).await?;
    let reach = Reach::local(cluster.clone());
    health::wait_for_leaders(context, &reach, until).await?;
    if !cluster.joined {
        let joined = join_first_groups(&reach, &cluster, until).await?;
        // Before any waiting: a group that an administrator removes must not be joined again by a
        // later `up`.
        cluster.joined = true;
        directory.save(&cluster)?;
        let settled = settle(&reach, joined, &BTreeSet::new(), until, context.output).await;
        settled.map_err(|pending| {
            Failure::not_settled(format!("the groups run, but are not settled: {}", shown(&pending)))
                .next("`clerk status` shows their progress")
        })?;
    }
    if cluster.learn_key(reach.key.get()) {
        directory.save(&cluster)?;
    }
    Ok(reach)
}

/// A new cluster's groups join, all in one configuration, which is the first. If a first one exists
/// already, an interrupted `up` made it. Returns the newest configuration.
async fn join_first_groups(
    reach: &Reach,
    cluster: &Cluster,
    until: clock::Instant,
) -> Result<ConfigNum, Failure> {
    let (config, _) = reach.ctrl(until).query(None).await?;
    if config.num > ConfigNum(0) {
        return Ok(config.num);
    }
    let mut groups = std::collections::BTreeMap::new();
    for (group, addresses) in cluster.first_groups() {
        let data = reach.group(group, addresses.clone()).data(until).await;
        let (incarnation, key) = data.map_err(|why| Failure::new("unavailable", why))?;
        reach.key.learn(key);
        groups.insert(group, NewGroup { key, incarnation, addresses });
    }
    Ok(reach.ctrl(until).change(Change::Join(groups)).await?.config)
}

pub(crate) async fn add_group(context: &Context, add: &args::AddGroup) -> Result<(), Failure> {
    let (reach, names) = start_group(context, add.group, add.replicas).await?;
    let GroupId(group) = add.group;
    let address = |name: &String| {
        reach.local.as_ref().and_then(|cluster| cluster.servers.get(name)).map(|server| &server.address)
    };
    let servers: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "address": address(name)})).collect();
    context.output.answer(&json!({"gid": group, "servers": servers}), || {
        format!(
            "group {group} runs: {}\nnext: clerk join {group} (it serves only what it is given)\n",
            names.join(" ")
        )
    });
    Ok(())
}

/// Starts the servers of another group and waits for its leader; their names.
pub(crate) async fn start_group(
    context: &Context,
    added: GroupId,
    replicas: Option<u64>,
) -> Result<(Reach, Vec<String>), Failure> {
    let directory = Directory::new(&context.directory);
    let until = context.settle_until();
    let _lock = directory.lock(until).await?;
    let mut cluster = directory.load()?;
    let GroupId(group) = added;
    let replicas = replicas.unwrap_or(cluster.replicas);
    match cluster.addresses(group).len() as u64 {
        0 => cluster.add_group(group, replicas)?,
        // Started before, perhaps not completely: continue with it.
        count if count == replicas => {}
        count => {
            return Err(Failure::usage(format!("group {group} has {count} servers already")));
        }
    }
    directory.save(&cluster)?;
    on_interrupt("interrupted: servers that were started go on running", "clerk down stops them");
    let names = cluster.select(&[Name::Group(group)])?;
    health::start(context, &directory, &mut cluster, &names, until).await?;
    let reach = Reach::local(cluster.clone());
    health::wait_for_leader(context, &reach, added, until).await?;
    Ok((reach, names))
}

/// Replaces the controllers by new ones that make no cluster and wait to be recovered. The remains
/// of the old ones are stopped, and their directories are renamed; returns the new paths. Harmless
/// if that was done already.
pub(crate) async fn controllers_anew(
    context: &Context,
    directory: &Directory,
    until: clock::Instant,
) -> Result<Vec<String>, Failure> {
    let _lock = directory.lock(until).await?;
    let mut cluster = directory.load()?;
    let names = cluster.select(&[Name::Group(GroupId::CONTROLLERS.0)])?;
    let mut aside = Vec::new();
    if !cluster.recovering {
        stop::stop(context, directory, &names, until).await?;
        for name in &names {
            aside.extend(directory.set_aside(name)?.map(|path| path.display().to_string()));
        }
        // Only now: controllers that still have the old directories must not be taken for the new ones.
        for name in &names {
            if let Some(server) = cluster.servers.get_mut(name) {
                server.made = false;
            }
        }
        cluster.recovering = true;
        directory.save(&cluster)?;
    }
    health::start(context, directory, &mut cluster, &names, until).await?;
    let reach = Reach::local(cluster);
    health::wait_for_leader(context, &reach, GroupId::CONTROLLERS, until).await?;
    Ok(aside)
}

/// The controllers of this machine whose data directories are of the cluster with this key.
pub(crate) fn controllers_with_data(context: &Context, key: u64) -> Result<Vec<String>, Failure> {
    let directory = Directory::new(&context.directory);
    let mut names = directory.load()?.select(&[Name::Group(GroupId::CONTROLLERS.0)])?;
    names.retain(|name| process::key_of(&directory.of(name)) == Some(key));
    Ok(names)
}

/// The controllers know the groups' history: from now on they start like any others.
pub(crate) async fn recovered(context: &Context) -> Result<(), Failure> {
    let directory = Directory::new(&context.directory);
    let _lock = directory.lock(context.settle_until()).await?;
    let mut cluster = directory.load()?;
    cluster.recovering = false;
    directory.save(&cluster)
}

pub(crate) async fn start(context: &Context, names: &args::Names) -> Result<(), Failure> {
    let directory = Directory::new(&context.directory);
    let until = context.settle_until();
    let _lock = directory.lock(until).await?;
    let mut cluster = directory.load()?;
    let selected = cluster.select(&names.names)?;
    let started = health::start(context, &directory, &mut cluster, &selected, until).await?;
    context.output.answer(&json!({"started": started}), || {
        if started.is_empty() {
            "running already\n".to_owned()
        } else {
            format!("started {}\n", started.join(" "))
        }
    });
    Ok(())
}

pub(crate) fn logs(context: &Context, logs: &args::Logs) -> Result<(), Failure> {
    let directory = Directory::new(&context.directory);
    let cluster = directory.load()?;
    let selected = cluster.select(&logs.names.names)?;
    let ends: Vec<(String, Vec<String>)> = selected
        .iter()
        .map(|name| (name.clone(), last_lines(&directory.of(name).join("log"), logs.lines)))
        .collect();
    let documents: Vec<Value> =
        ends.iter().map(|(name, lines)| json!({"name": name, "lines": lines})).collect();
    context.output.answer(&json!({"logs": documents}), || {
        let mut text = String::new();
        for (name, lines) in &ends {
            if ends.len() > 1 {
                text += &format!("==> {name} <==\n");
            }
            text.extend(lines.iter().flat_map(|line| [line.as_str(), "\n"]));
        }
        text
    });
    Ok(())
}

/// The last lines of a file; none if it cannot be read.
fn last_lines(path: &Path, count: usize) -> Vec<String> {
    /// More than this is not read of the end of a file.
    const BYTES_MAX: u64 = 4 << 20;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_end_of_a_file_is_its_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(last_lines(&path, 3).is_empty());
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(last_lines(&path, 2), ["two", "three"]);
        assert_eq!(last_lines(&path, 9), ["one", "two", "three"]);
    }
}
