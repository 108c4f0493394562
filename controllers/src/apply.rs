//! The only place that writes to the API.

use std::time::Duration;

use futures::{StreamExt, stream};
use http::{Method, Request};
use kube::{Client, core::Status};
use serde_json::{Value, json};
use slipway_api::jiff::Timestamp;
use tracing::{debug, warn};

use crate::{
    caches::Caches,
    plan::{Create, Delete, DeleteCollection, EventKind, Evict, Patch, Plan, Replace, Step},
    recorder::{Happening, Recorder},
    resource::{Key, Resource},
};

/// How many creations or deletions of one plan are under way at once.
const CONCURRENT_MAX: usize = 16;
/// A cache that does not see our own write by then lags for a reason that waiting longer does not cure.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// A cache of only some objects of a kind may never see the write.
const SETTLE_FILTERED_MAX: Duration = Duration::from_secs(2);

pub struct Writer {
    pub client: Client,
    pub recorder: Recorder,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    writes: Vec<Write>,
    /// The plan was made from an old view (404, 409): plan again.
    pub stale: bool,
    pub failure: Option<Failure>,
}

/// A write that the API server refused, for the next plan to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug)]
enum Write {
    Wrote { resource: Resource, key: Key, revision: u64 },
    Deleted { resource: Resource, key: Key, uid: String },
}

enum Done {
    Yes,
    Stale,
    Failed(Failure),
}

impl Writer {
    /// Carries out the steps in order, up to the first that fails. Neighbouring creations (and deletions) go together.
    pub async fn apply(&self, component: &'static str, plan: Plan) -> Outcome {
        let mut outcome = Outcome::default();
        let mut steps = plan.steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            match step {
                Step::Create(first) => {
                    let mut group = vec![first];
                    while let Some(Step::Create(create)) = steps.next_if(|step| matches!(step, Step::Create(_))) {
                        group.push(create);
                    }
                    self.create_all(component, group, &mut outcome).await;
                }
                Step::Delete(first) => {
                    let mut group = vec![first];
                    while let Some(Step::Delete(delete)) = steps.next_if(|step| matches!(step, Step::Delete(_))) {
                        group.push(delete);
                    }
                    let mut done = stream::iter(group.into_iter().map(|delete| self.delete(component, delete)))
                        .buffer_unordered(CONCURRENT_MAX);
                    while let Some(done) = done.next().await {
                        outcome.add(done);
                    }
                }
                Step::Patch(patch) => {
                    let done = self.patch(patch, &outcome).await;
                    outcome.add(done);
                }
                Step::DeleteCollection(all) => {
                    let done = self.delete_collection(all).await;
                    outcome.add((done, None));
                }
                Step::Replace(replace) => {
                    let done = self.replace(replace).await;
                    outcome.add(done);
                }
                Step::Evict(evict) => {
                    let done = self.evict(evict).await;
                    outcome.add((done, None));
                }
                Step::Event(event) => {
                    self.tell(component, *event.regarding, event.kind, event.reason, event.message);
                }
            }
            if outcome.stale || outcome.failure.is_some() {
                break;
            }
        }
        outcome
    }

    /// Slow start: one, then two, four, … so that a wrong template or an exhausted quota costs one refusal and not hundreds.
    async fn create_all(&self, component: &'static str, group: Vec<Create>, outcome: &mut Outcome) {
        let mut rest = group.into_iter();
        let mut batch = 1;
        loop {
            let now: Vec<Create> = rest.by_ref().take(batch).collect();
            if now.is_empty() {
                return;
            }
            let mut done =
                stream::iter(now.into_iter().map(|create| self.create(component, create))).buffer_unordered(CONCURRENT_MAX);
            while let Some(done) = done.next().await {
                outcome.add(done);
            }
            if outcome.stale || outcome.failure.is_some() {
                return;
            }
            batch *= 2;
        }
    }

    async fn create(&self, component: &'static str, create: Create) -> (Done, Option<Write>) {
        let uri = create.resource.collection(&create.namespace);
        let result = self.send(Method::POST, uri, "application/json", &create.object).await;
        let kind = create.resource.kind.to_lowercase();
        match result {
            Ok(object) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if let Some(tell) = create.tell {
                    let message = tell.words.map_or_else(|| format!("Created {kind}: {name}"), |words| words.done);
                    self.tell(component, tell.owner, EventKind::Normal, "SuccessfulCreate", message);
                }
                let write = wrote(create.resource, Key::new(create.namespace, name), &object);
                (Done::Yes, Some(write))
            }
            Err(error) => {
                let done = classify(error, "FailedCreate");
                if let (Done::Failed(failure), Some(tell)) = (&done, create.tell) {
                    let words = tell.words.map_or_else(|| "Error creating: ".to_owned(), |words| words.failed);
                    let message = format!("{words}{}", failure.message);
                    self.tell(component, tell.owner, EventKind::Warning, "FailedCreate", message);
                }
                (done, None)
            }
        }
    }

    async fn delete(&self, component: &'static str, delete: Delete) -> (Done, Option<Write>) {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": delete.uid}});
        if let Some(revision) = &delete.resource_version {
            options["preconditions"]["resourceVersion"] = json!(revision);
        }
        if let Some(seconds) = delete.grace_seconds {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(policy) = delete.propagation {
            options["propagationPolicy"] = json!(policy);
        }
        let uri = delete.resource.path(&delete.key, None);
        let result = self.send(Method::DELETE, uri, "application/json", &options).await;
        let kind = delete.resource.kind.to_lowercase();
        let gone = Write::Deleted { resource: delete.resource, key: delete.key.clone(), uid: delete.uid };
        match result {
            Ok(_) => {
                if let Some(tell) = delete.tell {
                    let usual = || format!("Deleted {kind}: {}", delete.key.name);
                    let message = tell.words.map_or_else(usual, |words| words.done);
                    self.tell(component, tell.owner, EventKind::Normal, "SuccessfulDelete", message);
                }
                (Done::Yes, Some(gone))
            }
            // Somebody was faster.
            Err(kube::Error::Api(status)) if status.code == 404 => (Done::Yes, Some(gone)),
            Err(error) => {
                let done = classify(error, "FailedDelete");
                if let (Done::Failed(failure), Some(tell)) = (&done, delete.tell) {
                    let words = tell.words.map_or_else(|| "Error deleting: ".to_owned(), |words| words.failed);
                    let message = format!("{words}{}", failure.message);
                    self.tell(component, tell.owner, EventKind::Warning, "FailedDelete", message);
                }
                (done, None)
            }
        }
    }

    async fn evict(&self, evict: Evict) -> Done {
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": evict.key.namespace, "name": evict.key.name},
            "deleteOptions": {"preconditions": {"uid": evict.uid}},
        });
        use crate::resource::Object;
        let uri = slipway_api::core::Pod::resource().path(&evict.key, Some("eviction"));
        match self.send(Method::POST, uri, "application/json", &eviction).await {
            Ok(_) => Done::Yes,
            // Its budget forbids it now, or it is gone: both are seen by who looks again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => Done::Yes,
            Err(error) => classify(error, "FailedEviction"),
        }
    }

    async fn delete_collection(&self, all: DeleteCollection) -> Done {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        let uri = all.resource.collection(&all.namespace);
        match self.send(Method::DELETE, uri, "application/json", &options).await {
            Ok(_) => Done::Yes,
            Err(error) => classify(error, "FailedDelete"),
        }
    }

    async fn replace(&self, replace: Replace) -> (Done, Option<Write>) {
        let uri = replace.resource.path(&replace.key, Some(replace.subresource));
        match self.send(Method::PUT, uri, "application/json", &replace.object).await {
            Ok(object) => (Done::Yes, Some(wrote(replace.resource, replace.key, &object))),
            Err(error) => (classify(error, "FailedUpdate"), None),
        }
    }

    async fn patch(&self, patch: Patch, before: &Outcome) -> (Done, Option<Write>) {
        let mut body = patch.patch;
        body["metadata"]["uid"] = json!(patch.uid);
        // An earlier step of this plan may have written the object: then that is the state to build on.
        let own = before.writes.iter().rev().find_map(|write| match write {
            Write::Wrote { resource, key, revision } if *resource == patch.resource && *key == patch.key => {
                Some(revision.to_string())
            }
            _ => None,
        });
        if let Some(revision) = patch.resource_version.map(|seen| own.unwrap_or(seen)) {
            body["metadata"]["resourceVersion"] = json!(revision);
        }
        let uri = patch.resource.path(&patch.key, patch.subresource);
        match self.send(Method::PATCH, uri, "application/merge-patch+json", &body).await {
            Ok(object) => (Done::Yes, Some(wrote(patch.resource, patch.key, &object))),
            Err(error) => (classify(error, "FailedUpdate"), None),
        }
    }

    async fn send(&self, method: Method, uri: String, content: &str, body: &Value) -> Result<Value, kube::Error> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", content)
            .header("accept", "application/json")
            .body(body.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    fn tell(
        &self,
        component: &'static str,
        regarding: slipway_api::core::ObjectReference,
        kind: EventKind,
        reason: &str,
        message: String,
    ) {
        let at = Timestamp::now();
        self.recorder.record(Happening { component, regarding, kind, reason: reason.to_owned(), message, at });
    }
}

