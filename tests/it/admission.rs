//! Admission over the whole way: what a write becomes, and what it may not be.

use serde_json::{Value, json};
use slipway_apiserver::Options;
use slipway_apiserver::http::authenticate::User;
use slipway_store::memory::Memory;
use slipway_tests::TestServer;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "a"}]},
    });
    json_merge(&mut pod["spec"], more);
    pod
}

fn json_merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

fn service(name: &str, spec: Value) -> Value {
    let mut service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    json_merge(&mut service["spec"], spec);
    service
}

#[tokio::test]
async fn a_pod_runs_as_a_service_account() {
    let server = TestServer::memory().await;
    let made = server.post(PODS, pod("a", json!({}))).await.expect(201);
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(made["spec"]["volumes"][0]["name"], mount["name"]);
    let keys: Vec<&Value> = made["spec"]["tolerations"].as_array().unwrap().iter().map(|toleration| &toleration["key"]).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    assert_eq!(made["spec"]["priority"], 0);
    assert_eq!(made["spec"]["preemptionPolicy"], "PreemptLowerPriority");

    let message = server.post(PODS, pod("b", json!({"serviceAccountName": "robot"}))).await.expect_status(403, "Forbidden");
    let why = "error looking up service account default/robot: serviceaccount \"robot\" not found";
    assert_eq!(message, format!("pods \"b\" is forbidden: {why}"));
    let robot = json!({"metadata": {"name": "robot"}, "automountServiceAccountToken": false});
    server.post(ACCOUNTS, robot).await.expect(201);
    let made = server.post(PODS, pod("b", json!({"serviceAccountName": "robot"}))).await.expect(201);
    assert_eq!(made["spec"].get("volumes"), None);
}

#[tokio::test]
async fn every_service_has_an_address_of_its_own() {
    let server = TestServer::memory().await;
    let made = server.post(SERVICES, service("a", json!({}))).await.expect(201);
    let address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with("10.96."), "{address}");
    assert_eq!(made["spec"]["clusterIPs"], json!([address]));
    assert_eq!((&made["spec"]["ipFamilies"], &made["spec"]["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));

    let same = service("b", json!({"clusterIP": address}));
    let message = server.post(SERVICES, same.clone()).await.expect_status(422, "Invalid");
    let field = format!("spec.clusterIPs: Invalid value: [\"{address}\"]");
    assert_eq!(
        message,
        format!("Service \"b\" is invalid: {field}: failed to allocate IP {address}: provided IP is already allocated")
    );
    let outside = server.post(SERVICES, service("b", json!({"clusterIP": "10.97.0.1"}))).await.expect_status(422, "Invalid");
    assert!(
        outside.contains("the provided IP (10.97.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16"),
        "{outside}"
    );

    server.delete(&format!("{SERVICES}/a")).await.expect(200);
    assert_eq!(server.post(SERVICES, same).await.expect(201)["spec"]["clusterIP"], address.as_str());

    let headless = server.post(SERVICES, service("c", json!({"clusterIP": "None"}))).await.expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let external = json!({"metadata": {"name": "d"}, "spec": {"type": "ExternalName", "externalName": "example.com"}});
    assert_eq!(server.post(SERVICES, external).await.expect(201)["spec"].get("clusterIP"), None);
}

#[tokio::test]
async fn node_ports_come_and_go_with_the_type() {
    let server = TestServer::memory().await;
    let dns = json!({"type": "NodePort", "ports": [
        {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53, "protocol": "TCP"}, {"name": "w", "port": 80, "nodePort": 30080},
    ]});
    let made = server.post(SERVICES, service("a", dns)).await.expect(201);
    let port = |made: &Value, at: usize| made["spec"]["ports"][at]["nodePort"].as_u64();
    assert_eq!(port(&made, 0), port(&made, 1));
    assert_eq!(port(&made, 2), Some(30080));
    let taken = service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}));
    let message = server.post(SERVICES, taken.clone()).await.expect_status(422, "Invalid");
    assert_eq!(
        message,
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    let low = service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}));
    let message = server.post(SERVICES, low).await.expect_status(422, "Invalid");
    assert!(message.ends_with("provided port is not in the valid range. The range of valid ports is 30000-32767"), "{message}");

    // What the refused Services took on the way is free again, and so is what this one gives up.
    let address = made["spec"]["clusterIP"].clone();
    let plain = server.patch(&format!("{SERVICES}/a"), json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    assert_eq!((port(&plain, 2), &plain["spec"]["clusterIP"]), (None, &address));
    server.post(SERVICES, taken).await.expect(201);
    let balanced = server.patch(&format!("{SERVICES}/a"), json!({"spec": {"type": "LoadBalancer"}})).await.expect(200);
    assert!(port(&balanced, 0).is_some_and(|port| port >= 30_000), "{balanced}");
    let named = json!({"spec": {"type": "ExternalName", "externalName": "x.example", "clusterIP": null, "clusterIPs": null}});
    server.patch(&format!("{SERVICES}/a"), named).await.expect(200);
    server.post(SERVICES, service("c", json!({"clusterIP": address}))).await.expect(201);
}

