//! One pod's worker: looks, plans, acts, and reports, until nothing is left of the pod.

mod resize;

pub use resize::count;

use super::allocation::Grant;
use super::memory::{Ending, Memory};
use super::observed::{Observed, observe};
use super::plan::{Plan, Step, deadline, plan};
use super::start::{Outcome, Place, Start, container};
use super::status::{Facts, RESIZE, status};
use super::{Context, lifecycle, termination};
use crate::probe::{Kind, Probes, Target, run::Report};
use crate::volume;
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use slipway_api::core::{Pod, PodStatus};
use slipway_api::pod::{is_deleted, is_terminal};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A pod is looked at this often though nothing happened.
const LOOK_AT_LEAST: Duration = Duration::from_secs(60);
/// After a call that failed.
const RETRY: Duration = Duration::from_secs(2);
const REPORTS_MAX: usize = 64;

/// What ended in the background.
enum Done {
    Started(Outcome),
    Killed(String),
    Resized(resize::Outcome),
}

pub struct Worker {
    context: Arc<Context>,
    uid: String,
    /// The pod as the API server has it; `None` once it is gone there.
    wanted: watch::Receiver<Option<Arc<Pod>>>,
    pod: Arc<Pod>,
    wake: Arc<Notify>,
    memory: Memory,
    observed: Observed,
    messages: BTreeMap<String, String>,
    probes: Probes,
    reports: mpsc::Receiver<Report>,
    background: JoinSet<Done>,
    starting: Option<CancellationToken>,
    /// What those that are being started are started with.
    starting_with: Grant,
    /// What the pod was granted is remembered for the next agent.
    kept: bool,
    /// With the grace each was given.
    killing: HashMap<String, i64>,
    backed_off: BTreeMap<String, Option<Timestamp>>,
    gone: bool,
    released: bool,
}

impl Worker {
    pub fn new(context: Arc<Context>, pod: Arc<Pod>, wanted: watch::Receiver<Option<Arc<Pod>>>) -> Worker {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        Worker {
            wake: context.objects.wakers.add(&uid),
            probes: Probes::new(context.runtime.clone(), sender),
            memory: remembered(&pod),
            context,
            uid,
            wanted,
            pod,
            observed: Observed::default(),
            messages: BTreeMap::new(),
            reports,
            background: JoinSet::new(),
            starting: None,
            starting_with: Grant::default(),
            kept: false,
            killing: HashMap::new(),
            backed_off: BTreeMap::new(),
            gone: false,
            released: false,
        }
    }

    pub async fn run(mut self) {
        self.take_wanted();
        loop {
            let pause = match self.pass().await {
                Ok(Some(pause)) => pause,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(uid = self.uid, %error, "a look at a pod failed");
                    RETRY
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                changed = self.wanted.changed() => if changed.is_err() { return },
                Some(report) = self.reports.recv() => self.note(report),
                Some(done) = self.background.join_next() => self.finish(done),
                () = tokio::time::sleep(pause) => {}
            }
            while let Ok(report) = self.reports.try_recv() {
                self.note(report);
            }
            self.take_wanted();
        }
        self.context.objects.wakers.remove(&self.uid);
    }

    fn take_wanted(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        match wanted {
            // What a patch answered may be newer than what the watch has told.
            Some(pod) if revision(&pod) >= revision(&self.pod) => self.pod = pod,
            Some(_) => {}
            None if !self.gone => {
                self.gone = true;
                let grace_seconds = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(1);
                let ending = Ending { reason: String::new(), message: String::new(), grace_seconds };
                self.memory.ending.get_or_insert(ending);
            }
            None => {}
        }
    }

