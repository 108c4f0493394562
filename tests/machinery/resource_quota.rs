//! What admission charges to quotas. The controller that counts is not here: the tests set what it would.

use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_store::memory::Memory;
use slipway_tests::TestServer;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const QUOTA: &str = "/api/v1/namespaces/default/resourcequotas/q";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pod(name: &str, cpu: &str) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}})
}

fn map(name: &str) -> Value {
    slipway_tests::config_map(name, "v")
}

/// A quota as its controller leaves it while nothing is used.
async fn quota(server: &TestServer, hard: Value, more: Value) {
    let mut it = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}});
    it["spec"].as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    let created = server.post(QUOTAS, it).await.expect(201);
    assert_eq!(created["status"], json!({}));
    let used: Value =
        hard.as_object().unwrap().keys().map(|resource| (resource.clone(), json!("0"))).collect::<serde_json::Map<_, _>>().into();
    let counted = server.patch(&format!("{QUOTA}/status"), json!({"status": {"hard": hard, "used": used}})).await.expect(200);
    assert_eq!(counted["status"]["used"], used);
}

async fn used(server: &TestServer, resource: &str) -> String {
    let quota = server.get(QUOTA).await.expect(200);
    quota["status"]["used"][resource].as_str().unwrap_or("-").to_owned()
}

#[tokio::test]
async fn pods_are_charged_until_the_quota_is_used_up() {
    let server = TestServer::memory().await;
    quota(&server, json!({"pods": "2", "requests.cpu": "1"}), json!({})).await;
    server.post(PODS, pod("a", "300m")).await.expect(201);
    assert_eq!((used(&server, "pods").await.as_str(), used(&server, "requests.cpu").await.as_str()), ("1", "300m"));
    let message = server.post(PODS, pod("b", "800m")).await.expect_status(403, "Forbidden");
    let why = "exceeded quota: q, requested: requests.cpu=800m, used: requests.cpu=300m, limited: requests.cpu=1";
    assert_eq!(message, format!("pods \"b\" is forbidden: {why}"));
    server.post(PODS, pod("b", "700m")).await.expect(201);
    let message = server.post(PODS, pod("c", "0")).await.expect_status(403, "Forbidden");
    assert_eq!(message, "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2");
    assert_eq!(used(&server, "pods").await, "2");
    let unsaid = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let message = server.post(PODS, unsaid).await.expect_status(403, "Forbidden");
    assert_eq!(message, "pods \"d\" is forbidden: failed quota: q: must specify requests.cpu for: c");
}

#[tokio::test]
async fn what_is_not_stored_is_not_charged() {
    let server = TestServer::memory().await;
    quota(&server, json!({"pods": "5"}), json!({})).await;
    server.post(&format!("{PODS}?dryRun=All"), pod("dry", "1")).await.expect(201);
    assert_eq!(used(&server, "pods").await, "0");
    server.post(PODS, pod("a", "1")).await.expect(201);
    server.post(PODS, pod("a", "1")).await.expect_status(409, "AlreadyExists");
    server.post(PODS, pod("Not_A_Name", "1")).await.expect_status(422, "Invalid");
    assert_eq!(used(&server, "pods").await, "1");
    let generated = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "g-"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.post(PODS, generated).await.expect(201);
    assert_eq!(used(&server, "pods").await, "2");
}

/// `[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]`,
/// `[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes. [Conformance]` (charging)
#[tokio::test]
async fn scopes_choose_the_pods() {
    let server = TestServer::memory().await;
    quota(&server, json!({"pods": "1"}), json!({"scopes": ["BestEffort", "NotTerminating"]})).await;
    server.post(PODS, pod("burstable", "1")).await.expect(201);
    assert_eq!(used(&server, "pods").await, "0");
    let best_effort = |name: &str, deadline: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"activeDeadlineSeconds": deadline, "containers": [{"name": "c", "image": "i"}]}})
    };
    server.post(PODS, best_effort("short", json!(30))).await.expect(201);
    assert_eq!(used(&server, "pods").await, "0");
    server.post(PODS, best_effort("a", Value::Null)).await.expect(201);
    assert_eq!(used(&server, "pods").await, "1");
    server.post(PODS, best_effort("b", Value::Null)).await.expect_status(403, "Forbidden");
    let message = server.patch(QUOTA, json!({"spec": {"scopes": ["BestEffort"]}})).await.expect_status(422, "Invalid");
    assert!(message.ends_with("spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"), "{message}");
}

