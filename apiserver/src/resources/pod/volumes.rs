//! Volumes and the mounts that refer to them.

use crate::http::error::Invalid;
use crate::resources::config_map::key_errors;
use crate::resources::rules;
use serde_json::json;
use slipway_api::core::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, ObjectFieldSelector, ProjectedVolumeSource, Volume, VolumeMount,
};
use slipway_api::name;
use slipway_api::quantity::Quantity;
use std::collections::BTreeSet;

const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=(1 << 32);
const FIELDS_OF_FILES: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The names of the volumes, for the mounts.
pub fn check<'a>(at: &str, volumes: &'a [Volume], errors: &mut Vec<Invalid>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = format!("{at}[{index}]");
        check_source(&at, volume, errors);
        if volume.name.is_empty() {
            errors.push(Invalid::required(format!("{at}.name"), ""));
        } else {
            rules::all(&format!("{at}.name"), &volume.name, name::dns1123_label(&volume.name), errors);
        }
        if !names.insert(volume.name.as_str()) {
            errors.push(Invalid::duplicate(format!("{at}.name"), &json!(volume.name)));
        }
    }
    names
}

/// What a volume is: the names of those of its fields that are set, but for its name.
pub fn sources(volume: &Volume) -> impl Iterator<Item = &'static str> {
    let all = [
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("csi", volume.csi.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("emptyDir", volume.empty_dir.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("image", volume.image.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("projected", volume.projected.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("secret", volume.secret.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
    ];
    all.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field)
}

fn check_source(at: &str, volume: &Volume, errors: &mut Vec<Invalid>) {
    let mut sources = sources(volume);
    if sources.next().is_none() {
        errors.push(Invalid::required(at, "must specify a volume type"));
    }
    errors.extend(sources.map(|field| Invalid::forbidden(format!("{at}.{field}"), "may not specify more than 1 volume type")));
    if let Some(source) = &volume.empty_dir
        && let Some(limit) = &source.size_limit
        && Quantity::parse(&limit.0).is_ok_and(Quantity::is_negative)
    {
        errors.push(Invalid::forbidden(format!("{at}.emptyDir.sizeLimit"), "SizeLimit field must be a valid resource quantity"));
    }
    if let Some(source) = &volume.host_path {
        host_path(&format!("{at}.hostPath"), source, errors);
    }
    if let Some(source) = &volume.secret {
        let at = format!("{at}.secret");
        required(&format!("{at}.secretName"), source.secret_name.as_deref().unwrap_or(""), errors);
        mode(&format!("{at}.defaultMode"), source.default_mode, errors);
        items(&at, source.items.as_deref(), errors);
    }
    if let Some(source) = &volume.config_map {
        let at = format!("{at}.configMap");
        required(&format!("{at}.name"), &source.name, errors);
        mode(&format!("{at}.defaultMode"), source.default_mode, errors);
        items(&at, source.items.as_deref(), errors);
    }
    if let Some(source) = &volume.downward_api {
        let at = format!("{at}.downwardAPI");
        mode(&format!("{at}.defaultMode"), source.default_mode, errors);
        files(&at, source.items.as_deref(), errors);
    }
    if let Some(source) = &volume.projected {
        projected(&format!("{at}.projected"), source, errors);
    }
    if let Some(source) = &volume.persistent_volume_claim {
        required(&format!("{at}.persistentVolumeClaim.claimName"), &source.claim_name, errors);
    }
    if let Some(source) = &volume.nfs {
        required(&format!("{at}.nfs.server"), &source.server, errors);
        required(&format!("{at}.nfs.path"), &source.path, errors);
        if !source.path.starts_with('/') {
            errors.push(Invalid::value(format!("{at}.nfs.path"), &json!(source.path), "must be an absolute path"));
        }
    }
    if let Some(source) = &volume.csi {
        required(&format!("{at}.csi.driver"), &source.driver, errors);
    }
}

fn required(at: &str, text: &str, errors: &mut Vec<Invalid>) {
    if text.is_empty() {
        errors.push(Invalid::required(at, ""));
    }
}

pub fn host_path(at: &str, source: &HostPathVolumeSource, errors: &mut Vec<Invalid>) {
    required(&format!("{at}.path"), &source.path, errors);
    no_steps_up(&format!("{at}.path"), &source.path, errors);
    rules::maybe_one_of(&format!("{at}.type"), source.type_.as_deref(), &HOST_PATH_TYPES, errors);
}

fn mode(at: &str, mode: Option<i32>, errors: &mut Vec<Invalid>) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(Invalid::value(at, &json!(mode), why));
    }
}

fn items(at: &str, items: Option<&[KeyToPath]>, errors: &mut Vec<Invalid>) {
    for (index, item) in items.unwrap_or(&[]).iter().enumerate() {
        let at = format!("{at}.items[{index}]");
        required(&format!("{at}.key"), &item.key, errors);
        required(&format!("{at}.path"), &item.path, errors);
        file_path(&format!("{at}.path"), &item.path, errors);
        mode(&format!("{at}.mode"), item.mode, errors);
    }
}

fn files(at: &str, files: Option<&[DownwardAPIVolumeFile]>, errors: &mut Vec<Invalid>) {
    for (index, file) in files.unwrap_or(&[]).iter().enumerate() {
        let at = format!("{at}.items[{index}]");
        required(&format!("{at}.path"), &file.path, errors);
        file_path(&format!("{at}.path"), &file.path, errors);
        match (&file.field_ref, &file.resource_field_ref) {
            (Some(field), both) => {
                field_ref(&format!("{at}.fieldRef"), field, &FIELDS_OF_FILES, errors);
                if both.is_some() {
                    let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errors.push(Invalid::value(&at, &json!("resource"), why));
                }
            }
            (None, Some(resource)) => {
                if resource.container_name.as_deref().unwrap_or("").is_empty() {
                    errors.push(Invalid::required(format!("{at}.resourceFieldRef.containerName"), ""));
                }
                super::containers::resource_ref(&format!("{at}.resourceFieldRef"), &resource.resource, errors);
            }
            (None, None) => errors.push(Invalid::required(&at, "one of fieldRef and resourceFieldRef is required")),
        }
        mode(&format!("{at}.mode"), file.mode, errors);
    }
}

/// A field of the pod, for an environment variable or a file; `allowed` in alphabetical order.
pub fn field_ref(at: &str, field: &ObjectFieldSelector, allowed: &[&str], errors: &mut Vec<Invalid>) {
    if field.api_version.as_deref().unwrap_or("").is_empty() {
        errors.push(Invalid::required(format!("{at}.apiVersion"), ""));
        return;
    }
    let path = field.field_path.as_str();
    let at = format!("{at}.fieldPath");
    if path.is_empty() {
        errors.push(Invalid::required(at, ""));
        return;
    }
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        match map {
            "metadata.annotations" => rules::all(&at, key, name::qualified_name(&key.to_lowercase()), errors),
            "metadata.labels" => rules::all(&at, key, name::qualified_name(key), errors),
            _ => errors.push(Invalid::value(at, &json!(path), "does not support subscript")),
        }
        return;
    }
    const KNOWN: [&str; 13] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    if !KNOWN.contains(&path) && path != "status.phase" && path != "spec.host" {
        let why = format!("error converting fieldPath: field label not supported: {path}");
        errors.push(Invalid::value(at, &json!(path), &why));
    } else if !allowed.contains(&path) {
        errors.push(Invalid::not_supported(at, &json!(path), allowed));
    }
}

