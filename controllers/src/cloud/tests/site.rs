use std::{sync::Arc, time::Duration};

use expect_test::Expect;
use serde_json::{Value, json};
use slipway_api::{
    core::{Node, Pod, Secret, Service},
    pod::Resources,
    slipway::{Machine, NodeClass, NodePool},
};
use slipway_cloud::{
    InstanceState, InstanceType, Provider,
    fake::{Fake, Faults},
};

use super::super::{
    Options,
    inventory::{Catalogue, Inventory},
    load_balancer, machine, offer, provision, provisioner, refusal, sweep,
};
use crate::{
    plan::{Plan, Step},
    resource::{Key, Object},
    testing::World,
};

/// As long as a pool's node may stand empty here.
const EMPTY_AFTER: i64 = 20;

fn instance_type(name: &str, cpus: i64, gib: i64, price: f64) -> InstanceType {
    InstanceType {
        name: name.into(),
        cpu_milli: cpus * 1000,
        memory_bytes: gib << 30,
        architecture: if name.starts_with("arm") { "arm64" } else { "amd64" }.into(),
        price_per_hour: price,
        zones: vec!["fake-1a".into(), "fake-1b".into()],
    }
}

/// A cluster in memory, a cloud, and the controllers between the two.
pub struct Site {
    pub world: World,
    pub cloud: Arc<Fake>,
    /// Whether machines that run become nodes.
    pub joins: bool,
    pub provisioner: provisioner::Controller,
    pub machines: machine::Controller,
    pub sweep: sweep::Controller,
    pub balancers: load_balancer::Controller,
}

impl Site {
    pub fn new(seed: u64, faults: Faults) -> Site {
        let types = [("small", 2, 4, 0.05), ("large", 8, 16, 0.19), ("arm-small", 2, 4, 0.04), ("huge", 64, 256, 3.0)];
        let cloud = Arc::new(Fake::new(seed, faults, types.map(|(a, b, c, d)| instance_type(a, b, c, d)).into()));
        let provider: Arc<dyn Provider> = cloud.clone();
        let options = Arc::new(Options {
            sweep_interval: Duration::ZERO,
            poll_interval: Duration::from_secs(1),
            registration_max: Duration::from_secs(100),
            drain_max: Duration::from_secs(100),
            refusal_kept: Duration::from_secs(5),
            settle: Duration::from_secs(3),
            ..Options::default()
        });
        let (catalogue, inventory) = (Arc::new(Catalogue::new(provider.clone())), Arc::new(Inventory::new(provider.clone())));
        let mut site = Site {
            world: World::default(),
            cloud,
            joins: true,
            provisioner: provisioner::Controller::new(catalogue.clone(), options.clone()),
            sweep: sweep::Controller::new(provider.clone(), inventory.clone(), options.clone()),
            balancers: load_balancer::Controller::new(provider.clone(), options.clone()),
            machines: machine::Controller { provider, catalogue, inventory, options },
        };
        site.world.put::<NodeClass>(
            "{metadata: {name: default}, spec: {provider: ec2, image: ami-1, subnets: [subnet-fake-1a, subnet-fake-1b]}}",
        );
        site
    }

    pub fn reliable() -> Site {
        Site::new(1, Faults::default())
    }

