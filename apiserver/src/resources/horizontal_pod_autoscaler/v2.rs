//! `autoscaling/v2`: any metrics, and how fast replicas may come and go.

use super::{cells, validation};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, keep};
use crate::resources::fill;
use serde_json::{Value, json};
pub use slipway_api::autoscaling_v2::HorizontalPodAutoscaler;

/// The target of an autoscaler that names no metric, in percent of what the pods request.
pub const DEFAULT_CPU_UTILIZATION: i32 = 80;

impl Kind for HorizontalPodAutoscaler {
    const NAMES: Names = Names {
        short: &["hpa"],
        categories: &["all"],
        status: true,
        ..Names::namespaced("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler")
    };

    fn fill_defaults(object: &mut Value) {
        let Some(spec) = fill::inner(object, "spec") else { return };
        fill::missing(spec, "minReplicas", 1);
        if spec.get("metrics").is_none_or(|metrics| metrics.is_null() || metrics.as_array().is_some_and(Vec::is_empty)) {
            let target = json!({"type": "Utilization", "averageUtilization": DEFAULT_CPU_UTILIZATION});
            spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
        }
        let Some(behavior) = fill::inner(spec, "behavior") else { return };
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        if let Some(up) = fill::made(behavior, "scaleUp") {
            fill::missing(up, "stabilizationWindowSeconds", 0);
            fill::missing(up, "selectPolicy", "Max");
            fill::missing(up, "policies", json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]));
        }
        // How long it is stable on the way down is the controller's to say.
        if let Some(down) = fill::made(behavior, "scaleDown") {
            fill::missing(down, "selectPolicy", "Max");
            fill::missing(down, "policies", json!([percent]));
        }
    }

    /// Autoscalers have no generation.
    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"currentReplicas": 0, "desiredReplicas": 0});
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    fn validate(&self) -> Vec<Invalid> {
        validation::spec("spec", &self.spec)
    }

    fn validate_status_update(&self, _: &Self) -> Vec<Invalid> {
        validation::status("status", &self.status.clone().unwrap_or_default())
    }

    fn columns() -> Vec<Column> {
        cells::columns()
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        cells::row(self, object, now)
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn autoscaler(change: impl FnOnce(&mut Value)) -> Value {
        let strategy = Builtin::<super::HorizontalPodAutoscaler>::new();
        let mut it = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5}});
        change(&mut it);
        strategy.fill_defaults(&mut it);
        strategy.prepare_create(&mut it);
        it
    }

    fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let errors = Builtin::<super::HorizontalPodAutoscaler>::new().validate(&autoscaler(change));
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    fn with_metric(metric: Value) -> Vec<String> {
        errors(|it| it["spec"]["metrics"] = json!([metric]))
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let it = autoscaler(|_| {});
        assert_eq!(it["spec"]["minReplicas"], 1);
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        assert_eq!(it["spec"]["metrics"], json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
        assert!(it["spec"].get("behavior").is_none() && it["metadata"].get("generation").is_none());
        assert_eq!(errors(|_| {}), Vec::<String>::new());
        let it = autoscaler(|it| it["spec"]["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 60}}));
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]});
        let down = json!({"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [percent]});
        assert_eq!(it["spec"]["behavior"], json!({"scaleUp": up, "scaleDown": down}));
    }

    #[test]
    fn bounds_and_targets_that_are_none() {
        assert_eq!(
            errors(|it| {
                it["spec"]["minReplicas"] = json!(0);
                it["spec"]["maxReplicas"] = json!(0);
                it["spec"]["scaleTargetRef"] = json!({"kind": "", "name": "a/b", "apiVersion": "v1"});
            }),
            [
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.scaleTargetRef.kind: Required value",
                "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
            ]
        );
        assert_eq!(
            errors(|it| {
                it["spec"]["minReplicas"] = json!(7);
                it["spec"]["scaleTargetRef"] = json!({"kind": "ReplicationController", "name": "rc", "apiVersion": "v1"});
            }),
            ["spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"]
        );
        assert_eq!(
            errors(|it| it["spec"]["scaleTargetRef"]["apiVersion"] = json!("a/b/c")),
            ["spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"]
        );
    }

    #[test]
    fn metrics_that_say_too_little_or_too_much() {
        assert_eq!(
            with_metric(json!({"type": ""})),
            [
                "spec.metrics[0].type: Required value: must specify a metric source type",
                "spec.metrics[0].type: Unsupported value: \"\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            ]
        );
        assert_eq!(
            with_metric(json!({"type": "Resource", "pods": {"metric": {"name": "a/b"}, "target": {"type": "AverageValue"}}})),
            [
                "spec.metrics[0].pods.metric.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
                "spec.metrics[0].resource: Required value: must populate information for the given metric source",
            ]
        );
        let target = json!({"type": "Often", "averageUtilization": 0, "averageValue": "-1"});
        assert_eq!(
            with_metric(json!({"type": "Resource", "resource": {"name": "", "target": target}})),
            [
                "spec.metrics[0].resource.name: Required value: must specify a resource name",
                "spec.metrics[0].resource.target.type: Invalid value: \"Often\": must be either Utilization, Value, or AverageValue",
                "spec.metrics[0].resource.target.averageValue: Invalid value: \"-1\": must be positive",
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
                "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
            ]
        );
        let both = json!({"type": "Value", "value": "1", "averageValue": "1"});
        assert_eq!(
            with_metric(json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": both}})),
            ["spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"]
        );
        let object = json!({"describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"}, "metric": {"name": "hits"},
            "target": {"type": "Value"}});
        assert_eq!(
            with_metric(json!({"type": "Object", "object": object})),
            ["spec.metrics[0].object.target.averageValue: Required value: must set either a target value or averageValue"]
        );
        let container = json!({"name": "cpu", "container": "", "target": {"type": "Utilization"}});
        assert_eq!(
            with_metric(json!({"type": "ContainerResource", "containerResource": container})),
            [
                "spec.metrics[0].containerResource.container: Required value: must specify a container",
                "spec.metrics[0].containerResource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            ]
        );
    }

    #[test]
    fn rules_of_behavior() {
        assert_eq!(
            errors(|it| {
                let policy = json!({"type": "Some", "value": 0, "periodSeconds": 1801});
                it["spec"]["behavior"] = json!({
                    "scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Any", "policies": [policy]},
                    "scaleDown": {"stabilizationWindowSeconds": -1, "policies": [], "tolerance": "-1"},
                });
            }),
            [
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Any\": supported values: \"Disabled\", \"Max\", \"Min\"",
                "spec.behavior.scaleUp.policies[0].type: Unsupported value: \"Some\": supported values: \"Percent\", \"Pods\"",
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
                "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
                "spec.behavior.scaleDown.policies: Required value: must specify at least one Policy",
                "spec.behavior.scaleDown.tolerance: Invalid value: \"-1\": must be greater than or equal to 0",
            ]
        );
    }

    #[test]
    fn cells() {
        let metric = |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
        let mut it = autoscaler(|it| {
            let pods = json!({"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "1000m"}});
            it["spec"]["metrics"] = json!([
                metric("cpu", json!({"type": "Utilization", "averageUtilization": 50})),
                {"type": "Pods", "pods": pods},
                metric("memory", json!({"type": "AverageValue", "averageValue": "1Gi"})),
            ]);
        });
        it["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let now: jiff::Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let row = |it: &Value| Builtin::<super::HorizontalPodAutoscaler>::new().row(it, now);
        assert_eq!(
            row(&it),
            [
                json!("web"),
                json!("Deployment/web"),
                json!("cpu: <unknown>/50%, <unknown>/1 + 1 more..."),
                json!("1"),
                json!(5),
                json!(0),
                json!("60s"),
            ]
        );
        it["status"]["currentMetrics"] = json!([
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 70, "averageValue": "70m"}}},
            {"type": "Pods", "pods": {"metric": {"name": "hits"}, "current": {"averageValue": "2500m"}}},
        ]);
        assert_eq!(row(&it)[2], "cpu: 70%/50%, 2500m/1 + 1 more...");
    }
}
