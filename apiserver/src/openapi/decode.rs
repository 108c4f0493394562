//! From a request's body to an object: it is read (`read`), then held to its schema, as Go's decoder would hold it to the struct.

use crate::http::error::Status;
use crate::kind::{Names, Strategy};
use crate::openapi::FieldValidation;
use crate::openapi::conform::Conform;
use crate::openapi::read::{read_json, read_yaml};
use http::StatusCode;
use serde_json::Value;
use std::cell::RefCell;

/// How many bytes of a body an error shows.
const SHOWN_MAX: usize = 30;

/// The kind that a body must be of.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The name of its type, as `io.k8s.api.core.v1.Pod`.
    pub schema: String,
}

impl Expected {
    pub fn of(strategy: &dyn Strategy) -> Self {
        let Names { group, version, kind, .. } = *strategy.names();
        Expected { group, version, kind, schema: strategy.schema_name() }
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Decodes a body into an object of the strategy's kind (see `decode_as`).
pub fn decode(
    strategy: &dyn Strategy,
    body: &[u8],
    content_type: &str,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let expected = Expected::of(strategy);
    let Some(custom) = strategy.custom() else { return decode_as(&expected, body, content_type, validation) };
    let (mut object, duplicates) = read(&expected, body, content_type)?;
    check_version(&expected, &object)?;
    let warnings = crate::custom_resources::conform(custom, &mut object, validation, duplicates)?;
    Ok((object, warnings))
}

/// A custom kind's objects are of the path's version; their kind is looked at with the rest of them.
fn check_version(expected: &Expected, object: &Value) -> Result<(), Status> {
    let wanted = expected.api_version();
    match object["apiVersion"].as_str() {
        Some(found) if !found.is_empty() && found != wanted => Err(Status::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version ({wanted})"
        ))),
        _ => Ok(()),
    }
}

/// Decodes a body into an object of the expected kind, pruned and with normalised values, and the warnings that the
/// client is sent. 400 if the body cannot be read or a value has a wrong type, 415 for an unknown content type.
pub fn decode_as(
    expected: &Expected,
    body: &[u8],
    content_type: &str,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let (mut object, duplicates) = read(expected, body, content_type)?;
    check_kind(expected, &object, body)?;
    let json = is_json(content_type).then_some(body);
    let warnings = Conform { validation, duplicates, json }.run(expected, &mut object)?;
    Ok((object, warnings))
}

fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn is_json(content_type: &str) -> bool {
    matches!(media_type(content_type), "" | "application/json")
}

/// The body as it is, and what stands twice in it.
fn read(expected: &Expected, body: &[u8], content_type: &str) -> Result<(Value, Vec<String>), Status> {
    let duplicates = RefCell::new(vec![]);
    let read = match media_type(content_type) {
        _ if is_json(content_type) => read_json(body, &duplicates),
        "application/yaml" | "application/x-yaml" | "text/yaml" => read_yaml(body, &duplicates),
        _ => {
            return Err(Status::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
            ));
        }
    };
    let kind = expected.kind;
    let object = read.map_err(|error| {
        let shown = shown(kind, body);
        Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {error} ({shown})"))
    })?;
    Ok((object, duplicates.into_inner()))
}

