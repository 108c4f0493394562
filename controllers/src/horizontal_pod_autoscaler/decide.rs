//! The decision: from what was read and what was done before to a number of replicas, and to what the status and the events say of it.

use std::sync::Arc;

use serde_json::json;
use slipway_api::{
    autoscaling_v2::{
        ContainerResourceMetricStatus, ExternalMetricStatus, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
        HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricStatus,
        PodsMetricStatus, ResourceMetricStatus,
    },
    condition,
    core::Pod,
    jiff::Timestamp,
    meta::Time,
    quantity::Quantity,
    selector::Selector,
};

use super::{
    limits::{Bounds, History, Rescale},
    metrics::{Measured, selector_text},
    replicas::{Now, Tolerances},
    target::Target,
};
use crate::{
    apply::Failure,
    plan::{Plan, Replace, Step},
};

/// Of what is used to what is wanted, where the autoscaler says nothing else.
const TOLERANCE: f64 = 0.1;

/// What was read of the API.
pub struct Observed {
    pub target: Result<Target, String>,
    pub selector: Result<Selector, Refused>,
    /// Those that the selector chooses.
    pub pods: Vec<Arc<Pod>>,
    /// One a metric of the spec; none where the number of replicas is settled without.
    pub measured: Vec<Result<Measured, String>>,
}

/// Why metrics cannot be told to belong to the target.
#[derive(Debug)]
pub struct Refused {
    pub event: &'static str,
    pub condition: &'static str,
    pub said: String,
    pub message: String,
}

impl Refused {
    pub fn missing_selector() -> Refused {
        Refused {
            event: "SelectorRequired",
            condition: "InvalidSelector",
            said: "selector is required".into(),
            message: "the HPA target's scale is missing a selector".into(),
        }
    }
}

pub fn bounds(spec: &HorizontalPodAutoscalerSpec) -> Bounds {
    Bounds { min: spec.min_replicas.unwrap_or(1), max: spec.max_replicas }
}

/// What is to be done.
pub struct Decision {
    status: HorizontalPodAutoscalerStatus,
    /// What is to be told before anything is changed, and after.
    before: Vec<Step>,
    after: Vec<Step>,
    rescale: Option<(Target, i32)>,
    history: History,
}

impl Decision {
    pub fn into_plan(self, autoscaler: &HorizontalPodAutoscaler) -> (Plan, History) {
        let mut plan = Plan { steps: self.before, again_in: None };
        if let Some((target, replicas)) = self.rescale {
            let mut object = target.scale;
            object["spec"]["replicas"] = json!(replicas);
            plan.push(Step::Replace(Replace { resource: target.resource, key: target.key, subresource: "scale", object }));
        }
        plan.steps.extend(self.after);
        let told = HorizontalPodAutoscaler { status: Some(self.status), ..autoscaler.clone() };
        plan.push(Step::update_status(autoscaler, &told));
        (plan, self.history)
    }
}

/// What a pass works with.
struct Pass<'a> {
    autoscaler: &'a HorizontalPodAutoscaler,
    status: HorizontalPodAutoscalerStatus,
    events: Vec<Step>,
    history: History,
    now: Timestamp,
}

/// What the metrics together call for.
struct Proposal {
    replicas: i32,
    metric: String,
}

pub fn decide(
    autoscaler: &HorizontalPodAutoscaler,
    observed: Observed,
    history: History,
    now: Timestamp,
    failure: Option<&Failure>,
) -> Decision {
    let status = autoscaler.status.clone().unwrap_or_default();
    let mut pass = Pass { autoscaler, status, events: vec![], history, now };
    let target = match &observed.target {
        Ok(target) => target.clone(),
        Err(error) => {
            pass.warn("FailedGetScale", error.clone());
            let message = format!("the HPA controller was unable to get the target's current scale: {error}");
            pass.condition("AbleToScale", "False", "FailedGetScale", &message);
            return pass.end(vec![], None);
        }
    };
    let message = "the HPA controller was able to get the target's current scale";
    pass.condition("AbleToScale", "True", "SucceededGetScale", message);
    if let Some(failed) = pass.confirm(target.replicas, failure) {
        return failed;
    }
    pass.history.begin(target.replicas, now);
    if target.replicas == 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        pass.condition("ScalingActive", "False", "ScalingDisabled", message);
        return pass.stay(target.replicas, None);
    }
    let bounds = bounds(&autoscaler.spec);
    if let Some((wanted, reason)) = bounds.outside(target.replicas) {
        return pass.rescale(target, wanted, reason.into(), None);
    }
    pass.by_metrics(target, bounds, &observed)
}

