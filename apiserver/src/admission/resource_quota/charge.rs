//! Whether a request fits into a quota, and what the quota is then.

use super::Request;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use slipway_api::core::ResourceQuotaSpec;
use slipway_api::quantity::Quantity;
use slipway_api::quota::{self, Amounts, Measured};
use std::collections::BTreeSet;

#[derive(Debug)]
pub enum Decision {
    /// The quota is about other objects, or the request uses nothing that it limits.
    NotConcerned,
    Refused(String),
    /// The quota with the request in its status, and what of it that is.
    Charged {
        object: Value,
        amounts: Amounts,
    },
}

pub fn decide(request: &Request<'_>, object: &Value) -> Decision {
    let spec = ResourceQuotaSpec::deserialize(&object["spec"]).unwrap_or_default();
    // What the controller has taken in of the spec: before that nothing is enforced.
    let hard = amounts(&object["status"]["hard"]);
    let tracked = quota::tracked(request.group, request.plural, hard.keys());
    let measured = request.object.measured();
    if tracked.is_empty() || !quota::is_in_scope(&spec, measured) {
        return Decision::NotConcerned;
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if let Measured::Pod(pod) = measured
        && let Some(unsaid) = quota::unsaid(&tracked, pod)
    {
        return Decision::Refused(format!("failed quota: {name}: {unsaid}"));
    }
    let used = amounts(&object["status"]["used"]);
    if tracked.iter().any(|resource| !used.contains_key(resource)) {
        let resources: Vec<&str> = tracked.iter().map(String::as_str).collect();
        return Decision::Refused(format!("status unknown for quota: {name}, resources: {}", resources.join(",")));
    }
    let asked: Amounts = request
        .delta
        .iter()
        .filter(|(resource, _)| hard.contains_key(*resource))
        .map(|(r, amount)| (r.clone(), *amount))
        .collect();
    let mut new = used.clone();
    quota::add(&mut new, &asked);
    let exceeded: BTreeSet<&String> = asked
        .iter()
        .filter(|(resource, amount)| **amount > Quantity::ZERO && new[*resource] > hard[*resource])
        .map(|(r, _)| r)
        .collect();
    if !exceeded.is_empty() {
        let list = |amounts: &Amounts| {
            let of = |resource: &&String| format!("{resource}={}", amounts.get(*resource).copied().unwrap_or_default());
            exceeded.iter().map(of).collect::<Vec<_>>().join(",")
        };
        return Decision::Refused(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            list(&asked),
            list(&used),
            list(&hard)
        ));
    }
    if asked.is_empty() {
        return Decision::NotConcerned;
    }
    let mut charged = object.clone();
    charged["status"]["used"] = written(&new);
    Decision::Charged { object: charged, amounts: asked }
}

/// Takes amounts out of what is used, down to nothing.
pub fn discharge(object: &mut Value, amounts: &Amounts) {
    let mut used = self::amounts(&object["status"]["used"]);
    for (resource, amount) in amounts {
        if let Some(own) = used.get_mut(resource) {
            *own = (*own - *amount).max(Quantity::ZERO);
        }
    }
    if !used.is_empty() {
        object["status"]["used"] = written(&used);
    }
}

fn amounts(list: &Value) -> Amounts {
    let list = list.as_object().into_iter().flatten();
    list.filter_map(|(resource, text)| Some((resource.clone(), Quantity::parse(text.as_str()?).ok()?))).collect()
}

fn written(amounts: &Amounts) -> Value {
    amounts.iter().map(|(resource, amount)| (resource.clone(), json!(amount.to_string()))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::resource_quota::Typed;
    use slipway_api::jiff::Timestamp;

    fn quota(spec: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": spec["hard"], "used": used}})
    }

    fn request(spec: Value) -> Request<'static> {
        let object = Typed::of("", "pods", &json!({"metadata": {}, "spec": spec})).unwrap();
        let delta = quota::usage("", "pods", object.measured(), Timestamp::UNIX_EPOCH);
        Request { group: "", plural: "pods", object, delta }
    }

    fn asking(cpu: &str) -> Request<'static> {
        request(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
    }

    fn told(decision: Decision) -> String {
        match decision {
            Decision::NotConcerned => "not concerned".into(),
            Decision::Refused(why) => why,
            Decision::Charged { object, .. } => object["status"]["used"].to_string(),
        }
    }

    #[test]
    fn a_request_is_charged_while_it_fits() {
        let hard = || json!({"hard": {"pods": "2", "requests.cpu": "1", "services": "1"}});
        assert_eq!(
            told(decide(&asking("300m"), &quota(hard(), json!({"pods": "1", "requests.cpu": "500m", "services": "0"})))),
            "{\"pods\":\"2\",\"requests.cpu\":\"800m\",\"services\":\"0\"}"
        );
        assert_eq!(
            told(decide(&asking("600m"), &quota(hard(), json!({"pods": "2", "requests.cpu": "500m", "services": "0"})))),
            "exceeded quota: q, requested: pods=1,requests.cpu=600m, used: pods=2,requests.cpu=500m, limited: pods=2,requests.cpu=1"
        );
    }

    #[test]
    fn what_is_not_counted_yet_or_not_said_is_refused() {
        let cpu = || json!({"hard": {"limits.cpu": "1", "pods": "2"}});
        assert_eq!(told(decide(&asking("1"), &quota(cpu(), json!({})))), "failed quota: q: must specify limits.cpu for: c");
        let pods = quota(json!({"hard": {"pods": "2"}}), json!({}));
        assert_eq!(told(decide(&asking("1"), &pods)), "status unknown for quota: q, resources: pods");
        let mut fresh = pods;
        fresh["status"] = json!({});
        assert_eq!(told(decide(&asking("1"), &fresh)), "not concerned");
    }

    #[test]
    fn a_quota_with_scopes_is_about_some_pods_only() {
        let quota = quota(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), json!({"pods": "1"}));
        assert_eq!(told(decide(&asking("1"), &quota)), "not concerned");
        let best_effort = request(json!({"containers": [{"name": "c"}]}));
        assert_eq!(told(decide(&best_effort, &quota)), "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1");
    }

    #[test]
    fn what_was_charged_is_taken_back() {
        let before = quota(json!({"hard": {"pods": "2", "requests.cpu": "1"}}), json!({"pods": "1", "requests.cpu": "500m"}));
        let Decision::Charged { mut object, amounts } = decide(&asking("300m"), &before) else { panic!("it fits") };
        discharge(&mut object, &amounts);
        assert_eq!(object, before);
    }
}
