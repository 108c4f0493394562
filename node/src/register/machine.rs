//! What the machine is, from /proc and its neighbours.

use nix::sys::statvfs::statvfs;
use std::fs;
use std::path::Path;

pub struct Machine {
    pub cpus: usize,
    pub memory_bytes: i64,
    pub kernel: String,
    pub os_image: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub disk_bytes: i64,
}

/// Of the file system that holds the agent's data.
#[derive(Clone, Copy, Default)]
pub struct Disk {
    pub bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    pub available_inodes: u64,
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn meminfo(field: &str) -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.split_whitespace().next()?.parse::<i64>().ok()).unwrap_or(0) * 1024
}

pub fn memory_available() -> i64 {
    meminfo("MemAvailable")
}

pub fn disk(dir: &Path) -> Disk {
    let Ok(found) = statvfs(dir) else { return Disk::default() };
    Disk {
        bytes: found.blocks() * found.fragment_size(),
        available_bytes: found.blocks_available() * found.fragment_size(),
        inodes: found.files(),
        available_inodes: found.files_available(),
    }
}

impl Machine {
    pub fn read(data_dir: &Path) -> Machine {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpus = cpus.lines().filter(|line| line.starts_with("processor")).count();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let os_image = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Machine {
            cpus: cpus.max(1),
            memory_bytes: meminfo("MemTotal"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image.to_owned(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            disk_bytes: disk(data_dir).bytes as i64,
        }
    }
}
