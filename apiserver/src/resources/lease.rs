//! Lease: who holds something, and until when: leaders, and the heartbeats of nodes.

use super::show;
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::coordination::Lease;

const STRATEGIES: [&str; 1] = ["OldestEmulationVersion"];

impl Kind for Lease {
    const NAMES: Names = Names::namespaced("coordination.k8s.io", "v1", "Lease", "leases", "lease");

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let Some(spec) = &self.spec else { return errors };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            errors.push(Invalid::value("spec.leaseDurationSeconds", &json!(seconds), "must be greater than 0"));
        }
        if let Some(count) = spec.lease_transitions.filter(|count| *count < 0) {
            errors.push(Invalid::value("spec.leaseTransitions", &json!(count), "must be greater than or equal to 0"));
        }
        match spec.strategy.as_deref() {
            Some(strategy) if !STRATEGIES.contains(&strategy) => {
                errors.push(Invalid::not_supported("spec.strategy", &json!(strategy), &STRATEGIES));
            }
            None if spec.preferred_holder.as_deref().is_some_and(|holder| !holder.is_empty()) => {
                errors.push(Invalid::forbidden("spec.preferredHolder", "may only be specified if `strategy` is defined"));
            }
            _ => {}
        }
        errors
    }

    const UNCONDITIONAL_UPDATE: bool = false;

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::text("Holder", "Who holds the lease."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let holder = self.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or("");
        vec![show::name(object), json!(holder), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::json;

    #[test]
    fn durations_are_positive() {
        let strategy = Builtin::<super::Lease>::new();
        let lease =
            |spec| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": spec});
        assert!(strategy.validate(&lease(json!({"holderIdentity": "a", "leaseDurationSeconds": 40}))).is_empty());
        let errors = strategy.validate(&lease(json!({"leaseDurationSeconds": 0, "leaseTransitions": -1})));
        let texts: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        assert_eq!(
            texts,
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}
