//! The published schemas of custom kinds, and what kubectl makes of them.

use crate::custom_resources::{CRDS, establish};
use crate::kubectl_apply::{Listening, kubectls, listen};
use axum::body::Body;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer};

fn foo() -> Value {
    let (text, list) = (
        |what: &str| json!({"type": "string", "description": what}),
        |what: &str, items: Value| json!({"type": "array", "description": what, "items": items}),
    );
    let mut feeling = text("Whether Bar is feeling great.");
    feeling["enum"] = json!(["Great", "Down"]);
    let bars = list(
        "List of Bars and their specs.",
        json!({"type": "object", "required": ["name"], "properties": {
            "name": text("Name of Bar."), "age": text("Age of Bar."), "feeling": feeling,
            "bazs": list("List of Bazs.", json!({"type": "string"}))}}),
    );
    let mut kind = text("Indicates to external qux type.");
    kind["pattern"] = json!("in-tree|out-of-tree");
    let statuses = list(
        "List of Bars and their statuses.",
        json!({"type": "object", "properties": {
            "name": text("Name of Bar."), "available": {"type": "boolean", "description": "Whether the Bar is installed."}, "quxType": kind}}),
    );
    json!({"type": "object", "description": "Foo CRD for Testing", "properties": {
        "spec": {"type": "object", "description": "Specification of Foo", "properties": {"bars": bars}},
        "status": {"type": "object", "description": "Status of Foo", "properties": {"bars": statuses}}}})
}

fn waldo(description: &str) -> Value {
    json!({"type": "object", "description": description, "properties": {
        "spec": {"type": "object", "description": "Specification of Waldo", "properties": {
            "dummy": {"type": "object", "description": "Dummy property."}}},
        "status": {"type": "object", "description": "Status of Waldo", "properties": {
            "bars": {"type": "array", "description": "List of Bars and their statuses.", "items": {"type": "object"}}}}}})
}

fn free(mut schema: Value, pointer: &str) -> Value {
    schema.pointer_mut(pointer).unwrap()["x-kubernetes-preserve-unknown-fields"] = json!(true);
    schema
}

/// A definition as the suite makes it: `kind` of the group `suffix`, the first version stored.
fn definition(kind: &str, suffix: &str, schema: &Value, versions: &[&str]) -> Value {
    let (group, plural) = (format!("crd-publish-openapi-test-{suffix}.example.com"), format!("e2e-test-{kind}-crds"));
    let versions: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(n, name)| json!({"name": name, "served": true, "storage": n == 0, "schema": {"openAPIV3Schema": schema}}))
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "versions": versions, "names": {
            "plural": plural, "singular": format!("e2e-test-{kind}-crd"), "kind": format!("e2e-test-{kind}-crd"),
            "listKind": format!("e2e-test-{kind}-crd-list")}},
    })
}

fn path(crd: &Value) -> String {
    format!("{CRDS}/{}", crd["metadata"]["name"].as_str().unwrap())
}

/// As Kubernetes names a definition: the group's labels the other way round.
fn name(crd: &Value, version: &str) -> String {
    let group: Vec<&str> = crd["spec"]["group"].as_str().unwrap().split('.').rev().collect();
    format!("{}.{version}.{}", group.join("."), crd["spec"]["names"]["kind"].as_str().unwrap())
}

const TRIES_MAX: usize = 50;

/// The published definition without what every object has.
async fn published(server: &TestServer, name: &str) -> Option<Value> {
    let mut found = server.get("/openapi/v2").await.expect(200)["definitions"].get(name)?.clone();
    found.as_object_mut().unwrap().remove("x-kubernetes-group-version-kind");
    if let Some(properties) = found.get_mut("properties").and_then(Value::as_object_mut) {
        ["apiVersion", "kind", "metadata"].iter().for_each(|field| drop(properties.remove(*field)));
        if properties.is_empty() {
            found.as_object_mut().unwrap().remove("properties");
        }
    }
    Some(found)
}

/// The document is made anew after each change, which takes its time where nothing is optimised: it is asked for without haste.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..TRIES_MAX {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("waited in vain for {what}")
}

async fn is_published(server: &TestServer, crd: &Value, version: &str, schema: &Value) {
    let name = name(crd, version);
    let found = eventually(&name, async || published(server, &name).await).await;
    assert_eq!(&found, schema, "{found:#}");
}

