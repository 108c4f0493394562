//! Bodies and queries that are small to send and large to hold. What a test measures, it measures in a process of its own.

use crate::custom_resources::{definition, establish};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Request, Response};
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_tests::{Answer, TestServer, config_map};
use std::io::Write;
use std::process::Command;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
/// As much as the server reads.
const BODY_BYTES: usize = 3 * 1024 * 1024 - 1024;

/// Runs a test of this file, which is ignored otherwise, alone in another process.
fn alone(name: &str) {
    let exe = std::env::current_exe().unwrap();
    let name = format!("hostile_bodies::{name}");
    let output = Command::new(exe).args(["--exact", &name, "--ignored", "--nocapture"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("1 passed"), "there is no such test: {told}");
}

/// The most mebibytes that this process had in memory since it was last asked.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kibibytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    kibibytes / 1024
}

async fn send(server: &TestServer, method: &str, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", content_type).body(body.into()).unwrap();
    Answer::of(server.send(Some(User::admin()), request).await).await
}

/// A crontab that keeps whatever its spec holds.
async fn server() -> TestServer {
    let server = TestServer::memory().await;
    let item = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
        "size": {"type": "string", "default": "x".repeat(100)},
    }});
    let spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
        "list": {"type": "array", "items": item},
        "set": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "set"},
    }});
    establish(&server, definition(spec)).await;
    server
}

/// `head`, as many of `unit` as there is room for, and `tail`.
fn filled(head: &str, unit: &str, tail: &str) -> String {
    let count = (BODY_BYTES - head.len() - tail.len()) / unit.len();
    format!("{head}{}{tail}", unit.repeat(count))
}

/// Each with where it is sent to.
fn bombs() -> Vec<(&'static str, &'static str, String)> {
    let map = r#"{"metadata":{"name":"m"},"#;
    let pod = r#"{"metadata":{"name":"p"},"spec":{"containers":["#;
    let tab = r#"{"apiVersion":"stable.example.com/v1","kind":"CronTab","metadata":{"name":"t"},"spec":{"#;
    let numbered = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(",");
    vec![
        ("numbers", TABS, filled(&format!("{tab}\"any\":[0"), ",0", "]}}")),
        ("empty objects", TABS, filled(&format!("{tab}\"any\":[{{}}"), ",{}", "]}}")),
        ("empty lists in lists", TABS, filled(&format!("{tab}\"any\":[[]"), ",[[]]", "]}}")),
        ("objects that are filled in", TABS, filled(&format!("{tab}\"list\":[{{}}"), ",{}", "]}}")),
        ("some objects that are filled in", TABS, format!("{tab}\"list\":[{}]}}}}", numbered(200_000, &|_| "{}".into()))),
        ("a set of one thing", TABS, filled(&format!("{tab}\"set\":[1"), ",1", "]}}")),
        ("empty containers", PODS, filled(&format!("{pod}{{}}"), ",{}", "]}}")),
        ("nulls for containers", PODS, filled(&format!("{pod}null"), ",null", "]}}")),
        ("some containers", PODS, format!("{pod}{}]}}}}", numbered(5_000, &|_| "{}".into()))),
        ("a long key", MAPS, filled(&format!("{map}\"data\":{{\"a"), "a", "\":\"1\"}}")),
        ("many short keys", MAPS, format!("{map}\"data\":{{{}}}}}", numbered(200_000, &|n| format!("\"{n}\":\"\"")))),
        ("one key again and again", MAPS, filled(&format!("{map}\"data\":{{\"a\":\"\""), ",\"a\":\"\"", "}}")),
        ("unknown fields", MAPS, format!("{map}\"data\":{{}},{}}}", numbered(200_000, &|n| format!("\"{n}\":0")))),
        (
            "many labels",
            MAPS,
            format!("{{\"metadata\":{{\"name\":\"m\",\"labels\":{{{}}}}}}}", numbered(150_000, &|n| format!("\"!{n}\":\"\""))),
        ),
        ("many owners", MAPS, filled("{\"metadata\":{\"name\":\"m\",\"ownerReferences\":[{}", ",{}", "]}}")),
        (
            "many finalizers",
            MAPS,
            format!("{{\"metadata\":{{\"name\":\"m\",\"finalizers\":[{}]}}}}", numbered(100_000, &|n| format!("\"a.b/{n}\""))),
        ),
        (
            "many managers",
            MAPS,
            format!(
                "{{\"metadata\":{{\"name\":\"m\",\"managedFields\":[{}]}}}}",
                numbered(20_000, &|n| format!(
                    "{{\"manager\":\"m{n}\",\"operation\":\"Apply\",\"apiVersion\":\"v1\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{{\"f:data\":{{}}}}}}"
                ))
            ),
        ),
        ("a huge number", TABS, filled(&format!("{tab}\"any\":1"), "0", "}}")),
        ("a number that is too large", TABS, format!("{tab}\"any\":1e999999999999}}}}")),
        ("a long fraction", TABS, filled(&format!("{tab}\"any\":0."), "3", "}}")),
        ("escapes", MAPS, filled(&format!("{map}\"data\":{{\"a\":\""), "\\u0000", "\"}}")),
        ("half a surrogate", MAPS, format!("{map}\"data\":{{\"a\":\"\\ud800\"}}}}")),
        ("white space", MAPS, filled(map, " ", "\"data\":{}}")),
    ]
}

