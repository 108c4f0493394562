use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;
use slipway_api::core::Pod;

use super::*;
use crate::{replica_set, resource::Object, testing::World};

const WEB: &str = r#"
metadata: {name: web, annotations: {team: shop}}
spec:
  replicas: 4
  revisionHistoryLimit: 1
  progressDeadlineSeconds: 600
  selector: {matchLabels: {app: web}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: 'web:1'}]}}
"#;

fn key() -> Key {
    Key::new("default", "web")
}

fn world() -> World {
    let mut world = World::default();
    world.put::<Deployment>(WEB);
    world
}

/// All that works on a deployment: itself, and its sets.
fn work(world: &World) -> Vec<(&'static dyn crate::run::Controller, Key)> {
    let mut work: Vec<(&'static dyn crate::run::Controller, Key)> = vec![(&Controller, key())];
    work.extend(world.list::<ReplicaSet>().iter().map(|set| (&replica_set::Controller as _, set.key())));
    work
}

/// Nodes that start every pod at once, unless its image is broken.
fn start_pods(world: &mut World) {
    for pod in world.list::<Pod>() {
        let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        if !image.ends_with("broken") && !crate::pods::is_ready(&pod) {
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": world.now.to_string()});
            world.edit::<Pod>(pod.name(), json!({"status": {"phase": "Running", "conditions": [ready]}}));
        }
    }
}

fn set_image(world: &mut World, image: &str) {
    let template = json!({"spec": {"containers": [{"name": "web", "image": image}]}});
    world.edit::<Deployment>("web", json!({"spec": {"template": template}}));
}

fn sizes(world: &World) -> String {
    let mut sets = world.list::<ReplicaSet>();
    sets.sort_by_key(|set| set.annotation(revision::REVISION).unwrap_or_default().parse::<i64>().unwrap_or(0));
    sets.iter().map(|set| format!("{}:{} ", set.annotation(revision::REVISION).unwrap_or("-"), size::replicas(set))).collect()
}

fn conditions(world: &World) -> String {
    let deployment = world.get::<Deployment>(&key());
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    conditions.map(|c| format!("{}={} {}: {}\n", text(&c.type_), text(&c.status), text(&c.reason), text(&c.message))).collect()
}

fn assert_text(actual: &str, expected: Expect) {
    expected.assert_eq(actual);
}

#[test]
fn a_new_deployment_gets_a_replica_set() {
    let mut world = world();
    world.step(&Controller, &key(), expect![[r#"
        create ReplicaSet default/web-794686fc5b
        event Normal ScalingReplicaSet: Scaled up replica set web-794686fc5b from 0 to 4
        patch Deployment default/web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"}}}
        patch Deployment default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","lastUpdateTime":"2026-01-01T00:00:00Z","message":"Created new replica set \"web-794686fc5b\"","reason":"NewReplicaSetCreated","status":"True","type":"Progressing"},{"lastTransitionTime":"2026-01-01T00:00:00Z","lastUpdateTime":"2026-01-01T00:00:00Z","message":"Deployment does not have minimum availability.","reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"observedGeneration":1,"terminatingReplicas":0}}
        again in 601s
    "#]]);
    let set = &world.list::<ReplicaSet>()[0];
    assert_text(
        &serde_json::to_string(&set.metadata.annotations).unwrap(),
        expect![[
            r#"{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5","deployment.kubernetes.io/revision":"1","team":"shop"}"#
        ]],
    );
    assert_eq!(set.spec.selector.match_labels.as_ref().unwrap().len(), 2);
}

#[test]
fn a_rollout_completes_and_says_so() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    assert_text(
        &conditions(&world),
        expect![[r#"
        Available=True MinimumReplicasAvailable: Deployment has minimum availability.
        Progressing=True NewReplicaSetAvailable: ReplicaSet "web-794686fc5b" has successfully progressed.
    "#]],
    );
    set_image(&mut world, "web:2");
    world.converge(&work, &start_pods, &[]);
    assert_eq!(sizes(&world), "1:0 2:4 ");
    set_image(&mut world, "web:3");
    world.converge(&work, &start_pods, &[]);
    assert_eq!(sizes(&world), "2:0 3:4 ", "the oldest is beyond the history limit");
    // Back to an old template: its set is used again, with a new number.
    set_image(&mut world, "web:2");
    world.converge(&work, &start_pods, &[]);
    assert_eq!(sizes(&world), "3:0 4:4 ");
}

#[test]
fn a_broken_version_stops_at_the_surge_and_times_out() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    set_image(&mut world, "broken");
    world.converge(&work, &start_pods, &[]);
    assert_eq!(sizes(&world), "1:3 2:2 ");
    world.pass(700);
    world.step(&Controller, &key(), expect![[r#"
        patch Deployment default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:03Z","lastUpdateTime":"2026-01-01T00:00:03Z","message":"Deployment has minimum availability.","reason":"MinimumReplicasAvailable","status":"True","type":"Available"},{"lastTransitionTime":"2026-01-01T00:11:51Z","lastUpdateTime":"2026-01-01T00:11:51Z","message":"ReplicaSet \"web-6ddfb6956b\" has timed out progressing.","reason":"ProgressDeadlineExceeded","status":"False","type":"Progressing"}]}}
    "#]]);
    assert_text(
        &conditions(&world),
        expect![[r#"
        Available=True MinimumReplicasAvailable: Deployment has minimum availability.
        Progressing=False ProgressDeadlineExceeded: ReplicaSet "web-6ddfb6956b" has timed out progressing.
    "#]],
    );
}

#[test]
fn while_paused_it_scales_in_proportion_but_does_not_roll() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    set_image(&mut world, "broken");
    world.converge(&work, &start_pods, &[]);
    world.edit::<Deployment>("web", json!({"spec": {"replicas": 10, "paused": true}}));
    world.converge(&work, &start_pods, &[]);
    assert_text(
        &format!("{}\n{}", sizes(&world), conditions(&world)),
        expect![[r#"
        1:8 2:5 
        Progressing=Unknown DeploymentPaused: Deployment is paused
        Available=True MinimumReplicasAvailable: Deployment has minimum availability.
    "#]],
    );
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = World::default();
    world.put::<Deployment>(
        &WEB.replace("{type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}}", "{type: Recreate}"),
    );
    world.converge(&work, &start_pods, &[]);
    let pod = world.list::<Pod>()[0].clone();
    world.edit::<Pod>(pod.name(), json!({"metadata": {"finalizers": ["test/hold"]}}));
    set_image(&mut world, "web:2");
    world.converge(&work, &start_pods, &[]);
    assert_eq!((sizes(&world).as_str(), world.list::<Pod>().len()), ("1:0 ", 1), "a terminating pod is still there");
    world.edit::<Pod>(pod.name(), json!({"metadata": {"finalizers": null}}));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(sizes(&world), "1:0 2:4 ");
}

#[test]
fn a_name_that_is_taken_is_counted_as_a_collision() {
    let mut world = world();
    let name = format!("web-{}", revision::hash(&world.get::<Deployment>(&key()).spec.template, None));
    world.put::<ReplicaSet>(&format!(
        "{{metadata: {{name: {name}}}, spec: {{replicas: 0, selector: {{matchLabels: {{x: other}}}}}}}}"
    ));
    world.step(&Controller, &key(), expect![[r#"
        patch Deployment default/web/status {"status":{"collisionCount":1,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","lastUpdateTime":"2026-01-01T00:00:00Z","message":"Deployment does not have minimum availability.","reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"observedGeneration":1,"terminatingReplicas":0}}
    "#]]);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(world.list::<Pod>().len(), 4);
}

#[test]
fn a_set_that_matches_is_adopted() {
    let mut world = world();
    world.put::<ReplicaSet>(
        "{metadata: {name: stray, labels: {app: web}}, spec: {replicas: 4, selector: {matchLabels: {app: web}}, \
         template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: 'web:1'}]}}}}",
    );
    world.step(&Controller, &key(), expect![[r#"
        patch ReplicaSet default/stray {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"Deployment","name":"web","uid":"uid-web"}]}}
        patch ReplicaSet default/stray {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1","team":"shop"}}}
        patch Deployment default/web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"}}}
        patch Deployment default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","lastUpdateTime":"2026-01-01T00:00:00Z","message":"Found new replica set \"stray\"","reason":"FoundNewReplicaSet","status":"True","type":"Progressing"},{"lastTransitionTime":"2026-01-01T00:00:00Z","lastUpdateTime":"2026-01-01T00:00:00Z","message":"Deployment does not have minimum availability.","reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"observedGeneration":1,"terminatingReplicas":0}}
        again in 601s
    "#]]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, and wherever the process dies, it comes to rest in the same state.
    #[test]
    fn converges_after_any_prefix_of_its_steps(
        changes in proptest::collection::vec((0i32..7, 1u8..4, any::<bool>()), 1..4),
        cuts in proptest::collection::vec(0usize..3, 0..12),
    ) {
        let mut world = world();
        for (replicas, image, recreate) in changes {
            set_image(&mut world, &format!("web:{image}"));
            let kind = if recreate { json!({"type": "Recreate"}) } else { json!({"type": "RollingUpdate"}) };
            world.edit::<Deployment>("web", json!({"spec": {"replicas": replicas, "strategy": kind}}));
            // Some rounds only: the next change comes in the middle of the rollout.
            for (controller, key) in work(&world) {
                let plan = world.plan(controller, &key);
                plan.steps.iter().for_each(|step| world.apply(step));
            }
            start_pods(&mut world);
        }
        world.converge(&work, &start_pods, &cuts);
        let deployment = world.get::<Deployment>(&key());
        let wanted = size::wanted(&deployment);
        let status = deployment.status.clone().unwrap();
        let available = status.available_replicas.unwrap_or(0);
        prop_assert_eq!((available, status.updated_replicas.unwrap_or(0)), (wanted, wanted));
        prop_assert_eq!(world.list::<Pod>().len() as i32, wanted);
        prop_assert_eq!(status.observed_generation, deployment.metadata.generation);
        let empty = world.list::<ReplicaSet>().iter().filter(|set| size::replicas(set) == 0).count();
        prop_assert!(empty <= 2, "history is limited");
    }
}
