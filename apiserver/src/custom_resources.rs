//! The one question about custom resources that has an answer: which there are. None.
//!
//! kubectl asks it before it applies a kind that it does not find, to learn who validates it. Without an answer it says that it
//! could not ask; with this one it says that there is no such kind. Discovery does not tell of the resource.

use crate::http::error::Status;
use crate::http::negotiate::{Accept, Offer};
use crate::http::request_info::{RequestInfo, Verb};
use crate::http::respond;
use crate::server::ApiServer;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde_json::json;

/// Whether that is what the request asks.
pub fn is_asked(request: &RequestInfo) -> bool {
    request.is_resource
        && (request.group.as_str(), request.version.as_str()) == ("apiextensions.k8s.io", "v1")
        && request.resource == "customresourcedefinitions"
        && request.verb == Verb::List
}

pub fn list(server: &ApiServer, request: &Parts) -> Result<Response, Status> {
    let list = json!({
        "kind": "CustomResourceDefinitionList", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"resourceVersion": server.snapshot().revision.to_string()}, "items": [],
    });
    Ok(respond::value(Accept::parse(&request.headers, Offer::PLAIN)?, StatusCode::OK, &list))
}
