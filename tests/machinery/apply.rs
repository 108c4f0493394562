//! Server-side apply and the owners of fields, over the whole way.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{Answer, TestServer, config_map};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";

async fn send(server: &TestServer, method: &str, content_type: &str, agent: &str, path: &str, body: String) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", content_type).header("user-agent", agent);
    Answer::of(server.send(Some(User::admin()), request.body(Body::from(body)).unwrap()).await).await
}

async fn apply(server: &TestServer, path: &str, manager: &str, config: Value) -> Answer {
    send(server, "PATCH", APPLY, "test/1", &format!("{path}?fieldManager={manager}"), config.to_string()).await
}

async fn put(server: &TestServer, path: &str, agent: &str, object: &Value) -> Answer {
    send(server, "PUT", "application/json", agent, path, object.to_string()).await
}

async fn merge(server: &TestServer, path: &str, agent: &str, patch: Value) -> Answer {
    send(server, "PATCH", "application/merge-patch+json", agent, path, patch.to_string()).await
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn deployment(spec: Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object
}

/// Who owns what, without times: `manager operation [subresource]` and the fields.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let owner = |entry: Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("fieldsType"), "FieldsV1");
        (
            format!("{} {} {}", text("manager"), text("operation"), text("subresource")).trim_end().to_owned(),
            entry["fieldsV1"].clone(),
        )
    };
    entries.into_iter().map(owner).collect()
}

fn fields_of(object: &Value, owner: &str) -> Value {
    owners(object).into_iter().find(|(name, _)| name == owner).map(|(_, fields)| fields).unwrap_or_default()
}

fn without_version(mut object: Value) -> Value {
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    object
}

#[tokio::test]
async fn an_apply_creates_then_changes_then_removes() {
    let server = TestServer::memory().await;
    let path = format!("{MAPS}/m");
    let created = apply(&server, &path, "a", map(json!({"x": "1", "y": "1"}))).await.expect(201);
    assert_eq!(owners(&created), [("a Apply".to_owned(), json!({"f:data": {"f:x": {}, "f:y": {}}}))]);
    assert_eq!(created["metadata"]["managedFields"][0]["apiVersion"], "v1");
    let changed = apply(&server, &path, "a", map(json!({"x": "2"}))).await.expect(200);
    assert_eq!(changed["data"], json!({"x": "2"}));
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  z: \"3\"\n".to_owned();
    let with_yaml = send(&server, "PATCH", APPLY, "test", &format!("{path}?fieldManager=b"), yaml).await.expect(200);
    assert_eq!(with_yaml["data"], json!({"x": "2", "z": "3"}));
    // What is stored is what was answered.
    assert_eq!(server.get(&path).await.expect(200), with_yaml);
}

#[tokio::test]
async fn an_apply_that_changes_nothing_writes_nothing() {
    let server = TestServer::memory().await;
    let path = format!("{DEPLOYMENTS}/web");
    let first = apply(&server, &path, "a", deployment(json!({"replicas": 2}))).await.expect(201);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let second = apply(&server, &path, "a", deployment(json!({"replicas": 2}))).await.expect(200);
    assert_eq!(first, second);
    // Another who wants the same is a change: it owns it too.
    let shared = apply(&server, &path, "b", deployment(json!({"replicas": 2}))).await.expect(200);
    assert_ne!(shared["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(fields_of(&shared, "a Apply"), fields_of(&shared, "b Apply"));
    // So is an update that writes what is there already no write.
    let same = put(&server, &path, "c/1", &shared).await.expect(200);
    assert_eq!(same, shared);
}

#[tokio::test]
async fn conflicts_are_told_and_can_be_forced() {
    let server = TestServer::memory().await;
    let path = format!("{DEPLOYMENTS}/web");
    send(&server, "POST", "application/json", "kubectl/v1.33", DEPLOYMENTS, deployment(json!({"replicas": 1})).to_string())
        .await
        .expect(201);
    let answer = apply(&server, &path, "me", deployment(json!({"replicas": 3}))).await;
    let message = answer.clone().expect_status(409, "Conflict");
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1: .spec.replicas");
    assert_eq!(
        answer.body["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"kubectl\" using apps/v1", "field": ".spec.replicas"}])
    );
    let forced = apply(&server, &path, "me&force=true", deployment(json!({"replicas": 3}))).await.expect(200);
    assert_eq!(forced["spec"]["replicas"], 3);
    assert!(fields_of(&forced, "kubectl Update")["f:spec"].get("f:replicas").is_none());
    assert_eq!(fields_of(&forced, "me Apply")["f:spec"]["f:replicas"], json!({}));
    // What it created but nobody applies any more stays.
    let less = apply(&server, &path, "me", json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}))
        .await
        .expect(200);
    assert_eq!((&less["spec"]["replicas"], &less["spec"]["template"]), (&json!(1), &forced["spec"]["template"]));
}

