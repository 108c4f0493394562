//! What the agent remembers of a pod between two looks at it. All of it may be lost: a restart of the agent loses it.

use super::allocation::{Change, Grant, Pending, change};
use super::observed::{Container, Observed};
use super::plan::restarts;
use crate::probe::Health;
use jiff::{SignedDuration, Timestamp};
use slipway_api::core::{self, PodSpec};
use slipway_api::pod::is_sidecar;
use std::collections::{BTreeMap, BTreeSet};

const BACK_OFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
const BACK_OFF_MAX: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long after its restart starts over with the first back-off.
const BACK_OFF_RESET: SignedDuration = SignedDuration::from_secs(600);
/// A failed pull is shown as such for this long, then as a back-off.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);

/// The next delay after one that failed again.
pub fn next_delay(before: Option<SignedDuration>) -> SignedDuration {
    before.map_or(BACK_OFF_FIRST, |before| (before * 2).min(BACK_OFF_MAX))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackOff {
    pub delay: SignedDuration,
    pub since: Timestamp,
}

/// A container that could not be started, or a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    pub is_pull: bool,
    pub at: Timestamp,
    pub retry_at: Timestamp,
    pub delay: SignedDuration,
}

impl Failure {
    /// When a pull that failed is to be shown as backing off, if not yet.
    pub fn turns_into_back_off_at(&self, now: Timestamp) -> Option<Timestamp> {
        let at = self.at.saturating_add(PULL_ERROR_SHOWN).ok()?;
        (self.is_pull && at > now).then_some(at)
    }
}

/// Why a pod that nobody deleted is being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub reason: String,
    pub message: String,
    pub grace_seconds: i64,
}

/// How far a resize is.
#[derive(Debug, Clone, Default)]
pub struct Resize {
    /// Why what is wanted is not granted.
    pub pending: Option<Pending>,
    /// Why what is granted could not be put in force, and when that is tried again.
    pub failure: Option<(String, Timestamp)>,
    /// It is being put in force at this moment.
    pub is_running: bool,
    /// Containers that were killed to be started with other resources, by id: they start again whatever the pod's policy is.
    pub restarting: BTreeSet<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub back_offs: BTreeMap<String, BackOff>,
    /// By container name.
    pub failures: BTreeMap<String, Failure>,
    pub sandbox_failure: Option<Failure>,
    /// Containers that are being made at this moment.
    pub starting: BTreeSet<String>,
    /// What the node has granted, and what of it the runtime has been told.
    pub granted: Grant,
    pub in_force: Grant,
    pub resize: Resize,
    pub probes: Health,
    pub ending: Option<Ending>,
}

impl Memory {
    /// Until when a container that ended at `ended` isn't started again.
    pub fn back_off(&self, name: &str, ended: Timestamp) -> Option<Timestamp> {
        let back_off = self.back_offs.get(name)?;
        if expired(back_off, ended) {
            return None;
        }
        ended.saturating_add(back_off.delay).ok()
    }

    /// Notes that the container is started again after it ended.
    pub fn restarted(&mut self, name: &str, ended: Timestamp, now: Timestamp) {
        let before = self.back_offs.get(name).filter(|before| !expired(before, ended)).map(|before| before.delay);
        self.back_offs.insert(name.to_owned(), BackOff { delay: next_delay(before), since: now });
    }

    /// What becomes of a container that runs, so that it has what it was granted.
    pub fn change(&self, container: &core::Container) -> Change {
        let (granted, in_force) = (&self.granted.containers, &self.in_force.containers);
        if self.starting.contains(&container.name) {
            // It may run already, and what it has been started with is noted once that is done.
            return Change::Nothing;
        }
        match (granted.get(&container.name), in_force.get(&container.name)) {
            (Some(granted), Some(in_force)) => change(container, granted, in_force),
            _ => Change::Nothing,
        }
    }

    /// An init container failed for good, so the pod has.
    pub fn init_failed(&self, spec: &PodSpec, observed: &Observed) -> bool {
        spec.init_containers.iter().flatten().filter(|container| !is_sidecar(container)).any(|container| {
            let failed = |latest: &Container| latest.has_ended() && latest.exit_code != 0;
            observed.latest(&container.name).is_some_and(|latest| failed(latest) && !restarts(spec, container, latest.exit_code))
        })
    }

    /// Forgets what is about containers that are gone.
    pub fn forget_gone(&mut self, observed: &Observed) {
        let is_there = |id: &str| observed.containers.iter().any(|container| container.id == id);
        self.probes.retain(is_there);
        self.resize.restarting.retain(|id| is_there(id));
    }
}

fn expired(back_off: &BackOff, ended: Timestamp) -> bool {
    ended.duration_since(back_off.since) > BACK_OFF_RESET
}
