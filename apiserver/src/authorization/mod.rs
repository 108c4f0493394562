//! Who may do what. The chain of kube-apiserver: `system:masters` may do everything, a node agent what concerns its node
//! ([`node`]), and everybody what roles grant ([`rbac`]). Whoever nobody allows is refused.

pub mod facts;
pub mod node;
pub mod policy;
pub mod rbac;

use crate::http::authenticate::User;
use crate::http::request_info::{RequestInfo, Verb};
use crate::server::ApiServer;
use serde_json::{Value, json};
use std::sync::Arc;

/// What is asked: may somebody do `verb` to this? Verbs are any words, for there are some that no request has
/// (`impersonate`, `bind`, `approve`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    /// Else it is about `path`.
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Empty: at the scope of the cluster, or in all namespaces.
    pub namespace: &'a str,
    /// Empty: no object in particular.
    pub name: &'a str,
    pub path: &'a str,
    pub fields: Fields<'a>,
}

/// The field selector of a list, watch or deletion of many.
#[derive(Debug, Clone, Copy, Default)]
pub enum Fields<'a> {
    #[default]
    None,
    /// As a query has it.
    Raw(&'a str),
    /// The requirements of an access review that demand equality.
    Equal(&'a [(String, String)]),
}

impl Fields<'_> {
    /// The value that a field must have to be selected.
    pub fn required(&self, field: &str) -> Option<String> {
        match *self {
            Fields::None => None,
            Fields::Equal(pairs) => pairs.iter().find(|(key, _)| key == field).map(|(_, value)| value.clone()),
            Fields::Raw(text) => crate::field_selector::required(text, field),
        }
    }
}

impl<'a> Attributes<'a> {
    pub fn of(request: &'a RequestInfo) -> Self {
        let fields = match request.verb {
            Verb::List | Verb::Watch | Verb::DeleteCollection => request.query.get("fieldSelector").map(Fields::Raw),
            _ => None,
        };
        Attributes {
            verb: request.authorization_verb(),
            is_resource: request.is_resource,
            group: &request.group,
            version: &request.version,
            resource: &request.resource,
            subresource: &request.subresource,
            namespace: request.namespace.as_deref().unwrap_or_default(),
            name: request.name.as_deref().unwrap_or_default(),
            path: &request.path,
            fields: fields.unwrap_or_default(),
        }
    }

    /// A resource of any version, at the scope of the cluster; the rest is set with `..`.
    pub fn resource(verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Attributes { verb, is_resource: true, group, version: "*", resource, ..Attributes::default() }
    }
}

/// What was decided, and why.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    pub allowed: bool,
    /// As Kubernetes words it; empty where it says nothing.
    pub reason: Option<Arc<str>>,
}

impl Decision {
    fn allowed() -> Self {
        Decision { allowed: true, reason: None }
    }

    fn no_opinion() -> Self {
        Decision::default()
    }

    fn because(reason: impl Into<Arc<str>>) -> Self {
        Decision { allowed: false, reason: Some(reason.into()) }
    }

    pub fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }
}

/// Asks one after the other until one allows it.
pub fn decide(server: &ApiServer, user: &User, attributes: &Attributes<'_>) -> Decision {
    if user.is_in(User::MASTERS) {
        return Decision::allowed();
    }
    let mut reasons: Vec<Arc<str>> = vec![];
    let node = node::decide(server, user, attributes);
    if node.allowed {
        return node;
    }
    reasons.extend(node.reason);
    let rbac = server.rbac.decide(server, user, attributes);
    if rbac.allowed {
        return rbac;
    }
    reasons.extend(rbac.reason);
    let reason = match reasons.as_slice() {
        [] => None,
        [one] => Some(Arc::clone(one)),
        many => Some(many.join("\n").into()),
    };
    Decision { allowed: false, reason }
}

/// What a user may do in a namespace: `authorization.k8s.io/v1 SubjectRulesReviewStatus`.
pub fn rules(server: &ApiServer, user: &User, namespace: &str) -> Value {
    let (rules, mut errors) = server.rbac.rules_for(server, user, namespace);
    let (mut resources, mut paths) = (vec![], vec![]);
    for rule in &rules {
        if !rule.resources.is_empty() {
            let mut told = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                told["resourceNames"] = json!(rule.resource_names);
            }
            resources.push(told);
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let is_node = user.node().is_some();
    if is_node {
        errors.insert(0, "node authorizer does not support user rule resolution".into());
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": !errors.is_empty()});
    if !errors.is_empty() {
        status["evaluationError"] = rbac::aggregate(&errors).into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_required_by_equality_only() {
        let raw = Fields::Raw("status.phase!=Failed,spec.nodeName==n1");
        assert_eq!(raw.required("spec.nodeName").as_deref(), Some("n1"));
        assert_eq!(raw.required("status.phase"), None);
        assert_eq!(Fields::Raw("spec.nodeName!=n1").required("spec.nodeName"), None);
        assert_eq!(Fields::Raw("xspec.nodeName=n1").required("spec.nodeName"), None);
        // One term, whose value has a comma: what it selects is on any node.
        assert_eq!(Fields::Raw("metadata.name!=x\\,spec.nodeName\\=n1").required("spec.nodeName"), None);
        assert_eq!(Fields::Raw("metadata.name!=x\\,spec.nodeName=n1").required("spec.nodeName"), None);
        assert_eq!(Fields::None.required("spec.nodeName"), None);
    }
}
