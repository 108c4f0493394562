//! An operator as others write them (`tests/operator`), unchanged in a pod: it brings its kind in two versions, with webhooks
//! that default, check and convert, and its controller. kubectl uses the kind like any other.

use crate::cluster::{Cluster, Shared, enabled, shared, text};

const OPERATOR: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: site-operator}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: site-operator}
rules:
  - {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [create, get, list, patch]}
  - apiGroups: [admissionregistration.k8s.io]
    resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
    verbs: [create, get, list, patch]
  - {apiGroups: [example.test], resources: [sites, sites/status, sites/finalizers], verbs: ['*']}
  - {apiGroups: [apps], resources: [deployments], verbs: [create, get, list, patch, watch]}
  - {apiGroups: [''], resources: [configmaps], verbs: [create, get, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: site-operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: site-operator}
subjects: [{kind: ServiceAccount, name: site-operator, namespace: OWN}]
---
apiVersion: v1
kind: Service
metadata: {name: site-operator}
spec:
  selector: {app: site-operator}
  ports: [{port: 443, targetPort: 8443}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: site-operator}
spec:
  selector: {matchLabels: {app: site-operator}}
  template:
    metadata: {labels: {app: site-operator}}
    spec:
      serviceAccountName: site-operator
      terminationGracePeriodSeconds: 0
      containers:
        - name: operator
          image: registry.slipway.test/operator:1
          env:
            - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
            - {name: SITE_IMAGE, value: 'registry.slipway.test/web:1'}
          readinessProbe: {httpGet: {path: /healthz, port: 8443, scheme: HTTPS}, periodSeconds: 1}
";

/// What the operator made for the whole cluster goes with it, whatever the test came to.
struct Installed(Shared);

impl Drop for Installed {
    fn drop(&mut self) {
        // Without them the sites' finalizers can be taken off even when the operator is gone.
        self.0.kubectl(&["delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", "sites.example.test"]);
        self.0.kubectl(&["patch", "site", "harbour", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
        self.0.kubectl(&["delete", "crd", "sites.example.test", "--wait=false"]);
        self.0.kubectl(&["delete", "clusterrole,clusterrolebinding", "site-operator"]);
    }
}

fn site(version: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: example.test/{version}\nkind: Site\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn refused(cluster: &Cluster, arguments: &[&str], manifest: &str, why: &str) {
    let output = cluster.kubectl_with_input(arguments, manifest);
    let said = text(&output);
    assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
}

#[test]
fn an_operator_brings_its_kind_with_webhooks_and_a_controller() {
    if !enabled("operator") {
        return;
    }
    let installed = Installed(shared("operator"));
    let cluster = &installed.0;
    cluster.apply(&OPERATOR.replace("namespace: OWN", &format!("namespace: {}", cluster.namespace())));
    cluster.ok(&["rollout", "status", "deployment/site-operator", "--timeout=90s"]);
    cluster.ok(&["wait", "--for=condition=Established", "crd/sites.example.test", "--timeout=60s"]);
    cluster.wait("the validating webhook", || {
        cluster.kubectl(&["get", "validatingwebhookconfiguration", "sites.example.test"]).status.success()
    });
    used_as_any_other_kind(cluster);
    refused_by_schema_rules_and_webhooks(cluster);
    written_in_either_version(cluster);
    cleaned_up(cluster);
}

fn used_as_any_other_kind(cluster: &Cluster) {
    cluster.apply(&site("v1", "harbour", "greeting: ahoy"));
    cluster.wait_for("site/harbour", "{.spec.replicas}", "2");
    cluster.wait_for("site/harbour", "{.status.ready}", "2");
    assert_eq!(cluster.get("configmap/harbour", "{.data.greeting}"), "ahoy");
    assert_eq!(cluster.pods("site=harbour").len(), 2);
    let table = cluster.ok(&["get", "st"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((&rows[0][..], &rows[1][..3]), (&["NAME", "GREETING", "READY"][..], &["harbour", "ahoy", "2"][..]), "{table}");
    let explained = cluster.ok(&["explain", "sites.spec"]);
    assert!(explained.contains("greeting\t<string> -required-"), "{explained}");
    assert!(cluster.ok(&["api-resources", "--api-group=example.test"]).contains("example.test/v1"));
    cluster.ok(&["scale", "site/harbour", "--replicas=3"]);
    cluster.wait_for("site/harbour", "{.status.ready}", "3");
    // Both its controller and kubectl own what they wrote of it.
    let managers =
        cluster.ok(&["get", "site", "harbour", "--show-managed-fields", "-o", "jsonpath={.metadata.managedFields[*].manager}"]);
    assert!(managers.contains("kubectl") && managers.contains("site-operator"), "{managers}");
}

fn refused_by_schema_rules_and_webhooks(cluster: &Cluster) {
    let apply = &["apply", "-f", "-"];
    refused(cluster, apply, &site("v1", "mute", "greeting: ''"), "spec.greeting in body should be at least 1 chars long");
    refused(cluster, apply, &site("v1", "loud", "greeting: hey, volume: 11"), "unknown field \"spec.volume\"");
    refused(
        cluster,
        apply,
        &site("v1", "crowd", "greeting: hey, replicas: 9"),
        "admission webhook \"check.sites.example.test\" denied the request: 9 replicas are more than 5",
    );
    cluster.apply(&site("v1", "stone", "greeting: carved in stone, replicas: 1"));
    refused(cluster, apply, &site("v1", "stone", "greeting: washed away, replicas: 1"), "it is carved in stone");
    let warned = text(&cluster.kubectl_with_input(apply, &site("v1", "stone", "greeting: carved in stone, replicas: 0")));
    assert!(warned.contains("Warning: nobody will hear the greeting"), "{warned}");
}

fn written_in_either_version(cluster: &Cluster) {
    assert_eq!(cluster.get("sites.v1alpha1.example.test/harbour", "{.apiVersion} {.spec.message}"), "example.test/v1alpha1 ahoy");
    cluster.apply(&site("v1alpha1", "old", "message: hello"));
    cluster.wait_for("site/old", "{.spec.greeting}", "hello");
    cluster.wait_for("site/old", "{.status.ready}", "2");
    let both = cluster.get("sites.v1alpha1.example.test", "{.items[*].spec.message}");
    assert_eq!(both, "ahoy hello carved in stone", "in the order of their names");
    cluster.ok(&["patch", "sites.v1alpha1.example.test", "old", "--type=merge", "-p", r#"{"spec":{"message":"moin"}}"#]);
    cluster.wait_for("configmap/old", "{.data.greeting}", "moin");
}

fn cleaned_up(cluster: &Cluster) {
    cluster.ok(&["delete", "site", "old", "--timeout=60s"]);
    assert_eq!(cluster.get("configmap/old-closed", "{.data.last}"), "moin");
    cluster.wait("the garbage collector", || !cluster.kubectl(&["get", "deployment", "old"]).status.success());
    // The definition goes when the operator has taken its leave of all sites.
    cluster.ok(&["delete", "crd", "sites.example.test", "--timeout=60s"]);
    assert_eq!(cluster.get("configmap/harbour-closed", "{.data.last}"), "ahoy");
    // kubectl may remember the kind; the server does not.
    let gone = cluster.kubectl(&["get", "sites"]);
    let said = text(&gone);
    let unknown = ["the server doesn't have a resource type \"sites\"", "the server could not find the requested resource"];
    assert!(!gone.status.success() && unknown.iter().any(|why| said.contains(why)), "{said}");
}
