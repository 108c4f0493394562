//! The aggregation layer, over the real router and a real extension server.

use crate::custom_resources::{CRDS, definition, establish};
use crate::discovery::{Kubectl, V2, with_token};
use crate::extension_server::{
    API_SERVICES, Extension, FLUNDERS, ROOT, SERVICES, SLICES, WARDLE, address, available, options, server,
};
use axum::body::Body;
use http::Request;
use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};
use slipway_apiserver::http::serve::tls;
use slipway_apiserver::{Options, User};
use slipway_store::memory::Memory;
use slipway_tests::authority::Authority;
use slipway_tests::{Answer, PATIENCE, TestServer, config_map, eventually};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
pub const TOKEN: &str = "the-administrators-token";

fn flunder(name: &str) -> Value {
    json!({"apiVersion": "wardle.example.com/v1alpha1", "kind": "Flunder", "metadata": {"name": name, "labels": {"sample-label": "true"}}})
}

/// A server, and an extension server that it passes requests on to; `None` where there is no address for one.
async fn with_wardle() -> Option<(TestServer, Extension)> {
    let ip = address()?;
    let server = server(&Authority::new("front-proxy")).await;
    let wardle = Extension::start(&server).await;
    wardle.register(&server, &ip).await;
    Some((server, wardle))
}

async fn gone(server: &TestServer, path: &str) {
    eventually("it to go", || async { (server.get(path).await.code == 404).then_some(()) }).await;
}

#[tokio::test]
async fn what_is_served_here_has_its_api_services() {
    let server = TestServer::memory().await;
    let list = server.get(API_SERVICES).await.expect(200);
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|one| one["metadata"]["name"].as_str().unwrap()).collect();
    for name in ["v1.", "v1.apps", "v1.batch", "v1.authentication.k8s.io", "v1.apiextensions.k8s.io"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.contains(&"v1.apiregistration.k8s.io"), "it has none of its own");
    let apps = server.get(&format!("{API_SERVICES}/v1.apps")).await.expect(200);
    assert_eq!(apps["spec"], json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17_800, "versionPriority": 15}));
    assert_eq!(apps["metadata"]["labels"][LABEL], "onstart");
    let condition = &apps["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Local")));
    assert_eq!(condition["message"], "Local APIServices are always available");
    let table =
        server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io", &format!("{API_SERVICES}/v1.apps")).await.expect(200);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("v1.apps"), json!("Local"), json!("True")]);
    // The groups are listed by their priorities.
    let groups = server.get("/apis").await.expect(200);
    let groups: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(groups[..4], ["apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io"]);
    // What a person changes stays; what is deleted comes back.
    server.patch(&format!("{API_SERVICES}/v1.batch"), json!({"spec": {"groupPriorityMinimum": 19_000}})).await.expect(200);
    server.delete(&format!("{API_SERVICES}/v1.apps")).await.expect(200);
    eventually("it to come back", || async { (server.get(&format!("{API_SERVICES}/v1.apps")).await.code == 200).then_some(()) })
        .await;
    eventually("the new order", || async { (server.get("/apis").await.body["groups"][1]["name"] == "batch").then_some(()) })
        .await;
}

#[tokio::test]
async fn custom_kinds_have_their_api_services_for_as_long_as_they_are_served() {
    let server = TestServer::memory().await;
    let path = format!("{API_SERVICES}/v1.stable.example.com");
    establish(&server, definition(json!({"type": "object"}))).await;
    let there = || eventually("its APIService", || async { Some(server.get(&path).await).filter(|answer| answer.code == 200) });
    let made = there().await.body;
    assert_eq!(made["metadata"]["labels"][LABEL], "true");
    assert_eq!((&made["spec"]["groupPriorityMinimum"], &made["spec"]["versionPriority"]), (&json!(1_000), &json!(100)));
    server.patch(&path, json!({"spec": {"versionPriority": 7}})).await.expect(200);
    eventually("the change to be undone", || async {
        (server.get(&path).await.body["spec"]["versionPriority"] == 100).then_some(())
    })
    .await;
    server.delete(&path).await.expect(200);
    there().await;
    // One without the label is somebody's own.
    server.patch(&path, json!({"metadata": {"labels": null}})).await.expect(200);
    server.delete(&format!("{CRDS}/crontabs.stable.example.com")).await.expect(200);
    gone(&server, &format!("{CRDS}/crontabs.stable.example.com")).await;
    server.get(&path).await.expect(200);
    server.patch(&path, json!({"metadata": {"labels": {LABEL: "true"}}})).await.expect(200);
    gone(&server, &path).await;
}

