//! What holds of any objects and any managers.

use super::*;
use proptest::prelude::*;
use serde_json::{Map, json};
use std::sync::LazyLock;

/// A map, a set, a keyed list, an atomic list and an atomic map, each within each.
static SHAPES: LazyLock<Structural> = LazyLock::new(|| {
    fn shape(depth: usize) -> Value {
        if depth == 0 {
            return json!({"type": "string"});
        }
        let within = shape(depth - 1);
        let whole = json!({"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}});
        let element = json!({"type": "object", "properties": {"id": {"type": "integer"}, "v": within}});
        json!({"type": "object", "properties": {
            "text": {"type": "string"}, "struct": within, "whole": whole,
            "map": {"type": "object", "additionalProperties": within},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": element},
            "list": {"type": "array", "items": {"type": "string"}},
        }})
    }
    Structural::of_custom_resource(&json!({"type": "object", "properties": {"spec": shape(3)}}), false)
});

fn value(depth: usize) -> BoxedStrategy<Value> {
    let text = || "[a-c]".prop_map(Value::from);
    if depth == 0 {
        return text().boxed();
    }
    let texts = || {
        prop::collection::vec("[a-c]".prop_map(Value::from), 1..4).prop_map(|mut list: Vec<Value>| {
            let mut seen: Vec<Value> = vec![];
            list.retain(|item| {
                !seen.contains(item) && {
                    seen.push(item.clone());
                    true
                }
            });
            Value::from(list)
        })
    };
    let entries = move |depth| {
        prop::collection::btree_map("[x-z]", value(depth), 0..3).prop_map(|map| Value::Object(map.into_iter().collect()))
    };
    let keyed = prop::collection::btree_map(0..4i64, prop::option::of(value(depth - 1)), 1..4).prop_map(|map| {
        let item = |(id, v): (i64, Option<Value>)| match v {
            Some(v) => json!({"id": id, "v": v}),
            None => json!({"id": id}),
        };
        map.into_iter().map(item).collect::<Value>()
    });
    let field = |name: &'static str, value: BoxedStrategy<Value>| prop::option::of(value).prop_map(move |value| (name, value));
    (
        field("text", text().boxed()),
        field("struct", value(depth - 1)),
        field("whole", entries(0).boxed()),
        field("map", entries(depth - 1).boxed()),
        field("set", texts().boxed()),
        field("keyed", keyed.boxed()),
        field("list", texts().boxed()),
    )
        .prop_map(|(a, b, c, d, e, f, g)| {
            let fields = [a, b, c, d, e, f, g].into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(fields.collect::<Map<_, _>>())
        })
        .boxed()
}

fn object() -> impl Strategy<Value = Value> {
    value(3).prop_map(|spec| json!({"apiVersion": "x.y/v1", "kind": "Z", "metadata": {"name": "z"}, "spec": spec}))
}

static NOWHERE: Elsewhere = Elsewhere::new();

fn by(manager: &'static str) -> Write<'static> {
    Write {
        schema: SHAPES.schema(),
        scope: Scope::All,
        manager,
        api_version: "x.y/v1",
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        elsewhere: &NOWHERE,
    }
}

/// All places of an object.
fn everywhere(object: &Value) -> Set {
    let mut object = object.clone();
    take_entries(&mut object);
    walk::compare(Some(&json!({})), &object, SHAPES.schema()).changed
}

fn managed(object: &Value) -> Managed {
    Managed::read(entries_of(object)).unwrap()
}

fn without_owners(object: &Value) -> Value {
    let mut object = object.clone();
    take_entries(&mut object);
    object
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 150 } else { 2000 }))]

    #[test]
    fn applying_twice_is_applying_once(live in object(), config in object()) {
        let once = by("a").apply(Some(&live), &config, true).unwrap();
        prop_assert_eq!(by("a").apply(Some(&once), &config, false).unwrap(), once.clone());
        // And all that was wanted is there.
        let again = super::merge::merge(&without_owners(&once), &config, SHAPES.schema());
        prop_assert_eq!(again, without_owners(&once));
    }

    #[test]
    fn what_only_one_applied_goes_with_it(first in object(), second in object()) {
        let one = by("a").apply(None, &first, false).unwrap();
        let two = by("a").apply(Some(&one), &second, false).unwrap();
        let mut places = everywhere(&two);
        // What is left has an owner, or leads to what has one.
        let own = managed(&two).owned();
        places.retain(|node| !matches!(&node.element, Element::Field(name) if ["apiVersion", "kind", "metadata"].contains(&&**name)));
        own.for_each(&mut |path| {
            let path: Vec<Element> = path.iter().map(|element| (*element).clone()).collect();
            (1..=path.len()).for_each(|depth| { let mut one = Set::default(); one.insert(&path[..depth]); places = places.difference(&one); });
        });
        prop_assert!(places.is_empty(), "{}\n{}", places, two);
    }

    #[test]
    fn nobody_owns_what_is_not_there(live in object(), steps in prop::collection::vec((object(), 0..3usize, any::<bool>()), 1..5)) {
        let mut live = live;
        by("creator").update(None, &mut live);
        live["metadata"]["uid"] = json!("u");
        for (wanted, who, applies) in steps {
            let writer = by(["a", "b", "c"][who]);
            live = if applies {
                writer.apply(Some(&live), &wanted, true).unwrap()
            } else {
                let mut new = wanted;
                new["metadata"] = live["metadata"].clone();
                writer.update(Some(&live), &mut new);
                new
            };
            let places = everywhere(&live);
            for entry in managed(&live).entries {
                prop_assert!(entry.set.difference(&places).is_empty(), "{:?}: {}\n{}", entry.manager, entry.set.difference(&places), live);
            }
        }
    }

    #[test]
    fn two_with_nothing_in_common_do_not_disturb_each_other(one in value(2), two in value(2)) {
        let config = |name: &str, value: &Value| json!({"apiVersion": "x.y/v1", "kind": "Z", "metadata": {"name": "z"}, "spec": {"map": {name: value}}});
        let (a, b) = (config("a", &one), config("b", &two));
        let first = by("a").apply(None, &a, false).unwrap();
        let both = by("b").apply(Some(&first), &b, false).unwrap();
        let of = |object: &Value, name: &str| managed(object).entries.into_iter().find(|entry| entry.manager.name == name).map(|entry| entry.set);
        prop_assert_eq!(of(&both, "a"), of(&first, "a"));
        prop_assert_eq!(of(&both, "b"), of(&by("b").apply(None, &b, false).unwrap(), "b"));
        let empty = json!({"apiVersion": "x.y/v1", "kind": "Z", "metadata": {"name": "z"}});
        prop_assert_eq!(by("b").apply(Some(&both), &empty, false).unwrap(), first);
    }

    #[test]
    fn whatever_is_applied_is_refused_or_applied(config in super::super::strategic::tests::any_object(), live in object()) {
        let _ = by("a").apply(Some(&live), &config, true);
        let pod = Schema::Builtin(crate::openapi::Schema::of("io.k8s.api.core.v1.Pod").unwrap());
        let _ = Write { schema: pod, ..by("a") }.apply(None, &config, false);
        let mut new = config;
        by("a").update(Some(&live), &mut new);
    }

    #[test]
    fn entries_never_panic(fields in super::super::strategic::tests::any_object(), text in "[fkvi]?:?.{0,12}") {
        let entry = json!([{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
        let _ = Managed::read(&entry);
        if let Ok(element) = Element::parse(&text) {
            prop_assert_eq!(Element::parse(&element.write()).unwrap(), element);
        }
    }
}
