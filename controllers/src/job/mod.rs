//! Job: runs pods until enough of them have succeeded, or too many have failed.
//!
//! An ended pod is counted exactly once, although counting takes several writes: the pod carries a finalizer; its uid goes
//! to `status.uncountedTerminatedPods`, then the finalizer goes, then the uid turns into one more in the counter.

mod counting;
mod index;
mod outcome;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::Resource as _;
use slipway_api::{
    batch::{Job, JobCondition, JobSpec, JobStatus},
    core::Pod,
    jiff::{SignedDuration, Timestamp},
    meta::Time,
    selector::Selector,
};

use crate::{
    caches::Caches,
    claim::{self, claim, matches},
    plan::{Delete, Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object, controller_of},
    run::Situation,
};
use counting::Count;

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The most pods one pass creates or deletes.
const PODS_PER_PASS_MAX: usize = 500;
/// After the first failure in a row, then twice as much each time.
const BACKOFF_MIN: i64 = 10;
const BACKOFF_MAX: i64 = 600;

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        claim::watch(
            caches,
            queue,
            |caches| &caches.jobs,
            |caches| &caches.pods,
            |job, pod| {
                let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.is_some_and(|selector| matches(&Selector::from(selector), &pod.metadata))
            },
        );
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let caches = situation.caches;
        let Some(job) = caches.jobs.get(key) else {
            return Ok(free_orphans(key, caches));
        };
        Ok(plan(&job, caches, situation.now))
    }
}

/// How the job ended, if it has.
pub fn finished(job: &Job) -> Option<&'static str> {
    outcome::end(job.status.as_ref()?)
}

/// Pods of a job that is gone must not be held by its finalizer.
fn free_orphans(key: &Key, caches: &Caches) -> Plan {
    let mut plan = Plan::nothing();
    for pod in caches.pods.in_namespace(&key.namespace) {
        let owner = controller_of(&pod.metadata);
        let theirs = owner.is_some_and(|owner| owner.kind == Job::KIND && owner.name == key.name);
        if theirs && counting::is_tracked(&pod) {
            plan.steps.extend(counting::untrack(&pod));
        }
    }
    plan
}

/// What one pass works with.
struct Pass<'a> {
    job: &'a Job,
    spec: JobSpec,
    pods: Vec<Arc<Pod>>,
    status: JobStatus,
    now: Timestamp,
    plan: Plan,
}

pub fn plan(job: &Job, caches: &Caches, now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let elsewhere = spec.managed_by.as_deref().is_some_and(|who| who != "kubernetes.io/job-controller");
    let Some(selector) = spec.selector.clone().filter(|_| !elsewhere) else { return Plan::nothing() };
    let claim = claim(job, &selector, &caches.pods);
    let status = job.status.clone().unwrap_or_default();
    let mut pass = Pass { job, spec, pods: claim.mine, status, now, plan: Plan { steps: claim.steps, again_in: None } };
    if outcome::is_finished(&pass.status) {
        pass.after_the_end();
    } else {
        pass.run();
    }
    pass.plan
}

