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
    lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]").filter(|(_, line)| !line.trim_start().starts_with("//"))
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

/// What a reconciler or a plugin decides must not depend on when and where it runs.
#[test]
fn clock_and_randomness_are_read_at_the_edges() {
    let pure = ["scheduler/src/plugins", "scheduler/src/framework.rs", "controllers/src/plan.rs"];
    let ambient = ["Timestamp::now(", "SystemTime::now(", "Instant::now(", "rand::rng(", "thread_rng(", "std::env::var("];
    let mut wrong = vec![];
    for (path, text) in sources("scheduler").into_iter().chain(sources("controllers")) {
        if is_test(&path) || !pure.iter().any(|pure| path.starts_with(pure)) {
            continue;
        }
        for (number, line) in code(&text) {
            if ambient.iter().any(|call| line.contains(call)) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
