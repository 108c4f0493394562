//! The scheduler: gives every pod that has no node the node that suits it best, or says why there is none.
//!
//! [`framework::decide`] is a pure function of a pod and a [`snapshot::Snapshot`]; `state` keeps the snapshot and the queue up to
//! date from what is watched; `run` and `write` alone talk to the API. The scheduler knows nothing of clouds, but
//! [`framework::fits`] answers for nodes that could be bought as for those that exist.

pub mod affinity;
pub mod framework;
pub mod plugins;
pub mod preemption;
pub mod queue;
mod run;
pub mod snapshot;
mod state;
#[cfg(test)]
mod testing;
mod watch;
mod write;

pub use framework::{Decision, Explanation, Reason, Verdict, decide, fits, fits_info};
pub use run::run;
pub use snapshot::{NodeInfo, PodInfo, Snapshot};

/// How the scheduler goes about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// It takes care of pods whose `schedulerName` is this.
    pub name: String,
    /// The share of nodes that fit and are enough to choose from; 0 chooses by the size of the cluster.
    pub percentage_of_nodes_to_score: u32,
    /// How many bindings may be on their way at once: enough to hide the API's latency, few enough not to flood it.
    pub bindings_in_flight_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { name: "default-scheduler".to_owned(), percentage_of_nodes_to_score: 0, bindings_in_flight_max: 64 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the watch of {0} ended")]
    WatchEnded(&'static str),
}
