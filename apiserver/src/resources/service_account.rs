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
