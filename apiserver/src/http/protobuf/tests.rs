use super::decode::{int_or_string, read, time};
use super::*;
use crate::openapi::schema::{Schema, Shape};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Writes a field whose value is bytes.
fn part(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

fn envelope(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let type_meta = [part(1, api_version.as_bytes()), part(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), part(1, &type_meta), part(2, object), part(3, b""), part(4, b"")].concat()
}

#[test]
fn a_deployment_as_go_writes_it() {
    // Empty strings, zeroes and empty times are written too, where Go has no pointer.
    let metadata =
        [part(1, b"web"), part(2, b""), part(8, b""), number(7, 0), part(11, &[part(1, b"app"), part(2, b"x")].concat())]
            .concat();
    let probe_handler = part(2, &part(2, &[number(1, 0), number(2, 80), part(3, b"")].concat()));
    let probe = [part(1, &probe_handler), number(2, 0), number(3, 5)].concat();
    let container = [part(1, b"c"), part(2, b"i"), part(11, &probe), vec![0x80, 1, 0]].concat();
    let template = part(2, &part(2, &container));
    let spec = [number(1, 0), part(3, &template), number(5, 0)].concat();
    let body = envelope("apps/v1", "Deployment", &[part(1, &metadata), part(2, &spec), part(3, b"")].concat());
    let container = json!({
        "name": "c", "image": "i",
        "readinessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 5},
    });
    assert_eq!(
        read(&body).unwrap(),
        json!({
            "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web", "labels": {"app": "x"}},
            "spec": {"replicas": 0, "template": {"spec": {"containers": [container]}}}, "status": {},
        })
    );
}

#[test]
fn bytes_quantities_and_times() {
    let secret = [part(1, &part(1, b"s")), part(2, &[part(1, b"key"), part(2, &[0, 255])].concat())].concat();
    assert_eq!(read(&envelope("v1", "Secret", &secret)).unwrap()["data"], json!({"key": "AP8="}));
    let options = [number(1, 0), part(4, b"Background")].concat();
    let read_options = read(&envelope("v1", "DeleteOptions", &options)).unwrap();
    assert_eq!((&read_options["gracePeriodSeconds"], &read_options["propagationPolicy"]), (&json!(0), &json!("Background")));
    assert_eq!(time(&number(1, 100), false).unwrap(), "1970-01-01T00:01:40Z");
    assert_eq!(int_or_string(&[number(1, 1), part(3, b"25%")].concat()).unwrap(), "25%");
}

#[test]
fn what_is_not_protobuf_is_refused() {
    assert!(read(b"{}").is_err());
    assert!(read(&envelope("v1", "Nothing", b"")).is_err());
    let cut = envelope("v1", "Secret", &part(1, &part(1, b"s")));
    assert!((5..cut.len() - 6).all(|len| read(&cut[..len]).is_err() || read(&cut[..len]).unwrap().is_object()));
}

/// A value in which every field is set that the schema knows; `seen` ends what goes round: the types that it is within.
fn full(schema: Schema, seen: &mut Vec<u32>) -> Value {
    if let Shape::Type(number) = schema.shape() {
        if seen.iter().filter(|other| *other == number).count() > 1 {
            return Value::Null;
        }
        seen.push(*number);
    }
    match schema.shape() {
        Shape::Text => "text".into(),
        Shape::Choice(choices) => (*choices[0]).into(),
        Shape::Bytes => "AQL/".into(),
        Shape::Bool => true.into(),
        Shape::Int32 => (-7).into(),
        Shape::Int64 => (1_i64 << 40).into(),
        Shape::Float => 1.5.into(),
        Shape::Time => "2026-01-02T03:04:05Z".into(),
        Shape::MicroTime => "2026-01-02T03:04:05.000006Z".into(),
        Shape::Quantity => "1500m".into(),
        Shape::IntOrText => "50%".into(),
        Shape::Any | Shape::TypeOrOther(_) => json!({"type": "string"}),
        Shape::Type(_) => {
            let fields = schema.fields().map(|(name, field)| (name.to_owned(), full(field, seen)));
            let mut fields: serde_json::Map<_, _> = fields.filter(|(_, value)| !value.is_null()).collect();
            seen.pop();
            // An object within another does not say in protobuf what it is: the field does.
            if !seen.is_empty() && fields.contains_key("metadata") {
                fields.retain(|name, _| !["apiVersion", "kind"].contains(&name.as_str()));
            }
            Value::Object(fields)
        }
        Shape::List(_) => match schema.items().map(|items| full(items, seen)) {
            Some(item) if !item.is_null() => json!([item.clone(), item]),
            _ => Value::Null,
        },
        Shape::Map(_) => match schema.field("any").map(|value| full(value, seen)) {
            Some(value) if !value.is_null() => json!({"one": value.clone(), "two": value}),
            _ => Value::Null,
        },
    }
}

