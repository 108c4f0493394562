//! Node: a machine that pods run on.

use super::{fill, show};
use crate::kind::{Column, Kind, Names, age, keep};
use serde_json::{Value, json};
use slipway_api::condition;
pub use slipway_api::core::Node;

impl Kind for Node {
    const NAMES: Names =
        Names { short: &["no"], namespaced: false, status: true, ..Names::namespaced("", "v1", "Node", "nodes", "node") };

    fn fill_defaults(object: &mut Value) {
        fill::made(object, "spec");
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
