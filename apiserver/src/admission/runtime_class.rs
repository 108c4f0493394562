//! RuntimeClass: what a pod of a class costs beside its containers, and on which nodes it can run.

use super::{AdmissionContext, Operation, Plugin, Reservations};
use crate::http::error::Status;
use crate::verbs::get::get_object;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_api::core::Toleration;
use slipway_api::node;

const OTHER_OVERHEAD: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

pub(super) struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    async fn admit(&self, context: &AdmissionContext<'_>, object: &mut Value, _: &mut Reservations) -> Result<(), Status> {
        if let Some(class) = class(context, object).await? {
            apply(object, &class).map_err(|why| context.forbidden(object, &why))?;
        }
        Ok(())
    }

    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        if !context.writes("", "pods", &[Operation::Create]) {
            return Ok(());
        }
        let class = class(context, object).await?;
        check(object, class.as_ref()).map_err(|why| context.forbidden(object, why))
    }
}

async fn class(context: &AdmissionContext<'_>, pod: &Value) -> Result<Option<node::RuntimeClass>, Status> {
    let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default();
    if name.is_empty() || !context.writes("", "pods", &[Operation::Create]) {
        return Ok(None);
    }
    let Some(strategy) = context.server.strategy("node.k8s.io", "v1", "runtimeclasses") else { return Ok(None) };
    match get_object(context.server, &*strategy, "", name).await {
        Ok(class) => Ok(node::RuntimeClass::deserialize(&class).ok()),
        Err(status) if status.reason == "NotFound" => {
            Err(context.forbidden(pod, &format!("pod rejected: RuntimeClass \"{name}\" not found")))
        }
        Err(status) => Err(status),
    }
}

fn overhead(class: &node::RuntimeClass) -> Option<Value> {
    class.overhead.as_ref().map(|overhead| json!(overhead.pod_fixed.clone().unwrap_or_default()))
}

fn apply(pod: &mut Value, class: &node::RuntimeClass) -> Result<(), String> {
    if let Some(overhead) = overhead(class) {
        match pod["spec"].get("overhead").filter(|own| !own.is_null()) {
            Some(own) if *own != overhead => return Err(OTHER_OVERHEAD.into()),
            Some(_) => {}
            None => pod["spec"]["overhead"] = overhead,
        }
    }
    let Some(scheduling) = &class.scheduling else { return Ok(()) };
    for (key, value) in scheduling.node_selector.iter().flatten() {
        match pod["spec"].get("nodeSelector").and_then(|selector| selector.get(key)).and_then(Value::as_str) {
            Some(own) if own != value => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
                ));
            }
            Some(_) => {}
            None => pod["spec"]["nodeSelector"][key] = json!(value),
        }
    }
    let more = scheduling.tolerations.clone().unwrap_or_default();
    if !more.is_empty() {
        let own = Vec::<Toleration>::deserialize(&pod["spec"]["tolerations"]).unwrap_or_default();
        pod["spec"]["tolerations"] = json!(merge(own, more));
    }
    Ok(())
}

fn check(pod: &Value, class: Option<&node::RuntimeClass>) -> Result<(), &'static str> {
    let own = pod["spec"].get("overhead").and_then(Value::as_object).filter(|own| !own.is_empty());
    match (class.and_then(overhead), own) {
        (None, Some(_)) => Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"),
        (Some(wanted), own) if wanted.as_object().is_some_and(|wanted| !wanted.is_empty()) && wanted.as_object() != own => {
            Err(OTHER_OVERHEAD)
        }
        _ => Ok(()),
    }
}

/// Both lists, without those that another says already.
fn merge(first: Vec<Toleration>, second: Vec<Toleration>) -> Vec<Toleration> {
    let all: Vec<Toleration> = first.into_iter().chain(second).collect();
    let mut merged: Vec<Toleration> = vec![];
    for (index, one) in all.iter().enumerate() {
        let later = all[index + 1..].iter().filter(|other| *other != one);
        if !merged.iter().chain(later).any(|other| covers(other, one)) {
            merged.push(one.clone());
        }
    }
    merged
}

/// Whether whatever `one` tolerates `wide` does too.
fn covers(wide: &Toleration, one: &Toleration) -> bool {
    if wide == one {
        return true;
    }
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    let wider = |wide: &Option<String>, one: &Option<String>| given(wide).is_empty() || given(wide) == given(one);
    if !wider(&wide.key, &one.key) || !wider(&wide.effect, &one.effect) {
        return false;
    }
    if given(&wide.effect) == "NoExecute"
        && let Some(seconds) = wide.toleration_seconds
        && one.toleration_seconds.is_none_or(|own| own > seconds)
    {
        return false;
    }
    let equal = |toleration: &Toleration| ["", "Equal"].contains(&given(&toleration.operator).as_str());
    if equal(wide) { equal(one) && given(&wide.value) == given(&one.value) } else { given(&wide.operator) == "Exists" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(more: Value) -> node::RuntimeClass {
        let mut it = json!({"metadata": {"name": "c"}, "handler": "h"});
        it.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        serde_json::from_value(it).unwrap()
    }

    fn applied(spec: Value, more: Value) -> Result<Value, String> {
        let mut pod = json!({"spec": spec});
        apply(&mut pod, &class(more)).map(|()| pod["spec"].clone())
    }

    #[test]
    fn a_pod_has_its_class_overhead_and_no_other() {
        let fixed = || json!({"overhead": {"podFixed": {"cpu": "100m"}}});
        assert_eq!(applied(json!({}), fixed()), Ok(json!({"overhead": {"cpu": "100m"}})));
        assert_eq!(applied(json!({"overhead": {"cpu": "1"}}), fixed()), Err(OTHER_OVERHEAD.into()));
        let pod = json!({"spec": {"overhead": {"cpu": "100m"}}});
        assert_eq!(check(&pod, Some(&class(fixed()))), Ok(()));
        assert_eq!(check(&json!({"spec": {}}), Some(&class(fixed()))), Err(OTHER_OVERHEAD));
        assert_eq!(
            check(&pod, Some(&class(json!({})))),
            Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        );
    }

    #[test]
    fn a_pod_goes_where_its_class_runs() {
        let scheduling = || json!({"scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}, {"key": "m", "value": "v"}]}});
        let spec = applied(
            json!({"nodeSelector": {"c": "d"}, "tolerations": [{"key": "k", "operator": "Equal", "value": "v"}, {"key": "m", "value": "v"}]}),
            scheduling(),
        );
        assert_eq!(
            spec,
            Ok(
                json!({"nodeSelector": {"a": "b", "c": "d"}, "tolerations": [{"key": "m", "value": "v"}, {"key": "k", "operator": "Exists"}]})
            )
        );
        assert_eq!(
            applied(json!({"nodeSelector": {"a": "x"}}), scheduling()),
            Err("conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = x".into())
        );
    }
}
