//! What Kubernetes refuses is refused with its code, its reason, its words and its causes.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_apiserver::http::limits::BODY_BYTES_MAX;
use slipway_tests::{Answer, TestServer, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON: &str = "application/json";

async fn send(server: &TestServer, method: &str, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = Request::builder().method(method).uri(path).header("content-type", content_type).body(body.into()).unwrap();
    Answer::of(server.send(Some(User::admin()), request).await).await
}

/// What an answer must be: code and reason, the message (where it ends with `…`, its beginning), and the causes' fields.
struct Refusal(u16, &'static str, &'static str, &'static [&'static str]);

impl Refusal {
    #[track_caller]
    fn check(&self, answer: Answer) {
        let Refusal(code, reason, message, fields) = self;
        let causes = answer.body["details"]["causes"].as_array().cloned().unwrap_or_default();
        let said = answer.expect_status(*code, reason);
        match message.strip_suffix('…') {
            Some(beginning) => assert!(said.starts_with(beginning), "{said}"),
            None => assert_eq!(said, *message),
        }
        if !fields.is_empty() {
            let found: Vec<&str> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
            assert_eq!(found, *fields);
        }
    }
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}},
        },
    })
}

fn pod() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}})
}

/// The object with one place in it changed.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (outer, name) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(outer).unwrap()[name] = value;
    object
}

#[tokio::test]
async fn objects_that_cannot_be_decoded() {
    let server = TestServer::memory().await;
    let cases: Vec<(&str, Value, Refusal)> = vec![
        (
            "/apis/apps/v1/namespaces/default/deployments?fieldValidation=Strict",
            with(deployment(), "/spec/foo", json!(1)),
            Refusal(
                400,
                "BadRequest",
                "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\"",
                &[],
            ),
        ),
        (
            DEPLOYMENTS,
            with(deployment(), "/spec/replicas", json!("3")),
            Refusal(
                400,
                "BadRequest",
                "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
                &[],
            ),
        ),
        (
            PODS,
            with(pod(), "/spec/containers/0/resources", json!({"limits": {"cpu": "a lot"}})),
            Refusal(
                400,
                "BadRequest",
                "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                &[],
            ),
        ),
        (
            MAPS,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}),
            Refusal(
                400,
                "BadRequest",
                "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
                &[],
            ),
        ),
        (
            DEPLOYMENTS,
            with(deployment(), "/apiVersion", json!("apps/v1beta1")),
            Refusal(
                400,
                "BadRequest",
                "the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)",
                &[],
            ),
        ),
    ];
    for (path, body, refusal) in cases {
        refusal.check(server.post(path, body).await);
    }
}

#[tokio::test]
async fn objects_that_are_invalid() {
    let server = TestServer::memory().await;
    let cases: Vec<(&str, Value, Refusal)> = vec![
        (
            MAPS,
            config_map("Not_Valid", "1"),
            Refusal(
                422,
                "Invalid",
                "ConfigMap \"Not_Valid\" is invalid: metadata.name: Invalid value: \"Not_Valid\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                &["metadata.name"],
            ),
        ),
        (
            DEPLOYMENTS,
            with(deployment(), "/spec/template/metadata/labels", json!({"z": "1", "app": "other"})),
            Refusal(
                422,
                "Invalid",
                "Deployment.apps \"web\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"other\",\"z\":\"1\"}: `selector` does not match template `labels`",
                &["spec.template.metadata.labels"],
            ),
        ),
        (
            PODS,
            with(pod(), "/spec/containers", json!([])),
            Refusal(422, "Invalid", "Pod \"web\" is invalid: spec.containers: Required value", &["spec.containers"]),
        ),
        (
            PODS,
            with(with(pod(), "/spec/restartPolicy", json!("Sometimes")), "/spec/containers/0/name", json!("A B")),
            Refusal(422, "Invalid", "Pod \"web\" is invalid: [spec.…", &["spec.containers[0].name", "spec.restartPolicy"]),
        ),
        (
            SERVICES,
            json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 70000}]}}),
            Refusal(422, "Invalid", "Service \"web\" is invalid: …", &["spec.ports[0].port", "spec.ports[0].targetPort"]),
        ),
        (
            EVENTS,
            json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "elsewhere"}}),
            Refusal(
                422,
                "Invalid",
                "Event \"e\" is invalid: involvedObject.namespace: Invalid value: \"elsewhere\": does not match event.namespace",
                &["involvedObject.namespace"],
            ),
        ),
        (
            "/apis/events.k8s.io/v1/namespaces/default/events",
            json!({
                "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Odd", "action": "Test",
                "reason": "Tested", "reportingController": "slipway.test/a", "reportingInstance": "a-1",
            }),
            Refusal(
                422,
                "Invalid",
                "Event.events.k8s.io \"e\" is invalid: type: Invalid value: \"\": has invalid value: Odd",
                &["type"],
            ),
        ),
    ];
    for (path, body, refusal) in cases {
        refusal.check(server.post(path, body).await);
    }
}

