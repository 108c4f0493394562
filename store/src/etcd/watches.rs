//! Watches: many on one stream, each fed by the store, with the changes of a transaction under one revision.

use super::keys::{self, Span};
use super::proto::{Event, KeyValue, WatchRequest, WatchRequestUnion, WatchResponse};
use super::{Shared, read};
use crate::{Batch, Error, Revision};
use futures::StreamExt;
use parking_lot::Mutex;
use prost::Message;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// Watches on one stream; a client opens another stream long before.
const WATCHES_MAX: usize = 10_000;
/// Responses that wait for a slow client; then its watches wait, and are ended when history has gone over them.
const RESPONSES_MAX: usize = 64;
/// A response that is larger is sent in fragments to who can take them, as etcd does.
const FRAGMENT_BYTES: usize = crate::VALUE_BYTES_MAX + (512 << 10);
/// Values before a change that are kept for the other watches of the same change.
const PREVIOUS_MAX: usize = 2_048;

const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

type Sender = mpsc::Sender<Result<WatchResponse, Status>>;

/// What a client asked for.
struct Watch {
    id: i64,
    span: Span,
    /// The first revision to be seen.
    from: Revision,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
    filters: Vec<i32>,
}

struct Running {
    task: AbortHandle,
    /// Everything up to this revision is on its way to the client.
    seen: watch::Receiver<Revision>,
}

/// One stream of a client's.
struct Stream {
    shared: Arc<Shared>,
    out: Sender,
    watches: HashMap<i64, Running>,
    next_id: i64,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.watches.values().for_each(|running| running.task.abort());
    }
}

pub(super) fn serve(shared: Arc<Shared>, requests: Streaming<WatchRequest>) -> mpsc::Receiver<Result<WatchResponse, Status>> {
    let (out, responses) = mpsc::channel(RESPONSES_MAX);
    tokio::spawn(async move {
        let closed = out.clone();
        let stream = Stream { shared, out, watches: HashMap::new(), next_id: 0 };
        tokio::select! {
            () = stream.run(requests) => {}
            () = closed.closed() => {}
        }
    });
    responses
}

impl Stream {
    async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        // A client that breaks off has said all it had to say.
        while let Ok(Some(request)) = requests.message().await {
            let served = match request.request_union {
                Some(WatchRequestUnion::CreateRequest(create)) => {
                    let mut filters = create.filters;
                    filters.retain(|filter| [NO_PUT, NO_DELETE].contains(filter));
                    let key = if create.key.is_empty() { vec![0] } else { create.key };
                    let asked = Watch {
                        id: create.watch_id,
                        span: Span::new(&key, &create.range_end),
                        from: create.start_revision,
                        prev_kv: create.prev_kv,
                        fragment: create.fragment,
                        progress_notify: create.progress_notify,
                        filters,
                    };
                    self.create(asked).await
                }
                Some(WatchRequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
                Some(WatchRequestUnion::ProgressRequest(_)) => self.progress().await,
                None => Ok(()),
            };
            if let Err(status) = served {
                // Nobody is told if nobody listens.
                let _ = self.out.send(Err(status)).await;
                return;
            }
        }
    }

