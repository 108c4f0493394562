use expect_test::{Expect, expect};
use slipway_api::core::ConfigMap;
use slipway_api::meta::Time;

use super::*;
use crate::resource::Object;

fn owner(name: &str, blocks: bool) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".into(),
        kind: "ReplicaSet".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        controller: Some(true),
        block_owner_deletion: Some(blocks),
    }
}

fn metadata(name: &str, owners: Vec<OwnerReference>, finalizers: &[&str], deleting: bool) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("default".into()),
        uid: Some(format!("uid-{name}")),
        resource_version: Some("7".into()),
        owner_references: Some(owners),
        finalizers: Some(finalizers.iter().map(|name| (*name).to_owned()).collect()),
        deletion_timestamp: deleting.then(|| Time("2026-01-01T00:00:00Z".parse().unwrap())),
        ..ObjectMeta::default()
    }
}

fn node(name: &str, owners: Vec<OwnerReference>, finalizers: &[&str], deleting: bool) -> Node {
    Node::new(&ConfigMap::resource(), &metadata(name, owners, finalizers, deleting))
}

fn check(node: &Node, owners: &[(OwnerReference, Owner)], dependents: &[Node], expected: Expect) {
    expected.assert_eq(&plan(node, owners, dependents).to_string());
}

#[test]
fn without_a_living_owner_it_goes() {
    let (a, b) = (owner("a", true), owner("b", true));
    let child = node("child", vec![a.clone(), b.clone()], &[], false);
    let state = |first, second| [(a.clone(), first), (b.clone(), second)];
    check(&child, &state(Owner::Present, Owner::Present), &[], expect![[""]]);
    check(
        &child,
        &state(Owner::Absent, Owner::Present),
        &[],
        expect![[r#"
        patch ConfigMap default/child {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"b","uid":"uid-b"}]}}
    "#]],
    );
    check(
        &child,
        &state(Owner::Absent, Owner::Absent),
        &[],
        expect![[r#"
        delete ConfigMap default/child (its owners are gone)
    "#]],
    );
    check(
        &child,
        &state(Owner::Absent, Owner::Unknown),
        &[],
        expect![[r#"
        again in 30s
    "#]],
    );
    check(
        &child,
        &state(Owner::WaitsForDependents, Owner::Absent),
        &[],
        expect![[r#"
        delete ConfigMap default/child (its owner is deleted in the foreground)
    "#]],
    );
}

#[test]
fn a_foreground_deletion_waits_for_those_that_block_it() {
    let parent = node("a", vec![], &[FOREGROUND, "other"], true);
    check(&parent, &[], &[node("child", vec![owner("a", true)], &[], true)], expect![[""]]);
    check(
        &parent,
        &[],
        &[node("child", vec![owner("a", false)], &[], true)],
        expect![[r#"
        patch ConfigMap default/a {"metadata":{"finalizers":["other"]}}
    "#]],
    );
}

#[test]
fn orphans_lose_the_reference_before_the_owner_goes() {
    let parent = node("a", vec![], &[ORPHAN], true);
    check(
        &parent,
        &[],
        &[node("child", vec![owner("a", true)], &[], false)],
        expect![[r#"
        patch ConfigMap default/child {"metadata":{"ownerReferences":[]}}
        patch ConfigMap default/a {"metadata":{"finalizers":[]}}
    "#]],
    );
}

#[test]
fn the_graph_says_who_is_worth_a_look() {
    let graph = Graph::default();
    let kind = ConfigMap::resource();
    let (parent, child) = (metadata("a", vec![], &[], false), metadata("child", vec![owner("a", true)], &[], false));
    assert!(graph.observe(&kind, None, Some(&parent)).is_empty(), "it owns nothing and is owned by nobody");
    assert_eq!(graph.observe(&kind, None, Some(&child)), ["uid-child"]);
    assert!(graph.observe(&kind, Some(&child), Some(&child)).is_empty(), "nothing changed");
    let waiting = metadata("a", vec![], &[FOREGROUND], true);
    assert_eq!(graph.observe(&kind, Some(&parent), Some(&waiting)), ["uid-a", "uid-child"]);
    assert_eq!(graph.observe(&kind, Some(&child), None), ["uid-a"], "the owner may go now");
    graph.observe(&kind, None, Some(&child));
    assert_eq!(graph.observe(&kind, Some(&waiting), None), ["uid-child"]);
}

#[test]
fn after_a_new_list_what_is_gone_is_forgotten_and_dependents_are_looked_at() {
    let graph = Graph::default();
    let kind = crate::resource::Resource { kind: "ReplicaSet".into(), ..ConfigMap::resource() };
    let (one, two) = (metadata("one", vec![owner("a", true)], &[], false), metadata("two", vec![owner("a", true)], &[], false));
    graph.observe(&kind, None, Some(&one));
    graph.observe(&kind, None, Some(&two));
    let mut look = graph.relisted(&kind, &["uid-one".to_owned()].into());
    look.sort();
    assert_eq!(look, ["uid-a", "uid-one"]);
    assert!(graph.get("uid-two").is_none());
}