impl Pass<'_> {
    fn run(&mut self) {
        if self.job.is_deleted() {
            let tracked: Vec<Arc<Pod>> = self.pods.iter().filter(|pod| counting::is_tracked(pod)).cloned().collect();
            tracked.iter().for_each(|pod| self.plan.steps.extend(counting::untrack(pod)));
            return;
        }
        self.note_suspension();
        let ending = outcome::target(&self.status).is_some();
        let count = Count::of(self, ending);
        let verdict = outcome::verdict(self, &count);
        count.record(&mut self.status);
        self.status.active = Some(count.active.len() as i32).filter(|n| *n != 0);
        self.status.ready = Some(count.active.iter().filter(|pod| pods::is_ready(pod)).count() as i32);
        self.status.terminating = Some(count.terminating as i32);

        let events = outcome::apply(self, &count, verdict);
        let reported = Job { status: Some(self.status.clone()), ..self.job.clone() };
        self.plan.push(Step::update_status(self.job, &reported));
        // Only what the status (as stored) already names may lose its finalizer.
        let free: Vec<Step> = count.to_untrack.iter().filter_map(|pod| counting::untrack(pod)).collect();
        self.plan.steps.extend(free);
        self.plan.steps.extend(events);
        if outcome::target(&self.status).is_some() {
            self.stop_all(&count);
        } else if !outcome::is_finished(&self.status) {
            self.scale(&count);
        }
        self.watch_deadline();
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn note_suspension(&mut self) {
        let was = outcome::get(&self.status, "Suspended").is_some_and(|condition| condition.status == "True");
        if self.is_suspended() && !was {
            outcome::set(&mut self.status, "Suspended", "True", "JobSuspended", "Job suspended".into(), self.now);
            self.status.start_time = None;
            self.plan.push(Step::event(self.job, "Suspended", "Job suspended"));
        } else if !self.is_suspended() && was {
            outcome::set(&mut self.status, "Suspended", "False", "JobResumed", "Job resumed".into(), self.now);
            self.plan.push(Step::event(self.job, "Resumed", "Job resumed"));
        }
        if !self.is_suspended() && self.status.start_time.is_none() {
            self.status.start_time = Some(Time(self.now));
        }
    }

    /// On the way to the end: nothing goes on running. These pods are counted, as failed.
    fn stop_all(&mut self, count: &Count) {
        for pod in count.active.iter().take(PODS_PER_PASS_MAX) {
            self.plan.steps.push(Step::delete_for(&**pod, self.job.reference(), "the job ends"));
        }
    }

    fn scale(&mut self, count: &Count) {
        let active = count.active.len();
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0) as usize;
        let succeeded = count.succeeded_total as usize;
        let wanted = match self.spec.completions {
            _ if self.is_suspended() => 0,
            None if succeeded > 0 => active.min(parallelism),
            None => parallelism,
            Some(completions) => parallelism.min((completions.max(0) as usize).saturating_sub(succeeded)),
        };
        let duplicates = self.duplicates(count);
        let surplus = (active - duplicates.len()).saturating_sub(wanted);
        let mut rest: Vec<&Arc<Pod>> = count.active.iter().filter(|pod| !duplicates.contains(pod)).collect();
        rest.sort_by_key(|pod| (!pods::node(pod).is_empty(), pods::is_ready(pod), std::cmp::Reverse(pod.name().to_owned())));
        let why = if self.is_suspended() { "the job is suspended" } else { "too many pods run" };
        let gone: Vec<Arc<Pod>> =
            duplicates.iter().chain(rest.into_iter().take(surplus)).take(PODS_PER_PASS_MAX).cloned().collect();
        for pod in &gone {
            // They are not failures: without the finalizer they are not counted.
            self.plan.steps.extend(counting::untrack(pod));
            self.plan.steps.push(Step::delete_for(&**pod, self.job.reference(), why));
        }
        if !gone.is_empty() {
            return;
        }
        let replaces_failed_only = self.spec.pod_replacement_policy.as_deref() == Some("Failed");
        let occupied = active + if replaces_failed_only { count.terminating } else { 0 };
        let missing = wanted.saturating_sub(occupied).min(PODS_PER_PASS_MAX);
        if missing == 0 {
            return;
        }
        match self.backoff() {
            Some(until) if until > self.now => self.plan.again_at(self.now, until),
            _ => self.create(missing, count),
        }
    }

    fn create(&mut self, missing: usize, count: &Count) {
        let indexes: Vec<Option<i32>> = if index::is_indexed(&self.spec) {
            index::free(&self.spec, count).take(missing).map(Some).collect()
        } else {
            vec![None; missing]
        };
        for at in indexes {
            let mut pod = pods::from_template(&self.spec.template, self.job);
            pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
            if let Some(at) = at {
                index::assign(&mut pod, self.job.name(), at);
            }
            self.plan.steps.push(Step::create_for(&pod, self.job.reference()));
        }
    }

    /// Pods for an index that is done, or that another pod has.
    fn duplicates(&self, count: &Count) -> Vec<Arc<Pod>> {
        if index::is_indexed(&self.spec) { index::duplicates(&self.spec, count) } else { vec![] }
    }

    /// When the next pod may be made, after the failures since the last success.
    fn backoff(&self) -> Option<Timestamp> {
        let ended = |phase: &str| -> Vec<Timestamp> {
            self.pods.iter().filter(|pod| pods::phase(pod) == phase).map(|pod| counting::ended_at(pod)).collect()
        };
        let success = ended("Succeeded").into_iter().max();
        let failures: Vec<Timestamp> =
            ended("Failed").into_iter().filter(|at| success.is_none_or(|success| *at > success)).collect();
        let last = failures.iter().max()?;
        let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(16);
        let delay = (BACKOFF_MIN << doublings).min(BACKOFF_MAX);
        Some(*last + SignedDuration::from_secs(delay))
    }

    fn watch_deadline(&mut self) {
        if let (Some(seconds), Some(start), false) =
            (self.spec.active_deadline_seconds, &self.status.start_time, outcome::target(&self.status).is_some())
        {
            let at = start.0 + SignedDuration::from_secs(seconds);
            if at > self.now {
                self.plan.again_at(self.now, at);
            }
        }
    }

    /// Nothing more to do than to let the pods go, and the job itself when its time to live is over.
    fn after_the_end(&mut self) {
        let steps: Vec<Step> = self.pods.iter().filter_map(|pod| counting::untrack(pod)).collect();
        self.plan.steps.extend(steps);
        let (Some(ttl), false) = (self.spec.ttl_seconds_after_finished, self.job.is_deleted()) else { return };
        let ended = outcome::finished_at(&self.status).unwrap_or(self.now);
        let at = ended + SignedDuration::from_secs(ttl.into());
        if at > self.now {
            return self.plan.again_at(self.now, at);
        }
        let Step::Delete(delete) = Step::delete(self.job, "its time to live is over") else {
            unreachable!("delete makes a Delete")
        };
        let propagation = Some("Foreground");
        self.plan.push(Step::Delete(Delete { propagation, ..delete }));
    }
}

/// The condition type and the rest, for tests and events alike.
fn condition(type_: &str, value: &str, reason: &str, message: String, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}
