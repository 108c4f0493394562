//! Resources of a pod as a whole: they hold what its containers ask for.

use super::containers::quantities;
use crate::http::error::Invalid;
use crate::resources::amounts::{self, is_exact};
use serde_json::json;
use slipway_api::core::{Pod, PodSpec};
use slipway_api::quantity::Quantity;
use slipway_api::quota;

const SUPPORTED: [&str; 3] = ["cpu", "hugepages-", "memory"];

pub fn check(at: &str, spec: &PodSpec, errors: &mut Vec<Invalid>) {
    let Some(resources) = &spec.resources else { return };
    if resources.claims.is_some() {
        errors.push(Invalid::forbidden(format!("{at}.claims"), "claims cannot be set for Resources at pod-level"));
    }
    for (field, list) in [("limits", resources.limits.as_ref()), ("requests", resources.requests.as_ref())] {
        let at = format!("{at}.{field}");
        for name in list.into_iter().flatten().map(|(name, _)| name) {
            if !matches!(name.as_str(), "cpu" | "memory") && !name.starts_with("hugepages-") {
                errors.push(Invalid::not_supported(format!("{at}[{name}]"), &json!(name), &SUPPORTED));
            }
        }
        quantities(&at, list, errors);
    }
    let limit_of = |name: &str| Quantity::parse(&resources.limits.as_ref()?.get(name)?.0).ok();
    for (name, text) in resources.requests.iter().flatten() {
        let (Ok(request), Some(limit)) = (Quantity::parse(&text.0), limit_of(name)) else { continue };
        if is_exact(name) && request != limit {
            let why = format!("must be equal to {name} limit of {limit}");
            errors.push(Invalid::value(format!("{at}.requests"), &json!(text.0), &why));
        } else if request > limit {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(Invalid::value(format!("{at}.requests"), &json!(text.0), &why));
        }
    }
    holds_the_containers(at, spec, errors);
}

fn holds_the_containers(at: &str, spec: &PodSpec, errors: &mut Vec<Invalid>) {
    let amount = |list: Option<&amounts::List>, name: &str| list.and_then(|list| Quantity::parse(&list.get(name)?.0).ok());
    let Some(resources) = &spec.resources else { return };
    let bare = Pod { spec: Some(PodSpec { resources: None, ..spec.clone() }), ..Pod::default() };
    for (name, sum) in quota::totals(&bare, false).requests {
        // What is not asked for the pod as a whole is not held by it, unless it is among what it can be asked for.
        if !matches!(name.as_str(), "cpu" | "memory") && !name.starts_with("hugepages-") {
            continue;
        }
        let whole = amount(resources.requests.as_ref(), &name);
        if sum > whole.unwrap_or_default() {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            let shown = whole.unwrap_or_default().to_string();
            errors.push(Invalid::value(format!("{at}.requests[{name}]"), &json!(shown), &why));
        }
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        for (name, text) in limits.into_iter().flatten() {
            let (Ok(limit), Some(whole)) = (Quantity::parse(&text.0), amount(resources.limits.as_ref(), name)) else { continue };
            if limit > whole {
                let why = format!("must be less than or equal to pod limits of {whole}");
                errors.push(Invalid::value(format!("{at}.containers[{index}][{name}].limits"), &json!(text.0), &why));
            }
        }
    }
}
