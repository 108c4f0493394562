//! What goes on in simulated nodes. Pure: pods and the time come in, and what is to be written comes out.

use super::objects::{node_address, pod_range, pod_status};
use super::{EXIT_AFTER, EXIT_CODE, Options, START_LATENCY};
use serde_json::Value;
use slipway_api::core::{self, Pod};
use slipway_api::jiff::{SignedDuration, Timestamp};
use slipway_api::pod;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub type Key = Arc<str>;

/// How long after a failed write it is tried again, and after which a silent node is looked at again.
pub const RETRY: Duration = Duration::from_secs(1);

pub fn key_of(pod: &Pod) -> Key {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default()).into()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    Starting,
    Running,
    Ended {
        code: i32,
    },
    /// It was deleted and has ended: the API is to forget it.
    Stopped,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub sidecar: bool,
}

impl From<&core::Container> for Container {
    fn from(container: &core::Container) -> Container {
        let image = container.image.clone().unwrap_or_default();
        Container { name: container.name.clone(), image, sidecar: pod::is_sidecar(container) }
    }
}

#[derive(Clone, Debug)]
pub struct SimulatedPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: usize,
    pub stage: Stage,
    pub ip: u32,
    pub host_network: bool,
    pub restarts: i32,
    pub last_exit: Option<i32>,
    pub seen: Timestamp,
    pub started: Option<Timestamp>,
    pub qos_class: &'static str,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    exit: Option<(Duration, i32)>,
    restart_policy: String,
    stopping: bool,
    /// A write about it is on its way; what it says then may be out of date.
    in_flight: bool,
    /// It is among those to be written about.
    queued: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Start,
    Exit,
    Stop,
    Write,
}

/// What the API is to be told.
#[derive(Debug, PartialEq)]
pub enum Write {
    Status { namespace: String, name: String, status: Value },
    Delete { namespace: String, name: String, uid: String },
}

struct SimulatedNode {
    name: String,
    range: (u32, u32),
    next: u32,
    taken: HashSet<u32>,
}

pub struct World {
    nodes: Vec<SimulatedNode>,
    index: HashMap<String, usize>,
    pods: HashMap<Key, SimulatedPod>,
    timers: BTreeSet<(Instant, Key, Turn)>,
    /// Pods that something is to be written about; each is in it once.
    writes: VecDeque<Key>,
    options: Options,
}

impl World {
    pub fn new(options: Options) -> World {
        let name = |index: usize| format!("{}{index}", options.name_prefix);
        let nodes: Vec<SimulatedNode> = (0..options.count)
            .map(|index| SimulatedNode { name: name(index), range: pod_range(index, None), next: 0, taken: HashSet::new() })
            .collect();
        let index = nodes.iter().enumerate().map(|(at, node)| (node.name.clone(), at)).collect();
        World { nodes, index, pods: HashMap::new(), timers: BTreeSet::new(), writes: VecDeque::new(), options }
    }

