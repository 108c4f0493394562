//! ResourceQuota: counts anew what the objects of a namespace use, for what is deleted is not charged by anybody.
//!
//! Admission charges an object before it is stored. A count that is lower than what is charged may therefore only be early,
//! and is believed once the quota has been left alone for a while; one that is higher is believed at once.

mod counts;
mod monitor;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kube::Client;
use parking_lot::Mutex;
use slipway_api::{
    core::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service},
    jiff::{SignedDuration, Timestamp},
    pod::is_terminal,
    quantity::Quantity,
    quota::{self, Amounts, Measured},
};

use crate::{
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};
pub use counts::{Counted, Counts};
pub use monitor::Monitor;

/// So long a quota must have been left alone before what is charged to it is lowered: longer than a write takes.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_secs(2);
/// Where a quota is never left alone, it is lowered nevertheless after so long.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// So many quotas are remembered.
const SEEN_MAX: usize = 100_000;
/// Everything is counted anew at this pace, whatever was missed.
const RESYNC: Duration = Duration::from_secs(300);

pub struct Controller {
    counts: Arc<Counts>,
    seen: Mutex<HashMap<String, Seen>>,
}

/// Since when a quota is as it is, and since when it should be lower.
#[derive(Clone, Debug)]
struct Seen {
    revision: Option<String>,
    since: Timestamp,
    too_high_since: Option<Timestamp>,
}

impl Controller {
    pub fn new() -> Controller {
        Controller { counts: Arc::default(), seen: Mutex::default() }
    }

    pub fn monitor(&self, client: Client, caches: Arc<Caches>) -> Monitor {
        Monitor { client, caches, counts: self.counts.clone() }
    }

    /// Whether a count that is lower than what is charged may be believed by now.
    fn may_lower(&self, quota: &ResourceQuota, too_high: bool, now: Timestamp) -> bool {
        let mut seen = self.seen.lock();
        if seen.len() > SEEN_MAX {
            // Quotas that are gone are among them; for those that are not, the wait begins anew.
            seen.clear();
        }
        let entry =
            seen.entry(quota.uid().to_owned()).or_insert_with(|| Seen { revision: None, since: now, too_high_since: None });
        if entry.revision != quota.metadata.resource_version {
            (entry.revision, entry.since) = (quota.metadata.resource_version.clone(), now);
        }
        entry.too_high_since = too_high.then(|| entry.too_high_since.unwrap_or(now));
        let late = entry.too_high_since.is_some_and(|since| now.duration_since(since) >= PATIENCE);
        late || now.duration_since(entry.since) >= SETTLED_AFTER
    }
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    /// The key is that of the namespace: all its quotas are counted together.
    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        self.counts.tell(queue.clone());
        let (namespaces, counts) = (queue.clone(), self.counts.clone());
        caches.resource_quotas.on_change(move |_, new| {
            counts.wake();
            if let Some(quota) = new {
                namespaces.add(Key::new("", quota.namespace()));
            }
        });
        let pods = queue.clone();
        caches.pods.on_change(move |old, new| {
            let uses = |pod: Option<&Arc<Pod>>| pod.map(|pod| (is_terminal(pod), pod.is_deleted(), resources(pod)));
            if uses(old) != uses(new)
                && let Some(pod) = new.or(old)
            {
                pods.add(Key::new("", pod.namespace()));
            }
        });
        let services = queue.clone();
        caches.services.on_change(move |old, new| {
            if let Some(service) = new.or(old) {
                services.add(Key::new("", service.namespace()));
            }
        });
        let claims = queue.clone();
        caches.persistent_volume_claims.on_change(move |old, new| {
            if let Some(claim) = new.or(old) {
                claims.add(Key::new("", claim.namespace()));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let mut plan = Plan::nothing();
        let (namespace, now) = (key.name.as_str(), situation.now);
        for quota in situation.caches.resource_quotas.in_namespace(namespace).into_iter().filter(|quota| !quota.is_deleted()) {
            let counted = count(&quota, namespace, situation.caches, &self.counts, now);
            let too_high = is_charged_more(&quota, &counted);
            let lower = self.may_lower(&quota, too_high, now);
            plan.push(Step::update_status(&*quota, &told(&quota, &counted, lower)));
            plan.again_in(if too_high && !lower { Duration::from_secs(1) } else { RESYNC });
        }
        Ok(plan)
    }
}

/// What of a running pod can change that quotas care for.
fn resources(pod: &Pod) -> Vec<String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.map(|container| format!("{:?}", container.resources)).collect()
}

/// What is used of that which the quota limits; what nobody can count yet is left out.
fn count(quota: &ResourceQuota, namespace: &str, caches: &Caches, counts: &Counts, now: Timestamp) -> Amounts {
    let spec = quota.spec.clone().unwrap_or_default();
    let hard: Vec<&String> = spec.hard.iter().flatten().map(|(resource, _)| resource).collect();
    let mut used = Amounts::new();
    let mut measure = |group: &str, plural: &str, objects: &mut dyn Iterator<Item = Measured<'_>>| {
        let tracked = quota::tracked(group, plural, hard.iter().copied());
        if tracked.is_empty() {
            return;
        }
        used.extend(tracked.iter().map(|resource| (resource.clone(), Quantity::ZERO)));
        for object in objects.filter(|object| quota::is_in_scope(&spec, *object)) {
            let mut usage = quota::usage(group, plural, object, now);
            usage.retain(|resource, _| tracked.contains(resource));
            quota::add(&mut used, &usage);
        }
    };
    let pods: Vec<Arc<Pod>> = caches.pods.in_namespace(namespace);
    measure("", "pods", &mut pods.iter().map(|pod| Measured::Pod(pod)));
    let services: Vec<Arc<Service>> = caches.services.in_namespace(namespace);
    measure("", "services", &mut services.iter().map(|service| Measured::Service(service)));
    let claims: Vec<Arc<PersistentVolumeClaim>> = caches.persistent_volume_claims.in_namespace(namespace);
    measure("", "persistentvolumeclaims", &mut claims.iter().map(|claim| Measured::Claim(claim)));
    for kind in Counted::of(quota) {
        if let Some(number) = counts.number(&kind, namespace) {
            measure(&kind.group, &kind.plural, &mut std::iter::repeat_n(Measured::Other, number));
        }
    }
    used
}

