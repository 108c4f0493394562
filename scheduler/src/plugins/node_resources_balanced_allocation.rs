//! NodeResourcesBalancedAllocation: prefers nodes whose CPU and memory would be used to a like degree.

use crate::framework::{Plugin, SCORE_MAX, Score};
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};

pub struct NodeResourcesBalancedAllocation;

struct Balance<'a> {
    pod: &'a PodInfo,
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    /// A pod that asks for nothing leaves every node's balance as it is.
    fn score<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let asks = pod.requests.milli_cpu > 0 || pod.requests.memory > 0;
        asks.then(|| Box::new(Balance { pod }) as Box<dyn Score>)
    }
}

impl Score for Balance<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (wanted, taken, has) = (&self.pod.requests, &node.requested, &node.facts.allocatable);
        let share =
            |wanted: i64, taken: i64, has: i64| if has > 0 { ((wanted + taken) as f64 / has as f64).min(1.0) } else { 0.0 };
        let cpu = share(wanted.milli_cpu, taken.milli_cpu, has.milli_cpu);
        let memory = share(wanted.memory, taken.memory, has.memory);
        // The standard deviation of two numbers is half their difference.
        ((1.0 - (cpu - memory).abs() / 2.0) * SCORE_MAX as f64) as i64
    }
}
