//! CustomResourceDefinitions and their objects, over the real router.

use serde_json::{Value, json};
use slipway_tests::{TestServer, eventually};

pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

/// A definition of `crontabs.stable.example.com` with this schema of `spec`.
pub fn definition(spec: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.selector"}},
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec", "description": "When."},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": spec, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    })
}

fn cron_spec() -> Value {
    json!({"type": "object", "required": ["cronSpec"], "properties": {
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "image": {"type": "string", "default": "cron:1"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
        "items": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
    }})
}

pub async fn establish(server: &TestServer, definition: Value) {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    server.post(CRDS, definition).await.expect(201);
    established(server, &name).await;
}

async fn established(server: &TestServer, name: &str) {
    eventually("the definition to be established", || async {
        let object = server.get(&format!("{CRDS}/{name}")).await.body;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True").then_some(())
    })
    .await;
}

fn tab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

async fn server() -> TestServer {
    let server = TestServer::memory().await;
    establish(&server, definition(cron_spec())).await;
    server
}

#[tokio::test]
async fn definitions_come_and_go() {
    let server = server().await;
    let list = server.get(CRDS).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let object = server.get(&format!("{CRDS}/crontabs.stable.example.com")).await.expect(200);
    assert_eq!(object["status"]["acceptedNames"]["listKind"], "CronTabList");
    assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
    let resources = server.get("/apis/stable.example.com/v1").await.expect(200);
    let names: Vec<&str> = resources["resources"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["crontabs", "crontabs/scale", "crontabs/status"]);
    assert!(server.get("/apis").await.body["groups"].to_string().contains("stable.example.com"));
    let apiextensions = server.get("/apis/apiextensions.k8s.io/v1").await.expect(200);
    assert!(apiextensions["resources"].to_string().contains("\"customresourcedefinitions\""));

    server.post(TABS, tab("a", json!({"cronSpec": "* * * * */5"}))).await.expect(201);
    server.delete(&format!("{CRDS}/crontabs.stable.example.com")).await.expect(200);
    eventually("the definition to go", || async {
        (server.get(&format!("{CRDS}/crontabs.stable.example.com")).await.code == 404).then_some(())
    })
    .await;
    assert_eq!(server.get(TABS).await.code, 404);
    assert!(!server.get("/apis").await.body["groups"].to_string().contains("stable.example.com"));
    // Its objects are gone, and do not come back with it.
    establish(&server, definition(cron_spec())).await;
    assert_eq!(server.get(TABS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn objects_are_pruned_defaulted_and_validated() {
    let server = server().await;
    let made = server.post(TABS, tab("a", json!({"cronSpec": "* * * * */5", "unknown": 1}))).await.expect(201);
    assert_eq!(made["spec"], json!({"cronSpec": "* * * * */5", "image": "cron:1"}));
    assert_eq!(made["metadata"]["generation"], 1);
    let strict = format!("{TABS}?fieldValidation=Strict");
    let message =
        server.post(&strict, tab("b", json!({"cronSpec": "* * * * *", "unknown": 1}))).await.expect_status(400, "BadRequest");
    assert_eq!(
        message,
        "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.unknown\""
    );
    let message = server.post(TABS, tab("b", json!({"cronSpec": "x", "replicas": "3", "items": ["a", "a"]}))).await;
    let message = message.expect_status(422, "Invalid");
    assert!(message.starts_with("CronTab.stable.example.com \"b\" is invalid: ["), "{message}");
    for part in [
        "spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match",
        "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        "spec.items[1]: Duplicate value: \"a\"",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let message = server.post(TABS, tab("b", json!({}))).await.expect_status(422, "Invalid");
    assert_eq!(message, "CronTab.stable.example.com \"b\" is invalid: spec.cronSpec: Required value");

    // A default that comes later is there for what was stored before.
    let mut spec = cron_spec();
    spec["properties"]["later"] = json!({"type": "string", "default": "yes"});
    let path = format!("{CRDS}/crontabs.stable.example.com");
    let mut object = server.get(&path).await.body;
    object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = spec;
    server.put(&path, object).await.expect(200);
    eventually("the default of the new schema", || async {
        (server.get(&format!("{TABS}/a")).await.body["spec"]["later"] == "yes").then_some(())
    })
    .await;
    assert_eq!(server.get(TABS).await.body["items"][0]["spec"]["later"], "yes");
    let mut watch = server.watch(&format!("{TABS}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["spec"]["later"], "yes");
}

#[tokio::test]
async fn status_and_scale_are_apart() {
    let server = server().await;
    server.post(TABS, tab("a", json!({"cronSpec": "* * * * *", "replicas": 2}))).await.expect(201);
    let one = format!("{TABS}/a");
    let patched = server.patch(&one, json!({"status": {"replicas": 9}, "spec": {"replicas": 3}})).await.expect(200);
    assert!(patched.get("status").is_none());
    assert_eq!(patched["metadata"]["generation"], 2);
    let both = json!({"status": {"replicas": 1, "selector": "a=b"}, "spec": {"replicas": 7}});
    let patched = server.patch(&format!("{one}/status"), both).await.expect(200);
    assert_eq!((&patched["status"]["replicas"], &patched["spec"]["replicas"]), (&json!(1), &json!(3)));
    assert_eq!(patched["metadata"]["generation"], 2);
    let scale = server.get(&format!("{one}/scale")).await.expect(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]), (&json!(3), &json!({"replicas": 1, "selector": "a=b"})));
    server.patch(&format!("{one}/scale"), json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(server.get(&one).await.body["spec"]["replicas"], 5);
    let crd = format!("{CRDS}/crontabs.stable.example.com/status");
    let body = server.get(&crd).await.expect(200);
    assert_eq!(body["kind"], "CustomResourceDefinition");
    let mut conditions = body["status"]["conditions"].clone();
    let extra = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    conditions.as_array_mut().unwrap().push(extra);
    let patched = server.patch(&crd, json!({"status": {"conditions": conditions}})).await.expect(200);
    assert!(patched["status"]["conditions"].to_string().contains("StatusUpdate"));
}

#[tokio::test]
async fn tables_apply_and_patches() {
    let server = server().await;
    server.post(TABS, tab("a", json!({"cronSpec": "* * * * *"}))).await.expect(201);
    let table = server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", TABS).await.expect(200);
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(columns, ["Name", "Spec", "Age"]);
    assert_eq!(table["rows"][0]["cells"][1], "* * * * *");
    let patch = |content_type: &'static str, path: String, body: Value| {
        let server = &server;
        async move {
            let request = http::Request::builder().method("PATCH").uri(path).header("content-type", content_type);
            let response =
                server.send(Some(slipway_apiserver::User::admin()), request.body(body.to_string().into()).unwrap()).await;
            slipway_tests::Answer::of(response).await
        }
    };
    let answer = patch("application/strategic-merge-patch+json", format!("{TABS}/a"), json!({})).await;
    let message = answer.expect_status(415, "UnsupportedMediaType");
    assert!(
        message.ends_with("application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"),
        "{message}"
    );
    let applied = patch(
        "application/apply-patch+yaml",
        format!("{TABS}/a?fieldManager=one&force=true"),
        tab("a", json!({"cronSpec": "*/2 * * * *", "items": ["x"]})),
    );
    let applied = applied.await.expect(200);
    assert_eq!(applied["spec"]["items"], json!(["x"]));
    let applied = patch("application/apply-patch+yaml", format!("{TABS}/a?fieldManager=two"), tab("a", json!({"items": ["y"]})));
    assert_eq!(applied.await.expect(200)["spec"]["items"], json!(["x", "y"]), "a set is merged by its items");
}

#[tokio::test]
async fn a_name_is_given_once() {
    let server = server().await;
    let mut other = definition(cron_spec());
    other["metadata"]["name"] = json!("others.stable.example.com");
    other["spec"]["names"] = json!({"plural": "others", "kind": "CronTab"});
    server.post(CRDS, other).await.expect(201);
    let object = eventually("the names to be refused", || async {
        let object = server.get(&format!("{CRDS}/others.stable.example.com")).await.body;
        object["status"]["conditions"].as_array().is_some_and(|all| !all.is_empty()).then_some(object)
    })
    .await;
    let names = object["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "NamesAccepted").unwrap();
    assert_eq!((&names["status"], &names["reason"]), (&json!("False"), &json!("ListKindConflict")));
    assert_eq!(server.get("/apis/stable.example.com/v1/others").await.code, 404);
}

#[tokio::test]
async fn schemas_are_published_and_withdrawn() {
    let server = server().await;
    let index = server.get("/openapi/v3").await.expect(200);
    let path = index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = server.get(&path).await.expect(200);
    let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(schema["properties"]["spec"]["properties"]["image"]["default"], "cron:1");
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": "stable.example.com", "version": "v1", "kind": "CronTab"}])
    );
    // kubectl would send a strategic merge patch, which no custom kind takes, if it stood here.
    let patch = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"];
    let types: Vec<&String> = patch["requestBody"]["content"].as_object().unwrap().keys().collect();
    assert_eq!(types, ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]);
    let v2 = server.get("/openapi/v2").await.expect(200);
    let schema = &v2["definitions"]["com.example.stable.v1.CronTab"];
    assert!(schema["properties"]["spec"]["properties"]["cronSpec"].is_object());
    assert_eq!(schema["properties"]["metadata"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    server.delete(&format!("{CRDS}/crontabs.stable.example.com")).await.expect(200);
    eventually("the schema to go", || async {
        let index = server.get("/openapi/v3").await.body;
        index["paths"].get("apis/stable.example.com/v1").is_none().then_some(())
    })
    .await;
    assert!(server.get("/openapi/v2").await.body["definitions"].get("com.example.stable.v1.CronTab").is_none());
}

#[tokio::test]
async fn fields_that_are_selectable_select() {
    let server = TestServer::memory().await;
    let mut crd = definition(cron_spec());
    crd["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.image"}]);
    establish(&server, crd).await;
    let mut watch = server.watch(&format!("{TABS}?watch=1&fieldSelector=spec.image%3Da")).await;
    for (name, image) in [("one", "a"), ("two", "b")] {
        server.post(TABS, tab(name, json!({"cronSpec": "* * * * *", "image": image}))).await.expect(201);
    }
    let list = server.get(&format!("{TABS}?fieldSelector=spec.image%3Da")).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(watch.brief().await, "ADDED one");
    server.patch(&format!("{TABS}/one"), json!({"spec": {"image": "c"}})).await.expect(200);
    assert_eq!(watch.brief().await, "DELETED one");
    assert_eq!(server.get(&format!("{TABS}?fieldSelector=spec.cronSpec%3Da")).await.code, 400);
}

#[tokio::test]
async fn rules_are_held() {
    let server = TestServer::memory().await;
    let with = |rule: &str| {
        let mut spec = cron_spec();
        spec["x-kubernetes-validations"] = json!([{"rule": rule, "message": "no"}]);
        definition(spec)
    };
    server.post(CRDS, with("self.nothing > 1")).await.expect_status(422, "Invalid");
    server.post(CRDS, with("self = 1")).await.expect_status(422, "Invalid");
    establish(&server, with("!has(self.replicas) || !has(oldSelf.replicas) || self.replicas >= oldSelf.replicas")).await;
    server.post(TABS, tab("a", json!({"cronSpec": "* * * * *", "replicas": 2}))).await.expect(201);
    server.patch(&format!("{TABS}/a"), json!({"spec": {"replicas": 3}})).await.expect(200);
    let message = server.patch(&format!("{TABS}/a"), json!({"spec": {"replicas": 1}})).await.expect_status(422, "Invalid");
    assert_eq!(message, "CronTab.stable.example.com \"a\" is invalid: spec: Invalid value: no");
}

/// `[sig-api-machinery] CustomResourceDefinition Ratcheting`: what was there before a schema became stricter may stay.
#[tokio::test]
async fn what_did_not_change_stays_valid() {
    let server = server().await;
    server.post(TABS, tab("a", json!({"cronSpec": "* * * * *", "image": "old"}))).await.expect(201);
    let path = format!("{CRDS}/crontabs.stable.example.com");
    let mut object = server.get(&path).await.body;
    object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["image"]["enum"] =
        json!(["cron:1", "new"]);
    server.put(&path, object).await.expect(200);
    eventually("the new schema", || async {
        (server.post(TABS, tab("b", json!({"cronSpec": "* * * * *", "image": "old"}))).await.code == 422).then_some(())
    })
    .await;
    server.patch(&format!("{TABS}/a"), json!({"spec": {"replicas": 2}})).await.expect(200);
    server.patch(&format!("{TABS}/a"), json!({"spec": {"image": "other"}})).await.expect_status(422, "Invalid");
}
