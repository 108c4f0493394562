//! What is told of requests.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::audit::{Audit, Event, LogFile, Policy, Rotation, Sink, Table};
use slipway_apiserver::encryption::Encryption;
use slipway_apiserver::{Options, User};
use slipway_store::memory::Memory;
use slipway_store::postgres::Postgres;
use slipway_store::postgres::audit::{Filter, Row, Trail, query};
use slipway_tests::{Answer, TestServer, config_map, eventually, postgres};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Keeps events for a test to look at.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Value>>>);

impl Sink for Kept {
    fn keep(&self, event: &Event) {
        assert_eq!(serde_json::from_str::<Value>(&event.line).unwrap(), event.value);
        self.0.lock().unwrap().push(event.value.clone());
    }
    fn dropped(&self) -> u64 {
        0
    }
    fn name(&self) -> &'static str {
        "test"
    }
}

impl Kept {
    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn options(rules: Value, sinks: Vec<Box<dyn Sink>>) -> Options {
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
    let policy = Policy::parse(&policy.to_string()).unwrap();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    Options {
        audit: Arc::new(Audit::new(policy, sinks)),
        static_tokens: vec![("sesame".into(), User::new("jane", &["people"]))],
        service_account_key_pem: Some(key),
        ..Options::default()
    }
}

async fn server(rules: Value) -> (TestServer, Kept) {
    let kept = Kept::default();
    let server = TestServer::start(Memory::new(), options(rules, vec![Box::new(kept.clone())])).await;
    kept.take();
    (server, kept)
}

/// An event in brief.
fn brief(event: &Value) -> String {
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let (user, name) = (&event["user"]["username"], &event["objectRef"]["name"]);
    let code = &event["responseStatus"]["code"];
    let (user, name) = (user.as_str().unwrap_or_default(), name.as_str().unwrap_or_default());
    format!("{} {} {user} {} {name} {code}", text("level"), text("stage"), text("verb"))
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_event_says_who_asked_for_what_and_what_became_of_it() {
    let (server, kept) = server(json!([{"level": "Metadata"}])).await;
    let created = Request::post(MAPS)
        .header("content-type", "application/json")
        .header("user-agent", "kubectl/v1.33.0")
        .header("x-forwarded-for", "192.0.2.7")
        .header("audit-id", "chosen-by-the-client");
    let user = User { uid: "u-1".into(), ..User::new("jane", &["people"]) };
    let admin = User { groups: [user.groups.clone(), vec![User::MASTERS.into()]].concat(), ..user };
    let response = server.send(Some(admin), created.body(Body::from(config_map("m", "1").to_string())).unwrap()).await;
    assert_eq!(response.headers()["audit-id"], "chosen-by-the-client");
    let events = kept.take();
    assert_eq!(
        events.iter().map(brief).collect::<Vec<_>>(),
        ["Metadata RequestReceived jane create  null", "Metadata ResponseComplete jane create m 201",]
    );
    let event = &events[1];
    for (field, expected) in [
        ("kind", json!("Event")),
        ("apiVersion", json!("audit.k8s.io/v1")),
        ("auditID", json!("chosen-by-the-client")),
        ("requestURI", json!(MAPS)),
        ("user", json!({"username": "jane", "uid": "u-1", "groups": ["people", "system:authenticated", "system:masters"]})),
        ("sourceIPs", json!(["192.0.2.7"])),
        ("userAgent", json!("kubectl/v1.33.0")),
        ("objectRef", json!({"resource": "configmaps", "namespace": "default", "name": "m", "apiVersion": "v1"})),
        ("responseStatus", json!({"metadata": {}, "code": 201})),
    ] {
        assert_eq!(event[field], expected, "{field}");
    }
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(event["stageTimestamp"].as_str() >= event["requestReceivedTimestamp"].as_str());
    assert!(event.get("requestObject").is_none() && event.get("responseObject").is_none());
    server.get(&format!("{MAPS}/none")).await.expect(404);
    let refused = kept.take().pop().unwrap();
    assert_eq!(
        refused["responseStatus"],
        json!({
            "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404, "message": "configmaps \"none\" not found",
        })
    );
    let id = refused["auditID"].as_str().unwrap();
    assert_eq!(id.len(), 36);
}

#[tokio::test]
async fn bodies_are_told_as_far_as_the_policy_says() {
    let rules = json!([
        {"level": "None", "verbs": ["list"]},
        {"level": "RequestResponse", "verbs": ["patch", "get"], "omitManagedFields": true},
        {"level": "Request", "omitStages": ["RequestReceived"]},
    ]);
    let (server, kept) = server(rules).await;
    server.post(MAPS, config_map("m", "1")).await.expect(201);
    let created = kept.take();
    assert_eq!(created.iter().map(brief).collect::<Vec<_>>(), ["Request ResponseComplete kubernetes-admin create m 201"]);
    assert_eq!(created[0]["requestObject"]["data"], json!({"key": "1"}));
    assert!(created[0].get("responseObject").is_none());
    server.patch(&format!("{MAPS}/m"), json!({"data": {"other": "2"}})).await.expect(200);
    let patched = kept.take();
    assert_eq!(patched.len(), 2);
    assert_eq!(patched[1]["requestObject"], json!({"data": {"other": "2"}}));
    assert_eq!(patched[1]["responseObject"]["data"], json!({"key": "1", "other": "2"}));
    assert!(patched[1]["responseObject"]["metadata"]["uid"].is_string());
    assert!(patched[1]["responseObject"]["metadata"].get("managedFields").is_none());
    server.get(MAPS).await.expect(200);
    assert_eq!(kept.take().len(), 0, "lists are told of at the level None");
    server.get(&format!("{MAPS}/none")).await.expect(404);
    assert_eq!(kept.take()[1]["responseObject"]["reason"], "NotFound");
}

#[tokio::test]
async fn a_watch_is_told_of_when_it_begins_and_when_it_ends() {
    let (server, kept) = server(json!([{"level": "RequestResponse", "verbs": ["watch"]}])).await;
    let watch = server.watch(&format!("{MAPS}?watch=1")).await;
    let stages = |events: &[Value]| events.iter().map(brief).collect::<Vec<_>>();
    assert_eq!(
        stages(&kept.take()),
        [
            "RequestResponse RequestReceived kubernetes-admin watch  null",
            "RequestResponse ResponseStarted kubernetes-admin watch  200",
        ]
    );
    drop(watch);
    assert_eq!(stages(&kept.take()), ["RequestResponse ResponseComplete kubernetes-admin watch  200"]);
}

#[tokio::test]
async fn refusals_are_told_of() {
    let (server, kept) = server(json!([{"level": "Metadata", "omitStages": ["RequestReceived"]}])).await;
    let ask = async |token: &str, path: &str| {
        let request = Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
        let response = server.send(None, request).await;
        assert!(response.headers().contains_key("audit-id"));
        Answer::of(response).await.code
    };
    assert_eq!(ask("wrong-token-of-somebody", MAPS).await, 401);
    let event = kept.take().pop().unwrap();
    assert_eq!(brief(&event), "Metadata ResponseStarted  list  401");
    assert_eq!(event["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert!(!event.to_string().contains("wrong-token-of-somebody"));
    assert_eq!(ask("sesame", "/api/v1/secrets").await, 403);
    let event = kept.take().pop().unwrap();
    assert_eq!(brief(&event), "Metadata ResponseComplete jane list  403");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
}

#[tokio::test]
async fn no_secret_and_no_token_is_told_whatever_the_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let log = LogFile::open(&path, Rotation::default()).unwrap();
    let mut options = options(json!([{"level": "RequestResponse"}]), vec![Box::new(log)]);
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["configmaps"], "providers": [{"aesgcm": {"keys": [
            {"name": "k", "secret": STANDARD.encode([7; 32])},
        ]}}]}],
    });
    options.encryption = Arc::new(Encryption::parse(&file.to_string()).unwrap());
    let server = TestServer::start(Memory::new(), options).await;
    let hidden = "pQ7-hidden-in-here";
    let encoded = STANDARD.encode(hidden);
    let secrets = "/api/v1/namespaces/default/secrets";
    let object = json!({
        "metadata": {"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": hidden}},
        "stringData": {"a": hidden}, "data": {"b": encoded},
    });
    server.post(secrets, object).await.expect(201);
    let path_of_it = format!("{secrets}/s");
    server.patch(&path_of_it, json!({"stringData": {"c": hidden}})).await.expect(200);
    let patch = Request::patch(&path_of_it)
        .header("content-type", "application/json-patch+json")
        .body(Body::from(json!([{"op": "add", "path": "/data/d", "value": encoded}]).to_string()))
        .unwrap();
    Answer::of(server.send(Some(User::admin()), patch).await).await.expect(200);
    server.get(&path_of_it).await.expect(200);
    server.get(secrets).await.expect(200);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    server.get_as(table, &format!("{secrets}?includeObject=Object")).await.expect(200);
    server.delete(&path_of_it).await.expect(200);
    // What is encrypted in the store is not told either.
    server.post(MAPS, config_map("m", hidden)).await.expect(201);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.post(accounts, json!({"metadata": {"name": "robot"}})).await.expect(201);
    let token = server.post(&format!("{accounts}/robot/token"), json!({"spec": {}})).await.expect(201)["status"]["token"].clone();
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    server.post(reviews, json!({"spec": {"token": token}})).await.expect(201);
    let told = std::fs::read_to_string(&path).unwrap();
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |resource: &str| events.iter().filter(|event| event["objectRef"]["resource"] == resource).count();
    assert!(of("secrets") >= 14 && of("tokenreviews") == 2 && of("configmaps") == 2, "{told}");
    assert!(told.contains("\"REDACTED\"") && told.contains("RequestResponse"));
    for unwanted in [hidden, encoded.trim_end_matches('='), token.as_str().unwrap()] {
        assert!(!told.contains(unwanted), "{unwanted} is in the audit log");
    }
}

