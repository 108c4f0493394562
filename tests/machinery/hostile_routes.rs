//! Every route that the server tells of, asked by those who may not: made from discovery, so that a new kind or subresource
//! is in it by itself. A custom kind is among them.

use crate::custom_resources::{definition, establish};
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::{Options, User};
use slipway_store::memory::Memory;
use slipway_tests::TestServer;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const LOCAL_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const NAMESPACE: &str = "default";
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// What every user may ask about themselves.
const EVERYBODYS: [&str; 3] = ["selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"];
/// Opened by a GET they take the right to create too.
const TUNNELS: [&str; 3] = ["pods/attach", "pods/exec", "pods/portforward"];

/// What is no resource. Who shows a credential that is not good is refused there too.
const OTHERS: [&str; 16] = [
    "/",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/apps",
    "/apis/apps/v1",
    "/apis/stable.example.com/v1",
    "/healthz",
    "/livez",
    "/metrics",
    "/none",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/apis/apps/v1",
    "/readyz/ping",
    "/version",
];

#[derive(Debug, Clone)]
struct Route {
    method: &'static str,
    path: String,
    verb: &'static str,
    group: String,
    /// As `pods/log`.
    resource: String,
    /// Whether the path is below a namespace.
    namespaced: bool,
}

impl Route {
    fn is_everybodys(&self) -> bool {
        EVERYBODYS.contains(&self.resource.as_str())
    }

    /// What it takes, and nothing more.
    fn rule(&self) -> Value {
        let mut verbs = vec![self.verb];
        if TUNNELS.contains(&self.resource.as_str()) && self.verb == "get" {
            verbs.push("create");
        }
        json!({"verbs": verbs, "apiGroups": [self.group], "resources": [self.resource]})
    }

    /// All the other verbs on the same resource, and the verb on other resources.
    fn near_misses(&self) -> [Value; 3] {
        let others: Vec<&str> = VERBS.into_iter().filter(|verb| *verb != self.verb).collect();
        let sub_or_main = match self.resource.split_once('/') {
            Some((main, _)) => main.to_owned(),
            None => format!("{}/status", self.resource),
        };
        [
            json!({"verbs": others, "apiGroups": [self.group], "resources": [self.resource]}),
            json!({"verbs": [self.verb], "apiGroups": ["example.com"], "resources": ["*"]}),
            json!({"verbs": [self.verb], "apiGroups": [self.group], "resources": [sub_or_main, "*/none"]}),
        ]
    }

    fn request(&self, token: Option<&str>) -> Request<Body> {
        let content = if self.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder().method(self.method).uri(&self.path).header("content-type", content);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if ["POST", "PUT", "PATCH"].contains(&self.method) { "{}" } else { "" };
        request.body(Body::from(body)).unwrap()
    }
}

/// The routes of one resource of discovery.
fn routes_of(root: &str, group: &str, resource: &Value, routes: &mut Vec<Route>) {
    let name = resource["name"].as_str().unwrap();
    let (plural, sub) = name.split_once('/').unwrap_or((name, ""));
    let namespaced = resource["namespaced"] == true;
    let place = if namespaced { format!("{root}/namespaces/{NAMESPACE}/{plural}") } else { format!("{root}/{plural}") };
    let object = if sub.is_empty() { format!("{place}/none-such") } else { format!("{place}/none-such/{sub}") };
    for verb in resource["verbs"].as_array().unwrap() {
        let Some(verb) = VERBS.into_iter().find(|known| verb == *known) else { panic!("{name} has the unknown verb {verb}") };
        let (method, path) = match verb {
            "list" => ("GET", place.clone()),
            "watch" => ("GET", format!("{place}?watch=1&timeoutSeconds=1")),
            "deletecollection" => ("DELETE", format!("{place}?dryRun=All&labelSelector=none%3Dsuch")),
            "create" if sub.is_empty() => ("POST", place.clone()),
            "create" => ("POST", object.clone()),
            "get" => ("GET", object.clone()),
            "update" => ("PUT", object.clone()),
            "patch" => ("PATCH", object.clone()),
            _ => ("DELETE", object.clone()),
        };
        let route = Route { method, path, verb, group: group.to_owned(), resource: name.to_owned(), namespaced };
        if namespaced && ["list", "watch"].contains(&verb) {
            let everywhere = route.path.replacen(&format!("/namespaces/{NAMESPACE}"), "", 1);
            routes.push(Route { path: everywhere, namespaced: false, ..route.clone() });
        }
        routes.push(route);
    }
}

