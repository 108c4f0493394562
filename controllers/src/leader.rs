//! Leader election by a Lease, with the rules of Kubernetes' own client: of several that may do the same work one does,
//! and another takes over when that one is not heard of any more.
//!
//! No clock but one's own is trusted: a holder counts as gone when its Lease has not changed for its duration, as seen
//! from here. A leader that could not renew for `renew_deadline` stops, which is sooner than anybody may take over.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use rand::RngExt;
use slipway_api::jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How much longer than `retry_period` one who waits may wait, so that not all ask at once.
const JITTER: f64 = 1.2;

#[derive(Debug, Clone)]
pub struct Options {
    /// The Lease's name and namespace.
    pub name: String,
    pub namespace: String,
    /// Tells the candidates apart.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl Options {
    /// As Kubernetes' components have it, with an identity that no other process has.
    pub fn new(name: &str, host: &str) -> Options {
        Options {
            name: name.to_owned(),
            namespace: "kube-system".to_owned(),
            identity: format!("{host}_{:032x}", rand::random::<u128>()),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// The part ended by itself.
    Part(T),
    /// Another may lead now; the part was stopped where it was.
    Lost,
    /// It was asked to stop before it led.
    Stopped,
}

/// Waits to lead, then runs `part` until it ends or the lease is lost, whichever comes first.
pub async fn lead<F, R>(client: kube::Client, options: Options, shutdown: CancellationToken, part: F) -> Ended<R::Output>
where
    F: FnOnce(CancellationToken) -> R,
    R: Future,
{
    let leases = Api::namespaced(client, &options.namespace);
    let mut candidate = Candidate { leases, options, observed: None };
    if shutdown.run_until_cancelled(candidate.acquire()).await.is_none() {
        return Ended::Stopped;
    }
    tracing::info!(lease = candidate.options.name, identity = candidate.options.identity, "leading");
    let stop = shutdown.child_token();
    // What the part has started ends with it.
    let _stop = stop.clone().drop_guard();
    let ended = tokio::select! {
        // First, so that whoever was held up for long does nothing more before it knows.
        biased;
        () = candidate.renew() => None,
        output = part(stop.clone()) => Some(output),
    };
    match ended {
        Some(output) => {
            candidate.release().await;
            Ended::Part(output)
        }
        None => {
            tracing::error!(lease = candidate.options.name, "the lease was lost");
            Ended::Lost
        }
    }
}

/// A Lease as it was first seen like that.
struct Observed {
    lease: Lease,
    since: Instant,
}

struct Candidate {
    leases: Api<Lease>,
    options: Options,
    observed: Option<Observed>,
}

/// What the Lease is to be for `identity` to hold it, if it may take or keep it.
fn claim(observed: Option<&Observed>, options: &Options, now: Instant, wall: Timestamp) -> Option<LeaseSpec> {
    let held = observed.and_then(|observed| observed.lease.spec.clone()).unwrap_or_default();
    let holder = held.holder_identity.as_deref().unwrap_or_default();
    let is_mine = holder == options.identity;
    if let Some(observed) = observed {
        let seconds = held.lease_duration_seconds.unwrap_or_default().max(0).unsigned_abs();
        let is_over = now >= observed.since + Duration::from_secs(seconds.into());
        if !holder.is_empty() && !is_mine && !is_over {
            return None;
        }
    }
    let wall = Some(MicroTime(wall));
    Some(LeaseSpec {
        holder_identity: Some(options.identity.clone()),
        lease_duration_seconds: Some(options.lease_duration.as_secs() as i32),
        acquire_time: if is_mine { held.acquire_time } else { wall.clone() },
        renew_time: wall,
        lease_transitions: Some(held.lease_transitions.unwrap_or(0) + i32::from(observed.is_some() && !is_mine)),
        ..LeaseSpec::default()
    })
}

impl Candidate {
    async fn acquire(&mut self) {
        loop {
            // Who does not answer in time is asked anew.
            match tokio::time::timeout(self.options.renew_deadline, self.try_once()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(
                        lease = self.options.name,
                        error = &error as &dyn std::error::Error,
                        "the lease could not be had"
                    );
                }
                Err(_) => tracing::warn!(lease = self.options.name, "the lease could not be had in time"),
            }
            let pause = self.options.retry_period.mul_f64(1.0 + rand::rng().random_range(0.0..JITTER));
            tokio::time::sleep(pause).await;
        }
    }

    /// Ends when the lease could not be renewed for too long.
    async fn renew(&mut self) {
        loop {
            // From when the last renewal was sent: another may count from when it arrived, which is later.
            let deadline = tokio::time::sleep(self.options.renew_deadline);
            let renewed = async {
                tokio::time::sleep(self.options.retry_period).await;
                loop {
                    match tokio::time::timeout(self.options.retry_period, self.try_once()).await {
                        Ok(Ok(true)) => return true,
                        // Somebody else has it.
                        Ok(Ok(false)) => return false,
                        Ok(Err(error)) => {
                            tracing::warn!(error = &error as &dyn std::error::Error, "the lease could not be renewed");
                            tokio::time::sleep(self.options.retry_period).await;
                        }
                        Err(_) => {}
                    }
                }
            };
            tokio::select! {
                biased;
                () = deadline => return,
                renewed = renewed => if !renewed { return },
            }
        }
    }

    async fn try_once(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.options.name).await? else {
            let metadata = ObjectMeta { name: Some(self.options.name.clone()), ..ObjectMeta::default() };
            let spec = claim(None, &self.options, Instant::now(), Timestamp::now());
            return self.written(self.leases.create(&PostParams::default(), &Lease { metadata, spec }).await);
        };
        let is_news = self.observed.as_ref().is_none_or(|observed| observed.lease.spec != lease.spec);
        if is_news {
            self.observed = Some(Observed { lease: lease.clone(), since: Instant::now() });
        }
        let Some(spec) = claim(self.observed.as_ref(), &self.options, Instant::now(), Timestamp::now()) else {
            return Ok(false);
        };
        let claimed = Lease { spec: Some(spec), ..lease };
        self.written(self.leases.replace(&self.options.name, &PostParams::default(), &claimed).await)
    }

