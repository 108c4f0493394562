use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;
use slipway_api::jiff::{SignedDuration, Timestamp};

use super::{
    metrics::{PodMetric, PodMetrics},
    replicas::{Now, Tolerances},
    *,
};
use crate::{
    plan::{Replace, Step},
    testing::World,
};

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dweb";
const SCALE: &str = "/apis/apps/v1/namespaces/default/deployments/web/scale";

/// Answers what it is told to, and to all else that it is not there.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<BTreeMap<String, Value>>>);

#[async_trait]
impl Source for Answers {
    async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        let missing = json!({"status": "Failure", "code": 404, "reason": "NotFound", "message": format!("no {path}")});
        let status: kube::core::Status = serde_json::from_value(missing).unwrap();
        self.0.lock().get(path).cloned().ok_or_else(|| kube::Error::Api(Box::new(status)))
    }
}

/// A Deployment `web` with an autoscaler, ready pods, and what is measured of them.
struct Setting {
    world: World,
    controller: Controller,
    answers: Answers,
}

fn key() -> Key {
    Key::new("default", "web")
}

impl Setting {
    fn new(replicas: i32, spec: Value) -> Setting {
        let answers = Answers::default();
        let mut world = World::default();
        let mut whole = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1,
            "maxReplicas": 10, "metrics": [cpu(50)]});
        whole.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
        world.put::<HorizontalPodAutoscaler>(&json!({"metadata": {"name": "web"}, "spec": whole}).to_string());
        let mut setting = Setting { world, controller: Controller::new(answers.clone()), answers };
        let deployments = json!({"name": "deployments", "kind": "Deployment", "namespaced": true});
        setting.answer("/apis/apps/v1", json!({"resources": [{"name": "deployments/scale", "kind": "Scale"}, deployments]}));
        setting.scale(replicas);
        setting.pods(replicas);
        setting
    }

    fn answer(&mut self, path: &str, value: Value) {
        self.answers.0.lock().insert(path.to_owned(), value);
    }

    fn scale(&mut self, replicas: i32) {
        let scale = json!({"kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas},
            "status": {"replicas": replicas, "selector": "app=web"}});
        self.answer(SCALE, scale);
    }

    fn pods(&mut self, count: i32) {
        self.world.list::<Pod>().iter().for_each(|pod| self.world.remove::<Pod>(&pod.key()));
        for index in 0..count {
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T22:00:10Z"});
            let container = json!({"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}});
            let pod = json!({"metadata": {"name": format!("web-{index}"), "labels": {"app": "web"}}, "spec": {"containers": [container]},
                "status": {"phase": "Running", "startTime": "2025-12-31T22:00:00Z", "conditions": [ready]}});
            self.world.put::<Pod>(&pod.to_string());
        }
    }

    /// What each of the first pods uses.
    fn measured(&mut self, usage: &[&str]) {
        let now = self.world.now.to_string();
        let pods = usage.iter().enumerate().map(|(index, cpu)| {
            let usage = json!({"cpu": cpu, "memory": "2Mi"});
            json!({"metadata": {"name": format!("web-{index}")}, "timestamp": now, "window": "30s",
                "containers": [{"name": "c", "usage": usage}]})
        });
        self.answer(METRICS, json!({"items": pods.collect::<Vec<_>>()}));
    }

    /// Carries the plan out, and makes the deployment follow at once; what use the pods are put to stays the same for each.
    fn step(&mut self, expected: Expect) {
        let plan = self.world.plan(&self.controller, &key());
        let mut text = String::new();
        for step in &plan.steps {
            text += &format!("{step}\n");
            match step {
                Step::Replace(Replace { object, .. }) => {
                    let replicas = object["spec"]["replicas"].as_i64().unwrap() as i32;
                    text += &format!("  to {replicas}\n");
                    self.scale(replicas);
                    self.pods(replicas);
                }
                step => self.world.apply(step),
            }
        }
        expected.assert_eq(&text);
    }

    /// How many replicas there are after some more seconds.
    fn after(&mut self, seconds: i64) -> i64 {
        self.world.pass(seconds);
        let plan = self.world.plan(&self.controller, &key());
        for step in &plan.steps {
            match step {
                Step::Replace(Replace { object, .. }) => self.scale(object["spec"]["replicas"].as_i64().unwrap() as i32),
                step => self.world.apply(step),
            }
        }
        self.answers.0.lock()[SCALE]["spec"]["replicas"].as_i64().unwrap()
    }

    /// `type=status reason` of the conditions.
    fn conditions(&self) -> Vec<String> {
        let status = self.world.get::<HorizontalPodAutoscaler>(&key()).status.clone().unwrap();
        let conditions = status.conditions.unwrap_or_default();
        conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason.clone().unwrap_or_default())).collect()
    }

    fn set(&mut self, spec: Value) {
        self.world.edit::<HorizontalPodAutoscaler>("web", json!({"spec": spec}));
    }
}