impl Pass<'_> {
    fn warn(&mut self, reason: &'static str, message: String) {
        self.events.push(Step::warning(self.autoscaler, reason, message));
    }

    fn condition(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        condition::set(&mut self.status.conditions, type_, status, reason, message, self.now);
    }

    fn set_status(&mut self, current: i32, desired: i32, metrics: Option<Vec<MetricStatus>>) {
        self.status = HorizontalPodAutoscalerStatus {
            current_replicas: Some(current),
            desired_replicas: desired,
            current_metrics: metrics,
            last_scale_time: self.status.last_scale_time.take(),
            conditions: self.status.conditions.take(),
            observed_generation: None,
        };
    }

    fn end(self, after: Vec<Step>, rescale: Option<(Target, i32)>) -> Decision {
        Decision { status: self.status, before: self.events, after, rescale, history: self.history }
    }

    fn stay(mut self, current: i32, metrics: Option<Vec<MetricStatus>>) -> Decision {
        self.set_status(current, current, metrics);
        self.end(vec![], None)
    }

    /// What the last pass asked for has come, or has failed; then that is all that this pass says.
    fn confirm(&mut self, current: i32, failure: Option<&Failure>) -> Option<Decision> {
        let pending = self.history.pending.take()?;
        if pending.to == current {
            self.history.changed(&pending, self.autoscaler.spec.behavior.as_ref());
            return None;
        }
        let error = &failure?.message;
        let Rescale { to, reason, .. } = &pending;
        let told = format!("New size: {to}; reason: {reason}; error: {error}");
        self.warn("FailedRescale", told);
        let message = format!("the HPA controller was unable to update the target scale: {error}");
        self.condition("AbleToScale", "False", "FailedUpdateScale", &message);
        let (desired, metrics) = (self.status.desired_replicas, self.status.current_metrics.take());
        self.set_status(current, desired, metrics);
        let status = std::mem::take(&mut self.status);
        let (before, history) = (std::mem::take(&mut self.events), std::mem::take(&mut self.history));
        Some(Decision { status, before, after: vec![], rescale: None, history })
    }

    fn rescale(mut self, target: Target, wanted: i32, reason: String, metrics: Option<Vec<MetricStatus>>) -> Decision {
        let current = target.replicas;
        let message = format!("the HPA controller was able to update the target scale to {wanted}");
        self.condition("AbleToScale", "True", "SucceededRescale", &message);
        self.set_status(current, wanted, metrics);
        self.status.last_scale_time = Some(Time(self.now));
        let message = format!("New size: {wanted}; reason: {reason}");
        let told = Step::event(self.autoscaler, "SuccessfulRescale", message);
        self.history.pending = Some(Rescale { at: self.now, from: current, to: wanted, reason });
        self.end(vec![told], Some((target, wanted)))
    }

    fn by_metrics(mut self, target: Target, bounds: Bounds, observed: &Observed) -> Decision {
        let current = target.replicas;
        let mut statuses = None;
        let proposal = match &observed.selector {
            Ok(_) => {
                let (proposal, all) = self.propose(&target, observed);
                statuses = Some(all);
                proposal
            }
            Err(refused) => {
                self.warn(refused.event, refused.said.clone());
                self.condition("ScalingActive", "False", refused.condition, &refused.message);
                Err(refused.said.clone())
            }
        };
        let Proposal { replicas: wanted, metric } = match proposal {
            Ok(proposal) => proposal,
            Err(error) => {
                let desired = self.status.desired_replicas;
                self.set_status(current, desired, statuses);
                self.warn("FailedComputeMetricsReplicas", error);
                return self.end(vec![], None);
            }
        };
        let mut reason = String::new();
        if wanted > current {
            reason = format!("{metric} above target");
        }
        if wanted < current {
            reason = "All metrics below target".into();
        }
        let behavior = self.autoscaler.spec.behavior.clone();
        let normal = self.history.normalize(behavior.as_ref(), bounds, current, wanted, self.now);
        self.condition("AbleToScale", "True", normal.stability.0, normal.stability.1);
        let limited = condition::status_of(normal.is_limited);
        self.condition("ScalingLimited", limited, normal.limit.0, normal.limit.1);
        if normal.replicas == current {
            return self.stay(current, statuses);
        }
        self.rescale(target, normal.replicas, reason, statuses)
    }

    /// The largest number that a metric calls for. Metrics that are not known keep it from falling.
    fn propose(&mut self, target: &Target, observed: &Observed) -> (Result<Proposal, String>, Vec<MetricStatus>) {
        let metrics = self.autoscaler.spec.metrics.clone().unwrap_or_default();
        let mut statuses = vec![];
        let mut best: Option<Proposal> = None;
        let mut invalid: Vec<Invalid> = vec![];
        for (metric, measured) in metrics.iter().zip(&observed.measured) {
            match self.computed(metric, measured, target, observed) {
                Ok((replicas, name, status)) => {
                    statuses.push(status);
                    if best.as_ref().is_none_or(|best| best.replicas == 0 || replicas > best.replicas) {
                        best = Some(Proposal { replicas, metric: name });
                    }
                }
                Err(why) => {
                    statuses.push(MetricStatus::default());
                    self.warn(why.reason, why.message.clone());
                    invalid.push(why);
                }
            }
        }
        let falls = best.as_ref().is_none_or(|best| best.replicas < target.replicas);
        match (invalid.first(), best) {
            (None, Some(best)) => {
                self.is_active(&best.metric);
                (Ok(best), statuses)
            }
            (Some(_), Some(best)) if !falls => {
                self.is_active(&best.metric);
                (Ok(best), statuses)
            }
            (first, _) => {
                let (count, all) = (invalid.len(), metrics.len());
                let first = first.map_or_else(Invalid::default, Clone::clone);
                let message = format!("the HPA was unable to compute the replica count: {}", first.message);
                self.condition("ScalingActive", "False", first.reason, &message);
                let why = format!("invalid metrics ({count} invalid out of {all}), first error is: {}", first.in_sum);
                (Err(why), statuses)
            }
        }
    }

    fn is_active(&mut self, metric: &str) {
        let message = format!("the HPA was able to successfully calculate a replica count from {metric}");
        self.condition("ScalingActive", "True", "ValidMetricFound", &message);
    }

    fn tolerances(&self) -> Tolerances {
        let behavior = self.autoscaler.spec.behavior.as_ref();
        let of = |rules: Option<&slipway_api::autoscaling_v2::HPAScalingRules>| {
            let tolerance = rules.and_then(|rules| Quantity::parse(&rules.tolerance.as_ref()?.0).ok());
            tolerance.map_or(TOLERANCE, Quantity::as_f64)
        };
        Tolerances {
            down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
            up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        }
    }

    fn computed(
        &self,
        metric: &MetricSpec,
        measured: &Result<Measured, String>,
        target: &Target,
        observed: &Observed,
    ) -> Result<(i32, String, MetricStatus), Invalid> {
        let pods = &observed.pods;
        let now = Now { replicas: target.replicas, pods, tolerances: self.tolerances(), time: self.now };
        compute(metric, measured, &now, target.status_replicas).map_err(|error| Invalid::of(metric, error))
    }
}

