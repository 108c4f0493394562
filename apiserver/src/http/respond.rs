//! Objects, written out in the form that the client accepts.

use crate::http::Call;
use crate::http::compression;
use crate::http::error::Status;
use crate::http::negotiate::{self, Accept, Form, Media, Offer};
use crate::http::protobuf;
use crate::table::{self, IncludeObject};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// What is kept of a request's head for an answer that is not a verb's own.
pub struct Reader {
    media: Media,
    pub gzip: bool,
}

impl Reader {
    pub fn of(headers: &HeaderMap) -> Self {
        let media = Accept::parse(headers, Offer { table: true, ..Offer::PLAIN }).map_or(Media::Json, |accept| accept.media);
        Reader { media, gzip: compression::is_accepted(headers) }
    }

    /// A refusal, in the client's language.
    pub fn status(&self, status: &Status) -> Response {
        match self.media {
            Media::Json => status.clone().into_response(),
            media => {
                let mut response = value(Accept { media, ..Accept::JSON }, status.code, &status.object());
                response.headers_mut().extend(status.headers());
                response
            }
        }
    }
}

/// One object of the call's kind, as object, Table or metadata.
pub fn object(call: &Call, code: StatusCode, object: &Value, warnings: &[String]) -> Result<Response, Status> {
    let accept = call.accept()?;
    let mut response = match accept.form {
        Form::Object => value(accept, code, object),
        Form::Metadata => value(accept, code, &table::partial(object)),
        Form::MetadataList => return Err(not_a_list(call.strategy.names().kind)),
        Form::Table => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let include = IncludeObject::parse(call.info.query.get("includeObject"))?;
            let objects = std::slice::from_ref(object);
            value(accept, code, &table::table(&*call.strategy, objects, metadata, true, include, call.server.now()))
        }
    };
    for warning in warnings {
        warn(&mut response, warning);
    }
    Ok(response)
}

/// The same of an object that has just been written, whose bytes may be known.
pub fn written(
    call: &Call,
    code: StatusCode,
    written: &Value,
    known: Option<Bytes>,
    warnings: &[String],
) -> Result<Response, Status> {
    let Some(known) = known.filter(|_| call.accept().is_ok_and(|accept| accept == Accept::JSON)) else {
        return object(call, code, written, warnings);
    };
    let mut response = bytes(Media::Json.content_type(), code, known);
    for warning in warnings {
        warn(&mut response, warning);
    }
    Ok(response)
}

pub fn not_a_list(kind: &str) -> Status {
    negotiate::refused(format!("you requested PartialObjectMetadataList, but the requested object is not a list ({kind})"))
}

/// Any value, whatever `accept.form` says.
pub fn value(accept: Accept, code: StatusCode, value: &Value) -> Response {
    let older;
    let value = match accept.beta {
        true => {
            older = table::beta(value.clone());
            &older
        }
        false => value,
    };
    let written = match accept.media {
        Media::Json => json_line(value),
        Media::Yaml => serde_saphyr::to_string(value).map_or_else(|_| json_line(value), Bytes::from),
        Media::Protobuf => match protobuf::encode(value) {
            Some(Ok(written)) => written,
            Some(Err(error)) => return Status::internal(&error).into_response(),
            None => {
                let what = "the object does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message";
                return negotiate::refused(what).into_response();
            }
        },
    };
    bytes(accept.media.content_type(), code, written)
}

/// Straight into bytes: through `Display` it costs three times as much.
fn json_line(value: &Value) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("a JSON value can always be written to memory");
    line.push(b'\n');
    line.into()
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
