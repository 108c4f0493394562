//! Collections that stay live by a watch, and answers that are read while they come.

use crate::api::{self, Failure};
use crate::session::{Session, session};
use gloo_timers::future::TimeoutFuture;
use js_sys::{Reflect, Uint8Array};
use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::Value;
use slipway_dashboard_model::{Objects, key, text};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;

/// How long to wait before a broken watch begins again.
const RETRY_MS: u32 = 1_500;
/// The same for a collection that was refused: rights change seldom.
const REFUSED_RETRY_MS: u32 = 15_000;
/// The first time it is tried again sooner, and nobody is told: a browser breaks all connections when a network comes or goes, as
/// each pod's does on the machine that runs it.
const FIRST_RETRY_MS: u32 = 250;
/// A watch that ended in order goes on at once, but never in a tight loop.
const AGAIN_MS: u32 = 200;

/// Whether the cluster answers.
#[derive(Clone, Copy)]
pub struct Connection(RwSignal<bool>);

impl Connection {
    pub fn provide() {
        provide_context(Connection(RwSignal::new(false)));
    }

    pub fn is_lost(self) -> bool {
        self.0.get()
    }

    fn set_lost(self, lost: bool) {
        if self.0.try_get_untracked() != Some(lost) {
            self.0.try_set(lost);
        }
    }
}

pub fn connection() -> Connection {
    expect_context::<Connection>()
}

/// The objects of a collection, live for as long as the component that asked is shown.
#[derive(Clone, Copy)]
pub struct Live {
    /// `None` until the first list has come.
    pub objects: RwSignal<Option<Objects>>,
    /// Why the collection can't be seen.
    pub failure: RwSignal<Option<Failure>>,
}

impl Live {
    /// What `look` finds in the objects; of none while there are none.
    pub fn with<T>(self, look: impl FnOnce(&Objects) -> T) -> T {
        self.objects.with(|objects| match objects {
            Some(objects) => look(objects),
            None => look(&Objects::new()),
        })
    }
}

pub fn live(path: String) -> Live {
    let live = Live { objects: RwSignal::new(None), failure: RwSignal::new(None) };
    let (session, connection, alive) = (session(), connection(), Lifetime::of_owner());
    spawn_local(async move {
        let (mut version, failures) = (None, Cell::new(0));
        while alive.goes_on() {
            let result = follow(session, &path, live, &alive, &mut version, || {
                failures.set(0);
                connection.set_lost(false);
            })
            .await;
            if !alive.goes_on() {
                return;
            }
            let pause = match result {
                Ok(()) => AGAIN_MS,
                Err(failure) => {
                    // Where a broken watch was is still known; what it says is too old has to be listed anew.
                    let lost = failure.code == 0 || failure.code >= 500;
                    version = version.filter(|_| lost);
                    failures.set(failures.get() + 1);
                    connection.set_lost(lost && failures.get() > 1);
                    if lost || failure.code == 410 {
                        if failures.get() == 1 { FIRST_RETRY_MS } else { RETRY_MS }
                    } else {
                        live.failure.set(Some(failure));
                        REFUSED_RETRY_MS
                    }
                }
            };
            TimeoutFuture::new(pause).await;
        }
    });
    live
}

/// Lists unless `version` says from where to go on, then watches until the watch ends.
async fn follow(
    session: Session,
    path: &str,
    live: Live,
    alive: &Lifetime,
    version: &mut Option<String>,
    opened: impl FnOnce(),
) -> Result<(), Failure> {
    let from = match version.clone() {
        Some(from) => from,
        None => {
            let list = api::request(session, "GET", path, None).await?;
            if !alive.goes_on() {
                return Ok(());
            }
            let items = list["items"].as_array().cloned().unwrap_or_default();
            live.objects.set(Some(items.into_iter().map(|item| (key(&item), Arc::new(item))).collect()));
            live.failure.set(None);
            text(&list, "/metadata/resourceVersion").to_owned()
        }
    };
    *version = Some(from.clone());
    let separator = if path.contains('?') { '&' } else { '?' };
    let watch = format!("{path}{separator}watch=true&allowWatchBookmarks=true&resourceVersion={from}");
    let mut error = None;
    lines_from(session, &watch, alive, opened, |lines| {
        live.objects.maybe_update(|objects| {
            let objects = objects.get_or_insert_default();
            let changes = lines.iter().map(|line| take(objects, line, version, &mut error));
            changes.fold(false, |any, changed| any | changed)
        });
        error.is_none()
    })
    .await?;
    error.map_or(Ok(()), Err)
}

