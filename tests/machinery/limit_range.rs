//! LimitRanges: the kind, and what becomes of pods and claims under them.

use serde_json::{Value, json};
use slipway_tests::TestServer;

const LIMITS: &str = "/api/v1/namespaces/default/limitranges";
const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

fn range(name: &str, limits: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name}, "spec": {"limits": limits}})
}

fn pod(name: &str, resources: Value) -> Value {
    let container = json!({"name": "c", "image": "i", "resources": resources});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}})
}

/// `[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied. [Conformance]`
#[tokio::test]
async fn pods_have_the_defaults() {
    let server = TestServer::memory().await;
    let limits = json!([{"type": "Container",
        "min": {"cpu": "50m", "memory": "100Mi", "ephemeral-storage": "100Gi"},
        "max": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "default": {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"},
        "defaultRequest": {"cpu": "100m", "memory": "200Mi", "ephemeral-storage": "200Gi"}}]);
    let created = server.post(LIMITS, range("limits", limits.clone())).await.expect(201);
    assert_eq!(created["spec"]["limits"], limits);
    assert_eq!(created["metadata"].get("generation"), None);

    let made = server.post(PODS, pod("plain", json!({}))).await.expect(201);
    let resources = json!({"limits": limits[0]["default"], "requests": limits[0]["defaultRequest"]});
    assert_eq!(made["spec"]["containers"][0]["resources"], resources);
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, ephemeral-storage, memory request for container c; \
         cpu, ephemeral-storage, memory limit for container c"
    );
    let some = json!({"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "300m"}});
    let made = server.post(PODS, pod("partial", some)).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["resources"]["requests"]["cpu"], "300m");
    assert_eq!(made["spec"]["containers"][0]["resources"]["limits"]["memory"], "500Mi");
    assert_eq!(made["status"]["qosClass"], "Burstable");

    let small = json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "300m"}});
    let message = server.post(PODS, pod("small", small)).await.expect_status(403, "Forbidden");
    assert_eq!(message, "pods \"small\" is forbidden: minimum cpu usage per Container is 50m, but request is 10m");
    let large = json!({"requests": {"cpu": "300m"}, "limits": {"cpu": "600m"}});
    let message = server.post(PODS, pod("large", large)).await.expect_status(403, "Forbidden");
    assert_eq!(message, "pods \"large\" is forbidden: maximum cpu usage per Container is 500m, but limit is 600m");

    let lower = json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "9m"}, "max": {"cpu": "500m"},
        "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}]}});
    server.patch(&format!("{LIMITS}/limits"), lower).await.expect(200);
    let small = json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "300m"}});
    server.post(PODS, pod("small", small)).await.expect(201);
    server.delete(&format!("{LIMITS}/limits")).await.expect(200);
    let free = server.post(PODS, pod("free", json!({}))).await.expect(201);
    assert_eq!(free["spec"]["containers"][0]["resources"], json!({}));
}

/// `[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection [Conformance]`
#[tokio::test]
async fn limit_ranges_are_listed_patched_and_deleted() {
    let server = TestServer::memory().await;
    let mut labelled = range("e2e", json!([{"type": "Container", "default": {"cpu": "1"}}]));
    labelled["metadata"]["labels"] = json!({"a": "b"});
    server.post(LIMITS, labelled).await.expect(201);
    server.post(LIMITS, range("other", json!([]))).await.expect(201);
    let all = server.get("/api/v1/limitranges?labelSelector=a%3Db").await.expect(200);
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    let patch = json!({"metadata": {"labels": {"patched": "yes"}}, "spec": {"limits": [{"type": "Pod", "max": {"cpu": "4"}}]}});
    let patched = server.patch(&format!("{LIMITS}/e2e"), patch).await.expect(200);
    assert_eq!(patched["spec"]["limits"], json!([{"type": "Pod", "max": {"cpu": "4"}}]));
    server.delete(&format!("{LIMITS}?labelSelector=patched%3Dyes")).await.expect(200);
    let left = server.get(LIMITS).await.expect(200);
    assert_eq!(left["items"][0]["metadata"]["name"], "other");
    let wrong = range("w", json!([{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]));
    let message = server.post(LIMITS, wrong).await.expect_status(422, "Invalid");
    assert!(
        message.starts_with("LimitRange \"w\" is invalid: [spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is"),
        "{message}"
    );
}

#[tokio::test]
async fn claims_keep_the_limits() {
    let server = TestServer::memory().await;
    let limits = json!([{"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]);
    server.post(LIMITS, range("storage", limits)).await.expect(201);
    let claim = |size: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
    };
    let message = server.post(CLAIMS, claim("3Gi")).await.expect_status(403, "Forbidden");
    let why = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi";
    assert_eq!(message, format!("persistentvolumeclaims \"data\" is forbidden: {why}"));
    server.post(CLAIMS, claim("1Gi")).await.expect(201);
}