/// `kind` and `apiVersion` are the path's; they may be left out.
fn check_kind(names: &Expected, object: &Value, body: &[u8]) -> Result<(), Status> {
    let Some(map) = object.as_object() else {
        let why = format!("json: cannot unmarshal {} into Go value of type struct", super::conform::word(object));
        let why = format!(
            "couldn't get version/kind; json parse error: {why} {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        );
        let message =
            format!("the object provided is unrecognized (must be of type {}): {why} ({})", names.kind, shown(names.kind, body));
        return Err(Status::bad_request(message));
    };
    let text = |field: &str| match map.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => {
            let word = super::conform::word(other);
            let why = format!("json: cannot unmarshal {word} into Go struct field .{field} of type string");
            let why = format!("couldn't get version/kind; json parse error: {why}");
            let message = format!(
                "the object provided is unrecognized (must be of type {}): {why} ({})",
                names.kind,
                shown(names.kind, body)
            );
            Err(Status::bad_request(message))
        }
    };
    let (kind, api_version) = (text("kind")?, text("apiVersion")?);
    let expected = names.api_version();
    if !api_version.is_empty() && api_version != expected {
        let why = format!("the API version in the data ({api_version}) does not match the expected API version ({expected})");
        return Err(Status::bad_request(why));
    }
    if !kind.is_empty() && kind != names.kind {
        let version = names.version;
        let served = crate::resources::builtin()
            .iter()
            .any(|other| other.names().kind == kind && (other.names().group, other.names().version) == (names.group, version));
        let group = if names.group.is_empty() { "core" } else { names.group.split('.').next().unwrap_or_default() };
        let why = if served {
            format!("converting ({version}.{kind}) to ({group}.{}): unknown conversion", names.kind)
        } else {
            format!("no kind \"{kind}\" is registered for version \"{expected}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"")
        };
        let message = format!("{kind} in version \"{version}\" cannot be handled as a {}: {why}", names.kind);
        return Err(Status::bad_request(message));
    }
    Ok(())
}

/// The beginning of a body that could not be read. Errors end up in logs, so that of a Secret not even that is shown.
fn shown(kind: &str, body: &[u8]) -> String {
    if kind == "Secret" {
        return "REDACTED".to_owned();
    }
    let cut = &body[..body.len().min(SHOWN_MAX)];
    let more = if body.len() > SHOWN_MAX { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(cut)),
        Some(_) => cut.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

#[cfg(test)]
mod tests {
    use super::{FieldValidation, RefCell, StatusCode, Value, decode, read_json, read_yaml};
    use crate::openapi::read::{DEPTH_MAX, VALUES_MAX, read_document};
    use proptest::prelude::*;
    use serde_json::{Number, json};
    use std::sync::Arc;

    fn strategy(kind: &str) -> Arc<dyn crate::kind::Strategy> {
        crate::resources::builtin().into_iter().find(|strategy| strategy.names().kind == kind).unwrap()
    }

    fn strict(kind: &str, body: &str) -> Result<Value, String> {
        decode(&*strategy(kind), body.as_bytes(), "application/json", FieldValidation::Strict).map(|(object, _)| object).map_err(
            |status| {
                assert_eq!((status.code, status.reason), (StatusCode::BAD_REQUEST, "BadRequest"));
                status.message
            },
        )
    }

    #[test]
    fn unknown_and_duplicate_fields() {
        let body = r#"{"kind":"Deployment","apiVersion":"apps/v1","spec":{"foo":1,"replicas":1,"replicas":2,
            "template":{"spec":{"containers":[{"name":"a"},{"name":"b","imagee":"x"}]}}}}"#;
        assert_eq!(
            strict("Deployment", body).unwrap_err(),
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"spec.foo\", \
             duplicate field \"spec.replicas\", unknown field \"spec.template.spec.containers[1].imagee\""
        );
        let deployment = strategy("Deployment");
        let (object, warnings) = decode(&*deployment, body.as_bytes(), "", FieldValidation::Warn).unwrap();
        assert_eq!(
            warnings,
            [
                "unknown field \"spec.foo\"",
                "duplicate field \"spec.replicas\"",
                "unknown field \"spec.template.spec.containers[1].imagee\""
            ]
        );
        assert_eq!(object["spec"]["replicas"], 2);
        assert!(object["spec"].get("foo").is_none());
        let (ignored, warnings) =
            decode(&*deployment, body.as_bytes(), "application/json; charset=utf-8", FieldValidation::Ignore).unwrap();
        assert_eq!((ignored, warnings), (object, vec![]));
    }

    #[test]
    fn wrong_types_are_named_as_go_names_them() {
        let cases = [
            (
                r#"{"spec":{"replicas":"3"}}"#,
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":{"replicas":1.5}}"#,
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                r#"{"spec":{"replicas":3000000000}}"#,
                "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (r#"{"spec":[]}"#, "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
            (
                r#"{"metadata":{"labels":{"a":1}}}"#,
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                r#"{"metadata":{"labels":"a"}}"#,
                "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string",
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":[{"args":[1]}]}}}}"#,
                "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.args of type string",
            ),
            (
                r#"{"spec":{"paused":"yes"}}"#,
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}}}"#,
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        ];
        for (body, why) in cases {
            let expected = format!("Deployment in version \"v1\" cannot be handled as a Deployment: {why}");
            assert_eq!(strict("Deployment", body).unwrap_err(), expected, "{body}");
        }
    }

    #[test]
    fn values_are_written_as_go_writes_them() {
        let body = r#"{"metadata":{"name":"p","creationTimestamp":null,"labels":{"a":null},"annotations":null},
            "spec":{"containers":[{"name":"c","command":null,"resources":{"limits":{"cpu":2,"memory":"1024Mi"},"requests":{"cpu":0.5}}}],
            "hostUsers":null},"status":{"startTime":"2026-01-01T02:00:00+02:00"}}"#;
        assert_eq!(
            strict("Pod", body).unwrap(),
            json!({"metadata": {"name": "p", "labels": {"a": ""}},
                "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]},
                "status": {"startTime": "2026-01-01T00:00:00Z"}})
        );
    }

    #[test]
    fn bodies_that_cannot_be_read() {
        let broken = |body: &str| strict("Pod", body).unwrap_err();
        assert_eq!(
            broken("{\"kind\":\"Pod\""),
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"kind\":\"Pod\")"
        );
        assert!(broken("").ends_with("unexpected end of JSON input (<empty>)"));
        assert!(broken("[]").contains("(must be of type Pod)"));
        assert!(broken(&format!("{}1{}", "[".repeat(300), "]".repeat(300))).contains("exceeded max depth"));
        assert_eq!(
            broken(r#"{"kind":"Service","apiVersion":"v1"}"#),
            "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion"
        );
        assert_eq!(
            broken(r#"{"kind":"Nope","apiVersion":"v1"}"#),
            "Nope in version \"v1\" cannot be handled as a Pod: no kind \"Nope\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        );
        assert_eq!(
            broken(r#"{"kind":"Pod","apiVersion":"v2"}"#),
            "the API version in the data (v2) does not match the expected API version (v1)"
        );
        let status = decode(&*strategy("Pod"), b"x", "application/vnd.kubernetes.protobuf", FieldValidation::Warn).unwrap_err();
        assert_eq!((status.code, status.reason), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"));
    }

    #[test]
    fn yaml_is_read_too() {
        let body = "kind: Pod\napiVersion: v1\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    name: d\n    ports:\n    - containerPort: 80\n";
        let (object, warnings) = decode(&*strategy("Pod"), body.as_bytes(), "application/yaml", FieldValidation::Warn).unwrap();
        assert_eq!(object["spec"]["containers"], json!([{"name": "d", "ports": [{"containerPort": 80}]}]));
        assert_eq!(warnings, ["duplicate field \"spec.containers[0].name\""]);
    }

    fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Of longer fractions, serde_json's reader may lose the last bit.
            any::<i32>().prop_filter_map("finite", |n| Number::from_f64(f64::from(n) / 4.0).map(Value::Number)),
            "[a-z0-9]{0,6}".prop_map(Value::from),
            Just(json!("1Gi")),
        ];
        let key = prop_oneof![
            proptest::sample::select(vec![
                "metadata",
                "spec",
                "status",
                "name",
                "labels",
                "containers",
                "template",
                "replicas",
                "ports",
                "port",
                "resources",
                "limits",
                "cpu",
                "volumes",
                "configMap",
                "data",
                "selector",
                "matchLabels",
                "strategy",
                "type",
                "env",
                "items",
            ])
            .prop_map(str::to_owned),
            "[a-z]{1,4}",
        ];
        leaf.prop_recursive(6, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn depth_is_limited_alike_in_json_and_yaml() {
        let nothing = RefCell::new(vec![]);
        for depth in [1, 60, 100, 101, 102, 200, 20_000] {
            let list = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let map = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
            let block = format!("{}x", "- ".repeat(depth));
            let good = depth <= DEPTH_MAX + 1;
            for text in [&list, &map] {
                assert_eq!(read_json(text.as_bytes(), &nothing).is_ok(), good, "{depth}");
            }
            for text in [&list, &map, &block] {
                assert_eq!(read_yaml(text.as_bytes(), &nothing).is_ok(), good, "{depth}: {:.20}", text);
            }
        }
    }

    #[test]
    fn tiny_values_are_counted() {
        let nothing = RefCell::new(vec![]);
        for (count, good) in [(VALUES_MAX - 1, true), (VALUES_MAX, false), (1_000_000, false)] {
            let body = format!("[0{}]", ",0".repeat(count - 1));
            assert_eq!(read_json(body.as_bytes(), &nothing).is_ok(), good);
            assert_eq!(read_yaml(body.as_bytes(), &nothing).is_ok(), good);
        }
    }

    #[test]
    fn of_a_secret_nothing_is_shown() {
        for body in ["{\"data\":\"hunter2\"", "[\"hunter2\"]", "{\"kind\":[\"hunter2\"]}", "hunter2: [", "hunter2"] {
            for content_type in ["application/json", "application/yaml"] {
                let refused = decode(&*strategy("Secret"), body.as_bytes(), content_type, FieldValidation::Strict).unwrap_err();
                assert!(!refused.message.contains("hunter2"), "{}", refused.message);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 5000 }))]

        /// What is written is read as the same, in both.
        #[test]
        fn yaml_and_json_say_the_same(body in any_json()) {
            let nothing = RefCell::new(vec![]);
            prop_assert_eq!(&read_json(&serde_json::to_vec(&body).unwrap(), &nothing).unwrap(), &body);
            let yaml = serde_saphyr::to_string(&body).unwrap();
            prop_assert_eq!(read_yaml(yaml.as_bytes(), &nothing).unwrap(), body, "{}", yaml);
            prop_assert!(nothing.into_inner().is_empty());
        }

        #[test]
        fn what_stands_twice_is_told_once(keys in prop::collection::vec("[a-c]", 0..8)) {
            let body = keys.iter().map(|key| format!("\"{key}\": {{}}")).collect::<Vec<_>>().join(", ");
            let mut twice: Vec<&String> = vec![];
            for (at, key) in keys.iter().enumerate() {
                if keys[..at].contains(key) && !twice.contains(&key) {
                    twice.push(key);
                }
            }
            let expected: Vec<String> = twice.iter().map(|key| format!("duplicate field \"x.{key}\"")).collect();
            let body = format!("{{\"x\": {{{body}}}}}");
            for read in [read_json, read_yaml] {
                let duplicates = RefCell::new(vec![]);
                read(body.as_bytes(), &duplicates).unwrap();
                prop_assert_eq!(duplicates.into_inner(), expected.clone());
            }
        }

        #[test]
        fn no_yaml_panics(words in prop::collection::vec(prop::sample::select(vec![
            "a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "<<", "|\n", ">", "!!str ", "!!binary ", "'", "\"", "#", "---\n", "...\n", "? ", "~", "1e400", ".nan", "0x", "\t", "%",
        ]), 0..30)) {
            let _ = read_document(words.concat().as_bytes());
        }

        /// Whatever comes is refused or becomes an object that all hooks can work on, and that decodes to itself.
        #[test]
        fn hooks_stand_whatever_is_decoded(body in any_json(), which in 0usize..100) {
            let all = crate::resources::builtin();
            let strategy = &all[which % all.len()];
            let bytes = serde_json::to_vec(&body).unwrap();
            if let Ok((mut object, _)) = decode(&**strategy, &bytes, "application/json", FieldValidation::Ignore) {
                let again = serde_json::to_vec(&object).unwrap();
                let (same, warnings) = decode(&**strategy, &again, "application/json", FieldValidation::Strict).unwrap();
                prop_assert_eq!(&same, &object);
                prop_assert!(warnings.is_empty());
                strategy.fill_defaults(&mut object);
                let once = object.clone();
                strategy.fill_defaults(&mut object);
                prop_assert_eq!(&once, &object, "defaults are idempotent");
                strategy.validate(&object);
                let old = object.clone();
                strategy.validate_update(&object, &old);
                strategy.prepare_create(&mut object);
                strategy.prepare_update(&mut object, &old);
                strategy.row(&object, jiff::Timestamp::UNIX_EPOCH);
                strategy.selectable_fields(&object);
                strategy.grace_seconds(&object, None);
            }
        }

        #[test]
        fn bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200), yaml in any::<bool>()) {
            let content_type = if yaml { "application/yaml" } else { "application/json" };
            let _ = decode(&*strategy("Pod"), &body, content_type, FieldValidation::Strict);
        }
    }
}
