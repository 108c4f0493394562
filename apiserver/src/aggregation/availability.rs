//! Whether extension servers answer, in the condition `Available` of their APIServices: requests are passed on to those that do.

use super::api_service::{ApiService, Remote};
use super::proxy::{Ask, ask};
use super::turn::{self, Turn};
use super::{AVAILABLE, GROUP, PREFIX, woken};
use crate::admission::webhook::resolve;
use crate::custom_resources::definition;
use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::server::{ApiServer, find};
use crate::stored::{self, Snapshot};
use crate::verbs::get::get_cached;
use crate::verbs::{Preconditions, Target, guaranteed_update};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SERVICES: &str = "/core/services/";
const SLICES: &str = "/discovery.k8s.io/endpointslices/";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// A server that answered is asked again after this long, and one that did not after this long at most.
const RECHECK: Duration = Duration::from_secs(30);
/// One that did not answer is asked again after this long, then after twice that, and so on.
const RETRY: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a server is asked at once, so that one bad endpoint among several does not count.
const ATTEMPTS: usize = 5;
/// Only its status counts.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Servers that are asked at a time.
const ASKED_MAX: usize = 16;
/// Changes that come close together are looked at together.
const GATHER: Duration = Duration::from_millis(20);
/// How long the end of the server is put off to let another take over.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// Without an extension server there is nothing to do but wait for one.
const IDLE: Duration = Duration::from_secs(3_600);

/// What the last check of an APIService went by.
struct Checked {
    /// Of all that the outcome depends on here.
    facts: u64,
    next: Instant,
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    available: bool,
    reason: &'static str,
    message: String,
}

fn unavailable(reason: &'static str, message: String) -> Outcome {
    Outcome { available: false, reason, message }
}

pub(super) async fn run(weak: Weak<ApiServer>, closing: CancellationToken) {
    let mut turn = Turn::new();
    let mut checked = BTreeMap::new();
    let Some(mut server) = weak.upgrade() else { return };
    loop {
        let snapshot = server.snapshot();
        server.aggregator.follow(&snapshot);
        let has_remotes = server.aggregator.services().remotes().next().is_some();
        let pause = match has_remotes && turn.take(&server).await {
            true => check(&server, &snapshot, &mut checked).await.min(turn::RENEW),
            false if has_remotes => turn::RENEW,
            false => IDLE,
        };
        drop(server);
        let all = [PREFIX, SERVICES, SLICES];
        let watched = if has_remotes { &all[..] } else { &all[..1] };
        match woken(&weak, &closing, watched, snapshot.revision, pause).await {
            Some(woken) => server = woken,
            None => break,
        }
        tokio::time::sleep(GATHER).await;
    }
    if let Some(server) = weak.upgrade() {
        let _ = tokio::time::timeout(GIVE_UP_TIMEOUT, turn.give_up(&server)).await;
    }
}

/// Checks those whose time has come, or of which something has changed; how long to wait for the next.
async fn check(server: &Arc<ApiServer>, snapshot: &Snapshot, checked: &mut BTreeMap<String, Checked>) -> Duration {
    let services = server.aggregator.services();
    let now = Instant::now();
    checked.retain(|name, _| services.remotes().any(|(service, _)| service.name == *name));
    let due: Vec<(&Arc<ApiService>, &Remote, u64)> = services
        .remotes()
        .map(|(service, remote)| (service, remote, facts(snapshot, service, remote)))
        .filter(|(service, _, facts)| checked.get(&service.name).is_none_or(|last| last.facts != *facts || last.next <= now))
        .collect();
    let check = |(service, remote, facts): (&Arc<ApiService>, &Remote, u64)| {
        let (service, remote) = (Arc::clone(service), remote.clone());
        async move {
            let outcome = look(server, snapshot, &service, &remote).await;
            let written = write(server, &service, &outcome).await;
            if let Err(status) = &written {
                tracing::debug!(service.name, status.message, "an APIService's status could not be written");
            }
            (service.name.clone(), facts, outcome, written.is_ok())
        }
    };
    let checks: Vec<_> = due.into_iter().map(check).collect();
    let outcomes: Vec<_> = futures::stream::iter(checks).buffer_unordered(ASKED_MAX).collect().await;
    for (name, facts, outcome, written) in outcomes {
        let before = checked.get(&name).map_or(0, |last| last.failures);
        let good = outcome.available && written;
        let failures = if good { 0 } else { before + 1 };
        let wait = if good { RECHECK } else { RECHECK.min(RETRY * 2u32.saturating_pow(before.min(10))) };
        checked.insert(name, Checked { facts, next: Instant::now() + wait, failures });
    }
    let now = Instant::now();
    checked.values().map(|last| last.next.saturating_duration_since(now)).min().unwrap_or(IDLE)
}

/// What an outcome depends on: the APIService and its status, the Service, and where that leads.
fn facts(snapshot: &Snapshot, service: &ApiService, remote: &Remote) -> u64 {
    let mut hasher = DefaultHasher::new();
    let revision = |key: String| snapshot.objects.get(key.as_str()).map(|entry| entry.mod_revision);
    (remote, service.is_available).hash(&mut hasher);
    revision(format!("{SERVICES}{}/{}", remote.namespace, remote.service)).hash(&mut hasher);
    slices(snapshot, remote).into_iter().for_each(|entry| entry.mod_revision.hash(&mut hasher));
    hasher.finish()
}

