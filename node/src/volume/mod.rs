//! A pod's volumes: directories below the agent's data directory, or the machine's own paths.

pub mod atomic;
mod payload;
mod token;

pub use token::Tokens;

use crate::pod::Context;
use nix::mount::{MsFlags, mount};
use slipway_api::core::{EmptyDirVolumeSource, HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use slipway_api::quantity::Quantity;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A volume that can't be had: what the event `FailedMount` says.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {why}")]
pub struct Error {
    pub volume: String,
    pub why: String,
}

/// Where each volume is on the machine, and when its content has to be looked at again.
#[derive(Debug, Clone, Default)]
pub struct Mounted {
    pub paths: BTreeMap<String, PathBuf>,
    pub refresh_at: Option<jiff::Timestamp>,
}

/// Makes what is missing, and renews what changed. Idempotent: it is called on every look at the pod.
pub async fn set_up(pod: &Pod, context: &Context, ips: &[String]) -> Result<Mounted, Error> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let group = spec.security_context.as_ref().and_then(|security| security.fs_group);
    let mut mounted = Mounted::default();
    for volume in spec.volumes.iter().flatten() {
        let dir = context.pod_dir(uid).join("volumes").join(&volume.name);
        let path = one(pod, volume, &dir, group, context, ips, &mut mounted).await;
        let path = path.map_err(|why| Error { volume: volume.name.clone(), why })?;
        mounted.paths.insert(volume.name.clone(), path);
    }
    Ok(mounted)
}

async fn one(
    pod: &Pod,
    volume: &Volume,
    dir: &Path,
    group: Option<i64>,
    context: &Context,
    ips: &[String],
    mounted: &mut Mounted,
) -> Result<PathBuf, String> {
    let plain = |error: io::Error| error.to_string();
    if let Some(source) = &volume.host_path {
        return host_path(source).map(|()| PathBuf::from(&source.path));
    }
    if let Some(source) = &volume.empty_dir {
        empty_dir(source, dir, group).map_err(plain)?;
        return Ok(dir.to_owned());
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return claimed(pod, &claim.claim_name, context).await;
    }
    let payload = payload::of(pod, volume, context, ips).await?;
    if let Some(at) = payload.refresh_at {
        mounted.refresh_at = Some(mounted.refresh_at.map_or(at, |before| before.min(at)));
    }
    // What is secret never reaches the disk.
    if payload.secret && !is_mount_point(dir) {
        fs::create_dir_all(dir).map_err(plain)?;
        tmpfs(dir, None).map_err(plain)?;
    }
    atomic::write(dir, &payload.files, group).map_err(plain)?;
    Ok(dir.to_owned())
}

fn tmpfs(dir: &Path, size: Option<i64>) -> io::Result<()> {
    let options = size.map_or("mode=0777".to_owned(), |size| format!("mode=0777,size={size}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// A directory on another device than its parent.
pub fn is_mount_point(dir: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
    let here = device(dir);
    here.is_some() && here != dir.parent().and_then(device)
}

fn empty_dir(source: &EmptyDirVolumeSource, dir: &Path, group: Option<i64>) -> io::Result<()> {
    let memory = source.medium.as_deref() == Some("Memory");
    if dir.exists() && (!memory || is_mount_point(dir)) {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    if memory {
        let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok()).map(Quantity::value);
        tmpfs(dir, limit.filter(|limit| *limit > 0))?;
    }
    let mode = if let Some(group) = group {
        chown(dir, None, u32::try_from(group).ok())?;
        0o2777
    } else {
        0o777
    };
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let (path, kind) = (Path::new(&source.path), source.type_.as_deref().unwrap_or_default());
    let found = fs::metadata(path);
    let wrong = || Err(format!("hostPath type check failed: {} is not a {}", path.display(), describe(kind)));
    let held = |holds: bool| if holds { Ok(()) } else { wrong() };
    let kind_of = found.as_ref().map(fs::Metadata::file_type);
    match (kind, kind_of) {
        ("", Ok(_)) => Ok(()),
        // As Docker did: what isn't there becomes a directory.
        ("", Err(_)) => fs::create_dir_all(path).map_err(|error| error.to_string()),
        ("DirectoryOrCreate", Err(_)) => {
            let made = fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
            made.map_err(|error| error.to_string())
        }
        ("FileOrCreate", Err(_)) => {
            let made = fs::OpenOptions::new().create(true).append(true).open(path);
            made.and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o644))).map_err(|error| error.to_string())
        }
        ("Directory" | "DirectoryOrCreate", Ok(kind)) => held(kind.is_dir()),
        ("File" | "FileOrCreate", Ok(kind)) => held(kind.is_file()),
        ("Socket", Ok(kind)) => held(kind.is_socket()),
        ("CharDevice", Ok(kind)) => held(kind.is_char_device()),
        ("BlockDevice", Ok(kind)) => held(kind.is_block_device()),
        _ => wrong(),
    }
}

fn describe(kind: &str) -> &'static str {
    match kind {
        "Directory" | "DirectoryOrCreate" => "directory",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        "BlockDevice" => "block device",
        _ => "file",
    }
}

/// A claim is served where its volume is a path of this machine.
async fn claimed(pod: &Pod, name: &str, context: &Context) -> Result<PathBuf, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let claims: kube::Api<PersistentVolumeClaim> = kube::Api::namespaced(context.objects.client.clone(), namespace);
    let claim = claims.get(name).await.map_err(|error| format!("failed to get PVC from the API server: {error}"))?;
    let bound = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
    let bound = bound.ok_or_else(|| format!("PersistentVolumeClaim {namespace}/{name} is not bound"))?;
    let volumes: kube::Api<PersistentVolume> = kube::Api::all(context.objects.client.clone());
    let volume = volumes.get(&bound).await.map_err(|error| format!("failed to get PV {bound}: {error}"))?;
    let spec = volume.spec.unwrap_or_default();
    if let Some(source) = &spec.host_path {
        return host_path(source).map(|()| PathBuf::from(&source.path));
    }
    match spec.local {
        Some(local) if Path::new(&local.path).exists() => Ok(PathBuf::from(local.path)),
        Some(local) => Err(format!("path \"{}\" does not exist", local.path)),
        None => Err(format!("PersistentVolume {bound} is of a kind that this node cannot mount")),
    }
}

/// The path of a volume's part, made if it is missing. It may not lead out of the volume.
pub fn sub_path(volume: &Path, part: &str) -> Result<PathBuf, String> {
    let fail = |why: String| format!("failed to prepare subPath for volumeMount: {why}");
    let climbs = Path::new(part)
        .components()
        .any(|piece| !matches!(piece, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if climbs {
        return Err(fail(format!("{part:?} must stay inside the volume")));
    }
    let root = volume.canonicalize().map_err(|error| fail(error.to_string()))?;
    let wanted = root.join(part);
    // The nearest part that exists is checked before anything is made through it.
    let nearest = wanted.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(&root);
    let inside = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&root));
    if !inside(nearest) {
        return Err(fail(format!("{part:?} leads out of the volume")));
    }
    if !wanted.exists() {
        fs::create_dir_all(&wanted).map_err(|error| fail(error.to_string()))?;
    }
    wanted.canonicalize().map_err(|error| fail(error.to_string()))
}

/// Unmounts and removes everything of a pod.
pub fn tear_down(pod_dir: &Path) -> io::Result<()> {
    crate::runtime::containerd::unmount_below(pod_dir)?;
    match fs::remove_dir_all(pod_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
