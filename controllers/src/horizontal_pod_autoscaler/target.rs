//! What an autoscaler scales: any kind with a `scale` subresource.

use serde_json::Value;
use slipway_api::autoscaling_v2::CrossVersionObjectReference;

use super::Source;
use crate::resource::{Key, Resource};

/// The target's scale, as it was read.
#[derive(Clone, Debug)]
pub struct Target {
    pub resource: Resource,
    pub key: Key,
    pub scale: Value,
    /// How many are asked for, and how many there are.
    pub replicas: i32,
    pub status_replicas: i32,
    pub selector: String,
}

/// The target, or why it cannot be had.
pub async fn find(source: &dyn Source, namespace: &str, reference: &CrossVersionObjectReference) -> Result<Target, String> {
    let key = Key::new(namespace, &reference.name);
    let mut first_error = None;
    for resource in resources(source, reference.api_version.as_deref().unwrap_or_default(), &reference.kind).await? {
        match source.get(&resource.path(&key, Some("scale"))).await {
            Ok(scale) => return Ok(target(resource, key, scale)),
            Err(error) => {
                first_error.get_or_insert_with(|| words(&error));
            }
        }
    }
    Err(first_error.unwrap_or_else(|| "unrecognized resource".into()))
}

fn target(resource: Resource, key: Key, scale: Value) -> Target {
    let count = |part: &str| scale[part]["replicas"].as_i64().and_then(|count| i32::try_from(count).ok()).unwrap_or(0);
    Target {
        resource,
        key,
        replicas: count("spec"),
        status_replicas: count("status"),
        selector: scale["status"]["selector"].as_str().unwrap_or_default().to_owned(),
        scale,
    }
}

/// The resources of a kind: that of the version which is named, else those of the group's other versions.
pub async fn resources(source: &dyn Source, api_version: &str, kind: &str) -> Result<Vec<Resource>, String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let named = of_version(source, group, version, kind).await;
    if !named.is_empty() {
        return Ok(named);
    }
    let mut all = vec![];
    if !group.is_empty()
        && let Ok(list) = source.get(&format!("/apis/{group}")).await
    {
        let versions = list["versions"].as_array().cloned().unwrap_or_default();
        for other in versions.iter().filter_map(|other| other["version"].as_str()).filter(|other| *other != version) {
            all.extend(of_version(source, group, other, kind).await);
        }
    }
    if all.is_empty() { Err(format!("no matches for kind {kind:?} in group {group:?}")) } else { Ok(all) }
}

async fn of_version(source: &dyn Source, group: &str, version: &str, kind: &str) -> Vec<Resource> {
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let list = source.get(&path).await.unwrap_or_default();
    let resources = list["resources"].as_array().cloned().unwrap_or_default();
    let is_it = |resource: &&Value| resource["kind"] == kind && resource["name"].as_str().is_some_and(|name| !name.contains('/'));
    let found = resources.iter().filter(is_it).map(|resource| Resource {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        plural: resource["name"].as_str().unwrap_or_default().to_owned().into(),
        kind: kind.to_owned().into(),
        namespaced: resource["namespaced"] == true,
    });
    found.collect()
}

/// What the API server said.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
