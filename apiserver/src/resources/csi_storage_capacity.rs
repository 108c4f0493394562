//! CSIStorageCapacity: how much room a driver has for volumes of a class in a part of the cluster.

use super::{amounts, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::storage::CSIStorageCapacity;

impl Kind for CSIStorageCapacity {
    const NAMES: Names =
        Names::namespaced("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities", "csistoragecapacity");

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        if let Some(topology) = &self.node_topology {
            rules::label_selector("nodeTopology", topology, &mut errors);
        }
        let class = &self.storage_class_name;
        rules::all("storageClassName", class, name::dns1123_subdomain(class), &mut errors);
        if let Some(capacity) = &self.capacity {
            amounts::amount("capacity", capacity, &mut errors);
        }
        errors
    }

    /// What the driver was asked about stays; its answer changes.
    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        rules::same("nodeTopology", &self.node_topology, &old.node_topology, &mut errors);
        rules::same("storageClassName", &self.storage_class_name, &old.storage_class_name, &mut errors);
        errors
    }

    const UNCONDITIONAL_UPDATE: bool = false;

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("StorageClassName", "The class that it is about."),
            Column::text("Capacity", "How much room there is."),
        ]
    }

    fn row(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        let capacity = self.capacity.as_ref().map_or(show::UNSET, |capacity| capacity.0.as_str());
        vec![show::name(object), json!(self.storage_class_name), json!(capacity)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn the_answer_changes_and_the_question_stays() {
        let strategy = Builtin::<super::CSIStorageCapacity>::new();
        let capacity = |more: Value| {
            let mut it = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity", "metadata": {"name": "c"}, "storageClassName": "fast"});
            it.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            it
        };
        let texts = |errors: Vec<crate::http::error::Invalid>| {
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        let good = capacity(json!({"capacity": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}}));
        assert_eq!(texts(strategy.validate(&good)), Vec::<String>::new());
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH), [json!("c"), json!("fast"), json!("1Gi")]);
        let bad = capacity(json!({"capacity": "-1", "storageClassName": "Fast", "nodeTopology": {"matchLabels": {"-": "a"}}}));
        let fields: Vec<String> = strategy.validate(&bad).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["nodeTopology.matchLabels", "storageClassName", "capacity"]);
        let other = capacity(json!({"storageClassName": "slow", "capacity": "2Gi"}));
        assert_eq!(
            texts(strategy.validate_update(&other, &good)),
            [
                "nodeTopology: Invalid value: null: field is immutable",
                "storageClassName: Invalid value: \"slow\": field is immutable"
            ]
        );
    }
}
