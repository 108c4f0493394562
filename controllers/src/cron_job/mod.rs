//! CronJob: makes a Job at each time of a schedule.
//!
//! A Job's name says for which time it is, so that no time gets two. The status follows from the Jobs that are there: whoever dies
//! after making a Job, and before it is noted, finds it by its name and its annotation.

mod history;
#[cfg(test)]
mod tests;
mod times;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::Resource as _;
use slipway_api::{
    batch::{CronJob, CronJobSpec, CronJobStatus, Job},
    core::ObjectReference,
    jiff::{Timestamp, tz::TimeZone},
    meta::{ObjectMeta, Time},
    schedule::{Schedule, zone},
};

use crate::{
    apply::Failure,
    caches::Caches,
    job,
    plan::{Delete, Plan, Step},
    queue::Queue,
    resource::{Key, Object, controller_of},
    run::Situation,
};
use times::{Missed, Times};

const SCHEDULED_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let own = queue.clone();
        caches.cron_jobs.on_change(move |old, new| {
            if let Some(cron_job) = new.or(old) {
                own.add(cron_job.key());
            }
        });
        let of_jobs = queue.clone();
        caches.jobs.on_change(move |old, new| {
            for job in [old, new].into_iter().flatten() {
                if let Some(owner) = controller_of(&job.metadata).filter(|owner| owner.kind == CronJob::KIND) {
                    of_jobs.add(Key::new(job.namespace(), &owner.name));
                }
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let cron_job = situation.caches.cron_jobs.get(key);
        Ok(cron_job.map(|one| plan(&one, situation.caches, situation.now, situation.failure.as_ref())).unwrap_or_default())
    }
}

/// What one pass works with.
struct Pass<'a> {
    cron_job: &'a CronJob,
    spec: CronJobSpec,
    jobs: Vec<Arc<Job>>,
    status: CronJobStatus,
    now: Timestamp,
    plan: Plan,
}

pub fn plan(cron_job: &CronJob, caches: &Caches, now: Timestamp, failure: Option<&Failure>) -> Plan {
    let mut pass = Pass {
        cron_job,
        spec: cron_job.spec.clone(),
        jobs: caches.jobs.controlled_by(cron_job.namespace(), cron_job.uid()),
        status: cron_job.status.clone().unwrap_or_default(),
        now,
        plan: Plan::nothing(),
    };
    if let Some(failure) = failure {
        pass.tell_failure(failure);
    }
    let surplus = history::surplus(&pass.spec, &pass.jobs);
    let events = pass.note_jobs(&surplus);
    let noted = pass.noted();
    pass.plan.push(Step::update_status(cron_job, &noted));
    pass.plan.steps.extend(events);
    pass.delete(&surplus, "the history is long enough");
    if !cron_job.is_deleted() {
        pass.start(caches);
    }
    pass.plan
}

