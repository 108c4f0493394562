//! PodSecurity: holds pods to the Pod Security Standards that their namespace's labels name.

mod baseline;
mod policy;
mod restricted;
mod standards;
#[cfg(test)]
mod tests;

use self::policy::{Level, Policy, Standard};
use self::standards::{Subject, Violation, details, reasons, violations};
use super::{AdmissionContext, Operation, Plugin};
use crate::http::error::{Invalid, Status};
use crate::http::notes;
use crate::kind::Strategy;
use crate::server::{ApiServer, find};
use crate::stored::{self, Snapshot};
use crate::verbs::status_of;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use slipway_api::core::PodSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const ANNOTATION_PREFIX: &str = "pod-security.kubernetes.io/";
/// So many pods of a namespace are looked at when its labels change, and for so long.
const PODS_MAX: usize = 3_000;
const TIME_MAX: Duration = Duration::from_secs(1);
/// Subresources through which nothing of a pod's spec can be changed.
const OTHER_SUBRESOURCES: [&str; 8] = ["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"];
/// Kinds that make pods, and where their template is.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
    ("batch", "jobs", "/spec/template"),
];

pub(super) struct PodSecurity;

#[async_trait]
impl Plugin for PodSecurity {
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        if !matches!(context.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let names = context.strategy.names();
        match (names.group, names.plural) {
            ("", "namespaces") if context.subresource.is_empty() => namespace(context, object).await,
            ("", "pods") if !OTHER_SUBRESOURCES.contains(&context.subresource) => pod(context, object),
            (group, plural) if context.subresource.is_empty() => {
                let place = TEMPLATES.iter().find(|(of_group, of_plural, _)| (*of_group, *of_plural) == (group, plural));
                if let Some(template) = place.and_then(|(_, _, pointer)| object.pointer(pointer)) {
                    workload(context, template);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    BTreeMap::deserialize(&object["metadata"]["labels"]).unwrap_or_default()
}

/// The policy of the namespace that is written to.
fn policy(context: &AdmissionContext<'_>) -> (Policy, Vec<Invalid>) {
    let snapshot = context.server.snapshot();
    let entry = context.server.strategy("", "v1", "namespaces");
    let entry = entry.and_then(|strategy| find(&snapshot, &*strategy, "", context.namespace));
    entry.map(|entry| Policy::of(&entry.attributes.labels)).unwrap_or_default()
}

/// Pod and template alike: annotations and spec.
fn parts(object: &Value) -> Option<(BTreeMap<String, String>, PodSpec)> {
    let annotations = BTreeMap::deserialize(&object["metadata"]["annotations"]).unwrap_or_default();
    Some((annotations, PodSpec::deserialize(object.get("spec")?).ok()?))
}

fn annotate(key: &str, value: String) {
    notes::annotate(format!("{ANNOTATION_PREFIX}{key}"), value);
}

fn note_errors(errors: &[Invalid]) {
    if !errors.is_empty() {
        let texts: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        annotate("error", format!("Failed to parse policy: {}", texts.join(", ")));
    }
}

fn pod(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    let (policy, errors) = policy(context);
    if errors.is_empty() && policy.is_open() {
        annotate("enforce-policy", Policy::default().enforce.to_string());
        return Ok(());
    }
    if context.operation == Operation::Update && !context.old.is_none_or(|old| is_significant(object, old)) {
        return Ok(());
    }
    let Some((annotations, spec)) = parts(object) else { return Ok(()) };
    let subject = Subject { annotations, spec: &spec };
    note_errors(&errors);
    annotate("enforce-policy", policy.enforce.to_string());
    let wrong = violations(policy.enforce, &subject);
    audit(policy.audit, &subject);
    if !wrong.is_empty() {
        return Err(context.forbidden(object, &format!("violates {}", told(policy.enforce, &wrong))));
    }
    warn(policy.warn, &subject);
    Ok(())
}

/// What makes pods is never refused: its pods will be.
fn workload(context: &AdmissionContext<'_>, template: &Value) {
    let (policy, errors) = policy(context);
    if errors.is_empty() && policy.audit.level == Level::Privileged && policy.warn.level == Level::Privileged {
        return;
    }
    let Some((annotations, spec)) = parts(template) else { return };
    let subject = Subject { annotations, spec: &spec };
    note_errors(&errors);
    audit(policy.audit, &subject);
    warn(policy.warn, &subject);
}

fn told(standard: Standard, wrong: &[Violation]) -> String {
    format!("PodSecurity \"{standard}\": {}", details(wrong))
}

fn audit(standard: Standard, subject: &Subject<'_>) {
    let wrong = violations(standard, subject);
    if !wrong.is_empty() {
        annotate("audit-violations", format!("would violate {}", told(standard, &wrong)));
    }
}

fn warn(standard: Standard, subject: &Subject<'_>) {
    let wrong = violations(standard, subject);
    if !wrong.is_empty() {
        notes::warn(format!("would violate {}", told(standard, &wrong)));
    }
}

/// Of what an update may change, images alone matter, and containers that are added.
fn is_significant(pod: &Value, old: &Value) -> bool {
    let images = |pod: &Value, field: &str| {
        let containers = pod["spec"][field].as_array().into_iter().flatten();
        containers.map(|container| (container["name"].clone(), container["image"].clone())).collect::<Vec<_>>()
    };
    let changed = |field: &str| images(pod, field) != images(old, field);
    let before = images(old, "ephemeralContainers");
    changed("containers")
        || changed("initContainers")
        || images(pod, "ephemeralContainers").iter().any(|container| !before.contains(container))
}

/// The labels are readable, and who makes them stricter is told which pods they come too late for.
async fn namespace(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    let (new, errors) = Policy::of(&labels(object));
    let (old, old_errors) = context.old.map(|old| Policy::of(&labels(old))).unwrap_or_default();
    if !errors.is_empty() && errors != old_errors {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Status::invalid("", "Namespace", name, &errors));
    }
    let same_version = new.enforce.version == old.enforce.version;
    let relaxed = same_version && new.enforce.level <= old.enforce.level;
    if context.old.is_some() && new.enforce != old.enforce && new.enforce.level != Level::Privileged && !relaxed {
        let snapshot = context.server.cache.fresh().await;
        let snapshot = snapshot.map_err(|error| status_of(error, context.strategy.names(), context.name))?;
        existing(context.server, &snapshot, context.name, new.enforce).into_iter().for_each(notes::warn);
    }
    Ok(())
}

fn existing(server: &ApiServer, snapshot: &Snapshot, namespace: &str, standard: Standard) -> Vec<String> {
    let Some(strategy) = server.strategy("", "v1", "pods") else { return vec![] };
    let strategy: &dyn Strategy = &*strategy;
    let prefix = stored::prefix(strategy.names(), Some(namespace));
    let pods: Vec<Value> =
        stored::below(snapshot, &prefix, "").filter_map(|entry| stored::decode(strategy, &entry.bytes).ok()).collect();
    let total = pods.len();
    let deadline = Instant::now() + TIME_MAX;
    let (mut checked, mut found) = (0, vec![]);
    for pod in one_of_each_owner_first(pods).into_iter().take(PODS_MAX) {
        checked += 1;
        if let Some((annotations, spec)) = parts(&pod) {
            let wrong = violations(standard, &Subject { annotations, spec: &spec });
            if !wrong.is_empty() {
                found.push((reasons(&wrong), pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()));
            }
        }
        if Instant::now() > deadline {
            break;
        }
    }
    warnings(namespace, standard, checked, total, &found)
}

/// Pods of one owner are alike.
fn one_of_each_owner_first(pods: Vec<Value>) -> Vec<Value> {
    let mut owners = BTreeSet::new();
    let (mut first, more): (Vec<Value>, Vec<Value>) = pods.into_iter().partition(|pod| {
        let references = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let owner = references.into_iter().find(|owner| owner["controller"] == true).and_then(|owner| owner["uid"].as_str());
        owner.is_none_or(|owner| owners.insert(owner.to_owned()))
    });
    first.extend(more);
    first
}

/// `found`: what is wrong with which pod.
fn warnings(namespace: &str, standard: Standard, checked: usize, total: usize, found: &[(String, String)]) -> Vec<String> {
    let mut warnings = vec![];
    if checked < total {
        warnings.push(format!("new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"));
    }
    if !found.is_empty() {
        let level = format!("violate the new PodSecurity enforce level \"{standard}\"");
        warnings.push(format!("existing pods in namespace \"{namespace}\" {level}"));
    }
    let mut by_reason: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (reason, name) in found {
        by_reason.entry(reason).or_default().insert(name);
    }
    let mut each: Vec<String> = by_reason
        .into_iter()
        .map(|(reason, names)| {
            let first = names.first().copied().unwrap_or_default();
            match names.len() - 1 {
                0 => format!("{first}: {reason}"),
                1 => format!("{first} (and 1 other pod): {reason}"),
                more => format!("{first} (and {more} other pods): {reason}"),
            }
        })
        .collect();
    each.sort();
    warnings.extend(each);
    warnings
}
