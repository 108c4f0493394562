//! When claims are made, and whose they are.

use super::*;

fn claims(world: &World) -> String {
    let owners = |claim: &PersistentVolumeClaim| {
        let owners = claim.metadata.owner_references.iter().flatten();
        owners.map(|owner| format!(" of {} {}", owner.kind, owner.name)).collect::<String>()
    };
    world
        .list::<PersistentVolumeClaim>()
        .iter()
        .map(|claim| format!("{}{}", claim.name(), owners(claim)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn nothing_else(_: &mut World) {}

#[test]
fn claims_come_first_and_are_kept() {
    let mut world = with_claims("Retain", "Retain");
    world.step(&Controller, &key(), expect![[r#"
        create ControllerRevision default/db-c64875f59
        patch StatefulSet default/db/status {"status":{"availableReplicas":0,"collisionCount":0,"currentRevision":"db-c64875f59","observedGeneration":2,"replicas":0,"updateRevision":"db-c64875f59"}}
        create PersistentVolumeClaim default/data-db-0
    "#]]);
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        create Pod default/db-0
    "#]],
    );
    world.converge(&work, &start_pods, &[]);
    let pod = world.get::<Pod>(&Key::new("default", "db-2"));
    let volume = &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
    assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-2");
    edit(&mut world, json!({"replicas": 1}));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(claims(&world), "data-db-0, data-db-1, data-db-2");
    assert_eq!(world.get::<PersistentVolumeClaim>(&Key::new("default", "data-db-0")).label("app"), Some("db"));
    // What somebody deletes under a pod that waits is made again.
    edit(&mut world, json!({"replicas": 2}));
    world.converge(&work, &nothing_else, &[]);
    world.edit::<Pod>("db-1", json!({"status": {"phase": "Pending"}}));
    world.remove::<PersistentVolumeClaim>(&Key::new("default", "data-db-1"));
    world.settle(
        &Controller,
        &key(),
        expect![[r#"
        create PersistentVolumeClaim default/data-db-1
    "#]],
    );
}

#[test]
fn claims_go_with_the_set_or_with_what_is_too_much() {
    let mut world = with_claims("Delete", "Retain");
    world.converge(&work, &start_pods, &[]);
    assert_eq!(claims(&world), "data-db-0 of StatefulSet db, data-db-1 of StatefulSet db, data-db-2 of StatefulSet db");
    edit(&mut world, json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}, "replicas": 2}));
    world.step(&Controller, &key(), expect![[r#"
        patch StatefulSet default/db/status {"status":{"observedGeneration":3}}
        patch PersistentVolumeClaim default/data-db-2 {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Pod","name":"db-2","uid":"uid-db-2"}]}}
        delete Pod default/db-2 (too many replicas)
    "#]]);
    assert_eq!(claims(&world), "data-db-0 of StatefulSet db, data-db-1 of StatefulSet db, data-db-2 of Pod db-2");
    // Until that is gone there is no pod of the name.
    edit(&mut world, json!({"replicas": 3}));
    world.step(&Controller, &key(), expect![[r#"
        patch StatefulSet default/db/status {"status":{"availableReplicas":2,"currentReplicas":2,"observedGeneration":4,"readyReplicas":2,"replicas":2,"updatedReplicas":2}}
    "#]]);
    let terminating = json!({"metadata": {"finalizers": ["test/hold"], "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    world.edit::<PersistentVolumeClaim>("data-db-2", terminating);
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        event Warning FailedCreate: create Pod db-2 in StatefulSet db failed error: pvc data-db-2 is being deleted
    "#]],
    );
    world.remove::<PersistentVolumeClaim>(&Key::new("default", "data-db-2"));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(claims(&world), "data-db-0 of StatefulSet db, data-db-1 of StatefulSet db, data-db-2 of StatefulSet db");
    edit(&mut world, json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain", "whenDeleted": "Retain"}}));
    world.converge(&work, &start_pods, &[]);
    assert_eq!(claims(&world), "data-db-0, data-db-1, data-db-2");
}

#[test]
fn claims_that_another_controls_are_left_to_it() {
    let mut world = with_claims("Delete", "Delete");
    world.converge(&work, &start_pods, &[]);
    let owners = |own: &str| {
        json!({"metadata": {"ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "a", "controller": true},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": own, "controller": true}]}})
    };
    world.edit::<PersistentVolumeClaim>("data-db-0", owners("uid-db"));
    world.settle(&Controller, &key(), expect![[r#"
        event Warning ConflictingController: PersistentVolumeClaim data-db-0 has a conflicting OwnerReference that acts as a managing controller, the retention policy is ignored for this claim
        patch PersistentVolumeClaim default/data-db-0 {"metadata":{"ownerReferences":[{"apiVersion":"v1","controller":true,"kind":"ConfigMap","name":"a","uid":"a"}]}}
    "#]]);
    // One of a set that is gone is for garbage collection.
    world.edit::<PersistentVolumeClaim>("data-db-0", owners("earlier"));
    world.check(&Controller, &key(), expect![[""]]);
}
