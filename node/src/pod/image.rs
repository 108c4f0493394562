//! Getting a container's image: the pull policy, credentials, and the words for it.

use super::Context;
use super::memory::{Failure, next_delay};
use crate::runtime::api;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use slipway_api::core::{Container, Pod};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Pulls at a time: they share the node's disk and network.
const PULLS_MAX: usize = 5;

#[derive(Debug)]
pub struct Images(Semaphore);

impl Default for Images {
    fn default() -> Self {
        Images(Semaphore::new(PULLS_MAX))
    }
}

/// `Always` for `:latest` and for no tag, as the API server fills it in.
fn policy(container: &Container) -> &str {
    let image = container.image.as_deref().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or(image);
    let latest = !last.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
    container.image_pull_policy.as_deref().unwrap_or(if latest { "Always" } else { "IfNotPresent" })
}

/// The image, present on the node. Fails as the container's waiting state shows it.
pub async fn ensure(
    pod: &Pod,
    container: &Container,
    sandbox: &api::PodSandboxConfig,
    before: Option<&Failure>,
    context: &Context,
) -> Result<api::Image, Failure> {
    let name = container.image.as_deref().unwrap_or_default();
    let (own, recorder) = (Some(container.name.as_str()), &context.recorder);
    let fail = |reason: &str, message: String, is_pull| failure(reason, message, is_pull, before);
    let present = context.runtime.image(name).await.map_err(|error| fail("ImageInspectError", error.to_string(), true))?;
    let policy = policy(container);
    match present {
        Some(image) if policy != "Always" => {
            let message = format!("Container image \"{name}\" already present on machine and can be accessed by the pod");
            recorder.normal(pod, own, "Pulled", message);
            return Ok(image);
        }
        None if policy == "Never" => {
            let message = format!("Container image \"{name}\" is not present with pull policy of Never");
            recorder.warning(pod, own, "ErrImageNeverPull", message.clone());
            return Err(fail("ErrImageNeverPull", message, false));
        }
        _ => {}
    }
    recorder.normal(pod, own, "Pulling", format!("Pulling image \"{name}\""));
    let asked = Instant::now();
    let _permit = context.images.0.acquire().await.map_err(|_| fail("ErrImagePull", "the node is shutting down".into(), true))?;
    let started = Instant::now();
    let outcome = pull(pod, name, sandbox, context).await;
    let outcome = match outcome {
        Ok(_) => match context.runtime.image(name).await {
            Ok(Some(image)) => Ok(image),
            Ok(None) => Err("the image is gone after it was pulled".to_owned()),
            Err(error) => Err(error.to_string()),
        },
        Err(why) => Err(why),
    };
    match outcome {
        Ok(image) => {
            let seconds = |since: Instant| format!("{:.3}s", since.elapsed().as_secs_f64());
            recorder.normal(
                pod,
                own,
                "Pulled",
                format!(
                    "Successfully pulled image \"{name}\" in {} ({} including waiting). Image size: {} bytes.",
                    seconds(started),
                    seconds(asked),
                    image.size
                ),
            );
            Ok(image)
        }
        Err(why) => {
            recorder.warning(pod, own, "Failed", format!("Failed to pull image \"{name}\": {why}"));
            recorder.warning(pod, own, "Failed", "Error: ErrImagePull");
            Err(fail("ErrImagePull", why, true))
        }
    }
}

pub fn failure(reason: &str, message: String, is_pull: bool, before: Option<&Failure>) -> Failure {
    let at = Timestamp::now();
    let before = before.filter(|before| before.is_pull == is_pull).map(|before| before.delay);
    // What is wrong with a configuration is often mended soon, so it is tried again at a steady pace.
    let delay = if is_pull { next_delay(before) } else { SignedDuration::from_secs(10) };
    Failure { reason: reason.into(), message, is_pull, at, retry_at: at.saturating_add(delay).unwrap_or(at), delay }
}

async fn pull(pod: &Pod, name: &str, sandbox: &api::PodSandboxConfig, context: &Context) -> Result<String, String> {
    let mut last = None;
    for auth in credentials(pod, name, context).await.into_iter().map(Some).chain([None]) {
        match context.runtime.pull_image(name, auth, sandbox.clone()).await {
            Ok(reference) => return Ok(reference),
            Err(error) => last = last.or(Some(error.to_string())),
        }
    }
    Err(last.unwrap_or_default())
}

/// The registry in an image's name.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

async fn credentials(pod: &Pod, image: &str, context: &Context) -> Vec<api::AuthConfig> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut found = vec![];
    for reference in pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
        let name = &reference.name;
        let Ok(Some(secret)) = context.objects.secret(namespace, name, uid).await else {
            let message =
                format!("Unable to retrieve some image pull secrets ({name}); attempting to pull the image may not succeed.");
            context.recorder.warning(pod, None, "FailedToRetrieveImagePullSecret", message);
            continue;
        };
        let data = secret.data.as_ref();
        let json = data.and_then(|data| data.get(".dockerconfigjson")).or_else(|| data.and_then(|data| data.get(".dockercfg")));
        let parsed = json.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes.0).ok()).unwrap_or_default();
        let entries = parsed.get("auths").unwrap_or(&parsed).as_object().cloned().unwrap_or_default();
        found.extend(entries.iter().filter(|(server, _)| matches(server, image)).map(|(server, entry)| auth(server, entry)));
    }
    found
}

fn matches(server: &str, image: &str) -> bool {
    let server = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let host = server.split('/').next().unwrap_or(server);
    let registry = registry(image);
    let docker = registry == "docker.io" && matches!(host, "index.docker.io" | "docker.io");
    let wild = host.strip_prefix("*.").is_some_and(|rest| registry.split_once('.').is_some_and(|(_, tail)| tail == rest));
    let path = server.strip_prefix(host).unwrap_or_default();
    let path_fits =
        path.is_empty() || matches!(path, "/v1" | "/v2") || image.strip_prefix(host).is_some_and(|rest| rest.starts_with(path));
    (docker || wild || host == registry) && (docker || path_fits)
}

fn auth(server: &str, entry: &serde_json::Value) -> api::AuthConfig {
    let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let decoded = STANDARD.decode(field("auth")).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (username, password) =
        pair.map_or_else(|| (field("username"), field("password")), |(user, word)| (user.into(), word.into()));
    api::AuthConfig {
        username,
        password,
        server_address: server.to_owned(),
        identity_token: field("identitytoken"),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_for_their_registry_alone() {
        for (server, image, wanted) in [
            ("https://index.docker.io/v1/", "nginx", true),
            ("https://index.docker.io/v1/", "library/nginx:1", true),
            ("https://index.docker.io/v1/", "quay.io/a/b", false),
            ("quay.io", "quay.io/a/b", true),
            ("quay.io/a", "quay.io/a/b", true),
            ("quay.io/c", "quay.io/a/b", false),
            ("*.corp.example", "eu.corp.example/x", true),
            ("localhost:5000", "localhost:5000/x", true),
        ] {
            assert_eq!(matches(server, image), wanted, "{server} for {image}");
        }
    }
}
