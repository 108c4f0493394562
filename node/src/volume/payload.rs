//! The files of volumes whose content comes from the API: ConfigMap, Secret, downward API, and projections of them.

use super::atomic::File;
use crate::pod::{Context, environment};
use jiff::Timestamp;
use slipway_api::core::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use std::collections::BTreeMap;

const MODE_DEFAULT: i32 = 0o644;
/// A token is for one user: no one else may read it.
const TOKEN_MODE: u32 = 0o600;

#[derive(Default)]
pub struct Payload {
    pub files: BTreeMap<String, File>,
    pub refresh_at: Option<Timestamp>,
    pub secret: bool,
}

pub async fn of(pod: &Pod, volume: &Volume, context: &Context, ips: &[String]) -> Result<Payload, String> {
    let mut payload = Payload::default();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        let wanted = Wanted { what: Source::ConfigMap, name: &source.name, items, mode, optional };
        keys(pod, wanted, context, &mut payload).await?;
    } else if let Some(source) = &volume.secret {
        payload.secret = true;
        let name = source.secret_name.as_deref().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        keys(pod, Wanted { what: Source::Secret, name, items, mode, optional }, context, &mut payload).await?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        downward(pod, source.items.as_deref(), mode, context, ips, &mut payload)?;
    } else if let Some(source) = &volume.projected {
        payload.secret = true;
        for projection in source.sources.iter().flatten() {
            project(pod, projection, source.default_mode.unwrap_or(MODE_DEFAULT), context, ips, &mut payload).await?;
        }
    } else {
        return Err("this kind of volume is not supported by this node".into());
    }
    Ok(payload)
}

async fn project(
    pod: &Pod,
    source: &VolumeProjection,
    mode: i32,
    context: &Context,
    ips: &[String],
    payload: &mut Payload,
) -> Result<(), String> {
    if let Some(source) = &source.config_map {
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        let wanted = Wanted { what: Source::ConfigMap, name: &source.name, items, mode, optional };
        keys(pod, wanted, context, payload).await?;
    }
    if let Some(source) = &source.secret {
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        keys(pod, Wanted { what: Source::Secret, name: &source.name, items, mode, optional }, context, payload).await?;
    }
    if let Some(source) = &source.downward_api {
        downward(pod, source.items.as_deref(), mode, context, ips, payload)?;
    }
    if let Some(source) = &source.service_account_token {
        token(pod, source, mode, context, payload).await?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Source {
    ConfigMap,
    Secret,
}

impl Source {
    fn word(self) -> &'static str {
        match self {
            Source::ConfigMap => "configmap",
            Source::Secret => "secret",
        }
    }
}

/// What a volume takes of a ConfigMap or Secret.
struct Wanted<'a> {
    what: Source,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    mode: i32,
    optional: bool,
}

/// All keys, or those that `items` lists, under the paths it gives.
fn select(wanted: &Wanted<'_>, data: BTreeMap<String, Vec<u8>>, payload: &mut Payload) -> Result<(), String> {
    let file = |bytes, mode: i32| File { bytes, mode: mode as u32, owner: None };
    let Wanted { what, mode, optional, .. } = *wanted;
    let Some(items) = wanted.items.filter(|items| !items.is_empty()) else {
        payload.files.extend(data.into_iter().map(|(key, bytes)| (key, file(bytes, mode))));
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => drop(payload.files.insert(item.path.clone(), file(bytes.clone(), item.mode.unwrap_or(mode)))),
            None if optional => {}
            None => {
                return Err(format!("{0} references non-existent {0} key: {1}", what.word(), item.key));
            }
        }
    }
    Ok(())
}

/// The ConfigMap or Secret of this name, its keys as files.
async fn keys(pod: &Pod, wanted: Wanted<'_>, context: &Context, payload: &mut Payload) -> Result<(), String> {
    let (namespace, uid) =
        (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.uid.as_deref().unwrap_or_default());
    let Wanted { what, name, .. } = wanted;
    let found = match what {
        Source::ConfigMap => context.objects.config_map(namespace, name, uid).await?.map(|found| {
            let ConfigMap { data, binary_data, .. } = (*found).clone();
            let texts = data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
            texts.chain(binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0))).collect()
        }),
        Source::Secret => context.objects.secret(namespace, name, uid).await?.map(|found| {
            let Secret { data, .. } = (*found).clone();
            data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)).collect()
        }),
    };
    match found {
        Some(all) => select(&wanted, all, payload),
        None if wanted.optional => Ok(()),
        None => Err(format!("{} \"{name}\" not found", what.word())),
    }
}

fn downward(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
    context: &Context,
    ips: &[String],
    payload: &mut Payload,
) -> Result<(), String> {
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(wanted), _) => environment::field(pod, &wanted.field_path, context, ips)?,
            (_, Some(wanted)) => environment::resource(pod, None, wanted, context)?,
            _ => String::new(),
        };
        let file = File { bytes: text.into_bytes(), mode: item.mode.unwrap_or(mode) as u32, owner: None };
        payload.files.insert(item.path.clone(), file);
    }
    Ok(())
}

async fn token(
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
    mode: i32,
    context: &Context,
    payload: &mut Payload,
) -> Result<(), String> {
    let token = context.tokens.get(&context.objects.client, pod, source).await?;
    payload.refresh_at = Some(payload.refresh_at.map_or(token.refresh_at, |before| before.min(token.refresh_at)));
    // When all containers run as one user, the token is that user's alone; else anyone of the pod may read it.
    let spec = pod.spec.clone().unwrap_or_default();
    let of_pod = spec.security_context.as_ref().and_then(|security| security.run_as_user);
    let users: std::collections::BTreeSet<Option<i64>> = spec
        .containers
        .iter()
        .map(|container| container.security_context.as_ref().and_then(|security| security.run_as_user).or(of_pod))
        .collect();
    let sole = if users.len() == 1 { users.into_iter().next().flatten() } else { None };
    let has_group = spec.security_context.as_ref().is_some_and(|security| security.fs_group.is_some());
    let (mode, owner) = match sole {
        Some(user) if !has_group => (TOKEN_MODE, u32::try_from(user).ok()),
        _ if has_group => (TOKEN_MODE, None),
        _ => (mode as u32, None),
    };
    payload.files.insert(source.path.clone(), File { bytes: token.token.into_bytes(), mode, owner });
    Ok(())
}
