use super::*;
use proptest::prelude::*;
use serde_json::json;

/// A schema of a pod's shape: lists merged by name or port, a set of strings, a union with `replace`.
struct Pod;

impl PatchSchema for Pod {
    fn field(&self, name: &str) -> Field<'_> {
        let merged = |key: &'static str| Field {
            merge: true,
            merge_key: Some(Cow::Borrowed(key)),
            schema: Some(Box::new(Pod)),
            ..Field::default()
        };
        match name {
            "containers" | "volumes" | "env" => merged("name"),
            "ports" => merged("containerPort"),
            "finalizers" => Field { merge: true, ..Field::default() },
            "exact" => Field { replace: true, ..Field::default() },
            _ => Field { schema: Some(Box::new(Pod)), ..Field::default() },
        }
    }
}

fn patched(mut document: Value, patch: Value) -> Result<Value, Error> {
    apply(&mut document, &patch, Some(&Pod)).map(|()| document)
}

#[track_caller]
fn check(document: Value, patch: Value, expected: Value) {
    assert_eq!(patched(document, patch).unwrap(), expected);
}

/// What the patch adds stands before what only the server has, as in Kubernetes.
#[test]
fn merges_objects_and_lists_by_key() {
    check(
        json!({"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}], "x": 1}}),
        json!({"spec": {"containers": [{"name": "a", "image": "2"}, {"name": "c"}], "x": null}}),
        json!({"spec": {"containers": [{"name": "a", "image": "2", "args": ["x"]}, {"name": "c"}, {"name": "b"}]}}),
    );
}

#[test]
fn replaces_lists_without_strategy_and_objects_with_replace() {
    check(
        json!({"args": [1, 2], "exact": {"a": 1}}),
        json!({"args": [3], "exact": {"b": 1}}),
        json!({"args": [3], "exact": {"b": 1}}),
    );
}

#[test]
fn merges_nested_lists_by_their_own_key() {
    check(
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}], "env": [{"name": "X", "value": "1"}]}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 81}],
                               "env": [{"name": "X", "$patch": "delete"}]}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}, {"containerPort": 81}],
                               "env": []}]}),
    );
}

#[test]
fn deletes_and_replaces_by_directive() {
    let live = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}], "m": {"x": 1, "y": 2}});
    check(
        live.clone(),
        json!({"containers": [{"$patch": "delete", "name": "a"}]}),
        json!({"containers": [{"name": "b"}], "m": {"x": 1, "y": 2}}),
    );
    check(
        live.clone(),
        json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}),
        json!({"containers": [{"name": "c"}], "m": {"x": 1, "y": 2}}),
    );
    check(live.clone(), json!({"m": {"$patch": "replace", "z": 3}, "containers": null}), json!({"m": {"z": 3}}));
    check(live.clone(), json!({"m": {"$patch": "delete"}, "containers": null}), json!({"m": {}}));
    check(
        json!({}),
        json!({"m": {"$patch": "delete"}, "containers": [{"name": "c", "$patch": "delete"}]}),
        json!({"containers": []}),
    );
    for unknown in ["frob", "merge"] {
        assert!(matches!(patched(live.clone(), json!({"m": {"$patch": unknown}})), Err(Error::Malformed(_))));
    }
    assert!(matches!(patched(live, json!({"containers": [{"image": "x"}]})), Err(Error::Inapplicable(_))));
}

#[test]
fn retains_only_the_listed_keys() {
    let live = json!({"volumes": [{"name": "v", "emptyDir": {}, "x": 1}]});
    check(
        live.clone(),
        json!({"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/"}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    );
    let stray = json!({"volumes": [{"$retainKeys": ["name"], "name": "v", "hostPath": {}}]});
    assert!(matches!(patched(live, stray), Err(Error::Malformed(_))));
}

#[test]
fn merges_and_deletes_primitives() {
    check(json!({"finalizers": ["a", "b"]}), json!({"finalizers": ["c", "a"]}), json!({"finalizers": ["c", "a", "b"]}));
    check(json!({"finalizers": ["a", "b"]}), json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!({"finalizers": ["b"]}));
    check(
        json!({"finalizers": ["a", "b", "c"]}),
        json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"]}),
        json!({"finalizers": ["c", "b"]}),
    );
    assert!(matches!(patched(json!({}), json!({"$deleteFromPrimitiveList/finalizers": "a"})), Err(Error::Malformed(_))));
}

#[test]
fn sets_the_order_of_elements() {
    let live = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
    check(
        live.clone(),
        json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}]}),
    );
    check(
        live.clone(),
        json!({"$setElementOrder/containers": [{"name": "d"}, {"name": "a"}, {"name": "b"}, {"name": "c"}], "containers": [{"name": "d", "image": "x"}]}),
        json!({"containers": [{"name": "d", "image": "x"}, {"name": "a"}, {"name": "b"}, {"name": "c"}]}),
    );
    // As kubectl apply deletes one container and keeps the other.
    check(
        live,
        json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}], "containers": [{"$patch": "delete", "name": "b"}]}),
        json!({"containers": [{"name": "a"}, {"name": "c"}]}),
    );
    let disorder =
        json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "b"}, {"name": "a"}]});
    assert!(matches!(patched(json!({}), disorder), Err(Error::Malformed(_))));
}

