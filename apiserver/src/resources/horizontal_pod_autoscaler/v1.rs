//! `autoscaling/v1`: the utilization of cpu, and all else in annotations.

use super::conversion::{self, SPEC_ANNOTATIONS, STATUS_ANNOTATIONS, keep_annotations};
use super::{cells, v2, validation};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, keep, keep_all_but_status_and_metadata};
use crate::resources::fill;
use serde::Deserialize;
use serde_json::{Value, json};
pub use slipway_api::autoscaling::HorizontalPodAutoscaler;

impl Kind for HorizontalPodAutoscaler {
    const NAMES: Names = Names {
        version: "v1",
        stored_as: Some(("autoscaling", "horizontalpodautoscalers")),
        ..v2::HorizontalPodAutoscaler::NAMES
    };

    fn to_stored(object: &mut Value) {
        conversion::to_v2(object);
        v2::HorizontalPodAutoscaler::fill_defaults(object);
    }

    fn from_stored(object: &mut Value) {
        conversion::to_v1(object);
    }

    /// Through the newer version and back: its defaults hold for what is in the annotations too.
    fn fill_defaults(object: &mut Value) {
        let Some(spec) = fill::inner(object, "spec") else { return };
        fill::missing(spec, "minReplicas", 1);
        let had_status = object.get("status").is_some();
        Self::to_stored(object);
        Self::from_stored(object);
        if !had_status {
            crate::kind::remove(object, "status");
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"currentReplicas": 0, "desiredReplicas": 0});
        keep_annotations(object, &json!({}), &STATUS_ANNOTATIONS);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
        keep_annotations(object, old, &STATUS_ANNOTATIONS);
    }

    fn prepare_status_update(object: &mut Value, old: &Value) {
        keep_all_but_status_and_metadata(object, old, Self::STATUS_KEEPS);
        keep_annotations(object, old, &SPEC_ANNOTATIONS);
    }

    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        newer(object).map_or_else(Vec::new, |newer| validation::spec("spec", &newer.spec))
    }

    fn validate_status_update(&self, _: &Self) -> Vec<Invalid> {
        let status = self.status.clone().unwrap_or_default();
        let status = slipway_api::autoscaling_v2::HorizontalPodAutoscalerStatus {
            current_replicas: Some(status.current_replicas),
            desired_replicas: status.desired_replicas,
            ..Default::default()
        };
        validation::status("status", &status)
    }

    fn columns() -> Vec<Column> {
        cells::columns()
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        newer(object).map_or_else(|| vec![object["metadata"]["name"].clone()], |newer| cells::row(&newer, object, now))
    }
}

fn newer(object: &Value) -> Option<v2::HorizontalPodAutoscaler> {
    let mut object = object.clone();
    HorizontalPodAutoscaler::to_stored(&mut object);
    v2::HorizontalPodAutoscaler::deserialize(&object).ok()
}

#[cfg(test)]
mod tests {
    use super::conversion;
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn strategy() -> Builtin<super::HorizontalPodAutoscaler> {
        Builtin::new()
    }

