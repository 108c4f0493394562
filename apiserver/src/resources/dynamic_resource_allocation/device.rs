//! One device of a slice: what it is, how much of what it has, where it is, and what is wrong with it.

use super::{DOMAIN_MAX, ID_MAX, binding_conditions, is_short, label, qualified_name, taint, unique};
use crate::cel::library::semver::Semver;
use crate::http::error::Invalid;
use crate::kind::remove;
use crate::resources::{fill, pod, rules};
use crate::verbs::object_meta::timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::{Value, json};
use slipway_api::name;
use slipway_api::quantity::Quantity;
use slipway_api::resource::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Counter, Device, DeviceAttribute, DeviceCapacity,
};
use std::collections::BTreeMap;

/// Of attributes and capacities together.
const PROPERTIES_MAX: usize = 32;
const VALUE_MAX: usize = 64;
const TAINTS_MAX: usize = 16;
const CONSUMED_SETS_MAX: usize = 2;
const COUNTERS_MAX: usize = 32;
const VALID_VALUES_MAX: usize = 10;
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];
const ONE_OF: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true \
    in the ResourceSlice spec";
const NOT_EACH: &str = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the \
    ResourceSlice spec";

pub fn fill_taints(device: &mut Value, now: jiff::Timestamp) {
    for taint in fill::items(device, "taints") {
        fill::missing(taint, "timeAdded", timestamp(now));
    }
}

pub fn drop_alpha(device: &mut Value) {
    remove(device, "nodeAllocatableResources");
    for attribute in fill::inner(device, "attributes").and_then(Value::as_object_mut).into_iter().flatten() {
        LISTS.iter().for_each(|list| remove(attribute.1, list));
    }
    for consumed in fill::items(device, "consumesCounters") {
        remove(consumed, "compatibilityGroups");
    }
}

/// Whether it says more than devices did at first: fewer of those fit into a slice.
pub fn is_advanced(device: &Device) -> bool {
    let some = |length: Option<usize>| length.is_some_and(|length| length > 0);
    some(device.taints.as_ref().map(Vec::len)) || some(device.consumes_counters.as_ref().map(Vec::len))
}

/// A name as it stands in the path to its value.
fn shown(name: &str) -> String {
    const MAX: usize = DOMAIN_MAX + 1 + ID_MAX;
    if name.len() <= MAX || !name.is_ascii() {
        return name.to_owned();
    }
    let left = MAX - 3;
    format!("{}...{}", &name[..left.div_ceil(2)], &name[name.len() - left / 2..])
}

/// `each`: the devices of the slice say for themselves where they are.
pub fn check(at: &str, device: &Device, each: bool, errors: &mut Vec<Invalid>) {
    label(&format!("{at}.name"), &device.name, errors);
    let (none, nothing) = (BTreeMap::new(), BTreeMap::new());
    let (attributes, capacities) = (device.attributes.as_ref().unwrap_or(&none), device.capacity.as_ref().unwrap_or(&nothing));
    let properties = attributes.len() + capacities.len();
    if properties > PROPERTIES_MAX {
        let why = format!("the total number of attributes and capacities must not exceed {PROPERTIES_MAX}");
        errors.push(Invalid::value(at, &json!(properties), &why));
    }
    let place = format!("{at}.attributes");
    for (name, attribute) in attributes {
        qualified_name(&place, name, errors);
        check_attribute(&format!("{place}[{}]", shown(name)), attribute, errors);
    }
    let place = format!("{at}.capacity");
    for (name, capacity) in capacities {
        qualified_name(&place, name, errors);
        let shared = device.allow_multiple_allocations == Some(true);
        check_capacity(&format!("{place}[{}]", shown(name)), capacity, shared, errors);
    }
    let (taints, place) = (device.taints.as_deref().unwrap_or(&[]), format!("{at}.taints"));
    if is_short(&place, taints.len(), TAINTS_MAX, errors) {
        for (index, one) in taints.iter().enumerate() {
            taint(&format!("{place}[{index}]"), one, errors);
        }
    }
    let (consumed, place) = (device.consumes_counters.as_deref().unwrap_or(&[]), format!("{at}.consumesCounters"));
    if is_short(&place, consumed.len(), CONSUMED_SETS_MAX, errors) {
        for (index, one) in consumed.iter().enumerate() {
            let at = format!("{place}[{index}]");
            if one.counter_set.is_empty() {
                errors.push(Invalid::required(format!("{at}.counterSet"), ""));
            } else {
                label(&format!("{at}.counterSet"), &one.counter_set, errors);
            }
            counters(&format!("{at}.counters"), &one.counters, COUNTERS_MAX, errors);
        }
        unique(&place, consumed.iter().map(|one| &one.counter_set), errors);
    }
    check_node(at, device, each, errors);
    let (conditions, failures) = (&device.binding_conditions, &device.binding_failure_conditions);
    binding_conditions(at, conditions.as_deref(), failures.as_deref(), errors);
}

