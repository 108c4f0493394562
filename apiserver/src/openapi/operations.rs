//! Every operation that is served, as the documents list them: method, path, what it does, and to which kind.

use crate::kind::{Names, Strategy};
use crate::subresources::{self, review};
use std::sync::Arc;

/// One method of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// In capitals.
    pub method: &'static str,
    /// As `/api/v1/namespaces/{namespace}/pods/{name}/log`.
    pub path: String,
    /// `x-kubernetes-action`: `list`, `post`, `put`, `connect`, …
    pub action: &'static str,
    /// Group, version and kind of what it is about.
    pub kind: (&'static str, &'static str, &'static str),
    /// The group and version whose document it stands in.
    pub home: (&'static str, &'static str),
    /// For the operation's id.
    label: String,
}

impl Operation {
    /// As `createCoreV1NamespacedPod`.
    pub fn id(&self) -> String {
        let (group, version) = self.home;
        let group = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
        let home = capital(group) + &capital(version);
        let label = &self.label;
        match self.action {
            "list" => format!("list{home}{label}"),
            "post" => format!("create{home}{label}"),
            "put" => format!("replace{home}{label}"),
            "get" => format!("read{home}{label}"),
            "deletecollection" => format!("delete{home}{label}"),
            "connect" => format!("connect{home}{}{label}", capital(&self.method.to_lowercase())),
            other => format!("{other}{home}{label}"),
        }
    }

    /// What it does, in words.
    pub fn about(&self) -> String {
        let kind = self.kind.2;
        match self.action {
            "list" => format!("list or watch objects of kind {kind}"),
            "post" => format!("create a {kind}"),
            "put" => format!("replace the specified {kind}"),
            "patch" => format!("partially update the specified {kind}"),
            "get" => format!("read the specified {kind}"),
            "delete" => format!("delete a {kind}"),
            "deletecollection" => format!("delete a collection of {kind}"),
            _ => format!("connect to {kind}"),
        }
    }
}

fn capital(word: &str) -> String {
    let mut word = word.to_owned();
    if let Some(first) = word.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    word
}

/// The path below which a group and version is served.
pub fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// All operations on the served kinds and the reviews.
pub fn all(strategies: &[Arc<dyn Strategy>]) -> Vec<Operation> {
    let mut operations = vec![];
    for strategy in strategies {
        of_kind(strategy.names(), &mut operations);
    }
    for review in review::ALL {
        let root = root(review.group, review.version);
        let scope = if review.namespaced { "/namespaces/{namespace}" } else { "" };
        let kind = (review.group, review.version, review.kind);
        operations.push(Operation {
            method: "POST",
            path: format!("/{root}{scope}/{}", review.plural),
            action: "post",
            kind,
            home: (review.group, review.version),
            label: label(review.kind, scope, ""),
        });
    }
    operations
}

fn label(kind: &str, scope: &str, subresource: &str) -> String {
    let sub = capital(subresource);
    format!("{}{kind}{sub}", if scope.is_empty() { "" } else { "Namespaced" })
}

fn of_kind(names: &Names, operations: &mut Vec<Operation>) {
    let own = (names.group, names.version, names.kind);
    let home = (names.group, names.version);
    let root = root(names.group, names.version);
    let plural = names.plural;
    let scope = if names.namespaced { "/namespaces/{namespace}" } else { "" };
    let mut add = |method: &'static str, path: String, action: &'static str, kind, label: String| {
        operations.push(Operation { method, path, action, kind, home, label });
    };
    let list = format!("/{root}{scope}/{plural}");
    let own_label = label(names.kind, scope, "");
    add("GET", list.clone(), "list", own, own_label.clone());
    add("POST", list.clone(), "post", own, own_label.clone());
    // Namespaces can't be deleted all at once.
    if (names.group, plural) != ("", "namespaces") {
        add("DELETE", list.clone(), "deletecollection", own, format!("Collection{own_label}"));
    }
    if names.namespaced {
        add("GET", format!("/{root}/{plural}"), "list", own, format!("{}ForAllNamespaces", names.kind));
    }
    let one = format!("{list}/{{name}}");
    for (method, action) in [("GET", "get"), ("PUT", "put"), ("PATCH", "patch"), ("DELETE", "delete")] {
        add(method, one.clone(), action, own, own_label.clone());
    }
    for sub in subresources::of(names) {
        let path = format!("{one}/{}", sub.name);
        let label = label(names.kind, scope, sub.name);
        if sub.name == "proxy" {
            // Whatever the method and the path behind it, it is passed on.
            for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] {
                add(method, path.clone(), "connect", sub.kind, label.clone());
                add(method, format!("{path}/{{path}}"), "connect", sub.kind, format!("{label}WithPath"));
            }
            continue;
        }
        let connects = matches!(sub.name, "exec" | "attach" | "portforward");
        for verb in sub.verbs {
            let (method, action) = match *verb {
                "get" => ("GET", if connects { "connect" } else { "get" }),
                "create" => ("POST", if connects { "connect" } else { "post" }),
                "update" => ("PUT", "put"),
                "patch" => ("PATCH", "patch"),
                _ => continue,
            };
            add(method, path.clone(), action, sub.kind, label.clone());
        }
    }
}
