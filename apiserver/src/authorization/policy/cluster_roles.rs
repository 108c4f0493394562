//! The default ClusterRoles for people, nodes, add-ons and the parts of the control plane.

use super::{
    DefaultBinding, DefaultRole, READ, READ_UPDATE, READ_WRITE, WRITE, account, cluster_binding, cluster_role, events, group,
    named, rule, urls, user,
};
use crate::authorization::rbac::Rule;
use crate::http::authenticate::User;

const HEALTH_AND_VERSION: &str = "/healthz /livez /readyz /version /version/";

pub fn roles() -> Vec<DefaultRole> {
    let mut roles = people();
    roles.extend(nodes());
    roles.extend(certificates());
    roles.extend(add_ons());
    roles.extend(control_plane());
    roles
}

fn people() -> Vec<DefaultRole> {
    let gathering = |name: &'static str, part_of: &'static [&'static str]| DefaultRole {
        part_of,
        gathers: name,
        ..cluster_role(name, vec![])
    };
    let part = |of: &'static [&'static str], rules: Vec<Rule>| DefaultRole {
        part_of: of,
        ..cluster_role(format!("system:aggregate-to-{}", of[0]), rules)
    };
    vec![
        cluster_role("cluster-admin", vec![rule("*", "*", "*"), urls("*", "*")]),
        cluster_role(
            "system:discovery",
            vec![urls("get", "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")],
        ),
        cluster_role(
            "system:monitoring",
            vec![urls("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*")],
        ),
        cluster_role(
            "system:basic-user",
            vec![
                rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
                rule("create", "authentication.k8s.io", "selfsubjectreviews"),
            ],
        ),
        cluster_role("system:public-info-viewer", vec![urls("get", HEALTH_AND_VERSION)]),
        gathering("admin", &[]),
        gathering("edit", &["admin"]),
        gathering("view", &["edit"]),
        part(
            &["admin"],
            vec![
                rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
                rule(READ_WRITE, "rbac.authorization.k8s.io", "roles rolebindings"),
            ],
        ),
        part(&["edit"], edit()),
        part(&["view"], view()),
    ]
}

