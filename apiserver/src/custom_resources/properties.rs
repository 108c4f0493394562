//! Whatever a schema says, and whatever objects come under it: nothing panics, and what is accepted is stable.

use super::strategy::{CustomResource, Definition};
use super::{conform, default, prune, validate};
use crate::custom_resources::schema::{At, Schema};
use crate::kind::Strategy as _;
use crate::openapi::{FieldValidation, decode};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const NAMES: [&str; 6] = ["a", "b", "c", "metadata", "kind", "apiVersion"];

fn any_value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(vec!["", "a", "1h", "2026-01-01T00:00:00Z", "::1", "ä", "aGk=", "10%"]).prop_map(Value::from),
    ];
    let nested = leaf.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(select(NAMES.to_vec()), inner, 0..4).prop_map(object),
        ]
    });
    nested.boxed()
}

fn object(fields: std::collections::BTreeMap<&'static str, Value>) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// What may stand beside a schema's type.
fn details() -> impl Strategy<Value = Map<String, Value>> {
    let rule = select(vec![
        "self == oldSelf",
        "has(self.a)",
        "self.a > 1",
        "self.all(x, self.all(y, x == y))",
        "size(self) < 3",
        "self.a.b.c",
        "((((",
        "self.matches('^(a+)+$')",
        "oldSelf.hasValue()",
        "",
    ]);
    let field = prop_oneof![
        select(vec!["^a", "(a{1,9}){1,9}", "(", "[[:alpha:]&&b]", "\\p{Greek}", ""]).prop_map(|text| ("pattern", json!(text))),
        select(vec!["date-time", "ipv4", "quantity", "byte", "int32", "no-such", "duration"])
            .prop_map(|text| ("format", json!(text))),
        select(vec![
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties"
        ])
        .prop_flat_map(|name| any::<f64>().prop_map(move |number| (name, json!(number)))),
        select(vec!["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"])
            .prop_flat_map(|name| (-1..4i64).prop_map(move |number| (name, json!(number)))),
        select(vec![
            "nullable",
            "uniqueItems",
            "exclusiveMinimum",
            "exclusiveMaximum",
            "x-kubernetes-int-or-string",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource"
        ])
        .prop_flat_map(|name| any::<bool>().prop_map(move |set| (name, json!(set)))),
        select(vec!["set", "map", "atomic", "other"]).prop_map(|kind| ("x-kubernetes-list-type", json!(kind))),
        prop::collection::vec(select(NAMES.to_vec()), 0..3).prop_map(|keys| ("x-kubernetes-list-map-keys", json!(keys))),
        prop::collection::vec(select(NAMES.to_vec()), 0..3).prop_map(|names| ("required", json!(names))),
        prop::collection::vec(any_value(), 0..3).prop_map(|values| ("enum", json!(values))),
        any_value().prop_map(|value| ("default", value)),
        prop::collection::vec((rule, any::<bool>()), 0..3).prop_map(|rules| {
            let rules = rules.into_iter().map(|(rule, old)| json!({"rule": rule, "optionalOldSelf": old, "fieldPath": ".a"}));
            ("x-kubernetes-validations", rules.collect())
        }),
    ];
    prop::collection::vec(field, 0..4)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn any_schema() -> impl Strategy<Value = Value> {
    let types = || select(vec!["object", "object", "array", "string", "integer", "number", "boolean", "", "other"]);
    let with = |(kind, mut fields): (&str, Map<String, Value>)| {
        if !kind.is_empty() {
            fields.insert("type".into(), kind.into());
        }
        Value::Object(fields)
    };
    let leaf = (types(), details()).prop_map(with);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let properties = prop::collection::btree_map(select(NAMES.to_vec()), inner.clone(), 0..4).prop_map(object);
        let below = prop_oneof![
            4 => properties.prop_map(|value| ("properties", value)),
            2 => inner.clone().prop_map(|value| ("items", value)),
            1 => prop_oneof![inner.clone(), any::<bool>().prop_map(Value::from)].prop_map(|value| ("additionalProperties", value)),
            1 => (select(vec!["allOf", "anyOf", "oneOf"]), prop::collection::vec(inner.clone(), 0..3))
                .prop_map(|(name, all)| (name, Value::from(all))),
            1 => inner.prop_map(|value| ("not", value)),
        ];
        (types(), details(), prop::collection::vec(below, 1..3)).prop_map(move |(kind, mut fields, below)| {
            fields.extend(below.into_iter().map(|(name, value)| (name.to_owned(), value)));
            with((kind, fields))
        })
    })
}

fn definition(schema: &Value) -> Value {
    let mut root = schema.clone();
    root["type"] = "object".into();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": root}, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".a[0].b"}],
                "selectableFields": [{"jsonPath": ".a"}]}],
        },
        "status": {"acceptedNames": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}},
    })
}

/// What a write does with an object of this kind, whatever it holds.
fn write(custom: &CustomResource, sent: &Value) -> Result<(), TestCaseError> {
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}});
    if let (Value::Object(map), Some(fields)) = (&mut object, sent.as_object()) {
        map.extend(fields.iter().filter(|(name, _)| name.len() == 1).map(|(name, value)| (name.clone(), value.clone())));
    }
    if conform(custom, &mut object, FieldValidation::Warn, vec![]).is_err() {
        return Ok(());
    }
    let mut again = object.clone();
    prop_assert!(prune::prune(&mut again, &custom.schema).is_empty(), "{} was pruned to {}", object, again);
    custom.fill_defaults(&mut object);
    let mut twice = object.clone();
    custom.fill_defaults(&mut twice);
    prop_assert_eq!(&object, &twice, "defaults are idempotent");
    custom.validate(&object);
    custom.validate_update(&object, &again);
    custom.row(&object, jiff::Timestamp::UNIX_EPOCH);
    custom.selectable_fields(&object);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 150 } else { 5000 }))]

    #[test]
    fn whatever_a_schema_says_nothing_panics(schema in any_schema(), objects in prop::collection::vec(any_value(), 1..4)) {
        let all = crate::resources::builtin();
        let kind = all.iter().find(|kind| kind.names().kind == "CustomResourceDefinition").unwrap();
        let sent = serde_json::to_vec(&definition(&schema)).unwrap();
        let Ok((mut sent, _)) = decode(&**kind, &sent, "application/json", FieldValidation::Ignore) else { return Ok(()) };
        kind.fill_defaults(&mut sent);
        let errors = kind.validate(&sent);
        kind.validate_update(&sent, &sent);
        // What was stored by another version may be wrong in ways that are not let in any more: it is read all the same.
        let version = sent["spec"]["versions"][0].clone();
        let custom = CustomResource::new(&Arc::new(Definition::new(sent)), &version);
        for object in &objects {
            if errors.is_empty() {
                write(&custom, object)?;
            }
            let mut object = object.clone();
            custom.read(&mut json!({"a": object.clone()}));
            prune::prune(&mut object, &custom.schema);
            default::fill(&mut object, &custom.schema);
            let mut found = validate::validate(&object, None, &custom.schema, &At::Root);
            validate::lists(&object, &custom.schema, &At::Root, &mut found);
            validate::embedded(&object, &custom.schema, &At::Root, &mut found);
        }
    }

    #[test]
    fn any_json_is_parsed_as_a_schema(schema in any_value(), object in any_value()) {
        let parsed = Schema::parse(&schema);
        validate::validate(&object, Some(&object), &parsed, &At::Root);
    }
}
