//! StorageClasses, claims and volumes.

use serde_json::{Value, json};
use slipway_tests::TestServer;

const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

fn class(name: &str, default: bool, expands: bool) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/disk", "allowVolumeExpansion": expands,
        "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": default.to_string()}}})
}

fn claim(name: &str, class: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}

#[tokio::test]
async fn a_claim_is_of_the_default_class_unless_it_says_otherwise() {
    let server = TestServer::memory().await;
    assert_eq!(server.post(CLAIMS, claim("a", Value::Null)).await.expect(201)["spec"].get("storageClassName"), None);
    server.post(CLASSES, class("plain", false, false)).await.expect(201);
    server.post(CLASSES, class("z-default", true, false)).await.expect(201);
    let made = server.post(CLAIMS, claim("b", Value::Null)).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], "z-default");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    assert_eq!((&made["status"], made["metadata"].get("generation")), (&json!({"phase": "Pending"}), None));
    assert_eq!(server.post(CLAIMS, claim("c", json!(""))).await.expect(201)["spec"]["storageClassName"], "");
    assert_eq!(server.post(CLAIMS, claim("d", json!("plain"))).await.expect(201)["spec"]["storageClassName"], "plain");
}

#[tokio::test]
async fn a_bound_claim_grows_where_its_class_lets_it() {
    let server = TestServer::memory().await;
    server.post(CLASSES, class("fixed", false, false)).await.expect(201);
    server.post(CLASSES, class("elastic", false, true)).await.expect(201);
    for name in ["fixed", "elastic"] {
        server.post(CLAIMS, claim(name, json!(name))).await.expect(201);
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}});
        server.patch(&format!("{CLAIMS}/{name}/status"), bound).await.expect(200);
    }
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let message = server.patch(&format!("{CLAIMS}/fixed"), larger.clone()).await.expect_status(403, "Forbidden");
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    assert_eq!(message, format!("persistentvolumeclaims \"fixed\" is forbidden: {why}"));
    server.patch(&format!("{CLAIMS}/elastic"), larger.clone()).await.expect(200);
    server.post(CLAIMS, claim("loose", json!("elastic"))).await.expect(201);
    let message = server.patch(&format!("{CLAIMS}/loose"), larger).await.expect_status(422, "Invalid");
    assert!(message.contains("spec: Forbidden: spec is immutable after creation except resources.requests"), "{message}");
}

/// `[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass [Conformance]`
#[tokio::test]
async fn the_lifecycle_of_a_storage_class() {
    let server = TestServer::memory().await;
    let made = server.post(CLASSES, class("a", false, false)).await.expect(201);
    assert_eq!((&made["reclaimPolicy"], &made["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
    let patched = server.patch(&format!("{CLASSES}/a"), json!({"metadata": {"labels": {"a": "patched"}}})).await.expect(200);
    server.put(&format!("{CLASSES}/a"), patched).await.expect(200);
    let message = server.patch(&format!("{CLASSES}/a"), json!({"provisioner": "x.io/y"})).await.expect_status(422, "Invalid");
    assert_eq!(
        message,
        "StorageClass.storage.k8s.io \"a\" is invalid: provisioner: Forbidden: updates to provisioner are forbidden."
    );
    assert_eq!(server.delete(&format!("{CLASSES}/a")).await.expect(200)["kind"], "StorageClass");
    server.post(CLASSES, class("b", true, false)).await.expect(201);
    let table = server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", CLASSES).await.expect(200);
    assert_eq!(table["rows"][0]["cells"][0], "b (default)");
    server.delete(CLASSES).await.expect(200);
}

/// `[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC [Conformance]`,
/// `[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status [Conformance]`
#[tokio::test]
async fn the_lifecycle_of_a_volume_and_a_claim() {
    let server = TestServer::memory().await;
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "labels": {"e2e": "v"}}, "spec": {
        "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "hostPath": {"path": "/tmp/v"}}});
    let made = server.post(VOLUMES, volume).await.expect(201);
    assert_eq!(
        (&made["status"], &made["metadata"]["finalizers"]),
        (&json!({"phase": "Pending"}), &json!(["kubernetes.io/pv-protection"]))
    );
    server.post(CLAIMS, claim("c", json!("manual"))).await.expect(201);
    for (path, kind) in [(format!("{VOLUMES}/v"), "PersistentVolume"), (format!("{CLAIMS}/c"), "PersistentVolumeClaim")] {
        let patched = server.patch(&path, json!({"metadata": {"labels": {"patched": "yes"}}})).await.expect(200);
        assert_eq!(patched["kind"], kind);
        let status = json!({"status": {"phase": "Failed", "message": "StatusUpdate", "reason": "E2E status Update"}});
        let status = if kind == "PersistentVolume" {
            status
        } else {
            json!({"status": {"conditions": [{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set by test"}]}})
        };
        let changed = server.patch(&format!("{path}/status"), status.clone()).await.expect(200);
        for (field, value) in status["status"].as_object().unwrap() {
            if field != "conditions" {
                assert_eq!(&changed["status"][field], value);
            }
        }
        assert_eq!(server.get(&format!("{path}/status")).await.expect(200)["status"], changed["status"]);
        let mut whole = changed;
        whole["status"]["conditions"] = Value::Null;
        whole["status"]["message"] = Value::Null;
        let replaced = server.put(&format!("{path}/status"), whole).await.expect(200);
        assert_eq!((replaced["status"].get("conditions"), replaced["status"].get("message")), (None, None));
        let mut whole = server.get(&path).await.expect(200);
        whole["metadata"]["annotations"] = json!({"updated": "true"});
        server.put(&path, whole).await.expect(200);
        let collection = format!("{}?labelSelector=patched%3Dyes", path.rsplit_once('/').unwrap().0);
        let listed = server.get(&collection).await.expect(200);
        assert_eq!(listed["items"][0]["metadata"]["annotations"]["updated"], "true");
        server.delete(&collection).await.expect(200);
        assert!(server.get(&path).await.expect(200)["metadata"]["deletionTimestamp"].is_string());
        server.patch(&path, json!({"metadata": {"finalizers": null}})).await.expect(200);
        server.get(&path).await.expect(404);
    }
    let message = server
        .post(
            VOLUMES,
            json!({"metadata": {"name": "w"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}),
        )
        .await
        .expect_status(422, "Invalid");
    assert_eq!(message, "PersistentVolume \"w\" is invalid: spec: Required value: must specify a volume type");
}
