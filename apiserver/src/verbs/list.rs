//! GET of a collection.
//!
//! The objects are written as the cache has them: nothing is parsed or serialised, unless the client asks for another
//! form (Table, metadata, YAML).

use crate::custom_resources::{present_all, presented};
use crate::http::Call;
use crate::http::compression::{self, Object, Wire};
use crate::http::error::Status;
use crate::http::negotiate::{self, Accept, Form, Media};
use crate::http::{protobuf, respond};
use crate::stored::{self, Entry, Snapshot};
use crate::table::{self, IncludeObject};
use crate::verbs::list_options::{Continue, ListOptions, Selection, Version, VersionMatch, snapshot};
use crate::verbs::status_of;
use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde_json::{Value, json};
use slipway_store::Revision;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// How much of a list is copied together before it is written. Below the size from which the allocator maps fresh pages
/// each time, for touching those costs more than the copy.
const CHUNK_BYTES: usize = 64 * 1024;

pub async fn list(call: Call) -> Result<Response, Status> {
    let accept = call.accept()?;
    let options = ListOptions::parse(&call.info.query, &*call.strategy)?;
    let selection = Selection::new(&call.strategy, call.info.namespace.as_deref(), &options);
    let (snapshot, prefix) = moment(&call, &options, &selection).await?;
    stored::check_all_readable(&call.server.options.encryption, &snapshot, &selection.prefix)?;
    let seen = match selection.is_everything() {
        true => snapshot.clone(),
        false => presented(&call.server, &*call.strategy, &selection.prefix, snapshot.clone()).await?,
    };
    let mut page = select(seen, selection, options).await?;
    page.entries = present_all(&call.server, &*call.strategy, page.entries).await?;
    if page.next.is_some() {
        call.server.cache.pin(&snapshot, &prefix);
    }
    let cached = accept.form == Form::Object && call.strategy.names().stored_as.is_none();
    match accept.media {
        Media::Json if cached => Ok(raw_response(&call, page)),
        Media::Protobuf if cached => protobuf_response(&call, page).await,
        _ => shown(call, accept, page).await,
    }
}

/// The state that is listed, and the prefix of the keys that it has all of.
async fn moment(call: &Call, options: &ListOptions, selection: &Selection) -> Result<(Snapshot, String), Status> {
    let names = call.strategy.names();
    let newest = match (&options.continue_from, options.version, options.version_match) {
        (Some(token), ..) if token.rv == Continue::INCONSISTENT => Version::Newest,
        (Some(token), ..) => return exact(call, selection, token.rv, Some(token)).await,
        // Without a match, a version with a limit means just this version, as Kubernetes has it.
        (None, Version::At(revision), matching)
            if matching == Some(VersionMatch::Exact) || (matching.is_none() && options.limit > 0) =>
        {
            return exact(call, selection, revision, None).await;
        }
        (None, version, _) => version,
    };
    Ok((snapshot(&call.server, names, newest).await?, String::new()))
}

/// The state at just this revision: pinned, or read from the store's history, when another server has given the token or this
/// one has forgotten.
async fn exact(
    call: &Call,
    selection: &Selection,
    revision: Revision,
    token: Option<&Continue>,
) -> Result<(Snapshot, String), Status> {
    if let Ok(pinned) = call.server.cache.pinned(revision, &selection.prefix) {
        return Ok(pinned);
    }
    let names = call.strategy.names();
    snapshot(&call.server, names, Version::At(revision)).await?;
    let range = slipway_store::Range {
        start: selection.prefix.clone(),
        end: stored::prefix_end(&selection.prefix),
        at: Some(revision),
        limit: 0,
    };
    let page = call.server.store.range(range).await.map_err(|error| match (error, token) {
        (slipway_store::Error::Compacted { .. }, Some(token)) => expired(token),
        (error, _) => status_of(error, names, ""),
    })?;
    let ingest = stored::ingest(vec![Arc::clone(&call.strategy)], Arc::clone(&call.server.options.encryption));
    let objects = page.records.into_iter().map(|record| {
        let (bytes, attributes) = ingest(&record.key, record.mod_revision, &record.value);
        let entry = Entry {
            key: Arc::clone(&record.key),
            bytes,
            attributes,
            create_revision: record.create_revision,
            mod_revision: record.mod_revision,
            version: record.version,
        };
        (record.key, Arc::new(entry))
    });
    let snapshot = Snapshot { revision, objects: objects.collect() };
    Ok((snapshot, selection.prefix.clone()))
}

/// Kubernetes lets the client choose: begin again, or go on inconsistently with the token in this answer.
fn expired(token: &Continue) -> Status {
    let next = Continue::new(Continue::INCONSISTENT, &token.start).encode();
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.metadata = Box::new(json!({"continue": next}));
    status
}

