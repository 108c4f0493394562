//! `pods/eviction`: deletes a pod if its PodDisruptionBudget allows it, and counts that against the budget.

use super::binding::set_condition;
use crate::admission::Operation;
use crate::http::Call;
use crate::http::error::Status;
use crate::http::respond;
use crate::kind::Strategy;
use crate::stored;
use crate::verbs::delete::DeletePreconditions;
use crate::verbs::{self, DeleteOptions, Preconditions, Target, object_meta};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use slipway_api::meta::LabelSelector;
use slipway_api::selector::Selector;
use std::ops::Bound;

/// Evictions that the controller has not confirmed yet. More would make the budget's status too large to be watched.
const DISRUPTED_PODS_MAX: usize = 2_000;
/// After how long a client asks again while the budget's controller catches up.
const RETRY_AFTER_SECONDS: u64 = 10;
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub async fn create(call: Call) -> Result<Response, Status> {
    let accept = call.accept()?;
    crate::admission::check_eviction(&call)?;
    let body = call.read_body().await?;
    let mut eviction = if body.is_empty() { json!({}) } else { super::parse_body(call.content_type(), &body)? };
    let name = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() && name != call.name() {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    super::admit(&call, Operation::Create, call.name(), call.info.query.dry_run()?, &mut eviction).await?;
    let options: DeleteOptions = match eviction.get("deleteOptions") {
        None | Some(Value::Null) => DeleteOptions::default(),
        Some(options) => serde_json::from_value(options.clone())
            .map_err(|error| Status::bad_request(format!("error decoding DeleteOptions: {error}")))?,
    };
    let asked = crate::http::query::dry_run(options.dry_run.iter().map(String::as_str))?;
    let dry_run = asked || call.info.query.dry_run()?;
    let target = Target {
        server: &call.server,
        strategy: &*call.strategy,
        user: &call.user,
        namespace: call.namespace(),
        name: call.name(),
        dry_run,
    };
    match evict(&target, options).await {
        Ok(()) => Ok(respond::value(accept, StatusCode::CREATED, &super::success(StatusCode::CREATED))),
        Err(status) => {
            let seconds = status.details["retryAfterSeconds"].as_u64();
            let mut response = status.into_response();
            if let Some(seconds) = seconds {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Ok(response)
        }
    }
}

async fn evict(target: &Target<'_>, mut options: DeleteOptions) -> Result<(), Status> {
    let pod = verbs::get_object(target.server, target.strategy, target.namespace, target.name).await?;
    let mut expected = options.preconditions.clone().unwrap_or_default();
    let wanted = Preconditions { uid: expected.uid.clone(), resource_version: expected.resource_version.clone() };
    wanted.check(target.strategy.names(), &pod)?;

    if needs_budget(&pod) {
        let budgets = target.server.strategy("policy", "v1", "poddisruptionbudgets");
        if let Some(strategy) = &budgets
            && let Some(budget) = budget_of(target, &**strategy, &pod)?
        {
            if is_free_to_go(&pod, &budget) {
                // It counts for nothing now; if it becomes ready meanwhile, it must be asked about again.
                expected.resource_version = pod["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            } else {
                let name = budget["metadata"]["name"].as_str().unwrap_or_default();
                let budget_target = Target { strategy: &**strategy, name, ..*target };
                let now = target.server.now();
                verbs::guaranteed_update(&budget_target, &Preconditions::default(), |budget| charge(budget, target.name, now))
                    .await?;
            }
        }
    }
    expected.uid = pod["metadata"]["uid"].as_str().map(str::to_owned);
    if expected.resource_version.is_none() {
        mark(target, &expected).await?;
    }
    options.preconditions = Some(expected);
    verbs::delete_object(target, &options).await.map(|_| ())
}

/// Says in the pod's status why it goes, so that a Job can tell a disruption from a failure.
async fn mark(target: &Target<'_>, expected: &DeletePreconditions) -> Result<(), Status> {
    let preconditions = Preconditions { uid: expected.uid.clone(), resource_version: None };
    let now = target.server.now();
    let condition = json!({
        "type": "DisruptionTarget", "status": "True",
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
    });
    verbs::guaranteed_update(target, &preconditions, |mut pod| {
        set_condition(&mut pod, condition.clone(), now);
        Ok(pod)
    })
    .await
    .map(|_| ())
}

/// A pod that has ended, that has not begun, or that is going already disturbs nobody.
fn needs_budget(pod: &Value) -> bool {
    let going = pod["metadata"].get("deletionTimestamp").is_some_and(|time| !time.is_null());
    !going && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
}

/// A pod that isn't ready may go without being counted, as `unhealthyPodEvictionPolicy` says.
fn is_free_to_go(pod: &Value, budget: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    if conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True") {
        return false;
    }
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let healthy = count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || healthy
}

/// The one budget that selects the pod.
fn budget_of(target: &Target<'_>, strategy: &dyn Strategy, pod: &Value) -> Result<Option<Value>, Status> {
    let prefix = stored::prefix(strategy.names(), Some(target.namespace));
    let snapshot = target.server.snapshot();
    let labels = pod["metadata"]["labels"].as_object();
    let labels = labels.into_iter().flatten().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
    let labels: std::collections::BTreeMap<String, String> = labels.collect();
    let mut found = None;
    let end = stored::prefix_end(&prefix);
    let range = (Bound::Included(prefix.as_str()), Bound::Excluded(end.as_str()));
    for (_, entry) in snapshot.objects.range::<_, str>(range) {
        let Ok(budget) = stored::decode(strategy, &entry.bytes) else { continue };
        let Ok(selector) = serde_json::from_value::<LabelSelector>(budget["spec"]["selector"].clone()) else { continue };
        if !Selector::from_label_selector(&selector).is_ok_and(|selector| selector.matches(&labels)) {
            continue;
        }
        if found.replace(budget).is_some() {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                format!("Internal error occurred: {why}"),
            ));
        }
    }
    Ok(found)
}

