//! The three ways to say a change to a JSON document. Pure: a document and a patch in, a document out.

pub mod json;
pub mod merge;
pub mod strategic;

use crate::http::error::Status;
use http::StatusCode;
use serde_json::json;

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
            .with_details(json!({"causes": [{"message": why}]})),
        }
    }
}