#[tokio::test]
async fn requests_that_are_not_to_be_carried_out() {
    let server = TestServer::memory().await;
    let path = format!("{MAPS}/m");
    let nobody = send(&server, "PATCH", APPLY, "test", &path, map(json!({})).to_string()).await;
    let why = nobody.expect_status(422, "Invalid");
    assert_eq!(why, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch");
    let long = apply(&server, &path, &"x".repeat(129), map(json!({}))).await.expect_status(422, "Invalid");
    assert!(long.ends_with("fieldManager: Too long: may not be more than 128 bytes"), "{long}");
    let other = apply(&server, &path, "a", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "m"}})).await;
    assert_eq!(other.expect_status(400, "BadRequest"), "invalid object type: /v1, Kind=Secret");
    let mut owned = map(json!({}));
    owned["metadata"]["managedFields"] = json!([]);
    assert_eq!(apply(&server, &path, "a", owned).await.expect_status(400, "BadRequest"), "metadata.managedFields must be nil");
    let unknown =
        apply(&server, &path, "a", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "dat": {}})).await;
    assert_eq!(unknown.code, 500);
    assert_eq!(
        unknown.body["message"],
        "failed to create typed patch object (/m; /v1, Kind=ConfigMap): .dat: field not declared in schema"
    );
    let text = send(&server, "PATCH", APPLY, "test", &format!("{path}?fieldManager=a"), "a: [".into()).await;
    assert!(text.expect_status(400, "BadRequest").starts_with("error decoding YAML: "));
    let list = send(&server, "PATCH", APPLY, "test", &format!("{path}?fieldManager=a"), "- a".into()).await;
    assert!(list.expect_status(400, "BadRequest").contains("cannot unmarshal array"));
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: \"1\", a: \"2\"}\n";
    let strict =
        send(&server, "PATCH", APPLY, "test", &format!("{path}?fieldManager=a&fieldValidation=Strict"), twice.into()).await;
    assert!(strict.expect_status(400, "BadRequest").starts_with("error strict decoding YAML: "));
    let mut elsewhere = map(json!({}));
    elsewhere["metadata"]["name"] = json!("n");
    apply(&server, &path, "a", elsewhere).await.expect_status(400, "BadRequest");
    let mut elsewhere = map(json!({}));
    elsewhere["metadata"]["namespace"] = json!("other");
    apply(&server, &path, "a", elsewhere).await.expect_status(400, "BadRequest");
    let cbor = send(&server, "PATCH", "application/apply-patch+cbor", "test", &path, String::new()).await;
    let served = cbor.expect_status(415, "UnsupportedMediaType");
    assert!(served.contains("application/apply-patch+yaml"), "{served}");
    let forced = send(&server, "PATCH", "application/merge-patch+json", "test", &format!("{path}?force=true"), "{}".into()).await;
    let why = forced.expect_status(422, "Invalid");
    assert_eq!(why, "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch");
    server.get(&path).await.expect_status(404, "NotFound");
    let absent = apply(&server, "/api/v1/namespaces/none/configmaps/m", "a", map(json!({}))).await;
    assert_eq!(absent.expect_status(404, "NotFound"), "namespaces \"none\" not found");
}

