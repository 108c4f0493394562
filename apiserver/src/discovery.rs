//! What is served, told to clients: `/api`, `/apis` and the resources of each group and version; all of it in one answer
//! (aggregated discovery) for a client that accepts that.

use crate::http::error::Status;
use crate::http::negotiate::{Accept, Offer};
use crate::http::respond;
use crate::kind::Names;
use crate::server::ApiServer;
use crate::subresources::{self, Subresource};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The order in which Kubernetes lists its groups: a client that looks for a resource by its name alone takes the first.
const GROUPS: &[&str] = &[
    "",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "resource.k8s.io",
];

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One resource of a group and version, as both forms of discovery need it.
struct Resource {
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    namespaced: bool,
    verbs: &'static [&'static str],
    short: &'static [&'static str],
    categories: &'static [&'static str],
    subresources: Vec<Subresource>,
}

/// By place in `GROUPS`, then group; then version; then plural.
type Served = BTreeMap<(usize, &'static str), BTreeMap<&'static str, BTreeMap<&'static str, Resource>>>;

/// Answers a GET of `/api`, `/api/VERSION`, `/apis`, `/apis/GROUP`, `/apis/GROUP/VERSION`; `None` for any other path.
pub fn respond(server: &ApiServer, request: &Parts) -> Option<Result<Response, Status>> {
    let path: Vec<&str> = request.uri.path().trim_matches('/').split('/').collect();
    if let Some(answer) = subresources::token::respond(server, request) {
        return Some(answer);
    }
    if !matches!(path.as_slice(), ["api"] | ["api", _] | ["apis"] | ["apis", _] | ["apis", _, _]) {
        return None;
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Some(Err(Status::method_not_allowed()));
    }
    let served = served(server);
    if let (["api"] | ["apis"], Some(version)) = (path.as_slice(), aggregated_version(request)) {
        return Some(Ok(aggregated(&served, path[0] == "api", version, request)));
    }
    let answer = match path.as_slice() {
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses(server)})),
        ["apis"] => Some(group_list(&served)),
        ["api", version] => resource_list(&served, "", version),
        ["apis", group] if !group.is_empty() => find(&served, group).map(|(group, versions)| {
            let mut object = group_object(group, versions);
            object["kind"] = "APIGroup".into();
            object["apiVersion"] = "v1".into();
            object
        }),
        ["apis", group, version] if !group.is_empty() => resource_list(&served, group, version),
        _ => None,
    };
    let Some(answer) = answer else { return Some(Ok(respond::page_not_found())) };
    let accept = Accept::parse(&request.headers, Offer::PLAIN);
    Some(accept.map(|accept| respond::value(accept, StatusCode::OK, &answer)))
}

fn served(server: &ApiServer) -> Served {
    let mut served = Served::new();
    let mut add = |group: &'static str, version: &'static str, resource: Resource| {
        let place = GROUPS.iter().position(|known| *known == group).unwrap_or(GROUPS.len());
        served.entry((place, group)).or_default().entry(version).or_default().insert(resource.plural, resource);
    };
    for strategy in server.strategies() {
        let names = strategy.names();
        add(names.group, names.version, resource(names));
    }
    for review in subresources::review::ALL {
        let resource = Resource {
            plural: review.plural,
            singular: review.singular,
            kind: review.kind,
            namespaced: review.namespaced,
            verbs: &["create"],
            short: &[],
            categories: &[],
            subresources: vec![],
        };
        add(review.group, review.version, resource);
    }
    served
}

fn resource(names: &Names) -> Resource {
    Resource {
        plural: names.plural,
        singular: names.singular,
        kind: names.kind,
        namespaced: names.namespaced,
        // A namespace is emptied before it goes, so that there is no deleting them in bulk.
        verbs: if names.plural == "namespaces" {
            &["create", "delete", "get", "list", "patch", "update", "watch"]
        } else {
            VERBS
        },
        short: names.short,
        categories: names.categories,
        subresources: subresources::of(names),
    }
}

type Versions = BTreeMap<&'static str, BTreeMap<&'static str, Resource>>;

fn find<'a>(served: &'a Served, group: &str) -> Option<(&'static str, &'a Versions)> {
    served.iter().find(|((_, name), _)| *name == group).map(|((_, name), versions)| (*name, versions))
}

/// Versions as Kubernetes prefers them: `v2` before `v1` before `v1beta1` before `v1alpha1`.
fn by_preference<T>(versions: &BTreeMap<&'static str, T>) -> Vec<&'static str> {
    let rank = |version: &str| {
        let stable = !version.contains("alpha") && !version.contains("beta");
        let number = |text: &str| text.parse::<u32>().unwrap_or_default();
        let digits: Vec<u32> = version.split(|c: char| !c.is_ascii_digit()).map(number).collect();
        (stable, version.contains("beta"), digits)
    };
    let mut names: Vec<&'static str> = versions.keys().copied().collect();
    names.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    names
}

fn addresses(server: &ApiServer) -> Value {
    match server.options.advertise {
        Some(address) => json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()}]),
        None => json!([]),
    }
}