#[tokio::test]
async fn events_are_found_again_in_postgres() {
    let cluster = postgres::Cluster::shared().await;
    let url = cluster.database().await;
    let store = Postgres::connect(&url, Default::default()).await.unwrap();
    let trail = Trail::connect(&url, Duration::from_secs(3600)).await.unwrap();
    let rules = json!([{"level": "Metadata", "omitStages": ["RequestReceived"]}]);
    let server = TestServer::start(store, options(rules, vec![Box::new(Table(trail.clone()))])).await;
    let jane = User::new("jane", &[User::MASTERS]);
    server.post(MAPS, config_map("m", "1")).await.expect(201);
    server.call_as(jane.clone(), "DELETE", &format!("{MAPS}/m"), None).await.expect(200);
    server.call_as(jane, "GET", "/api/v1/namespaces/a%00b/configmaps", None).await;
    trail.flush().await;
    let find = async |filter: Filter| {
        let found = query(&url, &filter).await.unwrap();
        found.iter().map(|event| brief(&serde_json::from_str(event).unwrap())).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    let of_the_map = Filter { resource: some("configmaps"), namespace: some("default"), name: some("m"), ..Filter::default() };
    assert_eq!(
        find(of_the_map.clone()).await,
        ["Metadata ResponseComplete kubernetes-admin create m 201", "Metadata ResponseComplete jane delete m 200",]
    );
    assert_eq!(find(Filter { limit: Some(1), ..of_the_map }).await, ["Metadata ResponseComplete jane delete m 200"]);
    assert_eq!(find(Filter { user: some("jane"), verb: some("list"), ..Filter::default() }).await.len(), 1);
    assert_eq!(find(Filter { since: Some(Duration::from_secs(3600)), verb: some("delete"), ..Filter::default() }).await.len(), 1);
    assert_eq!(find(Filter { user: some("nobody"), ..Filter::default() }).await.len(), 0);
    let told = "select username, event->'responseStatus'->>'code' from audit where verb = 'delete' and resource = 'configmaps'";
    assert_eq!(postgres::query(&url, told).await, "jane|200");
    assert_eq!(trail.dropped(), 0);
    trail.close().await;
}

#[tokio::test]
async fn old_events_are_forgotten_and_what_comes_too_fast_is_counted() {
    let cluster = postgres::Cluster::shared().await;
    let url = cluster.database().await;
    let _store = Postgres::connect(&url, Default::default()).await.unwrap();
    let row = |received_us| Row { received_us, event: "{}".into(), ..Row::default() };
    let now = jiff::Timestamp::now().as_microsecond();
    let trail = Trail::connect(&url, Duration::from_secs(86_400)).await.unwrap();
    trail.offer(row(now - 3_600_000_000));
    trail.offer(row(now));
    trail.close().await;
    assert_eq!(postgres::query(&url, "select count(*) from audit").await, "2");
    let trail = Trail::connect(&url, Duration::from_secs(60)).await.unwrap();
    eventually("the old event to be forgotten", async || {
        (postgres::query(&url, "select count(*) from audit").await == "1").then_some(())
    })
    .await;
    // Offered without a pause: there is room for 10,000 and what is written meanwhile.
    (0..50_000).for_each(|_| trail.offer(row(now)));
    let dropped = trail.dropped();
    assert!(dropped > 0 && dropped <= 40_000, "{dropped} were dropped");
    trail.close().await;
    assert_eq!(postgres::query(&url, "select count(*) from audit").await, (50_001 - dropped).to_string());
}
