//! `pods/binding` and POST `bindings`: says on which node a pod runs. The scheduler's one write.

use crate::admission::Operation;
use crate::http::Call;
use crate::http::error::{Invalid, Status};
use crate::http::respond;
use crate::verbs::{self, Preconditions, Target};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

/// POST `pods/NAME/binding`.
pub async fn create(call: Call) -> Result<Response, Status> {
    let body = call.read_body().await?;
    let binding = super::parse_body(call.content_type(), &body)?;
    let name = binding["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() && name != call.name() {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let pod = call.name().to_owned();
    bind(&call, &pod, &binding).await
}

/// POST `bindings`: the pod is the one that the Binding is named after. `call.strategy` is that of pods.
pub async fn create_by_body(call: Call) -> Result<Response, Status> {
    let body = call.read_body().await?;
    let binding = super::parse_body(call.content_type(), &body)?;
    let name = binding["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    bind(&call, &name, &binding).await
}

async fn bind(call: &Call, pod: &str, binding: &Value) -> Result<Response, Status> {
    let dry_run = call.info.query.dry_run()?;
    let accept = call.accept()?;
    let namespace = binding["metadata"]["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && namespace != call.namespace() {
        return Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    let mut binding = binding.clone();
    super::admit(call, Operation::Create, pod, dry_run, &mut binding).await?;
    let binding = &binding;
    let errors = validate(binding);
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", pod, &errors));
    }
    let text = |field: &str| binding["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
    let target = Target {
        server: &call.server,
        strategy: &*call.strategy,
        user: &call.user,
        namespace: call.namespace(),
        name: pod,
        dry_run,
    };
    let now = call.server.now();
    verbs::guaranteed_update(&target, &preconditions, |old| {
        assign(old, binding, now).map_err(|why| Status::conflict("", "pods/binding", pod, &why))
    })
    .await?;
    Ok(respond::value(accept, StatusCode::CREATED, &super::success(StatusCode::CREATED)))
}

fn validate(binding: &Value) -> Vec<Invalid> {
    let mut errors = vec![];
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(Invalid::not_supported("target.kind", &json!(kind), &["Node", "<empty>"]));
    }
    if binding["target"]["name"].as_str().unwrap_or_default().is_empty() {
        errors.push(Invalid::required("target.name", ""));
    }
    errors
}

/// The pod, bound; or why it cannot be.
fn assign(mut pod: Value, binding: &Value, now: jiff::Timestamp) -> Result<Value, String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if pod["metadata"].get("deletionTimestamp").is_some_and(|time| !time.is_null()) {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return Err(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    set_condition(&mut pod, json!({"type": "PodScheduled", "status": "True"}), now);
    Ok(pod)
}

/// Sets a condition of a pod; the time of its last change moves only when its status does.
pub(super) fn set_condition(pod: &mut Value, mut condition: Value, now: jiff::Timestamp) {
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let conditions = pod["status"]["conditions"].as_array_mut().expect("it was made a list just now");
    let old = conditions.iter().position(|other| other["type"] == condition["type"]);
    let unchanged = old.is_some_and(|at| conditions[at]["status"] == condition["status"]);
    condition["lastProbeTime"] = Value::Null;
    condition["lastTransitionTime"] = match old {
        Some(at) if unchanged => conditions[at]["lastTransitionTime"].clone(),
        _ => verbs::object_meta::timestamp(now),
    };
    match old {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(pod: Value) -> Result<Value, String> {
        let binding = json!({"metadata": {"name": "web", "annotations": {"a": "b"}}, "target": {"kind": "Node", "name": "n1"}});
        assign(pod, &binding, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_bound_pod_has_its_node_and_is_scheduled() {
        let waiting = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": "x"});
        let pod = bound(json!({"metadata": {"name": "web"}, "spec": {}, "status": {"conditions": [waiting]}})).unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["metadata"]["annotations"]["a"], "b");
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        assert_eq!(pod["status"]["conditions"], json!([scheduled]));
    }

    #[test]
    fn a_pod_is_bound_once_and_not_while_it_goes() {
        let refused = |pod| bound(pod).unwrap_err();
        assert_eq!(
            refused(json!({"metadata": {"name": "web"}, "spec": {"nodeName": "n2"}})),
            "pod web is already assigned to node \"n2\""
        );
        let going = json!({"metadata": {"name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
        assert_eq!(refused(going), "pod web is being deleted, cannot be assigned to a host");
        let gated = json!({"metadata": {"name": "web"}, "spec": {"schedulingGates": [{"name": "g"}]}});
        assert_eq!(refused(gated), "pod web has non-empty .spec.schedulingGates");
    }
}
