//! StatefulSet: pods of one template that keep their names, and the claims that go with the names.

use super::persistent_volume_claim::{self, PersistentVolumeClaim};
use super::{fill, pod_template, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, NameRule, Names, age};
use serde_json::{Value, json};
pub use slipway_api::apps::StatefulSet;
use slipway_api::apps::{StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy};
use slipway_api::core::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume};
use slipway_api::name;

const POLICIES: [&str; 2] = ["OrderedReady", "Parallel"];
const RETENTION: [&str; 2] = ["Delete", "Retain"];
const MUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                       'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

impl Kind for StatefulSet {
    const NAMES: Names = Names {
        short: &["sts"],
        categories: &["all"],
        status: true,
        scale: true,
        // Its pods are called after it, and their names are host names.
        name_rule: NameRule::Label,
        ..Names::namespaced("apps", "v1", "StatefulSet", "statefulsets", "statefulset")
    };

    fn fill_defaults(object: &mut Value) {
        pod_template::fill_defaults(object);
        let Some(spec) = fill::inner(object, "spec") else { return };
        fill::missing(spec, "replicas", 1);
        fill::missing(spec, "revisionHistoryLimit", 10);
        fill::empty(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = fill::made(spec, "updateStrategy") {
            // With a type and no parameters it stays without: pods that are missing are then made by the status.
            if fill::text(strategy, "type").is_empty() {
                fill::empty(strategy, "type", "RollingUpdate");
                fill::made(strategy, "rollingUpdate");
            }
            if fill::text(strategy, "type") == "RollingUpdate"
                && let Some(rolling) = fill::inner(strategy, "rollingUpdate")
            {
                fill::missing(rolling, "partition", 0);
                fill::missing(rolling, "maxUnavailable", 1);
            }
        }
        if let Some(policy) = fill::made(spec, "persistentVolumeClaimRetentionPolicy") {
            fill::empty(policy, "whenDeleted", "Retain");
            fill::empty(policy, "whenScaled", "Retain");
        }
        for claim in fill::items(spec, "volumeClaimTemplates") {
            fill::empty(claim, "apiVersion", "v1");
            fill::empty(claim, "kind", "PersistentVolumeClaim");
            fill::made(claim, "status");
            PersistentVolumeClaim::fill_defaults(claim);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"replicas": 0, "availableReplicas": 0});
        object["metadata"]["generation"] = json!(1);
    }

