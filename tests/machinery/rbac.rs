//! Role-based access control over the whole way: what roles grant, who may grant it, whom one may act as.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::User;
use slipway_store::memory::Memory;
use slipway_tests::{Answer, TestServer, config_map};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const CLUSTER_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const RULES: &str = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";

fn jane() -> User {
    User::new("jane", &["dev"])
}

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn role(name: &str, rules: &[Value]) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, kind: &str, role: &str, subject: (&str, &str)) -> Value {
    json!({
        "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": subject.0, "name": subject.1}],
    })
}

/// Lets jane do what the rules say: in the namespace `default` or (`cluster`) everywhere.
async fn grant(server: &TestServer, name: &str, cluster: bool, rules: &[Value]) {
    server.post(CLUSTER_ROLES, role(name, rules)).await.expect(201);
    let bindings = if cluster { CLUSTER_BINDINGS } else { BINDINGS };
    server.post(bindings, binding(name, "ClusterRole", name, ("User", "jane"))).await.expect(201);
}

async fn as_jane(server: &TestServer, method: &str, path: &str, body: Option<&Value>) -> Answer {
    server.call_as(jane(), method, path, body).await
}

#[tokio::test]
async fn a_binding_grants_a_role_at_once_and_takes_it_back() {
    let server = TestServer::memory().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    server.post(maps, config_map("a", "1")).await.expect(201);
    server.post(maps, config_map("b", "1")).await.expect(201);
    let message = as_jane(&server, "GET", &format!("{maps}/a"), None).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "configmaps \"a\" is forbidden: User \"jane\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    server.post(ROLES, role("reader", &[rule(&["get", "list"], "", &["configmaps"])])).await.expect(201);
    server.post(BINDINGS, binding("b", "Role", "reader", ("Group", "dev"))).await.expect(201);
    as_jane(&server, "GET", &format!("{maps}/a"), None).await.expect(200);
    as_jane(&server, "GET", maps, None).await.expect(200);
    as_jane(&server, "GET", "/api/v1/configmaps", None).await.expect(403);
    as_jane(&server, "GET", "/api/v1/namespaces/kube-system/configmaps", None).await.expect(403);
    as_jane(&server, "DELETE", &format!("{maps}/a"), None).await.expect(403);
    // The role changes under the binding.
    let narrowed = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["b"]}]});
    server.patch(&format!("{ROLES}/reader"), narrowed).await.expect(200);
    as_jane(&server, "GET", &format!("{maps}/a"), None).await.expect(403);
    as_jane(&server, "GET", &format!("{maps}/b"), None).await.expect(200);
    as_jane(&server, "GET", maps, None).await.expect(403);
    // The role goes: the binding stays, and says why it grants nothing.
    server.delete(&format!("{ROLES}/reader")).await.expect(200);
    let message = as_jane(&server, "GET", &format!("{maps}/b"), None).await.expect_status(403, "Forbidden");
    assert!(message.ends_with(": RBAC: role.rbac.authorization.k8s.io \"reader\" not found"), "{message}");
    server.post(ROLES, role("reader", &[rule(&["get"], "", &["configmaps"])])).await.expect(201);
    as_jane(&server, "GET", &format!("{maps}/a"), None).await.expect(200);
    server.delete(&format!("{BINDINGS}/b")).await.expect(200);
    as_jane(&server, "GET", &format!("{maps}/a"), None).await.expect(403);
}

#[tokio::test]
async fn rights_are_read_from_postgres_too() {
    let server = TestServer::postgres().await;
    grant(&server, "reader", true, &[rule(&["list"], "", &["pods"])]).await;
    as_jane(&server, "GET", "/api/v1/pods", None).await.expect(200);
    server.delete(&format!("{CLUSTER_BINDINGS}/reader")).await.expect(200);
    as_jane(&server, "GET", "/api/v1/pods", None).await.expect(403);
}

