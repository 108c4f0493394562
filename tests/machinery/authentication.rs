//! Who asks by a token: service accounts' of every kind, and those of other issuers over HTTPS.

use axum::body::Body;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Request;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use proptest::test_runner::{TestCaseError, TestRunner};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_apiserver::http::authenticate::oidc::{Flags, JwtIssuer};
use slipway_apiserver::http::serve::tls;
use slipway_store::memory::Memory;
use slipway_tests::authority::Authority;
use slipway_tests::{Answer, TestServer, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

const OWN: &str = "https://kubernetes.default.svc.cluster.local";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
pub const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

pub fn ec_key() -> String {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem()
}

/// A server whose clock is `clock` seconds ahead, and whose service accounts' key is `key`.
pub async fn server_with(key: &str, clock: Arc<AtomicI64>, options: Options) -> TestServer {
    let options = Options {
        service_account_key_pem: Some(key.to_owned()),
        clock: Arc::new(move || jiff::Timestamp::now() + jiff::SignedDuration::from_secs(clock.load(Ordering::Relaxed))),
        ..options
    };
    TestServer::start(Memory::new(), options).await
}

pub async fn server() -> (TestServer, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(0));
    (server_with(&ec_key(), clock.clone(), Options::default()).await, clock)
}

/// Who the server takes the bearer of a token for; `Err`: the code of the refusal.
async fn who(server: &TestServer, token: &str) -> Result<Value, u16> {
    let request =
        Request::post(SELF).header("authorization", format!("Bearer {token}")).header("content-type", "application/json");
    let Ok(request) = request.body(Body::from("{}")) else { return Err(400) };
    let answer = Answer::of(server.send(None, request).await).await;
    if answer.code == 201 { Ok(answer.body["status"]["userInfo"].clone()) } else { Err(answer.code) }
}

async fn review(server: &TestServer, token: &str, audiences: &[&str]) -> Value {
    server.post(REVIEWS, json!({"spec": {"token": token, "audiences": audiences}})).await.expect(201)["status"].clone()
}

pub async fn account(server: &TestServer, name: &str) -> Value {
    server.post(ACCOUNTS, json!({"metadata": {"name": name}})).await.expect(201)
}

pub async fn token(server: &TestServer, name: &str, spec: Value) -> String {
    let made = server.post(&format!("{ACCOUNTS}/{name}/token"), json!({"spec": spec})).await.expect(201);
    made["status"]["token"].as_str().unwrap().to_owned()
}

fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_ends_with_its_time_its_account_and_what_it_is_bound_to() {
    let (server, clock) = server().await;
    let robot = account(&server, "robot").await;
    let pods = "/api/v1/namespaces/default/pods";
    let node = server.post("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.expect(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "serviceAccountName": "robot", "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
    }});
    let pod = server.post(pods, pod).await.expect(201);
    let bound = token(&server, "robot", json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}})).await;
    let free = token(&server, "robot", json!({"expirationSeconds": 600})).await;
    let on_node = token(&server, "robot", json!({"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": "n1"}})).await;

    let claims = payload(&bound);
    let known = who(&server, &bound).await.unwrap();
    assert_eq!(known["username"], "system:serviceaccount:default:robot");
    assert_eq!(known["uid"], robot["metadata"]["uid"]);
    assert_eq!(known["groups"], json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]));
    let extra = |key: &str| known["extra"][format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!(extra("credential-id"), format!("JTI={}", claims["jti"].as_str().unwrap()));
    assert_eq!((extra("pod-name"), extra("pod-uid")), (json!("p"), pod["metadata"]["uid"].clone()));
    assert_eq!((extra("node-name"), extra("node-uid")), (json!("n1"), node["metadata"]["uid"].clone()));
    assert_eq!(claims["kubernetes.io"]["node"]["name"], "n1");

    // Its time, to the second and the leeway: the answer that is remembered does not outlive it.
    assert!(who(&server, &free).await.is_ok());
    clock.store(599, Ordering::Relaxed);
    assert!(who(&server, &free).await.is_ok());
    clock.store(620, Ordering::Relaxed);
    assert_eq!(who(&server, &free).await, Err(401));
    assert_eq!(review(&server, &free, &[]).await["error"], "[invalid bearer token, service account token has expired]");
    assert!(who(&server, &bound).await.is_ok());

    // The pod, and another of its name.
    server.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await.expect(200);
    server.get(pods).await.expect(200);
    assert_eq!(who(&server, &bound).await, Err(401));
    let status = review(&server, &bound, &[]).await;
    assert_eq!(status["error"], "[invalid bearer token, service account token has been invalidated]");
    let another =
        json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]}});
    server.post(pods, another).await.expect(201);
    server.get(pods).await.expect(200);
    assert_eq!(who(&server, &bound).await, Err(401));
    assert!(
        review(&server, &bound, &[]).await["error"].as_str().unwrap().contains("does not match service account pod ref claim")
    );

    // The node.
    assert!(who(&server, &on_node).await.is_ok());
    server.delete("/api/v1/nodes/n1").await.expect(200);
    server.get("/api/v1/nodes").await.expect(200);
    assert_eq!(who(&server, &on_node).await, Err(401));

    // The account, and another of its name.
    let last = token(&server, "robot", json!({})).await;
    assert!(who(&server, &last).await.is_ok());
    server.delete(&format!("{ACCOUNTS}/robot")).await.expect(200);
    account(&server, "robot").await;
    server.get(ACCOUNTS).await.expect(200);
    assert_eq!(who(&server, &last).await, Err(401));
    assert!(review(&server, &last, &[]).await["error"].as_str().unwrap().contains("service account UID"));
}

