mod of_claims;

use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Value, json};
use slipway_api::core::PersistentVolumeClaim;

use super::*;
use crate::testing::World;

const DB: &str = r#"
metadata: {name: db}
spec:
  replicas: 3
  serviceName: db
  podManagementPolicy: OrderedReady
  updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 0, maxUnavailable: 1}}
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: 'db:1'}]}}
"#;

fn key() -> Key {
    Key::new("default", "db")
}

fn world() -> World {
    let mut world = World::default();
    world.put::<StatefulSet>(DB);
    world
}

/// With a claim template, and what becomes of claims.
fn with_claims(when_deleted: &str, when_scaled: &str) -> World {
    let mut world = world();
    let template = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
    let policy = json!({"whenDeleted": when_deleted, "whenScaled": when_scaled});
    edit(&mut world, json!({"volumeClaimTemplates": [template], "persistentVolumeClaimRetentionPolicy": policy}));
    world
}

fn edit(world: &mut World, spec: Value) {
    world.edit::<StatefulSet>("db", json!({"spec": spec}));
}

fn set_image(world: &mut World, image: &str) {
    edit(world, json!({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}));
}

fn work(_: &World) -> Vec<(&'static dyn crate::run::Controller, Key)> {
    vec![(&Controller, key())]
}

fn start(world: &mut World, pod: &Pod) {
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": world.now.to_string()});
    world.edit::<Pod>(pod.name(), json!({"status": {"phase": "Running", "conditions": [ready]}}));
}

/// Nodes that start every pod at once, unless its image is broken.
fn start_pods(world: &mut World) {
    for pod in world.list::<Pod>() {
        if !image(&pod).ends_with("broken") && !crate::pods::is_ready(&pod) && !crate::pods::is_terminal(&pod) {
            start(world, &pod);
        }
    }
}