fn edit() -> Vec<Rule> {
    vec![
        // What shows secrets or acts as somebody is not for those who only view.
        rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
        rule("impersonate", "core", "serviceaccounts"),
        rule(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
        rule("create", "core", "pods/eviction"),
        rule(
            WRITE,
            "core",
            "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
             serviceaccounts services services/proxy",
        ),
        rule("create", "core", "serviceaccounts/token"),
        rule(
            WRITE,
            "apps",
            "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
        ),
        rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
        rule(WRITE, "batch", "cronjobs jobs"),
        rule(
            WRITE,
            "extensions",
            "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale \
             replicationcontrollers/scale",
        ),
        rule(WRITE, "policy", "poddisruptionbudgets"),
        rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
        rule(WRITE, "coordination.k8s.io", "leases"),
        rule(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
    ]
}

fn view() -> Vec<Rule> {
    vec![
        rule(
            READ,
            "core",
            "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
             replicationcontrollers/scale serviceaccounts services services/status",
        ),
        rule(
            READ,
            "core",
            "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas \
             resourcequotas/status",
        ),
        // In a namespace this is that namespace.
        rule(READ, "core", "namespaces"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule(
            READ,
            "apps",
            "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets \
             replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
        ),
        rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
        rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
        rule(
            READ,
            "extensions",
            "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies \
             replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
        ),
        rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
        rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
        rule(READ, "coordination.k8s.io", "leases"),
        rule(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
    ]
}

/// What the node authoriser allows every node, beside what is related to it.
pub fn node_rules() -> Vec<Rule> {
    vec![
        // It answers for its own endpoint by asking here who calls and whether they may.
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
        rule(READ, "core", "services"),
        rule("create get list watch", "core", "nodes"),
        rule("patch update", "core", "nodes/status"),
        rule("patch update", "core", "nodes"),
        events(),
        rule(READ, "core", "pods"),
        rule("create delete", "core", "pods"),
        rule("patch update", "core", "pods/status"),
        rule("create", "core", "pods/eviction"),
        rule(READ, "core", "configmaps secrets"),
        rule("get", "core", "persistentvolumeclaims persistentvolumes"),
        rule("get", "core", "endpoints"),
        rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
        rule("create delete get patch update", "coordination.k8s.io", "leases"),
        rule("get", "storage.k8s.io", "volumeattachments"),
        rule("get patch update", "core", "persistentvolumeclaims/status"),
        rule("create", "core", "serviceaccounts/token"),
        rule("get", "core", "serviceaccounts"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule("create delete get patch update", "storage.k8s.io", "csinodes"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule("get", "resource.k8s.io", "resourceclaims"),
        rule("create delete deletecollection get list patch update watch", "resource.k8s.io", "resourceslices"),
    ]
}

fn nodes() -> Vec<DefaultRole> {
    vec![
        cluster_role("system:node", node_rules()),
        cluster_role(
            "system:node-problem-detector",
            vec![rule("get", "core", "nodes"), rule("patch", "core", "nodes/status"), events()],
        ),
        cluster_role(
            "system:kubelet-api-admin",
            vec![
                rule(READ, "core", "nodes"),
                rule("proxy", "core", "nodes"),
                rule(
                    "*",
                    "core",
                    "nodes/checkpoint nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/spec nodes/stats",
                ),
            ],
        ),
        cluster_role(
            "system:node-bootstrapper",
            vec![rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests")],
        ),
        cluster_role(
            "system:node-proxier",
            vec![
                rule("list watch", "core", "endpoints services"),
                rule(READ, "core", "nodes"),
                events(),
                rule("list watch", "discovery.k8s.io", "endpointslices"),
                rule("list watch", "networking.k8s.io", "servicecidrs"),
            ],
        ),
    ]
}

fn certificates() -> Vec<DefaultRole> {
    let client = |sub: &str| {
        let of = "certificatesigningrequests";
        cluster_role(
            format!("system:certificates.k8s.io:{of}:{sub}"),
            vec![rule("create", "certificates.k8s.io", &format!("{of}/{sub}"))],
        )
    };
    let approver = |of: &str| {
        cluster_role(
            format!("system:certificates.k8s.io:{of}-approver"),
            vec![named("approve", "certificates.k8s.io", "signers", &format!("kubernetes.io/{of}"))],
        )
    };
    vec![
        client("nodeclient"),
        client("selfnodeclient"),
        approver("legacy-unknown"),
        approver("kubelet-serving"),
        approver("kube-apiserver-client"),
        approver("kube-apiserver-client-kubelet"),
    ]
}

fn add_ons() -> Vec<DefaultRole> {
    vec![
        cluster_role(
            "system:heapster",
            vec![rule(READ, "core", "events namespaces nodes pods"), rule(READ, "extensions", "deployments")],
        ),
        cluster_role(
            "system:auth-delegator",
            vec![
                rule("create", "authentication.k8s.io", "tokenreviews"),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            ],
        ),
        cluster_role("system:kube-aggregator", vec![rule(READ, "core", "endpoints services")]),
        cluster_role(
            "system:kube-dns",
            vec![rule("list watch", "core", "endpoints services"), rule("list watch", "discovery.k8s.io", "endpointslices")],
        ),
        cluster_role(
            "system:persistent-volume-provisioner",
            vec![
                rule("create delete get list watch", "core", "persistentvolumes"),
                rule("get list update watch", "core", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("watch", "core", "events"),
                events(),
            ],
        ),
        cluster_role(
            "system:service-account-issuer-discovery",
            vec![urls(
                "get",
                "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
            )],
        ),
    ]
}

fn control_plane() -> Vec<DefaultRole> {
    let reviews = || {
        [rule("create", "authentication.k8s.io", "tokenreviews"), rule("create", "authorization.k8s.io", "subjectaccessreviews")]
    };
    let leader = |name: &str| {
        [rule("create", "coordination.k8s.io", "leases"), named("get update patch", "coordination.k8s.io", "leases", name)]
    };
    let mut manager = vec![
        events(),
        rule("create", "core", "secrets serviceaccounts serviceaccounts/token"),
        rule("delete", "core", "secrets"),
        rule("get", "core", "configmaps namespaces secrets serviceaccounts"),
        rule("update", "core", "secrets serviceaccounts"),
        rule("list watch", "*", "*"),
    ];
    manager.extend(leader("kube-controller-manager"));
    manager.extend(reviews());
    let mut scheduler = vec![
        events(),
        rule(READ, "core", "nodes"),
        rule("delete get list watch", "core", "pods"),
        rule("create", "core", "bindings pods/binding"),
        rule("patch update", "core", "pods/status"),
        rule(READ, "core", "namespaces replicationcontrollers services"),
        rule(READ, "apps extensions", "replicasets"),
        rule(READ, "apps", "statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "core", "persistentvolumeclaims persistentvolumes"),
        rule(READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities volumeattachments"),
    ];
    scheduler.extend(leader("kube-scheduler"));
    scheduler.extend(reviews());
    vec![
        cluster_role("system:kube-controller-manager", manager),
        cluster_role("system:kube-scheduler", scheduler),
        cluster_role(
            "system:volume-scheduler",
            vec![
                rule(READ_UPDATE, "core", "persistentvolumes"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule(READ_UPDATE, "core", "persistentvolumeclaims"),
            ],
        ),
    ]
}

pub fn bindings() -> Vec<DefaultBinding> {
    let everybody = || group(User::AUTHENTICATED);
    vec![
        cluster_binding("cluster-admin", vec![group(User::MASTERS)]),
        cluster_binding("system:monitoring", vec![group("system:monitoring")]),
        cluster_binding("system:discovery", vec![everybody()]),
        cluster_binding("system:basic-user", vec![everybody()]),
        cluster_binding("system:public-info-viewer", vec![everybody(), group(User::UNAUTHENTICATED)]),
        cluster_binding("system:node-proxier", vec![user("system:kube-proxy")]),
        cluster_binding("system:kube-controller-manager", vec![user("system:kube-controller-manager")]),
        cluster_binding("system:kube-dns", vec![account("kube-system", "kube-dns")]),
        cluster_binding("system:kube-scheduler", vec![user("system:kube-scheduler")]),
        cluster_binding("system:volume-scheduler", vec![user("system:kube-scheduler")]),
        cluster_binding("system:service-account-issuer-discovery", vec![group("system:serviceaccounts")]),
        // The node authoriser has taken its place; the binding is kept, as in Kubernetes, without anybody in it.
        cluster_binding("system:node", vec![]),
    ]
}
