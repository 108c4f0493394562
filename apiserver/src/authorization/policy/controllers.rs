//! What each controller may do, as Kubernetes divides it: `system:controller:NAME`, bound to the service account NAME of
//! kube-system and, as the controllers here act as one user, to that user too.

use super::{DefaultBinding, DefaultRole, READ, account, cluster_binding, cluster_role, events, named, rule, user};
use crate::authorization::rbac::Rule;

const PREFIX: &str = "system:controller:";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SIGNERS: &str = "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving \
                       kubernetes.io/legacy-unknown";

/// Name and rules of each.
fn all() -> Vec<(&'static str, Vec<Rule>)> {
    let mut all = workloads();
    all.extend(network_and_nodes());
    all.extend(machinery());
    all
}

fn workloads() -> Vec<(&'static str, Vec<Rule>)> {
    let pods = || rule("create delete list patch watch", "core", "pods");
    vec![
        (
            "cronjob-controller",
            vec![
                rule("get list update watch", "batch", "cronjobs"),
                rule("create delete get list patch update watch", "batch", "jobs"),
                rule("update", "batch", "cronjobs/status"),
                rule("update", "batch", "cronjobs/finalizers"),
                rule("delete list watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "daemon-set-controller",
            vec![
                rule(READ, "apps extensions", "daemonsets"),
                rule("update", "apps extensions", "daemonsets/status"),
                rule("update", "apps extensions", "daemonsets/finalizers"),
                rule("list watch", "core", "nodes"),
                pods(),
                rule("create", "core", "pods/binding"),
                rule("create delete get list patch update watch", "apps", "controllerrevisions"),
                events(),
            ],
        ),
        (
            "deployment-controller",
            vec![
                rule("get list update watch", "apps extensions", "deployments"),
                rule("update", "apps extensions", "deployments/status"),
                rule("update", "apps extensions", "deployments/finalizers"),
                rule("create delete get list patch update watch", "apps extensions", "replicasets"),
                rule("get list update watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "disruption-controller",
            vec![
                rule(READ, "apps extensions", "deployments"),
                rule(READ, "apps extensions", "replicasets"),
                rule(READ, "core", "replicationcontrollers"),
                rule(READ, "policy", "poddisruptionbudgets"),
                rule(READ, "apps", "statefulsets"),
                rule("update", "policy", "poddisruptionbudgets/status"),
                rule("patch update", "core", "pods/status"),
                rule("get", "*", "*/scale"),
                events(),
            ],
        ),
        (
            "horizontal-pod-autoscaler",
            vec![
                rule(READ, "autoscaling", "horizontalpodautoscalers"),
                rule("update", "autoscaling", "horizontalpodautoscalers/status"),
                rule("get update", "*", "*/scale"),
                rule("list watch", "core", "pods"),
                rule("list watch", "metrics.k8s.io", "pods"),
                rule(READ, "custom.metrics.k8s.io", "*"),
                rule(READ, "external.metrics.k8s.io", "*"),
                events(),
            ],
        ),
        (
            "job-controller",
            vec![
                rule("get list patch update watch", "batch", "jobs"),
                rule("update", "batch", "jobs/status"),
                rule("update", "batch", "jobs/finalizers"),
                pods(),
                events(),
            ],
        ),
        (
            "replicaset-controller",
            vec![
                rule("get list update watch", "apps extensions", "replicasets"),
                rule("update", "apps extensions", "replicasets/status"),
                rule("update", "apps extensions", "replicasets/finalizers"),
                pods(),
                events(),
            ],
        ),
        (
            "replication-controller",
            vec![
                rule("get list update watch", "core", "replicationcontrollers"),
                rule("update", "core", "replicationcontrollers/status"),
                rule("update", "core", "replicationcontrollers/finalizers"),
                pods(),
                events(),
            ],
        ),
        (
            "statefulset-controller",
            vec![
                rule(READ, "apps", "statefulsets"),
                rule("update", "apps", "statefulsets/status"),
                rule("update", "apps", "statefulsets/finalizers"),
                rule("create delete get list patch update watch", "core", "pods"),
                rule("create delete get list patch update watch", "apps", "controllerrevisions"),
                rule("create delete get update", "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
        ("ttl-after-finished-controller", vec![rule("delete get list watch", "batch", "jobs"), events()]),
        (
            "pod-garbage-collector",
            vec![rule("delete list watch", "core", "pods"), rule(READ, "core", "nodes"), rule("patch", "core", "pods/status")],
        ),
    ]
}

fn network_and_nodes() -> Vec<(&'static str, Vec<Rule>)> {
    vec![
        (
            "endpoint-controller",
            vec![
                rule(READ, "core", "pods services"),
                rule("create delete get list update watch", "core", "endpoints"),
                rule("create", "core", "endpoints/restricted"),
                events(),
            ],
        ),
        (
            "endpointslice-controller",
            vec![
                rule(READ, "core", "nodes pods services"),
                rule("update", "core", "services/finalizers"),
                rule("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
                events(),
            ],
        ),
        (
            "node-controller",
            vec![
                rule("delete get list patch update watch", "core", "nodes"),
                rule("patch update", "core", "nodes/status"),
                rule("patch update", "core", "pods/status"),
                rule("delete get list watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "service-controller",
            vec![
                rule(READ, "core", "services"),
                rule("patch update", "core", "services/status"),
                rule("list watch", "core", "nodes"),
                events(),
            ],
        ),
        ("ttl-controller", vec![rule("list patch update watch", "core", "nodes"), events()]),
    ]
}

fn machinery() -> Vec<(&'static str, Vec<Rule>)> {
    vec![
        (
            "certificate-controller",
            vec![
                rule("delete get list watch", "certificates.k8s.io", "certificatesigningrequests"),
                rule("update", "certificates.k8s.io", "certificatesigningrequests/approval certificatesigningrequests/status"),
                named("approve", "certificates.k8s.io", "signers", KUBELET_CLIENT),
                named("sign", "certificates.k8s.io", "signers", SIGNERS),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
                events(),
            ],
        ),
        // It writes roles of which it holds nothing itself.
        (
            "clusterrole-aggregation-controller",
            vec![rule("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles")],
        ),
        ("generic-garbage-collector", vec![rule("delete get list patch update watch", "*", "*"), events()]),
        (
            "namespace-controller",
            vec![
                rule("delete get list watch", "core", "namespaces"),
                rule("update", "core", "namespaces/finalize namespaces/status"),
                rule("delete deletecollection get list watch", "*", "*"),
            ],
        ),
        (
            "resourcequota-controller",
            vec![rule("list watch", "*", "*"), rule("update", "core", "resourcequotas/status"), events()],
        ),
        (
            "pvc-protection-controller",
            vec![rule("get list update watch", "core", "persistentvolumeclaims"), rule(READ, "core", "pods"), events()],
        ),
        ("pv-protection-controller", vec![rule("get list update watch", "core", "persistentvolumes"), events()]),
        ("root-ca-cert-publisher", vec![rule("create update", "core", "configmaps"), events()]),
        ("service-account-controller", vec![rule("create", "core", "serviceaccounts"), events()]),
        (
            "validatingadmissionpolicy-status-controller",
            vec![
                rule(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
                rule("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
                events(),
            ],
        ),
        (
            "legacy-service-account-token-cleaner",
            vec![
                named("get", "core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
                rule("delete patch", "core", "secrets"),
            ],
        ),
    ]
}

pub fn roles() -> Vec<DefaultRole> {
    all().into_iter().map(|(name, rules)| cluster_role(format!("{PREFIX}{name}"), rules)).collect()
}

pub fn bindings() -> Vec<DefaultBinding> {
    let bound = |name| {
        cluster_binding(format!("{PREFIX}{name}"), vec![account("kube-system", name), user("system:kube-controller-manager")])
    };
    all().into_iter().map(|(name, _)| bound(name)).collect()
}