    async fn create(&mut self, mut watch: Watch) -> Result<(), Status> {
        let now = self.shared.store.revision().await.map_err(super::errors::status)?;
        let refusal = if watch.span.is_empty() {
            Some("mvcc: watcher range is empty".to_owned())
        } else if watch.id != 0 && self.watches.contains_key(&watch.id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
        } else if self.watches.len() >= WATCHES_MAX {
            Some(format!("a stream has {WATCHES_MAX} watches at most"))
        } else {
            None
        };
        if let Some(cancel_reason) = refusal {
            let canceled = WatchResponse { watch_id: -1, created: true, canceled: true, cancel_reason, ..Default::default() };
            return self.send(canceled, now).await;
        }
        if watch.id == 0 {
            while self.watches.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            watch.id = self.next_id;
            self.next_id += 1;
        }
        if watch.from <= 0 {
            watch.from = now + 1;
        }
        let created = WatchResponse { watch_id: watch.id, created: true, ..WatchResponse::default() };
        self.send(created, now).await?;
        let (told, seen) = watch::channel(0);
        let id = watch.id;
        let task = tokio::spawn(follow(self.shared.clone(), watch, self.out.clone(), told)).abort_handle();
        self.watches.insert(id, Running { task, seen });
        // Those that ended by themselves.
        self.watches.retain(|_, running| !running.task.is_finished());
        Ok(())
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Status> {
        let Some(running) = self.watches.remove(&id) else { return Ok(()) };
        running.task.abort();
        let revision = *running.seen.borrow();
        self.send(WatchResponse { watch_id: id, canceled: true, ..WatchResponse::default() }, revision).await
    }

    /// Answers once every watch has been sent what there was when the client asked.
    async fn progress(&mut self) -> Result<(), Status> {
        let now = self.shared.store.revision().await.map_err(super::errors::status)?;
        for running in self.watches.values_mut() {
            // A watch that has ended is none.
            let _ = running.seen.wait_for(|seen| *seen >= now).await;
        }
        self.send(WatchResponse { watch_id: -1, ..WatchResponse::default() }, now).await
    }

    async fn send(&self, mut response: WatchResponse, revision: Revision) -> Result<(), Status> {
        response.header = Some(self.shared.header(revision));
        self.out.send(Ok(response)).await.map_err(|_| Status::cancelled("the client is gone"))
    }
}

/// Sends what the watch is to see, until it cannot go on; says why.
async fn follow(shared: Arc<Shared>, watch: Watch, out: Sender, told: watch::Sender<Revision>) {
    let ended = follow_on(&shared, &watch, &out, &told).await;
    let Err(error) = ended else { return };
    let mut canceled = WatchResponse { watch_id: watch.id, canceled: true, ..WatchResponse::default() };
    let revision = *told.borrow();
    match error {
        Error::Compacted { oldest } => canceled.compact_revision = shared.compacted(oldest).max(1),
        // Nothing tells a client better that what it knows may not be so any more.
        Error::CutOff(_) | Error::Future { .. } => canceled.compact_revision = revision.max(1),
        error => canceled.cancel_reason = error.to_string(),
    }
    canceled.header = Some(shared.header(revision));
    let _ = out.send(Ok(canceled)).await;
}

async fn follow_on(shared: &Shared, watch: &Watch, out: &Sender, told: &watch::Sender<Revision>) -> Result<(), Error> {
    let newest = shared.store.revision().await?;
    if watch.from < shared.leases.compacted() {
        return Err(Error::Compacted { oldest: 0 });
    }
    // It may begin in the future.
    let mut after = (watch.from - 1).min(newest);
    if after < newest && after > 0 {
        // In the middle of a transaction it begins with the transaction.
        if let Some((begins, ends)) = read::transaction_before(shared.store.as_ref(), after).await?
            && after < ends
        {
            after = begins - 1;
        }
    }
    let mut changes = shared.store.watch(after).await?;
    told.send_replace(after);
    let mut joined = Joined { begins: 0, ends: 0, events: vec![] };
    let mut quiet_since = Instant::now();
    loop {
        let at = quiet_since + shared.options.progress_interval;
        let batch = tokio::select! {
            batch = changes.next() => batch.unwrap_or(Err(Error::Closed))?,
            () = tokio::time::sleep_until(at), if watch.progress_notify => {
                let progress = WatchResponse { watch_id: watch.id, ..WatchResponse::default() };
                quiet_since = Instant::now();
                let reached = *told.borrow();
                if send(shared, out, progress, reached).await.is_err() {
                    return Ok(());
                }
                continue;
            }
        };
        let through = joined.take(batch, watch);
        let mut events = vec![];
        for (revision, event) in joined.whole(through) {
            events.push(shown(shared, watch, revision, event).await?);
        }
        if !events.is_empty() {
            quiet_since = Instant::now();
            for response in fragments(watch, events) {
                if send(shared, out, response, through).await.is_err() {
                    return Ok(());
                }
            }
        }
        told.send_replace(through);
    }
}

async fn send(shared: &Shared, out: &Sender, mut response: WatchResponse, revision: Revision) -> Result<(), ()> {
    response.header = Some(shared.header(revision));
    out.send(Ok(response)).await.map_err(|_| ())
}

/// Changes under the revision that they have in etcd: a transaction's last.
struct Joined {
    /// First and last revision of the transaction that was last seen to begin.
    begins: Revision,
    ends: Revision,
    events: Vec<(Revision, crate::Event)>,
}

impl Joined {
    /// Takes what the watch is to see; the answer is up to where every transaction is complete.
    fn take(&mut self, batch: Batch, watch: &Watch) -> Revision {
        for event in batch.events {
            if &*event.key == keys::TRANSACTION
                && let Some(value) = &event.value
            {
                (self.begins, self.ends) = (event.revision, event.revision + read::changes(value));
            }
            let is_filtered = watch.filters.contains(if event.value.is_some() { &NO_PUT } else { &NO_DELETE });
            if watch.span.contains(&event.key) && !is_filtered {
                let revision = self.ends.max(event.revision);
                if revision >= watch.from {
                    self.events.push((revision, event));
                }
            }
        }
        // The rest of a transaction comes with the next batch.
        if batch.revision < self.ends {
            return self.begins - 1;
        }
        batch.revision
    }

