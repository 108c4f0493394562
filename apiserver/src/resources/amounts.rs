//! Lists of amounts (`cpu: 100m`): which resources they may name where, and which amounts they may give.

use super::rules;
use crate::http::error::Invalid;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::json;
use slipway_api::name;
use slipway_api::quantity::Quantity;
use std::collections::BTreeMap;

pub type List = BTreeMap<String, Amount>;

const OF_CONTAINERS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// What a quota may limit without naming a group.
pub const OF_QUOTAS: [&str; 19] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const NATIVE_DOMAIN: &str = "kubernetes.io/";
const HUGE_PAGES: &str = "hugepages-";
const INTEGER: &str = "must be an integer";

/// Kubernetes' own, and not what somebody's device offers.
fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains(NATIVE_DOMAIN)
}

/// What a device plugin offers: `nvidia.com/gpu`.
pub fn is_extended(resource: &str) -> bool {
    !is_native(resource) && !resource.starts_with("requests.")
}

/// Amounts of a resource that can't be given out twice: what is asked for is what one may use.
pub fn is_exact(resource: &str) -> bool {
    is_extended(resource) || resource.starts_with(HUGE_PAGES)
}

/// A quota of an extended resource: `requests.nvidia.com/gpu`.
pub fn is_extended_in_quota(resource: &str) -> bool {
    !is_native(resource) && resource.starts_with("requests.")
}

pub fn is_standard_in_quota(resource: &str) -> bool {
    OF_QUOTAS.contains(&resource) || resource.starts_with(HUGE_PAGES) || resource.starts_with("requests.hugepages-")
}

/// An amount that isn't negative.
pub fn amount(at: &str, text: &Amount, errors: &mut Vec<Invalid>) -> Option<Quantity> {
    let quantity = Quantity::parse(&text.0);
    match quantity {
        Err(error) => errors.push(Invalid::value(at, &json!(text.0), &error.to_string())),
        Ok(quantity) if quantity.is_negative() => errors.push(Invalid::value(at, &json!(text.0), rules::NOT_NEGATIVE)),
        Ok(_) => {}
    }
    quantity.ok()
}

fn whole(at: &str, text: &Amount, quantity: Quantity, errors: &mut Vec<Invalid>) {
    if quantity != Quantity::from_value(quantity.value()) {
        errors.push(Invalid::value(at, &json!(text.0), INTEGER));
    }
}

/// The amounts of a quota: none negative, and whole where objects are counted.
pub fn of_quota(at: &str, list: Option<&List>, errors: &mut Vec<Invalid>) {
    for (resource, text) in list.into_iter().flatten() {
        let at = format!("{at}[{resource}]");
        rules::all(&at, resource, name::qualified_name(resource), errors);
        if !resource.contains('/') && !is_standard_in_quota(resource) {
            errors.push(Invalid::value(&at, &json!(resource), "must be a standard resource for quota"));
        }
        if let Some(quantity) = amount(&at, text, errors)
            && (COUNTED.contains(&resource.as_str()) || is_extended(resource))
        {
            whole(&at, text, quantity, errors);
        }
    }
}

pub fn check_container_name(at: &str, resource: &str, errors: &mut Vec<Invalid>) {
    rules::all(at, resource, name::qualified_name(resource), errors);
    if !resource.contains('/') && !OF_CONTAINERS.contains(&resource) && !resource.starts_with(HUGE_PAGES) && !resource.is_empty()
    {
        errors.push(Invalid::value(at, &json!(resource), "must be a standard resource for containers"));
    }
}

/// The name of a resource that a LimitRange limits, by the type of what is limited.
pub fn check_limit_name(at: &str, type_: &str, resource: &str, errors: &mut Vec<Invalid>) {
    if !resource.contains('/') && resource != "storage" && !is_standard_in_quota(resource) {
        rules::all(at, resource, name::qualified_name(resource), errors);
        errors.push(Invalid::value(at, &json!(resource), "must be a standard resource type or fully qualified"));
    }
    if matches!(type_, "Pod" | "Container") {
        check_container_name(at, resource, errors);
    }
}
