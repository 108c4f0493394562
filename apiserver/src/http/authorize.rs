//! Who may do what: a trait, and the plain rules that are built in.

use crate::http::authenticate::User;
use crate::http::error::{Status, qualified};
use crate::http::request_info::{RequestInfo, Verb};
use crate::server::ApiServer;
use crate::stored;
use crate::subresources::{self, review};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Decides on requests. RBAC will be one.
pub trait Authorizer: Send + Sync {
    fn allows(&self, server: &ApiServer, user: &User, request: &RequestInfo) -> bool;
    /// What a user may do in a namespace: `authorization.k8s.io/v1 SubjectRulesReviewStatus`.
    fn rules(&self, server: &ApiServer, user: &User, namespace: &str) -> Value;
}

/// Paths that anybody may read, so that a load balancer and `kubectl version` need no credential.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// What every authenticated caller may read: what is served, and in which form.
const DISCOVERY: [&str; 5] = ["/api", "/apis", "/openapi", "/.well-known", "/version"];
/// What a service account does not read even in its own namespace.
const UNREADABLE_BY_ACCOUNTS: [&str; 2] = ["secrets", "namespaces"];
/// The subresources that it reads there; the empty one is the object itself.
const READABLE_BY_ACCOUNTS: [&str; 4] = ["", "status", "scale", "log"];
/// Reviews that a caller may ask about itself.
const SELF_REVIEWS: [&str; 3] = ["selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"];

pub fn authorize(server: &ApiServer, user: &User, request: &RequestInfo) -> Result<(), Status> {
    if server.authorizer.allows(server, user, request) {
        return Ok(());
    }
    if user.is_in(User::AUTHENTICATED) { Err(forbidden(user, request)) } else { Err(Status::unauthorized()) }
}

/// Worded as Kubernetes words it.
fn forbidden(user: &User, request: &RequestInfo) -> Status {
    let (name, verb) = (&user.name, request.verb.as_str());
    if !request.is_resource {
        let path = &request.path;
        return Status::forbidden(format!("forbidden: User \"{name}\" cannot {verb} path \"{path}\"")).with_details(json!({}));
    }
    let resource = qualified(&request.resource, &request.group);
    let object = request.name.as_deref().unwrap_or_default();
    let subject = if object.is_empty() { resource } else { format!("{resource} \"{object}\"") };
    let with_sub = match request.subresource.as_str() {
        "" => request.resource.clone(),
        sub => format!("{}/{sub}", request.resource),
    };
    let place = match &request.namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".into(),
    };
    let group = &request.group;
    let mut details = json!({"kind": request.resource});
    if !object.is_empty() {
        details["name"] = object.into();
    }
    if !group.is_empty() {
        details["group"] = group.as_str().into();
    }
    Status::forbidden(format!(
        "{subject} is forbidden: User \"{name}\" cannot {verb} resource \"{with_sub}\" in API group \"{group}\" {place}"
    ))
    .with_details(details)
}

/// The rules until there is RBAC: masters everything, each part of the control plane what it needs, a node agent what
/// concerns its node, a service account reads its own namespace but for Secrets.
pub struct Plain;

