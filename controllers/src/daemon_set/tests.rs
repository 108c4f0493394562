use expect_test::expect;
use serde_json::json;

use super::*;
use crate::testing::World;

const AGENT: &str = r#"
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}
  template: {metadata: {labels: {app: agent}}, spec: {nodeSelector: {disk: ssd}, containers: [{name: a, image: 'a:1'}]}}
"#;

fn key() -> Key {
    Key::new("default", "agent")
}

fn world() -> World {
    let mut world = World::default();
    for name in ["one", "two", "three"] {
        world.put::<Node>(&format!("metadata: {{name: {name}, labels: {{disk: ssd}}}}"));
    }
    world.put::<Node>("metadata: {name: other}");
    world.put::<DaemonSet>(AGENT);
    world
}

fn work(_: &World) -> Vec<(&'static dyn crate::run::Controller, Key)> {
    vec![(&Controller, key())]
}

/// A scheduler and nodes that put every pod where it belongs and start it.
fn start_pods(world: &mut World) {
    for pod in world.list::<Pod>() {
        if !pods::is_ready(&pod) && !pods::is_terminal(&pod) {
            let node = placement::target(&pod).unwrap().to_owned();
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": world.now.to_string()});
            let status = json!({"phase": "Running", "conditions": [ready]});
            world.edit::<Pod>(pod.name(), json!({"spec": {"nodeName": node}, "status": status}));
        }
    }
}

fn images(world: &World) -> String {
    let mut lines: Vec<String> = world
        .list::<Pod>()
        .iter()
        .map(|pod| {
            let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
            format!("{} {image}", placement::target(pod).unwrap())
        })
        .collect();
    lines.sort();
    lines.join(", ")
}

#[test]
fn every_node_that_fits_gets_one_pod() {
    let mut world = world();
    world.step(&Controller, &key(), expect![[r#"
        create ControllerRevision default/agent-5d64bd4d9c
        patch DaemonSet default/agent/status {"status":{"currentNumberScheduled":0,"desiredNumberScheduled":3,"numberMisscheduled":0,"numberReady":0,"numberUnavailable":3,"observedGeneration":1}}
        create Pod default/agent-*
        create Pod default/agent-*
        create Pod default/agent-*
    "#]]);
    let pod = &world.list::<Pod>()[0];
    assert_eq!(pod.spec.as_ref().unwrap().tolerations.as_ref().unwrap().len(), TOLERATIONS);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(images(&world), "one a:1, three a:1, two a:1");

    // A node that no longer fits loses its pod, a cordoned one keeps it, one that is tainted for others keeps it, too.
    world.edit::<Node>("one", json!({"metadata": {"labels": {"disk": "hdd"}}}));
    world.edit::<Node>("two", json!({"spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]}}));
    world.edit::<Node>(
        "three",
        json!({"spec": {"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}}),
    );
    world.step(&Controller, &key(), expect![[r#"
        patch DaemonSet default/agent/status {"status":{"currentNumberScheduled":1,"desiredNumberScheduled":1,"numberAvailable":1,"numberMisscheduled":2,"numberReady":1,"updatedNumberScheduled":1}}
        delete Pod default/agent-1 (its node does not fit)
    "#]]);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(images(&world), "three a:1, two a:1");
}

const TOLERATIONS: usize = 6;

#[test]
fn a_new_template_replaces_pods_one_by_one() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    world.edit::<DaemonSet>("agent", json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a:2"}]}}}}));
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        create ControllerRevision default/agent-7dd8995bfb
        patch DaemonSet default/agent/status {"status":{"observedGeneration":2,"updatedNumberScheduled":null}}
        delete Pod default/agent-1 (it is of an older template)
    "#]],
    );
    world.converge(&work, &start_pods, &[0, 1, 0, 2, 1]);
    assert_eq!(images(&world), "one a:2, three a:2, two a:2");
    let status = world.get::<DaemonSet>(&key()).status.clone().unwrap();
    assert_eq!((status.updated_number_scheduled, status.number_available, status.number_unavailable), (Some(3), Some(3), None));

    // Back again: the first revision becomes the newest.
    world.edit::<DaemonSet>("agent", json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a:1"}]}}}}));
    world.converge(&work, &start_pods, &[]);
    let mut revisions: Vec<i64> =
        world.list::<slipway_api::apps::ControllerRevision>().iter().filter_map(|revision| revision.revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [2, 3]);
}

/// The newest is kept, and no pod is replaced for it.
#[test]
fn of_revisions_with_one_template_one_is_kept() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    let names = |world: &World| world.list::<Pod>().iter().map(|pod| pod.uid().to_owned()).collect::<Vec<_>>();
    let before = names(&world);
    let first = world.list::<slipway_api::apps::ControllerRevision>().remove(0);
    let mut second = slipway_api::apps::ControllerRevision::clone(&first);
    second.metadata.name = Some("agent-second".into());
    second.metadata.uid = Some("second".into());
    second.metadata.labels.get_or_insert_default().insert(revision::HASH_LABEL.into(), "second".into());
    second.revision = Some(2);
    world.put::<slipway_api::apps::ControllerRevision>(&serde_json::to_string(&second).unwrap());
    world.converge(&work, &start_pods, &[]);
    let left = world.list::<slipway_api::apps::ControllerRevision>();
    assert_eq!(left.iter().map(|one| (one.name(), one.revision)).collect::<Vec<_>>(), [("agent-second", Some(2))]);
    assert!(world.list::<Pod>().iter().all(|pod| pod.label(revision::HASH_LABEL) == Some("second")));
    assert_eq!(names(&world), before);
}

#[test]
fn a_failed_pod_is_replaced_but_not_at_once() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    let pod = world.list::<Pod>().into_iter().find(|pod| placement::target(pod) == Some("two")).unwrap();
    world.edit::<Pod>(
        pod.name(),
        json!({"status": {"phase": "Failed"}, "metadata": {"creationTimestamp": world.now.to_string()}}),
    );
    assert!(world.plan(&Controller, &key()).again_in.is_some());
    world.pass(11);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(world.list::<Pod>().len(), 3);
    assert!(world.list::<Pod>().iter().all(|other| other.name() != pod.name()));
}
