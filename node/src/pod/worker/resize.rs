//! Resizing a pod: asking the node for room, putting in force what was granted, and remembering both for the next agent.

use super::{Done, Worker};
use crate::pod::Context;
use crate::pod::allocation::{Change, Grant};
use crate::pod::start::container;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use slipway_api::core::Pod;
use slipway_api::pod::{Resources, is_deleted, is_terminal};
use slipway_api::quantity::Quantity;
use slipway_api::resize::INFEASIBLE;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

/// What could not be put in force is tried again after so long.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

/// What is kept in the pod's directory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    granted: Grant,
    in_force: Grant,
}

fn file(context: &Context, uid: &str) -> PathBuf {
    context.pod_dir(uid).join("resources.json")
}

/// Counts the pod with what an agent before this one granted it; a new pod has what it asks for.
pub fn count(context: &Context, uid: &str, pod: &Arc<Pod>) {
    if is_terminal(pod) {
        return;
    }
    let kept = fs::read(file(context, uid)).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    let Kept { granted, in_force } = kept.unwrap_or_else(|| Kept { granted: Grant::wanted(pod), in_force: Grant::wanted(pod) });
    context.allocations.add(uid, pod.clone(), granted, in_force);
}

/// What came of putting a grant in force.
pub struct Outcome {
    pub granted: Grant,
    /// The containers that have it now.
    pub done: Vec<String>,
    pub failure: Option<String>,
}

impl Worker {
    /// The pod with the resources that it was granted.
    pub(super) fn granted_pod(&self) -> Arc<Pod> {
        match self.memory.granted.of(&self.pod) {
            std::borrow::Cow::Borrowed(_) => self.pod.clone(),
            std::borrow::Cow::Owned(pod) => Arc::new(pod),
        }
    }

    pub(super) fn wake(&self, uids: Vec<String>) {
        uids.iter().for_each(|uid| self.context.objects.wakers.wake(uid));
    }

    /// Takes what the node grants of what the pod wants by now.
    pub(super) fn ask_for_room(&mut self, now: Timestamp) {
        if self.gone || self.released || is_deleted(&self.pod) || is_terminal(&self.pod) {
            return;
        }
        let answer = self.context.allocations.resize(&self.uid, &self.pod, self.context.room(), now);
        self.wake(answer.woken);
        if self.memory.granted != answer.granted {
            let first = self.memory.granted == Grant::default();
            self.memory.granted = answer.granted;
            self.memory.resize.failure = None;
            if first {
                let kept = self.context.allocations.in_force(&self.uid);
                self.memory.in_force = kept.unwrap_or_else(|| self.memory.granted.clone());
            } else {
                let recorder = &self.context.recorder;
                recorder.normal(&self.pod, None, "ResizeStarted", message("Pod resize started", &self.granted_pod(), ""));
                self.keep();
            }
        }
        if self.memory.resize.pending != answer.pending {
            if let Some(pending) = &answer.pending {
                let event = if pending.reason == INFEASIBLE { "ResizeInfeasible" } else { "ResizeDeferred" };
                let text = message(&format!("Pod resize {}", pending.reason), &self.pod, &pending.message);
                self.context.recorder.warning(&self.pod, None, event, text);
            }
            self.memory.resize.pending = answer.pending;
        }
    }

    /// Containers were started with what was granted then.
    pub(super) fn started_with(&mut self, names: Vec<String>) {
        let granted = std::mem::take(&mut self.starting_with);
        let before = self.memory.in_force.clone();
        for name in names {
            if let Some(resources) = granted.containers.get(&name) {
                self.memory.in_force.containers.insert(name, resources.clone());
            }
        }
        // Starting sets the pod's cgroup up.
        self.memory.in_force.pod = granted.pod;
        self.in_force_now(before);
    }

    pub(super) fn resize(&mut self, containers: &[(String, String)]) {
        self.memory.resize.is_running = true;
        let work = Resizing {
            context: self.context.clone(),
            uid: self.uid.clone(),
            pod: self.granted_pod(),
            before: Arc::new(self.memory.in_force.of(&self.pod).into_owned()),
            containers: containers.to_vec(),
        };
        let granted = self.memory.granted.clone();
        self.background.spawn(async move {
            let (done, failure) = work.run().await;
            Done::Resized(Outcome { granted, done, failure })
        });
    }

    pub(super) fn resized(&mut self, outcome: Outcome) {
        self.memory.resize.is_running = false;
        let before = self.memory.in_force.clone();
        for name in outcome.done {
            if let Some(resources) = outcome.granted.containers.get(&name) {
                self.memory.in_force.containers.insert(name, resources.clone());
            }
        }
        match outcome.failure {
            None => self.memory.in_force.pod = outcome.granted.pod,
            Some(why) => {
                let text = message("Pod resize error", &self.granted_pod(), &why);
                self.context.recorder.warning(&self.pod, None, "ResizeError", text);
                let now = Timestamp::now();
                self.memory.resize.failure = Some((why, now.saturating_add(RETRY).unwrap_or(now)));
            }
        }
        self.in_force_now(before);
    }

