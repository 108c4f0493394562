//! Machine: one line of the ledger of what was bought.

use super::{node, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::slipway::Machine;
use slipway_api::slipway::{GROUP, VERSION};

impl Kind for Machine {
    const NAMES: Names = Names {
        namespaced: false,
        status: true,
        categories: &["slipway"],
        ..Names::namespaced(GROUP, VERSION, "Machine", "machines", "machine")
    };
    const STATUS_KEEPS: &'static [&'static str] = crate::kind::METADATA;

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        let needed = [
            ("spec.nodePool", &spec.node_pool),
            ("spec.nodeClassRef.name", &spec.node_class_ref.name),
            ("spec.instanceType", &spec.instance_type),
            ("spec.zone", &spec.zone),
        ];
        errors.extend(needed.into_iter().filter(|(_, text)| text.is_empty()).map(|(at, _)| Invalid::required(at, "")));
        rules::labels("spec.labels", Some(&spec.labels), &mut errors);
        rules::annotations("spec.annotations", Some(&spec.annotations), &mut errors);
        node::taints("spec.taints", &spec.taints, &mut errors);
        node::taints("spec.startupTaints", &spec.startup_taints, &mut errors);
        errors
    }

    /// What was ordered is what was ordered.
    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        rules::same("spec", &self.spec, &old.spec, &mut errors);
        errors
    }

    /// One machine of the cloud, for good: the ledger is never rewritten.
    fn validate_status_update(&self, old: &Self) -> Vec<Invalid> {
        let id = |machine: &Self| machine.status.as_ref().and_then(|status| status.provider_id.clone());
        match (id(old), id(self)) {
            (Some(old), new) if new.as_ref() != Some(&old) => {
                vec![Invalid::value("status.providerID", &json!(new), rules::IMMUTABLE)]
            }
            _ => vec![],
        }
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Phase", "How far the machine is."),
            Column::text("Type", "The instance type."),
            Column::text("Zone", "Where it is."),
            Column::text("Node", "The node that runs on it."),
            Column::AGE,
            Column::text("Pool", "The NodePool it was bought for.").wide(),
            Column::text("Capacity", "Whether it is spot or on demand.").wide(),
            Column::text("Price", "What an hour costs.").wide(),
            Column::text("Provider ID", "The cloud's name for it.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let status = self.status.clone().unwrap_or_default();
        vec![
            show::name(object),
            json!(status.phase),
            json!(self.spec.instance_type),
            json!(self.spec.zone),
            show::or_none(status.node_name.as_deref()),
            age(object, now),
            json!(self.spec.node_pool),
            json!(self.spec.capacity_type.as_str()),
            show::or_none(status.price.as_ref().map(|price| price.0.as_str())),
            show::or_none(status.provider_id.as_deref()),
        ]
    }

    const SELECTABLE: &'static [&'static str] = &["spec.nodePool", "status.nodeName"];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("spec.nodePool", super::fill::text(&object["spec"], "nodePool").to_owned()),
            ("status.nodeName", super::fill::text(&object["status"], "nodeName").to_owned()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::json;

    #[test]
    fn the_ledger_is_not_rewritten() {
        let strategy = Builtin::<super::Machine>::new();
        let mut machine = json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "Machine", "metadata": {"name": "m"},
            "spec": {"nodePool": "p", "nodeClassRef": {"name": "c"}, "instanceType": "m7i.large", "zone": "a"}});
        strategy.prepare_create(&mut machine);
        assert_eq!(strategy.validate(&machine), []);
        let mut bought = machine.clone();
        bought["status"] = json!({"phase": "Launched", "providerID": "aws:///a/i-1"});
        assert_eq!(strategy.validate_status_update(&bought, &machine), []);
        assert_eq!(strategy.validate_status_update(&machine, &bought)[0].field, "status.providerID");
        let mut other = bought.clone();
        other["spec"]["zone"] = json!("b");
        assert_eq!(strategy.validate_update(&other, &bought)[0].field, "spec");
        let row = strategy.row(&bought, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..5], [json!("Launched"), json!("m7i.large"), json!("a"), json!("<none>")]);
    }
}
