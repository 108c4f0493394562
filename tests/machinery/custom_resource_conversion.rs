//! Custom kinds of several versions: conversion by name alone and by webhooks, and the version in which objects are stored.

use crate::custom_resources::establish;
use crate::webhooks::Hooks;
use axum::body::Body;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer, eventually};

const V1: &str = "/apis/stable.example.com/v1/namespaces/default/hosts";
const V2: &str = "/apis/stable.example.com/v2/namespaces/default/hosts";
const CRD: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hosts.stable.example.com";
/// Where entries lie in the store.
const PREFIX: &str = "/stable.example.com/hosts/default/";

/// v1 has `hostPort`, v2 has `host` and `port`.
fn versions(storage: &str) -> Value {
    let version = |name: &str, properties: Value, selectable: Value| {
        let schema = json!({"type": "object", "properties": properties});
        json!({"name": name, "served": true, "storage": name == storage, "selectableFields": selectable,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "schema": {"openAPIV3Schema": schema}})
    };
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let text = json!({"type": "string"});
    json!([
        version("v1", json!({"hostPort": text, "spec": free, "status": free}), json!([{"jsonPath": ".hostPort"}])),
        version(
            "v2",
            json!({"host": text, "port": text, "spec": free, "status": free}),
            json!([{"jsonPath": ".host"}, {"jsonPath": ".port"}])
        ),
    ])
}

fn definition(client: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "hosts.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "hosts", "kind": "Host"},
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1", "v1beta1"], "clientConfig": client}},
            "versions": versions("v1"),
        },
    })
}

/// What the suite's webhook does: between `hostPort`, and `host` with `port`.
fn convert(review: &Value) -> Value {
    let wanted = review["request"]["desiredAPIVersion"].as_str().unwrap();
    let convert = |object: &Value| {
        let mut object = object.clone();
        let to_v2 = wanted.ends_with("/v2");
        assert_ne!(object["apiVersion"], wanted);
        object["apiVersion"] = wanted.into();
        let map = object.as_object_mut().unwrap();
        if to_v2 {
            let Some(both) = map.remove("hostPort") else { return object };
            let both = both.as_str().unwrap();
            let (host, port) = both.split_once(':').unwrap_or((both, ""));
            map.insert("host".into(), host.into());
            map.insert("port".into(), port.into());
        } else {
            let text = |value: Option<Value>| value.map_or_else(String::new, |value| value.as_str().unwrap().to_owned());
            let (host, port) = (text(map.remove("host")), text(map.remove("port")));
            if !host.is_empty() {
                map.insert("hostPort".into(), if port.is_empty() { host } else { format!("{host}:{port}") }.into());
            }
        }
        object
    };
    let objects: Vec<Value> = review["request"]["objects"].as_array().unwrap().iter().map(convert).collect();
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

fn v1(name: &str, host_port: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "Host", "metadata": {"name": name}, "hostPort": host_port})
}

fn v2(name: &str, host: &str, port: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v2", "kind": "Host", "metadata": {"name": name}, "host": host, "port": port})
}

#[track_caller]
fn is_v1(object: &Value, host_port: &str) {
    assert_eq!((&object["apiVersion"], &object["hostPort"]), (&json!("stable.example.com/v1"), &json!(host_port)), "{object:#}");
    assert!(object.get("host").is_none() && object.get("port").is_none(), "{object:#}");
}

#[track_caller]
fn is_v2(object: &Value, host: &str, port: &str) {
    assert_eq!(
        (&object["apiVersion"], &object["host"], &object["port"]),
        (&json!("stable.example.com/v2"), &json!(host), &json!(port)),
        "{object:#}"
    );
    assert!(object.get("hostPort").is_none(), "{object:#}");
}

async fn server() -> (TestServer, Hooks) {
    let (server, hooks) = (TestServer::memory().await, Hooks::start(convert).await);
    establish(&server, definition(hooks.config("/crdconvert"))).await;
    (server, hooks)
}

/// Puts the definition back with other versions, and waits until they are served.
async fn store_in(server: &TestServer, version: &str) {
    let mut object = server.get(CRD).await.expect(200);
    object["spec"]["versions"] = versions(version);
    server.put(CRD, object).await.expect(200);
    eventually("the storage version to change", || async {
        let name = "probe";
        server.delete(&format!("{V1}/{name}")).await;
        server.post(V1, v1(name, "a:1")).await.expect(201);
        let stored = stored(server, name).await["apiVersion"] == format!("stable.example.com/{version}");
        server.delete(&format!("{V1}/{name}")).await.expect(200);
        stored.then_some(())
    })
    .await;
}

