//! Readers that do not read: what is kept for them is let go.
//!
//! A watch whose reader has stopped holds events that nobody else needs any more, and its connection says nothing of it. The
//! body therefore remembers when it handed out something that was not asked for more since; after a while a sweep ends it.

use crate::server::ApiServer;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use http_body::Frame;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A reader that has not asked for more in that time does not read.
const STALLED_AFTER: Duration = Duration::from_secs(60);
const SWEEP_EVERY: Duration = Duration::from_secs(10);

struct Watched {
    /// `None` once it was ended.
    stream: Option<BoxStream<'static, Bytes>>,
    /// Since when something is handed out and nothing was asked for.
    idle_since: Option<Instant>,
}

/// The bodies that are open.
#[derive(Default)]
pub struct Stalls(Mutex<Vec<Weak<Mutex<Watched>>>>);

impl Stalls {
    pub fn body(&self, stream: BoxStream<'static, Bytes>) -> Body {
        let watched = Arc::new(Mutex::new(Watched { stream: Some(stream), idle_since: Some(Instant::now()) }));
        self.0.lock().push(Arc::downgrade(&watched));
        Body(watched)
    }

    fn sweep(&self, now: Instant) {
        let mut ended = vec![];
        self.0.lock().retain(|watched| {
            let Some(watched) = watched.upgrade() else { return false };
            // One that is being polled right now does not stall.
            let Some(mut watched) = watched.try_lock() else { return true };
            if watched.idle_since.is_none_or(|since| now.duration_since(since) < STALLED_AFTER) {
                return true;
            }
            ended.extend(watched.stream.take());
            false
        });
        if !ended.is_empty() {
            tracing::info!(watches = ended.len(), "readers that had stopped were cut off");
        }
    }
}

/// Until the server is dropped or closed.
pub async fn run(server: Weak<ApiServer>, closing: CancellationToken) {
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let Some(server) = server.upgrade() else { return };
        server.stalls.sweep(Instant::now());
    }
}

pub struct Body(Arc<Mutex<Watched>>);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut watched = self.0.lock();
        let Some(stream) = &mut watched.stream else { return Poll::Ready(None) };
        let polled = stream.next().poll_unpin(context);
        watched.idle_since = polled.is_ready().then(Instant::now);
        polled.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test(start_paused = true)]
    async fn who_stops_reading_is_cut_off_and_who_waits_is_not() {
        let stalls = Stalls::default();
        let held = Arc::new(());
        let stream = |held: Arc<()>| {
            futures::stream::unfold((held, 0), |(held, count)| async move {
                if count == 1 {
                    std::future::pending::<()>().await;
                }
                Some((Bytes::from_static(b"event"), (held, count + 1)))
            })
            .boxed()
        };
        let mut stopped = stalls.body(stream(Arc::clone(&held)));
        let mut waits = stalls.body(stream(Arc::clone(&held)));
        stopped.frame().await.unwrap().unwrap();
        waits.frame().await.unwrap().unwrap();
        assert!(waits.frame().now_or_never().is_none());
        tokio::time::advance(STALLED_AFTER / 2).await;
        stalls.sweep(Instant::now());
        assert_eq!(Arc::strong_count(&held), 3);
        tokio::time::advance(STALLED_AFTER).await;
        stalls.sweep(Instant::now());
        assert_eq!(Arc::strong_count(&held), 2);
        assert!(stopped.frame().await.is_none() && waits.frame().now_or_never().is_none());
        drop(waits);
        stalls.sweep(Instant::now());
        assert_eq!(stalls.0.lock().len(), 0);
    }
}