    pub fn pool(&mut self, name: &str, spec: Value) {
        let mut whole = json!({"nodeClassRef": {"name": "default"}, "disruption": {"emptyAfterSeconds": EMPTY_AFTER}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.world.put::<NodePool>(&json!({"metadata": {"name": name}, "spec": whole}).to_string());
    }

    /// A pod that the scheduler has found no place for.
    pub fn pod(&mut self, name: &str, cpu: &str, spec: Value) {
        let container = json!({"name": "c", "image": "web:1", "resources": {"requests": {"cpu": cpu}}});
        let mut whole = json!({"containers": [container]});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let metadata = json!({"name": name, "labels": {"app": name.trim_end_matches(|c: char| c.is_numeric())}});
        let status = json!({"phase": "Pending", "conditions": [self.unschedulable()]});
        self.world.put::<Pod>(&json!({"metadata": metadata, "spec": whole, "status": status}).to_string());
    }

    fn unschedulable(&self) -> Value {
        let at = self.world.now.to_string();
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": at})
    }

    pub fn service(&mut self, name: &str, spec: Value) {
        let mut whole = json!({"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.world.put::<Service>(&json!({"metadata": {"name": name}, "spec": whole}).to_string());
    }

    /// Plans what to buy, writes it down, and finds that there is nothing more to buy.
    pub fn buy(&mut self, expected: Expect) {
        let plan = self.plan_purchases();
        apply(&mut self.world, &plan, usize::MAX);
        let again = self.plan_purchases();
        let more = again.steps.iter().any(|step| matches!(step, Step::Create(_) | Step::Event(_)));
        assert!(!more, "what was bought is bought again:\n{again}");
        expected.assert_eq(&self.ledger());
    }

    pub fn plan_purchases(&self) -> Plan {
        self.world.plan(&self.provisioner, &pods())
    }

    /// What is written down, and for which pods.
    pub fn ledger(&self) -> String {
        let line = |machine: &Machine| {
            let spec = &machine.spec;
            let pods = machine.annotation(provision::PODS_ANNOTATION).unwrap_or_default().replace("uid-", "");
            let refused = refusal(machine).map(|why| format!(" {why}")).unwrap_or_default();
            format!("{} {} {} {}: {pods}{refused}\n", spec.node_pool, spec.instance_type, spec.zone, spec.capacity_type.as_str())
        };
        let mut lines: Vec<String> = self.world.list::<Machine>().iter().map(line).collect();
        lines.sort();
        lines.concat()
    }

    /// What the pods are told, if nothing can be bought for them.
    pub fn told(&self) -> String {
        let plan = self.plan_purchases();
        let events = plan.steps.iter().filter_map(|step| match step {
            Step::Event(event) => Some(format!("{} {}: {}\n", event.regarding.name.as_deref()?, event.reason, event.message)),
            _ => None,
        });
        events.collect()
    }

    pub fn the_machine(&self) -> Machine {
        let mut all = self.world.list::<Machine>();
        assert_eq!(all.len(), 1, "one Machine is expected");
        all.remove(0)
    }

    pub fn plan_machine(&self) -> Plan {
        self.world.plan(&self.machines, &self.the_machine().key())
    }

    /// Compares the Machine's next plan, and carries it out.
    pub fn step(&mut self, expected: Expect) {
        let plan = self.plan_machine();
        expected.assert_eq(&masked(&plan.to_string(), self.the_machine().name()));
        apply(&mut self.world, &plan, usize::MAX);
    }

    /// Every controller plans and writes once, `cut` steps at most; then the rest of the cluster does its part.
    pub fn round(&mut self, cut: impl Fn() -> usize) {
        let plan = self.plan_purchases();
        apply(&mut self.world, &plan, cut());
        for machine in self.world.list::<Machine>() {
            let plan = self.world.plan(&self.machines, &machine.key());
            apply(&mut self.world, &plan, cut());
            self.check_ledger();
        }
        for service in self.world.list::<Service>() {
            let plan = self.world.plan(&self.balancers, &service.key());
            apply(&mut self.world, &plan, cut());
        }
        self.world.plan(&self.sweep, &Key::new("", "cloud"));
        self.cloud.tick();
        if self.joins {
            self.nodes_join();
        }
        self.schedule();
        self.world.pass(1);
    }

    pub fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.round(|| usize::MAX));
    }

    /// Whatever has gone wrong: each machine of the cloud is one Machine's, and that is there.
    fn check_ledger(&self) {
        let mut owners: Vec<String> = self.cloud.inventory().into_iter().filter_map(|instance| instance.owner).collect();
        owners.sort();
        let machines = self.world.list::<Machine>();
        for owner in &owners {
            assert!(machines.iter().any(|machine| machine.uid() == owner), "nobody knows of {owner}");
        }
        owners.dedup();
        assert_eq!(owners.len(), self.cloud.machines(), "a machine was bought twice");
    }

    pub fn nodes_join(&mut self) {
        for instance in self.cloud.inventory().into_iter().filter(|instance| instance.state == InstanceState::Running) {
            let name = self.cloud.launched_with(&instance.id).unwrap().name;
            let there = self.world.list::<Node>().iter().any(|node| node.name() == name);
            let Some(machine) = self.world.list::<Machine>().into_iter().find(|machine| machine.name() == name) else { continue };
            if !there && !machine.is_deleted() {
                self.join(&machine, &instance.instance_type);
            }
        }
    }

    fn join(&mut self, machine: &Machine, instance_type: &str) {
        let (cpu, memory) = match instance_type {
            "large" => ("8", "15Gi"),
            _ => ("2", "3800Mi"),
        };
        let has = json!({"cpu": cpu, "memory": memory, "pods": "110"});
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": self.world.now.to_string()});
        let node = json!({
            "metadata": {"name": machine.name(), "labels": machine.spec.labels},
            "spec": {"taints": machine.spec.taints},
            "status": {"capacity": has, "allocatable": has, "conditions": [ready]},
        });
        self.world.put::<Node>(&node.to_string());
    }

    /// A scheduler, and nodes that run what they are given.
    fn schedule(&mut self) {
        for pod in self.world.list::<Pod>() {
            if !crate::pods::node(&pod).is_empty() || !crate::pods::is_active(&pod) {
                continue;
            }
            let wanted = offer::Wanted::of(Arc::new(pod.clone()));
            let node = self.world.list::<Node>().into_iter().find(|node| self.takes(node, &wanted));
            match node {
                Some(node) => {
                    let scheduled = json!({"type": "PodScheduled", "status": "True"});
                    let status = json!({"phase": "Running", "conditions": [scheduled]});
                    self.world.edit::<Pod>(pod.name(), json!({"spec": {"nodeName": node.name()}, "status": status}));
                }
                None if provision::is_unschedulable(&pod) => {}
                None => {
                    let condition = self.unschedulable();
                    self.world.edit::<Pod>(pod.name(), json!({"status": {"conditions": [condition]}}));
                }
            }
        }
    }

    fn takes(&self, node: &Node, wanted: &offer::Wanted) -> bool {
        let mut free = Resources::from_list(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        let pods = self.world.list::<Pod>().into_iter().filter(|pod| crate::pods::node(pod) == node.name());
        let bound: Vec<offer::Wanted> = pods.map(|pod| offer::Wanted::of(Arc::new(pod))).collect();
        bound.iter().for_each(|pod| free.subtract(&pod.requests));
        let open = node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true));
        open && offer::Bin { node: Arc::new(node.clone()), free, pods: vec![], bound }.takes(wanted)
    }

    pub fn delete<K: Object>(&mut self, object: &K) {
        self.world.apply(&Step::delete(object, "the test says so"));
    }

    pub fn delete_pods(&mut self) {
        self.world.list::<Pod>().iter().for_each(|pod| self.world.apply(&Step::delete(pod, "the test says so")));
    }

    pub fn assert_nothing_is_left(&self) {
        assert_eq!(self.cloud.inventory(), []);
        assert_eq!(self.cloud.balancers(), []);
        assert_eq!(self.ledger(), "");
        assert!(self.world.list::<Node>().is_empty() && self.world.list::<Secret>().is_empty());
    }
}

pub fn apply(world: &mut World, plan: &Plan, cut: usize) {
    plan.steps.iter().take(cut).for_each(|step| world.apply(step));
}

fn pods() -> Key {
    Key::new("", "pods")
}

/// Names that are made by hash or by chance, out of the way.
fn masked(text: &str, machine: &str) -> String {
    let text = text.replace(machine, "MACHINE");
    let mut parts = text.split("bootstrap-token-");
    let mut masked = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| {
        masked.push_str("bootstrap-token-*");
        masked.push_str(part.get(6..).unwrap_or_default());
    });
    masked
}
