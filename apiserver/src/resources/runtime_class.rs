//! RuntimeClass: a way of running pods that nodes offer under a handler's name.

use super::{amounts, pod, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::node::RuntimeClass;

impl Kind for RuntimeClass {
    const NAMES: Names =
        Names { namespaced: false, ..Names::namespaced("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass") };

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        rules::all("handler", &self.handler, name::dns1123_label(&self.handler), &mut errors);
        let overhead = self.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref());
        for (resource, amount) in overhead.into_iter().flatten() {
            let at = format!("overhead.podFixed[{resource}]");
            amounts::check_container_name(&at, resource, &mut errors);
            amounts::amount(&at, amount, &mut errors);
        }
        if let Some(scheduling) = &self.scheduling {
            rules::labels("scheduling.nodeSelector", scheduling.node_selector.as_ref(), &mut errors);
            pod::scheduling::tolerations("scheduling.tolerations", scheduling.tolerations.as_deref().unwrap_or(&[]), &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        rules::same("handler", &self.handler, &old.handler, &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::text("Handler", "What the nodes' container runtime calls it."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), json!(self.handler), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn a_handler_is_a_label_and_stays() {
        let strategy = Builtin::<super::RuntimeClass>::new();
        let class = |handler: &str, more: Value| {
            let mut it =
                json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "c"}, "handler": handler});
            it.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            it
        };
        let fields = |it: &Value| strategy.validate(it).into_iter().map(|error| error.field).collect::<Vec<_>>();
        let good = class("runc", json!({"overhead": {"podFixed": {"cpu": "100m"}}, "scheduling": {"nodeSelector": {"a": "b"}}}));
        assert_eq!(fields(&good), Vec::<String>::new());
        assert_eq!(
            fields(&class("Run_C", json!({"overhead": {"podFixed": {"cups": "-1"}}}))),
            ["handler", "overhead.podFixed[cups]", "overhead.podFixed[cups]"]
        );
        assert_eq!(strategy.validate_update(&class("kata", json!({})), &good)[0].field, "handler");
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH)[1], "runc");
    }
}
