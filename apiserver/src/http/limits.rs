//! What one request may cost. How many are worked on at a time: see `flow_control`.

use crate::http::error::Status;
use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::time::Duration;

/// The largest body of a write, as in kube-apiserver.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// All headers of a request together.
pub const HEADER_BYTES_MAX: usize = 1024 * 1024;
/// Who has not sent the body by then is refused: it holds seats while it sends. As kube-apiserver's `--request-timeout`.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

pub async fn read(body: Body) -> Result<Bytes, Status> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Status::too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}")))
        }
        Ok(Err(error)) => Err(Status::bad_request(format!("the request's body could not be read: {error}"))),
        Err(_) => Err(Status::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            "Timeout: request did not complete within the allotted timeout",
        )),
    }
}
