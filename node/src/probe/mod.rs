//! Probes: asking a container whether it has started, lives, and is ready.

mod check;
mod grpc;
pub mod run;

pub use check::{Outcome, Target, check, http_get};
pub use run::Probes;

use slipway_api::core::{Container, Probe};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What the probes of one container said last, counted against their thresholds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Verdicts {
    started: Option<bool>,
    alive: Option<bool>,
    ready: Option<bool>,
}

/// What the probes said, by container id.
#[derive(Debug, Clone, Default)]
pub struct Health(BTreeMap<String, Verdicts>);

impl Health {
    pub fn set(&mut self, id: &str, kind: Kind, success: bool) {
        let verdicts = self.0.entry(id.to_owned()).or_default();
        let verdict = match kind {
            Kind::Startup => &mut verdicts.started,
            Kind::Liveness => &mut verdicts.alive,
            Kind::Readiness => &mut verdicts.ready,
        };
        *verdict = Some(success);
    }

    /// Whether a running container has started, as its startup probe says.
    pub fn is_started(&self, container: &Container, id: &str) -> bool {
        container.startup_probe.is_none() || self.0.get(id).is_some_and(|verdicts| verdicts.started == Some(true))
    }

    pub fn is_ready(&self, container: &Container, id: &str) -> bool {
        let ready = || self.0.get(id).is_some_and(|verdicts| verdicts.ready == Some(true));
        self.is_started(container, id) && (container.readiness_probe.is_none() || ready())
    }

    /// The probe for which the container has to be restarted, in words.
    pub fn unhealthy(&self, id: &str) -> Option<&'static str> {
        let verdicts = self.0.get(id)?;
        match (verdicts.started, verdicts.alive) {
            (Some(false), _) => Some("failed startup probe"),
            (_, Some(false)) => Some("failed liveness probe"),
            _ => None,
        }
    }

    /// The grace that the failed probe sets.
    pub fn grace_seconds(&self, container: &Container, id: &str) -> Option<i64> {
        let verdicts = self.0.get(id)?;
        let kind = if verdicts.started == Some(false) { Kind::Startup } else { Kind::Liveness };
        kind.of(container)?.termination_grace_period_seconds
    }

    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|id, _| keep(id));
    }
}
