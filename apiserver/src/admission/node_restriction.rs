//! NodeRestriction: a node agent writes its own Node, its own Lease and the pods bound to it, and nothing of others.

use super::{AdmissionContext, Operation, Plugin};
use crate::http::error::Status;
use async_trait::async_trait;
use serde_json::Value;

const LEASE_NAMESPACE: &str = "kube-node-lease";

pub(super) struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        let Some(node) = context.user.node() else { return Ok(()) };
        let names = context.strategy.names();
        let refused = match (names.group, names.plural) {
            ("", "nodes") => check_node(node, context.operation, object),
            ("", "pods") => check_pod(node, context.operation, context.subresource, context.old.unwrap_or(object)),
            ("coordination.k8s.io", "leases") => check_lease(node, context.namespace, object),
            _ => None,
        };
        refused.map_or(Ok(()), |why| Err(context.forbidden(object, &why)))
    }
}

fn check_node(node: &str, operation: Operation, object: &Value) -> Option<String> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if operation == Operation::Delete {
        return Some(format!("node \"{node}\" is not allowed to delete node \"{name}\"")).filter(|_| name != node);
    }
    (name != node).then(|| format!("node \"{node}\" is not allowed to modify node \"{name}\""))
}

/// `pod` is what is there now or, on create, what is to come.
fn check_pod(node: &str, operation: Operation, subresource: &str, pod: &Value) -> Option<String> {
    let own = pod["spec"]["nodeName"] == node;
    match operation {
        Operation::Create if pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_none() => {
            Some("pod does not have \"kubernetes.io/config.mirror\" annotation, ".to_owned())
                .map(|why| format!("{why}node \"{node}\" can only create mirror pods"))
        }
        Operation::Create if !own => Some(format!("node \"{node}\" can only create pods with spec.nodeName set to itself")),
        Operation::Delete if !own => Some(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself")),
        Operation::Update if subresource != "status" => Some(format!("node \"{node}\" can only update pod status")),
        Operation::Update if !own => {
            Some(format!("node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"))
        }
        _ => None,
    }
}

fn check_lease(node: &str, namespace: &str, lease: &Value) -> Option<String> {
    if namespace != LEASE_NAMESPACE {
        return Some(format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"));
    }
    let same = lease["metadata"]["name"] == node;
    (!same).then(|| "can only access node lease with the same name as the requesting node".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_writes_only_what_is_its_own() {
        let named = |name: &str| json!({"metadata": {"name": name}});
        assert_eq!(check_node("n1", Operation::Update, &named("n1")), None);
        assert!(check_node("n1", Operation::Update, &named("n2")).is_some());
        assert_eq!(check_lease("n1", LEASE_NAMESPACE, &named("n1")), None);
        assert!(check_lease("n1", "default", &named("n1")).is_some());
        assert!(check_lease("n1", LEASE_NAMESPACE, &named("n2")).is_some());
        let pod = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
        assert_eq!(check_pod("n1", Operation::Update, "status", &pod("n1")), None);
        assert!(check_pod("n1", Operation::Update, "status", &pod("n2")).is_some());
        assert!(check_pod("n1", Operation::Update, "", &pod("n1")).is_some());
        assert_eq!(check_pod("n1", Operation::Delete, "", &pod("n1")), None);
        assert!(check_pod("n1", Operation::Delete, "", &pod("n2")).is_some());
        assert!(check_pod("n1", Operation::Create, "", &pod("n1")).is_some());
    }
}
