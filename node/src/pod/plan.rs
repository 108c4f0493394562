//! What to do next for a pod: a pure function of the pod, of what runs, of what the agent remembers, and of the time.

use super::allocation::Change;
use super::memory::{Failure, Memory};
use super::observed::{Container, Observed, State};
use jiff::{SignedDuration, Timestamp};
use slipway_api::core::{self, Pod, PodSpec};
use slipway_api::pod::{as_container, is_sidecar, is_terminal};
use std::collections::BTreeMap;

/// A kill without a word gets this long all the same, as in Kubernetes.
const GRACE_SECONDS_MIN: i64 = 1;
const GRACE_SECONDS_DEFAULT: i64 = 30;
/// Dead containers are kept for their logs and their last state: this many of each name.
const DEAD_KEPT: usize = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    StartSandbox {
        attempt: u32,
    },
    /// In the newest sandbox. `after` is when the container before it ended.
    StartContainer {
        name: String,
        attempt: u32,
        after: Option<Timestamp>,
    },
    Kill {
        id: String,
        name: String,
        grace_seconds: i64,
        why: String,
        /// It starts again with other resources, whatever the pod's policy is.
        resize: bool,
    },
    /// Puts what the node has granted in force: in these containers, by name and id, and in the pod as a whole.
    Resize {
        containers: Vec<(String, String)>,
    },
    StopSandbox {
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// When to plan again though nothing happened.
    pub wake_at: Option<Timestamp>,
    /// Why a container isn't started now.
    pub waiting: BTreeMap<String, Waiting>,
    /// Containers whose restart is being put off: each pass is an event.
    pub backing_off: Vec<String>,
    /// Nothing runs, and nothing shall run any more.
    pub over: bool,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// What is to become of one container.
enum Fate {
    Keep,
    Start {
        attempt: u32,
        after: Option<Timestamp>,
    },
    /// Later, or not while the pod is as it is.
    Wait,
    /// It ended, and stays so.
    Ended {
        success: bool,
    },
}

pub fn plan(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &pod.spec else { return plan };
    if let Some(grace_seconds) = ending(pod, memory, now) {
        end(&mut plan, spec, observed, grace_seconds, "Stopping container");
        return plan;
    }
    if let Some(deadline) = deadline(pod) {
        plan.wake(deadline);
    }
    collect_dead(&mut plan, observed);
    let grace = spec.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS_DEFAULT).max(GRACE_SECONDS_MIN);
    let Some(sandbox) = observed.sandbox() else {
        let stray: Vec<_> = observed.running().collect();
        if !stray.is_empty() {
            for container in stray {
                plan.steps.push(kill(container, grace, "Pod sandbox changed, it will be killed and re-created."));
            }
            return plan;
        }
        if !anything_left(spec, observed, memory) {
            plan.over = true;
            return plan;
        }
        if let Some(failure) = memory.sandbox_failure.as_ref().filter(|failure| failure.retry_at > now) {
            plan.wake(failure.retry_at);
            return plan;
        }
        plan.steps.push(Step::StartSandbox { attempt: observed.sandboxes.first().map_or(0, |old| old.attempt + 1) });
        let observed = Observed { sandboxes: vec![], ..observed.clone() };
        start_containers(&mut plan, &Here { pod, spec, observed: &observed, memory, now, sandbox: None }, grace);
        return plan;
    };
    let here = Here { pod, spec, observed, memory, now, sandbox: Some(&sandbox.id) };
    start_ephemeral(&mut plan, &here);
    start_containers(&mut plan, &here, grace);
    resize(&mut plan, &here);
    plan
}

/// Ephemeral containers start before all others, to help where those can't, and never again.
fn start_ephemeral(plan: &mut Plan, here: &Here<'_>) {
    for ephemeral in here.spec.ephemeral_containers.iter().flatten() {
        let attempt = match here.observed.latest(&ephemeral.name) {
            None => 0,
            // Made, and never started: the agent ended in between.
            Some(made) if made.state == State::Created && !here.memory.starting.contains(&ephemeral.name) => {
                plan.steps.push(Step::RemoveContainer { id: made.id.clone() });
                made.attempt
            }
            Some(_) => continue,
        };
        let fate = here.unless_failing(plan, &as_container(ephemeral), Fate::Start { attempt, after: None });
        if let Fate::Start { attempt, after } = fate {
            plan.steps.push(Step::StartContainer { name: ephemeral.name.clone(), attempt, after });
        }
    }
}

