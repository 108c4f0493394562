use super::*;
use serde_json::json;

fn world(options: Options) -> (World, Instant, Timestamp) {
    (World::new(Options { count: 2, ..options }), Instant::now(), Timestamp::UNIX_EPOCH)
}

fn pod(name: &str, spec: Value, annotations: Value) -> Pod {
    let mut spec = spec;
    spec["nodeName"] = json!("simulated-1");
    spec["containers"] = json!([{"name": "c", "image": "web:1"}]);
    let metadata = json!({"name": name, "namespace": "default", "uid": name, "annotations": annotations});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// What is written until nothing more is to be: `name phase restarts` or `delete name`.
fn written(world: &mut World, now: Instant) -> Vec<String> {
    world.advance(now, Timestamp::UNIX_EPOCH);
    let mut seen = vec![];
    while let Some((key, write)) = world.next_write(now, Timestamp::UNIX_EPOCH) {
        seen.push(match write {
            Write::Status { name, status, .. } => {
                let restarts = &status["containerStatuses"][0]["restartCount"];
                format!("{name} {} {restarts}", status["phase"].as_str().unwrap())
            }
            Write::Delete { name, .. } => format!("delete {name}"),
        });
        world.written(&key, true, now);
    }
    seen
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_pod_starts_after_its_latency_and_once() {
    let (mut world, now, clock) = world(Options { start_latency: SECOND, ..Options::default() });
    world.pod(&pod("a", json!({}), json!({})), now, clock);
    assert!(written(&mut world, now).is_empty());
    assert_eq!(world.next_due(), Some(now + SECOND));
    assert_eq!(written(&mut world, now + SECOND), ["a Running 0"]);
    assert!(written(&mut world, now + SECOND * 10).is_empty());
    let mut elsewhere = pod("b", json!({}), json!({}));
    elsewhere.spec.as_mut().unwrap().node_name = Some("real".into());
    world.pod(&elsewhere, now, clock);
    assert!(written(&mut world, now + SECOND * 10).is_empty());
}

#[test]
fn annotated_pods_end_and_those_to_be_restarted_are() {
    let (mut world, now, clock) = world(Options::default());
    let exit = |code: &str| json!({EXIT_AFTER: "5s", EXIT_CODE: code});
    for (name, policy, code) in [("done", "Never", "0"), ("broken", "Never", "3"), ("retried", "OnFailure", "3")] {
        world.pod(&pod(name, json!({"restartPolicy": policy}), exit(code)), now, clock);
    }
    assert_eq!(written(&mut world, now).len(), 3);
    assert_eq!(written(&mut world, now + SECOND * 5), ["broken Failed 0", "done Succeeded 0", "retried Running 1"]);
    assert_eq!(written(&mut world, now + SECOND * 10), ["retried Running 2"]);
}

#[test]
fn a_deleted_pod_ends_and_is_forgotten() {
    let (mut world, now, clock) = world(Options { stop_latency: SECOND, ..Options::default() });
    let mut deleted = pod("a", json!({}), json!({}));
    world.pod(&deleted, now, clock);
    written(&mut world, now);
    deleted.metadata.deletion_timestamp = Some(slipway_api::meta::Time(clock));
    world.pod(&deleted, now, clock);
    assert!(written(&mut world, now).is_empty());
    assert_eq!(written(&mut world, now + SECOND), ["delete a"]);
    world.pod_gone("default/a");
    assert!(world.pods.is_empty() && world.nodes[1].taken.is_empty());
}

#[test]
fn a_silent_node_says_nothing_until_it_is_revived() {
    let (mut world, now, clock) = world(Options::default());
    let handle = world.options.handle.clone();
    handle.silence("simulated-1");
    world.pod(&pod("a", json!({}), json!({})), now, clock);
    assert!(written(&mut world, now).is_empty() && written(&mut world, now + SECOND).is_empty());
    handle.revive("simulated-1");
    assert_eq!(written(&mut world, now + SECOND * 2), ["a Running 0"]);
}

#[test]
fn a_failed_write_is_tried_again() {
    let (mut world, now, clock) = world(Options::default());
    world.pod(&pod("a", json!({}), json!({})), now, clock);
    world.advance(now, clock);
    let (key, _) = world.next_write(now, clock).unwrap();
    world.written(&key, false, now);
    assert!(written(&mut world, now).is_empty());
    assert_eq!(written(&mut world, now + RETRY), ["a Running 0"]);
}

#[test]
fn addresses_come_from_the_nodes_range_and_are_given_back() {
    let (mut world, now, clock) = world(Options::default());
    world.set_pod_cidr(1, "10.244.7.0/30");
    for name in ["a", "b"] {
        world.pod(&pod(name, json!({}), json!({})), now, clock);
    }
    let ip = |world: &World, name: &str| std::net::Ipv4Addr::from(world.pods[name].ip).to_string();
    assert_eq!((ip(&world, "default/a"), ip(&world, "default/b")), ("10.244.7.1".into(), "10.244.7.2".into()));
    world.pod_gone("default/a");
    world.pod(&pod("c", json!({}), json!({})), now, clock);
    assert_eq!(ip(&world, "default/c"), "10.244.7.1");
    assert_eq!(pod_range(3, None), (u32::from_be_bytes([100, 64, 3, 0]), 256));
}

/// As it is told of.
fn runs(mut pod: Pod) -> Pod {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    pod.status = Some(serde_json::from_value(json!({"phase": "Running", "conditions": ready})).unwrap());
    pod
}

/// What the pod's first container has, by the statuses that are written, and why it has no more.
fn resized(world: &mut World, now: Instant) -> Vec<String> {
    world.advance(now, Timestamp::UNIX_EPOCH);
    let mut seen = vec![];
    while let Some((key, write)) = world.next_write(now, Timestamp::UNIX_EPOCH) {
        if let Write::Status { status, .. } = write {
            let conditions = status["conditions"].as_array().unwrap();
            let pending = conditions.iter().find(|condition| condition["type"] == "PodResizePending");
            let pending = pending.map_or("", |pending| pending["reason"].as_str().unwrap_or("over"));
            let first = &status["containerStatuses"][0];
            let cpu = first["resources"]["requests"]["cpu"].as_str().unwrap();
            seen.push(format!("{cpu} {} {pending}", first["restartCount"]).trim().to_owned());
        }
        world.written(&key, true, now);
    }
    seen
}

#[test]
fn pods_are_resized_where_there_is_room() {
    let (mut world, now, clock) = world(Options::default());
    let with = |name: &str, cpu: &str, policy: &str| {
        let mut pod = pod(name, json!({}), json!({}));
        let container = &mut pod.spec.as_mut().unwrap().containers[0];
        container.resources = Some(serde_json::from_value(json!({"requests": {"cpu": cpu}})).unwrap());
        container.resize_policy =
            Some(serde_json::from_value(json!([{"resourceName": "cpu", "restartPolicy": policy}])).unwrap());
        runs(pod)
    };
    let mut told = |pod: Pod, at: Duration| {
        world.pod(&pod, now + at, clock);
        resized(&mut world, now + at)
    };
    assert_eq!(told(with("a", "1", "NotRequired"), SECOND), [""; 0]);
    assert_eq!(told(with("a", "2", "NotRequired"), SECOND), ["2 0"]);
    assert_eq!(told(with("a", "3", "RestartContainer"), SECOND), ["3 1"]);
    assert_eq!(told(with("b", "20", "NotRequired"), SECOND), [""; 0]);
    assert_eq!(told(with("a", "30", "NotRequired"), SECOND), ["3 1 Deferred"]);
    assert_eq!(told(with("b", "1", "NotRequired"), SECOND), ["1 0"]);
    assert_eq!(told(with("b", "1", "NotRequired"), SECOND * 3), ["30 1 over"]);
    assert_eq!(told(with("a", "64", "NotRequired"), SECOND * 4), ["30 1 Infeasible"]);
    assert_eq!(told(with("a", "30", "NotRequired"), SECOND * 4), ["30 1 over"]);
}

#[test]
fn who_takes_over_goes_by_what_was_granted() {
    let (mut world, now, clock) = world(Options::default());
    let resources = |cpu: &str| serde_json::from_value(json!({"requests": {"cpu": cpu}})).unwrap();
    let mut it = runs(pod("a", json!({}), json!({})));
    it.spec.as_mut().unwrap().containers[0].resources = Some(resources("64"));
    let told = json!([{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 2, "resources": {"requests": {"cpu": "2"}}}]);
    it.status.as_mut().unwrap().container_statuses = Some(serde_json::from_value(told).unwrap());
    world.pod(&it, now, clock);
    assert_eq!(resized(&mut world, now), ["2 2 Infeasible"]);
}

#[test]
fn an_ephemeral_container_runs_beside_the_others() {
    let (mut world, now, clock) = world(Options::default());
    let mut it = runs(pod("a", json!({}), json!({})));
    world.pod(&it, now, clock);
    assert_eq!(world.next_write(now, clock), None);
    let debug = json!([{"name": "debug", "image": "busybox"}]);
    it.spec.as_mut().unwrap().ephemeral_containers = Some(serde_json::from_value(debug).unwrap());
    world.pod(&it, now, clock);
    let (key, write) = world.next_write(now, clock).unwrap();
    let Write::Status { status, .. } = write else { panic!("{write:?}") };
    let told = &status["ephemeralContainerStatuses"][0];
    assert_eq!((&told["name"], told["state"]["running"].is_object()), (&json!("debug"), true));
    world.written(&key, true, now);
    world.pod(&it, now, clock);
    assert_eq!(world.next_write(now, clock), None);
}

#[test]
fn it_stands_by_what_it_said() {
    let (mut world, now, clock) = world(Options::default());
    let mut doubted = pod("a", json!({}), json!({}));
    world.pod(&doubted, now, clock);
    written(&mut world, now);
    let ready = json!([{"type": "Ready", "status": "False"}]);
    doubted.status = Some(serde_json::from_value(json!({"phase": "Running", "conditions": ready})).unwrap());
    world.pod(&doubted, now, clock);
    assert_eq!(written(&mut world, now), ["a Running 0"]);
}
