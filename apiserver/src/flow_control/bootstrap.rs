//! The levels and schemas that every cluster has, as Kubernetes has them. `exempt` and `catch-all` must stay as they are; the
//! others are suggestions, which stay as the administrator leaves them.

use serde_json::{Value, json};

pub const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "kind": kind, "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}, "spec": spec,
    })
}

/// Shares, percentage that may be lent, queues (0: none) and size of a hand.
fn limited(name: &str, shares: i32, lendable: i32, queues: i32, hand: i32) -> Value {
    let response = match queues {
        0 => json!({"type": "Reject"}),
        queues => json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}),
    };
    let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
    object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
}

pub fn levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    vec![
        object("PriorityLevelConfiguration", "exempt", exempt),
        limited("catch-all", 5, 0, 0, 0),
        limited("system", 30, 33, 64, 6),
        limited("node-high", 40, 25, 64, 6),
        limited("leader-election", 10, 0, 16, 4),
        limited("workload-high", 40, 50, 128, 6),
        limited("workload-low", 100, 90, 128, 6),
        limited("global-default", 20, 50, 128, 6),
    ]
}

fn schema(name: &str, level: &str, precedence: i32, by: &str, rules: Value) -> Value {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object("FlowSchema", name, spec)
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn accounts(names: &[&str]) -> Value {
    let account = |name: &&str| json!({"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": "kube-system"}});
    names.iter().map(account).collect()
}

fn joined(one: Value, other: Value) -> Value {
    [one, other].iter().flat_map(|list| list.as_array().cloned().unwrap_or_default()).collect()
}

fn everything(subjects: Value) -> Value {
    json!([{
        "subjects": subjects,
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }])
}

fn resources(subjects: Value, rules: Value) -> Value {
    json!([{"subjects": subjects, "resourceRules": rules}])
}

pub fn schemas() -> Vec<Value> {
    let anybody = groups(&["system:unauthenticated", "system:authenticated"]);
    let leases = json!([{
        "verbs": ["get", "create", "update"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"],
    }]);
    let node_high = json!([
        {"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "namespaces": ["*"], "clusterScope": true},
        {"verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]},
    ]);
    let endpoints = json!([
        {"verbs": ["get", "create", "update"], "apiGroups": [""], "resources": ["endpoints"], "namespaces": ["*"]},
        {"verbs": ["get", "create", "update"], "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "namespaces": ["*"]},
    ]);
    let endpoint_users = joined(
        users(&["system:kube-controller-manager"]),
        accounts(&["endpoint-controller", "endpointslice-controller", "endpointslicemirroring-controller"]),
    );
    let leaders = joined(users(&["system:kube-controller-manager", "system:kube-scheduler"]), accounts(&["*"]));
    let probes = json!([{
        "subjects": anybody, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    }]);
    vec![
        schema("exempt", "exempt", 1, "", everything(groups(&["system:masters"]))),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", resources(leaders, leases)),
        schema("endpoint-controller", "workload-high", 150, "ByUser", resources(endpoint_users, endpoints)),
        schema("system-node-high", "node-high", 400, "ByUser", resources(groups(&["system:nodes"]), node_high)),
        schema("system-nodes", "system", 500, "ByUser", everything(groups(&["system:nodes"]))),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            everything(users(&["system:kube-controller-manager"])),
        ),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", everything(users(&["system:kube-scheduler"]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", everything(accounts(&["*"]))),
        schema("service-accounts", "workload-low", 9000, "ByUser", everything(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, "ByUser", everything(anybody.clone())),
        schema("catch-all", "catch-all", 10_000, "ByUser", everything(anybody)),
    ]
}
