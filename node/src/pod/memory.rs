//! What the agent remembers of a pod between two looks at it. All of it may be lost: a restart of the agent loses it.

use super::observed::{Container, Observed};
use super::plan::restarts;
use crate::probe::Health;
use jiff::{SignedDuration, Timestamp};
use slipway_api::core::PodSpec;
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

#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub back_offs: BTreeMap<String, BackOff>,
    /// By container name.
    pub failures: BTreeMap<String, Failure>,
    pub sandbox_failure: Option<Failure>,
    /// Containers that are being made at this moment.
    pub starting: BTreeSet<String>,
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

    /// An init container failed for good, so the pod has.
    pub fn init_failed(&self, spec: &PodSpec, observed: &Observed) -> bool {
        spec.init_containers.iter().flatten().filter(|container| !is_sidecar(container)).any(|container| {
            let failed = |latest: &Container| latest.has_ended() && latest.exit_code != 0;
            observed.latest(&container.name).is_some_and(|latest| failed(latest) && !restarts(spec, container, latest.exit_code))
        })
    }

    /// Forgets what is about containers that are gone.
    pub fn forget_gone(&mut self, observed: &Observed) {
        self.probes.retain(|id| observed.containers.iter().any(|container| container.id == id));
    }
}

fn expired(back_off: &BackOff, ended: Timestamp) -> bool {
    ended.duration_since(back_off.since) > BACK_OFF_RESET
}
