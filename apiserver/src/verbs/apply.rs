//! PATCH with an apply configuration: makes the object what its owner wants, creating it if it isn't there.

use crate::http::Call;
use crate::http::authorize;
use crate::http::error::{Invalid, Status};
use crate::http::notes;
use crate::http::request_info::{RequestInfo, Verb};
use crate::http::respond;
use crate::kind::Strategy;
use crate::openapi::{self, FieldValidation};
use crate::patch::apply::{Elsewhere, Write};
use crate::verbs::create::create_tracked;
use crate::verbs::tracking::{self, Stamp, Tracking, name_errors};
use crate::verbs::update::{Part, replace};
use crate::verbs::{Step, Target, commit, object_meta};
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often it is tried anew when the object comes and goes meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// What a request asks to apply.
pub(crate) struct Configuration {
    pub wanted: Value,
    pub manager: String,
    pub force: bool,
}

impl Configuration {
    /// Reads the query and the body, which is YAML or JSON.
    pub(crate) fn read(call: &Call, body: &[u8]) -> Result<Self, Status> {
        let query = &call.info.query;
        let manager = query.get("fieldManager").unwrap_or_default().to_owned();
        let mut errors = name_errors("fieldManager", &manager);
        if manager.is_empty() {
            errors.push(Invalid::required("fieldManager", "is required for apply patch"));
        }
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &errors));
        }
        let unreadable = |why: &str| Status::bad_request(format!("error decoding YAML: {why}"));
        let (wanted, mut twice) = openapi::read_document(body).map_err(|why| unreadable(&why))?;
        if !twice.is_empty() {
            twice = openapi::keys_that_stand_twice(body);
        }
        if !wanted.is_object() {
            let word = openapi::word(&wanted);
            return Err(unreadable(&format!(
                "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"
            )));
        }
        match call.field_validation()? {
            FieldValidation::Strict if !twice.is_empty() => {
                let why = "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:";
                return Err(Status::bad_request(format!("{why}\n  {}", twice.join("\n  "))));
            }
            FieldValidation::Warn => twice.into_iter().for_each(notes::warn),
            _ => {}
        }
        Ok(Configuration { wanted, manager, force: query.flag("force") })
    }

    /// 400 unless it is of this kind.
    pub(crate) fn check_type(&self, api_version: &str, kind: &str) -> Result<(), Status> {
        let text = |field: &str| self.wanted[field].as_str().unwrap_or_default();
        if (text("apiVersion"), text("kind")) == (api_version, kind) {
            return Ok(());
        }
        let slash = if text("apiVersion").contains('/') { "" } else { "/" };
        Err(Status::bad_request(format!("invalid object type: {slash}{}, Kind={}", text("apiVersion"), text("kind"))))
    }
}

pub async fn apply(call: Call) -> Result<Response, Status> {
    let dry_run = call.info.query.dry_run()?;
    let body = call.read_body().await?;
    let configuration = Configuration::read(&call, &body)?;
    let strategy = &*call.strategy;
    configuration.check_type(&strategy.names().api_version(), strategy.names().kind)?;
    let target =
        Target { server: &call.server, strategy, user: &call.user, namespace: call.namespace(), name: call.name(), dry_run };
    let part = Part::of(strategy, &call.info.subresource);
    for _ in 0..ATTEMPTS_MAX {
        if let Some(applied) = apply_to_existing(&target, part, &configuration).await? {
            return respond::object(&call, StatusCode::OK, &applied, &[]);
        }
        if part != Part::Main {
            return Err(target.not_found());
        }
        authorize::authorize(&call.server, &call.user, &RequestInfo { verb: Verb::Create, ..call.info.clone() })?;
        match create(&target, &configuration).await {
            // Somebody was faster.
            Err(status) if status.reason == "AlreadyExists" => {}
            created => return respond::object(&call, StatusCode::CREATED, &created?, &[]),
        }
    }
    Err(Status::modified(strategy.names().group, strategy.names().plural, target.name))
}

/// What is applied to a Secret is not quoted.
fn told(strategy: &dyn Strategy, applied: Result<Value, crate::patch::apply::Error>) -> Result<Value, Status> {
    applied.map_err(|error| if super::patch::is_secret(strategy) { error.hidden().into() } else { error.into() })
}

/// `None` if the object isn't there.
async fn apply_to_existing(target: &Target<'_>, part: Part, configuration: &Configuration) -> Result<Option<Value>, Status> {
    let strategy = target.strategy;
    let found = &AtomicBool::new(false);
    let mut decide = move |old: Value| -> futures::future::BoxFuture<'_, Result<Step, Status>> {
        Box::pin(async move {
            found.store(true, Ordering::Relaxed);
            let stamp = Stamp::new(target.server, strategy);
            let write = stamp.write(strategy, part.subresource(), &configuration.manager);
            let mut elsewhere = Elsewhere::new();
            if !tracking::other_versions(strategy, &old).is_empty() {
                // What comes of it does not depend on who owns what; who is asked does.
                let forced = told(strategy, write.apply(Some(&old), &configuration.wanted, true))?;
                elsewhere = tracking::elsewhere(target.server, &write, strategy, &old, &forced).await?;
            }
            let write = Write { elsewhere: &elsewhere, ..write };
            let mut new = told(strategy, write.apply(Some(&old), &configuration.wanted, configuration.force))?;
            finish(target, &mut new)?;
            object_meta::preconditions_of_patch(&new).check(strategy.names(), &old)?;
            replace(target, part, Tracking::Done, old, new).await
        })
    };
    match commit(target, &mut decide).await {
        Ok(done) => Ok(Some(done.object)),
        Err(status) if status.code == StatusCode::NOT_FOUND && !found.load(Ordering::Relaxed) => Ok(None),
        Err(status) => Err(status),
    }
}

async fn create(target: &Target<'_>, configuration: &Configuration) -> Result<Value, Status> {
    let names = target.strategy.names();
    let stamp = Stamp::new(target.server, target.strategy);
    let write = stamp.write(target.strategy, "", &configuration.manager);
    let mut new = told(target.strategy, write.apply(None, &configuration.wanted, configuration.force))?;
    let wanted = object_meta::preconditions_of_patch(&new);
    if let Some(uid) = wanted.uid {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Status::conflict(names.group, names.plural, target.name, &why));
    }
    if wanted.resource_version.is_some() {
        return Err(Status::modified(names.group, names.plural, target.name));
    }
    finish(target, &mut new)?;
    create_tracked(target, Tracking::Done, new).await
}

/// What decoding does to an object that a client sends whole.
fn finish(target: &Target<'_>, new: &mut Value) -> Result<(), Status> {
    openapi::conform(target.strategy, new, FieldValidation::Ignore)?;
    object_meta::check_type(target.strategy, new)?;
    object_meta::check_name(target.name, target.namespace, new)?;
    target.strategy.fill_defaults(new);
    Ok(())
}
