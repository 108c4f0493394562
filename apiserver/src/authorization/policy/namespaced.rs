//! The default Roles and RoleBindings of kube-system and kube-public.

use super::{DefaultBinding, DefaultRole, READ, account, cluster_role, events, group, named, rule, user};
use crate::authorization::rbac::Rule;
use serde_json::Value;

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

fn role(namespace: &'static str, name: &str, rules: Vec<Rule>) -> DefaultRole {
    DefaultRole { namespace, ..cluster_role(name, rules) }
}

fn binding(namespace: &'static str, name: &str, role: &str, subjects: Vec<Value>) -> DefaultBinding {
    DefaultBinding { name: name.to_owned(), namespace, role: ("Role", role.to_owned()), subjects }
}

pub fn roles() -> Vec<DefaultRole> {
    let leader = |name: &str| {
        let rules = vec![
            rule("watch", "core", "configmaps"),
            named("get update", "core", "configmaps", name),
            rule("create get list update patch watch", "coordination.k8s.io", "leases"),
        ];
        role(SYSTEM, &format!("system::leader-locking-{name}"), rules)
    };
    vec![
        role(
            SYSTEM,
            "extension-apiserver-authentication-reader",
            vec![named(READ, "core", "configmaps", "extension-apiserver-authentication")],
        ),
        role(SYSTEM, "system:controller:bootstrap-signer", vec![rule(READ, "core", "secrets")]),
        role(SYSTEM, "system:controller:cloud-provider", vec![rule("create get list watch", "core", "configmaps")]),
        role(SYSTEM, "system:controller:token-cleaner", vec![rule("delete get list watch", "core", "secrets"), events()]),
        leader("kube-controller-manager"),
        leader("kube-scheduler"),
        role(
            PUBLIC,
            "system:controller:bootstrap-signer",
            vec![rule(READ, "core", "configmaps"), named("update", "core", "configmaps", "cluster-info"), events()],
        ),
        // A joining node learns here whom it talks to.
        role(PUBLIC, "system:slipway:cluster-info-reader", vec![named("get", "core", "configmaps", "cluster-info")]),
    ]
}

pub fn bindings() -> Vec<DefaultBinding> {
    let controller = |namespace, name: &str| {
        let role = format!("system:controller:{name}");
        binding(namespace, &role, &role, vec![account(SYSTEM, name), user(MANAGER)])
    };
    vec![
        binding(
            SYSTEM,
            "system::extension-apiserver-authentication-reader",
            "extension-apiserver-authentication-reader",
            vec![user(MANAGER), user(SCHEDULER)],
        ),
        binding(
            SYSTEM,
            "system::leader-locking-kube-controller-manager",
            "system::leader-locking-kube-controller-manager",
            vec![user(MANAGER), account(SYSTEM, "kube-controller-manager")],
        ),
        binding(
            SYSTEM,
            "system::leader-locking-kube-scheduler",
            "system::leader-locking-kube-scheduler",
            vec![user(SCHEDULER), account(SYSTEM, "kube-scheduler")],
        ),
        controller(SYSTEM, "bootstrap-signer"),
        binding(
            SYSTEM,
            "system:controller:cloud-provider",
            "system:controller:cloud-provider",
            vec![account(SYSTEM, "cloud-provider")],
        ),
        controller(SYSTEM, "token-cleaner"),
        controller(PUBLIC, "bootstrap-signer"),
        binding(
            PUBLIC,
            "system:slipway:cluster-info-reader",
            "system:slipway:cluster-info-reader",
            vec![group("system:bootstrappers"), group("system:authenticated")],
        ),
    ]
}
