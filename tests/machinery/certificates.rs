//! Who asks by a certificate: users of one authority, and proxies of another, on the real listener.

use crate::authentication::{SELF, account, ec_key, server, server_with, token};
use axum::body::Body;
use http::Request;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_apiserver::http::authenticate::User;
use slipway_apiserver::http::authenticate::request_header::RequestHeader;
use slipway_apiserver::http::serve::tls;
use slipway_tests::authority::Authority;
use slipway_tests::{Answer, TestServer};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio_util::sync::CancellationToken;

struct Listening {
    server: TestServer,
    url: String,
    shutdown: CancellationToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A listener for users of one authority, and proxies of another.
async fn listen(users: &Authority, proxies: &Authority, clock: Arc<AtomicI64>) -> Listening {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (cert, key) = users.sign(&["localhost", "127.0.0.1"], "kube-apiserver", &[], ExtendedKeyUsagePurpose::ServerAuth);
    let rule = RequestHeader {
        client_ca_pem: proxies.pem.clone(),
        allowed_names: vec!["front-proxy".into()],
        ..RequestHeader::default()
    };
    let options = Options { client_ca_pem: Some(users.pem.clone()), request_header: Some(rule), ..Options::default() };
    let server = server_with(&ec_key(), clock, options).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let tls = tls(&cert, &key, Some(&format!("{}{}", users.pem, proxies.pem))).unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(server.api.clone().serve(listener, tls, shutdown.clone()));
    Listening { server, url, shutdown }
}

/// A connection with a client certificate, over which requests are sent one after the other.
struct Connection(hyper::client::conn::http1::SendRequest<Body>);

impl Connection {
    async fn open(listening: &Listening, trusted: &Authority, identity: Option<&(String, String)>) -> Option<Self> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.pem.as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        let tcp = tokio::net::TcpStream::connect(listening.url.trim_start_matches("https://")).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.ok()?;
        let (sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        Some(Connection(sender))
    }

    async fn who(&mut self, headers: &[(&str, &str)]) -> Result<Value, u16> {
        let mut request = Request::post(SELF).header("host", "localhost").header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.0.send_request(request.body(Body::from("{}")).unwrap()).await.map_err(|_| 0_u16)?;
        let answer = Answer::of(response.map(Body::new)).await;
        if answer.code == 201 { Ok(answer.body["status"]["userInfo"].clone()) } else { Err(answer.code) }
    }
}

#[tokio::test]
async fn a_certificate_is_its_user_until_it_expires() {
    let (users, proxies) = (Authority::new("users"), Authority::new("proxies"));
    let clock = Arc::new(AtomicI64::new(0));
    let listening = listen(&users, &proxies, clock.clone()).await;
    let jane = users.sign(&[], "jane", &["dev"], ExtendedKeyUsagePurpose::ClientAuth);
    let mut connection = Connection::open(&listening, &users, Some(&jane)).await.unwrap();
    let known = connection.who(&[]).await.unwrap();
    assert_eq!((&known["username"], &known["groups"]), (&json!("jane"), &json!(["dev", "system:authenticated"])));
    let id = known["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(id.starts_with("X509SHA256="));
    // Headers of a proxy are nothing in anybody else's hands.
    assert_eq!(
        connection.who(&[("x-remote-user", "root"), ("x-remote-group", "system:masters")]).await.unwrap()["username"],
        "jane"
    );
    // The connection is still open when the certificate's time is over.
    clock.store(2_500 * 365 * 86_400, Ordering::Relaxed);
    assert_eq!(connection.who(&[]).await, Err(401));
    clock.store(0, Ordering::Relaxed);
    assert!(connection.who(&[]).await.is_ok());
    // A certificate for servers, or of another authority, opens nothing.
    let wrong = users.sign(&[], "jane", &["system:masters"], ExtendedKeyUsagePurpose::ServerAuth);
    let stranger = Authority::new("stranger").sign(&[], "jane", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    for identity in [wrong, stranger] {
        if let Some(mut connection) = Connection::open(&listening, &users, Some(&identity)).await {
            assert!(connection.who(&[]).await.is_err());
        }
    }
    let mut nobody = Connection::open(&listening, &users, None).await.unwrap();
    assert_eq!(nobody.who(&[]).await, Err(401));
    account(&listening.server, "robot").await;
    let bearer = format!("Bearer {}", token(&listening.server, "robot", json!({})).await);
    assert_eq!(nobody.who(&[("authorization", &bearer)]).await.unwrap()["username"], "system:serviceaccount:default:robot");
}

#[tokio::test]
async fn a_proxy_speaks_for_others_by_its_certificate() {
    let (users, proxies) = (Authority::new("users"), Authority::new("proxies"));
    let listening = listen(&users, &proxies, Arc::default()).await;
    let told = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let told = listening.server.get(told).await.expect(200)["data"].clone();
    assert_eq!((&told["client-ca-file"], &told["requestheader-client-ca-file"]), (&json!(users.pem), &json!(proxies.pem)));
    assert_eq!(told["requestheader-allowed-names"], "[\"front-proxy\"]");
    let front = proxies.sign(&[], "front-proxy", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    let mut connection = Connection::open(&listening, &users, Some(&front)).await.unwrap();
    let headers = [
        ("x-remote-user", "jane"),
        ("x-remote-uid", "u-1"),
        ("x-remote-group", "dev"),
        ("x-remote-group", "ops"),
        ("x-remote-extra-example.com%2ftenant", "t"),
    ];
    let known = connection.who(&headers).await.unwrap();
    assert_eq!((&known["username"], &known["uid"]), (&json!("jane"), &json!("u-1")));
    assert_eq!(known["groups"], json!(["dev", "ops", "system:authenticated"]));
    assert_eq!(known["extra"], json!({"example.com/tenant": ["t"]}));
    assert_eq!(connection.who(&[]).await, Err(401), "the proxy itself is nobody");
    let other = proxies.sign(&[], "another", &[], ExtendedKeyUsagePurpose::ClientAuth);
    let mut connection = Connection::open(&listening, &users, Some(&other)).await.unwrap();
    assert_eq!(connection.who(&headers).await, Err(401), "its name is not on the list");
    // A user that has the proxy's name is no proxy.
    let user = users.sign(&[], "front-proxy", &[], ExtendedKeyUsagePurpose::ClientAuth);
    let mut connection = Connection::open(&listening, &users, Some(&user)).await.unwrap();
    assert_eq!(connection.who(&headers).await.unwrap()["username"], "front-proxy");
}

#[tokio::test]
async fn nothing_within_the_process_needs_a_credential_and_nobody_outside_can_pretend() {
    let (server, _) = server().await;
    let user = User { uid: "u".into(), ..User::new("jane", &["dev"]) };
    let known = server.call_as(user, "POST", SELF, Some(&json!({}))).await.expect(201);
    assert_eq!(known["status"]["userInfo"]["username"], "jane");
    let request = Request::post(SELF).header("x-remote-user", "jane").header("content-type", "application/json");
    let answer = Answer::of(server.send(None, request.body(Body::from("{}")).unwrap()).await).await;
    assert_eq!(answer.code, 401);
}
