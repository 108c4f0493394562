//! WATCH: the changes of what a list would show, one JSON document a line, or one frame of protobuf each.
//!
//! A change is encoded once for all watchers that ask for the object as it is; they only copy the bytes.

use crate::custom_resources::{present, present_all, presented};
use crate::http::Call;
use crate::http::error::Status;
use crate::http::negotiate::{Accept, Form, Media};
use crate::http::{protobuf, respond};
use crate::kind::Strategy;
use crate::server::ApiServer;
use crate::stored::{self, Attributes, Change, Entry};
use crate::table::{self, IncludeObject};
use crate::verbs::list_options::{ListOptions, Selection, Version, snapshot};
use crate::verbs::status_of;
use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use http::{HeaderValue, header};
use rand::RngExt;
use serde_json::{Value, json};
use slipway_store::{Revision, cache};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a watch lasts that names no timeout: at least this, at most twice as long, so that not all end at once.
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);
/// Nobody means more by what is asked for; some of it is more than a clock can hold.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A last bookmark comes this long before the end, so that the client can go on from there.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// How much is gathered into one write.
const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Added,
    Modified,
    Deleted,
}

impl Type {
    /// The slot in `Change::encoded`.
    fn slot(self, media: Media) -> usize {
        self as usize + if media == Media::Protobuf { 3 } else { 0 }
    }

    fn as_str(self) -> &'static str {
        match self {
            Type::Added => "ADDED",
            Type::Modified => "MODIFIED",
            Type::Deleted => "DELETED",
        }
    }
}

pub async fn watch(call: Call) -> Result<Response, Status> {
    let accept = call.accept()?;
    if accept.form == Form::MetadataList {
        return Err(respond::not_a_list(call.strategy.names().kind));
    }
    let include = IncludeObject::parse(call.info.query.get("includeObject"))?;
    let options = ListOptions::parse(&call.info.query, &*call.strategy)?;
    let selection = Selection::new(&call.strategy, call.info.namespace.as_deref(), &options);
    let opened = open(&call, &options, &selection).await;
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds).min(TIMEOUT_MAX),
        _ => TIMEOUT_MIN.mul_f64(rand::rng().random_range(1.0..2.0)),
    };
    let now = Instant::now();
    let stream = Stream {
        shown: Shown {
            strategy: Arc::clone(&call.strategy),
            server: Arc::clone(&call.server),
            accept,
            message: protobuf::of_strategy(&*call.strategy).filter(|_| accept.media == Media::Protobuf),
            include,
            headers: true,
        },
        selection,
        source: opened,
        end: now + timeout,
        next_bookmark: options.bookmarks.then(|| now + BOOKMARK_EVERY.min(timeout.saturating_sub(BOOKMARK_BEFORE_END))),
        initial_end: options.send_initial_events == Some(true) && options.bookmarks,
    };
    let frames = futures::stream::unfold(Some(stream), |stream| async move {
        let mut stream = stream?;
        let (bytes, more) = stream.next().await?;
        Some((bytes, more.then_some(stream)))
    });
    let mut response = Response::new(Body::new(call.server.stalls.body(frames.boxed())));
    let content_type = match accept.media {
        Media::Protobuf => protobuf::WATCH_CONTENT_TYPE,
        _ => "application/json",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// Where the events come from.
struct Source {
    /// What exists already, to be sent as ADDED first.
    initial: std::vec::IntoIter<Arc<Entry>>,
    changes: cache::Watcher<Attributes>,
    /// All changes up to here have been looked at.
    revision: Revision,
}

/// A refusal after the request was understood is an event of the stream, as in Kubernetes.
async fn open(call: &Call, options: &ListOptions, selection: &Selection) -> Result<Source, Status> {
    let names = call.strategy.names();
    let initial = options.send_initial_events.unwrap_or(!matches!(options.version, Version::At(_)));
    let (entries, revision) = match options.version {
        Version::At(revision) if !initial => (vec![], revision),
        version => {
            let snapshot = snapshot(&call.server, names, version).await?;
            stored::check_all_readable(&call.server.options.encryption, &snapshot, &selection.prefix)?;
            let revision = snapshot.revision;
            let snapshot = match initial && !selection.is_everything() {
                true => presented(&call.server, &*call.strategy, &selection.prefix, snapshot).await?,
                false => snapshot,
            };
            let entries = if initial { selection.entries(&snapshot) } else { vec![] };
            (present_all(&call.server, &*call.strategy, entries).await?, revision)
        }
    };
    let changes = call.server.cache.watch(&selection.prefix, revision).map_err(|error| match error {
        slipway_store::Error::Compacted { oldest } => Status::expired(format!("too old resource version: {revision} ({oldest})")),
        error => status_of(error, names, ""),
    })?;
    Ok(Source { initial: entries.into_iter(), changes, revision })
}

struct Stream {
    shown: Shown,
    selection: Selection,
    source: Result<Source, Status>,
    end: Instant,
    next_bookmark: Option<Instant>,
    /// Whether the end of the initial events is still to be told.
    initial_end: bool,
}

impl Stream {
    /// The next bytes, and whether more follow; `None`: the end.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        let source = match &mut self.source {
            Ok(source) => source,
            Err(status) => return Some((self.shown.error(status), false)),
        };
        if source.initial.len() > 0 {
            return Some((initial_chunk(&mut source.initial, &mut self.shown), true));
        }
        if std::mem::take(&mut self.initial_end) {
            return Some((self.shown.bookmark(source.revision, true), true));
        }
        loop {
            let bookmark = self.next_bookmark.unwrap_or(self.end + BOOKMARK_EVERY);
            let item = tokio::select! {
                biased;
                () = self.shown.server.closing() => return None,
                () = tokio::time::sleep_until(self.end) => return None,
                () = tokio::time::sleep_until(bookmark) => {
                    self.next_bookmark = Some(next_bookmark(bookmark, self.end));
                    return Some((self.shown.bookmark(source.revision, false), true));
                }
                item = source.changes.next() => item,
            };
            match item {
                Ok(item) => {
                    let item = match self.shown.present(item, &self.selection).await {
                        Ok(item) => item,
                        Err(status) => return Some((self.shown.error(&status), false)),
                    };
                    let first = take(item, source, &self.selection, &mut self.shown);
                    if let Some(first) = first {
                        return Some(gather(first, source, &self.selection, &mut self.shown).await);
                    }
                }
                Err(slipway_store::Error::Closed) => return None,
                Err(error) => {
                    let status = status_of(error, self.shown.strategy.names(), "");
                    return Some((self.shown.error(&status), false));
                }
            }
        }
    }
}

