//! Keeps the plan at what the objects say, the mandatory objects in being, and the schemas' conditions true.

use super::schema::Plan;
use super::{SEATS, bootstrap};
use crate::http::authenticate::User;
use crate::kind::Strategy;
use crate::server::ApiServer;
use crate::stored::{self, Snapshot};
use crate::verbs::tracking::{self, Tracking};
use crate::verbs::update::Part;
use crate::verbs::{Step, Target, commit, create_object};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use slipway_store::cache;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
/// The objects are counted, and the mandatory ones looked for, so often.
const EVERY: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

/// Until the server is dropped or closed.
pub async fn run(server: Weak<ApiServer>, closing: CancellationToken) {
    loop {
        let Some(strong) = server.upgrade() else { return };
        let snapshot = strong.snapshot();
        count(&strong, &snapshot);
        compile(&strong, &snapshot);
        reconcile(&strong, &snapshot).await;
        let watcher = strong.cache.watch(&format!("/{GROUP}/"), snapshot.revision);
        drop(strong);
        let changed = async {
            match watcher {
                Ok(mut watcher) => while !matches!(watcher.next().await, Ok(cache::Item::Change(_)) | Err(_)) {},
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            () = closing.cancelled() => return,
            () = changed => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// The same once, for a server that starts: so that it does not write on its own while it is used.
pub async fn settle(server: &ApiServer) -> Result<(), slipway_store::Error> {
    let snapshot = server.cache.fresh().await?;
    reconcile(server, &snapshot).await;
    let snapshot = server.cache.fresh().await?;
    count(server, &snapshot);
    compile(server, &snapshot);
    Ok(())
}

fn count(server: &ApiServer, snapshot: &Snapshot) {
    let mut counts: HashMap<(String, String), usize> = HashMap::new();
    for key in snapshot.objects.keys() {
        let mut parts = key.split('/').skip(1);
        if let (Some(group), Some(plural)) = (parts.next(), parts.next()) {
            let group = if group == "core" { "" } else { group };
            match counts.get_mut(&(group.to_owned(), plural.to_owned())) {
                Some(count) => *count += 1,
                None => drop(counts.insert((group.to_owned(), plural.to_owned()), 1)),
            }
        }
    }
    server.flow_control.counts.store(Arc::new(counts));
}

fn all(snapshot: &Snapshot, plural: &str) -> Vec<Value> {
    let prefix = format!("/{GROUP}/{plural}/");
    let entries = stored::below(snapshot, &prefix, "");
    entries.filter_map(|entry| serde_json::from_slice(&entry.bytes).ok()).collect()
}

/// The objects that there are, and the mandatory ones even if there are not.
fn with_mandatory(mut objects: Vec<Value>, defaults: Vec<Value>) -> Vec<Value> {
    for default in defaults {
        let name = &default["metadata"]["name"];
        let mandatory = name.as_str().is_some_and(|name| bootstrap::MANDATORY.contains(&name));
        if mandatory && !objects.iter().any(|object| object["metadata"]["name"] == *name) {
            objects.push(default);
        }
    }
    objects
}

/// What is asked of the objects as they are now.
fn compile(server: &ApiServer, snapshot: &Snapshot) {
    let schemas = with_mandatory(all(snapshot, SCHEMAS), bootstrap::schemas());
    let levels = with_mandatory(all(snapshot, LEVELS), bootstrap::levels());
    server.flow_control.set(Plan::of(schemas.into_iter(), levels.into_iter(), SEATS));
}

/// Writes the mandatory objects that are missing, and `Dangling` of the schemas.
async fn reconcile(server: &ApiServer, snapshot: &Snapshot) {
    let user = User::apiserver();
    for (plural, defaults) in [(LEVELS, bootstrap::levels()), (SCHEMAS, bootstrap::schemas())] {
        let Some(strategy) = server.strategy(GROUP, "v1", plural) else { return };
        for default in defaults {
            let name = default["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if bootstrap::MANDATORY.contains(&name.as_str()) && crate::server::find(snapshot, &*strategy, "", &name).is_none() {
                let target = Target::new(server, &*strategy, &user, "", &name);
                if let Err(status) = create_object(&target, default).await {
                    tracing::debug!(name, status.message, "a mandatory object could not be written");
                }
            }
        }
    }
    let levels = all(snapshot, LEVELS);
    let Some(strategy) = server.strategy(GROUP, "v1", SCHEMAS) else { return };
    for schema in all(snapshot, SCHEMAS) {
        let level = &schema["spec"]["priorityLevelConfiguration"]["name"];
        let dangling = !levels.iter().any(|one| one["metadata"]["name"] == *level);
        let told = schema["status"]["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Dangling");
        if told.is_none_or(|told| (told["status"] == "True") != dangling) {
            tell_dangling(server, &*strategy, &user, &schema, dangling).await;
        }
    }
}

async fn tell_dangling(server: &ApiServer, strategy: &dyn Strategy, user: &User, schema: &Value, dangling: bool) {
    let name = schema["metadata"]["name"].as_str().unwrap_or_default();
    let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let (status, reason, message) = match dangling {
        true => (
            "True",
            "NotFound",
            format!(
                "This FlowSchema references the PriorityLevelConfiguration object named {level:?} but there is no such object"
            ),
        ),
        false => (
            "False",
            "Found",
            format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"),
        ),
    };
    let condition = json!({
        "type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": crate::verbs::object_meta::timestamp(server.now()),
    });
    let target = Target::new(server, strategy, user, "", name);
    let target = &target;
    let mut decide = move |old: Value| -> BoxFuture<'_, Result<Step, crate::http::error::Status>> {
        let condition = condition.clone();
        Box::pin(async move {
            let mut new = old.clone();
            let mut conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.retain(|one| one["type"] != "Dangling");
            conditions.push(condition);
            new["status"]["conditions"] = conditions.into();
            crate::verbs::update::replace(target, Part::Status, Tracking::By(tracking::SERVER), old, new).await
        })
    };
    if let Err(status) = commit(target, &mut decide).await {
        tracing::debug!(name, status.message, "a schema's condition could not be written");
    }
}