/// A metric from which no number follows.
#[derive(Clone, Default)]
struct Invalid {
    reason: &'static str,
    message: String,
    /// As it is told of all metrics together.
    in_sum: String,
}

impl Invalid {
    fn of(metric: &MetricSpec, error: String) -> Invalid {
        let (reason, whole) = match metric.type_.as_str() {
            "Object" => ("FailedGetObjectMetric", of_object(metric)),
            "Pods" => ("FailedGetPodsMetric", "failed to get pods metric value".to_owned()),
            "Resource" => {
                let name = metric.resource.as_ref().map_or("", |resource| &resource.name);
                ("FailedGetResourceMetric", format!("failed to get {name} resource metric value"))
            }
            "ContainerResource" => {
                let name = metric.container_resource.as_ref().map_or("", |resource| &resource.container);
                ("FailedGetContainerResourceMetric", format!("failed to get {name} container metric value"))
            }
            "External" => ("FailedGetExternalMetric", of_external(metric)),
            _ => return Invalid { reason: "InvalidMetricSourceType", in_sum: error.clone(), message: error },
        };
        Invalid { reason, in_sum: format!("{whole}: {error}"), message: error }
    }
}

fn of_object(metric: &MetricSpec) -> String {
    let whole = "failed to get object metric value";
    match metric.object.as_ref().filter(|object| object.target.type_ == "AverageValue") {
        Some(object) => format!("{whole}: failed to get {} object metric", object.metric.name),
        None => whole.to_owned(),
    }
}