    fn validate_whole(&self, whole: &Value) -> Vec<Invalid> {
        let spec = &self.spec;
        let mut errors = vec![];
        match spec.pod_management_policy.as_deref().unwrap_or("") {
            "" => errors.push(Invalid::required("spec.podManagementPolicy", "")),
            policy if POLICIES.contains(&policy) => {}
            other => {
                let why = "must be 'OrderedReady' or 'Parallel'";
                errors.push(Invalid::value("spec.podManagementPolicy", &json!(other), why));
            }
        }
        check_strategy(&spec.update_strategy.clone().unwrap_or_default(), &mut errors);
        if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
            let at = "spec.persistentVolumeClaimRetentionPolicy";
            for (field, value) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
                rules::maybe_one_of(&format!("{at}.{field}"), value.as_deref(), &RETENTION, &mut errors);
            }
        }
        for (index, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
            let wish = claim.spec.clone().unwrap_or_default();
            persistent_volume_claim::check(&format!("spec.volumeClaimTemplates[{index}].spec"), &wish, &mut errors);
        }
        pod_template::check_count("spec.replicas", spec.replicas, &mut errors);
        pod_template::check_count("spec.minReadySeconds", spec.min_ready_seconds, &mut errors);
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start);
        pod_template::check_count("spec.ordinals.start", start, &mut errors);
        if let Some(service) = spec.service_name.as_deref().filter(|service| !service.is_empty()) {
            rules::all("spec.serviceName", service, name::dns1123_label(service), &mut errors);
        }
        pod_template::check_selector(whole, &spec.selector, Some(&spec.template), "statefulset", &mut errors);
        pod_template::validate("spec.template", &with_claims(spec), &["Always"], "StatefulSet", &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let before = &old.spec;
        let mut same = self.spec.clone();
        same.replicas = before.replicas;
        same.ordinals.clone_from(&before.ordinals);
        same.template.clone_from(&before.template);
        same.update_strategy.clone_from(&before.update_strategy);
        same.revision_history_limit = before.revision_history_limit;
        same.persistent_volume_claim_retention_policy.clone_from(&before.persistent_volume_claim_retention_policy);
        same.min_ready_seconds = before.min_ready_seconds;
        if same == *before { vec![] } else { vec![Invalid::forbidden("spec", MUTABLE)] }
    }

    fn validate_status_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let status = self.status.clone().unwrap_or_default();
        check_status(&status, &mut errors);
        let collisions = |status: Option<&StatefulSetStatus>| status.and_then(|status| status.collision_count);
        if let Some(before) = collisions(old.status.as_ref()) {
            let now = status.collision_count.unwrap_or(0);
            if now < before {
                errors.push(Invalid::value("status.collisionCount", &json!(now), "cannot be decremented"));
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Ready", "How many pods are ready, of how many."),
            Column::AGE,
            Column::text("Containers", "The names of the template's containers.").wide(),
            Column::text("Images", "The images of the template's containers.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let ready = self.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let [containers, images] = show::containers(self.spec.template.spec.as_ref());
        vec![
            show::name(object),
            json!(format!("{ready}/{}", self.spec.replicas.unwrap_or(0))),
            age(object, now),
            containers,
            images,
        ]
    }
}

fn check_strategy(strategy: &StatefulSetUpdateStrategy, errors: &mut Vec<Invalid>) {
    let at = "spec.updateStrategy";
    match (strategy.type_.as_deref().unwrap_or(""), &strategy.rolling_update) {
        ("", _) => errors.push(Invalid::required(at, "")),
        ("OnDelete" | "RollingUpdate", None) => {}
        ("OnDelete", Some(rolling)) => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(Invalid::value(format!("{at}.rollingUpdate"), &json!(rolling), why));
        }
        ("RollingUpdate", Some(rolling)) => {
            pod_template::check_count(&format!("{at}.rollingUpdate.partition"), rolling.partition, errors);
            let (at, unavailable) = (format!("{at}.rollingUpdate.maxUnavailable"), rolling.max_unavailable.as_ref());
            rules::count_or_percent(&at, unavailable, errors);
            if unavailable.is_some() && rules::is_nothing(unavailable) {
                errors.push(Invalid::value(at.as_str(), &json!(unavailable), "cannot be 0"));
            }
            rules::at_most_all(&at, unavailable, errors);
        }
        _ => errors.push(Invalid::value(at, &json!(strategy), "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

fn check_status(status: &StatefulSetStatus, errors: &mut Vec<Invalid>) {
    let at = |field: &str| format!("status.{field}");
    let parts = [
        ("readyReplicas", status.ready_replicas),
        ("currentReplicas", status.current_replicas),
        ("updatedReplicas", status.updated_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    pod_template::check_count("status.replicas", Some(status.replicas), errors);
    for (field, count) in parts {
        pod_template::check_count(&at(field), count, errors);
    }
    rules::not_negative("status.observedGeneration", status.observed_generation, errors);
    pod_template::check_count("status.collisionCount", status.collision_count, errors);
    for (field, count) in parts {
        if let Some(count) = count.filter(|count| *count > status.replicas) {
            errors.push(Invalid::value(at(field), &json!(count), "cannot be greater than status.replicas"));
        }
    }
    let available = status.available_replicas.unwrap_or(0);
    if available > status.ready_replicas.unwrap_or(0) {
        let why = "cannot be greater than status.readyReplicas";
        errors.push(Invalid::value("status.availableReplicas", &json!(available), why));
    }
}

/// The template as its pods will be: with a volume for each claim, which takes the place of one with the same name.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let names: Vec<&String> =
        spec.volume_claim_templates.iter().flatten().filter_map(|claim| claim.metadata.name.as_ref()).collect();
    if let Some(pod) = template.spec.as_mut().filter(|_| !names.is_empty()) {
        let volumes = pod.volumes.get_or_insert_default();
        volumes.retain(|volume| !names.contains(&&volume.name));
        volumes.extend(names.into_iter().map(|name| Volume {
            name: name.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: name.clone(), read_only: None }),
            ..Volume::default()
        }));
    }
    template
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn stateful_set(change: impl FnOnce(&mut Value)) -> Value {
        let mut it = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
            "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [
                {"name": "c", "image": "i:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
        change(&mut it);
        Builtin::<super::StatefulSet>::new().fill_defaults(&mut it);
        it
    }

    fn texts(errors: Vec<crate::http::error::Invalid>) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    fn refused(change: impl FnOnce(&mut Value)) -> Vec<String> {
        texts(Builtin::<super::StatefulSet>::new().validate(&stateful_set(change)))
    }

    #[test]
    fn defaults_are_ordered_and_keep_the_claims() {
        let it = stateful_set(|_| {});
        let spec = &it["spec"];
        assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}})
        );
        assert_eq!(spec["persistentVolumeClaimRetentionPolicy"], json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!((&claim["apiVersion"], &claim["kind"]), (&json!("v1"), &json!("PersistentVolumeClaim")));
        assert_eq!((&claim["spec"]["volumeMode"], &claim["status"]), (&json!("Filesystem"), &json!({"phase": "Pending"})));
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(refused(|_| {}), Vec::<String>::new());
        // With a type alone there are no parameters.
        let typed = stateful_set(|it| it["spec"]["updateStrategy"] = json!({"type": "RollingUpdate"}));
        assert_eq!(typed["spec"]["updateStrategy"], json!({"type": "RollingUpdate"}));
    }

    #[test]
    fn strategies_and_policies() {
        assert_eq!(
            refused(|it| {
                it["spec"]["podManagementPolicy"] = json!("Any");
                it["spec"]["updateStrategy"] = json!({"type": "Recreate"});
                it["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Recycle"});
            }),
            [
                "spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'",
                "spec.updateStrategy: Invalid value: {\"type\":\"Recreate\"}: must be 'RollingUpdate' or 'OnDelete'",
                "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
            ]
        );
        let rolling = |rolling: Value| {
            refused(|it| it["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": rolling}))
        };
        let at = "spec.updateStrategy.rollingUpdate";
        assert_eq!(
            rolling(json!({"partition": -1, "maxUnavailable": 0})),
            [
                format!("{at}.partition: Invalid value: -1: must be greater than or equal to 0"),
                format!("{at}.maxUnavailable: Invalid value: 0: cannot be 0"),
            ]
        );
        assert_eq!(
            rolling(json!({"maxUnavailable": "101%"})),
            [format!("{at}.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%")]
        );
        assert_eq!(
            refused(|it| it["spec"]["updateStrategy"] = json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}})),
            [format!("{at}: Invalid value: {{\"partition\":1}}: only allowed for updateStrategy 'RollingUpdate'")]
        );
    }

    #[test]
    fn numbers_names_and_claims() {
        assert_eq!(
            refused(|it| {
                it["spec"]["replicas"] = json!(-1);
                it["spec"]["minReadySeconds"] = json!(-2);
                it["spec"]["ordinals"] = json!({"start": -3});
                it["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] = json!([]);
                it["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
                it["spec"]["template"]["spec"]["activeDeadlineSeconds"] = json!(1);
            }),
            [
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.minReadySeconds: Invalid value: -2: must be greater than or equal to 0",
                "spec.ordinals.start: Invalid value: -3: must be greater than or equal to 0",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ]
        );
        assert_eq!(refused(|it| it["spec"]["serviceName"] = json!("a.b"))[..].len(), 1);
        assert_eq!(
            refused(|it| it["spec"]["selector"] = json!({})),
            ["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"]
        );
        assert_eq!(
            refused(|it| it["spec"]["volumeClaimTemplates"] = json!([])),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""]
        );
    }

    #[test]
    fn what_may_change() {
        let strategy = Builtin::<super::StatefulSet>::new();
        let old = stateful_set(|_| {});
        let may = stateful_set(|it| {
            it["spec"]["replicas"] = json!(3);
            it["spec"]["ordinals"] = json!({"start": 2});
            it["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
            it["spec"]["revisionHistoryLimit"] = json!(1);
            it["spec"]["minReadySeconds"] = json!(1);
            it["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": "Delete"});
            it["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
        });
        assert_eq!(texts(strategy.validate_update(&may, &old)), Vec::<String>::new());
        let forbidden = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' \
                         are forbidden";
        for (field, value) in [
            ("serviceName", json!("other")),
            ("podManagementPolicy", json!("Parallel")),
            ("selector", json!({"matchLabels": {"app": "other"}})),
            ("volumeClaimTemplates", json!([])),
        ] {
            let new = stateful_set(|it| it["spec"][field] = value);
            assert_eq!(texts(strategy.validate_update(&new, &old)), [forbidden], "{field}");
        }
    }

    #[test]
    fn status_and_row() {
        let strategy = Builtin::<super::StatefulSet>::new();
        let mut it = stateful_set(|it| it["spec"]["replicas"] = json!(3));
        strategy.prepare_create(&mut it);
        assert_eq!((&it["status"], &it["metadata"]["generation"]), (&json!({"replicas": 0, "availableReplicas": 0}), &json!(1)));
        let mut told = it.clone();
        told["status"] =
            json!({"replicas": 1, "readyReplicas": 1, "currentReplicas": 2, "availableReplicas": 2, "collisionCount": 1});
        assert_eq!(
            texts(strategy.validate_status_update(&told, &it)),
            [
                "status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
            ]
        );
        let mut after = told.clone();
        after["status"] = json!({"replicas": 3, "readyReplicas": 2});
        assert_eq!(
            texts(strategy.validate_status_update(&after, &told)),
            ["status.collisionCount: Invalid value: 0: cannot be decremented"]
        );
        let row = strategy.row(&after, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!((&row[1], &row[3], &row[4]), (&json!("2/3"), &json!("c"), &json!("i:1")));
    }
}