#[tokio::test]
async fn what_is_being_deleted_counts_for_another_minute() {
    let (server, clock) = server().await;
    server.post(ACCOUNTS, json!({"metadata": {"name": "robot", "finalizers": ["example.com/hold"]}})).await.expect(201);
    let token = token(&server, "robot", json!({})).await;
    server.delete(&format!("{ACCOUNTS}/robot")).await.expect(200);
    server.get(ACCOUNTS).await.expect(200);
    assert!(who(&server, &token).await.is_ok());
    clock.store(30, Ordering::Relaxed);
    assert!(who(&server, &token).await.is_ok());
    clock.store(65, Ordering::Relaxed);
    assert_eq!(who(&server, &token).await, Err(401));
    let why = "[invalid bearer token, service account default/robot has been deleted]";
    assert_eq!(review(&server, &token, &[]).await["error"], why);
}

#[tokio::test]
async fn a_token_request_is_held_to_its_rules() {
    let (server, _) = server().await;
    account(&server, "robot").await;
    account(&server, "other").await;
    let path = format!("{ACCOUNTS}/robot/token");
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "other", "containers": [{"name": "c", "image": "i"}]}});
    server.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    let ask = async |spec: Value| server.post(&path, json!({"spec": spec})).await;
    let bound = |kind: &str, name: &str| json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name}});
    ask(json!({"expirationSeconds": 599})).await.expect_status(422, "Invalid");
    ask(json!({"expirationSeconds": 1_i64 << 33})).await.expect_status(422, "Invalid");
    ask(json!({"expirationSeconds": "600"})).await.expect_status(400, "BadRequest");
    ask(bound("Pod", "none")).await.expect_status(404, "NotFound");
    ask(bound("ConfigMap", "p")).await.expect_status(400, "BadRequest");
    let message = ask(bound("Pod", "p")).await.expect_status(400, "BadRequest");
    assert_eq!(message, "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name.");
    let mut other = bound("Secret", "s");
    other["boundObjectRef"]["uid"] = json!("another");
    server.post("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await.expect(201);
    ask(other).await.expect_status(409, "Conflict");
    server.post(&path, json!({"metadata": {"name": "other"}, "spec": {}})).await.expect_status(400, "BadRequest");
    server.post(&format!("{ACCOUNTS}/none/token"), json!({"spec": {}})).await.expect_status(404, "NotFound");
    let made = ask(json!({"audiences": ["vault"], "expirationSeconds": 3600})).await.expect(201);
    assert_eq!(made["spec"]["audiences"], json!(["vault"]));
    let claims = payload(made["status"]["token"].as_str().unwrap());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    let expires: jiff::Timestamp = made["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(expires.as_second(), claims["exp"].as_i64().unwrap());
}

#[tokio::test]
async fn a_review_says_for_whom_a_token_is_good() {
    let (server, _) = server().await;
    account(&server, "robot").await;
    let both = token(&server, "robot", json!({"audiences": ["vault", OWN]})).await;
    let vault = token(&server, "robot", json!({"audiences": ["vault"]})).await;
    let good = async |token: &str, audiences: &[&str]| review(&server, token, audiences).await["audiences"].clone();
    assert_eq!(good(&both, &[]).await, json!([OWN]));
    assert_eq!(good(&both, &["vault", "x"]).await, json!(["vault"]));
    assert_eq!(good(&both, &["vault", OWN]).await, json!(["vault", OWN]));
    let refused = review(&server, &both, &["x"]).await;
    assert_eq!((&refused["authenticated"], &refused["audiences"]), (&Value::Null, &Value::Null));
    assert!(refused["error"].as_str().unwrap().contains("is invalid for the target audiences"));
    assert_eq!(good(&vault, &["vault"]).await, json!(["vault"]));
    assert_eq!(review(&server, &vault, &[]).await["authenticated"], Value::Null);
    assert_eq!(who(&server, &vault).await, Err(401), "a token for another is none for this server");
    assert_eq!(review(&server, "garbage", &[]).await, json!({"user": {}, "error": "invalid bearer token"}));
    server.post(REVIEWS, json!({"spec": {}})).await.expect_status(400, "BadRequest");
}

#[tokio::test]
async fn the_published_key_verifies_what_is_signed() {
    let (server, _) = server().await;
    account(&server, "robot").await;
    let token = token(&server, "robot", json!({})).await;
    let document = server.get("/.well-known/openid-configuration").await.expect(200);
    assert_eq!((&document["issuer"], &document["response_types_supported"]), (&json!(OWN), &json!(["id_token"])));
    assert!(document["jwks_uri"].as_str().unwrap().ends_with("/openid/v1/jwks"));
    let keys = server.get("/openid/v1/jwks").await.expect(200);
    let key: Jwk = serde_json::from_value(keys["keys"][0].clone()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(Algorithm::ES256);
    validation.set_audience(&[OWN]);
    let decoded = jsonwebtoken::decode::<Value>(&token, &jsonwebtoken::DecodingKey::from_jwk(&key).unwrap(), &validation);
    assert_eq!(decoded.unwrap().claims["iss"], OWN);
    assert_eq!(jsonwebtoken::decode_header(&token).unwrap().kid, key.common.key_id);
}

/// What a controller writes into a Secret.
fn legacy_token(key: &str, secret: &str, uid: &str) -> String {
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:robot",
        "kubernetes.io/serviceaccount/namespace": "default", "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": "robot", "kubernetes.io/serviceaccount/service-account.uid": uid,
    });
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &EncodingKey::from_ec_pem(key.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_as_long_as_the_secret_has_it() {
    let key = ec_key();
    let server = server_with(&key, Arc::default(), Options::default()).await;
    let robot = account(&server, "robot").await;
    let uid = robot["metadata"]["uid"].as_str().unwrap();
    let token = legacy_token(&key, "robot-token", uid);
    let error = async || review(&server, &token, &[]).await["error"].clone();
    assert_eq!(error().await, "[invalid bearer token, Token has been invalidated]");
    let secrets = "/api/v1/namespaces/default/secrets";
    let path = format!("{secrets}/robot-token");
    let secret = json!({
        "metadata": {"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token", "data": {"token": STANDARD.encode(&token)},
    });
    server.post(secrets, secret).await.expect(201);
    server.get(secrets).await.expect(200);
    let known = who(&server, &token).await.unwrap();
    assert_eq!(known["username"], "system:serviceaccount:default:robot");
    assert_eq!(known["uid"], uid);
    assert_eq!(known.get("extra"), None);
    let label = "kubernetes.io/legacy-token-last-used";
    eventually("the use to be noted", async || {
        server.get(&path).await.expect(200)["metadata"]["labels"][label].is_string().then_some(())
    })
    .await;
    assert_eq!(review(&server, &token, &["vault"]).await["authenticated"], Value::Null);
    assert_eq!(review(&server, &token, &[OWN]).await["authenticated"], true);
    let request = || Request::get("/api").header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
    assert!(!server.send(None, request()).await.headers().contains_key("warning"));
    server.patch(&format!("{ACCOUNTS}/robot"), json!({"secrets": [{"name": "robot-token"}]})).await.expect(200);
    server.get(ACCOUNTS).await.expect(200);
    let warning = server.send(None, request()).await.headers()["warning"].to_str().unwrap().to_owned();
    assert!(warning.contains("instead of auto-generated secret-based tokens"), "{warning}");
    server
        .patch(&path, json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}}))
        .await
        .expect(200);
    server.get(secrets).await.expect(200);
    assert!(error().await.as_str().unwrap().contains("has been marked invalid"));
    server.patch(&path, json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": null}}})).await.expect(200);
    server.get(secrets).await.expect(200);
    assert!(who(&server, &token).await.is_ok());
    server.patch(&path, json!({"data": {"token": "b3RoZXI="}})).await.expect(200);
    server.get(secrets).await.expect(200);
    assert_eq!(error().await, "[invalid bearer token, Token does not match server's copy]");
    server.delete(&path).await.expect(200);
    server.get(secrets).await.expect(200);
    assert_eq!(who(&server, &token).await, Err(401));
}

#[tokio::test]
async fn forged_and_broken_tokens_are_refused() {
    let key = ec_key();
    let server = server_with(&key, Arc::default(), Options::default()).await;
    let robot = account(&server, "robot").await;
    let good = token(&server, "robot", json!({})).await;
    let claims = payload(&good);
    let sign = |algorithm, claims: &Value, key: &EncodingKey| jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap();
    let own = EncodingKey::from_ec_pem(key.as_bytes()).unwrap();
    assert!(who(&server, &sign(Algorithm::ES256, &claims, &own)).await.is_ok(), "what is forged below differs by one thing");
    let other = EncodingKey::from_ec_pem(ec_key().as_bytes()).unwrap();
    let changed = |field: &str, value: Value| {
        let mut claims = claims.clone();
        claims[field] = value;
        sign(Algorithm::ES256, &claims, &own)
    };
    let parts: Vec<&str> = good.split('.').collect();
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut critical = Header::new(Algorithm::ES256);
    critical.crit = Some(vec!["exp".into()]);
    let public = server.get("/openid/v1/jwks").await.expect(200).to_string();
    for (what, forged) in [
        ("another key", sign(Algorithm::ES256, &claims, &other)),
        ("the public key as a secret", sign(Algorithm::HS256, &claims, &EncodingKey::from_secret(public.as_bytes()))),
        ("no signature", format!("{}.{}.", encode(json!({"alg": "none"})), parts[1])),
        ("no signature but a dot", format!("{}.{}", parts[0], parts[1])),
        ("another's header", format!("{}.{}.{}", encode(json!({"alg": "RS256"})), parts[1], parts[2])),
        ("four parts", format!("{good}.x")),
        ("critical headers", jsonwebtoken::encode(&critical, &claims, &own).unwrap()),
        ("another audience", changed("aud", json!(["vault"]))),
        ("another issuer", changed("iss", json!("https://elsewhere"))),
        ("a time that has passed", changed("exp", json!(1))),
        ("a time to come", changed("nbf", json!(99_999_999_999_i64))),
        ("a subject alone", sign(Algorithm::ES256, &json!({"iss": OWN, "sub": "system:serviceaccount:default:robot"}), &own)),
        ("huge", format!("{}.{}.{}", parts[0], "x".repeat(100_000), parts[2])),
    ] {
        assert_eq!(who(&server, &forged).await, Err(401), "{what}");
        assert_eq!(review(&server, &forged, &[]).await["authenticated"], Value::Null, "{what}");
    }
    let mut other_claims = claims.clone();
    other_claims["kubernetes.io"]["serviceaccount"]["uid"] = json!("another");
    assert_eq!(who(&server, &sign(Algorithm::ES256, &other_claims, &own)).await, Err(401));
    assert_eq!(claims["kubernetes.io"]["serviceaccount"]["uid"], robot["metadata"]["uid"]);

    // Any change of a character, and any cut.
    let server = Arc::new(server);
    let runtime = tokio::runtime::Handle::current();
    let fuzzed = (server.clone(), good.clone());
    tokio::task::spawn_blocking(move || {
        let (server, good) = fuzzed;
        let mut runner = TestRunner::default();
        let strategy = (0..good.len(), proptest::char::range('!', '~'), proptest::bool::ANY);
        runner.run(&strategy, |(at, c, cut)| {
            let mut forged: Vec<char> = good.chars().collect();
            if cut {
                forged.truncate(at)
            } else {
                forged[at] = c
            }
            let forged: String = forged.into_iter().collect();
            let signature = |token: &str| {
                token.rsplit('.').next().map(|part| URL_SAFE_NO_PAD.decode(part).unwrap_or_default()).unwrap_or_default()
            };
            // The last character of a part may have bits that mean nothing.
            let same = forged == good || (signature(&forged) == signature(&good) && at + 1 == good.len());
            let refused = runtime.block_on(who(&server, &forged)).is_err();
            if refused || same { Ok(()) } else { Err(TestCaseError::fail(forged)) }
        })
    })
    .await
    .unwrap()
    .unwrap();
}

// === other issuers ===

/// An OpenID issuer that serves its documents over HTTPS, and changes its keys when told.
struct OpenId {
    url: String,
    authority: Authority,
    keys: Arc<Mutex<Vec<Jwk>>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for OpenId {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OpenId {
    async fn start() -> Self {
        let authority = Authority::new("openid-ca");
        let (cert, key) = authority.sign(&["localhost"], "openid", &[], ExtendedKeyUsagePurpose::ServerAuth);
        let config = tls(&cert, &key, None).unwrap();
        let mut config = rustls::ServerConfig::clone(&config);
        config.alpn_protocols = vec![];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (keys, asked) = (Arc::new(Mutex::new(Vec::<Jwk>::new())), Arc::new(AtomicUsize::new(0)));
        let document =
            json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "id_token_signing_alg_values_supported": ["RS256"]});
        let (served, count) = (keys.clone(), asked.clone());
        let router =
            axum::Router::new().route("/.well-known/openid-configuration", get(async move || axum::Json(document))).route(
                "/keys",
                get(async move || {
                    count.fetch_add(1, Ordering::Relaxed);
                    axum::Json(json!({"keys": *served.lock()}))
                }),
            );
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper_util::service::TowerToHyperService::new(router);
                    let stream = hyper_util::rt::TokioIo::new(stream);
                    hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await.ok();
                });
            }
        });
        OpenId { url, authority, keys, asked, task }
    }

    /// A new key of the issuer's.
    fn key(&self, algorithm: Algorithm, id: &str) -> EncodingKey {
        let key = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => {
                let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
                EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap()
            }
            _ => EncodingKey::from_ec_pem(ec_key().as_bytes()).unwrap(),
        };
        let mut jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        self.keys.lock().push(jwk);
        key
    }

    fn sign(&self, key: &EncodingKey, algorithm: Algorithm, id: &str, changed: Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims =
            json!({"iss": self.url, "aud": "slipway", "sub": "jane", "exp": now + 600, "iat": now, "groups": ["dev"]});
        claims.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        let header = Header { kid: Some(id.to_owned()), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &claims, key).unwrap()
    }

    fn flags(&self) -> Flags {
        Flags {
            issuer_url: self.url.clone(),
            client_id: "slipway".into(),
            username_prefix: Some("oidc:".into()),
            groups_claim: Some("groups".into()),
            groups_prefix: "oidc:".into(),
            ca: Some(self.authority.pem.clone()),
            ..Flags::default()
        }
    }
}

