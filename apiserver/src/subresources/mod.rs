//! What hangs below an object: `scale`, `binding`, `eviction`, `log`, `exec`, `token`, … (`status` is served by the
//! verbs themselves.)

use crate::http::Call;
use crate::http::error::Status;
use axum::response::Response;

/// Serves a request whose `info.subresource` is neither empty nor `status`. The caller is authorised, the strategy is
/// that of the parent resource.
pub async fn handle(_call: Call) -> Result<Response, Status> {
    Err(Status::no_such_path())
}
