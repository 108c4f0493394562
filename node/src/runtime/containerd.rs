//! A private containerd: started as a daemon that outlives the agent, and adopted by the next one.

use super::mount_namespace::{containerd_dir, processes_of};
use super::{Error, Result, pause};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// Where distributions put the CNI plugins.
const PLUGIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

#[derive(Debug, Clone)]
pub struct Containerd {
    dir: PathBuf,
    /// Registry host (or `_default`) → the address that is asked in its place.
    pub registry_mirrors: BTreeMap<String, String>,
}

impl Containerd {
    pub fn new(data_dir: &Path, registry_mirrors: BTreeMap<String, String>) -> Containerd {
        Containerd { dir: containerd_dir(data_dir), registry_mirrors }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Where CNI configuration is looked for.
    pub fn cni_conf_dir(&self) -> PathBuf {
        self.dir.join("cni.d")
    }

    /// For `host-local`'s table of addresses.
    pub fn cni_data_dir(&self) -> PathBuf {
        self.dir.join("cni-data")
    }

    /// Adopts the running one, or starts one, and sees to the pause image.
    pub async fn ensure(&self) -> Result<()> {
        self.write_files().map_err(|error| Error::Start(format!("writing containerd's configuration: {error}")))?;
        if !self.is_alive() {
            self.spawn().map_err(|error| Error::Start(format!("starting containerd: {error}")))?;
        }
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        while !matches!(self.ctr(&["version"]).await, Ok(output) if output.status.success()) {
            if tokio::time::Instant::now() > deadline || !self.is_alive() {
                return Err(Error::Start(format!(
                    "containerd does not answer; see {}",
                    self.dir.join("containerd.log").display()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        self.import_pause().await
    }

    pub fn is_alive(&self) -> bool {
        self.pid().is_some()
    }

    /// From the pidfile, unless that process is another one by now.
    pub fn pid(&self) -> Option<i32> {
        let pid: i32 = fs::read_to_string(self.dir.join("containerd.pid")).ok()?.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.dir.join("config.toml");
        line.split(|byte| *byte == 0).any(|argument| argument == config.as_os_str().as_encoded_bytes()).then_some(pid)
    }

    fn spawn(&self) -> std::io::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("containerd.log"))?;
        let mut command = Command::new("containerd");
        command.arg("-c").arg(self.dir.join("config.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
        #[expect(unsafe_code, reason = "a new session can only be made between fork and exec")]
        // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
        }
        let mut child = command.spawn()?;
        fs::write(self.dir.join("containerd.pid"), child.id().to_string())?;
        // Reaped while we live; init does it after us.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    fn write_files(&self) -> std::io::Result<()> {
        let certs = self.dir.join("certs.d");
        for dir in ["root", "state", "cni.d", "cni-data", "opt", "certs.d"] {
            fs::create_dir_all(self.dir.join(dir))?;
        }
        for (registry, mirror) in &self.registry_mirrors {
            let dir = certs.join(registry);
            fs::create_dir_all(&dir)?;
            // Without `server` an unknown image would be asked of the public registry.
            let text = format!("server = \"{mirror}\"\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
            fs::write(dir.join("hosts.toml"), text)?;
        }
        fs::write(self.dir.join("config.toml"), self.config())
    }

    fn config(&self) -> String {
        let dir = self.dir.display();
        let plugins = PLUGIN_DIRS.into_iter().find(|dir| Path::new(dir).join("bridge").exists()).unwrap_or(PLUGIN_DIRS[0]);
        let apparmor = Path::new("/sys/kernel/security/apparmor/profiles").exists();
        let mut text = String::new();
        let _ = write!(
            text,
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
oom_score = 0
[grpc]
  address = "{dir}/containerd.sock"
[ttrpc]
  address = "{dir}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = {restrict}
  disable_apparmor = {no_apparmor}
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{dir}/cni.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{dir}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
"#,
            pause = pause::image_name(),
            restrict = !may_lower_oom_score(),
            no_apparmor = !apparmor,
        );
        for (name, binary) in [("runc", "runc"), ("crun", "crun")] {
            let _ = write!(
                text,
                r#"    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
        SystemdCgroup = false
        BinaryName = "{binary}"
        Root = "{dir}/state/{name}"
"#
            );
        }
        text
    }

    async fn ctr(&self, arguments: &[&str]) -> std::io::Result<std::process::Output> {
        let mut command = tokio::process::Command::new("ctr");
        command.arg("-a").arg(self.socket()).args(["-n", "k8s.io"]).args(arguments).kill_on_drop(true);
        command.stdin(Stdio::null()).output().await
    }

    /// Imports an OCI archive from a file.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        let path = archive.to_string_lossy();
        let output = self.ctr(&["images", "import", &path]).await;
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(Error::Start(format!("importing {path}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
            Err(error) => Err(Error::Start(format!("running ctr: {error}"))),
        }
    }

    async fn import_pause(&self) -> Result<()> {
        let name = format!("name=={}", pause::image_name());
        let listed =
            self.ctr(&["images", "list", "-q", &name]).await.map_err(|error| Error::Start(format!("running ctr: {error}")))?;
        if !listed.stdout.is_empty() {
            return Ok(());
        }
        let path = self.dir.join("pause.tar");
        fs::write(&path, pause::archive()).map_err(|error| Error::Start(format!("writing the pause image: {error}")))?;
        self.import(&path).await
    }

    /// Ends containerd and every container of its: what `slipway clean` does. Containers get no time to end by themselves.
    pub async fn destroy(data_dir: &Path) -> std::io::Result<()> {
        let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
        let dir = containerd_dir(data_dir);
        if let Ok(containers) = Containerd::new(data_dir, BTreeMap::new()).ctr(&["tasks", "list", "-q"]).await {
            let ids = String::from_utf8_lossy(&containers.stdout).into_owned();
            let containerd = Containerd::new(data_dir, BTreeMap::new());
            for id in ids.split_whitespace() {
                let _ = containerd.ctr(&["tasks", "delete", "--force", id]).await;
            }
        }
        loop {
            let alive = processes_of(data_dir);
            if alive.is_empty() || tokio::time::Instant::now() > deadline {
                break;
            }
            for pid in alive {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            tokio::time::sleep(POLL).await;
        }
        unmount_below(&dir)?;
        unmount_below(&data_dir.join("pods"))?;
        for pod in fs::read_dir(data_dir.join("pods")).into_iter().flatten().flatten() {
            crate::pod::cgroup::remove_everywhere(&pod.file_name().to_string_lossy());
        }
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether the process may set an `oom_score_adj` below its own (CAP_SYS_RESOURCE).
fn may_lower_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits & (1 << CAP_SYS_RESOURCE) != 0)
}

/// Unmounts what is mounted below a directory, the innermost first.
pub fn unmount_below(dir: &Path) -> std::io::Result<()> {
    let dir = std::path::absolute(dir)?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(&dir))
        .collect();
    below.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in below {
        let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
    }
    Ok(())
}