fn next_bookmark(last: Instant, end: Instant) -> Instant {
    let before_end = end - BOOKMARK_BEFORE_END;
    if last < before_end { (last + BOOKMARK_EVERY).min(before_end) } else { end + BOOKMARK_EVERY }
}

/// What is ready at once behind `first`, together with it; and whether more follows.
async fn gather(first: Bytes, source: &mut Source, selection: &Selection, shown: &mut Shown) -> (Bytes, bool) {
    let mut chunk: Option<BytesMut> = None;
    let (mut len, mut more) = (first.len(), true);
    while len < CHUNK_BYTES {
        // An error comes again with the next call.
        let Some(Ok(item)) = source.changes.next().now_or_never() else { break };
        let bytes = match shown.present(item, selection).await {
            Ok(item) => take(item, source, selection, shown),
            // What cannot be shown must not be passed over.
            Err(status) => {
                more = false;
                Some(shown.error(&status))
            }
        };
        if let Some(bytes) = bytes {
            len += bytes.len();
            chunk.get_or_insert_with(|| BytesMut::from(&first[..])).put(bytes);
        }
        if !more {
            break;
        }
    }
    (chunk.map_or(first, BytesMut::freeze), more)
}

/// The event that a change is to this watcher, if it is one.
fn take(item: cache::Item<Attributes>, source: &mut Source, selection: &Selection, shown: &mut Shown) -> Option<Bytes> {
    match item {
        cache::Item::Progress(revision) => {
            source.revision = source.revision.max(revision);
            None
        }
        cache::Item::Change(change) => {
            source.revision = change.revision;
            let type_ = type_of(&change, selection)?;
            Some(shown.change(&change, type_))
        }
    }
}

/// An object that begins to match is added, one that ceases to is deleted.
fn type_of(change: &Change, selection: &Selection) -> Option<Type> {
    let before = change.before.as_ref().is_some_and(|entry| selection.matches(entry));
    let now = selection.matches(&change.now);
    match (change.deleted, before, now) {
        (true, false, false) | (false, false, false) => None,
        (true, ..) | (false, true, false) => Some(Type::Deleted),
        (false, false, true) => Some(Type::Added),
        (false, true, true) => Some(Type::Modified),
    }
}

fn initial_chunk(entries: &mut std::vec::IntoIter<Arc<Entry>>, shown: &mut Shown) -> Bytes {
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    for entry in entries.by_ref() {
        shown.entry(&mut chunk, Type::Added, &entry);
        if chunk.len() >= CHUNK_BYTES {
            break;
        }
    }
    chunk.freeze()
}

/// How this watcher is shown objects.
struct Shown {
    strategy: Arc<dyn Strategy>,
    server: Arc<ApiServer>,
    accept: Accept,
    /// Where objects are sent in protobuf.
    message: Option<&'static protobuf::Message>,
    include: IncludeObject,
    /// Whether the next Table is the first, which alone tells the columns.
    headers: bool,
}