async fn routes(server: &TestServer) -> Vec<Route> {
    let mut routes = vec![];
    let core = server.get("/api/v1").await.expect(200);
    core["resources"].as_array().unwrap().iter().for_each(|resource| routes_of("/api/v1", "", resource, &mut routes));
    let groups = server.get("/apis").await.expect(200);
    for group in groups["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let root = format!("/apis/{}", version["groupVersion"].as_str().unwrap());
            let list = server.get(&root).await.expect(200);
            let name = group["name"].as_str().unwrap();
            list["resources"].as_array().unwrap().iter().for_each(|resource| routes_of(&root, name, resource, &mut routes));
        }
    }
    routes
}

/// A server that has a custom kind too.
async fn server(options: Options) -> TestServer {
    let server = TestServer::start(Memory::new(), options).await;
    establish(&server, definition(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))).await;
    server
}

/// The code of the answer; a watch is not read.
async fn code(server: &TestServer, user: Option<&User>, request: Request<Body>) -> u16 {
    server.send(user.cloned(), request).await.status().as_u16()
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": user}],
    })
}

fn passes(code: u16) -> bool {
    code != 401 && code != 403
}

#[tokio::test]
async fn without_a_right_every_route_is_refused() {
    let server = server(Options::default()).await;
    let routes = routes(&server).await;
    assert!(routes.len() > 250, "there are only {} routes", routes.len());
    for known in ["crontabs", "crontabs/status", "crontabs/scale", "pods/exec", "nodes/proxy", "serviceaccounts/token"] {
        assert!(routes.iter().any(|route| route.resource == known), "{known} is not among them");
    }
    // Whoever may do everything, but elsewhere.
    let (nobody, elsewhere) = (User::new("nobody", &[]), User::new("elsewhere", &[]));
    let (other, own) = ("/api/v1/namespaces", "/apis/rbac.authorization.k8s.io/v1/namespaces");
    server.post(other, json!({"metadata": {"name": "other"}})).await.expect(201);
    server.post(&format!("{own}/other/rolebindings"), binding("all", "cluster-admin", "elsewhere")).await.expect(201);
    let local = User::new("local", &[]);
    server.post(&format!("{own}/{NAMESPACE}/rolebindings"), binding("all", "cluster-admin", "local")).await.expect(201);
    let mut wrong = vec![];
    for route in &routes {
        let mut check = |who: &str, code: u16, expected: bool| {
            if !expected {
                wrong.push(format!("{who}: {} {} is answered with {code}", route.method, route.path));
            }
        };
        let anonymous = code(&server, None, route.request(None)).await;
        check("nobody in particular", anonymous, anonymous == 401);
        let forged = code(&server, None, route.request(Some("no-token-at-all"))).await;
        check("a wrong token", forged, forged == 401);
        if route.is_everybodys() {
            continue;
        }
        for user in [&nobody, &elsewhere] {
            let refused = code(&server, Some(user), route.request(None)).await;
            check(&user.name, refused, refused == 403);
        }
        // Whether or not there is a verb for it.
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            let request = Request::builder().method(method).uri(&route.path).body(Body::empty()).unwrap();
            let refused = code(&server, Some(&nobody), request).await;
            check(method, refused, refused == 403);
        }
        let here = code(&server, Some(&local), route.request(None)).await;
        check("local", here, if route.namespaced { passes(here) } else { here == 403 });
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn the_right_for_a_route_opens_it_until_it_is_taken_back() {
    let server = server(Options::default()).await;
    let (jane, joe) = (User::new("jane", &[]), User::new("joe", &[]));
    let mut wrong = vec![];
    server.post(ROLES, role("exact", &[])).await.expect(201);
    server.post(ROLES, role("near", &[])).await.expect(201);
    server.post(BINDINGS, binding("near", "near", "joe")).await.expect(201);
    for route in routes(&server).await.iter().filter(|route| !route.is_everybodys()) {
        server.put(&format!("{ROLES}/exact"), role("exact", &[route.rule()])).await.expect(200);
        server.put(&format!("{ROLES}/near"), role("near", &route.near_misses())).await.expect(200);
        let mut told = vec![code(&server, Some(&jane), route.request(None)).await];
        // By a binding for the cluster and, if that is enough, by one for the namespace.
        for bindings in [BINDINGS, if route.namespaced { LOCAL_BINDINGS } else { BINDINGS }] {
            server.post(bindings, binding("exact", "exact", "jane")).await.expect(201);
            told.push(code(&server, Some(&jane), route.request(None)).await);
            server.delete(&format!("{bindings}/exact")).await.expect(200);
            told.push(code(&server, Some(&jane), route.request(None)).await);
        }
        let near = code(&server, Some(&joe), route.request(None)).await;
        let as_expected = told[0] == 403 && passes(told[1]) && told[2] == 403 && passes(told[3]) && told[4] == 403;
        if !as_expected || near != 403 {
            wrong.push(format!("{} {}: {told:?}, nearly: {near}", route.method, route.path));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn an_expired_token_opens_nothing() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let seconds = Arc::new(AtomicI64::new(1_800_000_000));
    let clock = Arc::clone(&seconds);
    let options = Options {
        service_account_key_pem: Some(key.serialize_pem()),
        clock: Arc::new(move || jiff::Timestamp::from_second(clock.load(Ordering::SeqCst)).unwrap()),
        ..Options::default()
    };
    let server = server(options).await;
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    server.post(&accounts, json!({"metadata": {"name": "robot"}})).await.expect(201);
    let user = format!("system:serviceaccount:{NAMESPACE}:robot");
    server.post(BINDINGS, binding("robot", "cluster-admin", &user)).await.expect(201);
    let ask = json!({"spec": {"expirationSeconds": 600}});
    let token = server.post(&format!("{accounts}/robot/token"), ask.clone()).await.expect(201)["status"]["token"].clone();
    let token = token.as_str().unwrap();
    let mut routes = routes(&server).await;
    let plain = |path: &&str| Route {
        method: "GET",
        path: (*path).into(),
        verb: "get",
        group: String::new(),
        resource: String::new(),
        namespaced: false,
    };
    routes.extend(OTHERS.iter().map(plain));
    let mut wrong = vec![];
    for route in &routes {
        let code = code(&server, None, route.request(Some(token))).await;
        if !passes(code) {
            wrong.push(format!("{} {} is answered with {code} while the token holds", route.method, route.path));
        }
    }
    seconds.fetch_add(700, Ordering::SeqCst);
    for route in &routes {
        let code = code(&server, None, route.request(Some(token))).await;
        if code != 401 {
            wrong.push(format!("{} {} is answered with {code} for an expired token", route.method, route.path));
        }
    }
    // One that holds, of an account that is gone.
    let token = server.post(&format!("{accounts}/robot/token"), ask).await.expect(201)["status"]["token"].clone();
    let token = token.as_str().unwrap();
    assert!(passes(code(&server, None, routes[0].request(Some(token))).await));
    server.delete(&format!("{accounts}/robot")).await.expect(200);
    for route in &routes {
        let code = code(&server, None, route.request(Some(token))).await;
        if code != 401 {
            wrong.push(format!("{} {} is answered with {code} for a token whose account is gone", route.method, route.path));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn paths_that_are_no_resources_have_their_rights_too() {
    let server = TestServer::memory().await;
    let jane = User::new("jane", &[]);
    let asked = async |user: Option<&User>, path: &str| {
        code(&server, user, Request::builder().uri(path).body(Body::empty()).unwrap()).await
    };
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!((asked(None, path).await, asked(Some(&jane), path).await), (200, 200), "{path}");
    }
    for path in ["/api", "/api/v1", "/apis", "/apis/apps/v1", "/openapi/v2", "/openapi/v3"] {
        assert_eq!((asked(None, path).await, asked(Some(&jane), path).await), (401, 200), "{path}");
    }
    for path in ["/metrics", "/.well-known/openid-configuration", "/openid/v1/jwks", "/", "/none", "/healthz/ping"] {
        let anonymous = if path == "/healthz/ping" { 403 } else { 401 };
        assert_eq!((asked(None, path).await, asked(Some(&jane), path).await), (anonymous, 403), "{path}");
        let rule = json!({"verbs": ["get"], "nonResourceURLs": [path]});
        server.post(ROLES, role("path", &[rule])).await.expect(201);
        server.post(BINDINGS, binding("path", "path", "jane")).await.expect(201);
        assert!(passes(asked(Some(&jane), path).await), "{path}");
        server.delete(&format!("{BINDINGS}/path")).await.expect(200);
        server.delete(&format!("{ROLES}/path")).await.expect(200);
        assert_eq!(asked(Some(&jane), path).await, 403, "{path}");
    }
}
