//! Forgets events after an hour, as kube-apiserver's `--event-ttl` does by default.

use crate::server::ApiServer;
use crate::stored;
use serde::Deserialize;
use slipway_store::{Change, Expect, Write};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub const EVENT_AGE_SECONDS_MAX: i64 = 3600;
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// So that a sweep after a long pause does not crowd out everybody's writes.
const DELETES_PER_SWEEP_MAX: usize = 5_000;

/// Sweeps until the server is gone or closing.
pub async fn run(server: Weak<ApiServer>, closing: CancellationToken) {
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let Some(server) = server.upgrade() else { return };
        server.sweep_events().await;
    }
}

impl ApiServer {
    /// Deletes the events that are too old now, and tells how many.
    pub async fn sweep_events(&self) -> usize {
        let Some(events) = self.strategy("", "v1", "events") else { return 0 };
        let oldest = self.now().as_second() - EVENT_AGE_SECONDS_MAX;
        let snapshot = self.snapshot();
        let prefix = stored::prefix(events.names(), None);
        let old = stored::below(&snapshot, &prefix, "");
        let old = old.filter(|entry| last_seen(&entry.bytes).is_some_and(|at| at < oldest));
        let mut deleted = 0;
        for entry in old.take(DELETES_PER_SWEEP_MAX) {
            let expect = Expect::Revision(entry.mod_revision);
            let write = Write { key: Arc::clone(&entry.key), expect, change: Change::Delete };
            match self.store.write(write).await {
                Ok(_) => deleted += 1,
                // It was written in between, or another server was quicker.
                Err(slipway_store::Error::Conflict { .. } | slipway_store::Error::NotFound) => {}
                Err(error) => {
                    tracing::warn!(%error, "old events could not be deleted");
                    break;
                }
            }
        }
        deleted
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Event {
    metadata: Metadata,
    first_timestamp: Option<jiff::Timestamp>,
    last_timestamp: Option<jiff::Timestamp>,
    event_time: Option<jiff::Timestamp>,
    series: Option<Series>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    creation_timestamp: Option<jiff::Timestamp>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Series {
    last_observed_time: Option<jiff::Timestamp>,
}

/// The newest time that the event tells. `None` if it cannot be read: such an event stays.
fn last_seen(bytes: &[u8]) -> Option<i64> {
    let event: Event = serde_json::from_slice(bytes).ok()?;
    let observed = event.series.and_then(|series| series.last_observed_time);
    let times = [event.metadata.creation_timestamp, event.first_timestamp, event.last_timestamp, event.event_time, observed];
    times.into_iter().flatten().max().map(jiff::Timestamp::as_second)
}
