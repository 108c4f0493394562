//! Between the two versions. What `autoscaling/v1` has no fields for is kept in annotations there, under Kubernetes' names and in its
//! shapes, so that nothing is lost to who reads and writes the older version.

use super::v2::DEFAULT_CPU_UTILIZATION;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use slipway_api::autoscaling as v1;
use slipway_api::autoscaling_v2 as v2;
use slipway_api::meta::LabelSelector;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// Of the spec, and of the status.
pub const SPEC_ANNOTATIONS: [&str; 2] = [METRICS, BEHAVIOR];
pub const STATUS_ANNOTATIONS: [&str; 2] = [CURRENT_METRICS, CONDITIONS];
/// Once written by Kubernetes, and read by nobody any more.
const FORMER: [&str; 2] =
    ["autoscaling.alpha.kubernetes.io/scale-down-tolerance", "autoscaling.alpha.kubernetes.io/scale-up-tolerance"];

/// A metric as the annotations have it, of the spec and of the status.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metric<Object, Pods, Resource, ContainerResource, External> {
    #[serde(rename = "type")]
    type_: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<Pods>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Resource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_resource: Option<ContainerResource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<External>,
}

type Source = Metric<ObjectSource, PodsSource, ResourceSource, ContainerSource, ExternalSource>;
type Status = Metric<ObjectStatus, PodsStatus, ResourceStatus, ContainerStatus, ExternalStatus>;

macro_rules! shapes {
    ($($name:ident { $($field:ident: $type:ty $(, $without:ident)?;)* })*) => {
        $(
            #[derive(Serialize, Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct $name {
                $(
                    $(#[serde($without, skip_serializing_if = "Option::is_none")])?
                    $field: $type,
                )*
            }
        )*
    };
}

shapes! {
    ObjectSource {
        target: v2::CrossVersionObjectReference;
        metric_name: String;
        target_value: Quantity;
        selector: Option<LabelSelector>, default;
        average_value: Option<Quantity>, default;
    }
    PodsSource { metric_name: String; target_average_value: Quantity; selector: Option<LabelSelector>, default; }
    ResourceSource {
        name: String;
        target_average_utilization: Option<i32>, default;
        target_average_value: Option<Quantity>, default;
    }
    ContainerSource {
        name: String;
        target_average_utilization: Option<i32>, default;
        target_average_value: Option<Quantity>, default;
        container: String;
    }
    ExternalSource {
        metric_name: String;
        metric_selector: Option<LabelSelector>, default;
        target_value: Option<Quantity>, default;
        target_average_value: Option<Quantity>, default;
    }
    ObjectStatus {
        target: v2::CrossVersionObjectReference;
        metric_name: String;
        current_value: Quantity;
        selector: Option<LabelSelector>, default;
        average_value: Option<Quantity>, default;
    }
    PodsStatus { metric_name: String; current_average_value: Quantity; selector: Option<LabelSelector>, default; }
    ResourceStatus { name: String; current_average_utilization: Option<i32>, default; current_average_value: Quantity; }
    ContainerStatus {
        name: String;
        current_average_utilization: Option<i32>, default;
        current_average_value: Quantity;
        container: String;
    }
    ExternalStatus {
        metric_name: String;
        metric_selector: Option<LabelSelector>, default;
        current_value: Quantity;
        current_average_value: Option<Quantity>, default;
    }
}