struct Page {
    entries: Vec<Arc<Entry>>,
    revision: Revision,
    next: Option<Continue>,
    /// Known only when nothing is filtered.
    remaining: Option<usize>,
}

impl Page {
    fn of(snapshot: &Snapshot, selection: &Selection, options: &ListOptions) -> Page {
        let revision = snapshot.revision;
        let start = options.continue_from.as_ref().map_or("", |token| token.start.as_str());
        if options.limit == 0 && start.is_empty() {
            return Page { entries: selection.entries(snapshot), revision, next: None, remaining: None };
        }
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let mut rest = selection.after(snapshot, start);
        let mut entries: Vec<Arc<Entry>> = rest.by_ref().filter(|entry| selection.matches(entry)).take(limit).cloned().collect();
        entries.shrink_to_fit();
        // Whether more follows is known only from the next match.
        let mut more = false;
        let mut remaining = 0;
        if selection.is_everything() {
            remaining = rest.count();
            more = remaining > 0;
        } else if entries.len() == limit {
            more = rest.any(|entry| selection.matches(entry));
        }
        let last = entries.last().filter(|_| more).and_then(|entry| entry.key.strip_prefix(selection.prefix.as_str()));
        let next = last.map(|last| Continue::new(revision, last));
        let remaining = (next.is_some() && selection.is_everything()).then_some(remaining);
        Page { entries, revision, next, remaining }
    }

    fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            metadata["continue"] = next.encode().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

/// So many comparisons of an object with a clause of a selector are made between two other requests' turns.
const COMPARED_AT_ONCE_MAX: usize = 1_000_000;

/// The page that is asked for; beside the requests, if a selector with very many clauses makes that long.
async fn select(snapshot: Snapshot, selection: Selection, options: ListOptions) -> Result<Page, Status> {
    if selection.clauses().saturating_mul(snapshot.objects.len()) <= COMPARED_AT_ONCE_MAX {
        return Ok(Page::of(&snapshot, &selection, &options));
    }
    let selected = tokio::task::spawn_blocking(move || Page::of(&snapshot, &selection, &options)).await;
    selected.map_err(|error| Status::internal(&error))
}

/// From so many objects on, a page is brought into its form beside the requests.
const SHOWN_AT_ONCE_MAX: usize = 200;

/// A page in any other form than the cached ones.
async fn shown(call: Call, accept: Accept, page: Page) -> Result<Response, Status> {
    if page.entries.len() <= SHOWN_AT_ONCE_MAX {
        return show(&call, accept, &page);
    }
    let shown = tokio::task::spawn_blocking(move || show(&call, accept, &page)).await;
    shown.unwrap_or_else(|error| Err(Status::internal(&error)))
}

fn show(call: &Call, accept: Accept, page: &Page) -> Result<Response, Status> {
    let names = call.strategy.names();
    let objects: Result<Vec<Value>, _> = page.entries.iter().map(|entry| stored::decode(&*call.strategy, &entry.bytes)).collect();
    let objects = objects.map_err(|error| Status::internal(&error))?;
    let list = match accept.form {
        Form::Object => json!({
            "kind": format!("{}List", names.kind), "apiVersion": names.api_version(),
            "metadata": page.metadata(), "items": objects,
        }),
        Form::MetadataList => table::partial_list(&objects, page.metadata()),
        Form::Metadata => {
            let kind = format!("{}List", names.kind);
            return Err(negotiate::refused(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({kind})"
            )));
        }
        Form::Table => {
            let include = IncludeObject::parse(call.info.query.get("includeObject"))?;
            table::table(&*call.strategy, &objects, page.metadata(), true, include, call.server.now())
        }
    };
    Ok(respond::value(accept, StatusCode::OK, &list))
}

fn raw_response(call: &Call, page: Page) -> Response {
    let names = call.strategy.names();
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        names.kind,
        names.api_version(),
        page.metadata()
    );
    let objects = page.entries.into_iter().map(|entry| Object { bytes: entry.bytes.clone(), entry }).collect();
    response(call, Wire::Json, head.into(), objects)
}

/// So many objects are written in protobuf before other requests get a turn.
const ENCODED_AT_ONCE: usize = 64;