/// Where the Service leads.
fn slices<'a>(snapshot: &'a Snapshot, remote: &Remote) -> Vec<&'a Arc<stored::Entry>> {
    let prefix = format!("{SLICES}{}/", remote.namespace);
    stored::below(snapshot, &prefix, "")
        .filter(|entry| entry.attributes.labels.get(SERVICE_NAME).is_some_and(|of| *of == remote.service))
        .collect()
}

async fn look(server: &ApiServer, snapshot: &Snapshot, service: &ApiService, remote: &Remote) -> Outcome {
    if let Err(outcome) = leads_somewhere(server, snapshot, remote) {
        return outcome;
    }
    // One that answers at once is spared the rest.
    let first = answers(server, service, remote).await;
    let answered = match first {
        Ok(()) => Ok(()),
        Err(_) => {
            let mut others: FuturesUnordered<_> = (1..ATTEMPTS).map(|_| answers(server, service, remote)).collect();
            let mut answered = first;
            while let (Err(_), Some(other)) = (&answered, others.next().await) {
                answered = other;
            }
            answered
        }
    };
    match answered {
        Ok(()) => Outcome { available: true, reason: "Passed", message: "all checks passed".into() },
        Err(why) => unavailable("FailedDiscoveryCheck", why),
    }
}

/// What can be said without asking the server.
fn leads_somewhere(server: &ApiServer, snapshot: &Snapshot, remote: &Remote) -> Result<(), Outcome> {
    let Remote { namespace, service: name, port, .. } = remote;
    let object = server.strategy("", "v1", "services").and_then(|kind| get_cached(snapshot, &*kind, namespace, name));
    let Some(object) = object else {
        return Err(unavailable("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    if object["spec"]["type"] != "ClusterIP" {
        return Ok(());
    }
    let ports = object["spec"]["ports"].as_array().into_iter().flatten();
    let Some(served) = ports.into_iter().find(|served| served["port"] == *port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(unavailable("ServicePortError", message));
    };
    let port_name = served["name"].as_str().unwrap_or_default();
    let slices: Vec<Value> =
        slices(snapshot, remote).into_iter().filter_map(|entry| serde_json::from_slice(&entry.bytes).ok()).collect();
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(unavailable("EndpointsNotFound", message));
    }
    if !slices.iter().any(|slice| has_endpoint(slice, port_name)) {
        let message =
            format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}");
        return Err(unavailable("MissingEndpoints", message));
    }
    Ok(())
}

fn has_endpoint(slice: &Value, port_name: &str) -> bool {
    let list = |field: &str| slice[field].as_array().cloned().unwrap_or_default();
    list("endpoints").iter().any(|endpoint| endpoint["conditions"]["ready"] != false)
        && list("ports").iter().any(|port| port["name"].as_str().unwrap_or_default() == port_name && port["port"].is_u64())
}

/// Asks for what every extension server has: the list of its resources.
async fn answers(server: &ApiServer, service: &ApiService, remote: &Remote) -> Result<(), String> {
    let endpoint = resolve::service(server, &remote.namespace, &remote.service, remote.port)?;
    let path = service.root();
    let url = format!("https://{endpoint}{path}");
    let question = Ask { path: &path, accept: "application/json", etag: None, timeout: ASK_TIMEOUT, bytes_max: ANSWER_BYTES_MAX };
    // As Kubernetes does: whether it is the right server is seen when a request is passed on.
    let failed = match ask(server, &remote.unverified(), endpoint, &question).await {
        Ok(answer) if answer.code.is_success() => return Ok(()),
        Ok(answer) => format!("bad status from {url}: {}", answer.code.as_u16()),
        Err(why) => why,
    };
    Err(format!("failing or missing response from {url}: {failed}"))
}

async fn write(server: &ApiServer, service: &ApiService, outcome: &Outcome) -> Result<(), Status> {
    let Some(strategy) = server.strategy(GROUP, "v1", "apiservices") else { return Ok(()) };
    let snapshot = server.snapshot();
    let Some(entry) = find(&snapshot, &*strategy, "", &service.name) else { return Ok(()) };
    let object: Value = serde_json::from_slice(&entry.bytes).unwrap_or_default();
    let says = |object: &Value| {
        definition::condition(object, AVAILABLE).is_some_and(|now| {
            let status = if outcome.available { "True" } else { "False" };
            now["status"] == status && now["reason"] == outcome.reason && now["message"] == outcome.message
        })
    };
    // Written only if it says something new, and if it is still the one that was looked at.
    if says(&object) || ApiService::of(&object).remote != service.remote {
        return Ok(());
    }
    tracing::info!(service.name, outcome.available, outcome.reason, outcome.message, "an APIService's availability changes");
    let user = User::apiserver();
    let target = Target::new(server, &*strategy, &user, "", &service.name);
    let uid = object["metadata"]["uid"].as_str().map(str::to_owned);
    let now = server.now();
    let change = |mut object: Value| {
        definition::set_condition(&mut object, AVAILABLE, outcome.available, outcome.reason, &outcome.message, now);
        Ok(object)
    };
    match guaranteed_update(&target, &Preconditions { uid, resource_version: None }, change).await {
        Err(status) if status.code == http::StatusCode::NOT_FOUND => Ok(()),
        other => other.map(|_| ()),
    }
}
