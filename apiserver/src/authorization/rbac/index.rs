//! Grants by subject, built of the cache's RBAC objects: anew where one of them has changed, and not before it is asked for.

use super::{Binding, GROUP, RoleRef, Rule, Subject};
use crate::authorization::facts::Facts;
use crate::stored::{self, Entry, Snapshot};
use parking_lot::Mutex;
use slipway_store::Revision;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many objects tell whether the cache was read anew.
const WITNESSES: usize = 8;

/// What one binding grants to one subject.
#[derive(Debug)]
pub struct Grant {
    /// As Kubernetes words it: `RBAC: allowed by …`.
    pub reason: Arc<str>,
    /// The role's rules, or why there are none.
    pub role: Result<Arc<[Rule]>, Arc<str>>,
    /// Which binding it is.
    pub binding: Arc<str>,
}

/// The grants of the cluster or of a namespace.
#[derive(Debug, Default)]
pub struct Scope {
    pub users: HashMap<Box<str>, Vec<Grant>>,
    pub groups: HashMap<Box<str>, Vec<Grant>>,
}

#[derive(Debug, Default)]
pub struct Index {
    /// [`Changes::version`] when it was built, if nothing was left to do.
    pub version: u64,
    pub cluster: Arc<Scope>,
    pub namespaces: HashMap<Box<str>, Arc<Scope>>,
}

/// Which RBAC objects have entered the cache since the index was built.
#[derive(Debug, Default)]
pub struct Changes {
    version: AtomicU64,
    marks: Mutex<Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    newest: Revision,
    /// Namespaces whose roles or bindings changed, the empty one for ClusterRoleBindings.
    scopes: HashMap<Box<str>, Span>,
    /// A ClusterRole changed: any scope may refer to it.
    everything: Option<Span>,
    /// The cache is being read anew, so that objects may vanish without a word.
    reloaded: bool,
}

/// The first and the last change that the index does not have. A snapshot may show some of them and not yet the others.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: Revision,
    last: Revision,
}

impl Span {
    fn with(before: Option<Span>, revision: Revision) -> Self {
        Span {
            first: before.map_or(revision, |span| span.first.min(revision)),
            last: before.map_or(revision, |span| span.last.max(revision)),
        }
    }

    /// What is left of it after all up to `revision` was done.
    fn after(self, revision: Revision) -> Option<Self> {
        (self.last > revision).then_some(Span { first: self.first.max(revision + 1), ..self })
    }
}

