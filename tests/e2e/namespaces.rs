//! What goes with its namespace or its owner.

use crate::cluster::{enabled, shared, text};

const CONTENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: 'registry.slipway.test/web:1'}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: sleeps}
spec:
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: 'registry.slipway.test/busybox:1', command: [sleep, '3600']}]
---
apiVersion: v1
kind: Secret
metadata: {name: login}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: held, finalizers: [example.test/hold]}
";

#[test]
fn a_namespace_takes_all_that_is_in_it_along() {
    if !enabled("namespaces") {
        return;
    }
    let cluster = shared("namespaces");
    let team = |arguments: &[&str]| cluster.kubectl(&[&["--namespace", "team"], arguments].concat());
    cluster.ok(&["create", "namespace", "team"]);
    cluster.with_input(&["--namespace", "team", "apply", "-f", "-"], CONTENT);
    assert!(team(&["rollout", "status", "deployment/web", "--timeout=60s"]).status.success());
    assert!(team(&["wait", "--for=jsonpath={.status.ready}=1", "job/sleeps", "--timeout=60s"]).status.success());
    let containers = || text(&cluster.ctr(&["containers", "list", "-q", "labels.\"io.kubernetes.pod.namespace\"==team"]));
    assert!(containers().lines().count() >= 6, "three pods, with their sandboxes: {}", containers());

    cluster.ok(&["delete", "namespace", "team", "--wait=false"]);
    assert!(cluster.ok(&["get", "namespace", "team"]).contains("Terminating"));
    let late = team(&["create", "configmap", "late"]);
    assert!(text(&late).contains("because it is being terminated"), "{}", text(&late));
    cluster.wait("all but what is held to be gone", || {
        let left = team(&["get", "all,configmaps,secrets,serviceaccounts,endpointslices", "-o", "name"]);
        String::from_utf8_lossy(&left.stdout) == "configmap/held\n"
    });
    let why = "{.status.conditions[?(@.type==\"NamespaceFinalizersRemaining\")].message}";
    cluster.wait_for(
        "namespace/team",
        why,
        "Some content in the namespace has finalizers remaining: example.test/hold in 1 resource instances",
    );
    assert!(team(&["patch", "configmap", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).status.success());
    cluster.ok(&["wait", "--for=delete", "namespace/team", "--timeout=60s"]);
    cluster.wait("its containers to be gone", || containers().is_empty());

    // The name is free again, for a namespace with nothing in it.
    cluster.ok(&["create", "namespace", "team"]);
    assert!(text(&team(&["get", "all,secrets"])).contains("No resources found"));
    cluster.ok(&["delete", "namespace", "team"]);
}

#[test]
fn what_is_owned_follows_its_owner() {
    if !enabled("owned") {
        return;
    }
    let cluster = shared("owned");
    cluster.ok(&["create", "configmap", "root"]);
    let owned = |name: &str, owner: &str| {
        let uid = cluster.get(&format!("configmap/{owner}"), "{.metadata.uid}");
        cluster.apply(&format!(
            "apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
  ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: {owner}, uid: {uid}}}]
"
        ));
    };
    owned("child", "root");
    owned("grandchild", "child");
    cluster.ok(&["create", "configmap", "nobodys"]);
    cluster.ok(&["delete", "configmap", "root"]);
    cluster.wait("the family to be gone", || {
        let left = cluster.ok(&["get", "configmaps", "-o", "name"]);
        !left.contains("child") && left.contains("configmap/nobodys")
    });
    // Who names an owner that never was has none.
    cluster.apply(
        "apiVersion: v1
kind: ConfigMap
metadata:
  name: stray
  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: root, uid: 00000000-0000-0000-0000-000000000000}]
",
    );
    cluster.ok(&["wait", "--for=delete", "configmap/stray", "--timeout=60s"]);
}