#[test]
fn bodies_that_are_small_to_send_are_not_large_to_hold() {
    alone("bombs_alone");
}

/// Those that are sent in YAML too.
const IN_YAML: [&str; 3] = ["empty objects", "one key again and again", "some objects that are filled in"];
/// The largest that are let in take some tens of times their size.
const PEAK_MIB: usize = 500;

#[tokio::test]
#[ignore = "run by bodies_that_are_small_to_send_are_not_large_to_hold"]
async fn bombs_alone() {
    let server = server().await;
    println!("at rest: {} MiB", peak());
    for (what, path, body) in bombs() {
        let types: &[&str] =
            if IN_YAML.contains(&what) { &["application/json", "application/yaml"] } else { &["application/json"] };
        for content_type in types {
            let answer = send(&server, "POST", path, content_type, body.clone()).await;
            let took = peak();
            println!("{what} in {content_type}: {} with {took} MiB", answer.code);
            assert!([201, 400, 413, 422].contains(&answer.code), "{what} in {content_type}: {}", answer.body);
            assert!(took < PEAK_MIB, "{what} in {content_type} took {took} MiB");
            // A key that is refused stands in the field and in the value of its cause, and both in the message, as in Kubernetes.
            assert!(answer.body.to_string().len() < 5 * BODY_BYTES, "{what}: the answer is far larger than what was sent");
        }
        let name =
            body[..body.len().min(80)].split("\"name\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
        server.delete(&format!("{path}/{name}")).await;
    }
    server.get(MAPS).await.expect(200);
}

#[test]
fn patches_do_not_add_up() {
    alone("patches_alone");
}

#[tokio::test]
#[ignore = "run by patches_do_not_add_up"]
async fn patches_alone() {
    let server = server().await;
    server.post(MAPS, config_map("m", &"x".repeat(1000))).await.expect(201);
    let (json, merge, strategic, apply) = (
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    );
    peak();
    let one = format!("{MAPS}/m");
    let copies: Vec<Value> = (0..10_000).map(|n| json!({"op": "copy", "from": "", "path": format!("/data{n}")})).collect();
    let said = send(&server, "PATCH", &one, json, Value::from(copies).to_string()).await.expect_status(422, "Invalid");
    assert_eq!(said, "the server rejected our request due to an error in our request");
    let numbered = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(",");
    let path = format!("{one}?fieldManager=x&force=true");
    let head = "\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"m\"}";
    for (what, content_type, body) in [
        (
            "many finalizers",
            strategic,
            format!("{{\"metadata\":{{\"finalizers\":[{}]}}}}", numbered(200_000, &|n| format!("\"a/{n}\""))),
        ),
        (
            "many owners",
            strategic,
            format!("{{\"metadata\":{{\"ownerReferences\":[{}]}}}}", numbered(1_000, &|n| format!("{{\"uid\":\"{n}\"}}"))),
        ),
        (
            "keys to be kept",
            strategic,
            format!(
                "{{\"data\":{{\"$retainKeys\":[{0}],{1}}}}}",
                numbered(100_000, &|n| format!("\"{n}\"")),
                numbered(100_000, &|n| format!("\"{n}\":\"\""))
            ),
        ),
        ("many keys", merge, format!("{{\"data\":{{{}}}}}", numbered(200_000, &|n| format!("\"{n}\":\"\"")))),
        ("many keys", apply, format!("{{{head},\"data\":{{{}}}}}", numbered(200_000, &|n| format!("\"{n}\":\"\"")))),
        (
            "many owners",
            apply,
            format!(
                "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"m\",\"ownerReferences\":[{}]}}}}",
                numbered(1_000, &|n| format!("{{\"uid\":\"{n}\"}}"))
            ),
        ),
    ] {
        let path = if content_type == apply { &path } else { &one };
        let answer = send(&server, "PATCH", path, content_type, body).await;
        let took = peak();
        println!("{what} in {content_type}: {} with {took} MiB", answer.code);
        assert!([200, 400, 413, 422].contains(&answer.code), "{what} in {content_type}: {}", answer.body);
        assert!(took < PEAK_MIB, "{what} in {content_type} took {took} MiB");
    }
    assert_eq!(server.get(&one).await.expect(200)["data"]["key"], "x".repeat(1000));
}

/// A body is read as it stands: nobody unpacks it.
#[tokio::test]
async fn a_body_that_is_compressed_is_not_unpacked() {
    let server = TestServer::memory().await;
    let mut packed = GzEncoder::new(vec![], Compression::best());
    packed.write_all(config_map("m", &"x".repeat(64 << 20)).to_string().as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 100_000);
    let request = Request::post(MAPS).header("content-type", "application/json").header("content-encoding", "gzip");
    let answer = Answer::of(server.send(Some(User::admin()), request.body(Body::from(packed)).unwrap()).await).await;
    answer.expect_status(400, "BadRequest");
}

/// What is as deep as a body may be goes through all that is done with objects, on a stack of the usual size.
#[tokio::test]
async fn objects_as_deep_as_may_be_are_served_in_every_form() {
    let server = server().await;
    let nested =
        |depth: usize| (0..depth).fold(json!("deep"), |inner, n| if n % 3 == 0 { json!([inner]) } else { json!({"a": inner}) });
    let tab = |name: &str, depth: usize| json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": {"any": nested(depth)}});
    let mut watch = server.watch(&format!("{TABS}?watch=1")).await;
    server.post(TABS, tab("refused", 120)).await.expect_status(400, "BadRequest");
    server.post(TABS, tab("t", 92)).await.expect(201);
    assert_eq!(watch.brief().await, "ADDED t");
    let one = format!("{TABS}/t");
    let read = server.get(&one).await.expect(200);
    assert_eq!(read["spec"]["any"], nested(92));
    for accept in [
        "application/yaml",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    ] {
        let request = Request::get(&one).header("accept", accept).body(Body::empty()).unwrap();
        assert_eq!(server.send(Some(User::admin()), request).await.status(), 200, "{accept}");
    }
    let path = format!("{one}?fieldManager=x&force=true");
    for (content_type, body) in [
        ("application/merge-patch+json", json!({"spec": {"any": nested(92), "more": nested(92)}})),
        ("application/json-patch+json", json!([{"op": "add", "path": "/spec/other", "value": nested(92)}])),
        ("application/json-patch+json", json!([{"op": "copy", "from": "/spec", "path": "/spec/again"}])),
        ("application/apply-patch+yaml", tab("t", 91)),
    ] {
        send(&server, "PATCH", if content_type.contains("apply") { &path } else { &one }, content_type, body.to_string())
            .await
            .expect(200);
    }
    let deeper = json!([{"op": "copy", "from": "/spec", "path": "/spec/any/a/0/a/a/0/a/a/0/deeper"}]);
    let answer = send(&server, "PATCH", &one, "application/json-patch+json", deeper.to_string()).await;
    assert_eq!(answer.body["details"]["causes"][0]["message"], "operation '/0' failed: exceeded max depth");
    send(&server, "POST", TABS, "application/yaml", tab("yaml", 92).to_string()).await.expect(201);
    server.get(TABS).await.expect(200);
    let whole = server.get(&one).await.expect(200);
    server.put(&one, whole).await.expect(200);
    server.delete(&one).await.expect(200);
    // A schema is nested for itself.
    let schema = |depth: usize| {
        (0..depth).fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"a": inner}}))
    };
    for (depth, code) in [(40, 201), (60, 400), (200, 400)] {
        let mut other = definition(schema(depth));
        other["metadata"]["name"] = "others.deep.example.com".into();
        other["spec"]["group"] = "deep.example.com".into();
        other["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
        let answer = server.post(crate::custom_resources::CRDS, other).await;
        assert_eq!(answer.code, code, "{depth}: {}", answer.body["message"]);
        server.delete(&format!("{}/others.deep.example.com", crate::custom_resources::CRDS)).await;
    }
}

