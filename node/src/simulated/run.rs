//! The loop around the simulated world: two watches in, bounded writes out, and the leases.

use super::objects;
use super::world::{Key, RETRY, World, Write, key_of};
use super::{LABEL, Options};
use futures::{Stream, StreamExt};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use rand::RngExt;
use serde_json::{Value, json};
use slipway_api::condition;
use slipway_api::coordination::Lease;
use slipway_api::core::{Node, Pod};
use slipway_api::jiff::Timestamp;
use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How many writes about pods may be on their way at once, and how many renewals of leases beside them: those must not wait.
const POD_WRITES_MAX: usize = 64;
const LEASE_WRITES_MAX: usize = 16;
/// How many nodes register at once.
const REGISTRATIONS_MAX: usize = 16;
/// How many changes of pods are taken in before writing goes on.
const CHANGES_PER_TURN_MAX: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("simulated node {node} cannot register")]
    Register {
        node: String,
        #[source]
        source: kube::Error,
    },
    #[error("the watch of {0} ended")]
    WatchEnded(&'static str),
}

/// Runs the nodes until it is told to stop. They and their pods stay in the API, as those of a real node would.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let uids = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        uids = register_all(&client, &options) => uids?,
    };
    let now = Instant::now();
    let period = options.lease_period;
    // Spread over the period from the start, or all would renew at once.
    let offset = |index: usize| period.mul_f64(index as f64 / options.count.max(1) as f64);
    let nodes = uids.into_iter().map(|uid| NodeState { uid, has_lease: false, restoring: false }).collect();
    let simulation = Simulation {
        leases: (0..options.count).map(|index| (now + offset(index), index)).collect(),
        nodes,
        world: World::new(options.clone()),
        options,
        client,
        pod_writes: JoinSet::new(),
        lease_writes: JoinSet::new(),
    };
    simulation.run(shutdown).await
}

async fn register_all(client: &Client, options: &Options) -> Result<Vec<String>, Error> {
    let register = |index: usize| async move {
        let name = format!("{}{index}", options.name_prefix);
        register(client, index, &name, options).await.map_err(|source| Error::Register { node: name, source })
    };
    let uids: Vec<_> = futures::stream::iter(0..options.count).map(register).buffered(REGISTRATIONS_MAX).collect().await;
    uids.into_iter().collect()
}

/// Creates the node, or takes over one that is there from before.
async fn register(client: &Client, index: usize, name: &str, options: &Options) -> Result<String, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let object = objects::node(index, name, options, Timestamp::now());
    let node: Node = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let made = match api.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => api.get(name).await?,
        made => made?,
    };
    let conditions = made.status.as_ref().and_then(|status| status.conditions.as_deref());
    if !condition::is_true(conditions, "Ready") {
        let status = json!({"status": objects::node_status(index, name, options, Timestamp::now())});
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    }
    Ok(made.uid().unwrap_or_default())
}

struct NodeState {
    uid: String,
    has_lease: bool,
    /// Its status is being set right.
    restoring: bool,
}

/// What came of a write to a node or its lease.
struct Renewed {
    index: usize,
    has_lease: bool,
    restored: bool,
}

struct Simulation {
    client: Client,
    options: Options,
    world: World,
    nodes: Vec<NodeState>,
    leases: BTreeSet<(Instant, usize)>,
    pod_writes: JoinSet<(Key, bool)>,
    lease_writes: JoinSet<Renewed>,
}

impl Simulation {
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut pods = Box::pin(
            watch::<Pod>(&self.client, watcher::Config::default().fields("spec.nodeName!=")).ready_chunks(CHANGES_PER_TURN_MAX),
        );
        let mut nodes = Box::pin(watch::<Node>(&self.client, watcher::Config::default().labels(&format!("{LABEL}=true"))));
        let mut listed = HashSet::new();
        loop {
            let now = Instant::now();
            self.world.advance(now, Timestamp::now());
            self.write_pods(now);
            self.renew_leases(now);
            let due = self.next_due(now);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                changes = pods.next() => {
                    let changes = changes.ok_or(Error::WatchEnded("pods"))?;
                    changes.into_iter().for_each(|change| self.pod(change, &mut listed));
                }
                change = nodes.next() => self.node(change.ok_or(Error::WatchEnded("nodes"))?),
                Some(Ok((key, done))) = self.pod_writes.join_next(), if !self.pod_writes.is_empty() => {
                    self.world.written(&key, done, Instant::now());
                }
                Some(Ok(renewed)) = self.lease_writes.join_next(), if !self.lease_writes.is_empty() => {
                    let node = &mut self.nodes[renewed.index];
                    node.has_lease = renewed.has_lease;
                    node.restoring &= !renewed.restored;
                }
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    fn next_due(&self, now: Instant) -> Instant {
        let lease = self.leases.first().filter(|_| self.lease_writes.len() < LEASE_WRITES_MAX).map(|(due, _)| *due);
        lease.into_iter().chain(self.world.next_due()).min().unwrap_or(now + Duration::from_secs(60))
    }

    fn pod(&mut self, change: Result<watcher::Event<Pod>, watcher::Error>, listed: &mut HashSet<Key>) {
        let (now, clock) = (Instant::now(), Timestamp::now());
        match change {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.insert(key_of(&pod));
                self.world.pod(&pod, now, clock);
            }
            Ok(watcher::Event::InitDone) => self.world.keep_pods(&std::mem::take(listed)),
            Ok(watcher::Event::Apply(pod)) => self.world.pod(&pod, now, clock),
            Ok(watcher::Event::Delete(pod)) => self.world.pod_gone(&key_of(&pod)),
            Err(error) => tracing::warn!(%error, "watch of pods failed, trying again"),
        }
    }