impl Authorizer for Plain {
    fn allows(&self, server: &ApiServer, user: &User, request: &RequestInfo) -> bool {
        let reads = matches!(request.verb, Verb::Get | Verb::List | Verb::Watch);
        if user.is_in(User::MASTERS) {
            return true;
        }
        if !request.is_resource {
            let below = |roots: &[&str]| {
                roots
                    .iter()
                    .any(|root| request.path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
            };
            return reads && (below(&PUBLIC) || (user.is_in(User::AUTHENTICATED) && below(&DISCOVERY)))
                || reads && request.path == "/metrics" && user.is_in("system:monitoring");
        }
        if user.is_in(User::AUTHENTICATED) && crate::custom_resources::is_asked(request) {
            return true;
        }
        if user.is_in(User::AUTHENTICATED) && request.verb == Verb::Create && SELF_REVIEWS.contains(&request.resource.as_str()) {
            return true;
        }
        if let Some(node) = user.node() {
            return node_allows(server, node, request, reads);
        }
        if user.is_in(User::BOOTSTRAPPERS) {
            return bootstrapper_allows(request, reads);
        }
        if let Some(account) = user.name.strip_prefix("system:serviceaccount:") {
            let namespace = account.split(':').next();
            return reads
                && request.namespace.as_deref() == namespace
                && !UNREADABLE_BY_ACCOUNTS.contains(&request.resource.as_str())
                && READABLE_BY_ACCOUNTS.contains(&request.subresource.as_str());
        }
        component_allows(&user.name, request, reads)
    }

    fn rules(&self, server: &ApiServer, user: &User, namespace: &str) -> Value {
        if user.is_in(User::MASTERS) {
            return json!({
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false,
            });
        }
        let mut resources = vec![];
        if user.is_in(User::AUTHENTICATED) {
            for group in ["authentication.k8s.io", "authorization.k8s.io"] {
                let of_group = review::ALL.iter().filter(|one| one.group == group).map(|one| one.plural);
                let own: Vec<&str> = of_group.filter(|plural| SELF_REVIEWS.contains(plural)).collect();
                resources.push(json!({"verbs": ["create"], "apiGroups": [group], "resources": own}));
            }
        }
        let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split(':').next());
        if account == Some(namespace) {
            resources.extend(readable_by_accounts(server));
        }
        let open = if user.is_in(User::AUTHENTICATED) { DISCOVERY.as_slice() } else { &[] };
        let paths: Vec<String> = PUBLIC.iter().chain(open).flat_map(|path| [(*path).to_owned(), format!("{path}/*")]).collect();
        // What the parts of the control plane may do depends on more than kinds and verbs.
        let part = account.is_none() && user.name.starts_with("system:") && user.is_in(User::AUTHENTICATED);
        let mut rules = json!({
            "resourceRules": resources, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": paths}], "incomplete": part,
        });
        if part {
            rules["evaluationError"] = "the rules of a part of the control plane cannot be listed".into();
        }
        rules
    }
}

/// What a service account may read in its own namespace, as rules.
fn readable_by_accounts(server: &ApiServer) -> Vec<Value> {
    let mut by_group: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for strategy in server.strategies() {
        let names = strategy.names();
        if !names.namespaced || UNREADABLE_BY_ACCOUNTS.contains(&names.plural) {
            continue;
        }
        let resources = by_group.entry(names.group).or_default();
        resources.insert(names.plural.to_owned());
        let subs = subresources::of(names).into_iter().filter(|sub| READABLE_BY_ACCOUNTS.contains(&sub.name));
        resources.extend(subs.map(|sub| format!("{}/{}", names.plural, sub.name)));
    }
    let rule = |(group, resources)| json!({"verbs": ["get", "list", "watch"], "apiGroups": [group], "resources": resources});
    by_group.into_iter().map(rule).collect()
}

/// `GROUP/RESOURCE`, as `/pods`, `apps/deployments`.
fn what(request: &RequestInfo) -> String {
    format!("{}/{}", request.group, request.resource)
}

fn is_event(request: &RequestInfo) -> bool {
    matches!(what(request).as_str(), "/events" | "events.k8s.io/events")
}

fn component_allows(user: &str, request: &RequestInfo, reads: bool) -> bool {
    let (what, sub) = (what(request), request.subresource.as_str());
    let reports = is_event(request) || what == "coordination.k8s.io/leases";
    let is_secret = what == "/secrets";
    match user {
        // It deletes what it does not know, and makes tokens for others.
        "system:kube-controller-manager" => true,
        "system:kube-scheduler" => {
            let binds = what == "/pods" && matches!(sub, "binding" | "status");
            let preempts = what == "/pods" && request.verb == Verb::Delete;
            reports || binds || preempts || (reads && !is_secret)
        }
        "system:kube-proxy" => {
            let watched = ["/services", "/endpoints", "/nodes", "discovery.k8s.io/endpointslices"];
            reports || (reads && watched.contains(&what.as_str()))
        }
        "system:cloud-controller-manager" => {
            let owned = what == "/nodes" || request.group == "slipway.dev";
            let drains = what == "/pods" && (sub == "eviction" || request.verb == Verb::Delete);
            let exposes = what == "/services" && matches!(sub, "status" | "");
            let tokens = is_secret && request.namespace.as_deref() == Some("kube-system");
            reports || owned || drains || exposes || tokens || (reads && !is_secret)
        }
        _ => false,
    }
}

