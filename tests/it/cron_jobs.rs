//! CronJobs over the real API: jobs that are made on time, run to their end, and are forgotten.

use crate::cluster::{Cluster, items};
use serde_json::{Value, json};
use slipway_api::jiff::{SignedDuration, Timestamp};

const CRON_JOBS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const REPORT: &str = "/apis/batch/v1/namespaces/default/cronjobs/report";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const EVENTS: &str = "/api/v1/namespaces/default/events";

/// A suspended one, whose last time was two hours ago: as soon as it goes on, the last full hour is due.
async fn suspended(cluster: &Cluster) {
    let template = json!({"metadata": {"annotations": {"slipway.dev/simulated-exit-after": "100ms"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "report:1"}]}});
    let job = json!({"metadata": {"labels": {"app": "report"}}, "spec": {"template": template}});
    let spec = json!({"schedule": "0 * * * *", "suspend": true, "jobTemplate": job});
    let object = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "report"}, "spec": spec});
    cluster.create(CRON_JOBS, &object.to_string()).await;
    let before = (Timestamp::now() - SignedDuration::from_hours(2)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({"status": {"lastScheduleTime": before}});
    cluster.server.patch(&format!("{REPORT}/status"), status).await.expect(200);
}

async fn go_on(cluster: &Cluster) {
    cluster.server.patch(REPORT, json!({"spec": {"suspend": false}})).await.expect(200);
}

/// What the events say of the cron job.
fn told<'a>(events: &'a Value, reason: &str) -> Option<&'a str> {
    let is_it = |event: &&Value| event["reason"] == reason && event["involvedObject"]["kind"] == "CronJob";
    items(events).iter().find(is_it).and_then(|event| event["message"].as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_made_runs_to_its_end_and_is_forgotten() {
    let cluster = Cluster::start(1).await;
    suspended(&cluster).await;
    go_on(&cluster).await;
    let report = cluster.until(REPORT, "sees a job end", |report| report["status"]["lastSuccessfulTime"].is_string()).await;
    let at: Timestamp = report["status"]["lastScheduleTime"].as_str().unwrap().parse().unwrap();
    assert_eq!(at.as_second() % 3600, 0);
    let name = format!("report-{}", at.as_second() / 60);
    let job = cluster.server.get(&format!("{JOBS}/{name}")).await.expect(200);
    assert_eq!(job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"], at.to_string());
    assert_eq!(job["metadata"]["labels"]["app"], "report");
    assert_eq!(job["metadata"]["ownerReferences"][0]["name"], "report");
    let idle = |report: &Value| report["status"]["active"].as_array().is_none_or(Vec::is_empty);
    cluster.until(REPORT, "is idle", idle).await;
    let events = cluster.until(EVENTS, "tells of it", |events| told(events, "SawCompletedJob").is_some()).await;
    assert_eq!(told(&events, "SawCompletedJob").unwrap(), format!("Saw completed job: {name}, condition: Complete"));
    assert_eq!(told(&events, "SuccessfulCreate").unwrap(), format!("Created job {name}"));

    cluster.server.patch(REPORT, json!({"spec": {"suspend": true, "successfulJobsHistoryLimit": 0}})).await.expect(200);
    cluster.until_empty(JOBS).await;
    cluster.until_empty("/api/v1/namespaces/default/pods").await;
    let events = cluster.until(EVENTS, "tells of that too", |events| told(events, "SuccessfulDelete").is_some()).await;
    assert_eq!(told(&events, "SuccessfulDelete").unwrap(), format!("Deleted job {name}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_made_is_told_of_and_made_later() {
    let cluster = Cluster::start(1).await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"count/jobs.batch": "0"}}});
    cluster.create(quotas, &quota.to_string()).await;
    cluster.until(&format!("{quotas}/none"), "is counted", |quota| quota["status"]["used"].is_object()).await;
    suspended(&cluster).await;
    go_on(&cluster).await;
    let events = cluster.until(EVENTS, "tells why", |events| told(events, "FailedCreate").is_some()).await;
    let why = told(&events, "FailedCreate").unwrap();
    assert!(why.starts_with("Error creating job: ") && why.contains("exceeded quota: none"), "{why}");
    cluster.server.delete(&format!("{quotas}/none")).await.expect(200);
    cluster.until(JOBS, "has the job", |jobs| items(jobs).len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_schedule_is_refused() {
    let cluster = Cluster::start(0).await;
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "report:1"}]}});
    let object = |schedule: &str, zone: Option<&str>| {
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "report"},
            "spec": {"schedule": schedule, "timeZone": zone, "jobTemplate": {"spec": {"template": template}}}})
    };
    let message = cluster.server.post(CRON_JOBS, object("61 * * * *", None)).await.expect_status(422, "Invalid");
    let why = "spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61";
    assert_eq!(message, format!("CronJob.batch \"report\" is invalid: {why}"));
    let message = cluster.server.post(CRON_JOBS, object("0 * * * *", Some("Mars/Olympus"))).await.expect_status(422, "Invalid");
    let why = "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus";
    assert_eq!(message, format!("CronJob.batch \"report\" is invalid: {why}"));
}
