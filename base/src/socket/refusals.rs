//! Counts a server's refusals by reason, and remembers which servers refuse it: its status shows
//! both.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{self, Instant};

/// A refusal that was not repeated for this long is over: a refused caller retries within seconds.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The kinds of refusals that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// [`super::Refusal::OtherCluster`].
    OtherCluster,
    /// [`super::Refusal::OtherKey`].
    OtherKey,
    /// [`super::Refusal::OtherGroup`].
    OtherGroup,
    /// [`super::Refusal::OtherReceiver`].
    OtherReceiver,
    /// [`super::Refusal::NotAMember`].
    NotAMember,
    /// [`super::Refusal::OtherFounders`].
    OtherFounders,
    /// [`super::Refusal::OtherIncarnation`].
    OtherIncarnation,
    /// [`super::Refusal::Twin`].
    Twin,
    /// Another wire version: the Hello could not be read.
    OtherVersion,
    /// [`super::Refusal::NoShards`].
    NoShards,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OtherCluster,
        Self::OtherKey,
        Self::OtherGroup,
        Self::OtherReceiver,
        Self::NotAMember,
        Self::OtherFounders,
        Self::OtherIncarnation,
        Self::Twin,
        Self::OtherVersion,
        Self::NoShards,
    ];

    /// Its name in a status.
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherCluster => "other_cluster",
            Self::OtherKey => "other_key",
            Self::OtherGroup => "other_group",
            Self::OtherReceiver => "other_receiver",
            Self::NotAMember => "not_a_member",
            Self::OtherFounders => "other_founders",
            Self::OtherIncarnation => "other_incarnation",
            Self::Twin => "twin",
            Self::OtherVersion => "other_version",
            Self::NoShards => "no_shards",
        }
    }
}

/// What a server refused, and who refuses it, since its start.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [AtomicU64; Reason::ALL.len()],
    refused_by: Mutex<BTreeMap<String, (String, Instant)>>,
}

impl Refusals {
    /// Counts a refusal.
    pub fn count(&self, reason: Reason) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    pub fn of(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        Reason::ALL.into_iter().map(|reason| self.of(reason)).sum()
    }

    /// Every reason that occurred, and how often.
    pub fn counted(&self) -> BTreeMap<String, u64> {
        let counted = Reason::ALL.into_iter().map(|reason| (reason.name().to_owned(), self.of(reason)));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// Records that the server at `address` does not let this one in, or is not what it should be,
    /// and logs it; none: it lets this one in again.
    pub fn set_refused_by(&self, address: &str, why: Option<String>) {
        /// More are not shown: nobody would read them.
        const ADDRESSES_MAX: usize = 32;
        let mut refused_by = self.refused_by.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            None => drop(refused_by.remove(address)),
            Some(why) => {
                refused_by.retain(|_, (_, at)| at.elapsed() < FORGOTTEN_AFTER);
                if refused_by.get(address).is_none_or(|(before, _)| *before != why) {
                    tracing::warn!(address, why, "refused");
                }
                if refused_by.contains_key(address) || refused_by.len() < ADDRESSES_MAX {
                    refused_by.insert(address.to_owned(), (why, clock::now()));
                }
            }
        }
    }

    /// The servers with which this one has no connection because one of both refuses the other, by
    /// address, with the reason.
    pub fn refused_by(&self) -> BTreeMap<String, String> {
        let refused_by = self.refused_by.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = refused_by.iter().filter(|(_, (_, at))| at.elapsed() < FORGOTTEN_AFTER);
        fresh.map(|(address, (why, _))| (address.clone(), why.clone())).collect()
    }
}
