//! Doing what a plan says about starting: volumes, the sandbox, then containers one after another.

use super::memory::Failure;
use super::plan::Step;
use super::{Context, config, hosts, image, lifecycle, security};
use crate::runtime::api;
use crate::volume;
use jiff::{SignedDuration, Timestamp};
use slipway_api::core::{Container, EphemeralContainer, Pod, PodSpec};
use slipway_api::pod::as_container;
use std::borrow::Cow;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SANDBOX_DELAY_FIRST: SignedDuration = SignedDuration::from_secs(1);
const SANDBOX_DELAY_MAX: SignedDuration = SignedDuration::from_secs(60);

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sandbox_failure: Option<Failure>,
    pub failures: Vec<(String, Failure)>,
    /// Containers that were started, and when the one before each ended.
    pub started: Vec<(String, Option<Timestamp>)>,
}

/// The sandbox that containers are started in.
#[derive(Debug, Clone)]
pub struct Place {
    pub sandbox: String,
    pub attempt: u32,
    pub ips: Vec<String>,
}

pub struct Start {
    pub context: Arc<Context>,
    pub pod: Arc<Pod>,
    pub steps: Vec<Step>,
    /// Where, if there is a sandbox already.
    pub place: Option<Place>,
    /// What failed before, for the back-off.
    pub failures: std::collections::BTreeMap<String, Failure>,
    pub sandbox_failure: Option<Failure>,
    /// The containers that there are, the newest of each name: one of them may be what an ephemeral container looks into.
    pub ids: std::collections::BTreeMap<String, String>,
    pub cancel: CancellationToken,
}

/// Whichever kind of container it is.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    let spec = pod.spec.as_ref()?;
    let lasting = spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|container| container.name == name);
    lasting.map(Cow::Borrowed).or_else(|| Some(Cow::Owned(as_container(ephemeral(spec, name)?))))
}

fn ephemeral<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a EphemeralContainer> {
    spec.ephemeral_containers.iter().flatten().find(|ephemeral| ephemeral.name == name)
}

