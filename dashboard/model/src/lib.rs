//! What the pages show, read out of the API's objects. No I/O and nothing of the browser, so that it is tested anywhere.

mod address;
mod deploy;
mod events;
mod health;
mod quantity;

pub use address::{Address, address, node_host};
pub use deploy::{Draft, Expose, Mistakes, Wish, deployment, service};
pub use events::{Occurrence, occurrences};
pub use health::{Health, Tone, app_health, node_health, pod_health};
pub use quantity::{bytes, cores, memory, milli, requests};

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A collection's objects by `namespace/name`.
pub type Objects = BTreeMap<String, Arc<Value>>;

pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn number(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or_default()
}

pub fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub fn key(object: &Value) -> String {
    format!("{}/{}", namespace(object), name(object))
}

/// A condition's (status, reason, message).
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = list(object, "/status/conditions").iter().find(|condition| condition["type"] == kind)?;
    Some((text(found, "/status"), text(found, "/reason"), text(found, "/message")))
}

pub fn replicas(deployment: &Value) -> i64 {
    deployment.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

/// Whether an object's controller is the given one.
pub fn is_owned(object: &Value, owner: &Value) -> bool {
    let uid = text(owner, "/metadata/uid");
    !uid.is_empty() && list(object, "/metadata/ownerReferences").iter().any(|reference| text(reference, "/uid") == uid)
}

/// Whether a label map holds everything that a selector's matchLabels asks for.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector
        .as_object()
        .is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

/// The pods that a Deployment's labels select.
pub fn pods_of<'a>(deployment: &Value, pods: &'a Objects) -> Vec<&'a Value> {
    let selector = &deployment["spec"]["selector"]["matchLabels"];
    let all = pods.values().map(|pod| &**pod);
    all.filter(|pod| namespace(pod) == namespace(deployment) && selects(selector, &pod["metadata"]["labels"])).collect()
}

/// The Services that lead to a Deployment's pods.
pub fn services_of<'a>(deployment: &Value, services: &'a Objects) -> Vec<&'a Value> {
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let all = services.values().map(|service| &**service);
    all.filter(|service| namespace(service) == namespace(deployment) && selects(&service["spec"]["selector"], labels)).collect()
}

/// How long ago, in the largest unit that says something.
pub fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 5 => "now".into(),
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects(all: &[Value]) -> Objects {
        all.iter().map(|object| (key(object), Arc::new(object.clone()))).collect()
    }

    #[test]
    fn services_and_pods_are_found_by_labels_in_the_same_namespace() {
        let labels = json!({"app": "web", "tier": "front"});
        let app = json!({"metadata": {"name": "web", "namespace": "a"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": labels}}}});
        let service = |namespace: &str, selector: Value| json!({"metadata": {"name": format!("s{}", selector), "namespace": namespace}, "spec": {"selector": selector}});
        let services = objects(&[
            service("a", json!({"app": "web"})),
            service("a", json!({"app": "web", "tier": "back"})),
            service("a", json!({})),
            service("b", json!({"app": "web"})),
        ]);
        assert_eq!(services_of(&app, &services).len(), 1);
        let pod = |namespace: &str, app: &str| json!({"metadata": {"name": app, "namespace": namespace, "labels": {"app": app}}});
        let pods = objects(&[pod("a", "web"), pod("a", "web-admin"), pod("b", "web")]);
        assert_eq!(pods_of(&app, &pods), [&pod("a", "web")]);
    }

    #[test]
    fn an_age_is_told_in_one_unit() {
        assert_eq!([0, 119, 120, 7_199, 7_200, 172_800].map(age), ["now", "119 s", "2 min", "119 min", "2 h", "2 d"]);
    }
}
