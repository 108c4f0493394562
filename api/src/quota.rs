//! What objects use of a ResourceQuota, and which objects a quota is about: the same rules for who admits and who counts.

use crate::core::{
    Affinity, PersistentVolumeClaim, Pod, PodAffinityTerm, PodSpec, ResourceQuotaSpec, ResourceRequirements,
    ScopedResourceSelectorRequirement, Service, WeightedPodAffinityTerm,
};
use crate::pod::{is_sidecar, is_terminal, qos_class};
use crate::quantity::Quantity;
use crate::resize::held;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::{BTreeMap, BTreeSet};

pub type Amounts = BTreeMap<String, Quantity>;
type List = BTreeMap<String, Text>;

/// Kinds of the core group that a quota may count by their plural alone.
const BY_PLURAL: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
/// What every container must ask for once a quota limits it. Kubernetes regrets it, and has no more of them.
const MUST_BE_SAID: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// An object, as far as quotas are concerned.
#[derive(Debug, Clone, Copy)]
pub enum Measured<'a> {
    Pod(&'a Pod),
    Service(&'a Service),
    Claim(&'a PersistentVolumeClaim),
    /// Only counted.
    Other,
}

/// `count/pods`, `count/deployments.apps`
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Kinds that no quota counts.
pub fn is_ignored(plural: &str) -> bool {
    plural == "events"
}

fn one() -> Quantity {
    Quantity::from_value(1)
}

/// What the object uses. `group` and `plural` are those of its kind.
pub fn usage(group: &str, plural: &str, object: Measured<'_>, now: Timestamp) -> Amounts {
    let mut usage = Amounts::from([(count_name(group, plural), one())]);
    match object {
        Measured::Pod(pod) if is_charged(pod, now) => usage.extend(compute(&totals(&held(pod), true))),
        Measured::Pod(_) => {}
        Measured::Service(service) => usage.extend(of_service(service)),
        Measured::Claim(claim) => usage.extend(of_claim(claim)),
        Measured::Other if group.is_empty() && BY_PLURAL.contains(&plural) => {
            usage.insert(plural.to_owned(), one());
        }
        Measured::Other => {}
    }
    usage
}

/// Which of the limited resources objects of the kind use.
pub fn tracked<'a>(group: &str, plural: &str, limited: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    let count = count_name(group, plural);
    let tracks = |resource: &str| {
        resource == count
            || match (group, plural) {
                ("", "pods") => of_pods(resource),
                ("", "services") => ["services", "services.loadbalancers", "services.nodeports"].contains(&resource),
                ("", "persistentvolumeclaims") => {
                    ["persistentvolumeclaims", "requests.storage"].contains(&resource) || resource.contains(STORAGE_CLASS)
                }
                ("", plural) => BY_PLURAL.contains(&plural) && resource == plural,
                _ => false,
            }
    };
    limited.into_iter().filter(|resource| tracks(resource)).cloned().collect()
}

fn of_pods(resource: &str) -> bool {
    let bare = resource.strip_prefix("requests.").or_else(|| resource.strip_prefix("limits.")).unwrap_or(resource);
    let asked = resource.strip_prefix("requests.");
    resource == "pods"
        || COMPUTE.contains(&bare)
        || resource.starts_with(HUGE_PAGES)
        || asked.is_some_and(|name| name.starts_with(HUGE_PAGES) || is_extended(name))
}

/// What a device plugin offers: `nvidia.com/gpu`.
fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.contains("kubernetes.io/") && !resource.starts_with("requests.")
}

/// A pod that has ended, or should have been gone, uses nothing any more.
fn is_charged(pod: &Pod, now: Timestamp) -> bool {
    if is_terminal(pod) {
        return false;
    }
    let metadata = &pod.metadata;
    match (&metadata.deletion_timestamp, metadata.deletion_grace_period_seconds) {
        (Some(at), Some(grace)) => at.0.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now <= end),
        _ => true,
    }
}

/// What a pod asks for and is limited to in all.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Totals {
    pub requests: Amounts,
    pub limits: Amounts,
}

