//! The body of an answer, watched until it ends.

use super::Record;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header;
use http_body::{Frame, SizeHint};
use serde_json::Value;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What is kept of an answer's body; of a longer one nothing is.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// The same answer; when its body has been sent or given up, `record` is completed. With `keep` the body is kept too.
pub(super) fn observed(response: Response, record: Arc<Record>, keep: bool) -> Response {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (content_type, encoding) = (text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
    response.map(|body| {
        let ended = Ended { record, keep, kept: Vec::new(), truncated: false, content_type, encoding };
        Body::new(Observed { body, ended })
    })
}

struct Observed {
    body: Body,
    ended: Ended,
}

struct Ended {
    record: Arc<Record>,
    keep: bool,
    kept: Vec<u8>,
    truncated: bool,
    content_type: String,
    encoding: String,
}

impl Ended {
    fn take(&mut self, data: &[u8]) {
        if self.keep && self.kept.len() + data.len() > BYTES_MAX {
            (self.keep, self.truncated, self.kept) = (false, true, Vec::new());
        }
        if self.keep {
            self.kept.extend_from_slice(data);
        }
    }

    fn object(&mut self) -> Option<Value> {
        let mut bytes = std::mem::take(&mut self.kept);
        match self.encoding.as_str() {
            "" => {}
            "gzip" => {
                let mut plain = vec![];
                let limit = BYTES_MAX as u64 * 4;
                flate2::read::GzDecoder::new(&bytes[..]).take(limit).read_to_end(&mut plain).ok()?;
                bytes = plain;
            }
            _ => return None,
        }
        match self.content_type.split(';').next().unwrap_or_default() {
            "application/json" => serde_json::from_slice(&bytes).ok(),
            "application/yaml" => crate::openapi::read_yaml_document(&bytes).ok(),
            crate::http::protobuf::CONTENT_TYPE => crate::http::protobuf::decode(&bytes).ok(),
            _ => None,
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let object = if self.keep { self.object() } else { None };
        self.record.complete(object, self.truncated);
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.ended.take(data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
