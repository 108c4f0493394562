//! Create, get, update and patch of one object.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::config_map;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn what_is_created_can_be_read_updated_and_deleted() {
    let server = super::server().await;
    let created = server.post(MAPS, config_map("a", "1")).await.expect(201);
    let metadata = &created["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert!(metadata["uid"].as_str().is_some_and(|uid| uid.len() == 36));
    assert!(metadata["creationTimestamp"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 20));
    assert_eq!(server.get(&format!("{MAPS}/a")).await.expect(200), created);

    let mut changed = created.clone();
    changed["data"]["key"] = "2".into();
    let updated = server.put(&format!("{MAPS}/a"), changed.clone()).await.expect(200);
    assert_eq!(updated["data"]["key"], "2");
    assert_eq!(updated["metadata"]["uid"], created["metadata"]["uid"]);
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);

    let message = server.put(&format!("{MAPS}/a"), changed).await.expect_status(409, "Conflict");
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let gone = server.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!((&gone["status"], &gone["details"]["name"]), (&json!("Success"), &json!("a")));
    assert_eq!(server.get(&format!("{MAPS}/a")).await.expect_status(404, "NotFound"), "configmaps \"a\" not found");
}

/// Byte by byte, so that it is written out once; in another form, and with warnings, it is as ever.
#[tokio::test]
async fn a_create_is_answered_with_what_is_read_from_then_on() {
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let server = super::server().await;
    let post = async |name: &str, accept: &str| {
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "a", "odd": 1}]}});
        let request = Request::post(PODS).header("accept", accept).header("content-type", "application/json");
        let response = server.send(Some(User::admin()), request.body(Body::from(pod.to_string())).unwrap()).await;
        assert_eq!(response.status(), 201);
        let warning = response.headers()["warning"].to_str().unwrap().to_owned();
        assert_eq!(warning, r#"299 - "unknown field \"spec.containers[0].odd\"""#);
        response.into_body().collect().await.unwrap().to_bytes()
    };
    assert_eq!(post("a", "application/json").await, server.bytes(&format!("{PODS}/a")).await);
    let table = post("b", "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let table: Value = serde_json::from_slice(&table).unwrap();
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("b")));
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_written() {
    let server = super::server().await;
    let created = server.post(MAPS, config_map("a", "1")).await.expect(201);
    let again = server.put(&format!("{MAPS}/a"), config_map("a", "1")).await.expect(200);
    assert_eq!(again, created);
}

#[tokio::test]
async fn names_are_given_checked_and_generated() {
    let server = super::server().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let message = server.post(MAPS, config_map("a", "1")).await.expect_status(409, "AlreadyExists");
    assert_eq!(message, "configmaps \"a\" already exists");
    let message = server.post(MAPS, config_map("Not_A_Name", "1")).await.expect_status(422, "Invalid");
    assert!(message.starts_with("ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value: \"Not_A_Name\": a lowercase RFC 1123 subdomain must"), "{message}");
    let message = server.post(MAPS, json!({"metadata": {}})).await.expect_status(422, "Invalid");
    assert_eq!(message, "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required");
    let generated = server.post(MAPS, json!({"metadata": {"generateName": "web-"}})).await.expect(201);
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

#[tokio::test]
async fn path_and_body_must_agree() {
    let server = super::server().await;
    let mut map = config_map("a", "1");
    map["metadata"]["namespace"] = "kube-system".into();
    let message = server.post(MAPS, map).await.expect_status(400, "BadRequest");
    assert_eq!(message, "the namespace of the provided object does not match the namespace sent on the request");
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let message = server.put(&format!("{MAPS}/a"), config_map("b", "1")).await.expect_status(400, "BadRequest");
    assert_eq!(message, "the name of the object (b) does not match the name on the URL (a)");
    server.put(&format!("{MAPS}/c"), config_map("c", "1")).await.expect_status(404, "NotFound");
    let wrong_type = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}});
    server.post(MAPS, wrong_type).await.expect_status(400, "BadRequest");
    let message = server.post("/api/v1/configmaps", config_map("a", "1")).await.expect_status(405, "MethodNotAllowed");
    assert_eq!(message, "the server does not allow this method on the requested resource");
    server.get("/api/v1/namespaces/default/nothings").await.expect_status(404, "NotFound");
    assert_eq!(server.get("/apis/none/v1/nothings").await.expect(404), "404 page not found\n");
}

#[tokio::test]
async fn the_namespace_must_exist() {
    let server = super::server().await;
    let message = server.post("/api/v1/namespaces/none/configmaps", config_map("a", "1")).await.expect_status(404, "NotFound");
    assert_eq!(message, "namespaces \"none\" not found");
}

