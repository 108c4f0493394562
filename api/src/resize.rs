//! Resizing a pod where it runs: what it holds of its node meanwhile, and how its status tells of it.

use crate::condition::{self, Condition};
use crate::core::{Container, ContainerStatus, Pod, ResourceRequirements};
use crate::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The condition of a pod whose node has not granted what is wanted, with one of the reasons below.
pub const PENDING: &str = "PodResizePending";
/// There is no room now.
pub const DEFERRED: &str = "Deferred";
/// The node is too small.
pub const INFEASIBLE: &str = "Infeasible";
/// The condition of a pod of which the node has granted more than is in force, or less.
pub const IN_PROGRESS: &str = "PodResizeInProgress";
/// The reason of that condition when it could not be put in force.
pub const ERROR: &str = "Error";

type List = BTreeMap<String, Text>;

/// The pod as it is to be counted: each container with the most of what is wanted, what its node has granted, and what is in
/// force there. What the node will never grant is not counted.
pub fn held(pod: &Pod) -> Cow<'_, Pod> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Cow::Borrowed(pod) };
    let none = vec![];
    let lists = [
        (&spec.containers, status.container_statuses.as_ref()),
        (spec.init_containers.as_ref().unwrap_or(&none), status.init_container_statuses.as_ref()),
    ];
    let settled = lists.iter().all(|(containers, statuses)| {
        containers.iter().all(|container| of(*statuses, container).is_none_or(|status| is_settled(container, status)))
    });
    let whole = status.resources.as_ref().filter(|_| spec.resources.is_some());
    let whole = whole.map(|actual| (actual, status.allocated_resources.as_ref()));
    let whole = whole.filter(|(actual, granted)| {
        let wanted = spec.resources.as_ref();
        Some(*actual) != wanted
            || granted.is_some_and(|granted| Some(granted) != wanted.and_then(|wanted| wanted.requests.as_ref()))
    });
    if settled && whole.is_none() {
        return Cow::Borrowed(pod);
    }
    let infeasible = is_infeasible(pod);
    let mut counted = pod.clone();
    if let Some(spec) = &mut counted.spec {
        for container in &mut spec.containers {
            count(container, status.container_statuses.as_ref(), infeasible);
        }
        for container in spec.init_containers.iter_mut().flatten() {
            count(container, status.init_container_statuses.as_ref(), infeasible);
        }
        if let (Some((actual, granted)), Some(wanted)) = (whole, &mut spec.resources) {
            *wanted = most(wanted, actual, granted, infeasible);
        }
    }
    Cow::Owned(counted)
}

/// Whether the node has said that it will never have what is wanted.
pub fn is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    condition::get(conditions, PENDING).is_some_and(|pending| pending.status() == "True" && pending.reason() == INFEASIBLE)
}

fn of<'a>(statuses: Option<&'a Vec<ContainerStatus>>, container: &Container) -> Option<&'a ContainerStatus> {
    statuses.into_iter().flatten().find(|status| status.name == container.name)
}

/// The usual case: what is wanted is in force.
fn is_settled(container: &Container, status: &ContainerStatus) -> bool {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let granted = status.allocated_resources.as_ref();
    status.resources.is_none()
        || (status.resources == container.resources && granted.is_none_or(|granted| Some(granted) == requests))
}

fn count(container: &mut Container, statuses: Option<&Vec<ContainerStatus>>, infeasible: bool) {
    let Some(status) = of(statuses, container) else { return };
    let Some(actual) = &status.resources else { return };
    let wanted = container.resources.clone().unwrap_or_default();
    container.resources = Some(most(&wanted, actual, status.allocated_resources.as_ref(), infeasible));
}

fn most(
    wanted: &ResourceRequirements,
    actual: &ResourceRequirements,
    granted: Option<&List>,
    infeasible: bool,
) -> ResourceRequirements {
    let wish = |list: &Option<List>| if infeasible { None } else { list.clone() };
    ResourceRequirements {
        requests: largest([wish(&wanted.requests), actual.requests.clone(), granted.cloned()]),
        limits: largest([wish(&wanted.limits), actual.limits.clone(), None]),
        claims: wanted.claims.clone(),
    }
}

fn largest(lists: [Option<List>; 3]) -> Option<List> {
    let given: Vec<List> = lists.into_iter().flatten().collect();
    if given.is_empty() {
        return None;
    }
    let amount = |text: &Text| Quantity::parse(&text.0).unwrap_or_default();
    let mut most = List::new();
    for (name, text) in given.into_iter().flatten() {
        match most.get(&name) {
            Some(before) if amount(before) >= amount(&text) => {}
            _ => drop(most.insert(name, text)),
        }
    }
    Some(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::requests;
    use serde_json::{Value, json};

    fn pod(wanted: Value, granted: Value, actual: Value, conditions: Value) -> Pod {
        let container = json!({"name": "c", "resources": {"requests": wanted}});
        let status = json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": granted, "resources": {"requests": actual}});
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [container]},
            "status": {"containerStatuses": [status], "conditions": conditions}}))
        .unwrap()
    }

    fn milli_cpu(wanted: &str, granted: &str, actual: &str, conditions: Value) -> i64 {
        let list = |amount: &str| json!({"cpu": amount});
        requests(&held(&pod(list(wanted), list(granted), list(actual), conditions))).milli_cpu
    }

    #[test]
    fn the_most_of_what_is_wanted_granted_and_in_force_is_held() {
        assert_eq!(milli_cpu("2", "1", "1", json!([])), 2000);
        assert_eq!(milli_cpu("500m", "1500m", "1", json!([])), 1500);
        assert_eq!(milli_cpu("500m", "500m", "1", json!([])), 1000);
        assert_eq!(milli_cpu("1", "1000m", "1", json!([])), 1000);
    }

    #[test]
    fn what_the_node_will_never_grant_is_not_held() {
        let pending = |reason: &str| json!([{"type": PENDING, "status": "True", "reason": reason}]);
        assert_eq!(milli_cpu("64", "1", "1", pending(INFEASIBLE)), 1000);
        assert_eq!(milli_cpu("64", "1", "1", pending(DEFERRED)), 64_000);
    }

    #[test]
    fn a_pod_that_has_what_it_wants_is_not_copied() {
        let list = || json!({"cpu": "1"});
        assert!(matches!(held(&pod(list(), list(), list(), json!([]))), Cow::Borrowed(_)));
        assert!(matches!(held(&Pod::default()), Cow::Borrowed(_)));
    }

    #[test]
    fn the_pods_own_resources_are_held_too() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
            "spec": {"containers": [], "resources": {"requests": {"cpu": "1"}}},
            "status": {"allocatedResources": {"cpu": "3"}, "resources": {"requests": {"cpu": "2"}}}}))
        .unwrap();
        assert_eq!(requests(&held(&pod)).milli_cpu, 3000);
    }
}