#[tokio::test]
async fn an_api_service_is_refused_in_kubernetes_words() {
    let server = TestServer::memory().await;
    let spec = json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 0, "versionPriority": 1});
    let message =
        server.post(API_SERVICES, json!({"metadata": {"name": "v2.a.b"}, "spec": spec})).await.expect_status(422, "Invalid");
    assert_eq!(
        message,
        "APIService.apiregistration.k8s.io \"v2.a.b\" is invalid: [metadata.name: Invalid value: \"v2.a.b\": must be `spec.version+\".\"+spec.group`: \"v1.a.b\", spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000]"
    );
    let mut apps = server.get(&format!("{API_SERVICES}/v1.apps")).await.expect(200);
    apps["metadata"]["resourceVersion"] = json!(null);
    server.put(&format!("{API_SERVICES}/v1.apps"), apps).await.expect_status(422, "Invalid");
}

/// `[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator [LinuxOnly] [Conformance]`
/// (the server is one of the test's own, not the sample-apiserver in a pod)
#[tokio::test]
async fn an_extension_server_is_served() {
    let Some((server, _wardle)) = with_wardle().await else { return };
    let made = server.post(FLUNDERS, flunder("rest-flunder")).await.expect(201);
    assert_eq!(
        (&made["apiVersion"], &made["kind"], &made["metadata"]["name"]),
        (&json!("wardle.example.com/v1alpha1"), &json!("Flunder"), &json!("rest-flunder"))
    );
    let count = async || server.get(FLUNDERS).await.expect(200)["items"].as_array().unwrap().len();
    assert_eq!(count().await, 1);
    server.delete(&format!("{FLUNDERS}/rest-flunder")).await.expect(200);
    assert_eq!(count().await, 0);
    // A dynamic client looks for the resource first.
    let found = eventually("discovery to tell of it", || async {
        let groups = server.get_as(V2, "/apis").await.expect(200);
        let group =
            groups["items"].as_array().unwrap().iter().find(|group| group["metadata"]["name"] == "wardle.example.com").cloned();
        group.filter(|group| group["versions"][0]["freshness"] == "Current")
    })
    .await;
    assert_eq!(found["versions"][0]["resources"][0]["resource"], "flunders");
    server.post(FLUNDERS, flunder("dynamic-flunder")).await.expect(201);
    assert_eq!(count().await, 1);

    let status = format!("{WARDLE}/status");
    let read = server.get(&status).await.expect(200);
    assert_eq!(read["status"]["conditions"][0]["message"], "all checks passed");
    let patched = server.patch(WARDLE, json!({"spec": {"versionPriority": 400}})).await.expect(200);
    assert_eq!(patched["spec"]["versionPriority"], 400);
    let list = server.get(API_SERVICES).await.expect(200);
    assert!(list["items"].as_array().unwrap().iter().any(|one| one["metadata"]["name"] == "v1alpha1.wardle.example.com"));
    let request = Request::patch(WARDLE).header("content-type", "application/strategic-merge-patch+json");
    let request = request.body(Body::from(json!({"metadata": {"labels": {"e2e-apiservice": "patched"}}}).to_string())).unwrap();
    Answer::of(server.send(Some(User::admin()), request).await).await.expect(200);
    let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": "E2E", "message": "Set from e2e test"});
    let has =
        |object: &Value, type_: &str| object["status"]["conditions"].as_array().unwrap().iter().any(|one| one["type"] == type_);
    let mut object = server.get(&status).await.expect(200);
    object["status"]["conditions"].as_array_mut().unwrap().push(condition("StatusUpdated"));
    server.put(&status, object).await.expect(200);
    assert!(has(&server.get(&status).await.expect(200), "StatusUpdated"));
    let mut object = server.get(WARDLE).await.expect(200);
    object["metadata"]["labels"] = json!({"v1alpha1.wardle.example.com": "updated"});
    let updated = server.put(WARDLE, object).await.expect(200);
    assert_eq!(updated["metadata"]["labels"]["v1alpha1.wardle.example.com"], "updated");

    server.delete(&format!("{FLUNDERS}/dynamic-flunder")).await.expect(200);
    assert_eq!(count().await, 0);
    server.post(FLUNDERS, flunder("dynamic-flunder")).await.expect(201);
    assert_eq!(count().await, 1);
    let mut conditions = server.get(&status).await.expect(200)["status"]["conditions"].clone();
    conditions.as_array_mut().unwrap().push(condition("StatusPatched"));
    server.patch(&status, json!({"status": {"conditions": conditions}})).await.expect(200);
    assert!(has(&server.get(&status).await.expect(200), "StatusPatched"));
    let selector = "labelSelector=v1alpha1.wardle.example.com%3Dupdated";
    server.delete(&format!("{API_SERVICES}?{selector}")).await.expect(200);
    assert_eq!(server.get(&format!("{API_SERVICES}?{selector}")).await.expect(200)["items"], json!([]));
    eventually("nobody to serve it", || async { (server.get(FLUNDERS).await.code == 404).then_some(()) }).await;
    assert!(!server.get("/apis").await.body["groups"].to_string().contains("wardle"));
}

