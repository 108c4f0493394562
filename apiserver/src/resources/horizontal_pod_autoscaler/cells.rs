//! What `kubectl get hpa` shows.

use crate::kind::{Column, age};
use crate::resources::show;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::{Value, json};
use slipway_api::autoscaling_v2::{HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};
use slipway_api::quantity::Quantity;

/// So many metrics are shown.
const METRICS_MAX: usize = 2;

pub fn columns() -> Vec<Column> {
    vec![
        Column::NAME,
        Column::text("Reference", "What is scaled."),
        Column::text("Targets", "What is measured, and what it is to be."),
        Column::text("MinPods", "No fewer replicas than these."),
        Column::text("MaxPods", "No more replicas than these."),
        Column::text("Replicas", "How many there are."),
        Column::AGE,
    ]
}

pub fn row(autoscaler: &HorizontalPodAutoscaler, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&autoscaler.spec, autoscaler.status.clone().unwrap_or_default());
    vec![
        show::name(object),
        json!(format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name)),
        json!(metrics(spec.metrics.as_deref().unwrap_or(&[]), status.current_metrics.as_deref().unwrap_or(&[]))),
        json!(spec.min_replicas.map_or(show::UNSET.to_owned(), |min| min.to_string())),
        json!(spec.max_replicas),
        json!(status.current_replicas.unwrap_or(0)),
        age(object, now),
    ]
}

fn metrics(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return show::NONE.to_owned();
    }
    let all: Vec<String> = specs.iter().enumerate().map(|(index, spec)| metric(spec, statuses.get(index))).collect();
    if all.len() > METRICS_MAX {
        return format!("{} + {} more...", all[..METRICS_MAX].join(", "), all.len() - METRICS_MAX);
    }
    all.join(", ")
}

fn metric(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    let unknown = "<unknown type>";
    match spec.type_.as_str() {
        "External" => spec.external.as_ref().map_or(unknown.into(), |source| {
            value(&source.target, status.and_then(|status| Some(&status.external.as_ref()?.current)))
        }),
        "Object" => spec.object.as_ref().map_or(unknown.into(), |source| {
            value(&source.target, status.and_then(|status| Some(&status.object.as_ref()?.current)))
        }),
        "Pods" => spec.pods.as_ref().map_or(unknown.into(), |source| {
            let current = status.and_then(|status| status.pods.as_ref()?.current.average_value.as_ref());
            format!("{}/{}", shown(current), shown(source.target.average_value.as_ref()))
        }),
        "Resource" => spec.resource.as_ref().map_or(unknown.into(), |source| {
            let current = status.and_then(|status| Some(&status.resource.as_ref()?.current));
            format!("{}: {}", source.name, usage(&source.target, current))
        }),
        "ContainerResource" => spec.container_resource.as_ref().map_or(unknown.into(), |source| {
            let current = status.and_then(|status| Some(&status.container_resource.as_ref()?.current));
            format!("{}: {}", source.name, usage(&source.target, current))
        }),
        _ => unknown.into(),
    }
}

/// Of a metric that is one number, for all pods or for each.
fn value(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match &target.average_value {
        Some(wanted) => {
            let current = current.and_then(|current| current.average_value.as_ref());
            format!("{}/{} (avg)", shown(current), shown(Some(wanted)))
        }
        None => format!("{}/{}", shown(current.and_then(|current| current.value.as_ref())), shown(target.value.as_ref())),
    }
}

/// Of what pods use.
fn usage(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(wanted) = &target.average_value {
        return format!("{}/{}", shown(current.and_then(|current| current.average_value.as_ref())), shown(Some(wanted)));
    }
    let percent = |number: Option<i32>, none: &str| number.map_or(none.to_owned(), |number| format!("{number}%"));
    let current = current.and_then(|current| current.average_utilization);
    format!("{}/{}", percent(current, show::UNKNOWN), percent(target.average_utilization, "<auto>"))
}

/// As Kubernetes prints quantities: in their shortest form.
fn shown(text: Option<&Text>) -> String {
    let Some(text) = text else { return show::UNKNOWN.to_owned() };
    Quantity::parse(&text.0).map_or_else(|_| text.0.clone(), |quantity| quantity.to_string())
}