fn charged(quota: &ResourceQuota) -> BTreeMap<String, Quantity> {
    let used = quota.status.as_ref().and_then(|status| status.used.clone()).unwrap_or_default();
    used.into_iter().filter_map(|(resource, text)| Some((resource, Quantity::parse(&text.0).ok()?))).collect()
}

fn is_charged_more(quota: &ResourceQuota, counted: &Amounts) -> bool {
    charged(quota).iter().any(|(resource, charged)| counted.get(resource).is_some_and(|counted| charged > counted))
}

/// The quota with its status as it should be.
fn told(quota: &ResourceQuota, counted: &Amounts, lower: bool) -> ResourceQuota {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let charged = charged(quota);
    let used = hard.keys().filter_map(|resource| {
        let amount = match (counted.get(resource), charged.get(resource)) {
            (Some(counted), Some(charged)) if charged > counted && !lower => charged,
            (Some(counted), Some(charged)) if charged == counted => charged,
            (Some(counted), _) => counted,
            (None, Some(charged)) => charged,
            (None, None) => return None,
        };
        Some((resource.clone(), (*amount).into()))
    });
    let used: BTreeMap<_, _> = used.collect();
    let some = |list: BTreeMap<_, _>| (!list.is_empty()).then_some(list);
    ResourceQuota { status: Some(ResourceQuotaStatus { used: some(used), hard: some(hard) }), ..quota.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use expect_test::expect;
    use slipway_api::core::Pod;

    const POD: &str =
        "{metadata: {name: a}, spec: {containers: [{name: c, resources: {requests: {cpu: 300m}}}]}, status: {phase: Running}}";

    fn key() -> Key {
        Key::new("", "default")
    }

    #[test]
    fn a_new_quota_is_counted_at_once() {
        let mut world = World::default();
        world.put::<Pod>(POD);
        world.put::<ResourceQuota>(
            "{metadata: {name: q}, spec: {hard: {pods: '2', requests.cpu: '1', services: '1', secrets: '3'}}}",
        );
        world.step(
            &Controller::new(),
            &key(),
            expect![[r#"
                patch ResourceQuota default/q/status {"status":{"hard":{"pods":"2","requests.cpu":"1","secrets":"3","services":"1"},"used":{"pods":"1","requests.cpu":"300m","services":"0"}}}
                again in 300s
            "#]],
        );
    }

    #[test]
    fn what_is_charged_is_lowered_when_the_quota_has_been_left_alone() {
        let mut world = World::default();
        let controller = Controller::new();
        world.put::<ResourceQuota>(
            "{metadata: {name: q}, spec: {hard: {pods: '2'}}, status: {hard: {pods: '2'}, used: {pods: '2'}}}",
        );
        world.check(&controller, &key(), expect![["again in 1s\n"]]);
        world.pass(1);
        world.check(&controller, &key(), expect![["again in 1s\n"]]);
        world.pass(1);
        world.step(
            &controller,
            &key(),
            expect![[r#"
                patch ResourceQuota default/q/status {"status":{"used":{"pods":"0"}}}
                again in 300s
            "#]],
        );
    }

    #[test]
    fn more_than_is_charged_is_told_at_once_and_others_pods_do_not_count() {
        let mut world = World::default();
        world.put::<Pod>(POD);
        world.put::<Pod>("{metadata: {name: b}, spec: {containers: [{name: c}]}, status: {phase: Running}}");
        world.put::<Pod>("{metadata: {name: c}, spec: {containers: [{name: c}]}, status: {phase: Succeeded}}");
        world.put::<ResourceQuota>(
            "{metadata: {name: q}, spec: {hard: {pods: '5'}, scopes: [BestEffort]}, status: {hard: {pods: '4'}, used: {pods: '0'}}}",
        );
        world.step(
            &Controller::new(),
            &key(),
            expect![[r#"
                patch ResourceQuota default/q/status {"status":{"hard":{"pods":"5"},"used":{"pods":"1"}}}
                again in 300s
            "#]],
        );
    }
}
