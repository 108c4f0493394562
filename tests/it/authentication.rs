//! Who may come in, and who may do what.

use axum::body::Body;
use base64::Engine;
use http::Request;
use serde_json::json;
use slipway_apiserver::Options;
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{Answer, TestServer, config_map};

fn options() -> Options {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    Options {
        service_account_key_pem: Some(key.serialize_pem()),
        static_tokens: vec![("sesame".into(), User::admin())],
        ..Options::default()
    }
}

async fn server() -> TestServer {
    TestServer::start(slipway_store::memory::Memory::new(), options()).await
}

/// A request with no credential but, perhaps, a bearer token.
async fn get(server: &TestServer, token: Option<&str>, path: &str) -> Answer {
    let mut request = Request::builder().uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    Answer::of(server.send(None, request.body(Body::empty()).unwrap()).await).await
}

#[tokio::test]
async fn nobody_may_read_but_health_and_version() {
    let server = server().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbose", "/version"] {
        get(&server, None, path).await.expect(200);
    }
    assert_eq!(get(&server, None, "/version").await.expect(200)["minor"], "37");
    for path in ["/api", "/api/v1/pods", "/metrics", "/"] {
        assert_eq!(get(&server, None, path).await.expect_status(401, "Unauthorized"), "Unauthorized");
    }
    get(&server, Some("wrong"), "/version").await.expect_status(401, "Unauthorized");
}

#[tokio::test]
async fn a_static_token_is_its_user() {
    let server = server().await;
    get(&server, Some("sesame"), "/api/v1/namespaces").await.expect(200);
    let text = get(&server, Some("sesame"), "/metrics").await.expect(200);
    let text = text.as_str().unwrap().to_owned();
    assert!(text.contains("apiserver_request_total{verb=\"list\",group=\"\",version=\"v1\",resource=\"namespaces\",subresource=\"\",code=\"200\"} 1"), "{text}");
}

#[tokio::test]
async fn a_service_account_lives_as_long_as_its_object() {
    let server = server().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.post(accounts, json!({"metadata": {"name": "robot"}})).await.expect(201);
    server.post("/api/v1/namespaces/default/configmaps", config_map("a", "1")).await.expect(201);
    let view = json!({
        "metadata": {"name": "robot"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot"}],
    });
    server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", view).await.expect(201);
    let request = json!({"spec": {"expirationSeconds": 3600}});
    let token = server.post(&format!("{accounts}/robot/token"), request).await.expect(201)["status"]["token"].clone();
    let token = token.as_str().unwrap();
    get(&server, Some(token), "/api/v1/namespaces/default/configmaps/a").await.expect(200);
    let message = get(&server, Some(token), "/api/v1/namespaces/kube-system/configmaps").await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "configmaps is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"kube-system\""
    );
    get(&server, Some(token), "/api/v1/namespaces/default/secrets").await.expect_status(403, "Forbidden");
    let forged = format!("{}x", &token[..token.len() - 1]);
    get(&server, Some(&forged), "/api").await.expect_status(401, "Unauthorized");
    server.delete(&format!("{accounts}/robot")).await.expect(200);
    server.get(accounts).await.expect(200);
    get(&server, Some(token), "/api").await.expect_status(401, "Unauthorized");
}

#[tokio::test]
async fn a_joining_node_may_ask_for_a_certificate_and_nothing_else() {
    let server = server().await;
    let b64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "data": {
            "token-id": b64("abcdef"), "token-secret": b64("0123456789abcdef"), "usage-bootstrap-authentication": b64("true"),
        },
    });
    server.post("/api/v1/namespaces/kube-system/secrets", secret).await.expect(201);
    let token = Some("abcdef.0123456789abcdef");
    get(&server, token, "/apis/certificates.k8s.io/v1/certificatesigningrequests").await.expect(200);
    get(&server, token, "/api/v1/nodes").await.expect_status(403, "Forbidden");
    get(&server, Some("abcdef.0123456789abcdee"), "/api").await.expect_status(401, "Unauthorized");
}

