//! What several components need to know of a pod: its phase, its readiness, the resources it asks for.

use crate::condition;
use crate::core::{Container, EphemeralContainer, Pod, PodSpec, ResourceRequirements};
use crate::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// What a container without a request is taken to need when nodes are compared, so that such containers spread too.
pub const ASSUMED_MILLI_CPU: i64 = 100;
pub const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

/// An amount of each resource: CPU in thousandths, all else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// `hugepages-2Mi`, `nvidia.com/gpu`, …
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list. What is no quantity counts as nothing: the API refuses such lists.
    pub fn from_list(list: Option<&BTreeMap<String, Text>>) -> Resources {
        let mut resources = Resources::default();
        for (name, text) in list.into_iter().flatten() {
            let quantity = Quantity::parse(&text.0).unwrap_or_default();
            resources.set(name, if name == "cpu" { quantity.milli() } else { quantity.value() });
        }
        resources
    }

    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            other => self.other.get(other).copied().unwrap_or(0),
        }
    }

    pub fn set(&mut self, name: &str, amount: i64) {
        match name {
            "cpu" => self.milli_cpu = amount,
            "memory" => self.memory = amount,
            "ephemeral-storage" => self.ephemeral_storage = amount,
            other => {
                self.other.insert(other.to_owned(), amount);
            }
        }
    }

    pub fn add(&mut self, more: &Resources) {
        self.combine(more, i64::saturating_add);
    }

    pub fn subtract(&mut self, less: &Resources) {
        self.combine(less, i64::saturating_sub);
    }

    /// The larger amount of each.
    pub fn max(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.other {
            let mine = self.other.entry(name.clone()).or_default();
            *mine = with(*mine, *amount);
        }
    }

    /// The resources that there are some of, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let fixed = [("cpu", self.milli_cpu), ("memory", self.memory), ("ephemeral-storage", self.ephemeral_storage)];
        let other = self.other.iter().map(|(name, amount)| (name.as_str(), *amount));
        fixed.into_iter().chain(other).filter(|(_, amount)| *amount != 0)
    }

    /// As a resource list of the API.
    pub fn to_list(&self) -> BTreeMap<String, Text> {
        let quantity = |name: &str, amount| match name {
            "cpu" => Quantity::from_milli(amount),
            _ if name == "memory" || name == "ephemeral-storage" || name.starts_with("hugepages-") => {
                Quantity::from_bytes(amount)
            }
            _ => Quantity::from_value(amount),
        };
        self.iter().map(|(name, amount)| (name.to_owned(), quantity(name, amount).into())).collect()
    }
}

/// `Pending` until the node agent says otherwise.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).filter(|phase| !phase.is_empty()).unwrap_or("Pending")
}

/// It has ended and won't run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_ready(pod: &Pod) -> bool {
    condition::is_true(pod.status.as_ref().and_then(|status| status.conditions.as_deref()), "Ready")
}

/// Ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    use condition::Condition;
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    let Some(ready) = condition::get(conditions, "Ready").filter(|ready| ready.status() == "True") else { return false };
    min_ready_seconds <= 0
        || ready.last_transition().is_some_and(|since| since.saturating_add(seconds(min_ready_seconds)).is_ok_and(|at| at <= now))
}

fn seconds(count: i32) -> SignedDuration {
    SignedDuration::from_secs(count.into())
}

pub fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// An ephemeral container in the form of the others; what it looks into is left out.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        target_container_name: _,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    } = ephemeral.clone();
    Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    }
}

/// What the pod takes of a node: the larger of what its containers need together, and what any init container needs beside
/// the sidecars started before it, plus the overhead of its runtime class.
pub fn requests(pod: &Pod) -> Resources {
    pod.spec.as_ref().map(|spec| effective(spec, |container| request_of(container.resources.as_ref()))).unwrap_or_default()
}

