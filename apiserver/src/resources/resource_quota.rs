//! ResourceQuota: how much of what the objects of a namespace may use together.

use super::{amounts, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, keep};
use serde_json::{Value, json};
pub use slipway_api::core::ResourceQuota;
use slipway_api::core::{ResourceQuotaSpec, ScopedResourceSelectorRequirement};
use slipway_api::quantity::Quantity;
use std::collections::BTreeSet;

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const OPPOSITES: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("NotTerminating", "Terminating")];
/// What pods use and are counted by.
const OF_PODS: [&str; 7] = ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const NOT_FOR_RESOURCE: &str = "unsupported scope applied to resource";

impl Kind for ResourceQuota {
    const NAMES: Names = Names {
        short: &["quota"],
        status: true,
        ..Names::namespaced("", "v1", "ResourceQuota", "resourcequotas", "resourcequota")
    };

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({});
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = self.spec.clone().unwrap_or_default();
        amounts::of_quota("spec.hard", spec.hard.as_ref(), &mut errors);
        scopes(&spec, &mut errors);
        for requirement in spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten()) {
            scope_requirement(requirement, &spec, &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let set =
            |quota: &Self| quota.spec.iter().flat_map(|spec| spec.scopes.iter().flatten()).cloned().collect::<BTreeSet<_>>();
        if set(self) == set(old) {
            return vec![];
        }
        let scopes = self.spec.as_ref().and_then(|spec| spec.scopes.clone());
        vec![Invalid::value("spec.scopes", &json!(scopes), super::rules::IMMUTABLE)]
    }

    fn validate_status_update(&self, _: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let status = self.status.clone().unwrap_or_default();
        amounts::of_quota("status.hard", status.hard.as_ref(), &mut errors);
        amounts::of_quota("status.used", status.used.as_ref(), &mut errors);
        errors
    }

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Request", "What is used of what may be asked for."),
            Column::text("Limit", "What is used of what may be set as limits."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let status = self.status.clone().unwrap_or_default();
        let used = status.used.unwrap_or_default();
        let (mut requests, mut limits) = (vec![], vec![]);
        for (resource, hard) in status.hard.iter().flatten() {
            let text = |amount: Option<&amounts::List>| {
                let amount = amount.and_then(|list| list.get(resource)).and_then(|amount| Quantity::parse(&amount.0).ok());
                amount.unwrap_or_default().to_string()
            };
            let hard = Quantity::parse(&hard.0).unwrap_or_default();
            let cell = format!("{resource}: {}/{hard}", text(Some(&used)));
            if resource.starts_with("limits") { limits.push(cell) } else { requests.push(cell) }
        }
        vec![show::name(object), json!(requests.join(", ")), json!(limits.join(", ")), age(object, now)]
    }
}

fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&resource),
        _ => OF_PODS.contains(&resource),
    }
}

/// For each of the quota's resources that the scope makes no sense for.
fn misfits<'a>(scope: &'a str, spec: &'a ResourceQuotaSpec) -> impl Iterator<Item = &'a String> {
    let resources = spec.hard.iter().flatten().map(|(resource, _)| resource);
    resources.filter(move |resource| amounts::is_standard_in_quota(resource) && !fits(scope, resource))
}

fn scopes(spec: &ResourceQuotaSpec, errors: &mut Vec<Invalid>) {
    let scopes = spec.scopes.as_deref().unwrap_or(&[]);
    let mut refuse = |why: &str| errors.push(Invalid::value("spec.scopes", &json!(scopes), why));
    for scope in scopes {
        if !SCOPES.contains(&scope.as_str()) {
            refuse("unsupported scope");
        }
        misfits(scope, spec).for_each(|_| refuse(NOT_FOR_RESOURCE));
    }
    let has = |scope: &str| scopes.iter().any(|one| one == scope);
    if OPPOSITES.iter().any(|(one, other)| has(one) && has(other)) {
        refuse("conflicting scopes");
    }
}

fn scope_requirement(requirement: &ScopedResourceSelectorRequirement, spec: &ResourceQuotaSpec, errors: &mut Vec<Invalid>) {
    const AT: &str = "spec.scopeSelector.matchExpressions";
    let ScopedResourceSelectorRequirement { operator, scope_name, values } = requirement;
    if !SCOPES.contains(&scope_name.as_str()) {
        errors.push(Invalid::value(format!("{AT}.scopeName"), &json!(scope_name), "unsupported scope"));
    }
    let misfits = misfits(scope_name, spec).map(|_| Invalid::value(AT, &json!(spec.scope_selector), NOT_FOR_RESOURCE));
    errors.extend(misfits);
    if !["PriorityClass", "VolumeAttributesClass"].contains(&scope_name.as_str()) && operator != "Exists" {
        let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                   ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(Invalid::value(format!("{AT}.operator"), &json!(operator), why));
    }
    let values = values.as_deref().unwrap_or(&[]);
    match operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(Invalid::required(format!("{AT}.values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(Invalid::value(format!("{AT}.values"), &json!(values), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(Invalid::value(format!("{AT}.operator"), &json!(other), "not a valid selector operator")),
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn quota(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec})
    }

    fn errors(spec: Value) -> Vec<String> {
        let errors = Builtin::<super::ResourceQuota>::new().validate(&quota(spec));
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn what_may_be_limited() {
        let hard = json!({"cpu": "1", "requests.nvidia.com/gpu": 1, "count/widgets.example.com": 3, "services.nodeports": 1,
            "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "requests.hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"});
        assert_eq!(errors(json!({"hard": hard})), Vec::<String>::new());
        assert_eq!(
            errors(json!({"hard": {"cups": "1", "memory": "-1", "pods": "500m"}})),
            [
                "spec.hard[cups]: Invalid value: \"cups\": must be a standard resource for quota",
                "spec.hard[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
            ]
        );
    }

    #[test]
    fn scopes_fit_the_resources_and_each_other() {
        assert_eq!(errors(json!({"hard": {"pods": 1}, "scopes": ["BestEffort", "Terminating"]})), Vec::<String>::new());
        assert_eq!(
            errors(json!({"hard": {"cpu": 1}, "scopes": ["BestEffort", "NotBestEffort", "Odd"]})),
            [
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Odd\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Odd\"]: unsupported scope",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Odd\"]: conflicting scopes",
            ]
        );
        let by = |operator: &str, values: Value| {
            errors(json!({"hard": {"pods": 1}, "scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}}))
        };
        assert_eq!(by("In", json!(["high"])), Vec::<String>::new());
        assert_eq!(by("In", json!([])).len(), 1);
        assert_eq!(by("Exists", json!(["high"])).len(), 1);
        assert_eq!(
            by("Near", json!([])),
            ["spec.scopeSelector.matchExpressions.operator: Invalid value: \"Near\": not a valid selector operator"]
        );
        let strategy = Builtin::<super::ResourceQuota>::new();
        let scoped = quota(json!({"scopes": ["BestEffort"]}));
        assert_eq!(strategy.validate_update(&scoped, &quota(json!({})))[0].field, "spec.scopes");
    }

    #[test]
    fn the_row_tells_requests_from_limits() {
        let mut it = quota(json!({}));
        it["status"] =
            json!({"hard": {"limits.cpu": "2", "pods": "3", "requests.cpu": "1"}, "used": {"pods": "1", "limits.cpu": "500m"}});
        let row = Builtin::<super::ResourceQuota>::new().row(&it, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..3], [json!("pods: 1/3, requests.cpu: 0/1"), json!("limits.cpu: 500m/2")]);
    }
}
