//! The node authoriser: a node agent reads and writes its own Node and Lease, the pods that are bound to it, and what those
//! refer to. What it may write of them is `admission::node_restriction`'s question.

use super::facts::{Facts, Referred};
use super::rbac::Rule;
use super::{Attributes, Decision, policy};
use crate::http::authenticate::User;
use crate::server::{ApiServer, find};
use crate::stored::{self, Entry, Snapshot};
use std::sync::LazyLock;

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// What every node may do, whatever runs there.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(policy::node_rules);

pub fn decide(server: &ApiServer, user: &User, asked: &Attributes<'_>) -> Decision {
    if !user.is_in(User::NODES) {
        return Decision::no_opinion();
    }
    let Some(node) = user.name.strip_prefix("system:node:") else { return Decision::no_opinion() };
    if node.is_empty() {
        return Decision::because(format!("unknown node for user {:?}", user.name));
    }
    let graph = Graph { server, node };
    if asked.is_resource {
        match (asked.group, asked.resource) {
            ("", "secrets") => return graph.read(Referred::Secret, asked),
            // Every pod's token volume holds it, and it is no secret.
            ("", "configmaps") if asked.name == "kube-root-ca.crt" && reads(asked) => return Decision::allowed(),
            ("", "configmaps") => return graph.read(Referred::ConfigMap, asked),
            ("", "persistentvolumeclaims") if asked.subresource == "status" => {
                return match asked.verb {
                    "update" | "patch" => graph.refers(Referred::PersistentVolumeClaim, asked),
                    _ => Decision::because("can only get/update/patch this type"),
                };
            }
            ("", "persistentvolumeclaims") => return graph.get(Referred::PersistentVolumeClaim, asked),
            ("", "persistentvolumes") => return graph.volume(asked),
            ("", "serviceaccounts") => return graph.service_account(asked),
            ("coordination.k8s.io", "leases") => return lease(node, asked),
            ("storage.k8s.io", "csinodes") => return csi_node(node, asked),
            ("storage.k8s.io", "volumeattachments") => return graph.attachment(asked),
            ("resource.k8s.io", "resourceclaims") => return graph.get(Referred::ResourceClaim, asked),
            ("resource.k8s.io", "resourceslices") => return graph.slice(asked),
            ("", "nodes") => return node_object(node, asked),
            ("", "pods") => return graph.pod(asked),
            _ => {}
        }
    }
    if RULES.iter().any(|rule| rule.allows(asked)) { Decision::allowed() } else { Decision::no_opinion() }
}

fn reads(asked: &Attributes<'_>) -> bool {
    matches!(asked.verb, "get" | "list" | "watch") && asked.subresource.is_empty()
}

fn lease(node: &str, asked: &Attributes<'_>) -> Decision {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Decision::because("can only get, create, update, patch, or delete a node lease");
    }
    if asked.namespace != LEASE_NAMESPACE {
        return Decision::because(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    // The name of what is created is admission's to see.
    if asked.verb != "create" && asked.name != node {
        return Decision::because("can only access node lease with the same name as the requesting node");
    }
    Decision::allowed()
}

fn csi_node(node: &str, asked: &Attributes<'_>) -> Decision {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Decision::because("can only get, create, update, patch, or delete a CSINode");
    }
    if !asked.subresource.is_empty() {
        return Decision::because("cannot authorize CSINode subresources");
    }
    if asked.verb != "create" && asked.name != node {
        return Decision::because("can only access CSINode with the same name as the requesting node");
    }
    Decision::allowed()
}

fn node_object(node: &str, asked: &Attributes<'_>) -> Decision {
    match (asked.subresource, asked.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::allowed(),
        ("", "get" | "list" | "watch") if asked.name == node => Decision::allowed(),
        ("", "get" | "list" | "watch") if asked.name.is_empty() => {
            Decision::because(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Decision::because(format!("node '{node}' cannot read '{}', only its own Node object", asked.name))
        }
        _ => Decision::no_opinion(),
    }
}

/// What is related to a node, by the pods in the cache.
struct Graph<'a> {
    server: &'a ApiServer,
    node: &'a str,
}

