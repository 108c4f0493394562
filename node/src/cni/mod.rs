//! The pods' network: a bridge on each node by the standard CNI plugins, and plain routes between the nodes.
//!
//! The configuration names the plugins `bridge`, `host-local` and `portmap`, which the container runtime runs. What
//! they leave open is done here: kernel settings ([`sysctl`]) and routes to other nodes' pods ([`routes`]). Pods' traffic
//! to the outside is masqueraded by the service proxy's rules.

pub mod routes;
pub mod sysctl;

use crate::proxy::Cidr;
use serde_json::json;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Before the files of other networks, if there are any: the runtime takes the first by name.
const FILE: &str = "10-slipway.conflist";
/// The bridge that pods are attached to.
pub const BRIDGE: &str = "cni0";

/// Why the pods' network can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot set {setting}")]
    Sysctl {
        setting: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot talk to the kernel about routes")]
    Netlink(#[source] std::io::Error),
    #[error("cannot {what}")]
    Route {
        what: String,
        #[source]
        source: Box<rtnetlink::Error>,
    },
}

/// What a node's pods are attached to.
#[derive(Clone, Debug)]
pub struct Network {
    /// Where the container runtime looks for configuration.
    pub conf_dir: PathBuf,
    /// Where `host-local` keeps which addresses are taken.
    pub data_dir: PathBuf,
    /// This node's share of the pods' network.
    pub pod_cidr: Cidr,
    /// The kernel's default if not given.
    pub mtu: Option<u32>,
}

/// The configuration as the CNI specification words it.
pub fn conflist(network: &Network) -> String {
    let mut bridge = json!({
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": true,
        "isDefaultGateway": true,
        "ipMasq": false,
        // A pod reaches itself through its Service.
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": network.pod_cidr.to_string()}]],
            "dataDir": network.data_dir,
        },
    });
    if let Some(mtu) = network.mtu {
        bridge["mtu"] = json!(mtu);
    }
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    // 0.4.0 is what the oldest runtimes and plugins that we meet understand.
    format!("{:#}\n", json!({"cniVersion": "0.4.0", "name": "slipway", "plugins": [bridge, portmap]}))
}

/// Writes the configuration whole or not at all, and only when it differs. Says whether it did.
pub fn write_conflist(network: &Network) -> Result<bool, Error> {
    let path = network.conf_dir.join(FILE);
    let text = conflist(network);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    let write = || {
        std::fs::create_dir_all(&network.conf_dir)?;
        // The runtime watches the directory, and reads only certain endings.
        let draft = network.conf_dir.join(format!(".{FILE}.new"));
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)
    };
    write().map_err(|source| Error::Write { path: path.clone(), source })?;
    Ok(true)
}

/// Removes what a node's network has left: configuration, addresses, the bridge and the routes. Pods must be gone.
pub async fn cleanup(network: &Network) -> Result<(), Error> {
    let gone = |path: &Path, result: std::io::Result<()>| match result {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::Write { path: path.into(), source }),
        _ => Ok(()),
    };
    let file = network.conf_dir.join(FILE);
    gone(&file, std::fs::remove_file(&file))?;
    gone(&network.data_dir, std::fs::remove_dir_all(&network.data_dir))?;
    remove_links().await
}

/// Removes the bridge and the routes alone: what lies outside of the node's directories.
pub async fn remove_links() -> Result<(), Error> {
    routes::sync("", std::iter::empty()).await?;
    routes::remove_bridge().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_configuration_only_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut network = Network {
            conf_dir: dir.path().join("net.d"),
            data_dir: "/var/lib/slipway/cni".into(),
            pod_cidr: "10.244.3.0/24".parse().unwrap(),
            mtu: None,
        };
        assert!(write_conflist(&network).unwrap());
        assert!(!write_conflist(&network).unwrap());
        network.mtu = Some(8951);
        assert!(write_conflist(&network).unwrap());
        let text = std::fs::read_to_string(dir.path().join("net.d").join(FILE)).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.3.0/24");
        assert_eq!(read["plugins"][0]["mtu"], 8951);
        assert_eq!(std::fs::read_dir(dir.path().join("net.d")).unwrap().count(), 1);
    }
}
