//! DELETE: of one object, or of a collection.
//!
//! An object with finalizers, or of a kind that is deleted gracefully, is only marked: it goes when the last finalizer
//! is removed (see `update`) or, for a pod, when the node agent deletes it with a grace of 0.

use crate::admission::{self, AdmissionContext, Operation};
use crate::custom_resources::presented;
use crate::http::Call;
use crate::http::error::{Invalid, Status};
use crate::http::negotiate::{Accept, Form};
use crate::http::respond;
use crate::verbs::list_options::{ListOptions, Selection};
use crate::verbs::object_meta::{has_finalizers, is_deleting, timestamp};
use crate::verbs::{Preconditions, Step, Target, commit, status_of};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Namespaces that every cluster has.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// `metav1.DeleteOptions`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub preconditions: Option<DeletePreconditions>,
    pub orphan_dependents: Option<bool>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation_policy: Option<String>,
    pub dry_run: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeletePreconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What became of the object.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone; this is its last state.
    Gone(Value),
    /// It is marked, and goes later.
    Marked(Value),
}

pub async fn delete(call: Call) -> Result<Response, Status> {
    call.accept()?;
    let options = read_options(&call).await?;
    let target = target(&call, call.name(), &options)?;
    let names = call.strategy.names();
    match delete_object(&target, &options).await? {
        Deleted::Gone(object) if names.kind == "Namespace" || call.strategy.delete_returns_object() => {
            respond::object(&call, StatusCode::OK, &object, &[])
        }
        Deleted::Gone(object) => {
            let accept = Accept { form: Form::Object, ..call.accept()? };
            Ok(respond::value(accept, StatusCode::OK, &success(names.group, names.plural, &object)))
        }
        Deleted::Marked(object) => {
            let code = if options.orphan_dependents == Some(false) { StatusCode::ACCEPTED } else { StatusCode::OK };
            respond::object(&call, code, &object, &[])
        }
    }
}

fn success(group: &str, plural: &str, object: &Value) -> Value {
    let mut details = json!({"name": object["metadata"]["name"], "kind": plural, "uid": object["metadata"]["uid"]});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

fn target<'a>(call: &'a Call, name: &'a str, options: &DeleteOptions) -> Result<Target<'a>, Status> {
    let dry_run = crate::http::query::dry_run(options.dry_run.iter().map(String::as_str))?;
    Ok(Target {
        server: &call.server,
        strategy: &*call.strategy,
        user: &call.user,
        namespace: call.namespace(),
        name,
        dry_run: dry_run || call.info.query.dry_run()?,
    })
}

/// The body if there is one, else the query.
async fn read_options(call: &Call) -> Result<DeleteOptions, Status> {
    let body = call.read_body().await?;
    let query = &call.info.query;
    let options = if body.iter().all(u8::is_ascii_whitespace) {
        DeleteOptions {
            grace_period_seconds: query.integer("gracePeriodSeconds")?,
            preconditions: None,
            orphan_dependents: query.optional_flag("orphanDependents"),
            propagation_policy: query.get("propagationPolicy").map(str::to_owned),
            dry_run: vec![],
        }
    } else {
        let unreadable = |error: &dyn std::fmt::Display| Status::bad_request(format!("error decoding DeleteOptions: {error}"));
        if call.content_type().contains("yaml") {
            let read = crate::openapi::read_yaml_document(&body).map_err(|error| unreadable(&error))?;
            serde_json::from_value(read).map_err(|error| unreadable(&error))?
        } else {
            serde_json::from_slice(&body).map_err(|error| unreadable(&error))?
        }
    };
    options.validate()?;
    Ok(options)
}

impl DeleteOptions {
    fn validate(&self) -> Result<(), Status> {
        let mut errors = vec![];
        if let Some(policy) = &self.propagation_policy {
            if self.orphan_dependents.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(Invalid::value("propagationPolicy", &json!(policy), why));
            }
            if !["Orphan", "Background", "Foreground"].contains(&policy.as_str()) {
                let value = json!(policy);
                errors.push(Invalid::not_supported("propagationPolicy", &value, &["Background", "Foreground", "Orphan"]));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors)) }
    }

    fn preconditions(&self) -> Preconditions {
        let given = self.preconditions.clone().unwrap_or_default();
        Preconditions { uid: given.uid, resource_version: given.resource_version }
    }

    /// Whether the garbage collector is to orphan the dependents, and whether it is to delete them first.
    fn orphan_and_foreground(&self, finalizers: &[Value], orphans_by_default: bool) -> (bool, bool) {
        let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
        match (self.orphan_dependents, self.propagation_policy.as_deref()) {
            (Some(orphan), _) => (orphan, false),
            (_, Some("Orphan")) => (true, false),
            (_, Some("Foreground")) => (false, true),
            (_, Some("Background")) => (false, false),
            _ if has(ORPHAN) || has(FOREGROUND) => (has(ORPHAN), has(FOREGROUND)),
            _ => (orphans_by_default, false),
        }
    }
}

