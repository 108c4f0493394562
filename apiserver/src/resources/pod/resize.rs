//! `resize`: what may change of a running pod's requests and limits. The node agent carries it out, if the node has room.

use crate::http::error::Invalid;
use crate::kind::{bump_generation, keep};
use crate::resources::amounts::List;
use serde_json::{Value, json};
use slipway_api::core::{Container, Pod, PodSpec, ResourceRequirements};
use slipway_api::pod::{is_sidecar, qos_class};
use slipway_api::quantity::Quantity;

pub const SUBRESOURCE: &str = "resize";
/// Nobody comes to own a pod's own `spec.resources` by a resize, as with Kubernetes.
pub const FIELDS: &[&[&str]] = &[
    &["spec", "containers", "*", "resources"],
    &["spec", "containers", "*", "resizePolicy"],
    &["spec", "initContainers", "*", "resources"],
    &["spec", "initContainers", "*", "resizePolicy"],
];

/// What can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];
const LISTS: [&str; 2] = ["containers", "initContainers"];
const ONLY_CPU_AND_MEMORY: &str = "only cpu and memory resources are mutable";

/// All but the resources stays as it is. A list whose containers are others is left as it came, to be refused.
pub fn prepare(object: &mut Value, old: &Value) {
    let wanted = object["spec"].take();
    *object = super::with_version_of(object, old);
    for field in LISTS {
        if let Some(list) = merged(wanted[field].as_array(), old["spec"][field].as_array()) {
            object["spec"][field] = list.into();
        } else if wanted.get(field).is_some_and(|list| !list.is_null()) {
            object["spec"][field] = wanted[field].clone();
        } else {
            crate::kind::remove(&mut object["spec"], field);
        }
    }
    match wanted.get("resources").filter(|resources| !resources.is_null()) {
        Some(resources) => object["spec"]["resources"] = resources.clone(),
        None => crate::kind::remove(&mut object["spec"], "resources"),
    }
    keep(object, old, "status");
    bump_generation(object, old);
}

/// The old containers with the new resources, if they are the same containers in the same order.
fn merged(new: Option<&Vec<Value>>, old: Option<&Vec<Value>>) -> Option<Vec<Value>> {
    let (new, old) = (new?, old?);
    let same = new.len() == old.len() && new.iter().zip(old).all(|(new, old)| new["name"] == old["name"]);
    let merge = |(new, old): (&Value, &Value)| {
        let mut container = old.clone();
        ["resources", "resizePolicy"].into_iter().for_each(|field| keep(&mut container, new, field));
        container
    };
    same.then(|| new.iter().zip(old).map(merge).collect())
}

pub fn check(pod: &Pod, old: &Pod) -> Vec<Invalid> {
    let whole = |why: &str| vec![Invalid::forbidden("[]", why)];
    if super::is_mirror(old) {
        return whole("static pods cannot be resized");
    }
    let (new, before) = (pod.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    if before.os.as_ref().is_some_and(|os| os.name == "windows") {
        return whole("windows pods cannot be resized");
    }
    let mut errors = vec![];
    let status = old.status.clone().unwrap_or_default();
    let qos = status.qos_class.as_deref().filter(|class| !class.is_empty()).unwrap_or_else(|| qos_class(old));
    if qos != qos_class(pod) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(Invalid::value("spec", &json!(status.qos_class.as_deref().unwrap_or_default()), why));
    }
    if !is_supported(old) {
        errors.push(Invalid::forbidden("spec", "Pod running on node without support for resize"));
    }
    of_the_pod(&new, &before, &mut errors);
    if status.node_allocatable_resource_claim_statuses.is_some_and(|claims| !claims.is_empty()) {
        errors.push(Invalid::forbidden("spec", "pods with node allocatable resource claims cannot be resized"));
    }
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    let (new_init, old_init) = (init(&new), init(&before));
    let mut others = vec![];
    same_containers("containers", &new.containers, &before.containers, &mut others);
    same_containers("initContainers", &new_init, &old_init, &mut others);
    if !others.is_empty() {
        errors.extend(others);
        return errors;
    }
    nothing_removed("initContainers", &new_init, &old_init, &mut errors);
    nothing_removed("containers", &new.containers, &before.containers, &mut errors);
    for (new, old) in new.containers.iter().zip(&before.containers) {
        if !is_otherwise_same(new, old) {
            errors.push(Invalid::forbidden("spec", ONLY_CPU_AND_MEMORY));
        }
    }
    for (index, (new, old)) in new_init.iter().zip(&old_init).enumerate() {
        let at = format!("spec.initContainers[{index}]");
        if !is_otherwise_same(new, old) {
            errors.push(Invalid::forbidden(&at, "only cpu and memory resources for init or sidecar containers are mutable"));
        }
        let restarts = new.resize_policy.iter().flatten().any(|policy| policy.restart_policy == "RestartContainer");
        if !is_sidecar(new) && restarts && !same_resources(new.resources.as_ref(), old.resources.as_ref()) {
            let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.push(Invalid::forbidden(&at, why));
        }
    }
    errors
}

