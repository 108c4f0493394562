//! Dynamic resource allocation: the operations of its kinds, as the conformance suite does them, and who may ask for what.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer, Watch};

const GROUP: &str = "/apis/resource.k8s.io/v1";
const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
const MARK: &str = "labelSelector=e2e-test.kubernetes.io%3Dcrud";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// One kind's part of the suite's `TestResource`.
struct Case {
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
    spec: Value,
    update: fn(&mut Value),
    /// By content type. Those of an object get its name and UID, as the suite's do.
    patches: Vec<(&'static str, Value)>,
    status: Option<fn(&mut Value)>,
    status_patches: Vec<(&'static str, Value)>,
}

struct Crud {
    server: TestServer,
    case: Case,
    watches: Vec<Watch>,
}

impl Crud {
    async fn run(case: Case) {
        let server = TestServer::memory().await;
        let mut crud = Crud { server, case, watches: vec![] };
        crud.discover_and_watch().await;
        crud.create_and_update().await;
        for (kind, patch) in crud.case.patches.clone() {
            crud.start_anew().await;
            crud.patch(kind, "", &patch).await;
        }
        for (kind, patch) in crud.case.status_patches.clone() {
            crud.start_anew().await;
            let read = crud.read("").await;
            crud.put(read, crud.case.update, "").await;
            let patched = crud.patch(kind, "/status", &patch).await;
            assert_eq!(patched["status"]["allocation"], json!({}), "{kind}");
        }
        crud.list_and_delete().await;
    }

    fn collection(&self) -> String {
        let place = if self.case.namespaced { "/namespaces/default" } else { "" };
        format!("{GROUP}{place}/{}", self.case.plural)
    }

    fn path(&self) -> String {
        format!("{}/test", self.collection())
    }

    async fn discover_and_watch(&mut self) {
        let resources = self.server.get(GROUP).await.expect(200);
        let told = |name: &str| resources["resources"].as_array().unwrap().iter().any(|one| one["name"] == name);
        assert!(told(self.case.plural));
        assert_eq!(told(&format!("{}/status", self.case.plural)), self.case.status.is_some());
        let mut places = vec![format!("{GROUP}/{}", self.case.plural)];
        if self.case.namespaced {
            places.push(self.collection());
        }
        for place in places {
            let list = self.server.get(&format!("{place}?{MARK}")).await.expect(200);
            assert_eq!(list["items"], json!([]));
            let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
            self.watches.push(self.server.watch(&format!("{place}?watch=1&{MARK}&resourceVersion={revision}")).await);
        }
    }

    /// Every informer is told of it.
    async fn told(&mut self, event: &str) {
        for watch in &mut self.watches {
            assert_eq!(watch.brief().await, format!("{event} test"));
        }
    }

    async fn create(&mut self) -> Value {
        let object = json!({"apiVersion": "resource.k8s.io/v1", "kind": self.case.kind,
            "metadata": {"name": "test", "labels": {"e2e-test.kubernetes.io": "crud"}}, "spec": self.case.spec});
        let made = self.server.post(&format!("{}?fieldValidation=Strict", self.collection()), object).await.expect(201);
        self.told("ADDED").await;
        made
    }

    async fn read(&self, subresource: &str) -> Value {
        self.server.get(&format!("{}{subresource}", self.path())).await.expect(200)
    }

    async fn put(&mut self, mut object: Value, change: fn(&mut Value), subresource: &str) -> Value {
        let before = revision(&object);
        change(&mut object);
        let written = self.server.put(&format!("{}{subresource}", self.path()), object).await.expect(200);
        assert!(revision(&written) > before);
        self.told("MODIFIED").await;
        written
    }

    async fn create_and_update(&mut self) {
        let made = self.create().await;
        let read = self.read("").await;
        assert_eq!(read, made);
        let mut wanted = read.clone();
        (self.case.update)(&mut wanted);
        let updated = self.put(read, self.case.update, "").await;
        for field in ["spec", "status"] {
            assert_eq!(updated.get(field), wanted.get(field));
        }
        assert_eq!(updated["metadata"]["labels"], wanted["metadata"]["labels"]);
        if let Some(change) = self.case.status {
            let written = self.put(updated, change, "/status").await;
            assert_eq!(self.read("/status").await, written);
        }
    }

    async fn start_anew(&mut self) {
        self.server.delete(&self.path()).await.expect(200);
        self.server.get(&self.path()).await.expect_status(404, "NotFound");
        self.told("DELETED").await;
        self.create().await;
    }

    async fn patch(&mut self, kind: &str, subresource: &str, patch: &Value) -> Value {
        let read = self.read("").await;
        let mut patch = patch.clone();
        if kind != JSON_PATCH {
            for field in ["apiVersion", "kind"] {
                patch[field] = read[field].clone();
            }
            for field in ["name", "uid", "namespace"].iter().filter(|field| read["metadata"].get(**field).is_some()) {
                patch["metadata"][*field] = read["metadata"][*field].clone();
            }
        }
        let force = if kind == APPLY { "&fieldManager=test-apply&force=true" } else { "" };
        let path = format!("{}{subresource}?fieldValidation=Strict{force}", self.path());
        let patched = patch_as(&self.server, kind, &path, &patch).await.expect(200);
        assert!(revision(&patched) > revision(&read), "{kind}");
        if subresource.is_empty() {
            let mut wanted = read;
            (self.case.update)(&mut wanted);
            assert_eq!(patched["spec"], wanted["spec"], "{kind}");
            assert_eq!(patched["metadata"]["labels"], wanted["metadata"]["labels"], "{kind}");
        }
        self.told("MODIFIED").await;
        patched
    }

    async fn list_and_delete(&mut self) {
        let places = [self.collection(), format!("{GROUP}/{}", self.case.plural)];
        for place in places {
            let list = self.server.get(&format!("{place}?{MARK}")).await.expect(200);
            assert_eq!(list["items"].as_array().unwrap().len(), 1, "{place}");
        }
        self.server.delete(&format!("{}?{MARK}", self.collection())).await.expect(200);
        self.server.get(&self.path()).await.expect_status(404, "NotFound");
        self.told("DELETED").await;
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

async fn patch_as(server: &TestServer, kind: &str, path: &str, patch: &Value) -> Answer {
    let request = Request::builder().method("PATCH").uri(path).header("content-type", kind);
    Answer::of(server.send(Some(User::admin()), request.body(Body::from(patch.to_string())).unwrap()).await).await
}

fn label(object: &mut Value) {
    object["metadata"]["labels"]["test.dra.example.com"] = json!("test");
}

fn label_patch() -> Value {
    json!({"metadata": {"labels": {"test.dra.example.com": "test"}}})
}

fn claim_spec() -> Value {
    json!({"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": "dra.example.com"}}]}})
}

