//! Further machines for a cluster: each a network namespace with its own containerd, all on one wire.

use crate::cluster::{Cluster, PATIENCE, binary, import_images, run, text};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

/// The name of a machine's interface on the wire.
pub const UPLINK: &str = "uplink";

/// What a machine joins with, and the Secret that makes it good.
pub const TOKEN: &str = "abcdef.0123456789abcdef";
pub const TOKEN_SECRET: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-authentication: "true"}
"#;

/// The wire between the machines of a test: a bridge in a network namespace of its own, so that no machine's rules see
/// what others say to each other.
pub struct Wire {
    network: String,
}

impl Wire {
    pub fn new(network: String) -> Wire {
        run("ip", &["netns", "add", &network]);
        run("ip", &["-n", &network, "link", "add", "wire", "type", "bridge"]);
        run("ip", &["-n", &network, "link", "set", "wire", "up"]);
        // Where the kernel asks rules about bridged frames, it must not do so here. Where it doesn't, there is no such file.
        let quiet = "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables";
        let _ = enter_command(&network, "sh").args(["-c", quiet]).output();
        Wire { network }
    }

    /// A network namespace on the wire, with the address that it has there.
    pub fn plug(&self, network: &str, host: u8) -> String {
        let address = format!("192.0.2.{host}");
        let port = format!("port{host}");
        run("ip", &["netns", "add", network]);
        run("ip", &["-n", &self.network, "link", "add", &port, "type", "veth", "peer", "name", UPLINK, "netns", network]);
        run("ip", &["-n", &self.network, "link", "set", &port, "master", "wire", "up"]);
        run("ip", &["-n", network, "link", "set", "lo", "up"]);
        run("ip", &["-n", network, "address", "add", &format!("{address}/24"), "dev", UPLINK]);
        run("ip", &["-n", network, "link", "set", UPLINK, "up"]);
        // A machine has a way out, even if nobody is there: without one the kernel refuses a Service's address before
        // the proxy's rules are asked.
        run("ip", &["-n", network, "route", "add", "default", "via", "192.0.2.1"]);
        address
    }

    pub fn remove(&self) {
        run("ip", &["netns", "delete", &self.network]);
    }
}

/// Puts the calling thread into a network namespace.
pub fn enter(network: &str) {
    let namespace = std::fs::File::open(Path::new("/run/netns").join(network)).expect("the namespace is there");
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter it");
}

/// Not `ip netns exec`: that hides the machine's cgroups.
fn enter_command(network: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{network}")).arg(program).stdin(Stdio::null());
    command
}

/// A machine that can become a node. Whatever it is told to run is its agent.
pub struct Machine {
    pub data_dir: PathBuf,
    /// On the wire.
    pub ip: String,
    network: String,
    agent: Option<Child>,
}

impl Machine {
    /// Without an agent; `host` is the last part of its address, and the cluster itself has 2.
    pub fn new(cluster: &Cluster, name: &str, host: u8) -> Machine {
        let network = format!("{}-{name}", cluster.network);
        let data_dir = PathBuf::from("/var/tmp").join(&network);
        std::fs::create_dir_all(&data_dir).expect("the temporary directory is writable");
        let ip = cluster.wire.plug(&network, host);
        Machine { data_dir, ip, network, agent: None }
    }

    /// Joins the cluster as a node of this name; without a token if the machine has been one before.
    pub fn join(&mut self, cluster: &Cluster, node_name: &str, token: Option<&str>) {
        let mut command = self.command(&binary().display().to_string());
        command.args(["node", "--join", &cluster.join_address(), "--node-name", node_name]);
        command.arg("--ca").arg(cluster.data_dir.join("pki/ca.crt")).arg("--data-dir").arg(&self.data_dir);
        command.args(token.iter().flat_map(|token| ["--token", token]));
        self.start(command);
    }

    /// A command inside of the machine.
    pub fn command(&self, program: &str) -> Command {
        enter_command(&self.network, program)
    }

    /// Runs the machine's agent.
    pub fn start(&mut self, mut command: Command) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("the log can be written");
        command.stdout(log.try_clone().expect("the log can be shared")).stderr(log);
        self.agent = Some(command.spawn().expect("the agent starts"));
    }

    /// Ends the agent; what it has started goes on.
    pub fn end_agent(&mut self, signal: Signal) {
        if let Some(mut agent) = self.agent.take() {
            kill(nix::unistd::Pid::from_raw(agent.id() as i32), signal).expect("the process is ours");
            agent.wait().expect("the child is ours");
        }
    }

    fn socket(&self) -> PathBuf {
        self.data_dir.join("containerd/containerd.sock")
    }

    /// As a machine's image brings them along; waits until there is a containerd to give them to.
    pub fn import_images(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.ctr(&["version"]).status.success() {
            assert!(Instant::now() < until, "no containerd on {}:\n{}", self.network, self.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        import_images(|arguments| self.ctr(arguments));
    }

    pub fn ctr(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.socket()).args(["-n", "k8s.io"]).args(arguments).output().expect("ctr is installed")
    }

    /// How many containers run, the pods' own pauses included.
    pub fn running_tasks(&self) -> usize {
        text(&self.ctr(&["tasks", "list"])).matches("RUNNING").count()
    }

    /// What a thread inside of the machine sees.
    pub fn inside<R: Send>(&self, look: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.network);
                look()
            });
            inside.join().expect("it looks")
        })
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// The end of what the agent said.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.network, self.log());
        }
        if std::env::var("SLIPWAY_E2E_KEEP").is_ok() {
            return;
        }
        self.end_agent(Signal::SIGTERM);
        let mut clean = self.command(&binary().display().to_string());
        let cleaned = clean.arg("clean").arg("--data-dir").arg(&self.data_dir).output().expect("the binary starts");
        if !cleaned.status.success() {
            eprintln!("slipway clean: {}", text(&cleaned));
        }
        run("ip", &["netns", "delete", &self.network]);
        let _ = std::fs::remove_file(self.log_path());
    }
}
