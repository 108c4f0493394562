//! From a Deployment to running pods behind a Service, over the real API.

use crate::cluster::{Cluster, deployment, items};
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3Dweb";

fn is_rolled_out(deployment: &Value, replicas: u64) -> bool {
    let status = &deployment["status"];
    let all = ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|field| status[*field] == replicas);
    all && status["observedGeneration"] == deployment["metadata"]["generation"]
}

fn ready_endpoints(slices: &Value) -> usize {
    let endpoints = items(slices).iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_scales_and_rolls_back() {
    let cluster = Cluster::start(2).await;
    cluster.create(DEPLOYMENTS, &deployment("web", 3)).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                         "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    cluster.create(SERVICES, &service.to_string()).await;
    let first = cluster.until(WEB, "rolls out", |web| is_rolled_out(web, 3)).await;
    assert_eq!(first["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    let slices = cluster.until(SLICES, "has the pods", |slices| ready_endpoints(slices) == 3).await;
    assert_eq!(slices["items"][0]["ports"][0]["port"], 8080);
    let endpoints = cluster.until("/api/v1/namespaces/default/endpoints/web", "has the pods", |endpoints| {
        endpoints["subsets"][0]["addresses"].as_array().is_some_and(|all| all.len() == 3)
    });
    endpoints.await;

    let template = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    cluster.server.patch(WEB, template("web:2")).await.expect(200);
    let second = cluster.until(WEB, "rolls out again", |web| is_rolled_out(web, 3)).await;
    assert_eq!(second["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    let pods = cluster.until(PODS, "has only new pods", |pods| {
        items(pods).len() == 3 && items(pods).iter().all(|pod| pod["spec"]["containers"][0]["image"] == "web:2")
    });
    pods.await;
    cluster.server.patch(WEB, json!({"spec": {"replicas": 5}})).await.expect(200);
    cluster.until(WEB, "grows", |web| is_rolled_out(web, 5)).await;

    cluster.server.patch(WEB, template("web:1")).await.expect(200);
    let third = cluster.until(WEB, "rolls back", |web| is_rolled_out(web, 5)).await;
    assert_eq!(third["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(items(&cluster.server.get(SETS).await.expect(200)).len(), 2, "the first set is used again");

    let events = cluster.until("/api/v1/namespaces/default/events", "tells of it", |events| {
        let told = |reason: &str| items(events).iter().any(|event| event["reason"] == reason);
        told("ScalingReplicaSet") && told("SuccessfulCreate") && told("SuccessfulDelete")
    });
    let events = events.await;
    let scaling = items(&events).iter().find(|event| event["reason"] == "ScalingReplicaSet").expect("just seen");
    assert_eq!(scaling["source"]["component"], "deployment-controller");
    assert_eq!(scaling["involvedObject"]["kind"], "Deployment");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_that_die_in_the_middle_finish_when_they_are_back() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(DEPLOYMENTS, &deployment("web", 20)).await;
    for at_least in [1, 8] {
        cluster.until(PODS, "has some pods", |pods| items(pods).len() >= at_least).await;
        cluster.kill_controllers().await;
        cluster.start_controllers();
    }
    cluster.until(WEB, "rolls out", |web| is_rolled_out(web, 20)).await;
    assert_eq!(items(&cluster.server.get(PODS).await.expect(200)).len(), 20, "none too many");
    assert_eq!(items(&cluster.server.get(SETS).await.expect(200)).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_adopted_and_let_go_by_their_labels() {
    let cluster = Cluster::start(1).await;
    cluster.create(DEPLOYMENTS, &deployment("web", 1)).await;
    cluster.until(WEB, "rolls out", |web| is_rolled_out(web, 1)).await;
    let pods = cluster.server.get(PODS).await.expect(200);
    let name = pods["items"][0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let path = format!("{PODS}/{name}");
    cluster.server.patch(&path, json!({"metadata": {"labels": {"app": "quarantine"}}})).await.expect(200);
    cluster.until(PODS, "has a replacement", |pods| items(pods).len() == 2).await;
    cluster.until(&path, "is let go", |pod| pod["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty)).await;
    cluster.server.patch(&path, json!({"metadata": {"labels": {"app": "web"}}})).await.expect(200);
    cluster.until(PODS, "is back to one", |pods| items(pods).len() == 1).await;
}