async fn is_withdrawn(server: &TestServer, crd: &Value, version: &str) {
    let name = name(crd, version);
    eventually(&name, async || published(server, &name).await.is_none().then_some(())).await;
}

async fn clean_up(server: &TestServer, crd: &Value, versions: &[&str]) {
    server.delete(&path(crd)).await.expect(200);
    for version in versions {
        is_withdrawn(server, crd, version).await;
    }
}

/// `[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of different groups [Conformance]`
/// `[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group but different versions [Conformance]`
/// `[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for multiple CRDs of same group and version but different kinds [Conformance]`
#[tokio::test]
async fn several_definitions_are_published() {
    let server = TestServer::memory().await;
    let (foo, waldo) = (foo(), waldo("Waldo CRD for Testing"));
    for (groups, versions) in
        [(["foo", "waldo"], ["v1", "v1beta1"]), (["common-group"; 2], ["v4", "v5"]), (["common-group"; 2], ["v6", "v6"])]
    {
        let first = definition("one", groups[0], &foo, &versions[..1]);
        let second = definition("two", groups[1], &waldo, &versions[1..]);
        establish(&server, first.clone()).await;
        establish(&server, second.clone()).await;
        is_published(&server, &second, versions[1], &waldo).await;
        is_published(&server, &first, versions[0], &foo).await;
        clean_up(&server, &first, &versions[..1]).await;
        is_published(&server, &second, versions[1], &waldo).await;
        clean_up(&server, &second, &versions[1..]).await;
    }
    let both = definition("multi", "multi-ver", &foo, &["v2", "v3"]);
    establish(&server, both.clone()).await;
    is_published(&server, &both, "v3", &foo).await;
    is_published(&server, &both, "v2", &foo).await;
    clean_up(&server, &both, &["v2", "v3"]).await;
}

/// `[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] updates the published spec when one version gets renamed [Conformance]`
/// `[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] removes definition from spec when one version gets changed to not be served [Conformance]`
#[tokio::test]
async fn what_is_published_follows_the_versions() {
    let server = TestServer::memory().await;
    let foo = foo();
    let crd = definition("multi", "multi-ver", &foo, &["v2", "v3"]);
    establish(&server, crd.clone()).await;
    is_published(&server, &crd, "v3", &foo).await;
    is_published(&server, &crd, "v2", &foo).await;
    let patch = json!([{"op": "test", "path": "/spec/versions/1/name", "value": "v3"}, {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}]);
    let request = http::Request::builder().method("PATCH").uri(path(&crd)).header("content-type", "application/json-patch+json");
    Answer::of(server.send(Some(User::admin()), request.body(Body::from(patch.to_string())).unwrap()).await).await.expect(200);
    is_published(&server, &crd, "v4", &foo).await;
    is_withdrawn(&server, &crd, "v3").await;
    is_published(&server, &crd, "v2", &foo).await;
    clean_up(&server, &crd, &["v2", "v4"]).await;

    let crd = definition("multi", "multi-to-single-ver", &foo, &["v5", "v6alpha1"]);
    establish(&server, crd.clone()).await;
    is_published(&server, &crd, "v6alpha1", &foo).await;
    is_published(&server, &crd, "v5", &foo).await;
    let mut current = server.get(&path(&crd)).await.expect(200);
    current["spec"]["versions"][1]["served"] = json!(false);
    server.put(&path(&crd), current).await.expect(200);
    is_withdrawn(&server, &crd, "v6alpha1").await;
    is_published(&server, &crd, "v5", &foo).await;
    clean_up(&server, &crd, &["v5"]).await;
}

/// Creates and applies an object, and deletes it each time.
async fn create_and_apply(listening: &Listening, crd: &Value, rest: Value) {
    let mut object = json!({"kind": crd["spec"]["names"]["kind"], "metadata": {"name": "test-cr"},
        "apiVersion": format!("{}/v1", crd["spec"]["group"].as_str().unwrap())});
    rest.as_object().unwrap().iter().for_each(|(name, value)| object[name] = value.clone());
    let plural = crd["spec"]["names"]["plural"].as_str().unwrap();
    for verb in ["create", "apply"] {
        listening.ok(&format!("{verb} -f -"), &object).await;
        listening.ok(&format!("delete {plural} test-cr"), &Value::Null).await;
    }
}