#[tokio::test]
async fn bodies_that_are_no_objects() {
    let server = TestServer::memory().await;
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): ";
    let json_error = format!("{unrecognized}couldn't get version/kind; json parse error: ");
    let message = async |content_type: &str, body: &[u8]| {
        send(&server, "POST", MAPS, content_type, body.to_vec()).await.expect_status(400, "BadRequest")
    };
    let whole = config_map("a", "1").to_string();
    let truncated = &whole.as_bytes()[..40];
    assert_eq!(message(JSON, truncated).await, format!("{json_error}unexpected end of JSON input ({} ...)", &whole[..30]),);
    assert_eq!(message(JSON, b"").await, format!("{json_error}unexpected end of JSON input (<empty>)"));
    assert!(message(JSON, b"{\"metadata\": nonsense}").await.starts_with(&json_error));
    assert!(message(JSON, b"[]").await.starts_with(&format!("{json_error}json: cannot unmarshal array into Go value")));
    assert!(message("application/yaml", b"a: [").await.starts_with(&format!("{unrecognized}yaml: ")));
    assert!(message("application/yaml", b"\xff\xfe\xfd").await.starts_with(&format!("{unrecognized}yaml: ")));
    assert!(message("application/vnd.kubernetes.protobuf", b"not protobuf").await.contains("protobuf"));
    send(&server, "POST", MAPS, "text/html", "<p>").await.expect_status(415, "UnsupportedMediaType");

    // A body that breaks off on its way.
    let chunks = [Ok(whole.as_bytes()[..40].to_vec()), Err(std::io::Error::other("connection reset"))];
    let broken = Body::from_stream(futures::stream::iter(chunks));
    send(&server, "POST", MAPS, JSON, broken).await.expect_status(400, "BadRequest");

    let limit = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
    let large = config_map("a", &"x".repeat(BODY_BYTES_MAX)).to_string();
    assert_eq!(send(&server, "POST", MAPS, JSON, large).await.expect_status(413, "RequestEntityTooLarge"), limit);
    // Below that, a ConfigMap has a limit of its own.
    let large = config_map("a", &"x".repeat((1 << 20) + 1)).to_string();
    let said = send(&server, "POST", MAPS, JSON, large).await.expect_status(422, "Invalid");
    assert!(said.contains("Too long: may not be more than 1048576 bytes"), "{said}");
    assert_eq!(server.get(MAPS).await.expect(200)["items"].as_array().unwrap().len(), 0, "something was created");
}

#[tokio::test]
async fn changes_that_come_too_late_or_must_not_be() {
    let server = TestServer::memory().await;
    let created = server.post(DEPLOYMENTS, deployment()).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    server.patch(&path, json!({"spec": {"replicas": 2}})).await.expect(200);
    let stale = "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again";
    Refusal(409, "Conflict", stale, &[]).check(server.put(&path, with(created.clone(), "/spec/replicas", json!(3))).await);
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "web", "more": "x"}}}});
    let answer = server.patch(&path, selector).await;
    Refusal(422, "Invalid", "Deployment.apps \"web\" is invalid: …", &["spec.template.metadata.labels", "spec.selector"])
        .check(answer);
    let other = json!({"preconditions": {"uid": "11111111-1111-1111-1111-111111111111"}});
    let answer = server.call("DELETE", &path, Some(&other)).await;
    Refusal(409, "Conflict", "Operation cannot be fulfilled on deployments.apps \"web\": Precondition failed: UID in precondition: 11111111-1111-1111-1111-111111111111, UID in object meta: …", &[]).check(answer);
    Refusal(409, "AlreadyExists", "deployments.apps \"web\" already exists", &[])
        .check(server.post(DEPLOYMENTS, deployment()).await);

    let patch = async |content_type: &str, body: &str| send(&server, "PATCH", &path, content_type, body.to_owned()).await;
    patch("application/merge-patch+json", "{").await.expect_status(400, "BadRequest");
    patch("application/json-patch+json", r#"[{"op":"frob","path":"/a"}]"#).await.expect_status(400, "BadRequest");
    patch("application/json-patch+json", r#"[{"op":"remove","path":"/none"}]"#).await.expect_status(422, "Invalid");
    patch("application/strategic-merge-patch+json", r#"{"spec":{"template":{"spec":{"containers":[{"image":"x"}]}}}}"#)
        .await
        .expect_status(422, "Invalid");
    patch("application/json", "{}").await.expect_status(415, "UnsupportedMediaType");
}

#[tokio::test]
async fn paths_and_parameters_that_mean_nothing() {
    let server = TestServer::memory().await;
    // Of groups and versions that are served, the API speaks itself.
    let unknown = "the server could not find the requested resource";
    Refusal(404, "NotFound", unknown, &[]).check(server.get("/api/v1/namespaces/default/nothings").await);
    Refusal(404, "NotFound", unknown, &[]).check(server.get("/api/v1/namespaces/default/pods/web/nothing").await);
    // All else is nobody's.
    for path in ["/nothing", "/apis/none/v1/nothings", "/apis/none/v1", "/apis/none", "/api/v9/pods", "/apis/apps/v9/deployments"]
    {
        let answer = server.get(path).await;
        assert_eq!((answer.code, answer.body), (404, json!("404 page not found\n")), "{path}");
    }
    Refusal(404, "NotFound", "pods \"none\" not found", &[]).check(server.get(&format!("{PODS}/none")).await);
    Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", &[])
        .check(server.post("/api/v1/pods", pod()).await);
    for (query, message) in [
        ("fieldSelector=nope%3D1", "field label not supported: nope"),
        ("limit=many", "strconv.ParseInt: parsing \"many\": invalid syntax"),
        ("labelSelector=a%20in%20(", "unable to parse requirement: …"),
        ("continue=nonsense", "continue key is not valid: …"),
    ] {
        let answer = server.get(&format!("{PODS}?{query}")).await;
        assert_eq!(answer.code, 400, "{query}: {}", answer.body);
        let said = answer.body["message"].as_str().unwrap_or_default().to_owned();
        match message.strip_suffix('…') {
            Some(beginning) => assert!(said.starts_with(beginning), "{query}: {said}"),
            None => assert_eq!(said, message, "{query}"),
        }
    }
    let answer = server.get(&format!("{PODS}?watch=1&resourceVersion=old")).await;
    Refusal(422, "Invalid", "…", &["resourceVersion"]).check(answer);
}
