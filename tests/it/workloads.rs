//! From a Deployment to running pods behind a Service, over the real API.

use crate::cluster::{Cluster, deployment, items};
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, PATIENCE, TestServer, Watch};

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

/// `[sig-apps] DisruptionController should observe PodDisruptionBudget status updated [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_says_how_many_pods_may_go() {
    let cluster = Cluster::start(1).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "foo"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"foo": "bar"}}}});
    let made = cluster.create(budgets, &budget.to_string()).await;
    assert_eq!(made["status"]["disruptionsAllowed"], 0);
    for index in 0..3 {
        let pod = json!({"metadata": {"name": format!("pod-{index}"), "labels": {"foo": "bar"}},
            "spec": {"restartPolicy": "Always", "containers": [{"name": "donothing", "image": "pause"}]}});
        cluster.create(PODS, &pod.to_string()).await;
    }
    let run = |pods: &Value| items(pods).iter().filter(|pod| pod["status"]["phase"] == "Running").count() == 3;
    cluster.until(PODS, "run", run).await;
    let allows = |budget: &Value| budget["status"]["disruptionsAllowed"].as_i64().is_some_and(|allowed| allowed > 0);
    cluster.until(&format!("{budgets}/foo"), "allows some to go", allows).await;
}

/// `[sig-apps] Job should manage the lifecycle of a job [Conformance]`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lifecycle_of_a_job() {
    let cluster = Cluster::start(2).await;
    let (jobs, job) = ("/apis/batch/v1/namespaces/default/jobs", "/apis/batch/v1/namespaces/default/jobs/e2e-job");
    let marked = "labelSelector=e2e-job-label%3De2e-job";
    let list = cluster.server.get(&format!("{jobs}?{marked}")).await.expect(200);
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = cluster.server.watch(&format!("{jobs}?watch=1&{marked}&resourceVersion={revision}")).await;
    let template = json!({"metadata": {"annotations": {"slipway.dev/simulated-exit-after": "100ms"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}});
    let spec = json!({"parallelism": 2, "completions": 4, "backoffLimit": 6, "suspend": true, "template": template});
    let made = cluster
        .create(jobs, &json!({"metadata": {"name": "e2e-job", "labels": {"e2e-job-label": "e2e-job"}}, "spec": spec}).to_string())
        .await;
    let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let patched = strategic(&cluster.server, job, json!({"metadata": {"labels": {"e2e-job": "patched"}}})).await;
    assert!(revision(&patched) > revision(&made));
    told(&mut watch, "MODIFIED", |job| job["metadata"]["labels"]["e2e-job"] == "patched").await;
    loop {
        let mut wanted = cluster.server.get(job).await.expect(200);
        wanted["spec"]["suspend"] = json!(false);
        wanted["metadata"]["annotations"]["updated"] = json!("true");
        let answer = cluster.server.put(job, wanted).await;
        if answer.code != 409 {
            assert_eq!(answer.expect(200)["metadata"]["annotations"]["updated"], "true");
            break;
        }
    }
    told(&mut watch, "MODIFIED", |job| job["metadata"]["annotations"]["updated"] == "true").await;
    let everywhere = format!("/apis/batch/v1/jobs?{marked}");
    assert_eq!(items(&cluster.server.get(&everywhere).await.expect(200)).len(), 1);
    let complete = |job: &Value| {
        let conditions = job["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter().any(|one| one["type"] == "Complete" && one["status"] == "True" && one["reason"] == "CompletionsReached")
        })
    };
    assert_eq!(cluster.until(job, "completes", complete).await["status"]["succeeded"], 4);
    let options = json!({"propagationPolicy": "Background"});
    cluster.server.call("DELETE", &format!("{jobs}?{marked}"), Some(&options)).await.expect(200);
    told(&mut watch, "DELETED", |job| job["metadata"]["labels"]["e2e-job-label"] == "e2e-job").await;
    cluster.until_empty(&everywhere).await;
}

