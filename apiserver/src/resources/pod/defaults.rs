//! What is filled in on pods and on pod templates.

use crate::resources::fill;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What templates share with pods.
pub fn fill_spec(spec: &mut Value) {
    fill::empty(spec, "dnsPolicy", "ClusterFirst");
    fill::empty(spec, "restartPolicy", "Always");
    fill::missing(spec, "securityContext", json!({}));
    fill::missing(spec, "terminationGracePeriodSeconds", 30);
    fill::empty(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
    for volume in fill::items(spec, "volumes") {
        fill_volume(volume);
    }
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for container in fill::items(spec, field) {
            fill_container(container);
        }
    }
}

/// What pods have beyond that: it isn't written into templates, for a template's change is a rollout.
pub fn fill_pod(spec: &mut Value) {
    fill::missing(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for field in ["initContainers", "containers"] {
        for container in fill::items(spec, field) {
            if let Some(resources) = fill::inner(container, "resources") {
                requests_from_limits(resources);
            }
            for port in fill::items(container, "ports").filter(|_| host_network) {
                if let Some(number) = port.get("containerPort").cloned() {
                    fill::empty(port, "hostPort", number);
                }
            }
        }
    }
    pod_requests_from_limits(spec);
}

/// `serviceAccount` is the older name of `serviceAccountName`; clients may read or write either.
pub fn mirror_service_account(spec: &mut Value) {
    let name = match fill::text(spec, "serviceAccountName") {
        "" => fill::text(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = name.to_owned();
        spec["serviceAccount"] = json!(name);
        spec["serviceAccountName"] = json!(name);
    }
}

fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|limits| !limits.is_empty()).cloned() else {
        return;
    };
    if let Some(requests) = fill::map_of(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// A pod's own request, where it has a limit: what its containers ask for together, and without that the limit.
fn pod_requests_from_limits(spec: &mut Value) {
    let Some(limits) = spec.get("resources").and_then(|resources| resources.get("limits")).and_then(Value::as_object).cloned()
    else {
        return;
    };
    let mut asked: BTreeMap<String, slipway_api::quantity::Quantity> = BTreeMap::new();
    for container in spec.get("containers").and_then(Value::as_array).into_iter().flatten() {
        let requests = container.get("resources").and_then(|resources| resources.get("requests")).and_then(Value::as_object);
        for (name, amount) in requests.into_iter().flatten() {
            if let Some(amount) = amount.as_str().and_then(|text| slipway_api::quantity::Quantity::parse(text).ok()) {
                let sum = asked.entry(name.clone()).or_default();
                *sum += amount;
            }
        }
    }
    if let Some(requests) = spec.get_mut("resources").and_then(|resources| fill::map_of(resources, "requests")) {
        for (name, limit) in limits {
            let amount = asked.get(&name).map_or(limit, |sum| json!(sum.to_string()));
            requests.entry(name).or_insert(amount);
        }
    }
}

fn fill_container(container: &mut Value) {
    let policy = pull_policy(fill::text(container, "image"));
    fill::empty(container, "imagePullPolicy", policy);
    fill::empty(container, "terminationMessagePath", "/dev/termination-log");
    fill::empty(container, "terminationMessagePolicy", "File");
    fill::missing(container, "resources", json!({}));
    for port in fill::items(container, "ports") {
        fill::empty(port, "protocol", "TCP");
    }
    for variable in fill::items(container, "env") {
        if let Some(source) = fill::inner(variable, "valueFrom") {
            fill_field_ref(source);
            if let Some(file) = fill::inner(source, "fileKeyRef") {
                fill::missing(file, "optional", false);
            }
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = fill::inner(container, probe) {
            fill_probe(probe);
        }
    }
    if let Some(lifecycle) = fill::inner(container, "lifecycle") {
        for handler in ["postStart", "preStop"] {
            if let Some(handler) = fill::inner(lifecycle, handler) {
                fill_http_get(handler);
            }
        }
    }
}

/// `Always` for what may change under its name: no tag, or `latest`.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let tag = name.rsplit_once('/').map_or(name, |(_, last)| last).split_once(':').map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn fill_probe(probe: &mut Value) {
    fill::empty(probe, "timeoutSeconds", 1);
    fill::empty(probe, "periodSeconds", 10);
    fill::empty(probe, "successThreshold", 1);
    fill::empty(probe, "failureThreshold", 3);
    fill_http_get(probe);
    if let Some(grpc) = fill::inner(probe, "grpc") {
        fill::missing(grpc, "service", "");
    }
}

fn fill_http_get(handler: &mut Value) {
    if let Some(get) = fill::inner(handler, "httpGet") {
        fill::empty(get, "path", "/");
        fill::empty(get, "scheme", "HTTP");
    }
}

fn fill_field_ref(source: &mut Value) {
    if let Some(field) = fill::inner(source, "fieldRef") {
        fill::empty(field, "apiVersion", "v1");
    }
}

/// `rw-r--r--`.
const DEFAULT_MODE: i32 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

fn fill_volume(volume: &mut Value) {
    let sources =
        volume.as_object().map_or(0, |map| map.iter().filter(|(key, value)| *key != "name" && !value.is_null()).count());
    if sources == 0 {
        fill::missing(volume, "emptyDir", json!({}));
    }
    for field in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = fill::inner(volume, field) {
            fill::missing(source, "defaultMode", DEFAULT_MODE);
        }
    }
    if let Some(downward) = fill::inner(volume, "downwardAPI") {
        fill::items(downward, "items").for_each(fill_field_ref);
    }
    if let Some(projected) = fill::inner(volume, "projected") {
        for source in fill::items(projected, "sources") {
            if let Some(token) = fill::inner(source, "serviceAccountToken") {
                fill::missing(token, "expirationSeconds", TOKEN_SECONDS);
            }
            if let Some(downward) = fill::inner(source, "downwardAPI") {
                fill::items(downward, "items").for_each(fill_field_ref);
            }
        }
    }
    fill_source(volume);
    let claim = fill::inner(volume, "ephemeral").and_then(|ephemeral| fill::inner(ephemeral, "volumeClaimTemplate"));
    if let Some(spec) = claim.and_then(|template| fill::inner(template, "spec")) {
        fill::missing(spec, "volumeMode", "Filesystem");
    }
}

/// The sources that a pod's volume and a PersistentVolume have in common.
pub fn fill_source(volume: &mut Value) {
    if let Some(path) = fill::inner(volume, "hostPath") {
        fill::missing(path, "type", "");
    }
    let policy = volume.get("image").map(|image| pull_policy(fill::text(image, "reference")));
    if let (Some(image), Some(policy)) = (fill::inner(volume, "image"), policy) {
        fill::empty(image, "pullPolicy", policy);
    }
    if let Some(iscsi) = fill::inner(volume, "iscsi") {
        fill::empty(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = fill::inner(volume, "rbd") {
        fill::empty(rbd, "pool", "rbd");
        fill::empty(rbd, "user", "admin");
        fill::empty(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = fill::inner(volume, "azureDisk") {
        fill::missing(disk, "cachingMode", "ReadWrite");
        fill::missing(disk, "fsType", "ext4");
        fill::missing(disk, "readOnly", false);
        fill::missing(disk, "kind", "Shared");
    }
    if let Some(scale_io) = fill::inner(volume, "scaleIO") {
        fill::empty(scale_io, "storageMode", "ThinProvisioned");
        fill::empty(scale_io, "fsType", "xfs");
    }
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn images_that_may_change_are_pulled_always() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/team/nginx:2", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
