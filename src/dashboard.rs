//! The dashboard's files, as they were built into the binary.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use slipway_apiserver::ApiServer;
use std::sync::Arc;

#[derive(rust_embed::Embed)]
#[folder = "dashboard/dist"]
#[allow_missing = true]
struct Files;

/// What may run in the page: our own scripts and WebAssembly, nothing from elsewhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' 'unsafe-inline'; \
     style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

/// `/` and every page of the dashboard answer its one HTML file; its assets are under `/dashboard/`. Everything else is
/// the API's.
pub fn router(api: &Arc<ApiServer>) -> Router {
    Router::new()
        .route("/dashboard/session", axum::routing::post(slipway_apiserver::http::session::redeem))
        .with_state(api.clone())
        .route("/", axum::routing::get(|| async { page() }))
        .route("/ui", axum::routing::get(|| async { page() }))
        .route("/ui/{*path}", axum::routing::get(|| async { page() }))
        .route("/dashboard/{file}", axum::routing::get(|Path(file): Path<String>| async move { asset(&file) }))
        .fallback_service(api.router())
}

fn page() -> Response {
    asset("index.html")
}

fn asset(name: &str) -> Response {
    let Some(file) = Files::get(name) else {
        let why = if name == "index.html" { "this slipway was built without its dashboard\n" } else { "no such file\n" };
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    let mut response = Response::new(Body::from(file.data.into_owned()));
    let mime = mime_guess::from_path(name).first_or_octet_stream();
    let headers = response.headers_mut();
    if let Ok(mime) = HeaderValue::from_str(mime.essence_str()) {
        headers.insert(header::CONTENT_TYPE, mime);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    response
}