/// An object as it lies in the store.
async fn stored(server: &TestServer, name: &str) -> Value {
    let snapshot = server.api.cache.fresh().await.unwrap();
    serde_json::from_slice(&snapshot.objects.get(format!("{PREFIX}{name}").as_str()).unwrap().bytes).unwrap()
}

async fn apply(server: &TestServer, path: &str, body: Value) -> Answer {
    let request = http::Request::builder().method("PATCH").uri(path).header("content-type", "application/apply-patch+yaml");
    Answer::of(server.send(Some(User::admin()), request.body(Body::from(body.to_string())).unwrap()).await).await
}

/// `[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert from CR v1 to CR v2 [Conformance]`
#[tokio::test]
async fn an_object_is_converted_for_each_version() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(convert).await;
    // By a Service, as the suite does. Its endpoint is nothing that only this machine reaches.
    let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let ip = udp.connect("192.0.2.1:9").and_then(|()| udp.local_addr()).map(|address| address.ip().to_string());
    let Ok(ip) = ip else { return eprintln!("SKIPPED: this machine has no address but its loopback") };
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 9443}]}});
    server.post("/api/v1/namespaces/default/services", service).await.expect(201);
    let client = json!({"service": {"namespace": "default", "name": "hook", "path": "/crdconvert", "port": 9443}, "caBundle": hooks.bundle});
    establish(&server, definition(client)).await;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "ports": [{"name": "https", "port": hooks.port}], "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    server.post(slices, slice).await.expect(201);
    let refused = eventually("the endpoints", || async {
        let answer = server.post(V2, v2("stub", "a", "1")).await;
        answer.body["message"].as_str().is_some_and(|why| why.contains("no endpoints available")).then_some(answer)
    })
    .await;
    assert_eq!(
        refused.expect_status(500, ""),
        "conversion webhook for stable.example.com/v2, Kind=Host failed: no endpoints available for service \"hook\""
    );
    let ready = json!({"endpoints": [{"addresses": [ip], "conditions": {"ready": true}}]});
    server.patch(&format!("{slices}/hook-1"), ready).await.expect(200);
    eventually("conversion to succeed", || async { (server.post(V2, v2("stub", "a", "1")).await.code == 201).then_some(()) })
        .await;
    server.delete(&format!("{V2}/stub")).await.expect(200);
    hooks.take();

    is_v1(&server.post(V1, v1("one", "localhost:8080")).await.expect(201), "localhost:8080");
    assert!(hooks.take().is_empty(), "it is stored as it was sent");
    let object = server.get(&format!("{V2}/one")).await.expect(200);
    is_v2(&object, "localhost", "8080");
    let first = server.get(&format!("{V1}/one")).await.expect(200);
    assert_eq!(object["metadata"], first["metadata"]);
    is_v2(&server.get(&format!("{V2}/one")).await.expect(200), "localhost", "8080");
    let asked = hooks.take();
    assert_eq!(asked.len(), 1, "what came of it is kept");
    let (path, request) = &asked[0];
    assert_eq!((path.as_str(), &request["desiredAPIVersion"]), ("/crdconvert", &json!("stable.example.com/v2")));
    assert!(request["uid"].as_str().is_some_and(|uid| uid.len() == 36));
    assert_eq!(request["objects"][0]["hostPort"], "localhost:8080");
    assert_eq!(request["objects"][0]["metadata"].get("resourceVersion"), None);
}

/// `[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non homogeneous list of CRs [Conformance]`
#[tokio::test]
async fn a_list_of_several_versions_is_of_one() {
    let (server, hooks) = server().await;
    server.post(V1, v1("one", "localhost:8080")).await.expect(201);
    store_in(&server, "v2").await;
    server.post(V1, v1("two", "localhost:8080")).await.expect(201);
    assert_eq!(stored(&server, "one").await["apiVersion"], "stable.example.com/v1");
    is_v2(&stored(&server, "two").await, "localhost", "8080");
    hooks.take();
    let list = server.get(V1).await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!((items.len(), &list["apiVersion"], &list["kind"]), (2, &json!("stable.example.com/v1"), &json!("HostList")));
    items.iter().for_each(|item| is_v1(item, "localhost:8080"));
    let list = server.get(V2).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    list["items"].as_array().unwrap().iter().for_each(|item| is_v2(item, "localhost", "8080"));
    let asked: Vec<usize> = hooks.take().iter().map(|(_, request)| request["objects"].as_array().unwrap().len()).collect();
    assert_eq!(asked, [1, 1], "only what is of another version");
}

