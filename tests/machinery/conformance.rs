//! docs/conformance.md: which test shows what of Kubernetes' conformance suite. A test claims a name of the suite by saying it in
//! its doc comment; what it leaves out follows in parentheses. The table is held to that here, so that no row says more.
//!
//! `SLIPWAY_UPDATE=1 cargo test -p slipway-tests --test machinery conformance` writes it anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const END: &str = "[Conformance]";

/// Who claims a name, and what it leaves out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    test: String,
    short_of: Option<String>,
}

/// Names with the tags taken out: they come and go between releases.
fn plain(name: &str) -> String {
    let (sig, rest) = name.split_at(name.find(']').map_or(0, |end| end + 1));
    let mut words = String::from(sig);
    let mut depth = 0;
    for c in rest.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            c if depth == 0 => words.push(c),
            _ => {}
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The names in a doc comment.
fn names_in(comment: &str) -> Vec<(String, Option<String>)> {
    let mut names = vec![];
    let mut rest = comment;
    while let Some(start) = rest.find("[sig-") {
        let Some(length) = rest[start..].find(END) else { break };
        let name = &rest[start..start + length + END.len()];
        rest = rest[start + length + END.len()..].trim_start_matches('`').trim_start();
        let short_of = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(what, _)| what.to_owned());
        names.push((plain(name), short_of));
    }
    names
}

fn claims(folder: &Path, claims: &mut BTreeMap<String, Vec<Claim>>) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        if file.is_dir() {
            self::claims(&file, claims);
            continue;
        }
        if file.extension().is_none_or(|extension| extension != "rs") || file.ends_with("machinery/conformance.rs") {
            continue;
        }
        let shown = file.strip_prefix(root()).unwrap().display().to_string();
        let mut comment = String::new();
        for line in std::fs::read_to_string(&file).unwrap().lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("///") {
                comment.push(' ');
                comment.push_str(text.trim());
            } else if let Some(name) = line.trim_start_matches("async ").strip_prefix("fn ") {
                let test = format!("`{shown}` {}", name.split(['(', '<']).next().unwrap());
                for (name, short_of) in names_in(&comment) {
                    claims.entry(name).or_default().push(Claim { test: test.clone(), short_of });
                }
                comment.clear();
            } else if !line.starts_with("#[") {
                comment.clear();
            }
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn the_table_says_what_the_tests_claim() {
    let path = root().join("docs/conformance.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let mut claimed = BTreeMap::new();
    for folder in ["machinery", "it", "e2e"] {
        claims(&root().join("tests").join(folder), &mut claimed);
    }
    let (mut wanted, mut listed) = (vec![], vec![]);
    let mut counts = (0, 0);
    for line in document.lines() {
        let Some(name) = line.strip_prefix("| [sig-").map(|rest| format!("[sig-{}", rest.split(" | ").next().unwrap())) else {
            wanted.push(line.to_owned());
            continue;
        };
        let claims = claimed.get(&plain(&name)).cloned().unwrap_or_default();
        listed.push(plain(&name));
        counts.1 += 1;
        counts.0 += usize::from(claims.iter().any(|claim| claim.short_of.is_none()));
        let tests: Vec<&str> = claims.iter().map(|claim| claim.test.as_str()).collect();
        let state = match claims.as_slice() {
            [] => "not shown".to_owned(),
            some if some.iter().any(|claim| claim.short_of.is_none()) => "shown".to_owned(),
            some => format!("in part ({})", some[0].short_of.clone().unwrap_or_default()),
        };
        wanted.push(format!("| {name} | {} | {state} |", tests.join("<br>")));
    }
    for line in &mut wanted {
        if line.starts_with("Shown: ") {
            *line = format!("Shown: {} of {}.", counts.0, counts.1);
        }
    }
    let wanted = wanted.join("\n") + "\n";
    if std::env::var("SLIPWAY_UPDATE").is_ok() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    assert!(wanted == document, "docs/conformance.md is out of date: write it anew by SLIPWAY_UPDATE=1");
    let unknown: Vec<&String> = claimed.keys().filter(|name| !listed.contains(name)).collect();
    assert!(unknown.is_empty(), "names of tests that the table does not list: {unknown:#?}");
}

#[test]
fn names_are_found_in_comments() {
    let comment = "`[sig-node] A `b` [Serial] should c [Conformance]`, `[sig-x] D e [Conformance]` (but not f)";
    assert_eq!(names_in(comment), [("[sig-node] A `b` should c".into(), None), ("[sig-x] D e".into(), Some("but not f".into()))]);
}
