//! `/openapi/v2`, `/openapi/v3` and `/openapi/v3/…`. The documents are made when they are first asked for, and kept
//! compressed: a tenth of what they would take.

use crate::aggregation::{self, Specs};
use crate::http::error::Status;
use crate::kind::Strategy;
use crate::openapi::document::Source;
use crate::openapi::protobuf;
use crate::registry::Resources;
use crate::server::ApiServer;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

const JSON: &str = "application/json";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A document, gzipped, and the hash that names its content.
struct Document {
    gzip: Bytes,
    hash: String,
}

impl Document {
    fn new(plain: &[u8]) -> Self {
        let hash: String = Sha256::digest(plain).iter().map(|byte| format!("{byte:02X}")).collect();
        let mut encoder = GzEncoder::new(vec![], Compression::default());
        encoder.write_all(plain).expect("writing to memory does not fail");
        let gzip = encoder.finish().expect("writing to memory does not fail");
        Document { gzip: Bytes::from(gzip), hash }
    }
}

struct Documents {
    v2: Document,
    v2_protobuf: Document,
    index: Document,
    /// By path: `apis/apps/v1`.
    v3: BTreeMap<String, Document>,
}

/// The documents of what is served; made anew when that has changed and somebody asks.
#[derive(Default)]
pub struct Cache(Mutex<Option<Kept>>);

/// Documents, and what they were made of.
struct Kept {
    resources: Arc<Resources>,
    specs: Arc<Specs>,
    documents: Arc<Documents>,
}

impl Cache {
    fn of(&self, resources: Arc<Resources>, specs: Arc<Specs>) -> Arc<Documents> {
        let custom: Vec<Arc<dyn Strategy>> =
            resources.all.iter().filter(|strategy| strategy.custom().is_some()).cloned().collect();
        if custom.is_empty() && specs.is_empty() {
            static BUILTIN: LazyLock<Arc<Documents>> = LazyLock::new(|| Arc::new(Documents::new(vec![], &Specs::default())));
            return Arc::clone(&BUILTIN);
        }
        // Who asks meanwhile waits for the same.
        let mut kept = self.0.lock();
        let same = |kept: &&Kept| Arc::ptr_eq(&kept.resources, &resources) && Arc::ptr_eq(&kept.specs, &specs);
        if let Some(kept) = kept.as_ref().filter(same) {
            return Arc::clone(&kept.documents);
        }
        let documents = Arc::new(Documents::new(custom, &specs));
        *kept = Some(Kept { resources, specs, documents: Arc::clone(&documents) });
        documents
    }
}

impl Documents {
    fn new(custom: Vec<Arc<dyn Strategy>>, specs: &Specs) -> Documents {
        let source = Source::collect(custom);
        let v3: BTreeMap<String, Document> = source
            .homes()
            .into_iter()
            .map(|(path, home)| (path, Document::new(source.v3(home).to_string().as_bytes())))
            .collect();
        let mut paths: Map<String, Value> = v3
            .iter()
            .map(|(path, document)| {
                (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", document.hash)}))
            })
            .collect();
        paths.extend(specs.v3.clone());
        let index = Document::new(json!({"paths": paths}).to_string().as_bytes());
        let mut v2 = source.v2();
        specs.v2.iter().for_each(|part| aggregation::openapi::merge(&mut v2, part));
        Documents { v2_protobuf: Document::new(&protobuf::encode(&v2)), v2: Document::new(v2.to_string().as_bytes()), index, v3 }
    }
}

/// Answers a GET below `/openapi`; `None` for any other path.
pub async fn respond(server: &Arc<ApiServer>, request: &Parts) -> Option<Result<Response, Status>> {
    let path = request.uri.path().strip_prefix("/openapi/")?.trim_end_matches('/').to_owned();
    if path != "v2" && path != "v3" && !path.starts_with("v3/") {
        return None;
    }
    if let ["v3", "apis", group, version] = path.split('/').collect::<Vec<_>>().as_slice()
        && let Some(service) = server.aggregator.remote(group, version)
    {
        return Some(aggregation::document(server, &service, request).await);
    }
    // To make them takes a moment, once.
    let asked = Arc::clone(server);
    let documents =
        tokio::task::spawn_blocking(move || asked.documents.of(asked.registry.current(), asked.aggregator.specs())).await;
    let documents = match documents {
        Ok(documents) => documents,
        Err(error) => return Some(Err(Status::internal(&error))),
    };
    let accept = request.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let protobuf = first_accepted(accept);
    let found = match (path.as_str(), protobuf) {
        (_, None) => return Some(Err(not_acceptable())),
        ("v2", Some(true)) => (&documents.v2_protobuf, V2_PROTOBUF),
        ("v2", Some(false)) => (&documents.v2, JSON),
        (_, Some(true)) => return Some(Err(not_acceptable())),
        ("v3", Some(false)) => (&documents.index, JSON),
        (path, Some(false)) => match documents.v3.get(path.trim_start_matches("v3/")) {
            Some(document) => (document, JSON),
            None => return Some(Err(Status::no_such_path())),
        },
    };
    Some(Ok(answer(request, found.0, found.1)))
}

/// Whether the first format in `Accept` that exists is version 2's protocol buffer, or JSON; `None` if there is none.
fn first_accepted(accept: &str) -> Option<bool> {
    accept.split(',').find_map(|one| match one.split(';').next().unwrap_or_default().trim() {
        "" | "*/*" | "application/*" | JSON => Some(false),
        one if one.replace('@', ".") == V2_PROTOBUF => Some(true),
        _ => None,
    })
}

fn not_acceptable() -> Status {
    let message = "only the following media types are accepted: application/json";
    Status::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
}

fn answer(request: &Parts, document: &Document, content_type: &'static str) -> Response {
    let tag = format!("\"{}\"", document.hash);
    let text = |name: header::HeaderName| request.headers.get(name).and_then(|value| value.to_str().ok());
    let mut response = if text(header::IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|one| one.trim() == tag)) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if text(header::ACCEPT_ENCODING).is_some_and(|accepted| accepted.contains("gzip")) {
        let mut response = Response::new(Body::from(document.gzip.clone()));
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = vec![];
        GzDecoder::new(&*document.gzip).read_to_end(&mut plain).expect("the document was compressed here");
        Response::new(Body::from(plain))
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    // A path with the right hash never changes.
    if request.uri.query().is_some_and(|query| query.split('&').any(|part| part.strip_prefix("hash=") == Some(&document.hash))) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    }
    response
}
