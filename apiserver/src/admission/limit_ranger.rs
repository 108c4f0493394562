//! LimitRanger: gives containers the namespace's default requests and limits, and refuses what asks for too much or too
//! little.

use super::{AdmissionContext, Operation, Plugin, Reservations};
use crate::http::error::Status;
use crate::stored;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipway_api::core::{LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, ResourceRequirements};
use slipway_api::quantity::Quantity;
use slipway_api::quota::{self, Amounts, Totals};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    async fn admit(&self, context: &AdmissionContext<'_>, object: &mut Value, _: &mut Reservations) -> Result<(), Status> {
        if context.writes("", "pods", &[Operation::Create]) || context.resizes() {
            ranges(context).iter().for_each(|range| fill_in(object, range));
        }
        Ok(())
    }

    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        let pod = context.writes("", "pods", &[Operation::Create]) || context.resizes();
        if !pod && !context.writes("", "persistentvolumeclaims", &[Operation::Create, Operation::Update]) {
            return Ok(());
        }
        for range in ranges(context) {
            let items = range.spec.iter().flat_map(|spec| &spec.limits);
            let mut wrong = vec![];
            if pod {
                let Ok(pod) = Pod::deserialize(object) else { return Ok(()) };
                items.for_each(|item| check_pod(&pod, item, &mut wrong));
            } else {
                let Ok(claim) = PersistentVolumeClaim::deserialize(object) else { return Ok(()) };
                items.for_each(|item| check_claim(&claim, item, &mut wrong));
            }
            if let Some(why) = together(wrong) {
                return Err(context.forbidden(object, &why));
            }
        }
        Ok(())
    }
}

/// The namespace's LimitRanges, by name.
fn ranges(context: &AdmissionContext<'_>) -> Vec<LimitRange> {
    let Some(strategy) = context.server.strategy("", "v1", "limitranges") else { return vec![] };
    let snapshot = context.server.snapshot();
    let prefix = stored::prefix(strategy.names(), Some(context.namespace));
    stored::below(&snapshot, &prefix, "").filter_map(|entry| serde_json::from_slice(&entry.bytes).ok()).collect()
}

/// One reason as it is, several in brackets, each once.
fn together(mut wrong: Vec<String>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    wrong.retain(|why| seen.insert(why.clone()));
    match wrong.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

/// Sets what containers leave out, and notes it in an annotation.
fn fill_in(pod: &mut Value, range: &LimitRange) {
    let (mut limits, mut requests) = (Map::new(), Map::new());
    for item in range.spec.iter().flat_map(|spec| &spec.limits).filter(|item| item.type_ == "Container") {
        let list = |list: &Option<_>| json!(list).as_object().cloned().unwrap_or_default();
        limits.extend(list(&item.default));
        requests.extend(list(&item.default_request));
    }
    let mut set = vec![];
    for (field, kind) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            let lists = [("requests", "request", &requests), ("limits", "limit", &limits)];
            for (list, singular, defaults) in lists {
                let missing = missing(&mut container["resources"], list, defaults);
                if !missing.is_empty() {
                    set.push(format!("{} {singular} for {kind} {name}", missing.join(", ")));
                }
            }
        }
    }
    if !set.is_empty() {
        pod["metadata"]["annotations"][ANNOTATION] = json!(format!("LimitRanger plugin set: {}", set.join("; ")));
    }
}

/// Adds what the list lacks, and answers with the names of that.
fn missing(resources: &mut Value, list: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let missing: Vec<String> =
        defaults.keys().filter(|name| resources.get(list).and_then(|list| list.get(*name)).is_none()).cloned().collect();
    for name in &missing {
        resources[list][name] = defaults[name].clone();
    }
    missing
}

fn amounts(list: Option<&crate::resources::amounts::List>) -> Amounts {
    let list = list.into_iter().flatten();
    list.filter_map(|(resource, text)| Some((resource.clone(), Quantity::parse(&text.0).ok()?))).collect()
}

fn check_pod(pod: &Pod, item: &LimitRangeItem, wrong: &mut Vec<String>) {
    let spec = pod.spec.clone().unwrap_or_default();
    match item.type_.as_str() {
        "Container" => {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let of = |resources: Option<&ResourceRequirements>| Totals {
                    requests: amounts(resources.and_then(|resources| resources.requests.as_ref())),
                    limits: amounts(resources.and_then(|resources| resources.limits.as_ref())),
                };
                check(&of(container.resources.as_ref()), item, wrong);
            }
        }
        "Pod" => check(&quota::totals(pod, false), item, wrong),
        _ => {}
    }
}

fn check_claim(claim: &PersistentVolumeClaim, item: &LimitRangeItem, wrong: &mut Vec<String>) {
    if item.type_ != "PersistentVolumeClaim" {
        return;
    }
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let asked = Totals { requests: amounts(resources.and_then(|resources| resources.requests.as_ref())), limits: Amounts::new() };
    for (resource, least) in amounts(item.min.as_ref()) {
        wrong.extend(too_little(&asked, item, &resource, least));
    }
    for (resource, most) in amounts(item.max.as_ref()) {
        let what = format!("maximum {resource} usage per {} is {most}", item.type_);
        match asked.requests.get(&resource) {
            None => wrong.push(format!("{what}.  No request is specified")),
            Some(request) if *request > most => wrong.push(format!("{what}, but request is {request}")),
            Some(_) => {}
        }
    }
}

