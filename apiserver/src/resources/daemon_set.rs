//! DaemonSet: one pod of a template on every node that fits.

use super::{fill, pod_template, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::apps::DaemonSet;

impl Kind for DaemonSet {
    const NAMES: Names = Names {
        short: &["ds"],
        categories: &["all"],
        status: true,
        ..Names::namespaced("apps", "v1", "DaemonSet", "daemonsets", "daemonset")
    };

    fn fill_defaults(object: &mut Value) {
        pod_template::fill_defaults(object);
        let Some(spec) = fill::inner(object, "spec") else { return };
        fill::missing(spec, "revisionHistoryLimit", 10);
        let Some(strategy) = fill::made(spec, "updateStrategy") else { return };
        fill::empty(strategy, "type", "RollingUpdate");
        if fill::text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = fill::made(strategy, "rollingUpdate")
        {
            fill::missing(rolling, "maxUnavailable", 1);
            fill::missing(rolling, "maxSurge", 0);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
        object["status"] =
            json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
    }

    fn validate_whole(&self, whole: &Value) -> Vec<Invalid> {
        let spec = &self.spec;
        let mut errors = vec![];
        pod_template::check_selector(whole, &spec.selector, Some(&spec.template), "daemonset", &mut errors);
        pod_template::validate("spec.template", &spec.template, &["Always"], "DaemonSet", &mut errors);
        pod_template::check_count("spec.minReadySeconds", spec.min_ready_seconds, &mut errors);
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        match strategy.type_.as_deref().unwrap_or("") {
            "OnDelete" => {}
            "RollingUpdate" => match &strategy.rolling_update {
                None => errors.push(Invalid::required("spec.updateStrategy.rollingUpdate", "")),
                Some(rolling) => {
                    let at = "spec.updateStrategy.rollingUpdate";
                    let (unavailable, surge) = (rolling.max_unavailable.as_ref(), rolling.max_surge.as_ref());
                    rules::count_or_percent(&format!("{at}.maxUnavailable"), unavailable, &mut errors);
                    rules::count_or_percent(&format!("{at}.maxSurge"), surge, &mut errors);
                    match (rules::is_nothing(unavailable), rules::is_nothing(surge)) {
                        (true, true) => {
                            let why = "cannot be 0 when maxSurge is 0";
                            errors.push(Invalid::value(format!("{at}.maxUnavailable"), &json!(unavailable), why));
                        }
                        (false, false) => {
                            let why = "may not be set when maxUnavailable is non-zero";
                            errors.push(Invalid::value(format!("{at}.maxSurge"), &json!(surge), why));
                        }
                        _ => {}
                    }
                    rules::at_most_all(&format!("{at}.maxUnavailable"), unavailable, &mut errors);
                    rules::at_most_all(&format!("{at}.maxSurge"), surge, &mut errors);
                }
            },
            other => {
                let supported = ["OnDelete", "RollingUpdate"];
                errors.push(Invalid::not_supported("spec.updateStrategy.type", &json!(other), &supported));
            }
        }
        pod_template::check_count("spec.revisionHistoryLimit", spec.revision_history_limit, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        pod_template::same_selector(&self.spec.selector, &old.spec.selector)
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::integer("Desired", "How many nodes should run a pod of it."),
            Column::integer("Current", "How many of these nodes have a pod of it."),
            Column::integer("Ready", "How many of these pods are ready."),
            Column::integer("Up-to-date", "How many of these pods have the current template."),
            Column::integer("Available", "How many of these pods have been ready for long enough."),
            Column::text("Node Selector", "The labels of the nodes that it is for."),
            Column::AGE,
            Column::text("Containers", "The names of the template's containers.").wide(),
            Column::text("Images", "The images of the template's containers.").wide(),
            Column::text("Selector", "The labels of its pods.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let status = self.status.clone().unwrap_or_default();
        let spec = self.spec.template.spec.as_ref();
        let [containers, images] = show::containers(spec);
        vec![
            show::name(object),
            json!(status.desired_number_scheduled),
            json!(status.current_number_scheduled),
            json!(status.number_ready),
            json!(status.updated_number_scheduled.unwrap_or(0)),
            json!(status.number_available.unwrap_or(0)),
            show::labels(spec.and_then(|spec| spec.node_selector.as_ref())),
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

    fn daemon_set(strategy: Value) -> Value {
        let mut it = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "d"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        Builtin::<super::DaemonSet>::new().fill_defaults(&mut it);
        it
    }

    #[test]
    fn strategies() {
        let strategy = Builtin::<super::DaemonSet>::new();
        let texts = |it: Value| {
            let errors = strategy.validate(&daemon_set(it));
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        assert_eq!(
            daemon_set(json!(null))["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        assert_eq!(texts(json!({})), Vec::<String>::new());
        assert_eq!(texts(json!({"type": "OnDelete"})), Vec::<String>::new());
        let at = "spec.updateStrategy";
        assert_eq!(
            texts(json!({"type": "Recreate"})),
            [format!("{at}.type: Unsupported value: \"Recreate\": supported values: \"OnDelete\", \"RollingUpdate\"")]
        );
        assert_eq!(
            texts(json!({"rollingUpdate": {"maxUnavailable": 0}})),
            [format!("{at}.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0 when maxSurge is 0")]
        );
        assert_eq!(
            texts(json!({"rollingUpdate": {"maxSurge": "10%"}})),
            [format!("{at}.rollingUpdate.maxSurge: Invalid value: \"10%\": may not be set when maxUnavailable is non-zero")]
        );
    }

    #[test]
    fn cells() {
        let mut it = daemon_set(json!({}));
        it["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        it["status"] =
            json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "numberMisscheduled": 0});
        let row = Builtin::<super::DaemonSet>::new().row(&it, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..7], [json!(3), json!(2), json!(1), json!(0), json!(0), json!("disk=ssd")]);
    }
}
