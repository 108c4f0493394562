//! What requests may cost.

use crate::http::error::Status;
use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The largest body of a write, as in kube-apiserver.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// All headers of a request together.
pub const HEADER_BYTES_MAX: usize = 1024 * 1024;
/// Requests that are worked on at one time, but for those that last by their nature; as kube-apiserver's
/// `--max-requests-inflight` and `--max-mutating-requests-inflight` together.
pub const IN_FLIGHT_MAX: usize = 600;
/// Requests that may wait to be among those: enough for a burst of many nodes, few enough to be answered in time.
pub const WAITING_MAX: usize = 10_000;

pub struct InFlight {
    working: Semaphore,
    waiting: Semaphore,
}

impl Default for InFlight {
    fn default() -> Self {
        InFlight { working: Semaphore::new(IN_FLIGHT_MAX), waiting: Semaphore::new(WAITING_MAX) }
    }
}

impl InFlight {
    /// Waits for its turn; 429 if too many wait already.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, Status> {
        let _place = self.waiting.try_acquire().map_err(|_| too_many())?;
        self.working.acquire().await.map_err(|_| too_many())
    }

    pub fn working(&self) -> usize {
        IN_FLIGHT_MAX - self.working.available_permits()
    }
}

fn too_many() -> Status {
    Status::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "too many requests, please try again later")
        .with_details(json!({"retryAfterSeconds": 1}))
}

pub async fn read(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Status::too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}")))
        }
        Err(error) => Err(Status::bad_request(format!("the request's body could not be read: {error}"))),
    }
}
