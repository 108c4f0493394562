//! What the pages show, read out of the API's objects. No I/O and nothing of the browser.

use crate::api::Objects;
use serde_json::{Value, json};

/// How an app is doing, in one word and one colour.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// `ok`, `busy`, `bad` or `idle`: the badge's style.
    pub tone: &'static str,
    pub word: String,
    /// Why, if there is more to say.
    pub why: Option<String>,
}

fn health(tone: &'static str, word: &str, why: Option<String>) -> Health {
    Health { tone, word: word.into(), why }
}

pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub fn number(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// A condition's (status, reason, message).
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    Some((text(found, "/status"), text(found, "/reason"), text(found, "/message")))
}

/// The health of a Deployment.
pub fn app_health(deployment: &Value) -> Health {
    if !deployment["metadata"]["deletionTimestamp"].is_null() {
        return health("busy", "Deleting", None);
    }
    let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let (ready, updated) = (number(deployment, "/status/readyReplicas"), number(deployment, "/status/updatedReplicas"));
    let observed = number(deployment, "/status/observedGeneration") >= number(deployment, "/metadata/generation");
    if let Some(("False", "ProgressDeadlineExceeded", message)) = condition(deployment, "Progressing") {
        return health("bad", "Stuck", Some(message.to_owned()));
    }
    if wanted == 0 && number(deployment, "/status/replicas") == 0 {
        return health("idle", "Stopped", None);
    }
    if observed && ready >= wanted && updated >= wanted && number(deployment, "/status/replicas") == wanted {
        return health("ok", "Running", None);
    }
    health("busy", "Rolling out", Some(format!("{ready} of {wanted} ready")))
}

/// The word that `kubectl get pods` shows, and its tone.
pub fn pod_health(pod: &Value) -> Health {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return health("busy", "Terminating", None);
    }
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let statuses = statuses.iter().filter_map(|list| pod["status"][*list].as_array()).flatten();
    for status in statuses {
        let reason = text(status, "/state/waiting/reason");
        if !matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
            return health("bad", reason, Some(text(status, "/state/waiting/message").to_owned()));
        }
    }
    match text(pod, "/status/phase") {
        "Running" if condition(pod, "Ready").is_some_and(|(status, ..)| status == "True") => health("ok", "Ready", None),
        "Running" => health("busy", "Not ready", None),
        "Succeeded" => health("idle", "Completed", None),
        "Failed" => health("bad", "Failed", Some(text(pod, "/status/message").to_owned())),
        _ => match condition(pod, "PodScheduled") {
            Some(("False", _, message)) => health("busy", "Waiting for a node", Some(message.to_owned())),
            _ => health("busy", "Starting", None),
        },
    }
}

pub fn node_health(node: &Value) -> Health {
    let ready = condition(node, "Ready");
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        return health("idle", "Cordoned", None);
    }
    match ready {
        Some(("True", ..)) => health("ok", "Ready", None),
        Some((_, _, message)) => health("bad", "Not ready", Some(message.to_owned())),
        None => health("busy", "Joining", None),
    }
}

/// Whether a label map holds everything that a selector's matchLabels asks for.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    selector
        .as_object()
        .is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

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

/// Where a Service answers: (label, link if a browser can open it).
pub fn address(service: &Value, host: &str) -> (String, Option<String>) {
    let port = number(service, "/spec/ports/0/port");
    match text(service, "/spec/type") {
        "NodePort" => {
            let url = format!("http://{host}:{}", number(service, "/spec/ports/0/nodePort"));
            (url.clone(), Some(url))
        }
        "LoadBalancer" => match text(service, "/status/loadBalancer/ingress/0/hostname") {
            "" => match text(service, "/status/loadBalancer/ingress/0/ip") {
                "" => ("load balancer pending".into(), None),
                ip => (format!("http://{ip}:{port}"), Some(format!("http://{ip}:{port}"))),
            },
            host => (format!("http://{host}:{port}"), Some(format!("http://{host}:{port}"))),
        },
        _ => (format!("{}.{}.svc:{port} (inside the cluster)", name(service), namespace(service)), None),
    }
}

/// What the deploy form asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    pub namespace: String,
    pub name: String,
    pub image: String,
    pub port: Option<u16>,
    pub replicas: u32,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, or empty: not exposed.
    pub expose: String,
}

pub fn deployment(wish: &Wish) -> Value {
    let mut container = json!({"name": wish.name, "image": wish.image});
    if let Some(port) = wish.port {
        container["ports"] = json!([{"containerPort": port}]);
        container["readinessProbe"] = json!({"tcpSocket": {"port": port}, "periodSeconds": 2});
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": wish.name, "namespace": wish.namespace, "labels": {"app": wish.name}},
        "spec": {
            "replicas": wish.replicas,
            "selector": {"matchLabels": {"app": wish.name}},
            "template": {"metadata": {"labels": {"app": wish.name}}, "spec": {"containers": [container]}},
        },
    })
}

pub fn service(wish: &Wish) -> Option<Value> {
    let port = wish.port.filter(|_| !wish.expose.is_empty())?;
    Some(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": wish.name, "namespace": wish.namespace, "labels": {"app": wish.name}},
        "spec": {"type": wish.expose, "selector": {"app": wish.name}, "ports": [{"port": port, "targetPort": port}]},
    }))
}

/// Seconds since a timestamp, as `5m` or `3d`.
pub fn age(timestamp: &str, now_ms: f64) -> String {
    let then = js_sys::Date::parse(timestamp);
    let seconds = ((now_ms - then) / 1000.0).max(0.0) as u64;
    match seconds {
        s if s < 120 => format!("{s}s"),
        s if s < 7_200 => format!("{}m", s / 60),
        s if s < 172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}
