//! NodeRestriction: a node agent writes its own Node, its own Lease and the pods bound to it, and nothing of others; and of
//! its own it leaves alone what would draw pods to it.

use super::{AdmissionContext, Operation, Plugin};
use crate::authorization::facts::{Referred, referred};
use crate::http::Call;
use crate::http::error::Status;
use crate::server::find;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use x509_parser::prelude::FromDer;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// The labels of Kubernetes' own that an agent puts on its Node, and the prefixes of which it may put any.
const AGENTS_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const AGENTS_PREFIXES: [&str; 2] = ["node.kubernetes.io", "kubelet.kubernetes.io"];
/// The signers of nodes' certificates.
const NODE_SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

pub(super) struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        let Some(node) = context.user.node() else { return Ok(()) };
        let names = context.strategy.names();
        let refused = match (names.group, names.plural) {
            ("", "nodes") => check_node(node, context.operation, object, context.old),
            ("", "pods") if context.operation == Operation::Create => {
                check_mirror_pod(node, object).or_else(|| check_owner(context, node, object))
            }
            ("", "pods") => check_pod(node, context.operation, context.subresource, context.old.unwrap_or(object), object),
            ("", "persistentvolumeclaims") if context.subresource != "status" => Some("may only update PVC status".to_owned()),
            ("coordination.k8s.io", "leases") => check_lease(node, context.namespace, object),
            ("storage.k8s.io", "csinodes") if object["metadata"]["name"] != node => {
                Some("can only access CSINode with the same name as the requesting node".to_owned())
            }
            ("resource.k8s.io", "resourceslices") => check_slice(node, context.operation, object),
            ("certificates.k8s.io", "certificatesigningrequests") if context.operation == Operation::Create => {
                check_request(&context.user.name, object)
            }
            _ => None,
        };
        refused.map_or(Ok(()), |why| Err(context.forbidden(object, &why)))
    }
}

fn check_node(node: &str, operation: Operation, object: &Value, old: Option<&Value>) -> Option<String> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if operation == Operation::Delete {
        return Some(format!("node \"{node}\" is not allowed to delete node \"{name}\"")).filter(|_| name != node);
    }
    if name != node {
        return Some(format!("node \"{node}\" is not allowed to modify node \"{name}\""));
    }
    let forbidden = forbidden_labels(object, old);
    let Some(old) = old else {
        return (!forbidden.is_empty())
            .then(|| format!("node \"{node}\" is not allowed to set the following labels: {}", forbidden.join(", ")));
    };
    let list = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let differs = |pointer: &str| list(object, pointer) != list(old, pointer);
    if differs("/spec/taints") {
        return Some(format!("node \"{node}\" is not allowed to modify taints"));
    }
    if differs("/metadata/ownerReferences") {
        return Some(format!("node \"{node}\" is not allowed to modify ownerReferences"));
    }
    (!forbidden.is_empty()).then(|| format!("node \"{node}\" is not allowed to modify labels: {}", forbidden.join(", ")))
}

/// The labels that were set, changed or removed and are not the agent's to write.
fn forbidden_labels(object: &Value, old: Option<&Value>) -> Vec<String> {
    let empty = serde_json::Map::new();
    let labels = |object: &Value| object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (new, old) = (labels(object), old.map_or(empty, labels));
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let modified = keys.into_iter().filter(|key| new.get(*key) != old.get(*key));
    modified.filter(|key| is_forbidden(key)).cloned().collect()
}

fn is_forbidden(label: &str) -> bool {
    let prefix = label.split_once('/').map_or("", |(prefix, _)| prefix);
    let of = |domain: &str| prefix == domain || prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let agents = || AGENTS_LABELS.contains(&label) || AGENTS_PREFIXES.into_iter().any(of);
    of(RESTRICTED) || ((of("kubernetes.io") || of("k8s.io")) && !agents())
}

/// A pod that an agent makes is the image of one that it runs by itself, and gets nothing of the cluster.
fn check_mirror_pod(node: &str, pod: &Value) -> Option<String> {
    let only = |what: &str| Some(format!("node \"{node}\" can only create pods with {what}"));
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        return Some(format!("pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"));
    }
    if pod["spec"]["nodeName"] != node {
        return only("spec.nodeName set to itself");
    }
    match pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default() {
        [owner] if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node => {
            return only("an owner reference set to itself");
        }
        [owner] if owner["controller"] != true => return only("a controller owner reference set to itself"),
        [owner] if owner["blockOwnerDeletion"] == true => {
            return Some(format!("node \"{node}\" must not set blockOwnerDeletion on an owner reference"));
        }
        [_] => {}
        [] => return only("an owner reference set to itself"),
        _ => return only("a single owner reference set to itself"),
    }
    let named = referred(&pod["spec"]);
    let refers = |kind: Referred| named.iter().any(|(own, _)| *own == kind);
    let volume = |field: &str| pod["spec"]["volumes"].as_array().into_iter().flatten().any(|volume| !volume[field].is_null());
    let what = match () {
        () if refers(Referred::ServiceAccount) => "a service account",
        () if refers(Referred::Secret) => "secrets",
        () if refers(Referred::ConfigMap) => "configmaps",
        () if volume("persistentVolumeClaim") => "persistentvolumeclaims",
        () if pod["spec"]["resourceClaims"].as_array().is_some_and(|claims| !claims.is_empty()) => "resourceclaims",
        () => return None,
    };
    Some(format!("node \"{node}\" can not create pods that reference {what}"))
}