fn bootstrapper_allows(request: &RequestInfo, reads: bool) -> bool {
    let asks = what(request) == "certificates.k8s.io/certificatesigningrequests"
        && request.subresource.is_empty()
        && (reads || request.verb == Verb::Create);
    let cluster_info = what(request) == "/configmaps"
        && request.verb == Verb::Get
        && request.namespace.as_deref() == Some("kube-public")
        && request.name.as_deref() == Some("cluster-info");
    asks || cluster_info
}

/// What Kubernetes' node authoriser and its `NodeRestriction` allow, by the same thought: what belongs to this node, and
/// what its pods refer to.
fn node_allows(server: &ApiServer, node: &str, request: &RequestInfo, reads: bool) -> bool {
    let (sub, verb) = (request.subresource.as_str(), request.verb);
    let name = request.name.as_deref().unwrap_or_default();
    let writes = matches!(verb, Verb::Create | Verb::Update | Verb::Patch);
    if is_event(request) {
        return writes;
    }
    match what(request).as_str() {
        // The node's proxy and DNS act with its identity.
        "/services" | "/endpoints" | "/namespaces" | "discovery.k8s.io/endpointslices" => reads && sub.is_empty(),
        "/nodes" if reads => sub.is_empty(),
        "/nodes" => writes && matches!(sub, "" | "status") && (name == node || verb == Verb::Create),
        "/pods" if reads && sub.is_empty() => {
            let own = |pod: &str| pod_is_on(server, request, pod).is_none_or(|at| at == node);
            match verb {
                Verb::Get => own(name),
                _ => selects_node(request, node) || (!name.is_empty() && own(name)),
            }
        }
        "/pods" => {
            let own = pod_is_on(server, request, name).is_none_or(|at| at == node);
            own && (verb == Verb::Delete && sub.is_empty()
                || matches!(verb, Verb::Update | Verb::Patch) && sub == "status"
                || verb == Verb::Create && sub == "eviction")
        }
        "coordination.k8s.io/leases" => {
            let own = name == node || verb == Verb::Create;
            request.namespace.as_deref() == Some("kube-node-lease") && own && verb != Verb::DeleteCollection
        }
        "certificates.k8s.io/certificatesigningrequests" => sub.is_empty() && (reads || verb == Verb::Create),
        // It answers for its own endpoint by asking here who calls and whether they may.
        "authentication.k8s.io/tokenreviews"
        | "authorization.k8s.io/subjectaccessreviews"
        | "authorization.k8s.io/localsubjectaccessreviews" => verb == Verb::Create,
        "/serviceaccounts" if sub == "token" => verb == Verb::Create && refers(server, node, request, Referred::ServiceAccount),
        "/serviceaccounts" => verb == Verb::Get && refers(server, node, request, Referred::ServiceAccount),
        "/secrets" => reads && sub.is_empty() && refers(server, node, request, Referred::Secret),
        "/configmaps" => reads && sub.is_empty() && (is_root_ca(request) || refers(server, node, request, Referred::ConfigMap)),
        _ => false,
    }
}

/// Every pod's token volume holds it, and it is no secret.
fn is_root_ca(request: &RequestInfo) -> bool {
    request.name.as_deref() == Some("kube-root-ca.crt")
}

fn selects_node(request: &RequestInfo, node: &str) -> bool {
    let selector = request.query.get("fieldSelector").unwrap_or_default();
    selector
        .split(',')
        .any(|term| term.strip_prefix("spec.nodeName=").is_some_and(|value| value.strip_prefix('=').unwrap_or(value) == node))
}

