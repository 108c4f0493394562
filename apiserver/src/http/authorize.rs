//! A request is carried out if its user may do it, else refused in Kubernetes' words.

use crate::authorization::{Attributes, decide};
use crate::http::authenticate::User;
use crate::http::error::{Status, qualified};
use crate::http::notes;
use crate::http::request_info::{RequestInfo, Verb};
use crate::server::ApiServer;
use serde_json::json;

/// Paths that anybody may read, so that a load balancer and `kubectl version` need no credential.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// What opens a connection to a pod: to open one by a GET, as a WebSocket does, takes the right to create it too.
const TUNNELS: [&str; 3] = ["attach", "exec", "portforward"];

/// Who shows no credential is asked for one, but for the public paths: what a role may have granted to
/// `system:unauthenticated` beyond them does not count.
pub fn check_anonymous(user: &User, request: &RequestInfo) -> Result<(), Status> {
    let below = |root: &str| request.path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if user.is_in(User::AUTHENTICATED) || (!request.is_resource && PUBLIC.iter().any(|root| below(root))) {
        return Ok(());
    }
    Err(Status::unauthorized())
}

pub fn authorize(server: &ApiServer, user: &User, request: &RequestInfo) -> Result<(), Status> {
    let asked = Attributes::of(request);
    let decision = decide(server, user, &asked);
    notes::annotate("authorization.k8s.io/reason", decision.reason());
    if !decision.allowed {
        return Err(forbidden(&user.name, &asked, decision.reason()));
    }
    let tunnels = request.resource == "pods" && TUNNELS.contains(&request.subresource.as_str());
    if tunnels && request.group.is_empty() && request.verb == Verb::Get {
        check(server, user, &Attributes { verb: "create", ..asked })?;
    }
    Ok(())
}

/// 403 unless the user may do it.
pub fn check(server: &ApiServer, user: &User, asked: &Attributes<'_>) -> Result<(), Status> {
    let decision = decide(server, user, asked);
    if decision.allowed { Ok(()) } else { Err(forbidden(&user.name, asked, decision.reason())) }
}

/// Worded as Kubernetes words it.
fn forbidden(user: &str, asked: &Attributes<'_>, reason: &str) -> Status {
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let Attributes { verb, group, resource, subresource, namespace, name, path, .. } = *asked;
    if !asked.is_resource {
        return Status::forbidden(format!("forbidden: User {user:?} cannot {verb} path {path:?}{reason}"))
            .with_details(json!({}));
    }
    let of = qualified(resource, group);
    let subject = if name.is_empty() { of } else { format!("{of} {name:?}") };
    let with_sub = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
    let place = if namespace.is_empty() { "at the cluster scope".into() } else { format!("in the namespace {namespace:?}") };
    let mut details = json!({"kind": resource});
    for (field, value) in [("name", name), ("group", group)] {
        if !value.is_empty() {
            details[field] = value.into();
        }
    }
    Status::forbidden(format!(
        "{subject} is forbidden: User {user:?} cannot {verb} resource {with_sub:?} in API group {group:?} {place}{reason}"
    ))
    .with_details(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: http::Method, path: &str) -> RequestInfo {
        RequestInfo::parse(&method, &path.parse().unwrap())
    }

    #[test]
    fn a_refusal_names_verb_resource_and_place() {
        let said = |method, path| forbidden("jane", &Attributes::of(&request(method, path)), "").message;
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
        assert_eq!(said(http::Method::POST, "/metrics"), "forbidden: User \"jane\" cannot post path \"/metrics\"");
        let because = forbidden("jane", &Attributes::of(&request(http::Method::GET, "/api/v1/nodes")), "RBAC: why");
        assert!(because.message.ends_with("at the cluster scope: RBAC: why"), "{}", because.message);
    }

    #[test]
    fn who_shows_no_credential_sees_health_and_version() {
        let asked = |path| check_anonymous(&User::anonymous(), &request(http::Method::GET, path)).is_ok();
        assert!(asked("/healthz") && asked("/version/") && asked("/readyz/ping"));
        assert!(!asked("/healthzz") && !asked("/api") && !asked("/api/v1/pods") && !asked("/"));
        assert!(check_anonymous(&User::new("jane", &[]), &request(http::Method::GET, "/api")).is_ok());
    }
}
