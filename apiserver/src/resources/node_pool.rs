//! NodePool: what machines may be bought, and how many.

use super::{fill, node, pod, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::slipway::NodePool;
use slipway_api::slipway::{GROUP, VERSION};

const EMPTY_AFTER_SECONDS: i64 = 60;

impl Kind for NodePool {
    const NAMES: Names = Names {
        namespaced: false,
        status: true,
        categories: &["slipway"],
        ..Names::namespaced(GROUP, VERSION, "NodePool", "nodepools", "nodepool")
    };
    const STATUS_KEEPS: &'static [&'static str] = crate::kind::METADATA;

    fn fill_defaults(object: &mut Value) {
        let Some(spec) = fill::inner(object, "spec") else { return };
        fill::missing(spec, "capacityTypes", json!(["on-demand"]));
        if let Some(disruption) = fill::made(spec, "disruption") {
            fill::missing(disruption, "emptyAfterSeconds", EMPTY_AFTER_SECONDS);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
        object["status"] = json!({"machines": 0});
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        match spec.node_class_ref.name.as_str() {
            "" => errors.push(Invalid::required("spec.nodeClassRef.name", "")),
            class => rules::all("spec.nodeClassRef.name", class, name::dns1123_subdomain(class), &mut errors),
        }
        rules::labels("spec.template.labels", Some(&spec.template.labels), &mut errors);
        rules::annotations("spec.template.annotations", Some(&spec.template.annotations), &mut errors);
        node::taints("spec.template.taints", &spec.template.taints, &mut errors);
        node::taints("spec.template.startupTaints", &spec.template.startup_taints, &mut errors);
        if spec.instance_types.is_empty() {
            errors.push(Invalid::required("spec.instanceTypes", "at least one type must be allowed"));
        }
        for (field, list) in [("instanceTypes", &spec.instance_types), ("zones", &spec.zones)] {
            for (index, item) in list.iter().enumerate() {
                let at = format!("spec.{field}[{index}]");
                if item.is_empty() {
                    errors.push(Invalid::required(at, ""));
                } else if list[..index].contains(item) {
                    errors.push(Invalid::duplicate(at, &json!(item)));
                }
            }
        }
        for (index, kind) in spec.capacity_types.iter().enumerate() {
            if spec.capacity_types[..index].contains(kind) {
                errors.push(Invalid::duplicate(format!("spec.capacityTypes[{index}]"), &json!(kind)));
            }
        }
        let limits = &spec.limits;
        for (field, amount) in [("cpu", &limits.cpu), ("memory", &limits.memory), ("moneyPerHour", &limits.money_per_hour)] {
            if let Some(amount) = amount {
                pod::quantity(&format!("spec.limits.{field}"), amount, &mut errors);
            }
        }
        rules::not_negative("spec.limits.machines", limits.machines.map(i64::from), &mut errors);
        rules::not_negative("spec.disruption.emptyAfterSeconds", spec.disruption.empty_after_seconds, &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("NodeClass", "How its machines are made."),
            Column::integer("Machines", "How many machines it has."),
            Column::text("Limit", "How many machines it may have."),
            Column::AGE,
            Column::text("Instance Types", "What may be bought.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let limit = self.spec.limits.machines.map(|limit| limit.to_string());
        vec![
            show::name(object),
            json!(self.spec.node_class_ref.name),
            json!(self.status.as_ref().map_or(0, |status| status.machines)),
            show::or_none(limit.as_deref()),
            age(object, now),
            json!(self.spec.instance_types.join(",")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn pool(spec: Value) -> Value {
        let mut it = json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": "p"}, "spec": spec});
        Builtin::<super::NodePool>::new().fill_defaults(&mut it);
        it
    }

    #[test]
    fn pools_are_checked() {
        let strategy = Builtin::<super::NodePool>::new();
        let good =
            pool(json!({"nodeClassRef": {"name": "c"}, "instanceTypes": ["m7i.large", "m7i.xlarge"], "limits": {"machines": 3}}));
        assert_eq!(strategy.validate(&good), []);
        assert_eq!(good["spec"]["capacityTypes"], json!(["on-demand"]));
        assert_eq!(good["spec"]["disruption"]["emptyAfterSeconds"], 60);
        let bad = pool(json!({"instanceTypes": [], "zones": ["a", "a"], "limits": {"machines": -1, "cpu": "-1"},
            "template": {"taints": [{"key": "a", "effect": "Never"}]}}));
        let fields: Vec<String> = strategy.validate(&bad).into_iter().map(|error| error.field).collect();
        assert_eq!(
            fields,
            [
                "spec.nodeClassRef.name",
                "spec.template.taints[0].effect",
                "spec.instanceTypes",
                "spec.zones[1]",
                "spec.limits.cpu",
                "spec.limits.machines"
            ]
        );
        let row = strategy.row(&good, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..4], [json!("c"), json!(0), json!("3")]);
        assert_eq!(row[5], "m7i.large,m7i.xlarge");
    }
}
