//! Kernel settings without which pods and Services do not work.

use super::Error;
use std::path::Path;
use std::process::Command;

/// Forwarding between pods and the rest; node ports on 127.0.0.1.
const NEEDED: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/all/route_localnet", "1")];
/// Answers between two pods of one bridge must pass the rules that rewrote the question. Absent when the kernel's
/// module is not loaded.
const BRIDGED: &str = "net/bridge/bridge-nf-call-iptables";

/// Sets them in the network namespace of the calling thread.
pub fn prepare() -> Result<(), Error> {
    for (setting, value) in NEEDED {
        set(setting, value)?;
    }
    if !Path::new("/proc/sys").join(BRIDGED).exists() {
        // Built into some kernels; where it is neither, the next step says so.
        let _ = Command::new("modprobe").arg("br_netfilter").output();
    }
    if let Err(error) = set(BRIDGED, "1") {
        tracing::warn!(%error, "pods may not reach pods on the same node through a Service");
    }
    Ok(())
}

/// Written only where it differs: in some containers these files can be read, and are right, but not written.
fn set(setting: &'static str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(setting);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(path, value).map_err(|source| Error::Sysctl { setting, source })
}
