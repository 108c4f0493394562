//! What storage drivers and those who attach volumes keep in the API.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer};

const GROUP: &str = "/apis/storage.k8s.io/v1";
const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";

async fn strategic(server: &TestServer, path: &str, patch: Value) -> Value {
    let request = Request::builder().method("PATCH").uri(path).header("content-type", "application/strategic-merge-patch+json");
    let response = server.send(Some(User::admin()), request.body(Body::from(patch.to_string())).unwrap()).await;
    Answer::of(response).await.expect(200)
}

async fn count(server: &TestServer, list: &str) -> usize {
    server.get(list).await.expect(200)["items"].as_array().unwrap().len()
}

/// `[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver [Conformance]`
#[tokio::test]
async fn the_lifecycle_of_a_driver() {
    let server = TestServer::memory().await;
    let drivers = format!("{GROUP}/csidrivers");
    let driver = |name: &str, modes: Value| {
        json!({"metadata": {"name": name, "labels": {"e2e-test": "d"}},
        "spec": {"volumeLifecycleModes": modes, "fsGroupPolicy": "ReadWriteOnceWithFSType"}})
    };
    let one = driver("inline-driver-1", json!(["Ephemeral"]));
    let made = [
        server.post(&drivers, one.clone()).await.expect(201),
        server.post(&drivers, driver("inline-driver-2", json!(["Persistent", "Ephemeral"]))).await.expect(201),
    ];
    server.post(&drivers, one).await.expect_status(409, "AlreadyExists");
    for made in &made {
        let path = format!("{drivers}/{}", made["metadata"]["name"].as_str().unwrap());
        assert_eq!(server.get(&path).await.expect(200)["metadata"]["uid"], made["metadata"]["uid"]);
    }
    assert_eq!((&made[0]["spec"]["attachRequired"], &made[0]["spec"]["podInfoOnMount"]), (&json!(true), &json!(false)));
    let second = format!("{drivers}/inline-driver-2");
    let patched = strategic(&server, &second, json!({"metadata": {"labels": {"inline-driver-2": "patched"}}})).await;
    assert_eq!(patched["metadata"]["labels"]["inline-driver-2"], "patched");
    let mut wanted = server.get(&second).await.expect(200);
    wanted["metadata"]["labels"]["inline-driver-2"] = json!("updated");
    assert_eq!(server.put(&second, wanted).await.expect(200)["metadata"]["labels"]["inline-driver-2"], "updated");
    assert_eq!(count(&server, &format!("{drivers}?labelSelector=e2e-test%3Dd")).await, 2);
    assert_eq!(server.delete(&format!("{drivers}/inline-driver-1")).await.expect(200)["kind"], "CSIDriver");
    server.get(&format!("{drivers}/inline-driver-1")).await.expect_status(404, "NotFound");
    server.delete(&format!("{drivers}?labelSelector=inline-driver-2%3Dupdated")).await.expect(200);
    server.get(&second).await.expect_status(404, "NotFound");
}

/// `[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API [Conformance]`
#[tokio::test]
async fn volumes_of_drivers_in_pods() {
    let server = TestServer::memory().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "pod-csi-inline-volumes"}, "spec": {
        "volumes": [
            {"name": "vol1", "csi": {"driver": "e2e.example.com"}},
            {"name": "vol2", "csi": {"driver": "e2e.example.com", "fsType": "ext4", "readOnly": true}},
        ],
        "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", "ls /mnt/*"], "volumeMounts": [
            {"name": "vol1", "mountPath": "/mnt/vol1"}, {"name": "vol2", "mountPath": "/mnt/vol2"},
        ]}],
    }});
    let made = server.post(pods, pod.clone()).await.expect(201);
    server.post(pods, pod).await.expect_status(409, "AlreadyExists");
    let path = format!("{pods}/pod-csi-inline-volumes");
    let read = server.get(&path).await.expect(200);
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(read["spec"]["volumes"][1]["csi"], json!({"driver": "e2e.example.com", "fsType": "ext4", "readOnly": true}));
    assert_eq!(count(&server, pods).await, 1);
    let patched = server.patch(&path, json!({"metadata": {"annotations": {"patched": "true"}}})).await.expect(200);
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    server.delete(&path).await.expect(200);
    server.get(&path).await.expect_status(404, "NotFound");
}

