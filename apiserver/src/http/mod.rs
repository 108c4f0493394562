//! From a connection to a request that a verb can carry out, and back.

pub mod authenticate;
pub mod error;
pub mod limits;
pub mod negotiate;
pub mod query;
pub mod request_info;
pub mod respond;

use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::http::negotiate::Accept;
use crate::http::request_info::{RequestInfo, Verb};
use crate::kind::Strategy;
use crate::openapi::FieldValidation;
use crate::server::ApiServer;
use crate::verbs;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use http::request::Parts;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;

/// One authorised request for a resource that is served.
pub struct Call {
    pub server: Arc<ApiServer>,
    pub strategy: Arc<dyn Strategy>,
    pub user: User,
    pub info: RequestInfo,
    /// Method, headers and extensions (among them hyper's `OnUpgrade`).
    pub parts: Parts,
    body: Mutex<Body>,
}

impl Call {
    /// Empty for kinds of the cluster.
    pub fn namespace(&self) -> &str {
        if self.strategy.names().namespaced { self.info.namespace.as_deref().unwrap_or_default() } else { "" }
    }

    pub fn name(&self) -> &str {
        self.info.name.as_deref().unwrap_or_default()
    }

    pub fn accept(&self) -> Result<Accept, Status> {
        Accept::parse(&self.parts.headers)
    }

    pub fn content_type(&self) -> &str {
        self.parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body; empty the second time.
    pub fn take_body(&self) -> Body {
        std::mem::take(&mut *self.body.lock())
    }

    /// Reads the body, up to `limits::BODY_BYTES_MAX`.
    pub async fn read_body(&self) -> Result<Bytes, Status> {
        limits::read(self.take_body()).await
    }

    /// Reads and decodes an object of the call's kind (see `openapi::decode`).
    pub async fn read_object(&self) -> Result<(Value, Vec<String>), Status> {
        let body = self.read_body().await?;
        crate::openapi::decode(&*self.strategy, &body, self.content_type(), self.field_validation()?)
    }

    pub fn field_validation(&self) -> Result<FieldValidation, Status> {
        FieldValidation::parse(self.info.query.get("fieldValidation"))
    }
}

pub fn router(server: Arc<ApiServer>) -> Router {
    Router::new().fallback(handle).with_state(server)
}

async fn handle(State(server): State<Arc<ApiServer>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match dispatch(server, parts, body).await {
        Ok(response) => response,
        Err(status) => status.into_response(),
    }
}

async fn dispatch(server: Arc<ApiServer>, parts: Parts, body: Body) -> Result<Response, Status> {
    let info = RequestInfo::parse(&parts.method, &parts.uri);
    let user = parts.extensions.get::<User>().cloned().ok_or_else(Status::unauthorized)?;
    if !info.is_resource {
        return crate::discovery::respond(&server, &parts).unwrap_or_else(|| Err(Status::no_such_path()));
    }
    if let Some(review) = crate::subresources::review::find(&info.group, &info.version, &info.resource) {
        let strategy = server.strategy("", "v1", "pods").ok_or_else(Status::no_such_path)?.clone();
        let call = Call { server, strategy, user, info, parts, body: Mutex::new(body) };
        return crate::subresources::review::create(call, review).await;
    }
    let strategy = server.strategy(&info.group, &info.version, &info.resource).ok_or_else(Status::no_such_path)?.clone();
    let call = Call { server, strategy, user, info, parts, body: Mutex::new(body) };
    serve(call).await
}

/// Hands a call to its verb.
async fn serve(call: Call) -> Result<Response, Status> {
    let names = call.strategy.names();
    if !names.namespaced && call.info.namespace.is_some() && names.plural != "namespaces" {
        return Err(Status::no_such_path());
    }
    match call.info.subresource.as_str() {
        "" => {}
        "status" if names.status && call.info.rest.is_empty() => {}
        _ => return crate::subresources::handle(call).await,
    }
    let across = names.namespaced && call.info.namespace.is_none();
    match call.info.verb {
        Verb::Get if !across => verbs::get::get(call).await,
        Verb::List => verbs::list::list(call).await,
        Verb::Watch => verbs::watch::watch(call).await,
        Verb::Create if !across && call.info.name.is_none() => verbs::create::create(call).await,
        Verb::Update if !across && call.info.name.is_some() => verbs::update::update(call).await,
        Verb::Patch if !across && call.info.name.is_some() => verbs::patch::patch(call).await,
        Verb::Delete if !across && call.info.subresource.is_empty() => verbs::delete::delete(call).await,
        Verb::DeleteCollection if !across => verbs::delete::delete_collection(call).await,
        _ => Err(Status::method_not_allowed()),
    }
}
