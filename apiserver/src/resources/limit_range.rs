//! LimitRange: what containers, pods and claims of a namespace may ask for, and what those ask for that say nothing.

use super::{amounts, fill, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use serde_json::{Map, Value, json};
pub use slipway_api::core::LimitRange;
use slipway_api::core::LimitRangeItem;
use slipway_api::name;
use slipway_api::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

impl Kind for LimitRange {
    const NAMES: Names = Names { short: &["limits"], ..Names::namespaced("", "v1", "LimitRange", "limitranges", "limitrange") };

    /// The default limit of a container is the maximum, its default request that limit, or else the minimum.
    fn fill_defaults(object: &mut Value) {
        let Some(spec) = fill::inner(object, "spec") else { return };
        for item in fill::items(spec, "limits").filter(|item| item["type"] == "Container") {
            let list = |item: &Value, field: &str| item.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
            let add = |into: &mut Map<String, Value>, from: &Map<String, Value>| {
                for (name, amount) in from {
                    into.entry(name.clone()).or_insert_with(|| amount.clone());
                }
            };
            let (mut limits, mut requests) = (list(item, "default"), list(item, "defaultRequest"));
            add(&mut limits, &list(item, "max"));
            add(&mut requests, &limits);
            add(&mut requests, &list(item, "min"));
            for (field, list) in [("default", limits), ("defaultRequest", requests)] {
                if !list.is_empty() {
                    item[field] = list.into();
                }
            }
        }
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let mut types = BTreeSet::new();
        for (index, item) in self.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            let at = format!("spec.limits[{index}]");
            check_type(&format!("{at}.type"), &item.type_, &mut errors);
            if !types.insert(&item.type_) {
                errors.push(Invalid::duplicate(format!("{at}.type"), &json!(item.type_)));
            }
            check(&at, item, &mut errors);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::NAME, show::CREATED_AT]
    }

    fn row(&self, object: &Value, _: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), object["metadata"]["creationTimestamp"].clone()]
    }
}

fn check_type(at: &str, type_: &str, errors: &mut Vec<Invalid>) {
    let wrong = name::qualified_name(type_);
    if !wrong.is_empty() {
        rules::all(at, type_, wrong, errors);
    } else if !type_.contains('/') && !TYPES.contains(&type_) {
        errors.push(Invalid::value(at, &json!(type_), "must be a standard limit type or fully qualified"));
    }
}

/// The lists of one item, each amount by its resource.
struct Lists {
    min: BTreeMap<String, Quantity>,
    max: BTreeMap<String, Quantity>,
    default: BTreeMap<String, Quantity>,
    default_request: BTreeMap<String, Quantity>,
    ratio: BTreeMap<String, Quantity>,
}

fn check(at: &str, item: &LimitRangeItem, errors: &mut Vec<Invalid>) {
    let mut read = |field: &str, list: Option<&amounts::List>, checked: bool| {
        let amounts = list.into_iter().flatten().filter_map(|(resource, amount)| {
            let at = format!("{at}.{field}[{resource}]");
            if checked {
                amounts::check_limit_name(&at, &item.type_, resource, errors);
            }
            amounts::amount(&at, amount, errors).map(|amount| (resource.clone(), amount))
        });
        amounts.collect::<BTreeMap<_, _>>()
    };
    let of_pod = item.type_ == "Pod";
    let lists = Lists {
        max: read("max", item.max.as_ref(), true),
        min: read("min", item.min.as_ref(), true),
        default: read("default", item.default.as_ref(), !of_pod),
        default_request: read("defaultRequest", item.default_request.as_ref(), !of_pod),
        ratio: read("maxLimitRequestRatio", item.max_limit_request_ratio.as_ref(), true),
    };
    if of_pod {
        for (field, list) in [("default", &lists.default), ("defaultRequest", &lists.default_request)] {
            if !list.is_empty() {
                errors.push(Invalid::forbidden(format!("{at}.{field}"), "may not be specified when `type` is 'Pod'"));
            }
        }
    }
    if item.type_ == "PersistentVolumeClaim" && !lists.min.contains_key("storage") && !lists.max.contains_key("storage") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(Invalid::required(format!("{at}.limits"), why));
    }
    let all = [&lists.min, &lists.max, &lists.default, &lists.default_request, &lists.ratio];
    let resources: BTreeSet<&String> = all.into_iter().flat_map(BTreeMap::keys).collect();
    for resource in resources {
        compare(at, resource, &lists, errors);
    }
}

