//! What extension servers tell of themselves, for discovery and OpenAPI: asked when an APIService comes or becomes available, and
//! again after a while. Every API server asks for itself.

use super::api_service::{ApiService, Remote};
use super::openapi;
use super::proxy::{Answer, Ask, ask};
use crate::admission::webhook::resolve;
use crate::server::ApiServer;
use futures::StreamExt;
use http::{StatusCode, header};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a server serves may change without a word.
const REFRESH: Duration = Duration::from_secs(60);
/// One that did not answer is asked again sooner.
const RETRY: Duration = Duration::from_secs(5);
/// Changes that come close together are looked at together.
const GATHER: Duration = Duration::from_millis(50);
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
const OPENAPI_TIMEOUT: Duration = Duration::from_secs(15);
const DISCOVERY_BYTES_MAX: usize = 4 << 20;
/// Kubernetes' own document, version 2, has 5 MB.
const OPENAPI_BYTES_MAX: usize = 16 << 20;
/// Servers that are asked at a time.
const ASKED_MAX: usize = 8;
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const JSON: &str = "application/json";

/// By group and version: the resources, as aggregated discovery has them.
type Resources = BTreeMap<(String, String), Vec<Value>>;

/// What all servers told.
#[derive(Default)]
pub(super) struct Told(HashMap<Remote, Arc<Extension>>);

/// What one server told.
#[derive(Default, Clone)]
struct Extension {
    resources: Resources,
    /// It did not answer when it was last asked.
    stale: bool,
    etag: String,
    /// By path, as `apis/GROUP/VERSION`: where version 3 of the document is.
    v3: BTreeMap<String, Value>,
    v3_etag: String,
    /// Version 2 of the document, as far as it is about the server's groups.
    v2: Option<Arc<Value>>,
    v2_etag: String,
}

/// What is merged into the OpenAPI documents.
#[derive(Default, PartialEq)]
pub(crate) struct Specs {
    pub v3: BTreeMap<String, Value>,
    pub v2: Vec<Arc<Value>>,
}

impl Specs {
    pub fn is_empty(&self) -> bool {
        self.v3.is_empty() && self.v2.is_empty()
    }
}

impl Told {
    pub fn resources(&self, service: &ApiService) -> (Vec<Value>, bool) {
        let told = service.remote.as_ref().and_then(|remote| self.0.get(remote));
        let Some(told) = told else { return (vec![], false) };
        match told.resources.get(&(service.group.clone(), service.version.clone())) {
            Some(resources) => (resources.clone(), !told.stale && service.is_available),
            // It says nothing of it.
            None => (vec![], false),
        }
    }

    fn specs(&self) -> Specs {
        let mut specs = Specs::default();
        for extension in self.0.values() {
            specs.v3.extend(extension.v3.clone());
        }
        // In one order, so that the same documents make the same whole.
        let mut v2: Vec<(&Remote, &Arc<Value>)> =
            self.0.iter().filter_map(|(remote, extension)| Some((remote, extension.v2.as_ref()?))).collect();
        v2.sort_by_key(|(remote, _)| (&remote.namespace, &remote.service, remote.port));
        specs.v2 = v2.into_iter().map(|(_, document)| Arc::clone(document)).collect();
        specs
    }
}

pub(super) async fn run(weak: Weak<ApiServer>, closing: CancellationToken) {
    loop {
        let Some(server) = weak.upgrade() else { return };
        let all_fresh = refresh(&server).await;
        let changes = Arc::clone(&server.aggregator.changed);
        drop(server);
        let changed = async {
            changes.notified().await;
            tokio::time::sleep(GATHER).await;
        };
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(if all_fresh { REFRESH } else { RETRY }) => {}
            () = changed => {}
        }
    }
}