fn of_external(metric: &MetricSpec) -> String {
    let Some(external) = &metric.external else { return String::new() };
    let name = &external.metric.name;
    let whole = format!("failed to get {name} external metric value");
    match external.target.average_value {
        Some(_) => format!("{whole}: failed to get {name} external metric"),
        None => format!("{whole}: failed to get external metric {name}"),
    }
}

type Computed = Result<(i32, String, MetricStatus), String>;

fn compute(metric: &MetricSpec, measured: &Result<Measured, String>, now: &Now<'_>, there: i32) -> Computed {
    if let Some(resource) = metric.resource.as_ref().filter(|_| metric.type_ == "Resource") {
        let (replicas, name, current) = of_resource(&resource.target, &resource.name, None, measured, now)?;
        let resource = Some(ResourceMetricStatus { name: resource.name.clone(), current });
        return Ok((replicas, name, MetricStatus { type_: metric.type_.clone(), resource, ..Default::default() }));
    }
    if let Some(one) = metric.container_resource.as_ref().filter(|_| metric.type_ == "ContainerResource") {
        let (replicas, name, current) = of_resource(&one.target, &one.name, Some(&one.container), measured, now)?;
        let (name_of, container) = (one.name.clone(), one.container.clone());
        let container_resource = Some(ContainerResourceMetricStatus { name: name_of, container, current });
        return Ok((replicas, name, MetricStatus { type_: metric.type_.clone(), container_resource, ..Default::default() }));
    }
    let measured = measured.as_ref().map_err(Clone::clone)?;
    if let Some(custom) = metric.pods.as_ref().filter(|_| metric.type_ == "Pods") {
        let target = milli(custom.target.average_value.as_ref().map(|text| text.0.as_str()));
        let (replicas, average) = now.by_average(of_pods(measured), target, "")?;
        let pods = Some(PodsMetricStatus { metric: custom.metric.clone(), current: average_value(decimal(average)) });
        let name = format!("pods metric {}", custom.metric.name);
        return Ok((replicas, name, MetricStatus { type_: metric.type_.clone(), pods, ..Default::default() }));
    }
    if let Some(object) = metric.object.as_ref().filter(|_| metric.type_ == "Object") {
        let (replicas, current) = of_value(&object.target, measured, now, there)
            .ok_or("invalid object metric source: neither a value target nor an average value target was set")??;
        let name = match current.value {
            Some(_) => format!("{} metric {}", object.described_object.kind, object.metric.name),
            None => format!("external metric {}({})", object.metric.name, selector_text(object.metric.selector.as_ref())),
        };
        let (described_object, of) = (object.described_object.clone(), object.metric.clone());
        let object = Some(ObjectMetricStatus { described_object, metric: of, current });
        return Ok((replicas, name, MetricStatus { type_: metric.type_.clone(), object, ..Default::default() }));
    }
    if let Some(external) = metric.external.as_ref().filter(|_| metric.type_ == "External") {
        // Of both, the share counts.
        let type_ = if external.target.average_value.is_some() { "AverageValue" } else { "Value" };
        let target = MetricTarget { type_: type_.into(), ..external.target.clone() };
        let (replicas, current) = of_value(&target, measured, now, there)
            .ok_or("invalid external metric source: neither a value target nor an average value target was set")??;
        let name = format!("external metric {}({})", external.metric.name, selector_text(external.metric.selector.as_ref()));
        let external = Some(ExternalMetricStatus { metric: external.metric.clone(), current });
        return Ok((replicas, name, MetricStatus { type_: metric.type_.clone(), external, ..Default::default() }));
    }
    Err(format!("unknown metric source type {:?}", metric.type_))
}