/// An agent that can resize tells of the resources of what it runs.
fn is_supported(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut running = statuses.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.next().is_none_or(|status| status.resources.is_some())
}

fn of_the_pod(new: &PodSpec, old: &PodSpec, errors: &mut Vec<Invalid>) {
    let (new, old) = (new.resources.as_ref(), old.resources.as_ref());
    let Some(wanted) = new else {
        if old.is_some_and(|old| !is_nothing(old)) {
            errors.push(Invalid::forbidden("spec.resources", "pod-level resources cannot be removed"));
        }
        return;
    };
    let none = ResourceRequirements::default();
    let before = old.unwrap_or(&none);
    if is_nothing(wanted) && is_nothing(before) {
        return;
    }
    for (field, what, new, old) in lists(wanted, before) {
        if is_removed(new, old) {
            errors.push(Invalid::forbidden(
                format!("spec.resources.{field}"),
                &format!("pod-level resource {what} cannot be removed"),
            ));
        }
    }
    if !same_resources(Some(&but_cpu_and_memory(wanted, before)), Some(before)) {
        errors.push(Invalid::forbidden("spec", "only cpu and memory resources are mutable at pod-level"));
    }
}

fn same_containers(field: &str, new: &[Container], old: &[Container], errors: &mut Vec<Invalid>) {
    if new.len() != old.len() {
        errors.push(Invalid::forbidden(format!("spec.{field}"), &format!("{field} may not be added or removed on resize")));
        return;
    }
    for (index, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
        let why = format!("{field} may not be renamed or reordered on resize");
        errors.push(Invalid::forbidden(format!("spec.{field}[{index}].name"), &why));
    }
}

fn nothing_removed(field: &str, new: &[Container], old: &[Container], errors: &mut Vec<Invalid>) {
    let none = ResourceRequirements::default();
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        let (new, old) = (new.resources.as_ref().unwrap_or(&none), old.resources.as_ref().unwrap_or(&none));
        for (list, what, new, old) in lists(new, old) {
            if is_removed(new, old) {
                let at = format!("spec.{field}[{index}].resources.{list}");
                errors.push(Invalid::forbidden(at, &format!("resource {what} cannot be removed")));
            }
        }
    }
}

type Both<'a> = (&'static str, &'static str, Option<&'a List>, Option<&'a List>);

fn lists<'a>(new: &'a ResourceRequirements, old: &'a ResourceRequirements) -> [Both<'a>; 2] {
    [
        ("requests", "requests", new.requests.as_ref(), old.requests.as_ref()),
        ("limits", "limits", new.limits.as_ref(), old.limits.as_ref()),
    ]
}

fn is_removed(new: Option<&List>, old: Option<&List>) -> bool {
    old.into_iter().flatten().any(|(name, _)| new.is_none_or(|new| !new.contains_key(name)))
}

fn is_nothing(resources: &ResourceRequirements) -> bool {
    same_resources(Some(resources), None)
}

/// The container but for what a resize may change.
fn is_otherwise_same(new: &Container, old: &Container) -> bool {
    let none = ResourceRequirements::default();
    let (wanted, before) = (new.resources.as_ref().unwrap_or(&none), old.resources.as_ref().unwrap_or(&none));
    let rest = Container { resources: old.resources.clone(), ..new.clone() };
    rest == *old && same_resources(Some(&but_cpu_and_memory(wanted, before)), Some(before))
}

/// The new resources with the old amounts of what can be resized. What is added where there was none counts as resized, too.
fn but_cpu_and_memory(new: &ResourceRequirements, old: &ResourceRequirements) -> ResourceRequirements {
    let put_back = |new: &Option<List>, old: &Option<List>| {
        let mut list = new.clone().unwrap_or_default();
        for name in RESIZABLE {
            list.remove(name);
            if let Some(amount) = old.as_ref().and_then(|old| old.get(name)) {
                list.insert(name.to_owned(), amount.clone());
            }
        }
        Some(list)
    };
    ResourceRequirements {
        limits: put_back(&new.limits, &old.limits),
        requests: put_back(&new.requests, &old.requests),
        claims: new.claims.clone(),
    }
}

/// Whether both ask for the same, however it is written.
pub fn same_resources(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> bool {
    let read = |list: Option<&List>| -> Vec<(String, Option<Quantity>)> {
        list.into_iter().flatten().map(|(name, text)| (name.clone(), Quantity::parse(&text.0).ok())).collect()
    };
    let both = |of: fn(&ResourceRequirements) -> Option<&List>| read(one.and_then(of)) == read(other.and_then(of));
    let claims = |of: Option<&ResourceRequirements>| of.and_then(|of| of.claims.clone()).unwrap_or_default();
    both(|of| of.limits.as_ref()) && both(|of| of.requests.as_ref()) && claims(one) == claims(other)
}
