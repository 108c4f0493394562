//! Jobs on containerd.

use crate::cluster::{enabled, shared};

const JOB: &str = include_str!("../../infra/samples/job.yaml");
const CRON_JOB: &str = include_str!("../../infra/samples/cronjob.yaml");

#[test]
fn an_indexed_job_completes_and_a_failing_one_gives_up() {
    if !enabled("jobs") {
        return;
    }
    let cluster = shared("jobs");
    cluster.apply(JOB);
    cluster.apply(
        "apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: 'registry.slipway.test/busybox:1', command: ['false']}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: late}
spec:
  activeDeadlineSeconds: 2
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'registry.slipway.test/busybox:1', command: [sleep, '3600']}]
",
    );
    cluster.ok(&["wait", "--for=condition=Complete", "job/count", "--timeout=90s"]);
    assert_eq!(cluster.get("job/count", "{.status.succeeded} {.status.completedIndexes}"), "6 0-5");
    cluster.ok(&["wait", "--for=condition=Failed", "job/fails", "--timeout=60s"]);
    assert_eq!(cluster.get("job/fails", "{.status.conditions[?(@.type==\"Failed\")].reason}"), "BackoffLimitExceeded");
    cluster.ok(&["wait", "--for=condition=Failed", "job/late", "--timeout=60s"]);
    assert_eq!(cluster.get("job/late", "{.status.conditions[?(@.type==\"Failed\")].reason}"), "DeadlineExceeded");
}

#[test]
fn a_cron_job_runs_each_minute_and_by_hand() {
    if !enabled("cronjobs") {
        return;
    }
    let cluster = shared("cronjobs");
    let image = "--image=registry.slipway.test/busybox:1";
    cluster.ok(&["create", "cronjob", "tick", image, "--schedule=* * * * *", "--", "true"]);
    cluster.ok(&["patch", "cronjob", "tick", "-p", r#"{"spec": {"successfulJobsHistoryLimit": 1}}"#]);
    let successes = || {
        let reason = "--field-selector=reason=SawCompletedJob,involvedObject.name=tick";
        let events = cluster.ok(&["get", "events", reason, "-o", "jsonpath={.items[*].message}"]);
        events.matches("condition: Complete").count()
    };
    cluster.wait("a run", || successes() >= 1);
    cluster.wait("a second one", || successes() >= 2);
    let jobs = || cluster.ok(&["get", "jobs", "-o", "name"]).lines().filter(|name| name.contains("tick-")).count();
    cluster.wait("the first one to be forgotten", || jobs() <= 1);
    cluster.ok(&["patch", "cronjob", "tick", "-p", r#"{"spec": {"suspend": true}}"#]);
    let table = cluster.ok(&["get", "cj"]);
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = ["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "SCHEDULE", "AGE"];
    assert_eq!(lines.next().unwrap(), header);
    let row = lines.next().unwrap();
    assert_eq!(row[..8], ["tick", "*", "*", "*", "*", "*", "<none>", "True"], "{table}");

    cluster.apply(CRON_JOB);
    cluster.ok(&["create", "job", "by-hand", "--from=cronjob/report"]);
    cluster.ok(&["wait", "--for=condition=Complete", "job/by-hand", "--timeout=60s"]);
    assert!(cluster.ok(&["logs", "job/by-hand"]).contains("all is well"));
    assert_eq!(cluster.get("job/by-hand", "{.metadata.annotations.cronjob\\.kubernetes\\.io/instantiate}"), "manual");
    cluster.wait("the run by hand to count", || !cluster.get("cronjob/report", "{.status.lastSuccessfulTime}").is_empty());
    let described = cluster.ok(&["describe", "cronjob", "report"]);
    assert!(described.contains("Saw a job that the controller did not create or forgot: by-hand"), "{described}");
}