fn of_resource(
    target: &MetricTarget,
    resource: &str,
    container: Option<&str>,
    measured: &Result<Measured, String>,
    now: &Now<'_>,
) -> Result<(i32, String, MetricValueStatus), String> {
    if let Some(wanted) = &target.average_value {
        let fail = |error: String| format!("failed to get {resource} usage: {error}");
        let metrics = of_pods(measured.as_ref().map_err(|error| fail(error.clone()))?);
        let (replicas, average) = now.by_average(metrics, milli(Some(&wanted.0)), resource).map_err(fail)?;
        return Ok((replicas, format!("{resource} resource"), average_value(amount(resource, average))));
    }
    let Some(wanted) = target.average_utilization else {
        return Err(
            "invalid resource metric source: neither an average utilization target nor an average value (usage) target was \
                    set"
            .into(),
        );
    };
    let fail = |error: String| format!("failed to get {resource} utilization: {error}");
    let metrics = of_pods(measured.as_ref().map_err(|error| fail(error.clone()))?);
    let used = now.by_utilization(metrics, wanted, resource, container).map_err(fail)?;
    let part = if container.is_some() { " container" } else { "" };
    let name = format!("{resource}{part} resource utilization (percentage of request)");
    let current = MetricValueStatus { average_utilization: Some(used.percent), ..average_value(amount(resource, used.average)) };
    Ok((used.replicas, name, current))
}

/// By a number for all pods, or for each; `None` if the target is neither.
fn of_value(
    target: &MetricTarget,
    measured: &Measured,
    now: &Now<'_>,
    there: i32,
) -> Option<Result<(i32, MetricValueStatus), String>> {
    let value = match measured {
        Measured::One(value) => *value,
        Measured::Many(values) => values.iter().fold(0, |sum: i64, value| sum.saturating_add(*value)),
        Measured::Pods(_) => 0,
    };
    match (target.type_.as_str(), &target.value, &target.average_value) {
        ("Value", Some(wanted), _) => Some(now.by_value(value, milli(Some(&wanted.0))).map(|replicas| {
            let current = MetricValueStatus { value: Some(decimal(value)), ..MetricValueStatus::default() };
            (replicas, current)
        })),
        ("AverageValue", _, Some(wanted)) => {
            let (replicas, share) = now.by_share(value, milli(Some(&wanted.0)), there);
            Some(Ok((replicas, average_value(decimal(share)))))
        }
        _ => None,
    }
}

fn of_pods(measured: &Measured) -> &super::metrics::PodMetrics {
    static NONE: super::metrics::PodMetrics = super::metrics::PodMetrics::new();
    match measured {
        Measured::Pods(metrics) => metrics,
        Measured::One(_) | Measured::Many(_) => &NONE,
    }
}

type Text = k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn milli(text: Option<&str>) -> i64 {
    text.and_then(|text| Quantity::parse(text).ok()).map_or(0, Quantity::milli)
}

fn average_value(value: Text) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(value), ..MetricValueStatus::default() }
}

fn decimal(milli: i64) -> Text {
    Quantity::from_milli(milli).into()
}

/// Memory in `Ki` and its like, unless that is less than one.
fn amount(resource: &str, milli: i64) -> Text {
    let bytes = milli.saturating_add(999) / 1000;
    if resource == "memory" && bytes >= 1024 { Quantity::from_bytes(bytes).into() } else { decimal(milli) }
}
