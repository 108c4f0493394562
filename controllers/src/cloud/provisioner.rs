//! Buys for pods that fit nowhere: asks the catalogue, plans over all pods at once, and writes the Machines down.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use slipway_api::{pod::Resources, slipway::NodePool};
use slipway_cloud::{Error, InstanceType};
use tracing::info;

use super::{
    Options,
    inventory::Catalogue,
    offer::{Known, Market, Zones},
    provision::{self, is_unschedulable},
    refusal, signed,
};
use crate::{
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

/// All pods are planned together, under one key, so that nothing is bought twice.
const ALL: &str = "pods";

pub struct Controller {
    catalogue: Arc<Catalogue>,
    options: Arc<Options>,
    /// What was said last of the pods that nothing can be bought for, by uid.
    told: Mutex<HashMap<String, String>>,
    known: Mutex<Known>,
}

impl Controller {
    pub fn new(catalogue: Arc<Catalogue>, options: Arc<Options>) -> Controller {
        Controller { catalogue, options, told: Mutex::default(), known: Mutex::default() }
    }

    #[cfg(test)]
    pub fn forget_what_was_told(&self) {
        self.told.lock().clear();
    }

    async fn ask(&self, caches: &Caches) -> Result<(Vec<InstanceType>, Zones), Error> {
        let names: BTreeSet<String> = caches
            .node_pools
            .list()
            .iter()
            .flat_map(|pool| pool.spec.instance_types.clone())
            .chain(caches.machines.list().iter().map(|machine| machine.spec.instance_type.clone()))
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        let types = if names.is_empty() { vec![] } else { self.catalogue.types(&names).await? };
        let mut zones = Zones::new();
        for class in caches.node_classes.list() {
            // A class with a wrong subnet must not stop the others.
            match self.catalogue.subnets(&class.spec.subnets).await {
                Ok(subnets) => {
                    zones.insert(class.name().to_owned(), subnets.into_iter().map(|subnet| subnet.zone).collect());
                }
                Err(error @ Error::Retryable(_)) => return Err(error),
                Err(error) => info!(class = class.name(), %error, "the subnets of a NodeClass cannot be used"),
            }
        }
        Ok((types, zones))
    }

    fn plan_all(&self, caches: &Caches, types: &[InstanceType], zones: &Zones, now: slipway_api::jiff::Timestamp) -> Plan {
        let pods: Vec<_> = caches.pods.list().into_iter().filter(|pod| is_unschedulable(pod)).collect();
        let waits = !pods.is_empty();
        let machines = caches.machines.list();
        let nodes = caches.nodes.list().into_iter().map(|node| (node.name().to_owned(), node)).collect();
        let mut known = self.known.lock();
        provision::learn(&mut known, &machines, &nodes);
        let decision = provision::plan(&provision::Situation {
            pods,
            pools: caches.node_pools.list(),
            machines,
            nodes,
            daemon_sets: caches.daemon_sets.list(),
            on_node: &|node| caches.pods.indexed(node),
            market: Market { catalogue: types, zones, known: &known },
            now,
            settle: signed(self.options.settle),
        });
        drop(known);
        let mut plan = Plan::nothing();
        for purchase in &decision.purchases {
            plan.push(Step::create(&purchase.machine));
        }
        for purchase in &decision.purchases {
            let spec = &purchase.machine.spec;
            let what = format!("{} ({}, {})", purchase.machine.name(), spec.instance_type, spec.zone);
            for pod in &purchase.pods {
                plan.push(Step::event(&**pod, "TriggeredScaleUp", format!("pod triggered scale-up: Machine {what}")));
            }
        }
        let helpless: HashMap<String, String> =
            decision.helpless.iter().map(|(pod, why)| (pod.uid().to_owned(), why.clone())).collect();
        let before = std::mem::replace(&mut *self.told.lock(), helpless);
        for (pod, why) in decision.helpless.iter().filter(|(pod, why)| before.get(pod.uid()) != Some(why)) {
            plan.push(Step::event(&**pod, "NotTriggerScaleUp", format!("pod didn't trigger scale-up: {why}")));
        }
        for pool in caches.node_pools.list() {
            plan.push(count(&pool, caches, types));
        }
        if waits {
            plan.again_in(self.options.settle);
        }
        plan
    }
}

/// What the pool has, in its status.
fn count(pool: &NodePool, caches: &Caches, types: &[InstanceType]) -> Option<Step> {
    let machines = caches.machines.list();
    let mine = machines.iter().filter(|machine| machine.spec.node_pool == pool.name() && refusal(machine).is_none());
    let (mut count, mut resources) = (0, Resources::default());
    for machine in mine {
        count += 1;
        if let Some(instance) = types.iter().find(|known| known.name == machine.spec.instance_type) {
            resources.milli_cpu += instance.cpu_milli;
            resources.memory += instance.memory_bytes;
        }
    }
    let mut counted = pool.clone();
    let status = counted.status.get_or_insert_default();
    status.machines = count;
    status.resources = resources.to_list();
    Step::update_status(pool, &counted).map(Step::whatever_the_revision)
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "slipway-provisioner"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let (window, key) = (self.options.batch_window, || Key::new("", ALL));
        let (pods, pools, classes, machines) = (queue.clone(), queue.clone(), queue.clone(), queue.clone());
        caches.pods.on_change(move |old, new| {
            let waits = |pod: &&Arc<slipway_api::core::Pod>| is_unschedulable(pod);
            if new.filter(waits).is_some() && old.filter(waits).is_none() {
                pods.add_after(key(), window);
            }
        });
        caches.node_pools.on_change(move |old, new| {
            if new.is_none_or(|new| old.is_none_or(|old| old.spec != new.spec)) {
                pools.add_after(key(), window);
            }
        });
        caches.node_classes.on_change(move |_, _| classes.add_after(key(), window));
        caches.machines.on_change(move |old, new| {
            let gist = |machine: &Arc<slipway_api::slipway::Machine>| (machine.is_deleted(), refusal(machine).map(str::to_owned));
            if old.map(gist) != new.map(gist) {
                machines.add_after(key(), window);
            }
        });
    }

    async fn plan(&self, _: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        match self.ask(situation.caches).await {
            Ok((types, zones)) => Ok(self.plan_all(situation.caches, &types, &zones, situation.now)),
            Err(error) => {
                info!(%error, "the catalogue cannot be read; trying again");
                Ok(Plan { again_in: Some(self.options.poll_interval), ..Plan::default() })
            }
        }
    }
}
