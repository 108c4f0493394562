//! The dashboard's files, as they were built into the binary.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use slipway_apiserver::ApiServer;
use slipway_apiserver::http::session;
use std::sync::Arc;

/// The page, and a folder named after what is in it. Files worth compressing have a twin that ends in `.br`.
#[derive(rust_embed::Embed)]
#[folder = "dashboard/dist"]
#[allow_missing = true]
struct Files;

const PAGE: &str = "index.html";
/// What may run in the page: our own scripts, styles and WebAssembly, nothing from elsewhere and nothing written into the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// A file's folder is named after its content, so it never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// `/` and every page of the dashboard answer its one HTML file; its assets are under `/dashboard/`. Everything else is
/// the API's.
pub fn router(api: &Arc<ApiServer>) -> Router {
    Router::new()
        .route("/dashboard/session", post(session::redeem).delete(session::end))
        .with_state(api.clone())
        .route("/", get(page))
        .route("/ui", get(page))
        .route("/ui/{*path}", get(page))
        .route("/dashboard/{version}/{file}", get(asset))
        .fallback_service(api.router())
}

async fn page(headers: HeaderMap) -> Response {
    answer(PAGE, "no-cache", &headers)
}

async fn asset(Path((version, file)): Path<(String, String)>, headers: HeaderMap) -> Response {
    answer(&format!("{version}/{file}"), FOR_EVER, &headers)
}

fn answer(name: &str, cached: &'static str, asked: &HeaderMap) -> Response {
    let compressed = if takes_brotli(asked) { Files::get(&format!("{name}.br")) } else { None };
    let is_compressed = compressed.is_some();
    let Some(file) = compressed.or_else(|| Files::get(name)) else {
        let why = if name == PAGE { "this slipway was built without its dashboard\n" } else { "no such file\n" };
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    let mut response = Response::new(Body::from(file.data.into_owned()));
    let headers = response.headers_mut();
    if let Ok(mime) = HeaderValue::from_str(mime_guess::from_path(name).first_or_octet_stream().essence_str()) {
        headers.insert(header::CONTENT_TYPE, mime);
    }
    if is_compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    let fixed = [
        (header::CACHE_CONTROL, cached),
        (header::VARY, "accept-encoding"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn takes_brotli(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        name.trim() == "br" && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brotli_is_sent_to_those_who_take_it() {
        let takes = |value: &'static str| {
            takes_brotli(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        let answers = ["gzip, deflate, br", "br;q=0.5", "gzip", "br;q=0", "brotli"].map(takes);
        assert_eq!(answers, [true, true, false, false, false]);
        assert!(!takes_brotli(&HeaderMap::new()));
    }
}