/// [`requests`], with the assumed CPU and memory for each container that asks for none.
pub fn requests_for_scoring(pod: &Pod) -> Resources {
    let assumed = |container: &Container| {
        let mut request = request_of(container.resources.as_ref());
        let list = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let missing = |name| list.is_none_or(|list| !list.contains_key(name));
        if missing("cpu") {
            request.milli_cpu = ASSUMED_MILLI_CPU;
        }
        if missing("memory") {
            request.memory = ASSUMED_MEMORY;
        }
        request
    };
    pod.spec.as_ref().map(|spec| effective(spec, assumed)).unwrap_or_default()
}

/// The limits of the whole pod, added up as requests are. A resource that some container has no limit for is absent there.
pub fn limits(pod: &Pod) -> Resources {
    let limit = |container: &Container| Resources::from_list(container.resources.as_ref().and_then(|r| r.limits.as_ref()));
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut limits = containers_need(spec, limit);
    overlay(&mut limits, spec.resources.as_ref().and_then(|resources| resources.limits.as_ref()));
    limits
}

fn request_of(resources: Option<&ResourceRequirements>) -> Resources {
    Resources::from_list(resources.and_then(|resources| resources.requests.as_ref()))
}

fn effective(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut total = containers_need(spec, of);
    overlay(&mut total, spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    total.add(&Resources::from_list(spec.overhead.as_ref()));
    total
}

fn containers_need(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut need = of(container);
        if is_sidecar(container) {
            running.add(&need);
            sidecars.add(&need);
            starting.max(&sidecars);
        } else {
            need.add(&sidecars);
            starting.max(&need);
        }
    }
    running.max(&starting);
    running
}

/// What is asked for the pod as a whole stands in place of what its containers add up to.
fn overlay(total: &mut Resources, whole: Option<&BTreeMap<String, Text>>) {
    if whole.is_some() {
        for (name, amount) in Resources::from_list(whole).iter() {
            total.set(name, amount);
        }
    }
}

/// A port of the node that a pod takes for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// `0.0.0.0` stands for all of the node's addresses.
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Two pods cannot both have it on one node.
    pub fn conflicts_with(&self, other: &HostPort) -> bool {
        let all = |port: &HostPort| port.ip == "0.0.0.0" || port.ip == "::";
        self.port == other.port && self.protocol == other.protocol && (self.ip == other.ip || all(self) || all(other))
    }
}

pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return vec![] };
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let given =
        |text: &Option<String>, default: &str| text.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| default.into());
    ports
        .filter_map(|port| Some((port, port.host_port.filter(|number| *number > 0)?)))
        .map(|(port, number)| HostPort {
            ip: given(&port.host_ip, "0.0.0.0"),
            protocol: given(&port.protocol, "TCP"),
            port: number,
        })
        .collect()
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    qos_class_of(spec.resources.as_ref(), containers.map(|container| container.resources.as_ref()))
}