/// Two servers over one store: no address and no port is given out twice.
#[tokio::test]
async fn allocations_are_unique_among_servers() {
    let store = Memory::new();
    let options = Options { service_cidr: "10.96.0.0/26".into(), node_port_range: 30_000..=30_063, ..Options::default() };
    let one = TestServer::start(store.clone(), options.clone()).await;
    let two = TestServer::start(store, options).await;
    let create = |at: usize| {
        let server = if at.is_multiple_of(2) { &one } else { &two };
        server.post(SERVICES, service(&format!("s{at}"), json!({"type": "NodePort"})))
    };
    let answers = futures::future::join_all((0..62).map(create)).await;
    let mut addresses = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for answer in answers {
        let made = answer.expect(201);
        assert!(addresses.insert(made["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        assert!(ports.insert(made["spec"]["ports"][0]["nodePort"].as_u64().unwrap()));
    }
    assert_eq!(addresses.len(), 62);
    let full = one.post(SERVICES, service("more", json!({}))).await.expect_status(500, "InternalError");
    assert_eq!(full, "Internal error occurred: failed to allocate a serviceIP: range is full");
    one.delete(&format!("{SERVICES}/s7")).await.expect(200);
    two.api.cache.fresh().await.unwrap();
    two.post(SERVICES, service("more", json!({}))).await.expect(201);
}

/// Of many who want one address, one gets it.
#[tokio::test]
async fn one_address_goes_to_one_service() {
    let server = TestServer::memory().await;
    let all = (0..8).map(|at| server.post(SERVICES, service(&format!("s{at}"), json!({"clusterIP": "10.96.0.10"}))));
    let codes: Vec<u16> = futures::future::join_all(all).await.into_iter().map(|answer| answer.code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 422).count(), 7, "{codes:?}");
}

#[tokio::test]
async fn a_dry_run_and_a_refused_service_hold_nothing() {
    let server = TestServer::memory().await;
    let wish = json!({"type": "NodePort", "clusterIP": "10.96.0.77", "ports": [{"port": 80, "nodePort": 30077}]});
    let dry = server.post(&format!("{SERVICES}?dryRun=All"), service("a", wish.clone())).await.expect(201);
    assert_eq!(dry["spec"]["clusterIP"], "10.96.0.77");
    let dry = server.post(&format!("{SERVICES}?dryRun=All"), service("a", json!({}))).await.expect(201);
    assert!(dry["spec"]["clusterIP"].as_str().is_some_and(|address| address.starts_with("10.96.")));
    server.post(SERVICES, service("Not_A_Name", wish.clone())).await.expect_status(422, "Invalid");
    let held = server.api.cache.fresh().await.unwrap();
    let held: Vec<_> = held.objects.keys().filter(|key| key.starts_with("/allocations/")).collect();
    assert!(held.is_empty(), "{held:?}");
    server.post(SERVICES, service("a", wish)).await.expect(201);
}

/// A crash between the reservation and the Service: the number is free again after a while, and a Service whose
/// reservation was lost gets it back.
#[tokio::test]
async fn what_a_crash_leaves_is_repaired() {
    let store = Memory::new();
    let seconds = Arc::new(AtomicI64::new(1_800_000_000));
    let clock = Arc::clone(&seconds);
    let options = Options {
        clock: Arc::new(move || jiff::Timestamp::from_second(clock.load(Ordering::SeqCst)).unwrap()),
        ..Options::default()
    };
    let server = TestServer::start(store.clone(), options.clone()).await;
    server.post(SERVICES, service("kept", json!({"clusterIP": "10.96.0.20"}))).await.expect(201);
    use slipway_store::{Change, Expect, Store, Write};
    let left = json!({"namespace": "default", "name": "gone", "at": seconds.load(Ordering::SeqCst)}).to_string();
    let put = Change::Put(left.into_bytes().into());
    let key = "/allocations/clusterips/10.96.0.21";
    store.write(Write { key: key.into(), expect: Expect::Absent, change: put }).await.unwrap();
    let lost = Write { key: "/allocations/clusterips/10.96.0.20".into(), expect: Expect::Any, change: Change::Delete };
    store.write(lost).await.unwrap();

    let wish = service("next", json!({"clusterIP": "10.96.0.21"}));
    server.post(SERVICES, wish.clone()).await.expect_status(422, "Invalid");
    seconds.fetch_add(61, Ordering::SeqCst);
    let again = TestServer::start(store, options).await;
    let keys = again.api.cache.fresh().await.unwrap().objects;
    assert!(keys.contains_key("/allocations/clusterips/10.96.0.20"));
    assert!(!keys.contains_key(key));
    again.post(SERVICES, wish).await.expect(201);
    again.post(SERVICES, service("thief", json!({"clusterIP": "10.96.0.20"}))).await.expect_status(422, "Invalid");
}

#[tokio::test]
async fn a_node_agent_writes_what_is_its_own() {
    let server = TestServer::memory().await;
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let agent = || User::new("system:node:n1", &["system:nodes"]);
    server.call_as(agent(), "POST", "/api/v1/nodes", Some(&node("n1"))).await.expect(201);
    let message = server.call_as(agent(), "POST", "/api/v1/nodes", Some(&node("n2"))).await.expect_status(403, "Forbidden");
    assert_eq!(message, "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"");
    server.post(PODS, pod("a", json!({"nodeName": "n1"}))).await.expect(201);
    server.post(PODS, pod("b", json!({"nodeName": "n2"}))).await.expect(201);
    let running = json!({"status": {"phase": "Running"}});
    server.call_as(agent(), "PATCH", &format!("{PODS}/a/status"), Some(&running)).await.expect(200);
    server.call_as(agent(), "PATCH", &format!("{PODS}/b/status"), Some(&running)).await.expect_status(403, "Forbidden");
}
