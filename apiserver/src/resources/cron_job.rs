//! CronJob: a template of jobs, and when they are made.

use super::{fill, job, pod_template, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::batch::CronJob;
use slipway_api::batch::{CronJobSpec, JobTemplateSpec};
use slipway_api::schedule::{Schedule, zone};

/// What a job's name is longer than the cron job's: `-` and the minutes of its time.
const SUFFIX: usize = 11;
const NAME_MAX: usize = 63 - SUFFIX;
const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];

impl Kind for CronJob {
    const NAMES: Names = Names {
        short: &["cj"],
        categories: &["all"],
        status: true,
        ..Names::namespaced("batch", "v1", "CronJob", "cronjobs", "cronjob")
    };

    fn fill_defaults(object: &mut Value) {
        let Some(spec) = fill::inner(object, "spec") else { return };
        fill::empty(spec, "concurrencyPolicy", "Allow");
        fill::missing(spec, "suspend", false);
        fill::missing(spec, "successfulJobsHistoryLimit", 3);
        fill::missing(spec, "failedJobsHistoryLimit", 1);
        let Some(template) = fill::made(spec, "jobTemplate") else { return };
        fill::made(template, "metadata");
        fill::made(template, "spec");
        pod_template::fill_defaults(template);
        if let Some(spec) = fill::inner(template, "spec") {
            job::fill_failure_policy(spec);
        }
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        check_schedule(&spec.schedule, &mut errors);
        rules::not_negative("spec.startingDeadlineSeconds", spec.starting_deadline_seconds, &mut errors);
        if let Some(zone) = &spec.time_zone {
            check_time_zone(zone, &mut errors);
        }
        rules::one_of("spec.concurrencyPolicy", spec.concurrency_policy.as_deref(), &POLICIES, &mut errors);
        check_template("spec.jobTemplate", &spec.job_template, &mut errors);
        check_history(spec, &mut errors);
        // The name of an object that is updated is one that was made, so that this is about new ones only.
        let name = self.metadata.name.as_deref().unwrap_or("");
        if name.len() > NAME_MAX {
            let why = format!("must be no more than {NAME_MAX} characters");
            errors.push(Invalid::value("metadata.name", &json!(name), &why));
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Schedule", "When jobs are made, as cron writes it."),
            Column::text("Timezone", "By whose clocks; those of the controllers' machine, which are UTC, if none is named."),
            Column { type_: "boolean", ..Column::text("Suspend", "Whether no jobs are made for now.") },
            Column::integer("Active", "How many jobs run."),
            Column::text("Last Schedule", "How long ago the last job was due that was made."),
            Column::AGE,
            Column::text("Containers", "The names of the template's containers.").wide(),
            Column::text("Images", "The images of the template's containers.").wide(),
            Column::text("Selector", "The labels of the pods, which the jobs choose by themselves.").wide(),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&self.spec, self.status.clone().unwrap_or_default());
        let job = spec.job_template.spec.clone().unwrap_or_default();
        let [containers, images] = show::containers(job.template.spec.as_ref());
        let last = status.last_schedule_time.map_or(show::NONE.to_owned(), |time| show::since(Some(time.0), now));
        vec![
            show::name(object),
            json!(spec.schedule),
            json!(spec.time_zone.as_deref().unwrap_or(show::NONE)),
            json!(spec.suspend.map_or(show::UNSET, |suspend| if suspend { "True" } else { "False" })),
            json!(status.active.map_or(0, |active| active.len())),
            json!(last),
            age(object, now),
            containers,
            images,
            show::selector(job.selector.as_ref()),
        ]
    }
}

fn check_schedule(schedule: &str, errors: &mut Vec<Invalid>) {
    const AT: &str = "spec.schedule";
    if schedule.is_empty() {
        errors.push(Invalid::required(AT, ""));
        return;
    }
    if let Err(error) = Schedule::parse(schedule) {
        errors.push(Invalid::value(AT, &json!(schedule), &error.to_string()));
    }
    if schedule.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(Invalid::value(AT, &json!(schedule), why));
    }
}