#[tokio::test]
async fn what_the_server_says_of_an_object_cannot_be_changed() {
    let server = super::server().await;
    let created = server.post(MAPS, config_map("a", "1")).await.expect(201);
    let mut other = created.clone();
    other["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111".into();
    server.put(&format!("{MAPS}/a"), other).await.expect_status(409, "Conflict");
    let mut other = created.clone();
    other["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
    let message = server.put(&format!("{MAPS}/a"), other).await.expect_status(422, "Invalid");
    assert!(
        message.contains("metadata.creationTimestamp: Invalid value: \"2001-01-01T00:00:00Z\": field is immutable"),
        "{message}"
    );
    let mut version = config_map("b", "1");
    version["metadata"]["resourceVersion"] = "1".into();
    let message = server.post(MAPS, version).await.expect_status(400, "BadRequest");
    assert_eq!(message, "resourceVersion should not be set on objects to be created");
}

#[tokio::test]
async fn patches_change_parts() {
    let server = super::server().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let patched =
        server.patch(&format!("{MAPS}/a"), json!({"data": {"more": "2"}, "metadata": {"labels": {"l": "v"}}})).await.expect(200);
    assert_eq!(patched["data"], json!({"key": "1", "more": "2"}));
    assert_eq!(patched["metadata"]["labels"]["l"], "v");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"more": "3"}});
    server.patch(&format!("{MAPS}/a"), stale).await.expect_status(409, "Conflict");
    let renamed = json!({"metadata": {"name": "b"}});
    server.patch(&format!("{MAPS}/a"), renamed).await.expect_status(400, "BadRequest");
    server.patch(&format!("{MAPS}/none"), json!({})).await.expect_status(404, "NotFound");
}

#[tokio::test]
async fn concurrent_patches_are_all_applied() {
    let server = super::server().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let patches = (0..50).map(|n| {
        let server = &server;
        async move { server.patch(&format!("{MAPS}/a"), json!({"data": {format!("k{n}"): "v"}})).await.expect(200) }
    });
    futures::future::join_all(patches).await;
    let map = server.get(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(map["data"].as_object().unwrap().len(), 51);
}

#[tokio::test]
async fn a_dry_run_answers_and_writes_nothing() {
    let server = super::server().await;
    let path = format!("{MAPS}?dryRun=All");
    let dry = server.post(&path, config_map("a", "1")).await.expect(201);
    assert!(dry["metadata"]["uid"].is_string());
    server.get(&format!("{MAPS}/a")).await.expect_status(404, "NotFound");
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    server.post(&path, config_map("a", "1")).await.expect_status(409, "AlreadyExists");
    let patched = server.patch(&format!("{MAPS}/a?dryRun=All"), json!({"data": {"key": "2"}})).await.expect(200);
    assert_eq!(patched["data"]["key"], "2");
    server.delete(&format!("{MAPS}/a?dryRun=All")).await.expect(200);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.expect(200)["data"]["key"], "1");
    server.post(&format!("{MAPS}?dryRun=Some"), config_map("b", "1")).await.expect_status(422, "Invalid");
}

#[tokio::test]
async fn labels_annotations_and_owners_are_validated() {
    let server = super::server().await;
    let with = |metadata: Value| {
        let mut map = config_map("a", "1");
        map["metadata"] = metadata;
        map["metadata"]["name"] = "a".into();
        map
    };
    for (metadata, field) in [
        (json!({"labels": {"a/b/c": "x"}}), "metadata.labels"),
        (json!({"labels": {"a": "not valid"}}), "metadata.labels"),
        (json!({"annotations": {"-": "x"}}), "metadata.annotations"),
        (json!({"annotations": {"a": "x".repeat(300_000)}}), "metadata.annotations"),
        (json!({"finalizers": ["mine"]}), "metadata.finalizers"),
        (
            json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": ""}]}),
            "metadata.ownerReferences.uid",
        ),
    ] {
        let answer = server.post(MAPS, with(metadata)).await;
        assert_eq!(answer.body["details"]["causes"][0]["field"], field, "{:#}", answer.body);
        answer.expect_status(422, "Invalid");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused() {
    let server = super::server().await;
    let send = async |content_type: &str, body: Vec<u8>| {
        let request = http::Request::post(MAPS).header("content-type", content_type).body(body.into()).unwrap();
        let user = slipway_apiserver::User::admin();
        slipway_tests::Answer::of(server.send(Some(user), request).await).await
    };
    send("application/json", b"{\"metadata\":".to_vec()).await.expect_status(400, "BadRequest");
    send("application/json", b"[]".to_vec()).await.expect_status(400, "BadRequest");
    send("application/yaml", b"a: [".to_vec()).await.expect_status(400, "BadRequest");
    send("text/html", b"{}".to_vec()).await.expect_status(415, "UnsupportedMediaType");
    send("application/json", vec![b' '; 4 << 20]).await.expect_status(413, "RequestEntityTooLarge");
    let yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-yaml}\ndata: {a: b}\n".to_vec();
    assert_eq!(send("application/yaml", yaml).await.expect(201)["data"]["a"], "b");
}

#[tokio::test]
async fn an_object_can_be_read_in_other_forms() {
    let server = super::server().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let path = format!("{MAPS}/a");
    let table = server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", &path).await.expect(200);
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    let partial = server.get_as("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", &path).await.expect(200);
    assert_eq!((&partial["kind"], partial.get("data")), (&json!("PartialObjectMetadata"), None));
    let yaml = server.get_as("application/yaml", &path).await.expect(200);
    assert!(yaml.as_str().is_some_and(|text| text.contains("kind: ConfigMap")), "{yaml}");
    server.get_as("image/png", &path).await.expect_status(406, "NotAcceptable");
}
