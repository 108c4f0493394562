//! Which ended jobs are more than the history is to hold.

use std::sync::Arc;

use slipway_api::batch::{CronJobSpec, Job};

use crate::{job, resource::Object};

/// The oldest of those that succeeded, and of those that failed, beyond their limits.
pub fn surplus(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let beyond = |condition: &str, limit: Option<i32>| {
        let mut ended: Vec<&Arc<Job>> =
            jobs.iter().filter(|job| job::finished(job) == Some(condition) && !job.is_deleted()).collect();
        // Those that never started come last.
        ended.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            (start.is_none(), start, job.name().to_owned())
        });
        let count = limit.map_or(0, |limit| ended.len().saturating_sub(limit.max(0) as usize));
        ended.into_iter().take(count).cloned().collect::<Vec<_>>()
    };
    let mut surplus = beyond("Complete", spec.successful_jobs_history_limit);
    surplus.extend(beyond("Failed", spec.failed_jobs_history_limit));
    surplus
}
