//! `Status`: the one error that leaves this crate, worded as Kubernetes words it.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use slipway_api::canonical::Sorted;

/// So many errors are told of one object: whoever sends more does not read them, and they take more room than what was sent.
const ERRORS_MAX: usize = 1_000;

/// Why a single field is refused: `metav1.StatusCause` before it is written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// As `spec.containers[0].image`.
    pub field: String,
    pub reason: Reason,
    /// What follows `field: ` in Kubernetes' message, as `Required value: name is required`.
    pub message: String,
}

/// The reasons of `field.ErrorType`, by their names in `StatusCause.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    TypeInvalid,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Required => "FieldValueRequired",
            Reason::Invalid => "FieldValueInvalid",
            Reason::NotSupported => "FieldValueNotSupported",
            Reason::Duplicate => "FieldValueDuplicate",
            Reason::Forbidden => "FieldValueForbidden",
            Reason::TooLong => "FieldValueTooLong",
            Reason::TooMany => "FieldValueTooMany",
            Reason::NotFound => "FieldValueNotFound",
            Reason::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

impl Invalid {
    /// `field: Required value: why`; an empty `why` leaves out the colon.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        Self::new(
            field,
            Reason::Required,
            if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") },
        )
    }

    /// `field: Invalid value: <value>: why`; the value is printed as Go prints it (strings in quotes, the rest as JSON).
    pub fn value(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self::new(field, Reason::Invalid, format!("Invalid value: {}: {why}", Sorted(value)))
    }

    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self::new(field, Reason::Forbidden, format!("Forbidden: {why}"))
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(field, Reason::Duplicate, format!("Duplicate value: {}", Sorted(value)))
    }

    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        Self::new(
            field,
            Reason::NotSupported,
            format!("Unsupported value: {}: supported values: {}", Sorted(value), supported.join(", ")),
        )
    }

    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(field, Reason::NotFound, format!("Not found: {}", Sorted(value)))
    }

    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        Self::new(field, Reason::TooLong, format!("Too long: may not be more than {limit} bytes"))
    }

    pub fn too_many(field: impl Into<String>, actual: usize, limit: usize) -> Self {
        Self::new(field, Reason::TooMany, format!("Too many: {actual}: must have at most {limit} items"))
    }

    fn new(field: impl Into<String>, reason: Reason, message: String) -> Self {
        Invalid { field: field.into(), reason, message }
    }
}

/// A `metav1.Status` with `status: Failure`.
#[derive(Debug, Clone)]
pub struct Status {
    pub code: StatusCode,
    /// `metav1.StatusReason`, as `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, `Expired`.
    pub reason: &'static str,
    pub message: String,
    /// `metav1.StatusDetails`, or null. Boxed, as every `Result` of the server has room for a `Status`.
    pub details: Box<Value>,
    /// `metav1.ListMeta`, or null: an expired continue token is answered with another one.
    pub metadata: Box<Value>,
}

/// `plural` or `plural.group`, as Kubernetes' messages name a resource.
pub fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

impl Status {
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Status { code, reason, message: message.into(), details: Box::default(), metadata: Box::default() }
    }

    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Box::new(details);
        self
    }

    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} \"{name}\" not found", qualified(plural, group)))
            .with_details(details(group, plural, name))
    }

    /// For a path that does not exist.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource").with_details(json!({}))
    }

    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(plural, group)))
            .with_details(details(group, plural, name))
    }

    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(plural, group));
        Self::new(StatusCode::CONFLICT, "Conflict", message).with_details(details(group, plural, name))
    }

    /// The conflict of a stale resourceVersion.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// 422 with a cause for each field. `kind` is the object's kind, as Kubernetes words it: `Pod "x" is invalid: …`.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[Invalid]) -> Self {
        let told = &errors[..errors.len().min(ERRORS_MAX)];
        let mut texts: Vec<String> = told.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        if errors.len() > told.len() {
            texts.push(format!("and {} more", errors.len() - told.len()));
        }
        let all = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = qualified(kind, group);
        let causes: Vec<Value> =
            told.iter().map(|e| json!({"reason": e.reason.as_str(), "message": e.message, "field": e.field})).collect();
        let mut details = details(group, kind, name);
        details["causes"] = causes.into();
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", format!("{qualified} \"{name}\" is invalid: {all}"))
            .with_details(details)
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .with_details(json!({}))
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub fn unsupported_media_type() -> Self {
        let message =
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// Tells the caller nothing but an id, under which the log has the chain of causes.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain = format!("{chain}: {cause}");
            source = cause.source();
        }
        tracing::error!(request = %id, error = %chain, "internal error");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: see the server's log for request {id}"),
        )
        .with_details(json!({"causes": [{"message": format!("request {id}")}]}))
    }

    /// The object itself, as it is sent in a body or in a watch event of type ERROR.
    pub fn object(&self) -> Value {
        let mut object = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if self.reason.is_empty() {
            crate::kind::remove(&mut object, "reason");
        }
        if !self.metadata.is_null() {
            object["metadata"] = (*self.metadata).clone();
        }
        if !self.details.is_null() {
            object["details"] = (*self.details).clone();
        }
        object
    }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({"name": name, "kind": kind});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    details
}

impl Status {
    /// Those that say in the head what `details` say too.
    pub fn headers(&self) -> HeaderMap {
        let seconds = self.details.get("retryAfterSeconds").and_then(Value::as_i64).filter(|seconds| *seconds > 0);
        seconds.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))).into_iter().collect()
    }
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let mut response = (self.code, self.object().to_string()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().extend(self.headers());
        response
    }
}