/// The budget with one disruption less, or the refusal.
fn charge(mut budget: Value, pod: &str, now: jiff::Timestamp) -> Result<Value, Status> {
    let name = budget["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let status = budget["status"].clone();
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if count("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many_requests(&why, Some(RETRY_AFTER_SECONDS)));
    }
    let allowed = count("disruptionsAllowed");
    let forbidden = |why: &str| {
        let message = format!("poddisruptionbudgets.policy \"{name}\" is forbidden: {why}");
        Status::forbidden(message).with_details(json!({"name": name, "group": "policy", "kind": "poddisruptionbudgets"}))
    };
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        return Err(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    let conditions = status["conditions"].as_array();
    let condition = conditions.into_iter().flatten().find(|condition| condition["type"] == "DisruptionAllowed");
    if allowed == 0 {
        let why = match condition.filter(|condition| condition["reason"] == "SyncFailed") {
            Some(condition) => {
                let message = condition["message"].as_str().unwrap_or_default();
                format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}")
            }
            None => {
                let (desired, current) = (count("desiredHealthy"), count("currentHealthy"));
                format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
            }
        };
        return Err(too_many_requests(&why, None));
    }
    budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
    budget["status"]["disruptedPods"][pod] = object_meta::timestamp(now);
    if allowed == 1 {
        let condition = json!({
            "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "observedGeneration": status["observedGeneration"], "lastTransitionTime": object_meta::timestamp(now),
        });
        let mut conditions = budget["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|other| other["type"] != "DisruptionAllowed");
        conditions.push(condition);
        budget["status"]["conditions"] = conditions.into();
    }
    Ok(budget)
}

fn too_many_requests(cause: &str, retry_after_seconds: Option<u64>) -> Status {
    let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
    if let Some(seconds) = retry_after_seconds {
        details["retryAfterSeconds"] = seconds.into();
    }
    Status::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", VIOLATES).with_details(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({
            "metadata": {"name": "web", "generation": 2}, "spec": {},
            "status": {"observedGeneration": 2, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 3},
        })
    }

    fn charged(budget: Value) -> Result<Value, Status> {
        charge(budget, "web-1", "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn an_eviction_is_counted_against_the_budget() {
        let charged = charged(budget(1)).unwrap();
        assert_eq!(charged["status"]["disruptionsAllowed"], 0);
        assert_eq!(charged["status"]["disruptedPods"], json!({"web-1": "2026-01-01T00:00:00Z"}));
        assert_eq!(charged["status"]["conditions"][0]["reason"], "InsufficientPods");
    }

    #[test]
    fn an_exhausted_budget_is_too_many_requests_with_the_cause() {
        let status = charged(budget(0)).unwrap_err();
        assert_eq!((status.code.as_u16(), status.reason, status.message.as_str()), (429, "TooManyRequests", VIOLATES));
        let cause = json!({"reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods and has 3 currently"});
        assert_eq!(status.details["causes"], json!([cause]));
        assert_eq!(status.details.get("retryAfterSeconds"), None);
    }

    #[test]
    fn a_budget_that_its_controller_has_not_seen_makes_the_client_wait() {
        let mut unseen = budget(5);
        unseen["metadata"]["generation"] = json!(3);
        assert_eq!(charged(unseen).unwrap_err().details["retryAfterSeconds"], 10);
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_freely_only_while_enough_are_healthy() {
        let pod = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}});
        assert!(is_free_to_go(&pod, &budget(0)));
        let mut short = budget(0);
        short["status"]["currentHealthy"] = json!(1);
        assert!(!is_free_to_go(&pod, &short));
        short["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        assert!(is_free_to_go(&pod, &short));
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(!is_free_to_go(&ready, &short));
    }
}