fn compare(at: &str, resource: &str, lists: &Lists, errors: &mut Vec<Invalid>) {
    let of = |list: &BTreeMap<String, Quantity>| list.get(resource).copied();
    let (min, max) = (of(&lists.min), of(&lists.max));
    let (default, request, ratio) = (of(&lists.default), of(&lists.default_request), of(&lists.ratio));
    let mut refuse = |field: &str, value: Quantity, why: String| {
        errors.push(Invalid::value(format!("{at}.{field}[{resource}]"), &json!(value.to_string()), &why));
    };
    let greater = |one: Option<Quantity>, other: Option<Quantity>| one.zip(other).filter(|(one, other)| one > other);
    if let Some((min, max)) = greater(min, max) {
        refuse("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let Some((min, request)) = greater(min, request) {
        refuse("defaultRequest", request, format!("min value {min} is greater than default request value {request}"));
    }
    if let Some((request, max)) = greater(request, max) {
        refuse("defaultRequest", request, format!("default request value {request} is greater than max value {max}"));
    }
    if let Some((request, limit)) = greater(request, default) {
        refuse("defaultRequest", request, format!("default request value {request} is greater than default limit value {limit}"));
    }
    if let Some((min, limit)) = greater(min, default) {
        refuse("default", min, format!("min value {min} is greater than default value {limit}"));
    }
    if let Some((limit, max)) = greater(default, max) {
        refuse("default", max, format!("default value {limit} is greater than max value {max}"));
    }
    if let Some(ratio) = ratio.filter(|ratio| *ratio < Quantity::from_value(1)) {
        refuse("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
    }
    if let (Some(ratio), Some(min), Some(max)) = (ratio, min, max)
        && !min.is_zero()
        && ratio.as_f64() > max.as_f64() / min.as_f64()
    {
        let widest = max.as_f64() / min.as_f64();
        refuse("maxLimitRequestRatio", ratio, format!("ratio {ratio} is greater than max/min = {widest:.6}"));
    }
    if let (Some(limit), Some(request)) = (default, request)
        && amounts::is_exact(resource)
        && limit != request
    {
        let why = format!("default value {limit} must equal to defaultRequest value {request} in {resource}");
        refuse("defaultRequest", request, why);
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn range(items: Value) -> Value {
        let mut it = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": items}});
        Builtin::<super::LimitRange>::new().fill_defaults(&mut it);
        it
    }

    fn errors(items: Value) -> Vec<String> {
        let errors = Builtin::<super::LimitRange>::new().validate(&range(items));
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn what_is_not_said_follows_from_what_is() {
        let it = range(
            json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}, {"type": "Pod", "max": {"cpu": "4"}}]),
        );
        assert_eq!(it["spec"]["limits"][0]["default"], json!({"cpu": "2"}));
        assert_eq!(it["spec"]["limits"][0]["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
        assert_eq!(it["spec"]["limits"][1].get("default"), None);
        assert_eq!(range(it["spec"]["limits"].clone()), it);
    }

    #[test]
    fn limits_that_no_container_could_keep_are_refused() {
        let good = json!([{"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "4"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]);
        assert_eq!(errors(good), Vec::<String>::new());
        assert_eq!(
            errors(
                json!([{"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "1"}}, {"type": "Pod"}, {"type": "Cup"}])
            ),
            [
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
                "spec.limits[1].type: Duplicate value: \"Pod\"",
                "spec.limits[2].type: Invalid value: \"Cup\": must be a standard limit type or fully qualified",
            ]
        );
        assert_eq!(
            errors(
                json!([{"type": "PersistentVolumeClaim"}, {"type": "Container", "max": {"cup": "1"}, "maxLimitRequestRatio": {"cpu": "500m"}}])
            ),
            [
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                "spec.limits[1].max[cup]: Invalid value: \"cup\": must be a standard resource type or fully qualified",
                "spec.limits[1].max[cup]: Invalid value: \"cup\": must be a standard resource for containers",
                "spec.limits[1].default[cup]: Invalid value: \"cup\": must be a standard resource type or fully qualified",
                "spec.limits[1].default[cup]: Invalid value: \"cup\": must be a standard resource for containers",
                "spec.limits[1].defaultRequest[cup]: Invalid value: \"cup\": must be a standard resource type or fully qualified",
                "spec.limits[1].defaultRequest[cup]: Invalid value: \"cup\": must be a standard resource for containers",
                "spec.limits[1].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            ]
        );
    }
}
