//! How a stateful set comes to its number of pods: in the order of the ordinals, one after the other, or all at once.

use std::{ops::ControlFlow, sync::Arc};

use slipway_api::{apps::ControllerRevision, core::Pod};

use super::{
    Pass,
    claims::{self, Standing},
    identity, is_rolling, partition, rolling, start, wanted,
};
use crate::{
    history,
    plan::{Step, Words},
    pods,
    resource::Object,
};

/// The most steps of one pass where nothing has to be waited for.
const STEPS_PER_PASS_MAX: usize = 500;

impl Pass<'_> {
    /// Makes the pods that are missing and removes those that are too many. It breaks off where the order asks to wait.
    pub(super) fn scale(&mut self) -> ControlFlow<()> {
        let first = start(self.set);
        for place in 0..wanted(self.set) {
            if self.steps.len() >= STEPS_PER_PASS_MAX {
                return ControlFlow::Break(());
            }
            // The last ordinal there is.
            let Some(ordinal) = first.checked_add(place) else { break };
            let stands = match self.replicas.get(&ordinal).cloned() {
                Some(pod) => self.keep(ordinal, &pod),
                None => self.create(ordinal),
            };
            if !stands && self.is_ordered() {
                return ControlFlow::Break(());
            }
        }
        self.remove_surplus()
    }

    /// Sees to a pod that there should be. Answers whether the next in order may be seen to.
    fn keep(&mut self, ordinal: i32, pod: &Arc<Pod>) -> bool {
        if pods::is_terminal(pod) {
            // With whatever exit code: a pod that was evicted has ended, too. The next of the name comes when it is gone.
            if !pod.is_deleted() {
                self.delete(pod, "it ended");
            }
            return false;
        }
        if pods::phase(pod) == "Pending" {
            self.steps.extend(claims::missing(self.set, ordinal, self.caches));
        }
        self.steps.extend(claims::reown(self.set, pod, ordinal, false, self.caches));
        if let Some(step) = Step::update(&**pod, &identity::labelled(pod, ordinal)) {
            let message = format!("update Pod {} in StatefulSet {} successful", pod.name(), self.set.name());
            self.steps.extend([step, Step::event(self.set, "SuccessfulUpdate", message)]);
        }
        !self.is_unavailable(pod)
    }

    /// A pod is made when its claims are there. It stands when it is available, which is not now.
    fn create(&mut self, ordinal: i32) -> bool {
        let (name, set) = (identity::name(self.set, ordinal), self.set.name());
        let failed = format!("create Pod {name} in StatefulSet {set} failed error: ");
        match claims::standing(self.set, ordinal, self.caches) {
            Standing::Missing(claims) => self.steps.extend(claims),
            Standing::Leaving => {}
            Standing::InTheWay(why) => self.steps.push(Step::warning(self.set, "FailedCreate", format!("{failed}{why}"))),
            Standing::Complete => {
                let revision = self.revision_for(ordinal);
                let template = history::template(revision).unwrap_or_else(|| self.set.spec.template.clone());
                let pod = identity::pod_for(self.set, &template, revision.name(), ordinal);
                let words = Words { done: format!("create Pod {name} in StatefulSet {set} successful"), failed };
                self.steps.push(Step::create_for(&pod, self.set.reference()).in_words(words));
            }
        }
        false
    }

    /// What a pod is made of: below the partition of what the others still are.
    fn revision_for(&self, ordinal: i32) -> &ControllerRevision {
        let place = ordinal - start(self.set);
        let of_current = match rolling(self.set) {
            Some(_) => place < partition(self.set),
            None if is_rolling(self.set) => {
                place < self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0)
            }
            None => false,
        };
        if of_current { &self.current } else { &self.update }
    }

    /// From the highest ordinal down; in order only while all others are available, so that no more than one is away.
    fn remove_surplus(&mut self) -> ControlFlow<()> {
        for (ordinal, pod) in &self.surplus {
            self.steps.extend(claims::reown(self.set, pod, *ordinal, true, self.caches));
        }
        let lowest_away = self.surplus.iter().find(|(_, pod)| self.is_unavailable(pod)).map(|(ordinal, _)| *ordinal);
        for (ordinal, pod) in self.surplus.clone().into_iter().rev() {
            let waited_for = pod.is_deleted() || (self.is_unavailable(&pod) && lowest_away != Some(ordinal));
            if waited_for && self.is_ordered() {
                return ControlFlow::Break(());
            }
            if !pod.is_deleted() {
                self.delete(&pod, "too many replicas");
                if self.is_ordered() {
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    pub(super) fn delete(&mut self, pod: &Pod, why: &'static str) {
        let (name, set) = (pod.name(), self.set.name());
        let words = Words {
            done: format!("delete Pod {name} in StatefulSet {set} successful"),
            failed: format!("delete Pod {name} in StatefulSet {set} failed error: "),
        };
        self.steps.push(Step::delete_for(pod, self.set.reference(), why).in_words(words));
    }
}
