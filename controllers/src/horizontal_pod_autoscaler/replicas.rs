//! How many replicas one metric calls for. Values are thousandths.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use slipway_api::{
    core::{Container, Pod},
    jiff::{SignedDuration, Timestamp},
    quantity::Quantity,
};

use super::metrics::{PodMetric, PodMetrics};
use crate::{pods, resource::Object};

/// What a pod uses of cpu while it starts says little.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that has not become ready by then, and is not, counts as never having been.
const INITIAL_READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);

const NO_PODS: &str = "no pods returned by selector while calculating replica count";
const NO_METRICS: &str = "did not receive metrics for targeted pods (pods might be unready)";

/// How far what is used may be from what is wanted without anything being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn hold(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What all the calculations begin with.
pub struct Now<'a> {
    /// The replicas that are asked for.
    pub replicas: i32,
    pub pods: &'a [Arc<Pod>],
    pub tolerances: Tolerances,
    pub time: Timestamp,
}

/// Whose metrics say something.
#[derive(Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

pub struct Utilization {
    pub replicas: i32,
    pub percent: i32,
    pub average: i64,
}

impl Now<'_> {
    /// By the part of their requests that the pods use, in percent.
    pub fn by_utilization(
        &self,
        metrics: &PodMetrics,
        target: i32,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Utilization, String> {
        let (groups, mut counted) = self.counted(metrics, resource)?;
        let requests = requests(self.pods, container, resource)?;
        let (ratio, percent, average) = utilization(&counted, &requests, target)?;
        let missing = |pod: &str| match ratio < 1.0 {
            // What it may use, so that nothing goes for want of a number.
            true => requests.get(pod).copied().unwrap_or(0).saturating_mul(i64::from(target.max(100))) / 100,
            false => 0,
        };
        let again = |metrics: &PodMetrics| utilization(metrics, &requests, target).map(|(ratio, ..)| ratio);
        let replicas = self.settle(&groups, &mut counted, ratio, missing, again)?;
        Ok(Utilization { replicas, percent, average })
    }

    /// By what each pod uses on average; answers that too.
    pub fn by_average(&self, metrics: &PodMetrics, target: i64, resource: &str) -> Result<(i32, i64), String> {
        let (groups, mut counted) = self.counted(metrics, resource)?;
        let (ratio, average) = usage(&counted, target);
        let missing = |_: &str| if ratio < 1.0 { target } else { 0 };
        let replicas = self.settle(&groups, &mut counted, ratio, missing, |metrics| Ok(usage(metrics, target).0))?;
        Ok((replicas, average))
    }

    /// By one number for all pods that is to be `target`.
    pub fn by_value(&self, value: i64, target: i64) -> Result<i32, String> {
        let ratio = value as f64 / target as f64;
        if self.replicas == 0 {
            return Ok(ratio.ceil() as i32);
        }
        if self.tolerances.hold(ratio) {
            return Ok(self.replicas);
        }
        if self.pods.is_empty() {
            return Err(format!("unable to calculate ready pods: {NO_PODS}"));
        }
        let ready = self.pods.iter().filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod)).count();
        Ok((ratio * ready as f64).ceil() as i32)
    }

    /// By one number of which each pod is to have `target`; answers what each has, too. `there` is how many there are.
    pub fn by_share(&self, value: i64, target: i64, there: i32) -> (i32, i64) {
        let ratio = value as f64 / (target as f64 * f64::from(there));
        let wanted = if self.tolerances.hold(ratio) { there } else { (value as f64 / target as f64).ceil() as i32 };
        let share = if value == i64::MAX { value } else { (value as f64 / f64::from(there)).ceil() as i64 };
        (wanted, share)
    }

    /// The pods in groups, and the metrics of those that count.
    fn counted(&self, metrics: &PodMetrics, resource: &str) -> Result<(Groups, PodMetrics), String> {
        if self.pods.is_empty() {
            return Err(NO_PODS.into());
        }
        let groups = self.groups(metrics, resource);
        let mut counted = metrics.clone();
        counted.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
        if counted.is_empty() { Err(NO_METRICS.into()) } else { Ok((groups, counted)) }
    }

    fn groups(&self, metrics: &PodMetrics, resource: &str) -> Groups {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.name().to_owned();
            if pod.is_deleted() || pods::phase(pod) == "Failed" {
                groups.ignored.insert(name);
            } else if pods::phase(pod) == "Pending" {
                groups.unready.insert(name);
            } else if let Some(metric) = metrics.get(&name) {
                if resource == "cpu" && self.starts(pod, metric) {
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name);
            }
        }
        groups
    }

    /// Whether what the pod uses of cpu is what it takes to start.
    fn starts(&self, pod: &Pod, metric: &PodMetric) -> bool {
        let status = pod.status.as_ref();
        let condition = status.and_then(|status| status.conditions.as_ref()?.iter().find(|one| one.type_ == "Ready"));
        let start = status.and_then(|status| status.start_time.as_ref());
        let (Some(condition), Some(start)) = (condition, start) else { return true };
        let changed = condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let unready = condition.status == "False";
        if start.0 + CPU_INITIALIZATION > self.time {
            unready || metric.at < changed + metric.window
        } else {
            unready && start.0 + INITIAL_READINESS_DELAY > changed
        }
    }

    /// Pods of which nothing is known, or nothing that counts, may damp a change, and never cause one or turn it round.
    fn settle(
        &self,
        groups: &Groups,
        metrics: &mut PodMetrics,
        ratio: f64,
        missing: impl Fn(&str) -> i64,
        again: impl Fn(&PodMetrics) -> Result<f64, String>,
    ) -> Result<i32, String> {
        let up_beside_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !up_beside_unready && groups.missing.is_empty() {
            let wanted = if self.tolerances.hold(ratio) { self.replicas } else { (ratio * groups.ready as f64).ceil() as i32 };
            return Ok(wanted);
        }
        let assumed = |value: i64| PodMetric { at: self.time, window: SignedDuration::ZERO, value };
        if ratio != 1.0 {
            metrics.extend(groups.missing.iter().map(|pod| (pod.clone(), assumed(missing(pod)))));
        }
        if up_beside_unready {
            metrics.extend(groups.unready.iter().map(|pod| (pod.clone(), assumed(0))));
        }
        let damped = again(metrics)?;
        let turned = (ratio < 1.0 && damped > 1.0) || (ratio > 1.0 && damped < 1.0);
        if self.tolerances.hold(damped) || turned {
            return Ok(self.replicas);
        }
        let wanted = (damped * metrics.len() as f64).ceil() as i32;
        let turned = (damped < 1.0 && wanted > self.replicas) || (damped > 1.0 && wanted < self.replicas);
        Ok(if turned { self.replicas } else { wanted })
    }
}