impl Shown {
    /// Whether objects are sent as the cache has them.
    fn is_raw(&self) -> bool {
        self.accept.form == Form::Object && self.strategy.names().stored_as.is_none()
    }

    /// The objects of a custom kind are shown in the version that is watched.
    async fn present(&self, item: cache::Item<Attributes>, selection: &Selection) -> Result<cache::Item<Attributes>, Status> {
        let cache::Item::Change(change) = item else { return Ok(item) };
        if self.strategy.custom().is_none() {
            return Ok(cache::Item::Change(change));
        }
        let now = present(&self.server, &*self.strategy, &change.now).await?;
        let before = match &change.before {
            // What it was counts where it may have ceased to match.
            Some(before) if !selection.is_everything() => Some(present(&self.server, &*self.strategy, before).await?),
            before => before.clone(),
        };
        let same_before = before.as_ref().zip(change.before.as_ref()).is_none_or(|(one, other)| Arc::ptr_eq(one, other));
        if Arc::ptr_eq(&now, &change.now) && same_before {
            return Ok(cache::Item::Change(change));
        }
        let (revision, key, deleted) = (change.revision, Arc::clone(&change.key), change.deleted);
        Ok(cache::Item::Change(Arc::new(Change { revision, key, now, before, deleted, encoded: Default::default() })))
    }

    fn change(&mut self, change: &Change, type_: Type) -> Bytes {
        if let Err(status) = stored::check_readable(&change.now) {
            return self.error(&status);
        }
        let slot = self.is_raw().then(|| &change.encoded[type_.slot(self.accept.media)]);
        if let Some(encoded) = slot.and_then(std::sync::OnceLock::get) {
            return encoded.clone();
        }
        let mut bytes = BytesMut::with_capacity(change.now.bytes.len() + 40);
        match (&change.before, type_, change.deleted) {
            // What ceased to match is shown as it last matched, at the revision of the change.
            (Some(before), Type::Deleted, false) => {
                self.event(&mut bytes, type_, &stored::with_revision(&before.bytes, change.revision));
            }
            _ => self.entry(&mut bytes, type_, &change.now),
        }
        let bytes = bytes.freeze();
        slot.map_or(bytes.clone(), |slot| slot.get_or_init(|| bytes).clone())
    }

    fn entry(&mut self, out: &mut BytesMut, type_: Type, entry: &Entry) {
        match self.message.filter(|_| self.is_raw()) {
            None => self.event(out, type_, &entry.bytes),
            Some(message) => match stored::protobuf(entry, message) {
                Ok(object) => self.raw_protobuf(out, type_, &object),
                Err(status) => out.put(self.error(&status)),
            },
        }
    }

    fn raw_protobuf(&self, out: &mut BytesMut, type_: Type, object: &[u8]) {
        let head = protobuf::wrapped(self.strategy.names(), false, object.len());
        out.put(protobuf::watch_event(type_.as_str(), &head, object));
    }

    /// An event of an object's JSON.
    fn event(&mut self, out: &mut BytesMut, type_: Type, object: &Bytes) {
        if self.is_raw() && self.accept.media == Media::Json {
            out.put_slice(b"{\"type\":\"");
            out.put_slice(type_.as_str().as_bytes());
            out.put_slice(b"\",\"object\":");
            out.put_slice(object);
            out.put_slice(b"}\n");
            return;
        }
        let object = stored::decode(&*self.strategy, object).unwrap_or_default();
        let shown = self.show(object);
        out.put(self.value(type_.as_str(), shown));
    }

    fn value(&self, type_: &str, object: Value) -> Bytes {
        let object = if self.accept.beta { table::beta(object) } else { object };
        if self.accept.media != Media::Protobuf {
            return format!("{}\n", json!({"type": type_, "object": object})).into();
        }
        match protobuf::encode(&object) {
            Some(Ok(body)) => protobuf::watch_event(type_, &[], &body),
            // What is shown here always has a message.
            _ => Bytes::new(),
        }
    }

    fn show(&mut self, object: Value) -> Value {
        match self.accept.form {
            Form::Object => object,
            Form::Metadata | Form::MetadataList => table::partial(&object),
            Form::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let headers = std::mem::take(&mut self.headers);
                table::table(&*self.strategy, &[object], metadata, headers, self.include, self.server.now())
            }
        }
    }

    /// How far the watcher has come, though nothing happened to what it watches.
    fn bookmark(&self, revision: Revision, initial_end: bool) -> Bytes {
        let names = self.strategy.names();
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.accept.form {
            Form::Object => json!({"kind": names.kind, "apiVersion": names.api_version(), "metadata": metadata}),
            Form::Metadata | Form::MetadataList => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()},
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                }}],
            }),
        };
        self.value("BOOKMARK", object)
    }

    fn error(&self, status: &Status) -> Bytes {
        self.value("ERROR", status.object())
    }
}
