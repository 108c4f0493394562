//! The roles and bindings that every cluster has, and how they are kept: what is missing is added at each start, what
//! somebody added stays, and an object whose `rbac.authorization.kubernetes.io/autoupdate` is `false` is left alone.

mod cluster_roles;
mod controllers;
mod namespaced;
mod reconcile;
mod slipway;

pub use cluster_roles::node_rules;
pub use reconcile::run;

use super::rbac::{GROUP, Rule};
use serde_json::{Value, json};

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
const READ_UPDATE: &str = "get list patch update watch";

/// A Role or (without a namespace) a ClusterRole.
#[derive(Debug, Clone)]
pub struct DefaultRole {
    pub name: String,
    pub namespace: &'static str,
    /// `aggregate-to-…` labels: the roles whose rules these are a part of.
    pub part_of: &'static [&'static str],
    /// The label by which its own rules are gathered; empty: they are `rules`.
    pub gathers: &'static str,
    pub rules: Vec<Rule>,
}

/// A RoleBinding or (without a namespace) a ClusterRoleBinding.
#[derive(Debug, Clone)]
pub struct DefaultBinding {
    pub name: String,
    pub namespace: &'static str,
    /// Kind and name.
    pub role: (&'static str, String),
    pub subjects: Vec<Value>,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Lists are written as words; the core group is `core`.
fn rule(verbs: &str, groups: &str, resources: &str) -> Rule {
    let groups = groups.split_whitespace().map(|group| if group == "core" { "" } else { group }.to_owned());
    Rule { verbs: words(verbs), api_groups: groups.collect(), resources: words(resources), ..Rule::default() }
}

fn named(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
    Rule { resource_names: words(names), ..rule(verbs, groups, resources) }
}

fn urls(verbs: &str, urls: &str) -> Rule {
    Rule { verbs: words(verbs), non_resource_urls: words(urls), ..Rule::default() }
}

fn events() -> Rule {
    rule("create patch update", "core events.k8s.io", "events")
}

fn cluster_role(name: impl Into<String>, rules: Vec<Rule>) -> DefaultRole {
    DefaultRole { name: name.into(), namespace: "", part_of: &[], gathers: "", rules }
}

fn cluster_binding(role: impl Into<String>, subjects: Vec<Value>) -> DefaultBinding {
    let role = role.into();
    DefaultBinding { name: role.clone(), namespace: "", role: ("ClusterRole", role), subjects }
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": GROUP, "name": name})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "apiGroup": GROUP, "name": name})
}

fn account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
}

/// All default roles. Those that gather others' rules have them already, as the aggregation controller would find.
pub fn roles() -> Vec<DefaultRole> {
    let mut roles = cluster_roles::roles();
    roles.extend(controllers::roles());
    roles.extend(slipway::roles());
    roles.extend(namespaced::roles());
    // In the order in which they contain each other.
    for label in ["view", "edit", "admin"] {
        let mut parts: Vec<&DefaultRole> = roles.iter().filter(|role| role.part_of.contains(&label)).collect();
        parts.sort_by(|one, other| one.name.cmp(&other.name));
        let mut rules: Vec<Rule> = vec![];
        parts.iter().flat_map(|role| &role.rules).for_each(|rule| {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        });
        roles.iter_mut().filter(|role| role.gathers == label).for_each(|role| role.rules = rules.clone());
    }
    roles
}

pub fn bindings() -> Vec<DefaultBinding> {
    let mut bindings = cluster_roles::bindings();
    bindings.extend(controllers::bindings());
    bindings.extend(slipway::bindings());
    bindings.extend(namespaced::bindings());
    bindings
}

impl DefaultRole {
    fn object(&self) -> Value {
        let kind = if self.namespace.is_empty() { "ClusterRole" } else { "Role" };
        let mut object = json!({
            "kind": kind, "apiVersion": format!("{GROUP}/v1"), "metadata": metadata(&self.name, self.namespace), "rules": self.rules,
        });
        for label in self.part_of {
            object["metadata"]["labels"][aggregate_to(label)] = "true".into();
        }
        if !self.gathers.is_empty() {
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {aggregate_to(self.gathers): "true"}}]});
        }
        object
    }
}

impl DefaultBinding {
    fn object(&self) -> Value {
        let kind = if self.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        let (of, role) = &self.role;
        json!({
            "kind": kind, "apiVersion": format!("{GROUP}/v1"), "metadata": metadata(&self.name, self.namespace),
            "roleRef": {"apiGroup": GROUP, "kind": of, "name": role}, "subjects": self.subjects,
        })
    }
}

fn aggregate_to(label: &str) -> String {
    format!("{GROUP}/aggregate-to-{label}")
}

fn metadata(name: &str, namespace: &str) -> Value {
    let mut metadata = json!({
        "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {AUTO_UPDATE: "true"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_name_is_taken_once_and_every_binding_has_its_role() {
        let roles = roles();
        let names: HashSet<(&str, &str)> = roles.iter().map(|role| (role.namespace, role.name.as_str())).collect();
        assert_eq!(names.len(), roles.len());
        let bindings = bindings();
        let bound: HashSet<(&str, &str)> = bindings.iter().map(|binding| (binding.namespace, binding.name.as_str())).collect();
        assert_eq!(bound.len(), bindings.len());
        for binding in &bindings {
            let (kind, role) = &binding.role;
            let namespace = if *kind == "Role" { binding.namespace } else { "" };
            assert!(names.contains(&(namespace, role.as_str())), "{} has no role", binding.name);
        }
    }

    #[test]
    fn roles_contain_each_other() {
        let roles = roles();
        let rules = |name: &str| &roles.iter().find(|role| role.name == name).unwrap().rules;
        use crate::authorization::rbac::missing;
        assert!(!rules("view").is_empty());
        assert_eq!(missing(rules("edit"), rules("view")), []);
        assert_eq!(missing(rules("admin"), rules("edit")), []);
        assert_eq!(missing(rules("cluster-admin"), rules("admin")), []);
        let secrets = [rule("get", "core", "secrets")];
        assert_eq!(missing(rules("view"), &secrets).len(), 1, "who views sees no secrets");
        assert_eq!(missing(rules("edit"), &secrets), []);
        assert_eq!(missing(rules("edit"), &[rule("create", "rbac.authorization.k8s.io", "rolebindings")]).len(), 1);
        assert_eq!(missing(rules("admin"), &[rule("create", "rbac.authorization.k8s.io", "rolebindings")]), []);
    }

    #[test]
    fn every_default_passes_validation() {
        let kinds = crate::resources::builtin();
        let objects =
            roles().iter().map(DefaultRole::object).chain(bindings().iter().map(DefaultBinding::object)).collect::<Vec<_>>();
        for mut object in objects {
            let strategy = kinds.iter().find(|kind| kind.names().kind == object["kind"]).unwrap();
            let before = object.clone();
            strategy.fill_defaults(&mut object);
            assert_eq!(object, before, "nothing is left to fill in");
            assert_eq!(strategy.validate(&object), [], "{}", object["metadata"]["name"]);
        }
    }
}
