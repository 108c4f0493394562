//! A face to test, an etcd to compare it with, and `etcdctl` against either.

use slipway_store::Store;
use slipway_store::etcd::{Face, Options};
use slipway_store::memory::Memory;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take before it counts as never.
pub const NEVER: Duration = Duration::from_secs(60);

/// Whether a program of Debian's is there; says so if not.
pub fn installed(program: &str, package: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    if !found {
        eprintln!("SKIPPED, NOTHING WAS TESTED: {program} is not installed (apt-get install {package})");
    }
    found
}

/// Something that speaks etcd's API.
pub struct Endpoint {
    pub address: String,
    ends: Ends,
    data: Option<tempfile::TempDir>,
}

enum Ends {
    Face { _stop: DropGuard },
    Etcd(Box<Child>),
}

impl Endpoint {
    pub async fn memory() -> Endpoint {
        Self::over(Memory::new()).await
    }

    pub async fn over(store: Arc<dyn Store>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let options = Options { progress_interval: Duration::from_millis(200), ..Options::default() };
        let face = Face::start(store, options).await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(face.serve(listener, None, stop.clone()));
        Endpoint { address, ends: Ends::Face { _stop: stop.drop_guard() }, data: None }
    }

    /// Debian's etcd, new, or over what `etcdctl snapshot restore` made in `data`.
    pub async fn etcd(data: tempfile::TempDir) -> Endpoint {
        let ready = async {
            loop {
                // Somebody may take a port between here and there; etcd ends then.
                let mut endpoint = Endpoint::start_etcd(data.path());
                while !endpoint.run(&["endpoint", "health"], "").await.status.success() && endpoint.has_etcd() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                if endpoint.has_etcd() {
                    return endpoint;
                }
            }
        };
        let mut endpoint = tokio::time::timeout(NEVER, ready).await.expect("etcd becomes healthy");
        endpoint.data = Some(data);
        endpoint
    }

    fn start_etcd(data: &Path) -> Endpoint {
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (client, peer) = (port().to_string(), port().to_string());
        let mut etcd = Command::new("etcd");
        etcd.args(["--data-dir", &data.join("etcd").to_string_lossy(), "--logger", "zap", "--log-level", "error"]);
        etcd.args(["--listen-client-urls", &format!("http://{client}"), "--advertise-client-urls", &format!("http://{client}")]);
        etcd.args(["--listen-peer-urls", &format!("http://{peer}"), "--unsafe-no-fsync"]);
        let etcd = etcd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        Endpoint { address: client, ends: Ends::Etcd(Box::new(etcd)), data: None }
    }

    /// Whether an etcd of ours is running.
    fn has_etcd(&mut self) -> bool {
        match &mut self.ends {
            Ends::Etcd(etcd) => etcd.try_wait().unwrap().is_none(),
            Ends::Face { .. } => false,
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut etcdctl = Command::new("etcdctl");
        etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &self.address]).args(arguments);
        etcdctl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        etcdctl
    }

    pub async fn run(&self, arguments: &[&str], input: &str) -> Output {
        use tokio::io::AsyncWriteExt;
        let mut child = self.command(arguments).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        tokio::time::timeout(NEVER, child.wait_with_output()).await.expect("etcdctl ends").unwrap()
    }

    /// What etcdctl prints if it succeeds.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.ctl_with(arguments, "").await
    }

    pub async fn ctl_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it complains of if it fails.
    pub async fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "").await;
        assert!(!output.status.success(), "etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// One that goes on, line by line.
    pub fn follow(&self, arguments: &[&str]) -> Following {
        let mut child = self.command(arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Following { lines, child }
    }

    pub async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([&self.address], None).await.unwrap()
    }
}

pub struct Following {
    lines: Lines<BufReader<ChildStdout>>,
    pub child: Child,
}

impl Following {
    pub async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = vec![];
        while lines.len() < count {
            let line = tokio::time::timeout(NEVER, self.lines.next_line()).await;
            lines.push(line.unwrap_or_else(|_| panic!("only {lines:?} came")).unwrap().expect("it goes on"));
        }
        lines
    }
}

pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("slipway-etcd-").tempdir().unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
