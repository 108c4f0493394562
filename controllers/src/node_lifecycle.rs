//! Node lifecycle: a node that is not heard of any more is marked and tainted, so that nothing new lands there and what
//! does not tolerate it leaves.
//!
//! A node is heard of when its lease or its status changes. That is timed from when the change was seen here: clocks of
//! other machines are not trusted.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use slipway_api::{
    coordination::Lease,
    core::{Node, NodeCondition, Pod, PodCondition, Taint},
    jiff::{SignedDuration, Timestamp},
    meta::Time,
};

use crate::{
    caches::Caches,
    plan::{Plan, Step},
    pods,
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// What a node's own conditions (or its spec) mean for new pods: (taint, condition, value of the condition).
const NO_SCHEDULE: [(&str, &str, &str); 6] = [
    (NOT_READY, "Ready", "False"),
    (UNREACHABLE, "Ready", "Unknown"),
    ("node.kubernetes.io/memory-pressure", "MemoryPressure", "True"),
    ("node.kubernetes.io/disk-pressure", "DiskPressure", "True"),
    ("node.kubernetes.io/pid-pressure", "PIDPressure", "True"),
    ("node.kubernetes.io/network-unavailable", "NetworkUnavailable", "True"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// How long a node may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    pub heard_once: SignedDuration,
    /// Before its first sign of life.
    pub never_heard: SignedDuration,
}

pub struct Controller {
    pub grace: Grace,
    heard: Mutex<HashMap<String, Heard>>,
}

/// The last sign of life, and when it was seen here.
#[derive(Clone, PartialEq, Eq)]
struct Heard {
    sign: String,
    at: Timestamp,
}

impl Controller {
    pub fn new(grace: Grace) -> Controller {
        Controller { grace, heard: Mutex::default() }
    }

    /// When the node was heard of last.
    fn heard_at(&self, node: &Node, lease: Option<&Lease>, now: Timestamp) -> Timestamp {
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref()).map(|time| time.0);
        let reported = condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let sign = format!("{renewed:?} {reported:?}");
        let mut heard = self.heard.lock();
        match heard.get(node.name()) {
            Some(last) if last.sign == sign => last.at,
            _ => {
                heard.insert(node.name().to_owned(), Heard { sign, at: now });
                now
            }
        }
    }
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let (of_nodes, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.nodes.on_change(move |old, new| {
            let Some(node) = new.or(old) else { return };
            of_nodes.add(node.key());
            // Whether all nodes are lost concerns each: look at the others when one changes its mind.
            if old.map(|node| readiness(node)) != new.map(|node| readiness(node))
                && let Some(caches) = weak.upgrade()
            {
                caches.nodes.list().iter().filter(|node| readiness(node) != "True").for_each(|node| of_nodes.add(node.key()));
            }
        });
        let of_leases = queue.clone();
        caches.node_leases.on_change(move |_, new| {
            if let Some(lease) = new {
                of_leases.add(Key::new("", lease.name()));
            }
        });
        // A pod that is bound to a node that is already lost must not look ready.
        let of_pods = queue.clone();
        caches.pods.on_change(move |_, new| {
            if let Some(pod) = new.filter(|pod| !pods::node(pod).is_empty() && pods::is_ready(pod)) {
                of_pods.add(Key::new("", pods::node(pod)));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let caches = situation.caches;
        let Some(node) = caches.nodes.get(key).filter(|node| !node.is_deleted()) else {
            self.heard.lock().remove(&key.name);
            return Ok(Plan::nothing());
        };
        let lease = caches.node_leases.get(&Key::new(LEASES, &key.name));
        let heard = self.heard_at(&node, lease.as_deref(), situation.now);
        let all_lost = !caches.nodes.any(|other| other.name() != node.name() && readiness(other) == "True");
        let facts = Facts { heard, all_lost, grace: self.grace, now: situation.now };
        Ok(plan(&node, &caches.pods.indexed(node.name()), &facts))
    }
}

/// What is known of a node apart from the object.
struct Facts {
    heard: Timestamp,
    /// No other node is ready: then it is rather we who are cut off, and nobody is thrown out.
    all_lost: bool,
    grace: Grace,
    now: Timestamp,
}

fn plan(node: &Node, pods: &[Arc<Pod>], facts: &Facts) -> Plan {
    let mut plan = Plan::nothing();
    let now = facts.now;
    let never = condition(node, "Ready").is_none();
    let silent_at = facts.heard + if never { facts.grace.never_heard } else { facts.grace.heard_once };
    let mut marked = node.clone();
    if now > silent_at {
        mark_unknown(&mut marked, now);
    } else {
        plan.again_at(now, silent_at);
    }
    let lost = readiness(node) == "True" && readiness(&marked) != "True";
    plan.push(Step::update_status(node, &marked));
    if lost {
        let message = format!("Node {} status is now: NodeNotReady", node.name());
        plan.push(Step::event(node, "NodeNotReady", message));
    }

    let mut tainted = marked.clone();
    tainted.spec.get_or_insert_default().taints = Some(taints(&marked, facts.all_lost, now)).filter(|taints| !taints.is_empty());
    plan.push(Step::update(&marked, &tainted));

    if condition(&marked, "Ready").is_some_and(|ready| ready.status != "True") {
        for pod in pods.iter().filter(|pod| pods::is_ready(pod)) {
            plan.push(Step::update_status(&**pod, &not_ready(pod, now)));
            plan.push(Step::warning(&**pod, "NodeNotReady", "Node is not ready"));
        }
    }
    plan
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|condition| condition.type_ == type_)
}

fn readiness(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |ready| &ready.status)
}

fn mark_unknown(node: &mut Node, now: Timestamp) {
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    for type_ in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".into();
                known.reason = Some("NodeStatusUnknown".into());
                known.message = Some("Kubelet stopped posting node status.".into());
                known.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: type_.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
}

/// All taints that the node should have: those that are not ours stay as they are.
fn taints(node: &Node, all_lost: bool, now: Timestamp) -> Vec<Taint> {
    let mut wanted: BTreeMap<(&str, &str), ()> = BTreeMap::new();
    for (key, type_, value) in NO_SCHEDULE {
        if condition(node, type_).is_some_and(|condition| condition.status == value) {
            wanted.insert((key, "NoSchedule"), ());
            if type_ == "Ready" && !all_lost {
                wanted.insert((key, "NoExecute"), ());
            }
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        wanted.insert((UNSCHEDULABLE, "NoSchedule"), ());
    }
    let ours = |taint: &Taint| {
        let known = taint.key == UNSCHEDULABLE || NO_SCHEDULE.iter().any(|(key, ..)| *key == taint.key);
        let execute = taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE);
        (known && taint.effect == "NoSchedule") || execute
    };
    let existing = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut taints: Vec<Taint> =
        existing.filter(|t| !ours(t) || wanted.remove(&(t.key.as_str(), t.effect.as_str())).is_some()).cloned().collect();
    // A node that has not registered its conditions yet keeps the taint that it came with.
    let registering = condition(node, "Ready").is_none();
    let kept = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).filter(|taint| registering && ours(taint));
    for taint in kept {
        if !taints.contains(taint) {
            taints.push(taint.clone());
        }
    }
    taints.extend(wanted.into_keys().map(|(key, effect)| Taint {
        key: key.into(),
        effect: effect.into(),
        value: None,
        time_added: Some(Time(now)),
    }));
    taints
}

fn not_ready(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let conditions = pod.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
    for ready in conditions.filter(|condition: &&mut PodCondition| condition.type_ == "Ready") {
        ready.status = "False".into();
        ready.last_transition_time = Some(Time(now));
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use expect_test::expect;
    use serde_json::json;

    const GRACE: Grace = Grace { heard_once: SignedDuration::from_secs(40), never_heard: SignedDuration::from_secs(60) };

    fn ready_node(name: &str) -> String {
        format!(
            "{{metadata: {{name: {name}}}, spec: {{taints: [{{key: mine, effect: NoSchedule}}]}}, \
             status: {{conditions: [{{type: Ready, status: 'True', lastHeartbeatTime: '2026-01-01T00:00:00Z'}}]}}}}"
        )
    }

    fn renew(world: &mut World, name: &str) {
        let at = world.now;
        world
            .put::<Lease>(&format!("{{metadata: {{name: {name}, namespace: kube-node-lease}}, spec: {{renewTime: '{at:.6}'}}}}"));
    }

    #[test]
    fn a_silent_node_is_marked_and_tainted_and_its_pods_are_not_ready() {
        let controller = Controller::new(GRACE);
        let mut world = World::default();
        world.put::<Node>(&ready_node("a"));
        world.put::<Node>(&ready_node("b"));
        world.put::<Pod>(
            "{metadata: {name: web}, spec: {nodeName: a, containers: []}, status: {conditions: [{type: Ready, status: 'True'}]}}",
        );
        let key = Key::new("", "a");
        renew(&mut world, "a");
        world.check(
            &controller,
            &key,
            expect![[r#"
            again in 41s
        "#]],
        );
        world.pass(30);
        renew(&mut world, "a");
        world.check(
            &controller,
            &key,
            expect![[r#"
            again in 41s
        "#]],
        );
        world.pass(30);
        world.check(
            &controller,
            &key,
            expect![[r#"
            again in 11s
        "#]],
        );
        world.pass(11);
        world.settle(&controller, &key, expect![[r#"
            patch Node a/status {"status":{"conditions":[{"lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:01:11Z","message":"Kubelet stopped posting node status.","reason":"NodeStatusUnknown","status":"Unknown","type":"Ready"},{"lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:01:11Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"MemoryPressure"},{"lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:01:11Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"DiskPressure"},{"lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:01:11Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"PIDPressure"}]}}
            event Normal NodeNotReady: Node a status is now: NodeNotReady
            patch Node a {"spec":{"taints":[{"effect":"NoSchedule","key":"mine"},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","timeAdded":"2026-01-01T00:01:11Z"},{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable","timeAdded":"2026-01-01T00:01:11Z"}]}}
            patch Pod default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:01:11Z","status":"False","type":"Ready"}]}}
            event Warning NodeNotReady: Node is not ready
        "#]]);

        // It is back: it says so itself, and the taints go.
        world.pass(5);
        renew(&mut world, "a");
        let ready = json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": world.now.to_string()}]);
        world.edit::<Node>("a", json!({"status": {"conditions": ready}}));
        world.settle(
            &controller,
            &key,
            expect![[r#"
            patch Node a {"spec":{"taints":[{"effect":"NoSchedule","key":"mine"}]}}
            again in 41s
        "#]],
        );
    }

    #[test]
    fn when_all_nodes_are_lost_nobody_is_thrown_out() {
        let controller = Controller::new(GRACE);
        let mut world = World::default();
        world.put::<Node>(&ready_node("a"));
        let key = Key::new("", "a");
        world.check(
            &controller,
            &key,
            expect![[r#"
            again in 41s
        "#]],
        );
        world.pass(41);
        world.settle(&controller, &key, expect![[r#"
            patch Node a/status {"status":{"conditions":[{"lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:41Z","message":"Kubelet stopped posting node status.","reason":"NodeStatusUnknown","status":"Unknown","type":"Ready"},{"lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:41Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"MemoryPressure"},{"lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:41Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"DiskPressure"},{"lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:41Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"PIDPressure"}]}}
            event Normal NodeNotReady: Node a status is now: NodeNotReady
            patch Node a {"spec":{"taints":[{"effect":"NoSchedule","key":"mine"},{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable","timeAdded":"2026-01-01T00:00:41Z"}]}}
        "#]]);
    }

    #[test]
    fn a_cordoned_node_is_tainted() {
        let controller = Controller::new(GRACE);
        let mut world = World::default();
        world.put::<Node>(&ready_node("a"));
        world.edit::<Node>("a", json!({"spec": {"unschedulable": true}}));
        world.settle(&controller, &Key::new("", "a"), expect![[r#"
            patch Node a {"spec":{"taints":[{"effect":"NoSchedule","key":"mine"},{"effect":"NoSchedule","key":"node.kubernetes.io/unschedulable","timeAdded":"2026-01-01T00:00:00Z"}]}}
            again in 41s
        "#]]);
        world.edit::<Node>("a", json!({"spec": {"unschedulable": null}}));
        world.settle(
            &controller,
            &Key::new("", "a"),
            expect![[r#"
            patch Node a {"spec":{"taints":[{"effect":"NoSchedule","key":"mine"}]}}
            again in 41s
        "#]],
        );
    }
}
