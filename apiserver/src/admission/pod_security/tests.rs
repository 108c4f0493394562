use super::policy::{Level, Standard, Version};
use super::standards::{Subject, details, violations};
use super::{is_significant, parts, warnings};
use serde_json::{Value, json};

fn told_of(level: Level, version: Version, pod: &Value) -> String {
    let (annotations, spec) = parts(pod).expect("the test's pods are pods");
    details(&violations(Standard { level, version }, &Subject { annotations, spec: &spec }))
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c"}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// A pod whose one container has this security context.
fn secured(context: Value) -> Value {
    pod(json!({"containers": [{"name": "c", "securityContext": context}]}))
}

fn baseline(pod: &Value) -> String {
    told_of(Level::Baseline, Version::Latest, pod)
}

fn restricted(pod: &Value) -> String {
    told_of(Level::Restricted, Version::Latest, pod)
}

fn harmless() -> Value {
    secured(json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }))
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    assert_eq!(baseline(&pod(json!({}))), "");
    assert_eq!(
        restricted(&pod(json!({}))),
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(restricted(&harmless()), "");
}

#[test]
fn each_check_of_the_baseline_names_what_is_wrong() {
    let cases = [
        (
            json!({"hostNetwork": true, "hostPID": true, "hostIPC": true}),
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
        ),
        (
            json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "hostPath": {"path": "/b"}}]}),
            "hostPath volumes (volumes \"a\", \"b\")",
        ),
        (
            json!({"initContainers": [{"name": "i", "ports": [{"containerPort": 1, "hostPort": 80}]}], "containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 81}]}]}),
            "hostPort (containers \"i\", \"c\" use hostPorts 80, 81)",
        ),
        (
            json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": 1, "host": "10.0.0.1"}}}]}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net.ipv4.tcp_rmem", "value": "1"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "odd_t", "user": "u"}}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"odd_t\"; user may not be set)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
    ];
    for (spec, told) in cases {
        assert_eq!(baseline(&pod(spec)), told);
    }
    let cases = [
        (json!({"privileged": true}), "privileged (container \"c\" must not set securityContext.privileged=true)"),
        (
            json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}}),
            "non-default capabilities (container \"c\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (json!({"procMount": "Unmasked"}), "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")"),
    ];
    for (context, told) in cases {
        assert_eq!(baseline(&secured(context)), told);
    }
    let mut annotated = pod(json!({}));
    annotated["metadata"]["annotations"] = json!({"container.apparmor.security.beta.kubernetes.io/c": "unconfined"});
    let value = "\"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\"";
    assert_eq!(
        baseline(&annotated),
        format!("forbidden AppArmor profile (annotation must not set AppArmor profile type to {value})")
    );
}

#[test]
fn the_restricted_checks_stand_in_for_those_of_the_baseline() {
    let mut it = harmless();
    it["spec"]["volumes"] = json!([{"name": "h", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {"server": "s", "path": "/"}}, {"name": "e", "emptyDir": {}}]);
    it["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["NET_ADMIN", "NET_BIND_SERVICE"]);
    it["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(0);
    assert_eq!(
        restricted(&it),
        "unrestricted capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add), \
         restricted volume types (volumes \"h\", \"n\" use restricted volume types \"hostPath\", \"nfs\"), \
         runAsUser=0 (container \"c\" must not set runAsUser=0)"
    );
    let mut root = harmless();
    root["spec"]["securityContext"] = json!({"runAsNonRoot": false});
    assert_eq!(restricted(&root), "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)");
    root["spec"]["hostUsers"] = json!(false);
    assert_eq!(restricted(&root), "");
}

#[test]
fn versions_bring_checks_and_take_them_away() {
    let at = |minor, pod: &Value| told_of(Level::Restricted, Version::Minor(minor), pod);
    let plain = pod(json!({}));
    assert_eq!(at(7, &plain), "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)");
    assert!(!at(21, &plain).contains("capabilities") && at(22, &plain).contains("capabilities"));
    let mut windows = plain;
    windows["spec"]["os"] = json!({"name": "windows"});
    assert!(at(24, &windows).contains("allowPrivilegeEscalation") && !at(25, &windows).contains("allowPrivilegeEscalation"));
    let sysctl = pod(json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}}));
    let at = |minor| told_of(Level::Baseline, Version::Minor(minor), &sysctl);
    assert_eq!((at(31).as_str(), at(32).as_str(), at(99).as_str()), ("forbidden sysctls (net.ipv4.tcp_rmem)", "", ""));
}

#[test]
fn ephemeral_containers_are_looked_at_too() {
    let mut it = harmless();
    it["spec"]["ephemeralContainers"] = json!([{"name": "debug", "securityContext": {"privileged": true}}]);
    assert!(restricted(&it).starts_with("privileged (container \"debug\" must not set securityContext.privileged=true)"));
    assert!(is_significant(&it, &harmless()));
    assert!(!is_significant(&it, &it));
    let mut labelled = it.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert!(!is_significant(&labelled, &it));
}

#[test]
fn existing_pods_are_told_of_by_what_is_wrong_with_them() {
    let standard = Standard { level: Level::Baseline, version: Version::Latest };
    let found: Vec<(String, String)> = [("privileged", "b"), ("privileged", "a"), ("hostPort", "z"), ("privileged", "c")]
        .map(|(r, n)| (r.into(), n.into()))
        .into();
    assert_eq!(
        warnings("team", standard, 4, 5, &found),
        [
            "new PodSecurity enforce level only checked against the first 4 of 5 existing pods",
            "existing pods in namespace \"team\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 2 other pods): privileged",
            "z: hostPort",
        ]
    );
}
