//! What a stateful set says of its pods.

use slipway_api::{apps::StatefulSetStatus, core::Pod};

use super::{Pass, is_rolling, wanted};
use crate::{history::revision_of, resource::Object};

impl Pass<'_> {
    pub(super) fn status(&self) -> StatefulSetStatus {
        let count = |test: &dyn Fn(&Pod) -> bool| self.pods().filter(|pod| test(pod)).count() as i32;
        let of = |revision: &str| count(&|pod| !pod.is_deleted() && revision_of(pod) == revision);
        let replicas = count(&|_| true);
        let ready = count(&|pod| self.is_ready(pod));
        let mut current = of(self.current.name()) - self.replaced;
        let updated = of(self.update.name());
        let mut current_revision = self.current.name();
        // The update is through: the new revision is the current one.
        if is_rolling(self.set) && [updated, ready, replicas] == [wanted(self.set); 3] {
            (current, current_revision) = (updated, self.update.name());
        }
        let some = |number: i32| Some(number).filter(|number| *number != 0);
        StatefulSetStatus {
            replicas,
            ready_replicas: some(ready),
            // It is told even if it is 0.
            available_replicas: Some(count(&|pod| self.is_available(pod))),
            current_replicas: some(current),
            updated_replicas: some(updated),
            current_revision: Some(current_revision.to_owned()),
            update_revision: Some(self.update.name().to_owned()),
            collision_count: Some(self.collisions),
            observed_generation: self.set.metadata.generation,
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
        }
    }
}
