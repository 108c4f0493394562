//! Mutating policies: each mutation changes the object by a patch or by a part of it that is merged in.

use super::evaluate::{Inputs, conditions_hold, with_scope};
use super::{Binding, Mutation, Policy, params};
use crate::admission::AdmissionContext;
use crate::admission::dynamic::matching::Matched;
use crate::admission::dynamic::{self, Request, Round};
use crate::cel::value::{Key, Map};
use crate::cel::{Budget, Frame, Value as Cel};
use crate::http::error::Status;
use crate::patch;
use serde_json::Value;

/// Asks every policy that matches, in the order of their names; the second time, those that want to be asked again.
pub async fn mutate(
    context: &AdmissionContext<'_>,
    object: &mut Value,
    old: Option<&Value>,
    compiled: &dynamic::Compiled,
    round: &mut Round,
) -> Result<(), Status> {
    for policy in compiled.mutating_policies.iter().filter(|policy| round.number == 0 || policy.reinvoked) {
        let before = object.clone();
        let request = Request::new(context, Some(&before), old);
        let Some((matched, bindings)) = policy.matches(&request)? else { continue };
        for binding in bindings {
            let changed = apply(policy, binding, context, object, old, &matched).await;
            match changed {
                Ok(()) => {}
                Err(_) if policy.fails_open => {}
                Err(why) => {
                    let why = format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name);
                    return Err(context.forbidden(object, &why));
                }
            }
            tokio::task::yield_now().await;
        }
        if *object != before {
            dynamic::settle(context, object)?;
            round.policy_changed = true;
        }
    }
    Ok(())
}

async fn apply(
    policy: &Policy,
    binding: &Binding,
    context: &AdmissionContext<'_>,
    object: &mut Value,
    old: Option<&Value>,
    matched: &Matched,
) -> Result<(), String> {
    let mut budget = Budget::new(Budget::PER_REQUEST);
    let all_params = {
        let current = object.clone();
        let request = Request::new(context, Some(&current), old);
        params::of(policy, binding, &request).await.map_err(|why| format!("failed to configure binding: {why}"))?
    };
    for one in &all_params {
        for (index, mutation) in policy.mutations.iter().enumerate() {
            let current = object.clone();
            let request = Request::new(context, Some(&current), old);
            let inputs = match matched {
                Matched::As(strategy) => Inputs::new(&request, Some(&**strategy)).await,
                _ => Inputs::new(&request, None).await,
            };
            let inputs = inputs.map_err(|status| status.message)?;
            let patch = with_scope(policy, &inputs, one.as_ref(), |scope| {
                if index == 0 && !conditions_hold(&policy.conditions, scope)? {
                    return Ok(None);
                }
                evaluate(mutation, scope, &mut budget).map(Some)
            });
            // Conditions that don't hold end it.
            let Some(patch) = patch?? else { break };
            change(context, object, mutation, &patch)?;
        }
    }
    Ok(())
}

/// The patch that a mutation comes to, as JSON.
fn evaluate<'a>(mutation: &Mutation, scope: &[(&'a str, Cel<'a>)], budget: &mut Budget) -> Result<Value, String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("expression '{}' resulted in error: {error}", mutation.expression.trim());
    let program = mutation.program.as_ref().map_err(|error| failed(error))?;
    let value = program.evaluate(scope, budget).map_err(|error| failed(&error))?;
    if !mutation.is_patch {
        check_names(&value, "Object").map_err(|error| failed(&error))?;
    }
    value.to_json(&mut Frame::new(vec![], budget)).map_err(|error| failed(&error))
}

/// Each built object is called after the path at which it stands.
fn check_names(value: &Cel<'_>, path: &str) -> Result<(), String> {
    match value {
        Cel::Map(Map::Struct(name, fields)) => {
            if &**name != path {
                return Err(format!(
                    "unexpected type name \"{name}\", expected \"{path}\", which matches field name path from root Object type"
                ));
            }
            for (key, value) in fields.iter() {
                if let Key::String(field) = key {
                    check_names(value, &format!("{path}.{}", field.as_str()))?;
                }
            }
            Ok(())
        }
        Cel::List(list) => list.iter().try_for_each(|item| match &item {
            Cel::Map(Map::Struct(name, _)) if **name == format!("{path}.item") => check_names(&item, &format!("{path}.item")),
            other => check_names(other, path),
        }),
        _ => Ok(()),
    }
}

fn change(context: &AdmissionContext<'_>, object: &mut Value, mutation: &Mutation, patch: &Value) -> Result<(), String> {
    if mutation.is_patch {
        let mut patch = patch.clone();
        // What is built by `JSONPatch{…}` has only the fields that were given.
        for operation in patch.as_array_mut().into_iter().flatten() {
            if matches!(operation["op"].as_str(), Some("add" | "replace" | "test")) && operation.get("value").is_none() {
                operation["value"] = Value::Null;
            }
        }
        return patch::json::apply(object, &patch).map_err(|error| format!("JSON Patch: {error}"));
    }
    for field in ["/metadata/name", "/metadata/namespace", "/metadata/uid", "/metadata/resourceVersion"] {
        let given = patch.pointer(field).filter(|given| !given.is_null());
        if given.is_some_and(|given| Some(given) != object.pointer(field)) {
            return Err(format!("{}: may not be changed", field.trim_start_matches('/').replace('/', ".")));
        }
    }
    if !patch.is_object() {
        return Err("invalid ApplyConfiguration: not an object".into());
    }
    let mut patch = patch.clone();
    for field in ["kind", "apiVersion"] {
        patch[field] = object[field].clone();
    }
    *object = patch::apply::merge(object, &patch, context.strategy.merge_schema());
    Ok(())
}
