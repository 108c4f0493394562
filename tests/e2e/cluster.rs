//! A real cluster for a test: the binary under test, a data directory of its own, the real kubectl.

use crate::machine::{Wire, enter};
use serde_json::Value;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a test waits for something that takes seconds, on a machine that may be busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Runs in a network namespace of its own, so that it takes no port and no rule of the machine's, and so that
/// clusters don't meet. The thread that uses it is in there too, hence also what that thread starts.
pub struct Cluster {
    pub data_dir: PathBuf,
    pub listen: String,
    /// The network namespace's name.
    pub network: String,
    /// What joins it to further machines.
    pub wire: Wire,
    /// What kubectl is told to use; empty: `default`.
    namespace: String,
    flags: Vec<String>,
    child: Option<Child>,
}

/// Whether the end-to-end tests can run; says loudly why not.
pub fn enabled(test: &str) -> bool {
    let missing = if std::env::var("SLIPWAY_E2E").is_err() {
        Some("SLIPWAY_E2E isn't set (run ./dev e2e)")
    } else if !nix::unistd::Uid::effective().is_root() {
        Some("it needs root")
    } else {
        None
    };
    if let Some(why) = missing {
        eprintln!("SKIPPED {test}: {why}");
    }
    missing.is_none()
}

pub fn binary() -> PathBuf {
    PathBuf::from(std::env::var("SLIPWAY_BIN").expect("SLIPWAY_BIN names the slipway binary"))
}