/// `[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass [Conformance]`
#[tokio::test]
async fn device_classes() {
    let selectors = |expression: &str| json!({"selectors": [{"cel": {"expression": expression}}]});
    Crud::run(Case {
        plural: "deviceclasses",
        kind: "DeviceClass",
        namespaced: false,
        spec: selectors("false"),
        update: |class| class["spec"]["selectors"][0]["cel"]["expression"] = json!("1 == 0"),
        patches: vec![(STRATEGIC, json!({"spec": selectors("1 == 0")}))],
        status: None,
        status_patches: vec![],
    })
    .await;
}

/// `[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim [Conformance]`
#[tokio::test]
async fn resource_claims() {
    let add = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
    let status = json!({"status": {"allocation": {}}});
    Crud::run(Case {
        plural: "resourceclaims",
        kind: "ResourceClaim",
        namespaced: true,
        spec: claim_spec(),
        update: label,
        patches: vec![
            (STRATEGIC, label_patch()),
            (APPLY, label_patch()),
            (MERGE, label_patch()),
            (JSON_PATCH, add("/metadata/labels/test.dra.example.com", json!("test"))),
        ],
        status: Some(|claim| claim["status"]["allocation"] = json!({})),
        status_patches: vec![
            (STRATEGIC, status.clone()),
            (APPLY, status.clone()),
            (MERGE, status),
            (JSON_PATCH, add("/status/allocation", json!({}))),
        ],
    })
    .await;
}

/// `[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate [Conformance]`
#[tokio::test]
async fn resource_claim_templates() {
    Crud::run(Case {
        plural: "resourceclaimtemplates",
        kind: "ResourceClaimTemplate",
        namespaced: true,
        spec: json!({"spec": claim_spec()}),
        update: label,
        patches: vec![(STRATEGIC, label_patch())],
        status: None,
        status_patches: vec![],
    })
    .await;
}

/// `[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice [Conformance]`
#[tokio::test]
async fn resource_slices() {
    let pool = json!({"name": "cluster", "generation": 1, "resourceSliceCount": 1});
    Crud::run(Case {
        plural: "resourceslices",
        kind: "ResourceSlice",
        namespaced: false,
        spec: json!({"driver": "dra.example.com", "pool": pool, "nodeName": "no-such-node"}),
        update: |slice| slice["spec"]["devices"] = json!([{"name": "device-0"}]),
        patches: vec![(STRATEGIC, json!({"spec": {"devices": [{"name": "device-0"}]}}))],
        status: None,
        status_patches: vec![],
    })
    .await;
}

