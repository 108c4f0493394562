//! Secrets are encrypted before they reach the store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_apiserver::encryption::Encryption;
use slipway_store::memory::Memory;
use slipway_store::postgres::Postgres;
use slipway_store::{Change, Expect, Store, Write};
use slipway_tests::{TestServer, config_map, eventually, postgres};
use std::path::Path;
use std::sync::{Arc, Mutex};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Secrets under these keys, each 32 times its byte; the first writes.
fn keys(keys: &[(&str, u8)], identity: bool) -> Options {
    let keys: Vec<Value> =
        keys.iter().map(|(name, byte)| json!({"name": name, "secret": STANDARD.encode([*byte; 32])})).collect();
    let mut providers = vec![json!({"aesgcm": {"keys": keys}})];
    if identity {
        providers.push(json!({"identity": {}}));
    }
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    });
    Options { encryption: Arc::new(Encryption::parse(&file.to_string()).unwrap()), ..Options::default() }
}

fn secret(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"password": value}})
}

/// Whether any file below the folder has the bytes in it.
fn holds(folder: &Path, text: &str) -> bool {
    let mut grep = std::process::Command::new("grep");
    let found = grep.args(["-rqaF", "-D", "skip", "-e", text]).arg(folder).stderr(std::process::Stdio::null());
    // A file that Postgres removed meanwhile makes it 2 if nothing was found.
    found.status().expect("grep is installed").code() == Some(0)
}

async fn stored(store: &dyn Store, name: &str) -> Vec<u8> {
    store.get(&format!("/core/secrets/default/{name}"), None).await.unwrap().unwrap().value.to_vec()
}

fn is_under(stored: &[u8], key: &str) -> bool {
    stored.starts_with(format!("slipway:enc:aesgcm:v1:{key}:").as_bytes())
}

#[tokio::test]
async fn nothing_of_a_secret_is_to_be_found_in_postgres() {
    let cluster = postgres::Cluster::shared().await;
    let url = cluster.database().await;
    let store = Postgres::connect(&url, Default::default()).await.unwrap();
    let server = TestServer::start(store, keys(&[("k1", 1)], false)).await;
    let hidden = "vJ3xQw8-the-hidden-one";
    server.post(SECRETS, secret("s", hidden)).await.expect(201);
    let longer = format!("{hidden}{hidden}");
    server.put(&format!("{SECRETS}/s"), secret("s", &longer)).await.expect(200);
    server.patch(&format!("{SECRETS}/s"), json!({"metadata": {"annotations": {"note": hidden}}})).await.expect(200);
    server.delete(&format!("{SECRETS}/s")).await.expect(200);
    server.post(SECRETS, secret("t", hidden)).await.expect(201);
    let shown = server.get(&format!("{SECRETS}/t")).await.expect(200);
    assert_eq!(shown["data"]["password"], STANDARD.encode(hidden));
    // What is not encrypted is found, so that the search itself is known to work.
    server.post("/api/v1/namespaces/default/configmaps", config_map("m", "vJ3xQw8-the-shown-one")).await.expect(201);
    postgres::query(&url, "checkpoint").await;
    assert!(holds(cluster.folder(), "vJ3xQw8-the-shown-one"));
    assert!(!holds(cluster.folder(), hidden), "a secret lies plainly in Postgres' files");
    assert!(!holds(cluster.folder(), STANDARD.encode(hidden).trim_end_matches('=')), "or in base64");
    let rows = "select count(*), count(*) filter (where value is null), \
         count(*) filter (where substr(value, 1, 25) = 'slipway:enc:aesgcm:v1:k1:') from log where key like '/core/secrets/%'";
    assert_eq!(postgres::query(&url, rows).await, "5|1|4");
}

