//! HorizontalPodAutoscalers as kubectl knows them, on a cluster without a metrics server.

use crate::cluster::{condition, enabled, shared};

const AUTOSCALER: &str = include_str!("../../infra/samples/autoscaler.yaml");
const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: registry.slipway.test/busybox:1
          command: [sleep, '3600']
          resources: {requests: {cpu: 10m, memory: 8Mi}}
";

#[test]
fn an_autoscaler_keeps_to_its_bounds_and_says_what_it_misses() {
    if !enabled("autoscaling") {
        return;
    }
    let cluster = shared("autoscaling");
    cluster.apply(WEB);
    cluster.ok(&["autoscale", "deployment", "web", "--min=2", "--max=4", "--cpu-percent=60"]);
    cluster.wait_for("deployment/web", "{.spec.replicas}", "2");
    let scaled = || condition(&cluster.json(&["get", "hpa", "web"]), "ScalingActive") == "False";
    cluster.wait("the want of metrics to be told", scaled);
    let table = cluster.ok(&["get", "hpa", "web"]);
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]);
    assert_eq!(lines.next().unwrap()[..6], ["web", "Deployment/web", "cpu:", "<unknown>/60%", "2", "4"], "{table}");
    let described = cluster.ok(&["describe", "hpa", "web"]);
    for told in ["SuccessfulRescale", "Current number of replicas below Spec.MinReplicas", "FailedGetResourceMetric"] {
        assert!(described.contains(told), "{told}: {described}");
    }
    // The same object in the older version.
    let old = "{.spec.targetCPUUtilizationPercentage}";
    let of_v1 = ["get", "horizontalpodautoscalers.v1.autoscaling", "web", "-o"];
    assert_eq!(cluster.ok(&[&of_v1[..], &[&format!("jsonpath={old}")]].concat()), "60");
    cluster.ok(&["delete", "hpa", "web"]);
    cluster.apply(AUTOSCALER);
    assert_eq!(cluster.get("hpa/web", "{.spec.behavior.scaleUp.policies[0].value}"), "2");
    cluster.ok(&["scale", "deployment", "web", "--replicas=11"]);
    cluster.wait_for("deployment/web", "{.spec.replicas}", "10");
    cluster.ok(&["delete", "deployment", "web"]);
}
