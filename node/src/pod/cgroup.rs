//! The cgroup of a pod, which holds all its containers: limits that are the pod's as a whole, and its share of the CPU.

use crate::runtime::api;
use slipway_api::core::{Container, Pod, ResourceRequirements};
use slipway_api::pod::{Resources, limits, qos_class, requests};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
const PERIOD_MICROSECONDS: i64 = 100_000;
const QUOTA_MIN: i64 = 1000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
/// The hierarchies of version 1 in which runtimes make cgroups.
const CONTROLLERS: [&str; 12] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "hugetlb", "net_cls", "perf_event"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

#[derive(Debug, Clone)]
pub struct Cgroups {
    pub version: Version,
    /// Below which the pods are, as `/slipway/NODE`.
    parent: String,
}

pub fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

pub fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * PERIOD_MICROSECONDS / 1000).max(QUOTA_MIN) }
}

/// Version 2's weight for version 1's shares, as the kernel's documentation scales them.
fn weight(shares: i64) -> i64 {
    1 + (shares - 2) * 9999 / 262_142
}

/// Those of a pod as a whole; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    shares: i64,
    quota: Option<i64>,
    memory: Option<i64>,
}

impl Limits {
    fn of(pod: &Pod) -> Limits {
        let (asked, limit) = (requests(pod), limits(pod));
        let spec = pod.spec.clone().unwrap_or_default();
        let has = |resources: Option<&ResourceRequirements>, name: &str| {
            resources.and_then(|resources| resources.limits.as_ref()).is_some_and(|limits| limits.contains_key(name))
        };
        let limited = |name: &str| {
            let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            has(spec.resources.as_ref(), name) || all.all(|container| has(container.resources.as_ref(), name))
        };
        Limits {
            shares: shares(asked.milli_cpu),
            quota: Some(quota(limit.milli_cpu)).filter(|quota| *quota > 0 && limited("cpu")),
            memory: Some(limit.memory).filter(|memory| *memory > 0 && limited("memory")),
        }
    }

    fn max(self, other: Limits) -> Limits {
        let larger = |one: Option<i64>, other: Option<i64>| Some(one?.max(other?));
        Limits {
            shares: self.shares.max(other.shares),
            quota: larger(self.quota, other.quota),
            memory: larger(self.memory, other.memory),
        }
    }
}

impl Cgroups {
    pub fn detect(node_name: &str) -> Cgroups {
        let version = if Path::new(ROOT).join("cgroup.controllers").exists() { Version::Two } else { Version::One };
        Cgroups { version, parent: format!("/slipway/{node_name}") }
    }

    pub fn of_pod(&self, uid: &str) -> String {
        format!("{}/pod{uid}", self.parent)
    }

    /// What a container gets.
    pub fn of_container(&self, pod: &Pod, container: &Container, node_memory: i64) -> api::LinuxContainerResources {
        let list = |of: fn(&ResourceRequirements) -> Option<&_>| Resources::from_list(container.resources.as_ref().and_then(of));
        let (asked, limit) = (list(|resources| resources.requests.as_ref()), list(|resources| resources.limits.as_ref()));
        let milli = if asked.milli_cpu == 0 { limit.milli_cpu } else { asked.milli_cpu };
        let mut unified = HashMap::new();
        if self.version == Version::Two && limit.memory > 0 {
            // One process over the limit ends the whole container, not just itself.
            unified.insert("memory.oom.group".to_owned(), "1".to_owned());
        }
        api::LinuxContainerResources {
            cpu_period: if limit.milli_cpu > 0 { PERIOD_MICROSECONDS } else { 0 },
            cpu_quota: quota(limit.milli_cpu),
            cpu_shares: shares(milli),
            memory_limit_in_bytes: limit.memory,
            memory_swap_limit_in_bytes: limit.memory,
            oom_score_adj: oom_score(pod, asked.memory, node_memory),
            unified,
            ..Default::default()
        }
    }

