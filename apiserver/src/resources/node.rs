//! Node: a machine that pods run on.

use super::{fill, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, keep};
use serde_json::{Value, json};
use slipway_api::condition;
pub use slipway_api::core::Node;
use slipway_api::core::Taint;
use slipway_api::name;
use std::net::IpAddr;

impl Kind for Node {
    const NAMES: Names =
        Names { short: &["no"], namespaced: false, status: true, ..Names::namespaced("", "v1", "Node", "nodes", "node") };

    fn fill_defaults(object: &mut Value) {
        if let Some(spec) = fill::made(object, "spec") {
            // The one CIDR of old and the list of today say the same.
            if let Some(first) = spec.get("podCIDRs").and_then(|cidrs| cidrs.get(0)).cloned() {
                fill::empty(spec, "podCIDR", first);
            }
            if let Some(only) = spec.get("podCIDR").filter(|cidr| cidr.as_str().is_some_and(|cidr| !cidr.is_empty())).cloned() {
                fill::missing(spec, "podCIDRs", json!([only]));
            }
        }
        if let Some(status) = fill::inner(object, "status")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            fill::missing(status, "allocatable", capacity);
        }
    }

    /// An agent registers its node with the status it has: the status is taken as it comes.
    fn prepare_create(object: &mut Value) {
        fill::missing(object, "status", json!({}));
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = self.spec.clone().unwrap_or_default();
        taints("spec.taints", spec.taints.as_deref().unwrap_or(&[]), &mut errors);
        for (index, cidr) in spec.pod_cidrs.iter().flatten().enumerate() {
            if !is_cidr(cidr) {
                let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.push(Invalid::value(format!("spec.podCIDRs[{index}]"), &json!(cidr), why));
            }
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let (new, old) = (self.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        if old.pod_cidrs.as_ref().is_some_and(|cidrs| !cidrs.is_empty()) && new.pod_cidrs != old.pod_cidrs {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(Invalid::forbidden("spec.podCIDRs", why));
        }
        if old.provider_id.as_ref().is_some_and(|id| !id.is_empty()) && new.provider_id != old.provider_id {
            let why = "node updates may not change providerID except from \"\" to valid";
            errors.push(Invalid::forbidden("spec.providerID", why));
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Status", "Whether the node can run pods."),
            Column::text("Roles", "The roles that the node's labels give it."),
            Column::AGE,
            Column::text("Version", "The version of the node's agent."),
            Column::text("Internal-IP", "The node's address inside the cluster.").wide(),
            Column::text("External-IP", "The node's address outside the cluster.").wide(),
            Column::text("OS-Image", "The operating system that the node reports.").wide(),
            Column::text("Kernel-Version", "The kernel that the node reports.").wide(),
            Column::text("Container-Runtime", "The container runtime that the node reports.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let status = self.status.clone().unwrap_or_default();
        let info = status.node_info.clone().unwrap_or_default();
        let mut state = match condition::get(status.conditions.as_deref(), "Ready") {
            Some(ready) if ready.status == "True" => "Ready".to_owned(),
            Some(_) => "NotReady".to_owned(),
            None => "Unknown".to_owned(),
        };
        if self.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
            state.push_str(",SchedulingDisabled");
        }
        let address = |kind: &str| {
            let found = status.addresses.iter().flatten().find(|address| address.type_ == kind);
            show::or_none(found.map(|address| address.address.as_str()))
        };
        let known = |text: &str| json!(if text.is_empty() { show::UNKNOWN } else { text });
        vec![
            show::name(object),
            json!(state),
            roles(self),
            age(object, now),
            json!(info.kubelet_version),
            address("InternalIP"),
            address("ExternalIP"),
            known(&info.os_image),
            known(&info.kernel_version),
            known(&info.container_runtime_version),
        ]
    }

    const SELECTABLE: &'static [&'static str] = &["spec.unschedulable"];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", (object["spec"]["unschedulable"] == true).to_string())]
    }
}

/// From labels `node-role.kubernetes.io/worker` and, older, `kubernetes.io/role=worker`.
fn roles(node: &Node) -> Value {
    let labels = node.metadata.labels.iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => Some(value.as_str()),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    show::or_none(Some(&roles.join(",")))
}

pub fn taints(at: &str, taints: &[Taint], errors: &mut Vec<Invalid>) {
    for (index, taint) in taints.iter().enumerate() {
        let at = format!("{at}[{index}]");
        rules::all(&format!("{at}.key"), &taint.key, name::qualified_name(&taint.key), errors);
        if let Some(value) = taint.value.as_deref().filter(|value| !value.is_empty()) {
            rules::all(&format!("{at}.value"), value, name::label_value(value), errors);
        }
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        rules::one_of(&format!("{at}.effect"), Some(&taint.effect), &effects, errors);
        if taints[..index].iter().any(|other| other.key == taint.key && other.effect == taint.effect) {
            errors.push(Invalid::duplicate(at, &json!(taint)));
        }
    }
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn node(spec: Value, status: Value) -> Value {
        let mut it = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n",
            "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "db"}}, "spec": spec, "status": status});
        Builtin::<super::Node>::new().fill_defaults(&mut it);
        it
    }

    #[test]
    fn cells() {
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "containerd://1.6",
                "architecture": "", "bootID": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "systemUUID": ""}});
        let row = |it: Value| Builtin::<super::Node>::new().row(&it, jiff::Timestamp::UNIX_EPOCH);
        let cells = row(node(json!({"unschedulable": true}), ready));
        assert_eq!(cells[1..3], [json!("Ready,SchedulingDisabled"), json!("db,worker")]);
        assert_eq!(cells[4..], ["v1.37.0", "10.0.0.1", "<none>", "Debian", "6.1", "containerd://1.6"].map(|cell| json!(cell)));
        assert_eq!(row(node(json!({}), json!({})))[1], "Unknown");
    }

    #[test]
    fn what_is_given_once_stays() {
        let strategy = Builtin::<super::Node>::new();
        let old = node(json!({"podCIDR": "10.244.1.0/24", "providerID": "aws:///a/i-1"}), json!({"capacity": {"cpu": "2"}}));
        assert_eq!(old["spec"]["podCIDRs"], json!(["10.244.1.0/24"]));
        assert_eq!(old["status"]["allocatable"], json!({"cpu": "2"}));
        assert_eq!(strategy.validate(&old), []);
        let fields = |errors: Vec<crate::http::error::Invalid>| errors.into_iter().map(|error| error.field).collect::<Vec<_>>();
        let new = node(json!({"podCIDR": "10.244.2.0/24"}), json!({}));
        assert_eq!(fields(strategy.validate_update(&new, &old)), ["spec.podCIDRs", "spec.providerID"]);
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let bad = node(json!({"podCIDRs": ["x"], "taints": [taint, taint, {"key": "", "effect": ""}]}), json!({}));
        assert_eq!(
            fields(strategy.validate(&bad)),
            ["spec.taints[1]", "spec.taints[2].key", "spec.taints[2].key", "spec.taints[2].effect", "spec.podCIDRs[0]"]
        );
    }
}
