//! The Node object and its Lease: that this machine is here, what it has, and that it is well.

mod machine;
mod status;

use crate::event::Recorder;
use crate::runtime::Runtime;
use crate::{Error, Options};
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use parking_lot::RwLock;
use slipway_api::coordination::{Lease, LeaseSpec};
use slipway_api::core::{Node, NodeSpec};
use slipway_api::meta::{MicroTime, ObjectMeta, OwnerReference};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the lease is renewed, and the node's state looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// While the node isn't ready, or nobody answers.
const PERIOD_UNREADY: Duration = Duration::from_secs(1);
const LEASE_SECONDS: i32 = 40;
/// An unchanged status is sent again this often.
const REPORT_AT_LEAST_SECONDS: i64 = 300;

pub struct Registration {
    pub client: Client,
    pub options: Options,
    pub runtime: Arc<dyn Runtime>,
    pub recorder: Recorder,
    /// Told to the pods: what containers without a limit may have.
    pub allocatable: Arc<dyn Fn(BTreeMap<String, String>) + Send + Sync>,
    /// Called with the node's share of the pods' network, as soon as it is known.
    pub pod_cidr: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Registration {
    /// Registers the node, and keeps its status and lease fresh until `shutdown`. It registers once: a Node that is
    /// deleted afterwards stays so until the agent starts anew, for whoever deletes it means the machine to leave.
    pub async fn run(self, shutdown: CancellationToken) {
        let machine = machine::Machine::read(&self.options.data_dir);
        let lease = RwLock::new(None);
        let mut registered = false;
        let (mut was_ready, mut reported): (Option<bool>, Option<Timestamp>) = (None, None);
        loop {
            let ready = match self.pass(&machine, &mut registered, &mut was_ready, &mut reported).await {
                Ok((node, ready)) => {
                    if let Err(error) = self.renew(&node, &lease).await {
                        tracing::warn!(%error, "renewing the node's lease");
                    }
                    ready
                }
                Err(error) => {
                    tracing::warn!(%error, "reporting the node's status");
                    false
                }
            };
            tokio::select! {
                () = tokio::time::sleep(if ready { PERIOD } else { PERIOD_UNREADY }) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn pass(
        &self,
        machine: &machine::Machine,
        registered: &mut bool,
        was_ready: &mut Option<bool>,
        reported: &mut Option<Timestamp>,
    ) -> Result<(Node, bool), Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let name = &self.options.node_name;
        let mut node = match nodes.get_opt(name).await? {
            Some(node) => self.keep_labels(&nodes, node).await?,
            None if *registered => nodes.get(name).await?,
            None => {
                let made = nodes.create(&PostParams::default(), &self.object()).await?;
                self.recorder.node(&made, "Starting", "Starting kubelet.");
                made
            }
        };
        *registered = true;
        if let Some(cidr) = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).filter(|cidr| !cidr.is_empty()) {
            (self.pod_cidr)(cidr);
        }
        let now = Timestamp::now();
        let facts = status::Facts {
            machine,
            version: self.runtime.version().await.ok(),
            conditions: self.runtime.conditions().await.map_err(|error| error.to_string()),
            images: self.runtime.list_images().await.unwrap_or_default(),
            memory_available: machine::memory_available(),
            disk: machine::disk(&self.options.data_dir),
        };
        let fresh = status::status(&self.options, &facts, node.status.as_ref(), now);
        let ready = slipway_api::condition::is_true(fresh.conditions.as_deref(), "Ready");
        (self.allocatable)(fresh.allocatable.iter().flatten().map(|(name, amount)| (name.clone(), amount.0.clone())).collect());
        let due = reported.is_none_or(|at| now.duration_since(at).as_secs() >= REPORT_AT_LEAST_SECONDS);
        if due || !status::is_same(node.status.as_ref(), &fresh) {
            let patch = serde_json::json!({ "status": fresh });
            node = nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
            *reported = Some(now);
        }
        if *was_ready != Some(ready) {
            let reason = if ready { "NodeReady" } else { "NodeNotReady" };
            self.recorder.node(&node, reason, format!("Node {name} status is now: {reason}"));
            *was_ready = Some(ready);
        }
        Ok((node, ready))
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let architecture = machine::architecture().to_owned();
        let mut labels = self.options.labels.clone();
        labels.extend([
            ("kubernetes.io/hostname".to_owned(), self.options.node_name.clone()),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), architecture.clone()),
            ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("beta.kubernetes.io/arch".to_owned(), architecture),
        ]);
        labels
    }

    fn object(&self) -> Node {
        let options = &self.options;
        Node {
            metadata: ObjectMeta { name: Some(options.node_name.clone()), labels: Some(self.labels()), ..Default::default() },
            spec: Some(NodeSpec {
                provider_id: options.provider_id.clone(),
                taints: Some(options.taints.clone()).filter(|taints| !taints.is_empty()),
                ..Default::default()
            }),
            status: None,
        }
    }

    /// A node that is known already keeps what others put on it, and gets our labels again.
    async fn keep_labels(&self, nodes: &Api<Node>, node: Node) -> Result<Node, Error> {
        let wanted = self.labels();
        let mut patch = serde_json::json!({});
        if wanted.iter().any(|(key, value)| node.labels().get(key) != Some(value)) {
            patch["metadata"]["labels"] = serde_json::json!(wanted);
        }
        let known = node.spec.as_ref().and_then(|spec| spec.provider_id.as_ref()).is_some();
        if let Some(id) = self.options.provider_id.as_ref().filter(|_| !known) {
            patch["spec"]["providerID"] = serde_json::json!(id);
        }
        if patch.as_object().is_some_and(serde_json::Map::is_empty) {
            return Ok(node);
        }
        Ok(nodes.patch(&self.options.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    async fn renew(&self, node: &Node, known: &RwLock<Option<Lease>>) -> Result<(), Error> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let name = &self.options.node_name;
        let now = Some(MicroTime(Timestamp::now()));
        let before = known.read().clone();
        let before = match before {
            Some(lease) => Some(lease),
            None => leases.get_opt(name).await?,
        };
        let outcome = match before {
            Some(mut lease) => {
                let spec = lease.spec.get_or_insert_default();
                spec.renew_time = now;
                spec.holder_identity = Some(name.clone());
                spec.lease_duration_seconds = Some(LEASE_SECONDS);
                leases.replace(name, &PostParams::default(), &lease).await
            }
            None => {
                let owner = OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: name.clone(),
                    uid: node.uid().unwrap_or_default(),
                    ..Default::default()
                };
                let metadata = ObjectMeta { name: Some(name.clone()), owner_references: Some(vec![owner]), ..Default::default() };
                let spec = LeaseSpec {
                    holder_identity: Some(name.clone()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: now,
                    ..Default::default()
                };
                leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
            }
        };
        // After a conflict the lease is read anew the next time.
        *known.write() = outcome.as_ref().ok().cloned();
        outcome.map(drop).map_err(Into::into)
    }
}

/// How full the disk below a directory is.
pub fn disk_used_percent(dir: &std::path::Path) -> u64 {
    let disk = machine::disk(dir);
    100 - (disk.available_bytes * 100).checked_div(disk.bytes).unwrap_or(100).min(100)
}