/// `[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode [Conformance]`
#[tokio::test]
async fn the_lifecycle_of_a_csi_node() {
    let server = TestServer::memory().await;
    let nodes = format!("{GROUP}/csinodes");
    // Go writes a list that is nil as null.
    let node = |name: &str| json!({"metadata": {"name": name}, "spec": {"drivers": null}});
    server.post(&nodes, node("e2e-1")).await.expect(201);
    assert_eq!(server.get(&format!("{nodes}/e2e-1")).await.expect(200)["metadata"]["name"], "e2e-1");
    let patched = strategic(&server, &format!("{nodes}/e2e-1"), json!({"metadata": {"labels": {"e2e-1": "patched"}}})).await;
    assert_eq!(patched["metadata"]["labels"]["e2e-1"], "patched");
    let marked = format!("{nodes}?labelSelector=e2e-1%3Dpatched");
    assert_eq!(count(&server, &marked).await, 1);
    assert_eq!(server.delete(&format!("{nodes}/e2e-1")).await.expect(200)["kind"], "CSINode");
    assert_eq!(count(&server, &marked).await, 0);
    server.post(&nodes, node("e2e-2")).await.expect(201);
    let mut second = server.get(&format!("{nodes}/e2e-2")).await.expect(200);
    second["metadata"]["labels"] = json!({"e2e-2": "updated"});
    let updated = server.put(&format!("{nodes}/e2e-2"), second).await.expect(200);
    assert_eq!(updated["metadata"]["labels"]["e2e-2"], "updated");
    let marked = format!("{nodes}?labelSelector=e2e-2%3Dupdated");
    server.delete(&marked).await.expect(200);
    assert_eq!(count(&server, &marked).await, 0);
    // Drivers are told apart by name.
    let with = |id: &str| json!({"spec": {"drivers": [{"name": "a.io", "nodeID": id}]}});
    let mut third = node("e2e-3");
    third["spec"] = json!({"drivers": [{"name": "b.io", "nodeID": "1"}]});
    server.post(&nodes, third).await.expect(201);
    let both = strategic(&server, &format!("{nodes}/e2e-3"), with("1")).await;
    assert_eq!(both["spec"]["drivers"].as_array().unwrap().len(), 2);
    let mut moved = both;
    moved["spec"]["drivers"][0]["nodeID"] = json!("2");
    let message = server.put(&format!("{nodes}/e2e-3"), moved).await.expect_status(422, "Invalid");
    assert!(message.contains("spec.drivers: Invalid value") && message.ends_with("field is immutable"), "{message}");
}

/// `[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations [Conformance]`
#[tokio::test]
async fn storage_capacities() {
    let server = TestServer::memory().await;
    let groups = server.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "storage.k8s.io"));
    assert_eq!(server.get("/apis/storage.k8s.io").await.expect(200)["versions"][0]["version"], "v1");
    let resources = server.get(GROUP).await.expect(200);
    assert!(resources["resources"].as_array().unwrap().iter().any(|one| one["name"] == "csistoragecapacities"));
    let (own, all) = (format!("{GROUP}/namespaces/default/csistoragecapacities"), format!("{GROUP}/csistoragecapacities"));
    let capacity =
        |name: &str| json!({"metadata": {"name": name, "labels": {"test": "csc"}}, "storageClassName": "e2e.example.com"});
    let made = server.post(&own, capacity("csc1")).await.expect(201);
    server.post(&own, capacity("csc1")).await.expect_status(409, "AlreadyExists");
    server.post(&own, capacity("csc2")).await.expect(201);
    let marked = |list: &str| format!("{list}?labelSelector=test%3Dcsc");
    let revision = server.get(&all).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut watches = vec![];
    for list in [&own, &all] {
        watches.push(server.watch(&format!("{}&watch=1&resourceVersion={revision}", marked(list))).await);
    }
    server.post(&own, capacity("csc3")).await.expect(201);
    assert_eq!(server.get(&format!("{own}/csc1")).await.expect(200)["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!((count(&server, &marked(&own)).await, count(&server, &marked(&all)).await), (3, 3));
    let path = format!("{own}/csc1");
    let mut patched = server.patch(&path, json!({"metadata": {"annotations": {"patched": "true"}}})).await.expect(200);
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    patched["metadata"]["annotations"]["updated"] = json!("true");
    assert_eq!(server.put(&path, patched).await.expect(200)["metadata"]["annotations"]["updated"], "true");
    for watch in &mut watches {
        assert_eq!(watch.brief().await, "ADDED csc3");
        assert_eq!(watch.next().await.unwrap()["object"]["metadata"]["annotations"], json!({"patched": "true"}));
        assert_eq!(watch.next().await.unwrap()["object"]["metadata"]["annotations"]["updated"], "true");
    }
    let message = server.patch(&path, json!({"storageClassName": "other"})).await.expect_status(422, "Invalid");
    assert!(message.ends_with("storageClassName: Invalid value: \"other\": field is immutable"), "{message}");
    server.delete(&path).await.expect(200);
    server.get(&path).await.expect_status(404, "NotFound");
    assert_eq!(count(&server, &marked(&own)).await, 2);
    server.delete(&marked(&own)).await.expect(200);
    assert_eq!(count(&server, &marked(&own)).await, 0);
}

fn attachment(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name, "uid": name}, "status": {"attached": false}, "spec": {
        "attacher": "e2e-test.storage.k8s.io", "nodeName": node, "source": {"persistentVolumeName": format!("pv-{name}")}}})
}