#[tokio::test]
async fn lists_are_sent_together_in_bounded_reviews() {
    let (server, hooks) = server().await;
    for n in 0..1100 {
        server.post(V1, v1(&format!("h{n:04}"), &format!("host{n}:1"))).await.expect(201);
    }
    assert!(hooks.take().is_empty());
    let list = server.get(V2).await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 1100);
    items.iter().enumerate().for_each(|(n, item)| is_v2(item, &format!("host{n}"), "1"));
    let asked: Vec<usize> = hooks.take().iter().map(|(_, request)| request["objects"].as_array().unwrap().len()).collect();
    assert_eq!(asked, [500, 500, 100]);
    server.get(&format!("{V2}?limit=10")).await.expect(200);
    assert!(hooks.take().is_empty());
}

#[tokio::test]
async fn writes_in_another_version_than_the_stored_one() {
    let (server, _hooks) = server().await;
    let one = format!("{V2}/one");
    let made = server.post(V2, v2("one", "a", "1")).await.expect(201);
    is_v2(&made, "a", "1");
    is_v1(&stored(&server, "one").await, "a:1");
    is_v1(&server.get(&format!("{V1}/one")).await.expect(200), "a:1");
    let mut object = server.get(&one).await.expect(200);
    object["port"] = json!("2");
    is_v2(&server.put(&one, object).await.expect(200), "a", "2");
    is_v2(&server.patch(&one, json!({"host": "b"})).await.expect(200), "b", "2");
    is_v1(&server.get(&format!("{V1}/one")).await.expect(200), "b:2");
    is_v2(&apply(&server, &format!("{one}?fieldManager=m&force=true"), v2("one", "c", "3")).await.expect(200), "c", "3");
    let status = server.patch(&format!("{one}/status"), json!({"status": {"replicas": 4}, "host": "x"})).await.expect(200);
    is_v2(&status, "c", "3");
    assert_eq!(stored(&server, "one").await["status"]["replicas"], 4);
    let scale = server.patch(&format!("{one}/scale"), json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(5), &json!(4)));
    assert_eq!(server.get(&format!("{one}/scale")).await.expect(200)["spec"]["replicas"], 5);
    is_v1(&stored(&server, "one").await, "c:3");
    let created = apply(&server, &format!("{V2}/two?fieldManager=m"), v2("two", "d", "4")).await.expect(201);
    is_v2(&created, "d", "4");
    is_v1(&stored(&server, "two").await, "d:4");
    let dry = server.post(&format!("{V2}?dryRun=All"), v2("three", "e", "5")).await.expect(201);
    is_v2(&dry, "e", "5");
    server.delete(&one).await.expect(200);
    assert_eq!(server.get(&format!("{V1}/one")).await.code, 404);
}

#[tokio::test]
async fn watches_are_of_the_version_that_is_watched() {
    let (server, hooks) = server().await;
    server.post(V1, v1("one", "a:1")).await.expect(201);
    let mut watches = vec![];
    for _ in 0..20 {
        watches.push(server.watch(&format!("{V2}?watch=1")).await);
    }
    for watch in &mut watches {
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], "ADDED");
        is_v2(&event["object"], "a", "1");
    }
    hooks.take();
    server.patch(&format!("{V1}/one"), json!({"hostPort": "b:2"})).await.expect(200);
    server.delete(&format!("{V1}/one")).await.expect(200);
    for watch in &mut watches {
        for type_ in ["MODIFIED", "DELETED"] {
            let event = watch.next().await.unwrap();
            assert_eq!(event["type"], type_);
            is_v2(&event["object"], "b", "2");
        }
    }
    assert!(hooks.take().len() <= 2, "each change is converted once for all that watch");
}

