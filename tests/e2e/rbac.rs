//! Roles and bindings by kubectl: made, asked about, acted under.

use crate::kubectl::with_every_version;

const RECONCILED: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: NAMESPACE}
rules:
  - {apiGroups: [''], resources: [pods, configmaps], verbs: [get]}
";

#[test]
fn rights_are_granted_and_asked_about() {
    with_every_version("rbac", |kubectl| {
        let namespace = kubectl.cluster.namespace();
        let everywhere = format!("{namespace}-nodes");
        kubectl.fails(
            &["get", "pods", "--as=jane"],
            "User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace",
        );
        kubectl.ok(&["create", "role", "reader", "--verb=get,list", "--resource=pods"]);
        kubectl.ok(&[
            "create",
            "rolebinding",
            "readers",
            "--role=reader",
            "--user=jane",
            "--serviceaccount",
            &format!("{namespace}:robot"),
        ]);
        kubectl.ok(&["get", "pods", "--as=jane"]);
        kubectl.ok(&["get", "pods", &format!("--as=system:serviceaccount:{namespace}:robot")]);
        kubectl.fails(&["get", "secrets", "--as=jane"], "(Forbidden)");
        kubectl.shows(&["auth", "can-i", "list", "pods", "--as=jane"], &["yes"]);
        kubectl.fails(&["auth", "can-i", "delete", "pods", "--as=jane"], "no");
        kubectl.shows(
            &["auth", "can-i", "--list", "--as=jane"],
            &["pods", "[get list]", "selfsubjectaccessreviews.authorization.k8s.io", "/healthz"],
        );
        kubectl.shows(&["auth", "can-i", "*", "*"], &["yes"]);
        kubectl.shows(&["get", "rolebinding", "readers", "-o", "wide"], &["Role/reader", "jane", &format!("{namespace}/robot")]);
        kubectl.shows(&["describe", "role", "reader"], &["pods", "[get list]"]);

        kubectl.ok(&["create", "clusterrole", &everywhere, "--verb=get,list", "--resource=nodes"]);
        kubectl.ok(&[
            "create",
            "clusterrolebinding",
            &everywhere,
            &format!("--clusterrole={everywhere}"),
            &format!("--group={everywhere}"),
        ]);
        kubectl.fails(&["get", "nodes", "--as=joe"], "(Forbidden)");
        kubectl.ok(&["get", "nodes", "--as=joe", &format!("--as-group={everywhere}")]);

        kubectl.cluster.with_input(&["auth", "reconcile", "-f", "-"], &RECONCILED.replace("NAMESPACE", &namespace));
        kubectl.ok(&["get", "configmap", "kube-root-ca.crt", "--as=jane"]);
        kubectl.shows(&["auth", "can-i", "list", "pods", "--as=jane"], &["yes"]);
        if kubectl.version != "1.27" {
            kubectl.shows(&["auth", "whoami"], &["kubernetes-admin", "system:masters"]);
            kubectl.shows(&["auth", "whoami", "--as=joe", "--as-group=ops", "--as-uid=7"], &["joe", "ops", "7"]);
        }
        // Who may grant roles grants no more than they have.
        kubectl.ok(&["create", "rolebinding", "admins", "--clusterrole=admin", "--user=jane"]);
        kubectl.ok(&["create", "rolebinding", "viewers", "--clusterrole=view", "--user=joe", "--as=jane"]);
        kubectl.fails(
            &["create", "rolebinding", "all", "--clusterrole=cluster-admin", "--user=joe", "--as=jane"],
            "is attempting to grant RBAC permissions not currently held",
        );
        kubectl.ok(&["delete", "rolebinding", "readers", "admins"]);
        kubectl.fails(&["get", "pods", "--as=jane"], "(Forbidden)");
        kubectl.ok(&["delete", "clusterrolebinding,clusterrole", &everywhere]);
    });
}