/// Of the containers that go on, those that get other resources as they run.
fn resize(plan: &mut Plan, here: &Here<'_>) {
    let memory = here.memory;
    let ends = |id: &str| plan.steps.iter().any(|step| matches!(step, Step::Kill { id: killed, .. } if killed == id));
    let all = here.spec.containers.iter().chain(here.spec.init_containers.iter().flatten());
    let running = all.filter_map(|container| Some((container, here.current(&container.name)?)));
    let changed = running
        .filter(|(container, running)| running.is_running() && memory.change(container) == Change::InPlace && !ends(&running.id));
    let containers: Vec<_> = changed.map(|(container, running)| (container.name.clone(), running.id.clone())).collect();
    if containers.is_empty() && memory.granted.pod == memory.in_force.pod {
        return;
    }
    match &memory.resize.failure {
        _ if memory.resize.is_running || plan.steps.iter().any(|step| matches!(step, Step::StopSandbox { .. })) => {}
        Some((_, retry_at)) if *retry_at > here.now => plan.wake(*retry_at),
        _ => plan.steps.push(Step::Resize { containers }),
    }
}

/// How long the pod still has, if it is to end.
fn ending(pod: &Pod, memory: &Memory, now: Timestamp) -> Option<i64> {
    if let Some(deleted) = &pod.metadata.deletion_timestamp {
        let whole = pod.metadata.deletion_grace_period_seconds.unwrap_or(GRACE_SECONDS_DEFAULT);
        return Some(deleted.0.duration_since(now).as_secs().clamp(0, whole).max(GRACE_SECONDS_MIN));
    }
    // What has succeeded or failed never runs again.
    let ended = is_terminal(pod).then_some(GRACE_SECONDS_DEFAULT);
    memory.ending.as_ref().map(|ending| ending.grace_seconds.max(GRACE_SECONDS_MIN)).or(ended)
}

/// When the pod has been active for long enough.
pub fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn kill(container: &Container, grace_seconds: i64, why: &str) -> Step {
    Step::Kill { id: container.id.clone(), name: container.name.clone(), grace_seconds, why: why.to_owned(), resize: false }
}

/// Ends everything: first the main and init containers together, then the sidecars, the last one first, then the sandbox.
fn end(plan: &mut Plan, spec: &PodSpec, observed: &Observed, grace_seconds: i64, why: &str) {
    let why = |container: &Container| format!("{why} {}", container.name);
    let sidecars: Vec<&str> = sidecars(spec).map(|container| container.name.as_str()).collect();
    let (side, main): (Vec<_>, Vec<_>) = observed.running().partition(|container| sidecars.contains(&container.name.as_str()));
    if !main.is_empty() {
        plan.steps.extend(main.into_iter().map(|container| kill(container, grace_seconds, &why(container))));
        return;
    }
    let last = side.into_iter().max_by_key(|container| sidecars.iter().position(|name| *name == container.name));
    if let Some(last) = last {
        plan.steps.push(kill(last, grace_seconds, &why(last)));
        return;
    }
    for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        plan.steps.push(Step::StopSandbox { id: sandbox.id.clone() });
    }
    plan.over = plan.steps.is_empty();
}

fn sidecars(spec: &PodSpec) -> impl Iterator<Item = &core::Container> {
    spec.init_containers.iter().flatten().filter(|container| is_sidecar(container))
}