    fn autoscaler(change: impl FnOnce(&mut Value)) -> Value {
        let mut it = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5}});
        change(&mut it);
        strategy().fill_defaults(&mut it);
        it
    }

    /// One of each source, and a status of each.
    fn newer() -> Value {
        let selector = json!({"matchLabels": {"a": "b"}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "name": "s"});
        let metrics = json!([
            {"type": "Object", "object": {"describedObject": service, "metric": {"name": "hits", "selector": selector},
                "target": {"type": "Value", "value": "5"}}},
            {"type": "Object", "object": {"describedObject": service, "metric": {"name": "hits"},
                "target": {"type": "AverageValue", "averageValue": "5"}}},
            {"type": "Pods", "pods": {"metric": {"name": "open"}, "target": {"type": "AverageValue", "averageValue": "100m"}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "External", "external": {"metric": {"name": "queue", "selector": selector},
                "target": {"type": "AverageValue", "averageValue": "30"}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
        ]);
        let policy = json!({"type": "Pods", "value": 4, "periodSeconds": 60});
        let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [policy], "tolerance": "50m"});
        let down = json!({"selectPolicy": "Disabled", "policies": [policy]});
        let statuses = json!([
            {"type": "Object", "object": {"describedObject": service, "metric": {"name": "hits"}, "current": {"value": "7"}}},
            {"type": "Pods", "pods": {"metric": {"name": "open"}, "current": {"averageValue": "90m"}}},
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 60, "averageValue": "60m"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                "current": {"averageUtilization": 50, "averageValue": "50m"}}},
            {"type": "External", "external": {"metric": {"name": "queue"}, "current": {"value": "0", "averageValue": "31"}}},
        ]);
        let condition = json!({"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "annotations": {"kept": "yes"}},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 2,
                "maxReplicas": 5, "metrics": metrics, "behavior": {"scaleUp": up, "scaleDown": down}},
            "status": {"currentReplicas": 3, "desiredReplicas": 4, "lastScaleTime": "2026-01-01T00:00:00Z",
                "currentMetrics": statuses, "conditions": [condition]}})
    }

    #[test]
    fn nothing_is_lost_on_the_way_to_the_older_version_and_back() {
        let new = newer();
        let mut old = new.clone();
        conversion::to_v1(&mut old);
        assert_eq!(old["apiVersion"], "autoscaling/v1");
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 70);
        assert_eq!(old["status"]["currentCPUUtilizationPercentage"], 60);
        let annotations = &old["metadata"]["annotations"];
        let behavior = annotations["autoscaling.alpha.kubernetes.io/behavior"].as_str().unwrap();
        assert!(behavior.contains(r#""ScaleUp":{"Policies":[{"PeriodSeconds":60,"Type":"Pods","Value":4}]"#), "{behavior}");
        let metrics: Value =
            serde_json::from_str(annotations["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap()).unwrap();
        assert_eq!(metrics[2]["pods"], json!({"metricName": "open", "targetAverageValue": "100m"}));
        assert_eq!(metrics[1]["object"]["targetValue"], "0");
        assert_eq!(metrics.as_array().unwrap().len(), 6, "the utilization of cpu has its field");
        let mut back = old.clone();
        conversion::to_v2(&mut back);
        assert_eq!(back, new);
        let mut again = old.clone();
        strategy().fill_defaults(&mut again);
        assert_eq!(again, old, "what is whole stays as it is");
    }

    #[test]
    fn defaults_are_those_of_the_newer_version() {
        let it = autoscaler(|_| {});
        assert_eq!(it["spec"]["targetCPUUtilizationPercentage"], 80);
        assert_eq!(it["spec"]["minReplicas"], 1);
        assert!(it.get("status").is_none() && it["metadata"].get("annotations").is_none());
        // A metric in the annotation, or what is none.
        let note = "autoscaling.alpha.kubernetes.io/metrics";
        let memory = r#"[{"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}}]"#;
        let it = autoscaler(|it| it["metadata"]["annotations"] = json!({note: memory}));
        assert!(it["spec"].get("targetCPUUtilizationPercentage").is_none());
        for wrong in ["{", "[1]", r#"[{"type": 1}]"#] {
            let it = autoscaler(|it| it["metadata"]["annotations"] = json!({note: wrong}));
            assert_eq!(it["spec"]["targetCPUUtilizationPercentage"], 80, "{wrong}");
        }
        let it = autoscaler(|it| {
            let behavior = r#"{"ScaleDown": {"StabilizationWindowSeconds": 5}}"#;
            it["metadata"]["annotations"] = json!({"autoscaling.alpha.kubernetes.io/behavior": behavior});
        });
        let behavior = it["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/behavior"].as_str().unwrap();
        assert!(behavior.contains("\"ScaleUp\"") && behavior.contains("\"StabilizationWindowSeconds\":5"), "{behavior}");
    }

    #[test]
    fn spec_and_status_have_their_annotations() {
        let mut old = newer();
        conversion::to_v1(&mut old);
        let none = |it: &Value| {
            let mut it = it.clone();
            it["metadata"]["annotations"] = json!({"kept": "yes"});
            it
        };
        let noted = |it: &Value, name: &str| {
            it["metadata"]["annotations"].get(format!("autoscaling.alpha.kubernetes.io/{name}")).is_some()
        };
        let all = ["metrics", "behavior", "current-metrics", "conditions"];
        let mut it = none(&old);
        strategy().prepare_update(&mut it, &old);
        assert_eq!(all.map(|name| noted(&it, name)), [false, false, true, true]);
        let mut it = none(&old);
        strategy().prepare_status_update(&mut it, &old);
        assert_eq!(all.map(|name| noted(&it, name)), [true, true, false, false]);
        let mut it = old.clone();
        strategy().prepare_create(&mut it);
        assert_eq!(all.map(|name| noted(&it, name)), [true, true, false, false]);
        assert_eq!(it["metadata"]["annotations"]["kept"], "yes");
    }

    #[test]
    fn it_is_refused_as_the_newer_version() {
        let it = autoscaler(|it| {
            it["spec"]["targetCPUUtilizationPercentage"] = json!(0);
            it["spec"]["minReplicas"] = json!(9);
        });
        let errors = strategy().validate(&it);
        let errors: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        assert_eq!(
            errors,
            [
                "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            ]
        );
    }
}