/// The containers together, or the init container that needs more; `overhead`: what the pod costs beside them.
pub fn totals(pod: &Pod, overhead: bool) -> Totals {
    let Some(spec) = &pod.spec else { return Totals::default() };
    let mut requests = together(spec, |resources| resources.requests.as_ref());
    let mut limits = together(spec, |resources| resources.limits.as_ref());
    if overhead {
        for (resource, amount) in read(spec.overhead.as_ref()) {
            if let Some(limit) = limits.get_mut(&resource) {
                *limit += amount;
            }
            *requests.entry(resource).or_default() += amount;
        }
    }
    Totals { requests, limits }
}

fn read(list: Option<&List>) -> Amounts {
    let amounts = list.into_iter().flatten();
    amounts.filter_map(|(resource, text)| Some((resource.clone(), Quantity::parse(&text.0).ok()?))).collect()
}

fn together(spec: &PodSpec, of: impl Fn(&ResourceRequirements) -> Option<&List>) -> Amounts {
    let amounts = |resources: Option<&ResourceRequirements>| read(resources.and_then(&of));
    let mut all = Amounts::new();
    for container in &spec.containers {
        add(&mut all, &amounts(container.resources.as_ref()));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = amounts(container.resources.as_ref());
        let mut at_once = sidecars.clone();
        add(&mut at_once, &own);
        if is_sidecar(container) {
            add(&mut all, &own);
            sidecars = at_once.clone();
        }
        raise(&mut most, &at_once);
    }
    raise(&mut all, &most);
    // What is said of the pod as a whole stands instead of what its containers say.
    for (resource, amount) in amounts(spec.resources.as_ref()) {
        all.insert(resource, amount);
    }
    all
}

pub fn add(into: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        *into.entry(resource.clone()).or_default() += *amount;
    }
}

fn raise(into: &mut Amounts, to: &Amounts) {
    for (resource, amount) in to {
        let own = into.entry(resource.clone()).or_insert(*amount);
        *own = (*own).max(*amount);
    }
}

/// Requests and limits under the names that quotas know them by.
fn compute(totals: &Totals) -> Amounts {
    let mut usage = Amounts::from([("pods".to_owned(), one())]);
    for (resource, amount) in &totals.requests {
        if COMPUTE.contains(&resource.as_str()) || resource.starts_with(HUGE_PAGES) {
            usage.insert(resource.clone(), *amount);
            usage.insert(format!("requests.{resource}"), *amount);
        } else if is_extended(resource) {
            usage.insert(format!("requests.{resource}"), *amount);
        }
    }
    for (resource, amount) in totals.limits.iter().filter(|(resource, _)| COMPUTE.contains(&resource.as_str())) {
        usage.insert(format!("limits.{resource}"), *amount);
    }
    usage
}

fn of_service(service: &Service) -> Amounts {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let type_ = spec.type_.as_deref().unwrap_or("ClusterIP");
    let node_ports = match type_ {
        "NodePort" => ports.len(),
        "LoadBalancer" if spec.allocate_load_balancer_node_ports == Some(false) => {
            ports.iter().filter(|port| port.node_port.is_some_and(|port| port != 0)).count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    let count = |count: usize| Quantity::from_value(i64::try_from(count).unwrap_or(i64::MAX));
    Amounts::from([
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(usize::from(type_ == "LoadBalancer"))),
    ])
}

fn of_claim(claim: &PersistentVolumeClaim) -> Amounts {
    let mut usage = Amounts::from([("persistentvolumeclaims".to_owned(), one())]);
    let annotated = claim.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let spec = claim.spec.clone().unwrap_or_default();
    let class = annotated.cloned().or(spec.storage_class_name).filter(|class| !class.is_empty());
    let requests = read(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let asked = requests.get("storage").copied();
    // What the volume already has counts until it has become smaller.
    let allocated = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
    let allocated = read(allocated).get("storage").copied();
    if let Some(storage) = asked.into_iter().chain(allocated).max() {
        usage.insert("requests.storage".into(), storage);
        usage.extend(class.iter().map(|class| (format!("{class}{STORAGE_CLASS}requests.storage"), storage)));
    }
    usage.extend(class.map(|class| (format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), one())));
    usage
}

/// `must specify limits.cpu for: a,b; memory for: a`: what containers do not say although a quota that limits
/// `tracked` needs it; `None` if all is said.
pub fn unsaid(tracked: &BTreeSet<String>, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    // A pod that says it as a whole need not have its containers say it.
    let list = |resources: Option<&ResourceRequirements>| Totals {
        requests: read(resources.and_then(|resources| resources.requests.as_ref())),
        limits: read(resources.and_then(|resources| resources.limits.as_ref())),
    };
    let whole = compute(&list(spec.resources.as_ref()));
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let said = compute(&list(container.resources.as_ref()));
        let needed = MUST_BE_SAID.into_iter().filter(|resource| tracked.contains(*resource));
        for resource in needed.filter(|resource| !said.contains_key(*resource) && !whole.contains_key(*resource)) {
            missing.entry(resource).or_default().insert(&container.name);
        }
    }
    let each = missing
        .into_iter()
        .map(|(resource, names)| format!("{resource} for: {}", names.into_iter().collect::<Vec<_>>().join(",")));
    let each: Vec<String> = each.collect();
    (!each.is_empty()).then(|| format!("must specify {}", each.join("; ")))
}