#[tokio::test]
async fn keys_are_rotated_by_a_restart_and_the_old_one_can_be_thrown_away() {
    let cluster = postgres::Cluster::shared().await;
    let url = cluster.database().await;
    let open = async |options| TestServer::start(Postgres::connect(&url, Default::default()).await.unwrap(), options).await;
    let plain = open(Options::default()).await;
    plain.post(SECRETS, secret("before", "0")).await.expect(201);
    drop(plain);
    let first = open(keys(&[("k1", 1)], true)).await;
    for n in 0..30 {
        first.post(SECRETS, secret(&format!("s{n}"), &n.to_string())).await.expect(201);
    }
    drop(first);
    let second = open(keys(&[("k2", 2), ("k1", 1)], true)).await;
    let elsewhere = "select count(*) from kv join log on rev = mod_rev where kv.key like '/core/secrets/%' \
         and substr(value, 1, 25) <> 'slipway:enc:aesgcm:v1:k2:'";
    eventually("all secrets to be under the new key", async || (postgres::query(&url, elsewhere).await == "0").then_some(()))
        .await;
    drop(second);
    let third = open(keys(&[("k2", 2)], false)).await;
    let list = third.get(SECRETS).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 31);
    let shown = third.get(&format!("{SECRETS}/s17")).await.expect(200);
    assert_eq!(shown["data"]["password"], STANDARD.encode("17"));
    assert_eq!(third.get(&format!("{SECRETS}/before")).await.expect(200)["data"]["password"], STANDARD.encode("0"));
}

#[tokio::test]
async fn a_write_that_changes_nothing_brings_a_secret_under_the_first_key() {
    let store = Memory::new();
    let server = TestServer::start(store.clone(), keys(&[("k1", 1)], true)).await;
    let object = json!({
        "kind": "Secret", "apiVersion": "v1",
        "metadata": {"name": "s", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "data": {"a": "Yg=="}, "type": "Opaque",
    });
    // What the start itself stores anew is over by then.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    // As somebody without a key would have stored it.
    let change = Change::Put(object.to_string().into());
    store.write(Write { key: "/core/secrets/default/s".into(), expect: Expect::Absent, change }).await.unwrap();
    server.get(SECRETS).await.expect(200);
    let path = format!("{SECRETS}/s");
    let read = server.get(&path).await.expect(200);
    let written = server.put(&path, read.clone()).await.expect(200);
    assert_ne!(written["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"]);
    assert!(is_under(&stored(&*store, "s").await, "k1"));
    let read = server.get(&path).await.expect(200);
    let again = server.put(&path, read.clone()).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"], "now there is nothing to write");
}

#[tokio::test]
async fn without_the_key_a_secret_is_refused_and_all_else_is_served() {
    let store = Memory::new();
    let server = TestServer::start(store.clone(), keys(&[("k1", 1)], false)).await;
    server.post(SECRETS, secret("s", "kept")).await.expect(201);
    server.post("/api/v1/namespaces/kube-system/secrets", secret("t", "kept")).await.expect(201);
    let before = stored(&*store, "s").await;
    for options in [keys(&[("k2", 2)], true), keys(&[("k1", 9)], true), Options::default()] {
        let server = TestServer::start(store.clone(), options).await;
        let path = format!("{SECRETS}/s");
        let message = server.get(&path).await.expect_status(500, "InternalError");
        assert!(message.contains("unable to transform key \"/core/secrets/default/s\""), "{message}");
        server.get(SECRETS).await.expect_status(500, "InternalError");
        server.get("/api/v1/secrets").await.expect_status(500, "InternalError");
        server.get("/api/v1/namespaces/kube-public/secrets").await.expect(200);
        server.patch(&path, json!({"data": {"a": "Yg=="}})).await.expect_status(500, "InternalError");
        server.put(&path, secret("s", "other")).await.expect_status(500, "InternalError");
        server.delete(&path).await.expect_status(500, "InternalError");
        server.post(SECRETS, secret("s", "other")).await.expect_status(409, "AlreadyExists");
        let mut watch = server.watch(&format!("{SECRETS}?watch=1")).await;
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(500)));
        server.get("/api/v1/configmaps").await.expect(200);
        server.post("/api/v1/namespaces/default/configmaps", config_map("m", "1")).await.expect(201);
        server.delete("/api/v1/namespaces/default/configmaps/m").await.expect(200);
        assert_eq!(stored(&*store, "s").await, before, "nothing was lost");
    }
    let server = TestServer::start(store, keys(&[("k2", 2), ("k1", 1)], false)).await;
    let shown = server.get(&format!("{SECRETS}/s")).await.expect(200);
    assert_eq!(shown["data"]["password"], STANDARD.encode("kept"));
}

