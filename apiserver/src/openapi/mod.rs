//! What the schema of a kind says: decoding with the checks of `fieldValidation`.

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

/// Decodes a body into an object of the strategy's kind, pruned and with normalised values, and the warnings that the
/// client is sent. 400 if the body cannot be read or a value has a wrong type, 415 for an unknown content type.
pub fn decode(
    strategy: &dyn Strategy,
    body: &[u8],
    content_type: &str,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let unreadable =
        |error: &dyn std::fmt::Display| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"));
    let mut object: Value = match content_type.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => serde_json::from_slice(body).map_err(|error| unreadable(&error))?,
        "application/yaml" | "application/x-yaml" | "text/yaml" => {
            serde_saphyr::from_slice(body).map_err(|error| unreadable(&error))?
        }
        _ => {
            return Err(Status::new(
                http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
            ));
        }
    };
    let warnings = conform(strategy, &mut object, validation)?;
    Ok((object, warnings))
}

/// Holds an object (as a patch made it) to the schema: what `decode` does after parsing.
pub fn conform(_strategy: &dyn Strategy, object: &mut Value, _validation: FieldValidation) -> Result<Vec<String>, Status> {
    if !object.is_object() {
        return Err(Status::bad_request("the object provided is unrecognized (must be of type Object)"));
    }
    Ok(vec![])
}
