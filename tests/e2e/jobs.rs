//! Jobs on containerd.

use crate::cluster::{enabled, shared};

const JOB: &str = include_str!("../../infra/samples/job.yaml");

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
