//! The walk through Slipway, as `docs/walkthrough.md` has it: every command line of its points on kubectl, Services,
//! rollouts, Jobs, pods, scheduling and namespaces is run as it stands there.

use crate::cluster::{Cluster, enabled, shared, text};
use std::path::Path;
use std::process::Command;

const WALK: &str = include_str!("../../docs/walkthrough.md");
/// These need nothing but one node. The others have a cluster of their own, a cloud, or a browser.
const POINTS: [u32; 7] = [1, 2, 3, 4, 5, 6, 8];

/// Defines `again`: a command that comes too early is typed again, as a person would.
const PRELUDE: &str = r#"
set -uo pipefail
again() {
    local try
    for try in $(seq 15); do
        if eval "$1"; then return; fi
        sleep 2
    done
    echo "GAVE UP: $1"
    exit 1
}
"#;

/// What `while` left behind has to run until now.
const FINISH: &str = r#"
if [ -n "${client:-}" ]; then
    kill $client
    if [ -e $TMPDIR/client ]; then
        echo "THE CLIENT FAILED at $(cat $TMPDIR/client)"
        exit 1
    fi
fi
"#;

/// The command lines of one point, in order; not those about a registry, which have a test of their own in `features.rs`.
fn commands(point: u32) -> Vec<&'static str> {
    let section = WALK.split("\n## ").find(|section| section.starts_with(&format!("{point}. "))).expect("the point is there");
    let section = section.split("An image from a registry").next().unwrap_or(section);
    section.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.is_empty()).collect()
}

/// What a test types in place of a line that needs a person: an end for what runs on, a terminal, a second one.
fn typed(line: &str) -> String {
    let words = line.split('#').next().unwrap_or_default().trim_end();
    let quoted = format!("'{}'", words.replace('\'', r"'\''"));
    if words.starts_with("while ") {
        // Stops by itself at the first request that fails; `FINISH` looks whether it did.
        return format!("({words}; date +%T.%N > $TMPDIR/client) & client=$!\n");
    }
    if words.ends_with(" -w") {
        return format!("timeout 8 {words}; [ $? = 124 ] || {{ echo GAVE UP; exit 1; }}\n");
    }
    if words.contains("exec -it") {
        return format!("echo exit | script -qec {quoted} /dev/null || {{ echo GAVE UP: $?; exit 1; }}\n");
    }
    format!("echo $(date +%T.%N) {quoted}\nagain {quoted}\n")
}

fn script(point: u32) -> String {
    let mut script = PRELUDE.to_owned();
    for line in commands(point) {
        script.push_str(&typed(line));
    }
    script.push_str(FINISH);
    script
}

fn walk(cluster: &Cluster, point: u32, variables: &str) {
    let output = Command::new("bash")
        .args(["-c", &format!("{variables}\n{}", script(point))])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .env("KUBECONFIG", cluster.data_dir.join("kubeconfig"))
        .env("HOME", &cluster.data_dir)
        .env("TMPDIR", &cluster.data_dir)
        .output()
        .expect("bash is installed");
    let printed = text(&output);
    let last: Vec<&str> = printed.lines().rev().take(5).collect();
    // What it failed with stands first, for all of it is long.
    assert!(
        output.status.success(),
        "point {point}: {}, last first: {last:#?}\n{printed}\n{}",
        output.status,
        cluster.log_tail()
    );
}

#[test]
fn the_walk_can_be_walked() {
    if !enabled("walkthrough") {
        return;
    }
    let cluster = shared("walkthrough");
    // A variable that one point sets and a later one uses.
    let ip = "ip=$(kubectl get service web -o jsonpath='{.spec.clusterIP}' 2>/dev/null)";
    for point in POINTS {
        walk(&cluster, point, ip);
    }
    // The walk is walked in the namespace `default`, which stays.
    cluster.ok(&["--namespace", "default", "delete", "pods,services,jobs,configmaps,secrets", "--all", "--wait=false"]);
}

#[test]
fn lines_for_a_person_are_typed_for_them() {
    assert_eq!(
        typed("kubectl get pods -w           # until"),
        "timeout 8 kubectl get pods -w; [ $? = 124 ] || { echo GAVE UP; exit 1; }\n"
    );
    assert_eq!(
        typed("kubectl exec -it a -- sh"),
        "echo exit | script -qec 'kubectl exec -it a -- sh' /dev/null || { echo GAVE UP: $?; exit 1; }\n"
    );
    assert_eq!(typed("echo 'a'"), "echo $(date +%T.%N) 'echo '\\''a'\\'''\nagain 'echo '\\''a'\\'''\n");
    assert!(POINTS.iter().all(|point| commands(*point).len() > 5));
}