async fn ask(server: &TestServer, path: &str) -> Response<Body> {
    let request = Request::get(path).header("content-type", "application/json").body(Body::empty()).unwrap();
    server.send(Some(User::admin()), request).await
}

#[tokio::test]
async fn queries_of_any_size_are_answered() {
    let server = TestServer::memory().await;
    for n in 0..20 {
        server.post(MAPS, config_map(&format!("m{n}"), "1")).await.expect(201);
    }
    let items = async |query: &str| server.get(&format!("{MAPS}?{query}")).await.expect(200)["items"].as_array().unwrap().len();
    // No limit at all, as in Kubernetes.
    assert_eq!((items("limit=-1").await, items("limit=0").await, items("limit=9223372036854775807").await), (20, 20, 20));
    let absent = (0..9_000).map(|n| format!("!a{n}")).collect::<Vec<_>>().join(",");
    assert_eq!(items(&format!("labelSelector={absent}")).await, 20);
    assert_eq!(items(&format!("labelSelector={absent},a0")).await, 0);
    let values = (0..9_000).map(|n| format!("v{n}")).collect::<Vec<_>>().join(",");
    assert_eq!(items(&format!("labelSelector=a%20notin%20({values})")).await, 20);
    let fields = vec!["metadata.name!=x"; 3_000].join(",");
    assert_eq!(items(&format!("fieldSelector={fields}")).await, 20);
    assert_eq!(items(&vec!["a=b"; 10_000].join("&")).await, 20);
    for (query, code) in [
        ("limit=9223372036854775808".to_owned(), 400),
        (format!("labelSelector={}", "(".repeat(60_000)), 400),
        (format!("labelSelector=a%20in%20{}", "(".repeat(60_000)), 400),
        (format!("fieldSelector={}", "a=".repeat(30_000)), 400),
        (format!("continue={}", "a".repeat(60_000)), 400),
        (
            format!(
                "continue={}",
                URL_SAFE_NO_PAD.encode(format!(
                    "{{\"v\":\"meta.k8s.io/v1\",\"rv\":{}1{}}}",
                    "[".repeat(20_000),
                    "]".repeat(20_000)
                ))
            ),
            400,
        ),
        (format!("resourceVersion={}", "9".repeat(60_000)), 422),
        ("watch=1&timeoutSeconds=9223372036854775807".to_owned(), 200),
        ("watch=1&timeoutSeconds=-9223372036854775808".to_owned(), 200),
    ] {
        let answered = ask(&server, &format!("{MAPS}?{query}")).await;
        assert_eq!(answered.status().as_u16(), code, "{:.60}", query);
    }
    let metrics = server.bytes("/metrics").await;
    let panics =
        String::from_utf8_lossy(&metrics).lines().find(|line| line.starts_with("apiserver_request_panics")).map(str::to_owned);
    assert_eq!(panics.as_deref().and_then(|line| line.split(' ').nth(1)), Some("0"));
}

/// One user's watches, however many, are no reason that another waits.
#[tokio::test]
async fn a_flood_of_watches_leaves_others_served() {
    let server = TestServer::memory().await;
    server.post(MAPS, config_map("a", "1")).await.expect(201);
    let user = User::new("flood", &[]);
    let role = json!({"metadata": {"name": "reader"}, "rules": [{"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["configmaps"]}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let bound = json!({"metadata": {"name": "reader"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "User", "name": "flood"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", bound).await.expect(201);
    let mut open = vec![];
    for _ in 0..3_000 {
        let request = Request::get(format!("{MAPS}?watch=1")).body(Body::empty()).unwrap();
        open.push(server.send(Some(user.clone()), request).await);
    }
    assert!(open.iter().any(|response| response.status() == 200));
    server.post(MAPS, config_map("b", "1")).await.expect(201);
    assert_eq!(server.get(MAPS).await.expect(200)["items"].as_array().unwrap().len(), 2);
    let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion=0")).await;
    assert_eq!(watch.brief().await, "ADDED a");
}