#[tokio::test]
async fn a_node_sees_what_its_pods_need() {
    let server = server().await;
    let node = |name: &str| User::new(&format!("system:node:{name}"), &["system:nodes"]);
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {
            "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "s", "secret": {"secretName": "needed"}}],
        },
    });
    for name in ["needed", "other"] {
        server.post("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": name}})).await.expect(201);
    }
    server.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    server.get("/api/v1/pods").await.expect(200);
    let code = async |node_name: &str, method: &str, path: &str| {
        let body = json!({"status": {"phase": "Running"}});
        let body = (method == "PATCH").then_some(&body);
        server.call_as(node(node_name), method, path, body).await.code
    };
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(code("n1", "GET", &format!("{secrets}/needed")).await, 200);
    assert_eq!(code("n1", "GET", &format!("{secrets}/other")).await, 403);
    assert_eq!(code("n2", "GET", &format!("{secrets}/needed")).await, 403);
    assert_eq!(code("n1", "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, 200);
    assert_eq!(code("n1", "GET", "/api/v1/pods").await, 403);
    assert_eq!(code("n2", "GET", "/api/v1/namespaces/default/pods/web").await, 403);
    assert_eq!(code("n1", "PATCH", "/api/v1/namespaces/default/pods/web/status").await, 200);
    assert_eq!(code("n2", "PATCH", "/api/v1/namespaces/default/pods/web/status").await, 403);
    assert_eq!(code("n1", "PATCH", "/api/v1/namespaces/default/pods/web").await, 403);
    assert_eq!(code("n1", "DELETE", "/api/v1/nodes/n2").await, 403);
}

#[tokio::test]
async fn readiness_ends_with_the_server() {
    let server = server().await;
    let text = get(&server, None, "/readyz?verbose").await.expect(200);
    let roles = "[+]poststarthook/rbac/bootstrap-roles ok";
    assert_eq!(text, format!("[+]ping ok\n[+]store ok\n[+]bootstrap ok\n{roles}\n[+]shutdown ok\nreadyz check passed\n"));
    get(&server, None, "/readyz/none").await.expect(403);
    get(&server, Some("sesame"), "/readyz/none").await.expect(404);
    server.api.close();
    get(&server, None, "/readyz").await.expect(500);
    get(&server, None, "/livez").await.expect(200);
}

#[tokio::test]
async fn every_cluster_has_its_first_objects() {
    let options = Options { advertise: Some("192.0.2.7:6443".parse().unwrap()), ..options() };
    let store = slipway_store::memory::Memory::new();
    for _ in 0..2 {
        let server = TestServer::start(store.clone(), options.clone()).await;
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            server.get(&format!("/api/v1/namespaces/{name}")).await.expect(200);
        }
        let class = server.get("/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical").await.expect(200);
        assert_eq!(class["value"], 2_000_001_000_i64);
        let service = server.get("/api/v1/namespaces/default/services/kubernetes").await.expect(200);
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
        let slice = server.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.expect(200);
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
    }
}

#[tokio::test]
async fn a_certificate_request_says_who_asks_whatever_the_asker_says() {
    let server = server().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let request = json!({
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": base64::engine::general_purpose::STANDARD.encode(pem),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": ["client auth"],
            "username": "system:bootstrap:abcdef", "groups": ["system:bootstrappers"], "extra": {"forged": ["yes"]},
        },
    });
    let made = server.post("/apis/certificates.k8s.io/v1/certificatesigningrequests", request).await.expect(201);
    let spec = &made["spec"];
    assert_ne!(spec["username"], "system:bootstrap:abcdef");
    assert!(spec["username"].is_string() && spec["extra"].is_null(), "{spec}");
    assert!(!spec["groups"].as_array().unwrap().contains(&json!("system:bootstrappers")), "{spec}");
}