/// Whether the quota is about the object: whether it has all of the quota's scopes. Only pods have any.
pub fn is_in_scope(spec: &ResourceQuotaSpec, object: Measured<'_>) -> bool {
    let exists =
        |scope: &String| ScopedResourceSelectorRequirement { operator: "Exists".into(), scope_name: scope.clone(), values: None };
    let plain = spec.scopes.iter().flatten().map(exists);
    let selected = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten()).cloned();
    plain.chain(selected).all(|requirement| match object {
        Measured::Pod(pod) => has_scope(pod, &requirement),
        _ => false,
    })
}

fn has_scope(pod: &Pod, requirement: &ScopedResourceSelectorRequirement) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let terminating = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    let best_effort = || qos_class(pod) == "BestEffort";
    match requirement.scope_name.as_str() {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "CrossNamespacePodAffinity" => spec.affinity.as_ref().is_some_and(crosses_namespaces),
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().filter(|class| !class.is_empty());
            let listed = class.is_some_and(|class| requirement.values.iter().flatten().any(|value| value == class));
            match requirement.operator.as_str() {
                "Exists" => class.is_some(),
                "DoesNotExist" => class.is_none(),
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        }
        _ => false,
    }
}

fn crosses_namespaces(affinity: &Affinity) -> bool {
    fn crosses(term: &PodAffinityTerm) -> bool {
        term.namespaces.as_ref().is_some_and(|namespaces| !namespaces.is_empty()) || term.namespace_selector.is_some()
    }
    fn any(required: Option<&Vec<PodAffinityTerm>>, preferred: Option<&Vec<WeightedPodAffinityTerm>>) -> bool {
        required.into_iter().flatten().any(crosses)
            || preferred.into_iter().flatten().any(|weighted| crosses(&weighted.pod_affinity_term))
    }
    let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    near.is_some_and(|near| {
        any(
            near.required_during_scheduling_ignored_during_execution.as_ref(),
            near.preferred_during_scheduling_ignored_during_execution.as_ref(),
        )
    }) || far.is_some_and(|far| {
        any(
            far.required_during_scheduling_ignored_during_execution.as_ref(),
            far.preferred_during_scheduling_ignored_during_execution.as_ref(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    fn text(amounts: &Amounts) -> String {
        amounts.iter().map(|(resource, amount)| format!("{resource}={amount}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_pod_uses_what_it_asks_for() {
        let it = pod(json!({
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m", "nvidia.com/gpu": "1", "hugepages-2Mi": "4Mi"}, "limits": {"cpu": "1"}}},
                {"name": "b", "resources": {"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": {"cpu": "1"}}},
            ],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "500m"}}}],
            "overhead": {"cpu": "10m"},
        }));
        assert_eq!(
            text(&usage("", "pods", Measured::Pod(&it), now())),
            "count/pods=1 cpu=510m hugepages-2Mi=4Mi limits.cpu=2010m memory=1Gi pods=1 requests.cpu=510m \
             requests.hugepages-2Mi=4Mi requests.memory=1Gi requests.nvidia.com/gpu=1"
        );
        let mut ended = it.clone();
        ended.status = Some(serde_json::from_value(json!({"phase": "Succeeded"})).unwrap());
        assert_eq!(text(&usage("", "pods", Measured::Pod(&ended), now())), "count/pods=1");
        let mut late = it;
        late.metadata =
            serde_json::from_value(json!({"deletionTimestamp": "2025-12-31T23:00:00Z", "deletionGracePeriodSeconds": 30}))
                .unwrap();
        assert_eq!(text(&usage("", "pods", Measured::Pod(&late), now())), "count/pods=1");
    }

    #[test]
    fn services_claims_and_the_rest_are_counted() {
        let service = |spec: Value| {
            let it: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            text(&usage("", "services", Measured::Service(&it), now()))
        };
        let ports = || json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
        assert_eq!(
            service(json!({"ports": ports()})),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=0"
        );
        assert!(
            service(json!({"type": "NodePort", "ports": ports()})).ends_with("services.loadbalancers=0 services.nodeports=2")
        );
        let balanced = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports()});
        assert!(service(balanced).ends_with("services.loadbalancers=1 services.nodeports=1"));
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {}, "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
        }))
        .unwrap();
        assert_eq!(
            text(&usage("", "persistentvolumeclaims", Measured::Claim(&claim), now())),
            "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
             gold.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi"
        );
        assert_eq!(text(&usage("", "secrets", Measured::Other, now())), "count/secrets=1 secrets=1");
        assert_eq!(text(&usage("apps", "deployments", Measured::Other, now())), "count/deployments.apps=1");
    }

    #[test]
    fn each_kind_uses_its_own_resources() {
        let limited: Vec<String> = [
            "pods",
            "cpu",
            "limits.memory",
            "requests.nvidia.com/gpu",
            "requests.hugepages-2Mi",
            "requests.storage",
            "services",
            "gold.storageclass.storage.k8s.io/requests.storage",
            "secrets",
            "count/secrets",
            "count/widgets.example.com",
        ]
        .map(str::to_owned)
        .into();
        let of = |group: &str, plural: &str| tracked(group, plural, &limited).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(of("", "pods"), "cpu limits.memory pods requests.hugepages-2Mi requests.nvidia.com/gpu");
        assert_eq!(of("", "persistentvolumeclaims"), "gold.storageclass.storage.k8s.io/requests.storage requests.storage");
        assert_eq!(of("", "secrets"), "count/secrets secrets");
        assert_eq!(
            (of("example.com", "widgets").as_str(), of("example.com", "secrets").as_str()),
            ("count/widgets.example.com", "")
        );
    }

    #[test]
    fn what_a_quota_limits_must_be_said() {
        let it = pod(json!({"containers": [{"name": "b", "resources": {"requests": {"memory": "1"}}}, {"name": "a"}]}));
        let tracked = ["limits.cpu", "memory", "pods", "requests.nvidia.com/gpu"].map(str::to_owned).into();
        assert_eq!(unsaid(&tracked, &it), Some("must specify limits.cpu for: a,b; memory for: a".into()));
        assert_eq!(unsaid(&BTreeSet::from(["pods".to_owned()]), &it), None);
    }

    #[test]
    fn scopes() {
        let spec = |spec: Value| serde_json::from_value::<ResourceQuotaSpec>(spec).unwrap();
        let has = |pod: &Pod, scopes: Value| is_in_scope(&spec(json!({"scopes": scopes})), Measured::Pod(pod));
        let plain = pod(json!({"containers": [{"name": "c"}]}));
        let busy = pod(
            json!({"activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}),
        );
        assert!(has(&plain, json!(["BestEffort", "NotTerminating"])) && !has(&busy, json!(["BestEffort"])));
        assert!(has(&busy, json!(["NotBestEffort", "Terminating", "PriorityClass"])) && !has(&plain, json!(["PriorityClass"])));
        let by = |pod: &Pod, operator: &str| {
            let values = if operator.ends_with("In") { json!(["high"]) } else { json!(null) };
            let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            is_in_scope(&spec(json!({"scopeSelector": {"matchExpressions": [expression]}})), Measured::Pod(pod))
        };
        assert_eq!(["Exists", "DoesNotExist", "In", "NotIn"].map(|operator| by(&busy, operator)), [true, false, true, false]);
        assert_eq!(["Exists", "DoesNotExist", "In", "NotIn"].map(|operator| by(&plain, operator)), [false, true, false, true]);
        let across =
            pod(json!({"containers": [], "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "t", "namespaceSelector": {}}]}}}));
        assert!(has(&across, json!(["CrossNamespacePodAffinity"])) && !has(&busy, json!(["CrossNamespacePodAffinity"])));
        assert!(!is_in_scope(&spec(json!({"scopes": ["BestEffort"]})), Measured::Other));
        assert!(is_in_scope(&spec(json!({})), Measured::Other));
    }
}
