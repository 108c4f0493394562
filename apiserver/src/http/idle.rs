//! Connections that nobody uses: a server has only so many of them.

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Who has not made a request by then, once the connection stands, is cut off: as kube-apiserver's limit for a head.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(32);
/// How long a connection is kept for the next request, as in kube-apiserver.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// What goes on on one connection.
#[derive(Clone)]
pub struct Activity(Arc<Mutex<State>>);

struct State {
    /// Requests whose answers have not been sent to their end.
    open: usize,
    /// Since when there is none, and how long that may last.
    idle_since: Instant,
    limit: Duration,
}

impl Activity {
    pub fn new() -> Self {
        Activity(Arc::new(Mutex::new(State { open: 0, idle_since: Instant::now(), limit: FIRST_REQUEST_TIMEOUT })))
    }

    /// A request, until what it answers with is dropped.
    pub fn request(&self) -> Request {
        let mut state = self.0.lock();
        state.open += 1;
        state.limit = IDLE_TIMEOUT;
        Request(self.clone())
    }

    /// Until nothing went on for too long.
    pub async fn ceased(&self) {
        loop {
            let until = {
                let state = self.0.lock();
                // While something goes on, it is looked at again when it could have been idle for long enough.
                let since = if state.open > 0 { Instant::now() } else { state.idle_since };
                since + state.limit
            };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

pub struct Request(Activity);

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.open -= 1;
        state.idle_since = Instant::now();
    }
}

/// The body of an answer, which keeps its request open.
pub struct Answer {
    body: Body,
    _request: Request,
}

impl Answer {
    pub fn new(body: Body, request: Request) -> Self {
        Answer { body, _request: request }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
