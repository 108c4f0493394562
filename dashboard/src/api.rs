//! The API over HTTP: requests with the signed-in person's token, and lists that stay live by a watch.

use crate::session::{Session, session};
use futures::StreamExt;
use gloo_timers::future::TimeoutFuture;
use js_sys::{Reflect, Uint8Array};
use leptos::prelude::*;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// How long to wait before a broken watch begins again.
const RETRY_MS: u32 = 1_500;

/// Why a request failed, as the API's Status says it.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// 0: no answer came.
    pub code: u16,
    pub message: String,
}

pub type Objects = BTreeMap<String, Arc<Value>>;

/// One request; `body` is sent as JSON.
pub async fn request(session: Session, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let text = send(session, method, path, body.map(|body| (body.to_string(), "application/json"))).await?;
    serde_json::from_str(&text).map_err(|error| Failure { code: 0, message: format!("the answer is no JSON: {error}") })
}

pub async fn merge_patch(session: Session, path: &str, patch: &Value) -> Result<Value, Failure> {
    let text = send(session, "PATCH", path, Some((patch.to_string(), "application/merge-patch+json"))).await?;
    serde_json::from_str(&text).map_err(|error| Failure { code: 0, message: error.to_string() })
}

/// The text of an answer, as for logs and for what a service answers through the API's proxy.
pub async fn text(session: Session, path: &str) -> Result<String, Failure> {
    send(session, "GET", path, None).await
}

async fn send(session: Session, method: &str, path: &str, body: Option<(String, &str)>) -> Result<String, Failure> {
    let response = fetch(session, method, path, body, None).await?;
    let status = response.status();
    let body = match response.text() {
        Ok(promise) => JsFuture::from(promise).await.ok().and_then(|text| text.as_string()).unwrap_or_default(),
        Err(_) => String::new(),
    };
    if response.ok() {
        return Ok(body);
    }
    if status == 401 {
        session.sign_out();
    }
    let said = serde_json::from_str::<Value>(&body).ok().and_then(|status| status["message"].as_str().map(str::to_owned));
    Err(Failure { code: status, message: said.unwrap_or(body) })
}

async fn fetch(
    session: Session,
    method: &str,
    path: &str,
    body: Option<(String, &str)>,
    abort: Option<&web_sys::AbortSignal>,
) -> Result<web_sys::Response, Failure> {
    let broken = |error: JsValue| Failure { code: 0, message: format!("no answer: {error:?}") };
    let headers = web_sys::Headers::new().map_err(broken)?;
    if let Some(token) = session.token_untracked() {
        headers.set("Authorization", &format!("Bearer {token}")).map_err(broken)?;
    }
    let options = web_sys::RequestInit::new();
    options.set_method(method);
    if let Some((body, kind)) = body {
        headers.set("Content-Type", kind).map_err(broken)?;
        options.set_body(&JsValue::from_str(&body));
    }
    options.set_headers(&headers);
    options.set_signal(abort);
    let window = web_sys::window().ok_or_else(|| Failure { code: 0, message: "there is no window".into() })?;
    let response = JsFuture::from(window.fetch_with_str_and_init(path, &options)).await.map_err(broken)?;
    response.dyn_into().map_err(broken)
}

/// The objects of a collection, live for as long as the component that asked is shown.
pub fn live(path: String) -> ReadSignal<Option<Objects>> {
    let (objects, set_objects) = signal(None::<Objects>);
    let session = session();
    let alive = Lifetime::of_owner();
    leptos::task::spawn_local(async move {
        while alive.goes_on() {
            let _ = follow(session, &path, set_objects, &alive).await;
            TimeoutFuture::new(RETRY_MS).await;
        }
    });
    objects
}