/// Asks all servers; whether all answered.
async fn refresh(server: &Arc<ApiServer>) -> bool {
    let services = server.aggregator.services();
    let mut by_remote: HashMap<Remote, Vec<Arc<ApiService>>> = HashMap::new();
    for (service, remote) in services.remotes() {
        by_remote.entry(remote.clone()).or_default().push(Arc::clone(service));
    }
    let before = server.aggregator.told.load_full();
    let ask = |(remote, services): (Remote, Vec<Arc<ApiService>>)| {
        let known = before.0.get(&remote).map(|known| (**known).clone()).unwrap_or_default();
        async move {
            let told = if services.iter().any(|service| service.is_available) {
                renewed(server, &remote, &services, known).await
            } else {
                Extension { stale: true, ..known }
            };
            (remote, Arc::new(told))
        }
    };
    let asks: Vec<_> = by_remote.into_iter().map(ask).collect();
    let told: Vec<_> = futures::stream::iter(asks).buffer_unordered(ASKED_MAX).collect().await;
    let told = Told(told.into_iter().collect());
    let all_fresh = told.0.values().all(|extension| !extension.stale);
    let specs = told.specs();
    server.aggregator.told.store(Arc::new(told));
    if specs != **server.aggregator.specs.load() {
        server.aggregator.specs.store(Arc::new(specs));
    }
    all_fresh
}

/// What the server tells now; what it does not tell any more stays, marked as stale.
async fn renewed(server: &ApiServer, remote: &Remote, services: &[Arc<ApiService>], known: Extension) -> Extension {
    let mut told = known.clone();
    match discover(server, remote, services, &known).await {
        Ok(Some((resources, etag))) => (told.resources, told.etag, told.stale) = (resources, etag, false),
        Ok(None) => told.stale = false,
        Err(why) => {
            tracing::debug!(remote.service, why, "an extension server does not tell what it serves");
            told.stale = true;
        }
    }
    let roots: Vec<String> = services.iter().map(|service| service.root()).collect();
    let question = |path, etag| Ask { path, accept: JSON, etag, timeout: OPENAPI_TIMEOUT, bytes_max: OPENAPI_BYTES_MAX };
    if let Ok(answer) = get(server, remote, &question("/openapi/v3", known_tag(&known.v3_etag))).await
        && let Some(index) = json_of(&answer)
    {
        told.v3 = openapi::index(&index, &roots);
        told.v3_etag = answer.header(header::ETAG).to_owned();
    }
    if let Ok(answer) = get(server, remote, &question("/openapi/v2", known_tag(&known.v2_etag))).await
        && let Some(document) = json_of(&answer)
    {
        let part = openapi::part(&document, &roots);
        if told.v2.as_deref() != Some(&part) {
            told.v2 = Some(Arc::new(part));
        }
        told.v2_etag = answer.header(header::ETAG).to_owned();
    }
    told
}

fn known_tag(etag: &str) -> Option<&str> {
    Some(etag).filter(|etag| !etag.is_empty())
}

async fn get(server: &ApiServer, remote: &Remote, question: &Ask<'_>) -> Result<Answer, String> {
    let endpoint = resolve::service(server, &remote.namespace, &remote.service, remote.port)?;
    ask(server, remote, endpoint, question).await
}

/// A whole and good answer's body. What is not modified has none.
fn json_of(answer: &Answer) -> Option<Value> {
    (answer.code == StatusCode::OK).then(|| serde_json::from_slice(&answer.body).ok()).flatten()
}