impl Pass<'_> {
    fn warn(&mut self, reason: &'static str, message: impl Into<String>) {
        self.plan.push(Step::warning(self.cron_job, reason, message));
    }

    fn tell_failure(&mut self, failure: &Failure) {
        match failure.reason {
            "FailedCreate" => self.warn("FailedCreate", format!("Error creating job: {}", failure.message)),
            "FailedDelete" => self.warn("FailedDelete", format!("Deleted job: {}", failure.message)),
            _ => {}
        }
    }

    /// The object with the status as far as it is known.
    fn noted(&self) -> CronJob {
        CronJob { status: Some(self.status.clone()), ..self.cron_job.clone() }
    }

    /// Brings the status up to date with the jobs that are there, and tells of what has become of them. Those in `surplus` are as
    /// good as gone.
    fn note_jobs(&mut self, surplus: &[Arc<Job>]) -> Vec<Step> {
        let mut events = vec![];
        let mut active = vec![];
        for reference in self.status.active.take().unwrap_or_default() {
            let is_it = |job: &&Arc<Job>| Some(job.uid()) == reference.uid.as_deref();
            if surplus.iter().any(|job| is_it(&job)) {
                continue;
            }
            let name = reference.name.as_deref().unwrap_or_default();
            match self.jobs.iter().find(is_it).map(|job| job::finished(job)) {
                None => events.push(Step::event(self.cron_job, "MissingJob", format!("Active job went missing: {name}"))),
                Some(Some(condition)) => {
                    let message = format!("Saw completed job: {name}, condition: {condition}");
                    events.push(Step::event(self.cron_job, "SawCompletedJob", message));
                }
                Some(None) => active.push(reference),
            }
        }
        for job in &self.jobs {
            let made_for = self.made_for(job);
            let last = self.status.last_schedule_time.as_ref().map(|time| time.0);
            if made_for > last {
                self.status.last_schedule_time = made_for.map(Time);
            }
            let listed = active.iter().any(|reference: &ObjectReference| reference.uid.as_deref() == Some(job.uid()));
            if listed || job::finished(job).is_some() || job.is_deleted() {
                continue;
            }
            if made_for.is_some() {
                active.push(job.reference());
            } else {
                let message = format!("Saw a job that the controller did not create or forgot: {}", job.name());
                events.push(Step::warning(self.cron_job, "UnexpectedJob", message));
            }
        }
        self.status.active = Some(active).filter(|active| !active.is_empty());
        let succeeded = self.jobs.iter().filter(|job| job::finished(job) == Some("Complete"));
        let ended = succeeded.filter_map(|job| job.status.as_ref()?.completion_time.clone());
        self.status.last_successful_time = ended.chain(self.status.last_successful_time.take()).max_by_key(|time| time.0);
        events
    }

    /// The time that one of our own jobs was made for. Who else claims to be one may at least not name a time to come, which would
    /// keep all before it from being served.
    fn made_for(&self, job: &Job) -> Option<Timestamp> {
        let at: Timestamp = job.annotation(SCHEDULED_TIMESTAMP)?.parse().ok()?;
        Some(at).filter(|at| job.name() == self.job_name(*at) && *at <= self.now)
    }

    fn job_name(&self, at: Timestamp) -> String {
        format!("{}-{}", self.cron_job.name(), at.as_second() / 60)
    }

    fn delete(&mut self, jobs: &[Arc<Job>], why: &'static str) {
        for job in jobs {
            let Step::Delete(delete) = Step::delete(&**job, why) else { unreachable!("delete makes a Delete") };
            self.plan.push(Step::Delete(Delete { propagation: Some("Background"), ..delete }));
        }
        for job in jobs {
            self.plan.push(Step::event(self.cron_job, "SuccessfulDelete", format!("Deleted job {}", job.name())));
        }
    }

    /// Makes the job that is due, if one is, and asks to be called at the next time.
    fn start(&mut self, caches: &Caches) {
        let name = self.spec.time_zone.clone().unwrap_or_default();
        let zone = match zone::find(&name) {
            Ok(zone) => zone,
            Err(error) => return self.warn("UnknownTimeZone", format!("invalid timeZone: {name:?}: {error}")),
        };
        if self.spec.suspend == Some(true) {
            return;
        }
        let text = self.spec.schedule.clone();
        if text.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            );
            self.warn("UnsupportedSchedule", message);
        }
        let schedule = match Schedule::parse(&text) {
            Ok(schedule) => schedule,
            Err(error) => return self.warn("UnparseableSchedule", format!("unparseable schedule: {text:?} : {error}")),
        };
        let times = Times { schedule: &schedule, zone: &zone, now: self.now };
        let last = self.status.last_schedule_time.as_ref().or(self.cron_job.metadata.creation_timestamp.as_ref());
        let last = last.map_or(self.now, |time| time.0);
        match times.due(last, self.spec.starting_deadline_seconds) {
            Err(error) => return self.warn("InvalidSchedule", format!("invalid schedule: {text} : {error}")),
            Ok(Some((at, missed))) => self.start_at(at, missed, &zone, caches),
            Ok(None) => {}
        }
        if let Some(next) = times.upcoming(last) {
            self.plan.again_at(self.now, next);
        }
    }

    fn start_at(&mut self, at: Timestamp, missed: Missed, zone: &TimeZone, caches: &Caches) {
        let name = self.job_name(at);
        // Somebody else's: ours would have been noted.
        if caches.jobs.get(&Key::new(self.cron_job.namespace(), &name)).is_some() {
            return;
        }
        if missed == Missed::Many {
            let why = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", why);
        }
        let active = self.status.active.clone().unwrap_or_default();
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.plan.push(Step::event(self.cron_job, "JobAlreadyActive", message));
            }
            Some("Replace") => self.replace(&active),
            _ => {}
        }
        self.plan.push(Step::create(&self.job(name.clone(), at, zone)));
        self.plan.push(Step::event(self.cron_job, "SuccessfulCreate", format!("Created job {name}")));
    }

    /// They are in the status until they are deleted, so that nobody who takes over here runs the next one beside them.
    fn replace(&mut self, active: &[ObjectReference]) {
        let is_active = |job: &Job| active.iter().any(|reference| reference.uid.as_deref() == Some(job.uid()));
        let jobs: Vec<Arc<Job>> = self.jobs.iter().filter(|job| is_active(job) && !job.is_deleted()).cloned().collect();
        self.delete(&jobs, "the next one takes its place");
        let before = self.noted();
        self.status.active = None;
        let after = self.noted();
        self.plan.push(Step::update_status(&before, &after));
    }

    fn job(&self, name: String, at: Timestamp, zone: &TimeZone) -> Job {
        let template = self.spec.job_template.metadata.clone().unwrap_or_default();
        let mut annotations = template.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED_TIMESTAMP.into(), in_zone(at, zone));
        Job {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: self.cron_job.metadata.namespace.clone(),
                labels: template.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![self.cron_job.controller_reference()]),
                ..ObjectMeta::default()
            },
            spec: self.spec.job_template.spec.clone(),
            status: None,
        }
    }
}

/// As RFC 3339 has it, by the clocks of `zone`.
fn in_zone(at: Timestamp, zone: &TimeZone) -> String {
    let local = at.to_zoned(zone.clone());
    if local.offset().seconds() == 0 { at.to_string() } else { local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() }
}
