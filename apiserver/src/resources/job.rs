//! Job: pods that run until so many of them have succeeded.

use super::{fill, pod_template, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, human_duration};
use serde_json::{Value, json};
pub use slipway_api::batch::Job;
use slipway_api::batch::JobSpec;
use slipway_api::core::PodTemplateSpec;
use slipway_api::selector::Selector;

/// On the pods of a job, and in its selector: the job's UID. The names without a prefix are older.
const LABELS_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const LABELS_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const BACKOFF_LIMIT: i32 = 6;
const INDEXED_PARALLELISM_MAX: i32 = 100_000;

impl Kind for Job {
    const NAMES: Names = Names { categories: &["all"], status: true, ..Names::namespaced("batch", "v1", "Job", "jobs", "job") };

    fn fill_defaults(object: &mut Value) {
        pod_template::fill_defaults(object);
        let Some(spec) = fill::inner(object, "spec") else { return };
        let given = |field: &str| spec.get(field).is_some_and(|value| !value.is_null());
        let (counted, per_index, failure_policy) =
            (given("completions") || given("parallelism"), given("backoffLimitPerIndex"), given("podFailurePolicy"));
        if !counted {
            fill::missing(spec, "completions", 1);
        }
        fill::missing(spec, "parallelism", 1);
        fill::missing(spec, "backoffLimit", if per_index { i32::MAX } else { BACKOFF_LIMIT });
        fill::missing(spec, "completionMode", "NonIndexed");
        fill::missing(spec, "suspend", false);
        fill::missing(spec, "manualSelector", false);
        fill::missing(spec, "podReplacementPolicy", if failure_policy { "Failed" } else { "TerminatingOrFailed" });
        fill_failure_policy(spec);
        let labels = object.pointer("/spec/template/metadata/labels").filter(|labels| labels.is_object()).cloned();
        if let Some(labels) = labels
            && let Some(metadata) = fill::made(object, "metadata")
            && metadata.get("labels").and_then(Value::as_object).is_none_or(|labels| labels.is_empty())
        {
            metadata["labels"] = labels;
        }
    }

