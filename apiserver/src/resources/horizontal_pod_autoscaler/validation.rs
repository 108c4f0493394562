//! What an autoscaler may be, in whichever version it is written: both are held to the rules of the newer one.

use crate::http::error::Invalid;
use crate::kind::NameRule;
use crate::resources::{amounts, rules};
use crate::verbs::object_meta::name_errors;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::json;
use slipway_api::autoscaling_v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, ExternalMetricSource, HPAScalingPolicy, HPAScalingRules,
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec, MetricTarget, ObjectMetricSource,
    PodsMetricSource, ResourceMetricSource,
};
use slipway_api::name;
use slipway_api::quantity::Quantity;

const PERIOD_SECONDS_MAX: i32 = 1800;
const STABILIZATION_SECONDS_MAX: i32 = 3600;
const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

pub fn spec(at: &str, spec: &HorizontalPodAutoscalerSpec) -> Vec<Invalid> {
    let mut errors = vec![];
    let (min, max) = (spec.min_replicas, spec.max_replicas);
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.push(Invalid::value(format!("{at}.minReplicas"), &json!(min), "must be greater than or equal to 1"));
    }
    if max == 0 {
        errors.push(Invalid::required(format!("{at}.maxReplicas"), "must be set and greater than 0"));
    } else if max < 0 {
        errors.push(Invalid::value(format!("{at}.maxReplicas"), &json!(max), "must be greater than or equal to 1"));
    }
    if min.is_some_and(|min| max < min) {
        let why = "must be greater than or equal to `minReplicas`";
        errors.push(Invalid::value(format!("{at}.maxReplicas"), &json!(max), why));
    }
    let target = &spec.scale_target_ref;
    // The only kind of the core group that can be scaled.
    reference(&format!("{at}.scaleTargetRef"), target, target.kind == "ReplicationController", &mut errors);
    let metrics = spec.metrics.as_deref().unwrap_or(&[]);
    for (index, metric) in metrics.iter().enumerate() {
        self::metric(&format!("{at}.metrics[{index}]"), metric, &mut errors);
    }
    if min == Some(0) && !metrics.iter().any(|metric| matches!(metric.type_.as_str(), "Object" | "External")) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(Invalid::forbidden(format!("{at}.metrics"), why));
    }
    if let Some(behavior) = &spec.behavior {
        for (direction, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                scaling_rules(&format!("{at}.behavior.{direction}"), rules, &mut errors);
            }
        }
    }
    errors
}

pub fn status(at: &str, status: &HorizontalPodAutoscalerStatus) -> Vec<Invalid> {
    let mut errors = vec![];
    rules::not_negative(&format!("{at}.currentReplicas"), status.current_replicas.map(i64::from), &mut errors);
    rules::not_negative(&format!("{at}.desiredReplicas"), Some(i64::from(status.desired_replicas)), &mut errors);
    errors
}

fn reference(at: &str, target: &CrossVersionObjectReference, of_core: bool, errors: &mut Vec<Invalid>) {
    for (field, value) in [("kind", &target.kind), ("name", &target.name)] {
        let at = format!("{at}.{field}");
        if value.is_empty() {
            errors.push(Invalid::required(at, ""));
        } else {
            rules::all(&at, value, name_errors(NameRule::PathSegment, value), errors);
        }
    }
    let version = target.api_version.as_deref().unwrap_or("");
    let mut refuse = |why: &str| errors.push(Invalid::value(format!("{at}.apiVersion"), &json!(version), why));
    match version.split('/').collect::<Vec<_>>()[..] {
        [_, _] => {}
        [_] if of_core => {}
        [_] => refuse("apiVersion must specify API group"),
        _ => refuse(&format!("unexpected GroupVersion string: {version}")),
    }
}