fn image(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

fn pods(world: &World) -> String {
    let pods = world.list::<Pod>();
    pods.iter().map(|pod| format!("{} {}", pod.name(), image(pod))).collect::<Vec<_>>().join(", ")
}

fn told(world: &World) -> Value {
    serde_json::to_value(world.get::<StatefulSet>(&key()).status.clone()).unwrap()
}

#[test]
fn pods_are_made_one_after_the_other() {
    let mut world = world();
    world.step(&Controller, &key(), expect![[r#"
        create ControllerRevision default/db-c64875f59
        patch StatefulSet default/db/status {"status":{"availableReplicas":0,"collisionCount":0,"currentRevision":"db-c64875f59","observedGeneration":1,"replicas":0,"updateRevision":"db-c64875f59"}}
        create Pod default/db-0
    "#]]);
    world.settle(
        &Controller,
        &key(),
        expect![[r#"
        patch StatefulSet default/db/status {"status":{"currentReplicas":1,"replicas":1,"updatedReplicas":1}}
    "#]],
    );
    start_pods(&mut world);
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        patch StatefulSet default/db/status {"status":{"availableReplicas":1,"readyReplicas":1}}
        create Pod default/db-1
    "#]],
    );
    start_pods(&mut world);
    world.step(&Controller, &key(), expect![[r#"
        patch StatefulSet default/db/status {"status":{"availableReplicas":2,"currentReplicas":2,"readyReplicas":2,"replicas":2,"updatedReplicas":2}}
        create Pod default/db-2
    "#]]);
    start_pods(&mut world);
    world.settle(&Controller, &key(), expect![[r#"
        patch StatefulSet default/db/status {"status":{"availableReplicas":3,"currentReplicas":3,"readyReplicas":3,"replicas":3,"updatedReplicas":3}}
    "#]]);
    let pod = world.get::<Pod>(&Key::new("default", "db-1"));
    let pod = json!({"labels": pod.metadata.labels, "spec": pod.spec});
    assert_eq!(
        pod,
        json!({
            "labels": {
                "app": "db",
                "apps.kubernetes.io/pod-index": "1",
                "controller-revision-hash": "db-c64875f59",
                "statefulset.kubernetes.io/pod-name": "db-1",
            },
            "spec": {"containers": [{"name": "c", "image": "db:1"}], "hostname": "db-1", "subdomain": "db"},
        })
    );
}

#[test]
fn the_words_are_kubernetes_own() {
    let world = with_claims("Retain", "Retain");
    let told = |plan: &Plan| match plan.steps.last() {
        Some(Step::Create(create)) => create.tell.clone().unwrap().words.unwrap(),
        other => panic!("{other:?}"),
    };
    let words = told(&world.plan(&Controller, &key()));
    assert_eq!(words.done, "create Claim data-db-0 Pod db-0 in StatefulSet db success");
    assert_eq!(words.failed, "create Claim data-db-0 for Pod db-0 in StatefulSet db failed error: ");
    let mut world = world;
    world.plan(&Controller, &key()).steps.iter().for_each(|step| world.apply(step));
    let words = told(&world.plan(&Controller, &key()));
    assert_eq!(words.done, "create Pod db-0 in StatefulSet db successful");
    assert_eq!(words.failed, "create Pod db-0 in StatefulSet db failed error: ");
}

#[test]
fn pods_are_removed_from_the_highest_down() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    edit(&mut world, json!({"replicas": 1}));
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        patch StatefulSet default/db/status {"status":{"observedGeneration":2}}
        delete Pod default/db-2 (too many replicas)
    "#]],
    );
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:1");
    // One below that is not available is waited for, but the lowest of those goes.
    world.edit::<Pod>("db-0", json!({"status": {"conditions": null}}));
    world.check(&Controller, &key(), expect![[r#"
        patch StatefulSet default/db/status {"status":{"availableReplicas":1,"currentReplicas":2,"readyReplicas":1,"replicas":2,"updatedReplicas":2}}
    "#]]);
    start_pods(&mut world);
    world.edit::<Pod>("db-1", json!({"status": {"conditions": null}}));
    world.step(&Controller, &key(), expect![[r#"
        patch StatefulSet default/db/status {"status":{"availableReplicas":1,"currentReplicas":2,"readyReplicas":1,"replicas":2,"updatedReplicas":2}}
        delete Pod default/db-1 (too many replicas)
    "#]]);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(told(&world)["replicas"], 1);
}

#[test]
fn while_one_terminates_the_others_wait() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    world.edit::<Pod>("db-0", json!({"metadata": {"finalizers": ["test/hold"]}}));
    set_image(&mut world, "db:2");
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:2, db-2 db:2");
    assert_eq!((&told(&world)["updatedReplicas"], &told(&world)["currentReplicas"]), (&json!(2), &Value::Null));
    world.check(&Controller, &key(), expect![[""]]);
    world.edit::<Pod>("db-0", json!({"metadata": {"finalizers": null}}));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:2, db-1 db:2, db-2 db:2");
}

#[test]
fn a_new_template_goes_from_the_highest_to_the_partition() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    let first = told(&world)["currentRevision"].clone();
    edit(&mut world, json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}}));
    set_image(&mut world, "db:2");
    world.step(&Controller, &key(), expect![[r#"
        create ControllerRevision default/db-5b4c5fc6f7
        patch StatefulSet default/db/status {"status":{"currentReplicas":2,"observedGeneration":3,"updateRevision":"db-5b4c5fc6f7","updatedReplicas":null}}
        delete Pod default/db-2 (it is of an older template)
    "#]]);
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        patch StatefulSet default/db/status {"status":{"availableReplicas":2,"readyReplicas":2,"replicas":2}}
        create Pod default/db-2
    "#]],
    );
    start_pods(&mut world);
    world.step(&Controller, &key(), expect![[r#"
        patch StatefulSet default/db/status {"status":{"availableReplicas":3,"currentReplicas":1,"readyReplicas":3,"replicas":3,"updatedReplicas":1}}
        delete Pod default/db-1 (it is of an older template)
    "#]]);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:2, db-2 db:2");
    let status = told(&world);
    assert_eq!((&status["currentReplicas"], &status["updatedReplicas"]), (&json!(1), &json!(2)));
    assert_eq!((status["currentRevision"] == first, status["updateRevision"] == first), (true, false));
    // A pod below the partition comes back as it was, one beyond it as it is to be.
    for name in ["db-0", "db-2"] {
        world.remove::<Pod>(&Key::new("default", name));
    }
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:2, db-2 db:2");
    edit(&mut world, json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:2, db-1 db:2, db-2 db:2");
    let status = told(&world);
    assert_eq!((&status["currentRevision"], &status["currentReplicas"]), (&status["updateRevision"], &json!(3)));
}

#[test]
fn on_delete_nothing_is_replaced() {
    let mut world = world();
    edit(&mut world, json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}));
    world.converge(&work, &start_pods, &[]);
    set_image(&mut world, "db:2");
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:1, db-2 db:1");
    world.remove::<Pod>(&Key::new("default", "db-1"));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:2, db-2 db:1");
}

#[test]
fn in_parallel_all_are_made_and_as_many_are_replaced_as_may_be_away() {
    let mut world = world();
    let strategy = json!({"rollingUpdate": {"maxUnavailable": "50%"}});
    edit(&mut world, json!({"replicas": 5, "podManagementPolicy": "Parallel", "updateStrategy": strategy}));
    world.step(&Controller, &key(), expect![[r#"
        create ControllerRevision default/db-c64875f59
        patch StatefulSet default/db/status {"status":{"availableReplicas":0,"collisionCount":0,"currentRevision":"db-c64875f59","observedGeneration":2,"replicas":0,"updateRevision":"db-c64875f59"}}
        create Pod default/db-0
        create Pod default/db-1
        create Pod default/db-2
        create Pod default/db-3
        create Pod default/db-4
    "#]]);
    start_pods(&mut world);
    world.converge(&work, &start_pods, &[]);
    set_image(&mut world, "db:2");
    world.step(&Controller, &key(), expect![[r#"
        create ControllerRevision default/db-5b4c5fc6f7
        patch StatefulSet default/db/status {"status":{"currentReplicas":3,"observedGeneration":3,"updateRevision":"db-5b4c5fc6f7","updatedReplicas":null}}
        delete Pod default/db-4 (it is of an older template)
        delete Pod default/db-3 (it is of an older template)
    "#]]);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:2, db-1 db:2, db-2 db:2, db-3 db:2, db-4 db:2");
    edit(&mut world, json!({"replicas": 1}));
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        patch StatefulSet default/db/status {"status":{"observedGeneration":4}}
        delete Pod default/db-4 (too many replicas)
        delete Pod default/db-3 (too many replicas)
        delete Pod default/db-2 (too many replicas)
        delete Pod default/db-1 (too many replicas)
    "#]],
    );
}

/// Those that cannot become available make way for what would mend them, and cost nothing; the others stay.
#[test]
fn in_parallel_a_broken_template_can_be_mended() {
    let mut world = world();
    edit(&mut world, json!({"podManagementPolicy": "Parallel"}));
    set_image(&mut world, "db:broken");
    world.converge(&work, &start_pods, &[]);
    let pod = world.list::<Pod>().remove(2);
    start(&mut world, &pod);
    set_image(&mut world, "db:2");
    world.step(&Controller, &key(), expect![[r#"
        create ControllerRevision default/db-5b4c5fc6f7
        patch StatefulSet default/db/status {"status":{"availableReplicas":1,"currentReplicas":1,"observedGeneration":4,"readyReplicas":1,"updateRevision":"db-5b4c5fc6f7","updatedReplicas":null}}
        delete Pod default/db-1 (it is of an older template)
        delete Pod default/db-0 (it is of an older template)
    "#]]);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:2, db-1 db:2, db-2 db:2");
}

#[test]
fn in_order_a_broken_template_stops_at_the_first() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    set_image(&mut world, "db:broken");
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:1, db-2 db:broken");
    set_image(&mut world, "db:1");
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:1, db-2 db:broken", "as in Kubernetes somebody has to delete it");
    world.remove::<Pod>(&Key::new("default", "db-2"));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:1, db-2 db:1");
}

#[test]
fn the_next_waits_until_one_is_ready_for_long_enough() {
    let mut world = world();
    edit(&mut world, json!({"minReadySeconds": 10}));
    world.step(&Controller, &key(), expect![[r#"
        create ControllerRevision default/db-c64875f59
        patch StatefulSet default/db/status {"status":{"availableReplicas":0,"collisionCount":0,"currentRevision":"db-c64875f59","observedGeneration":2,"replicas":0,"updateRevision":"db-c64875f59"}}
        create Pod default/db-0
    "#]]);
    start_pods(&mut world);
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        patch StatefulSet default/db/status {"status":{"currentReplicas":1,"readyReplicas":1,"replicas":1,"updatedReplicas":1}}
        again in 11s
    "#]],
    );
    world.pass(11);
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        patch StatefulSet default/db/status {"status":{"availableReplicas":1}}
        create Pod default/db-1
    "#]],
    );
}

#[test]
fn pods_that_end_are_made_anew() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    for phase in ["Failed", "Succeeded"] {
        let before = world.get::<Pod>(&Key::new("default", "db-1")).uid().to_owned();
        world.edit::<Pod>("db-1", json!({"status": {"phase": phase, "conditions": null}}));
        world.converge(&work, &start_pods, &[]);
        assert_ne!(world.get::<Pod>(&Key::new("default", "db-1")).uid(), before);
    }
}

#[test]
fn the_first_ordinal_may_be_another() {
    let mut world = world();
    edit(&mut world, json!({"ordinals": {"start": 2}}));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-2 db:1, db-3 db:1, db-4 db:1");
    edit(&mut world, json!({"ordinals": {"start": 0}}));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-1 db:1, db-2 db:1");
    edit(&mut world, json!({"ordinals": {"start": i32::MAX - 1}}));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(world.list::<Pod>().len(), 2, "there are no more ordinals");
}

#[test]
fn pods_are_adopted_by_name_and_label() {
    let mut world = world();
    for name in ["db-0", "db-x", "db-00"] {
        let labels = "{app: db}";
        world.put::<Pod>(&format!(
            "{{metadata: {{name: {name}, labels: {labels}}}, spec: {{containers: [{{name: c, image: 'db:0'}}]}}}}"
        ));
    }
    world.step(&Controller, &key(), expect![[r#"
        patch Pod default/db-0 {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"StatefulSet","name":"db","uid":"uid-db"}]}}
        create ControllerRevision default/db-c64875f59
        patch StatefulSet default/db/status {"status":{"availableReplicas":0,"collisionCount":0,"currentRevision":"db-c64875f59","observedGeneration":1,"replicas":1,"updateRevision":"db-c64875f59"}}
        patch Pod default/db-0 {"metadata":{"labels":{"apps.kubernetes.io/pod-index":"0","statefulset.kubernetes.io/pod-name":"db-0"}}}
        event Normal SuccessfulUpdate: update Pod db-0 in StatefulSet db successful
    "#]]);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(pods(&world), "db-0 db:1, db-00 db:0, db-1 db:1, db-2 db:1, db-x db:0");
    // One that no longer matches is let go; its place is then not free.
    world.edit::<Pod>("db-2", json!({"metadata": {"labels": {"app": "other"}}}));
    let plan = world.plan(&Controller, &key()).to_string();
    assert!(plan.starts_with("patch Pod default/db-2 {\"metadata\":{\"ownerReferences\":null}}"), "{plan}");
}

#[test]
fn history_is_limited_and_used_again() {
    let mut world = world();
    edit(&mut world, json!({"revisionHistoryLimit": 1}));
    for image in ["db:1", "db:2", "db:3", "db:2"] {
        set_image(&mut world, image);
        world.converge(&work, &start_pods, &[]);
    }
    let mut numbers: Vec<i64> = world.list::<ControllerRevision>().iter().filter_map(|one| one.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [3, 4], "the first is forgotten, the second became the fourth");
    let revision = world.list::<ControllerRevision>().remove(0);
    assert!(revision.label("controller.kubernetes.io/hash").is_some_and(|hash| revision.name() == format!("db-{hash}")));
}

#[test]
fn a_name_that_is_taken_is_counted_as_a_collision() {
    let mut world = world();
    let plan = world.plan(&Controller, &key());
    let Some(Step::Create(create)) = plan.steps.first() else { panic!("{plan}") };
    let taken = create.object["metadata"]["name"].as_str().unwrap().to_owned();
    world.put::<ControllerRevision>(&format!("{{metadata: {{name: {taken}}}, revision: 1, data: {{}}}}"));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(told(&world)["collisionCount"], 1);
    assert_ne!(told(&world)["currentRevision"], json!(taken));
    assert_eq!(world.list::<Pod>().len(), 3);
}

#[test]
fn what_a_set_left_behind_is_taken_over_by_the_next() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    let before = told(&world);
    world.remove::<StatefulSet>(&key());
    for pod in world.list::<Pod>() {
        world.edit::<Pod>(pod.name(), json!({"metadata": {"ownerReferences": null}}));
    }
    for revision in world.list::<ControllerRevision>() {
        world.edit::<ControllerRevision>(revision.name(), json!({"metadata": {"ownerReferences": null}}));
    }
    world.put::<StatefulSet>(DB);
    world.converge(&work, &start_pods, &[]);
    assert_eq!(told(&world)["currentRevision"], before["currentRevision"]);
    assert_eq!((world.list::<ControllerRevision>().len(), world.list::<Pod>().len()), (1, 3));
    assert!(world.list::<Pod>().iter().all(|pod| controller_of(&pod.metadata).unwrap().uid == "uid-db-again-1"));
}

#[test]
fn a_set_that_is_deleted_makes_nothing() {
    let mut world = world();
    world.converge(&work, &start_pods, &[]);
    world.edit::<StatefulSet>("db", json!({"metadata": {"finalizers": ["foregroundDeletion"]}}));
    world.edit::<StatefulSet>("db", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    world.remove::<Pod>(&Key::new("default", "db-2"));
    set_image(&mut world, "db:2");
    let plan = world.plan(&Controller, &key()).to_string();
    assert_eq!(plan.lines().count(), 1, "its status alone: {plan}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, and wherever the process dies, it comes to rest with the pods that are asked for, of
    /// the templates that the partition leaves, and with their claims.
    #[test]
    fn converges_after_any_prefix_of_its_steps(
        changes in proptest::collection::vec((0i32..5, 0i32..3, 1u8..4, 0i32..4, 1i32..3), 1..4),
        (parallel, scaled, deleted) in any::<(bool, bool, bool)>(),
        cuts in proptest::collection::vec(0usize..4, 0..16),
    ) {
        let word = |delete: bool| if delete { "Delete" } else { "Retain" };
        let mut world = with_claims(word(deleted), word(scaled));
        edit(&mut world, json!({"podManagementPolicy": if parallel { "Parallel" } else { "OrderedReady" }}));
        // Garbage collection: what belongs to a pod goes after it.
        let between = |world: &mut World| {
            start_pods(world);
            let pods: BTreeSet<String> = world.list::<Pod>().iter().map(|pod| pod.uid().to_owned()).collect();
            for claim in world.list::<PersistentVolumeClaim>() {
                let gone = |owner: &slipway_api::meta::OwnerReference| owner.kind == "Pod" && !pods.contains(&owner.uid);
                if claim.metadata.owner_references.iter().flatten().any(gone) {
                    world.remove::<PersistentVolumeClaim>(&claim.key());
                }
            }
        };
        for (replicas, first, image, partition, away) in changes {
            set_image(&mut world, &format!("db:{image}"));
            let strategy = json!({"rollingUpdate": {"partition": partition, "maxUnavailable": away}});
            edit(&mut world, json!({"replicas": replicas, "ordinals": {"start": first}, "updateStrategy": strategy}));
            // Some rounds only: the next change comes in the middle.
            for _ in 0..2 {
                let plan = world.plan(&Controller, &key());
                plan.steps.iter().for_each(|step| world.apply(step));
                between(&mut world);
            }
        }
        world.converge(&work, &between, &cuts);
        let set = world.get::<StatefulSet>(&key());
        let status = set.status.clone().unwrap();
        let (first, replicas) = (super::start(&set), wanted(&set));
        let names: Vec<String> = world.list::<Pod>().iter().map(|pod| pod.name().to_owned()).collect();
        let expected: Vec<String> = (first..first + replicas).map(|ordinal| identity::name(&set, ordinal)).collect();
        prop_assert_eq!(names, expected);
        prop_assert_eq!((status.replicas, status.available_replicas), (replicas, Some(replicas)));
        prop_assert_eq!(status.observed_generation, set.metadata.generation);
        for pod in world.list::<Pod>() {
            let place = identity::ordinal(&set, &pod).unwrap() - first;
            let revision = revision_of(&pod);
            prop_assert!(place < partition(&set) || Some(revision) == status.update_revision.as_deref());
            let claim = world.get::<PersistentVolumeClaim>(&Key::new("default", format!("data-{}", pod.name())));
            let owners: Vec<&str> = claim.metadata.owner_references.iter().flatten().map(|one| one.kind.as_str()).collect();
            prop_assert_eq!(owners, if deleted { vec!["StatefulSet"] } else { vec![] });
        }
    }
}