/// `[sig-api-machinery] ResourceQuota [Feature:PodPriority] should verify ResourceQuota's priority class scope (quota set to
/// pod count: 1) against 2 pods with same priority class.`
#[tokio::test]
async fn a_scope_selector_chooses_by_priority_class() {
    let server = TestServer::memory().await;
    let class = |name: &str| json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1000});
    for name in ["pclass1", "pclass2"] {
        server.post("/apis/scheduling.k8s.io/v1/priorityclasses", class(name)).await.expect(201);
    }
    let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["pclass1"]}]});
    quota(&server, json!({"pods": "1"}), json!({"scopeSelector": selector})).await;
    let of = |name: &str, class: &str| {
        let mut it = pod(name, "1");
        it["spec"]["priorityClassName"] = json!(class);
        it
    };
    server.post(PODS, of("a", "pclass2")).await.expect(201);
    server.post(PODS, of("b", "pclass1")).await.expect(201);
    assert_eq!(used(&server, "pods").await, "1");
    server.post(PODS, of("c", "pclass1")).await.expect_status(403, "Forbidden");
}

async fn all_used(server: &TestServer) -> [String; 3] {
    let quota = server.get(QUOTA).await.expect(200);
    ["services", "services.nodeports", "services.loadbalancers"]
        .map(|name| quota["status"]["used"][name].as_str().unwrap_or("-").to_owned())
}

