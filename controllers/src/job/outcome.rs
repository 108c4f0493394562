//! How a job ends: first a target (SuccessCriteriaMet, FailureTarget), and when all pods have ended, Complete or Failed.

use slipway_api::{
    batch::{JobCondition, JobStatus, PodFailurePolicyRule},
    core::{ContainerStatus, Pod},
    jiff::{SignedDuration, Timestamp},
    meta::Time,
};

use super::{Pass, condition, counting::Count};
use crate::{plan::Step, pods, resource::Object};

/// (target, end) of a job.
const SUCCESS: (&str, &str) = ("SuccessCriteriaMet", "Complete");
const FAILURE: (&str, &str) = ("FailureTarget", "Failed");

pub fn get<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

fn standing<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    get(status, type_).filter(|condition| condition.status == "True")
}

pub fn set(status: &mut JobStatus, type_: &str, value: &str, reason: &str, message: String, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(condition(type_, value, reason, message, now));
}

/// The condition that says how it ended.
pub fn end(status: &JobStatus) -> Option<&'static str> {
    [SUCCESS.1, FAILURE.1].into_iter().find(|end| standing(status, end).is_some())
}

pub fn is_finished(status: &JobStatus) -> bool {
    end(status).is_some()
}

pub fn finished_at(status: &JobStatus) -> Option<Timestamp> {
    let ended = standing(status, SUCCESS.1).or_else(|| standing(status, FAILURE.1))?;
    ended.last_transition_time.as_ref().map(|time| time.0)
}

/// The end that is decided, but not reached.
pub fn target(status: &JobStatus) -> Option<(&'static str, &JobCondition)> {
    if is_finished(status) {
        return None;
    }
    let success = standing(status, SUCCESS.0).map(|condition| (SUCCESS.1, condition));
    success.or_else(|| standing(status, FAILURE.0).map(|condition| (FAILURE.1, condition)))
}

/// (target, reason, message)
pub type Verdict = (&'static str, &'static str, String);

pub(super) fn verdict(pass: &Pass<'_>, count: &Count) -> Option<Verdict> {
    if target(&pass.status).is_some() {
        return None;
    }
    let failed = |reason: &'static str, message: String| Some((FAILURE.0, reason, message));
    if let Some(message) = failed_by_policy(pass) {
        return failed("PodFailurePolicy", message);
    }
    let limit = pass.spec.backoff_limit.unwrap_or(6);
    if count.failed_total > limit || restarts_exceed(pass, limit) {
        return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit".into());
    }
    if past_deadline(pass) {
        return failed("DeadlineExceeded", "Job was active longer than specified deadline".into());
    }
    let reached = match pass.spec.completions {
        None => count.succeeded_total > 0 && count.active.is_empty(),
        Some(completions) => count.succeeded_total >= completions,
    };
    reached.then(|| (SUCCESS.0, "CompletionsReached", "Reached expected number of succeeded pods".into()))
}

fn past_deadline(pass: &Pass<'_>) -> bool {
    let (Some(seconds), Some(start)) = (pass.spec.active_deadline_seconds, &pass.status.start_time) else { return false };
    !pass.is_suspended() && start.0 + SignedDuration::from_secs(seconds) <= pass.now
}

/// Containers that are restarted in place count, too, where pods do not fail.
fn restarts_exceed(pass: &Pass<'_>, limit: i32) -> bool {
    let policy = pass.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let alive = pass.pods.iter().filter(|pod| !pods::is_terminal(pod));
    let restarts: i32 = alive.flat_map(|pod| containers(pod)).map(|status| status.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten()))
}

/// Whether the failure policy says not to count this failure.
pub(super) fn ignores(pass: &Pass<'_>, pod: &Pod) -> bool {
    rule_for(pass, pod).is_some_and(|(_, rule)| rule.action == "Ignore")
}

fn failed_by_policy(pass: &Pass<'_>) -> Option<String> {
    let failed = pass.pods.iter().filter(|pod| pods::phase(pod) == "Failed");
    failed.into_iter().find_map(|pod| {
        let (index, rule) = rule_for(pass, pod).filter(|(_, rule)| rule.action == "FailJob")?;
        let exited = rule.on_exit_codes.as_ref().and_then(|_| {
            let ended = containers(pod).find(|status| exit_code(status).is_some_and(|code| code != 0))?;
            Some(format!(
                "Container {} for pod {} failed with exit code {} matching FailJob rule at index {index}",
                ended.name,
                pod.key(),
                exit_code(ended)?
            ))
        });
        Some(exited.unwrap_or_else(|| format!("Pod {} has a condition matching FailJob rule at index {index}", pod.key())))
    })
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn rule_for<'a>(pass: &'a Pass<'_>, pod: &Pod) -> Option<(usize, &'a PodFailurePolicyRule)> {
    let rules = &pass.spec.pod_failure_policy.as_ref()?.rules;
    rules.iter().enumerate().find(|(_, rule)| rule_matches(rule, pod))
}

fn rule_matches(rule: &PodFailurePolicyRule, pod: &Pod) -> bool {
    if let Some(wanted) = &rule.on_exit_codes {
        let mut ended = containers(pod)
            .filter(|status| wanted.container_name.as_ref().is_none_or(|name| *name == status.name))
            .filter_map(exit_code)
            .filter(|code| *code != 0);
        return ended.any(|code| wanted.values.contains(&code) == (wanted.operator == "In"));
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    patterns.into_iter().any(|pattern| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let wanted = pattern.status.as_deref().unwrap_or("True");
        conditions.into_iter().any(|condition| condition.type_ == pattern.type_ && condition.status == wanted)
    })
}

/// Writes the verdict into the status, and the end, once every pod has ended and is counted. Returns the events about it.
pub(super) fn apply(pass: &mut Pass<'_>, count: &Count, verdict: Option<Verdict>) -> Vec<Step> {
    let now = pass.now;
    if let Some((type_, reason, message)) = verdict {
        set(&mut pass.status, type_, "True", reason, message, now);
    }
    let Some((end, decided)) = target(&pass.status) else { return vec![] };
    if !(count.active.is_empty() && count.terminating == 0 && count.all_counted) {
        return vec![];
    }
    let (reason, message) = (decided.reason.clone().unwrap_or_default(), decided.message.clone().unwrap_or_default());
    set(&mut pass.status, end, "True", &reason, message.clone(), now);
    pass.status.active = None;
    if end == SUCCESS.1 {
        pass.status.completion_time = Some(Time(now));
        return vec![Step::event(pass.job, "Completed", "Job completed")];
    }
    let reason = match reason.as_str() {
        "DeadlineExceeded" => "DeadlineExceeded",
        "PodFailurePolicy" => "PodFailurePolicy",
        _ => "BackoffLimitExceeded",
    };
    vec![Step::warning(pass.job, reason, message)]
}