/// What `explain` says has these words, one after the other.
async fn explains(listening: &Listening, what: &str, words: &[&str]) {
    let text = listening.ok(&format!("explain {what}"), &Value::Null).await;
    let mut rest = text.as_str();
    for word in words {
        let at = rest.find(word).unwrap_or_else(|| panic!("{word:?} is not where it should be in {text}"));
        rest = &rest[at + word.len()..];
    }
}

/// `[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD with validation schema [Conformance]`
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_knows_a_kind_with_a_schema() {
    for kubectl in kubectls() {
        let listening = listen(&kubectl).await;
        let crd = definition("foo", "foo", &foo(), &["v1"]);
        establish(&listening.server, crd.clone()).await;
        is_published(&listening.server, &crd, "v1", &foo()).await;
        create_and_apply(&listening, &crd, json!({"spec": {"bars": [{"name": "test-bar"}]}})).await;
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap().to_owned();
        explains(
            &listening,
            &plural,
            &[
                "DESCRIPTION:",
                "Foo CRD for Testing",
                "FIELDS:",
                "apiVersion",
                "<string>",
                "APIVersion defines",
                "spec",
                "<Object>",
                "Specification of Foo",
            ],
        )
        .await;
        let metadata = [
            "DESCRIPTION:",
            "Standard object's metadata",
            "FIELDS:",
            "creationTimestamp",
            "<string>",
            "CreationTimestamp is a timestamp",
        ];
        explains(&listening, &format!("{plural}.metadata"), &metadata).await;
        let spec = ["DESCRIPTION:", "Specification of Foo", "FIELDS:", "bars", "<[]Object>", "List of Bars and their specs"];
        explains(&listening, &format!("{plural}.spec"), &spec).await;
        let bars = [
            "bars",
            "<[]Object>",
            "DESCRIPTION:",
            "List of Bars and their specs",
            "FIELDS:",
            "bazs",
            "<[]string>",
            "List of Bazs",
            "name",
            "<string>",
            "Name of Bar",
        ];
        explains(&listening, &format!("{plural}.spec.bars"), &bars).await;
        let (code, text) = listening.run(&["explain", &format!("{plural}.spec.bars2")], "").await;
        assert!(code != 0 && text.contains("field \"bars2\" does not exist"), "{text}");
        clean_up(&listening.server, &crd, &["v1"]).await;
    }
}

/// `[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD without validation schema [Conformance]`
/// `[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields at the schema root [Conformance]`
/// `[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin] works for CRD preserving unknown fields in an embedded object [Conformance]`
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_accepts_unknown_fields_where_they_are_kept() {
    for kubectl in kubectls() {
        let listening = listen(&kubectl).await;
        let anything = json!({"a": {"b": [{"c": "d"}]}});
        let crd = definition("empty", "empty", &json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), &["v1"]);
        establish(&listening.server, crd.clone()).await;
        // Without properties nothing is said of it.
        is_published(&listening.server, &crd, "v1", &json!({"type": "object"})).await;
        create_and_apply(&listening, &crd, anything.clone()).await;
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap().to_owned();
        explains(&listening, &plural, &["DESCRIPTION:", "<empty>"]).await;
        clean_up(&listening.server, &crd, &["v1"]).await;

        let crd =
            definition("root", "unknown-at-root", &free(waldo("preserve-unknown-properties at root for Testing"), ""), &["v1"]);
        establish(&listening.server, crd.clone()).await;
        let named = name(&crd, "v1");
        eventually("its schema", async || published(&listening.server, &named).await).await;
        create_and_apply(&listening, &crd, anything.clone()).await;
        let (plural, kind) = (crd["spec"]["names"]["plural"].as_str().unwrap(), crd["spec"]["names"]["kind"].as_str().unwrap());
        explains(&listening, plural, &["KIND:", kind]).await;
        clean_up(&listening.server, &crd, &["v1"]).await;

        let description = "preserve-unknown-properties in nested field for Testing";
        let crd = definition("nested", "unknown-in-nested", &free(waldo(description), "/properties/spec"), &["v1"]);
        establish(&listening.server, crd.clone()).await;
        let named = name(&crd, "v1");
        eventually("its schema", async || published(&listening.server, &named).await).await;
        create_and_apply(&listening, &crd, json!({"spec": {"a": null, "b": [{"c": "d"}]}})).await;
        explains(&listening, crd["spec"]["names"]["plural"].as_str().unwrap(), &["DESCRIPTION:", description]).await;
        clean_up(&listening.server, &crd, &["v1"]).await;
    }
}
