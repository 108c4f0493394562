//! What Slipway's own parts and kinds need beyond Kubernetes' defaults.

use super::{DefaultBinding, DefaultRole, READ, READ_WRITE, cluster_binding, cluster_role, events, group, named, rule, user};

const MANAGER: &str = "system:kube-controller-manager";
const CLOUD: &str = "system:cloud-controller-manager";
const CERTIFICATES: &str = "certificates.k8s.io";

pub fn roles() -> Vec<DefaultRole> {
    vec![
        // Kubernetes' controllers replace objects where these send a patch of what changed.
        cluster_role(
            "system:slipway:controllers",
            vec![
                rule(
                    "patch",
                    "core",
                    "pods pods/status nodes nodes/status services/status endpoints namespaces/status replicationcontrollers replicationcontrollers/status configmaps resourcequotas/status persistentvolumeclaims persistentvolumes",
                ),
                rule("update", "core", "namespaces/finalize"),
                rule(
                    "patch",
                    "apps",
                    "daemonsets daemonsets/status deployments deployments/status replicasets replicasets/status statefulsets statefulsets/status \
                     controllerrevisions",
                ),
                rule("patch", "autoscaling", "horizontalpodautoscalers/status"),
                rule("patch", "batch", "cronjobs cronjobs/status jobs jobs/status"),
                rule("patch", "policy", "poddisruptionbudgets/status"),
                rule("patch", "discovery.k8s.io", "endpointslices"),
                rule("patch", CERTIFICATES, "certificatesigningrequests/approval certificatesigningrequests/status"),
                // A node's serving certificate is approved when all names in it are the node's own.
                named("approve", CERTIFICATES, "signers", "kubernetes.io/kubelet-serving"),
                rule("delete", CERTIFICATES, "certificatesigningrequests"),
            ],
        ),
        cluster_role(
            CLOUD,
            vec![
                rule(READ_WRITE, "slipway.dev", "*"),
                rule("delete get list patch update watch", "core", "nodes"),
                rule("patch update", "core", "nodes/status"),
                rule("delete get list watch", "core", "pods"),
                rule("create", "core", "pods/eviction"),
                rule("get list patch update watch", "core", "services"),
                rule("patch update", "core", "services/status"),
                rule(READ, "core", "endpoints namespaces persistentvolumeclaims persistentvolumes"),
                rule(READ, "discovery.k8s.io", "endpointslices"),
                rule(READ, "apps", "daemonsets replicasets statefulsets"),
                rule(READ, "policy", "poddisruptionbudgets"),
                rule("create get list patch update watch", "coordination.k8s.io", "leases"),
                events(),
            ],
        ),
        // Tokens with which machines that were bought join.
        DefaultRole {
            namespace: "kube-system",
            ..cluster_role("system:slipway:join-tokens", vec![rule("create delete get list patch watch", "core", "secrets")])
        },
        // The node's proxy, its routes and its DNS act with the node's identity.
        cluster_role(
            "system:slipway:node-network",
            vec![rule(READ, "core", "endpoints namespaces nodes services"), rule(READ, "discovery.k8s.io", "endpointslices")],
        ),
        // What is bought costs money, so it is a right of its own.
        cluster_role("slipway:machine-admin", vec![rule(READ_WRITE, "slipway.dev", "machines nodeclasses nodepools")]),
        DefaultRole {
            part_of: &["view"],
            ..cluster_role(
                "system:slipway:aggregate-to-view",
                vec![rule(READ, "slipway.dev", "machines machines/status nodeclasses nodepools nodepools/status")],
            )
        },
    ]
}

pub fn bindings() -> Vec<DefaultBinding> {
    let bound =
        |name: &str, role: &str, to: &str| DefaultBinding { name: name.to_owned(), ..cluster_binding(role, vec![group(to)]) };
    let client = |sub: &str| format!("system:{CERTIFICATES}:certificatesigningrequests:{sub}");
    vec![
        cluster_binding("system:slipway:controllers", vec![user(MANAGER)]),
        cluster_binding(CLOUD, vec![user(CLOUD)]),
        DefaultBinding {
            namespace: "kube-system",
            role: ("Role", "system:slipway:join-tokens".into()),
            ..cluster_binding("system:slipway:join-tokens", vec![user(CLOUD)])
        },
        cluster_binding("system:slipway:node-network", vec![group("system:nodes")]),
        bound("system:slipway:node-bootstrap", "system:node-bootstrapper", "system:bootstrappers"),
        bound("system:slipway:node-autoapprove-bootstrap", &client("nodeclient"), "system:bootstrappers"),
        bound("system:slipway:node-autoapprove-certificate-rotation", &client("selfnodeclient"), "system:nodes"),
    ]
}