/// `[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment [Conformance]`
#[tokio::test]
async fn the_lifecycle_of_an_attachment() {
    let server = TestServer::memory().await;
    server.post("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.expect(201);
    server.post(ATTACHMENTS, attachment("va-1", "n1")).await.expect(201);
    assert_eq!(server.get(&format!("{ATTACHMENTS}/va-1")).await.expect(200)["metadata"]["name"], "va-1");
    let label = json!({"metadata": {"labels": {"va-1": "patched"}}});
    let patched = server.patch(&format!("{ATTACHMENTS}/va-1"), label).await.expect(200);
    assert_eq!(patched["metadata"]["labels"]["va-1"], "patched");
    let marked = format!("{ATTACHMENTS}?labelSelector=va-1%3Dpatched");
    assert_eq!(count(&server, &marked).await, 1);
    assert_eq!(server.delete(&format!("{ATTACHMENTS}/va-1")).await.expect(200)["kind"], "VolumeAttachment");
    assert_eq!(count(&server, &marked).await, 0);
    for name in ["va-2", "va-3"] {
        server.post(ATTACHMENTS, attachment(name, "n1")).await.expect(201);
        let mut current = server.get(&format!("{ATTACHMENTS}/{name}")).await.expect(200);
        current["metadata"]["labels"] = json!({"va-e2e": "updated"});
        let updated = server.put(&format!("{ATTACHMENTS}/{name}"), current).await.expect(200);
        assert_eq!(updated["metadata"]["labels"]["va-e2e"], "updated");
    }
    let marked = format!("{ATTACHMENTS}?labelSelector=va-e2e%3Dupdated");
    server.delete(&marked).await.expect(200);
    assert_eq!(count(&server, &marked).await, 0);
}

/// `[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status [Conformance]`
#[tokio::test]
async fn the_status_of_an_attachment() {
    let server = TestServer::memory().await;
    server.post("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.expect(201);
    let mut sent = attachment("va", "n1");
    sent["status"]["attached"] = json!(true);
    let made = server.post(ATTACHMENTS, sent).await.expect(201);
    assert_eq!(made["status"], json!({"attached": false}), "whoever attaches it says so");
    assert_eq!(made["metadata"]["name"], "va");
    let (path, status) = (format!("{ATTACHMENTS}/va"), format!("{ATTACHMENTS}/va/status"));
    let label = json!({"metadata": {"labels": {"va": "patched"}}});
    assert_eq!(server.patch(&path, label).await.expect(200)["metadata"]["labels"]["va"], "patched");
    assert_eq!(server.get(&status).await.expect(200)["status"]["attached"], false);
    let patch = json!({"status": {"attached": true}, "metadata": {"labels": {"ignored": "here"}}});
    let patched = server.patch(&status, patch).await.expect(200);
    assert_eq!((&patched["status"]["attached"], patched["metadata"]["labels"].get("ignored")), (&json!(true), None));
    let mut wanted = server.get(&path).await.expect(200);
    wanted["status"]["attached"] = json!(false);
    assert_eq!(server.put(&status, wanted.clone()).await.expect(200)["status"]["attached"], false);
    let mut moved = server.get(&path).await.expect(200);
    moved["spec"]["nodeName"] = json!("n2");
    let message = server.put(&path, moved).await.expect_status(422, "Invalid");
    assert!(message.ends_with("field is immutable"), "{message}");
    server.delete(&path).await.expect(200);
    assert_eq!(count(&server, &format!("{ATTACHMENTS}?labelSelector=va%3Dpatched")).await, 0);
}

#[tokio::test]
async fn a_node_reads_its_own_attachments_and_writes_its_own_csi_node() {
    let server = TestServer::memory().await;
    let node = |name: &str| User::new(&format!("system:node:{name}"), &["system:nodes"]);
    server.post(ATTACHMENTS, attachment("va", "n1")).await.expect(201);
    let path = format!("{ATTACHMENTS}/va");
    server.call_as(node("n1"), "GET", &path, None).await.expect(200);
    let message = server.call_as(node("n2"), "GET", &path, None).await.expect_status(403, "Forbidden");
    assert!(message.ends_with("no relationship found between node 'n2' and this object"), "{message}");
    let message = server.call_as(node("n1"), "GET", ATTACHMENTS, None).await.expect_status(403, "Forbidden");
    assert!(message.contains("can only get individual resources of this type"), "{message}");
    let nodes = format!("{GROUP}/csinodes");
    let own = json!({"metadata": {"name": "n1"}, "spec": {"drivers": []}});
    let message = server.call_as(node("n2"), "POST", &nodes, Some(&own)).await.expect_status(403, "Forbidden");
    assert!(message.ends_with("can only access CSINode with the same name as the requesting node"), "{message}");
    server.call_as(node("n1"), "POST", &nodes, Some(&own)).await.expect(201);
    server.call_as(node("n1"), "GET", &format!("{nodes}/n1"), None).await.expect(200);
    server.call_as(node("n2"), "GET", &format!("{nodes}/n1"), None).await.expect_status(403, "Forbidden");
}

/// `[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass [Conformance]`
#[tokio::test]
async fn the_lifecycle_of_a_volume_attributes_class() {
    let server = TestServer::memory().await;
    let classes = format!("{GROUP}/volumeattributesclasses");
    let class = |base: &str| json!({"metadata": {"generateName": base}, "driverName": "e2e-fake-csi-driver", "parameters": {"foo": "bar"}});
    let made = server.post(&classes, class("e2e-")).await.expect(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    let path = format!("{classes}/{name}");
    assert_eq!(server.get(&path).await.expect(200)["metadata"]["uid"], made["metadata"]["uid"]);
    let patched = strategic(&server, &path, json!({"metadata": {"labels": {name: "patched"}}})).await;
    assert_eq!(patched["metadata"]["labels"][name], "patched");
    let message = server.patch(&path, json!({"parameters": {"foo": "baz"}})).await.expect_status(422, "Invalid");
    assert!(message.ends_with("parameters: Forbidden: updates to parameters are forbidden."), "{message}");
    assert_eq!(server.delete(&path).await.expect(200)["kind"], "VolumeAttributesClass");
    assert_eq!(count(&server, &format!("{classes}?labelSelector={name}%3Dpatched")).await, 0);
    let second = server.post(&classes, class("e2e-v2-")).await.expect(201);
    let name = second["metadata"]["name"].as_str().unwrap();
    let mut wanted = server.get(&format!("{classes}/{name}")).await.expect(200);
    wanted["metadata"]["labels"] = json!({name: "updated"});
    let updated = server.put(&format!("{classes}/{name}"), wanted).await.expect(200);
    assert_eq!(updated["metadata"]["labels"][name], "updated");
    let marked = format!("{classes}?labelSelector={name}%3Dupdated");
    assert_eq!(count(&server, &marked).await, 1);
    server.delete(&marked).await.expect(200);
    assert_eq!(count(&server, &marked).await, 0);
}
