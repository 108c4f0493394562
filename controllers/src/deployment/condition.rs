//! The status of a deployment: its counts, and whether it is available, progresses, or has run into its deadline.

use slipway_api::{
    apps::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    jiff::{SignedDuration, Timestamp},
    meta::Time,
};

use super::size;
use crate::resource::Object;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

fn get<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_.as_deref() == Some(type_))
}

fn reason_of<'a>(status: &'a DeploymentStatus, type_: &str) -> &'a str {
    get(status, type_).and_then(|condition| condition.reason.as_deref()).unwrap_or_default()
}

fn remove(status: &mut DeploymentStatus, type_: &str) {
    status.conditions.iter_mut().for_each(|all| all.retain(|condition| condition.type_.as_deref() != Some(type_)));
}

/// Sets a condition, unless it stands already with that status and reason.
fn set(status: &mut DeploymentStatus, type_: &str, value: &str, reason: &str, message: String, now: Timestamp) {
    let mut transition = Time(now);
    if let Some(current) = get(status, type_)
        && current.status.as_deref() == Some(value)
    {
        if current.reason.as_deref() == Some(reason) {
            return;
        }
        transition = current.last_transition_time.clone().unwrap_or(transition);
    }
    remove(status, type_);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: Some(type_.to_owned()),
        status: Some(value.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(transition),
    });
}

fn progress_deadline(deployment: &Deployment) -> Option<i32> {
    deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)
}

pub fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if progress_deadline(deployment).is_none() || reason_of(status, PROGRESSING) == TIMED_OUT {
        return;
    }
    let was_paused = reason_of(status, PROGRESSING) == "DeploymentPaused";
    match deployment.spec.paused == Some(true) {
        true if !was_paused => {
            set(status, PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".into(), now);
        }
        false if was_paused => {
            set(status, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into(), now);
        }
        _ => {}
    }
}

pub fn note_found(deployment: &Deployment, status: &mut DeploymentStatus, set_name: &str, now: Timestamp) {
    if progress_deadline(deployment).is_some() && get(status, PROGRESSING).is_none() {
        let message = format!("Found new replica set \"{set_name}\"");
        set(status, PROGRESSING, "True", "FoundNewReplicaSet", message, now);
    }
}

pub fn note_created(deployment: &Deployment, status: &mut DeploymentStatus, set_name: &str, now: Timestamp) {
    if progress_deadline(deployment).is_some() {
        let message = format!("Created new replica set \"{set_name}\"");
        set(status, PROGRESSING, "True", "NewReplicaSetCreated", message, now);
    }
}

pub fn note_create_failed(deployment: &Deployment, status: &mut DeploymentStatus, set_name: &str, why: &str, now: Timestamp) {
    if progress_deadline(deployment).is_some() {
        let message = format!("Failed to create new replica set \"{set_name}\": {why}");
        set(status, PROGRESSING, "False", "ReplicaSetCreateError", message, now);
    }
}

/// The numbers, with the conditions of `before`.
pub fn counts(
    deployment: &Deployment,
    before: &DeploymentStatus,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
) -> DeploymentStatus {
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| sets.iter().map(|set| of(set)).sum::<i32>();
    let some = |number: i32| Some(number).filter(|number| *number != 0);
    let total = sum(&size::actual);
    let available = sum(&size::available);
    let ready = sum(&|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0));
    let terminating = sum(&|set| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0));
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(total),
        updated_replicas: some(new.map_or(0, size::actual)),
        ready_replicas: some(ready),
        available_replicas: some(available),
        unavailable_replicas: some((total - available).max(0)),
        terminating_replicas: Some(terminating),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    }
}

pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = size::wanted(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas].iter().all(|n| n.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// The whole new status: counts, then Available, Progressing and ReplicaFailure.
pub fn status(
    deployment: &Deployment,
    before: &DeploymentStatus,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = counts(deployment, before, sets, new);
    let least = size::wanted(deployment) - size::max_unavailable(deployment);
    if status.available_replicas.unwrap_or(0) >= least {
        let message = "Deployment has minimum availability.".to_owned();
        set(&mut status, AVAILABLE, "True", "MinimumReplicasAvailable", message, now);
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        set(&mut status, AVAILABLE, "False", "MinimumReplicasUnavailable", message, now);
    }
    // Paused and deleted deployments are not timed.
    if deployment.spec.paused != Some(true) && !deployment.is_deleted() {
        progress(deployment, before, &mut status, new, now);
    }
    note_replica_failure(&mut status, sets, new);
    status
}

fn progress(
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    new: Option<&ReplicaSet>,
    now: Timestamp,
) {
    let Some(deadline) = progress_deadline(deployment) else { return remove(status, PROGRESSING) };
    let all_updated = status.replicas == status.updated_replicas;
    if all_updated && reason_of(status, PROGRESSING) == NEW_SET_AVAILABLE {
        return;
    }
    let subject = match new {
        Some(set) => format!("ReplicaSet \"{}\"", set.name()),
        None => format!("Deployment \"{}\"", deployment.name()),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(status, PROGRESSING, "True", NEW_SET_AVAILABLE, message, now);
    } else if has_progressed(before, status) {
        // Set anew even if it stands already: the deadline counts from the last progress.
        let standing = get(status, PROGRESSING).filter(|condition| condition.status.as_deref() == Some("True"));
        let transition = standing.and_then(|condition| condition.last_transition_time.clone());
        remove(status, PROGRESSING);
        set(status, PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."), now);
        if let (Some(transition), Some(last)) = (transition, status.conditions.iter_mut().flatten().last()) {
            last.last_transition_time = Some(transition);
        }
    } else if timed_out(status, deadline, now) {
        set(status, PROGRESSING, "False", TIMED_OUT, format!("{subject} has timed out progressing."), now);
    }
}

fn has_progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let n = |number: Option<i32>| number.unwrap_or(0);
    let old = |status: &DeploymentStatus| n(status.replicas) - n(status.updated_replicas);
    n(now.updated_replicas) > n(before.updated_replicas)
        || old(now) < old(before)
        || n(now.ready_replicas) > n(before.ready_replicas)
        || n(now.available_replicas) > n(before.available_replicas)
}

fn timed_out(status: &DeploymentStatus, deadline: i32, now: Timestamp) -> bool {
    let Some(condition) = get(status, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => condition.last_update_time.as_ref().is_some_and(|since| since.0 + SignedDuration::from_secs(deadline.into()) < now),
    }
}

/// When the deployment times out, if nothing happens until then.
pub fn deadline(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let deadline = progress_deadline(deployment)?;
    let condition = get(status, PROGRESSING)?;
    let paused = deployment.spec.paused == Some(true);
    if paused || is_complete(deployment, status) || condition.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    if condition.reason.as_deref() == Some(NEW_SET_AVAILABLE) {
        return None;
    }
    Some(condition.last_update_time.as_ref()?.0 + SignedDuration::from_secs(deadline.into()))
}

/// Passes on what a set says of pods that it cannot create or delete; the new set's word counts first.
fn note_replica_failure(status: &mut DeploymentStatus, sets: &[&ReplicaSet], new: Option<&ReplicaSet>) {
    let failure = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE)).cloned()
    };
    let found = new.and_then(failure).or_else(|| sets.iter().find_map(|set| failure(set)));
    remove(status, REPLICA_FAILURE);
    if let Some(found) = found {
        status.conditions.get_or_insert_default().push(DeploymentCondition {
            type_: found.type_,
            status: found.status,
            reason: found.reason,
            message: found.message,
            last_update_time: found.last_transition_time.clone(),
            last_transition_time: found.last_transition_time,
        });
    }
}
