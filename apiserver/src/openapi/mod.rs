//! What the schemas of the kinds say: decoding with the checks of `fieldValidation`, how fields are merged, and the
//! documents that tell clients so.

mod conform;
mod decode;
pub mod document;
#[cfg(test)]
mod facts;
#[cfg(test)]
mod kubectl;
pub mod operations;
mod protobuf;
mod read;
pub mod rules;
pub mod schema;
mod serve;
mod twice;

pub use conform::{go_type_of, word};
pub use decode::{Expected, decode, decode_as};
pub(crate) use read::{DEPTH_MAX, read_document, read_json_document, read_yaml_document};
pub use schema::Schema;
pub use serve::{Cache, respond};
pub(crate) use twice::keys as keys_that_stand_twice;

use crate::http::error::Status;
use crate::kind::Strategy;
use serde_json::Value;

/// The `fieldValidation` parameter: what happens to unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub fn parse(text: Option<&str>) -> Result<Self, Status> {
        match text {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => {
                let value = Value::from(other);
                let error = crate::http::error::Invalid::not_supported("fieldValidation", &value, &["Ignore", "Strict", "Warn"]);
                Err(Status::invalid("meta.k8s.io", "CreateOptions", "", &[error]))
            }
        }
    }
}

/// Holds an object (as a patch made it) to the schema: what `decode` does after parsing.
pub fn conform(strategy: &dyn Strategy, object: &mut Value, validation: FieldValidation) -> Result<Vec<String>, Status> {
    if let Some(custom) = strategy.custom() {
        return crate::custom_resources::conform(custom, object, validation, vec![]);
    }
    conform_as(&Expected::of(strategy), object, validation)
}

/// The same for a type that is named.
pub(crate) fn conform_as(expected: &Expected, object: &mut Value, validation: FieldValidation) -> Result<Vec<String>, Status> {
    conform::Conform { validation, duplicates: vec![], json: None }.run(expected, object)
}

/// What a refusal of `conform` says is wrong, without the kind that it names first.
pub(crate) fn why_not(status: &Status) -> &str {
    status
        .message
        .split_once(" cannot be handled as a ")
        .and_then(|(_, rest)| rest.split_once(": "))
        .map_or(&status.message, |(_, why)| why)
}

/// The schema of a strategy's kind: how its fields are merged.
pub fn schema(strategy: &dyn Strategy) -> Option<Schema> {
    Schema::of(&strategy.schema_name())
}
