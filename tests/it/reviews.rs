//! The reviews: who a token is, and who may do what.

use serde_json::{Value, json};
use slipway_apiserver::{Options, User};
use slipway_tests::TestServer;

const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const OWN_ACCESS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const LOCAL_ACCESS: &str = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
const RULES: &str = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ROBOT: &str = "system:serviceaccount:default:robot";

async fn server() -> TestServer {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let options = Options {
        service_account_key_pem: Some(key.serialize_pem()),
        static_tokens: vec![("sesame".into(), User::admin())],
        ..Options::default()
    };
    TestServer::start(slipway_store::memory::Memory::new(), options).await
}

/// Lets the robot see what is in its namespace.
async fn let_robot_view(server: &TestServer) {
    let binding = json!({
        "metadata": {"name": "robot"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot"}],
    });
    server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await.expect(201);
}

fn asks(user: &str, groups: &[&str], attributes: Value) -> Value {
    json!({"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}})
}

#[tokio::test]
async fn an_access_review_answers_as_the_request_itself_would_be() {
    let server = server().await;
    let_robot_view(&server).await;
    let allowed = async |user: &str, groups: &[&str], attributes: Value| {
        let review = server.post(ACCESS, asks(user, groups, attributes)).await.expect(201);
        assert_eq!(review["kind"], "SubjectAccessReview");
        review["status"]["allowed"].as_bool().unwrap()
    };
    let pods = |verb: &str, namespace: &str| json!({"verb": verb, "resource": "pods", "namespace": namespace});
    assert!(allowed("jane", &["system:masters"], pods("delete", "default")).await);
    assert!(allowed("jane", &["system:masters"], json!({"verb": "*", "resource": "*", "group": "*"})).await);
    assert!(!allowed("jane", &["system:authenticated"], pods("get", "default")).await);
    assert!(allowed(ROBOT, &["system:authenticated"], pods("list", "default")).await);
    assert!(!allowed(ROBOT, &["system:authenticated"], pods("list", "kube-system")).await);
    assert!(!allowed(ROBOT, &["system:authenticated"], json!({"verb": "get", "resource": "*", "namespace": "default"})).await);
    assert!(allowed("system:kube-scheduler", &[], json!({"verb": "create", "resource": "pods", "subresource": "binding"})).await);
    let on_node = json!({"verb": "list", "resource": "pods", "fieldSelector": {"rawSelector": "spec.nodeName=n1"}});
    assert!(allowed("system:node:n1", &["system:nodes"], on_node.clone()).await);
    assert!(!allowed("system:node:n2", &["system:nodes"], on_node).await);

    let path = |path: &str| json!({"spec": {"user": "jane", "groups": ["system:authenticated"], "nonResourceAttributes": {"path": path, "verb": "get"}}});
    assert_eq!(server.post(ACCESS, path("/healthz")).await.expect(201)["status"]["allowed"], true);
    assert_eq!(server.post(ACCESS, path("/metrics")).await.expect(201)["status"]["allowed"], false);
}

#[tokio::test]
async fn everybody_may_ask_about_themselves_and_few_about_others() {
    let server = server().await;
    let jane = || User::new("jane", &[]);
    let own = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    let answer = server.call_as(jane(), "POST", OWN_ACCESS, Some(&own)).await.expect(201);
    assert_eq!(answer["status"]["allowed"], false);
    let answer = server.call_as(User::admin(), "POST", OWN_ACCESS, Some(&own)).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    let about = asks("jane", &[], json!({"verb": "get", "resource": "pods", "namespace": "default"}));
    server.call_as(jane(), "POST", ACCESS, Some(&about)).await.expect_status(403, "Forbidden");
    // A node agent guards its own endpoint by asking.
    let node = User::new("system:node:n1", &["system:nodes"]);
    server.call_as(node, "POST", ACCESS, Some(&about)).await.expect(201);

    let local = server.post(LOCAL_ACCESS, about).await.expect(201);
    assert_eq!((&local["kind"], &local["metadata"]["namespace"]), (&json!("LocalSubjectAccessReview"), &json!("default")));
    let elsewhere = asks("jane", &[], json!({"verb": "get", "resource": "pods", "namespace": "kube-system"}));
    let message = server.post(LOCAL_ACCESS, elsewhere).await.expect_status(422, "Invalid");
    assert!(message.contains("spec.resourceAttributes.namespace: Invalid value: \"kube-system\": must match metadata.namespace"));
}

#[tokio::test]
async fn a_review_must_be_clear() {
    let server = server().await;
    let message = server.post(ACCESS, json!({"spec": {"user": "jane"}})).await.expect_status(422, "Invalid");
    assert_eq!(
        message,
        "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
    );
    let named = json!({"metadata": {"name": "x"}, "spec": {"user": "jane", "resourceAttributes": {}}});
    let message = server.post(ACCESS, named).await.expect_status(422, "Invalid");
    assert!(message.contains("metadata: Invalid value: {\"name\":\"x\"}: must be empty"), "{message}");
    let wrong = json!({"spec": {"user": 1}});
    let message = server.post(ACCESS, wrong).await.expect_status(400, "BadRequest");
    assert_eq!(
        message,
        "SubjectAccessReview in version \"v1\" cannot be handled as a SubjectAccessReview: json: cannot unmarshal number into Go struct field SubjectAccessReviewSpec.spec.user of type string"
    );
    server.get(ACCESS).await.expect_status(405, "MethodNotAllowed");
    server.post(TOKENS, json!({"spec": {}})).await.expect_status(400, "BadRequest");
    server.post(RULES, json!({"spec": {}})).await.expect_status(400, "BadRequest");
}

#[tokio::test]
async fn rules_tell_what_a_caller_may_do() {
    let server = server().await;
    let_robot_view(&server).await;
    let ask = json!({"spec": {"namespace": "default"}});
    let rules = async |user: User| server.call_as(user, "POST", RULES, Some(&ask)).await.expect(201)["status"].clone();
    let admin = rules(User::admin()).await;
    let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    assert!(admin["resourceRules"].as_array().unwrap().contains(&all), "{admin}");
    assert_eq!(admin["incomplete"], false);
    let robot = rules(User::new(ROBOT, &[])).await;
    let core = robot["resourceRules"].as_array().unwrap().iter().filter(|rule| rule["apiGroups"] == json!([""]));
    let resources: Vec<&str> = core.flat_map(|rule| rule["resources"].as_array().unwrap()).filter_map(Value::as_str).collect();
    assert!(resources.contains(&"pods") && resources.contains(&"pods/log") && !resources.contains(&"secrets"), "{resources:?}");
    // Whatever the rules say, the access review says too.
    for resource in resources.iter().filter(|resource| !resource.contains('/')) {
        let own = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": resource, "namespace": "default"}}});
        let review = server.call_as(User::new(ROBOT, &[]), "POST", OWN_ACCESS, Some(&own)).await.expect(201);
        assert_eq!(review["status"]["allowed"], true, "{resource}");
    }
    let jane = rules(User::new("jane", &[])).await;
    assert!(jane["resourceRules"].as_array().unwrap().iter().all(|rule| rule["verbs"] == json!(["create"])), "{jane}");
    let node = rules(User::new("system:node:n1", &["system:nodes"])).await;
    assert_eq!(
        (&node["incomplete"], &node["evaluationError"]),
        (&json!(true), &json!("node authorizer does not support user rule resolution"))
    );
}

#[tokio::test]
async fn a_token_review_says_whose_it_is_and_for_whom() {
    let server = server().await;
    let review = async |token: &str, audiences: &[&str]| {
        let ask = json!({"spec": {"token": token, "audiences": audiences}});
        server.post(TOKENS, ask).await.expect(201)["status"].clone()
    };
    let issuer = Options::default().service_account_issuer;
    let admin = review("sesame", &[]).await;
    assert_eq!((&admin["authenticated"], &admin["user"]["username"]), (&json!(true), &json!("kubernetes-admin")));
    assert_eq!(admin["audiences"], json!([issuer]));
    assert_eq!(review("wrong", &[]).await, json!({"user": {}, "error": "invalid bearer token"}));
    // It is meant for this server, not for another.
    assert_eq!(review("sesame", &["vault"]).await["authenticated"], Value::Null);

    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.post(accounts, json!({"metadata": {"name": "robot"}})).await.expect(201);
    let ask = json!({"spec": {"audiences": ["vault", "other"]}});
    let token = server.post(&format!("{accounts}/robot/token"), ask).await.expect(201)["status"]["token"].clone();
    let token = token.as_str().unwrap();
    let known = review(token, &["vault", "third"]).await;
    assert_eq!((&known["user"]["username"], &known["audiences"]), (&json!(ROBOT), &json!(["vault"])));
    assert_eq!(review(token, &[]).await["authenticated"], Value::Null);
    server.delete(&format!("{accounts}/robot")).await.expect(200);
    // What a token is bound to is looked up in the cache, which a list makes fresh.
    server.get(accounts).await.expect(200);
    assert_eq!(review(token, &["vault"]).await["authenticated"], Value::Null);
}
