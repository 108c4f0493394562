//! PodResizeValidator: a pod is not resized beyond what its node has for pods at all.

use super::{AdmissionContext, Plugin};
use crate::http::error::Status;
use crate::server::find;
use crate::stored;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api::core::{Node, Pod};
use slipway_api::pod::{Resources, requests};

const OS: &str = "kubernetes.io/os";

pub(super) struct PodResizeValidator;

#[async_trait]
impl Plugin for PodResizeValidator {
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        if !context.resizes() {
            return Ok(());
        }
        let node_name = object["spec"]["nodeName"].as_str().unwrap_or_default();
        let generation = |object: &Value| object["metadata"]["generation"].as_i64();
        if node_name.is_empty() || context.old.is_some_and(|old| generation(old) == generation(object)) {
            return Ok(());
        }
        let Some(node) = node(context, node_name) else {
            return Err(context.forbidden(object, &format!("node {node_name:?} not found")));
        };
        let Ok(pod) = Pod::deserialize(object) else { return Ok(()) };
        match refusal(&pod, &node) {
            Some((reason, why)) => {
                let mut refused = context.forbidden(object, &why);
                refused.details["causes"] = json!([{"reason": reason}]);
                Err(refused)
            }
            None => Ok(()),
        }
    }
}

fn node(context: &AdmissionContext<'_>, name: &str) -> Option<Node> {
    let strategy = context.server.strategy("", "v1", "nodes")?;
    let snapshot = context.server.snapshot();
    let entry = find(&snapshot, &*strategy, "", name)?;
    Node::deserialize(stored::decode(&*strategy, &entry.bytes).ok()?).ok()
}

/// Why the node will never have what is wanted, and the reason in one word.
fn refusal(pod: &Pod, node: &Node) -> Option<(&'static str, String)> {
    let os = node.metadata.labels.as_ref().and_then(|labels| labels.get(OS)).filter(|os| *os != "linux");
    if let Some(os) = os {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        return Some(("UnsupportedPlatform", format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}")));
    }
    let has = Resources::from_list(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
    let wanted = requests(pod);
    let short = [("cpu", wanted.milli_cpu, has.milli_cpu), ("memory", wanted.memory, has.memory)];
    let short = short.into_iter().filter(|(_, wanted, has)| wanted > has);
    let short: Vec<String> =
        short.map(|(name, wanted, has)| format!("{name}, requested: {wanted}, allocatable: {has}")).collect();
    let why = || format!("node didn't have enough allocatable resources: {}", short.join("; "));
    (!short.is_empty()).then(|| ("NodeCapacity", why()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_must_be_large_enough() {
        let node = |labels: Value| {
            let node =
                json!({"metadata": {"name": "n", "labels": labels}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
            serde_json::from_value::<Node>(node).unwrap()
        };
        let pod = |cpu: &str, memory: &str| {
            let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}});
            serde_json::from_value::<Pod>(json!({"metadata": {}, "spec": {"containers": [container]}})).unwrap()
        };
        assert_eq!(refusal(&pod("2", "1Gi"), &node(json!({}))), None);
        let (reason, why) = refusal(&pod("2500m", "2Gi"), &node(json!({OS: "linux"}))).unwrap();
        assert_eq!(reason, "NodeCapacity");
        assert_eq!(
            why,
            "node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; \
             memory, requested: 2147483648, allocatable: 1073741824"
        );
        let (reason, why) = refusal(&pod("1", "1Gi"), &node(json!({OS: "windows"}))).unwrap();
        assert_eq!(
            (reason, why.as_str()),
            ("UnsupportedPlatform", "pod resize is only supported on linux nodes, node \"n\" is \"windows\"")
        );
    }
}
