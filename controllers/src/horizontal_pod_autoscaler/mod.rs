//! HorizontalPodAutoscaler: gives a workload as many replicas as what is measured of it calls for.
//!
//! What is measured is read of the metrics APIs, which extension servers serve behind the API server (`metrics.rs`); how many replicas
//! follow from that is a pure decision (`decide.rs`), which also rests on what was recommended and changed before (`limits.rs`).

mod decide;
mod limits;
mod metrics;
mod replicas;
mod target;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use slipway_api::{autoscaling_v2::HorizontalPodAutoscaler, core::Pod, selector::Selector};

use crate::{
    apply::Failure,
    caches::Caches,
    claim::matches,
    plan::Plan,
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};
use decide::{Observed, Refused};
use limits::History;
use target::Target;

/// So often each autoscaler is looked at.
const PERIOD: Duration = Duration::from_secs(15);

/// Reads the API: the scale of a target, and metrics.
#[async_trait]
pub trait Source: Send + Sync {
    async fn get(&self, path: &str) -> Result<Value, kube::Error>;
}

pub struct Api(pub kube::Client);

#[async_trait]
impl Source for Api {
    async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        let request = http::Request::get(path).header("accept", "application/json").body(vec![]);
        self.0.request(request.map_err(kube::Error::HttpError)?).await
    }
}

pub struct Controller {
    source: Box<dyn Source>,
    /// Of each autoscaler that there is. A controller that starts anew begins without: for a while it then scales down as soon as it
    /// may, as Kubernetes' does.
    histories: Mutex<BTreeMap<Key, History>>,
}

impl Controller {
    pub fn new(source: impl Source + 'static) -> Controller {
        Controller { source: Box::new(source), histories: Mutex::default() }
    }

    async fn observe(&self, autoscaler: &HorizontalPodAutoscaler, caches: &Caches) -> Observed {
        let spec = &autoscaler.spec;
        let target = target::find(&*self.source, autoscaler.namespace(), &spec.scale_target_ref).await;
        let mut observed = Observed { target, selector: Ok(Selector::nothing()), pods: vec![], measured: vec![] };
        let Ok(target) = &observed.target else { return observed };
        if decide::bounds(spec).outside(target.replicas).is_some() || target.replicas == 0 {
            return observed;
        }
        observed.selector = self.selector(autoscaler, target, caches);
        let Ok(selector) = &observed.selector else { return observed };
        observed.pods = selected(caches, autoscaler.namespace(), selector);
        for metric in spec.metrics.iter().flatten() {
            let measured = metrics::measure(&*self.source, autoscaler.namespace(), metric, selector).await;
            observed.measured.push(measured);
        }
        observed
    }

    /// Whose pods are the target's, and nobody else's.
    fn selector(&self, autoscaler: &HorizontalPodAutoscaler, target: &Target, caches: &Caches) -> Result<Selector, Refused> {
        if target.selector.is_empty() {
            return Err(Refused::missing_selector());
        }
        let selector = Selector::parse(&target.selector).map_err(|error| {
            let why = format!("couldn't convert selector into a corresponding internal selector object: {error}");
            Refused { event: "InvalidSelector", condition: "InvalidSelector", said: why.clone(), message: why }
        })?;
        let mut histories = self.histories.lock();
        histories.entry(autoscaler.key()).or_default().selector = Some(selector.clone());
        let pods = selected(caches, autoscaler.namespace(), &selector);
        let selects = |other: &Selector| pods.iter().any(|pod| matches(other, &pod.metadata));
        let sharing: BTreeSet<&Key> = histories
            .iter()
            .filter(|(key, history)| {
                let is_theirs = key.namespace == autoscaler.namespace() && history.selector.as_ref().is_some_and(selects);
                is_theirs || **key == autoscaler.key()
            })
            .map(|(key, _)| key)
            .collect();
        if sharing.len() > 1 {
            let names: Vec<String> = sharing.iter().map(|key| format!("{{{} {}}}", key.name, key.namespace)).collect();
            let selector = &target.selector;
            let why = format!("pods by selector {selector} are controlled by multiple HPAs: [{}]", names.join(" "));
            return Err(Refused { event: "AmbiguousSelector", condition: "AmbiguousSelector", said: why.clone(), message: why });
        }
        Ok(selector)
    }
}

fn selected(caches: &Caches, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
    let pods = caches.pods.in_namespace(namespace);
    pods.into_iter().filter(|pod| matches(selector, &pod.metadata)).collect()
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    /// What becomes of the pods is looked at from time to time; only what is asked for is looked at at once.
    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let queue = queue.clone();
        caches.horizontal_pod_autoscalers.on_change(move |old, new| {
            let same = old.zip(new).is_some_and(|(old, new)| old.spec == new.spec);
            if let Some(autoscaler) = new.or(old).filter(|_| !same) {
                queue.add(autoscaler.key());
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(autoscaler) = situation.caches.horizontal_pod_autoscalers.get(key) else {
            self.histories.lock().remove(key);
            return Ok(Plan::nothing());
        };
        let observed = self.observe(&autoscaler, situation.caches).await;
        let history = self.histories.lock().get(key).cloned().unwrap_or_default();
        let failure: Option<&Failure> = situation.failure.as_ref();
        let decision = decide::decide(&autoscaler, observed, history, situation.now, failure);
        let (mut plan, history) = decision.into_plan(&autoscaler);
        self.histories.lock().insert(key.clone(), history);
        plan.again_in(PERIOD);
        Ok(plan)
    }
}
