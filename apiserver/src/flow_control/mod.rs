//! API priority and fairness: each request belongs to a flow of a priority level, and takes seats of it or waits for them.
//!
//! `schema` says where a request belongs, `queues` who is next, `run` keeps both at what the objects say.

pub mod bootstrap;
pub mod queues;
mod run;
pub mod schema;

pub use run::{run, settle};

use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::http::request_info::RequestInfo;
use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use queues::{Begun, Entered, Levels};
use schema::{Flow, Plan};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Seats in all; as kube-apiserver's `--max-requests-inflight` and `--max-mutating-requests-inflight` together.
pub const SEATS: u32 = 600;
/// Who has waited so long is told to come again.
const WAIT_MAX: Duration = Duration::from_secs(15);

const SCHEMA_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_HEADER: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

type Wake = oneshot::Sender<Permit>;

pub struct FlowControl {
    plan: ArcSwap<Plan>,
    levels: Mutex<Levels<Wake>>,
    /// How many objects there are, by group and plural; a little old.
    counts: ArcSwap<HashMap<(String, String), usize>>,
    refused: AtomicU64,
}

impl FlowControl {
    pub fn new() -> Arc<Self> {
        let control = Arc::new(FlowControl {
            plan: ArcSwap::default(),
            levels: Mutex::default(),
            counts: ArcSwap::default(),
            refused: AtomicU64::new(0),
        });
        // Until the objects are there.
        control.set(Plan::of(bootstrap::schemas().into_iter(), bootstrap::levels().into_iter(), SEATS));
        control
    }
}

/// What one level is doing, for metrics.
pub struct Summary {
    pub level: String,
    pub seats: u32,
    pub executing: u32,
    pub waiting: usize,
}

impl FlowControl {
    /// Takes on another plan; what has room by it begins.
    fn set(self: &Arc<Self>, plan: Plan) {
        let begun = {
            let mut levels = self.levels.lock();
            levels.set(&plan.levels);
            self.plan.store(Arc::new(plan));
            levels.begin_more()
        };
        self.wake(begun);
    }

    /// Where the request belongs.
    pub fn classify(&self, user: &User, info: &RequestInfo) -> Option<Flow> {
        self.plan.load().classify(user, info)
    }

    /// Seats for a request, when it is its turn; 429 if too many wait already, or it waited too long.
    pub async fn enter(self: &Arc<Self>, flow: &Flow, info: &RequestInfo) -> Result<Permit, Status> {
        let counts = self.counts.load();
        let width = schema::width(info, |group, plural| counts.get(&(group.to_owned(), plural.to_owned())).copied().unwrap_or(0));
        drop(counts);
        let (wake, woken) = oneshot::channel();
        let entered = self.levels.lock().enter(&flow.level, flow.hash, width, wake);
        match entered {
            Entered::Begun(_, queue) => Ok(self.permit(flow.level.clone(), queue, width)),
            Entered::Refused(_) => Err(self.refuse()),
            Entered::Waits(queue, id) => {
                let _place = Place { control: self, level: &flow.level, queue, id };
                match tokio::time::timeout(WAIT_MAX, woken).await {
                    Ok(Ok(permit)) => Ok(permit),
                    _ => Err(self.refuse()),
                }
            }
        }
    }

    fn permit(self: &Arc<Self>, level: String, queue: usize, width: u32) -> Permit {
        Permit { control: Arc::clone(self), level, queue, width, since: Instant::now() }
    }

    fn refuse(&self) -> Status {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Status::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "too many requests, please try again later")
            .with_details(json!({"retryAfterSeconds": 1}))
    }

    /// Outside of the lock: who does not wait any more gives the seat back by dropping the permit.
    fn wake(self: &Arc<Self>, begun: Vec<Begun<Wake>>) {
        for one in begun {
            let permit = self.permit(one.level, one.queue, one.width);
            drop(one.wake.send(permit));
        }
    }

    pub fn summary(&self) -> Vec<Summary> {
        let levels = self.levels.lock();
        let each = levels.each().map(|(level, limits, executing, waiting)| Summary {
            level: level.to_owned(),
            seats: limits.nominal,
            executing,
            waiting,
        });
        each.collect()
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The seats of a request that has begun.
pub struct Permit {
    control: Arc<FlowControl>,
    level: String,
    queue: usize,
    width: u32,
    since: Instant,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let begun = self.control.levels.lock().leave(&self.level, self.queue, self.width, self.since.elapsed().as_secs_f64());
        self.control.wake(begun);
    }
}

/// A place in a queue, given up when nobody waits there any more.
struct Place<'a> {
    control: &'a FlowControl,
    level: &'a str,
    queue: usize,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.control.levels.lock().forget(self.level, self.queue, self.id);
    }
}

/// Says which schema and level the request was of.
pub fn tell(flow: &Flow, headers: &mut HeaderMap) {
    for (name, uid) in [(SCHEMA_HEADER, &flow.schema_uid), (LEVEL_HEADER, &flow.level_uid)] {
        if let Ok(value) = HeaderValue::from_str(uid) {
            headers.insert(name, value);
        }
    }
}