/// What a set has, or what of it is used.
pub fn counters(at: &str, counters: &BTreeMap<String, Counter>, max: usize, errors: &mut Vec<Invalid>) {
    if counters.is_empty() {
        errors.push(Invalid::required(at, ""));
    } else if is_short(at, counters.len(), max, errors) {
        for name in counters.keys() {
            label(at, name, errors);
        }
    }
}

fn check_node(at: &str, device: &Device, each: bool, errors: &mut Vec<Invalid>) {
    if !each {
        if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
            errors.push(Invalid::value(at, &Value::Null, NOT_EACH));
        }
        return;
    }
    let mut said = vec![];
    match device.node_name.as_deref() {
        None => {}
        Some("") => errors.push(Invalid::value(format!("{at}.nodeName"), &json!(""), "must not be empty")),
        Some(node) => {
            said.push("`nodeName`");
            rules::all(&format!("{at}.nodeName"), node, name::dns1123_subdomain(node), errors);
        }
    }
    if let Some(selector) = &device.node_selector {
        said.push("`nodeSelector`");
        pod::scheduling::node_selector(&format!("{at}.nodeSelector"), selector, errors);
    }
    match device.all_nodes {
        None => {}
        Some(true) => said.push("`allNodes`"),
        Some(false) => {
            errors.push(Invalid::value(format!("{at}.allNodes"), &json!(false), "must be either unset or set to true"));
        }
    }
    match said.len() {
        0 => errors.push(Invalid::required(at, ONE_OF)),
        1 => {}
        _ => errors.push(Invalid::value(at, &json!(format!("{{{}}}", said.join(", "))), ONE_OF)),
    }
}

fn check_attribute(at: &str, attribute: &DeviceAttribute, errors: &mut Vec<Invalid>) {
    let given = [attribute.bool.is_some(), attribute.int.is_some(), attribute.string.is_some(), attribute.version.is_some()];
    for (field, value) in [("string", &attribute.string), ("version", &attribute.version)] {
        let Some(value) = value else { continue };
        let at = format!("{at}.{field}");
        if field == "version" && Semver::parse(value, false).is_none() {
            errors.push(Invalid::value(&at, &json!(value), "must be a string compatible with semver.org spec 2.0.0"));
        }
        if value.len() > VALUE_MAX {
            errors.push(Invalid::too_long(at, VALUE_MAX));
        }
    }
    let why = "exactly one value must be specified";
    match given.into_iter().filter(|given| *given).count() {
        0 => errors.push(Invalid::value(at, &json!(""), why)),
        1 => {}
        _ => errors.push(Invalid::value(at, &json!(attribute), why)),
    }
}

fn check_capacity(at: &str, capacity: &DeviceCapacity, shared: bool, errors: &mut Vec<Invalid>) {
    let Some(policy) = &capacity.request_policy else { return };
    let at = format!("{at}.requestPolicy");
    if !shared {
        errors.push(Invalid::forbidden(at, "allowMultipleAllocations must be true"));
        return;
    }
    check_policy(&at, &capacity.value, policy, errors);
}

