//! Every verb on every kind that the conformance suite asks for: discovery, create, get, list, watch, patch, update, the status,
//! delete, and delete of a collection.

use serde_json::{Value, json};
use slipway_tests::TestServer;

/// Label of the objects that a test makes.
const MARK: &str = "labelSelector=test%3Doperations";

pub struct Operations {
    server: TestServer,
    /// `/apis/GROUP/VERSION`.
    group: &'static str,
    namespaced: bool,
    plural: &'static str,
}

impl Operations {
    pub async fn of(group: &'static str, plural: &'static str) -> Operations {
        let server = TestServer::memory().await;
        let resources = server.get(group).await.expect(200);
        let all = resources["resources"].as_array().unwrap();
        let told = all.iter().find(|one| one["name"] == plural).unwrap_or_else(|| panic!("{plural} is not told of"));
        let verbs: Vec<&str> = told["verbs"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for verb in ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"] {
            assert!(verbs.contains(&verb), "{plural}: {verb}");
        }
        if let Some(group) = group.strip_prefix("/apis/") {
            let group = group.split('/').next().unwrap();
            let groups = server.get("/apis").await.expect(200);
            assert!(groups["groups"].as_array().unwrap().iter().any(|one| one["name"] == group), "{group} is not told of");
            assert_eq!(server.get(&format!("/apis/{group}")).await.expect(200)["name"], group);
        }
        Operations { server, group, namespaced: told["namespaced"] == true, plural }
    }

    fn collection(&self) -> String {
        let place = if self.namespaced { "/namespaces/default" } else { "" };
        format!("{}{place}/{}", self.group, self.plural)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.collection())
    }

    /// The whole life of three objects like `sample`. With a patch of the status, that is read, patched and replaced too.
    pub async fn exercise(&self, sample: Value, status: Option<Value>) {
        let (server, collection) = (&self.server, self.collection());
        let mut first = Value::Null;
        for name in ["one", "two", "three"] {
            let mut object = sample.clone();
            object["metadata"] = json!({"name": name, "labels": {"test": "operations"}});
            let made = server.post(&collection, object).await.expect(201);
            if name == "one" {
                first = made;
            }
        }
        let read = server.get(&self.path("one")).await.expect(200);
        assert_eq!(read, first);
        let list = server.get(&format!("{collection}?{MARK}")).await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), 3);
        if self.namespaced {
            let everywhere = server.get(&format!("{}/{}?{MARK}", self.group, self.plural)).await.expect(200);
            assert_eq!(everywhere["items"].as_array().unwrap().len(), 3);
        }
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
        let mut watch = server.watch(&format!("{collection}?watch=1&{MARK}&resourceVersion={revision}")).await;

        let patched =
            server.patch(&self.path("one"), json!({"metadata": {"annotations": {"patched": "true"}}})).await.expect(200);
        assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
        assert!(revision_of(&patched) > revision_of(&read));
        assert_eq!(watch.next().await.unwrap(), json!({"type": "MODIFIED", "object": patched}));
        let mut wanted = patched.clone();
        wanted["metadata"]["annotations"]["updated"] = json!("true");
        let updated = server.put(&self.path("one"), wanted).await.expect(200);
        assert_eq!(updated["metadata"]["annotations"], json!({"patched": "true", "updated": "true"}));
        assert_eq!(watch.next().await.unwrap(), json!({"type": "MODIFIED", "object": updated}));
        server.put(&self.path("one"), patched).await.expect_status(409, "Conflict");
        if let Some(status) = status {
            self.exercise_status(&status).await;
            for _ in 0..2 {
                assert_eq!(watch.brief().await, "MODIFIED one");
            }
        }

        server.delete(&self.path("one")).await.expect(200);
        assert_eq!(watch.brief().await, "DELETED one");
        server.get(&self.path("one")).await.expect_status(404, "NotFound");
        assert_eq!(server.get(&format!("{collection}?{MARK}")).await.expect(200)["items"].as_array().unwrap().len(), 2);
        server.delete(&format!("{collection}?{MARK}")).await.expect(200);
        assert!(server.get(&format!("{collection}?{MARK}")).await.expect(200)["items"].as_array().unwrap().is_empty());
    }

    async fn exercise_status(&self, patch: &Value) {
        let path = self.path("one/status");
        let before = self.server.get(&path).await.expect(200);
        let patched = self.server.patch(&path, json!({"status": patch, "spec": {"unknown": "ignored"}})).await.expect(200);
        for (field, value) in patch.as_object().unwrap() {
            assert_eq!(&patched["status"][field], value, "{field}");
        }
        assert_eq!(patched["spec"], before["spec"], "the status alone was written");
        let mut wanted = patched.clone();
        wanted["status"] = before["status"].clone();
        let replaced = self.server.put(&path, wanted).await.expect(200);
        assert_eq!(replaced["status"], before["status"]);
        assert_eq!(self.server.get(&path).await.expect(200), replaced);
    }
}

fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn condition(type_: &str) -> Value {
    json!({"conditions": [{
        "type": type_, "status": "True", "reason": "Tested", "message": "set by a test", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]})
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}})
}

fn workload(kind: &str) -> Value {
    json!({"kind": kind, "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template()}})
}

/// `[sig-node] Lease lease API should be available [Conformance]`
#[tokio::test]
async fn leases() {
    let spec = json!({"holderIdentity": "me", "leaseDurationSeconds": 30, "leaseTransitions": 0, "renewTime": "2026-01-01T00:00:00.000000Z"});
    Operations::of("/apis/coordination.k8s.io/v1", "leases").await.exercise(json!({"spec": spec}), None).await;
}

/// `[sig-node] ConfigMap should run through a ConfigMap lifecycle [Conformance]`
#[tokio::test]
async fn config_maps() {
    Operations::of("/api/v1", "configmaps").await.exercise(json!({"data": {"a": "b"}}), None).await;
}

/// `[sig-node] ConfigMap should fail to create ConfigMap with empty key [Conformance]`,
/// `[sig-node] Secrets should fail to create secret due to empty secret key [Conformance]`
#[tokio::test]
async fn keys_are_not_empty() {
    let server = TestServer::memory().await;
    for (plural, value) in [("configmaps", "v"), ("secrets", "dg==")] {
        let object = json!({"metadata": {"name": "empty"}, "data": {"": value}});
        server.post(&format!("/api/v1/namespaces/default/{plural}"), object).await.expect_status(422, "Invalid");
    }
}

/// `[sig-storage] ConfigMap should be immutable if `immutable` field is set [Conformance]`,
/// `[sig-storage] Secrets should be immutable if `immutable` field is set [Conformance]`
#[tokio::test]
async fn what_is_immutable_stays() {
    let server = TestServer::memory().await;
    for (plural, [old, new]) in [("configmaps", ["1", "2"]), ("secrets", ["MQ==", "Mg=="])] {
        let (collection, path) =
            (format!("/api/v1/namespaces/default/{plural}"), format!("/api/v1/namespaces/default/{plural}/frozen"));
        server.post(&collection, json!({"metadata": {"name": "frozen"}, "data": {"a": old}})).await.expect(201);
        server.patch(&path, json!({"data": {"b": new}})).await.expect(200);
        server.patch(&path, json!({"immutable": true})).await.expect(200);
        let why = server.patch(&path, json!({"data": {"b": old}})).await.expect_status(422, "Invalid");
        assert!(why.contains("field is immutable when `immutable` is set"), "{why}");
        server.patch(&path, json!({"immutable": false})).await.expect_status(422, "Invalid");
        server.patch(&path, json!({"metadata": {"labels": {"still": "free"}}})).await.expect(200);
        server.delete(&path).await.expect(200);
    }
}

/// `[sig-node] Secrets should patch a secret [Conformance]`
#[tokio::test]
async fn secrets() {
    let operations = Operations::of("/api/v1", "secrets").await;
    operations.exercise(json!({"type": "Opaque", "data": {"a": "Yg=="}}), None).await;
    let object = json!({"metadata": {"name": "s", "labels": {"of": "test"}}, "data": {"key": "dmFsdWU="}});
    operations.server.post(&operations.collection(), object).await.expect(201);
    operations.server.patch(&operations.path("s"), json!({"data": {"key": "bmV3"}})).await.expect(200);
    let read = operations.server.get(&operations.path("s")).await.expect(200);
    assert_eq!(read["data"]["key"], "bmV3");
}

/// `[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount [Conformance]`,
/// `[sig-auth] ServiceAccounts should update a ServiceAccount [Conformance]`
#[tokio::test]
async fn service_accounts() {
    let operations = Operations::of("/api/v1", "serviceaccounts").await;
    operations.exercise(json!({}), None).await;
    operations.server.post(&operations.collection(), json!({"metadata": {"name": "a"}})).await.expect(201);
    let mut account = operations.server.get(&operations.path("a")).await.expect(200);
    account["automountServiceAccountToken"] = json!(true);
    let updated = operations.server.put(&operations.path("a"), account).await.expect(200);
    assert_eq!(updated["automountServiceAccountToken"], true);
}

/// `[sig-network] Endpoints should test the lifecycle of an Endpoint [Conformance]`
#[tokio::test]
async fn endpoints() {
    let subsets = json!([{"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]);
    Operations::of("/api/v1", "endpoints").await.exercise(json!({"subsets": subsets}), None).await;
}

/// `[sig-network] EndpointSlice should support creating EndpointSlice API operations [Conformance]`
#[tokio::test]
async fn endpoint_slices() {
    let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"]}], "ports": [{"name": "p", "port": 80}]});
    Operations::of("/apis/discovery.k8s.io/v1", "endpointslices").await.exercise(slice, None).await;
}

/// `[sig-apps] DisruptionController should create a PodDisruptionBudget [Conformance]`,
/// `[sig-apps] DisruptionController should update/patch PodDisruptionBudget status [Conformance]`,
/// `[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets [Conformance]`
#[tokio::test]
async fn pod_disruption_budgets() {
    let budget = json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    let mut status = condition("DisruptionAllowed");
    status["disruptionsAllowed"] = json!(1);
    Operations::of("/apis/policy/v1", "poddisruptionbudgets").await.exercise(budget, Some(status)).await;
}

/// `[sig-apps] Deployment should validate Deployment Status endpoints [Conformance]`
#[tokio::test]
async fn deployments() {
    let operations = Operations::of("/apis/apps/v1", "deployments").await;
    operations.exercise(workload("Deployment"), Some(condition("StatusUpdate"))).await;
}

/// `[sig-apps] ReplicaSet should validate Replicaset Status endpoints [Conformance]`,
/// `[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets [Conformance]`
#[tokio::test]
async fn replica_sets() {
    let operations = Operations::of("/apis/apps/v1", "replicasets").await;
    operations.exercise(workload("ReplicaSet"), Some(condition("StatusUpdate"))).await;
}

/// `[sig-apps] Daemon set [Serial] should verify changes to a daemon set status [Conformance]`,
/// `[sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets [Conformance]`
#[tokio::test]
async fn daemon_sets() {
    let operations = Operations::of("/apis/apps/v1", "daemonsets").await;
    operations.exercise(workload("DaemonSet"), Some(condition("StatusUpdate"))).await;
}

/// `[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status endpoints
/// [Conformance]`
#[tokio::test]
async fn stateful_sets() {
    let operations = Operations::of("/apis/apps/v1", "statefulsets").await;
    operations.exercise(workload("StatefulSet"), Some(condition("StatusUpdate"))).await;
}

#[tokio::test]
async fn controller_revisions() {
    let revision = json!({"revision": 1, "data": {"spec": {"template": template()}}});
    Operations::of("/apis/apps/v1", "controllerrevisions").await.exercise(revision, None).await;
}

/// `[sig-apps] Job should apply changes to a job status [Conformance]`
#[tokio::test]
async fn jobs() {
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    let job = json!({"spec": {"suspend": true, "template": template}});
    let status = json!({"conditions": [{"type": "Custom", "status": "True", "reason": "Tested", "message": "set by a test",
        "lastProbeTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    Operations::of("/apis/batch/v1", "jobs").await.exercise(job, Some(status)).await;
}

/// `[sig-apps] CronJob should support CronJob API operations [Conformance]`
#[tokio::test]
async fn cron_jobs() {
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("OnFailure");
    let cron_job = json!({"spec": {"schedule": "*/1 * * * ?", "concurrencyPolicy": "Allow", "suspend": true,
        "jobTemplate": {"spec": {"parallelism": 2, "completions": 2, "template": template}}}});
    let status = json!({"lastScheduleTime": "2026-01-01T00:00:00Z"});
    Operations::of("/apis/batch/v1", "cronjobs").await.exercise(cron_job, Some(status)).await;
}

/// `[sig-network] Services should complete a service status lifecycle [Conformance]`,
/// `[sig-network] Services should delete a collection of services [Conformance]`
#[tokio::test]
async fn services() {
    let service = json!({"spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80, "targetPort": 80}]}});
    let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}]}});
    Operations::of("/api/v1", "services").await.exercise(service, Some(status)).await;
}

/// `[sig-node] Node Lifecycle should run through the lifecycle of a node [Conformance]`
#[tokio::test]
async fn nodes() {
    let status = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "Tested", "message": "set by a test",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    Operations::of("/api/v1", "nodes").await.exercise(json!({"spec": {"unschedulable": true}}), Some(status)).await;
}

/// `[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations [Conformance]`
#[tokio::test]
async fn certificate_signing_requests() {
    let operations = Operations::of("/apis/certificates.k8s.io/v1", "certificatesigningrequests").await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(vec![]).unwrap().serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, request);
    let sample = json!({"spec": {"request": request, "signerName": "example.com/e2e", "usages": ["client auth"]}});
    operations.exercise(sample.clone(), Some(condition("StatusUpdate"))).await;
    let mut object = sample;
    object["metadata"] = json!({"name": "approved"});
    operations.server.post(&operations.collection(), object).await.expect(201);
    let path = operations.path("approved/approval");
    let mut request = operations.server.get(&path).await.expect(200);
    request["status"] =
        json!({"conditions": [{"type": "Approved", "status": "True", "reason": "Tested", "message": "by a test"}]});
    let approved = operations.server.put(&path, request).await.expect(200);
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    let patch = json!({"metadata": {"annotations": {"patchedapproval": "true"}}});
    assert_eq!(operations.server.patch(&path, patch).await.expect(200)["metadata"]["annotations"]["patchedapproval"], "true");
}

/// `[sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods [Conformance]`
#[tokio::test]
async fn priority_classes() {
    let operations = Operations::of("/apis/scheduling.k8s.io/v1", "priorityclasses").await;
    operations.exercise(json!({"value": 7, "description": "of a test"}), None).await;
    operations.server.post(&operations.collection(), json!({"metadata": {"name": "p"}, "value": 1})).await.expect(201);
    let path = operations.path("p");
    let why = operations.server.patch(&path, json!({"value": 2})).await.expect_status(422, "Invalid");
    assert!(why.contains("value: Forbidden: may not be changed in an update."), "{why}");
    let described = operations.server.patch(&path, json!({"description": "may be changed"})).await.expect(200);
    assert_eq!(described["description"], "may be changed");
}

/// `[sig-instrumentation] Events should manage the lifecycle of an event [Conformance]`,
/// `[sig-instrumentation] Events should delete a collection of events [Conformance]`
#[tokio::test]
async fn core_events() {
    let about = json!({"namespace": "default", "kind": "Pod", "name": "p", "apiVersion": "v1"});
    let event =
        json!({"type": "Normal", "reason": "Test", "message": "m", "involvedObject": about, "source": {"component": "test"}});
    let operations = Operations::of("/api/v1", "events").await;
    operations.exercise(event.clone(), None).await;
    let mut event = event;
    event["metadata"] = json!({"name": "e"});
    operations.server.post(&operations.collection(), event).await.expect(201);
    let patched = operations.server.patch(&operations.path("e"), json!({"message": "patched"})).await.expect(200);
    assert_eq!(patched["message"], "patched");
    let mut counted = patched;
    counted["series"] = json!({"count": 100, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
    let updated = operations.server.put(&operations.path("e"), counted).await.expect(200);
    assert_eq!(updated["series"]["count"], 100);
}

/// `[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed [Conformance]`,
/// `[sig-instrumentation] Events API should delete a collection of events [Conformance]`
#[tokio::test]
async fn events() {
    let about = json!({"namespace": "default", "kind": "Pod", "name": "p", "apiVersion": "v1"});
    let event = json!({"type": "Normal", "reason": "Test", "note": "n", "action": "Do", "regarding": about,
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "test-controller", "reportingInstance": "test-node"});
    let operations = Operations::of("/apis/events.k8s.io/v1", "events").await;
    operations.exercise(event.clone(), None).await;
    let mut event = event;
    event["metadata"] = json!({"name": "e"});
    operations.server.post(&operations.collection(), event).await.expect(201);
    let mut series = operations.server.get(&operations.path("e")).await.expect(200);
    series["series"] = json!({"count": 100, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
    let updated = operations.server.put(&operations.path("e"), series).await.expect(200);
    assert_eq!(updated["series"]["count"], 100);
}

/// `[sig-node] Pods should delete a collection of pods [Conformance]`,
/// `[sig-node] Pods should patch a pod status [Conformance]`
#[tokio::test]
async fn pods_have_a_status_and_go_together() {
    let server = TestServer::memory().await;
    let collection = "/api/v1/namespaces/default/pods";
    for name in ["a", "b", "c"] {
        let mut pod = template();
        pod["metadata"] = json!({"name": name, "labels": {"test": "operations"}});
        server.post(collection, pod).await.expect(201);
    }
    let status = json!({"status": {"message": "patched", "reason": "E2E"}});
    let patched = server.patch(&format!("{collection}/a/status"), status).await.expect(200);
    assert_eq!((&patched["status"]["message"], &patched["status"]["reason"]), (&json!("patched"), &json!("E2E")));
    server.delete(&format!("{collection}?{MARK}")).await.expect(200);
    assert!(server.get(&format!("{collection}?{MARK}")).await.expect(200)["items"].as_array().unwrap().is_empty());
}

/// `[sig-network] Services should find a service from listing all namespaces [Conformance]`,
/// `[sig-network] API Server should provide secure master service [Conformance]`,
/// `[sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server [Conformance]`
#[tokio::test]
async fn the_service_of_the_api_itself() {
    let options = slipway_apiserver::Options { advertise: Some("192.0.2.7:6443".parse().unwrap()), ..Default::default() };
    let server = TestServer::start(slipway_store::memory::Memory::new(), options).await;
    let services = server.get("/api/v1/services").await.expect(200);
    let all = services["items"].as_array().unwrap();
    let service = all.iter().find(|service| service["metadata"]["name"] == "kubernetes").expect("it is listed");
    assert_eq!(service["metadata"]["namespace"], "default");
    assert_eq!((&service["spec"]["ports"][0]["name"], &service["spec"]["ports"][0]["port"]), (&json!("https"), &json!(443)));
    let endpoints = server.get("/api/v1/namespaces/default/endpoints/kubernetes").await.expect(200);
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.7");
    let slices =
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes";
    let slices = server.get(slices).await.expect(200);
    assert_eq!(slices["items"][0]["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
}
