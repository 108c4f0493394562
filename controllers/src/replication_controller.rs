//! ReplicationController: a ReplicaSet by another name. All but the form of its selector and status is decided in
//! [`replica_set`].

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use slipway_api::{
    apps::{ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus},
    core::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus},
    meta::LabelSelector,
    selector::Selector,
};

use crate::{
    caches::Caches,
    claim::{self, matches},
    plan::Plan,
    queue::Queue,
    replica_set::{self, Replicated},
    resource::Key,
    run::Situation,
};

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "replication-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        claim::watch(
            caches,
            queue,
            |caches| &caches.replication_controllers,
            |caches| &caches.pods,
            |controller, pod| matches(&Selector::from(&controller.wish().selector), &pod.metadata),
        );
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(controller) = situation.caches.replication_controllers.get(key) else { return Ok(Plan::nothing()) };
        Ok(replica_set::plan(&*controller, situation.caches, situation.now, situation.failure.as_ref()))
    }
}

impl Replicated for ReplicationController {
    fn wish(&self) -> ReplicaSetSpec {
        let spec = self.spec.clone().unwrap_or_default();
        ReplicaSetSpec {
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            template: spec.template,
        }
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.map(|conditions| {
            let convert = |one: ReplicationControllerCondition| ReplicaSetCondition {
                type_: Some(one.type_),
                status: Some(one.status),
                reason: one.reason,
                message: one.message,
                last_transition_time: one.last_transition_time,
            };
            conditions.into_iter().map(convert).collect()
        });
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions,
        }
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let conditions = status.conditions.map(|conditions| {
            let convert = |one: ReplicaSetCondition| ReplicationControllerCondition {
                type_: one.type_.unwrap_or_default(),
                status: one.status.unwrap_or_default(),
                reason: one.reason,
                message: one.message,
                last_transition_time: one.last_transition_time,
            };
            conditions.into_iter().map(convert).collect()
        });
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions,
        };
        ReplicationController { status: Some(status), ..self.clone() }
    }

    fn siblings(&self, _caches: &Caches) -> HashSet<String> {
        HashSet::new()
    }
}