#[tokio::test]
async fn a_row_that_was_changed_or_moved_is_refused() {
    let store = Memory::new();
    let server = TestServer::start(store.clone(), keys(&[("k1", 1)], true)).await;
    server.post(SECRETS, secret("mine", "1")).await.expect(201);
    server.post(SECRETS, secret("yours", "2")).await.expect(201);
    let mut changed = stored(&*store, "mine").await;
    *changed.last_mut().unwrap() ^= 1;
    let moved = stored(&*store, "yours").await;
    for value in [changed, moved] {
        let key = "/core/secrets/default/mine".into();
        store.write(Write { key, expect: Expect::Any, change: Change::Put(value.into()) }).await.unwrap();
        let message = server.get(&format!("{SECRETS}/mine")).await.expect_status(500, "InternalError");
        assert!(message.contains("the value was changed, or is another object's"), "{message}");
    }
    server.get(&format!("{SECRETS}/yours")).await.expect(200);
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_in_logs_or_errors() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let store = Memory::new();
    let server = TestServer::start(store.clone(), keys(&[("k1", 1)], true)).await;
    let hidden = "kT9-hidden-in-here";
    let encoded = STANDARD.encode(hidden);
    let mut answers = vec![];
    let mut ask = async |method: &str, path: &str, body: Value| {
        let answer = server.call(method, path, Some(&body)).await;
        assert!(answer.code >= 400, "{path} is answered with {}", answer.code);
        answers.push(answer.body.to_string());
    };
    server.post(SECRETS, secret("s", hidden)).await.expect(201);
    server.post(SECRETS, json!({"metadata": {"name": "fixed"}, "immutable": true, "data": {"a": encoded}})).await.expect(201);
    let refused = |rest: Value| {
        let mut object = json!({"metadata": {"name": "x"}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    for wrong in [
        refused(json!({"data": {"a": hidden}})),
        refused(json!({"data": {"a": [encoded]}})),
        refused(json!({"data": encoded})),
        refused(json!({"stringData": {"a": {"b": hidden}}})),
        refused(json!({"stringData": {"bad key": hidden}})),
        refused(json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": hidden}})),
        refused(json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": hidden}})),
        json!({"metadata": {"name": "s"}, "stringData": {"a": hidden}}),
    ] {
        ask("POST", SECRETS, wrong).await;
    }
    ask("PUT", &format!("{SECRETS}/fixed"), json!({"metadata": {"name": "fixed"}, "stringData": {"a": format!("{hidden}2")}}))
        .await;
    ask("PATCH", &format!("{SECRETS}/fixed"), json!({"stringData": {"a": format!("{hidden}3")}})).await;
    ask("PATCH", &format!("{SECRETS}/s"), json!({"data": {"a": hidden}})).await;
    ask("PATCH", &format!("{SECRETS}/s"), json!({"metadata": {"resourceVersion": "1"}, "stringData": {"a": hidden}})).await;
    store
        .write(Write {
            key: "/core/secrets/default/broken".into(),
            expect: Expect::Absent,
            change: Change::Put(format!("{{\"kind\":\"Secret\",\"data\":{{\"a\":\"{encoded}\"").into()),
        })
        .await
        .unwrap();
    server.get(SECRETS).await;
    let metadata = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    server.get_as(metadata, &format!("{SECRETS}/broken")).await.expect_status(500, "InternalError");
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("/api/v1/namespaces/default/secrets"), "requests are logged at this level");
    let cut = encoded.trim_end_matches('=');
    for (what, text) in answers.iter().map(|answer| ("an error", answer)).chain([("the log", &logged)]) {
        assert!(!text.contains(hidden) && !text.contains(cut), "{what} has the secret: {text}");
    }
}