#[tokio::test]
async fn wildcards_subresources_and_paths() {
    let server = TestServer::memory().await;
    let rules = [
        rule(&["get"], "apps", &["*/scale"]),
        rule(&["*"], "batch", &["*"]),
        json!({"verbs": ["get"], "nonResourceURLs": ["/metrics", "/openid/*"]}),
    ];
    grant(&server, "odd", true, &rules).await;
    let code = async |method: &str, path: &str| as_jane(&server, method, path, None).await.code;
    assert_eq!(code("GET", "/apis/apps/v1/namespaces/default/deployments/x/scale").await, 404);
    assert_eq!(code("GET", "/apis/apps/v1/namespaces/default/deployments/x").await, 403);
    assert_eq!(code("DELETE", "/apis/batch/v1/namespaces/default/jobs/x").await, 404);
    assert_eq!(code("GET", "/apis/batch/v1/namespaces/default/jobs/x/status").await, 404);
    assert_eq!(code("GET", "/metrics").await, 200);
    assert_eq!(code("GET", "/openid/v1/jwks").await, 404);
    assert_eq!(code("GET", "/livez/ping").await, 403);
    assert_eq!(code("POST", "/metrics").await, 403);
    assert_eq!(as_jane(&server, "GET", "/apis", None).await.code, 200, "discovery is everybody's");
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let server = TestServer::memory().await;
    let all = ["create", "update", "patch", "get"];
    let own = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];
    grant(&server, "grantor", true, &[rule(&all, "rbac.authorization.k8s.io", &own), rule(&["get"], "", &["pods"])]).await;

    as_jane(&server, "POST", ROLES, Some(&role("own", &[rule(&["get"], "", &["pods"])]))).await.expect(201);
    let more = role("more", &[rule(&["get", "delete"], "", &["pods", "secrets"])]);
    let message = as_jane(&server, "POST", ROLES, Some(&more)).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"dev\" \"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"delete\"]}"
    );
    let widened = json!({"rules": [rule(&["*"], "", &["pods"])]});
    as_jane(&server, "PATCH", &format!("{ROLES}/own"), Some(&widened)).await.expect_status(403, "Forbidden");
    // What the garbage collector needs takes no right to grant.
    server.post(ROLES, more).await.expect(201);
    let finalizers = json!({"metadata": {"finalizers": ["example.com/x"]}});
    as_jane(&server, "PATCH", &format!("{ROLES}/more"), Some(&finalizers)).await.expect(200);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    as_jane(&server, "PATCH", &format!("{ROLES}/more"), Some(&labels)).await.expect_status(403, "Forbidden");

    // The same of bindings, and of roles that are not there.
    let bound = |role: &str| binding(&format!("b-{role}"), "Role", role, ("User", "joe"));
    as_jane(&server, "POST", BINDINGS, Some(&bound("own"))).await.expect(201);
    as_jane(&server, "POST", BINDINGS, Some(&bound("more"))).await.expect_status(403, "Forbidden");
    let message = as_jane(&server, "POST", BINDINGS, Some(&bound("none"))).await.expect_status(404, "NotFound");
    assert_eq!(message, "role.rbac.authorization.k8s.io \"none\" not found");
    let everything = binding("b", "ClusterRole", "cluster-admin", ("User", "jane"));
    as_jane(&server, "POST", CLUSTER_BINDINGS, Some(&everything)).await.expect_status(403, "Forbidden");
    // Whoever gathers rules holds all of them.
    let gathering =
        json!({"metadata": {"name": "g"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let message = as_jane(&server, "POST", CLUSTER_ROLES, Some(&gathering)).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "clusterroles.rbac.authorization.k8s.io \"g\" is forbidden: must have cluster-admin privileges to use an aggregationRule"
    );

    // By `bind` and `escalate` one may.
    let bind =
        json!({"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "resourceNames": ["more"]});
    grant(&server, "binder", false, &[bind]).await;
    as_jane(&server, "POST", BINDINGS, Some(&bound("more"))).await.expect(201);
    as_jane(&server, "PATCH", &format!("{ROLES}/more"), Some(&labels)).await.expect_status(403, "Forbidden");
    grant(&server, "escalator", false, &[rule(&["escalate"], "rbac.authorization.k8s.io", &["roles"])]).await;
    as_jane(&server, "PATCH", &format!("{ROLES}/more"), Some(&labels)).await.expect(200);
    as_jane(&server, "POST", CLUSTER_ROLES, Some(&role("c", &[rule(&["delete"], "", &["pods"])])))
        .await
        .expect_status(403, "Forbidden");
}

#[tokio::test]
async fn what_is_bound_cannot_be_changed() {
    let server = TestServer::memory().await;
    server.post(BINDINGS, binding("b", "ClusterRole", "view", ("User", "jane"))).await.expect(201);
    let other = json!({"roleRef": {"name": "edit"}});
    let message = server.patch(&format!("{BINDINGS}/b"), other).await.expect_status(422, "Invalid");
    assert!(message.contains("roleRef: Invalid value:") && message.ends_with("cannot change roleRef"), "{message}");
    let stored = server.get(&format!("{BINDINGS}/b")).await.expect(200);
    assert_eq!(stored["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    // Names that no other kind may have.
    server.post(ROLES, role("a:B_c", &[rule(&["get"], "", &["pods"])])).await.expect(201);
    server.post(ROLES, role("a%b", &[])).await.expect_status(422, "Invalid");
}

#[tokio::test]
async fn default_roles_are_there_and_are_kept() {
    let store = Memory::new();
    let server = TestServer::start(store.clone(), Default::default()).await;
    let admin = server.get(&format!("{CLUSTER_ROLES}/cluster-admin")).await.expect(200);
    assert_eq!(admin["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    assert_eq!(admin["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"], "true");
    for name in
        ["admin", "edit", "view", "system:discovery", "system:node", "system:kube-scheduler", "system:controller:job-controller"]
    {
        server.get(&format!("{CLUSTER_ROLES}/{name}")).await.expect(200);
    }
    let edit = server.get(&format!("{CLUSTER_ROLES}/edit")).await.expect(200);
    assert!(edit["rules"].as_array().unwrap().len() > 10 && edit["aggregationRule"].is_object());

    let own = json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]});
    server.patch(&format!("{CLUSTER_ROLES}/system:discovery"), own.clone()).await.expect(200);
    let left_alone =
        json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": own["rules"]});
    server.patch(&format!("{CLUSTER_ROLES}/system:monitoring"), left_alone).await.expect(200);
    server.delete(&format!("{CLUSTER_BINDINGS}/system:discovery")).await.expect(200);
    let nobody = json!({"subjects": []});
    server.patch(&format!("{CLUSTER_BINDINGS}/system:basic-user"), nobody).await.expect(200);
    as_jane(&server, "GET", "/apis", None).await.expect(403);
    drop(server);

    let server = TestServer::start(store, Default::default()).await;
    let urls = |role: &Value| {
        let rules = role["rules"].as_array().unwrap().iter().flat_map(|rule| rule["nonResourceURLs"].as_array().unwrap());
        rules.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let kept = urls(&server.get(&format!("{CLUSTER_ROLES}/system:discovery")).await.expect(200));
    assert!(kept.contains(&"/metrics".into()) && kept.contains(&"/apis/*".into()), "{kept:?}");
    let kept = urls(&server.get(&format!("{CLUSTER_ROLES}/system:monitoring")).await.expect(200));
    assert_eq!(kept, ["/metrics"]);
    as_jane(&server, "GET", "/apis", None).await.expect(200);
    let review = json!({"spec": {"namespace": "default"}});
    as_jane(&server, "POST", RULES, Some(&review)).await.expect(201);
    server.get("/readyz/poststarthook/rbac/bootstrap-roles").await.expect(200);
}

#[tokio::test]
async fn a_review_says_by_what_somebody_may() {
    let server = TestServer::memory().await;
    grant(&server, "reader", true, &[rule(&["get"], "", &["pods"])]).await;
    server.post(BINDINGS, binding("team", "ClusterRole", "view", ("ServiceAccount", "robot"))).await.expect(201);
    let status = async |user: &str, groups: &[&str], attributes: Value| {
        let ask = json!({"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}});
        server.post(REVIEWS, ask).await.expect(201)["status"].clone()
    };
    assert_eq!(
        status("jane", &[], json!({"verb": "get", "resource": "pods"})).await,
        json!({"allowed": true, "reason": "RBAC: allowed by ClusterRoleBinding \"reader\" of ClusterRole \"reader\" to User \"jane\""})
    );
    assert_eq!(
        status("system:serviceaccount:default:robot", &[], json!({"verb": "list", "resource": "pods", "namespace": "default"}))
            .await,
        json!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"team/default\" of ClusterRole \"view\" to ServiceAccount \"robot/default\""})
    );
    assert_eq!(status("jane", &[], json!({"verb": "delete", "resource": "pods"})).await, json!({"allowed": false}));
    assert_eq!(status("x", &["system:masters"], json!({"verb": "any", "resource": "thing"})).await, json!({"allowed": true}));
    let message = async |selector: Value| {
        let attributes = json!({"verb": "list", "resource": "pods", "fieldSelector": selector});
        let ask = json!({"spec": {"user": "jane", "resourceAttributes": attributes}});
        server.post(REVIEWS, ask).await.expect_status(422, "Invalid")
    };
    let empty = message(json!({})).await;
    assert!(empty.contains("spec.resourceAttributes.fieldSelector.requirements: Required value"), "{empty}");
}

#[tokio::test]
async fn rules_are_listed() {
    let server = TestServer::memory().await;
    grant(
        &server,
        "reader",
        false,
        &[json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["web"]})],
    )
    .await;
    let rules = async |namespace: &str| {
        let ask = json!({"spec": {"namespace": namespace}});
        as_jane(&server, "POST", RULES, Some(&ask)).await.expect(201)["status"].clone()
    };
    let wanted = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["web"]});
    let here = rules("default").await;
    assert!(here["resourceRules"].as_array().unwrap().contains(&wanted), "{here}");
    assert_eq!(here["incomplete"], false);
    assert!(
        here["nonResourceRules"]
            .as_array()
            .unwrap()
            .iter()
            .any(|rule| rule["nonResourceURLs"].as_array().unwrap().contains(&json!("/apis/*")))
    );
    assert!(!rules("kube-system").await["resourceRules"].as_array().unwrap().contains(&wanted));
}

/// A request of jane's with headers of impersonation.
async fn acting(server: &TestServer, headers: &[(&str, &str)], path: &str) -> Answer {
    let mut request = Request::builder().method(if path.ends_with("reviews") { "POST" } else { "GET" }).uri(path);
    request = request.header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if path.ends_with("reviews") { "{\"metadata\":{}}" } else { "" };
    Answer::of(server.send(Some(jane()), request.body(Body::from(body)).unwrap()).await).await
}

#[tokio::test]
async fn one_acts_as_another_by_right_alone() {
    let server = TestServer::memory().await;
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let refused = acting(&server, &[("Impersonate-User", "joe")], who).await.expect_status(403, "Forbidden");
    assert_eq!(
        refused,
        "users \"joe\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    let authentication = "authentication.k8s.io";
    let rules = [
        json!({"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["joe", "system:anonymous"]}),
        json!({"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["ops"]}),
        json!({"verbs": ["impersonate"], "apiGroups": [authentication], "resources": ["userextras/scopes"], "resourceNames": ["view"]}),
        json!({"verbs": ["impersonate"], "apiGroups": [authentication], "resources": ["uids"], "resourceNames": ["7"]}),
    ];
    grant(&server, "actor", true, &rules).await;
    let in_namespace = json!({"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]});
    grant(&server, "robots", false, &[in_namespace]).await;
    let info = async |headers: &[(&str, &str)]| acting(&server, headers, who).await.expect(201)["status"]["userInfo"].clone();
    let all = [
        ("Impersonate-User", "joe"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Extra-Scopes", "view"),
    ];
    assert_eq!(
        info(&all).await,
        json!({"username": "joe", "uid": "7", "groups": ["ops", "system:authenticated"], "extra": {"scopes": ["view"]}})
    );
    assert_eq!(
        info(&[("Impersonate-User", "system:serviceaccount:default:robot")]).await["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    let refused = async |headers: &[(&str, &str)]| acting(&server, headers, who).await.expect_status(403, "Forbidden");
    let message = refused(&[("Impersonate-User", "joe"), ("Impersonate-Group", "system:masters")]).await;
    assert!(
        message.starts_with("groups \"system:masters\" is forbidden: User \"jane\" cannot impersonate resource \"groups\""),
        "{message}"
    );
    let message = refused(&[("Impersonate-User", "joe"), ("Impersonate-Extra-Scopes", "admin")]).await;
    assert_eq!(
        message,
        "userextras.authentication.k8s.io \"admin\" is forbidden: User \"jane\" cannot impersonate resource \"userextras/scopes\" in \
         API group \"authentication.k8s.io\" at the cluster scope"
    );
    refused(&[("Impersonate-User", "joe"), ("Impersonate-Uid", "8")]).await;
    refused(&[("Impersonate-User", "system:serviceaccount:kube-system:robot")]).await;
    acting(&server, &[("Impersonate-Group", "ops")], who).await.expect_status(500, "InternalError");

    // Acting as somebody means having their rights, and losing one's own.
    grant(&server, "reader", true, &[rule(&["list"], "", &["pods"])]).await;
    acting(&server, &[], "/api/v1/pods").await.expect(200);
    let message = acting(&server, &[("Impersonate-User", "joe")], "/api/v1/pods").await.expect_status(403, "Forbidden");
    assert!(message.contains("User \"joe\" cannot list resource \"pods\""), "{message}");
    acting(&server, &[("Impersonate-User", "system:anonymous")], "/api/v1/pods").await.expect_status(403, "Forbidden");
    acting(&server, &[("Impersonate-User", "system:anonymous")], "/version").await.expect(200);
}

#[tokio::test]
async fn anonymous_callers_are_asked_for_a_credential_whatever_is_bound() {
    let server = TestServer::memory().await;
    server
        .post(CLUSTER_BINDINGS, binding("open", "ClusterRole", "cluster-admin", ("Group", "system:unauthenticated")))
        .await
        .expect(201);
    let code = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        Answer::of(server.send(None, request).await).await.code
    };
    assert_eq!(code("/healthz").await, 200);
    assert_eq!(code("/api/v1/secrets").await, 401);
    assert_eq!(code("/apis").await, 401);
}

#[tokio::test]
async fn roles_are_shown_as_in_kubernetes() {
    let server = TestServer::memory().await;
    grant(&server, "reader", true, &[rule(&["list"], "", &["pods"])]).await;
    let table = async |path: &str| server.get_as("application/json;as=Table;v=v1;g=meta.k8s.io", path).await.expect(200);
    let names = |table: &Value| {
        table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let bindings = table(&format!("{CLUSTER_BINDINGS}/reader")).await;
    assert_eq!(names(&bindings), ["Name", "Role", "Age", "Users", "Groups", "ServiceAccounts"]);
    assert_eq!(bindings["rows"][0]["cells"][1], "ClusterRole/reader");
    assert_eq!(bindings["rows"][0]["cells"][3], "jane");
    assert_eq!(names(&table(CLUSTER_ROLES).await), ["Name", "Created At"]);
    let resources = server.get(RBAC).await.expect(200);
    let kinds: Vec<&str> = resources["resources"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["clusterrolebindings", "clusterroles", "rolebindings", "roles"]);
}

#[tokio::test]
async fn a_tunnel_takes_the_right_to_create_it() {
    let server = TestServer::memory().await;
    grant(&server, "viewer", false, &[rule(&["get"], "", &["pods/exec", "pods/log"])]).await;
    let pods = "/api/v1/namespaces/default/pods";
    let message = as_jane(&server, "GET", &format!("{pods}/web/exec?command=sh"), None).await.expect_status(403, "Forbidden");
    assert!(message.contains("cannot create resource \"pods/exec\""), "{message}");
    as_jane(&server, "GET", &format!("{pods}/web/log"), None).await.expect(404);
}

#[tokio::test]
async fn a_node_gets_what_its_pods_refer_to() {
    let server = TestServer::memory().await;
    let node = |name: &str| User::new(&format!("system:node:{name}"), &["system:nodes"]);
    let core = "/api/v1/namespaces/default";
    for name in ["used", "other"] {
        server.post(&format!("{core}/secrets"), json!({"metadata": {"name": name}})).await.expect(201);
        server.post(&format!("{core}/configmaps"), config_map(name, "1")).await.expect(201);
        let account = json!({"metadata": {"name": name}});
        server.post(&format!("{core}/serviceaccounts"), account).await.expect(201);
    }
    let pod = json!({"metadata": {"name": "web"}, "spec": {
        "nodeName": "n1", "serviceAccountName": "used", "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "used"}}]}],
        "volumes": [{"name": "s", "secret": {"secretName": "used"}}],
    }});
    let pod = server.post(&format!("{core}/pods"), pod).await.expect(201);
    server.get("/api/v1/pods").await.expect(200);
    let code = async |who: &str, method: &str, path: &str, body: Option<Value>| {
        server.call_as(node(who), method, &format!("{core}/{path}"), body.as_ref()).await.code
    };
    for kind in ["secrets", "configmaps", "serviceaccounts"] {
        assert_eq!(code("n1", "GET", &format!("{kind}/used"), None).await, 200, "{kind}");
        assert_eq!(code("n1", "GET", &format!("{kind}/other"), None).await, 403, "{kind}");
        assert_eq!(code("n2", "GET", &format!("{kind}/used"), None).await, 403, "{kind}");
        assert_eq!(code("n1", "GET", kind, None).await, 403, "{kind}");
        assert_eq!(code("n1", "DELETE", &format!("{kind}/used"), None).await, 403, "{kind}");
    }
    let message = server.call_as(node("n2"), "GET", &format!("{core}/secrets/used"), None).await.expect_status(403, "Forbidden");
    assert!(
        message.ends_with("in the namespace \"default\": no relationship found between node 'n2' and this object"),
        "{message}"
    );
    assert_eq!(code("n1", "GET", "secrets?fieldSelector=metadata.name%3Dused", None).await, 200);

    // Tokens are bound to the node's own pods.
    let bound = |uid: &Value| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid}}});
    let tokens = format!("{core}/serviceaccounts/used/token");
    let message = server.call_as(node("n1"), "POST", &tokens, Some(&json!({"spec": {}}))).await;
    // Without a key there are no tokens at all: what counts is that the answer is not about rights.
    assert!(message.code == 403 || message.code == 404, "{}", message.body);
    assert_eq!(code("n2", "POST", "serviceaccounts/used/token", Some(bound(&pod["metadata"]["uid"]))).await, 403);

    // A node leaves others' pods and its own labels and taints alone.
    assert_eq!(code("n2", "POST", "pods/web/eviction", Some(json!({}))).await, 403);
    assert_eq!(code("n2", "DELETE", "pods/web", None).await, 403);
    let own = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}}});
    let nodes = "/api/v1/nodes";
    server.call_as(node("n1"), "POST", nodes, Some(&own)).await.expect(201);
    let change = async |patch: Value| server.call_as(node("n1"), "PATCH", &format!("{nodes}/n1"), Some(&patch)).await;
    let taints = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let message = change(taints).await.expect_status(403, "Forbidden");
    assert_eq!(message, "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints");
    let restricted = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/tier": "secret"}}});
    let message = change(restricted).await.expect_status(403, "Forbidden");
    assert!(message.ends_with("is not allowed to modify labels: node-restriction.kubernetes.io/tier"), "{message}");
    change(json!({"metadata": {"labels": {"example.com/x": "y"}}})).await.expect(200);
}

#[tokio::test]
async fn certificates_are_approved_and_signed_by_right() {
    use base64::Engine;
    let server = TestServer::memory().await;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let ask = |name: &str, organization: &str, signer: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let request = base64::engine::general_purpose::STANDARD.encode(pem);
        json!({"metadata": {"name": "r"}, "spec": {"request": request, "signerName": signer, "usages": ["client auth"]}})
    };
    let message = server
        .post(requests, ask("x", "system:masters", "kubernetes.io/kube-apiserver-client"))
        .await
        .expect_status(403, "Forbidden");
    assert!(
        message.ends_with("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"),
        "{message}"
    );
    let node = User::new("system:node:n1", &["system:nodes"]);
    let other = ask("system:node:n2", "system:nodes", "kubernetes.io/kube-apiserver-client-kubelet");
    let message = server.call_as(node.clone(), "POST", requests, Some(&other)).await.expect_status(403, "Forbidden");
    assert!(message.ends_with("can only create a node CSR with CN=system:node:n1"), "{message}");

    server.post(requests, ask("jane", "dev", "example.com/own")).await.expect(201);
    let csrs = "certificatesigningrequests";
    let writes = ["certificatesigningrequests/approval", "certificatesigningrequests/status"];
    grant(&server, "writer", true, &[rule(&["get", "patch", "update"], "certificates.k8s.io", &[csrs, writes[0], writes[1]])])
        .await;
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "x"}]}});
    let approval = format!("{requests}/r/approval");
    let message = as_jane(&server, "PATCH", &approval, Some(&approved)).await.expect_status(403, "Forbidden");
    assert_eq!(
        message,
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests with signerName \"example.com/own\""
    );
    let signers = |verb: &str, name: &str| json!({"verbs": [verb], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": [name]});
    grant(&server, "approver", true, &[signers("approve", "example.com/*")]).await;
    as_jane(&server, "PATCH", &approval, Some(&approved)).await.expect(200);
    let signed = json!({"status": {"certificate": base64::engine::general_purpose::STANDARD.encode("x")}});
    let status = format!("{requests}/r/status");
    let message = as_jane(&server, "PATCH", &status, Some(&signed)).await.expect_status(403, "Forbidden");
    assert!(message.ends_with("user not permitted to sign requests with signerName \"example.com/own\""), "{message}");
    grant(&server, "signer", true, &[signers("sign", "example.com/own")]).await;
    let code = as_jane(&server, "PATCH", &status, Some(&signed)).await.code;
    assert!(code == 200 || code == 422, "what is refused now is the certificate, not the signer: {code}");
}