    /// One look. Returns how long to rest, or `None` when nothing is left of the pod.
    async fn pass(&mut self) -> Result<Option<Duration>, crate::Error> {
        let now = Timestamp::now();
        let observed = observe(&*self.context.runtime, &self.uid, &self.observed).await?;
        self.observed = observed;
        self.memory.forget_gone(&self.observed);
        if self.observed.sandbox().is_none() && self.starting.is_none() {
            // What failed in the old sandbox says nothing about the next.
            self.memory.failures.retain(|_, failure| failure.is_pull);
        }
        self.read_last_words();
        if deadline(&self.pod).is_some_and(|at| at <= now) && self.memory.ending.is_none() && !is_terminal(&self.pod) {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            self.context.recorder.normal(&self.pod, None, "DeadlineExceeded", message.clone());
            let grace_seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
            self.memory.ending = Some(Ending { reason: "DeadlineExceeded".into(), message, grace_seconds });
        }
        self.ask_for_room(now);
        let mut plan = plan(&self.pod, &self.observed, &self.memory, now);
        self.act(&plan).await?;
        let busy = self.starting.is_some() || !self.killing.is_empty() || self.memory.resize.is_running;
        plan.over &= !busy;
        if !self.gone {
            self.keep_probing();
            self.tell_of_back_off(&plan, now);
            let refresh = self.refresh_volumes(&plan).await;
            plan.wake_at = [plan.wake_at, refresh].into_iter().flatten().min();
        }
        if plan.over {
            self.release().await?;
        }
        if !self.gone {
            self.report(&plan, now).await?;
        }
        if plan.over && self.gone {
            self.remove().await?;
            return Ok(None);
        }
        if plan.over && is_deleted(&self.pod) {
            self.delete().await?;
        }
        let until = plan.wake_at.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        let pause = until.map_or(LOOK_AT_LEAST, |until| (until + Duration::from_millis(5)).min(LOOK_AT_LEAST));
        Ok(Some(pause))
    }

    async fn act(&mut self, plan: &Plan) -> Result<(), crate::Error> {
        let starts: Vec<Step> = plan
            .steps
            .iter()
            .filter(|step| matches!(step, Step::StartSandbox { .. } | Step::StartContainer { .. }))
            .cloned()
            .collect();
        if let Some(cancel) = &self.starting
            && (is_deleted(&self.pod) || self.memory.ending.is_some())
        {
            cancel.cancel();
        }
        for step in &plan.steps {
            match step {
                Step::Kill { id, name, grace_seconds, why, resize } => {
                    if *resize {
                        self.memory.resize.restarting.insert(id.clone());
                    }
                    self.kill(id, name, *grace_seconds, why);
                }
                Step::Resize { containers } => self.resize(containers),
                Step::StopSandbox { id } if self.starting.is_none() => self.context.runtime.stop_sandbox(id).await?,
                Step::RemoveContainer { id } if self.starting.is_none() => self.context.runtime.remove_container(id).await?,
                Step::RemoveSandbox { id } if self.starting.is_none() => {
                    self.context.runtime.stop_sandbox(id).await?;
                    self.context.runtime.remove_sandbox(id).await?;
                }
                _ => {}
            }
        }
        if plan.steps.iter().any(|step| matches!(step, Step::StopSandbox { .. } | Step::RemoveContainer { .. })) {
            self.wake.notify_one();
        }
        if !starts.is_empty() && self.starting.is_none() {
            self.start(starts);
        }
        Ok(())
    }

    fn start(&mut self, steps: Vec<Step>) {
        let cancel = CancellationToken::new();
        let names = steps.iter().filter_map(|step| match step {
            Step::StartContainer { name, .. } => Some(name.clone()),
            _ => None,
        });
        self.memory.starting = names.collect();
        let host_network = self.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let place = self.observed.sandbox().map(|sandbox| Place {
            sandbox: sandbox.id.clone(),
            attempt: sandbox.attempt,
            ips: if host_network { vec![self.context.options.node_ip.to_string()] } else { sandbox.ips.clone() },
        });
        let start = Start {
            context: self.context.clone(),
            pod: self.granted_pod(),
            steps,
            place,
            ids: self.observed.containers.iter().rev().map(|one| (one.name.clone(), one.id.clone())).collect(),
            failures: self.memory.failures.clone(),
            sandbox_failure: self.memory.sandbox_failure.clone(),
            cancel: cancel.clone(),
        };
        self.starting = Some(cancel);
        self.starting_with = self.memory.granted.clone();
        self.background.spawn(async move { Done::Started(start.run().await) });
    }

    fn kill(&mut self, id: &str, name: &str, grace_seconds: i64, why: &str) {
        // A shorter grace than before overrules it.
        if self.killing.get(id).is_some_and(|before| *before <= grace_seconds || is_deleted(&self.pod) && grace_seconds > 1) {
            return;
        }
        if self.killing.insert(id.to_owned(), grace_seconds).is_none() {
            self.context.recorder.normal(&self.pod, Some(name), "Killing", why);
        }
        self.probes.retain(|probed| probed != id);
        let (context, pod, id) = (self.context.clone(), self.pod.clone(), id.to_owned());
        let (spec, ip) = (container(&pod, name).map(Cow::into_owned), self.ip());
        let grace = Duration::from_secs(grace_seconds.max(0) as u64);
        self.background.spawn(async move {
            lifecycle::kill(&pod, spec.as_ref(), &id, grace, &ip, &context).await;
            Done::Killed(id)
        });
    }

    fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Killed(id)) => drop(self.killing.remove(&id)),
            Ok(Done::Resized(outcome)) => self.resized(outcome),
            Ok(Done::Started(outcome)) => {
                let now = Timestamp::now();
                self.starting = None;
                self.memory.starting.clear();
                self.memory.sandbox_failure = outcome.sandbox_failure;
                self.started_with(outcome.started.iter().map(|(name, _)| name.clone()).collect());
                for (name, after) in outcome.started {
                    self.memory.failures.remove(&name);
                    if let Some(after) = after {
                        self.memory.restarted(&name, after, now);
                    }
                }
                self.memory.failures.extend(outcome.failures);
            }
            Err(panic) => {
                tracing::error!(uid = self.uid, %panic, "work for a pod panicked");
                self.starting = None;
                self.memory.starting.clear();
                self.memory.resize.is_running = false;
                self.killing.clear();
            }
        }
    }

    fn ip(&self) -> String {
        if self.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
            return self.context.options.node_ip.to_string();
        }
        self.observed.sandboxes.first().and_then(|sandbox| sandbox.ips.first()).cloned().unwrap_or_default()
    }

    fn keep_probing(&mut self) {
        let ip = self.ip();
        let running: Vec<(String, String)> =
            self.observed.running().map(|container| (container.id.clone(), container.name.clone())).collect();
        for (id, name) in &running {
            if let Some(spec) = container(&self.pod, name)
                && !self.killing.contains_key(id)
            {
                let target = Target { container: id.clone(), ip: ip.clone() };
                self.probes.ensure(&spec, &target, &self.memory.probes);
            }
        }
        self.probes.retain(|id| running.iter().any(|(running, _)| running == id));
    }

    fn note(&mut self, report: Report) {
        let own = Some(report.container.as_str());
        if let Some(why) = report.failure {
            let kind = report.kind.name();
            let (reason, message) = match report.unknown {
                true => ("ProbeWarning", format!("{kind} probe errored and resulted in unknown state: {why}")),
                false => ("Unhealthy", format!("{kind} probe failed: {why}")),
            };
            self.context.recorder.warning(&self.pod, own, reason, message);
        }
        if let Some(success) = report.verdict {
            self.memory.probes.set(&report.id, report.kind, success);
        }
    }

    /// One event for each crash that is being waited out, and for each pull that failed.
    fn tell_of_back_off(&mut self, plan: &Plan, now: Timestamp) {
        for (name, failure) in &self.memory.failures {
            let waits = failure.is_pull && failure.turns_into_back_off_at(now).is_none();
            if waits && self.backed_off.insert(name.clone(), Some(failure.at)) != Some(Some(failure.at)) {
                let image = container(&self.pod, name).and_then(|spec| spec.image.clone()).unwrap_or_default();
                let recorder = &self.context.recorder;
                recorder.normal(&self.pod, Some(name), "BackOff", format!("Back-off pulling image \"{image}\""));
                recorder.warning(&self.pod, Some(name), "Failed", "Error: ImagePullBackOff");
            }
        }
        for name in &plan.backing_off {
            let ended = self.observed.latest(name).and_then(|latest| latest.finished_at);
            if self.backed_off.insert(name.clone(), ended) != Some(ended) {
                let meta = &self.pod.metadata;
                let of = |text: &Option<String>| text.clone().unwrap_or_default();
                let pod = format!("{}_{}({})", of(&meta.name), of(&meta.namespace), of(&meta.uid));
                let message = format!("Back-off restarting failed container {name} in pod {pod}");
                self.context.recorder.warning(&self.pod, Some(name), "BackOff", message);
            }
        }
    }

    /// Volumes whose content comes from the API follow it while the pod runs.
    async fn refresh_volumes(&self, plan: &Plan) -> Option<Timestamp> {
        if plan.over || self.starting.is_some() || self.observed.sandbox().is_none() || is_deleted(&self.pod) {
            return None;
        }
        let ips: Vec<String> = self.observed.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
        match volume::set_up(&self.pod, &self.context, &ips).await {
            Ok(mounted) => mounted.refresh_at,
            Err(error) => {
                tracing::debug!(uid = self.uid, %error, "renewing a volume");
                None
            }
        }
    }

    fn read_last_words(&mut self) {
        for ended in self.observed.containers.iter().filter(|container| container.has_ended()) {
            if !self.messages.contains_key(&ended.id)
                && let Some(spec) = container(&self.pod, &ended.name)
            {
                self.messages.insert(ended.id.clone(), termination::message(&self.context, &self.uid, &spec, ended));
            }
        }
        self.messages.retain(|id, _| self.observed.containers.iter().any(|container| container.id == *id));
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.context.objects.client.clone(), self.pod.metadata.namespace.as_deref().unwrap_or_default())
    }

    async fn report(&mut self, plan: &Plan, now: Timestamp) -> Result<(), crate::Error> {
        let host_ips = [self.context.options.node_ip.to_string()];
        let (observed, memory, messages) = (&self.observed, &self.memory, &self.messages);
        let fresh = status(&self.pod, &Facts { observed, memory, plan, host_ips: &host_ips, messages, now });
        if self.pod.status.as_ref() == Some(&fresh) {
            return Ok(());
        }
        let name = self.pod.metadata.name.as_deref().unwrap_or_default();
        let patch = patch(&self.uid, self.pod.status.as_ref(), &fresh);
        match self.api().patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(pod) => {
                self.pod = Arc::new(pod);
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives back what the pod holds of the node; its dead containers stay for their logs.
    async fn release(&mut self) -> Result<(), crate::Error> {
        if self.released {
            return Ok(());
        }
        for sandbox in &self.observed.sandboxes {
            self.context.runtime.stop_sandbox(&sandbox.id).await?;
        }
        let dir = self.context.pod_dir(&self.uid);
        volume::tear_down(&dir.join("volumes")).map_err(crate::Error::Files)?;
        self.context.cgroups.tear_down(&self.uid);
        self.wake(self.context.allocations.remove(&self.uid));
        self.context.objects.release(&self.uid);
        self.context.tokens.forget(&self.uid);
        self.released = true;
        Ok(())
    }

    /// Nothing runs any more: the API server may forget the pod.
    async fn delete(&self) -> Result<(), crate::Error> {
        let name = self.pod.metadata.name.as_deref().unwrap_or_default();
        let preconditions = Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None });
        let how = DeleteParams { grace_period_seconds: Some(0), preconditions, ..Default::default() };
        match self.api().delete(name, &how).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn remove(&self) -> Result<(), crate::Error> {
        for container in &self.observed.containers {
            self.context.runtime.remove_container(&container.id).await?;
        }
        for sandbox in &self.observed.sandboxes {
            self.context.runtime.remove_sandbox(&sandbox.id).await?;
        }
        self.context.cgroups.tear_down(&self.uid);
        let _ = fs::remove_dir_all(self.context.log_dir(&self.pod));
        volume::tear_down(&self.context.pod_dir(&self.uid)).map_err(crate::Error::Files)
    }
}

