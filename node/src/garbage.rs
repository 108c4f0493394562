//! Keeps the disk from filling up: rotates logs, and removes images that nothing uses when space gets short.

use crate::pod::Context;
use crate::register::disk_used_percent;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A container's log is rotated at this size, and this many older ones are kept.
pub const LOG_BYTES_MAX: u64 = 10 << 20;
const LOGS_KEPT: usize = 4;
const LOGS_PERIOD: Duration = Duration::from_secs(10);
/// Images are removed above the first, until the disk is below the second.
const IMAGES_PERIOD: Duration = Duration::from_secs(300);
const IMAGES_ABOVE_PERCENT: u64 = 85;
const IMAGES_BELOW_PERCENT: u64 = 80;
/// An image is left alone for this long after it was last seen in use.
const IMAGE_AGE_MIN: Duration = Duration::from_secs(120);

pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let mut logs = tokio::time::interval(LOGS_PERIOD);
    let mut images = tokio::time::interval(IMAGES_PERIOD);
    let mut used: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        tokio::select! {
            _ = logs.tick() => rotate_logs(&context).await,
            _ = images.tick() => remove_images(&context, &mut used).await,
            () = shutdown.cancelled() => return,
        }
    }
}

async fn rotate_logs(context: &Context) {
    let Ok(containers) = context.runtime.list_containers(None).await else { return };
    for container in containers {
        let running = container.state == crate::runtime::api::ContainerState::ContainerRunning as i32;
        let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
        let metadata = container.metadata.unwrap_or_default();
        let pod = format!(
            "{}_{}_{}",
            label(crate::runtime::POD_NAMESPACE),
            label(crate::runtime::POD_NAME),
            label(crate::runtime::POD_UID)
        );
        let log = context.options.data_dir.join("logs").join(pod).join(&metadata.name).join(format!("{}.log", metadata.attempt));
        if running && fs::metadata(&log).is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
            let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
            let rotated = log.with_extension(format!("log.{stamp}"));
            if fs::rename(&log, &rotated).is_err() {
                continue;
            }
            if let Err(error) = context.runtime.reopen_log(&container.id).await {
                tracing::warn!(id = container.id, %error, "a log could not be reopened");
                let _ = fs::rename(&rotated, &log);
                continue;
            }
            drop_old(&log);
        }
    }
}

fn drop_old(log: &Path) {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else { return };
    let prefix = format!("{name}.");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut old: Vec<_> =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).map(|entry| entry.path()).collect();
    old.sort();
    for path in old.iter().rev().skip(LOGS_KEPT) {
        let _ = fs::remove_file(path);
    }
}

async fn remove_images(context: &Context, used: &mut BTreeMap<String, Instant>) {
    let dir = &context.options.data_dir;
    let (Ok(images), Ok(containers)) = (context.runtime.list_images().await, context.runtime.list_containers(None).await) else {
        return;
    };
    let now = Instant::now();
    let in_use: HashSet<String> = containers
        .into_iter()
        .flat_map(|container| [container.image_ref, container.image.map(|image| image.image).unwrap_or_default()])
        .collect();
    for image in &images {
        let names = || image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        if names().any(|name| in_use.contains(name)) || !used.contains_key(&image.id) {
            used.insert(image.id.clone(), now);
        }
    }
    used.retain(|id, _| images.iter().any(|image| image.id == *id));
    if disk_used_percent(dir) < IMAGES_ABOVE_PERCENT {
        return;
    }
    let pause = crate::runtime::pause::image_name();
    let mut idle: Vec<_> = images
        .iter()
        .filter(|image| !image.pinned && !image.repo_tags.contains(&pause))
        .filter_map(|image| Some((used.get(&image.id)?, image)))
        .filter(|(at, _)| at.elapsed() > IMAGE_AGE_MIN)
        .collect();
    idle.sort_by_key(|(at, _)| **at);
    for (_, image) in idle {
        if disk_used_percent(dir) < IMAGES_BELOW_PERCENT {
            return;
        }
        if let Err(error) = context.runtime.remove_image(&image.id).await {
            tracing::warn!(image = image.id, %error, "removing an unused image");
        }
    }
}
