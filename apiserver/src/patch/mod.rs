//! Patches: how a change is written down, and what it makes of an object. Pure: a document and a patch in, a document
//! out.

pub mod apply;
pub mod json;
pub mod merge;
pub mod strategic;

use crate::http::error::{Invalid, Status};
use http::StatusCode;
use serde_json::{Value, json};

/// Whether a body of this type is a configuration to be applied (see `apply`), and not a patch.
pub fn is_apply(content_type: &str) -> bool {
    content_type.split(';').next().unwrap_or_default().trim() == "application/apply-patch+yaml"
}

/// Stands for what must not be shown.
const HIDDEN: &str = "REDACTED";
/// Enough to see what is wrong.
const FINDINGS_MAX: usize = 50;

fn read(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    crate::openapi::read_json_document(body).map_err(|why| Status::bad_request(format!("error decoding patch: {why}")))
}

/// A parsed patch.
#[derive(Debug, Clone)]
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// By the Content-Type; 415 for one that is not served.
    pub fn parse(content_type: &str, body: &[u8]) -> Result<Patch, Status> {
        let kind = match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Patch::Json,
            "application/merge-patch+json" => Patch::Merge,
            "application/strategic-merge-patch+json" => Patch::Strategic,
            _ => return Err(unsupported("the body of the request was in an unknown format")),
        };
        let (mut patch, _) = read(body)?;
        slipway_api::canonical::sort(&mut patch);
        Ok(kind(patch))
    }

    /// What of a patch's body a strict reading refuses: fields that stand twice and, in a JSON patch, unknown ones.
    pub fn findings(&self, body: &[u8]) -> Vec<String> {
        let (patch, mut findings) = read(body).unwrap_or_default();
        if let Patch::Json(_) = self {
            for (at, operation) in patch.as_array().into_iter().flatten().enumerate() {
                let unknown = |name: &&String| !["op", "path", "from", "value"].contains(&name.as_str());
                let names = operation.as_object().into_iter().flat_map(|operation| operation.keys());
                findings.extend(names.filter(unknown).map(|name| format!("unknown field \"[{at}].{name}\"")));
            }
            findings.iter_mut().for_each(|finding| finding.insert_str(0, "json patch "));
        }
        findings.truncate(FINDINGS_MAX);
        findings
    }

    /// 422 for a patch that makes something of an object which is none of its kind. Where objects are secret, it is not shown.
    pub fn refuse(&self, patched: &Value, why: &str, secret: bool) -> Status {
        let shown = match self {
            _ if secret => HIDDEN.to_owned(),
            Patch::Strategic(patch) => apply::in_go(patch),
            Patch::Json(_) | Patch::Merge(_) => slipway_api::canonical::Sorted(patched).to_string(),
        };
        Status::invalid("", "", "", &[Invalid::value("patch", &shown.into(), why)])
    }

    /// 415 for a strategic merge of a custom kind, whose fields have no merge keys.
    pub fn check_served_for(&self, strategy: &dyn crate::kind::Strategy) -> Result<(), Status> {
        if strategy.custom().is_none() || !matches!(self, Patch::Strategic(_)) {
            return Ok(());
        }
        let served = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        let message = format!("the body of the request was in an unknown format - accepted media types include: {served}");
        Err(Status::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message))
    }

    /// What the patch makes of `current`. Called once an attempt of the update.
    pub fn apply(&self, schema: Option<&dyn strategic::PatchSchema>, current: &Value) -> Result<Value, Error> {
        let mut patched = current.clone();
        match self {
            Patch::Json(patch) => json::apply(&mut patched, patch)?,
            Patch::Merge(patch) => merge::apply(&mut patched, patch)?,
            Patch::Strategic(patch) => strategic::apply(&mut patched, patch, schema)?,
        }
        Ok(patched)
    }
}

fn unsupported(why: &str) -> Status {
    let served = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";
    let message = format!("{why} - accepted media types include: {served}");
    Status::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
}

/// Why a patch could not be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The patch itself is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed, but doesn't fit the document: a failed `test`, a path that isn't there.
    #[error("{0}")]
    Inapplicable(String),
    #[error("{0}")]
    TooLarge(String),
}

impl Error {
    /// The same without what it quotes of the patch and the document.
    pub fn hidden(self) -> Self {
        let what = HIDDEN.to_owned();
        match self {
            Error::Malformed(_) => Error::Malformed(what),
            Error::Inapplicable(_) => Error::Inapplicable(what),
            Error::TooLarge(why) => Error::TooLarge(why),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match error {
            Error::Malformed(why) => Status::bad_request(why),
            Error::TooLarge(why) => Status::too_large(why),
            // Kubernetes says no more than this message; the cause is ours, and kubectl prints it.
            Error::Inapplicable(why) => Status::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Invalid",
                "the server rejected our request due to an error in our request",
            )
            .with_details(json!({"causes": [{"field": "patch", "message": why}]})),
        }
    }
}

impl From<apply::Error> for Status {
    fn from(error: apply::Error) -> Status {
        let message = error.to_string();
        match error {
            apply::Error::OwnersGiven => Status::bad_request(message),
            // Kubernetes gives these no reason.
            apply::Error::Unfit { .. } | apply::Error::Managed(_) => Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", message),
            apply::Error::Conflicts(conflicts) => {
                let cause = |conflict: &apply::Conflict| {
                    let message = format!("conflict with {}", conflict.manager);
                    json!({"reason": "FieldManagerConflict", "message": message, "field": conflict.path()})
                };
                let causes: Vec<Value> = conflicts.iter().map(cause).collect();
                Status::new(StatusCode::CONFLICT, "Conflict", message).with_details(json!({"causes": causes}))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_says_how_the_patch_is_read() {
        let code = |content_type, body: &str| Patch::parse(content_type, body.as_bytes()).map_err(|status| status.code.as_u16());
        assert!(matches!(code("application/merge-patch+json; charset=utf-8", "{}"), Ok(Patch::Merge(_))));
        assert!(matches!(code("application/strategic-merge-patch+json", "{}"), Ok(Patch::Strategic(_))));
        assert!(matches!(code("application/json-patch+json", "[]"), Ok(Patch::Json(_))));
        assert!(is_apply("application/apply-patch+yaml; charset=utf-8") && !is_apply("application/apply-patch+cbor"));
        assert!(matches!(code("application/apply-patch+cbor", "{}"), Err(415)));
        assert!(matches!(code("application/json", "{}"), Err(415)));
        assert!(matches!(code("application/merge-patch+json", "{"), Err(400)));
    }
}
