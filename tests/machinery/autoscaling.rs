//! HorizontalPodAutoscalers over the real API, with a metrics server of the test's own behind the aggregation layer.

use crate::extension_server::{API_SERVICES, Listening, SERVICES, SLICES, address, listen, server};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::authority::Authority;
use slipway_tests::{TestServer, eventually};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio_util::sync::{CancellationToken, DropGuard};

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const PODS: &str = "/api/v1/namespaces/default/pods";
const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// Answers GETs of paths; `items` for each, and who asked for it.
#[derive(Default)]
struct Metrics {
    lists: Mutex<BTreeMap<String, Value>>,
    asked: Mutex<Vec<(String, String)>>,
}

impl Metrics {
    async fn start(server: &TestServer) -> (Arc<Metrics>, Listening) {
        let metrics: Arc<Metrics> = Arc::default();
        let served = Arc::clone(&metrics);
        let router = axum::Router::new().fallback(move |request| std::future::ready(served.answer(&request)));
        (metrics, listen(server, "metrics", router).await)
    }

    fn set(&self, path: &str, items: Value) {
        self.lists.lock().unwrap().insert(path.to_owned(), items);
    }

    fn answer(&self, request: &Request<Body>) -> Response {
        let path = request.uri().path();
        let user = request.headers().get("x-remote-user").and_then(|user| user.to_str().ok()).unwrap_or_default();
        self.asked.lock().unwrap().push((path.to_owned(), user.to_owned()));
        if [METRICS, CUSTOM, EXTERNAL].contains(&path) {
            let group_version = path.trim_start_matches("/apis/");
            return axum::Json(json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": []}))
                .into_response();
        }
        match self.lists.lock().unwrap().get(path) {
            Some(items) => {
                axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

/// The API with its controllers, but for pods' nodes: the test says itself what has become of the pods.
struct Cluster {
    server: TestServer,
    _controllers: DropGuard,
}

impl Cluster {
    async fn start() -> Cluster {
        let server = server(&Authority::new("front-proxy")).await;
        let shutdown = CancellationToken::new();
        let manager = server.api.client(User::new("system:kube-controller-manager", &[]));
        tokio::spawn(slipway_controllers::run(manager, slipway_controllers::Options::default(), shutdown.clone()));
        let container = json!({"name": "c", "image": "web:1", "resources": {"requests": {"cpu": "100m"}}});
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
        let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template});
        let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec});
        server.post("/apis/apps/v1/namespaces/default/deployments", web).await.expect(201);
        Cluster { server, _controllers: shutdown.drop_guard() }
    }

    /// The names of the pods, once there are so many; all of them run for an hour by then.
    async fn running(&self, count: usize) -> Vec<String> {
        let names = eventually("the pods", || async {
            let pods = self.server.get(PODS).await.body["items"].as_array().cloned().unwrap_or_default();
            let names: Vec<String> = pods.iter().filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect();
            (names.len() == count).then_some(names)
        })
        .await;
        let hour_ago = (slipway_api::jiff::Timestamp::now() - slipway_api::jiff::SignedDuration::from_hours(1))
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        for name in &names {
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": hour_ago});
            let status = json!({"status": {"phase": "Running", "startTime": hour_ago, "conditions": [ready]}});
            self.server.patch(&format!("{PODS}/{name}/status"), status).await.expect(200);
        }
        names
    }

    async fn condition(&self, type_: &str, reason: &str) -> Value {
        eventually(&format!("{type_} to be {reason}"), || async {
            let object = self.server.get(&format!("{V2}/web")).await.body;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.into_iter().find(|condition| condition["type"] == type_ && condition["reason"] == reason)
        })
        .await
    }

    async fn replicas(&self, count: i64) {
        eventually(&format!("{count} replicas"), || async {
            (self.server.get(WEB).await.body["spec"]["replicas"] == count).then_some(())
        })
        .await;
    }

    async fn event(&self, reason: &str) -> String {
        eventually(reason, || async {
            let events = self.server.get("/api/v1/namespaces/default/events").await.body["items"].as_array().cloned()?;
            let told = events.into_iter().find(|event| event["reason"] == reason)?;
            Some(told["message"].as_str()?.to_owned())
        })
        .await
    }

    /// What makes the controller look at once.
    async fn change(&self, spec: Value) {
        self.server.patch(&format!("{V2}/web"), json!({"spec": spec})).await.expect(200);
    }

    /// Serves the metrics APIs, and waits until requests for them are passed on.
    async fn register(&self, listening: &Listening, ip: &str) {
        let ports = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
        self.server.post(SERVICES, json!({"metadata": {"name": "metrics"}, "spec": {"ports": ports}})).await.expect(201);
        let slice = json!({
            "metadata": {"name": "metrics-1", "labels": {"kubernetes.io/service-name": "metrics"}}, "addressType": "IPv4",
            "ports": [{"name": "https", "port": listening.port}], "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        });
        self.server.post(SLICES, slice).await.expect(201);
        for root in [METRICS, CUSTOM, EXTERNAL] {
            let (group, version) = root.trim_start_matches("/apis/").split_once('/').unwrap();
            let spec = json!({"group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
                "caBundle": listening.bundle, "service": {"namespace": "default", "name": "metrics"}});
            let object = json!({"metadata": {"name": format!("{version}.{group}")}, "spec": spec});
            self.server.post(API_SERVICES, object).await.expect(201);
        }
        for root in [METRICS, CUSTOM, EXTERNAL] {
            eventually(root, || async { (self.server.get(root).await.code == 200).then_some(()) }).await;
        }
    }
}

fn used(pods: &[String], cpu: &str) -> Value {
    let now = slipway_api::jiff::Timestamp::now().to_string();
    let of = |name: &String| {
        json!({"metadata": {"name": name, "namespace": "default"}, "timestamp": now, "window": "15s",
            "containers": [{"name": "c", "usage": {"cpu": cpu, "memory": "1Mi"}}]})
    };
    pods.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_scaled_by_what_extension_servers_measure() {
    let Some(ip) = address() else { return };
    let cluster = Cluster::start().await;
    let pods = cluster.running(2).await;
    // As older clients write it.
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let spec = json!({"scaleTargetRef": target, "maxReplicas": 9, "targetCPUUtilizationPercentage": 50});
    let object =
        json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": spec});
    cluster.server.post(V1, object).await.expect(201);

    let why = "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics \
               API: the server could not find the requested resource (get pods.metrics.k8s.io)";
    let condition = cluster.condition("ScalingActive", "FailedGetResourceMetric").await;
    assert_eq!(condition["status"], "False");
    assert_eq!(condition["message"], format!("the HPA was unable to compute the replica count: {why}"));
    assert_eq!(cluster.event("FailedGetResourceMetric").await, why);
    let sum = "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value";
    assert_eq!(cluster.event("FailedComputeMetricsReplicas").await, format!("{sum}: {why}"));
    cluster.condition("AbleToScale", "SucceededGetScale").await;

    let (metrics, listening) = Metrics::start(&cluster.server).await;
    metrics.set(&format!("{METRICS}/namespaces/default/pods"), used(&pods, "90m"));
    cluster.register(&listening, &ip).await;
    cluster.change(json!({"maxReplicas": 10})).await;
    cluster.replicas(4).await;
    assert_eq!(
        cluster.event("SuccessfulRescale").await,
        "New size: 4; reason: cpu resource utilization (percentage of request) above target"
    );
    let scaled = cluster.condition("ScalingActive", "ValidMetricFound").await;
    assert_eq!(
        scaled["message"],
        "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)"
    );
    let asked = metrics.asked.lock().unwrap().clone();
    let of_pods = asked.iter().find(|(path, _)| path.ends_with("/pods")).unwrap();
    assert_eq!(of_pods.1, "system:kube-controller-manager", "who asks is told");
    both_versions_show_it(&cluster.server).await;
    cluster.running(4).await;
    by_objects_and_queues(&cluster, &metrics).await;
}

async fn both_versions_show_it(server: &TestServer) {
    let old = server.get(&format!("{V1}/web")).await.expect(200);
    let new = server.get(&format!("{V2}/web")).await.expect(200);
    assert_eq!(old["status"]["currentCPUUtilizationPercentage"], 90);
    assert_eq!(
        new["status"]["currentMetrics"][0]["resource"]["current"],
        json!({"averageUtilization": 90, "averageValue": "90m"})
    );
    let conditions = old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/conditions"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(conditions).unwrap(), new["status"]["conditions"]);
    assert!(new["metadata"].get("annotations").is_none());
    assert_eq!(
        (&old["metadata"]["uid"], &old["metadata"]["resourceVersion"]),
        (&new["metadata"]["uid"], &new["metadata"]["resourceVersion"])
    );
    let table = server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io", V1).await.expect(200);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("web"), json!("Deployment/web"), json!("cpu: 90%/50%")]
    );
}

async fn by_objects_and_queues(cluster: &Cluster, metrics: &Metrics) {
    let now = slipway_api::jiff::Timestamp::now().to_string();
    let front = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "front"});
    metrics.set(
        &format!("{CUSTOM}/namespaces/default/ingresses.networking.k8s.io/front/requests"),
        json!([{"describedObject": front, "metric": {"name": "requests"}, "timestamp": now, "value": "1500m"}]),
    );
    let object = json!({"describedObject": front, "metric": {"name": "requests"}, "target": {"type": "Value", "value": "1"}});
    cluster.change(json!({"metrics": [{"type": "Object", "object": object}]})).await;
    cluster.replicas(6).await;
    cluster.running(6).await;
    metrics
        .set(&format!("{EXTERNAL}/namespaces/default/queue"), json!([{"metricName": "queue", "timestamp": now, "value": "80"}]));
    let external = json!({"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}});
    cluster.change(json!({"metrics": [{"type": "External", "external": external}]})).await;
    cluster.replicas(8).await;
    let old = cluster.server.get(&format!("{V1}/web")).await.expect(200);
    let told = old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap();
    let source = json!([{"type": "External", "external": {"metricName": "queue", "targetAverageValue": "10"}}]);
    assert_eq!(serde_json::from_str::<Value>(told).unwrap(), source);
    // Who writes the older version loses nothing of the newer.
    let labelled = cluster.server.patch(&format!("{V1}/web"), json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["labels"]["a"], "b");
    let new = cluster.server.get(&format!("{V2}/web")).await.expect(200);
    assert_eq!(new["spec"]["metrics"], json!([{"type": "External", "external": external}]));
    assert!(new["status"]["conditions"].as_array().is_some_and(|all| all.len() == 3));
}

#[tokio::test]
async fn autoscalers_under_every_verb() {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let status = json!({"currentReplicas": 1, "desiredReplicas": 2});
    for group in ["/apis/autoscaling/v1", "/apis/autoscaling/v2"] {
        let operations = crate::operations::Operations::of(group, "horizontalpodautoscalers").await;
        operations.exercise(json!({"spec": {"scaleTargetRef": target, "maxReplicas": 3}}), Some(status.clone())).await;
    }
}