fn collect_dead(plan: &mut Plan, observed: &Observed) {
    let mut dead: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, container) in observed.containers.iter().enumerate() {
        let superseded = observed.containers[..index].iter().any(|newer| newer.name == container.name);
        if superseded && container.has_ended() {
            let kept = dead.entry(&container.name).or_default();
            *kept += 1;
            if *kept > DEAD_KEPT {
                plan.steps.push(Step::RemoveContainer { id: container.id.clone() });
            }
        }
    }
    for old in observed.sandboxes.iter().skip(1).filter(|old| !old.ready) {
        if !observed.containers.iter().any(|container| container.sandbox == old.id) {
            plan.steps.push(Step::RemoveSandbox { id: old.id.clone() });
        }
    }
}

/// Whether a sandbox is worth having: some container has never run, or is to run again.
fn anything_left(spec: &PodSpec, observed: &Observed, memory: &Memory) -> bool {
    if memory.init_failed(spec, observed) {
        return false;
    }
    spec.containers.iter().any(|container| match observed.latest(&container.name) {
        Some(latest) if latest.has_ended() => restarts(spec, container, latest.exit_code),
        _ => true,
    })
}

fn start_containers(plan: &mut Plan, here: &Here<'_>, grace: i64) {
    let Here { spec, observed, memory, .. } = *here;
    // Init containers are over for good once a main container has run in this sandbox.
    let initialized = spec.containers.iter().any(|container| here.current(&container.name).is_some());
    for container in spec.init_containers.iter().flatten() {
        let sidecar = is_sidecar(container);
        if initialized && !sidecar {
            continue;
        }
        let fate = here.fate(plan, container, sidecar, true, grace);
        let proceed = match fate {
            Fate::Ended { success: true } => true,
            Fate::Ended { success: false } => {
                end_instead(plan, spec, observed, grace);
                return;
            }
            Fate::Keep if sidecar => {
                here.current(&container.name).is_some_and(|running| memory.probes.is_started(container, &running.id))
            }
            Fate::Keep | Fate::Wait => false,
            Fate::Start { attempt, after } => {
                plan.steps.push(Step::StartContainer { name: container.name.clone(), attempt, after });
                false
            }
        };
        if !proceed && !initialized {
            return;
        }
    }
    let mut all_ended = true;
    for container in &spec.containers {
        match here.fate(plan, container, false, false, grace) {
            Fate::Start { attempt, after } => {
                all_ended = false;
                plan.steps.push(Step::StartContainer { name: container.name.clone(), attempt, after });
            }
            Fate::Keep | Fate::Wait => all_ended = false,
            Fate::Ended { .. } => {}
        }
    }
    if all_ended {
        end_instead(plan, spec, observed, grace);
    }
}

/// Nothing more is started.
fn end_instead(plan: &mut Plan, spec: &PodSpec, observed: &Observed, grace: i64) {
    plan.steps.retain(|step| !matches!(step, Step::StartContainer { .. } | Step::StartSandbox { .. }));
    end(plan, spec, observed, grace, "Stopping container");
}

struct Here<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    observed: &'a Observed,
    memory: &'a Memory,
    now: Timestamp,
    sandbox: Option<&'a str>,
}