/// `[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision [Conformance]` (the hash in the name
/// of the revision that the test makes is made up)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lifecycle_of_a_controller_revision() {
    let cluster = Cluster::start(2).await;
    let server = &cluster.server;
    let (sets, marked) = ("/apis/apps/v1/namespaces/default/daemonsets", "labelSelector=daemonset-name%3De2e-ds");
    let labels = json!({"daemonset-name": "e2e-ds"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "agnhost"}]}});
    let set = json!({"metadata": {"name": "e2e-ds", "labels": labels}, "spec": {"selector": {"matchLabels": labels}, "template": template}});
    cluster.create(sets, &set.to_string()).await;
    cluster.until(&format!("{sets}/e2e-ds"), "runs everywhere", |set| set["status"]["numberReady"] == 2).await;
    assert_eq!(items(&server.get(&format!("/apis/apps/v1/daemonsets?{marked}")).await.expect(200)).len(), 1);
    let set = server.get(&format!("{sets}/e2e-ds")).await.expect(200);

    let own = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let revisions = server.get(&format!("/apis/apps/v1/controllerrevisions?{marked}")).await.expect(200);
    assert_eq!(items(&revisions).len(), 1);
    let owner = &items(&revisions)[0]["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("DaemonSet"), &set["metadata"]["uid"]));
    let name = items(&revisions)[0]["metadata"]["name"].as_str().unwrap();
    let initial = server.get(&format!("{own}/{name}")).await.expect(200);
    let patched = strategic(server, &format!("{own}/{name}"), json!({"metadata": {"labels": {name: "patched"}}})).await;
    assert_eq!(patched["metadata"]["labels"][name], "patched");

    let mut labels = labels;
    labels["controller-revision-hash"] = json!("5d7f8b9c6");
    let second = json!({"metadata": {"name": "e2e-ds-5d7f8b9c6", "labels": labels, "ownerReferences": [owner]},
        "data": initial["data"], "revision": initial["revision"].as_i64().unwrap() + 1});
    cluster.create(own, &second.to_string()).await;
    let counted = format!("{own}?{marked}");
    let count = |wanted: usize| move |list: &Value| items(list).len() == wanted;
    cluster.until(&counted, "has two", count(2)).await;
    server.delete(&format!("{own}/{name}")).await.expect(200);
    cluster.until(&counted, "has one", count(1)).await;
    let path = format!("{own}/e2e-ds-5d7f8b9c6");
    loop {
        let mut wanted = server.get(&path).await.expect(200);
        wanted["metadata"]["labels"]["e2e-ds-5d7f8b9c6"] = json!("updated");
        let answer = server.put(&path, wanted).await;
        if answer.code != 409 {
            assert_eq!(answer.expect(200)["metadata"]["labels"]["e2e-ds-5d7f8b9c6"], "updated");
            break;
        }
    }
    let patch = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}, "updateStrategy": {"type": "RollingUpdate"}});
    strategic(server, &format!("{sets}/e2e-ds"), patch).await;
    cluster.until(&counted, "has two again", count(2)).await;
    server.delete(&format!("{own}?labelSelector=e2e-ds-5d7f8b9c6%3Dupdated")).await.expect(200);
    let last = cluster.until(&counted, "has one again", count(1)).await;
    assert_eq!(items(&last)[0]["revision"], 3);
}

async fn strategic(server: &TestServer, path: &str, patch: Value) -> Value {
    let request = Request::builder().method("PATCH").uri(path).header("content-type", "application/strategic-merge-patch+json");
    let response = server.send(Some(User::admin()), request.body(Body::from(patch.to_string())).unwrap()).await;
    Answer::of(response).await.expect(200)
}

/// Waits for an event that is as wanted; others may come before.
async fn told(watch: &mut Watch, event: &str, wanted: impl Fn(&Value) -> bool) {
    let seen = async {
        loop {
            let told = watch.next_unhurried().await.expect("the watch goes on");
            if told["type"] == event && wanted(&told["object"]) {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, seen).await.is_ok(), "never {event} as wanted");
}
