//! Simulated nodes: they register, renew their leases and run pods in memory, thousands of them in one process.
//!
//! One loop, one watch of all their pods and one of all of them. A pod starts after [`Options::start_latency`], is ready at once,
//! and ends if it is annotated so ([`EXIT_AFTER`], [`EXIT_CODE`]). There are no logs, no exec and no network behind these pods.

mod objects;
mod run;
mod world;

pub use run::{Error, run};

use parking_lot::Mutex;
use slipway_api::core::Taint;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// On a pod: its containers end so long after they started, such as `5s` or `200ms`.
pub const EXIT_AFTER: &str = "slipway.dev/simulated-exit-after";
/// On a pod: the exit code they end with; 0 if it isn't given.
pub const EXIT_CODE: &str = "slipway.dev/simulated-exit-code";
/// On a pod: how long it takes to start, in place of [`Options::start_latency`].
pub const START_LATENCY: &str = "slipway.dev/simulated-start-latency";
/// The label by which simulated nodes are told from others.
pub const LABEL: &str = "slipway.dev/simulated";

#[derive(Clone, Debug)]
pub struct Options {
    pub count: usize,
    /// Nodes are called by this and a number: `simulated-0`.
    pub name_prefix: String,
    /// What each node has.
    pub capacity: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// Nodes are in these zones by turns.
    pub zones: Vec<String>,
    /// How long a pod takes from being bound to running.
    pub start_latency: Duration,
    /// How long a pod takes to end once it is told to.
    pub stop_latency: Duration,
    /// How often a node renews its lease.
    pub lease_period: Duration,
    pub handle: Handle,
}

impl Default for Options {
    fn default() -> Options {
        let capacity = [("cpu", "32"), ("memory", "128Gi"), ("ephemeral-storage", "100Gi"), ("pods", "110")];
        Options {
            count: 1,
            name_prefix: "simulated-".to_owned(),
            capacity: capacity.into_iter().map(|(name, amount)| (name.to_owned(), amount.to_owned())).collect(),
            labels: BTreeMap::new(),
            taints: vec![],
            zones: vec![],
            start_latency: Duration::ZERO,
            stop_latency: Duration::ZERO,
            lease_period: Duration::from_secs(10),
            handle: Handle::default(),
        }
    }
}

/// Lets tests make nodes fail.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    silent: Arc<Mutex<HashSet<String>>>,
}

impl Handle {
    /// The node stops talking to the API, as if its network were cut: no lease, no status, no pod starts or ends.
    pub fn silence(&self, node: &str) {
        self.silent.lock().insert(node.to_owned());
    }

    pub fn revive(&self, node: &str) {
        self.silent.lock().remove(node);
    }

    pub fn is_silent(&self, node: &str) -> bool {
        self.silent.lock().contains(node)
    }
}
