//! Role-based access control: what roles grant to those that bindings name, kept ready by subject.

pub mod escalation;
mod index;
mod rule;

pub use index::Changes;
pub use rule::{Rule, missing, quoted};

use super::{Attributes, Decision};
use crate::http::authenticate::User;
use crate::server::ApiServer;
use crate::stored;
use arc_swap::{ArcSwap, Guard};
use index::{Builder, Grant, Index};
use parking_lot::Mutex;
use serde::Deserialize;
use slipway_store::cache;
use std::sync::Arc;

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// What counts of a RoleBinding or ClusterRoleBinding.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Binding {
    pub role_ref: RoleRef,
    #[serde(deserialize_with = "subjects")]
    pub subjects: Vec<Subject>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    pub api_group: String,
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

fn subjects<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Subject>, D::Error> {
    Ok(Option::<Vec<Subject>>::deserialize(deserializer)?.unwrap_or_default())
}

/// The cache's ingest, that tells `changes` of each RBAC object before it can be read.
pub fn noted(ingest: cache::Ingest<stored::Attributes>, changes: Arc<Changes>) -> cache::Ingest<stored::Attributes> {
    Arc::new(move |key, revision, bytes| {
        changes.mark(key, revision);
        ingest(key, revision, bytes)
    })
}

/// The authoriser: an index of the RBAC objects in the cache, renewed when one of them has changed.
pub struct Rbac {
    changes: Arc<Changes>,
    index: ArcSwap<Index>,
    builder: Mutex<Builder>,
}

impl Rbac {
    /// `changes` is told by the cache's ingest (see [`noted`]).
    pub fn new(changes: Arc<Changes>) -> Self {
        Rbac { changes, index: ArcSwap::default(), builder: Mutex::default() }
    }

    /// The index as the cache has it now.
    fn index(&self, server: &ApiServer) -> Guard<Arc<Index>> {
        let index = self.index.load();
        if index.version == self.changes.version() {
            return index;
        }
        let mut builder = self.builder.lock();
        let index = self.index.load_full();
        if index.version == self.changes.version() {
            return Guard::from_inner(index);
        }
        let renewed = Arc::new(builder.renew(&index, &self.changes, &server.snapshot()));
        self.index.store(Arc::clone(&renewed));
        Guard::from_inner(renewed)
    }

    pub fn decide(&self, server: &ApiServer, user: &User, asked: &Attributes<'_>) -> Decision {
        let index = self.index(server);
        let mut errors: Vec<Arc<str>> = vec![];
        for grant in index.grants(user, asked.namespace) {
            match &grant.role {
                Ok(rules) if rules.iter().any(|rule| rule.allows(asked)) => {
                    return Decision { allowed: true, reason: Some(Arc::clone(&grant.reason)) };
                }
                Ok(_) => {}
                Err(error) => errors.push(Arc::clone(error)),
            }
        }
        if errors.is_empty() {
            return Decision::no_opinion();
        }
        Decision::because(format!("RBAC: {}", aggregate(&errors)))
    }

    /// All rules that hold for a user in a namespace (and, without one, of the cluster), and what could not be resolved.
    pub fn rules_for(&self, server: &ApiServer, user: &User, namespace: &str) -> (Vec<Rule>, Vec<Arc<str>>) {
        let index = self.index(server);
        let (mut rules, mut errors, mut seen) = (vec![], vec![], vec![]);
        for grant in index.grants(user, namespace) {
            // A binding that names the user twice grants once.
            if seen.contains(&Arc::as_ptr(&grant.binding)) {
                continue;
            }
            seen.push(Arc::as_ptr(&grant.binding));
            match &grant.role {
                Ok(of_role) => rules.extend(of_role.iter().cloned()),
                Err(error) => errors.push(Arc::clone(error)),
            }
        }
        (rules, errors)
    }

    /// The rules of the role that a binding in `namespace` (empty: of the cluster) refers to, or why there are none.
    pub fn rules_of(&self, server: &ApiServer, role: &RoleRef, namespace: &str) -> Result<Arc<[Rule]>, Arc<str>> {
        index::role(&server.snapshot(), role, namespace)
    }
}

/// Several errors as Go's aggregate prints them: each once.
pub fn aggregate(errors: &[Arc<str>]) -> String {
    let mut each: Vec<&str> = vec![];
    for error in errors {
        if !each.contains(&&**error) {
            each.push(error);
        }
    }
    if let [one] = each.as_slice() { (*one).to_owned() } else { format!("[{}]", each.join(", ")) }
}

impl Index {
    /// What is granted to a user and to each of the user's groups, in the cluster and in the namespace.
    fn grants<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let own = (!namespace.is_empty()).then(|| self.namespaces.get(namespace)).flatten();
        [Some(&self.cluster), own].into_iter().flatten().flat_map(move |scope| {
            let of_user = scope.users.get(user.name.as_str());
            let of_groups = user.groups.iter().filter_map(|group| scope.groups.get(group.as_str()));
            of_user.into_iter().chain(of_groups).flatten()
        })
    }
}