/// Ratio to the target, percent, and average.
fn utilization(metrics: &PodMetrics, requests: &BTreeMap<String, i64>, target: i32) -> Result<(f64, i32, i64), String> {
    let known: Vec<(i64, i64)> = metrics.iter().filter_map(|(pod, metric)| Some((metric.value, *requests.get(pod)?))).collect();
    let used: i128 = known.iter().map(|(used, _)| i128::from(*used)).sum();
    let requested: i128 = known.iter().map(|(_, requested)| i128::from(*requested)).sum();
    if requested == 0 {
        return Err("no metrics returned matched known pods".into());
    }
    let percent = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
    let average = i64::try_from(used / known.len() as i128).unwrap_or(i64::MAX);
    Ok((f64::from(percent) / f64::from(target), percent, average))
}

/// Ratio to the target, and average.
fn usage(metrics: &PodMetrics, target: i64) -> (f64, i64) {
    let used: i128 = metrics.values().map(|metric| i128::from(metric.value)).sum();
    let average = i64::try_from(used / (metrics.len().max(1)) as i128).unwrap_or(i64::MAX);
    (average as f64 / target as f64, average)
}

/// What each pod requests: for the whole of it, if it says so, else the sum of its containers; or of the one that is named.
fn requests(pods: &[Arc<Pod>], container: Option<&str>, resource: &str) -> Result<BTreeMap<String, i64>, String> {
    pods.iter().map(|pod| Ok((pod.name().to_owned(), request(pod, container, resource)?))).collect()
}

fn request(pod: &Pod, container: Option<&str>, resource: &str) -> Result<i64, String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let of_pod = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let is_told_for_pod = of_pod.keys().any(|name| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-"));
    if container.is_none()
        && is_told_for_pod
        && let Some(quantity) = of_pod.get(resource)
    {
        return Ok(Quantity::parse(&quantity.0).map_or(0, Quantity::milli));
    }
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let mut sum = 0i64;
    for one in spec.containers.iter().chain(sidecars) {
        if container.is_some_and(|name| name != one.name) {
            continue;
        }
        let missing = || format!("missing request for {resource} in container {} of Pod {}", one.name, pod.name());
        sum = sum.saturating_add(of_container(one, resource).ok_or_else(missing)?);
        if container.is_some() {
            return Ok(sum);
        }
    }
    match container {
        Some(name) => Err(format!("container {name} not found in Pod {}", pod.name())),
        None => Ok(sum),
    }
}

fn of_container(container: &Container, resource: &str) -> Option<i64> {
    let quantity = container.resources.as_ref()?.requests.as_ref()?.get(resource)?;
    Some(Quantity::parse(&quantity.0).map_or(0, Quantity::milli))
}
