//! The probes of a pod's running containers, each on its own period.

use super::{Health, Kind, Outcome, Target, check};
use crate::runtime::Runtime;
use slipway_api::core::{Container, Probe};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// What a probe reports: a verdict when it changes, and each failure, for the event.
#[derive(Debug)]
pub struct Report {
    pub id: String,
    pub container: String,
    pub kind: Kind,
    pub verdict: Option<bool>,
    pub failure: Option<String>,
    pub unknown: bool,
}

/// Runs while it lives; dropping it ends the probes.
pub struct Probes {
    runtime: Arc<dyn Runtime>,
    reports: mpsc::Sender<Report>,
    running: BTreeMap<(String, Kind), AbortHandle>,
}

impl Probes {
    pub fn new(runtime: Arc<dyn Runtime>, reports: mpsc::Sender<Report>) -> Probes {
        Probes { runtime, reports, running: BTreeMap::new() }
    }

    /// Starts what is missing for this running container. Liveness and readiness wait for the startup probe.
    pub fn ensure(&mut self, container: &Container, target: &Target, health: &Health) {
        let started = health.is_started(container, &target.container);
        for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
            let Some(probe) = kind.of(container) else { continue };
            let due = if kind == Kind::Startup { !started } else { started };
            let key = (target.container.clone(), kind);
            if due && !self.running.contains_key(&key) {
                let seen = (kind == Kind::Readiness).then(|| health.is_ready(container, &target.container));
                let probing = probing(
                    self.runtime.clone(),
                    container.clone(),
                    probe.clone(),
                    kind,
                    target.clone(),
                    seen,
                    self.reports.clone(),
                );
                self.running.insert(key, tokio::spawn(probing).abort_handle());
            }
        }
    }

    /// Ends the probes of all other containers.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.running.retain(|(id, _), task| {
            let keep = keep(id);
            if !keep {
                task.abort();
            }
            keep
        });
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.retain(|_| false);
    }
}

fn seconds(count: Option<i32>, default: i32) -> Duration {
    Duration::from_secs(count.unwrap_or(default).max(0) as u64)
}

async fn probing(
    runtime: Arc<dyn Runtime>,
    container: Container,
    probe: Probe,
    kind: Kind,
    target: Target,
    mut verdict: Option<bool>,
    reports: mpsc::Sender<Report>,
) {
    let mut ticks = tokio::time::interval(seconds(probe.period_seconds, 10).max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (successes, failures) = (probe.success_threshold.unwrap_or(1), probe.failure_threshold.unwrap_or(3));
    let (mut last, mut run) = (None, 0);
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    loop {
        ticks.tick().await;
        let outcome = check(&*runtime, &container, &probe, &target).await;
        let (success, failure, unknown) = match outcome {
            Outcome::Success => (true, None, false),
            Outcome::Failure(why) => (false, Some(why), false),
            Outcome::Unknown(why) => (false, Some(why), true),
        };
        let mut changed = None;
        if !unknown {
            run = if last == Some(success) { run + 1 } else { 1 };
            last = Some(success);
            let decided = run >= if success { successes } else { failures };
            if decided && verdict != Some(success) {
                verdict = Some(success);
                changed = verdict;
            }
        }
        if changed.is_some() || failure.is_some() {
            let (id, container) = (target.container.clone(), container.name.clone());
            if reports.send(Report { id, container, kind, verdict: changed, failure, unknown }).await.is_err() {
                return;
            }
        }
        let done = kind == Kind::Startup && verdict == Some(true);
        if done || (kind != Kind::Readiness && verdict == Some(false)) {
            return;
        }
    }
}
