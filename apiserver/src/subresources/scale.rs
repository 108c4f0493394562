//! `scale`: the number of replicas of a Deployment, ReplicaSet or StatefulSet, in one form for all kinds.

use crate::http::Call;
use crate::http::error::{Invalid, Status};
use crate::http::negotiate::{Accept, Form};
use crate::http::request_info::Verb;
use crate::http::respond;
use crate::kind::Strategy;
use crate::openapi;
use crate::patch::apply::{Element, Managed, Schema, Scope, Write, put_entries, take_entries};
use crate::patch::{Patch, is_apply};
use crate::verbs::apply::Configuration;
use crate::verbs::tracking::{self, Stamp, Tracking};
use crate::verbs::update::{Part, replace};
use crate::verbs::{self, Preconditions, Step, Target, commit};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use slipway_api::meta::LabelSelector;
use slipway_api::selector::{Labels, Selector};

/// What the client sent.
enum Change {
    Replace(Value),
    Patch(Patch),
    Apply(Configuration),
}

const API_VERSION: &str = "autoscaling/v1";
const SCHEMA: &str = "io.k8s.api.autoscaling.v1.Scale";

pub async fn handle(call: Call) -> Result<Response, Status> {
    let accept = Accept { form: Form::Object, ..call.accept()? };
    if call.info.verb == Verb::Get {
        let object = verbs::get_object(&call.server, &*call.strategy, call.namespace(), call.name()).await?;
        return Ok(respond::value(accept, StatusCode::OK, &of(&*call.strategy, &object)));
    }
    let dry_run = call.info.query.dry_run()?;
    let (change, manager) = read(&call).await?;
    let strategy = &*call.strategy;
    let target =
        Target { server: &call.server, strategy, user: &call.user, namespace: call.namespace(), name: call.name(), dry_run };
    let object = {
        let (target, change, manager) = (&target, &change, manager.as_str());
        let mut decide = move |old: Value| -> futures::future::BoxFuture<'_, Result<Step, Status>> {
            Box::pin(async move {
                let new = scaled(target, change, manager, &old)?;
                replace(target, Part::Scale, Tracking::Done, old, new).await
            })
        };
        commit(target, &mut decide).await?.object
    };
    Ok(respond::value(accept, StatusCode::OK, &of(strategy, &object)))
}

/// What the client sent, and who it is.
async fn read(call: &Call) -> Result<(Change, String), Status> {
    if call.info.verb == Verb::Patch && is_apply(call.content_type()) {
        let body = call.read_body().await?;
        let configuration = Configuration::read(call, &body)?;
        configuration.check_type(API_VERSION, "Scale")?;
        let manager = configuration.manager.clone();
        return Ok((Change::Apply(configuration), manager));
    }
    let manager = match call.info.verb {
        Verb::Patch => verbs::patch::manager(call)?,
        _ => tracking::manager(call, "UpdateOptions")?,
    };
    let body = call.read_body().await?;
    let change = match call.info.verb {
        Verb::Patch => Change::Patch(Patch::parse(call.content_type(), &body)?),
        _ => Change::Replace(super::parse_body(call.content_type(), &body)?),
    };
    Ok((change, manager))
}

/// The object with the wanted number of replicas, and with their owner.
fn scaled(target: &Target<'_>, change: &Change, manager: &str, old: &Value) -> Result<Value, Status> {
    let custom = target.strategy.custom().and_then(|custom| custom.scale.as_ref());
    let names = custom.and_then(|scale| scale.spec.fields()).unwrap_or_else(|| vec!["spec", "replicas"]);
    let replicas_path: Vec<Element> = names.into_iter().map(Element::field).collect();
    let stamp = Stamp::new(target.server, target.strategy);
    let write = Write {
        schema: openapi::Schema::of(SCHEMA).map_or(Schema::Deduced, Schema::Builtin),
        scope: Scope::All,
        manager,
        api_version: API_VERSION,
        subresource: "scale",
        now: stamp.now(),
        elsewhere: &crate::patch::apply::Elsewhere::new(),
    };
    let mut new = old.clone();
    let owners = Managed::read(&take_entries(&mut new)).unwrap_or_default();
    let mut current = of(target.strategy, old);
    put_entries(&mut current, owners.of_scale(&replicas_path, API_VERSION).write());
    let wanted = match change {
        Change::Replace(scale) => written(&write, &current, scale.clone()),
        Change::Patch(patch) => written(&write, &current, patch.apply(None, &current)?),
        Change::Apply(configuration) => write.apply(Some(&current), &configuration.wanted, configuration.force)?,
    };
    let replicas = json!(check(&wanted, &current, target)?);
    match custom {
        Some(scale) => scale.spec.set(&mut new, replicas),
        None => new["spec"]["replicas"] = replicas,
    }
    let scale = Managed::read(&wanted["metadata"]["managedFields"]).unwrap_or_default();
    put_entries(&mut new, owners.with_scale(scale, &replicas_path, &target.strategy.names().api_version()).write());
    Ok(new)
}