/// The shared cluster, held by one test at a time, with a namespace that kubectl uses until the test ends.
pub struct Shared(MutexGuard<'static, Cluster>);

impl Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let namespace = std::mem::take(&mut self.0.namespace);
        if std::thread::panicking() {
            // The test may have left the one node unusable; the next one shall fail for its own reasons.
            self.kubectl(&["patch", "node", "node-1", "--type=merge", "-p", r#"{"spec":{"taints":null,"unschedulable":null}}"#]);
        }
        self.kubectl(&["delete", "namespace", &namespace, "--wait=false"]);
    }
}

/// The cluster with one containerd node that most tests share, with a new namespace for the test.
pub fn shared(namespace: &str) -> Shared {
    static SHARED: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let cluster = SHARED.get_or_init(|| {
        extern "C" fn stop() {
            if let Some(cluster) = SHARED.get() {
                cluster.lock().unwrap_or_else(PoisonError::into_inner).remove();
            }
        }
        #[allow(unsafe_code, reason = "a static is never dropped, and the cluster has to end with the tests")]
        // SAFETY: `stop` is a plain function that stays valid for the life of the process.
        unsafe {
            nix::libc::atexit(stop)
        };
        Mutex::new(Cluster::start_with_node("shared"))
    });
    let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.enter();
    cluster.make_namespace(namespace);
    cluster.namespace = namespace.into();
    Shared(cluster)
}

impl Cluster {
    /// Starts `slipway up` in a new data directory, and waits until `/readyz` is ok.
    pub fn start(name: &str, flags: &[&str]) -> Self {
        Self::start_at("127.0.0.1:6443", name, flags)
    }

    /// One that further machines reach, by [`Cluster::join_address`].
    pub fn start_for_machines(name: &str, flags: &[&str]) -> Self {
        Self::start_at("0.0.0.0:6443", name, flags)
    }

    /// Where machines join.
    pub fn join_address(&self) -> String {
        "https://192.0.2.2:6443".into()
    }

    fn start_at(listen: &str, name: &str, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(listen, name, flags);
        cluster.launch();
        cluster
    }

    /// A place for a cluster, where nothing runs yet.
    pub fn prepare(listen: &str, name: &str, flags: &[&str]) -> Self {
        let name = format!("slipway-e2e-{name}-{}", std::process::id());
        // The private Postgres runs as a user who must be able to reach its directory.
        let data_dir = PathBuf::from("/var/tmp").join(&name);
        std::fs::create_dir_all(&data_dir).expect("the temporary directory is writable");
        let wire = Wire::new(format!("{name}-wire"));
        wire.plug(&name, 2);
        let flags = flags.iter().map(|flag| flag.to_string()).collect();
        let namespace = String::new();
        let cluster = Cluster { data_dir, listen: listen.into(), network: name, wire, namespace, flags, child: None };
        cluster.enter();
        cluster
    }

    /// With one node that runs containers and has the sample images.
    pub fn start_with_node(name: &str) -> Self {
        let cluster = Self::start(name, &["--node-name", "node-1"]);
        cluster.wait("the node to be Ready", || condition(&cluster.json(&["get", "node", "node-1"]), "Ready") == "True");
        // It takes no pods then, and every test would fail by waiting.
        let pressure = cluster.json(&["get", "node", "node-1"]);
        assert_ne!(condition(&pressure, "DiskPressure"), "True", "less than a tenth of the disk is free");
        cluster.import_images();
        cluster
    }

    /// Puts this thread, and with it what it will start, into the cluster's network namespace.
    pub fn enter(&self) {
        enter(&self.network);
    }

    /// Starts the process (again), and waits until it is ready.
    pub fn launch(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("the log can be written");
        let child = Command::new(binary())
            .arg("up")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &self.listen])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log can be shared"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        while !self.data_dir.join("kubeconfig").exists() || !self.kubectl(&["get", "--raw", "/readyz"]).status.success() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("the child is ours"));
            assert!(ended.is_none() && Instant::now() < until, "not ready ({ended:?}):\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Beside the data directory, so that a removed cluster's log is there to be read when something stays behind.
    pub fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the cluster runs").id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), signal).expect("the process is ours");
    }

    /// Waits until the process has ended, and says how long it took.
    pub fn wait_ended(&mut self) -> Duration {
        let begun = Instant::now();
        if let Some(mut child) = self.child.take() {
            child.wait().expect("the child is ours");
        }
        begun.elapsed()
    }

    /// Runs `slipway clean`.
    pub fn clean(&self) -> Output {
        Command::new(binary()).arg("clean").arg("--data-dir").arg(&self.data_dir).output().expect("the binary starts")
    }

    /// Stops the process and removes every trace of the cluster.
    pub fn remove(&mut self) {
        if std::env::var("SLIPWAY_E2E_KEEP").is_ok() || self.network.is_empty() {
            return;
        }
        self.enter();
        if self.child.is_some() {
            self.signal(nix::sys::signal::Signal::SIGTERM);
            self.wait_ended();
        }
        let cleaned = self.clean();
        if !cleaned.status.success() {
            eprintln!("slipway clean: {}", text(&cleaned));
        }
        run("ip", &["netns", "delete", &std::mem::take(&mut self.network)]);
        self.wire.remove();
        let _ = std::fs::remove_file(self.log_path());
    }

    pub fn import_images(&self) {
        import_images(|arguments| self.ctr(arguments));
    }

    /// A second `slipway up` on the same directory, which has to fail.
    pub fn second(&self) -> Output {
        let mut command = Command::new(binary());
        command.arg("up").arg("--data-dir").arg(&self.data_dir).args(["--listen", "127.0.0.1:6444"]);
        command.stdin(Stdio::null()).output().expect("the binary starts")
    }

    pub fn ctr(&self, arguments: &[&str]) -> Output {
        let socket = self.data_dir.join("containerd/containerd.sock");
        Command::new("ctr").arg("-a").arg(socket).args(["-n", "k8s.io"]).args(arguments).output().expect("ctr is installed")
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_version("", arguments)
    }

    /// As `1.27`; empty: the one on the path.
    pub fn kubectl_version(&self, version: &str, arguments: &[&str]) -> Output {
        let mut command = self.kubectl_command(version);
        command.args(arguments).output().expect("kubectl is installed")
    }

    pub fn kubectl_command(&self, version: &str) -> Command {
        let program =
            if version.is_empty() { PathBuf::from("kubectl") } else { versioned(version).unwrap_or_else(|| "kubectl".into()) };
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(self.data_dir.join("kubeconfig")).stdin(Stdio::null());
        command.env("HOME", &self.data_dir);
        if !self.namespace.is_empty() {
            command.args(["--namespace", &self.namespace]);
        }
        command
    }

    /// Runs kubectl, and fails the test if kubectl fails. Answers its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "kubectl {}\n{}\n{}", arguments.join(" "), text(&output), self.log_tail());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.kubectl(&[arguments, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) -> String {
        self.with_input(&["apply", "-f", "-"], manifest)
    }

    pub fn with_input(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl_with_input(arguments, input);
        assert!(output.status.success(), "kubectl {}\n{}", arguments.join(" "), text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = self
            .kubectl_command("")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is installed");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads");
        child.wait_with_output().expect("kubectl ends")
    }

    pub fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > until {
                let pods = text(&self.kubectl(&["get", "pods", "-A", "-o", "wide"]));
                let events = text(&self.kubectl(&["get", "events", "-A", "--sort-by=.lastTimestamp"]));
                panic!("waited in vain for {what}\n{pods}\n{events}\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Which namespace kubectl is told to use.
    pub fn namespace(&self) -> String {
        self.namespace.clone()
    }

    fn make_namespace(&self, name: &str) {
        self.ok(&["create", "namespace", name]);
        self.wait("the default service account", || {
            self.kubectl(&["get", "serviceaccount", "default", "-n", name]).status.success()
        });
    }

    /// Waits until something at a JSON path of an object has the given text.
    pub fn wait_for(&self, object: &str, path: &str, wanted: &str) {
        self.wait(&format!("{object} {path} = {wanted}"), || self.get(object, path) == wanted);
    }

    /// What is at a JSON path of an object, as `{.status.phase}`; empty if there is nothing.
    pub fn get(&self, object: &str, path: &str) -> String {
        let output = self.kubectl(&["get", object, "-o", &format!("jsonpath={path}")]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The pods of a label selector that aren't being deleted.
    pub fn pods(&self, selector: &str) -> Vec<Value> {
        let pods = self.json(&["get", "pods", "-l", selector]);
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
    }
}

/// Gives the sample images to a containerd by its `ctr`.
pub fn import_images(ctr: impl Fn(&[&str]) -> Output) {
    let dir = PathBuf::from(std::env::var("SLIPWAY_IMAGES").expect("SLIPWAY_IMAGES names the folder of image archives"));
    for archive in std::fs::read_dir(&dir).expect("the images were built").flatten() {
        if archive.path().extension().is_some_and(|extension| extension == "tar") {
            let output = ctr(&["images", "import", &archive.path().display().to_string()]);
            assert!(output.status.success(), "{}", text(&output));
        }
    }
}

pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("the program is installed");
    assert!(output.status.success(), "{program} {}: {}", arguments.join(" "), text(&output));
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A kubectl of a given version, where the machine has one.
pub fn versioned(version: &str) -> Option<PathBuf> {
    let name = format!("kubectl.{version}");
    let folders = std::env::var("PATH").unwrap_or_default();
    let folders = folders.split(':').map(PathBuf::from).chain([PathBuf::from("/usr/lib/google-cloud-sdk/bin")]);
    folders.map(|folder: PathBuf| folder.join(&name)).find(|path: &PathBuf| path.exists())
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The status of a condition; empty if it isn't there.
pub fn condition<'a>(object: &'a Value, name: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|c| c["type"] == name)).and_then(|c| c["status"].as_str()).unwrap_or_default()
}

/// One HTTP GET without a connection kept; the body, or why there was none.
pub fn http_get(address: &str, path: &str) -> Result<String, String> {
    use std::io::{Read, Write};
    let address: std::net::SocketAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let timeout = Duration::from_secs(5);
    let mut stream = std::net::TcpStream::connect_timeout(&address, timeout).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(timeout)).map_err(|error| error.to_string())?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200") => Ok(body.to_owned()),
        Some((head, body)) => Err(format!("{}: {body}", head.lines().next().unwrap_or_default())),
        None => Err("no answer".into()),
    }
}
