//! CSINode: the storage drivers that are installed on a node.

use super::csi_driver::driver_name;
use super::{rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, remove};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::storage::CSINode;
use slipway_api::storage::CSINodeDriver;
use std::collections::BTreeSet;

const NODE_ID_MAX: usize = 192;

impl Kind for CSINode {
    const NAMES: Names =
        Names { namespaced: false, ..Names::namespaced("storage.k8s.io", "v1", "CSINode", "csinodes", "csinode") };

    /// What drivers tell of the health of storage is an alpha field, which Kubernetes drops unless it is asked for.
    fn prepare_create(object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(object: &mut Value, _old: &Value) {
        remove(object, "status");
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let mut names = BTreeSet::new();
        for (index, driver) in self.spec.drivers.iter().enumerate() {
            let at = format!("spec.drivers[{index}]");
            check(&at, driver, &mut errors);
            if !names.insert(driver.name.as_str()) {
                errors.push(Invalid::duplicate(format!("{at}.name"), &json!(driver.name)));
            }
            topology_keys(&at, driver.topology_keys.as_deref().unwrap_or(&[]), &mut errors);
        }
        errors
    }

    /// A driver comes and goes; what it is called by its own side stays while it is there. How many volumes it can take may change.
    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let without_count = |driver: &CSINodeDriver| CSINodeDriver { allocatable: None, ..driver.clone() };
        for before in &old.spec.drivers {
            for driver in self.spec.drivers.iter().filter(|driver| driver.name == before.name) {
                rules::same("spec.drivers", &without_count(driver), &without_count(before), &mut errors);
            }
        }
        errors
    }

    const UNCONDITIONAL_UPDATE: bool = false;
    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::integer("Drivers", "How many drivers are installed on the node."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), json!(self.spec.drivers.len()), age(object, now)]
    }
}

fn check(at: &str, driver: &CSINodeDriver, errors: &mut Vec<Invalid>) {
    driver_name(&format!("{at}.name"), &driver.name, errors);
    let place = format!("{at}.nodeID");
    if driver.node_id.is_empty() {
        errors.push(Invalid::required(&place, ""));
    }
    if driver.node_id.len() > NODE_ID_MAX {
        errors.push(Invalid::value(&place, &json!(driver.node_id), &format!("must be {NODE_ID_MAX} characters or less")));
    }
    let count = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count);
    rules::not_negative(&format!("{at}.allocatable.count"), count.map(i64::from), errors);
}

/// Errors are of the driver, as in Kubernetes.
fn topology_keys(at: &str, keys: &[String], errors: &mut Vec<Invalid>) {
    let mut known = BTreeSet::new();
    for key in keys {
        if key.is_empty() {
            errors.push(Invalid::required(at, ""));
        }
        if !known.insert(key) {
            errors.push(Invalid::duplicate(at, &json!(key)));
        }
        rules::all(at, key, name::qualified_name(key), errors);
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn node(drivers: Value) -> Value {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n"}, "spec": {"drivers": drivers}})
    }

    fn texts(errors: Vec<crate::http::error::Invalid>) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_driver_is_there_once() {
        let strategy = Builtin::<super::CSINode>::new();
        let good =
            node(json!([{"name": "a.io", "nodeID": "i-1", "topologyKeys": ["topology.a.io/zone"], "allocatable": {"count": 3}}]));
        assert_eq!(texts(strategy.validate(&good)), Vec::<String>::new());
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH)[1], 1);
        let bad = node(json!([
            {"name": "a.io", "nodeID": "", "allocatable": {"count": -1}},
            {"name": "a.io", "nodeID": "x", "topologyKeys": ["k", "k"]},
        ]));
        assert_eq!(
            texts(strategy.validate(&bad)),
            [
                "spec.drivers[0].nodeID: Required value",
                "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                "spec.drivers[1].name: Duplicate value: \"a.io\"",
                "spec.drivers[1]: Duplicate value: \"k\"",
            ]
        );
        let long = node(json!([{"name": "a.io", "nodeID": "x".repeat(193)}]));
        assert!(texts(strategy.validate(&long))[0].ends_with("must be 192 characters or less"));
    }

    #[test]
    fn only_the_count_of_a_driver_changes() {
        let strategy = Builtin::<super::CSINode>::new();
        let old = node(json!([{"name": "a.io", "nodeID": "i-1", "allocatable": {"count": 3}}]));
        let more = node(json!([{"name": "a.io", "nodeID": "i-1", "allocatable": {"count": 4}}, {"name": "b.io", "nodeID": "2"}]));
        assert_eq!(texts(strategy.validate_update(&more, &old)), Vec::<String>::new());
        let moved = node(json!([{"name": "a.io", "nodeID": "i-2", "allocatable": {"count": 3}}]));
        let errors = texts(strategy.validate_update(&moved, &old));
        assert_eq!(errors, ["spec.drivers: Invalid value: {\"name\":\"a.io\",\"nodeID\":\"i-2\"}: field is immutable"]);
    }
}