/// The version that is stored, of an object in the older one. What cannot be read stays as it is, and is refused for it.
pub fn to_v2(object: &mut Value) {
    let (Some(old), Some(status)) = (read::<v1::HorizontalPodAutoscalerSpec>(&object["spec"]), read_status(&object["status"]))
    else {
        return;
    };
    let mut metrics: Vec<v2::MetricSpec> =
        annotation::<Vec<Source>>(object, METRICS).unwrap_or_default().into_iter().map(source_to_v2).collect();
    metrics.extend(old.target_cpu_utilization_percentage.map(cpu_utilization));
    if metrics.is_empty() {
        metrics.push(cpu_utilization(DEFAULT_CPU_UTILIZATION));
    }
    let behavior = annotation::<Value>(object, BEHAVIOR).map(|behavior| with_first_letters(&behavior, char::to_ascii_lowercase));
    let behavior: Option<v2::HorizontalPodAutoscalerBehavior> = behavior.and_then(|behavior| read(&behavior));
    let target = old.scale_target_ref;
    let spec = v2::HorizontalPodAutoscalerSpec {
        scale_target_ref: reference(target.api_version, target.kind, target.name),
        min_replicas: old.min_replicas,
        max_replicas: old.max_replicas,
        metrics: Some(metrics),
        behavior: behavior.filter(|behavior| behavior.scale_up.is_some() || behavior.scale_down.is_some()),
    };
    let current_metrics = annotation::<Vec<Status>>(object, CURRENT_METRICS)
        .map(|all| all.into_iter().map(status_to_v2).collect())
        .or_else(|| status.current_cpu_utilization_percentage.map(|percent| vec![cpu_utilized(percent)]));
    let new_status = v2::HorizontalPodAutoscalerStatus {
        observed_generation: status.observed_generation,
        last_scale_time: status.last_scale_time,
        current_replicas: Some(status.current_replicas),
        desired_replicas: status.desired_replicas,
        current_metrics,
        conditions: annotation(object, CONDITIONS),
    };
    drop_annotations(object);
    write(object, "autoscaling/v2", &json!(spec), &json!(new_status));
}

/// A stored object as the older version shows it.
pub fn to_v1(object: &mut Value) {
    if object["apiVersion"] != "autoscaling/v2" {
        return;
    }
    let Some(old) = read::<v2::HorizontalPodAutoscalerSpec>(&object["spec"]) else { return };
    let status: v2::HorizontalPodAutoscalerStatus = read(&object["status"]).unwrap_or_default();
    let metrics = old.metrics.unwrap_or_default();
    let current = status.current_metrics.unwrap_or_default();
    let target = old.scale_target_ref;
    let spec = v1::HorizontalPodAutoscalerSpec {
        scale_target_ref: v1::CrossVersionObjectReference {
            api_version: target.api_version,
            kind: target.kind,
            name: target.name,
        },
        min_replicas: old.min_replicas,
        max_replicas: old.max_replicas,
        target_cpu_utilization_percentage: metrics.iter().find_map(utilization_of_cpu),
    };
    let new_status = v1::HorizontalPodAutoscalerStatus {
        observed_generation: status.observed_generation,
        last_scale_time: status.last_scale_time,
        current_replicas: status.current_replicas.unwrap_or(0),
        desired_replicas: status.desired_replicas,
        current_cpu_utilization_percentage: current.iter().rev().find_map(|metric| {
            let resource = metric.resource.as_ref().filter(|resource| metric.type_ == "Resource" && resource.name == "cpu")?;
            resource.current.average_utilization
        }),
    };
    drop_annotations(object);
    let others: Vec<Source> =
        metrics.into_iter().filter(|metric| utilization_of_cpu(metric).is_none()).map(source_to_v1).collect();
    annotate(object, METRICS, &others, others.is_empty());
    let statuses: Vec<Status> = current.into_iter().map(status_to_v1).collect();
    annotate(object, CURRENT_METRICS, &statuses, statuses.is_empty());
    let behavior = old.behavior.map(|behavior| with_first_letters(&json!(behavior), char::to_ascii_uppercase));
    annotate(object, BEHAVIOR, &behavior, behavior.is_none());
    let conditions = status.conditions.unwrap_or_default();
    annotate(object, CONDITIONS, &conditions, conditions.is_empty());
    write(object, "autoscaling/v1", &json!(spec), &json!(new_status));
}

/// Takes these annotations over from another state of the object, absent ones too.
pub fn keep_annotations(object: &mut Value, old: &Value, names: &[&str]) {
    for name in names {
        match old["metadata"]["annotations"].get(*name) {
            Some(value) => object["metadata"]["annotations"][*name] = value.clone(),
            None => remove_annotation(object, name),
        }
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// There is none before it is prepared.
fn read_status(value: &Value) -> Option<v1::HorizontalPodAutoscalerStatus> {
    if value.is_null() { Some(Default::default()) } else { read(value) }
}

/// What an annotation holds, if it can be read.
fn annotation<T: DeserializeOwned>(object: &Value, name: &str) -> Option<T> {
    serde_json::from_str(object["metadata"]["annotations"].get(name)?.as_str()?).ok()
}

fn annotate(object: &mut Value, name: &str, value: &impl Serialize, is_empty: bool) {
    let Some(metadata) = object["metadata"].as_object_mut().filter(|_| !is_empty) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    let text = slipway_api::canonical::Sorted(&json!(value)).to_string();
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(name.to_owned(), json!(text));
    }
}

fn drop_annotations(object: &mut Value) {
    for name in SPEC_ANNOTATIONS.iter().chain(&STATUS_ANNOTATIONS).chain(&FORMER) {
        remove_annotation(object, name);
    }
}

fn remove_annotation(object: &mut Value, name: &str) {
    let Some(annotations) = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut) else { return };
    let was_there = annotations.remove(name).is_some();
    if was_there
        && annotations.is_empty()
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.remove("annotations");
    }
}