#[tokio::test]
async fn a_configuration_may_name_the_version_and_the_object_it_is_for() {
    let server = TestServer::memory().await;
    let path = format!("{MAPS}/m");
    let with = |field: &str, value: &str| {
        let mut config = map(json!({"x": "2"}));
        config["metadata"][field] = json!(value);
        config
    };
    let none = apply(&server, &path, "a", with("uid", "u")).await.expect_status(409, "Conflict");
    assert!(none.ends_with("uid mismatch: the provided object specified uid u, and no existing object was found"), "{none}");
    apply(&server, &path, "a", with("resourceVersion", "1")).await.expect_status(409, "Conflict");
    let created = apply(&server, &path, "a", map(json!({"x": "1"}))).await.expect(201);
    apply(&server, &path, "a", with("resourceVersion", "1")).await.expect_status(409, "Conflict");
    apply(&server, &path, "a", with("uid", "u")).await.expect_status(409, "Conflict");
    let version = created["metadata"]["resourceVersion"].as_str().unwrap();
    let changed = apply(&server, &path, "a", with("resourceVersion", version)).await.expect(200);
    assert_eq!(changed["data"], json!({"x": "2"}));
    let dry = apply(&server, &path, "a&dryRun=All", map(json!({"x": "3"}))).await.expect(200);
    assert_eq!(dry["data"], json!({"x": "3"}));
    assert_eq!(server.get(&path).await.expect(200), changed);
    let other = apply(
        &server,
        &format!("{MAPS}/n"),
        "a&dryRun=All",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n"}}),
    )
    .await;
    other.expect(201);
    server.get(&format!("{MAPS}/n")).await.expect_status(404, "NotFound");
}

#[tokio::test]
async fn every_write_keeps_account() {
    let server = TestServer::memory().await;
    let path = format!("{DEPLOYMENTS}/web");
    let created =
        send(&server, "POST", "application/json", "one/1 (x)", DEPLOYMENTS, deployment(json!({"replicas": 1})).to_string())
            .await
            .expect(201);
    let own = json!({"f:spec": {
        "f:replicas": {}, "f:selector": {}, "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
        "f:progressDeadlineSeconds": {}, "f:revisionHistoryLimit": {},
    }});
    let said = fields_of(&created, "one Update");
    for (field, wanted) in own["f:spec"].as_object().unwrap() {
        assert_eq!(&said["f:spec"][field], wanted, "{field} in {said:#}");
    }
    let container = &said["f:spec"]["f:template"]["f:spec"]["f:containers"];
    assert_eq!((container.get("."), &container["k:{\"name\":\"c\"}"]["."]), (None, &json!({})));
    assert!(created["metadata"]["managedFields"][0]["time"].is_string());

    let mut object = created.clone();
    object["spec"]["replicas"] = json!(2);
    object["spec"].as_object_mut().unwrap().remove("minReadySeconds");
    let updated = put(&server, &path, "two", &object).await.expect(200);
    assert_eq!(fields_of(&updated, "two Update"), json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields_of(&updated, "one Update")["f:spec"].get("f:replicas").is_none());

    let patched = merge(&server, &format!("{path}?fieldManager=three"), "two", json!({"metadata": {"labels": {"l": "1"}}}))
        .await
        .expect(200);
    assert_eq!(fields_of(&patched, "three Update"), json!({"f:metadata": {"f:labels": {".": {}, "f:l": {}}}}));

    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 1, "observedGeneration": 2}});
    let told = merge(&server, &format!("{path}/status"), "kube-controller-manager/v1", status).await.expect(200);
    assert_eq!(
        fields_of(&told, "kube-controller-manager Update status"),
        json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}})
    );
    // Who writes it below the object's own path owns none of it.
    let ignored = merge(&server, &path, "four", json!({"status": {"replicas": 7}})).await.expect(200);
    assert_eq!(without_version(ignored), without_version(told));
}