fn revision(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// What probes said before the agent's restart, so that a ready pod doesn't lose its traffic for it.
fn remembered(pod: &Pod) -> Memory {
    let mut memory = Memory::default();
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten()));
    for status in statuses {
        let Some((_, id)) = status.container_id.as_deref().and_then(|id| id.split_once("://")) else { continue };
        if status.started == Some(true) {
            memory.probes.set(id, Kind::Startup, true);
        }
        if status.ready {
            memory.probes.set(id, Kind::Readiness, true);
        }
    }
    memory
}

/// Only our conditions are sent: others' are merged by the server. Lists that shrink are replaced as a whole.
fn patch(uid: &str, old: Option<&PodStatus>, fresh: &PodStatus) -> serde_json::Value {
    let mut value = serde_json::to_value(fresh).unwrap_or_default();
    let unchanged = |kind: &str| {
        let find = |status: &PodStatus| status.conditions.iter().flatten().find(|condition| condition.type_ == kind).cloned();
        old.and_then(find) == find(fresh)
    };
    let kinds = |status: Option<&PodStatus>| -> Vec<String> {
        status.iter().flat_map(|status| status.conditions.iter().flatten()).map(|condition| condition.type_.clone()).collect()
    };
    let left = kinds(Some(fresh));
    let over = kinds(old).into_iter().filter(|kind| RESIZE.contains(&kind.as_str()) && !left.contains(kind));
    if let Some(conditions) = value.get_mut("conditions").and_then(|list| list.as_array_mut()) {
        conditions.retain(|condition| !unchanged(condition["type"].as_str().unwrap_or_default()));
        conditions.extend(over.map(|kind| serde_json::json!({ "type": kind, "$patch": "delete" })));
    }
    if old.is_some_and(|old| old.pod_ips != fresh.pod_ips && old.pod_ips.is_some())
        && let Some(ips) = value.get_mut("podIPs").and_then(|list| list.as_array_mut())
    {
        ips.push(serde_json::json!({ "$patch": "replace" }));
    }
    serde_json::json!({ "metadata": { "uid": uid }, "status": value })
}