    /// Makes the pod's cgroup with its limits, or changes them. Failing is not fatal: its containers have their own.
    pub fn set_up(&self, uid: &str, pod: &Pod) -> io::Result<()> {
        self.write(uid, Limits::of(pod))
    }

    /// Before containers get other resources: their pod has what they need before and after.
    pub fn make_room(&self, uid: &str, before: &Pod, after: &Pod) -> io::Result<()> {
        self.write(uid, Limits::of(before).max(Limits::of(after)))
    }

    fn write(&self, uid: &str, Limits { shares, quota, memory }: Limits) -> io::Result<()> {
        let below = self.of_pod(uid);
        let below = below.trim_start_matches('/');
        match self.version {
            Version::One => {
                let (cpu, mem) = (Path::new(ROOT).join("cpu").join(below), Path::new(ROOT).join("memory").join(below));
                fs::create_dir_all(&cpu)?;
                fs::write(cpu.join("cpu.shares"), shares.to_string())?;
                if let Some(quota) = quota {
                    fs::write(cpu.join("cpu.cfs_period_us"), PERIOD_MICROSECONDS.to_string())?;
                    fs::write(cpu.join("cpu.cfs_quota_us"), quota.to_string())?;
                }
                fs::create_dir_all(&mem)?;
                if let Some(memory) = memory {
                    fs::write(mem.join("memory.limit_in_bytes"), memory.to_string())?;
                }
            }
            Version::Two => {
                let dir = Path::new(ROOT).join(below);
                fs::create_dir_all(&dir)?;
                // A controller works in a cgroup only if every one above hands it down.
                let mut at = PathBuf::from(ROOT);
                for part in Path::new(below).parent().into_iter().flat_map(Path::components) {
                    hand_down(&at);
                    at.push(part);
                }
                hand_down(&at);
                fs::write(dir.join("cpu.weight"), weight(shares).to_string())?;
                if let Some(quota) = quota {
                    fs::write(dir.join("cpu.max"), format!("{quota} {PERIOD_MICROSECONDS}"))?;
                }
                if let Some(memory) = memory {
                    fs::write(dir.join("memory.max"), memory.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Removes the pod's cgroup; the runtime leaves it behind.
    pub fn tear_down(&self, uid: &str) {
        let below = self.of_pod(uid);
        let below = below.trim_start_matches('/');
        match self.version {
            Version::One => CONTROLLERS.iter().for_each(|name| remove(&Path::new(ROOT).join(name).join(below))),
            Version::Two => remove(&Path::new(ROOT).join(below)),
        }
        remove(&Path::new(ROOT).join("unified").join(below));
    }
}

/// Removes the cgroup of a pod whatever node of this machine it is of.
pub fn remove_everywhere(uid: &str) {
    let hierarchies = CONTROLLERS.iter().map(|name| Path::new(ROOT).join(name));
    for hierarchy in hierarchies.chain([PathBuf::from(ROOT), Path::new(ROOT).join("unified")]) {
        for node in fs::read_dir(hierarchy.join("slipway")).into_iter().flatten().flatten() {
            remove(&node.path().join(format!("pod{uid}")));
        }
    }
}

fn hand_down(dir: &Path) {
    for controller in ["cpuset", "cpu", "io", "memory", "pids"] {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Removes a cgroup with those below it; the kernel refuses one that still has processes.
fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Who is ended first when the node runs out of memory: best-effort, then who uses much more than it asked for.
fn oom_score(pod: &Pod, memory: i64, node_memory: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    match qos_class(pod) {
        _ if pod.spec.as_ref().is_some_and(|spec| spec.priority.is_some_and(|priority| priority >= 2_000_000_000)) => GUARANTEED,
        "Guaranteed" => GUARANTEED,
        "BestEffort" => BEST_EFFORT,
        _ => (1000 - 1000 * memory / node_memory.max(1)).clamp(3, 999),
    }
}