/// Where the pod of the request runs; `None` if there is none, which is then told as 404.
fn pod_is_on(server: &ApiServer, request: &RequestInfo, pod: &str) -> Option<String> {
    let pods = server.strategy("", "v1", "pods")?;
    let snapshot = server.snapshot();
    let entry = crate::server::find(&snapshot, &*pods, request.namespace.as_deref()?, pod)?;
    let field = entry.attributes.fields.iter().find(|(field, _)| *field == "spec.nodeName");
    Some(field.map(|(_, node)| node.clone()).unwrap_or_default())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Referred {
    ServiceAccount,
    Secret,
    ConfigMap,
}

/// Whether a pod of the node refers to the object that the request names.
fn refers(server: &ApiServer, node: &str, request: &RequestInfo, kind: Referred) -> bool {
    let (Some(pods), Some(namespace), Some(name)) = (server.strategy("", "v1", "pods"), &request.namespace, &request.name) else {
        return false;
    };
    let snapshot = server.snapshot();
    let prefix = stored::prefix(pods.names(), Some(namespace));
    let on_node =
        |entry: &stored::Entry| entry.attributes.fields.iter().any(|(field, value)| *field == "spec.nodeName" && value == node);
    stored::below(&snapshot, &prefix, "")
        .filter(|entry| on_node(entry))
        .filter_map(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok())
        .any(|pod| references(&pod["spec"]).contains(&(kind, name.clone())))
}

/// All objects that a pod's spec names.
fn references(spec: &Value) -> HashSet<(Referred, String)> {
    let mut found = HashSet::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut add = |kind: Referred, name: &Value| {
        if let Some(name) = name.as_str() {
            found.insert((kind, name.to_owned()));
        }
    };
    add(Referred::ServiceAccount, spec.get("serviceAccountName").unwrap_or(&json!("default")));
    for secret in list(&spec["imagePullSecrets"]) {
        add(Referred::Secret, &secret["name"]);
    }
    for volume in list(&spec["volumes"]) {
        add(Referred::Secret, &volume["secret"]["secretName"]);
        add(Referred::ConfigMap, &volume["configMap"]["name"]);
        for source in list(&volume["projected"]["sources"]) {
            add(Referred::Secret, &source["secret"]["name"]);
            add(Referred::ConfigMap, &source["configMap"]["name"]);
        }
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(&spec[field]) {
            for variable in list(&container["env"]) {
                add(Referred::Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
                add(Referred::ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
            for source in list(&container["envFrom"]) {
                add(Referred::Secret, &source["secretRef"]["name"]);
                add(Referred::ConfigMap, &source["configMapRef"]["name"]);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: http::Method, path: &str) -> RequestInfo {
        RequestInfo::parse(&method, &path.parse().unwrap())
    }

    #[test]
    fn a_refusal_names_verb_resource_and_place() {
        let user = User::new("jane", &[]);
        let said = |method, path| forbidden(&user, &request(method, path)).message;
        assert_eq!(
            said(http::Method::GET, "/api/v1/namespaces/a/pods/web"),
            "pods \"web\" is forbidden: User \"jane\" cannot get resource \"pods\" in API group \"\" in the namespace \"a\""
        );
        assert_eq!(
            said(http::Method::POST, "/apis/apps/v1/namespaces/a/deployments/web/scale"),
            "deployments.apps \"web\" is forbidden: User \"jane\" cannot create resource \"deployments/scale\" in API group \"apps\" in the namespace \"a\""
        );
        assert_eq!(
            said(http::Method::GET, "/api/v1/nodes"),
            "nodes is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
        );
        assert_eq!(said(http::Method::GET, "/metrics"), "forbidden: User \"jane\" cannot get path \"/metrics\"");
    }

    #[test]
    fn components_do_what_they_need_and_no_more() {
        let allows = |user: &str, method, path: &str| {
            let request = request(method, path);
            let reads = matches!(request.verb, Verb::Get | Verb::List | Verb::Watch);
            component_allows(user, &request, reads)
        };
        use http::Method;
        let scheduler = "system:kube-scheduler";
        assert!(allows(scheduler, Method::POST, "/api/v1/namespaces/a/pods/web/binding"));
        assert!(allows(scheduler, Method::GET, "/api/v1/pods?watch=1"));
        assert!(allows(scheduler, Method::POST, "/apis/events.k8s.io/v1/namespaces/a/events"));
        assert!(!allows(scheduler, Method::GET, "/api/v1/secrets"));
        assert!(!allows(scheduler, Method::POST, "/api/v1/namespaces/a/pods"));
        assert!(allows("system:kube-proxy", Method::GET, "/apis/discovery.k8s.io/v1/endpointslices"));
        assert!(!allows("system:kube-proxy", Method::GET, "/api/v1/pods"));
        assert!(!allows("jane", Method::GET, "/api/v1/pods"));
    }

    #[test]
    fn a_pod_refers_to_what_its_spec_names() {
        let spec = json!({
            "serviceAccountName": "robot",
            "volumes": [{"secret": {"secretName": "a"}}, {"projected": {"sources": [{"configMap": {"name": "b"}}]}}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "c"}}}], "envFrom": [{"configMapRef": {"name": "d"}}]}],
        });
        let mut names: Vec<String> = references(&spec).into_iter().map(|(_, name)| name).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c", "d", "robot"]);
    }
}
