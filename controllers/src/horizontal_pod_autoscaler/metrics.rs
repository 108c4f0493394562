//! Reads what is measured: of `metrics.k8s.io`, `custom.metrics.k8s.io` and `external.metrics.k8s.io`.

use std::collections::BTreeMap;

use serde_json::Value;
use slipway_api::{
    autoscaling_v2::{MetricSpec, ObjectMetricSource},
    duration,
    jiff::{SignedDuration, Timestamp},
    meta::LabelSelector,
    quantity::Quantity,
    selector::Selector,
};

use super::{Source, target};
use crate::reflect::encode;

const CUSTOM: &str = "custom.metrics.k8s.io";
/// Those that are understood.
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// The time that a custom metric is of, if it doesn't say.
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

/// What one pod uses, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PodMetric {
    pub at: Timestamp,
    pub window: SignedDuration,
    pub value: i64,
}

/// By the pod's name.
pub type PodMetrics = BTreeMap<String, PodMetric>;

/// One metric's values, in thousandths.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    Pods(PodMetrics),
    One(i64),
    Many(Vec<i64>),
}

/// What one metric of the spec is now, or why that is not known.
pub async fn measure(source: &dyn Source, namespace: &str, metric: &MetricSpec, pods: &Selector) -> Result<Measured, String> {
    if let Some(resource) = metric.resource.as_ref().filter(|_| metric.type_ == "Resource") {
        return of_resource(source, namespace, &resource.name, None, pods).await;
    }
    if let Some(resource) = metric.container_resource.as_ref().filter(|_| metric.type_ == "ContainerResource") {
        return of_resource(source, namespace, &resource.name, Some(&resource.container), pods).await;
    }
    if let Some(custom) = metric.pods.as_ref().filter(|_| metric.type_ == "Pods") {
        let read = of_pods(source, namespace, &custom.metric.name, custom.metric.selector.as_ref(), pods).await;
        return read.map_err(|error| format!("unable to get metric {}: {error}", custom.metric.name));
    }
    if let Some(object) = metric.object.as_ref().filter(|_| metric.type_ == "Object") {
        let described = &object.described_object;
        return of_object(source, namespace, object).await.map_err(|error| {
            // The words are in this order there, too.
            format!("unable to get metric {}: {} on {namespace} {}/{error}", object.metric.name, described.kind, described.name)
        });
    }
    if let Some(external) = metric.external.as_ref().filter(|_| metric.type_ == "External") {
        let selector = external.metric.selector.as_ref();
        return of_outside(source, namespace, &external.metric.name, selector).await.map_err(|error| {
            let selector = selector_text(selector);
            format!("unable to get external metric {namespace}/{}/{selector}: {error}", external.metric.name)
        });
    }
    Err(format!("unknown metric source type {:?}", metric.type_))
}

/// `&LabelSelector{…}`, as Go prints it.
pub fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".into() };
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|requirement| {
        let values = requirement.values.clone().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", requirement.key, requirement.operator)
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        expressions.collect::<String>()
    )
}

async fn of_resource(
    source: &dyn Source,
    namespace: &str,
    resource: &str,
    container: Option<&str>,
    pods: &Selector,
) -> Result<Measured, String> {
    let wrap = |error: String| format!("unable to get metrics for resource {resource}: {error}");
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={}", encode(&pods.to_string()));
    let list = source.get(&path).await.map_err(|error| {
        wrap(format!("unable to fetch metrics from resource metrics API: {}", words(&error, "pods.metrics.k8s.io")))
    })?;
    let items = items(&list);
    if items.is_empty() {
        return Err(wrap("no metrics returned from resource metrics API".into()));
    }
    let of_pod = |item: &Value| {
        let containers = item["containers"].as_array().cloned().unwrap_or_default();
        let value = match container {
            Some(name) => usage(containers.iter().find(|container| container["name"] == name)?, resource)?,
            // A pod of which one container is not measured is not measured at all.
            None if containers.is_empty() => return None,
            None => containers.iter().map(|container| usage(container, resource)).sum::<Option<i64>>()?,
        };
        let window = item["window"].as_str().and_then(|text| duration::parse(text).ok()).unwrap_or_default();
        Some((item["metadata"]["name"].as_str()?.to_owned(), PodMetric { at: time(item), window, value }))
    };
    Ok(Measured::Pods(items.iter().filter_map(of_pod).collect()))
}

fn usage(container: &Value, resource: &str) -> Option<i64> {
    milli(&container["usage"][resource])
}

async fn of_pods(
    source: &dyn Source,
    namespace: &str,
    metric: &str,
    selector: Option<&LabelSelector>,
    pods: &Selector,
) -> Result<Measured, String> {
    let pods = encode(&pods.to_string());
    let rest = format!("namespaces/{namespace}/pods/*/{metric}?labelSelector={pods}{}", metric_selector('&', selector));
    let items = custom(source, &rest, &format!("pods.{CUSTOM} *")).await?;
    if items.is_empty() {
        return Err("no metrics returned from custom metrics API".into());
    }
    let of_pod = |item: &Value| {
        let seconds = item["windowSeconds"].as_i64().or_else(|| item["window"].as_i64());
        let window = seconds.map_or(WINDOW, SignedDuration::from_secs);
        let metric = PodMetric { at: time(item), window, value: milli(&item["value"])? };
        Some((item["describedObject"]["name"].as_str()?.to_owned(), metric))
    };
    Ok(Measured::Pods(items.iter().filter_map(of_pod).collect()))
}