impl Graph<'_> {
    fn unrelated(&self) -> Decision {
        Decision::because(format!("no relationship found between node '{}' and this object", self.node))
    }

    fn read(&self, kind: Referred, asked: &Attributes<'_>) -> Decision {
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return Decision::because("can only read resources of this type");
        }
        if !asked.subresource.is_empty() {
            return Decision::because("cannot read subresource");
        }
        if asked.namespace.is_empty() {
            return Decision::because("can only read namespaced object of this type");
        }
        self.refers(kind, asked)
    }

    fn get(&self, kind: Referred, asked: &Attributes<'_>) -> Decision {
        if asked.verb != "get" {
            return Decision::because("can only get individual resources of this type");
        }
        if !asked.subresource.is_empty() {
            return Decision::because("cannot get subresource");
        }
        self.refers(kind, asked)
    }

    /// A volume is related to a node by the claim that it is bound to.
    fn volume(&self, asked: &Attributes<'_>) -> Decision {
        if asked.verb != "get" || !asked.subresource.is_empty() || asked.name.is_empty() {
            return self.get(Referred::PersistentVolumeClaim, asked);
        }
        let snapshot = self.server.snapshot();
        let entry = snapshot.objects.get(format!("/core/persistentvolumes/{}", asked.name).as_str());
        let volume = entry.and_then(|entry| serde_json::from_slice::<serde_json::Value>(&entry.bytes).ok()).unwrap_or_default();
        let claim = &volume["spec"]["claimRef"];
        match (claim["namespace"].as_str(), claim["name"].as_str()) {
            (Some(namespace), Some(name)) => {
                self.refers(Referred::PersistentVolumeClaim, &Attributes { namespace, name, ..*asked })
            }
            _ => self.unrelated(),
        }
    }

    fn attachment(&self, asked: &Attributes<'_>) -> Decision {
        if asked.verb != "get" {
            return Decision::because("can only get individual resources of this type");
        }
        if !asked.subresource.is_empty() {
            return Decision::because("cannot get subresource");
        }
        let to_it =
            |entry: &Entry| matches!(entry.attributes.facts.as_deref(), Some(Facts::OnNode(node)) if **node == *self.node);
        self.object("storage.k8s.io", asked, to_it)
    }

    /// What a driver on the node offers. The node of one that is made is admission's to see.
    fn slice(&self, asked: &Attributes<'_>) -> Decision {
        if !asked.subresource.is_empty() {
            return Decision::because("cannot authorize ResourceSlice subresources");
        }
        let field = "spec.nodeName";
        match asked.verb {
            "create" => Decision::allowed(),
            "get" | "update" | "patch" | "delete" => {
                let has =
                    |entry: &Entry| entry.attributes.fields.iter().any(|(name, value)| *name == field && *value == self.node);
                self.object("resource.k8s.io", asked, has)
            }
            "list" | "watch" | "deletecollection" if asked.fields.required(field).as_deref() == Some(self.node) => {
                Decision::allowed()
            }
            "list" | "watch" | "deletecollection" => {
                Decision::because("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => Decision::because(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    /// Whether the object of the cluster that is asked for is related to the node as `related` says.
    fn object(&self, group: &str, asked: &Attributes<'_>, related: impl Fn(&Entry) -> bool) -> Decision {
        if asked.name.is_empty() {
            return Decision::because("No Object name found");
        }
        let strategy = self.server.strategy(group, "v1", asked.resource);
        let snapshot = self.server.snapshot();
        let entry = strategy.and_then(|strategy| find(&snapshot, &*strategy, "", asked.name));
        if entry.is_some_and(|entry| related(entry)) { Decision::allowed() } else { self.unrelated() }
    }

    fn service_account(&self, asked: &Attributes<'_>) -> Decision {
        match (asked.verb, asked.subresource) {
            _ if asked.name.is_empty() => Decision::because("can only create tokens for individual service accounts"),
            ("get", "") | ("create", "token") => self.refers(Referred::ServiceAccount, asked),
            ("create", _) => Decision::because("can only create token subresource of serviceaccount"),
            _ => Decision::because("can only create tokens for individual service accounts"),
        }
    }

    fn pod(&self, asked: &Attributes<'_>) -> Decision {
        match (asked.subresource, asked.verb) {
            ("", "get") => self.own_pod(asked),
            ("", "list" | "watch") if asked.fields.required("spec.nodeName").as_deref() == Some(self.node) => Decision::allowed(),
            ("", "list" | "watch") if !asked.name.is_empty() => self.own_pod(asked),
            ("", "list" | "watch") => Decision::because("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Decision::allowed(),
            _ => Decision::no_opinion(),
        }
    }

    /// A pod that is not there is told as such: an agent that missed the deletion learns of it.
    fn own_pod(&self, asked: &Attributes<'_>) -> Decision {
        if asked.name.is_empty() {
            return Decision::because("No Object name found");
        }
        let snapshot = self.server.snapshot();
        match pod(&snapshot, asked.namespace, asked.name) {
            Some(entry) if !self.runs(entry) => self.unrelated(),
            _ => Decision::allowed(),
        }
    }

    fn runs(&self, entry: &Entry) -> bool {
        matches!(entry.attributes.facts.as_deref(), Some(Facts::Pod(pod)) if *pod.node == *self.node)
    }

    /// Whether a pod on the node names the object.
    fn refers(&self, kind: Referred, asked: &Attributes<'_>) -> Decision {
        if asked.name.is_empty() {
            return Decision::because("No Object name found");
        }
        if asked.namespace.is_empty() {
            return self.unrelated();
        }
        let snapshot = self.server.snapshot();
        let names_it = |entry: &&std::sync::Arc<Entry>| match entry.attributes.facts.as_deref() {
            Some(Facts::Pod(pod)) => *pod.node == *self.node && pod.name(kind, asked.name),
            _ => false,
        };
        let found = stored::below(&snapshot, &format!("/core/pods/{}/", asked.namespace), "").find(names_it).is_some();
        if found { Decision::allowed() } else { self.unrelated() }
    }
}

fn pod<'a>(snapshot: &'a Snapshot, namespace: &str, name: &str) -> Option<&'a Entry> {
    snapshot.objects.get(format!("/core/pods/{namespace}/{name}").as_str()).map(|entry| &**entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_its_own_lease_and_node() {
        let lease_of = |verb, namespace, name| {
            lease("n1", &Attributes { namespace, name, ..Attributes::resource(verb, "coordination.k8s.io", "leases") })
        };
        assert!(lease_of("update", "kube-node-lease", "n1").allowed);
        assert!(lease_of("create", "kube-node-lease", "").allowed);
        assert_eq!(
            lease_of("list", "kube-node-lease", "").reason(),
            "can only get, create, update, patch, or delete a node lease"
        );
        assert_eq!(
            lease_of("get", "default", "n1").reason(),
            "can only access leases in the \"kube-node-lease\" system namespace"
        );
        assert!(!lease_of("get", "kube-node-lease", "n2").allowed);
        let node = |verb, subresource, name| {
            node_object("n1", &Attributes { subresource, name, ..Attributes::resource(verb, "", "nodes") })
        };
        assert!(node("get", "", "n1").allowed && node("patch", "status", "n1").allowed && node("create", "", "").allowed);
        assert_eq!(node("get", "", "n2").reason(), "node 'n1' cannot read 'n2', only its own Node object");
        assert_eq!(node("list", "", "").reason(), "node 'n1' cannot read all nodes, only its own Node object");
        assert!(!node("delete", "", "n1").allowed && !node("get", "proxy", "n1").allowed);
    }
}
