//! What goes on in simulated nodes. Pure: pods and the time come in, and what is to be written comes out.

use super::objects::{node_address, pod_range, pod_status};
use super::{EXIT_AFTER, EXIT_CODE, Options, START_LATENCY};
use crate::pod::allocation::{Change, Grant, Pending, change, refuse};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;
use slipway_api::core::{self, Pod, ResourceRequirements};
use slipway_api::jiff::{SignedDuration, Timestamp};
use slipway_api::pod::{self, Resources};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
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
    /// What it has.
    pub resources: ResourceRequirements,
}

impl From<&core::Container> for Container {
    fn from(container: &core::Container) -> Container {
        let image = container.image.clone().unwrap_or_default();
        let resources = container.resources.clone().unwrap_or_default();
        Container { name: container.name.clone(), image, sidecar: pod::is_sidecar(container), resources }
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
    pub ephemeral_containers: Vec<Container>,
    /// What it takes of its node.
    requests: Resources,
    /// Why it has not what it wants, and what that is.
    pub pending: Option<(Pending, Arc<Pod>)>,
    /// It was told of, so that its end must be, too.
    pub told_pending: bool,
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
    Resize,
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
        self.follow(&key, pod, now);
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
        let containers = granted(&spec.containers, status.and_then(|status| status.container_statuses.as_ref()));
        let init_statuses = status.and_then(|status| status.init_container_statuses.as_ref());
        let init_containers = granted(spec.init_containers.as_deref().unwrap_or(&[]), init_statuses);
        let named = |container: &Container| (container.name.clone(), container.resources.clone());
        let all = containers.iter().chain(&init_containers);
        let grant = Grant { pod: spec.resources.clone(), containers: all.map(named).collect() };
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
            containers,
            init_containers,
            ephemeral_containers: ephemeral(spec),
            requests: pod::requests(&grant.of(pod)),
            pending: None,
            told_pending: false,
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

    /// Takes over what may change of a pod as it runs: more ephemeral containers, other resources.
    fn follow(&mut self, key: &Key, pod: &Pod, now: Instant) {
        let (Some(known), Some(spec)) = (self.pods.get_mut(key), &pod.spec) else { return };
        let ephemeral = ephemeral(spec);
        let mut changed = known.ephemeral_containers != ephemeral;
        known.ephemeral_containers = ephemeral;
        let has = known.containers.iter().chain(&known.init_containers).map(|container| &container.resources);
        let wants = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let none = ResourceRequirements::default();
        if has.eq(wants.map(|container| container.resources.as_ref().unwrap_or(&none))) {
            changed |= known.pending.take().is_some();
        } else if known.pending.as_ref().is_some_and(|(_, wanted)| wanted.spec == pod.spec) {
            // It is tried again in time.
        } else if !matches!(known.stage, Stage::Ended { .. } | Stage::Stopped) {
            self.resize(key, Arc::new(pod.clone()), now);
        }
        if changed {
            self.write(key);
        }
    }

    /// Gives a pod what it wants, if its node has room for that.
    fn resize(&mut self, key: &Key, wanted: Arc<Pod>, now: Instant) {
        let refusal = self.refusal(key, &wanted);
        let (Some(known), Some(spec)) = (self.pods.get_mut(key), &wanted.spec) else { return };
        if let Some(pending) = refusal {
            self.timers.insert((now + RETRY, key.clone(), Turn::Resize));
            let told = known.pending.as_ref().is_some_and(|(before, _)| *before == pending);
            known.pending = Some((pending, wanted));
            if told {
                return;
            }
        } else {
            let lists = [
                (&mut known.containers, &spec.containers[..]),
                (&mut known.init_containers, spec.init_containers.as_deref().unwrap_or(&[])),
            ];
            let mut restarted = false;
            for (has, wants) in lists {
                for (container, wanted) in has.iter_mut().zip(wants) {
                    let resources = wanted.resources.clone().unwrap_or_default();
                    restarted |= change(wanted, &resources, &container.resources) == Change::Restart;
                    container.resources = resources;
                }
            }
            if restarted && known.stage == Stage::Running {
                known.restarts += 1;
                known.last_exit = Some(KILLED);
            }
            known.requests = pod::requests(&wanted);
            known.pending = None;
        }
        self.write(key);
    }

    /// Why a node cannot give a pod more.
    fn refusal(&self, key: &Key, wanted: &Pod) -> Option<Pending> {
        let known = self.pods.get(key)?;
        let wants = pod::requests(wanted);
        let has = Resources::from_list(Some(&list(&self.options.capacity)));
        let mut used = Resources::default();
        let others = self.pods.iter().filter(|(other, pod)| *other != key && pod.node == known.node);
        let others = others.filter(|(_, pod)| !matches!(pod.stage, Stage::Ended { .. } | Stage::Stopped));
        others.for_each(|(_, pod)| used.add(&pod.requests));
        let grows = ["cpu", "memory"].into_iter().filter(|name| wants.get(name) > known.requests.get(name));
        let mut refusals = grows.filter_map(|name| refuse(name, wants.get(name), used.get(name), has.get(name)));
        refusals.next()
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
                Turn::Resize => {
                    if let Some((_, wanted)) = pod.pending.clone() {
                        self.resize(&key, wanted, now);
                    }
                    continue;
                }
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
            pod.told_pending |= pod.pending.is_some();
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

/// The exit code of a container that was told to end, and did.
const KILLED: i32 = 143;

/// With what they were told to have, which may not be what they ask for.
fn granted(containers: &[core::Container], statuses: Option<&Vec<core::ContainerStatus>>) -> Vec<Container> {
    let has = |name: &str| statuses?.iter().find(|status| status.name == name)?.resources.clone();
    let of = |container: &core::Container| match has(&container.name) {
        Some(resources) => Container { resources, ..Container::from(container) },
        None => Container::from(container),
    };
    containers.iter().map(of).collect()
}

fn ephemeral(spec: &core::PodSpec) -> Vec<Container> {
    spec.ephemeral_containers.iter().flatten().map(|ephemeral| Container::from(&pod::as_container(ephemeral))).collect()
}

fn list(capacity: &BTreeMap<String, String>) -> BTreeMap<String, Quantity> {
    capacity.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone()))).collect()
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
#[path = "world_tests.rs"]
mod tests;
