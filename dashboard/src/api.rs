//! The API over HTTP: requests with the signed-in person's token.

use crate::session::Session;
use gloo_timers::future::TimeoutFuture;
use serde_json::Value;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// How soon what was not answered is asked again.
const AGAIN_MS: u32 = 300;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// 0: no answer came.
    pub code: u16,
    /// In the API's own words, where it had any.
    pub message: String,
}

impl Failure {
    pub fn no_answer() -> Self {
        Failure { code: 0, message: "The cluster does not answer.".into() }
    }
}

/// One request; `body` is sent as JSON.
pub async fn request(session: Session, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    checked(session, |token| async move { answer(token.as_deref(), method, path, body).await }).await
}

pub async fn merge_patch(session: Session, path: &str, patch: &Value) -> Result<Value, Failure> {
    checked(session, |token| async move {
        let response = fetch(token.as_deref(), "PATCH", path, Some((patch, "application/merge-patch+json")), None).await?;
        json(succeeded(response).await?).await
    })
    .await
}

/// Does something with the token, and signs out if the API doesn't know it any more.
async fn checked<T, F: Future<Output = Result<T, Failure>>>(
    session: Session,
    ask: impl FnOnce(Option<String>) -> F,
) -> Result<T, Failure> {
    let token = session.token();
    let result = ask(token.clone()).await;
    if let (Err(Failure { code: 401, .. }), Some(token)) = (&result, token) {
        session.refused(&token);
    }
    result
}

/// One request with the given token.
pub async fn answer(token: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let response = fetch(token, method, path, body.map(|body| (body, "application/json")), None).await?;
    json(succeeded(response).await?).await
}

/// A response to be read while it comes.
pub async fn open(session: Session, path: &str, abort: &web_sys::AbortSignal) -> Result<web_sys::Response, Failure> {
    checked(session, |token| async move {
        let response = fetch(token.as_deref(), "GET", path, None, Some(abort)).await?;
        succeeded(response).await
    })
    .await
}

/// The HTTP status with which a Service answers through the API's proxy. An error of the proxy itself is a failure; whatever
/// the app says is an answer, and no reason to sign anybody out.
pub async fn ask_service(session: Session, path: &str) -> Result<u16, Failure> {
    let response = fetch(session.token().as_deref(), "GET", path, None, None).await?;
    let status = response.status();
    if response.ok() {
        return Ok(status);
    }
    let text = text(&response).await;
    match serde_json::from_str::<Value>(&text) {
        Ok(said) if said["kind"] == "Status" => Err(Failure { code: status, message: message(&said, &text) }),
        _ => Ok(status),
    }
}

async fn succeeded(response: web_sys::Response) -> Result<web_sys::Response, Failure> {
    if response.ok() {
        return Ok(response);
    }
    let text = text(&response).await;
    let said = serde_json::from_str::<Value>(&text).unwrap_or_default();
    Err(Failure { code: response.status(), message: message(&said, &text) })
}

fn message(status: &Value, text: &str) -> String {
    status["message"].as_str().unwrap_or(text).to_owned()
}

async fn json(response: web_sys::Response) -> Result<Value, Failure> {
    let text = text(&response).await;
    serde_json::from_str(&text).map_err(|error| Failure { code: 0, message: format!("The answer is no JSON: {error}") })
}

async fn text(response: &web_sys::Response) -> String {
    match response.text() {
        Ok(promise) => JsFuture::from(promise).await.ok().and_then(|text| text.as_string()).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

async fn fetch(
    token: Option<&str>,
    method: &str,
    path: &str,
    body: Option<(&Value, &str)>,
    abort: Option<&web_sys::AbortSignal>,
) -> Result<web_sys::Response, Failure> {
    let broken = |_: JsValue| Failure::no_answer();
    let headers = web_sys::Headers::new().map_err(broken)?;
    if let Some(token) = token {
        // The browser refuses what can't stand in a header; so would the API.
        let refused = |_| Failure { code: 401, message: "Unauthorized".into() };
        headers.set("Authorization", &format!("Bearer {token}")).map_err(refused)?;
    }
    let options = web_sys::RequestInit::new();
    options.set_method(method);
    if let Some((body, kind)) = body {
        headers.set("Content-Type", kind).map_err(broken)?;
        options.set_body(&JsValue::from_str(&body.to_string()));
    }
    options.set_headers(&headers);
    options.set_signal(abort);
    let window = web_sys::window().ok_or_else(Failure::no_answer)?;
    let mut response = JsFuture::from(window.fetch_with_str_and_init(path, &options)).await;
    // What may be asked twice is, once: a browser drops its connections whenever a network comes or goes.
    let again = abort.is_none() && (method != "POST" || path.contains("dryRun="));
    if response.is_err() && again {
        TimeoutFuture::new(AGAIN_MS).await;
        response = JsFuture::from(window.fetch_with_str_and_init(path, &options)).await;
    }
    response.map_err(broken)?.dyn_into().map_err(broken)
}
