//! Hooks after a container's start and before its end, and the end itself.

use super::Context;
use crate::probe;
use slipway_api::core::{Container, LifecycleHandler, Pod};
use std::time::{Duration, Instant};

/// A hook after the start has no limit in Kubernetes; here it has, so that a pod can't be stuck for ever.
const POST_START_MAX: Duration = Duration::from_secs(15 * 60);

async fn run(
    handler: &LifecycleHandler,
    container: &Container,
    id: &str,
    ip: &str,
    limit: Duration,
    context: &Context,
) -> Result<(), String> {
    let attempt = async {
        if let Some(exec) = &handler.exec {
            let command = exec.command.clone().unwrap_or_default();
            let output = context.runtime.exec_sync(id, command.clone(), limit).await.map_err(|error| error.to_string())?;
            if output.exit_code != 0 {
                let said =
                    String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr }).into_owned();
                return Err(format!("command '{}' exited with {}: {said}", command.join(" "), output.exit_code));
            }
        } else if let Some(get) = &handler.http_get {
            let (status, _) = probe::http_get(container, get, ip).await?;
            if !(200..400).contains(&status) {
                return Err(format!("HTTP hook failed with status {status}"));
            }
        } else if let Some(sleep) = &handler.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        }
        Ok(())
    };
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err("the hook took too long".into()))
}

/// Whether the container may go on: one whose hook fails is killed.
pub async fn post_start(pod: &Pod, container: &Container, id: &str, ip: &str, context: &Context) -> Result<(), String> {
    let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else { return Ok(()) };
    let outcome = run(handler, container, id, ip, POST_START_MAX, context).await;
    if let Err(why) = &outcome {
        let message = format!("PostStartHook failed: {why}");
        context.recorder.warning(pod, Some(&container.name), "FailedPostStartHook", message);
    }
    outcome
}

/// The hook before the end, then the stop signal, then what is left of the grace, then the end by force.
pub async fn kill(pod: &Pod, container: Option<&Container>, id: &str, grace: Duration, ip: &str, context: &Context) {
    let started = Instant::now();
    let handler = container.and_then(|container| Some((container, container.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    if let Some((container, handler)) = handler
        && let Err(why) = run(handler, container, id, ip, grace, context).await
    {
        let message = format!("PreStopHook failed: {why}");
        context.recorder.warning(pod, Some(&container.name), "FailedPreStopHook", message);
    }
    // After a hook that took the whole grace there are two seconds more, as in Kubernetes.
    let left = grace.saturating_sub(started.elapsed());
    let left = if handler.is_some() { left.max(Duration::from_secs(2)) } else { left };
    if let Err(error) = context.runtime.stop_container(id, left).await {
        tracing::warn!(id, %error, "stopping a container");
    }
}