fn write(object: &mut Value, api_version: &str, spec: &Value, status: &Value) {
    object["apiVersion"] = json!(api_version);
    object["spec"] = spec.clone();
    object["status"] = status.clone();
}

/// The fields as Go calls them, or as JSON does: the behavior is written in the form that it has within Kubernetes.
fn with_first_letters(value: &Value, of: fn(&char) -> char) -> Value {
    match value {
        Value::Object(map) => {
            let renamed = |name: &str| name.chars().take(1).map(|c| of(&c)).chain(name.chars().skip(1)).collect::<String>();
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (renamed(name), with_first_letters(value, of))).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| with_first_letters(item, of)).collect(),
        other => other.clone(),
    }
}

fn reference(api_version: Option<String>, kind: String, name: String) -> v2::CrossVersionObjectReference {
    v2::CrossVersionObjectReference { api_version, kind, name }
}

fn cpu_utilization(percent: i32) -> v2::MetricSpec {
    let target =
        v2::MetricTarget { type_: "Utilization".into(), average_utilization: Some(percent), ..v2::MetricTarget::default() };
    let resource = Some(v2::ResourceMetricSource { name: "cpu".into(), target });
    v2::MetricSpec { type_: "Resource".into(), resource, ..v2::MetricSpec::default() }
}

fn cpu_utilized(percent: i32) -> v2::MetricStatus {
    let current = v2::MetricValueStatus { average_utilization: Some(percent), ..v2::MetricValueStatus::default() };
    let resource = Some(v2::ResourceMetricStatus { name: "cpu".into(), current });
    v2::MetricStatus { type_: "Resource".into(), resource, ..v2::MetricStatus::default() }
}

/// The only metric that the older version has a field for.
fn utilization_of_cpu(metric: &v2::MetricSpec) -> Option<i32> {
    let resource = metric.resource.as_ref().filter(|resource| metric.type_ == "Resource" && resource.name == "cpu")?;
    resource.target.average_utilization
}

fn zero() -> Quantity {
    Quantity("0".into())
}

fn is_zero(quantity: &Quantity) -> bool {
    slipway_api::quantity::Quantity::parse(&quantity.0).is_ok_and(slipway_api::quantity::Quantity::is_zero)
}

fn target(type_: &str, value: Option<Quantity>, average_value: Option<Quantity>, percent: Option<i32>) -> v2::MetricTarget {
    v2::MetricTarget { type_: type_.into(), value, average_value, average_utilization: percent }
}

fn usage_target(percent: Option<i32>, average_value: Option<Quantity>) -> v2::MetricTarget {
    target(if percent.is_some() { "Utilization" } else { "AverageValue" }, None, average_value, percent)
}

fn identifier(name: String, selector: Option<LabelSelector>) -> v2::MetricIdentifier {
    v2::MetricIdentifier { name, selector }
}

fn current(value: Option<Quantity>, average_value: Option<Quantity>, percent: Option<i32>) -> v2::MetricValueStatus {
    v2::MetricValueStatus { value, average_value, average_utilization: percent }
}

fn source_to_v2(source: Source) -> v2::MetricSpec {
    v2::MetricSpec {
        type_: source.type_,
        object: source.object.map(|object| {
            let is_average = object.average_value.is_some();
            // The older version cannot leave the value out, and says zero.
            let value = Some(object.target_value).filter(|value| !is_average || !is_zero(value));
            v2::ObjectMetricSource {
                described_object: object.target,
                metric: identifier(object.metric_name, object.selector),
                target: target(if is_average { "AverageValue" } else { "Value" }, value, object.average_value, None),
            }
        }),
        pods: source.pods.map(|pods| v2::PodsMetricSource {
            metric: identifier(pods.metric_name, pods.selector),
            target: target("AverageValue", None, Some(pods.target_average_value), None),
        }),
        resource: source.resource.map(|resource| v2::ResourceMetricSource {
            name: resource.name,
            target: usage_target(resource.target_average_utilization, resource.target_average_value),
        }),
        container_resource: source.container_resource.map(|resource| v2::ContainerResourceMetricSource {
            name: resource.name,
            container: resource.container,
            target: usage_target(resource.target_average_utilization, resource.target_average_value),
        }),
        external: source.external.map(|external| {
            let type_ = if external.target_value.is_some() { "Value" } else { "AverageValue" };
            v2::ExternalMetricSource {
                metric: identifier(external.metric_name, external.metric_selector),
                target: target(type_, external.target_value, external.target_average_value, None),
            }
        }),
    }
}

