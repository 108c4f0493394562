//! Objects, written out in the form that the client accepts.

use crate::http::Call;
use crate::http::error::Status;
use crate::http::negotiate::{Accept, Form, Media};
use crate::table::{self, IncludeObject};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// One object of the call's kind, as object, Table or metadata.
pub fn object(call: &Call, code: StatusCode, object: &Value, warnings: &[String]) -> Result<Response, Status> {
    let accept = call.accept()?;
    let mut response = match accept.form {
        Form::Object => value(accept, code, object),
        Form::Metadata => value(accept, code, &table::partial(object)),
        Form::Table => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let include = IncludeObject::parse(call.info.query.get("includeObject"));
            let objects = std::slice::from_ref(object);
            value(accept, code, &table::table(&*call.strategy, objects, metadata, true, include, call.server.now()))
        }
    };
    for warning in warnings {
        warn(&mut response, warning);
    }
    Ok(response)
}

/// Any value, whatever `accept.form` says.
pub fn value(accept: Accept, code: StatusCode, value: &Value) -> Response {
    let text = match accept.media {
        Media::Json => format!("{value}\n"),
        Media::Yaml => serde_saphyr::to_string(value).unwrap_or_else(|_| format!("{value}\n")),
    };
    bytes(accept.media.content_type(), code, text.into())
}

pub fn bytes(content_type: &'static str, code: StatusCode, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// For a path that is nobody's: not even the API's, which would answer with a Status.
pub fn page_not_found() -> Response {
    let mut response = Response::new(Body::from("404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Adds a `Warning` header (RFC 7234, code 299), as kubectl prints it.
pub fn warn(response: &mut Response, text: &str) {
    let quoted: String = text
        .chars()
        .filter(|c| !c.is_control())
        .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
        .collect();
    if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
        response.headers_mut().append(header::WARNING, value);
    }
}