    pub fn node_index(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    pub fn node_name(&self, index: usize) -> &str {
        &self.nodes[index].name
    }

    /// From now on, its pods get addresses from there.
    pub fn set_pod_cidr(&mut self, index: usize, cidr: &str) {
        self.nodes[index].range = pod_range(index, Some(cidr));
    }

    pub fn pod(&mut self, pod: &Pod, now: Instant, clock: Timestamp) {
        let key = key_of(pod);
        let Some(node) = pod::node_name(pod).and_then(|name| self.node_index(name)) else { return };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if self.pods.get(&key).is_some_and(|known| known.uid != uid) {
            self.pod_gone(&key);
        }
        if !self.pods.contains_key(&key) {
            self.meet(key.clone(), pod, node, now, clock);
        }
        let Some(known) = self.pods.get_mut(&key) else { return };
        if pod::is_deleted(pod) {
            if !known.stopping {
                known.stopping = true;
                self.timers.insert((now + self.options.stop_latency, key, Turn::Stop));
            }
        } else if known.stage == Stage::Running && !known.in_flight && (pod::phase(pod) != "Running" || !pod::is_ready(pod)) {
            // Somebody thinks otherwise, such as who watches over nodes.
            self.write(&key);
        }
    }

    fn meet(&mut self, key: Key, pod: &Pod, node: usize, now: Instant, clock: Timestamp) {
        let Some(spec) = &pod.spec else { return };
        let annotation = |name: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(name));
        let duration = |name: &str| annotation(name).and_then(|text| text.parse::<SignedDuration>().ok()?.try_into().ok());
        let status = pod.status.as_ref();
        let first =
            |statuses: Option<&Vec<core::ContainerStatus>>| statuses.and_then(|all| all.first()).map(|one| one.restart_count);
        let stage = match pod::phase(pod) {
            "Running" => Stage::Running,
            "Succeeded" => Stage::Ended { code: 0 },
            "Failed" => Stage::Ended { code: 1 },
            _ => Stage::Starting,
        };
        let host_network = spec.host_network.unwrap_or(false);
        let address = status.and_then(|status| status.pod_ip.as_deref()?.parse::<std::net::Ipv4Addr>().ok()).map(u32::from);
        let code = annotation(EXIT_CODE).and_then(|text| text.parse().ok()).unwrap_or(0);
        let known = SimulatedPod {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node,
            stage,
            ip: if host_network { 0 } else { self.nodes[node].address(address) },
            host_network,
            restarts: first(status.and_then(|status| status.container_statuses.as_ref())).unwrap_or(0),
            last_exit: None,
            seen: status.and_then(|status| status.start_time.as_ref()).map_or(clock, |time| time.0),
            started: (stage != Stage::Starting).then_some(clock),
            qos_class: pod::qos_class(pod),
            containers: spec.containers.iter().map(Container::from).collect(),
            init_containers: spec.init_containers.iter().flatten().map(Container::from).collect(),
            exit: duration(EXIT_AFTER).map(|after| (after, code)),
            restart_policy: spec.restart_policy.clone().unwrap_or_else(|| "Always".to_owned()),
            stopping: false,
            in_flight: false,
            queued: false,
        };
        match stage {
            Stage::Starting => {
                let latency = duration(START_LATENCY).unwrap_or(self.options.start_latency);
                self.timers.insert((now + latency, key.clone(), Turn::Start));
            }
            Stage::Running => self.exit_later(&key, known.exit, now),
            Stage::Ended { .. } | Stage::Stopped => {}
        }
        self.pods.insert(key, known);
    }

    fn exit_later(&mut self, key: &Key, exit: Option<(Duration, i32)>, now: Instant) {
        if let Some((after, _)) = exit {
            self.timers.insert((now + after, key.clone(), Turn::Exit));
        }
    }

    pub fn pod_gone(&mut self, key: &str) {
        if let Some(gone) = self.pods.remove(key) {
            self.nodes[gone.node].taken.remove(&gone.ip);
        }
    }

