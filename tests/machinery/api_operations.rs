//! The kinds of admission and of flow control under every verb, step by step as the conformance suite does it.

use serde_json::{Value, json};
use slipway_tests::TestServer;

/// A kind, and what is done to its objects.
struct Suite {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    spec: Value,
    /// One change of the spec as a merge patch, and another that is written by an update.
    patch: Value,
    update: Value,
    /// A condition that is patched into the status, for kinds that have one; a second is added by an update.
    condition: Option<Value>,
}

/// Whether all of `part` is in `whole`.
fn contains(whole: &Value, part: &Value) -> bool {
    match part.as_object() {
        Some(fields) => fields.iter().all(|(name, value)| contains(&whole[name], value)),
        None => whole == part,
    }
}

fn merge(into: &mut Value, from: &Value) {
    match from.as_object() {
        Some(fields) => fields.iter().for_each(|(name, value)| merge(&mut into[name], value)),
        None => *into = from.clone(),
    }
}

/// Reads, changes and writes until nobody else has written between.
async fn updated(server: &TestServer, one: &str, subresource: &str, change: impl Fn(&mut Value)) -> Value {
    loop {
        let mut object = server.get(one).await.expect(200);
        change(&mut object);
        let answer = server.put(&format!("{one}{subresource}"), object).await;
        if answer.code != 409 {
            return answer.expect(200);
        }
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn has_condition(object: &Value, type_: &str) -> bool {
    object["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|condition| condition["type"] == type_))
}

impl Suite {
    fn all(&self) -> String {
        format!("/apis/{}/v1/{}", self.group, self.plural)
    }

    async fn is_told_of(&self, server: &TestServer) {
        let has_v1 = |group: &Value| group["versions"].as_array().unwrap().iter().any(|version| version["version"] == "v1");
        let groups = server.get("/apis").await.expect(200);
        assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == self.group && has_v1(group)));
        assert!(has_v1(&server.get(&format!("/apis/{}", self.group)).await.expect(200)));
        let resources = server.get(&format!("/apis/{}/v1", self.group)).await.expect(200);
        let has = |name: &str| resources["resources"].as_array().unwrap().iter().any(|one| one["name"] == name);
        assert!(has(self.plural));
        assert!(self.condition.is_none() || has(&format!("{}/status", self.plural)));
    }

    async fn run(&self) {
        let server = TestServer::memory().await;
        self.is_told_of(&server).await;
        let (all, labelled) = (self.all(), format!("{}?labelSelector=e2e%3Dhere", self.all()));
        let template = json!({"metadata": {"generateName": "e2e-example-", "labels": {"e2e": "here"}}, "spec": self.spec});
        server.post(&all, template.clone()).await.expect(201);
        server.post(&all, template.clone()).await.expect(201);
        let created = server.post(&all, template).await.expect(201);
        let one = format!("{all}/{}", created["metadata"]["name"].as_str().unwrap());
        let read = server.get(&one).await.expect(200);
        assert_eq!(read["metadata"]["uid"], created["metadata"]["uid"]);
        assert!(revision(&read) > 0);
        let list = server.get(&labelled).await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), 3);

        let mut watch = server.watch(&format!("{labelled}&watch=1&resourceVersion={}", revision(&list))).await;
        let patch = json!({"metadata": {"annotations": {"patched": "true"}}, "spec": self.patch});
        let patched = server.patch(&one, patch).await.expect(200);
        assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
        assert!(contains(&patched["spec"], &self.patch), "{patched:#}");
        assert!(revision(&created) < revision(&patched));
        let changed = updated(&server, &one, "", |object| {
            object["metadata"]["annotations"]["updated"] = json!("true");
            merge(&mut object["spec"], &self.update);
        })
        .await;
        assert_eq!(changed["metadata"]["annotations"]["updated"], "true");
        assert!(contains(&changed["spec"], &self.update), "{changed:#}");
        loop {
            let event = watch.next().await.expect("the watch goes on");
            assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("MODIFIED"), &json!(self.kind)));
            if event["object"]["metadata"]["annotations"]["patched"] == "true" {
                break;
            }
        }
        if let Some(condition) = &self.condition {
            self.status(&server, &one, &created, condition).await;
        }

        server.delete(&one).await.expect(200);
        server.get(&one).await.expect_status(404, "NotFound");
        assert_eq!(server.get(&labelled).await.expect(200)["items"].as_array().unwrap().len(), 2);
        server.delete(&labelled).await.expect(200);
        assert!(server.get(&labelled).await.expect(200)["items"].as_array().unwrap().is_empty());
    }

    async fn status(&self, server: &TestServer, one: &str, created: &Value, condition: &Value) {
        let path = format!("{one}/status");
        let read = server.get(&path).await.expect(200);
        let version = format!("{}/v1", self.group);
        assert_eq!((&read["apiVersion"], &read["kind"]), (&json!(version), &json!(self.kind)));
        assert_eq!(read["metadata"]["uid"], created["metadata"]["uid"]);
        let patched = server.patch(&path, json!({"status": {"conditions": [condition]}})).await.expect(200);
        assert!(has_condition(&patched, "PatchStatusFailed"));
        let replaced = updated(server, one, "/status", |object| {
            let mut added = condition.clone();
            added["type"] = json!("StatusUpdateFailed");
            added["message"] = json!("Set from an e2e test");
            // As clients of Go write a time that is not set.
            added["lastTransitionTime"] = condition.get("lastTransitionTime").cloned().unwrap_or_default();
            let conditions = &mut object["status"]["conditions"];
            if conditions.is_null() {
                *conditions = json!([]);
            }
            conditions.as_array_mut().unwrap().push(added);
        })
        .await;
        assert!(has_condition(&replaced, "StatusUpdateFailed"), "{replaced:#}");
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";

fn deployments() -> Value {
    json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]})
}