#[tokio::test]
async fn a_claim_is_checked_and_stays() {
    let server = TestServer::memory().await;
    let claim = |spec: Value| json!({"metadata": {"name": "c"}, "spec": spec});
    let message = server
        .post(
            CLAIMS,
            claim(json!({"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "gpu",
        "selectors": [{"cel": {"expression": "device.drivr == 'a'"}}]}}]}})),
        )
        .await
        .expect_status(422, "Invalid");
    let at = "spec.devices.requests[0].exactly.selectors[0].cel.expression";
    assert!(message.contains(&format!("{at}: Invalid value: \"device.drivr == 'a'\": compilation failed: ERROR")), "{message}");
    let mut made = server.post(CLAIMS, claim(claim_spec())).await.expect(201);
    let request = &made["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!((&request["allocationMode"], &request["count"]), (&json!("ExactCount"), &json!(1)));
    made["spec"]["devices"]["requests"][0]["name"] = json!("other");
    let message = server.put(&format!("{CLAIMS}/c"), made).await.expect_status(422, "Invalid");
    assert!(message.contains("field is immutable"), "{message}");
    let table = server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io", CLAIMS).await.expect(200);
    assert_eq!(table["rows"][0]["cells"][1], "pending");
}

#[tokio::test]
async fn admin_access_is_for_namespaces_that_are_labelled() {
    let server = TestServer::memory().await;
    let spec = json!({"devices": {"requests": [
        {"name": "a", "exactly": {"deviceClassName": "gpu"}}, {"name": "b", "exactly": {"deviceClassName": "gpu", "adminAccess": true}},
    ]}});
    let wishes = [
        (CLAIMS, json!({"metadata": {"name": "c"}, "spec": spec})),
        (
            "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates",
            json!({"metadata": {"name": "t"}, "spec": {"spec": spec}}),
        ),
    ];
    for (collection, wish) in &wishes {
        let message = server.post(collection, wish.clone()).await.expect_status(422, "Invalid");
        let why =
            "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
        assert!(message.ends_with(&format!("spec.devices.requests[1].adminAccess: Forbidden: {why}")), "{message}");
    }
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    server.patch("/api/v1/namespaces/default", label).await.expect(200);
    for (collection, wish) in wishes {
        server.post(collection, wish).await.expect(201);
    }
}

#[tokio::test]
async fn a_node_offers_its_own_devices() {
    let server = TestServer::memory().await;
    let node = |name: &str| User::new(&format!("system:node:{name}"), &["system:nodes"]);
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let slice = |name: &str, node: &str| {
        let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
        json!({"metadata": {"name": name}, "spec": {"driver": "gpu.io", "pool": pool, "nodeName": node}})
    };
    let message = server.call_as(node("n1"), "POST", slices, Some(&slice("a", "n2"))).await.expect_status(403, "Forbidden");
    assert!(message.ends_with("can only create ResourceSlice with the same NodeName as the requesting node"), "{message}");
    server.call_as(node("n1"), "POST", slices, Some(&slice("a", "n1"))).await.expect(201);
    server.post(slices, slice("b", "n2")).await.expect(201);
    server.call_as(node("n1"), "GET", &format!("{slices}/a"), None).await.expect(200);
    let message = server.call_as(node("n1"), "GET", &format!("{slices}/b"), None).await.expect_status(403, "Forbidden");
    assert!(message.ends_with("no relationship found between node 'n1' and this object"), "{message}");
    let own = format!("{slices}?fieldSelector=spec.nodeName%3Dn1");
    let list = server.call_as(node("n1"), "GET", &own, None).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let message = server.call_as(node("n1"), "GET", slices, None).await.expect_status(403, "Forbidden");
    assert!(message.contains("can only list/watch/deletecollection resourceslices with nodeName field selector"), "{message}");
    server.call_as(node("n1"), "DELETE", &own, None).await.expect(200);
    assert_eq!(server.get(slices).await.expect(200)["items"].as_array().unwrap().len(), 1, "the other node's is there");

    // And it reads the claims of its pods, whoever made them.
    for name in ["named", "made", "other"] {
        server.post(CLAIMS, json!({"metadata": {"name": name}, "spec": claim_spec()})).await.expect(201);
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
        "resourceClaims": [{"name": "x", "resourceClaimName": "named"}, {"name": "y", "resourceClaimTemplateName": "t"}],
    }});
    server.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    let status = json!({"status": {"resourceClaimStatuses": [{"name": "y", "resourceClaimName": "made"}]}});
    server.patch("/api/v1/namespaces/default/pods/p/status", status).await.expect(200);
    for (name, code) in [("named", 200), ("made", 200), ("other", 403)] {
        server.call_as(node("n1"), "GET", &format!("{CLAIMS}/{name}"), None).await.expect(code);
    }
    server.call_as(node("n2"), "GET", &format!("{CLAIMS}/named"), None).await.expect_status(403, "Forbidden");
}