fn projected(at: &str, source: &ProjectedVolumeSource, errors: &mut Vec<Invalid>) {
    mode(&format!("{at}.defaultMode"), source.default_mode, errors);
    for (index, one) in source.sources.iter().flatten().enumerate() {
        let at = format!("{at}.sources[{index}]");
        let set = [
            one.cluster_trust_bundle.is_some(),
            one.config_map.is_some(),
            one.downward_api.is_some(),
            one.pod_certificate.is_some(),
            one.secret.is_some(),
            one.service_account_token.is_some(),
        ];
        match set.into_iter().filter(|is_set| *is_set).count() {
            0 => errors.push(Invalid::required(&at, "must specify exactly one volume type")),
            1 => {}
            _ => errors.push(Invalid::forbidden(&at, "may not specify more than 1 volume type per source")),
        }
        if let Some(secret) = &one.secret {
            required(&format!("{at}.secret.name"), &secret.name, errors);
            items(&format!("{at}.secret"), secret.items.as_deref(), errors);
        }
        if let Some(map) = &one.config_map {
            required(&format!("{at}.configMap.name"), &map.name, errors);
            items(&format!("{at}.configMap"), map.items.as_deref(), errors);
        }
        if let Some(downward) = &one.downward_api {
            files(&format!("{at}.downwardAPI"), downward.items.as_deref(), errors);
        }
        if let Some(token) = &one.service_account_token {
            let at = format!("{at}.serviceAccountToken");
            let seconds = token.expiration_seconds.unwrap_or(0);
            if seconds < *TOKEN_SECONDS.start() {
                let why = "may not specify a duration less than 10 minutes";
                errors.push(Invalid::value(format!("{at}.expirationSeconds"), &json!(seconds), why));
            } else if seconds > *TOKEN_SECONDS.end() {
                let why = "may not specify a duration larger than 2^32 seconds";
                errors.push(Invalid::value(format!("{at}.expirationSeconds"), &json!(seconds), why));
            }
            required(&format!("{at}.path"), &token.path, errors);
            if !token.path.is_empty() {
                file_path(&format!("{at}.path"), &token.path, errors);
            }
        }
    }
}

