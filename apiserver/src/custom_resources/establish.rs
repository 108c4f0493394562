//! What becomes of a definition: its names are accepted unless another has them, it is established; when it is deleted, its
//! objects go first.

use crate::custom_resources::definition::{self, FINALIZER, is_condition_true, set_condition};
use crate::custom_resources::serve::storage_strategy;
use crate::custom_resources::strategy::CustomResource;
use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::kind::Strategy;
use crate::server::ApiServer;
use crate::stored::{self, Snapshot};
use crate::verbs::{DeleteOptions, Preconditions, Target, delete_object, guaranteed_update};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Writes what is to be written of all definitions; whether some are to be looked at again soon.
pub(crate) async fn settle(server: &ApiServer, snapshot: &Snapshot) -> bool {
    let all: Vec<Value> =
        stored::below(snapshot, definition::PREFIX, "").filter_map(|entry| serde_json::from_slice(&entry.bytes).ok()).collect();
    let mut pending = false;
    for object in &all {
        let settled = match definition::is_deleting(object) {
            true if definition::has_finalizer(object) => empty(server, object).await.map(|gone| pending |= !gone),
            true => Ok(()),
            false => name(server, object).await,
        };
        if let Err(status) = settled {
            pending = true;
            tracing::debug!(name = %object["metadata"]["name"], status.message, "a definition is not settled yet");
        }
    }
    pending
}

/// Accepts the names and establishes the kind.
async fn name(server: &ApiServer, object: &Value) -> Result<(), Status> {
    let settled = |object: &Value, others: &[Value]| {
        let mut settled = object.clone();
        accept_names(&mut settled, others, server.now());
        settled
    };
    let others = definitions(&server.snapshot());
    if settled(object, &others)["status"] == object["status"] {
        return Ok(());
    }
    // Names are given away once: by what all others have now.
    let fresh = server.cache.fresh().await.map_err(|error| Status::internal(&error))?;
    let others = definitions(&fresh);
    update(server, object, |object| settled(&object, &others)).await
}

fn definitions(snapshot: &Snapshot) -> Vec<Value> {
    stored::below(snapshot, definition::PREFIX, "").filter_map(|entry| serde_json::from_slice(&entry.bytes).ok()).collect()
}

async fn update(server: &ApiServer, object: &Value, change: impl Fn(Value) -> Value + Send + Sync) -> Result<(), Status> {
    let Some(strategy) = server.strategy("apiextensions.k8s.io", "v1", "customresourcedefinitions") else { return Ok(()) };
    let user = User::admin();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let target = Target::new(server, &*strategy, &user, "", name);
    let same = Preconditions { uid: object["metadata"]["uid"].as_str().map(str::to_owned), resource_version: None };
    guaranteed_update(&target, &same, |object| Ok(change(object))).await.map(|_| ())
}

/// By the rules of Kubernetes' naming controller: a name that another definition of the group has is not accepted.
fn accept_names(object: &mut Value, others: &[Value], now: jiff::Timestamp) {
    let (mut kinds, mut resources) = (BTreeSet::new(), BTreeSet::new());
    let own = object["metadata"]["name"].clone();
    for other in
        others.iter().filter(|other| other["metadata"]["name"] != own && other["spec"]["group"] == object["spec"]["group"])
    {
        let names = &other["status"]["acceptedNames"];
        kinds.extend([&names["kind"], &names["listKind"]].into_iter().filter_map(Value::as_str));
        resources.extend([&names["plural"], &names["singular"]].into_iter().filter_map(Value::as_str));
        resources.extend(names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str));
    }
    let wanted = object["spec"]["names"].clone();
    let had = object["status"]["acceptedNames"].clone();
    let mut accepted = if had.is_object() { had.clone() } else { json!({"plural": "", "kind": ""}) };
    let mut conflict = None;
    for (field, used, reason) in [
        ("plural", &resources, "PluralConflict"),
        ("singular", &resources, "SingularConflict"),
        ("shortNames", &resources, "ShortNamesConflict"),
        ("kind", &kinds, "KindConflict"),
        ("listKind", &kinds, "ListKindConflict"),
    ] {
        let Some(want) = wanted.get(field) else {
            crate::kind::remove(&mut accepted, field);
            continue;
        };
        let texts = |value: &Value| -> Vec<String> {
            let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let before = texts(&had[field]);
        let taken: Vec<String> =
            texts(want).into_iter().filter(|name| used.contains(name.as_str()) && !before.contains(name)).collect();
        if taken.is_empty() {
            accepted[field] = want.clone();
        } else {
            // Of several conflicts the last is told, as with Kubernetes.
            let messages: Vec<String> = taken.iter().map(|name| format!("\"{name}\" is already in use")).collect();
            let message = if messages.len() == 1 { messages[0].clone() } else { format!("[{}]", messages.join(", ")) };
            conflict = Some((reason, message));
        }
    }
    match wanted.get("categories") {
        Some(categories) => accepted["categories"] = categories.clone(),
        None => crate::kind::remove(&mut accepted, "categories"),
    }
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    object["status"]["acceptedNames"] = accepted;
    match conflict {
        Some((reason, message)) => {
            set_condition(object, "NamesAccepted", false, reason, &message, now);
            if !is_condition_true(object, "Established") {
                set_condition(object, "Established", false, "NotAccepted", "not all names are accepted", now);
            }
        }
        None => {
            set_condition(object, "NamesAccepted", true, "NoConflicts", "no conflicts found", now);
            if !is_condition_true(object, "Established") {
                let message = "the initial names have been accepted";
                set_condition(object, "Established", true, "InitialNamesAccepted", message, now);
            }
        }
    }
}

