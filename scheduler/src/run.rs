//! The loop: what is watched goes into the state, and the steps that come out are carried out, many at once.

use crate::snapshot::PodInfo;
use crate::state::{State, Step};
use crate::watch::{self, Notice};
use crate::write::Writer;
use crate::{Error, Options};
use kube::Client;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// How many notices are taken in before the next decision, so that a flood of them doesn't hold up decisions, nor the reverse.
const NOTICES_PER_DECISION_MAX: usize = 64;
/// How many decisions are made before others on this thread get their turn.
const DECISIONS_PER_TURN_MAX: usize = 16;

/// Schedules pods until it is told to stop.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let mut notices = watch::all(&client);
    let mut state = State::new(&options);
    let mut synced = HashSet::new();
    while synced.len() < watch::KINDS {
        let notice = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            notice = notices.recv() => notice,
        };
        match notice {
            Some(Notice::Input(input)) => state.take(input, Instant::now()),
            Some(Notice::Synced(kind)) => drop(synced.insert(kind)),
            Some(Notice::Ended(kind)) => return Err(Error::WatchEnded(kind)),
            None => return Err(Error::WatchEnded("everything")),
        }
    }
    tracing::info!(nodes = state.snapshot.len(), pods = state.queue.len(), "scheduler is ready");
    let (bound, results) = mpsc::channel(options.bindings_in_flight_max);
    let writer = Writer::new(client, &options);
    let permits = Arc::new(Semaphore::new(options.bindings_in_flight_max));
    Loop { state, notices, results, bound, writer, permits }.run(shutdown).await
}

struct Loop {
    state: State,
    notices: mpsc::Receiver<Notice>,
    results: mpsc::Receiver<(Arc<PodInfo>, bool)>,
    bound: mpsc::Sender<(Arc<PodInfo>, bool)>,
    writer: Writer,
    permits: Arc<Semaphore>,
}

impl Loop {
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut decisions = 0;
        loop {
            self.take_what_is_there()?;
            if self.decide() {
                decisions += 1;
                if decisions % DECISIONS_PER_TURN_MAX == 0 {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            // Nothing to decide, or too many bindings on their way: the next notice, result or due time changes that.
            let due = self.state.queue.next_due();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                notice = self.notices.recv() => self.take(notice)?,
                Some((pod, taken)) = self.results.recv() => self.state.bound(&pod, taken, Instant::now()),
                () = sleep_until(due), if due.is_some() => {}
            }
            if shutdown.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn take_what_is_there(&mut self) -> Result<(), Error> {
        while let Ok((pod, taken)) = self.results.try_recv() {
            self.state.bound(&pod, taken, Instant::now());
        }
        for _ in 0..NOTICES_PER_DECISION_MAX {
            match self.notices.try_recv() {
                Ok(notice) => self.take(Some(notice))?,
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return self.take(None),
            }
        }
        Ok(())
    }

    fn take(&mut self, notice: Option<Notice>) -> Result<(), Error> {
        match notice {
            Some(Notice::Input(input)) => self.state.take(input, Instant::now()),
            Some(Notice::Synced(_)) => {}
            Some(Notice::Ended(kind)) => return Err(Error::WatchEnded(kind)),
            None => return Err(Error::WatchEnded("everything")),
        }
        Ok(())
    }

    /// Makes one decision and sets out to carry it through. Says whether there was one to make.
    fn decide(&mut self) -> bool {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else { return false };
        let Some(step) = self.state.step(Instant::now()) else { return false };
        let (writer, bound) = (self.writer.clone(), self.bound.clone());
        tokio::spawn(async move {
            match step {
                Step::Bind { pod, node } => {
                    let taken = writer.bind(&pod, &node).await;
                    drop(permit);
                    let _ = bound.send((pod, taken)).await;
                }
                Step::Refuse(refusal) => {
                    writer.refuse(refusal).await;
                    drop(permit);
                }
            }
        });
        true
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
