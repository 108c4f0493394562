//! Who a write is by: what `metadata.managedFields` says of it.

use crate::custom_resources;
use crate::http::Call;
use crate::http::authenticate::User;
use crate::http::error::{Invalid, Status};
use crate::kind::Strategy;
use crate::patch::apply::{Elsewhere, Scope, Write};
use crate::server::ApiServer;
use crate::verbs::object_meta;
use http::header;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// As many bytes may a manager's name have.
const NAME_BYTES_MAX: usize = 128;
/// What the server writes itself, as with Kubernetes.
pub(crate) const SERVER: &str = "kube-apiserver";

/// How a write's owners are found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tracking<'a> {
    /// What it changes is this manager's.
    By(&'a str),
    /// The object says already whose its fields are.
    Done,
}

/// The manager of a call: its `fieldManager`, else who its User-Agent says it is. `options` as `UpdateOptions`.
pub(crate) fn manager(call: &Call, options: &str) -> Result<String, Status> {
    let given = call.info.query.get("fieldManager");
    if let Some(name) = given {
        let errors = name_errors("fieldManager", name);
        return if errors.is_empty() { Ok(name.to_owned()) } else { Err(Status::invalid("meta.k8s.io", options, "", &errors)) };
    }
    let agent = call.parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Ok(prefix(agent.unwrap_or_default()))
}

/// What stands before the first slash of a User-Agent.
fn prefix(agent: &str) -> String {
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| is_printable(*c)) {
        if name.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

pub(crate) fn name_errors(field: &str, name: &str) -> Vec<Invalid> {
    let mut errors = vec![];
    if name.len() > NAME_BYTES_MAX {
        errors.push(Invalid::too_long(field, NAME_BYTES_MAX));
    }
    for (at, c) in name.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(Invalid::value(field, &json!(name), &why));
    }
    errors
}

/// Go's `unicode.IsPrint`, but for what Unicode has not assigned.
fn is_printable(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_whitespace()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{feff}'))
}

/// The User-Agent of a client within the process: the part of Kubernetes that its user stands for.
pub(crate) fn agent_of(user: &User) -> String {
    let name = match user.name.as_str() {
        name if user.node().is_some() || name.starts_with("system:node:") => "kubelet",
        "system:apiserver" => SERVER,
        name => name.strip_prefix("system:").filter(|name| !name.contains(':')).unwrap_or("slipway"),
    };
    format!("{name}/{}", env!("CARGO_PKG_VERSION"))
}

/// The clock and the version of one write, in the form in which they are written.
pub(crate) struct Stamp {
    now: String,
    api_version: String,
}

impl Stamp {
    pub(crate) fn new(server: &ApiServer, strategy: &dyn Strategy) -> Self {
        let now = object_meta::timestamp(server.now());
        Stamp { now: now.as_str().unwrap_or_default().to_owned(), api_version: strategy.names().api_version() }
    }

    pub(crate) fn now(&self) -> &str {
        &self.now
    }

    /// A write to an object or to a subresource that is an object of the same kind.
    pub(crate) fn write<'w>(&'w self, strategy: &'w dyn Strategy, subresource: &'w str, manager: &'w str) -> Write<'w> {
        let scope = match subresource {
            "" if strategy.names().status => Scope::AllButStatus,
            "status" => Scope::Status { but: strategy.status_keeps() },
            other => match strategy.parts().iter().find(|part| part.name == other) {
                Some(part) => Scope::Only(part.fields),
                None => Scope::All,
            },
        };
        Write {
            schema: strategy.merge_schema(),
            scope,
            manager,
            api_version: &self.api_version,
            subresource,
            now: &self.now,
            elsewhere: &NOWHERE,
        }
    }
}

/// Of a write that looks the same in all versions.
static NOWHERE: Elsewhere = Elsewhere::new();

/// What a write changes in the other versions in which owners of fields know the object, where a webhook converts between them.
pub(crate) async fn elsewhere(
    server: &ApiServer,
    write: &Write<'_>,
    strategy: &dyn Strategy,
    old: &Value,
    new: &Value,
) -> Result<Elsewhere, Status> {
    let mut elsewhere = Elsewhere::new();
    let Some(custom) = strategy.custom() else { return Ok(elsewhere) };
    for version in other_versions(strategy, old) {
        let Some(structural) = custom.structural_of(&version) else { continue };
        let both = custom_resources::in_version(server, custom, vec![old.clone(), new.clone()], &version).await?;
        if let [old, new] = both.as_slice() {
            let diff = write.diff_of(structural.schema(), old, new);
            elsewhere.insert(version, diff);
        }
    }
    Ok(elsewhere)
}

/// In which other versions somebody owns fields under other names.
pub(crate) fn other_versions(strategy: &dyn Strategy, old: &Value) -> BTreeSet<String> {
    let own = strategy.names().api_version();
    let entries = old["metadata"]["managedFields"].as_array().into_iter().flatten();
    match strategy.custom() {
        Some(custom) if custom.is_converted() => entries
            .filter_map(|entry| entry["apiVersion"].as_str())
            .filter(|version| *version != own && version.split('/').next() == own.split('/').next())
            .map(str::to_owned)
            .collect(),
        _ => BTreeSet::new(),
    }
}

/// Sets the owners of `new`'s fields after an ordinary write by `manager`.
pub(crate) fn update(server: &ApiServer, strategy: &dyn Strategy, by: (&str, &str), old: Option<&Value>, new: &mut Value) {
    let (manager, subresource) = by;
    Stamp::new(server, strategy).write(strategy, subresource, manager).update(old, new);
}

/// The same, where owners may know the object in other versions, which differ by more than their names.
pub(crate) async fn update_in_every_version(
    server: &ApiServer,
    strategy: &dyn Strategy,
    (manager, subresource): (&str, &str),
    old: &Value,
    new: &mut Value,
) -> Result<(), Status> {
    let stamp = Stamp::new(server, strategy);
    let write = stamp.write(strategy, subresource, manager);
    let elsewhere = elsewhere(server, &write, strategy, old, new).await?;
    Write { elsewhere: &elsewhere, ..write }.update(Some(old), new);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_named_by_the_user_agent() {
        assert_eq!(prefix("kubectl/v1.33.1 (linux/amd64) kubernetes/8adc0f0"), "kubectl");
        assert_eq!(prefix("my agent"), "my agent");
        assert_eq!(prefix("a\tb\u{7f}/1"), "ab");
        assert_eq!(prefix(&"é".repeat(100)), "é".repeat(64));
        assert_eq!(prefix(""), "");
    }

    #[test]
    fn names_are_short_and_printable() {
        assert_eq!(name_errors("fieldManager", "a b-c/é"), []);
        assert_eq!(name_errors("fieldManager", &"x".repeat(129))[0].message, "Too long: may not be more than 128 bytes");
        assert_eq!(
            name_errors("fieldManager", "a\u{8}")[0].message,
            "Invalid value: \"a\\b\": invalid character U+0008 (at position 1)"
        );
    }

    #[test]
    fn the_parts_within_the_process_are_named_as_kubernetes_names_them() {
        let agent = |name: &str, groups: &[&str]| prefix(&agent_of(&User::new(name, groups)));
        assert_eq!(agent("system:kube-scheduler", &[]), "kube-scheduler");
        assert_eq!(agent("system:kube-controller-manager", &[]), "kube-controller-manager");
        assert_eq!(agent("system:node:n1", &["system:nodes"]), "kubelet");
        assert_eq!(agent("kubernetes-admin", &[]), "slipway");
        assert_eq!(prefix(&agent_of(&User::apiserver())), "kube-apiserver");
    }
}