    fn whole(&mut self, through: Revision) -> Vec<(Revision, crate::Event)> {
        let whole = self.events.partition_point(|(revision, _)| *revision <= through);
        self.events.drain(..whole).collect()
    }
}

async fn shown(shared: &Shared, watch: &Watch, revision: Revision, event: crate::Event) -> Result<Event, Error> {
    const PUT: i32 = 0;
    const DELETE: i32 = 1;
    let prev_kv = match watch.prev_kv && event.previous_revision > 0 {
        true => shared.previous.get(shared, &event).await?,
        false => None,
    };
    let (r#type, kv) = match event.value {
        Some(value) => {
            let record = crate::Record {
                key: event.key,
                value,
                create_revision: event.create_revision,
                mod_revision: event.revision,
                version: event.version,
            };
            (PUT, read::key_value(&record))
        }
        None => {
            let key = keys::original(&event.key).unwrap_or_default();
            (DELETE, Some(KeyValue { key, mod_revision: revision, ..KeyValue::default() }))
        }
    };
    Ok(Event { r#type, kv, prev_kv })
}

fn fragments(watch: &Watch, events: Vec<Event>) -> Vec<WatchResponse> {
    let empty = || WatchResponse { watch_id: watch.id, ..WatchResponse::default() };
    if !watch.fragment {
        return vec![WatchResponse { events, ..empty() }];
    }
    let mut responses = vec![];
    let (mut response, mut bytes) = (empty(), 0);
    for event in events {
        let size = event.encoded_len();
        if bytes > 0 && bytes + size > FRAGMENT_BYTES {
            response.fragment = true;
            responses.push(std::mem::replace(&mut response, empty()));
            bytes = 0;
        }
        bytes += size;
        response.events.push(event);
    }
    responses.push(response);
    responses
}

/// What keys held before their last changes: read once for all watches.
#[derive(Default)]
pub(super) struct Previous(Mutex<(HashMap<Revision, Cell>, VecDeque<Revision>)>);

type Cell = Arc<OnceCell<Option<KeyValue>>>;

impl Previous {
    async fn get(&self, shared: &Shared, event: &crate::Event) -> Result<Option<KeyValue>, Error> {
        let cell = {
            let (cells, order) = &mut *self.0.lock();
            if order.len() >= PREVIOUS_MAX
                && let Some(oldest) = order.pop_front()
            {
                cells.remove(&oldest);
            }
            let cell = cells.entry(event.revision).or_insert_with(|| {
                order.push_back(event.revision);
                Cell::default()
            });
            cell.clone()
        };
        let read = cell.get_or_try_init(|| async {
            match shared.store.get(&event.key, Some(event.revision - 1)).await {
                Ok(record) => Ok(record.as_ref().and_then(read::key_value)),
                // etcd does without, too.
                Err(Error::Compacted { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        read.await.cloned()
    }
}
