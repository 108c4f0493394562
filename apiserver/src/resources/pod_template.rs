//! PodTemplate, and the same templates as Deployments, ReplicaSets, DaemonSets, StatefulSets and Jobs carry them.

use super::{fill, pod, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, bump_generation};
use serde_json::{Value, json};
use slipway_api::IntOrString;
pub use slipway_api::core::PodTemplate;
use slipway_api::core::PodTemplateSpec;
use slipway_api::meta::LabelSelector;
use slipway_api::selector::Selector;

impl Kind for PodTemplate {
    const NAMES: Names = Names::namespaced("", "v1", "PodTemplate", "podtemplates", "podtemplate");

    fn fill_defaults(object: &mut Value) {
        fill_template(object);
    }

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        bump_generation(object, old);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        validate("template", &self.template.clone().unwrap_or_default(), &[], "PodTemplate", &mut errors);
        errors
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Containers", "The names of the template's containers."),
            Column::text("Images", "The images of the template's containers."),
            Column::text("Pod Labels", "The labels that pods made of it have."),
        ]
    }

    fn row(&self, object: &Value, _: jiff::Timestamp) -> Vec<Value> {
        let template = self.template.clone().unwrap_or_default();
        let [names, images] = show::containers(template.spec.as_ref());
        let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
        vec![show::name(object), names, images, show::labels(labels)]
    }
}

/// Fills in `spec.template.spec` of an object. Requests and host ports are filled in on the pods only.
pub fn fill_defaults(object: &mut Value) {
    if let Some(spec) = fill::inner(object, "spec") {
        fill_template(spec);
    }
}

fn fill_template(holder: &mut Value) {
    if let Some(template) = fill::made(holder, "template") {
        fill::made(template, "metadata");
        if let Some(spec) = fill::made(template, "spec") {
            pod::defaults::fill_spec(spec);
        }
    }
}

/// The template itself: what a pod made of it would be refused for, and that its restart policy is one of
/// `policies` (of all, if that is empty). `kind` is for the message.
pub fn validate(at: &str, template: &PodTemplateSpec, policies: &[&str], kind: &str, errors: &mut Vec<Invalid>) {
    let Some(spec) = &template.spec else {
        errors.push(Invalid::required(format!("{at}.spec.containers"), ""));
        return;
    };
    let metadata = template.metadata.clone().unwrap_or_default();
    rules::labels(&format!("{at}.labels"), metadata.labels.as_ref(), errors);
    rules::annotations(&format!("{at}.annotations"), metadata.annotations.as_ref(), errors);
    pod::validation::spec(&format!("{at}.spec"), spec, true, errors);
    if spec.ephemeral_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(Invalid::forbidden(format!("{at}.spec.ephemeralContainers"), why));
    }
    let policy = spec.restart_policy.as_deref().unwrap_or("");
    if matches!(policy, "Always" | "OnFailure" | "Never") && !policies.is_empty() && !policies.contains(&policy) {
        errors.push(Invalid::not_supported(format!("{at}.spec.restartPolicy"), &json!(policy), policies));
    }
    if policies == ["Always"] && spec.active_deadline_seconds.is_some() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(Invalid::forbidden(format!("{at}.spec.activeDeadlineSeconds"), &why));
    }
}

/// A number that must not be negative.
pub fn check_count(at: &str, count: Option<i32>, errors: &mut Vec<Invalid>) {
    if let Some(count) = count.filter(|count| *count < 0) {
        errors.push(Invalid::value(at, &json!(count), "must be greater than or equal to 0"));
    }
}

/// A selector that selects something, and the template's pods among that. `whole` is the object as it came: the typed view
/// can't tell a selector that is left out from an empty one. `kind` is for the message.
pub fn check_selector(
    whole: &Value,
    selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    kind: &str,
    errors: &mut Vec<Invalid>,
) {
    let labels = template.and_then(|template| template.metadata.as_ref()).and_then(|metadata| metadata.labels.clone());
    let labels = labels.unwrap_or_default();
    let astray =
        || Invalid::value("spec.template.metadata.labels", &json!(labels), "`selector` does not match template `labels`");
    if whole["spec"].get("selector").is_none_or(Value::is_null) {
        errors.push(Invalid::required("spec.selector", ""));
        errors.extend(template.map(|_| astray()));
        return;
    }
    rules::label_selector("spec.selector", selector, errors);
    let is_empty = |count: Option<usize>| count.unwrap_or(0) == 0;
    if is_empty(selector.match_labels.as_ref().map(|all| all.len()))
        && is_empty(selector.match_expressions.as_ref().map(Vec::len))
    {
        errors.push(Invalid::value("spec.selector", &json!(selector), &format!("empty selector is invalid for {kind}")));
        return;
    }
    if let (Ok(parsed), Some(_)) = (Selector::from_label_selector(selector), template)
        && !parsed.matches(&labels)
    {
        errors.push(astray());
    }
}

pub fn same_selector(selector: &LabelSelector, old: &LabelSelector) -> Vec<Invalid> {
    if selector == old {
        return vec![];
    }
    vec![Invalid::value("spec.selector", &json!(selector), "field is immutable")]
}

/// `maxUnavailable` and `maxSurge`: counts or percentages, not both nothing.
pub fn check_rolling(at: &str, unavailable: Option<&IntOrString>, surge: Option<&IntOrString>, errors: &mut Vec<Invalid>) {
    rules::count_or_percent(&format!("{at}.maxUnavailable"), unavailable, errors);
    rules::count_or_percent(&format!("{at}.maxSurge"), surge, errors);
    if rules::is_nothing(unavailable) && rules::is_nothing(surge) {
        let value = unavailable.map_or(json!(0), |value| json!(value));
        errors.push(Invalid::value(format!("{at}.maxUnavailable"), &value, "may not be 0 when `maxSurge` is 0"));
    }
    rules::at_most_all(&format!("{at}.maxUnavailable"), unavailable, errors);
}