/// Lists, then watches until the watch ends.
async fn follow(session: Session, path: &str, objects: WriteSignal<Option<Objects>>, alive: &Lifetime) -> Result<(), Failure> {
    let list = request(session, "GET", path, None).await?;
    let kind = list["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let mut version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
    let found = items.into_iter().map(|mut item| {
        item["kind"] = kind.clone().into();
        (key(&item), Arc::new(item))
    });
    let found: Objects = found.collect();
    if !alive.goes_on() {
        return Ok(());
    }
    objects.set(Some(found));
    let separator = if path.contains('?') { '&' } else { '?' };
    let watch = format!("{path}{separator}watch=true&allowWatchBookmarks=true&resourceVersion={version}");
    lines(session, &watch, alive, |line| {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return true };
        let object = event["object"].clone();
        if let Some(new) = object["metadata"]["resourceVersion"].as_str() {
            version = new.to_owned();
        }
        match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") => {
                objects.update(|all| _ = all.get_or_insert_default().insert(key(&object), Arc::new(object)));
            }
            Some("DELETED") => objects.update(|all| _ = all.get_or_insert_default().remove(&key(&object))),
            Some("ERROR") => return false,
            _ => {}
        }
        true
    })
    .await
}

fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    format!("{}/{}", metadata["namespace"].as_str().unwrap_or_default(), metadata["name"].as_str().unwrap_or_default())
}

/// Reads an endless answer line by line, until it ends, `each` says so, or nobody looks at it any more.
pub async fn lines(session: Session, path: &str, alive: &Lifetime, mut each: impl FnMut(&str) -> bool) -> Result<(), Failure> {
    let controller = web_sys::AbortController::new().ok();
    let signal = controller.as_ref().map(web_sys::AbortController::signal);
    let response = fetch(session, "GET", path, None, signal.as_ref()).await?;
    if !response.ok() {
        return Err(Failure { code: response.status(), message: response.status_text() });
    }
    let Some(body) = response.body() else { return Ok(()) };
    if let Some(controller) = controller {
        alive.abort_with(controller);
    }
    let reader: web_sys::ReadableStreamDefaultReader =
        body.get_reader().dyn_into().map_err(|_| Failure { code: 0, message: "the answer can't be read".into() })?;
    let mut chunks = Box::pin(futures::stream::unfold(reader, |reader| async move {
        let read = JsFuture::from(reader.read()).await.ok()?;
        let done = Reflect::get(&read, &"done".into()).ok()?.as_bool().unwrap_or(true);
        let bytes: Uint8Array = Reflect::get(&read, &"value".into()).ok()?.dyn_into().ok()?;
        (!done).then(|| (bytes.to_vec(), reader))
    }));
    let mut pending = Vec::new();
    while let Some(bytes) = chunks.next().await {
        pending.extend_from_slice(&bytes);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if !alive.goes_on() || !each(String::from_utf8_lossy(&line).trim_end()) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether the component that began something is still shown. When it goes, what it was reading is cut off.
#[derive(Clone)]
pub struct Lifetime {
    ended: Rc<Cell<bool>>,
    reading: Rc<Cell<Option<web_sys::AbortController>>>,
}

impl Lifetime {
    pub fn of_owner() -> Self {
        let lifetime = Lifetime { ended: Rc::default(), reading: Rc::default() };
        let held = send_wrapper(lifetime.clone());
        on_cleanup(move || held.with(|lifetime| lifetime.end()));
        lifetime
    }

    pub fn goes_on(&self) -> bool {
        !self.ended.get()
    }

    fn end(&self) {
        self.ended.set(true);
        if let Some(controller) = self.reading.take() {
            controller.abort();
        }
    }

    fn abort_with(&self, controller: web_sys::AbortController) {
        self.reading.set(Some(controller));
    }
}

/// Clean-up handlers must be `Send`; in the browser there is one thread, so a local value may pose as one that is.
fn send_wrapper(lifetime: Lifetime) -> StoredValue<Lifetime, LocalStorage> {
    StoredValue::new_local(lifetime)
}

trait With {
    fn with(&self, f: impl FnOnce(&Lifetime));
}

impl With for StoredValue<Lifetime, LocalStorage> {
    fn with(&self, f: impl FnOnce(&Lifetime)) {
        let _ = self.try_with_value(f);
    }
}
