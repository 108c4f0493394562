//! List and watch: keeps a sink up to date with one collection of the API, for ever.

use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http::Request;
use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::cache::Sink;

/// Enough for one answer not to be large, few enough answers for ten thousand pods.
const PAGE: usize = 500;
/// Watches are renewed, so that a server that lost us, or a connection that died silently, is noticed.
const WATCH_SECONDS: u64 = 290;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A kind that the server does not know (yet) is asked for again only now and then.
const UNKNOWN_KIND_RETRY: Duration = Duration::from_secs(30);

/// What to list and watch.
pub struct Collection {
    pub path: String,
    pub field_selector: &'static str,
    pub form: Form,
}

/// How much of each object is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
}

impl Form {
    fn accept(self, list: bool) -> &'static str {
        match (self, list) {
            (Form::Whole, _) => "application/json",
            (Form::Metadata, true) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            (Form::Metadata, false) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
        }
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default = "Vec::new")]
    items: Vec<Box<RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize, Default)]
struct Versioned {
    #[serde(default)]
    metadata: VersionedMetadata,
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct VersionedMetadata {
    resource_version: String,
}

/// Runs until `shutdown`. Losses of the connection are resumed; what is too old to resume is listed anew.
pub async fn reflect(client: Client, collection: Collection, sink: &dyn Sink, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(follow(&client, &collection, sink)).await;
}

async fn follow(client: &Client, collection: &Collection, sink: &dyn Sink) {
    let mut from: Option<u64> = None;
    let mut retry = RETRY_MIN;
    loop {
        let outcome = match from {
            None => list(client, collection, sink).await.map(Some),
            Some(revision) => watch(client, collection, sink, revision).await,
        };
        match outcome {
            Ok(next) => {
                if next.is_some() && next == from {
                    // A watch that brought nothing: a server that ends it at once must not be asked in a tight loop.
                    tokio::time::sleep(RETRY_MIN).await;
                }
                from = next;
                retry = RETRY_MIN;
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                debug!(path = collection.path, "the server does not serve this kind");
                sink.replace(vec![], 0);
                from = None;
                tokio::time::sleep(UNKNOWN_KIND_RETRY).await;
            }
            Err(kube::Error::Api(status)) if status.code == 410 => from = None,
            Err(error) => {
                warn!(path = collection.path, %error, "cannot list or watch; trying again");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn list(client: &Client, collection: &Collection, sink: &dyn Sink) -> Result<u64, kube::Error> {
    let mut items = vec![];
    let mut continue_ = String::new();
    loop {
        let mut query = format!("limit={PAGE}");
        if !continue_.is_empty() {
            query += &format!("&continue={}", encode(&continue_));
        }
        let page: List = client.request(get(collection, &query, true)).await?;
        items.extend(page.items);
        if page.metadata.continue_.is_empty() {
            let revision = page.metadata.resource_version.parse().unwrap_or_default();
            sink.replace(items, revision);
            return Ok(revision);
        }
        continue_ = page.metadata.continue_;
    }
}

/// Follows the changes after `revision`; returns where to go on, or `None` if only a new list helps.
async fn watch(client: &Client, collection: &Collection, sink: &dyn Sink, mut revision: u64) -> Result<Option<u64>, kube::Error> {
    let query = format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={revision}");
    let stream = client.request_stream(get(collection, &query, false)).await?;
    let mut lines = std::pin::pin!(stream.lines().into_stream());
    while let Some(line) = lines.next().await {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                debug!(path = collection.path, %error, "the watch broke off");
                break;
            }
        };
        if line.is_empty() {
            continue;
        }
        let event: Line<'_> = serde_json::from_str(&line).map_err(kube::Error::SerdeError)?;
        let about: Versioned = serde_json::from_str(event.object.get()).unwrap_or_default();
        if event.kind == "ERROR" {
            debug!(path = collection.path, code = about.code, message = about.message, "the watch ended with an error");
            return Ok(None);
        }
        revision = about.metadata.resource_version.parse().unwrap_or(revision);
        match event.kind {
            "ADDED" | "MODIFIED" => sink.upsert(event.object, revision),
            "DELETED" => sink.remove(event.object, revision),
            _ => sink.reached(revision),
        }
    }
    Ok(Some(revision))
}

fn get(collection: &Collection, query: &str, list: bool) -> Request<Vec<u8>> {
    let mut uri = format!("{}?{query}", collection.path);
    if !collection.field_selector.is_empty() {
        uri += &format!("&fieldSelector={}", encode(collection.field_selector));
    }
    Request::get(uri)
        .header("accept", collection.form.accept(list))
        .body(vec![])
        .expect("paths and queries of known characters make a URI")
}

/// A value of a query.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
