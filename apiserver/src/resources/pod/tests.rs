use crate::http::error::Invalid;
use crate::kind::{Builtin, Strategy};
use serde_json::{Value, json};

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut it = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}});
    change(&mut it);
    Builtin::<super::Pod>::new().fill_defaults(&mut it);
    it
}

fn texts(errors: Vec<Invalid>) -> Vec<String> {
    errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
}

fn wrong(change: impl FnOnce(&mut Value)) -> Vec<String> {
    texts(Builtin::<super::Pod>::new().validate(&pod(change)))
}

#[test]
fn defaults_are_kubernetes_own() {
    let it = pod(|it| {
        it["spec"]["hostNetwork"] = json!(true);
        it["spec"]["serviceAccountName"] = json!("robot");
        it["spec"]["volumes"] = json!([{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]);
        it["spec"]["containers"][0] = json!({"name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80}}, "lifecycle": {"preStop": {"httpGet": {"port": "http"}}}});
    });
    let spec = &it["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["schedulerName"], "default-scheduler");
    assert_eq!(spec["enableServiceLinks"], true);
    assert_eq!(spec["securityContext"], json!({}));
    assert_eq!(spec["serviceAccount"], "robot");
    assert_eq!(
        spec["volumes"],
        json!([{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}}])
    );
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["ports"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
    assert_eq!(container["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(
        container["livenessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(container["lifecycle"]["preStop"]["httpGet"], json!({"port": "http", "path": "/", "scheme": "HTTP"}));
    assert_eq!(
        (&container["terminationMessagePath"], &container["terminationMessagePolicy"]),
        (&json!("/dev/termination-log"), &json!("File"))
    );
    assert_eq!(texts(Builtin::<super::Pod>::new().validate(&it)), Vec::<String>::new());
}

#[test]
fn containers_are_checked() {
    assert_eq!(wrong(|it| it["spec"]["containers"] = json!([])), ["spec.containers: Required value"]);
    assert_eq!(
        wrong(|it| it["spec"]["containers"] = json!([{"name": "c", "image": "a"}, {"name": "c"}, {"image": " a"}])),
        [
            "spec.containers[1].image: Required value",
            "spec.containers[1].name: Duplicate value: \"c\"",
            "spec.containers[2].name: Required value",
            "spec.containers[2].image: Invalid value: \" a\": must not have leading or trailing whitespace",
        ]
    );
    assert_eq!(
        wrong(|it| {
            it["spec"]["containers"][0]["ports"] = json!([{"containerPort": 0}, {"containerPort": 70000, "hostPort": -1, "protocol": "X"},
                {"containerPort": 80, "name": "a", "hostPort": 80}, {"containerPort": 81, "name": "a", "hostPort": 80},
                {"containerPort": 82, "name": "1-"}]);
        }),
        [
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[1].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[0].ports[3].name: Duplicate value: \"a\"",
            "spec.containers[0].ports[4].name: Invalid value: \"1-\": must contain at least one letter (a-z)",
            "spec.containers[0].ports[4].name: Invalid value: \"1-\": must not begin or end with a hyphen",
            "spec.containers[0].ports[3].hostPort: Duplicate value: \"TCP//80\"",
        ]
    );
}

#[test]
fn environment_and_mounts_are_checked() {
    assert_eq!(
        wrong(|it| {
            it["spec"]["volumes"] = json!([{"name": "v"}]);
            it["spec"]["containers"][0]["volumeMounts"] =
                json!([{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/a", "subPath": "/x"}]);
            it["spec"]["containers"][0]["env"] = json!([{"name": "A=B"}, {"name": "", "value": "x"}, {"name": "C", "valueFrom": {}},
                {"name": "D", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}},
                {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "G", "valueFrom": {"configMapKeyRef": {"name": "m"}}}]);
            it["spec"]["containers"][0]["envFrom"] = json!([{}]);
        }),
        [
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            "spec.containers[0].env[1].name: Required value",
            "spec.containers[0].env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            "spec.containers[0].env[3].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].env[4].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting fieldPath: field label not supported: spec.nope",
            "spec.containers[0].env[6].valueFrom.configMapKeyRef.key: Required value",
            "spec.containers[0].envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
            "spec.containers[0].volumeMounts[1].name: Not found: \"w\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "spec.containers[0].volumeMounts[1].subPath: Invalid value: \"/x\": must be a relative path",
        ]
    );
}

#[test]
fn resources_are_checked() {
    assert_eq!(
        wrong(|it| {
            it["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "-1", "widgets": "1", "example.com/gpu": "1"},
                "requests": {"cpu": "1500m", "example.com/gpu": "2", "example.com/tpu": "1"}});
        }),
        [
            "spec.containers[0].resources.limits[widgets]: Invalid value: \"widgets\": must be a standard resource for containers",
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.requests[widgets]: Invalid value: \"widgets\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.requests: Invalid value: \"1500m\": must be less than or equal to cpu limit of 1",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be equal to example.com/gpu limit of 1",
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ]
    );
}

#[test]
fn probes_and_hooks_are_checked() {
    assert_eq!(
        wrong(|it| {
            it["spec"]["containers"][0]["livenessProbe"] = json!({"successThreshold": 2});
            it["spec"]["containers"][0]["readinessProbe"] =
                json!({"httpGet": {"port": "http", "scheme": "FTP"}, "exec": {"command": ["a"]}, "periodSeconds": -1});
            it["spec"]["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 60}}, "postStart": {"exec": {}}});
            it["spec"]["initContainers"] = json!([{"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}},
                {"name": "s", "image": "i", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 0}}}]);
        }),
        [
            "spec.containers[0].lifecycle.postStart.exec.command: Required value",
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than terminationGracePeriodSeconds (30)",
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "spec.containers[0].readinessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
            "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            "spec.initContainers[1].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ]
    );
}

#[test]
fn the_rest_of_the_spec_is_checked() {
    assert_eq!(
        wrong(|it| {
            it["spec"]["restartPolicy"] = json!("Sometimes");
            it["spec"]["dnsPolicy"] = json!("None");
            it["spec"]["hostname"] = json!("Not.A.Label");
            it["spec"]["activeDeadlineSeconds"] = json!(0);
            it["spec"]["hostAliases"] = json!([{"ip": "x", "hostnames": ["a"]}]);
            it["spec"]["securityContext"] = json!({"runAsUser": -1, "seccompProfile": {"type": "Localhost"}});
            it["spec"]["imagePullSecrets"] = json!([{}]);
        })
        .iter()
        .map(|text| text.split(": ").take(2).collect::<Vec<_>>().join(": "))
        .collect::<Vec<_>>(),
        [
            "spec.restartPolicy: Unsupported value",
            "spec.securityContext.runAsUser: Invalid value",
            "spec.securityContext.seccompProfile.localhostProfile: Required value",
            "spec.imagePullSecrets[0].name: Required value",
            "spec.dnsConfig: Required value",
            "spec.hostname: Invalid value",
            "spec.activeDeadlineSeconds: Invalid value",
            "spec.hostAliases[0].ip: Invalid value",
        ]
    );
}

#[test]
fn an_update_changes_little() {
    let strategy = Builtin::<super::Pod>::new();
    let old = pod(|_| {});
    let new = |change: &dyn Fn(&mut Value)| texts(strategy.validate_update(&pod(|it| change(it)), &old));
    assert_eq!(
        new(&|it| {
            it["spec"]["containers"][0]["image"] = json!("nginx:2");
            it["spec"]["activeDeadlineSeconds"] = json!(60);
            it["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
            it["metadata"]["labels"] = json!({"a": "b"});
        }),
        Vec::<String>::new()
    );
    let refused = new(&|it| it["spec"]["nodeName"] = json!("n2"));
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"),
        "{refused:?}"
    );
    assert!(refused[0].ends_with("\n- spec.nodeName: null\n+ spec.nodeName: \"n2\""), "{refused:?}");
    assert_eq!(
        new(&|it| it["spec"]["containers"] = json!([{"name": "c", "image": "nginx:1"}, {"name": "d", "image": "x"}])),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

#[test]
fn deletion_waits_only_for_what_runs() {
    let strategy = Builtin::<super::Pod>::new();
    let mut it = pod(|_| {});
    assert_eq!(strategy.grace_seconds(&it, None), Some(0));
    it["spec"]["nodeName"] = json!("n");
    assert_eq!(strategy.grace_seconds(&it, None), Some(30));
    assert_eq!(strategy.grace_seconds(&it, Some(5)), Some(5));
    assert_eq!(strategy.grace_seconds(&it, Some(-5)), Some(1));
    it["status"] = json!({"phase": "Succeeded"});
    assert_eq!(strategy.grace_seconds(&it, None), Some(0));
}

#[test]
fn a_new_pod_is_pending() {
    let strategy = Builtin::<super::Pod>::new();
    let mut it = pod(|it| it["status"] = json!({"phase": "Running"}));
    strategy.prepare_create(&mut it);
    assert_eq!(it["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(it["metadata"]["generation"], 1);
    let fields = strategy.selectable_fields(&it);
    assert!(fields.contains(&("status.phase", "Pending".into())) && fields.contains(&("spec.hostNetwork", "false".into())));
    assert_eq!(fields.iter().map(|(name, _)| *name).collect::<Vec<_>>(), strategy.selectable());
}

/// What a write of `new` to the subresource makes of `old`, and what is wrong with it.
fn written(part: &str, old: &Value, mut new: Value) -> (Value, Vec<String>) {
    let strategy = Builtin::<super::Pod>::new();
    strategy.fill_defaults(&mut new);
    strategy.prepare_part_update(part, &mut new, old);
    let mut errors = texts(strategy.validate(&new));
    errors.extend(texts(strategy.validate_part_update(part, &new, old)));
    (new, errors)
}

fn running(change: impl FnOnce(&mut Value)) -> Value {
    pod(|it| {
        it["metadata"]["generation"] = json!(1);
        it["status"] = json!({"phase": "Running"});
        change(it);
    })
}

#[test]
fn ephemeral_containers_are_added_and_nothing_else() {
    let old = running(|_| {});
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    new["spec"]["containers"][0]["image"] = json!("other");
    new["spec"]["ephemeralContainers"] =
        json!([{"name": "debug", "image": "busybox", "targetContainerName": "c", "stdin": true}]);
    let (made, wrong) = written("ephemeralcontainers", &old, new);
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!((&made["spec"]["containers"], &made["metadata"].get("labels")), (&old["spec"]["containers"], &None));
    assert_eq!(made["metadata"]["generation"], 2);
    assert_eq!(made["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"], "File");

    let mut changed = made.clone();
    changed["spec"]["ephemeralContainers"][0]["image"] = json!("nginx");
    let (_, wrong) = written("ephemeralcontainers", &made, changed);
    assert_eq!(
        wrong,
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be changed\n\
          - debug.image: \"busybox\"\n+ debug.image: \"nginx\""]
    );
    let mut without = made.clone();
    without["spec"].as_object_mut().unwrap().remove("ephemeralContainers");
    let (_, wrong) = written("ephemeralcontainers", &made, without);
    assert_eq!(wrong, ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be removed\n"]);
    let mirror = running(|it| it["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"}));
    let mut new = mirror.clone();
    new["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox"}]);
    assert_eq!(
        written("ephemeralcontainers", &mirror, new).1,
        ["[]: Forbidden: static pods do not support ephemeral containers"]
    );
}

#[test]
fn ephemeral_containers_are_checked() {
    let list = json!([
        {"name": "c", "image": "i"},
        {"name": "d", "image": "i", "targetContainerName": "x", "ports": [{"containerPort": 80}],
            "resources": {"requests": {"cpu": "1"}}, "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
            "restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 80}}, "readinessProbe": {"tcpSocket": {"port": 80}},
            "startupProbe": {"tcpSocket": {"port": 80}}, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
            "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}]},
        {"name": "d", "image": ""},
    ]);
    let not = "cannot be set for an Ephemeral Container";
    let at = "spec.ephemeralContainers";
    assert_eq!(
        wrong(|it| {
            it["spec"]["volumes"] = json!([{"name": "v"}]);
            it["spec"]["ephemeralContainers"] = list;
        }),
        [
            format!("{at}[0].name: Duplicate value: \"c\""),
            format!("{at}[1].targetContainerName: Not found: \"x\""),
            format!("{at}[1].ports: Forbidden: {not}"),
            format!("{at}[1].resources: Forbidden: {not}"),
            format!("{at}[1].resizePolicy: Forbidden: {not}"),
            format!("{at}[1].restartPolicy: Forbidden: {not}"),
            format!("{at}[1].livenessProbe: Forbidden: {not}"),
            format!("{at}[1].readinessProbe: Forbidden: {not}"),
            format!("{at}[1].startupProbe: Forbidden: {not}"),
            format!("{at}[1].lifecycle: Forbidden: {not}"),
            format!("{at}[1].volumeMounts[0].subPath: Forbidden: {not}"),
            format!("{at}[2].image: Required value"),
            format!("{at}[2].name: Duplicate value: \"d\""),
        ]
    );
    let strategy = Builtin::<super::Pod>::new();
    let made = pod(|it| it["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i"}]));
    assert_eq!(texts(strategy.validate_new(&made)), ["spec.ephemeralContainers: Forbidden: cannot be set on create"]);
    let without = pod(|_| {});
    assert!(
        texts(strategy.validate_update(&made, &without))[0].starts_with("spec: Forbidden: pod updates may not change fields")
    );
}

fn resources(requests: Value, limits: Value) -> Value {
    json!({"requests": requests, "limits": limits})
}

#[test]
fn a_resize_changes_cpu_and_memory() {
    let old = running(|it| {
        it["spec"]["containers"][0]["resources"] = resources(json!({"cpu": "1", "memory": "1Gi"}), json!({"memory": "2Gi"}));
        it["status"]["qosClass"] = json!("Burstable");
    });
    let wrong = |change: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        written("resize", &old, new).1
    };
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    new["spec"]["activeDeadlineSeconds"] = json!(5);
    new["spec"]["containers"][0]["image"] = json!("other");
    new["spec"]["containers"][0]["resources"] =
        resources(json!({"cpu": "2", "memory": "1Gi"}), json!({"memory": "1500Mi", "cpu": "3"}));
    let (made, errors) = written("resize", &old, new.clone());
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(made["spec"]["containers"][0]["resources"], new["spec"]["containers"][0]["resources"]);
    assert_eq!((&made["spec"]["containers"][0]["image"], made["metadata"].get("labels")), (&json!("nginx:1"), None));
    assert_eq!((made["spec"].get("activeDeadlineSeconds"), &made["metadata"]["generation"]), (None, &json!(2)));

    let at = "spec.containers[0].resources";
    assert_eq!(
        wrong(&|it| it["spec"]["containers"][0]["resources"] = resources(json!({"cpu": "1"}), json!({}))),
        [
            format!("{at}.requests: Forbidden: resource requests cannot be removed"),
            format!("{at}.limits: Forbidden: resource limits cannot be removed"),
        ]
    );
    assert_eq!(
        wrong(&|it| it["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] = json!("1Gi")),
        ["spec: Forbidden: only cpu and memory resources are mutable"]
    );
    assert_eq!(
        wrong(&|it| it["spec"]["containers"][0]["resizePolicy"] =
            json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}])),
        ["spec: Forbidden: only cpu and memory resources are mutable"]
    );
    let same = json!({"cpu": "1", "memory": "1Gi"});
    assert_eq!(
        wrong(&|it| it["spec"]["containers"][0]["resources"] = resources(same.clone(), same.clone())),
        ["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"]
    );
    assert_eq!(
        wrong(&|it| it["spec"]["containers"][0]["name"] = json!("d")),
        ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
    );
    let other = json!({"name": "d", "image": "i", "terminationMessagePolicy": "File", "imagePullPolicy": "Always"});
    assert_eq!(
        wrong(&|it| it["spec"]["containers"].as_array_mut().unwrap().push(other.clone())),
        ["spec.containers: Forbidden: containers may not be added or removed on resize"]
    );
}

#[test]
fn some_pods_cannot_be_resized() {
    let resize = |change: &dyn Fn(&mut Value)| {
        let old = running(|it| {
            it["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
            change(it);
        });
        let mut new = old.clone();
        new["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        written("resize", &old, new).1
    };
    assert_eq!(resize(&|_| {}), Vec::<String>::new());
    let mirror = |it: &mut Value| it["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert_eq!(resize(&mirror), ["[]: Forbidden: static pods cannot be resized"]);
    assert_eq!(resize(&|it| it["spec"]["os"] = json!({"name": "windows"})), ["[]: Forbidden: windows pods cannot be resized"]);
    let old_agent =
        json!([{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]);
    assert_eq!(
        resize(&|it| it["status"]["containerStatuses"] = old_agent.clone()),
        ["spec: Forbidden: Pod running on node without support for resize"]
    );
}

#[test]
fn init_containers_and_the_pod_as_a_whole_are_resized_too() {
    let restarts = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let old = running(|it| {
        it["spec"]["resources"] = resources(json!({"cpu": "4"}), json!({"cpu": "4"}));
        it["spec"]["initContainers"] = json!([
            {"name": "first", "image": "i", "resources": {"requests": {"cpu": "1"}}},
            {"name": "side", "image": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}, "resizePolicy": restarts},
            {"name": "never", "image": "i", "resources": {"requests": {"cpu": "1"}}, "resizePolicy": restarts},
        ]);
    });
    let of = |index: usize| {
        let mut new = old.clone();
        new["spec"]["initContainers"][index]["resources"]["requests"]["cpu"] = json!("2");
        written("resize", &old, new).1
    };
    assert_eq!((of(0), of(1)), (vec![], vec![]));
    let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
    assert_eq!(of(2), [format!("spec.initContainers[2]: Forbidden: {why}")]);
    let whole = |resources: Value| {
        let mut new = old.clone();
        new["spec"]["resources"] = resources;
        written("resize", &old, new).1
    };
    assert_eq!(whole(resources(json!({"cpu": "5"}), json!({"cpu": "6"}))), Vec::<String>::new());
    assert_eq!(whole(Value::Null), ["spec.resources: Forbidden: pod-level resources cannot be removed"]);
    assert_eq!(
        whole(resources(json!({"cpu": "1"}), json!({"cpu": "6"}))),
        [
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2"
        ]
    );
    assert_eq!(
        wrong(|it| it["spec"]["containers"][0]["resizePolicy"] = json!([{"resourceName": "gpu", "restartPolicy": ""},
            {"resourceName": "cpu", "restartPolicy": "Never"}, {"resourceName": "cpu", "restartPolicy": "NotRequired"}])),
        [
            "spec.containers[0].resizePolicy: Unsupported value: \"gpu\": supported values: \"cpu\", \"memory\"",
            "spec.containers[0].resizePolicy: Required value",
            "spec.containers[0].resizePolicy: Unsupported value: \"Never\": supported values: \"NotRequired\", \"RestartContainer\"",
            "spec.containers[0].resizePolicy[2]: Duplicate value: \"cpu\"",
        ]
    );
}
