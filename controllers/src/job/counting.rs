//! Counting ended pods, each exactly once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use slipway_api::{
    batch::{JobStatus, UncountedTerminatedPods},
    core::Pod,
    jiff::Timestamp,
};

use super::{FINALIZER, Pass, index, outcome};
use crate::{plan::Step, pods, resource::Object};

/// Uids that wait in the status at a time: it is one object, and must not grow without end.
const UNCOUNTED_MAX: usize = 500;

pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

pub fn untrack(pod: &Pod) -> Option<Step> {
    let mut free = pod.clone();
    let finalizers = free.metadata.finalizers.as_mut()?;
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    free.metadata.finalizers = free.metadata.finalizers.filter(|finalizers| !finalizers.is_empty());
    Step::update(pod, &free)
}

pub fn ended_at(pod: &Pod) -> Timestamp {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ended = statuses.filter_map(|status| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)).max();
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ended.or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// How the job's pods stand.
pub struct Count {
    pub active: Vec<Arc<Pod>>,
    pub terminating: usize,
    /// Including those that are not in the stored counters yet.
    pub succeeded_total: i32,
    pub failed_total: i32,
    pub completed: BTreeSet<i32>,
    /// Pods that the stored status names: their finalizer may go.
    pub to_untrack: Vec<Arc<Pod>>,
    pub all_counted: bool,
    succeeded: i32,
    failed: i32,
    uncounted: UncountedTerminatedPods,
}

impl Count {
    /// `ending`: the job is on its way to its end, and what is deleted now has failed.
    pub(super) fn of(pass: &Pass<'_>, ending: bool) -> Count {
        let status = &pass.status;
        let tracked: HashMap<&str, &Arc<Pod>> =
            pass.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| (pod.uid(), pod)).collect();
        let stored = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let known_succeeded: BTreeSet<String> = stored.succeeded.into_iter().flatten().collect();
        let known_failed: BTreeSet<String> = stored.failed.into_iter().flatten().collect();

        let (mut succeeded, mut failed) = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
        let (mut waiting_succeeded, mut waiting_failed, mut to_untrack) = (vec![], vec![], vec![]);
        let indexed = index::is_indexed(&pass.spec);
        let mut completed = index::parse(status.completed_indexes.as_deref().unwrap_or_default());
        // First what the status names: still held by its finalizer, or to be counted now.
        for (known, counter, waiting) in
            [(&known_succeeded, &mut succeeded, &mut waiting_succeeded), (&known_failed, &mut failed, &mut waiting_failed)]
        {
            for uid in known {
                match tracked.get(uid.as_str()) {
                    Some(pod) => {
                        to_untrack.push(Arc::clone(pod));
                        waiting.push(uid.clone());
                    }
                    None => *counter += 1,
                }
            }
        }
        // Then what has ended since.
        let (mut new_succeeded, mut new_failed) = (0, 0);
        let mut all_counted = true;
        for pod in &pass.pods {
            let known = known_succeeded.contains(pod.uid()) || known_failed.contains(pod.uid());
            if known || !is_tracked(pod) {
                continue;
            }
            let Some(success) = ended(pass, pod, ending) else { continue };
            if waiting_succeeded.len() + waiting_failed.len() >= UNCOUNTED_MAX {
                all_counted = false;
                break;
            }
            if success {
                if indexed {
                    completed.extend(index::of(pod));
                }
                waiting_succeeded.push(pod.uid().to_owned());
                new_succeeded += 1;
            } else if outcome::ignores(pass, pod) {
                to_untrack.push(pod.clone());
            } else {
                waiting_failed.push(pod.uid().to_owned());
                new_failed += 1;
            }
        }
        all_counted &= waiting_succeeded.is_empty() && waiting_failed.is_empty();
        let pending = |known: &BTreeSet<String>| known.iter().filter(|uid| tracked.contains_key(uid.as_str())).count() as i32;
        let succeeded_total = succeeded + pending(&known_succeeded) + new_succeeded;
        let failed_total = failed + pending(&known_failed) + new_failed;
        if indexed {
            succeeded = completed.len() as i32;
        }
        let some = |uids: Vec<String>| Some(uids).filter(|uids| !uids.is_empty());
        Count {
            active: pass.pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect(),
            terminating: pass.pods.iter().filter(|pod| pods::is_terminating(pod)).count(),
            succeeded_total: if indexed { completed.len() as i32 } else { succeeded_total },
            failed_total,
            completed,
            to_untrack,
            all_counted,
            succeeded,
            failed,
            uncounted: UncountedTerminatedPods { succeeded: some(waiting_succeeded), failed: some(waiting_failed) },
        }
    }

    pub(super) fn record(&self, status: &mut JobStatus) {
        let some = |number: i32| Some(number).filter(|number| *number != 0);
        status.succeeded = some(self.succeeded);
        status.failed = some(self.failed);
        status.completed_indexes = Some(index::format(&self.completed)).filter(|text| !text.is_empty());
        status.uncounted_terminated_pods = Some(self.uncounted.clone());
    }
}

/// Whether the pod has ended, and if so with success. A deleted pod may never reach an end of its own, so it counts as
/// failed at once, unless the job waits for the end (`podReplacementPolicy: Failed`, or a failure policy).
fn ended(pass: &Pass<'_>, pod: &Pod, ending: bool) -> Option<bool> {
    match pods::phase(pod) {
        "Succeeded" => Some(true),
        "Failed" => Some(false),
        _ => {
            let patient = pass.spec.pod_replacement_policy.as_deref() == Some("Failed") || pass.spec.pod_failure_policy.is_some();
            (pod.is_deleted() && (!patient || ending)).then_some(false)
        }
    }
}
