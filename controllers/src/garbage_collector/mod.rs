//! Garbage collector: what nobody owns any more goes, in the order that the deletion asked for.
//!
//! Background: dependents go once their last owner is gone. Foreground: the owner stays, marked by a finalizer, until those
//! that block it are gone. Orphan: the references to the owner are taken away first. An owner counts as absent only when
//! the API server itself says so: what a cache does not know is not proof.

mod graph;
mod monitor;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::Request;
use kube::Client;
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::json;
use slipway_api::meta::{ObjectMeta, OwnerReference};

use crate::{
    caches::Caches,
    plan::{Delete, Event, EventKind, Patch, Plan, Step},
    queue::Queue,
    resource::{Key, Resource},
    run::Situation,
};
use graph::{FOREGROUND, Graph, Node, ORPHAN};
pub use monitor::Monitor;

/// How soon to look again while the graph is not complete.
const NOT_SYNCED_RETRY: Duration = Duration::from_secs(1);
/// A kind of owner that is not served (yet) is asked for again at this pace; its dependents are kept.
const UNKNOWN_OWNER_RETRY: Duration = Duration::from_secs(30);

pub struct Controller {
    client: Client,
    shared: Arc<Shared>,
}

/// What the controller and the watches that feed it have in common.
pub struct Shared {
    graph: Graph,
    queue: RwLock<Option<Arc<Queue>>>,
    /// By (apiVersion, kind).
    kinds: RwLock<HashMap<(String, String), Resource>>,
    synced: std::sync::atomic::AtomicBool,
}

impl Shared {
    fn look_at(&self, uids: impl IntoIterator<Item = String>) {
        if let Some(queue) = &*self.queue.read() {
            uids.into_iter().for_each(|uid| queue.add(Key::new("", uid)));
        }
    }
}

impl Controller {
    pub fn new(client: Client) -> Controller {
        let shared = Arc::new(Shared {
            graph: Graph::default(),
            queue: RwLock::default(),
            kinds: RwLock::default(),
            synced: false.into(),
        });
        Controller { client, shared }
    }

    pub fn monitor(&self, caches: Arc<Caches>) -> Monitor {
        Monitor { client: self.client.clone(), shared: self.shared.clone(), caches }
    }

    async fn state_of(&self, owner: &OwnerReference, dependent: &Node, caches: &Caches) -> Result<Owner, kube::Error> {
        let kind = (owner.api_version.clone(), owner.kind.clone());
        let Some(resource) = self.shared.kinds.read().get(&kind).cloned() else { return Ok(Owner::Unknown) };
        if resource.namespaced && dependent.key.namespace.is_empty() {
            return Ok(Owner::OutOfReach);
        }
        let namespace = if resource.namespaced { dependent.key.namespace.as_str() } else { "" };
        let key = Key::new(namespace, &owner.name);
        let cached = caches.of(&resource).and_then(|(cache, _)| cache.metadata(&key));
        let cached = cached.filter(|metadata| metadata.uid.as_ref() == Some(&owner.uid));
        let metadata = match cached {
            Some(metadata) => Some(metadata),
            None => self.live(&resource, &key).await?.filter(|metadata| metadata.uid.as_ref() == Some(&owner.uid)),
        };
        Ok(match metadata {
            None => Owner::Absent,
            Some(metadata) if Node::new(&resource, &metadata).waits_for_dependents() => Owner::WaitsForDependents,
            Some(_) => Owner::Present,
        })
    }