/// `[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations [Conformance]`
#[tokio::test]
async fn validating_admission_policies() {
    let suite = Suite {
        group: ADMISSION,
        plural: "validatingadmissionpolicies",
        kind: "ValidatingAdmissionPolicy",
        spec: json!({"validations": [{"expression": "object.spec.replicas <= 100"}], "matchConstraints": deployments()}),
        patch: json!({"failurePolicy": "Ignore"}),
        update: json!({"failurePolicy": "Fail"}),
        condition: Some(
            json!({"type": "PatchStatusFailed", "status": "False", "reason": "e2e", "message": "Set from an e2e test",
            "lastTransitionTime": "2024-01-01T00:00:00Z"}),
        ),
    };
    suite.run().await;
}

/// `[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations [Conformance]`
#[tokio::test]
async fn validating_admission_policy_bindings() {
    let suite = Suite {
        group: ADMISSION,
        plural: "validatingadmissionpolicybindings",
        kind: "ValidatingAdmissionPolicyBinding",
        spec: json!({"policyName": "replicalimit-policy.example.com", "validationActions": ["Deny"]}),
        patch: json!({"validationActions": ["Warn"]}),
        update: json!({"validationActions": ["Deny"]}),
        condition: None,
    };
    suite.run().await;
}

/// `[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicy API operations [Conformance]`
#[tokio::test]
async fn mutating_admission_policies() {
    let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{replicas: 100}}"}});
    let suite = Suite {
        group: ADMISSION,
        plural: "mutatingadmissionpolicies",
        kind: "MutatingAdmissionPolicy",
        spec: json!({"reinvocationPolicy": "Never", "mutations": [mutation], "matchConstraints": deployments()}),
        patch: json!({"reinvocationPolicy": "IfNeeded"}),
        update: json!({"reinvocationPolicy": "Never"}),
        condition: None,
    };
    suite.run().await;
}

/// `[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicyBinding API operations [Conformance]`
#[tokio::test]
async fn mutating_admission_policy_bindings() {
    let suite = Suite {
        group: ADMISSION,
        plural: "mutatingadmissionpolicybindings",
        kind: "MutatingAdmissionPolicyBinding",
        spec: json!({"policyName": "replicalimit-policy.example.com"}),
        patch: json!({"policyName": "new-policy.example.com"}),
        update: json!({"policyName": "replicalimit-policy.example.com"}),
        condition: None,
    };
    suite.run().await;
}

/// `[sig-api-machinery] API priority and fairness should support FlowSchema API operations [Conformance]`
#[tokio::test]
async fn flow_schemas() {
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    });
    let suite = Suite {
        group: FLOW_CONTROL,
        plural: "flowschemas",
        kind: "FlowSchema",
        spec: json!({"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
            "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]}),
        patch: json!({"matchingPrecedence": 9999}),
        update: json!({"matchingPrecedence": 9000}),
        condition: Some(json!({"type": "PatchStatusFailed", "status": "False", "reason": "e2e"})),
    };
    suite.run().await;
}

/// `[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations [Conformance]`
#[tokio::test]
async fn priority_level_configurations() {
    let suite = Suite {
        group: FLOW_CONTROL,
        plural: "prioritylevelconfigurations",
        kind: "PriorityLevelConfiguration",
        spec: json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}),
        patch: json!({"limited": {"nominalConcurrencyShares": 4}}),
        update: json!({"limited": {"nominalConcurrencyShares": 6}}),
        condition: Some(json!({"type": "PatchStatusFailed", "status": "False", "reason": "e2e"})),
    };
    suite.run().await;
}

/// Policies and bindings count their generations.
#[tokio::test]
async fn generations_are_of_the_spec() {
    let server = TestServer::memory().await;
    for (plural, spec) in [
        ("validatingadmissionpolicybindings", json!({"policyName": "p", "validationActions": ["Deny"]})),
        ("mutatingadmissionpolicybindings", json!({"policyName": "p"})),
    ] {
        let all = format!("/apis/{ADMISSION}/v1/{plural}");
        let created = server.post(&all, json!({"metadata": {"name": "p"}, "spec": spec})).await.expect(201);
        assert_eq!(created["metadata"]["generation"], 1);
        let annotated = server.patch(&format!("{all}/p"), json!({"metadata": {"annotations": {"a": "b"}}})).await.expect(200);
        assert_eq!(annotated["metadata"]["generation"], 1);
        let changed = json!({"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}});
        assert_eq!(server.patch(&format!("{all}/p"), changed).await.expect(200)["metadata"]["generation"], 2);
    }
}
