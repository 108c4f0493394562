//! Nobody grants what they do not hold: asked of every write of a role or binding.

use super::{GROUP, RoleRef, Rule, missing, quoted, rule};
use crate::admission::{AdmissionContext, Operation};
use crate::authorization::{Attributes, decide};
use crate::http::authenticate::User;
use crate::http::error::Status;
use serde::Deserialize;
use serde_json::{Value, json};

/// Refuses a role that grants more than the writer holds, and a binding to such a role, unless the writer may `escalate`
/// or `bind` it. `object` is what is going to be written, before it is validated.
pub fn check(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    let names = context.strategy.names();
    let written = matches!(context.operation, Operation::Create | Operation::Update);
    if names.group != GROUP || !written || !context.subresource.is_empty() || context.user.is_in(User::MASTERS) {
        return Ok(());
    }
    if context.old.is_some_and(|old| differs_for_collector_only(old, object)) {
        return Ok(());
    }
    match names.plural {
        "roles" | "clusterroles" => check_role(context, object),
        "rolebindings" | "clusterrolebindings" => check_binding(context, object),
        _ => Ok(()),
    }
}

/// Owners and finalizers may change without a question, so that what is deleted can go.
fn differs_for_collector_only(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|field, _| {
                !["ownerReferences", "finalizers", "managedFields", "resourceVersion"].contains(&field.as_str())
            });
        }
        object
    };
    rest(old) == rest(new)
}

fn check_role(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    let names = context.strategy.names();
    // The name in the path; a creation has none.
    let name = if context.operation == Operation::Create { "" } else { context.name };
    let escalate = Attributes { name, namespace: context.namespace, ..Attributes::resource("escalate", GROUP, names.plural) };
    if decide(context.server, context.user, &escalate).allowed {
        return Ok(());
    }
    let rules = object.get("rules").filter(|rules| !rules.is_null());
    let rules = rules.map(Vec::<Rule>::deserialize).transpose();
    let rules = rules.map_err(|error| Status::bad_request(error.to_string()))?.unwrap_or_default();
    if let Some(why) = why_not(context, &rules) {
        return Err(context.forbidden(object, &why));
    }
    let gathers = |object: &Value| object.get("aggregationRule").is_some_and(|rule| !rule.is_null());
    if (gathers(object) || context.old.is_some_and(gathers)) && why_not(context, &everything()).is_some() {
        return Err(context.forbidden(object, "must have cluster-admin privileges to use an aggregationRule"));
    }
    Ok(())
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
}

fn check_binding(context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
    let Ok(role) = RoleRef::deserialize(&object["roleRef"]) else { return Ok(()) };
    let (plural, singular) = match role.kind.as_str() {
        "ClusterRole" => ("clusterroles", "clusterrole"),
        "Role" if !context.namespace.is_empty() => ("roles", "role"),
        // Validation refuses it.
        _ => return Ok(()),
    };
    let namespace = context.namespace;
    let bind = Attributes { name: &role.name, namespace, ..Attributes::resource("bind", &role.api_group, plural) };
    if decide(context.server, context.user, &bind).allowed {
        return Ok(());
    }
    let rules = context.server.rbac.rules_of(context.server, &role, namespace);
    let rules = rules.map_err(|_| {
        Status::not_found(GROUP, singular, &role.name).with_details(json!({"name": role.name, "group": GROUP, "kind": singular}))
    })?;
    match why_not(context, &rules) {
        Some(why) => Err(context.forbidden(object, &why)),
        None => Ok(()),
    }
}

/// Why the writer may not grant these rules.
fn why_not(context: &AdmissionContext<'_>, wanted: &[Rule]) -> Option<String> {
    let (held, errors) = context.server.rbac.rules_for(context.server, context.user, context.namespace);
    let missing = missing(&held, wanted);
    if missing.is_empty() {
        return None;
    }
    let (user, groups) = (&context.user.name, quoted(&context.user.groups));
    let missing = rule::listed(missing);
    let mut why =
        format!("user {user:?} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{missing}");
    if !errors.is_empty() {
        why += &format!("; resolution errors: [{}]", errors.join(" "));
    }
    Some(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_collector_changes_is_no_grant() {
        let role = |finalizers: Value, verb: &str| json!({"metadata": {"name": "r", "finalizers": finalizers}, "rules": [{"verbs": [verb]}]});
        assert!(differs_for_collector_only(&role(json!(["x"]), "get"), &role(json!([]), "get")));
        assert!(!differs_for_collector_only(&role(json!(["x"]), "get"), &role(json!([]), "list")));
    }
}
