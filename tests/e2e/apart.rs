//! The parts in processes of their own, as they run on several machines: only their flags join them.

use crate::cluster::{Cluster, PATIENCE, binary, condition, enabled, http_get};
use crate::machine::{Machine, TOKEN, TOKEN_SECRET};
use nix::sys::signal::{Signal, kill};
use slipway_store::postgres::private::Private;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const WEB: &str = include_str!("../../infra/samples/web.yaml");

/// The processes of a control plane, ended with it.
struct Parts(Vec<(String, Child)>);

impl Parts {
    fn start(&mut self, cluster: &Cluster, part: &str, flags: &[&str]) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(cluster.log_path()).expect("the log can be written");
        let mut command = Command::new(binary());
        command.arg(part).args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.0.push((part.into(), command.spawn().expect("the binary starts")));
    }

    /// The part ends by itself when it is told to.
    fn end(&mut self, part: &str) {
        let at = self.0.iter().position(|(name, _)| name == part).expect("it runs");
        let (_, mut child) = self.0.remove(at);
        kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("the process is ours");
        let ended = child.wait().expect("the child is ours");
        assert!(ended.success(), "{part} ended with {ended}");
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_parts_run_apart() {
    if !enabled("apart") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cluster = Cluster::prepare("0.0.0.0:6443", "apart", &[]);
    let postgres = runtime.block_on(Private::start(&cluster.data_dir.join("postgres"))).expect("Postgres is installed");
    let text = |path: &str| cluster.data_dir.join(path).display().to_string();
    let (pki, kubeconfig, url) = (text("pki"), text("kubeconfig"), postgres.url());
    let mut parts = Parts(vec![]);
    let flags = ["--pki-dir", &pki, "--postgres", &url, "--advertise-address", "192.0.2.2", "--write-kubeconfig", &kubeconfig];
    parts.start(&cluster, "apiserver", &flags);
    let until = Instant::now() + PATIENCE;
    while !cluster.data_dir.join("kubeconfig").exists() || !cluster.kubectl(&["get", "--raw", "/readyz"]).status.success() {
        assert!(Instant::now() < until, "not ready:\n{}", cluster.log_tail());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    parts.start(&cluster, "controllers", &["--kubeconfig", &kubeconfig, "--pki-dir", &pki]);
    parts.start(&cluster, "scheduler", &["--kubeconfig", &kubeconfig]);
    // The proxy alone: a machine that is no node reaches Services.
    parts.start(&cluster, "proxy", &["--kubeconfig", &kubeconfig, "--node-name", "not-a-node"]);

    cluster.apply(TOKEN_SECRET);
    let mut machine = Machine::new(&cluster, "m1", 12);
    machine.join(&cluster, "node-1", Some(TOKEN));
    machine.import_images();
    cluster.wait("the node to be Ready", || condition(&cluster.json(&["get", "node", "node-1"]), "Ready") == "True");
    cluster.apply(WEB);
    cluster.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let service = format!("{}:30080", machine.ip);
    cluster.wait("the Service to answer on the node", || http_get(&service, "/hostname").is_ok());
    // This machine's proxy leads a Service's address to the node; the way to its pods is no node's here.
    crate::cluster::run("ip", &["route", "add", "10.244.0.0/24", "via", &machine.ip]);
    let cluster_ip = format!("{}:80", cluster.get("service/web", "{.spec.clusterIP}"));
    cluster.wait("the Service to answer here", || http_get(&cluster_ip, "/hostname").is_ok());

    // The API server goes and comes back: the others find it again.
    parts.end("apiserver");
    parts.start(&cluster, "apiserver", &flags);
    cluster.wait("the API to be back", || cluster.kubectl(&["get", "--raw", "/readyz"]).status.success());
    cluster.ok(&["scale", "deployment", "web", "--replicas=4"]);
    cluster.wait("a fourth pod", || cluster.get("deployment/web", "{.status.readyReplicas}") == "4");

    drop(machine);
    for part in ["proxy", "scheduler", "controllers", "apiserver"] {
        parts.end(part);
    }
    runtime.block_on(postgres.stop()).expect("Postgres ends");
}