fn group_list(served: &Served) -> Value {
    let named = served.iter().filter(|((_, group), _)| !group.is_empty());
    let groups: Vec<Value> = named.map(|((_, group), versions)| group_object(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_object(group: &str, versions: &Versions) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = by_preference(versions).into_iter().map(version).collect();
    json!({"name": group, "preferredVersion": versions[0], "versions": versions})
}

fn resource_list(served: &Served, group: &str, version: &str) -> Option<Value> {
    let (_, versions) = find(served, group)?;
    let mut list = vec![];
    for resource in versions.get(version)?.values() {
        let mut object = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs,
        });
        if !resource.short.is_empty() {
            object["shortNames"] = json!(resource.short);
        }
        if !resource.categories.is_empty() {
            object["categories"] = json!(resource.categories);
        }
        list.push(object);
        for sub in &resource.subresources {
            let mut object = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": sub.kind.2, "verbs": sub.verbs,
            });
            if (sub.kind.0, sub.kind.1) != (group, version) {
                object["group"] = sub.kind.0.into();
                object["version"] = sub.kind.1.into();
            }
            list.push(object);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}

// === aggregated discovery ===

/// The version of `apidiscovery.k8s.io` that the client prefers to plain discovery.
fn aggregated_version(request: &Parts) -> Option<&'static str> {
    let accepts = request.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for alternative in accepts.flat_map(|value| value.split(',')) {
        let parts: Vec<&str> = alternative.split(';').map(str::trim).collect();
        if !matches!(parts[0], "application/json" | "*/*" | "application/*") {
            continue;
        }
        if parts.len() == 1 {
            return None;
        }
        let version = ["v2", "v2beta1"].into_iter().find(|version| parts.contains(&format!("v={version}").as_str()));
        let asks = parts.contains(&"as=APIGroupDiscoveryList") && parts.contains(&"g=apidiscovery.k8s.io");
        if asks && version.is_some() {
            return version;
        }
    }
    None
}

/// One list of all groups (or of the core group), with an ETag so that clients need not read it again.
fn aggregated(served: &Served, core: bool, version: &'static str, request: &Parts) -> Response {
    let groups = served.iter().filter(|((_, group), _)| group.is_empty() == core);
    let items: Vec<Value> = groups.map(|((_, group), versions)| group_discovery(group, versions)).collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    let text = list.to_string();
    let digest = Sha256::digest(text.as_bytes());
    let etag = format!("\"{}\"", digest.iter().map(|byte| format!("{byte:02X}")).collect::<String>());
    let unchanged = request.headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let content_type = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    let mut response = if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { Response::new(Body::from(text)) };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(header::ETAG, HeaderValue::from_str(&etag).expect("hexadecimal digits in quotes are a header's value"));
    response
}

fn group_discovery(group: &str, versions: &Versions) -> Value {
    let version = |version: &'static str| {
        let resources: Vec<Value> =
            versions[version].values().map(|resource| resource_discovery(group, version, resource)).collect();
        json!({"version": version, "freshness": "Current", "resources": resources})
    };
    let versions: Vec<Value> = by_preference(versions).into_iter().map(version).collect();
    json!({"metadata": {"name": group}, "versions": versions})
}

fn resource_discovery(group: &str, version: &str, resource: &Resource) -> Value {
    let mut object = json!({
        "resource": resource.plural, "singularResource": resource.singular, "verbs": resource.verbs,
        "responseKind": {"group": group, "version": version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
    });
    if !resource.short.is_empty() {
        object["shortNames"] = json!(resource.short);
    }
    if !resource.categories.is_empty() {
        object["categories"] = json!(resource.categories);
    }
    let sub = |sub: &Subresource| {
        let (group, version, kind) = sub.kind;
        json!({
            "subresource": sub.name, "verbs": sub.verbs,
            "responseKind": {"group": group, "version": version, "kind": kind},
        })
    };
    if !resource.subresources.is_empty() {
        object["subresources"] = resource.subresources.iter().map(sub).collect();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_listed_stable_first() {
        let versions = ["v1alpha1", "v1", "v2beta1", "v2", "v1beta2"].into_iter().map(|version| (version, ())).collect();
        assert_eq!(by_preference(&versions), ["v2", "v1", "v2beta1", "v1beta2", "v1alpha1"]);
    }

    #[test]
    fn the_accept_header_chooses_the_form() {
        let check = |accept: &str| {
            let request = http::Request::get("/api").header(header::ACCEPT, accept).body(()).unwrap();
            aggregated_version(&request.into_parts().0)
        };
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert_eq!(check(&format!("{v2},application/json")), Some("v2"));
        assert_eq!(check(&format!("{},{v2}", v2.replace("v=v2", "v=v3"))), Some("v2"));
        assert_eq!(check(&v2.replace("v=v2", "v=v2beta1")), Some("v2beta1"));
        assert_eq!(check("application/json"), None);
        assert_eq!(check("*/*"), None);
    }
}
