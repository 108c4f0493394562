//! The design's invariants, held by looking at the workspace itself.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

/// The workspace's crates, each with those of them that it depends on (not counting tests).
fn crates() -> Vec<(String, Vec<String>)> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output =
        Command::new(cargo).args(["metadata", "--no-deps", "--format-version=1", "--offline"]).current_dir(root()).output();
    let metadata: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let names: Vec<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|dependency| dependency["kind"].is_null()).map(|d| text(&d["name"])).filter(|d| names.contains(d)).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), dependencies(package))).collect()
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = vec![];
    if folder.ends_with(".rs") {
        return vec![(folder.into(), std::fs::read_to_string(root().join(folder)).unwrap())];
    }
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// The lines of a file before its tests, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines.take_while(|(_, line)| *line != "#[cfg(test)]").filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs") || path.ends_with("testing.rs")
}

#[test]
fn only_the_api_server_sees_the_store() {
    for (name, dependencies) in crates() {
        let allowed = ["slipway-apiserver", "slipway", "slipway-tests"].contains(&name.as_str());
        assert!(allowed || !dependencies.contains(&"slipway-store".to_owned()), "{name} depends on the store");
    }
}

#[test]
fn the_arrows_between_the_crates_point_down() {
    let may: &[(&str, &[&str])] = &[
        ("slipway-api", &[]),
        ("slipway-store", &[]),
        ("slipway-apiserver", &["slipway-api", "slipway-store"]),
        ("slipway-scheduler", &["slipway-api"]),
        ("slipway-cloud", &["slipway-api"]),
        ("slipway-controllers", &["slipway-api", "slipway-cloud"]),
        ("slipway-cloud-ec2", &["slipway-api", "slipway-cloud"]),
        ("slipway-node", &["slipway-api"]),
    ];
    for (name, dependencies) in crates() {
        let Some((_, allowed)) = may.iter().find(|(known, _)| *known == name) else {
            assert!(["slipway", "slipway-tests"].contains(&name.as_str()), "{name} has no place in the picture");
            continue;
        };
        for dependency in dependencies {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

/// Whether the path is one of `files`, which name files and folders.
fn is_one_of(path: &Path, files: &[&str]) -> bool {
    files.iter().any(|file| path.starts_with(file))
}

/// The lines of `folders`' code outside `excepted` that contain one of `words`, as `file:line: text`.
fn lines_with(words: &[&str], folders: &[&str], excepted: &[&str]) -> Vec<String> {
    let mut found = vec![];
    for (path, text) in folders.iter().flat_map(|folder| sources(folder)) {
        if is_test(&path) || is_one_of(&path, excepted) {
            continue;
        }
        for (number, line) in code(&text).filter(|(_, line)| words.iter().any(|word| line.contains(word))) {
            found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
        }
    }
    found
}

/// Each of them exists: an exception that nobody needs any more would let in the next one.
fn assert_needed(words: &[&str], folders: &[&str], excepted: &[&str]) {
    for file in excepted {
        let others: Vec<&str> = excepted.iter().copied().filter(|other| other != file).collect();
        let all = lines_with(words, folders, &others);
        assert!(all.iter().any(|line| line.starts_with(file)), "{file} needs no exception");
    }
}

/// What a reconciler or a plugin decides must not depend on when and where it runs.
#[test]
fn clock_and_randomness_are_read_at_the_edges() {
    let edges = [
        // The queue's and the work loops' own time, and what is stamped on a write.
        "controllers/src/apply.rs",
        "controllers/src/queue.rs",
        "controllers/src/run.rs",
        "scheduler/src/run.rs",
        "scheduler/src/write.rs",
        // Serial numbers, join tokens, and how old the cloud's answers are.
        "controllers/src/certificate/signer.rs",
        "controllers/src/cloud/inventory.rs",
        // Who leads is a matter of time and of names that nobody else has.
        "controllers/src/leader.rs",
        "controllers/src/cloud/machine",
    ];
    let ambient = ["Timestamp::now(", "SystemTime::now(", "Instant::now(", "Zoned::now(", "rand::", "Uuid::new", "std::env::"];
    let folders = ["scheduler/src", "controllers/src"];
    assert_eq!(lines_with(&ambient, &folders, &edges), Vec::<String>::new());
    assert_needed(&ambient, &folders, &edges);
    // The agent's decisions too.
    assert_eq!(lines_with(&ambient, &["node/src/pod/plan.rs"], &[]), Vec::<String>::new());
}

/// Whoever looks for what changes the cluster finds it in these files.
#[test]
fn the_api_is_written_to_in_few_places() {
    let writers = [
        "controllers/src/apply.rs",
        "controllers/src/recorder.rs",
        // Access reviews, of which nothing remains.
        "controllers/src/access.rs",
        // The Lease of who leads.
        "controllers/src/leader.rs",
        "scheduler/src/write.rs",
        // The node agent: how it joins, its Node and Lease, events, pods' status, and tokens for pods.
        "node/src/bootstrap.rs",
        "node/src/register/mod.rs",
        "node/src/event.rs",
        "node/src/pod/worker.rs",
        "node/src/volume/token.rs",
        "node/src/simulated/run.rs",
    ];
    // kube's methods that write take one of the parameters or their default, and requests made by hand say their method.
    let writing = [
        "PostParams",
        "PatchParams",
        "DeleteParams",
        "EvictParams",
        "&Default::default(), &",
        ", &Default::default())",
        "create_token_request(",
        "create_subresource(",
        "Request::post(",
        "Request::put(",
        "Request::patch(",
        "Request::delete(",
        "Method::POST",
        "Method::PUT",
        "Method::PATCH",
        "Method::DELETE",
    ];
    let folders = ["controllers/src", "scheduler/src", "node/src", "cloud/src"];
    assert_eq!(lines_with(&writing, &folders, &writers), Vec::<String>::new());
    assert_needed(&writing, &folders, &writers);
}