    fn written(&mut self, outcome: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match outcome {
            Ok(lease) => {
                self.observed = Some(Observed { lease, since: Instant::now() });
                Ok(true)
            }
            // Another was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease back, so that nobody has to wait for its end.
    async fn release(&mut self) {
        let Some(observed) = self.observed.take() else { return };
        let mut lease = observed.lease;
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
        let now = Some(MicroTime(Timestamp::now()));
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: transitions,
            ..LeaseSpec::default()
        });
        let params = PostParams::default();
        let given = self.leases.replace(&self.options.name, &params, &lease);
        if !matches!(tokio::time::timeout(self.options.retry_period, given).await, Ok(Ok(_))) {
            tracing::debug!(lease = self.options.name, "the lease was not given back: it ends by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(holder: &str, since: Instant) -> Observed {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(4),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        };
        Observed { lease: Lease { spec: Some(spec), ..Lease::default() }, since }
    }

    #[test]
    fn a_lease_is_taken_when_it_was_not_renewed_for_its_time_as_seen_from_here() {
        let options = Options { identity: "me".into(), ..Options::new("l", "h") };
        let (start, wall) = (Instant::now(), Timestamp::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let claimed = |holder, seconds| claim(Some(&observed(holder, start)), &options, after(seconds), wall);
        assert_eq!(claimed("other", 14), None);
        let taken = claimed("other", 15).unwrap();
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("me"), Some(5)));
        assert_eq!((taken.acquire_time, taken.renew_time), (Some(MicroTime(wall)), Some(MicroTime(wall))));
        let kept = claimed("me", 3).unwrap();
        assert_eq!((kept.lease_transitions, kept.acquire_time), (Some(4), Some(MicroTime(Timestamp::UNIX_EPOCH))));
        assert_eq!(claimed("", 0).unwrap().lease_transitions, Some(5), "one that was given back is free at once");
        assert_eq!(claim(None, &options, start, wall).unwrap().lease_transitions, Some(0));
    }
}