fn check_round_trip(object: &Value) {
    let body = encode(object).expect("the kind has a message").expect("it is written");
    let back = read(&body).unwrap();
    assert!(back == *object, "{}", differences("", object, &back).join("\n"));
}

fn differences(path: &str, one: &Value, other: &Value) -> Vec<String> {
    match (one, other) {
        (Value::Object(fields), Value::Object(others)) => {
            let names: std::collections::BTreeSet<&String> = fields.keys().chain(others.keys()).collect();
            names.into_iter().flat_map(|name| differences(&format!("{path}.{name}"), &one[name], &other[name])).collect()
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            items.iter().zip(others).flat_map(|(one, other)| differences(&format!("{path}[]"), one, other)).collect()
        }
        _ if one == other => vec![],
        _ => vec![format!("{path}: {one} came back as {other}")],
    }
}

#[test]
fn every_field_of_every_kind_comes_back() {
    let mut kinds = 0;
    for strategy in crate::resources::builtin() {
        let names = strategy.names();
        if of_strategy(&*strategy).is_none() {
            assert_eq!(names.group, "slipway.dev", "{} has no message in fields.txt", names.kind);
            continue;
        }
        let mut object = full(Schema::of(&strategy.schema_name()).unwrap(), &mut vec![]);
        object["kind"] = names.kind.into();
        object["apiVersion"] = names.api_version().into();
        check_round_trip(&object);
        let list = json!({
            "kind": format!("{}List", names.kind), "apiVersion": names.api_version(),
            "metadata": {"resourceVersion": "7", "continue": "x", "remainingItemCount": 3}, "items": [object, object],
        });
        let mut back = list.clone();
        back["items"].as_array_mut().unwrap().iter_mut().for_each(|item| {
            item.as_object_mut().unwrap().retain(|field, _| !["kind", "apiVersion"].contains(&field.as_str()));
        });
        assert!(read(&encode(&list).unwrap().unwrap()).unwrap() == back, "{}List", names.kind);
        kinds += 1;
    }
    assert!(kinds > 20, "only {kinds} kinds");
}

#[test]
fn the_types_of_the_machinery_come_back() {
    check_round_trip(&crate::http::error::Status::not_found("apps", "deployments", "web").object());
    check_round_trip(&json!({"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "10.0.0.1:443"}]}));
    check_round_trip(&json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "apps/v1", "resources": [{
        "name": "deployments", "singularName": "deployment", "namespaced": true, "kind": "Deployment", "verbs": ["get", "list"]}]}));
    check_round_trip(&json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "x"}}));
    check_round_trip(&json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "x"},
        "spec": {"replicas": 3}, "status": {"replicas": 0, "selector": "a=b"}}));
}

#[test]
fn what_was_meant_to_be_empty_stays_so() {
    check_round_trip(&json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "x"},
        "spec": {"storageClassName": "", "resources": {}}, "status": {}}));
    check_round_trip(&json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": {},
        "spec": {"parallelism": 0, "suspend": false, "template": {"metadata": {}, "spec": {"containers": [{"name": "", "resources": {}}]}}}}));
}

#[test]
fn a_kind_of_another_group_is_not_taken_for_one_of_these() {
    assert!(encode(&json!({"kind": "Deployment", "apiVersion": "apps.example.com/v1"})).is_none());
    assert!(encode(&json!({"kind": "Widget", "apiVersion": "v1"})).is_none());
    assert!(encode(&json!({"kind": "Pod", "apiVersion": "v1", "spec": []})).unwrap().is_err());
    assert!(encode(&json!({"kind": "Secret", "apiVersion": "v1", "data": {"key": "not base64!"}})).unwrap().is_err());
}

