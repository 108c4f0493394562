//! The agent on the real containerd, against the real API server over an in-memory store.
//!
//! It needs root, containerd, runc and the CNI plugins, and says so loudly when it skips. Everything happens in a network
//! and a mount namespace of its own, and in a temporary directory.
#![allow(clippy::unwrap_used)] // a test fails by it

mod cases;
mod rig;

use rig::Rig;
use std::path::Path;
use std::process::{Command, ExitCode};

const NEEDED: [&str; 4] = ["/usr/bin/containerd", "/usr/sbin/runc", "/usr/lib/cni/bridge", "/bin/busybox"];

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let missing: Vec<&str> = NEEDED.into_iter().filter(|path| !Path::new(path).exists()).collect();
    if !nix::unistd::geteuid().is_root() || !missing.is_empty() {
        let required = std::env::var_os("SLIPWAY_REQUIRE_ROOT_TESTS").is_some();
        eprintln!("SKIPPED: the agent's tests on containerd need root and these files: {missing:?}");
        return if required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let dir = tempfile::Builder::new().prefix("slipway-node-").tempdir().expect("a directory");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    slipway_node::enter_mount_namespace(dir.path()).expect("a mount namespace");
    let ip = |line: &str| assert!(Command::new("ip").args(line.split(' ')).status().expect("ip runs").success(), "ip {line}");
    ip("link set lo up");
    ip("link add eth0 type bridge");
    ip(&format!("addr add {}/24 dev eth0", rig::NODE_IP));
    ip("link set eth0 up");
    ip(&format!("route add default via {}", rig::NODE_IP));
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let failed = runtime.block_on(async {
        let rig = Rig::start(dir.path()).await;
        let failed = cases::run(&rig, &filter).await;
        rig.stop().await;
        slipway_node::Containerd::destroy(dir.path()).await.expect("nothing is left behind");
        failed
    });
    runtime.shutdown_background();
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
