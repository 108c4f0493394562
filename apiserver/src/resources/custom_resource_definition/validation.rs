//! What a CustomResourceDefinition must be, as Kubernetes words it.

use super::structural;
use crate::custom_resources::Path;
use crate::custom_resources::definition::is_condition_true;
use crate::http::error::Invalid;
use crate::kind::NameRule;
use crate::verbs::object_meta::name_errors;
use serde_json::{Value, json};
use std::collections::HashSet;

const APPROVAL: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "name", "password"];
const SELECTABLE_MAX: usize = 8;

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

pub fn validate(object: &Value) -> Vec<Invalid> {
    let spec = &object["spec"];
    let mut errors = vec![];
    let name = text(&object["metadata"], "name");
    if name != format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group")) {
        errors.push(Invalid::value("metadata.name", &json!(name), "must be spec.names.plural+\".\"+spec.group"));
    }
    group(object, &mut errors);
    match text(spec, "scope") {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(Invalid::required("spec.scope", "")),
        other => errors.push(Invalid::not_supported("spec.scope", &json!(other), &["Cluster", "Namespaced"])),
    }
    versions(spec, &mut errors);
    names(&spec["names"], &mut errors);
    if spec["preserveUnknownFields"] == true {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(Invalid::value("spec.preserveUnknownFields", &json!(true), why));
    }
    conversion(spec, &mut errors);
    errors
}

fn group(object: &Value, errors: &mut Vec<Invalid>) {
    let group = text(&object["spec"], "group");
    if group.is_empty() {
        errors.push(Invalid::required("spec.group", ""));
        return;
    }
    for why in name_errors(NameRule::Subdomain, group) {
        errors.push(Invalid::value("spec.group", &json!(group), &why));
    }
    if group.split('.').count() < 2 {
        errors.push(Invalid::value("spec.group", &json!(group), "should be a domain with at least one dot"));
    }
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|suffix| group == *suffix || group.ends_with(&format!(".{suffix}")));
    let approval = object["metadata"]["annotations"][APPROVAL].as_str().unwrap_or_default();
    let field = format!("metadata.annotations[{APPROVAL}]");
    if protected && approval.is_empty() {
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
        errors.push(Invalid::required(field, why));
    } else if protected && !approval.starts_with("unapproved") && !approval.contains("://") {
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111";
        errors.push(Invalid::value(field, &json!(approval), why));
    }
}

fn names(names: &Value, errors: &mut Vec<Invalid>) {
    let mut label = |field: &str, value: &str, mixed: bool| {
        let checked = if mixed { value.to_lowercase() } else { value.to_owned() };
        for why in name_errors(NameRule::Label1035, &checked) {
            let why = if mixed { format!("may have mixed case, but should otherwise match: {why}") } else { why };
            errors.push(Invalid::value(field, &json!(value), &why));
        }
    };
    label("spec.names.plural", text(names, "plural"), false);
    if !text(names, "singular").is_empty() {
        label("spec.names.singular", text(names, "singular"), false);
    }
    label("spec.names.kind", text(names, "kind"), true);
    label("spec.names.listKind", text(names, "listKind"), true);
    for (index, name) in list(names, "shortNames").iter().enumerate() {
        label(&format!("spec.names.shortNames[{index}]"), name.as_str().unwrap_or_default(), false);
    }
    for (index, name) in list(names, "categories").iter().enumerate() {
        label(&format!("spec.names.categories[{index}]"), name.as_str().unwrap_or_default(), false);
    }
    if !text(names, "kind").is_empty() && text(names, "kind") == text(names, "listKind") {
        errors.push(Invalid::value("spec.names.listKind", &names["listKind"], "kind and listKind may not be the same"));
    }
}