fn check_time_zone(name: &str, errors: &mut Vec<Invalid>) {
    let mut refuse = |why: &str| errors.push(Invalid::value("spec.timeZone", &json!(name), why));
    if name.is_empty() {
        refuse("timeZone must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("Local") {
        refuse("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if let Err(error) = zone::find(name) {
        refuse(&error.to_string());
    }
}

fn check_template(at: &str, template: &JobTemplateSpec, errors: &mut Vec<Invalid>) {
    let spec = template.spec.clone().unwrap_or_default();
    job::validate_spec(&format!("{at}.spec"), &spec, errors);
    if let Some(selector) = &spec.selector {
        errors.push(Invalid::value(format!("{at}.spec.selector"), &json!(selector), "`selector` will be auto-generated"));
    }
    if spec.manual_selector == Some(true) {
        errors.push(Invalid::not_supported(format!("{at}.spec.manualSelector"), &json!(true), &["nil", "false"]));
    }
}

fn check_history(spec: &CronJobSpec, errors: &mut Vec<Invalid>) {
    for (field, limit) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        rules::not_negative(&format!("spec.{field}"), limit.map(i64::from), errors);
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn cron_job(change: impl FnOnce(&mut Value)) -> Value {
        let strategy = Builtin::<super::CronJob>::new();
        let template = json!({"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i:1"}]}});
        let mut it = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cj", "uid": "u1"},
            "spec": {"schedule": "* * * * ?", "jobTemplate": {"spec": {"template": template}}}});
        change(&mut it);
        strategy.fill_defaults(&mut it);
        strategy.prepare_create(&mut it);
        it
    }

    fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let errors = Builtin::<super::CronJob>::new().validate(&cron_job(change));
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let it = cron_job(|_| {});
        let spec = &it["spec"];
        assert_eq!((&spec["concurrencyPolicy"], &spec["suspend"]), (&json!("Allow"), &json!(false)));
        assert_eq!((&spec["successfulJobsHistoryLimit"], &spec["failedJobsHistoryLimit"]), (&json!(3), &json!(1)));
        let job = &spec["jobTemplate"]["spec"];
        assert_eq!(job["template"]["spec"]["terminationGracePeriodSeconds"], 30, "the pods' defaults are in the template");
        assert!(job.get("completions").is_none(), "the jobs' own are not");
        assert_eq!(it["metadata"]["generation"], 1);
        assert_eq!(errors(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn schedules_and_zones_that_are_none() {
        let schedule = |text: &str| errors(|it| it["spec"]["schedule"] = json!(text));
        assert_eq!(schedule(""), ["spec.schedule: Required value"]);
        assert_eq!(schedule("error"), ["spec.schedule: Invalid value: \"error\": expected exactly 5 fields, found 1: [error]"]);
        assert_eq!(
            schedule("TZ=UTC 0 * * * *"),
            [
                "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            ]
        );
        assert_eq!(schedule("@every 5m"), Vec::<String>::new());
        let zone = |name: &str| errors(|it| it["spec"]["timeZone"] = json!(name));
        assert_eq!(zone("Asia/Tokyo"), Vec::<String>::new());
        assert_eq!(zone(""), ["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"]);
        assert_eq!(
            zone("LOCAL"),
            [
                "spec.timeZone: Invalid value: \"LOCAL\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
            ]
        );
        assert_eq!(
            zone("Amerika/New_York"),
            ["spec.timeZone: Invalid value: \"Amerika/New_York\": unknown time zone Amerika/New_York"]
        );
        assert_eq!(zone("asia/tokyo").len(), 1);
    }

    #[test]
    fn what_a_cron_job_may_not_be() {
        assert_eq!(
            errors(|it| {
                it["spec"]["startingDeadlineSeconds"] = json!(-1);
                it["spec"]["concurrencyPolicy"] = json!("Maybe");
                it["spec"]["successfulJobsHistoryLimit"] = json!(-1);
                it["spec"]["failedJobsHistoryLimit"] = json!(-1);
                it["spec"]["jobTemplate"]["spec"]["backoffLimit"] = json!(-1);
                it["spec"]["jobTemplate"]["spec"]["manualSelector"] = json!(true);
                it["spec"]["jobTemplate"]["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
                it["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
            }),
            [
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                "spec.jobTemplate.spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
                "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
                "spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
                "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
        let name = |length: usize| errors(|it| it["metadata"]["name"] = json!("n".repeat(length)));
        assert_eq!(name(52), Vec::<String>::new());
        let long = "n".repeat(53);
        assert_eq!(name(53), [format!("metadata.name: Invalid value: \"{long}\": must be no more than 52 characters")]);
    }

    #[test]
    fn cells() {
        let mut it = cron_job(|_| {});
        it["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let now: jiff::Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let row = |it: &Value| Builtin::<super::CronJob>::new().row(it, now);
        assert_eq!(
            row(&it),
            [
                json!("cj"),
                json!("* * * * ?"),
                json!("<none>"),
                json!("False"),
                json!(0),
                json!("<none>"),
                json!("60m"),
                json!("c"),
                json!("i:1"),
                json!("<none>")
            ]
        );
        it["spec"]["timeZone"] = json!("Asia/Tokyo");
        it["status"] = json!({"active": [{"name": "cj-1"}], "lastScheduleTime": "2026-01-01T00:59:20Z"});
        assert_eq!(row(&it)[2..6], [json!("Asia/Tokyo"), json!("False"), json!(1), json!("40s")]);
    }
}
