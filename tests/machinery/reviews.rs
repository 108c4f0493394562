//! Service accounts, their tokens, and the reviews of who may do what, as the conformance suite asks for them.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use jsonwebtoken::jwk::JwkSet;
use serde_json::{Value, json};
use slipway_apiserver::{Options, User};
use slipway_tests::{Answer, TestServer};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn server() -> TestServer {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let options = Options { service_account_key_pem: Some(key.serialize_pem()), ..Options::default() };
    TestServer::start(slipway_store::memory::Memory::new(), options).await
}

async fn account(server: &TestServer, name: &str) -> Value {
    server.post(ACCOUNTS, json!({"metadata": {"name": name}})).await.expect(201)
}

async fn token(server: &TestServer, name: &str, spec: Value) -> String {
    let made = server.post(&format!("{ACCOUNTS}/{name}/token"), json!({"spec": spec})).await.expect(201);
    made["status"]["token"].as_str().unwrap().to_owned()
}

/// Whether the account may list ConfigMaps: what a request in its name is answered.
async fn may_list(server: &TestServer, user: &str, uid: &str, groups: &[&str]) -> bool {
    let mut request = Request::get(MAPS).header("impersonate-user", user).header("impersonate-uid", uid);
    for group in groups {
        request = request.header("impersonate-group", *group);
    }
    let answer = Answer::of(server.send(Some(User::admin()), request.body(Body::empty()).unwrap()).await).await;
    match answer.code {
        200 => true,
        _ => {
            answer.expect_status(403, "Forbidden");
            false
        }
    }
}

/// `[sig-auth] SubjectReview should support SubjectReview API operations [Conformance]`
#[tokio::test]
async fn a_review_answers_as_the_request_is_answered() {
    let server = server().await;
    let uid = account(&server, "e2e").await["metadata"]["uid"].as_str().unwrap().to_owned();
    let user = "system:serviceaccount:default:e2e";
    let groups = ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:default"];
    let asked = json!({"verb": "list", "resource": "configmaps", "namespace": "default", "version": "v1"});
    let agree = async |expected: bool| {
        let spec = json!({"resourceAttributes": asked, "user": user, "groups": groups, "uid": uid});
        let review = server.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json!({"spec": spec})).await.expect(201);
        assert_eq!(review["status"]["allowed"], expected);
        assert_eq!(may_list(&server, user, &uid, &groups).await, expected);
        let mut spec = spec;
        spec["user"] = json!("e2e");
        let local = json!({"metadata": {"namespace": "default"}, "spec": spec});
        let path = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
        assert_eq!(server.post(path, local).await.expect(201)["status"]["allowed"], expected);
    };
    agree(false).await;
    // The same, for those who may.
    let binding = json!({"metadata": {"name": "view"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts:default"}]});
    server.post(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await.expect(201);
    agree(true).await;
}

/// `[sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview [Conformance]`
#[tokio::test]
async fn a_new_token_is_good() {
    let server = server().await;
    account(&server, "e2e-sa").await;
    let token = token(&server, "e2e-sa", json!({})).await;
    assert!(!token.is_empty());
    let review = server.post("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}})).await.expect(201);
    assert_eq!(review["status"]["authenticated"], true);
    assert_eq!(review["status"].get("error"), None);
}

/// `[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer [Conformance]` (what
/// the pod of the suite does is done here with the pod's tokens, outside of it)
#[tokio::test]
async fn a_pod_verifies_its_token_by_what_the_issuer_publishes() {
    let server = server().await;
    let account = server.get(&format!("{ACCOUNTS}/default")).await.expect(200);
    let binding = json!({"metadata": {"name": "discovery"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:service-account-issuer-discovery"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    server.post(&format!("{RBAC}/clusterrolebindings"), binding).await.expect(201);
    let projected = json!({"sources": [{"serviceAccountToken": {"path": "sa-token", "expirationSeconds": 600, "audience": "oidc-discovery-test"}}]});
    let pod = json!({"metadata": {"name": "oidc-discovery-validator"}, "spec": {
        "restartPolicy": "Never", "serviceAccountName": "default", "volumes": [{"name": "sa-token", "projected": projected}],
        "containers": [{"name": "c", "image": "agnhost", "volumeMounts": [{"name": "sa-token", "mountPath": "/var/run/secrets/tokens", "readOnly": true}]}]}});
    let pod = server.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "oidc-discovery-validator", "uid": pod["metadata"]["uid"]});
    let own = token(&server, "default", json!({"boundObjectRef": bound})).await;
    let spec = json!({"audiences": ["oidc-discovery-test"], "expirationSeconds": 600, "boundObjectRef": bound});
    let token = token(&server, "default", spec).await;

    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    let read = async |path: &str| {
        let request = Request::get(path).header("authorization", format!("Bearer {own}")).body(Body::empty()).unwrap();
        Answer::of(server.send(None, request).await).await.expect(200)
    };
    let document = read("/.well-known/openid-configuration").await;
    assert_eq!(document["issuer"], claims["iss"]);
    assert_eq!(document["subject_types_supported"], json!(["public"]));
    let keys_path = http::Uri::try_from(document["jwks_uri"].as_str().unwrap()).unwrap().path().to_owned();
    let keys: JwkSet = serde_json::from_value(read(&keys_path).await).unwrap();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert!(document["id_token_signing_alg_values_supported"].as_array().unwrap().contains(&json!(format!("{:?}", header.alg))));
    let key = keys.find(header.kid.as_deref().unwrap()).expect("the key of the token is published");
    let mut validation = jsonwebtoken::Validation::new(header.alg);
    validation.set_audience(&["oidc-discovery-test"]);
    validation.set_issuer(&[document["issuer"].as_str().unwrap()]);
    let key = jsonwebtoken::DecodingKey::from_jwk(key).unwrap();
    let verified = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap().claims;
    assert_eq!(verified["sub"], "system:serviceaccount:default:default");
    assert_eq!(verified["kubernetes.io"]["namespace"], "default");
    assert_eq!(verified["kubernetes.io"]["pod"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(verified["kubernetes.io"]["serviceaccount"]["uid"], account["metadata"]["uid"]);
    validation.set_audience(&["another"]);
    assert!(jsonwebtoken::decode::<Value>(&token, &key, &validation).is_err());
}
