//! Custom kinds: what CustomResourceDefinitions add to the API.
//!
//! The kinds that are served follow from the definitions that the cache holds (`serve`), so that every API server on one store
//! comes to the same. `establish` writes what becomes of a definition into its status, and empties one that is being deleted.
//! `present` brings objects out of the version in which they are stored and into it, `conversion` asks the webhook that
//! knows how.
//! `strategy` is a version of a custom kind as the verbs see it; what it does with objects is in `schema`, `prune`, `default`,
//! `validate` and `rules`; `rule_costs` refuses rules that may cost too much.

mod columns;
mod conversion;
mod default;
pub mod definition;
mod establish;
mod format;
mod path;
mod present;
#[cfg(test)]
mod properties;
mod prune;
mod rule_costs;
mod rules;
pub mod schema;
mod serve;
pub mod strategy;
mod validate;

pub use path::Path;
pub(crate) use present::{converted, in_version, present, present_all, presented, to_storage};
pub(crate) use serve::{Served, look_again, run};
pub use strategy::CustomResource;

use crate::http::error::{Invalid, Status};
use crate::openapi::{Expected, FieldValidation};
use serde_json::{Value, json};

/// Whose schema an object's metadata is held to: that of any kind will do.
const METADATA_OF: &str = "io.k8s.api.core.v1.ConfigMap";

/// Holds an object to a custom kind's schema: prunes it, and answers with the warnings that its sender gets.
pub(crate) fn conform(
    custom: &CustomResource,
    object: &mut Value,
    validation: FieldValidation,
    duplicates: Vec<String>,
) -> Result<Vec<String>, Status> {
    let names = crate::kind::Strategy::names(custom);
    slipway_api::canonical::sort(object);
    let refuse = |why: &str| {
        Status::bad_request(format!("{0} in version \"{1}\" cannot be handled as a {0}: {why}", names.kind, names.version))
    };
    let Some(map) = object.as_object_mut() else {
        return Err(refuse("json: cannot unmarshal value into Go value of type map[string]interface {}"));
    };
    if let Some(kind) = map.get("kind").and_then(Value::as_str).filter(|kind| !kind.is_empty() && *kind != names.kind) {
        let error = Invalid::value("kind", &json!(kind), &format!("must be {}", names.kind));
        let name = map.get("metadata").and_then(|metadata| metadata["name"].as_str()).unwrap_or_default();
        return Err(Status::invalid(names.group, names.kind, name, &[error]));
    }
    let mut findings = duplicates;
    if let Some(metadata) = map.get_mut("metadata") {
        let mut whole = json!({"metadata": metadata.take()});
        let expected = Expected { group: names.group, version: names.version, kind: names.kind, schema: METADATA_OF.into() };
        findings.extend(crate::openapi::conform_as(&expected, &mut whole, FieldValidation::Warn)?);
        *metadata = whole["metadata"].take();
    }
    findings.extend(prune::prune(object, &custom.schema).into_iter().map(|path| format!("unknown field \"{path}\"")));
    match validation {
        FieldValidation::Ignore => Ok(vec![]),
        FieldValidation::Strict if !findings.is_empty() => {
            Err(refuse(&format!("strict decoding error: {}", findings.join(", "))))
        }
        _ => Ok(findings),
    }
}

/// Whether a default has only fields that its schema knows.
pub(crate) fn default_is_pruned(value: &Value, schema: &schema::Schema) -> bool {
    // A field's value is no object of its own.
    let mut whole = json!({"value": value});
    let around = schema::Schema { properties: [("value".to_owned(), schema.clone())].into(), ..schema::Schema::default() };
    prune::prune(&mut whole, &around).is_empty()
}

pub(crate) fn validate_default(value: &Value, schema: &schema::Schema, at: &schema::At) -> Vec<Invalid> {
    let mut filled = value.clone();
    default::fill(&mut filled, schema);
    let mut errors = validate::validate(&filled, None, schema, at);
    validate::lists(&filled, schema, at, &mut errors);
    validate::embedded(&filled, schema, at, &mut errors);
    errors
}

/// What is wrong with the rules of a schema.
pub(crate) fn rule_errors(source: &Value, at: &str, errors: &mut Vec<Invalid>) {
    rule_costs::validate(source, at, errors);
}