    /// Unless asked not to, selects the job's own pods by its UID.
    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
        object["status"] = json!({});
        let uid = fill::text(&object["metadata"], "uid").to_owned();
        let name = fill::text(&object["metadata"], "name").to_owned();
        let Some(spec) = fill::inner(object, "spec") else { return };
        if spec.get("manualSelector") == Some(&json!(true)) {
            return;
        }
        let template = fill::made(spec, "template").and_then(|template| fill::made(template, "metadata"));
        if let Some(labels) = template.and_then(|metadata| fill::map_of(metadata, "labels")) {
            for (names, value) in [(LABELS_NAME, &name), (LABELS_UID, &uid)] {
                for label in names {
                    labels.entry(label).or_insert(json!(value));
                }
            }
        }
        if let Some(selected) = fill::made(spec, "selector").and_then(|selector| fill::map_of(selector, "matchLabels")) {
            selected.entry(LABELS_UID[1]).or_insert(json!(uid));
        }
    }

    fn validate_whole(&self, whole: &Value) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = self.spec.clone().unwrap_or_default();
        validate_spec("spec", &spec, &mut errors);
        match &spec.selector {
            None => errors.push(Invalid::required("spec.selector", "")),
            Some(selector) => rules::label_selector("spec.selector", selector, &mut errors),
        }
        let labels = rules::labels_in(whole, "/spec/template/metadata/labels");
        if spec.manual_selector != Some(true) {
            for name in [LABELS_UID[0], LABELS_UID[1]] {
                let uid = self.metadata.uid.as_deref().unwrap_or("");
                check_own_label(&labels, name, uid, &mut errors);
            }
            for name in LABELS_NAME {
                check_own_label(&labels, name, self.metadata.name.as_deref().unwrap_or(""), &mut errors);
            }
        }
        let selector = spec.selector.as_ref().and_then(|selector| Selector::from_label_selector(selector).ok());
        let template_labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
        if selector.is_some_and(|selector| !selector.matches(&template_labels)) {
            let why = "`selector` does not match template `labels`";
            errors.push(Invalid::value("spec.template.metadata.labels", &labels, why));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let (new, old_spec) = (self.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let elastic = new.completion_mode.as_deref() == Some("Indexed") && old_spec.completions.is_some();
        if !elastic {
            rules::same("spec.completions", &new.completions, &old_spec.completions, &mut errors);
        } else if new.completions != old_spec.completions && new.completions != new.parallelism {
            let why = format!(
                "can only be modified in tandem with {}",
                if new.completions.is_none() { "Parallelism" } else { "spec.parallelism" }
            );
            errors.push(Invalid::value("spec.completions", &json!(new.completions), &why));
        }
        rules::same("spec.selector", &new.selector, &old_spec.selector, &mut errors);
        let template = if may_move(old, &old_spec) { moved(&new.template, &old_spec.template) } else { new.template.clone() };
        if template != old_spec.template {
            errors.push(Invalid::value("spec.template", &json!(new.template), rules::IMMUTABLE));
        }
        rules::same("spec.completionMode", &new.completion_mode, &old_spec.completion_mode, &mut errors);
        rules::same("spec.podFailurePolicy", &new.pod_failure_policy, &old_spec.pod_failure_policy, &mut errors);
        rules::same("spec.backoffLimitPerIndex", &new.backoff_limit_per_index, &old_spec.backoff_limit_per_index, &mut errors);
        rules::same("spec.managedBy", &new.managed_by, &old_spec.managed_by, &mut errors);
        rules::same("spec.successPolicy", &new.success_policy, &old_spec.success_policy, &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Status", "Whether the job runs, and how it ended."),
            Column::text("Completions", "How many pods have succeeded, of how many."),
            Column::text("Duration", "How long the job has run, or ran."),
            Column::AGE,
            Column::text("Containers", "The names of the template's containers.").wide(),
            Column::text("Images", "The images of the template's containers.").wide(),
            Column::text("Selector", "The labels of its pods.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.clone().unwrap_or_default(), self.status.clone().unwrap_or_default());
        let succeeded = status.succeeded.unwrap_or(0);
        let completions = match (spec.completions, spec.parallelism.unwrap_or(0)) {
            (Some(wanted), _) => format!("{succeeded}/{wanted}"),
            (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            (None, _) => format!("{succeeded}/1"),
        };
        let duration = status.start_time.as_ref().map_or(String::new(), |start| {
            let end = status.completion_time.as_ref().map_or(now, |end| end.0);
            human_duration(end.as_second() - start.0.as_second())
        });
        let [containers, images] = show::containers(spec.template.spec.as_ref());
        vec![
            show::name(object),
            json!(state(self)),
            json!(completions),
            json!(duration),
            age(object, now),
            containers,
            images,
            show::selector(spec.selector.as_ref()),
        ]
    }

    const SELECTABLE: &'static [&'static str] = &["status.successful"];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.successful", object["status"]["succeeded"].as_i64().unwrap_or(0).to_string())]
    }
}

/// The job in one word.
fn state(job: &Job) -> &'static str {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or(&[]);
    let has = |kind: &str| conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True");
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if job.metadata.deletion_timestamp.is_some() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

/// What holds for jobs and for the templates of jobs: all but the selector.
pub fn validate_spec(at: &str, spec: &JobSpec, errors: &mut Vec<Invalid>) {
    check_counts(at, spec, errors);
    check_modes(at, spec, errors);
    pod_template::validate(&format!("{at}.template"), &spec.template, &[], "Job", errors);
    check_restart_policy(at, spec, errors);
}

/// Fills in what a job or a template of jobs says about its pods' failures.
pub fn fill_failure_policy(spec: &mut Value) {
    if let Some(policy) = fill::inner(spec, "podFailurePolicy") {
        for rule in fill::items(policy, "rules") {
            for pattern in fill::items(rule, "onPodConditions") {
                fill::empty(pattern, "status", "True");
            }
        }
    }
}

fn check_counts(at: &str, spec: &JobSpec, errors: &mut Vec<Invalid>) {
    for (field, number) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        rules::not_negative(&format!("{at}.{field}"), number, errors);
    }
}