    async fn live(&self, resource: &Resource, key: &Key) -> Result<Option<ObjectMeta>, kube::Error> {
        #[derive(Deserialize)]
        struct Partial {
            metadata: ObjectMeta,
        }
        let request = Request::get(resource.path(key, None))
            .header("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json")
            .body(vec![])
            .map_err(kube::Error::HttpError)?;
        match self.client.request::<Partial>(request).await {
            Ok(partial) => Ok(Some(partial.metadata)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        *self.shared.queue.write() = Some(queue.clone());
        for (cache, selection) in caches.all() {
            if selection.is_whole() {
                let shared = self.shared.clone();
                cache.listen_to_metadata(Arc::new(move |resource, old, new| {
                    shared.look_at(shared.graph.observe(resource, old, new));
                }));
            }
        }
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(node) = self.shared.graph.get(&key.name) else { return Ok(Plan::nothing()) };
        if !self.shared.synced.load(std::sync::atomic::Ordering::Acquire) {
            return Ok(Plan { steps: vec![], again_in: Some(NOT_SYNCED_RETRY) });
        }
        let mut owners = vec![];
        if !node.deleting {
            for owner in &node.owners {
                owners.push((owner.clone(), self.state_of(owner, &node, situation.caches).await?));
            }
        }
        Ok(plan(&node, &owners, &self.shared.graph.dependents(&node.uid)))
    }
}

/// What is known of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Present,
    /// Present, but deleted in the foreground.
    WaitsForDependents,
    Absent,
    /// Of a kind that is not served: may come back.
    Unknown,
    /// Namespaced, while the dependent is not: such a reference means nothing.
    OutOfReach,
}

fn plan(node: &Node, owners: &[(OwnerReference, Owner)], dependents: &[Node]) -> Plan {
    if node.deleting {
        return if node.has_finalizer(ORPHAN) {
            orphan(node, dependents)
        } else if node.has_finalizer(FOREGROUND) {
            delete_in_foreground(node, dependents)
        } else {
            Plan::nothing()
        };
    }
    let mut plan = Plan::nothing();
    let of = |state: Owner| owners.iter().filter(move |(_, known)| *known == state).map(|(owner, _)| owner);
    if let Some(owner) = of(Owner::OutOfReach).next() {
        plan.push(tell_out_of_reach(node, owner));
        return plan;
    }
    if of(Owner::Unknown).next().is_some() {
        plan.again_in(UNKNOWN_OWNER_RETRY);
        return plan;
    }
    let (present, waiting) = (of(Owner::Present).count(), of(Owner::WaitsForDependents).count());
    if present == owners.len() {
        return plan;
    }
    if present > 0 {
        let present: Vec<&OwnerReference> = of(Owner::Present).collect();
        plan.push(write(node, json!({"metadata": {"ownerReferences": present}})));
        return plan;
    }
    let propagation = if waiting > 0 && !dependents.is_empty() {
        unblock(node, dependents, &mut plan);
        "Foreground"
    } else if node.has_finalizer(ORPHAN) {
        "Orphan"
    } else if node.has_finalizer(FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    };
    plan.push(Step::Delete(Delete {
        resource: node.resource.clone(),
        key: node.key.clone(),
        uid: node.uid.clone(),
        resource_version: node.resource_version.clone(),
        grace_seconds: None,
        propagation: Some(propagation),
        why: if waiting > 0 { "its owner is deleted in the foreground" } else { "its owners are gone" },
        tell: None,
    }));
    plan
}

/// Two that wait for each other would wait for ever: a dependent that waits itself no longer blocks its owner.
fn unblock(node: &Node, dependents: &[Node], plan: &mut Plan) {
    let circular = dependents.iter().any(|dependent| dependent.waits_for_dependents());
    if circular && node.owners.iter().any(|owner| owner.block_owner_deletion == Some(true)) {
        let owners: Vec<OwnerReference> =
            node.owners.iter().map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() }).collect();
        plan.push(write(node, json!({"metadata": {"ownerReferences": owners}})));
    }
}

fn orphan(node: &Node, dependents: &[Node]) -> Plan {
    let mut plan = Plan::nothing();
    for dependent in dependents {
        let owners: Vec<&OwnerReference> = dependent.owners.iter().filter(|owner| owner.uid != node.uid).collect();
        plan.push(write(dependent, json!({"metadata": {"ownerReferences": owners}})));
    }
    plan.push(without_finalizer(node, ORPHAN));
    plan
}

fn delete_in_foreground(node: &Node, dependents: &[Node]) -> Plan {
    let blocks = |dependent: &&Node| {
        dependent.owners.iter().any(|owner| owner.uid == node.uid && owner.block_owner_deletion == Some(true))
    };
    let mut plan = Plan::nothing();
    // Those that still stand are planned for themselves, and find that this owner waits.
    if !dependents.iter().any(|dependent| blocks(&dependent)) {
        plan.push(without_finalizer(node, FOREGROUND));
    }
    plan
}

fn without_finalizer(node: &Node, finalizer: &str) -> Step {
    let left: Vec<&String> = node.finalizers.iter().filter(|name| *name != finalizer).collect();
    write(node, json!({"metadata": {"finalizers": left}}))
}

fn write(node: &Node, patch: serde_json::Value) -> Step {
    Step::Patch(Patch {
        resource: node.resource.clone(),
        key: node.key.clone(),
        subresource: None,
        uid: node.uid.clone(),
        resource_version: node.resource_version.clone(),
        patch,
    })
}

fn tell_out_of_reach(node: &Node, owner: &OwnerReference) -> Step {
    let reference = slipway_api::core::ObjectReference {
        api_version: Some(node.resource.api_version()),
        kind: Some(node.resource.kind.to_string()),
        namespace: Some(node.key.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: Some(node.key.name.clone()),
        uid: Some(node.uid.clone()),
        ..Default::default()
    };
    Step::Event(Event {
        regarding: Box::new(reference),
        kind: EventKind::Warning,
        reason: "OwnerRefInvalidNamespace",
        message: format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace \"{}\"",
            owner.api_version, owner.kind, node.key.namespace, owner.name, owner.uid, node.key.namespace
        ),
    })
}