/// The same, of what the pod asks for as a whole, and of what each of its containers does.
pub fn qos_class_of<'a>(
    whole: Option<&'a ResourceRequirements>,
    each: impl Iterator<Item = Option<&'a ResourceRequirements>>,
) -> &'static str {
    let whole = whole.filter(|resources| resources.requests.is_some() || resources.limits.is_some());
    let all: Vec<Option<&ResourceRequirements>> = if whole.is_some() { vec![whole] } else { each.collect() };

    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut all_limited = true;
    for resources in all {
        let add = |sums: &mut BTreeMap<&str, Quantity>, list: Option<&BTreeMap<String, Text>>| {
            let mut found = 0;
            for name in ["cpu", "memory"] {
                let amount = list.and_then(|list| list.get(name)).and_then(|text| Quantity::try_from(text).ok());
                if let Some(amount) = amount.filter(|amount| *amount > Quantity::ZERO) {
                    *sums.entry(name).or_default() += amount;
                    found += 1;
                }
            }
            found
        };
        add(&mut requests, resources.and_then(|resources| resources.requests.as_ref()));
        all_limited &= add(&mut limits, resources.and_then(|resources| resources.limits.as_ref())) == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(cpu: &str, memory: &str) -> Value {
        let mut sidecar = container(cpu, memory);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    }

    #[test]
    fn requests_are_the_larger_of_starting_and_running() {
        let need = |spec| {
            let requests = requests(&pod(spec));
            (requests.milli_cpu, requests.memory >> 20)
        };
        assert_eq!(need(json!({"containers": [container("100m", "64Mi"), container("0.2", "64Mi")]})), (300, 128));
        let containers = json!([container("100m", "64Mi")]);
        assert_eq!(need(json!({"containers": containers, "initContainers": [container("2", "1Mi")]})), (2000, 64));
        let init = json!([container("300m", "1Mi"), sidecar("100m", "10Mi"), container("200m", "100Mi"), sidecar("50m", "10Mi")]);
        assert_eq!(need(json!({"containers": containers, "initContainers": init})), (300, 110));
        let overhead = json!({"cpu": "10m", "memory": "1Mi"});
        assert_eq!(need(json!({"containers": containers, "overhead": overhead})), (110, 65));
        assert_eq!(
            need(json!({"containers": containers, "resources": {"requests": {"cpu": "1"}}, "overhead": overhead})),
            (1010, 65)
        );
    }

    #[test]
    fn other_resources_count_in_whole_units() {
        let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "2", "ephemeral-storage": "1Ki"}}}]});
        let found = requests(&pod(spec));
        assert_eq!((found.get("example.com/gpu"), found.get("ephemeral-storage"), found.get("cpu")), (2, 1024, 0));
        assert_eq!(serde_json::to_value(found.to_list()).unwrap(), json!({"ephemeral-storage": "1Ki", "example.com/gpu": "2"}));
    }

    #[test]
    fn scoring_assumes_what_is_not_asked_for() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}]});
        let found = requests_for_scoring(&pod(spec));
        assert_eq!((found.milli_cpu, found.memory), (1100, 2 * ASSUMED_MEMORY));
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        let with = |requests: Value, limits: Value| json!({"name": "c", "resources": {"requests": requests, "limits": limits}});
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let qos = |spec| qos_class(&pod(spec));
        assert_eq!(qos(json!({"containers": [{"name": "c"}]})), "BestEffort");
        assert_eq!(qos(json!({"containers": [with(full.clone(), json!({"cpu": "1000m", "memory": "1024Mi"}))]})), "Guaranteed");
        assert_eq!(qos(json!({"containers": [with(full.clone(), full.clone()), {"name": "d"}]})), "Burstable");
        assert_eq!(qos(json!({"containers": [with(json!({"cpu": "1"}), full.clone())]})), "Burstable");
        assert_eq!(qos(json!({"containers": [{"name": "c"}], "resources": {"requests": full, "limits": full}})), "Guaranteed");
    }

    #[test]
    fn host_ports_conflict_by_address_and_protocol() {
        let ports = json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"}, {"containerPort": 1}]);
        let found = host_ports(&pod(json!({"containers": [{"name": "c", "ports": ports}]})));
        let port = |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        assert_eq!(found, [port("0.0.0.0", "TCP", 80), port("10.0.0.1", "UDP", 53)]);
        assert!(found[0].conflicts_with(&port("10.0.0.1", "TCP", 80)) && !found[0].conflicts_with(&port("0.0.0.0", "UDP", 80)));
        assert!(!found[1].conflicts_with(&port("10.0.0.2", "UDP", 53)) && found[1].conflicts_with(&port("0.0.0.0", "UDP", 53)));
    }

    #[test]
    fn availability_needs_readiness_for_a_while() {
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let pod: Pod = serde_json::from_value(json!({"status": status})).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(is_ready(&pod) && !is_terminal(&pod) && is_available(&pod, 0, at("2026-01-01T00:00:00Z")));
        assert!(!is_available(&pod, 10, at("2026-01-01T00:00:09Z")) && is_available(&pod, 10, at("2026-01-01T00:00:10Z")));
        assert!(!is_available(&Pod::default(), 0, at("2026-01-01T00:00:10Z")) && phase(&Pod::default()) == "Pending");
    }
}