impl Here<'_> {
    /// The latest of this name, if it is of the present sandbox.
    fn current(&self, name: &str) -> Option<&Container> {
        self.observed.latest(name).filter(|container| Some(container.sandbox.as_str()) == self.sandbox)
    }

    fn fate(&self, plan: &mut Plan, container: &core::Container, sidecar: bool, init: bool, grace: i64) -> Fate {
        let Some(latest) = self.observed.latest(&container.name) else {
            return self.unless_failing(plan, container, Fate::Start { attempt: 0, after: None });
        };
        let here = self.current(&container.name).is_some();
        match latest.state {
            State::Running => {
                if let Some(why) = self.memory.probes.unhealthy(&latest.id) {
                    let grace = self.memory.probes.grace_seconds(container, &latest.id).unwrap_or(grace);
                    plan.steps.push(kill(latest, grace, &format!("Container {} {why}, will be restarted", container.name)));
                    return Fate::Wait;
                }
                if !init && !latest.hash.is_empty() && Some(latest.hash.as_str()) != container.image.as_deref() {
                    let why = format!("Container {} definition changed, will be restarted", container.name);
                    plan.steps.push(kill(latest, grace, &why));
                    return Fate::Wait;
                }
                if self.memory.change(container) == Change::Restart {
                    let why = format!("Container {} resize requires restart", container.name);
                    let mut step = kill(latest, grace, &why);
                    if let Step::Kill { resize, .. } = &mut step {
                        *resize = true;
                    }
                    plan.steps.push(step);
                    return Fate::Wait;
                }
                Fate::Keep
            }
            State::Created if here && self.memory.starting.contains(&container.name) => Fate::Wait,
            // Made, and never started: the agent ended in between.
            State::Created => {
                plan.steps.push(Step::RemoveContainer { id: latest.id.clone() });
                self.unless_failing(plan, container, Fate::Start { attempt: latest.attempt + 1, after: None })
            }
            State::Exited | State::Unknown => {
                // In a new sandbox the init containers run once more.
                let again = init && !here;
                if here && self.memory.resize.restarting.contains(&latest.id) {
                    return self.unless_failing(plan, container, Fate::Start { attempt: latest.attempt + 1, after: None });
                }
                if !again && init && !sidecar && latest.exit_code == 0 && latest.state == State::Exited {
                    return Fate::Ended { success: true };
                }
                if !again && !sidecar && !restarts(self.spec, container, latest.exit_code) {
                    return Fate::Ended { success: latest.exit_code == 0 };
                }
                let after = latest.finished_at.unwrap_or(latest.created_at);
                if here && let Some(until) = self.memory.back_off(&container.name, after).filter(|until| *until > self.now) {
                    self.put_off(plan, container, until, after);
                    return Fate::Wait;
                }
                self.unless_failing(plan, container, Fate::Start { attempt: latest.attempt + 1, after: Some(after) })
            }
        }
    }

    fn put_off(&self, plan: &mut Plan, container: &core::Container, until: Timestamp, after: Timestamp) {
        let delay = until.duration_since(after).as_secs();
        let (name, metadata) = (&container.name, &self.pod.metadata);
        let pod = format!(
            "{}_{}({})",
            metadata.name.as_deref().unwrap_or_default(),
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.uid.as_deref().unwrap_or_default()
        );
        let message = format!("back-off {} restarting failed container={name} pod={pod}", go_duration(delay));
        plan.waiting.insert(name.clone(), Waiting { reason: "CrashLoopBackOff".into(), message });
        plan.backing_off.push(name.clone());
        plan.wake(until);
    }

    /// Its image can't be pulled, or its configuration is wrong: it waits for the next try.
    fn unless_failing(&self, plan: &mut Plan, container: &core::Container, fate: Fate) -> Fate {
        let Some(failure) = self.memory.failures.get(&container.name) else { return fate };
        plan.waiting.insert(container.name.clone(), failure.waiting(container, self.now));
        if failure.retry_at <= self.now {
            return fate;
        }
        plan.wake(failure.retry_at);
        if let Some(at) = failure.turns_into_back_off_at(self.now) {
            plan.wake(at);
        }
        Fate::Wait
    }
}

/// `10s`, `2m40s`, as Go prints durations.
pub fn go_duration(seconds: i64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// Whether a container that ended so is started again.
pub fn restarts(spec: &PodSpec, container: &core::Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|value| *value == exit_code);
        if listed == (codes.operator == "In") {
            return rule.action == "Restart";
        }
    }
    match container.restart_policy.as_deref().or(spec.restart_policy.as_deref()) {
        Some("Never") => false,
        Some("OnFailure") => exit_code != 0,
        _ => true,
    }
}

impl Failure {
    fn waiting(&self, container: &core::Container, now: Timestamp) -> Waiting {
        if self.is_pull && self.turns_into_back_off_at(now).is_none() {
            let image = container.image.as_deref().unwrap_or_default();
            let message = format!("Back-off pulling image \"{image}\": {}: {}", self.reason, self.message);
            return Waiting { reason: "ImagePullBackOff".into(), message };
        }
        Waiting { reason: self.reason.clone(), message: self.message.clone() }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub mod tests;