fn check_modes(at: &str, spec: &JobSpec, errors: &mut Vec<Invalid>) {
    let mode = spec.completion_mode.as_deref();
    rules::maybe_one_of(&format!("{at}.completionMode"), mode, &["Indexed", "NonIndexed"], errors);
    if mode == Some("Indexed") {
        if spec.completions.is_none() {
            errors.push(Invalid::required(format!("{at}.completions"), "when completion mode is Indexed"));
        }
        if let Some(parallelism) = spec.parallelism.filter(|parallelism| *parallelism > INDEXED_PARALLELISM_MAX) {
            let why = format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed");
            errors.push(Invalid::value(format!("{at}.parallelism"), &json!(parallelism), &why));
        }
    } else if let Some(limit) = spec.backoff_limit_per_index {
        errors.push(Invalid::value(format!("{at}.backoffLimitPerIndex"), &json!(limit), "requires indexed completion mode"));
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.push(Invalid::required(format!("{at}.backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    let policies: &[&str] = if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    rules::maybe_one_of(&format!("{at}.podReplacementPolicy"), spec.pod_replacement_policy.as_deref(), policies, errors);
}

fn check_restart_policy(at: &str, spec: &JobSpec, errors: &mut Vec<Invalid>) {
    let at = format!("{at}.template.spec.restartPolicy");
    match spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("") {
        "" | "Always" => errors.push(Invalid::required(at, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(Invalid::value(at, &json!("OnFailure"), why));
        }
        // What is no policy at all is the template's own error.
        _ => {}
    }
}

/// A label that the server sets must be the server's.
fn check_own_label(labels: &Value, name: &str, expected: &str, errors: &mut Vec<Invalid>) {
    let at = "spec.template.metadata.labels";
    match labels.get(name).and_then(Value::as_str) {
        None => errors.push(Invalid::required(at, &format!("must be '{expected}'"))),
        Some(label) if label != expected => {
            errors.push(Invalid::value(at, labels, &format!("must be '{expected}'")));
        }
        Some(_) => {}
    }
}

/// A suspended job that hasn't started may still be told where to run.
fn may_move(job: &Job, spec: &JobSpec) -> bool {
    spec.suspend == Some(true) && job.status.as_ref().is_none_or(|status| status.start_time.is_none())
}

/// The new template with the old one's say on nodes.
fn moved(new: &PodTemplateSpec, old: &PodTemplateSpec) -> PodTemplateSpec {
    let mut moved = new.clone();
    if let (Some(metadata), Some(old)) = (&mut moved.metadata, &old.metadata) {
        metadata.labels.clone_from(&old.labels);
        metadata.annotations.clone_from(&old.annotations);
    }
    if let (Some(spec), Some(old)) = (&mut moved.spec, &old.spec) {
        spec.node_selector.clone_from(&old.node_selector);
        spec.tolerations.clone_from(&old.tolerations);
        spec.scheduling_gates.clone_from(&old.scheduling_gates);
        let old_node = old.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
        match (&mut spec.affinity, old_node) {
            (Some(affinity), node) => affinity.node_affinity = node,
            (none, Some(node)) => *none = Some(slipway_api::core::Affinity { node_affinity: Some(node), ..Default::default() }),
            (None, None) => {}
        }
        if old.affinity.is_none() && spec.affinity == Some(Default::default()) {
            spec.affinity = None;
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn job(change: impl FnOnce(&mut Value)) -> Value {
        let strategy = Builtin::<super::Job>::new();
        let mut it = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "uid": "u1"}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
        change(&mut it);
        strategy.fill_defaults(&mut it);
        strategy.prepare_create(&mut it);
        it
    }

    fn texts(errors: Vec<crate::http::error::Invalid>) -> Vec<String> {
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn a_job_selects_its_own_pods() {
        let it = job(|_| {});
        let labels = json!({"batch.kubernetes.io/controller-uid": "u1", "controller-uid": "u1",
            "batch.kubernetes.io/job-name": "j", "job-name": "j"});
        assert_eq!(it["spec"]["template"]["metadata"]["labels"], labels);
        assert_eq!(it["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}));
        let spec = &it["spec"];
        assert_eq!((&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]), (&json!(1), &json!(1), &json!(6)));
        assert_eq!(
            (&spec["completionMode"], &spec["podReplacementPolicy"]),
            (&json!("NonIndexed"), &json!("TerminatingOrFailed"))
        );
        assert_eq!(texts(Builtin::<super::Job>::new().validate(&it)), Vec::<String>::new());
        let queue = job(|it| it["spec"]["parallelism"] = json!(3));
        assert!(queue["spec"].get("completions").is_none());
    }

    #[test]
    fn what_a_job_may_not_be() {
        let strategy = Builtin::<super::Job>::new();
        assert_eq!(
            texts(strategy.validate(&job(|it| it["spec"]["template"]["spec"]["restartPolicy"] = json!("Always")))),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
        assert_eq!(
            texts(strategy.validate(&job(|it| {
                it["spec"]["completionMode"] = json!("Indexed");
                it["spec"]["parallelism"] = json!(-1);
                it["spec"]["backoffLimit"] = json!(-1);
            }))),
            [
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
                "spec.completions: Required value: when completion mode is Indexed",
            ]
        );
        assert_eq!(
            texts(strategy.validate(&job(|it| {
                it["spec"]["template"]["metadata"] = json!({"labels": {"controller-uid": "other"}});
            }))),
            [
                "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u1\",\"batch.kubernetes.io/job-name\":\"j\",\"controller-uid\":\"other\",\"job-name\":\"j\"}: must be 'u1'"
            ]
        );
    }

    #[test]
    fn the_template_stays() {
        let strategy = Builtin::<super::Job>::new();
        let old = job(|_| {});
        let fields = |change: &dyn Fn(&mut Value), old: &Value| {
            let mut new = old.clone();
            change(&mut new);
            strategy.validate_update(&new, old).into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(fields(&|it| it["spec"]["parallelism"] = json!(5), &old), Vec::<String>::new());
        assert_eq!(
            fields(
                &|it| {
                    it["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
                    it["spec"]["completions"] = json!(2);
                },
                &old
            ),
            ["spec.completions", "spec.template"]
        );
        let waiting = job(|it| it["spec"]["suspend"] = json!(true));
        assert_eq!(
            fields(&|it| it["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"}), &waiting),
            Vec::<String>::new()
        );
        assert_eq!(
            fields(&|it| it["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x"), &waiting),
            ["spec.template"]
        );
    }

    #[test]
    fn cells() {
        let mut it = job(|_| {});
        it["status"] = json!({"succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:42Z",
            "conditions": [{"type": "Complete", "status": "True"}]});
        let row = Builtin::<super::Job>::new().row(&it, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..4], [json!("Complete"), json!("1/1"), json!("42s")]);
        assert_eq!(row[7], "batch.kubernetes.io/controller-uid=u1");
    }
}