    fn node(&mut self, change: Result<watcher::Event<Node>, watcher::Error>) {
        let node = match change {
            Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => node,
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, "watch of nodes failed, trying again"),
        };
        let Some(index) = self.world.node_index(&node.name_any()) else { return };
        if let Some(cidr) = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()) {
            self.world.set_pod_cidr(index, cidr);
        }
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
        // Somebody thought it dead, and it isn't: its next heartbeat says so.
        if !condition::is_true(conditions, "Ready") && !self.nodes[index].restoring {
            self.nodes[index].restoring = true;
            self.leases.retain(|(_, other)| *other != index);
            self.leases.insert((Instant::now(), index));
        }
    }

    fn write_pods(&mut self, now: Instant) {
        while self.pod_writes.len() < POD_WRITES_MAX {
            let Some((key, write)) = self.world.next_write(now, Timestamp::now()) else { return };
            let client = self.client.clone();
            self.pod_writes.spawn(async move {
                let done = write_pod(client, write).await;
                (key, done)
            });
        }
    }

    fn renew_leases(&mut self, now: Instant) {
        while self.lease_writes.len() < LEASE_WRITES_MAX {
            let Some((_, index)) = self.leases.first().filter(|(due, _)| *due <= now).copied() else { return };
            self.leases.pop_first();
            let name = self.world.node_name(index).to_owned();
            if self.options.handle.is_silent(&name) {
                self.leases.insert((now + RETRY, index));
                continue;
            }
            let jitter = 1.0 + rand::rng().random_range(-0.04..0.04);
            self.leases.insert((now + self.options.lease_period.mul_f64(jitter), index));
            let node = &self.nodes[index];
            let (client, uid, has_lease) = (self.client.clone(), node.uid.clone(), node.has_lease);
            let restore = node.restoring.then(|| json!({"status": {"conditions": [objects::ready_condition(Timestamp::now())]}}));
            self.lease_writes.spawn(async move {
                let has_lease = renew(&client, &name, &uid, has_lease).await;
                let restored = match restore {
                    Some(status) => restore_status(&client, &name, status).await,
                    None => false,
                };
                Renewed { index, has_lease, restored }
            });
        }
    }
}

fn watch<K>(
    client: &Client,
    config: watcher::Config,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), config).default_backoff()
}

/// Says whether there is nothing more to do about it.
async fn write_pod(client: Client, write: Write) -> bool {
    let result = match write {
        Write::Status { namespace, name, status } => {
            let api: Api<Pod> = Api::namespaced(client, &namespace);
            api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(json!({"status": status}))).await.map(drop)
        }
        Write::Delete { namespace, name, uid } => {
            let api: Api<Pod> = Api::namespaced(client, &namespace);
            let now =
                DeleteParams::default().grace_period(0).preconditions(Preconditions { uid: Some(uid), resource_version: None });
            api.delete(&name, &now).await.map(drop)
        }
    };
    match result {
        Ok(()) => true,
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
        Err(error) => {
            tracing::debug!(%error, "a pod's status was not written, trying again");
            false
        }
    }
}

/// Renews the node's lease, making it if there is none. Says whether there is one now.
async fn renew(client: &Client, name: &str, uid: &str, has_lease: bool) -> bool {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    if has_lease {
        match api.patch(name, &PatchParams::default(), &Patch::Merge(objects::renewal(Timestamp::now()))).await {
            Ok(_) => return true,
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                tracing::warn!(node = name, %error, "lease not renewed");
                return true;
            }
        }
    }
    let lease: Result<Lease, _> = serde_json::from_value(objects::lease(name, uid, Timestamp::now()));
    let Ok(lease) = lease else { return false };
    match api.create(&PostParams::default(), &lease).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let whole: Value = objects::lease(name, uid, Timestamp::now());
            api.patch(name, &PatchParams::default(), &Patch::Merge(whole)).await.is_ok()
        }
        Err(error) => {
            tracing::warn!(node = name, %error, "lease not made, trying again");
            false
        }
    }
}

async fn restore_status(client: &Client, name: &str, status: Value) -> bool {
    let api: Api<Node> = Api::all(client.clone());
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.is_ok()
}