impl Start {
    pub async fn run(self) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err((reason, message)) = self.go(&mut outcome).await {
            self.context.recorder.warning(&self.pod, None, reason, message.clone());
            let before = self.sandbox_failure.as_ref().map(|before| before.delay);
            let delay = before.map_or(SANDBOX_DELAY_FIRST, |before| (before * 2).min(SANDBOX_DELAY_MAX));
            let at = Timestamp::now();
            let retry_at = at.saturating_add(delay).unwrap_or(at);
            outcome.sandbox_failure = Some(Failure { reason: reason.into(), message, is_pull: false, at, retry_at, delay });
        }
        outcome
    }

    async fn go(&self, outcome: &mut Outcome) -> Result<(), (&'static str, String)> {
        let (context, pod) = (&self.context, &self.pod);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let dir = context.pod_dir(uid);
        fs::create_dir_all(&dir).map_err(|error| ("Failed", format!("error making pod data directories: {error}")))?;
        if let Err(error) = context.cgroups.set_up(uid, pod) {
            tracing::warn!(uid, %error, "the pod's cgroup could not be set up");
        }
        let ips = self.place.as_ref().map(|place| place.ips.clone()).unwrap_or_default();
        let mounted = volume::set_up(pod, context, &ips).await.map_err(|error| ("FailedMount", error.to_string()))?;
        let mut place = self.place.clone();
        for step in &self.steps {
            if self.cancel.is_cancelled() {
                return Ok(());
            }
            match step {
                Step::StartSandbox { attempt } => place = Some(self.sandbox(*attempt).await?),
                Step::StartContainer { name, attempt, after } => {
                    let Some(place) = &place else { return Ok(()) };
                    let Some(spec) = container(pod, name) else { continue };
                    let file = dir.join("etc-hosts");
                    let hosts = hosts::hosts_file(pod, context, &place.ips);
                    fs::write(file, hosts).map_err(|error| ("Failed", format!("failed to write the hosts file: {error}")))?;
                    match self.container(&spec, *attempt, place, &mounted).await {
                        Ok(()) => outcome.started.push((name.clone(), *after)),
                        Err(Some(failure)) => outcome.failures.push((name.clone(), failure)),
                        Err(None) => return Ok(()),
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn sandbox(&self, attempt: u32) -> Result<Place, (&'static str, String)> {
        let (context, pod) = (&self.context, &self.pod);
        if attempt > 0 && self.sandbox_failure.is_none() {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            context.recorder.normal(pod, None, "SandboxChanged", message);
        }
        let config = config::sandbox(pod, attempt, context);
        fs::create_dir_all(&config.log_directory)
            .map_err(|error| ("Failed", format!("failed to make the log directory: {error}")))?;
        let handler = match pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()) {
            Some(class) => {
                let classes: kube::Api<k8s_openapi::api::node::v1::RuntimeClass> = kube::Api::all(context.objects.client.clone());
                let class = classes.get(class).await;
                class.map_err(|error| ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}")))?.handler
            }
            None => String::new(),
        };
        let fail = |error: crate::runtime::Error| ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"));
        let sandbox = context.runtime.run_sandbox(config, &handler).await.map_err(fail)?;
        let status = context.runtime.sandbox_status(&sandbox).await.map_err(fail)?;
        let network = status.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        let mut ips: Vec<String> = std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect();
        if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
            ips = vec![context.options.node_ip.to_string()];
        }
        Ok(Place { sandbox, attempt, ips })
    }

    /// `Err(None)` when the pod is to end meanwhile.
    async fn container(
        &self,
        spec: &Container,
        attempt: u32,
        place: &Place,
        mounted: &volume::Mounted,
    ) -> Result<(), Option<Failure>> {
        let (context, pod, name) = (&self.context, &self.pod, spec.name.as_str());
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let sandbox_config = config::sandbox(pod, place.attempt, context);
        let before = self.failures.get(name);
        let fail = |reason: &str, message: String| {
            context.recorder.warning(pod, Some(name), "Failed", format!("Error: {message}"));
            Some(image::failure(reason, message, false, before))
        };
        let image = tokio::select! {
            image = image::ensure(pod, spec, &sandbox_config, before, context) => image.map_err(Some)?,
            () = self.cancel.cancelled() => return Err(None),
        };
        let config = config::container(pod, spec, attempt, &image, &mounted.paths, &place.ips, context).await;
        let mut config = config.map_err(|why| fail("CreateContainerConfigError", why))?;
        self.aim(name, &mut config).map_err(|why| fail("CreateContainerConfigError", why))?;
        prepare_files(context, pod, uid, name, attempt).map_err(|error| fail("CreateContainerConfigError", error.to_string()))?;
        let made = context.runtime.create_container(&place.sandbox, config, sandbox_config).await;
        let id = made.map_err(|error| fail("CreateContainerError", error.to_string()))?;
        context.recorder.normal(pod, Some(name), "Created", format!("Created container: {name}"));
        if let Err(error) = context.runtime.start_container(&id).await {
            // The runtime keeps it as exited, so the back-off of crashes applies.
            context.recorder.warning(pod, Some(name), "Failed", format!("Error: {error}"));
            return Ok(());
        }
        context.recorder.normal(pod, Some(name), "Started", format!("Started container {name}"));
        let ip = place.ips.first().map(String::as_str).unwrap_or_default();
        if lifecycle::post_start(pod, spec, &id, ip, context).await.is_err() {
            let message = format!("Container {name} failed its PostStartHook, will be restarted");
            context.recorder.normal(pod, Some(name), "Killing", message);
            let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30).max(1);
            lifecycle::kill(pod, Some(spec), &id, Duration::from_secs(grace as u64), ip, context).await;
        }
        Ok(())
    }
}

impl Start {
    /// Lets an ephemeral container see the processes of the one that it is to look into.
    fn aim(&self, name: &str, config: &mut api::ContainerConfig) -> Result<(), String> {
        let ephemeral = self.pod.spec.as_ref().and_then(|spec| ephemeral(spec, name));
        let target = ephemeral.and_then(|ephemeral| ephemeral.target_container_name.as_deref()).unwrap_or_default();
        if target.is_empty() {
            return Ok(());
        }
        let id = self.ids.get(target).ok_or_else(|| format!("unable to find target container {target}"))?;
        let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        if let Some(namespaces) = security.and_then(|security| security.namespace_options.as_mut()) {
            security::aim(namespaces, id);
        }
        Ok(())
    }
}

/// The file for the last words, which a container of any user may write.
fn prepare_files(context: &Context, pod: &Pod, uid: &str, name: &str, attempt: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let path = config::termination_log(context, uid, name, attempt);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, [])?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    fs::create_dir_all(context.log_dir(pod).join(name))
}
