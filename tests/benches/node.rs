//! What a cluster of one node costs at rest, and how long a pod takes to start beside what the runtime alone takes.
//!
//! `./dev bench node`: needs root, containerd and the binary that `SLIPWAY_BIN` names. Exits 1 beyond a limit.

#[allow(dead_code, reason = "the end-to-end tests use the rest of it")]
#[path = "../e2e/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "the same")]
#[path = "../e2e/machine.rs"]
mod machine;

use cluster::Cluster;
use futures::TryStreamExt;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use slipway_api::core::Pod;
use slipway_node::runtime::{Runtime, api, cri::Cri};
use std::time::{Duration, Instant};

/// The figures that the project holds itself to: of `slipway` itself, without Postgres and containerd.
const RESIDENT_MIB_MAX: f64 = 100.0;
const CPU_PERCENT_MAX: f64 = 2.0;
const START_RATIO_MAX: f64 = 1.5;

const IMAGE: &str = "registry.slipway.test/busybox:1";
const SETTLE: Duration = Duration::from_secs(20);
const AT_REST: Duration = Duration::from_secs(60);
const ROUNDS: usize = 15;

/// Resident memory in MiB and CPU seconds used so far.
fn usage(pid: u32) -> (f64, f64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process runs");
    let status = read("status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    let stat = read("stat");
    // The name may hold spaces; the fields after it are counted from the third.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a line").split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    (kib / 1024.0, ticks / per_second as f64)
}

/// The processes whose parent is the given one, by name.
fn children(parent: u32) -> Vec<(u32, String)> {
    let output = std::process::Command::new("ps").args(["--ppid", &parent.to_string(), "-o", "pid=,comm="]).output();
    let text = String::from_utf8_lossy(&output.expect("ps is installed").stdout).into_owned();
    let line = |line: &str| line.trim().split_once(' ').and_then(|(pid, name)| Some((pid.parse().ok()?, name.trim().to_owned())));
    text.lines().filter_map(line).collect()
}

fn at_rest(cluster: &Cluster) -> bool {
    std::thread::sleep(SETTLE);
    let pid = cluster.pid();
    let (_, before) = usage(pid);
    std::thread::sleep(AT_REST);
    let (resident, after) = usage(pid);
    let cpu = (after - before) / AT_REST.as_secs_f64() * 100.0;
    println!(
        "idle: slipway {resident:.0} MiB resident (at most {RESIDENT_MIB_MAX:.0}), {cpu:.2} % of a core (at most {CPU_PERCENT_MAX})"
    );
    for (child, name) in children(pid) {
        println!("idle: its child {name}: {:.0} MiB resident", usage(child).0);
    }
    resident <= RESIDENT_MIB_MAX && cpu <= CPU_PERCENT_MAX
}

async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.data_dir.join("kubeconfig")).expect("the kubeconfig is there");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.expect("the kubeconfig is right");
    Client::try_from(config).expect("the kubeconfig is right")
}

/// Sandbox, container, start, as the runtime does them for whoever asks.
async fn runtime_alone(runtime: &Cri, round: usize) -> Duration {
    let uid = format!("raw-{round}");
    let config = api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata { name: uid.clone(), uid: uid.clone(), namespace: "raw".into(), attempt: 0 }),
        log_directory: format!("/var/tmp/slipway-bench-{}", std::process::id()),
        linux: Some(api::LinuxPodSandboxConfig { cgroup_parent: format!("/slipway-bench/{uid}"), ..Default::default() }),
        ..Default::default()
    };
    let container = api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(api::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: ["/bin/busybox", "sleep", "1000"].map(str::to_owned).to_vec(),
        log_path: "main.log".into(),
        linux: Some(api::LinuxContainerConfig::default()),
        ..Default::default()
    };
    let started = Instant::now();
    let sandbox = runtime.run_sandbox(config.clone(), "").await.expect("a sandbox");
    let id = runtime.create_container(&sandbox, container, config.clone()).await.expect("a container");
    runtime.start_container(&id).await.expect("it starts");
    let took = started.elapsed();
    runtime.stop_container(&id, Duration::ZERO).await.expect("it stops");
    runtime.stop_sandbox(&sandbox).await.expect("the sandbox stops");
    runtime.remove_sandbox(&sandbox).await.expect("the sandbox goes");
    let _ = std::fs::remove_dir_all(&config.log_directory);
    took
}

/// From the create until the API says Running.
async fn whole(pods: &Api<Pod>, round: usize) -> Duration {
    let name = format!("quick-{round}");
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = Box::pin(watcher(pods.clone(), config).applied_objects());
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": IMAGE,
        "command": ["/bin/busybox", "sleep", "1000"]}]});
    let pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a valid pod");
    let started = Instant::now();
    pods.create(&PostParams::default(), &pod).await.expect("the pod is created");
    while let Some(pod) = changes.try_next().await.expect("the watch goes on") {
        if pod.status.and_then(|status| status.phase).as_deref() == Some("Running") {
            break;
        }
    }
    let took = started.elapsed();
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await.expect("the pod goes");
    took
}

async fn pod_start(cluster: &Cluster) -> bool {
    let client = client(cluster).await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let runtime = Cri::new(&cluster.data_dir.join("containerd/containerd.sock"));
    let (mut raw, mut api) = (vec![], vec![]);
    for round in 0..ROUNDS {
        raw.push(runtime_alone(&runtime, round).await);
        api.push(whole(&pods, round).await);
        // What is being taken down must not be measured with the next one.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    raw.sort();
    api.sort();
    let (raw, api) = (raw[ROUNDS / 2], api[ROUNDS / 2]);
    let ratio = api.as_secs_f64() / raw.as_secs_f64();
    println!("pod start: {ratio:.2} times the runtime alone ({api:.0?} and {raw:.0?}; at most {START_RATIO_MAX} times)");
    ratio <= START_RATIO_MAX
}

fn main() {
    if std::env::var("SLIPWAY_BIN").is_err() || !nix::unistd::Uid::effective().is_root() {
        println!("SKIPPED node: it needs root, and SLIPWAY_BIN to name the binary (run ./dev bench)");
        return;
    }
    let cluster = Cluster::start_with_node("bench");
    // The cluster's network namespace is this thread's alone, so the client has to stay on it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (at_rest, pod_start) = (at_rest(&cluster), runtime.block_on(pod_start(&cluster)));
    drop(cluster);
    if !at_rest || !pod_start {
        std::process::exit(1);
    }
}