#[tokio::test]
async fn the_extension_server_is_told_who_asks_and_gets_no_credential() {
    let Some((server, wardle)) = with_wardle().await else { return };
    let rule = json!({"apiGroups": ["wardle.example.com"], "resources": ["flunders"], "verbs": ["get", "list"]});
    let role = json!({"metadata": {"name": "flunders"}, "rules": [rule]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let subject = json!({"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "flunders"}, "subjects": [subject],
        "roleRef": {"kind": "ClusterRole", "name": "flunders", "apiGroup": "rbac.authorization.k8s.io"}});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    let mut jane = User::new("jane", &["dev"]);
    jane.uid = "u-1".into();
    jane.extra.insert("example.com/Tenant".into(), vec!["a".into(), "b".into()]);
    let request = Request::get(FLUNDERS)
        .header("authorization", "Bearer secret")
        .header("x-remote-user", "root")
        .header("x-remote-group", "system:masters")
        .header("x-remote-extra-more", "1");
    let before = wardle.headers(FLUNDERS).len();
    let answer = Answer::of(server.send(Some(jane.clone()), request.body(Body::empty()).unwrap()).await).await;
    answer.expect(200);
    let seen = wardle.headers(FLUNDERS)[before].clone();
    let all = |name: &str| seen.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(all("x-remote-user"), ["jane"]);
    assert_eq!(all("x-remote-uid"), ["u-1"]);
    assert_eq!(all("x-remote-group"), ["dev", "system:authenticated"]);
    assert_eq!(all("x-remote-extra-example.com%2ftenant"), ["a", "b"]);
    assert!(all("authorization").is_empty() && all("x-remote-extra-more").is_empty());
    // Rights are looked up before anything is passed on.
    let before = wardle.headers(FLUNDERS).len();
    server.call_as(jane, "POST", FLUNDERS, Some(&flunder("a"))).await.expect_status(403, "Forbidden");
    let anonymous = Request::get(FLUNDERS).body(Body::empty()).unwrap();
    assert_eq!(server.send(None, anonymous).await.status(), 401);
    assert_eq!(wardle.headers(FLUNDERS).len(), before);
    // The server itself asks as one who may see everything.
    let own = wardle.headers(ROOT);
    assert_eq!(
        (&own[0]["x-remote-user"], &own[0]["x-remote-group"]),
        (&"system:kube-aggregator".parse().unwrap(), &"system:masters".parse().unwrap())
    );
}

#[tokio::test]
async fn who_does_not_answer_is_not_asked() {
    let Some(ip) = address() else { return };
    let server = server(&Authority::new("front-proxy")).await;
    let wardle = Extension::start(&server).await;
    server.post(API_SERVICES, wardle.api_service()).await.expect(201);
    assert_eq!(available(&server, "False", "ServiceNotFound").await, "service/wardle in \"default\" is not present");
    let answer = server.get(FLUNDERS).await;
    assert_eq!((answer.code, answer.body), (503, json!("service unavailable\n")));
    let ports = |port: u16| json!([{"name": "https", "port": port}]);
    server.post(SERVICES, json!({"metadata": {"name": "wardle"}, "spec": {"ports": ports(8443)}})).await.expect(201);
    let message = available(&server, "False", "ServicePortError").await;
    assert_eq!(message, "service/wardle in \"default\" is not listening on port 443");
    server.patch(&format!("{SERVICES}/wardle"), json!({"spec": {"ports": ports(443)}})).await.expect(200);
    let message = available(&server, "False", "EndpointsNotFound").await;
    assert_eq!(message, "cannot find endpointslices for service/wardle in \"default\"");
    server.post(SLICES, wardle.slice(&ip, false)).await.expect(201);
    let message = available(&server, "False", "MissingEndpoints").await;
    assert_eq!(message, "endpointslices for service/wardle in \"default\" have no addresses with port name \"https\"");
    wardle.break_down(true);
    let slice = format!("{SLICES}/wardle-1");
    server.patch(&slice, wardle.slice(&ip, true)).await.expect(200);
    let message = available(&server, "False", "FailedDiscoveryCheck").await;
    let url = format!("https://{ip}:{}{ROOT}", wardle.port);
    assert_eq!(message, format!("failing or missing response from {url}: bad status from {url}: 500"));
    wardle.break_down(false);
    assert_eq!(available(&server, "True", "Passed").await, "all checks passed");
    eventually("requests to be passed on", || async { (server.get(FLUNDERS).await.code == 200).then_some(()) }).await;
    let table = server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io", WARDLE).await.expect(200);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[1..3], [json!("default/wardle"), json!("True")]);
    server.delete(&slice).await.expect(200);
    available(&server, "False", "EndpointsNotFound").await;
    eventually("it to be stale", || async {
        let groups = server.get_as(V2, "/apis").await.body["items"].as_array().unwrap().clone();
        let group = groups.into_iter().find(|group| group["metadata"]["name"] == "wardle.example.com")?;
        (group["versions"][0]["freshness"] == "Stale").then_some(())
    })
    .await;
    let groups = server.get("/apis").await.body["groups"].to_string();
    assert!(groups.contains("wardle.example.com"), "who is away is listed still");
    // An APIService that is local from now on says so.
    let object = json!({"spec": {"service": null, "caBundle": null}});
    server.patch(WARDLE, object).await.expect(200);
    available(&server, "True", "Local").await;
}

#[tokio::test]
async fn a_certificate_counts_only_from_the_named_authority() {
    let Some((server, wardle)) = with_wardle().await else { return };
    use base64::Engine;
    let stranger = base64::engine::general_purpose::STANDARD.encode(Authority::new("stranger").pem);
    server.patch(WARDLE, json!({"spec": {"caBundle": stranger}})).await.expect(200);
    let refused = eventually("the certificate to be refused", || async {
        Some(server.get(FLUNDERS).await).filter(|answer| answer.code == 503)
    });
    let expected =
        "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown authority\n";
    assert_eq!(refused.await.body, expected);
    server.patch(WARDLE, json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}})).await.expect(200);
    eventually("it to be passed on unverified", || async { (server.get(FLUNDERS).await.code == 200).then_some(()) }).await;
    server.patch(WARDLE, json!({"spec": {"caBundle": wardle.bundle, "insecureSkipTLSVerify": null}})).await.expect(200);
    eventually("it to be verified again", || async { (server.get(FLUNDERS).await.code == 200).then_some(()) }).await;
}

