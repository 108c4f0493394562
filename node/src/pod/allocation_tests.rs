use super::*;
use serde_json::{Value, json};

fn pod(name: &str, cpu: &str) -> Arc<Pod> {
    with(name, json!({"requests": {"cpu": cpu}}), json!({}))
}

fn with(name: &str, resources: Value, more: Value) -> Arc<Pod> {
    let mut spec = json!({"containers": [{"name": "c", "image": "i", "resources": resources}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": spec})).unwrap())
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn cores(count: i64) -> Resources {
    Resources { milli_cpu: count * 1000, memory: 1 << 30, ..Resources::default() }
}

/// A node of four cores, with these pods.
fn node(pods: &[&Arc<Pod>]) -> Allocations {
    let allocations = Allocations::default();
    for pod in pods {
        let grant = Grant::wanted(pod);
        allocations.add(pod.metadata.uid.as_deref().unwrap(), (*pod).clone(), grant.clone(), grant);
    }
    assert_eq!(allocations.complete(), Vec::<String>::new());
    allocations
}

fn asked(allocations: &Allocations, pod: &Arc<Pod>) -> (String, Option<String>, Vec<String>) {
    let answer = allocations.resize(pod.metadata.uid.as_deref().unwrap(), pod, cores(4), now());
    let cpu = requests(&answer.granted.of(pod)).milli_cpu;
    (cpu.to_string(), answer.pending.map(|pending| format!("{}: {}", pending.reason, pending.message)), answer.woken)
}

#[test]
fn what_there_is_room_for_is_granted() {
    let allocations = node(&[&pod("a", "1"), &pod("b", "1")]);
    assert_eq!(asked(&allocations, &pod("a", "1")), ("1000".into(), None, vec![]));
    assert_eq!(asked(&allocations, &pod("a", "3")), ("3000".into(), None, vec![]));
    assert_eq!(asked(&allocations, &pod("a", "500m")), ("500".into(), None, vec![]));
}

#[test]
fn what_the_node_is_too_small_for_is_infeasible() {
    let allocations = node(&[&pod("a", "1")]);
    let why = "Infeasible: Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000";
    assert_eq!(asked(&allocations, &pod("a", "5")), ("1000".into(), Some(why.into()), vec![]));
    // Less than it has is granted even on a node that has shrunk meanwhile.
    let answer = allocations.resize("a", &pod("a", "900m"), Resources::default(), now());
    assert_eq!((answer.pending, requests(&answer.granted.of(&pod("a", "900m"))).milli_cpu), (None, 900));
}

#[test]
fn what_others_have_is_waited_for() {
    let allocations = node(&[&pod("a", "1"), &pod("b", "3")]);
    let why = "Deferred: Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000";
    assert_eq!(asked(&allocations, &pod("a", "2")), ("1000".into(), Some(why.into()), vec![]));
    // What is in force is held until it is given up.
    assert_eq!(asked(&allocations, &pod("b", "1")), ("1000".into(), None, vec![]));
    assert_eq!(allocations.put_in_force("b", &Grant::wanted(&pod("b", "1"))), ["a"]);
    assert_eq!(asked(&allocations, &pod("a", "2")), ("2000".into(), None, vec![]));
}

#[test]
fn the_more_important_come_first_when_a_pod_has_gone() {
    let important = |cpu: &str| with("b", json!({"requests": {"cpu": cpu}}), json!({"priority": 7}));
    let allocations = node(&[&pod("a", "1"), &important("1"), &pod("z", "2")]);
    assert!(asked(&allocations, &pod("a", "3")).1.is_some());
    assert!(asked(&allocations, &important("3")).1.is_some());
    assert_eq!(allocations.remove("z"), ["b"]);
    assert!(asked(&allocations, &pod("a", "3")).1.is_some());
    assert_eq!(asked(&allocations, &important("3")).0, "3000");
}

#[test]
fn before_all_pods_are_known_nothing_more_is_granted() {
    let allocations = Allocations::default();
    let grant = Grant::wanted(&pod("a", "1"));
    allocations.add("a", pod("a", "1"), grant.clone(), grant);
    assert!(asked(&allocations, &pod("a", "2")).1.is_some());
    assert_eq!(allocations.complete(), ["a"]);
    assert_eq!(asked(&allocations, &pod("a", "2")).0, "2000");
}

#[test]
fn the_policy_says_whether_a_container_restarts() {
    let list = |cpu: &str, memory: &str| -> ResourceRequirements {
        serde_json::from_value(json!({"requests": {"cpu": cpu, "memory": "1Mi"}, "limits": {"cpu": cpu, "memory": memory}}))
            .unwrap()
    };
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let container: Container = serde_json::from_value(json!({"name": "c", "resizePolicy": policy})).unwrap();
    let of = |granted: &ResourceRequirements| change(&container, granted, &list("1", "64Mi"));
    assert_eq!(of(&list("1000m", "64Mi")), Change::Nothing);
    assert_eq!(of(&list("2", "64Mi")), Change::InPlace);
    assert_eq!(of(&list("2", "128Mi")), Change::Restart);
    let mut request = list("1", "64Mi");
    request
        .requests
        .as_mut()
        .unwrap()
        .insert("memory".into(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("2Mi".into()));
    assert_eq!(of(&request), Change::InPlace);
}

#[test]
fn a_grant_stands_in_for_what_is_asked_for() {
    let whole = |cpu: &str| with("a", json!({"requests": {"cpu": "1"}}), json!({"resources": {"requests": {"cpu": cpu}}}));
    let grant = Grant::wanted(&whole("2"));
    assert!(matches!(grant.of(&whole("2")), Cow::Borrowed(_)));
    assert_eq!(requests(&grant.of(&whole("3"))).milli_cpu, 2000);
    let kept: Grant = serde_json::from_value(serde_json::to_value(&grant).unwrap()).unwrap();
    assert_eq!(kept, grant);
}
