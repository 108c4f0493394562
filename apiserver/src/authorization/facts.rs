//! What authorisation asks of stored objects, read out of them once, when they enter the cache: so that no request parses
//! JSON to be decided on.

use super::rbac::{Binding, Rule};
use crate::kind::Names;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Debug)]
pub enum Facts {
    /// Of a Role or ClusterRole.
    Rules(Arc<[Rule]>),
    /// Of a RoleBinding or ClusterRoleBinding.
    Binding(Binding),
    /// Of a pod that is bound to a node.
    Pod(References),
    /// Of a VolumeAttachment: the node that the volume is for.
    OnNode(Box<str>),
}

/// What a pod on a node refers to.
#[derive(Debug, Default)]
pub struct References {
    pub node: Box<str>,
    named: Box<[(Referred, Box<str>)]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Referred {
    ServiceAccount,
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    ResourceClaim,
}

impl References {
    pub fn name(&self, kind: Referred, name: &str) -> bool {
        self.named.iter().any(|(own, named)| *own == kind && **named == *name)
    }
}

/// Whether [`facts`] are kept of objects of this kind.
pub fn are_kept_of(names: &Names) -> bool {
    match names.group {
        "" => names.plural == "pods",
        "rbac.authorization.k8s.io" => true,
        "storage.k8s.io" => names.plural == "volumeattachments",
        _ => false,
    }
}

/// `object` is one as stored, of a kind that facts are kept of.
pub fn facts(names: &Names, object: &Value) -> Option<Box<Facts>> {
    let facts = match names.plural {
        "pods" => Facts::Pod(references(object)?),
        "roles" | "clusterroles" => {
            let rules = object.get("rules").filter(|rules| !rules.is_null());
            Facts::Rules(rules.and_then(|rules| Vec::<Rule>::deserialize(rules).ok()).unwrap_or_default().into())
        }
        "volumeattachments" => Facts::OnNode(object["spec"]["nodeName"].as_str()?.into()),
        "rolebindings" | "clusterrolebindings" => Facts::Binding(Binding::deserialize(object).ok()?),
        _ => return None,
    };
    Some(Box::new(facts))
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `None` if no node runs the pod.
fn references(pod: &Value) -> Option<References> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let node = spec["nodeName"].as_str().filter(|node| !node.is_empty())?;
    let mut named = referred(spec);
    // Claims that were made for the pod: of templates, and for extended resources.
    let made = items(&status["resourceClaimStatuses"]).iter().chain([&status["extendedResourceClaimStatus"]]);
    named.extend(made.filter_map(|one| Some((Referred::ResourceClaim, one["resourceClaimName"].as_str()?.into()))));
    Some(References { node: node.into(), named: named.into() })
}

/// The objects that a pod's spec names.
pub fn referred(spec: &Value) -> Vec<(Referred, Box<str>)> {
    let mut named: Vec<(Referred, Box<str>)> = vec![];
    let mut add = |kind: Referred, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            named.push((kind, name.into()));
        }
    };
    add(Referred::ServiceAccount, &spec["serviceAccountName"]);
    for secret in items(&spec["imagePullSecrets"]) {
        add(Referred::Secret, &secret["name"]);
    }
    for claim in items(&spec["resourceClaims"]) {
        add(Referred::ResourceClaim, &claim["resourceClaimName"]);
    }
    for volume in items(&spec["volumes"]) {
        add(Referred::Secret, &volume["secret"]["secretName"]);
        add(Referred::ConfigMap, &volume["configMap"]["name"]);
        add(Referred::PersistentVolumeClaim, &volume["persistentVolumeClaim"]["claimName"]);
        for driver in ["csi", "flexVolume", "iscsi", "rbd", "cephfs", "scaleIO", "storageos"] {
            for field in ["nodePublishSecretRef", "secretRef"] {
                add(Referred::Secret, &volume[driver][field]["name"]);
            }
        }
        add(Referred::Secret, &volume["azureFile"]["secretName"]);
        for source in items(&volume["projected"]["sources"]) {
            add(Referred::Secret, &source["secret"]["name"]);
            add(Referred::ConfigMap, &source["configMap"]["name"]);
        }
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(&spec[field]) {
            for variable in items(&container["env"]) {
                add(Referred::Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
                add(Referred::ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
            for source in items(&container["envFrom"]) {
                add(Referred::Secret, &source["secretRef"]["name"]);
                add(Referred::ConfigMap, &source["configMapRef"]["name"]);
            }
        }
    }
    named.sort();
    named.dedup();
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_refers_to_what_its_spec_names() {
        let spec = json!({
            "nodeName": "n1", "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"secret": {"secretName": "a"}}, {"projected": {"sources": [{"configMap": {"name": "b"}}]}},
                {"persistentVolumeClaim": {"claimName": "disk"}}, {"csi": {"nodePublishSecretRef": {"name": "e"}}},
            ],
            "resourceClaims": [{"name": "b", "resourceClaimName": "gpu"}, {"name": "c", "resourceClaimTemplateName": "t"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "c"}}}], "envFrom": [{"configMapRef": {"name": "d"}}]}],
        });
        let status = json!({"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "made"}]});
        let found = references(&json!({"spec": spec, "status": status})).unwrap();
        let names: Vec<&str> = found.named.iter().map(|(_, name)| &**name).collect();
        assert_eq!(names, ["robot", "a", "c", "e", "pull", "b", "d", "disk", "gpu", "made"]);
        assert!(found.name(Referred::Secret, "a") && !found.name(Referred::ConfigMap, "a"));
        assert!(references(&json!({"spec": {"serviceAccountName": "robot"}})).is_none());
    }
}
