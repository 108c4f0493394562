//! All pods of this node: a worker for each, woken by the API server's watch and by what changes in the runtime.

use super::Context;
use super::worker::Worker;
use crate::runtime::api;
use crate::runtime::events::Changes;
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use slipway_api::core::Pod;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the runtime is asked what changed. Two calls for the whole node, so that a thousand idle pods cost no more.
const RELIST: Duration = Duration::from_secs(1);
/// The same while the runtime tells by itself.
const RELIST_TOLD: u32 = 10;
/// After an event the runtime is asked at these times: its own books lag behind its events, and it doesn't say by how much.
const LOOKS_MILLIS: [u64; 5] = [10, 40, 150, 600, 1500];

struct Entry {
    wanted: watch::Sender<Option<Arc<Pod>>>,
}

pub struct Workers {
    context: Arc<Context>,
    entries: HashMap<String, Entry>,
    running: JoinSet<String>,
    /// Uids of the list that is being received.
    listed: HashSet<String>,
    /// The state of each container and sandbox at the last look.
    seen: HashMap<String, (i32, String)>,
    synced: bool,
    changes: Changes,
}

impl Workers {
    /// `changes` says that something happened in the runtime.
    pub fn new(context: Arc<Context>, changes: Changes) -> Workers {
        Workers {
            context,
            entries: HashMap::new(),
            running: JoinSet::new(),
            listed: HashSet::new(),
            seen: HashMap::new(),
            synced: false,
            changes,
        }
    }

    pub async fn run(mut self, shutdown: CancellationToken) {
        let pods: Api<Pod> = Api::all(self.context.objects.client.clone());
        let of_node = watcher::Config::default().fields(&format!("spec.nodeName={}", self.context.options.node_name));
        let mut events = std::pin::pin!(watcher(pods, of_node).default_backoff());
        let mut ticks = tokio::time::interval(RELIST);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unseen = RELIST_TOLD;
        let mut looks: VecDeque<Instant> = VecDeque::new();
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(event) => self.take(event).await,
                    Err(error) => tracing::warn!(%error, "watching this node's pods"),
                },
                _ = ticks.tick() => {
                    unseen += 1;
                    if unseen >= RELIST_TOLD || !self.changes.is_told() {
                        unseen = 0;
                        self.relist().await;
                    }
                }
                () = self.changes.happened() => looks = LOOKS_MILLIS.into_iter().map(|after| Instant::now() + Duration::from_millis(after)).collect(),
                () = tokio::time::sleep_until(looks.front().copied().unwrap_or_else(Instant::now)), if !looks.is_empty() => {
                    looks.pop_front();
                    unseen = 0;
                    self.relist().await;
                }
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn take(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(pod) => {
                self.listed.extend(pod.uid());
                self.apply(pod);
            }
            watcher::Event::InitDone => {
                let gone: Vec<String> = self.entries.keys().filter(|uid| !self.listed.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| self.gone(uid));
                if !self.synced {
                    self.synced = true;
                    self.context.allocations.complete().iter().for_each(|uid| self.context.objects.wakers.wake(uid));
                    self.remove_strays().await;
                }
            }
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => {
                if let Some(uid) = pod.uid() {
                    self.gone(&uid);
                }
            }
        }
    }

    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        let pod = Arc::new(pod);
        if let Some(entry) = self.entries.get(&uid) {
            entry.wanted.send_replace(Some(pod));
            return;
        }
        super::worker::count(&self.context, &uid, &pod);
        let (wanted, receiver) = watch::channel(Some(pod.clone()));
        let worker = Worker::new(self.context.clone(), pod, receiver);
        self.entries.insert(uid.clone(), Entry { wanted });
        self.running.spawn(async move {
            worker.run().await;
            uid
        });
    }

    fn gone(&self, uid: &str) {
        if let Some(entry) = self.entries.get(uid) {
            entry.wanted.send_replace(None);
        }
    }

    fn ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => drop(self.entries.remove(&uid)),
            // Its entry has no receiver any more; the next event of the pod finds that.
            Err(panic) => {
                tracing::error!(%panic, "a pod's worker panicked");
                let orphans: Vec<Arc<Pod>> = self
                    .entries
                    .extract_if(|_, entry| entry.wanted.is_closed())
                    .filter_map(|(_, entry)| entry.wanted.borrow().clone())
                    .collect();
                orphans.into_iter().for_each(|pod| self.apply((*pod).clone()));
            }
        }
    }

    /// Wakes the workers of pods in which something changed since the last look.
    async fn relist(&mut self) {
        let runtime = &self.context.runtime;
        let Ok((sandboxes, containers)) = futures::try_join!(runtime.list_sandboxes(None), runtime.list_containers(None)) else {
            return;
        };
        let uid = |labels: &HashMap<String, String>| labels.get(crate::runtime::POD_UID).cloned().unwrap_or_default();
        let sandboxes = sandboxes.into_iter().map(|sandbox| (sandbox.id, (sandbox.state, uid(&sandbox.labels))));
        let containers = containers.into_iter().map(|container| (container.id, (container.state, uid(&container.labels))));
        let now: HashMap<String, (i32, String)> = sandboxes.chain(containers).collect();
        let changed = now.iter().filter(|(id, state)| self.seen.get(*id) != Some(state)).map(|(_, (_, uid))| uid);
        let vanished = self.seen.iter().filter(|(id, _)| !now.contains_key(*id)).map(|(_, (_, uid))| uid);
        let wake: HashSet<&String> = changed.chain(vanished).collect();
        wake.into_iter().for_each(|uid| self.context.objects.wakers.wake(uid));
        self.seen = now;
    }

    /// Ends what runs of pods that were deleted while no agent ran.
    async fn remove_strays(&self) {
        let runtime = &self.context.runtime;
        let Ok(sandboxes) = runtime.list_sandboxes(None).await else { return };
        for sandbox in sandboxes {
            let Some(uid) = sandbox.labels.get(crate::runtime::POD_UID).cloned() else { continue };
            if self.entries.contains_key(&uid) {
                continue;
            }
            tracing::info!(uid, "ending a pod that is no longer wanted here");
            self.adopt_stray(&uid, &sandbox);
        }
        let dirs = std::fs::read_dir(self.context.options.data_dir.join("pods")).into_iter().flatten().flatten();
        for dir in dirs {
            let uid = dir.file_name().to_string_lossy().into_owned();
            if !self.entries.contains_key(&uid) && !self.context.objects.wakers.knows(&uid) {
                let _ = crate::volume::tear_down(&dir.path());
                self.context.cgroups.tear_down(&uid);
            }
        }
    }

    /// A worker for a pod of which only the runtime knows; it is told at once that the pod is gone.
    fn adopt_stray(&self, uid: &str, sandbox: &api::PodSandbox) {
        if self.context.objects.wakers.knows(uid) {
            return;
        }
        let metadata = sandbox.metadata.clone().unwrap_or_default();
        let mut pod = Pod::default();
        pod.metadata.name = Some(metadata.name);
        pod.metadata.namespace = Some(metadata.namespace);
        pod.metadata.uid = Some(uid.to_owned());
        pod.spec = Some(Default::default());
        let (wanted, receiver) = watch::channel(None);
        let worker = Worker::new(self.context.clone(), Arc::new(pod), receiver);
        tokio::spawn(async move {
            worker.run().await;
            drop(wanted);
        });
    }
}
