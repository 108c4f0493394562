//! The APIServices of what is served here: of the built-in groups, written when a server starts, and of custom kinds, written and
//! removed with their definitions. A label says which of them are the server's to keep; one without it is left alone.

use super::{AVAILABLE, GROUP, PREFIX, priority, set_local, woken};
use crate::custom_resources::definition;
use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::kind::Strategy;
use crate::server::ApiServer;
use crate::stored::{self, Snapshot};
use crate::subresources::review;
use crate::verbs::{DeleteOptions, Preconditions, Target, create_object, delete_object, guaranteed_update};
use futures::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// What a server brings into order once, when it starts: who changes it then keeps the change until the next start.
const ON_START: &str = "onstart";
/// What is kept in order always.
const ALWAYS: &str = "true";
/// Without a change everything is looked at again so often: what could not be written then may be now.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Writes at a time: the store commits them together.
const WRITES_MAX: usize = 32;

/// One that is to be there.
#[derive(Debug, PartialEq, Eq)]
struct Desired {
    kept: &'static str,
    spec: Value,
}

/// Brings the APIServices into order before the first request is answered.
pub(crate) async fn start(server: &ApiServer) -> Result<(), Status> {
    let snapshot = server.cache.fresh().await.map_err(|error| Status::internal(&error))?;
    settle(server, &snapshot, true).await?;
    let fresh = server.cache.fresh().await.map_err(|error| Status::internal(&error))?;
    server.aggregator.follow(&fresh);
    Ok(())
}

pub(super) async fn run(weak: Weak<ApiServer>, closing: CancellationToken) {
    let Some(mut server) = weak.upgrade() else { return };
    loop {
        let snapshot = server.snapshot();
        server.served.follow(&server, &snapshot);
        server.aggregator.follow(&snapshot);
        let settled = settle(&server, &snapshot, false).await;
        drop(server);
        let pause = match settled {
            Ok(()) => PAUSE,
            Err(status) => {
                tracing::debug!(status.message, "the APIServices are not in order yet");
                PAUSE_AFTER_FAILURE
            }
        };
        match woken(&weak, &closing, &[PREFIX, definition::PREFIX], snapshot.revision, pause).await {
            Some(woken) => server = woken,
            None => return,
        }
    }
}

async fn settle(server: &ApiServer, snapshot: &Snapshot, first: bool) -> Result<(), Status> {
    let Some(strategy) = server.strategy(GROUP, "v1", "apiservices") else { return Ok(()) };
    let desired = desired(server);
    let current: BTreeMap<String, Value> = stored::below(snapshot, PREFIX, "")
        .filter_map(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok())
        .map(|object| (object["metadata"]["name"].as_str().unwrap_or_default().to_owned(), object))
        .collect();
    let names: BTreeSet<&String> = desired.keys().chain(current.keys()).collect();
    let steps: Vec<(&String, Step)> =
        names.into_iter().filter_map(|name| Some((name, step(current.get(name), desired.get(name), first)?))).collect();
    let strategy = &*strategy;
    let writes: Vec<_> = steps.into_iter().map(|(name, step)| write(server, strategy, name, step)).collect();
    let outcomes: Vec<Result<(), Status>> = futures::stream::iter(writes).buffer_unordered(WRITES_MAX).collect().await;
    outcomes.into_iter().collect()
}