/// Takes one event in; whether that changed anything.
fn take(objects: &mut Objects, line: &str, version: &mut Option<String>, error: &mut Option<Failure>) -> bool {
    let Ok(mut event) = serde_json::from_str::<Value>(line) else { return false };
    let object = event["object"].take();
    let new = text(&object, "/metadata/resourceVersion");
    if !new.is_empty() {
        *version = Some(new.to_owned());
    }
    match event["type"].as_str() {
        Some("ADDED" | "MODIFIED") => {
            objects.insert(key(&object), Arc::new(object));
            true
        }
        Some("DELETED") => objects.remove(&key(&object)).is_some(),
        Some("ERROR") => {
            *error = Some(Failure { code: 410, message: text(&object, "/message").to_owned() });
            false
        }
        _ => false,
    }
}

/// Reads an endless answer line by line, those that came together at once, until it ends, `each` says so, or nobody looks at it
/// any more.
pub async fn lines(session: Session, path: &str, alive: &Lifetime, each: impl FnMut(&[String]) -> bool) -> Result<(), Failure> {
    lines_from(session, path, alive, || (), each).await
}

/// The same, with something to do as soon as the answer begins.
async fn lines_from(
    session: Session,
    path: &str,
    alive: &Lifetime,
    opened: impl FnOnce(),
    mut each: impl FnMut(&[String]) -> bool,
) -> Result<(), Failure> {
    let Ok(controller) = web_sys::AbortController::new() else { return Err(Failure::no_answer()) };
    alive.abort_with(controller.clone());
    let result = read(session, path, &controller.signal(), alive, opened, &mut each).await;
    controller.abort();
    result
}

async fn read(
    session: Session,
    path: &str,
    abort: &web_sys::AbortSignal,
    alive: &Lifetime,
    opened: impl FnOnce(),
    each: &mut impl FnMut(&[String]) -> bool,
) -> Result<(), Failure> {
    let Some(body) = api::open(session, path, abort).await?.body() else { return Ok(()) };
    opened();
    let reader: web_sys::ReadableStreamDefaultReader = body.get_reader().dyn_into().map_err(|_| Failure::no_answer())?;
    let mut pending = Vec::new();
    loop {
        let read = JsFuture::from(reader.read()).await.map_err(|_| Failure::no_answer())?;
        let done = Reflect::get(&read, &"done".into()).ok().and_then(|done| done.as_bool()).unwrap_or(true);
        let bytes = Reflect::get(&read, &"value".into()).ok().and_then(|value| value.dyn_into::<Uint8Array>().ok());
        pending.extend(bytes.map(|bytes| bytes.to_vec()).unwrap_or_default());
        let end = if done { pending.len() } else { pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
        let whole: Vec<u8> = pending.drain(..end).collect();
        let lines: Vec<String> = String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect();
        if !alive.goes_on() || (!lines.is_empty() && !each(&lines)) || done {
            return Ok(());
        }
    }
}

/// Whether the component that began something is still shown. When it goes, what it was reading is cut off.
#[derive(Clone, Default)]
pub struct Lifetime {
    ended: Rc<Cell<bool>>,
    reading: Rc<Cell<Option<web_sys::AbortController>>>,
}

impl Lifetime {
    pub fn of_owner() -> Self {
        let lifetime = Lifetime::default();
        // Clean-up handlers must be `Send`; the browser has one thread, so a local value can be held for it.
        let held = StoredValue::new_local(lifetime.clone());
        on_cleanup(move || _ = held.try_with_value(Lifetime::end));
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
        if self.ended.get() {
            controller.abort();
        } else {
            self.reading.set(Some(controller));
        }
    }
}
