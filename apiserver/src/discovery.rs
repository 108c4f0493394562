//! What is served, told to clients: `/api`, `/apis` and the resources of each group and version.

use crate::http::error::Status;
use crate::server::ApiServer;
use axum::response::Response;
use http::request::Parts;

/// Answers a GET of `/api`, `/api/VERSION`, `/apis`, `/apis/GROUP`, `/apis/GROUP/VERSION`; `None` for any other path.
pub fn respond(_server: &ApiServer, _request: &Parts) -> Option<Result<Response, Status>> {
    None
}