/// Deletes or marks one object, with admission.
pub async fn delete_object(target: &Target<'_>, options: &DeleteOptions) -> Result<Deleted, Status> {
    if target.strategy.names().kind == "Namespace" && IMMORTAL_NAMESPACES.contains(&target.name) {
        let why = format!("namespaces \"{}\" is forbidden: this namespace may not be deleted", target.name);
        return Err(Status::forbidden(why).with_details(json!({"name": target.name, "kind": "namespaces"})));
    }
    let preconditions = options.preconditions();
    let preconditions = &preconditions;
    let mut decide = |old: Value| -> futures::future::BoxFuture<'_, Result<Step, Status>> {
        Box::pin(async move {
            preconditions.check(target.strategy.names(), &old)?;
            let context = AdmissionContext {
                server: target.server,
                user: target.user,
                strategy: target.strategy,
                operation: Operation::Delete,
                namespace: target.namespace,
                name: target.name,
                subresource: "",
                old: Some(&old),
                dry_run: target.dry_run,
            };
            admission::validate(&context, &old).await?;
            Ok(step(target, options, old.clone(), target.server.now()))
        })
    };
    let done = commit(target, &mut decide).await?;
    if target.strategy.names().kind == "Namespace" && !target.dry_run {
        // Who was told that the namespace is ending cannot create in it any more: creation asks the cache.
        let revision = done.object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok());
        let reached = target.server.cache.at_least(revision.unwrap_or_default()).await;
        reached.map_err(|error| status_of(error, target.strategy.names(), target.name))?;
    }
    Ok(if done.deleted { Deleted::Gone(done.object) } else { Deleted::Marked(done.object) })
}

/// What a request for deletion does to the object, by `rest.BeforeDelete` and the generic store's `Delete`.
fn step(target: &Target<'_>, options: &DeleteOptions, old: Value, now: jiff::Timestamp) -> Step {
    let strategy = target.strategy;
    let mut object = old;
    set_finalizers(&mut object, options, target.strategy.orphans_by_default());
    let kept = |object: &Value| has_finalizers(object) || strategy.is_kept(object);

    let grace = match (is_deleting(&object), object["metadata"]["deletionGracePeriodSeconds"].as_i64()) {
        (true, Some(pending)) => match options.grace_period_seconds {
            // A deletion that is under way can only be made shorter.
            Some(asked) if asked < pending => {
                let asked = asked.max(0);
                let at = shifted(&object, asked - pending);
                set_deletion(&mut object, at, asked);
                asked
            }
            _ => pending,
        },
        (true, None) => 0,
        (false, _) => match strategy.grace_seconds(&object, options.grace_period_seconds) {
            Some(grace) => {
                let grace = grace.max(0);
                let at = now.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
                mark(strategy, &mut object, at, grace);
                grace
            }
            None if kept(&object) => {
                mark(strategy, &mut object, now, 0);
                0
            }
            None => 0,
        },
    };
    if grace > 0 || kept(&object) { Step::Put(object) } else { Step::Delete(object) }
}

/// First mark: consumers must see that something changed, so the generation rises too.
fn mark(strategy: &dyn crate::kind::Strategy, object: &mut Value, at: jiff::Timestamp, grace: i64) {
    set_deletion(object, timestamp(at), grace);
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|generation| *generation > 0) {
        object["metadata"]["generation"] = json!(generation + 1);
    }
    strategy.prepare_delete(object);
}

fn set_deletion(object: &mut Value, at: Value, grace: i64) {
    object["metadata"]["deletionTimestamp"] = at;
    object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
}

fn shifted(object: &Value, seconds: i64) -> Value {
    let at = &object["metadata"]["deletionTimestamp"];
    let time = at.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let time = time.and_then(|time| time.checked_add(jiff::SignedDuration::from_secs(seconds)).ok());
    time.map_or_else(|| at.clone(), timestamp)
}

fn set_finalizers(object: &mut Value, options: &DeleteOptions, orphans_by_default: bool) {
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let (orphan, foreground) = options.orphan_and_foreground(&finalizers, orphans_by_default);
    let before = finalizers.clone();
    finalizers.retain(|finalizer| (finalizer != ORPHAN || orphan) && (finalizer != FOREGROUND || foreground));
    for (wanted, name) in [(orphan, ORPHAN), (foreground, FOREGROUND)] {
        if wanted && !finalizers.iter().any(|finalizer| finalizer == name) {
            finalizers.push(json!(name));
        }
    }
    if finalizers != before {
        object["metadata"]["finalizers"] = finalizers.into();
    }
}

/// Deletes what the list options select, object by object, and answers with the list of them.
pub async fn delete_collection(call: Call) -> Result<Response, Status> {
    call.accept()?;
    let options = read_options(&call).await?;
    let list = ListOptions::parse(&call.info.query, &*call.strategy)?;
    let names = call.strategy.names();
    let snapshot = call.server.cache.fresh().await.map_err(|error| status_of(error, names, ""))?;
    let selection = Selection::new(&call.strategy, call.info.namespace.as_deref(), &list);
    let snapshot = match selection.is_everything() {
        true => snapshot,
        false => presented(&call.server, &*call.strategy, &selection.prefix, snapshot).await?,
    };
    let mut items = vec![];
    for entry in selection.entries(&snapshot) {
        let (_, name) = crate::stored::namespace_and_name(&entry.key);
        match delete_object(&target(&call, name, &options)?, &options).await {
            Ok(Deleted::Gone(object) | Deleted::Marked(object)) => items.push(object),
            Err(status) if status.code == StatusCode::NOT_FOUND => {}
            Err(status) => return Err(status),
        }
    }
    let body = json!({
        "kind": format!("{}List", names.kind), "apiVersion": names.api_version(),
        "metadata": {"resourceVersion": snapshot.revision.to_string()}, "items": items,
    });
    Ok(respond::value(Accept { form: Form::Object, ..call.accept()? }, StatusCode::OK, &body))
}