#[tokio::test]
async fn what_the_extension_server_tells_is_told_on() {
    let Some((server, wardle)) = with_wardle().await else { return };
    let resources = server.get(ROOT).await.expect(200);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["fl"]));
    let group = server.get("/apis/wardle.example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let discovered = async || {
        let groups = server.get_as(V2, "/apis").await.expect(200)["items"].as_array().unwrap().clone();
        let apps = groups.iter().find(|group| group["metadata"]["name"] == "apps").unwrap();
        assert!(!apps["versions"][0]["resources"].as_array().unwrap().is_empty(), "it speaks for its own groups only");
        let group = groups.into_iter().find(|group| group["metadata"]["name"] == "wardle.example.com")?;
        Some(group["versions"][0].clone()).filter(|version| version["freshness"] == "Current")
    };
    let version = eventually("discovery", &discovered).await;
    assert_eq!(version["resources"][0]["subresources"][0]["subresource"], "shell");
    // OpenAPI: version 3 is passed on, version 2 merged.
    let path = eventually("its document", || async {
        let index = server.get("/openapi/v3").await.expect(200);
        assert!(index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().contains("?hash="));
        index["paths"][&ROOT[1..]]["serverRelativeURL"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(path, format!("/openapi/v3{ROOT}?hash=abc"));
    let document = server.get(&path).await.expect(200);
    assert_eq!(document["components"]["schemas"]["com.example.wardle.v1alpha1.Flunder"]["description"], "A flunder.");
    let merged = eventually("the merged document", || async {
        let document = server.get("/openapi/v2").await.expect(200);
        document["definitions"].get("com.example.wardle.v1alpha1.Flunder").is_some().then_some(document)
    })
    .await;
    let meta = &merged["definitions"]["com.example.wardle.v1alpha1.Flunder"]["properties"]["metadata"]["$ref"];
    assert_eq!(meta, "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta_v2", "it has one of another look");
    assert_ne!(merged["paths"]["/api/v1/pods"]["get"]["description"], "not its own");
    assert!(merged["paths"][FLUNDERS.replace("default", "{namespace}")]["get"].is_object());
    server.delete(WARDLE).await.expect(200);
    eventually("the documents to go", || async {
        let v2 = server.get("/openapi/v2").await.body;
        let v3 = server.get("/openapi/v3").await.body;
        (!v2.to_string().contains("wardle") && !v3.to_string().contains("wardle")).then_some(())
    })
    .await;
    // A server from before aggregated discovery is asked for its lists.
    wardle.age();
    server.post(API_SERVICES, wardle.api_service()).await.expect(201);
    let version = eventually("discovery", &discovered).await;
    assert_eq!(version["resources"][0]["subresources"][0]["responseKind"]["kind"], "Flunder");
}

/// A listener of the server, with TLS of an authority of its own.
pub async fn listen(server: &TestServer, clients: Option<&str>) -> (std::net::SocketAddr, Authority, CancellationToken) {
    let authority = Authority::new("serving");
    let (cert, key) = authority.sign(&["localhost", "other.default.svc"], "server", &[], ExtendedKeyUsagePurpose::ServerAuth);
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(server.api.clone().serve(listener, tls(&cert, &key, clients).unwrap(), shutdown.clone()));
    (address, authority, shutdown)
}

#[tokio::test]
async fn watches_and_other_protocols_pass_through() {
    let Some(ip) = address() else { return };
    let front = Authority::new("front-proxy");
    let options = Options { static_tokens: vec![(TOKEN.into(), User::admin())], ..options(&front) };
    let server = TestServer::start(Memory::new(), options).await;
    let wardle = Extension::start(&server).await;
    wardle.register(&server, &ip).await;
    let mut watch = server.watch(&format!("{FLUNDERS}?watch=1")).await;
    server.post(FLUNDERS, flunder("a")).await.expect(201);
    assert_eq!(watch.brief().await, "ADDED a");
    server.post(FLUNDERS, flunder("b")).await.expect(201);
    assert_eq!(watch.brief().await, "ADDED b");

    let (address, authority, shutdown) = listen(&server, None).await;
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", address.port())).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let mut stream = BufReader::new(stream);
    let head = format!(
        "GET {FLUNDERS}/a/shell HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nUpgrade: twice\r\n\r\n"
    );
    stream.get_mut().write_all(head.as_bytes()).await.unwrap();
    let spoken = async {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "HTTP/1.1 101 Switching Protocols\r\n");
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
        }
        stream.get_mut().write_all(b"hello ").await.unwrap();
        let mut said = [0; 12];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello hello ");
    };
    tokio::time::timeout(PATIENCE, spoken).await.expect("the other protocol is spoken");
    let seen = wardle.headers(&format!("{FLUNDERS}/a/shell"));
    assert_eq!(seen[0]["x-remote-user"], "kubernetes-admin");
    assert!(seen[0].get("authorization").is_none());
    // What lasts ends with the server.
    shutdown.cancel();
    while watch.next().await.is_some() {}
}