/// The Scale as it was sent, with the owners that it has then.
fn written(write: &Write<'_>, current: &Value, mut wanted: Value) -> Value {
    if wanted["metadata"].is_object() {
        write.update(Some(current), &mut wanted);
    }
    wanted
}

/// The Scale of an object.
pub(crate) fn of(strategy: &dyn Strategy, object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let paths = strategy.custom().and_then(|custom| custom.scale.as_ref());
    let (wanted, is, selector) = match paths {
        None => (
            object["spec"]["replicas"].as_i64(),
            object["status"]["replicas"].as_i64(),
            selector(&object["spec"]["selector"]).map(|selector| selector.to_string()),
        ),
        // A custom kind says where they stand, and has the selector as text.
        Some(paths) => (
            paths.spec.first(object).and_then(Value::as_i64),
            paths.status.first(object).and_then(Value::as_i64),
            paths.selector.as_ref().and_then(|path| path.first(object)?.as_str().map(str::to_owned)),
        ),
    };
    let mut spec = json!({});
    if let Some(replicas) = wanted.filter(|replicas| *replicas != 0) {
        spec["replicas"] = json!(replicas);
    }
    let mut status = json!({"replicas": is.unwrap_or(0)});
    if let Some(selector) = selector.filter(|selector| paths.is_none() || !selector.is_empty()) {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A ReplicationController has a map of labels where the others have a label selector.
fn selector(selector: &Value) -> Option<Selector> {
    if let Ok(labels) = serde_json::from_value::<Labels>(selector.clone()) {
        return Some(Selector::from_labels(&labels));
    }
    let selector: LabelSelector = serde_json::from_value(selector.clone()).ok()?;
    Selector::from_label_selector(&selector).ok()
}

/// Holds the wanted Scale against the current one, and answers how many replicas it asks for.
fn check(wanted: &Value, current: &Value, target: &Target<'_>) -> Result<i64, Status> {
    let names = target.strategy.names();
    let text = |field: &str| wanted["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (kind, version) = (wanted["kind"].as_str(), wanted["apiVersion"].as_str());
    if kind != Some("Scale") || version != Some("autoscaling/v1") {
        let why = format!("expected an autoscaling/v1 Scale, got {} {}", version.unwrap_or_default(), kind.unwrap_or_default());
        return Err(Status::bad_request(why));
    }
    for (field, expected) in [("name", target.name), ("namespace", target.namespace)] {
        if let Some(other) = text(field).filter(|other| other != expected) {
            let why = format!("the {field} of the object ({other}) does not match the {field} on the URL ({expected})");
            return Err(Status::bad_request(why));
        }
    }
    let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
    preconditions.check(names, current)?;
    let replicas = match wanted["spec"].get("replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().filter(|count| i32::try_from(*count).is_ok()).ok_or_else(|| {
            Status::bad_request(format!(
                "json: cannot unmarshal {value} into Go struct field ScaleSpec.spec.replicas of type int32"
            ))
        })?,
    };
    if replicas < 0 {
        let error = Invalid::value("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", target.name, &[error]));
    }
    Ok(replicas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Builtin;

    #[test]
    fn the_scale_of_an_object_names_its_pods_by_a_selector() {
        let scale = of(
            &Builtin::<slipway_api::apps::Deployment>::new(),
            &json!({
                "metadata": {"name": "web", "namespace": "a", "uid": "u", "resourceVersion": "7", "labels": {"x": "y"}},
                "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "2", "a": "1"}}},
                "status": {"replicas": 2},
            }),
        );
        assert_eq!(scale["metadata"], json!({"name": "web", "namespace": "a", "uid": "u", "resourceVersion": "7"}));
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=1,b=2"}));
        let scale = of(&Builtin::<slipway_api::apps::Deployment>::new(), &json!({"spec": {"selector": {"app": "r"}}}));
        assert_eq!(scale["status"]["selector"], "app=r", "that of a ReplicationController");
    }
}