    /// Tells whom it concerns what is in force, if that is something else than before.
    fn in_force_now(&mut self, before: Grant) {
        if self.memory.in_force == before {
            if !self.kept {
                self.keep();
            }
            return;
        }
        self.wake(self.context.allocations.put_in_force(&self.uid, &self.memory.in_force));
        self.keep();
        let is_done = |pod: &Pod| {
            let spec = pod.spec.as_ref();
            let mut all = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
            all.all(|container| self.memory.change(container) == Change::Nothing)
        };
        if is_done(&self.pod) && self.memory.in_force.pod == self.memory.granted.pod {
            self.memory.resize.failure = None;
            let text = message("Pod resize completed", &self.granted_pod(), "");
            self.context.recorder.normal(&self.pod, None, "ResizeCompleted", text);
        }
    }

    fn keep(&mut self) {
        let kept = Kept { granted: self.memory.granted.clone(), in_force: self.memory.in_force.clone() };
        let path = file(&self.context, &self.uid);
        let written = serde_json::to_vec(&kept).map_err(io::Error::from).and_then(|bytes| {
            let new = path.with_extension("new");
            fs::write(&new, bytes)?;
            fs::rename(&new, &path)
        });
        self.kept = written.is_ok();
        if let Err(error) = written {
            tracing::warn!(uid = self.uid, %error, "what the pod was granted could not be kept");
        }
    }
}

/// An event's text in Kubernetes' form: what it is, and the resources of all containers.
fn message(what: &str, pod: &Pod, error: &str) -> String {
    let list = |containers: &[slipway_api::core::Container]| -> Vec<Value> {
        let shown = |container: &slipway_api::core::Container| json!({"name": container.name, "resources": container.resources});
        containers.iter().map(shown).collect()
    };
    let spec = pod.spec.clone().unwrap_or_default();
    let mut summary = json!({"containers": list(&spec.containers), "generation": pod.metadata.generation.unwrap_or_default()});
    if let Some(init) = spec.init_containers.as_deref().filter(|init| !init.is_empty()) {
        summary["initContainers"] = list(init).into();
    }
    if !error.is_empty() {
        summary["error"] = error.into();
    }
    format!("{what}: {summary}")
}

/// Putting a grant in force, apart from the worker.
struct Resizing {
    context: Arc<Context>,
    uid: String,
    /// With what was granted, and with what was in force before.
    pod: Arc<Pod>,
    before: Arc<Pod>,
    containers: Vec<(String, String)>,
}

impl Resizing {
    /// First the pod's cgroup gets room for both, then the containers what they were granted, then the pod no more than that.
    async fn run(self) -> (Vec<String>, Option<String>) {
        let (cgroups, mut done) = (&self.context.cgroups, vec![]);
        let of_pod = |error: io::Error| format!("resizing the pod's cgroup: {error}");
        if let Err(error) = cgroups.make_room(&self.uid, &self.before, &self.pod) {
            return (done, Some(of_pod(error)));
        }
        let node_memory = self.context.allocatable("memory").and_then(|text| Quantity::parse(&text).ok());
        let node_memory = node_memory.map_or(0, |memory| memory.value());
        for (name, id) in &self.containers {
            let Some(spec) = container(&self.pod, name) else { continue };
            if let Err(why) = self.fits(name, id).await {
                return (done, Some(why));
            }
            let resources = cgroups.of_container(&self.pod, &spec, node_memory);
            if let Err(error) = self.context.runtime.update_container(id, resources).await {
                return (done, Some(format!("resizing container {name}: {error}")));
            }
            done.push(name.clone());
        }
        let failure = cgroups.set_up(&self.uid, &self.pod).err().map(of_pod);
        (done, failure)
    }

    /// A container that uses more memory than it may have afterwards would be killed.
    async fn fits(&self, name: &str, id: &str) -> Result<(), String> {
        let limit = |pod: &Pod| {
            let resources = container(pod, name)?.resources.clone()?;
            Some(Resources::from_list(resources.limits.as_ref()).memory).filter(|limit| *limit > 0)
        };
        let Some(wanted) = limit(&self.pod).filter(|wanted| limit(&self.before).is_none_or(|before| *wanted < before)) else {
            return Ok(());
        };
        let stats = self.context.runtime.container_stats().await.map_err(|error| error.to_string())?;
        let own = stats.into_iter().find(|stats| stats.attributes.as_ref().is_some_and(|attributes| attributes.id == id));
        let used = own.and_then(|stats| stats.memory?.working_set_bytes).map_or(0, |used| used.value);
        if used > wanted.unsigned_abs() {
            return Err(format!("attempting to set container {name:?} memory limit ({wanted}) below current usage ({used})"));
        }
        Ok(())
    }
}
