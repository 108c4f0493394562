//! ServiceAccount: who a pod is.

use super::show;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::core::ServiceAccount;

impl Kind for ServiceAccount {
    const NAMES: Names =
        Names { short: &["sa"], ..Names::namespaced("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount") };

    const DELETE_RETURNS_OBJECT: bool = true;

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::integer("Secrets", "How many secrets its pods may use."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), json!(self.secrets.as_ref().map_or(0, Vec::len)), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::json;

    #[test]
    fn cells() {
        let it = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}, "secrets": [{"name": "a"}]});
        let strategy = Builtin::<super::ServiceAccount>::new();
        assert_eq!(strategy.validate(&it), []);
        assert_eq!(strategy.row(&it, jiff::Timestamp::UNIX_EPOCH), [json!("robot"), json!(1), json!("<unknown>")]);
        assert_eq!(strategy.columns().len(), 3);
    }
}
