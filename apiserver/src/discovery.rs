//! What is served, told to clients: `/api`, `/apis` and the resources of each group and version; all of it in one answer
//! (aggregated discovery) for a client that accepts that. What extension servers serve is told as they tell it.

use crate::aggregation::{self, priority};
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
use std::cmp::Reverse;
use std::collections::BTreeMap;

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

/// By plural.
type Resources = BTreeMap<&'static str, Resource>;

struct Group {
    name: String,
    /// The preferred one first.
    versions: Vec<Version>,
}

struct Version {
    name: String,
    content: Content,
}

/// Where a version's APIService stands among all: by the priority of its group, then by its name.
type Place = (Reverse<i64>, String);

enum Content {
    Here(Resources),
    /// What an extension server told, and whether it still does.
    Behind {
        resources: Vec<Value>,
        fresh: bool,
    },
}

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
        ["apis", group] if !group.is_empty() => find(&served, group).map(|group| {
            let mut object = group_object(group);
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

/// All groups in the order of their priorities, as their APIServices have them: who looks for a resource by its name alone
/// takes the first.
fn served(server: &ApiServer) -> Vec<Group> {
    let services = server.aggregator.services();
    let mut all: BTreeMap<(String, String), Content> = local(server)
        .into_iter()
        .map(|((group, version), resources)| ((group.to_owned(), version.to_owned()), Content::Here(resources)))
        .collect();
    for (service, _) in services.remotes() {
        let (resources, fresh) = server.aggregator.resources(service);
        all.insert((service.group.clone(), service.version.clone()), Content::Behind { resources, fresh });
    }
    let priorities = |group: &str, version: &str| match services.get(group, version) {
        // It has none of its own, and comes first.
        _ if group == aggregation::GROUP => (i64::MAX, 0),
        Some(service) => (service.group_priority, service.version_priority),
        None => priority::builtin(group, version),
    };
    // A group is where the first of its versions is, which are told apart by their APIServices' names.
    let mut groups: BTreeMap<String, (Place, Vec<Version>)> = BTreeMap::new();
    for ((group, version), content) in all {
        let place = (Reverse(priorities(&group, &version).0), format!("{version}.{group}"));
        let (first, versions) = groups.entry(group).or_insert_with(|| (place.clone(), vec![]));
        *first = place.min(first.clone());
        versions.push(Version { name: version, content });
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(_, (one, _)), (_, (other, _))| one.cmp(other));
    let sorted = groups.into_iter().map(|(name, (_, mut versions))| {
        versions
            .sort_by_cached_key(|version| (Reverse(priorities(&name, &version.name).1), priority::by_preference(&version.name)));
        Group { name, versions }
    });
    sorted.collect()
}

/// What this server serves itself, by group and version.
fn local(server: &ApiServer) -> BTreeMap<(&'static str, &'static str), Resources> {
    let mut local: BTreeMap<(&'static str, &'static str), Resources> = BTreeMap::new();
    for strategy in server.strategies() {
        let names = strategy.names();
        local.entry((names.group, names.version)).or_default().insert(names.plural, resource(names));
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
        local.entry((review.group, review.version)).or_default().insert(resource.plural, resource);
    }
    local
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

fn find<'a>(served: &'a [Group], group: &str) -> Option<&'a Group> {
    served.iter().find(|one| one.name == group)
}

fn addresses(server: &ApiServer) -> Value {
    match server.options.advertise {
        Some(address) => json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()}]),
        None => json!([]),
    }
}

fn group_list(served: &[Group]) -> Value {
    let groups: Vec<Value> = served.iter().filter(|group| !group.name.is_empty()).map(group_object).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_object(group: &Group) -> Value {
    let version =
        |version: &Version| json!({"groupVersion": format!("{}/{}", group.name, version.name), "version": version.name});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"name": group.name, "preferredVersion": versions[0], "versions": versions})
}

/// Of what is served here: an extension server is asked itself.
fn resource_list(served: &[Group], group: &str, version: &str) -> Option<Value> {
    let found = find(served, group)?.versions.iter().find(|one| one.name == version)?;
    let Content::Here(resources) = &found.content else { return None };
    let mut list = vec![];
    for resource in resources.values() {
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
fn aggregated(served: &[Group], core: bool, version: &'static str, request: &Parts) -> Response {
    let groups = served.iter().filter(|group| group.name.is_empty() == core);
    let items: Vec<Value> = groups.map(group_discovery).collect();
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

fn group_discovery(group: &Group) -> Value {
    let version = |version: &Version| {
        let (resources, fresh) = match &version.content {
            Content::Here(all) => {
                (all.values().map(|resource| resource_discovery(&group.name, &version.name, resource)).collect(), true)
            }
            Content::Behind { resources, fresh } => (resources.clone(), *fresh),
        };
        let freshness = if fresh { "Current" } else { "Stale" };
        json!({"version": version.name, "freshness": freshness, "resources": resources})
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({"metadata": {"name": group.name}, "versions": versions})
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