/// What is served, with the tag of that; `None`: what was known.
async fn discover(
    server: &ApiServer,
    remote: &Remote,
    services: &[Arc<ApiService>],
    known: &Extension,
) -> Result<Option<(Resources, String)>, String> {
    // A tag is of the services that were asked for then.
    let covers = services.iter().all(|one| known.resources.contains_key(&(one.group.clone(), one.version.clone())));
    let etag = known_tag(&known.etag).filter(|_| covers);
    let answer = get(server, remote, &discovery("/apis", AGGREGATED, etag)).await?;
    if answer.code == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    if answer.code == StatusCode::OK && answer.header(header::CONTENT_TYPE).contains("as=APIGroupDiscoveryList") {
        let list = json_of(&answer).ok_or("the list of groups cannot be read")?;
        return Ok(Some((resources_of(&list), answer.header(header::ETAG).to_owned())));
    }
    // An older server: it is asked for each of its versions.
    let mut resources = Resources::new();
    for service in services {
        let path = service.root();
        let answer = get(server, remote, &discovery(&path, JSON, None)).await?;
        let list = json_of(&answer).ok_or_else(|| format!("failed to download discovery for {path}: {}", answer.code))?;
        resources.insert((service.group.clone(), service.version.clone()), converted(&list, &service.group, &service.version));
    }
    Ok(Some((resources, String::new())))
}

fn discovery<'a>(path: &'a str, accept: &'a str, etag: Option<&'a str>) -> Ask<'a> {
    Ask { path, accept, etag, timeout: DISCOVERY_TIMEOUT, bytes_max: DISCOVERY_BYTES_MAX }
}

fn resources_of(list: &Value) -> Resources {
    let mut all = Resources::new();
    for group in list["items"].as_array().into_iter().flatten() {
        for version in group["versions"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let resources = version["resources"].as_array().cloned().unwrap_or_default();
            all.insert((text(&group["metadata"]["name"]), text(&version["version"])), resources);
        }
    }
    all
}

/// An APIResourceList as aggregated discovery would have it.
fn converted(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let mut resources: Vec<Value> = vec![];
    let all = || list["resources"].as_array().into_iter().flatten();
    let kind = |one: &Value| {
        let or = |field: &str, own: &str| one[field].as_str().filter(|text| !text.is_empty()).unwrap_or(own).to_owned();
        json!({"group": or("group", group), "version": or("version", version), "kind": one["kind"]})
    };
    for one in all().filter(|one| one["name"].as_str().is_some_and(|name| !name.contains('/'))) {
        let mut resource = json!({
            "resource": one["name"], "responseKind": kind(one), "verbs": one["verbs"],
            "scope": if one["namespaced"] == true { "Namespaced" } else { "Cluster" },
            "singularResource": one["singularName"].as_str().unwrap_or_default(),
        });
        for field in ["shortNames", "categories"] {
            if one[field].is_array() {
                resource[field] = one[field].clone();
            }
        }
        resources.push(resource);
    }
    for one in all() {
        let Some((parent, name)) = one["name"].as_str().and_then(|name| name.split_once('/')) else { continue };
        let Some(resource) = resources.iter_mut().find(|resource| resource["resource"] == parent) else { continue };
        let sub = json!({"subresource": name, "responseKind": kind(one), "verbs": one["verbs"]});
        match resource["subresources"].as_array_mut() {
            Some(subresources) => subresources.push(sub),
            None => resource["subresources"] = json!([sub]),
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_list_is_converted() {
        let list = json!({"resources": [
            {"name": "flunders/status", "kind": "Flunder", "verbs": ["get"], "singularName": "", "namespaced": true},
            {"name": "flunders", "kind": "Flunder", "verbs": ["get", "list"], "singularName": "flunder", "namespaced": true, "shortNames": ["fl"]},
            {"name": "flunders/scale", "group": "autoscaling", "kind": "Scale", "verbs": ["get"], "singularName": ""},
        ]});
        let kind = json!({"group": "a.b", "version": "v1", "kind": "Flunder"});
        let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        let expected = json!([{
            "resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "verbs": ["get", "list"],
            "shortNames": ["fl"], "responseKind": kind,
            "subresources": [
                {"subresource": "status", "responseKind": kind, "verbs": ["get"]},
                {"subresource": "scale", "responseKind": scale, "verbs": ["get"]},
            ],
        }]);
        assert_eq!(json!(converted(&list, "a.b", "v1")), expected);
    }
}