async fn protobuf_response(call: &Call, page: Page) -> Result<Response, Status> {
    let message = protobuf::of_strategy(&*call.strategy).ok_or_else(Status::no_such_path)?;
    let metadata = protobuf::list_head(&page.metadata()).map_err(|error| Status::internal(&error))?;
    let mut objects = Vec::with_capacity(page.entries.len());
    for (index, entry) in page.entries.into_iter().enumerate() {
        if index % ENCODED_AT_ONCE == ENCODED_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        objects.push(Object { bytes: stored::protobuf(&entry, message)?, entry });
    }
    let items: usize = objects.iter().map(|object| object.bytes.len() + protobuf::within_list(&object.bytes).len()).sum();
    let mut head = protobuf::wrapped(call.strategy.names(), true, metadata.len() + items);
    head.extend_from_slice(&metadata);
    Ok(response(call, Wire::Protobuf, head.into(), objects))
}

/// The list as it is, or compressed if it is large and the client can read that.
fn response(call: &Call, wire: Wire, head: Bytes, objects: Vec<Object>) -> Response {
    let plain = ListBody::new(wire, head, objects);
    let packed = plain.left > compression::THRESHOLD_BYTES && compression::is_accepted(&call.parts.headers);
    let body = if packed { plain.compressed() } else { Body::new(plain) };
    let content_type = match wire {
        Wire::Json => "application/json",
        Wire::Protobuf => protobuf::CONTENT_TYPE,
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

const JSON_TAIL: &[u8] = b"]}\n";

/// `head`, the objects with what joins them, and the tail, in chunks.
struct ListBody {
    wire: Wire,
    head: Bytes,
    objects: std::vec::IntoIter<Object>,
    first: bool,
    left: usize,
}

impl ListBody {
    fn new(wire: Wire, head: Bytes, objects: Vec<Object>) -> Self {
        let bytes: usize = objects.iter().map(|object| object.bytes.len()).sum();
        let joints = match wire {
            Wire::Json => objects.len().saturating_sub(1),
            Wire::Protobuf => objects.iter().map(|object| protobuf::within_list(&object.bytes).len()).sum(),
        };
        let left = head.len() + bytes + joints + tail(wire).len();
        ListBody { wire, head, objects: objects.into_iter(), first: true, left }
    }

    /// The first object with the head, and then those that others follow or not.
    fn compressed(mut self) -> Body {
        let mut head = BytesMut::from(&self.head[..]);
        if let Some(first) = self.objects.next() {
            if self.wire == Wire::Protobuf {
                self.wire.put_before(&first.bytes, &mut head);
            }
            head.put_slice(&first.bytes);
        }
        compression::list(self.wire, head.freeze(), self.objects.collect(), tail(self.wire))
    }

    fn chunk(&mut self) -> Bytes {
        let tail = tail(self.wire);
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES.min(self.left));
        chunk.put(std::mem::take(&mut self.head));
        while let Some(next) = self.objects.as_slice().first() {
            if chunk.len() + next.bytes.len() + 6 + tail.len() > CHUNK_BYTES && !chunk.is_empty() {
                return chunk.freeze();
            }
            if !std::mem::take(&mut self.first) || self.wire == Wire::Protobuf {
                self.wire.put_before(&next.bytes, &mut chunk);
            }
            chunk.put_slice(&next.bytes);
            self.objects.next();
        }
        chunk.put_slice(tail);
        chunk.freeze()
    }
}

fn tail(wire: Wire) -> &'static [u8] {
    match wire {
        Wire::Json => JSON_TAIL,
        Wire::Protobuf => b"",
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = self.chunk();
        self.left -= chunk.len();
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Attributes;
    use http_body_util::BodyExt;

    fn entry(bytes: Bytes) -> Arc<Entry> {
        let attributes = Attributes::default();
        Arc::new(Entry { key: "/core/pods/a/b".into(), bytes, attributes, create_revision: 1, mod_revision: 1, version: 1 })
    }

    #[tokio::test]
    async fn the_body_has_the_length_it_says() {
        for sizes in [vec![], vec![10], vec![10, 20], vec![CHUNK_BYTES - 10, 30, 5], vec![3 * CHUNK_BYTES, 1], vec![1000; 300]] {
            let texts: Vec<Bytes> = sizes.iter().map(|size| Bytes::from("x".repeat(*size))).collect();
            let objects: Vec<Object> =
                texts.iter().map(|bytes| Object { entry: entry(bytes.clone()), bytes: bytes.clone() }).collect();
            let body = ListBody::new(Wire::Json, "{[".into(), objects);
            let hint = http_body::Body::size_hint(&body).exact().unwrap();
            let sent = body.collect().await.unwrap().to_bytes();
            assert_eq!(sent.len() as u64, hint);
            let texts: Vec<&str> = texts.iter().map(|text| std::str::from_utf8(text).unwrap()).collect();
            assert_eq!(sent, format!("{{[{}]}}\n", texts.join(",")));
        }
    }
}