/// Another API server of ours behind the Service: it believes the headers, because of the certificate.
#[tokio::test]
async fn a_server_of_our_own_can_be_behind_a_service() {
    let Some(ip) = address() else { return };
    let front = Authority::new("front-proxy");
    let (server, other) = (server(&front).await, TestServer::start(Memory::new(), options(&front)).await);
    establish(&other, definition(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))).await;
    let (address, authority, _shutdown) = listen(&other, Some(&front.pem)).await;
    use base64::Engine;
    let bundle = base64::engine::general_purpose::STANDARD.encode(authority.pem);
    server.post(SERVICES, json!({"metadata": {"name": "other"}, "spec": {"ports": [{"port": 6443}]}})).await.expect(201);
    let slice = json!({"metadata": {"name": "other-1", "labels": {"kubernetes.io/service-name": "other"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": address.port()}], "endpoints": [{"addresses": [ip]}]});
    server.post(SLICES, slice).await.expect(201);
    let service = json!({"metadata": {"name": "v1.stable.example.com"}, "spec": {"group": "stable.example.com", "version": "v1",
        "groupPriorityMinimum": 1000, "versionPriority": 15, "caBundle": bundle,
        "service": {"namespace": "default", "name": "other", "port": 6443}}});
    server.post(API_SERVICES, service).await.expect(201);
    let tabs = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    eventually("requests to be passed on", || async { (server.get(tabs).await.code == 200).then_some(()) }).await;
    let tab = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": {}});
    server.post(tabs, tab).await.expect(201);
    assert_eq!(other.get(&format!("{tabs}/a")).await.expect(200)["metadata"]["name"], "a");
    let mut watch = server.watch(&format!("{tabs}?watch=1")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    // Here jane may do it. There she may not.
    let binding = json!({"metadata": {"name": "jane"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    let message = server.call_as(User::new("jane", &[]), "GET", tabs, None).await.expect_status(403, "Forbidden");
    assert!(message.starts_with("crontabs.stable.example.com is forbidden: User \"jane\" cannot list resource"), "{message}");
    let groups = eventually("discovery", || async {
        let groups = server.get_as(V2, "/apis").await.expect(200)["items"].as_array().unwrap().clone();
        let group = groups.into_iter().find(|group| group["metadata"]["name"] == "stable.example.com")?;
        (group["versions"][0]["freshness"] == "Current").then_some(group)
    });
    assert_eq!(groups.await["versions"][0]["resources"][0]["resource"], "crontabs");
}

#[tokio::test]
async fn several_servers_do_not_quarrel() {
    let Some(ip) = address() else { return };
    let (front, store) = (Authority::new("front-proxy"), Memory::new());
    let one = TestServer::start(store.clone(), options(&front)).await;
    let wardle = Extension::start(&one).await;
    wardle.register(&one, &ip).await;
    // The extension server does not let the second in.
    let stranger = Authority::new("stranger").sign(&[], "front-proxy-client", &[], ExtendedKeyUsagePurpose::ClientAuth);
    let options = Options { proxy_client_identity: Some(stranger), ..options(&front) };
    let two = TestServer::start(store, options).await;
    assert_eq!(two.get(FLUNDERS).await.code, 503, "it has its own opinion");
    let before = one.get(WARDLE).await.expect(200);
    // Each looks again when something changes.
    for ready in [None, Some(true), None] {
        let mut slice = wardle.slice(&ip, true);
        slice["endpoints"][0]["conditions"] = json!({"ready": ready});
        two.patch(&format!("{SLICES}/wardle-1"), slice).await.expect(200);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(one.get(WARDLE).await.expect(200), before);
    // The first goes, and the second takes over.
    one.api.close();
    available(&two, "False", "FailedDiscoveryCheck").await;
}

/// Controllers that look at all kinds go on with those that there are.
#[tokio::test]
async fn an_extension_server_that_is_away_stops_no_garbage_collection() {
    let server = TestServer::memory().await;
    let spec = json!({"group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
        "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "wardle"}});
    server.post(API_SERVICES, json!({"metadata": {"name": "v1alpha1.wardle.example.com"}, "spec": spec})).await.expect(201);
    available(&server, "False", "ServiceNotFound").await;
    assert_eq!(server.get(ROOT).await.code, 503);
    let shutdown = CancellationToken::new();
    let manager = server.api.client(User::new("system:kube-controller-manager", &[]));
    let running = slipway_controllers::run(manager, slipway_controllers::Options::default(), shutdown.clone());
    let running = tokio::spawn(running);
    let maps = "/api/v1/namespaces/default/configmaps";
    let owner = server.post(maps, config_map("owner", "a")).await.expect(201);
    let mut dependent = config_map("dependent", "b");
    let uid = &owner["metadata"]["uid"];
    dependent["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]);
    server.post(maps, dependent).await.expect(201);
    server.delete(&format!("{maps}/owner")).await.expect(200);
    gone(&server, &format!("{maps}/dependent")).await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn kubectl_finds_what_extension_servers_serve() {
    let Some(ip) = address() else { return };
    let server = with_token().await;
    let Some(kubectl) = Kubectl::of(&server).await else { return };
    let wardle = Extension::start(&server).await;
    wardle.register(&server, &ip).await;
    server.post(FLUNDERS, flunder("a")).await.expect(201);
    eventually("discovery to be fresh", || async {
        server.get_as(V2, "/apis").await.body.to_string().contains("flunders").then_some(())
    })
    .await;
    let told = kubectl.run(&["api-resources", "--api-group", "wardle.example.com", "--no-headers"]).await;
    assert!(told.contains("flunders") && told.contains("fl") && told.contains("Flunder"), "{told}");
    let told = kubectl.run(&["get", "fl", "-n", "default", "-o", "name"]).await;
    assert!(told.contains("flunder.wardle.example.com/a"), "{told}");
    let told = kubectl.run(&["get", "apiservices"]).await;
    let line = told.lines().find(|line| line.starts_with("v1alpha1.wardle.example.com")).unwrap_or_default();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[1..3], ["default/wardle", "True"], "{told}");
}