fn cpu(percent: i32) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

#[test]
fn without_a_metrics_server_nothing_is_known() {
    let mut setting = Setting::new(2, json!({}));
    setting.step(expect![[r#"
        event Warning FailedGetResourceMetric: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)
        event Warning FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was able to get the target's current scale","reason":"SucceededGetScale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)","reason":"FailedGetResourceMetric","status":"False","type":"ScalingActive"}],"currentMetrics":[{"type":""}],"currentReplicas":2,"desiredReplicas":0}}
    "#]]);
    assert_eq!(setting.conditions(), ["AbleToScale=True SucceededGetScale", "ScalingActive=False FailedGetResourceMetric"]);
    setting.step(expect![[r#"
        event Warning FailedGetResourceMetric: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)
        event Warning FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)
    "#]]);
}

#[test]
fn it_grows_with_what_is_used_and_shrinks_when_that_has_been_less_for_a_while() {
    let mut setting = Setting::new(2, json!({}));
    setting.measured(&["100m", "80m"]);
    setting.step(expect![[r#"
        replace Deployment default/web/scale
          to 4
        event Normal SuccessfulRescale: New size: 4; reason: cpu resource utilization (percentage of request) above target
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was able to update the target scale to 4","reason":"SucceededRescale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)","reason":"ValidMetricFound","status":"True","type":"ScalingActive"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the desired count is within the acceptable range","reason":"DesiredWithinRange","status":"False","type":"ScalingLimited"}],"currentMetrics":[{"resource":{"current":{"averageUtilization":90,"averageValue":"90m"},"name":"cpu"},"type":"Resource"}],"currentReplicas":2,"desiredReplicas":4,"lastScaleTime":"2026-01-01T00:00:00Z"}}
    "#]]);
    assert_eq!(
        setting.conditions(),
        ["AbleToScale=True SucceededRescale", "ScalingActive=True ValidMetricFound", "ScalingLimited=False DesiredWithinRange"]
    );
    setting.world.pass(15);
    setting.measured(&["50m"; 4]);
    setting.step(expect![[r#"
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"recommended size matches current size","reason":"ReadyForNewScale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)","reason":"ValidMetricFound","status":"True","type":"ScalingActive"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the desired count is within the acceptable range","reason":"DesiredWithinRange","status":"False","type":"ScalingLimited"}],"currentMetrics":[{"resource":{"current":{"averageUtilization":50,"averageValue":"50m"},"name":"cpu"},"type":"Resource"}],"currentReplicas":4}}
    "#]]);
    setting.measured(&["10m"; 4]);
    assert_eq!(setting.after(15), 4);
    assert_eq!(setting.conditions()[0], "AbleToScale=True ScaleDownStabilized");
    assert_eq!((setting.after(255), setting.after(31)), (4, 1), "five minutes after the last time that four were called for");
    setting.scale(20);
    setting.step(expect![[r#"
        replace Deployment default/web/scale
          to 10
        event Normal SuccessfulRescale: New size: 10; reason: Current number of replicas above Spec.MaxReplicas
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was able to update the target scale to 10","reason":"SucceededRescale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)","reason":"ValidMetricFound","status":"True","type":"ScalingActive"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the desired count is within the acceptable range","reason":"DesiredWithinRange","status":"False","type":"ScalingLimited"}],"currentMetrics":null,"currentReplicas":20,"desiredReplicas":10}}
    "#]]);
    setting.scale(0);
    setting.world.pass(15);
    setting.step(expect![[r#"
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was able to get the target's current scale","reason":"SucceededGetScale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T00:05:31Z","message":"scaling is disabled since the replica count of the target is zero","reason":"ScalingDisabled","status":"False","type":"ScalingActive"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the desired count is within the acceptable range","reason":"DesiredWithinRange","status":"False","type":"ScalingLimited"}],"currentReplicas":0,"desiredReplicas":0}}
    "#]]);
}

#[test]
fn no_more_than_twice_as_many_at_once() {
    let mut setting = Setting::new(3, json!({"maxReplicas": 100}));
    setting.measured(&["1000m"; 3]);
    assert_eq!(setting.after(0), 6);
    assert!(setting.conditions().contains(&"ScalingLimited=True ScaleUpLimit".to_owned()));
    setting.set(json!({"maxReplicas": 7}));
    setting.pods(6);
    setting.measured(&["1000m"; 6]);
    assert_eq!(setting.after(15), 7);
    assert!(setting.conditions().contains(&"ScalingLimited=True TooManyReplicas".to_owned()));
}

#[test]
fn policies_say_how_fast() {
    let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]});
    let down = json!({"stabilizationWindowSeconds": 60, "selectPolicy": "Min",
        "policies": [{"type": "Pods", "value": 3, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]});
    let mut setting = Setting::new(2, json!({"behavior": {"scaleUp": up, "scaleDown": down}}));
    setting.measured(&["1000m", "1000m"]);
    assert_eq!(setting.after(0), 4);
    assert!(setting.conditions().contains(&"ScalingLimited=True ScaleUpLimit".to_owned()));
    assert_eq!([15, 30, 15].map(|seconds| setting.after(seconds)), [4, 4, 6], "two a minute");
    setting.pods(6);
    setting.measured(&["1m"; 6]);
    assert_eq!([15, 15, 15].map(|seconds| setting.after(seconds)), [6, 6, 6], "it is not sure yet");
    assert_eq!([20, 30, 31].map(|seconds| setting.after(seconds)), [3, 3, 1], "three, which are half, then half");
    setting.set(json!({"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}));
    setting.scale(5);
    setting.pods(5);
    assert_eq!(setting.after(600), 5);
    assert!(setting.conditions().contains(&"ScalingLimited=True ScaleDownLimit".to_owned()));
}

#[test]
fn tolerances_may_be_told() {
    let rules = |tolerance: &str| {
        json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "tolerance": tolerance,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]})
    };
    let mut setting =
        Setting::new(10, json!({"maxReplicas": 30, "behavior": {"scaleUp": rules("0.5"), "scaleDown": rules("0")}}));
    setting.measured(&["74m"; 10]);
    assert_eq!(setting.after(0), 10);
    setting.measured(&["76m"; 10]);
    assert_eq!(setting.after(15), 16);
    setting.scale(10);
    setting.measured(&["49m"; 10]);
    assert_eq!(setting.after(15), 10, "of ten pods, 49 to 50 is still ten");
    setting.measured(&["44m"; 10]);
    assert_eq!(setting.after(15), 9);
}

#[test]
fn metrics_of_all_sources() {
    let hits =
        json!({"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "10"}}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "name": "front"});
    let of_service = json!({"type": "Object", "object": {"describedObject": service,
        "metric": {"name": "requests", "selector": {"matchLabels": {"verb": "GET"}}}, "target": {"type": "Value", "value": "100"}}});
    let queue = json!({"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"of": "web"}}},
        "target": {"type": "AverageValue", "averageValue": "30"}}});
    let container = json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
        "target": {"type": "AverageValue", "averageValue": "1Mi"}}});
    let mut setting = Setting::new(2, json!({"metrics": [hits, of_service, queue, container]}));
    setting.step(expect![[r#"
        event Warning FailedGetPodsMetric: unable to get metric hits: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered
        event Warning FailedGetObjectMetric: unable to get metric requests: Service on default front/unable to fetch metrics from custom metrics API: unable to map kind Service to resource: no matches for kind "Service" in group ""
        event Warning FailedGetExternalMetric: unable to get external metric default/queue/&LabelSelector{MatchLabels:map[string]string{of: web,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: the server could not find the requested resource (get queue.external.metrics.k8s.io)
        event Warning FailedGetContainerResourceMetric: failed to get memory usage: unable to get metrics for resource memory: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)
        event Warning FailedComputeMetricsReplicas: invalid metrics (4 invalid out of 4), first error is: failed to get pods metric value: unable to get metric hits: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was able to get the target's current scale","reason":"SucceededGetScale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA was unable to compute the replica count: unable to get metric hits: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered","reason":"FailedGetPodsMetric","status":"False","type":"ScalingActive"}],"currentMetrics":[{"type":""},{"type":""},{"type":""},{"type":""}],"currentReplicas":2,"desiredReplicas":0}}
    "#]]);
    let custom = "/apis/custom.metrics.k8s.io";
    let at = "2026-01-01T00:00:00Z";
    let hit = |pod: &str, value: &str| json!({"describedObject": {"kind": "Pod", "name": pod}, "timestamp": at, "value": value});
    setting.answer(custom, json!({"preferredVersion": {"version": "v1beta1"}, "versions": [{"version": "v1beta1"}]}));
    setting.answer("/api/v1", json!({"resources": [{"name": "services", "kind": "Service", "namespaced": true}]}));
    let pods = format!("{custom}/v1beta1/namespaces/default/pods/*/hits?labelSelector=app%3Dweb");
    setting.answer(&pods, json!({"items": [hit("web-0", "12"), hit("web-1", "13")]}));
    let object = format!("{custom}/v1beta1/namespaces/default/services/front/requests?metricLabelSelector=verb%3DGET");
    setting.answer(&object, json!({"items": [{"value": "150", "timestamp": at}]}));
    let outside = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue?labelSelector=of%3Dweb";
    setting.answer(outside, json!({"items": [{"value": "100"}, {"value": "50500m"}]}));
    setting.measured(&["1m", "1m"]);
    setting.step(expect![[r#"
        replace Deployment default/web/scale
          to 4
        event Normal SuccessfulRescale: New size: 4; reason: external metric queue(&LabelSelector{MatchLabels:map[string]string{of: web,},MatchExpressions:[]LabelSelectorRequirement{},}) above target
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was able to update the target scale to 4","reason":"SucceededRescale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA was able to successfully calculate a replica count from external metric queue(&LabelSelector{MatchLabels:map[string]string{of: web,},MatchExpressions:[]LabelSelectorRequirement{},})","reason":"ValidMetricFound","status":"True","type":"ScalingActive"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the desired replica count is increasing faster than the maximum scale rate","reason":"ScaleUpLimit","status":"True","type":"ScalingLimited"}],"currentMetrics":[{"pods":{"current":{"averageValue":"12500m"},"metric":{"name":"hits"}},"type":"Pods"},{"object":{"current":{"value":"150"},"describedObject":{"apiVersion":"v1","kind":"Service","name":"front"},"metric":{"name":"requests","selector":{"matchLabels":{"verb":"GET"}}}},"type":"Object"},{"external":{"current":{"averageValue":"75250m"},"metric":{"name":"queue","selector":{"matchLabels":{"of":"web"}}}},"type":"External"},{"containerResource":{"container":"c","current":{"averageValue":"2Mi"},"name":"memory"},"type":"ContainerResource"}],"desiredReplicas":4,"lastScaleTime":"2026-01-01T00:00:00Z"}}
    "#]]);
}

#[test]
fn what_is_not_known_keeps_it_from_falling_but_not_from_rising() {
    let memory =
        json!({"type": "Pods", "pods": {"metric": {"name": "lost"}, "target": {"type": "AverageValue", "averageValue": "10"}}});
    let mut setting = Setting::new(3, json!({"metrics": [memory, cpu(50)]}));
    setting.measured(&["5m"; 3]);
    assert_eq!((setting.after(0), setting.after(301)), (3, 3));
    assert_eq!(setting.conditions()[1], "ScalingActive=False FailedGetPodsMetric");
    setting.measured(&["100m"; 3]);
    assert_eq!(setting.after(15), 6);
}

#[test]
fn targets_that_cannot_be_scaled() {
    let reference = |kind: &str, name: &str| json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name}});
    let mut setting = Setting::new(1, reference("Gadget", "web"));
    setting.step(expect![[r#"
        event Warning FailedGetScale: no matches for kind "Gadget" in group "apps"
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was unable to get the target's current scale: no matches for kind \"Gadget\" in group \"apps\"","reason":"FailedGetScale","status":"False","type":"AbleToScale"}],"desiredReplicas":0}}
    "#]]);
    setting.set(reference("Deployment", "gone"));
    setting.step(expect![[r#"
        event Warning FailedGetScale: no /apis/apps/v1/namespaces/default/deployments/gone/scale
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was unable to get the target's current scale: no /apis/apps/v1/namespaces/default/deployments/gone/scale","reason":"FailedGetScale","status":"False","type":"AbleToScale"}]}}
    "#]]);
    assert_eq!(setting.conditions(), ["AbleToScale=False FailedGetScale"]);
    setting.set(reference("Deployment", "web"));
    let mut bare = setting.answers.0.lock()[SCALE].clone();
    bare["status"] = json!({"replicas": 1});
    setting.answer(SCALE, bare);
    setting.step(expect![[r#"
        event Warning SelectorRequired: selector is required
        event Warning FailedComputeMetricsReplicas: selector is required
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was able to get the target's current scale","reason":"SucceededGetScale","status":"True","type":"AbleToScale"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA target's scale is missing a selector","reason":"InvalidSelector","status":"False","type":"ScalingActive"}],"currentReplicas":1}}
    "#]]);
}

#[test]
fn pods_have_one_autoscaler() {
    let mut setting = Setting::new(2, json!({}));
    setting.measured(&["100m", "100m"]);
    assert_eq!(setting.after(0), 4);
    let mut other = setting.world.get::<HorizontalPodAutoscaler>(&key()).as_ref().clone();
    other.metadata = Default::default();
    let mut other = serde_json::to_value(other).unwrap();
    other["metadata"] = json!({"name": "another"});
    setting.world.put::<HorizontalPodAutoscaler>(&other.to_string());
    let plan = setting.world.plan(&setting.controller, &Key::new("default", "another"));
    assert!(
        plan.to_string().contains(
            "AmbiguousSelector: pods by selector app=web are controlled by multiple HPAs: [{another default} {web default}]"
        ),
        "{plan}"
    );
    setting.world.remove::<HorizontalPodAutoscaler>(&Key::new("default", "another"));
    setting.world.plan(&setting.controller, &Key::new("default", "another"));
    setting.pods(4);
    setting.measured(&["100m"; 4]);
    assert_eq!(setting.after(15), 8);
}

#[test]
fn a_scale_that_cannot_be_written_is_told_of() {
    let mut setting = Setting::new(2, json!({}));
    setting.measured(&["100m", "100m"]);
    setting.world.plan(&setting.controller, &key());
    setting.world.failure = Some(Failure { reason: "FailedUpdate", message: "admission webhook denied the request".into() });
    setting.step(expect![[r#"
        event Warning FailedRescale: New size: 4; reason: cpu resource utilization (percentage of request) above target; error: admission webhook denied the request
        patch HorizontalPodAutoscaler default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the HPA controller was unable to update the target scale: admission webhook denied the request","reason":"FailedUpdateScale","status":"False","type":"AbleToScale"}],"currentReplicas":2,"desiredReplicas":0}}
    "#]]);
    assert_eq!(setting.conditions()[0], "AbleToScale=False FailedUpdateScale");
    setting.world.failure = None;
    assert_eq!(setting.after(15), 4);
}

// === what one metric calls for ===

struct Group {
    ready: usize,
    /// Ready pods of which nothing is known.
    missing: usize,
    /// Pods that are not ready, of which something is known.
    starting: usize,
    pending: usize,
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn wanted(group: Group, replicas: i32, usage: i64, percent: i32) -> i32 {
    let pod = |index: usize, phase: &str, ready: &str, start: &str| -> Arc<Pod> {
        let condition = json!({"type": "Ready", "status": ready, "lastTransitionTime": start});
        let container = json!({"name": "c", "resources": {"requests": {"cpu": "1"}}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{index}")}, "spec": {"containers": [container]},
            "status": {"phase": phase, "startTime": start, "conditions": [condition]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    let mut pods = vec![];
    let mut metrics = PodMetrics::new();
    for (count, phase, ready, start, is_known) in [
        (group.ready, "Running", "True", "2025-12-31T00:00:00Z", true),
        (group.missing, "Running", "True", "2025-12-31T00:00:00Z", false),
        (group.starting, "Running", "False", "2025-12-31T23:59:00Z", true),
        (group.pending, "Pending", "False", "2025-12-31T23:59:00Z", false),
    ] {
        for _ in 0..count {
            let pod = pod(pods.len(), phase, ready, start);
            if is_known {
                metrics
                    .insert(pod.name().to_owned(), PodMetric { at: now(), window: SignedDuration::from_secs(30), value: usage });
            }
            pods.push(pod);
        }
    }
    let now = Now { replicas, pods: &pods, tolerances: Tolerances { down: 0.1, up: 0.1 }, time: now() };
    now.by_utilization(&metrics, percent, "cpu", None).map_or(-1, |used| used.replicas)
}

#[test]
fn pods_that_are_missing_or_start_damp_a_change() {
    let group = |ready, missing, starting, pending| Group { ready, missing, starting, pending };
    for (group, replicas, usage, percent, expected) in [
        (group(3, 0, 0, 0), 3, 500, 30, 5),
        (group(3, 0, 0, 0), 3, 320, 30, 3),
        (group(5, 0, 0, 0), 5, 200, 50, 2),
        // Those that start count as idle on the way up, and not at all on the way down.
        (group(1, 0, 2, 0), 3, 900, 30, 3),
        (group(2, 0, 1, 0), 3, 900, 30, 6),
        (group(4, 0, 1, 0), 5, 100, 50, 1),
        (group(2, 0, 0, 2), 4, 400, 50, 2),
        // Missing ones count as idle on the way up, and as fully used on the way down.
        (group(3, 1, 0, 0), 4, 900, 50, 6),
        (group(4, 1, 0, 0), 5, 100, 50, 3),
        (group(2, 3, 0, 0), 5, 450, 50, 5),
        (group(0, 3, 0, 0), 3, 0, 50, -1),
        (group(0, 0, 3, 0), 3, 900, 50, -1),
    ] {
        let text = (group.ready, group.missing, group.starting, group.pending);
        assert_eq!(wanted(group, replicas, usage, percent), expected, "{text:?} {replicas} {usage} {percent}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is measured, replicas stay within the bounds, and a change goes the way that the metrics point.
    #[test]
    fn replicas_stay_within_their_bounds(
        min in 1i32..5, span in 0i32..20, usage in prop::collection::vec(0i64..5000, 1..20), percent in 1i32..200,
        with_rules in any::<bool>(),
    ) {
        let mut spec = json!({"minReplicas": min, "maxReplicas": min + span, "metrics": [cpu(percent)]});
        if with_rules {
            let rules = json!({"stabilizationWindowSeconds": 30, "selectPolicy": "Min", "policies": [
                {"type": "Pods", "value": 2, "periodSeconds": 30}, {"type": "Percent", "value": 40, "periodSeconds": 60}]});
            spec["behavior"] = json!({"scaleUp": rules, "scaleDown": rules});
        }
        let mut setting = Setting::new(min, spec);
        for load in usage {
            let count = setting.answers.0.lock()[SCALE]["spec"]["replicas"].as_i64().unwrap();
            setting.pods(count as i32);
            let each = format!("{}m", load / count);
            setting.measured(&vec![each.as_str(); count as usize]);
            let next = setting.after(15);
            prop_assert!((i64::from(min)..=i64::from(min + span)).contains(&next), "{next}");
        }
    }
}
