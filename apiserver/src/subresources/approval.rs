//! `certificatesigningrequests/approval`: an administrator's yes or no. It changes `status.conditions`, what a writer may say in
//! the metadata, and nothing else.

use crate::http::Call;
use crate::http::error::{Invalid, Status};
use crate::http::request_info::Verb;
use crate::http::respond;
use crate::patch::apply::{put_entries, take_entries};
use crate::patch::{Patch, is_apply};
use crate::verbs::apply::Configuration;
use crate::verbs::tracking::{self, Stamp};
use crate::verbs::{self, Preconditions, Target, object_meta};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

/// What of the metadata is the writer's.
const METADATA: [&str; 4] = ["annotations", "finalizers", "labels", "ownerReferences"];

enum Change {
    Replace(Value),
    Patch(Patch),
    Apply(Configuration),
}

pub async fn handle(call: Call) -> Result<Response, Status> {
    if call.info.verb == Verb::Get {
        return verbs::get::get(call).await;
    }
    let dry_run = call.info.query.dry_run()?;
    let (change, manager, warnings) = if call.info.verb == Verb::Patch && is_apply(call.content_type()) {
        let body = call.read_body().await?;
        let configuration = Configuration::read(&call, &body)?;
        configuration.check_type(&call.strategy.names().api_version(), call.strategy.names().kind)?;
        let manager = configuration.manager.clone();
        (Change::Apply(configuration), manager, vec![])
    } else if call.info.verb == Verb::Patch {
        let manager = verbs::patch::manager(&call)?;
        let body = call.read_body().await?;
        (Change::Patch(Patch::parse(call.content_type(), &body)?), manager, vec![])
    } else {
        let manager = tracking::manager(&call, "UpdateOptions")?;
        let (object, warnings) = call.read_object().await?;
        (Change::Replace(object), manager, warnings)
    };
    let target = Target { dry_run, ..Target::new(&call.server, &*call.strategy, &call.user, call.namespace(), call.name()) };
    let now = call.server.now();
    let approved = verbs::guaranteed_update(&target, &Preconditions::default(), |old| {
        let stamp = Stamp::new(&call.server, target.strategy);
        let write = stamp.write(target.strategy, "approval", &manager);
        let mut wanted = match &change {
            Change::Replace(object) => object.clone(),
            Change::Patch(patch) => patch.apply(None, &old)?,
            Change::Apply(configuration) => write.apply(Some(&old), &configuration.wanted, configuration.force)?,
        };
        if !matches!(change, Change::Apply(_)) {
            write.update(Some(&old), &mut wanted);
        }
        let owners = take_entries(&mut wanted);
        let mut decided = decide(old, wanted, &target, now)?;
        take_entries(&mut decided);
        put_entries(&mut decided, owners);
        Ok(decided)
    })
    .await?;
    respond::object(&call, StatusCode::OK, &approved, &warnings)
}

/// The request with the wanted conditions.
fn decide(mut request: Value, wanted: Value, target: &Target<'_>, now: jiff::Timestamp) -> Result<Value, Status> {
    crate::admission::check_signer(target, "approve", &request)?;
    let text = |field: &str| wanted["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if text("name").is_some_and(|name| name != target.name) {
        return Err(Status::bad_request("the name of the object does not match the name on the URL"));
    }
    let names = target.strategy.names();
    let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
    preconditions.check(names, &request)?;
    let old = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut conditions = wanted["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let errors = validate(&conditions, &old);
    if !errors.is_empty() {
        return Err(Status::invalid(names.group, names.kind, target.name, &errors));
    }
    for condition in &mut conditions {
        let before = old.iter().find(|other| other["type"] == condition["type"]);
        if condition.get("lastUpdateTime").is_none_or(Value::is_null) {
            condition["lastUpdateTime"] = object_meta::timestamp(now);
        }
        condition["lastTransitionTime"] = match before.filter(|before| before["status"] == condition["status"]) {
            Some(before) if before.get("lastTransitionTime").is_some() => before["lastTransitionTime"].clone(),
            _ => object_meta::timestamp(now),
        };
    }
    if !request["status"].is_object() {
        request["status"] = json!({});
    }
    request["status"]["conditions"] = conditions.into();
    for field in METADATA {
        match wanted["metadata"].get(field).filter(|value| !value.is_null()) {
            Some(value) => request["metadata"][field] = value.clone(),
            None => drop(request["metadata"].as_object_mut().map(|metadata| metadata.remove(field))),
        }
    }
    let errors = object_meta::validate(target.strategy, &request);
    if !errors.is_empty() {
        return Err(Status::invalid(names.group, names.kind, target.name, &errors));
    }
    Ok(request)
}

/// A decision is final, and there is one.
fn validate(conditions: &[Value], old: &[Value]) -> Vec<Invalid> {
    let has = |list: &[Value], kind: &str| list.iter().any(|condition| condition["type"] == kind);
    let mut errors = vec![];
    for (at, condition) in conditions.iter().enumerate() {
        let field = format!("status.conditions[{at}]");
        let kind = condition["type"].as_str().unwrap_or_default();
        if kind.is_empty() {
            errors.push(Invalid::required(format!("{field}.type"), ""));
        }
        match condition["status"].as_str() {
            None | Some("") => errors.push(Invalid::required(format!("{field}.status"), "")),
            Some("True") => {}
            Some("False" | "Unknown") if !matches!(kind, "Approved" | "Denied" | "Failed") => {}
            Some(other) if matches!(kind, "Approved" | "Denied" | "Failed") => {
                errors.push(Invalid::not_supported(format!("{field}.status"), &json!(other), &["True"]));
            }
            Some(other) => {
                errors.push(Invalid::not_supported(format!("{field}.status"), &json!(other), &["False", "True", "Unknown"]));
            }
        }
        if conditions[..at].iter().any(|other| other["type"] == condition["type"]) {
            errors.push(Invalid::duplicate(format!("{field}.type"), &json!(kind)));
        }
    }
    if has(conditions, "Approved") && has(conditions, "Denied") {
        let why = "Approved and Denied conditions are mutually exclusive";
        errors.push(Invalid::value("status.conditions", &json!("Denied"), why));
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if has(old, kind) && !has(conditions, kind) {
            let why = format!("updates may not remove a condition of type \"{kind}\"");
            errors.push(Invalid::forbidden("status.conditions", &why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(conditions: Value, old: Value) -> usize {
        validate(conditions.as_array().unwrap(), old.as_array().unwrap()).len()
    }

    #[test]
    fn a_decision_is_one_and_final() {
        let approved = json!({"type": "Approved", "status": "True"});
        let denied = json!({"type": "Denied", "status": "True"});
        assert_eq!(check(json!([approved]), json!([])), 0);
        assert_eq!(check(json!([approved, denied]), json!([])), 1);
        assert_eq!(check(json!([]), json!([approved])), 1);
        assert_eq!(check(json!([approved, approved]), json!([])), 1);
        assert_eq!(check(json!([{"type": "Approved", "status": "False"}]), json!([])), 1);
    }
}