    /// Those of its pods that aren't among these are gone.
    pub fn keep_pods(&mut self, listed: &HashSet<Key>) {
        let gone: Vec<Key> = self.pods.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.pod_gone(key));
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, ..)| *due)
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Instant, clock: Timestamp) {
        while let Some((_, key, turn)) = self.timers.pop_first_if(|(due, ..)| *due <= now) {
            let Some(pod) = self.pods.get_mut(&key) else { continue };
            match turn {
                Turn::Start if pod.stage == Stage::Starting => {
                    pod.stage = Stage::Running;
                    pod.started = Some(clock);
                    let exit = pod.exit;
                    self.exit_later(&key, exit, now);
                }
                Turn::Exit if pod.stage == Stage::Running => self.exit(&key, now, clock),
                Turn::Stop => pod.stage = Stage::Stopped,
                Turn::Write => {}
                Turn::Start | Turn::Exit => continue,
            }
            self.write(&key);
        }
    }

    fn exit(&mut self, key: &Key, now: Instant, clock: Timestamp) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        let code = pod.exit.map_or(0, |(_, code)| code);
        let again = pod.restart_policy == "Always" || (pod.restart_policy == "OnFailure" && code != 0);
        if again {
            pod.restarts += 1;
            pod.last_exit = Some(code);
            pod.started = Some(clock);
            let exit = pod.exit;
            self.exit_later(key, exit, now);
        } else {
            pod.stage = Stage::Ended { code };
        }
    }

    fn write(&mut self, key: &Key) {
        if let Some(pod) = self.pods.get_mut(key).filter(|pod| !pod.queued) {
            pod.queued = true;
            self.writes.push_back(key.clone());
        }
    }

    /// The next thing to write, unless its node is silent or a write about the same pod is on its way.
    pub fn next_write(&mut self, now: Instant, clock: Timestamp) -> Option<(Key, Write)> {
        while let Some(key) = self.writes.pop_front() {
            let Some(pod) = self.pods.get_mut(&key) else { continue };
            pod.queued = false;
            if pod.in_flight || self.options.handle.is_silent(&self.nodes[pod.node].name) {
                self.timers.insert((now + RETRY, key, Turn::Write));
                continue;
            }
            pod.in_flight = true;
            let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
            let write = match pod.stage {
                Stage::Stopped => Write::Delete { namespace, name, uid },
                _ => Write::Status { namespace, name, status: pod_status(pod, &node_address(pod.node), clock) },
            };
            return Some((key, write));
        }
        None
    }

    /// A write has come back. One that failed is tried again.
    pub fn written(&mut self, key: &Key, done: bool, now: Instant) {
        if let Some(pod) = self.pods.get_mut(key) {
            pod.in_flight = false;
            if !done {
                self.timers.insert((now + RETRY, key.clone(), Turn::Write));
            }
        }
    }
}

impl SimulatedNode {
    /// The address it has, or one that is free; the range's own and its last are left out.
    fn address(&mut self, has: Option<u32>) -> u32 {
        if let Some(has) = has {
            self.taken.insert(has);
            return has;
        }
        let (base, size) = self.range;
        let usable = size - 2;
        for _ in 0..usable {
            let address = base + 1 + self.next % usable;
            self.next = self.next.wrapping_add(1);
            if self.taken.insert(address) {
                return address;
            }
        }
        base + 1
    }
}

trait PopFirstIf<T> {
    fn pop_first_if(&mut self, test: impl FnOnce(&T) -> bool) -> Option<T>;
}