/// Deletes the objects of a definition that is being deleted, and lets it go when there are none; whether it went.
async fn empty(server: &ApiServer, object: &Value) -> Result<bool, Status> {
    let now = server.now();
    let terminating = |status: bool, reason: &'static str, message: String| {
        move |mut object: Value| {
            set_condition(&mut object, "Terminating", status, reason, &message, now);
            object
        }
    };
    // Whatever is stored in the version that is written now needs no conversion to be deleted.
    let strategy = if is_condition_true(object, "Established") { storage_strategy(object) } else { None };
    let (reason, message) = match &strategy {
        None => ("NeverEstablished", "resource was never established"),
        Some(strategy) => {
            let failed = |why: String| terminating(true, "InstanceDeletionFailed", format!("could not issue all deletes: {why}"));
            if let Err(status) = delete_all(server, strategy).await {
                update(server, object, failed(status.message.clone())).await?;
                return Err(status);
            }
            let fresh = server.cache.fresh().await.map_err(|error| Status::internal(&error))?;
            if stored::below(&fresh, &stored::prefix(strategy.names(), None), "").next().is_some() {
                let message = "CustomResource deletion is in progress".to_owned();
                update(server, object, terminating(true, "InstanceDeletionInProgress", message)).await?;
                return Ok(false);
            }
            ("InstanceDeletionCompleted", "removed all instances")
        }
    };
    let done = terminating(false, reason, message.to_owned());
    let gone = update(server, object, |object| {
        let mut object = done(object);
        if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        object
    });
    match gone.await {
        Err(status) if status.code == http::StatusCode::NOT_FOUND => Ok(true),
        other => other.map(|()| true),
    }
}

async fn delete_all(server: &ApiServer, strategy: &CustomResource) -> Result<(), Status> {
    let user = User::admin();
    let fresh = server.cache.fresh().await.map_err(|error| Status::internal(&error))?;
    for entry in stored::below(&fresh, &stored::prefix(strategy.names(), None), "") {
        let (namespace, name) = stored::namespace_and_name(&entry.key);
        let target = Target::new(server, strategy, &user, namespace, name);
        match delete_object(&target, &DeleteOptions::default()).await {
            Err(status) if status.code != http::StatusCode::NOT_FOUND => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.a.b")}, "spec": {"group": "a.b",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": short}}})
    }

    #[test]
    fn the_first_has_the_names() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut first = definition("apples", "Apple", &["a"]);
        accept_names(&mut first, &[], now);
        assert!(is_condition_true(&first, "Established") && is_condition_true(&first, "NamesAccepted"));
        let mut second = definition("avocados", "Avocado", &["a"]);
        accept_names(&mut second, &[first.clone()], now);
        let condition = definition::condition(&second, "NamesAccepted").unwrap();
        assert_eq!(
            (&condition["reason"], &condition["message"]),
            (&json!("ShortNamesConflict"), &json!("\"a\" is already in use"))
        );
        assert!(!is_condition_true(&second, "Established"));
        assert_eq!(second["status"]["acceptedNames"]["plural"], "avocados");
        let settled = first.clone();
        accept_names(&mut first, &[second], now);
        assert_eq!(first, settled);
    }
}