#[tokio::test]
async fn scaling_owns_the_replicas() {
    let server = TestServer::memory().await;
    let path = format!("{DEPLOYMENTS}/web");
    apply(&server, &path, "a", deployment(json!({"replicas": 1}))).await.expect(201);
    merge(&server, &format!("{path}/scale"), "kubectl/v1", json!({"spec": {"replicas": 4}})).await.expect(200);
    let scaled = server.get(&path).await.expect(200);
    assert_eq!(fields_of(&scaled, "kubectl Update scale"), json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields_of(&scaled, "a Apply")["f:spec"].get("f:replicas").is_none());
    let conflict = apply(&server, &path, "a", deployment(json!({"replicas": 1}))).await.expect_status(409, "Conflict");
    assert_eq!(
        conflict,
        "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    // Without a word of the replicas they stay as the scaler has set them.
    let silent = apply(&server, &path, "a", deployment(json!({}))).await.expect(200);
    assert_eq!(silent["spec"]["replicas"], 4);
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 6}});
    let scale_path = format!("{path}/scale");
    let refused = apply(&server, &scale_path, "hpa", scale.clone()).await.expect_status(409, "Conflict");
    assert_eq!(
        refused,
        "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using autoscaling/v1: .spec.replicas"
    );
    let forced = apply(&server, &scale_path, "hpa&force=true", scale).await.expect(200);
    assert_eq!(forced["spec"]["replicas"], 6);
    let scaled = server.get(&path).await.expect(200);
    assert_eq!(fields_of(&scaled, "hpa Apply scale"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields_of(&scaled, "kubectl Update scale"), Value::Null);
}

#[tokio::test]
async fn a_status_can_be_applied_but_not_created() {
    let server = TestServer::memory().await;
    let path = format!("{DEPLOYMENTS}/web");
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {
        "conditions": [{"type": "Available", "status": "True", "reason": "x", "message": ""}]}});
    apply(&server, &format!("{path}/status"), "c", status.clone()).await.expect_status(404, "NotFound");
    apply(&server, &path, "a", deployment(json!({}))).await.expect(201);
    let told = apply(&server, &format!("{path}/status"), "c", status).await.expect(200);
    assert_eq!(told["status"]["conditions"][0]["type"], "Available");
    let condition = json!({".": {}, "f:message": {}, "f:reason": {}, "f:status": {}, "f:type": {}});
    assert_eq!(
        fields_of(&told, "c Apply status"),
        json!({"f:status": {"f:conditions": {"k:{\"type\":\"Available\"}": condition}}})
    );
    // The object's own path doesn't reach the status: nothing is owned, nothing changes.
    let mut config = deployment(json!({}));
    config["status"] = json!({"replicas": 3});
    let same = apply(&server, &path, "a", config).await.expect(200);
    assert_eq!(same, told);
}

#[tokio::test]
async fn owners_can_be_forgotten_and_are_found_again() {
    let server = TestServer::memory().await;
    let path = format!("{MAPS}/m");
    send(&server, "POST", "application/json", "one", MAPS, config_map("m", "1").to_string()).await.expect(201);
    let reset = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let forgotten = send(&server, "PATCH", "application/json-patch+json", "one", &path, reset.to_string()).await.expect(200);
    assert_eq!(forgotten["metadata"].get("managedFields"), None);
    let changed = merge(&server, &path, "one", json!({"data": {"key": "2"}})).await.expect(200);
    assert_eq!(changed["metadata"].get("managedFields"), None);
    let conflict = apply(&server, &path, "a", map(json!({"key": "3"}))).await.expect_status(409, "Conflict");
    assert_eq!(conflict, "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.key");
    let applied = apply(&server, &path, "a", map(json!({"x": "3"}))).await.expect(200);
    assert_eq!(fields_of(&applied, "before-first-apply Update"), json!({"f:data": {".": {}, "f:key": {}}}));
    // A client that knows nothing of owners takes none away.
    let mut ignorant = applied.clone();
    ignorant["metadata"].as_object_mut().unwrap().remove("managedFields");
    let kept = put(&server, &path, "old", &ignorant).await.expect(200);
    assert_eq!(kept, applied);
}