#[test]
fn takes_directives_out_of_what_is_new() {
    check(
        json!({}),
        json!({"spec": {"$retainKeys": ["containers"], "$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "x": null}]}}),
        json!({"spec": {"containers": [{"name": "a"}]}}),
    );
}

/// Small JSON values out of a few keys, so that documents and patches meet.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        "[ab]".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any_key(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "name",
        "containers",
        "env",
        "finalizers",
        "ports",
        "containerPort",
        "spec",
        "x",
        "$patch",
        "$retainKeys",
        "$setElementOrder/env",
        "$deleteFromPrimitiveList/finalizers",
    ])
    .prop_map(str::to_owned)
}

pub(in crate::patch) fn any_object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(any_key(), any_value(), 0..5).prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// Lists of containers with distinct names.
fn containers() -> impl Strategy<Value = Vec<Value>> {
    let names = prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..5).prop_shuffle();
    names.prop_flat_map(|names| {
        let count = names.len();
        prop::collection::vec(0..9i64, count)
            .prop_map(move |images| names.iter().zip(images).map(|(name, image)| json!({"name": name, "image": image})).collect())
    })
}

/// A list may be as long as a body. Where each element is compared with each other, this takes an hour.
#[test]
fn long_lists_are_merged() {
    const COUNT: usize = 40_000;
    let named = |n: usize| json!({"name": n.to_string(), "image": "a"});
    let live: Vec<Value> = (0..COUNT).map(named).collect();
    let order: Vec<Value> = (0..COUNT).rev().map(|n| json!({"name": n.to_string()})).collect();
    let mut change: Vec<Value> = (0..COUNT).step_by(2).rev().map(|n| json!({"name": n.to_string(), "image": "b"})).collect();
    change.extend((0..COUNT).skip(1).step_by(4).map(|n| json!({"name": n.to_string(), "$patch": "delete"})));
    let patch = json!({"containers": change, "$setElementOrder/containers": order});
    let merged = patched(json!({"containers": live}), patch).unwrap();
    let merged = merged["containers"].as_array().unwrap();
    assert_eq!((merged.len(), &merged[0]), (COUNT - COUNT / 4, &json!({"name": (COUNT - 1).to_string(), "image": "a"})));
    assert_eq!(merged.iter().filter(|item| item["image"] == "b").count(), COUNT / 2);
    let texts = |from: usize| (from..from + COUNT).map(|n| n.to_string().into()).collect::<Vec<Value>>();
    let patch = json!({"finalizers": texts(COUNT / 2), "$deleteFromPrimitiveList/finalizers": texts(0)});
    let merged = patched(json!({"finalizers": texts(0)}), patch).unwrap();
    assert!((COUNT / 2..=COUNT).contains(&merged["finalizers"].as_array().unwrap().len()));
}

proptest! {
    #[test]
    fn never_panics_and_changes_nothing_on_an_error(document in any_object(), patch in any_object()) {
        let mut changed = document.clone();
        if apply(&mut changed, &patch, Some(&Pod)).is_err() {
            prop_assert_eq!(changed, document);
        }
    }

    #[test]
    fn an_empty_patch_changes_nothing(document in any_object()) {
        prop_assert_eq!(patched(document.clone(), json!({})).unwrap(), document);
    }

    /// What kubectl apply sends: the wanted elements with their order, deletions for the others.
    #[test]
    fn a_patch_made_of_the_difference_yields_the_wanted_list(live in containers(), wanted in containers()) {
        let mut change = wanted.clone();
        for item in &live {
            if !wanted.iter().any(|other| other["name"] == item["name"]) {
                change.push(json!({"name": item["name"], "$patch": "delete"}));
            }
        }
        let order: Vec<Value> = wanted.iter().map(|item| json!({"name": item["name"]})).collect();
        let patch = json!({"containers": change, "$setElementOrder/containers": order});
        prop_assert_eq!(patched(json!({"containers": live}), patch).unwrap(), json!({"containers": wanted}));
    }

    /// Elements that the patch does not name survive, in their order.
    #[test]
    fn keeps_what_the_patch_does_not_name(live in containers(), change in containers()) {
        let merged = patched(json!({"containers": live.clone()}), json!({"containers": change.clone()})).unwrap();
        let named = |item: &&Value| change.iter().any(|other| other["name"] == item["name"]);
        let kept: Vec<&Value> = merged["containers"].as_array().unwrap().iter().filter(|item| !named(item)).collect();
        let untouched: Vec<&Value> = live.iter().filter(|item| !named(item)).collect();
        prop_assert_eq!(kept, untouched);
        for item in &change {
            prop_assert!(merged["containers"].as_array().unwrap().contains(item));
        }
    }
}