fn source_to_v1(metric: v2::MetricSpec) -> Source {
    Source {
        type_: metric.type_,
        object: metric.object.map(|object| ObjectSource {
            target: object.described_object,
            metric_name: object.metric.name,
            target_value: object.target.value.unwrap_or_else(zero),
            selector: object.metric.selector,
            average_value: object.target.average_value,
        }),
        pods: metric.pods.map(|pods| PodsSource {
            metric_name: pods.metric.name,
            target_average_value: pods.target.average_value.unwrap_or_else(zero),
            selector: pods.metric.selector,
        }),
        resource: metric.resource.map(|resource| ResourceSource {
            name: resource.name,
            target_average_utilization: resource.target.average_utilization,
            target_average_value: resource.target.average_value,
        }),
        container_resource: metric.container_resource.map(|resource| ContainerSource {
            name: resource.name,
            container: resource.container,
            target_average_utilization: resource.target.average_utilization,
            target_average_value: resource.target.average_value,
        }),
        external: metric.external.map(|external| ExternalSource {
            metric_name: external.metric.name,
            metric_selector: external.metric.selector,
            target_value: external.target.value,
            target_average_value: external.target.average_value,
        }),
    }
}

fn status_to_v2(status: Status) -> v2::MetricStatus {
    v2::MetricStatus {
        type_: status.type_,
        object: status.object.map(|object| v2::ObjectMetricStatus {
            described_object: object.target,
            metric: identifier(object.metric_name, object.selector),
            current: current(Some(object.current_value), object.average_value, None),
        }),
        pods: status.pods.map(|pods| v2::PodsMetricStatus {
            metric: identifier(pods.metric_name, pods.selector),
            current: current(None, Some(pods.current_average_value), None),
        }),
        resource: status.resource.map(|resource| v2::ResourceMetricStatus {
            name: resource.name,
            current: current(None, Some(resource.current_average_value), resource.current_average_utilization),
        }),
        container_resource: status.container_resource.map(|resource| v2::ContainerResourceMetricStatus {
            name: resource.name,
            container: resource.container,
            current: current(None, Some(resource.current_average_value), resource.current_average_utilization),
        }),
        external: status.external.map(|external| v2::ExternalMetricStatus {
            metric: identifier(external.metric_name, external.metric_selector),
            current: current(Some(external.current_value), external.current_average_value, None),
        }),
    }
}

fn status_to_v1(metric: v2::MetricStatus) -> Status {
    Status {
        type_: metric.type_,
        object: metric.object.map(|object| ObjectStatus {
            target: object.described_object,
            metric_name: object.metric.name,
            current_value: object.current.value.unwrap_or_else(zero),
            selector: object.metric.selector,
            average_value: object.current.average_value,
        }),
        pods: metric.pods.map(|pods| PodsStatus {
            metric_name: pods.metric.name,
            current_average_value: pods.current.average_value.unwrap_or_else(zero),
            selector: pods.metric.selector,
        }),
        resource: metric.resource.map(|resource| ResourceStatus {
            name: resource.name,
            current_average_utilization: resource.current.average_utilization,
            current_average_value: resource.current.average_value.unwrap_or_else(zero),
        }),
        container_resource: metric.container_resource.map(|resource| ContainerStatus {
            name: resource.name,
            container: resource.container,
            current_average_utilization: resource.current.average_utilization,
            current_average_value: resource.current.average_value.unwrap_or_else(zero),
        }),
        external: metric.external.map(|external| ExternalStatus {
            metric_name: external.metric.name,
            metric_selector: external.metric.selector,
            current_value: external.current.value.unwrap_or_else(zero),
            current_average_value: external.current.average_value,
        }),
    }
}