pub fn mounts(at: &str, mounts: &[VolumeMount], volumes: &BTreeSet<&str>, errors: &mut Vec<Invalid>) {
    let mut places = BTreeSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let at = format!("{at}[{index}]");
        required(&format!("{at}.name"), &mount.name, errors);
        if !volumes.contains(mount.name.as_str()) {
            errors.push(Invalid::not_found(format!("{at}.name"), &json!(mount.name)));
        }
        required(&format!("{at}.mountPath"), &mount.mount_path, errors);
        if !places.insert(&mount.mount_path) {
            errors.push(Invalid::value(format!("{at}.mountPath"), &json!(mount.mount_path), "must be unique"));
        }
        let (path, expression) = (mount.sub_path.as_deref().unwrap_or(""), mount.sub_path_expr.as_deref().unwrap_or(""));
        if !path.is_empty() {
            relative_path(&format!("{at}.subPath"), path, errors);
        }
        if !expression.is_empty() {
            if !path.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.push(Invalid::value(format!("{at}.subPathExpr"), &json!(expression), why));
            }
            relative_path(&format!("{at}.subPathExpr"), expression, errors);
        }
        let modes = ["Bidirectional", "HostToContainer", "None"];
        rules::maybe_one_of(&format!("{at}.mountPropagation"), mount.mount_propagation.as_deref(), &modes, errors);
        recursive_read_only(&format!("{at}.recursiveReadOnly"), mount, errors);
    }
}

fn recursive_read_only(at: &str, mount: &VolumeMount, errors: &mut Vec<Invalid>) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") if mount.read_only != Some(true) => {
            errors.push(Invalid::forbidden(at, "may only be specified when readOnly is true"));
        }
        Some("Enabled" | "IfPossible") => {}
        Some(other) => errors.push(Invalid::not_supported(at, &json!(other), &["Disabled", "Enabled", "IfPossible"])),
    }
}

pub fn relative_path(at: &str, path: &str, errors: &mut Vec<Invalid>) {
    if path.starts_with('/') {
        errors.push(Invalid::value(at, &json!(path), "must be a relative path"));
    }
    no_steps_up(at, path, errors);
}

/// The path of a file in a volume: within it, and not where the node agent keeps its own links.
fn file_path(at: &str, path: &str, errors: &mut Vec<Invalid>) {
    relative_path(at, path, errors);
    if path.starts_with("..") && !path.starts_with("../") {
        errors.push(Invalid::value(at, &json!(path), "must not start with '..'"));
    }
}

fn no_steps_up(at: &str, path: &str, errors: &mut Vec<Invalid>) {
    if path.split('/').any(|step| step == "..") {
        errors.push(Invalid::value(at, &json!(path), "must not contain '..'"));
    }
}

/// The key of a ConfigMap or Secret that a field of a container names.
pub fn key(at: &str, key: &str, errors: &mut Vec<Invalid>) {
    match key {
        "" => errors.push(Invalid::required(at, "")),
        key => errors.extend(key_errors(at, key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn fields(volumes: Value) -> Vec<String> {
        let volumes: Vec<Volume> = serde_json::from_value(volumes).unwrap();
        let mut errors = vec![];
        check("volumes", &volumes, &mut errors);
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn every_field_but_the_name_is_a_source() {
        let schema = schemars::schema_for!(Volume);
        let fields: Vec<&String> =
            schema.as_value()["properties"].as_object().unwrap().keys().filter(|name| *name != "name").collect();
        assert!(fields.len() >= 30);
        for field in fields {
            let volume: Volume = serde_json::from_value(json!({"name": "v", field: {}})).unwrap();
            assert_eq!(super::sources(&volume).collect::<Vec<_>>(), [field.as_str()]);
        }
    }

    #[test]
    fn sources() {
        let good = json!([{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]}}]}}]);
        assert_eq!(fields(good), Vec::<String>::new());
        assert_eq!(
            fields(
                json!([{"name": "a"}, {"name": "a", "emptyDir": {}, "hostPath": {"path": "/a/../b"}}, {"configMap": {"name": "", "defaultMode": 512}}])
            ),
            [
                "volumes[0]: Required value: must specify a volume type",
                "volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
                "volumes[1].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                "volumes[1].name: Duplicate value: \"a\"",
                "volumes[2].configMap.name: Required value",
                "volumes[2].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                "volumes[2].name: Required value",
            ]
        );
        let token =
            json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "../x", "expirationSeconds": 5}}]}}]);
        assert_eq!(
            fields(token),
            [
                "volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                "volumes[0].projected.sources[0].serviceAccountToken.path: Invalid value: \"../x\": must not contain '..'",
            ]
        );
    }
}
