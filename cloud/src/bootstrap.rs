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

/// Renders the script. The machine's image has `slipway` on its path; where the machine is `providerID` is read from
/// the instance's own metadata, or from `SLIPWAY_PROVIDER_ID` where there is no metadata service.
pub fn user_data(join: &Join) -> String {
    let mut script = String::from("#!/bin/sh\nset -eu\n");
    if let Some(before) = &join.before {
        script.push_str(before.trim_end());
        script.push('\n');
    }
    script.push_str("dir=${SLIPWAY_NODE_DIR:-/var/lib/slipway-node}\nmkdir -p \"$dir\"\numask 077\n");
    script.push_str(&format!("cat >\"$dir/ca.crt\" <<'SLIPWAY_CA'\n{}\nSLIPWAY_CA\n", join.ca_pem.trim_end()));
    script.push_str(&format!("exec {}\n", command(join)));
    script
}

fn command(join: &Join) -> String {
    let mut words: Vec<String> = ["slipway", "node", "--data-dir"].map(String::from).to_vec();
    words.push("\"$dir\"".into());
    words.push("--ca".into());
    words.push("\"$dir/ca.crt\"".into());
    for (flag, value) in [("--join", &join.server), ("--token", &join.token), ("--node-name", &join.node_name)] {
        words.extend([flag.to_owned(), quote(value)]);
    }
    words.push("${SLIPWAY_PROVIDER_ID:+--provider-id \"$SLIPWAY_PROVIDER_ID\"}".into());
    words.push("${SLIPWAY_NODE_IP:+--node-ip \"$SLIPWAY_NODE_IP\"}".into());
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
        // The script is run by a real shell with a `slipway` that prints its arguments.
        let dir = tempfile_dir();
        let tool = dir.join("slipway");
        std::fs::write(&tool, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut join = join();
        join.before = Some("echo before".into());
        let output = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(user_data(&join))
            .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
            .env("SLIPWAY_NODE_DIR", dir.join("node"))
            .env("SLIPWAY_PROVIDER_ID", "aws:///us-east-1a/i-1")
            .output()
            .unwrap();
        let lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let has = |a: &str, b: &str| lines.windows(2).any(|pair| pair[0] == a && pair[1] == b);
        assert_eq!(lines[0], "before");
        assert!(has("--label", "slipway.dev/nodepool=it's"), "{lines:?}");
        assert!(has("--taint", "dedicated=batch:NoSchedule") && has("--provider-id", "aws:///us-east-1a/i-1"), "{lines:?}");
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
