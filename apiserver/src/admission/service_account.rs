//! ServiceAccount: every pod runs as one, and finds its token, the cluster's CA and its namespace in a volume.

use super::{AdmissionContext, Operation, Plugin, Reservations};
use crate::http::error::Status;
use crate::verbs::create::generate_name;
use crate::verbs::get::{get_cached, get_object};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::time::Duration;

const DEFAULT: &str = "default";
const MIRROR: &str = "kubernetes.io/config.mirror";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A little over an hour: it tells these tokens from those that somebody asked for by hand, as in Kubernetes.
const EXPIRATION_SECONDS: i64 = 3_607;
/// A new namespace's `default` account is made by a controller, so that a pod may come before it.
const DEFAULT_ATTEMPTS_MAX: usize = 10;
const DEFAULT_RETRY: Duration = Duration::from_millis(150);

pub(super) struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    async fn admit(
        &self,
        context: &AdmissionContext<'_>,
        object: &mut Value,
        _reservations: &mut Reservations,
    ) -> Result<(), Status> {
        let mirror = object["metadata"]["annotations"].get(MIRROR).is_some();
        if !context.writes("", "pods", &[Operation::Create]) || mirror || !object["spec"].is_object() {
            return Ok(());
        }
        let name = match object["spec"]["serviceAccountName"].as_str() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => DEFAULT.to_owned(),
        };
        let Some(account) = find(context, &name).await? else {
            let namespace = context.namespace;
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
            return Err(context.forbidden(object, &why));
        };
        apply(object, &name, &account);
        Ok(())
    }

    /// A mirror pod is a node's own: what it runs is known there and not here, and it gets nothing that the API keeps.
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        let mirror = object["metadata"]["annotations"].get(MIRROR).is_some();
        match mirrored(object).filter(|_| mirror && context.writes("", "pods", &[Operation::Create])) {
            Some(why) => Err(context.forbidden(object, why)),
            None => Ok(()),
        }
    }
}

/// Why the pod cannot be a mirror pod.
fn mirrored(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("a mirror pod may not reference service accounts");
    }
    let volumes = || spec["volumes"].as_array().into_iter().flatten();
    let sources = || volumes().flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let mut containers = lists.into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
    let reads_secret = |container: &Value| {
        let uses = |list: &str, pointer: &str| {
            container[list].as_array().into_iter().flatten().any(|item| item.pointer(pointer).is_some())
        };
        uses("env", "/valueFrom/secretKeyRef") || uses("envFrom", "/secretRef")
    };
    let secrets = volumes().any(|volume| volume.get("secret").is_some())
        || sources().any(|source| source.get("secret").is_some())
        || spec["imagePullSecrets"].as_array().is_some_and(|secrets| !secrets.is_empty())
        || containers.any(reads_secret);
    if secrets {
        return Some("a mirror pod may not reference secrets");
    }
    let token = sources().any(|source| source.get("serviceAccountToken").is_some());
    token.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

async fn find(context: &AdmissionContext<'_>, name: &str) -> Result<Option<Value>, Status> {
    let Some(strategy) = context.server.strategy("", "v1", "serviceaccounts") else { return Ok(Some(json!({}))) };
    if let Some(account) = get_cached(&context.server.snapshot(), &*strategy, context.namespace, name) {
        return Ok(Some(account));
    }
    let attempts = if name == DEFAULT { DEFAULT_ATTEMPTS_MAX } else { 1 };
    for attempt in 0..attempts {
        if attempt > 0 {
            tokio::time::sleep(DEFAULT_RETRY).await;
        }
        match get_object(context.server, &*strategy, context.namespace, name).await {
            Ok(account) => return Ok(Some(account)),
            Err(status) if status.reason == "NotFound" => {}
            Err(status) => return Err(status),
        }
    }
    Ok(None)
}

fn apply(pod: &mut Value, name: &str, account: &Value) {
    let spec = &mut pod["spec"];
    spec["serviceAccountName"] = name.into();
    spec["serviceAccount"] = name.into();
    let automount = spec["automountServiceAccountToken"].as_bool();
    let automount = automount.or_else(|| account["automountServiceAccountToken"].as_bool()).unwrap_or(true);
    if automount {
        mount(spec);
    }
    let none = spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty);
    if let (true, Some(secrets)) = (none, account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty())) {
        spec["imagePullSecrets"] = json!(secrets);
    }
}

/// Mounts the volume in every container that has nothing at its path.
fn mount(spec: &mut Value) {
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    let own = volumes.iter().filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(VOLUME_PREFIX));
    let name = own.map_or_else(|| generate_name(VOLUME_PREFIX), str::to_owned);
    let mut needed = false;
    for field in ["initContainers", "containers"] {
        for container in spec[field].as_array_mut().into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            needed = true;
            let mut mounts = mounts;
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            container["volumeMounts"] = mounts.into();
        }
    }
    for field in ["initContainers", "volumes"] {
        // Asking for a field that is not there leaves a null.
        if spec[field].is_null() {
            crate::kind::remove(spec, field);
        }
    }
    if needed && own.is_none() {
        let mut volumes = volumes.clone();
        volumes.push(volume(&name));
        spec["volumes"] = volumes.into();
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": EXPIRATION_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(spec: Value, account: Value) -> Value {
        let mut pod = json!({"spec": spec});
        apply(&mut pod, "default", &account);
        pod["spec"].clone()
    }

    #[test]
    fn every_container_finds_its_token() {
        let elsewhere = json!([{"name": "x", "mountPath": MOUNT_PATH}]);
        let spec = applied(json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": elsewhere}]}), json!({}));
        let name = spec["volumes"][0]["name"].as_str().unwrap();
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5);
        assert_eq!(spec["containers"][0]["volumeMounts"], json!([{"name": name, "readOnly": true, "mountPath": MOUNT_PATH}]));
        assert_eq!(spec["containers"][1]["volumeMounts"], elsewhere);
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec.get("initContainers"), None);
        assert_eq!(applied(spec.clone(), json!({})), spec);
    }

    #[test]
    fn pod_and_account_may_refuse_the_token() {
        let no = json!({"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "s"}]});
        let spec = applied(json!({"containers": [{"name": "a"}]}), no.clone());
        assert_eq!(spec.get("volumes"), None);
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "s"}]));
        let yes = applied(json!({"containers": [{"name": "a"}], "automountServiceAccountToken": true}), no);
        assert!(yes["volumes"].is_array());
    }
}
