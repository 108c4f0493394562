//! Deployment: so many pods of a template, and a way from one template to the next.

use super::{fill, pod_template, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::apps::Deployment;

impl Kind for Deployment {
    const NAMES: Names = Names {
        short: &["deploy"],
        categories: &["all"],
        status: true,
        scale: true,
        ..Names::namespaced("apps", "v1", "Deployment", "deployments", "deployment")
    };

    const STATUS_KEEPS: &'static [&'static str] = &["labels"];

    fn fill_defaults(object: &mut Value) {
        pod_template::fill_defaults(object);
        let Some(spec) = fill::inner(object, "spec") else { return };
        fill::missing(spec, "replicas", 1);
        fill::missing(spec, "revisionHistoryLimit", 10);
        fill::missing(spec, "progressDeadlineSeconds", 600);
        let Some(strategy) = fill::made(spec, "strategy") else { return };
        fill::empty(strategy, "type", "RollingUpdate");
        if fill::text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = fill::made(strategy, "rollingUpdate")
        {
            fill::missing(rolling, "maxUnavailable", "25%");
            fill::missing(rolling, "maxSurge", "25%");
        }
    }

    fn validate_whole(&self, whole: &Value) -> Vec<Invalid> {
        let spec = &self.spec;
        let mut errors = vec![];
        pod_template::check_count("spec.replicas", spec.replicas, &mut errors);
        pod_template::check_selector(whole, &spec.selector, Some(&spec.template), "deployment", &mut errors);
        pod_template::validate("spec.template", &spec.template, &["Always"], "ReplicaSet", &mut errors);
        let strategy = spec.strategy.clone().unwrap_or_default();
        match strategy.type_.as_deref().unwrap_or("") {
            "Recreate" if strategy.rolling_update.is_some() => {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(Invalid::forbidden("spec.strategy.rollingUpdate", why));
            }
            "Recreate" => {}
            "RollingUpdate" => {
                let rolling = strategy.rolling_update.clone().unwrap_or_default();
                let at = "spec.strategy.rollingUpdate";
                pod_template::check_rolling(at, rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref(), &mut errors);
            }
            other => {
                errors.push(Invalid::not_supported("spec.strategy.type", &json!(other), &["Recreate", "RollingUpdate"]));
            }
        }
        pod_template::check_count("spec.minReadySeconds", spec.min_ready_seconds, &mut errors);
        pod_template::check_count("spec.revisionHistoryLimit", spec.revision_history_limit, &mut errors);
        pod_template::check_count("spec.progressDeadlineSeconds", spec.progress_deadline_seconds, &mut errors);
        if let Some(deadline) = spec.progress_deadline_seconds
            && deadline <= spec.min_ready_seconds.unwrap_or(0)
        {
            let why = "must be greater than minReadySeconds";
            errors.push(Invalid::value("spec.progressDeadlineSeconds", &json!(deadline), why));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        pod_template::same_selector(&self.spec.selector, &old.spec.selector)
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Ready", "How many pods are ready, of how many."),
            Column::integer("Up-to-date", "How many pods have the current template."),
            Column::integer("Available", "How many pods have been ready for long enough."),
            Column::AGE,
            Column::text("Containers", "The names of the template's containers.").wide(),
            Column::text("Images", "The images of the template's containers.").wide(),
            Column::text("Selector", "The labels of its pods.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let status = self.status.clone().unwrap_or_default();
        let [containers, images] = show::containers(self.spec.template.spec.as_ref());
        vec![
            show::name(object),
            json!(format!("{}/{}", status.ready_replicas.unwrap_or(0), self.spec.replicas.unwrap_or(0))),
            json!(status.updated_replicas.unwrap_or(0)),
            json!(status.available_replicas.unwrap_or(0)),
            age(object, now),
            containers,
            images,
            show::selector(Some(&self.spec.selector)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn deployment(change: impl FnOnce(&mut Value)) -> Value {
        let mut it = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        change(&mut it);
        Builtin::<super::Deployment>::new().fill_defaults(&mut it);
        it
    }

    fn texts(errors: Vec<crate::http::error::Invalid>) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn defaults_are_those_of_a_rolling_update() {
        let it = deployment(|_| {});
        let spec = &it["spec"];
        assert_eq!(
            (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
            (&json!(1), &json!(10), &json!(600))
        );
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        let template = &spec["template"]["spec"];
        assert_eq!(template["restartPolicy"], "Always");
        assert_eq!(template["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert!(template.get("enableServiceLinks").is_none());
        assert_eq!(Builtin::<super::Deployment>::new().validate(&it), []);
    }

    #[test]
    fn a_selector_matches_its_template() {
        let strategy = Builtin::<super::Deployment>::new();
        let astray = deployment(|it| it["spec"]["selector"]["matchLabels"]["app"] = json!("other"));
        assert_eq!(
            texts(strategy.validate(&astray)),
            ["spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"]
        );
        let empty = deployment(|it| it["spec"]["selector"] = json!({}));
        assert_eq!(
            texts(strategy.validate(&empty)),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment",]
        );
        assert_eq!(
            texts(strategy.validate_update(&astray, &deployment(|_| {}))),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"]
        );
    }

    #[test]
    fn numbers_are_checked() {
        let strategy = Builtin::<super::Deployment>::new();
        let bad = deployment(|it| {
            it["spec"]["replicas"] = json!(-1);
            it["spec"]["minReadySeconds"] = json!(600);
            it["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}});
            it["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
        });
        assert_eq!(
            texts(strategy.validate(&bad)),
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
            ]
        );
    }

    #[test]
    fn status_and_generation() {
        let strategy = Builtin::<super::Deployment>::new();
        let mut it = deployment(|it| it["status"] = json!({"replicas": 7}));
        strategy.prepare_create(&mut it);
        assert_eq!((&it["status"], &it["metadata"]["generation"]), (&json!({}), &json!(1)));
        let mut scaled = deployment(|it| it["spec"]["replicas"] = json!(3));
        strategy.prepare_update(&mut scaled, &it);
        assert_eq!((&scaled["status"], &scaled["metadata"]["generation"]), (&json!({}), &json!(2)));
        let mut told = it.clone();
        told["status"] = json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1});
        told["spec"]["replicas"] = json!(9);
        strategy.prepare_status_update(&mut told, &scaled);
        assert_eq!((&told["spec"]["replicas"], &told["metadata"]["generation"]), (&json!(3), &json!(2)));
        let row = strategy.row(&told, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..4], [json!("2/3"), json!(3), json!(1)]);
        assert_eq!(row[5..], [json!("c"), json!("i:1"), json!("app=web")]);
    }
}
