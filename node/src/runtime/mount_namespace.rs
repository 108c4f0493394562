//! The mount namespace that the agent and its containerd share.
//!
//! Volumes that the agent mounts (memory-backed ones) must be seen by containerd, so both live in one namespace whose
//! root is shared, which mount propagation needs too. It outlives the agent: containerd and its shims hold it.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where things of the private containerd stand in a data directory.
pub fn containerd_dir(data_dir: &Path) -> PathBuf {
    std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned()).join("containerd")
}

/// Enters the mount namespace of this data directory's containerd, or makes one if none is alive.
///
/// To be called before the process has a second thread: the kernel refuses it after that.
pub fn enter_mount_namespace(data_dir: &Path) -> io::Result<()> {
    let here = std::env::current_dir()?;
    let data_dir = std::path::absolute(data_dir)?;
    if let Some(pid) = processes_of(&data_dir).first() {
        setns(File::open(format!("/proc/{pid}/ns/mnt"))?, CloneFlags::CLONE_NEWNS)?;
        // Entering moved us to that namespace's root.
        return std::env::set_current_dir(here);
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    // First cut off from the machine's own mounts, then shared among ourselves.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
    let cni = containerd_dir(&data_dir).join("cni-state");
    fs::create_dir_all(&cni)?;
    fs::create_dir_all("/var/lib/cni")?;
    // The plugins' cache has a fixed place; several nodes of one machine must not share it.
    mount(Some(&cni), "/var/lib/cni", none, MsFlags::MS_BIND, none)?;
    Ok(())
}

/// The processes that belong to this data directory's containerd: itself first, then its shims.
pub fn processes_of(data_dir: &Path) -> Vec<i32> {
    let dir = containerd_dir(data_dir);
    let (config, socket) = (dir.join("config.toml"), dir.join("containerd.sock"));
    let mut found: Vec<(bool, i32)> = vec![];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let program = Path::new(std::str::from_utf8(arguments[0]).unwrap_or_default()).file_name().unwrap_or_default();
        let names = |path: &Path| arguments.contains(&path.as_os_str().as_encoded_bytes());
        if program == "containerd" && names(&config) {
            found.push((false, pid));
        } else if program.to_string_lossy().starts_with("containerd-shim") && names(&socket) {
            found.push((true, pid));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, pid)| pid).collect()
}