fn versions(spec: &Value, errors: &mut Vec<Invalid>) {
    let versions = list(spec, "versions");
    if versions.is_empty() {
        errors.push(Invalid::value("spec.versions", &Value::Null, "must have exactly one version marked as storage version"));
        return;
    }
    let mut seen = HashSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}]");
        let name = text(version, "name");
        unique &= seen.insert(name);
        for why in name_errors(NameRule::Label1035, name) {
            errors.push(Invalid::value(format!("{at}.name"), &json!(name), &why));
        }
        if version["deprecated"] != true && version["deprecationWarning"].is_string() {
            let why = "can only be set for deprecated versions";
            errors.push(Invalid::value(format!("{at}.deprecationWarning"), &version["deprecationWarning"], why));
        }
        if version["schema"]["openAPIV3Schema"].is_object() {
            let at = format!("{at}.schema.openAPIV3Schema");
            let before = errors.len();
            structural::validate(&version["schema"]["openAPIV3Schema"], &at, errors);
            if errors.len() == before {
                selectable(version, index, errors);
            }
        } else {
            errors.push(Invalid::required(format!("{at}.schema.openAPIV3Schema"), "schemas are required"));
        }
        columns(version, &at, errors);
        scale(&version["subresources"]["scale"], &format!("{at}.subresources.scale"), errors);
    }
    if !unique {
        errors.push(Invalid::value("spec.versions", &spec["versions"], "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(Invalid::value("spec.versions", &spec["versions"], why));
    }
}

fn columns(version: &Value, at: &str, errors: &mut Vec<Invalid>) {
    for (index, column) in list(version, "additionalPrinterColumns").iter().enumerate() {
        let at = format!("{at}.additionalPrinterColumns[{index}]");
        if text(column, "name").is_empty() {
            errors.push(Invalid::required(format!("{at}.name"), ""));
        }
        match text(column, "type") {
            "" => errors.push(Invalid::required(format!("{at}.type"), &format!("must be one of {}", COLUMN_TYPES.join(",")))),
            type_ if !COLUMN_TYPES.contains(&type_) => {
                let why = format!("must be one of {}", COLUMN_TYPES.join(","));
                errors.push(Invalid::value(format!("{at}.type"), &json!(type_), &why));
            }
            _ => {}
        }
        let format = text(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(Invalid::value(format!("{at}.format"), &json!(format), &why));
        }
        match text(column, "jsonPath") {
            "" => errors.push(Invalid::required(format!("{at}.jsonPath"), "")),
            path => {
                if let Err(why) = Path::parse(path) {
                    errors.push(Invalid::value(format!("{at}.jsonPath"), &json!(path), &why));
                }
            }
        }
    }
}

fn scale(scale: &Value, at: &str, errors: &mut Vec<Invalid>) {
    if !scale.is_object() {
        return;
    }
    for (field, below, required) in
        [("specReplicasPath", ".spec.", true), ("statusReplicasPath", ".status.", true), ("labelSelectorPath", "", false)]
    {
        let path = text(scale, field);
        let at = format!("{at}.{field}");
        if path.is_empty() {
            if required {
                errors.push(Invalid::required(at, ""));
            }
            continue;
        }
        let simple = Path::parse(path).is_ok_and(|parsed| parsed.fields().is_some()) && !path.contains('[');
        if !simple {
            errors.push(Invalid::value(at, &json!(path), "should be a simple json path starting with ."));
        } else if !path.starts_with(below) || (below.is_empty() && !path.starts_with(".spec.") && !path.starts_with(".status.")) {
            let why = if below.is_empty() {
                "should be a json path under either .status or .spec".to_owned()
            } else {
                format!("should be a json path under {}", below.trim_end_matches('.'))
            };
            errors.push(Invalid::value(at, &json!(path), &why));
        }
    }
}

fn selectable(version: &Value, index: usize, errors: &mut Vec<Invalid>) {
    let fields = list(version, "selectableFields");
    let at = format!("spec.versions[{index}].selectableFields");
    if fields.len() > SELECTABLE_MAX {
        errors.push(Invalid::too_many(at.clone(), fields.len(), SELECTABLE_MAX));
        return;
    }
    let mut seen = HashSet::new();
    for (index, field) in fields.iter().enumerate() {
        let (at, path) = (format!("{at}[{index}].jsonPath"), text(field, "jsonPath"));
        if path.is_empty() {
            errors.push(Invalid::required(at, ""));
            continue;
        }
        let value = json!(path);
        let steps = Path::parse(path).ok().filter(|_| path.starts_with('.') && !path.contains('['));
        let Some(names) = steps.as_ref().and_then(Path::fields) else {
            errors.push(Invalid::value(at, &value, "must be a simple path"));
            continue;
        };
        let schema = &version["schema"]["openAPIV3Schema"];
        let node = names.iter().try_fold(schema, |schema, name| schema["properties"].get(*name));
        match node {
            _ if names[0] == "metadata" => {
                errors.push(Invalid::value(at.clone(), &value, "must not point to fields in metadata"));
            }
            None => errors.push(Invalid::value(at.clone(), &value, "must be a valid path in the schema")),
            Some(node) if !matches!(text(node, "type"), "string" | "integer" | "boolean") => {
                let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                errors.push(Invalid::value(at.clone(), &value, why));
            }
            Some(_) => {}
        }
        if !seen.insert(path) {
            errors.push(Invalid::duplicate(at, &value));
        }
    }
}

fn conversion(spec: &Value, errors: &mut Vec<Invalid>) {
    const AT: &str = "spec.conversion";
    let conversion = &spec["conversion"];
    match text(conversion, "strategy") {
        "None" => {
            if conversion["webhook"].is_object() {
                let why = "should not be set when strategy is not set to Webhook";
                errors.push(Invalid::forbidden(format!("{AT}.webhook"), why));
            }
        }
        "Webhook" => webhook(&conversion["webhook"], &format!("{AT}.webhook"), errors),
        "" => errors.push(Invalid::required(format!("{AT}.strategy"), "")),
        other => errors.push(Invalid::not_supported(format!("{AT}.strategy"), &json!(other), &["None", "Webhook"])),
    }
}

fn webhook(webhook: &Value, at: &str, errors: &mut Vec<Invalid>) {
    let client = &webhook["clientConfig"];
    if !client.is_object() {
        let why = "required when strategy is set to Webhook";
        errors.push(Invalid::required(format!("{at}.clientConfig"), why));
    } else {
        match (client["url"].as_str(), client["service"].is_object()) {
            (Some(_), true) | (None, false) => {
                let why = "exactly one of url or service is required";
                errors.push(Invalid::required(format!("{at}.clientConfig"), why));
            }
            (Some(url), false) if !url.starts_with("https://") => {
                let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
                let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
                errors.push(Invalid::value(format!("{at}.clientConfig.url"), &json!(scheme), why));
            }
            _ => {
                for field in ["name", "namespace"] {
                    if client["service"].is_object() && text(&client["service"], field).is_empty() {
                        let why = format!("service {field} is required");
                        errors.push(Invalid::required(format!("{at}.clientConfig.service.{field}"), &why));
                    }
                }
            }
        }
    }
    let reviews = list(webhook, "conversionReviewVersions");
    if reviews.is_empty() {
        errors.push(Invalid::required(format!("{at}.conversionReviewVersions"), ""));
    } else if !reviews.iter().any(|version| version == "v1" || version == "v1beta1") {
        let why = "must include at least one of v1, v1beta1";
        errors.push(Invalid::value(format!("{at}.conversionReviewVersions"), &webhook["conversionReviewVersions"], why));
    }
}

pub fn validate_update(object: &Value, old: &Value) -> Vec<Invalid> {
    let mut errors = vec![];
    let mut fixed = vec!["group", "names.plural"];
    if is_condition_true(old, "Established") {
        fixed.extend(["scope", "names.kind"]);
    }
    for field in fixed {
        let pointer = format!("/spec/{}", field.replace('.', "/"));
        let (new, old) = (object.pointer(&pointer), old.pointer(&pointer));
        if new != old {
            errors.push(Invalid::value(format!("spec.{field}"), new.unwrap_or(&Value::Null), "field is immutable"));
        }
    }
    let names: Vec<&str> = list(&object["spec"], "versions").iter().map(|version| text(version, "name")).collect();
    for (index, stored) in list(&object["status"], "storedVersions").iter().filter_map(Value::as_str).enumerate() {
        if !names.contains(&stored) {
            let why = format!(
                "missing from spec.versions; {stored} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {stored} and removes {stored} from status.storedVersions"
            );
            errors.push(Invalid::value(format!("status.storedVersions[{index}]"), &json!(stored), &why));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    fn definition() -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crontabs.stable.example.com"},
            "spec": {
                "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer", "default": 1}}}}}}}],
            },
        })
    }

    fn check(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let strategy = Builtin::<super::super::CustomResourceDefinition>::new();
        let mut object = definition();
        change(&mut object);
        strategy.fill_defaults(&mut object);
        strategy.validate(&object).into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    fn schema(schema: Value) -> Vec<String> {
        check(|object| object["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema)
            .into_iter()
            .map(|error| error.replace("spec.versions[0].schema.openAPIV3Schema", "S"))
            .collect()
    }

    #[test]
    fn a_good_one_is_accepted_with_its_defaults() {
        assert_eq!(check(|_| {}), [""; 0]);
        let mut object = definition();
        Builtin::<super::super::CustomResourceDefinition>::new().fill_defaults(&mut object);
        assert_eq!(object["spec"]["names"]["listKind"], "CronTabList");
        assert_eq!(object["spec"]["names"]["singular"], "crontab");
        assert_eq!(object["spec"]["conversion"]["strategy"], "None");
    }

    #[test]
    fn names_and_versions() {
        assert_eq!(
            check(|object| object["metadata"]["name"] = json!("x")),
            ["metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group"]
        );
        assert!(
            check(|object| object["spec"]["versions"][0]["storage"] = json!(false))[0]
                .ends_with("must have exactly one version marked as storage version")
        );
        assert_eq!(
            check(|object| object["spec"]["scope"] = json!("Galactic")),
            ["spec.scope: Unsupported value: \"Galactic\": supported values: \"Cluster\", \"Namespaced\""]
        );
        assert!(
            check(|object| {
                object["spec"]["group"] = json!("a.k8s.io");
                object["metadata"]["name"] = json!("crontabs.a.k8s.io");
            })[0]
                .contains("protected groups must have approval annotation")
        );
        assert_eq!(
            check(|object| {
                object["spec"]["versions"][0].as_object_mut().unwrap().remove("schema");
            }),
            ["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"]
        );
    }

    #[test]
    fn schemas_are_structural() {
        assert_eq!(schema(json!({})), ["S.type: Required value: must not be empty at the root"]);
        assert_eq!(schema(json!({"type": "string"})), ["S.type: Invalid value: \"string\": must be object at the root"]);
        let property = |property: Value| schema(json!({"type": "object", "properties": {"a": property}}));
        assert_eq!(property(json!({})), ["S.properties[a].type: Required value: must not be empty for specified object fields"]);
        assert_eq!(property(json!({"type": "array"})), ["S.properties[a].items: Required value: must be specified"]);
        assert!(property(json!({"x-kubernetes-preserve-unknown-fields": true})).is_empty());
        assert!(property(json!({"x-kubernetes-int-or-string": true})).is_empty());
        assert_eq!(
            property(json!({"type": "string", "default": 1})),
            [
                "S.properties[a].default: Invalid value: \"integer\": S.properties[a].default in body must be of type string: \"integer\""
            ]
        );
        assert_eq!(
            property(json!({"type": "string", "$ref": "#/x"})),
            ["S.properties[a].$ref: Forbidden: $ref is not supported"]
        );
        assert!(
            property(json!({"type": "string", "pattern": "("}))[0]
                .starts_with("S.properties[a].pattern: Invalid value: \"(\": must be a valid regular expression")
        );
        assert_eq!(
            property(json!({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}})),
            [""; 0],
            "an empty map of properties is none"
        );
        assert_eq!(
            property(json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"})),
            ["S.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"]
        );
        assert_eq!(
            property(json!({"type": "object", "properties": {"b": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": "self.b.c > 1"}]})).len(),
            1
        );
        assert_eq!(
            schema(
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}})
            ),
            [
                "S.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
            ]
        );
        assert_eq!(
            schema(json!({"type": "object", "anyOf": [{"properties": {"x": {"minimum": 1}}}]})),
            ["S.properties[x]: Required value: because it is defined in S.anyOf[0].properties[x]"]
        );
    }

    #[test]
    fn what_is_established_keeps_its_names() {
        let strategy = Builtin::<super::super::CustomResourceDefinition>::new();
        let mut old = definition();
        old["status"] = json!({"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v0"]});
        let mut new = old.clone();
        new["spec"]["scope"] = json!("Cluster");
        let errors = strategy.validate_update(&new, &old);
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["spec.scope", "status.storedVersions[0]"]);
    }
}