#[tokio::test]
async fn what_a_client_side_apply_left_is_taken_over() {
    let server = TestServer::memory().await;
    let path = format!("{MAPS}/m");
    let last = "kubectl.kubernetes.io/last-applied-configuration";
    let mut first = map(json!({"x": "1"}));
    first["metadata"]["annotations"] = json!({last: format!("{}\n", map(json!({"x": "1"})))});
    let create = format!("{MAPS}?fieldManager=kubectl-client-side-apply");
    send(&server, "POST", "application/json", "kubectl", &create, first.to_string()).await.expect(201);
    apply(&server, &path, "other", map(json!({"x": "2"}))).await.expect_status(409, "Conflict");
    let taken = apply(&server, &path, "kubectl", map(json!({"x": "2"}))).await.expect(200);
    assert_eq!(taken["data"], json!({"x": "2"}));
    let annotation: Value = serde_json::from_str(taken["metadata"]["annotations"][last].as_str().unwrap()).unwrap();
    assert_eq!(annotation["data"], json!({"x": "2"}));
}

#[tokio::test]
async fn clients_within_the_process_are_told_apart() {
    let server = TestServer::memory().await;
    let client = server.api.client(User::new("system:kube-controller-manager", &[User::MASTERS]));
    let maps: kube::Api<slipway_api::core::ConfigMap> = kube::Api::namespaced(client, "default");
    let object = serde_json::from_value(config_map("m", "1")).unwrap();
    maps.create(&kube::api::PostParams::default(), &object).await.unwrap();
    let stored = server.get(&format!("{MAPS}/m")).await.expect(200);
    assert_eq!(owners(&stored)[0].0, "kube-controller-manager Update");
    let kubernetes = server.get("/api/v1/namespaces/default").await.expect(200);
    assert_eq!(owners(&kubernetes)[0].0, "kube-apiserver Update");
}

#[tokio::test]
async fn two_who_apply_at_once_both_get_their_way() {
    let server = std::sync::Arc::new(TestServer::postgres().await);
    let tasks = (0..8).map(|at| {
        let server = std::sync::Arc::clone(&server);
        tokio::spawn(async move {
            let answer = apply(&server, &format!("{MAPS}/m"), &format!("m{at}"), map(json!({format!("k{at}"): "1"}))).await;
            assert!([200, 201].contains(&answer.code), "{:#}", answer.body);
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let object = server.get(&format!("{MAPS}/m")).await.expect(200);
    assert_eq!((object["data"].as_object().unwrap().len(), owners(&object).len()), (8, 8));
}

/// Who applies the same again writes nothing, however late, and though the owners would stand in another order by their times.
#[tokio::test]
async fn what_is_applied_again_later_writes_nothing() {
    let ahead = Arc::new(AtomicI64::new(0));
    let clock = ahead.clone();
    let clock = move || jiff::Timestamp::now() + jiff::SignedDuration::from_secs(clock.load(Ordering::Relaxed));
    let options = slipway_apiserver::Options { clock: Arc::new(clock), ..Default::default() };
    let server = TestServer::start(slipway_store::memory::Memory::new(), options).await;
    let path = format!("{MAPS}/m");
    for (manager, field) in [("first", "a"), ("second", "b")] {
        apply(&server, &path, manager, map(json!({field: "1"}))).await;
        ahead.fetch_add(10, Ordering::Relaxed);
    }
    let before = server.get(&path).await.expect(200);
    let again = apply(&server, &path, "first", map(json!({"a": "1"}))).await.expect(200);
    assert_eq!(again, before);
    assert_eq!(server.get(&path).await.expect(200), before);
}