fn metric(at: &str, metric: &MetricSpec, errors: &mut Vec<Invalid>) {
    if metric.type_.is_empty() {
        errors.push(Invalid::required(format!("{at}.type"), "must specify a metric source type"));
    }
    if !SOURCES.contains(&metric.type_.as_str()) {
        errors.push(Invalid::not_supported(format!("{at}.type"), &json!(metric.type_), &SOURCES));
    }
    let given = [
        ("Object", "object", metric.object.is_some()),
        ("External", "external", metric.external.is_some()),
        ("Pods", "pods", metric.pods.is_some()),
        ("Resource", "resource", metric.resource.is_some()),
        ("ContainerResource", "containerResource", metric.container_resource.is_some()),
    ];
    // Of several sources only the first is looked at.
    match given.iter().find(|(.., is_given)| *is_given).map(|(_, field, _)| *field) {
        Some("object") => metric.object.iter().for_each(|source| object(&format!("{at}.object"), source, errors)),
        Some("external") => metric.external.iter().for_each(|source| external(&format!("{at}.external"), source, errors)),
        Some("pods") => metric.pods.iter().for_each(|source| pods(&format!("{at}.pods"), source, errors)),
        Some("resource") => metric.resource.iter().for_each(|source| resource(&format!("{at}.resource"), source, errors)),
        Some(_) => {
            metric.container_resource.iter().for_each(|source| container(&format!("{at}.containerResource"), source, errors));
        }
        None => {}
    }
    let expected = given.iter().find(|(type_, ..)| *type_ == metric.type_);
    if let Some((_, field, false)) = expected {
        errors.push(Invalid::required(format!("{at}.{field}"), "must populate information for the given metric source"));
    }
    if given.iter().filter(|(.., is_given)| *is_given).count() > 1 {
        for (_, field, _) in given.iter().filter(|(type_, _, is_given)| *is_given && *type_ != metric.type_) {
            errors.push(Invalid::forbidden(format!("{at}.{field}"), "must populate the given metric source only"));
        }
    }
}

fn object(at: &str, source: &ObjectMetricSource, errors: &mut Vec<Invalid>) {
    reference(&format!("{at}.describedObject"), &source.described_object, true, errors);
    identifier(&format!("{at}.metric"), &source.metric, errors);
    target(&format!("{at}.target"), &source.target, errors);
    if source.target.value.is_none() && source.target.average_value.is_none() {
        errors.push(Invalid::required(format!("{at}.target.averageValue"), "must set either a target value or averageValue"));
    }
}

fn external(at: &str, source: &ExternalMetricSource, errors: &mut Vec<Invalid>) {
    identifier(&format!("{at}.metric"), &source.metric, errors);
    target(&format!("{at}.target"), &source.target, errors);
    match (&source.target.value, &source.target.average_value) {
        (None, None) => {
            let why = "must set either a target value for metric or a per-pod target";
            errors.push(Invalid::required(format!("{at}.target.averageValue"), why));
        }
        (Some(_), Some(_)) => {
            let why = "may not set both a target value for metric and a per-pod target";
            errors.push(Invalid::forbidden(format!("{at}.target.value"), why));
        }
        _ => {}
    }
}

fn pods(at: &str, source: &PodsMetricSource, errors: &mut Vec<Invalid>) {
    identifier(&format!("{at}.metric"), &source.metric, errors);
    target(&format!("{at}.target"), &source.target, errors);
    if source.target.average_value.is_none() {
        errors.push(Invalid::required(format!("{at}.target.averageValue"), "must specify a positive target averageValue"));
    }
}

fn resource(at: &str, source: &ResourceMetricSource, errors: &mut Vec<Invalid>) {
    if source.name.is_empty() {
        errors.push(Invalid::required(format!("{at}.name"), "must specify a resource name"));
    }
    usage_target(at, &source.target, errors);
}

fn container(at: &str, source: &ContainerResourceMetricSource, errors: &mut Vec<Invalid>) {
    if source.name.is_empty() {
        errors.push(Invalid::required(format!("{at}.name"), "must specify a resource name"));
    } else {
        amounts::check_container_name(&format!("{at}.name"), &source.name, errors);
    }
    if source.container.is_empty() {
        errors.push(Invalid::required(format!("{at}.container"), "must specify a container"));
    } else {
        rules::all(&format!("{at}.container"), &source.container, name::dns1123_label(&source.container), errors);
    }
    usage_target(at, &source.target, errors);
}