#[tokio::test]
async fn services_are_charged_for_what_they_become() {
    let server = TestServer::memory().await;
    let hard = json!({"services": "3", "services.nodeports": "2", "services.loadbalancers": "1"});
    quota(&server, hard, json!({})).await;
    let service = |name: &str, type_: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": type_, "ports": [{"port": 80}]}});
    server.post(SERVICES, service("a", "ClusterIP")).await.expect(201);
    server.post(SERVICES, service("b", "NodePort")).await.expect(201);
    assert_eq!(all_used(&server).await, ["2", "1", "0"]);
    server.patch(&format!("{SERVICES}/a"), json!({"spec": {"type": "LoadBalancer"}})).await.expect(200);
    assert_eq!(all_used(&server).await, ["2", "2", "1"]);
    let message = server.post(SERVICES, service("c", "LoadBalancer")).await.expect_status(403, "Forbidden");
    let why = "requested: services.loadbalancers=1,services.nodeports=1, used: services.loadbalancers=1,services.nodeports=2, \
               limited: services.loadbalancers=1,services.nodeports=2";
    assert_eq!(message, format!("services \"c\" is forbidden: exceeded quota: q, {why}"));
    server.patch(&format!("{SERVICES}/a"), json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    assert_eq!(all_used(&server).await, ["2", "1", "0"]);
}

#[tokio::test]
async fn objects_of_any_kind_are_counted() {
    let server = TestServer::memory().await;
    let hard = json!({"count/deployments.apps": "1", "configmaps": "1", "count/secrets": "0",
        "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "persistentvolumeclaims": "5", "requests.storage": "10Gi"});
    quota(&server, hard, json!({})).await;
    server.post(MAPS, map("a")).await.expect(201);
    let message = server.post(MAPS, map("b")).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "configmaps \"b\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1"
    );
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    server.post("/api/v1/namespaces/default/secrets", secret).await.expect_status(403, "Forbidden");
    let deployment = |name: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    server.post(deployments, deployment("a")).await.expect(201);
    let message = server.post(deployments, deployment("b")).await.expect_status(403, "Forbidden");
    assert!(
        message.starts_with("deployments.apps \"b\" is forbidden: exceeded quota: q, requested: count/deployments.apps=1"),
        "{message}"
    );
    let claim = |name: &str, class: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
            "storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    server.post(claims, claim("a", "gold")).await.expect(201);
    server.post(claims, claim("b", "gold")).await.expect_status(403, "Forbidden");
    server.post(claims, claim("c", "iron")).await.expect(201);
    assert_eq!(used(&server, "requests.storage").await, "2Gi");
}

/// `[sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota. [Conformance]`,
/// `[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota [Conformance]`,
/// `[sig-api-machinery] ResourceQuota should apply changes to a resourcequota status [Conformance]`
#[tokio::test]
async fn a_quota_is_read_changed_and_deleted() {
    let server = TestServer::memory().await;
    quota(&server, json!({"cpu": "1", "memory": "500Mi"}), json!({})).await;
    let mut it = server.get(QUOTA).await.expect(200);
    it["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
    let updated = server.put(QUOTA, it).await.expect(200);
    assert_eq!((&updated["spec"]["hard"]["cpu"], &updated["status"]["hard"]["cpu"]), (&json!("2"), &json!("1")));
    let labels = json!({"metadata": {"labels": {"q": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}});
    assert_eq!(server.patch(QUOTA, labels).await.expect(200)["spec"]["hard"], json!({"cpu": "2", "memory": "750Mi"}));
    let status = json!({"status": {"hard": {"memory": "400Mi"}}, "spec": {"hard": {"memory": "1"}}});
    let patched = server.patch(&format!("{QUOTA}/status"), status).await.expect(200);
    assert_eq!((&patched["spec"]["hard"]["memory"], &patched["status"]["hard"]["memory"]), (&json!("750Mi"), &json!("400Mi")));
    server.delete(&format!("{QUOTAS}?labelSelector=q%3Dpatched")).await.expect(200);
    server.get(QUOTA).await.expect(404);
    let odd = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "odd"}, "spec": {"hard": {"cups": "1"}}});
    let message = server.post(QUOTAS, odd).await.expect_status(422, "Invalid");
    assert_eq!(
        message,
        "ResourceQuota \"odd\" is invalid: spec.hard[cups]: Invalid value: \"cups\": must be a standard resource for quota"
    );
}

/// Of fifty who come at once, ten get in.
async fn exactly_ten_get_in(server: &TestServer) {
    quota(server, json!({"configmaps": "10"}), json!({})).await;
    let all = (0..50).map(|at| {
        let name = format!("m{at}");
        async move { server.post(MAPS, map(&name)).await.code }
    });
    let codes = futures::future::join_all(all).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 10, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 403).count(), 40, "{codes:?}");
    assert_eq!(used(server, "configmaps").await, "10");
    let there = server.get(MAPS).await.expect(200);
    let mine = there["items"].as_array().unwrap().iter().filter(|map| map["metadata"]["name"].as_str().unwrap().starts_with('m'));
    assert_eq!(mine.count(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_creates_never_exceed_a_quota() {
    exactly_ten_get_in(&TestServer::memory().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_creates_never_exceed_a_quota_over_postgres() {
    exactly_ten_get_in(&TestServer::postgres().await).await;
}

/// Two servers over one store charge the same quota.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_never_exceed_a_quota() {
    let store = Memory::new();
    let one = TestServer::start(store.clone(), Options::default()).await;
    let two = TestServer::start(store, Options::default()).await;
    quota(&one, json!({"configmaps": "10"}), json!({})).await;
    two.api.cache.fresh().await.unwrap();
    let all = (0..50).map(|at| {
        let server = if at % 2 == 0 { &one } else { &two };
        async move { server.post(MAPS, map(&format!("m{at}"))).await.code }
    });
    let codes = futures::future::join_all(all).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 10, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 403).count(), 40, "{codes:?}");
}