#[tokio::test]
async fn tokens_of_an_openid_issuer_are_verified_by_its_keys() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let issuer = OpenId::start().await;
    let options = Options { jwt_issuers: vec![JwtIssuer::from_flags(issuer.flags()).unwrap()], ..Options::default() };
    let clock = Arc::new(AtomicI64::new(0));
    let server = server_with(&ec_key(), clock.clone(), options).await;
    let key = issuer.key(Algorithm::RS256, "one");
    let sign = |changed: Value| issuer.sign(&key, Algorithm::RS256, "one", changed);
    let token = sign(json!({"jti": "7"}));
    let known = who(&server, &token).await.unwrap();
    assert_eq!(known["username"], "oidc:jane");
    assert_eq!(known["groups"], json!(["oidc:dev", "system:authenticated"]));
    assert_eq!(known["extra"], json!({"authentication.kubernetes.io/credential-id": ["JTI=7"]}));
    for n in 0..20 {
        assert!(who(&server, &sign(json!({"n": n}))).await.is_ok());
    }
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1, "keys are asked for once");
    let error = async |token: &str| review(&server, token, &[]).await["error"].as_str().unwrap_or_default().to_owned();
    assert!(error(&sign(json!({"aud": "other"}))).await.contains("expected audience"));
    assert!(error(&sign(json!({"exp": 5}))).await.contains("token is expired"));
    assert!(error(&sign(json!({"sub": ""}))).await.contains("is empty"));
    assert_eq!(error(&sign(json!({"iss": "https://elsewhere"}))).await, "invalid bearer token");
    assert_eq!(review(&server, &token, &["vault"]).await["authenticated"], Value::Null);
    assert_eq!(review(&server, &token, &[OWN]).await["audiences"], json!([OWN]));
    let strange = EncodingKey::from_rsa_pem(
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap().serialize_pem().as_bytes(),
    );
    let forged = issuer.sign(&strange.unwrap(), Algorithm::RS256, "one", json!({}));
    assert!(error(&forged).await.contains("failed to verify id token signature"));
    let secret = EncodingKey::from_secret(b"x");
    assert!(error(&issuer.sign(&secret, Algorithm::HS256, "one", json!({}))).await.contains("unsupported algorithm"));
    assert!(error(&issuer.sign(&key, Algorithm::PS256, "one", json!({}))).await.contains("unsupported algorithm"));
    // What was verified a moment ago ends when the token does.
    clock.store(601, Ordering::Relaxed);
    assert_eq!(who(&server, &token).await, Err(401));
    clock.store(0, Ordering::Relaxed);

    // A new key is asked for when the first token that it signed comes.
    let next = issuer.key(Algorithm::RS256, "two");
    let signed = issuer.sign(&next, Algorithm::RS256, "two", json!({}));
    eventually("the new key to be known", async || who(&server, &signed).await.ok()).await;
    assert!(who(&server, &sign(json!({"n": 99}))).await.is_ok(), "the old one is still published");
}

