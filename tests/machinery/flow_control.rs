//! API priority and fairness.

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{TestServer, config_map, eventually};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{Mutex, oneshot};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A level of so many seats or a few more, and a schema that sorts the group `test` into it, by user.
async fn narrow(server: &TestServer, response: Value) -> (Value, Value) {
    let level = json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": response,
    }}});
    let level = server.post(LEVELS, level).await.expect(201);
    let schema = json!({"metadata": {"name": "narrow"}, "spec": {
        "priorityLevelConfiguration": {"name": "narrow"}, "matchingPrecedence": 500, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{
            "subjects": [{"kind": "Group", "group": {"name": "test"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
        }],
    }});
    let schema = server.post(SCHEMAS, schema).await.expect(201);
    let role = json!({"metadata": {"name": "test"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let binding = json!({"metadata": {"name": "test"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "test"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    let (schema_uid, level_uid) = (schema["metadata"]["uid"].clone(), level["metadata"]["uid"].clone());
    eventually("the schema to be asked", async || {
        let response = get(server, "probe", MAPS).await;
        (header(&response, "x-kubernetes-pf-flowschema-uid") == schema_uid).then_some(())
    })
    .await;
    (schema_uid, level_uid)
}

fn user(name: &str) -> User {
    User::new(name, &["test"])
}

async fn get(server: &TestServer, name: &str, path: &str) -> Response<Body> {
    server.send(Some(user(name)), Request::builder().uri(path).body(Body::empty()).unwrap()).await
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A write whose body is not sent before the sender says so: it holds its seat until then.
fn held(server: &Arc<TestServer>, name: &'static str) -> (oneshot::Sender<()>, tokio::task::JoinHandle<u16>) {
    let (send, sent) = oneshot::channel::<()>();
    let body = futures::stream::once(async move {
        sent.await.ok();
        Ok::<_, Infallible>(Bytes::from(config_map(name, "1").to_string()))
    });
    let request = Request::post(MAPS).header("content-type", "application/json").body(Body::from_stream(body.boxed())).unwrap();
    let server = Arc::clone(server);
    let task = tokio::spawn(async move { server.send(Some(user("elephant")), request).await.status().as_u16() });
    (send, task)
}

async fn metric(server: &TestServer, name: &str) -> i64 {
    let text = String::from_utf8(server.bytes("/metrics").await.to_vec()).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{priority_level=\"narrow\"}}")));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0, |number| number.parse().unwrap())
}

async fn executing(server: &TestServer, count: i64) {
    eventually("the seat to be taken", async || {
        (metric(server, "apiserver_flowcontrol_current_executing_seats").await == count).then_some(())
    })
    .await;
}

async fn waiting(server: &TestServer, count: i64) {
    eventually("requests to wait", async || {
        (metric(server, "apiserver_flowcontrol_current_inqueue_requests").await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_mandatory_objects_come_back_and_dangling_is_told() {
    let server = TestServer::memory().await;
    let before = server.get(&format!("{SCHEMAS}/catch-all")).await.expect(200);
    server.delete(&format!("{SCHEMAS}/catch-all")).await.expect(200);
    let uid = eventually("catch-all to come back", async || {
        let answer = server.get(&format!("{SCHEMAS}/catch-all")).await;
        (answer.code == 200).then(|| answer.body["metadata"]["uid"].clone())
    })
    .await;
    assert_ne!(uid, before["metadata"]["uid"]);
    server
        .patch(&format!("{SCHEMAS}/catch-all"), json!({"spec": {"matchingPrecedence": 77}}))
        .await
        .expect_status(422, "Invalid");
    let patch = json!({"spec": {"priorityLevelConfiguration": {"name": "nowhere"}}});
    server.patch(&format!("{SCHEMAS}/service-accounts"), patch).await.expect(200);
    for (name, expected) in [("service-accounts", "True"), ("global-default", "False")] {
        eventually("the condition", async || {
            let schema = server.get(&format!("{SCHEMAS}/{name}")).await.expect(200);
            let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["type"] == "Dangling" && one["status"] == expected).then_some(())
        })
        .await;
    }
}

/// "API priority and fairness should ensure that requests can be classified by adding FlowSchema and
/// PriorityLevelConfiguration".
#[tokio::test]
async fn a_request_is_told_where_it_belongs() {
    let server = TestServer::memory().await;
    let (schema, level) = narrow(&server, json!({"type": "Reject"})).await;
    let response = get(&server, "jane", MAPS).await;
    assert_eq!(header(&response, "x-kubernetes-pf-flowschema-uid"), schema);
    assert_eq!(header(&response, "x-kubernetes-pf-prioritylevel-uid"), level);
    let refused = get(&server, "jane", &format!("{MAPS}/none")).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "x-kubernetes-pf-flowschema-uid")), (404, schema.as_str().unwrap()));
    let exempt = server.get(&format!("{SCHEMAS}/exempt")).await.expect(200);
    let admin = server.send(Some(User::admin()), Request::builder().uri(MAPS).body(Body::empty()).unwrap()).await;
    assert_eq!(header(&admin, "x-kubernetes-pf-flowschema-uid"), exempt["metadata"]["uid"]);
}

#[tokio::test]
async fn without_queues_what_finds_no_seat_is_told_to_come_again() {
    let server = Arc::new(TestServer::memory().await);
    narrow(&server, json!({"type": "Reject"})).await;
    let (send, elephant) = held(&server, "one");
    executing(&server, 1).await;
    let refused = get(&server, "mouse", MAPS).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (429, "1"));
    // Others are not concerned.
    server.get(MAPS).await.expect(200);
    send.send(()).unwrap();
    assert_eq!(elephant.await.unwrap(), 201);
    assert_eq!(get(&server, "mouse", MAPS).await.status(), 200);
}

/// "API priority and fairness should ensure that requests can't be drowned out (fairness)": one client that lists everything,
/// again and again, does not keep another's get waiting behind all of it.
#[tokio::test]
async fn one_client_that_lists_in_a_loop_does_not_slow_anothers_get() {
    const LISTS: usize = 60;
    let server = Arc::new(TestServer::memory().await);
    let queuing = json!({"type": "Queue", "queuing": {"queues": 64, "handSize": 4, "queueLengthLimit": 100}});
    narrow(&server, queuing).await;
    let (send, blocker) = held(&server, "one");
    executing(&server, 1).await;
    let order: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let ask = |name: &'static str, path: String| {
        let (server, order) = (Arc::clone(&server), Arc::clone(&order));
        tokio::spawn(async move {
            let code = get(&server, name, &path).await.status().as_u16();
            order.lock().await.push(name);
            code
        })
    };
    let mut tasks: Vec<_> = (0..LISTS).map(|_| ask("elephant", "/api/v1/configmaps".into())).collect();
    waiting(&server, LISTS as i64).await;
    tasks.push(ask("mouse", "/api/v1/namespaces/default".into()));
    waiting(&server, LISTS as i64 + 1).await;
    send.send(()).unwrap();
    assert_eq!(blocker.await.unwrap(), 201);
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    let order = order.lock().await;
    let place = order.iter().position(|name| *name == "mouse").unwrap();
    // It came last. In each of the elephant's four queues one request may go before it.
    assert!(place <= 8, "the get was answered as number {place} of {}", order.len());
}

/// "API priority and fairness should ensure that requests can't be drowned out (priority)": a level that is full holds up
/// nobody of another.
#[tokio::test]
async fn a_full_level_holds_up_nobody_of_another() {
    let server = Arc::new(TestServer::memory().await);
    let queuing = json!({"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 5}});
    narrow(&server, queuing).await;
    let (send, blocker) = held(&server, "one");
    executing(&server, 1).await;
    let asked: Vec<_> = (0..30)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { get(&server, "elephant", MAPS).await.status().as_u16() })
        })
        .collect();
    // Two queues of five.
    waiting(&server, 10).await;
    server.get(MAPS).await.expect(200);
    let jane = User::new("jane", &["system:masters"]);
    server.call_as(jane, "GET", MAPS, None).await.expect(200);
    send.send(()).unwrap();
    blocker.await.unwrap();
    let mut codes = vec![];
    for one in asked {
        codes.push(one.await.unwrap());
    }
    assert_eq!((codes.iter().filter(|code| **code == 200).count(), codes.iter().filter(|code| **code == 429).count()), (10, 20));
}

/// Who goes away while waiting leaves neither a seat nor a place behind.
#[tokio::test]
async fn who_goes_away_gives_up_the_place() {
    let server = Arc::new(TestServer::memory().await);
    let queuing = json!({"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 5}});
    narrow(&server, queuing).await;
    let (send, blocker) = held(&server, "one");
    executing(&server, 1).await;
    let gone = {
        let server = Arc::clone(&server);
        tokio::spawn(async move { get(&server, "mouse", MAPS).await.status() })
    };
    waiting(&server, 1).await;
    gone.abort();
    waiting(&server, 0).await;
    blocker.abort();
    executing(&server, 0).await;
    drop(send);
    assert_eq!(get(&server, "mouse", MAPS).await.status(), 200);
}

#[tokio::test]
async fn a_watch_holds_a_seat_only_while_it_begins() {
    let server = Arc::new(TestServer::memory().await);
    narrow(&server, json!({"type": "Reject"})).await;
    let watch = get(&server, "jane", &format!("{MAPS}?watch=1")).await;
    assert_eq!(watch.status(), 200);
    assert_eq!(get(&server, "jane", MAPS).await.status(), 200);
    drop(watch);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_to_come_again() {
    let server = Arc::new(TestServer::memory().await);
    let queuing = json!({"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 5}});
    narrow(&server, queuing).await;
    let (send, blocker) = held(&server, "one");
    executing(&server, 1).await;
    let before = tokio::time::Instant::now();
    let refused = get(&server, "mouse", MAPS).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (429, "1"));
    assert!(before.elapsed().as_secs() >= 15, "by the paused clock");
    waiting(&server, 0).await;
    send.send(()).unwrap();
    assert_eq!(blocker.await.unwrap(), 201);
}

/// Flows may be told apart by namespace: what one asks of many does not keep it from asking another.
#[tokio::test]
async fn a_busy_namespace_does_not_slow_another() {
    const GETS: usize = 60;
    let server = Arc::new(TestServer::memory().await);
    let queuing = json!({"type": "Queue", "queuing": {"queues": 64, "handSize": 4, "queueLengthLimit": 100}});
    narrow(&server, queuing).await;
    server
        .patch(&format!("{SCHEMAS}/narrow"), json!({"spec": {"distinguisherMethod": {"type": "ByNamespace"}}}))
        .await
        .expect(200);
    let (send, blocker) = held(&server, "one");
    executing(&server, 1).await;
    let order: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let ask = |namespace: &'static str| {
        let (server, order) = (Arc::clone(&server), Arc::clone(&order));
        tokio::spawn(async move {
            let code = get(&server, "jane", &format!("/api/v1/namespaces/{namespace}/configmaps")).await.status().as_u16();
            order.lock().await.push(namespace);
            code
        })
    };
    let mut tasks: Vec<_> = (0..GETS).map(|_| ask("default")).collect();
    waiting(&server, GETS as i64).await;
    tasks.push(ask("kube-system"));
    waiting(&server, GETS as i64 + 1).await;
    send.send(()).unwrap();
    assert_eq!(blocker.await.unwrap(), 201);
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    let place = order.lock().await.iter().position(|namespace| *namespace == "kube-system").unwrap();
    assert!(place <= 8, "it was answered as number {place}");
}

/// A schema whose level is gone sorts nothing any more.
#[tokio::test]
async fn without_its_level_a_schema_is_passed_over() {
    let server = TestServer::memory().await;
    let (schema, _) = narrow(&server, json!({"type": "Reject"})).await;
    server.delete(&format!("{LEVELS}/narrow")).await.expect(200);
    let response = eventually("another schema to be asked", async || {
        let response = get(&server, "jane", MAPS).await;
        (header(&response, "x-kubernetes-pf-flowschema-uid") != schema).then_some(response)
    })
    .await;
    assert_eq!(response.status(), 200);
    let global = server.get(&format!("{SCHEMAS}/global-default")).await.expect(200);
    assert_eq!(header(&response, "x-kubernetes-pf-flowschema-uid"), global["metadata"]["uid"]);
    let dangling = eventually("the condition", async || {
        let schema = server.get(&format!("{SCHEMAS}/narrow")).await.expect(200);
        let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|one| one["type"] == "Dangling" && one["status"] == "True")
    });
    assert_eq!(dangling.await["reason"], "NotFound");
}