fn check(asked: &Totals, item: &LimitRangeItem, wrong: &mut Vec<String>) {
    for (resource, least) in amounts(item.min.as_ref()) {
        wrong.extend(too_little(asked, item, &resource, least));
    }
    for (resource, most) in amounts(item.max.as_ref()) {
        wrong.extend(too_much(asked, item, &resource, most));
    }
    for (resource, ratio) in amounts(item.max_limit_request_ratio.as_ref()) {
        wrong.extend(too_far_apart(asked, item, &resource, ratio));
    }
}

fn too_little(asked: &Totals, item: &LimitRangeItem, resource: &str, least: Quantity) -> Option<String> {
    let what = format!("minimum {resource} usage per {} is {least}", item.type_);
    match (asked.requests.get(resource), asked.limits.get(resource)) {
        (None, _) => Some(format!("{what}.  No request is specified")),
        (Some(request), _) if *request < least => Some(format!("{what}, but request is {request}")),
        (_, Some(limit)) if *limit < least => Some(format!("{what}, but limit is {limit}")),
        _ => None,
    }
}

fn too_much(asked: &Totals, item: &LimitRangeItem, resource: &str, most: Quantity) -> Option<String> {
    let what = format!("maximum {resource} usage per {} is {most}", item.type_);
    match (asked.limits.get(resource), asked.requests.get(resource)) {
        (None, _) => Some(format!("{what}.  No limit is specified")),
        (Some(limit), _) if *limit > most => Some(format!("{what}, but limit is {limit}")),
        (_, Some(request)) if *request > most => Some(format!("{what}, but request is {request}")),
        _ => None,
    }
}

fn too_far_apart(asked: &Totals, item: &LimitRangeItem, resource: &str, most: Quantity) -> Option<String> {
    let what = format!("{resource} max limit to request ratio per {} is {most}", item.type_);
    let given = |list: &Amounts| list.get(resource).copied().filter(|amount| !amount.is_zero());
    let Some(request) = given(&asked.requests) else {
        return Some(format!("{what}, but no request is specified or request is 0"));
    };
    let Some(limit) = given(&asked.limits) else {
        return Some(format!("{what}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.as_f64() / request.as_f64();
    (ratio > most.as_f64()).then(|| format!("{what}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limits: Value) -> LimitRange {
        serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).unwrap()
    }

    fn refused(limits: Value, containers: Value) -> Option<String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap();
        let mut wrong = vec![];
        range(limits).spec.unwrap().limits.iter().for_each(|item| check_pod(&pod, item, &mut wrong));
        together(wrong)
    }

    fn container(resources: Value) -> Value {
        json!({"name": "c", "resources": resources})
    }

    #[test]
    fn what_a_container_leaves_out_is_set_and_noted() {
        let range =
            range(json!([{"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]));
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, container(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}))],
            "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "1", "memory": "1"}}}]}});
        fill_in(&mut pod, &range);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            pod["spec"]["containers"][1]["resources"],
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; \
             memory limit for container c; cpu request for init container i"
        );
        let before = pod.clone();
        fill_in(&mut pod, &range);
        assert_eq!(pod, before);
    }

    #[test]
    fn containers_keep_the_limits() {
        let limits =
            || json!([{"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "4"}}]);
        let one = |request: &str, limit: &str| {
            refused(limits(), json!([container(json!({"requests": {"cpu": request}, "limits": {"cpu": limit}}))]))
        };
        assert_eq!(one("1", "2"), None);
        assert_eq!(one("1", "4").as_deref(), Some("maximum cpu usage per Container is 2, but limit is 4"));
        assert_eq!(one("10m", "40m").as_deref(), Some("minimum cpu usage per Container is 50m, but request is 10m"));
        assert_eq!(
            one("100m", "500m").as_deref(),
            Some("cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000")
        );
        assert_eq!(
            refused(limits(), json!([container(json!({}))])).as_deref(),
            Some(
                "[minimum cpu usage per Container is 50m.  No request is specified, maximum cpu usage per Container is 2.  No limit is \
                 specified, cpu max limit to request ratio per Container is 4, but no request is specified or request is 0]"
            )
        );
    }

    #[test]
    fn pods_are_measured_as_a_whole() {
        let limits = || json!([{"type": "Pod", "max": {"memory": "1Gi"}}]);
        let half = || container(json!({"requests": {"memory": "400Mi"}, "limits": {"memory": "600Mi"}}));
        assert_eq!(refused(limits(), json!([half()])), None);
        assert_eq!(
            refused(limits(), json!([half(), half()])).as_deref(),
            Some("maximum memory usage per Pod is 1Gi, but limit is 1200Mi")
        );
    }

    #[test]
    fn claims_are_measured_by_what_they_ask_for() {
        let item = range(json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]));
        let told = |size: &str| {
            let claim =
                serde_json::from_value(json!({"metadata": {}, "spec": {"resources": {"requests": {"storage": size}}}})).unwrap();
            let mut wrong = vec![];
            check_claim(&claim, &item.spec.as_ref().unwrap().limits[0], &mut wrong);
            together(wrong)
        };
        assert_eq!(told("1Gi"), None);
        assert_eq!(told("3Gi").as_deref(), Some("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"));
        assert_eq!(told("1Mi").as_deref(), Some("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"));
    }
}