fn check_owner(context: &AdmissionContext<'_>, node: &str, pod: &Value) -> Option<String> {
    let nodes = context.server.strategy("", "v1", "nodes")?;
    let owner = &pod["metadata"]["ownerReferences"][0]["uid"];
    let stored = crate::verbs::get::get_cached(&context.server.snapshot(), &*nodes, "", node)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (stored["metadata"]["uid"] != *owner)
        .then(|| format!("node {node} UID mismatch: expected {} got {}", text(owner), text(&stored["metadata"]["uid"])))
}

/// `pod` is what is there now, `new` what is to come.
fn check_pod(node: &str, operation: Operation, subresource: &str, pod: &Value, new: &Value) -> Option<String> {
    let own = pod["spec"]["nodeName"] == node;
    match operation {
        Operation::Delete if !own => Some(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself")),
        Operation::Update if subresource != "status" => Some(format!("node \"{node}\" can only update pod status")),
        Operation::Update if !own => {
            Some(format!("node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"))
        }
        Operation::Update if pod["metadata"].get("labels") != new["metadata"].get("labels") => {
            Some(format!("node \"{node}\" cannot update labels through pod status"))
        }
        Operation::Update if pod["status"].get("resourceClaimStatuses") != new["status"].get("resourceClaimStatuses") => {
            Some(format!("node \"{node}\" cannot update resource claim statuses"))
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

/// What the authoriser can't see: the node of a slice that is to be made, and of each one of a collection that is to go.
fn check_slice(node: &str, operation: Operation, slice: &Value) -> Option<String> {
    let verb = match operation {
        Operation::Create => "create",
        Operation::Delete => "delete",
        _ => return None,
    };
    let own = slice["spec"]["nodeName"] == node;
    (!own).then(|| format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

/// A node asks for no other node's certificate.
fn check_request(user: &str, request: &Value) -> Option<String> {
    let spec = &request["spec"];
    if !NODE_SIGNERS.iter().any(|signer| spec["signerName"] == *signer) {
        return None;
    }
    let name = spec["request"].as_str().and_then(|text| STANDARD.decode(text).ok()).and_then(|pem| common_name(&pem));
    match name {
        None => Some("unable to parse csr".to_owned()),
        Some(name) if name.starts_with("system:node:") && name != user => {
            Some(format!("can only create a node CSR with CN={user}"))
        }
        Some(_) => None,
    }
}

fn common_name(pem: &[u8]) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, parsed) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents).ok()?;
    let name = parsed
        .certification_request_info
        .subject
        .iter_common_name()
        .next()
        .map(|name| name.as_str().unwrap_or_default().to_owned());
    Some(name.unwrap_or_default())
}

/// A node asks for tokens of the accounts of its own pods, and bound to them.
pub fn check_token(call: &Call, request: &Value) -> Result<(), Status> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let bound = &request["spec"]["boundObjectRef"];
    let text = |field: &str| bound[field].as_str().unwrap_or_default();
    let (name, uid) = (text("name"), text("uid"));
    let snapshot = call.server.snapshot();
    let pods = call.server.strategy("", "v1", "pods");
    let runs_here = || {
        let entry = pods.as_ref().and_then(|pods| find(&snapshot, &**pods, call.namespace(), name));
        // One that is not there is told as such when the token is bound to it.
        entry.is_none_or(|entry| entry.attributes.fields.iter().any(|(field, value)| *field == "spec.nodeName" && value == node))
    };
    let why = match () {
        () if text("apiVersion") != "v1" || text("kind") != "Pod" || name.is_empty() => "node requested token not bound to a pod",
        () if uid.is_empty() => "node requested token with a pod binding without a uid",
        () if !runs_here() => "node requested token bound to a pod scheduled on a different node",
        () => return Ok(()),
    };
    let message = format!("serviceaccounts \"{}\" is forbidden: {why}", call.name());
    Err(Status::forbidden(message).with_details(json!({"name": call.name(), "kind": "serviceaccounts"})))
}

/// A node evicts its own pods.
pub fn check_eviction(call: &Call) -> Result<(), Status> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let entry = find(&call.server.snapshot(), &*call.strategy, call.namespace(), call.name()).cloned();
    let own =
        entry.is_none_or(|entry| entry.attributes.fields.iter().any(|(field, value)| *field == "spec.nodeName" && value == node));
    if own {
        return Ok(());
    }
    let message =
        format!("pods \"{}\" is forbidden: node {node} can only evict pods with spec.nodeName set to itself", call.name());
    Err(Status::forbidden(message).with_details(json!({"name": call.name(), "kind": "pods"})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_writes_only_what_is_its_own() {
        let named = |name: &str| json!({"metadata": {"name": name}});
        assert_eq!(check_node("n1", Operation::Update, &named("n1"), Some(&named("n1"))), None);
        assert!(check_node("n1", Operation::Update, &named("n2"), Some(&named("n2"))).is_some());
        assert_eq!(check_lease("n1", LEASE_NAMESPACE, &named("n1")), None);
        assert!(check_lease("n1", "default", &named("n1")).is_some());
        assert!(check_lease("n1", LEASE_NAMESPACE, &named("n2")).is_some());
        let pod = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
        let check = |operation, sub, pod: Value| check_pod("n1", operation, sub, &pod, &pod);
        assert_eq!(check(Operation::Update, "status", pod("n1")), None);
        assert!(check(Operation::Update, "status", pod("n2")).is_some());
        assert!(check(Operation::Update, "", pod("n1")).is_some());
        assert_eq!(check(Operation::Delete, "", pod("n1")), None);
        assert!(check(Operation::Delete, "", pod("n2")).is_some());
        let mut labelled = pod("n1");
        labelled["metadata"]["labels"] = json!({"a": "b"});
        let why = check_pod("n1", Operation::Update, "status", &pod("n1"), &labelled);
        assert_eq!(why.as_deref(), Some("node \"n1\" cannot update labels through pod status"));
    }

    #[test]
    fn a_node_draws_no_pods_to_itself() {
        let node =
            |labels: Value, taints: Value| json!({"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": taints}});
        let plain = node(json!({}), json!([]));
        let labelled = node(
            json!({"node-restriction.kubernetes.io/tier": "a", "kubernetes.io/os": "linux", "own.example/x": "y"}),
            json!([]),
        );
        assert_eq!(
            check_node("n1", Operation::Create, &labelled, None).as_deref(),
            Some("node \"n1\" is not allowed to set the following labels: node-restriction.kubernetes.io/tier")
        );
        assert_eq!(
            check_node("n1", Operation::Update, &labelled, Some(&plain)).as_deref(),
            Some("node \"n1\" is not allowed to modify labels: node-restriction.kubernetes.io/tier")
        );
        // Removing is modifying; what somebody else has set may stay.
        assert!(check_node("n1", Operation::Update, &plain, Some(&labelled)).is_some());
        assert_eq!(check_node("n1", Operation::Update, &labelled, Some(&labelled)), None);
        let tainted = node(json!({}), json!([{"key": "a", "effect": "NoSchedule"}]));
        assert_eq!(check_node("n1", Operation::Create, &tainted, None), None);
        assert_eq!(
            check_node("n1", Operation::Update, &tainted, Some(&plain)).as_deref(),
            Some("node \"n1\" is not allowed to modify taints")
        );
        for (label, forbidden) in [
            ("kubernetes.io/hostname", false),
            ("sub.node.kubernetes.io/x", false),
            ("xnode.kubernetes.io/x", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("a.k8s.io/x", true),
            ("slipway.dev/machine", false),
            ("plain", false),
        ] {
            assert_eq!(is_forbidden(label), forbidden, "{label}");
        }
    }

    #[test]
    fn a_mirror_pod_gets_nothing() {
        let pod = |more: Value| {
            let mut pod = json!({
                "metadata": {"annotations": {MIRROR: "x"}, "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "controller": true}]},
                "spec": {"nodeName": "n1", "containers": [{"name": "a"}]},
            });
            for (pointer, value) in more.as_object().unwrap() {
                let (parent, field) = pointer.rsplit_once('/').unwrap();
                pod.pointer_mut(parent).unwrap()[field] = value.clone();
            }
            check_mirror_pod("n1", &pod).unwrap_or_default()
        };
        assert_eq!(pod(json!({})), "");
        assert!(pod(json!({"/metadata/annotations": {}})).ends_with("can only create mirror pods"));
        assert!(pod(json!({"/spec/nodeName": "n2"})).ends_with("spec.nodeName set to itself"));
        assert!(pod(json!({"/metadata/ownerReferences": []})).ends_with("an owner reference set to itself"));
        assert!(pod(json!({"/spec/serviceAccountName": "x"})).ends_with("reference a service account"));
        assert!(pod(json!({"/spec/volumes": [{"secret": {"secretName": "s"}}]})).ends_with("reference secrets"));
        assert!(
            pod(json!({"/spec/volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]})).ends_with("persistentvolumeclaims")
        );
    }
}
