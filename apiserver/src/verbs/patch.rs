//! PATCH: changes parts of an object, or of what a subresource of it stands for.

use crate::http::Call;
use crate::http::error::{Invalid, Status};
use crate::http::respond;
use crate::kind::Strategy;
use crate::openapi::{self, FieldValidation};
use crate::patch::{self, Patch};
use crate::verbs::tracking::{self, Tracking};
use crate::verbs::update::{Part, replace};
use crate::verbs::{Step, Target, apply, commit, object_meta};
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use std::sync::Mutex;

pub async fn patch(call: Call) -> Result<Response, Status> {
    call.accept()?;
    if patch::is_apply(call.content_type()) {
        return apply::apply(call).await;
    }
    let manager = manager(&call)?;
    let dry_run = call.info.query.dry_run()?;
    let validation = call.field_validation()?;
    let content_type = call.content_type().to_owned();
    let body = call.read_body().await?;
    let patch = Patch::parse(&content_type, &body)?;
    patch.check_served_for(&*call.strategy)?;
    let findings = match validation {
        FieldValidation::Ignore => vec![],
        _ => patch.findings(&body),
    };
    let strategy = &*call.strategy;
    let target =
        Target { server: &call.server, strategy, user: &call.user, namespace: call.namespace(), name: call.name(), dry_run };
    let part = Part::of(strategy, &call.info.subresource);
    let schema = crate::openapi::schema(strategy);
    let warnings = Mutex::new(vec![]);
    let patched = {
        let (target, patch, warnings, schema, findings) = (&target, &patch, &warnings, &schema, &findings);
        let tracking = Tracking::By(&manager);
        let mut decide = move |old: Value| -> futures::future::BoxFuture<'_, Result<Step, Status>> {
            Box::pin(async move {
                let schema = schema.as_ref().map(|schema| schema as &dyn crate::patch::strategic::PatchSchema);
                let patched = patch.apply(schema, &old);
                let mut new = patched.map_err(|error| if is_secret(strategy) { error.hidden() } else { error })?;
                *warnings.lock().expect("nothing panics while it holds this lock") =
                    conform(strategy, patch, findings, &mut new, validation)?;
                object_meta::check_type(strategy, &mut new)?;
                object_meta::check_name(target.name, target.namespace, &new)?;
                object_meta::preconditions_of_patch(&new).check(strategy.names(), &old)?;
                strategy.fill_defaults(&mut new);
                replace(target, part, tracking, old, new).await
            })
        };
        commit(target, &mut decide).await?.object
    };
    let warnings = warnings.into_inner().expect("nothing panics while it holds this lock");
    respond::object(&call, StatusCode::OK, &patched, &warnings)
}

/// Whether nothing of an object may be quoted, not even to who has changed it: errors end up in logs.
pub(crate) fn is_secret(strategy: &dyn Strategy) -> bool {
    let names = strategy.names();
    (names.group, names.plural) == ("", "secrets")
}

/// Holds the patched object to its schema; `findings` are those of the patch itself.
fn conform(
    strategy: &dyn Strategy,
    patch: &Patch,
    findings: &[String],
    new: &mut Value,
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    // What is unknown is asked for as warnings, so that it can be told together with what the patch has twice.
    let asked = if validation == FieldValidation::Strict { FieldValidation::Warn } else { validation };
    let before = (validation == FieldValidation::Strict).then(|| new.clone());
    let unknown = openapi::conform(strategy, new, asked).map_err(|status| {
        if status.reason == "BadRequest" { patch.refuse(new, openapi::why_not(&status), is_secret(strategy)) } else { status }
    })?;
    let all: Vec<String> = findings.iter().cloned().chain(unknown).collect();
    match before {
        Some(before) if !all.is_empty() => {
            Err(patch.refuse(&before, &format!("strict decoding error: {}", all.join(", ")), is_secret(strategy)))
        }
        _ => Ok(all),
    }
}

/// The manager of a patch that applies nothing.
pub(crate) fn manager(call: &Call) -> Result<String, Status> {
    if call.info.query.optional_flag("force").is_some() {
        let error = Invalid::forbidden("force", "may not be specified for non-apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
    }
    tracking::manager(call, "PatchOptions")
}