impl Outcome {
    fn add(&mut self, (done, write): (Done, Option<Write>)) {
        self.writes.extend(write);
        match done {
            Done::Yes => {}
            Done::Stale => self.stale = true,
            Done::Failed(failure) => self.failure = Some(failure),
        }
    }

    /// Waits until the caches show what was written here, so that the next plan does not repeat it.
    pub async fn settle(&self, caches: &Caches) {
        for write in &self.writes {
            let (Write::Wrote { resource, .. } | Write::Deleted { resource, .. }) = write;
            let Some((cache, selection)) = caches.of(resource) else { continue };
            let mut revision = cache.revision();
            let seen = revision.wait_for(|seen| match write {
                Write::Wrote { revision, .. } => seen >= revision,
                Write::Deleted { key, uid, .. } => cache.is_gone(key, uid),
            });
            let max = if selection.is_whole() { SETTLE_MAX } else { SETTLE_FILTERED_MAX };
            if tokio::time::timeout(max, seen).await.is_err() {
                debug!(plural = %resource.plural, "the cache has not seen our own writes; going on");
            }
        }
    }
}

fn wrote(resource: Resource, key: Key, object: &Value) -> Write {
    let revision = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
    Write::Wrote { resource, key, revision: revision.unwrap_or_default() }
}

fn classify(error: kube::Error, reason: &'static str) -> Done {
    match error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => {
            debug!(message = status.message, "planned from an old view");
            Done::Stale
        }
        kube::Error::Api(status) if in_terminating_namespace(&status) => Done::Stale,
        kube::Error::Api(status) => {
            debug!(reason, message = status.message, "refused");
            Done::Failed(Failure { reason, message: status.message })
        }
        other => {
            warn!(error = %other, "a write failed");
            Done::Failed(Failure { reason, message: other.to_string() })
        }
    }
}

/// Nothing can be created there any more, and nobody needs to hear of it.
fn in_terminating_namespace(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
