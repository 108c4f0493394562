//! ServiceCIDR: the ranges that Services get their addresses from.

use super::{addresses, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, keep};
use serde_json::{Value, json};
pub use slipway_api::networking::ServiceCIDR;

/// One of each family.
const RANGES_MAX: usize = 2;
const AT: &str = "spec.cidrs";

impl Kind for ServiceCIDR {
    const NAMES: Names = Names {
        namespaced: false,
        status: true,
        ..Names::namespaced("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", "servicecidr")
    };

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({});
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        check(ranges(self), &mut errors);
        errors
    }

    /// A range stays; one of the other family may be added to it.
    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let (new, before) = (ranges(self), ranges(old));
        if new.len() == before.len() || (before.len() == 1 && new.len() == RANGES_MAX) {
            for (index, (range, _)) in new.iter().zip(before).enumerate().filter(|(_, (range, before))| range != before) {
                errors.push(Invalid::value(format!("{AT}[{index}]"), &json!(range), rules::IMMUTABLE));
            }
        } else {
            errors.push(Invalid::value(AT, &json!(new), rules::IMMUTABLE));
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::text("CIDRs", "The ranges."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), json!(ranges(self).join(",")), age(object, now)]
    }
}

fn ranges(of: &ServiceCIDR) -> &[String] {
    of.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or(&[])
}

fn check(ranges: &[String], errors: &mut Vec<Invalid>) {
    if ranges.is_empty() {
        errors.push(Invalid::required(AT, "at least one CIDR required"));
        return;
    }
    if ranges.len() > RANGES_MAX {
        errors.push(Invalid::value(AT, &json!({"cidrs": ranges}), "may only hold up to 2 values"));
        return;
    }
    for (index, range) in ranges.iter().enumerate() {
        addresses::cidr(&format!("{AT}[{index}]"), range, errors);
    }
    let families: Vec<bool> =
        ranges.iter().filter_map(|range| addresses::parse_cidr(range)).map(|(address, _)| address.is_ipv4()).collect();
    if let [one, other] = families[..]
        && one == other
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(Invalid::value(AT, &json!(ranges), why));
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn ranges_stay_and_one_of_the_other_family_may_come() {
        let strategy = Builtin::<super::ServiceCIDR>::new();
        let cidr = |ranges: Value| json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "c"}, "spec": {"cidrs": ranges}});
        let texts = |errors: Vec<crate::http::error::Invalid>| {
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        let one = cidr(json!(["10.0.0.0/16"]));
        let two = cidr(json!(["10.0.0.0/16", "fd00::/108"]));
        for good in [&one, &two] {
            assert_eq!(texts(strategy.validate(good)), Vec::<String>::new());
        }
        assert_eq!(texts(strategy.validate_update(&two, &one)), Vec::<String>::new());
        assert_eq!(texts(strategy.validate(&cidr(json!([])))), ["spec.cidrs: Required value: at least one CIDR required"]);
        let same = texts(strategy.validate(&cidr(json!(["10.0.0.0/16", "10.1.0.0/16"]))));
        assert!(same[0].contains("may specify no more than one IP for each IP family"), "{same:?}");
        assert_eq!(
            texts(strategy.validate(&cidr(json!(["10.0.0.1/16"])))),
            ["spec.cidrs[0]: Invalid value: \"10.0.0.1/16\": must not have bits set beyond the prefix length"]
        );
        assert_eq!(
            texts(strategy.validate_update(&one, &two)),
            ["spec.cidrs: Invalid value: [\"10.0.0.0/16\"]: field is immutable"]
        );
        assert_eq!(
            texts(strategy.validate_update(&cidr(json!(["10.9.0.0/16"])), &one)),
            ["spec.cidrs[0]: Invalid value: \"10.9.0.0/16\": field is immutable"]
        );
        assert_eq!(strategy.row(&two, jiff::Timestamp::UNIX_EPOCH)[1], "10.0.0.0/16,fd00::/108");
    }
}