impl Changes {
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// To be called for each change before it can be read from the cache.
    pub fn mark(&self, key: &str, revision: Revision) {
        let Some(rest) = key.strip_prefix('/').and_then(|key| key.strip_prefix(GROUP)).and_then(|key| key.strip_prefix('/'))
        else {
            return;
        };
        let mut marks = self.marks.lock();
        if revision <= marks.newest {
            marks.reloaded = true;
        }
        marks.newest = marks.newest.max(revision);
        let mut parts = rest.split('/');
        match (parts.next(), parts.next()) {
            (Some("roles" | "rolebindings"), Some(namespace)) => marks.scope(namespace, revision),
            (Some("clusterrolebindings"), _) => marks.scope("", revision),
            _ => marks.everything = Some(Span::with(marks.everything, revision)),
        }
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

impl Marks {
    fn scope(&mut self, name: &str, revision: Revision) {
        let span = Span::with(self.scopes.get(name).copied(), revision);
        self.scopes.insert(name.into(), span);
    }
}

/// What is remembered from one renewal to the next.
#[derive(Default)]
pub struct Builder {
    /// Some objects as they were last seen: when the cache was read anew, they are others of the same revision.
    witnesses: Vec<Arc<Entry>>,
}

impl Builder {
    /// The index after what has changed by `snapshot`.
    pub fn renew(&mut self, index: &Index, changes: &Changes, snapshot: &Snapshot) -> Index {
        let mut marks = changes.marks.lock();
        let version = changes.version();
        let now = snapshot.revision;
        let anew = marks.reloaded && self.sees_reload(snapshot);
        if anew {
            marks.reloaded = false;
        }
        let everything = anew || marks.everything.is_some_and(|span| span.first <= now);
        let mut scopes: Vec<Box<str>> = vec![];
        if everything {
            marks.everything = marks.everything.and_then(|span| span.after(now));
        }
        marks.scopes.retain(|scope, span| {
            if span.first <= now {
                scopes.push(scope.clone());
            }
            let left = span.after(now);
            *span = left.unwrap_or(*span);
            left.is_some()
        });
        let rest = marks.everything.is_some() || !marks.scopes.is_empty() || marks.reloaded;
        drop(marks);
        self.witnesses = stored::below(snapshot, &format!("/{GROUP}/"), "").take(WITNESSES).cloned().collect();

        // With something left to do, the next who asks comes here again.
        let version = if rest { index.version } else { version };
        if everything {
            return Index { version, ..build(snapshot) };
        }
        let mut renewed = Index { version, cluster: Arc::clone(&index.cluster), namespaces: index.namespaces.clone() };
        for scope in scopes {
            let built = scope_of(snapshot, &scope);
            if scope.is_empty() {
                renewed.cluster = Arc::new(built);
            } else if built.users.is_empty() && built.groups.is_empty() {
                renewed.namespaces.remove(&scope);
            } else {
                renewed.namespaces.insert(scope, Arc::new(built));
            }
        }
        renewed
    }

    fn sees_reload(&self, snapshot: &Snapshot) -> bool {
        let now = |witness: &Arc<Entry>| snapshot.objects.get(&witness.key).cloned();
        let is_copy = |witness: &Arc<Entry>| {
            now(witness).is_some_and(|now| now.mod_revision == witness.mod_revision && !Arc::ptr_eq(&now, witness))
        };
        let is_kept = |witness: &Arc<Entry>| now(witness).is_some_and(|now| Arc::ptr_eq(&now, witness));
        self.witnesses.iter().any(is_copy) || !self.witnesses.iter().any(is_kept)
    }
}

fn build(snapshot: &Snapshot) -> Index {
    let prefix = format!("/{GROUP}/rolebindings/");
    let mut namespaces: HashMap<Box<str>, Arc<Scope>> = HashMap::new();
    for entry in stored::below(snapshot, &prefix, "") {
        let (namespace, _) = stored::namespace_and_name(&entry.key);
        if !namespaces.contains_key(namespace) {
            namespaces.insert(namespace.into(), Arc::new(scope_of(snapshot, namespace)));
        }
    }
    Index { version: 0, cluster: Arc::new(scope_of(snapshot, "")), namespaces }
}

/// The grants in a namespace, or (empty) in the cluster.
fn scope_of(snapshot: &Snapshot, namespace: &str) -> Scope {
    let prefix = match namespace {
        "" => format!("/{GROUP}/clusterrolebindings/"),
        _ => format!("/{GROUP}/rolebindings/{namespace}/"),
    };
    let mut scope = Scope::default();
    for entry in stored::below(snapshot, &prefix, "") {
        let Some(Facts::Binding(binding)) = entry.attributes.facts.as_deref() else { continue };
        let name = entry.key.rsplit('/').next().unwrap_or_default();
        let role = role(snapshot, &binding.role_ref, namespace);
        for subject in &binding.subjects {
            let grant = || Grant {
                reason: reason(name, namespace, binding, subject).into(),
                role: role.clone(),
                binding: Arc::clone(&entry.key),
            };
            match subject.kind.as_str() {
                "User" => scope.users.entry(subject.name.as_str().into()).or_default().push(grant()),
                "Group" => scope.groups.entry(subject.name.as_str().into()).or_default().push(grant()),
                "ServiceAccount" => {
                    let of = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
                    if !of.is_empty() {
                        let user = format!("system:serviceaccount:{of}:{}", subject.name);
                        scope.users.entry(user.into()).or_default().push(grant());
                    }
                }
                _ => {}
            }
        }
    }
    scope
}

/// The rules of a role that is referred to from a namespace, or (empty) from the cluster.
pub fn role(snapshot: &Snapshot, role: &RoleRef, namespace: &str) -> Result<Arc<[Rule]>, Arc<str>> {
    let (key, singular) = match role.kind.as_str() {
        "ClusterRole" => (format!("/{GROUP}/clusterroles/{}", role.name), "clusterrole"),
        "Role" => (format!("/{GROUP}/roles/{namespace}/{}", role.name), "role"),
        kind => return Err(format!("unsupported role reference kind: {kind:?}").into()),
    };
    match snapshot.objects.get(key.as_str()).and_then(|entry| entry.attributes.facts.as_deref()) {
        Some(Facts::Rules(rules)) => Ok(Arc::clone(rules)),
        _ => Err(format!("{singular}.{GROUP} {:?} not found", role.name).into()),
    }
}

fn reason(name: &str, namespace: &str, binding: &Binding, subject: &Subject) -> String {
    let (kind, place) =
        if namespace.is_empty() { ("ClusterRoleBinding", String::new()) } else { ("RoleBinding", format!("/{namespace}")) };
    let subject = match subject.kind.as_str() {
        "ServiceAccount" => {
            let of = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
            format!("ServiceAccount \"{}/{of}\"", subject.name)
        }
        kind => format!("{kind} {:?}", subject.name),
    };
    let role = &binding.role_ref;
    format!("RBAC: allowed by {kind} \"{name}{place}\" of {} {:?} to {subject}", role.kind, role.name)
}

#[cfg(test)]
mod tests {
    use super::super::noted;
    use super::*;
    use crate::stored::ingest;
    use serde_json::{Value, json};

    /// A cache's state, and who is told of its changes.
    struct Cluster {
        changes: Arc<Changes>,
        snapshot: Snapshot,
        builder: Builder,
        index: Index,
    }

    impl Cluster {
        fn new() -> Self {
            let snapshot = Snapshot { revision: 0, objects: Default::default() };
            Cluster { changes: Arc::default(), snapshot, builder: Builder::default(), index: Index::default() }
        }

        fn enter(&mut self, key: &str, revision: Revision, object: &Value) -> Arc<Entry> {
            let changes = Arc::clone(&self.changes);
            let ingest = noted(ingest(crate::resources::builtin(), Arc::default()), changes);
            let (bytes, attributes) = ingest(key, revision, &stored::encode(object));
            Arc::new(Entry { key: key.into(), bytes, attributes, create_revision: 1, mod_revision: revision, version: 1 })
        }

        fn put(&mut self, key: &str, object: Value) {
            let revision = self.snapshot.revision + 1;
            let entry = self.enter(key, revision, &object);
            self.snapshot.objects.insert(key.into(), entry);
            self.snapshot.revision = revision;
        }

        fn renew(&mut self) {
            self.index = self.builder.renew(&self.index, &self.changes, &self.snapshot);
        }

        /// Who has a grant where, and whether its role is there.
        fn told(&mut self) -> Vec<String> {
            if self.index.version != self.changes.version() {
                self.renew();
            }
            let mut scopes: Vec<(&str, &Arc<Scope>)> =
                self.index.namespaces.iter().map(|(name, scope)| (&**name, scope)).collect();
            scopes.push(("*", &self.index.cluster));
            let mut told: Vec<String> = scopes
                .into_iter()
                .flat_map(|(place, scope)| {
                    scope.users.iter().chain(&scope.groups).flat_map(move |(who, grants)| {
                        grants
                            .iter()
                            .map(move |grant| format!("{place} {who} {}", grant.role.as_ref().map_or(0, |rules| rules.len())))
                    })
                })
                .collect();
            told.sort();
            told
        }
    }

    fn role() -> Value {
        json!({"kind": "Role", "metadata": {}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]})
    }

    fn binding(kind: &str, role: &str, subjects: Value) -> Value {
        json!({"kind": "B", "metadata": {}, "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}, "subjects": subjects})
    }

    #[test]
    fn the_index_follows_roles_and_bindings() {
        let mut cluster = Cluster::new();
        let jane = json!([{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "robot"}]);
        cluster.put("/rbac.authorization.k8s.io/rolebindings/a/b", binding("ClusterRole", "reader", jane.clone()));
        assert_eq!(cluster.told(), ["a jane 0", "a system:serviceaccount:a:robot 0"]);
        // The role comes later, and every scope that refers to it sees it.
        cluster.put("/rbac.authorization.k8s.io/clusterroles/reader", role());
        assert_eq!(cluster.told(), ["a jane 1", "a system:serviceaccount:a:robot 1"]);
        cluster.put("/rbac.authorization.k8s.io/clusterrolebindings/b", binding("ClusterRole", "reader", jane));
        assert_eq!(cluster.told(), ["* jane 1", "a jane 1", "a system:serviceaccount:a:robot 1"]);
        cluster.put("/core/pods/a/web", json!({"kind": "Pod", "metadata": {}}));
        let version = cluster.index.version;
        assert_eq!(version, cluster.changes.version(), "a pod does not concern it");
        // A deletion: the cache tells it with the last value.
        let key = "/rbac.authorization.k8s.io/rolebindings/a/b";
        cluster.enter(key, 5, &json!({"kind": "B", "metadata": {}}));
        assert_eq!(cluster.told().len(), 3, "it is told before it can be read");
        assert_ne!(cluster.index.version, cluster.changes.version());
        cluster.snapshot.objects.remove(key);
        cluster.snapshot.revision = 5;
        assert_eq!(cluster.told(), ["* jane 1"]);
        assert_eq!(cluster.index.version, cluster.changes.version());
    }

    #[test]
    fn what_can_be_read_counts_while_more_is_on_its_way() {
        let mut cluster = Cluster::new();
        let subjects = json!([{"kind": "User", "name": "jane"}]);
        cluster.put("/rbac.authorization.k8s.io/clusterroles/reader", role());
        cluster.put("/rbac.authorization.k8s.io/rolebindings/a/b", binding("ClusterRole", "reader", subjects.clone()));
        // The next changes are told, but the snapshot does not show them yet.
        cluster.enter("/rbac.authorization.k8s.io/clusterroles/other", 3, &role());
        let late = cluster.enter("/rbac.authorization.k8s.io/rolebindings/a/c", 4, &binding("ClusterRole", "reader", subjects));
        assert_eq!(cluster.told(), ["a jane 1"]);
        assert_ne!(cluster.index.version, cluster.changes.version());
        cluster.snapshot.objects.insert(late.key.clone(), late);
        cluster.snapshot.revision = 4;
        assert_eq!(cluster.told(), ["a jane 1", "a jane 1"]);
        assert_eq!(cluster.index.version, cluster.changes.version());
    }

    #[test]
    fn what_vanished_while_the_cache_was_read_anew_grants_nothing() {
        let mut cluster = Cluster::new();
        let subjects = json!([{"kind": "Group", "name": "team"}]);
        cluster.put("/rbac.authorization.k8s.io/clusterroles/reader", role());
        cluster.put("/rbac.authorization.k8s.io/rolebindings/a/b", binding("ClusterRole", "reader", subjects.clone()));
        cluster.put("/rbac.authorization.k8s.io/rolebindings/b/b", binding("ClusterRole", "reader", subjects));
        assert_eq!(cluster.told(), ["a team 1", "b team 1"]);
        let reloaded = cluster.enter("/rbac.authorization.k8s.io/clusterroles/reader", 1, &role());
        assert_eq!(cluster.told(), ["a team 1", "b team 1"]);
        cluster.snapshot.objects = Default::default();
        cluster.snapshot.objects.insert(reloaded.key.clone(), reloaded);
        cluster.snapshot.revision = 9;
        assert_eq!(cluster.told(), Vec::<String>::new());
        assert_eq!(cluster.index.version, cluster.changes.version());
    }

    #[test]
    fn a_grant_says_where_it_comes_from() {
        let given = |kind: &str, role: &str| Binding {
            role_ref: RoleRef { api_group: GROUP.into(), kind: kind.into(), name: role.into() },
            subjects: vec![],
        };
        let subject = |kind: &str, name: &str| Subject { kind: kind.into(), name: name.into(), namespace: String::new() };
        assert_eq!(
            reason("x", "", &given("ClusterRole", "y"), &subject("User", "z")),
            r#"RBAC: allowed by ClusterRoleBinding "x" of ClusterRole "y" to User "z""#
        );
        assert_eq!(
            reason("x", "ns", &given("Role", "y"), &subject("ServiceAccount", "z")),
            r#"RBAC: allowed by RoleBinding "x/ns" of Role "y" to ServiceAccount "z/ns""#
        );
    }
}