#[tokio::test]
async fn an_authentication_configuration_maps_claims_by_expressions() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let issuer = OpenId::start().await;
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [{
        "issuer": {"url": issuer.url, "audiences": ["slipway", "other"], "audienceMatchPolicy": "MatchAny",
            "certificateAuthority": issuer.authority.pem},
        "claimMappings": {
            "username": {"expression": "claims.sub + '@example.com'"},
            "groups": {"expression": "claims.groups.map(g, 'team-' + g)"},
            "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
        },
        "claimValidationRules": [{"expression": "has(claims.tenant)", "message": "who has no tenant may not come in"}],
    }]});
    let options = Options { jwt_issuers: JwtIssuer::parse(&file.to_string(), OWN).unwrap(), ..Options::default() };
    let server = server_with(&ec_key(), Arc::default(), options).await;
    let key = issuer.key(Algorithm::ES256, "ec");
    let sign = |changed: Value| issuer.sign(&key, Algorithm::ES256, "ec", changed);
    let known = who(&server, &sign(json!({"tenant": "t", "aud": ["other"]}))).await.unwrap();
    assert_eq!((&known["username"], &known["groups"][0]), (&json!("jane@example.com"), &json!("team-dev")));
    assert_eq!(known["extra"]["example.com/tenant"], json!(["t"]));
    let refused = review(&server, &sign(json!({})), &[]).await;
    assert!(refused["error"].as_str().unwrap().contains("who has no tenant may not come in"));
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_costs_its_own_users_alone() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let issuer = OpenId::start().await;
    let flags = Flags { ca: Some(Authority::new("stranger").pem), ..issuer.flags() };
    let options = Options { jwt_issuers: vec![JwtIssuer::from_flags(flags).unwrap()], ..Options::default() };
    let server = server_with(&ec_key(), Arc::default(), options).await;
    let key = issuer.key(Algorithm::RS256, "one");
    assert_eq!(who(&server, &issuer.sign(&key, Algorithm::RS256, "one", json!({}))).await, Err(401));
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 0, "an issuer with another's certificate is not believed");
    account(&server, "robot").await;
    assert!(who(&server, &token(&server, "robot", json!({})).await).await.is_ok());
}