fn check_policy(at: &str, capacity: &Amount, policy: &CapacityRequestPolicy, errors: &mut Vec<Invalid>) {
    let values = policy.valid_values.as_deref().unwrap_or(&[]);
    if !values.is_empty() && policy.valid_range.is_some() {
        let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        errors.push(Invalid::forbidden(at, why));
        return;
    }
    let kind = match &policy.valid_range {
        Some(_) => "validRange",
        None if !values.is_empty() => "validValues",
        None => return,
    };
    let Some(default) = &policy.default else {
        errors.push(Invalid::required(format!("{at}.default"), &format!("required when {kind} is defined")));
        return;
    };
    let at = format!("{at}.{kind}");
    match &policy.valid_range {
        Some(range) => check_range(&at, default, capacity, range, errors),
        None => check_values(&at, default, capacity, values, errors),
    }
}

/// As a number; decoding has seen to it that it is one.
fn number(amount: &Amount) -> Quantity {
    Quantity::parse(&amount.0).unwrap_or(Quantity::ZERO)
}

fn check_values(at: &str, default: &Amount, capacity: &Amount, values: &[Amount], errors: &mut Vec<Invalid>) {
    for (index, pair) in values.windows(2).enumerate().filter(|(_, pair)| number(&pair[0]) > number(&pair[1])) {
        let place = format!("{at}[{}]", index + 1);
        errors.push(Invalid::value(place, &json!(pair[1].0), "values must be sorted in ascending order"));
    }
    if !is_short(at, values.len(), VALID_VALUES_MAX, errors) {
        return;
    }
    for (index, value) in values.iter().enumerate().filter(|(_, value)| number(value) > number(capacity)) {
        let why = format!("option is larger than capacity value: {}", capacity.0);
        errors.push(Invalid::value(format!("{at}[{index}]"), &json!(value.0), &why));
    }
    for (index, value) in values.iter().enumerate() {
        if values[..index].iter().any(|before| number(before) == number(value)) {
            errors.push(Invalid::duplicate(format!("{at}[{index}]"), &json!(value.0)));
        }
    }
    if !values.iter().any(|value| number(value) == number(default)) {
        errors.push(Invalid::value(at, &json!(default.0), "default value is not valid according to the requestPolicy"));
    }
}

fn check_range(at: &str, default: &Amount, capacity: &Amount, range: &CapacityRequestPolicyRange, errors: &mut Vec<Invalid>) {
    let (min, most) = (number(&range.min), number(capacity));
    let mut refuse = |field: &str, value: &Amount, why: String| {
        errors.push(Invalid::value(format!("{at}.{field}"), &json!(value.0), &why));
    };
    if min > most {
        refuse("min", &range.min, format!("min is larger than capacity value: {}", capacity.0));
    }
    if number(default) < min {
        refuse("default", default, format!("default is less than min: {}", range.min.0));
    }
    if let Some(max) = &range.max {
        if min > number(max) {
            refuse("max", &range.min, format!("min is larger than max: {}", max.0));
        }
        if number(max) > most {
            refuse("max", max, format!("max is larger than capacity value: {}", capacity.0));
        }
        if number(default) > number(max) {
            refuse("default", default, format!("default is more than max: {}", max.0));
        }
    }
    let Some(step) = &range.step else { return };
    if number(step) <= Quantity::ZERO {
        refuse("step", step, "must be greater than zero".into());
        return;
    }
    if min + number(step) > most {
        let added = min + number(step);
        refuse("step", step, format!("one step {added} is larger than capacity value: {}", capacity.0));
    }
    for value in [Some(default), range.max.as_ref()].into_iter().flatten() {
        // Thousandths: finer steps are refused in Kubernetes, too.
        let steps = number(step).milli();
        if steps == 0 || (number(value).milli() - min.milli()) % steps != 0 {
            refuse("step", value, format!("value is not a multiple of a given step ({}) from ({})", step.0, range.min.0));
        }
    }
}