#[test]
fn a_watch_event_is_framed() {
    let pod = find("v1", "Pod").unwrap();
    let raw = of_entry(pod, br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}"#).unwrap();
    let names =
        crate::resources::builtin().into_iter().find(|kind| kind.names().kind == "Pod").map(|kind| *kind.names()).unwrap();
    let event = watch_event("ADDED", &wrapped(&names, false, raw.len()), &raw);
    assert_eq!(u32::from_be_bytes(event[..4].try_into().unwrap()) as usize, event.len() - 4);
    let object = [wrapped(&names, false, raw.len()), raw.to_vec()].concat();
    let expected = [part(1, b"ADDED"), part(2, &part(1, &object))].concat();
    assert_eq!(event[4..], expected);
    assert_eq!(read(&object).unwrap()["metadata"]["name"], "x");
}

/// All fields of one kind, with its message's own `kind` and `apiVersion`.
fn full_object(which: usize) -> Value {
    let strategies: Vec<_> = crate::resources::builtin().into_iter().filter(|kind| of_strategy(&**kind).is_some()).collect();
    let strategy = &strategies[which % strategies.len()];
    let mut object = full(Schema::of(&strategy.schema_name()).unwrap(), &mut vec![]);
    object["kind"] = strategy.names().kind.into();
    object["apiVersion"] = strategy.names().api_version().into();
    object
}

/// The value with some of its fields and elements left out, but never all.
fn thinned(value: &Value, choose: &mut impl FnMut() -> bool) -> Value {
    match value {
        Value::Object(map) => {
            let kept: Vec<_> = map.iter().filter(|_| choose()).collect();
            let kept: Map<String, Value> = kept.into_iter().map(|(name, value)| (name.clone(), thinned(value, choose))).collect();
            if kept.is_empty() { value.clone() } else { Value::Object(kept) }
        }
        Value::Array(items) => items.iter().skip(usize::from(choose())).map(|item| thinned(item, choose)).collect(),
        plain => plain.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 100 } else { 3000 }))]

    #[test]
    fn any_part_of_any_object_comes_back(which in 0usize..1000, choices in prop::collection::vec(any::<bool>(), 1..200)) {
        let whole = full_object(which);
        let mut at = 0;
        let mut object = thinned(&whole, &mut || { at += 1; choices[at % choices.len()] });
        object["kind"] = whole["kind"].clone();
        object["apiVersion"] = whole["apiVersion"].clone();
        check_round_trip(&object);
    }

    /// What is damaged is refused or read as something else, which is not much larger, and which can be written.
    #[test]
    fn a_damaged_object_does_no_harm(
        which in 0usize..1000, places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in any::<prop::sample::Index>(),
    ) {
        let whole = encode(&full_object(which)).unwrap().unwrap();
        let mut damaged = whole.to_vec();
        for (at, byte) in places {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        for body in [&damaged[..], &whole[..cut.index(whole.len())]] {
            if let Ok(object) = read(body) {
                let text = object.to_string();
                prop_assert!(text.len() < 40 * body.len() + 1000, "{} bytes became {}", body.len(), text.len());
                let _ = encode(&object);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&[MAGIC, &bytes].concat());
        let _ = read(&envelope("v1", "Pod", &bytes[..bytes.len().min(100)]));
    }

    /// Schemas of custom resources contain each other.
    #[test]
    fn deep_nesting_is_refused(depth in 0usize..2000) {
        let mut schema: Vec<u8> = vec![];
        for _ in 0..depth {
            let mut outer = vec![];
            wire::Write::bytes(&mut outer, 28, &schema);
            schema = outer;
        }
        let mut body = MAGIC.to_vec();
        wire::Write::nested(&mut body, 1, |out| {
            wire::Write::bytes(out, 1, b"apiextensions.k8s.io/v1");
            wire::Write::bytes(out, 2, b"JSONSchemaProps");
        });
        wire::Write::bytes(&mut body, 2, &schema);
        prop_assert_eq!(read(&body).is_ok(), depth <= DEPTH_MAX);
    }
}
