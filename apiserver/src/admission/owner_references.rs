//! OwnerReferencesPermissionEnforcement: who names an owner has the garbage collector delete for him, and so must have the
//! right to. As in Kubernetes it is off unless `Options::owner_references_permission_enforcement` is set.

use super::{AdmissionContext, Operation, Plugin};
use crate::authorization::{Attributes, Decision, decide};
use crate::http::error::Status;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use slipway_api::meta::OwnerReference;

pub(super) struct OwnerReferencesPermissionEnforcement;

#[async_trait]
impl Plugin for OwnerReferencesPermissionEnforcement {
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        let enforced = context.server.options.owner_references_permission_enforcement;
        let written = matches!(context.operation, Operation::Create | Operation::Update) && context.subresource != "status";
        if !enforced || !written {
            return Ok(());
        }
        let (new, old) = (owners(object), context.old.map(owners));
        if let Some(old) = &old
            && *old != new
        {
            let names = context.strategy.names();
            let asked = Attributes {
                name: context.name,
                namespace: context.namespace,
                version: names.version,
                ..Attributes::resource("delete", names.group, names.plural)
            };
            let decision = decide(context.server, context.user, &asked);
            if !decision.allowed {
                let why = format!("cannot set an ownerRef on a resource you can't delete: {}, <nil>", reason(&decision));
                return Err(context.forbidden(object, &why));
            }
        }
        for owner in blocking(&new, &old.unwrap_or_default()) {
            let decision = may_finalize(context, owner);
            if !decision.as_ref().is_some_and(|decision| decision.allowed) {
                let what = "cannot set blockOwnerDeletion";
                let why = match decision {
                    None => format!(
                        "{what} in this case because cannot find RESTMapping for APIVersion {} Kind {}",
                        owner.api_version, owner.kind
                    ),
                    Some(decision) => {
                        let reason = reason(&decision);
                        format!("{what} if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>")
                    }
                };
                return Err(context.forbidden(object, &why));
            }
        }
        Ok(())
    }
}

fn owners(object: &Value) -> Vec<OwnerReference> {
    Vec::deserialize(&object["metadata"]["ownerReferences"]).unwrap_or_default()
}

fn reason(decision: &Decision) -> &str {
    decision.reason.as_deref().unwrap_or("")
}

/// Those that begin to hold their owner back.
fn blocking<'a>(new: &'a [OwnerReference], old: &'a [OwnerReference]) -> impl Iterator<Item = &'a OwnerReference> {
    let blocks = |owner: &OwnerReference| owner.block_owner_deletion == Some(true);
    new.iter().filter(move |owner| blocks(owner) && !old.iter().any(|before| before.uid == owner.uid && blocks(before)))
}

/// `None` if no such kind is served.
fn may_finalize(context: &AdmissionContext<'_>, owner: &OwnerReference) -> Option<Decision> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let kinds = context.server.strategies();
    let of_owner = kinds
        .iter()
        .map(|strategy| strategy.names())
        .find(|names| (names.group, names.version, names.kind) == (group, version, owner.kind.as_str()))?;
    let asked = Attributes {
        name: &owner.name,
        namespace: if of_owner.namespaced { context.namespace } else { "" },
        version,
        subresource: "finalizers",
        ..Attributes::resource("update", group, of_owner.plural)
    };
    Some(decide(context.server, context.user, &asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_begins_to_block_is_asked_about() {
        let list = |references: Value| owners(&json!({"metadata": {"ownerReferences": references}}));
        let owner = |uid: &str, blocks: bool| json!({"apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid, "blockOwnerDeletion": blocks});
        let new = list(json!([owner("a", true), owner("b", true), owner("c", false)]));
        let old = list(json!([owner("a", true), owner("b", false)]));
        let names: Vec<&str> = blocking(&new, &old).map(|owner| owner.name.as_str()).collect();
        assert_eq!(names, ["b"]);
    }
}