/// Labels are the webhook's to change, the rest of the metadata is not; a selector asks for what readers see.
#[tokio::test]
async fn labels_are_converted_and_other_metadata_is_kept() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let mut response = convert(review);
        if review["request"]["desiredAPIVersion"] == "stable.example.com/v2" {
            for object in response["convertedObjects"].as_array_mut().unwrap() {
                object["metadata"]["labels"] = json!({"as": "v2"});
                object["metadata"]["generation"] = json!(77);
                object["metadata"]["finalizers"] = json!(["a.b/c"]);
            }
        }
        response
    })
    .await;
    establish(&server, definition(hooks.config("/convert"))).await;
    server.post(V1, v1("one", "a:1")).await.expect(201);
    let metadata = server.get(&format!("{V2}/one")).await.expect(200)["metadata"].clone();
    assert_eq!((&metadata["labels"], &metadata["generation"]), (&json!({"as": "v2"}), &json!(1)));
    assert_eq!(metadata.get("finalizers"), None);
    let count = async |path: &str| server.get(path).await.expect(200)["items"].as_array().unwrap().len();
    assert_eq!(
        (count(&format!("{V2}?labelSelector=as%3Dv2")).await, count(&format!("{V1}?labelSelector=as%3Dv2")).await),
        (1, 0)
    );
}

#[tokio::test]
async fn what_a_webhook_gets_wrong_is_told() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let mut response = convert(review);
        match review["path"].as_str().unwrap() {
            "/uid" => response["uid"] = json!("another"),
            "/fail" => response["result"] = json!({"status": "Failure", "message": "I do not know how"}),
            "/count" => response["convertedObjects"] = json!([]),
            "/version" => response["convertedObjects"][0]["apiVersion"] = json!("stable.example.com/v3"),
            "/kind" => response["convertedObjects"][0]["kind"] = json!("Guest"),
            "/name" => response["convertedObjects"][0]["metadata"]["name"] = json!("two"),
            "/labels" => response["convertedObjects"][0]["metadata"]["labels"] = json!({"a": 1}),
            _ => {}
        }
        response
    })
    .await;
    establish(&server, definition(hooks.config("/fine"))).await;
    server.post(V1, v1("one", "a:1")).await.expect(201);
    let of = "conversion webhook for stable.example.com/v1, Kind=Host";
    for (path, wanted) in [
        ("/uid", format!("{of} failed: expected response.uid=")),
        ("/fail", format!("{of} failed: I do not know how")),
        ("/count", format!("{of} returned 0 objects, expected 1")),
        (
            "/version",
            format!(
                "{of} returned invalid object at index 0: invalid groupVersion (expected stable.example.com/v2, received stable.example.com/v3)"
            ),
        ),
        ("/kind", format!("{of} returned invalid object at index 0: invalid kind (expected Host, received Guest)")),
        ("/name", format!("{of} returned invalid object: must have the same name: one != two")),
        (
            "/labels",
            format!("{of} returned invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object"),
        ),
        ("/garbage", format!("{of} failed: ")),
        ("/error", format!("{of} failed: an error on the server (\"it is broken\") has prevented the request from succeeding")),
    ] {
        server.patch(CRD, json!({"spec": {"conversion": {"webhook": {"clientConfig": hooks.config(path)}}}})).await.expect(200);
        let message = eventually(path, || async {
            let answer = server.get(&format!("{V2}/one")).await;
            let message = answer.body["message"].as_str().unwrap_or_default().to_owned();
            message.starts_with(&wanted).then(|| answer.expect_status(500, ""))
        })
        .await;
        assert!(message.starts_with(&wanted));
        assert_eq!(server.get(V2).await.code, 500);
        assert_eq!(server.post(V2, v2("new", "b", "1")).await.code, 500);
        assert_eq!(server.get(&format!("{V1}/new")).await.code, 404, "nothing is half written");
        is_v1(&server.get(&format!("{V1}/one")).await.expect(200), "a:1");
    }
    // A watch ends with what went wrong; nothing is left out silently.
    let mut watch = server.watch(&format!("{V2}?watch=1&resourceVersion=1")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(500)));
    assert!(watch.next().await.is_none());
    // The definition can be deleted all the same: what lies in the storage version is not converted.
    server.delete(CRD).await.expect(200);
    eventually("the definition to go", || async { (server.get(CRD).await.code == 404).then_some(()) }).await;
}

