//! How a stateful set comes to a new template: pods of an older one are deleted, from the highest ordinal down to the
//! partition, as many at a time as may be unavailable.

use std::sync::Arc;

use slipway_api::{IntOrString, core::Pod};

use super::{Pass, is_rolling, partition, rolling, start, wanted};
use crate::{deployment::resolve, history::revision_of, resource::Object};

impl Pass<'_> {
    pub(super) fn roll(&mut self) {
        if !is_rolling(self.set) {
            return;
        }
        let away = self.replicas.values().filter(|pod| self.is_unavailable(pod)).count() as i32;
        let missing = wanted(self.set) - self.replicas.len() as i32;
        let mut room = self.max_unavailable() - away - missing;
        let first = start(self.set).saturating_add(partition(self.set));
        let outdated = self.replicas.range(first..).rev().map(|(_, pod)| pod);
        let outdated: Vec<Arc<Pod>> = outdated.filter(|pod| !pod.is_deleted() && self.is_outdated(pod)).cloned().collect();
        for pod in outdated {
            // Where there is no order, those that are away anyhow go at once: they cost nothing, and one that can never become
            // available must not hold up what would mend it. In order there are none, or this would not have been reached.
            if self.is_unavailable(&pod) {
                self.replace(&pod);
            } else if room > 0 {
                room -= 1;
                self.replace(&pod);
            }
        }
    }

    fn replace(&mut self, pod: &Pod) {
        self.delete(pod, "it is of an older template");
        if revision_of(pod) == self.current.name() {
            self.replaced += 1;
        }
    }

    fn max_unavailable(&self) -> i32 {
        let one = IntOrString::Int(1);
        let given = rolling(self.set).and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&one);
        resolve(Some(given), wanted(self.set), false).max(1)
    }
}
