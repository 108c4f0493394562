//! The user-data of a new machine: a script that cloud-init runs once, and that makes the machine a node.

use std::collections::BTreeMap;

/// What a machine must know to join.
#[derive(Debug, Clone)]
pub struct Join {
    /// As `https://10.0.0.5:6443`.
    pub server: String,
    pub ca_pem: String,
    /// A bootstrap token, as `abcdef.0123456789abcdef`.
    pub token: String,
    pub node_name: String,
    pub labels: BTreeMap<String, String>,
    /// As `key=value:NoSchedule`.
    pub taints: Vec<String>,
    /// Shell that the NodeClass wants run first.
    pub before: Option<String>,
}

/// Renders the script. The machine's image has `slipway`, containerd, runc and the CNI plugins on it. Under systemd the node
/// becomes a service, so that it is there after a reboot too; else the script becomes the node. What the cloud calls the
/// machine (its `providerID`) need not be said: who launched it knows.
pub fn user_data(join: &Join) -> String {
    let before = join.before.as_deref().unwrap_or_default().trim_end();
    let (ca, command) = (join.ca_pem.trim_end(), command(join));
    format!(
        r#"#!/bin/sh
set -eu
{before}
dir=${{SLIPWAY_NODE_DIR:-/var/lib/slipway-node}}
mkdir -p "$dir"
umask 077
cat >"$dir/ca.crt" <<'SLIPWAY_CA'
{ca}
SLIPWAY_CA
cat >"$dir/run" <<'SLIPWAY_RUN'
#!/bin/sh
dir=$(dirname "$0")
exec {command}
SLIPWAY_RUN
chmod 700 "$dir/run"
if [ -d /run/systemd/system ]; then
  cat >"$dir/slipway-node.service" <<SLIPWAY_UNIT
[Unit]
Description=Slipway node
Wants=network-online.target
After=network-online.target
[Service]
ExecStart=$dir/run
Restart=always
RestartSec=2
KillMode=process
Delegate=yes
[Install]
WantedBy=multi-user.target
SLIPWAY_UNIT
  systemctl enable --now "$dir/slipway-node.service"
else
  exec "$dir/run"
fi
"#
    )
}

fn command(join: &Join) -> String {
    let mut words: Vec<String> =
        ["slipway", "node", "--data-dir", "\"$dir\"", "--ca", "\"$dir/ca.crt\""].map(String::from).to_vec();
    for (flag, value) in [("--join", &join.server), ("--token", &join.token), ("--node-name", &join.node_name)] {
        words.extend([flag.to_owned(), quote(value)]);
    }
    for (key, value) in &join.labels {
        words.extend(["--label".into(), quote(&format!("{key}={value}"))]);
    }
    for taint in &join.taints {
        words.extend(["--taint".into(), quote(taint)]);
    }
    words.join(" ")
}

/// Quotes a word for the shell: whatever is in it stays one word.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join() -> Join {
        Join {
            server: "https://10.0.0.5:6443".into(),
            ca_pem: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into(),
            token: "abcdef.0123456789abcdef".into(),
            node_name: "pool-1".into(),
            labels: [("slipway.dev/nodepool".to_owned(), "it's".to_owned())].into(),
            taints: vec!["dedicated=batch:NoSchedule".into()],
            before: Some("sysctl -w vm.max_map_count=262144\n".into()),
        }
    }

    #[test]
    fn the_shell_reads_every_word_as_it_was() {
        // The script is run by a real shell with a `slipway` that prints its arguments, and, where systemd runs, a
        // `systemctl` that starts the unit at once.
        let dir = tempfile_dir();
        let tools = [("slipway", "printf '%s\\n' \"$@\""), ("systemctl", "exec $(sed -n 's/^ExecStart=//p' \"$3\")")];
        for (name, text) in tools {
            let tool = dir.join(name);
            std::fs::write(&tool, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut join = join();
        join.before = Some("echo before".into());
        let output = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(user_data(&join))
            .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
            .env("SLIPWAY_NODE_DIR", dir.join("node"))
            .output()
            .unwrap();
        let lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let has = |a: &str, b: &str| lines.windows(2).any(|pair| pair[0] == a && pair[1] == b);
        assert_eq!(lines[0], "before");
        assert!(has("--label", "slipway.dev/nodepool=it's"), "{lines:?}");
        assert!(has("--taint", "dedicated=batch:NoSchedule"), "{lines:?}");
        assert!(has("--data-dir", dir.join("node").to_str().unwrap()) && has("--node-name", "pool-1"), "{lines:?}");
        let ca = std::fs::read_to_string(dir.join("node/ca.crt")).unwrap();
        assert_eq!(ca, join.ca_pem);
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn tempfile_dir() -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("slipway-bootstrap-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }
}