/// Of all groups and versions that are served here, but the APIServices' own.
fn desired(server: &ApiServer) -> BTreeMap<String, Desired> {
    let strategies = server.strategies();
    let kinds = strategies.iter().map(|strategy| {
        let names = strategy.names();
        (names.group, names.version, strategy.custom().is_some())
    });
    let reviews = review::ALL.iter().map(|review| (review.group, review.version, false));
    let mut desired = BTreeMap::new();
    for (group, version, is_custom) in kinds.chain(reviews).filter(|(group, ..)| *group != GROUP) {
        let (of_group, of_version) = if is_custom { priority::CUSTOM } else { priority::builtin(group, version) };
        let mut spec = json!({"version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version});
        if !group.is_empty() {
            spec["group"] = group.into();
        }
        let kept = if is_custom { ALWAYS } else { ON_START };
        // A built-in kind comes first, and counts.
        desired.entry(format!("{version}.{group}")).or_insert(Desired { kept, spec });
    }
    desired
}

#[derive(Debug, PartialEq)]
enum Step<'a> {
    Create(&'a Desired),
    /// Make its spec what is wanted.
    Put(&'a Value, &'a Desired),
    Delete(&'a Value),
    /// It was moved here from behind a Service.
    SayLocal(&'a Value),
}

/// What is to be done about one APIService; `first`: the server starts.
fn step<'a>(current: Option<&'a Value>, desired: Option<&'a Desired>, first: bool) -> Option<Step<'a>> {
    let Some(current) = current else { return desired.map(Step::Create) };
    let is_ours = match current["metadata"]["labels"][LABEL].as_str() {
        Some(ALWAYS) => true,
        Some(ON_START) => first,
        _ => false,
    };
    match desired {
        None if is_ours => return Some(Step::Delete(current)),
        Some(desired) if is_ours && current["spec"] != desired.spec => return Some(Step::Put(current, desired)),
        _ => {}
    }
    let is_local = !current["spec"]["service"].is_object();
    let says_so = definition::condition(current, AVAILABLE).is_some_and(|condition| condition["reason"] == "Local");
    (is_local && !says_so).then_some(Step::SayLocal(current))
}

async fn write(server: &ApiServer, strategy: &dyn Strategy, name: &str, step: Step<'_>) -> Result<(), Status> {
    let user = User::apiserver();
    let target = Target::new(server, strategy, &user, "", name);
    let same =
        |object: &Value| Preconditions { uid: object["metadata"]["uid"].as_str().map(str::to_owned), resource_version: None };
    let now = server.now();
    let written = match step {
        Step::Create(desired) => {
            let metadata = json!({"name": name, "labels": {LABEL: desired.kept}});
            let object =
                json!({"apiVersion": format!("{GROUP}/v1"), "kind": "APIService", "metadata": metadata, "spec": desired.spec});
            create_object(&target, object).await.map(|_| ())
        }
        Step::Put(current, desired) => {
            let change = |mut object: Value| {
                object["spec"] = desired.spec.clone();
                set_local(&mut object, now);
                Ok(object)
            };
            guaranteed_update(&target, &same(current), change).await.map(|_| ())
        }
        Step::SayLocal(current) => {
            let change = |mut object: Value| {
                if !object["spec"]["service"].is_object() {
                    set_local(&mut object, now);
                }
                Ok(object)
            };
            guaranteed_update(&target, &same(current), change).await.map(|_| ())
        }
        Step::Delete(current) => {
            let uid = current["metadata"]["uid"].as_str().map(str::to_owned);
            let preconditions = crate::verbs::delete::DeletePreconditions { uid, resource_version: None };
            let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
            delete_object(&target, &options).await.map(|_| ())
        }
    };
    match written {
        // Another API server was faster, or a person: what is there now is looked at again when the cache has it.
        Err(status) if matches!(status.code, StatusCode::CONFLICT | StatusCode::NOT_FOUND) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_depends_on_whose_it_is() {
        let spec = json!({"group": "a.b", "version": "v1"});
        let wanted = |kept| Desired { kept, spec: spec.clone() };
        let object = |label: Option<&str>, spec: &Value| {
            let mut object = json!({"metadata": {"labels": {}}, "spec": spec});
            set_local(&mut object, jiff::Timestamp::UNIX_EPOCH);
            if let Some(label) = label {
                object["metadata"]["labels"][LABEL] = label.into();
            }
            object
        };
        let (always, on_start) = (wanted(ALWAYS), wanted(ON_START));
        assert_eq!(step(None, Some(&always), false), Some(Step::Create(&always)));
        assert_eq!(step(None, None, true), None);
        let other = json!({"group": "a.b", "version": "v1", "versionPriority": 3});
        let (kept, once, foreign) = (object(Some(ALWAYS), &other), object(Some(ON_START), &other), object(None, &other));
        assert_eq!(step(Some(&kept), Some(&always), false), Some(Step::Put(&kept, &always)));
        assert_eq!(step(Some(&kept), None, false), Some(Step::Delete(&kept)));
        assert_eq!(step(Some(&object(Some(ALWAYS), &spec)), Some(&always), false), None);
        assert_eq!(step(Some(&once), Some(&on_start), false), None, "a change lasts until the next start");
        assert_eq!(step(Some(&once), Some(&on_start), true), Some(Step::Put(&once, &on_start)));
        assert_eq!(step(Some(&once), None, true), Some(Step::Delete(&once)));
        assert_eq!(step(Some(&foreign), Some(&always), true), None, "what somebody made is theirs");
        let mut moved = foreign;
        moved["status"]["conditions"][0]["reason"] = json!("Passed");
        assert_eq!(step(Some(&moved), None, false), Some(Step::SayLocal(&moved)));
        moved["spec"]["service"] = json!({"name": "s"});
        assert_eq!(step(Some(&moved), None, false), None);
    }
}