fn usage_target(at: &str, wanted: &MetricTarget, errors: &mut Vec<Invalid>) {
    target(&format!("{at}.target"), wanted, errors);
    match (wanted.average_utilization, &wanted.average_value) {
        (None, None) => {
            let why = "must set either a target raw value or a target utilization";
            errors.push(Invalid::required(format!("{at}.target.averageUtilization"), why));
        }
        (Some(_), Some(_)) => {
            let why = "may not set both a target raw value and a target utilization";
            errors.push(Invalid::forbidden(format!("{at}.target.averageValue"), why));
        }
        _ => {}
    }
}

fn target(at: &str, target: &MetricTarget, errors: &mut Vec<Invalid>) {
    if target.type_.is_empty() {
        errors.push(Invalid::required(format!("{at}.type"), "must specify a metric target type"));
    }
    if !matches!(target.type_.as_str(), "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(Invalid::value(format!("{at}.type"), &json!(target.type_), why));
    }
    let is_positive = |text: &Text| Quantity::parse(&text.0).is_ok_and(|quantity| quantity > Quantity::ZERO);
    for (field, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(value) = value.as_ref().filter(|value| !is_positive(value)) {
            errors.push(Invalid::value(format!("{at}.{field}"), &json!(value), "must be positive"));
        }
    }
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        errors.push(Invalid::value(format!("{at}.averageUtilization"), &json!(percent), rules::POSITIVE));
    }
}

fn identifier(at: &str, metric: &MetricIdentifier, errors: &mut Vec<Invalid>) {
    if metric.name.is_empty() {
        errors.push(Invalid::required(format!("{at}.name"), "must specify a metric name"));
    } else {
        rules::all(&format!("{at}.name"), &metric.name, name_errors(NameRule::PathSegment, &metric.name), errors);
    }
}

fn scaling_rules(at: &str, wanted: &HPAScalingRules, errors: &mut Vec<Invalid>) {
    let window = wanted.stabilization_window_seconds;
    let mut refuse = |why: &str| errors.push(Invalid::value(format!("{at}.stabilizationWindowSeconds"), &json!(window), why));
    if window.is_some_and(|seconds| seconds < 0) {
        refuse("must be greater than or equal to zero");
    }
    if window.is_some_and(|seconds| seconds > STABILIZATION_SECONDS_MAX) {
        refuse(&format!("must be less than or equal to {STABILIZATION_SECONDS_MAX}"));
    }
    rules::maybe_one_of(&format!("{at}.selectPolicy"), wanted.select_policy.as_deref(), &["Disabled", "Max", "Min"], errors);
    let policies = wanted.policies.as_deref().unwrap_or(&[]);
    if policies.is_empty() {
        errors.push(Invalid::required(format!("{at}.policies"), "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        scaling_policy(&format!("{at}.policies[{index}]"), policy, errors);
    }
    if let Some(tolerance) = &wanted.tolerance {
        amounts::amount(&format!("{at}.tolerance"), tolerance, errors);
    }
}

fn scaling_policy(at: &str, policy: &HPAScalingPolicy, errors: &mut Vec<Invalid>) {
    if !matches!(policy.type_.as_str(), "Pods" | "Percent") {
        errors.push(Invalid::not_supported(format!("{at}.type"), &json!(policy.type_), &["Percent", "Pods"]));
    }
    if policy.value <= 0 {
        errors.push(Invalid::value(format!("{at}.value"), &json!(policy.value), "must be greater than zero"));
    }
    if policy.period_seconds <= 0 {
        errors.push(Invalid::value(format!("{at}.periodSeconds"), &json!(policy.period_seconds), "must be greater than zero"));
    }
    if policy.period_seconds > PERIOD_SECONDS_MAX {
        let why = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
        errors.push(Invalid::value(format!("{at}.periodSeconds"), &json!(policy.period_seconds), &why));
    }
}