/// What was converted by one state of a definition is not shown in another.
#[tokio::test]
async fn a_new_webhook_converts_anew() {
    let server = TestServer::memory().await;
    let hooks = Hooks::start(|review| {
        let mut response = convert(review);
        if review["path"] == "/shout" {
            response["convertedObjects"][0]["host"] = json!("LOUD");
        }
        response
    })
    .await;
    establish(&server, definition(hooks.config("/fine"))).await;
    server.post(V1, v1("one", "a:1")).await.expect(201);
    is_v2(&server.get(&format!("{V2}/one")).await.expect(200), "a", "1");
    server.patch(CRD, json!({"spec": {"conversion": {"webhook": {"clientConfig": hooks.config("/shout")}}}})).await.expect(200);
    eventually("the new webhook", || async { (server.get(&format!("{V2}/one")).await.body["host"] == "LOUD").then_some(()) })
        .await;
}

#[tokio::test]
async fn objects_migrate_by_writes_and_versions_go_when_nothing_is_stored_in_them() {
    let (server, hooks) = server().await;
    server.post(V1, v1("one", "a:1")).await.expect(201);
    store_in(&server, "v2").await;
    assert_eq!(server.get(CRD).await.body["status"]["storedVersions"], json!(["v1", "v2"]));
    // A version in which something may lie is not removed.
    let mut object = server.get(CRD).await.expect(200);
    object["spec"]["versions"].as_array_mut().unwrap().remove(0);
    let message = server.put(CRD, object).await.expect_status(422, "Invalid");
    assert!(
        message.contains(
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version"
        ),
        "{message}"
    );
    // A write that changes nothing stores it anew.
    is_v1(&stored(&server, "one").await, "a:1");
    let before = server.get(&format!("{V1}/one")).await.expect(200);
    let after = server.put(&format!("{V1}/one"), before.clone()).await.expect(200);
    is_v2(&stored(&server, "one").await, "a", "1");
    assert_ne!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    assert_eq!(before["metadata"]["generation"], after["metadata"]["generation"]);
    let again = server.put(&format!("{V1}/one"), after.clone()).await.expect(200);
    assert_eq!(after["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
    // Who has migrated everything says so.
    let status = format!("{CRD}/status");
    server.patch(&status, json!({"status": {"storedVersions": ["v2"]}})).await.expect(200);
    let mut object = server.get(CRD).await.expect(200);
    object["spec"]["versions"].as_array_mut().unwrap().remove(0);
    server.put(CRD, object).await.expect(200);
    eventually("v1 to go", || async { (server.get(&format!("{V1}/one")).await.code == 404).then_some(()) }).await;
    hooks.take();
    is_v2(&server.get(&format!("{V2}/one")).await.expect(200), "a", "1");
    assert!(hooks.take().is_empty());
}

/// `[sig-api-machinery] CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch custom resources matching the field selector [Conformance]`
/// (but no informers)
#[tokio::test]
async fn fields_of_each_version_select() {
    let (server, _hooks) = server().await;
    let host = "fieldSelector=host%3Dhost1";
    let host_port = "fieldSelector=host%3Dhost1,port%3D80";
    let mut watch_host = server.watch(&format!("{V2}?watch=1&{host}")).await;
    let mut watch_both = server.watch(&format!("{V2}?watch=1&{host_port}")).await;
    let mut watch_v1 = server.watch(&format!("{V1}?watch=1&fieldSelector=hostPort%3Dhost1:80")).await;
    for (name, host, port) in [("a", "host1", "80"), ("b", "host1", "8080"), ("c", "host2", "")] {
        server.post(V2, v2(name, host, port)).await.expect(201);
    }
    let names = async |path: String| -> Vec<String> {
        let list = server.get(&path).await.expect(200);
        list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(format!("{V2}?{host}")).await, ["a", "b"]);
    assert_eq!(names(format!("{V2}?{host_port}")).await, ["a"]);
    assert_eq!(names(format!("{V1}?fieldSelector=hostPort%3Dhost1:80")).await, ["a"]);
    assert_eq!(names(format!("{V1}?fieldSelector=hostPort%3Dhost1:8080")).await, ["b"]);
    assert_eq!((watch_host.brief().await.as_str(), watch_host.brief().await.as_str()), ("ADDED a", "ADDED b"));
    assert_eq!((watch_both.brief().await.as_str(), watch_v1.brief().await.as_str()), ("ADDED a", "ADDED a"));
    // What is there already is sent first, chosen in the same way.
    assert_eq!(server.watch(&format!("{V2}?watch=1&fieldSelector=port%3D8080")).await.brief().await, "ADDED b");
    server.delete(&format!("{V2}?{host_port}")).await.expect(200);
    let mut object = server.get(&format!("{V2}/b")).await.expect(200);
    object["host"] = json!("host2");
    server.put(&format!("{V2}/b"), object).await.expect(200);
    assert_eq!(names(format!("{V2}?{host}")).await, [""; 0]);
    assert_eq!(names(format!("{V2}?{host_port}")).await, [""; 0]);
    assert_eq!((watch_host.brief().await.as_str(), watch_host.brief().await.as_str()), ("DELETED a", "DELETED b"));
    assert_eq!((watch_both.brief().await.as_str(), watch_v1.brief().await.as_str()), ("DELETED a", "DELETED a"));
    assert_eq!(server.get(&format!("{V1}?fieldSelector=host%3Dhost1")).await.code, 400);
    assert_eq!(names(format!("{V2}?limit=1&fieldSelector=host%3Dhost2")).await, ["b"]);
}

/// Who owns a field in one version owns what it converts to in another.
#[tokio::test]
async fn owners_of_fields_are_found_in_every_version() {
    let (server, _hooks) = server().await;
    let (one, two) = (format!("{V1}/one"), format!("{V2}/one"));
    let owners = |object: &Value, field: &str| -> Vec<String> {
        let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
        let own = entries.filter(|entry| entry["fieldsV1"].get(format!("f:{field}")).is_some());
        own.map(|entry| format!("{} {}", entry["manager"].as_str().unwrap(), entry["apiVersion"].as_str().unwrap())).collect()
    };
    let made = apply(&server, &format!("{one}?fieldManager=a"), v1("one", "a:1")).await.expect(201);
    assert_eq!(owners(&made, "hostPort"), ["a stable.example.com/v1"]);
    // The same in the other version is no conflict, another value is.
    apply(&server, &format!("{two}?fieldManager=b"), v2("one", "a", "1")).await.expect(200);
    let message = apply(&server, &format!("{two}?fieldManager=b"), v2("one", "b", "2")).await.expect_status(409, "Conflict");
    assert!(message.contains("conflict with \"a\"") && message.contains(".hostPort"), "{message}");
    let forced = apply(&server, &format!("{two}?fieldManager=b&force=true"), v2("one", "b", "2")).await.expect(200);
    assert_eq!((owners(&forced, "hostPort"), owners(&forced, "host")), (vec![], vec!["b stable.example.com/v2".to_owned()]));
    // An ordinary write takes them too.
    server.patch(&one, json!({"hostPort": "c:3"})).await.expect(200);
    let object = server.get(&two).await.expect(200);
    is_v2(&object, "c", "3");
    assert_eq!((owners(&object, "host"), owners(&object, "hostPort").len()), (vec![], 1));
}

/// Without a webhook versions differ by their schemas: what one does not know is not shown in it.
#[tokio::test]
async fn versions_without_a_webhook_differ_by_name_and_schema() {
    let server = TestServer::memory().await;
    let mut crd = definition(Value::Null);
    crd["spec"]["conversion"] = json!({"strategy": "None"});
    for (version, field) in [(0, "first"), (1, "second")] {
        crd["spec"]["versions"][version]["schema"]["openAPIV3Schema"]["properties"][field] =
            json!({"type": "string", "default": field});
    }
    establish(&server, crd).await;
    let mut both = v1("one", "a:1");
    both["host"] = json!("a");
    let made = server.post(V1, both).await.expect(201);
    assert_eq!((&made["first"], made.get("host")), (&json!("first"), None));
    let object = server.get(&format!("{V2}/one")).await.expect(200);
    // Defaults are those of the version that is stored, as with Kubernetes.
    assert_eq!(
        (&object["apiVersion"], object.get("hostPort"), object.get("first"), object.get("second")),
        (&json!("stable.example.com/v2"), None, None, None)
    );
    let made = server.post(V2, v2("two", "b", "2")).await.expect(201);
    assert_eq!((&made["second"], &made["host"]), (&json!("second"), &json!("b")));
    let kept = stored(&server, "two").await;
    assert_eq!((&kept["apiVersion"], kept.get("host"), kept.get("second")), (&json!("stable.example.com/v1"), None, None));
}
