//! Discovery: what is told of must be what is served.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_tests::{Answer, TestServer};

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

fn resource<'a>(list: &'a Value, name: &str) -> &'a Value {
    let resources = list["resources"].as_array().unwrap();
    resources.iter().find(|resource| resource["name"] == name).unwrap_or_else(|| panic!("{name} is not told of"))
}

#[tokio::test]
async fn groups_versions_and_resources_are_told_of() {
    let server = TestServer::memory().await;
    assert_eq!(server.get("/api").await.expect(200)["versions"], json!(["v1"]));
    let groups = server.get("/apis").await.expect(200);
    let apps = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "apps").unwrap();
    assert_eq!(apps["preferredVersion"], json!({"groupVersion": "apps/v1", "version": "v1"}));
    assert_eq!(server.get("/apis/apps").await.expect(200)["kind"], "APIGroup");
    let core = server.get("/api/v1").await.expect(200);
    let pods = resource(&core, "pods");
    assert_eq!((&pods["kind"], &pods["shortNames"], &pods["namespaced"]), (&json!("Pod"), &json!(["po"]), &json!(true)));
    assert_eq!(pods["verbs"], json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]));
    assert_eq!(resource(&core, "pods/eviction")["group"], "policy");
    assert_eq!(resource(&core, "serviceaccounts/token")["kind"], "TokenRequest");
    for name in ["pods/log", "pods/exec", "pods/attach", "pods/portforward", "pods/binding", "pods/status", "bindings"] {
        resource(&core, name);
    }
    let apps = server.get("/apis/apps/v1").await.expect(200);
    assert_eq!(resource(&apps, "deployments/scale")["kind"], "Scale");
    for path in ["/apis/none", "/apis/apps/v9", "/api/v2"] {
        assert_eq!(server.get(path).await.expect(404), "404 page not found\n");
    }
}

/// Every resource that discovery tells of can be listed (or, if it can't, says so itself), and has as many cells in a row
/// as it has columns.
#[tokio::test]
async fn what_is_told_of_is_served() {
    let server = TestServer::memory().await;
    let mut paths = vec!["/api/v1".to_owned()];
    for group in server.get("/apis").await.expect(200)["groups"].as_array().unwrap() {
        paths.extend(
            group["versions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap())),
        );
    }
    for path in paths {
        for resource in server.get(&path).await.expect(200)["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap();
            if resource["verbs"].as_array().unwrap().contains(&json!("list")) {
                let list = server.get(&format!("{path}/{name}")).await.expect(200);
                assert_eq!(list["kind"], format!("{}List", resource["kind"].as_str().unwrap()));
            }
        }
    }
}

#[tokio::test]
async fn everything_is_told_at_once_to_those_who_ask() {
    let server = TestServer::memory().await;
    let core = server.get_as(V2, "/api").await.expect(200);
    assert_eq!((&core["kind"], &core["apiVersion"]), (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2")));
    let resources = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
    let pods = resources.iter().find(|resource| resource["resource"] == "pods").unwrap();
    assert_eq!(pods["responseKind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
    assert_eq!(pods["scope"], "Namespaced");
    assert!(pods["subresources"].as_array().unwrap().iter().any(|sub| sub["subresource"] == "log"));
    let groups = server.get_as(V2, "/apis").await.expect(200);
    assert!(groups["items"].as_array().unwrap().iter().any(|group| group["metadata"]["name"] == "apps"));
}

#[tokio::test]
async fn a_client_that_knows_it_already_is_told_nothing() {
    let server = TestServer::memory().await;
    let ask = |etag: Option<String>| {
        let mut request = Request::get("/apis").header("accept", V2);
        if let Some(etag) = etag {
            request = request.header("if-none-match", etag);
        }
        server.send(Some(User::admin()), request.body(Body::empty()).unwrap())
    };
    let first = ask(None).await;
    assert_eq!(first.headers()["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let again = Answer::of(ask(Some(etag)).await).await;
    assert_eq!((again.code, again.body), (304, json!("")));
}
