//! Runs controllers: caches tell which objects may need work, a bounded number of workers plans and applies.
//!
//! An object is planned from its present state alone; what changed does not matter. It is not planned again before the
//! caches show what its own last plan wrote.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::FutureExt;
use parking_lot::Mutex;
use slipway_api::jiff::Timestamp;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::{
    apply::{Failure, Writer},
    caches::Caches,
    plan::Plan,
    queue::Queue,
    resource::Key,
};

/// Objects of one controller that are planned and applied at a time.
const WORKERS: usize = 5;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What a plan may depend on, apart from the caches.
pub struct Situation<'a> {
    pub caches: &'a Caches,
    pub now: Timestamp,
    /// Why the last plan for this object could not be carried out.
    pub failure: Option<Failure>,
}

#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// As the events name it.
    fn name(&self) -> &'static str;

    /// Registers for the changes that may make an object worth a look.
    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>);

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error>;
}

/// One controller with its queue.
pub struct Running {
    controller: Arc<dyn Controller>,
    queue: Arc<Queue>,
    troubles: Mutex<HashMap<Key, Trouble>>,
}

#[derive(Clone, Default)]
struct Trouble {
    times: u32,
    failure: Option<Failure>,
}

impl Running {
    /// Must come before the caches are filled.
    pub fn new(controller: Arc<dyn Controller>, caches: &Arc<Caches>) -> Arc<Running> {
        let queue = Arc::new(Queue::default());
        controller.watch(caches, &queue);
        Arc::new(Running { controller, queue, troubles: Mutex::default() })
    }

    pub async fn work(self: Arc<Self>, caches: Arc<Caches>, writer: Arc<Writer>, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(WORKERS));
        let mut tasks = JoinSet::new();
        loop {
            let next = async {
                let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
                (slot, self.queue.next().await)
            };
            let Some((slot, key)) = shutdown.run_until_cancelled(next).await else { break };
            let (this, caches, writer) = (self.clone(), caches.clone(), writer.clone());
            tasks.spawn(async move {
                this.one(&key, &caches, &writer, slot).await;
                this.queue.done(&key);
            });
            while tasks.try_join_next().is_some() {}
        }
        debug!(controller = self.controller.name(), "stops");
    }

    /// Plans and applies for one object. The slot is given back before the wait for the caches, which costs nothing.
    async fn one(&self, key: &Key, caches: &Caches, writer: &Writer, slot: tokio::sync::OwnedSemaphorePermit) {
        let failure = self.troubles.lock().get(key).and_then(|trouble| trouble.failure.clone());
        let situation = Situation { caches, now: slipway_api::condition::in_seconds(Timestamp::now()), failure };
        let planned = AssertUnwindSafe(self.controller.plan(key, situation)).catch_unwind().await;
        let plan = match planned {
            Ok(Ok(plan)) => plan,
            Ok(Err(error)) => {
                info!(controller = self.controller.name(), %key, %error, "cannot plan; trying again");
                return self.again_later(key, None);
            }
            Err(_) => {
                error!(controller = self.controller.name(), %key, "planning panicked; trying again");
                return self.again_later(key, None);
            }
        };
        let again_in = plan.again_in;
        if !plan.is_empty() {
            debug!(controller = self.controller.name(), %key, plan = %plan, "applies");
        }
        let outcome = writer.apply(self.controller.name(), plan).await;
        drop(slot);
        outcome.settle(caches).await;
        if outcome.stale || outcome.failure.is_some() {
            return self.again_later(key, outcome.failure);
        }
        self.troubles.lock().remove(key);
        if let Some(delay) = again_in {
            self.queue.add_after(key.clone(), delay);
        }
    }

    fn again_later(&self, key: &Key, failure: Option<Failure>) {
        let mut troubles = self.troubles.lock();
        let trouble = troubles.entry(key.clone()).or_default();
        let delay = BACKOFF_MAX.min(BACKOFF_MIN * 2u32.saturating_pow(trouble.times.min(16)));
        *trouble = Trouble { times: trouble.times + 1, failure };
        drop(troubles);
        self.queue.add_after(key.clone(), delay);
    }
}