impl<T: Ord> PopFirstIf<T> for BTreeSet<T> {
    fn pop_first_if(&mut self, test: impl FnOnce(&T) -> bool) -> Option<T> {
        if self.first().is_some_and(test) { self.pop_first() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn world(options: Options) -> (World, Instant, Timestamp) {
        (World::new(Options { count: 2, ..options }), Instant::now(), Timestamp::UNIX_EPOCH)
    }

    fn pod(name: &str, spec: Value, annotations: Value) -> Pod {
        let mut spec = spec;
        spec["nodeName"] = json!("simulated-1");
        spec["containers"] = json!([{"name": "c", "image": "web:1"}]);
        let metadata = json!({"name": name, "namespace": "default", "uid": name, "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    /// What is written until nothing more is to be: `name phase restarts` or `delete name`.
    fn written(world: &mut World, now: Instant) -> Vec<String> {
        world.advance(now, Timestamp::UNIX_EPOCH);
        let mut seen = vec![];
        while let Some((key, write)) = world.next_write(now, Timestamp::UNIX_EPOCH) {
            seen.push(match write {
                Write::Status { name, status, .. } => {
                    let restarts = &status["containerStatuses"][0]["restartCount"];
                    format!("{name} {} {restarts}", status["phase"].as_str().unwrap())
                }
                Write::Delete { name, .. } => format!("delete {name}"),
            });
            world.written(&key, true, now);
        }
        seen
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pod_starts_after_its_latency_and_once() {
        let (mut world, now, clock) = world(Options { start_latency: SECOND, ..Options::default() });
        world.pod(&pod("a", json!({}), json!({})), now, clock);
        assert!(written(&mut world, now).is_empty());
        assert_eq!(world.next_due(), Some(now + SECOND));
        assert_eq!(written(&mut world, now + SECOND), ["a Running 0"]);
        assert!(written(&mut world, now + SECOND * 10).is_empty());
        let mut elsewhere = pod("b", json!({}), json!({}));
        elsewhere.spec.as_mut().unwrap().node_name = Some("real".into());
        world.pod(&elsewhere, now, clock);
        assert!(written(&mut world, now + SECOND * 10).is_empty());
    }

    #[test]
    fn annotated_pods_end_and_those_to_be_restarted_are() {
        let (mut world, now, clock) = world(Options::default());
        let exit = |code: &str| json!({EXIT_AFTER: "5s", EXIT_CODE: code});
        for (name, policy, code) in [("done", "Never", "0"), ("broken", "Never", "3"), ("retried", "OnFailure", "3")] {
            world.pod(&pod(name, json!({"restartPolicy": policy}), exit(code)), now, clock);
        }
        assert_eq!(written(&mut world, now).len(), 3);
        assert_eq!(written(&mut world, now + SECOND * 5), ["broken Failed 0", "done Succeeded 0", "retried Running 1"]);
        assert_eq!(written(&mut world, now + SECOND * 10), ["retried Running 2"]);
    }

    #[test]
    fn a_deleted_pod_ends_and_is_forgotten() {
        let (mut world, now, clock) = world(Options { stop_latency: SECOND, ..Options::default() });
        let mut deleted = pod("a", json!({}), json!({}));
        world.pod(&deleted, now, clock);
        written(&mut world, now);
        deleted.metadata.deletion_timestamp = Some(slipway_api::meta::Time(clock));
        world.pod(&deleted, now, clock);
        assert!(written(&mut world, now).is_empty());
        assert_eq!(written(&mut world, now + SECOND), ["delete a"]);
        world.pod_gone("default/a");
        assert!(world.pods.is_empty() && world.nodes[1].taken.is_empty());
    }

    #[test]
    fn a_silent_node_says_nothing_until_it_is_revived() {
        let (mut world, now, clock) = world(Options::default());
        let handle = world.options.handle.clone();
        handle.silence("simulated-1");
        world.pod(&pod("a", json!({}), json!({})), now, clock);
        assert!(written(&mut world, now).is_empty() && written(&mut world, now + SECOND).is_empty());
        handle.revive("simulated-1");
        assert_eq!(written(&mut world, now + SECOND * 2), ["a Running 0"]);
    }

    #[test]
    fn a_failed_write_is_tried_again() {
        let (mut world, now, clock) = world(Options::default());
        world.pod(&pod("a", json!({}), json!({})), now, clock);
        world.advance(now, clock);
        let (key, _) = world.next_write(now, clock).unwrap();
        world.written(&key, false, now);
        assert!(written(&mut world, now).is_empty());
        assert_eq!(written(&mut world, now + RETRY), ["a Running 0"]);
    }

    #[test]
    fn addresses_come_from_the_nodes_range_and_are_given_back() {
        let (mut world, now, clock) = world(Options::default());
        world.set_pod_cidr(1, "10.244.7.0/30");
        for name in ["a", "b"] {
            world.pod(&pod(name, json!({}), json!({})), now, clock);
        }
        let ip = |world: &World, name: &str| std::net::Ipv4Addr::from(world.pods[name].ip).to_string();
        assert_eq!((ip(&world, "default/a"), ip(&world, "default/b")), ("10.244.7.1".into(), "10.244.7.2".into()));
        world.pod_gone("default/a");
        world.pod(&pod("c", json!({}), json!({})), now, clock);
        assert_eq!(ip(&world, "default/c"), "10.244.7.1");
        assert_eq!(pod_range(3, None), (u32::from_be_bytes([100, 64, 3, 0]), 256));
    }

    #[test]
    fn it_stands_by_what_it_said() {
        let (mut world, now, clock) = world(Options::default());
        let mut doubted = pod("a", json!({}), json!({}));
        world.pod(&doubted, now, clock);
        written(&mut world, now);
        let ready = json!([{"type": "Ready", "status": "False"}]);
        doubted.status = Some(serde_json::from_value(json!({"phase": "Running", "conditions": ready})).unwrap());
        world.pod(&doubted, now, clock);
        assert_eq!(written(&mut world, now), ["a Running 0"]);
    }
}