async fn of_object(source: &dyn Source, namespace: &str, object: &ObjectMetricSource) -> Result<Measured, String> {
    let described = &object.described_object;
    let api_version = described.api_version.as_deref().unwrap_or_default();
    let is_core = !api_version.contains('/');
    let selector = metric_selector('?', object.metric.selector.as_ref());
    let metric = &object.metric.name;
    let (rest, what) = if described.kind == "Namespace" && is_core {
        (format!("namespaces/{namespace}/metrics/{metric}{selector}"), format!("metrics.{CUSTOM} {metric}"))
    } else {
        let fetch = |error: String| format!("unable to fetch metrics from custom metrics API: {error}");
        let found = target::resources(source, api_version, &described.kind).await;
        let found = found.map_err(|error| {
            let group = api_version.split_once('/').map_or("", |(group, _)| group);
            let kind = if group.is_empty() { described.kind.clone() } else { format!("{}.{group}", described.kind) };
            fetch(format!("unable to map kind {kind} to resource: {error}"))
        })?;
        let resource = found.first().ok_or_else(|| fetch("unrecognized resource".into()))?;
        let qualified = match resource.group.as_ref() {
            "" => resource.plural.to_string(),
            group => format!("{}.{group}", resource.plural),
        };
        let name = &described.name;
        (format!("namespaces/{namespace}/{qualified}/{name}/{metric}{selector}"), format!("{qualified}.{CUSTOM} {name}"))
    };
    let items = custom(source, &rest, &what).await?;
    let [item] = &items[..] else {
        let count = items.len();
        return Err(format!(
            "unable to fetch metrics from custom metrics API: the custom metrics API server returned {count} results when we asked \
             for exactly one"
        ));
    };
    Ok(Measured::One(milli(&item["value"]).unwrap_or(0)))
}

/// In the version that the group prefers, if it is understood.
async fn custom(source: &dyn Source, rest: &str, what: &str) -> Result<Vec<Value>, String> {
    let fetch = |error: String| format!("unable to fetch metrics from custom metrics API: {error}");
    let group = source.get(&format!("/apis/{CUSTOM}")).await;
    let group = group.map_err(|_| fetch(format!("no custom metrics API ({CUSTOM}) registered")))?;
    let preferred = group["preferredVersion"]["version"].as_str();
    let others = group["versions"].as_array().cloned().unwrap_or_default();
    let mut versions = preferred.into_iter().chain(others.iter().filter_map(|version| version["version"].as_str()));
    let known = versions.find(|version| CUSTOM_VERSIONS.contains(version));
    let version = known.ok_or_else(|| fetch("no known available metric versions found".into()))?;
    let list = source.get(&format!("/apis/{CUSTOM}/{version}/{rest}")).await;
    list.map(|list| items(&list)).map_err(|error| fetch(words(&error, what)))
}

async fn of_outside(
    source: &dyn Source,
    namespace: &str,
    metric: &str,
    selector: Option<&LabelSelector>,
) -> Result<Measured, String> {
    let selector = selector.and_then(|selector| Selector::from_label_selector(selector).ok());
    let query = selector.map_or(String::new(), |selector| format!("?labelSelector={}", encode(&selector.to_string())));
    let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}{query}");
    let list = source.get(&path).await.map_err(|error| {
        let words = words(&error, &format!("{metric}.external.metrics.k8s.io"));
        format!("unable to fetch metrics from external metrics API: {words}")
    })?;
    let items = items(&list);
    if items.is_empty() {
        return Err("no metrics returned from external metrics API".into());
    }
    Ok(Measured::Many(items.iter().filter_map(|item| milli(&item["value"])).collect()))
}

fn metric_selector(before: char, selector: Option<&LabelSelector>) -> String {
    match selector.and_then(|selector| Selector::from_label_selector(selector).ok()) {
        Some(selector) => format!("{before}metricLabelSelector={}", encode(&selector.to_string())),
        None => String::new(),
    }
}

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

fn milli(value: &Value) -> Option<i64> {
    Some(Quantity::parse(value.as_str()?).ok()?.milli())
}

fn time(item: &Value) -> Timestamp {
    item["timestamp"].as_str().and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What Go's clients make of an answer that does not speak of an object.
fn words(error: &kube::Error, what: &str) -> String {
    let kube::Error::Api(status) = error else { return error.to_string() };
    let speaks_of_one = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
    match status.code {
        404 if !speaks_of_one => format!("the server could not find the requested resource (get {what})"),
        503 if !speaks_of_one => format!("the server is currently unable to handle the request (get {what})"),
        _ => status.message.clone(),
    }
}
