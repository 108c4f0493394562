//! What the scheduler tells the API: bindings, events, conditions, and the eviction of victims.

use crate::Options;
use crate::snapshot::PodInfo;
use crate::state::{Eviction, Refusal, Report};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use slipway_api::core::{Binding, Event, Pod};
use slipway_api::jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// How many events may wait to be written. More than that are dropped: events inform, and must not hold up decisions.
const EVENTS_MAX: usize = 4096;
/// How many events are written at once.
const EVENTS_IN_FLIGHT_MAX: usize = 16;
/// Of how many pods the last event is remembered, so that the same one again is counted instead of written anew.
const REMEMBERED_MAX: usize = 4096;

#[derive(Clone)]
pub struct Writer {
    client: Client,
    name: Arc<str>,
    events: mpsc::Sender<Notice>,
}

/// Something to be told about a pod.
struct Notice {
    pod: Arc<PodInfo>,
    type_: &'static str,
    reason: &'static str,
    action: &'static str,
    message: String,
}

impl Writer {
    pub fn new(client: Client, options: &Options) -> Writer {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let name: Arc<str> = options.name.as_str().into();
        tokio::spawn(write_events(client.clone(), name.clone(), receiver));
        Writer { client, name, events }
    }

    fn pods(&self, pod: &PodInfo) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }

    fn tell(&self, pod: &Arc<PodInfo>, type_: &'static str, reason: &'static str, action: &'static str, message: String) {
        if self.events.try_send(Notice { pod: pod.clone(), type_, reason, action, message }).is_err() {
            tracing::debug!(pod = &*pod.key, reason, "event dropped: too many are waiting");
        }
    }

    /// Says whether the API took it.
    pub async fn bind(&self, pod: &Arc<PodInfo>, node: &str) -> bool {
        let mut binding = Binding::default();
        binding.metadata.name = Some(pod.name.clone());
        binding.metadata.namespace = Some(pod.namespace.clone());
        binding.metadata.uid = Some(pod.uid.clone());
        binding.target.api_version = Some("v1".to_owned());
        binding.target.kind = Some("Node".to_owned());
        binding.target.name = Some(node.to_owned());
        match self.pods(pod).create_subresource::<_, Value>("binding", &pod.name, &PostParams::default(), &binding).await {
            Ok(_) => {
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.tell(pod, "Normal", "Scheduled", "Binding", message);
                true
            }
            // It is gone, or somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                tracing::debug!(pod = &*pod.key, node, %status, "binding refused");
                false
            }
            Err(error) => {
                tracing::warn!(pod = &*pod.key, node, %error, "binding failed, trying again");
                self.tell(pod, "Warning", "FailedScheduling", "Scheduling", format!("binding rejected: {error}"));
                false
            }
        }
    }

    pub async fn refuse(&self, refusal: Refusal) {
        let Refusal { pod, message, report, eviction } = refusal;
        let nominated = eviction.as_ref().map(|eviction| eviction.node.clone());
        if let Some(eviction) = eviction {
            self.evict(&pod, eviction).await;
        }
        let mut status = json!({});
        if let Some(report) = report {
            let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
            if report == Report::First {
                condition["lastTransitionTime"] = json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            }
            status["conditions"] = json!([condition]);
        }
        if let Some(node) = nominated {
            status["nominatedNodeName"] = json!(&*node);
        }
        if status != json!({}) {
            self.patch_status(&pod, status).await;
        }
        self.tell(&pod, "Warning", "FailedScheduling", "Scheduling", message);
    }

    async fn evict(&self, pod: &Arc<PodInfo>, eviction: Eviction) {
        for other in &eviction.superseded {
            self.patch_status(other, json!({"nominatedNodeName": null})).await;
        }
        for victim in eviction.victims.iter().filter(|victim| !victim.deleting) {
            let message = format!("{}: preempting to accommodate a higher priority pod", self.name);
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": message, "lastTransitionTime": now,
            });
            self.patch_status(victim, json!({"conditions": [condition]})).await;
            let only_this_one = DeleteParams::default()
                .preconditions(kube::api::Preconditions { uid: Some(victim.uid.clone()), resource_version: None });
            match self.pods(victim).delete(&victim.name, &only_this_one).await {
                Ok(_) => {
                    let message = format!("Preempted by pod {} on node {}", pod.uid, eviction.node);
                    self.tell(victim, "Normal", "Preempted", "Preempting", message);
                }
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => tracing::warn!(pod = &*victim.key, %error, "preemption failed"),
            }
        }
    }

    async fn patch_status(&self, pod: &PodInfo, status: Value) {
        let patch = json!({"metadata": {"uid": pod.uid}, "status": status});
        match self.pods(pod).patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => tracing::warn!(pod = &*pod.key, %error, "status not written"),
        }
    }
}

/// The last event of a pod.
struct Written {
    name: String,
    reason: &'static str,
    message: String,
    count: i32,
}

async fn write_events(client: Client, reporter: Arc<str>, mut notices: mpsc::Receiver<Notice>) {
    let in_flight = Arc::new(Semaphore::new(EVENTS_IN_FLIGHT_MAX));
    let mut written: HashMap<String, Written> = HashMap::new();
    let mut serial: u64 = 0;
    while let Some(notice) = notices.recv().await {
        let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
        let api: Api<Event> = Api::namespaced(client.clone(), &notice.pod.namespace);
        let now = Timestamp::now();
        let same = |last: &&mut Written| last.reason == notice.reason && last.message == notice.message;
        if let Some(last) = written.get_mut(&notice.pod.uid).filter(same) {
            last.count += 1;
            let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let patch = Patch::Merge(json!({"count": last.count, "lastTimestamp": time}));
            let name = last.name.clone();
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = api.patch(&name, &PatchParams::default(), &patch).await {
                    tracing::debug!(%error, "event not counted");
                }
            });
            continue;
        }
        serial += 1;
        // As in Kubernetes: the time makes the name unique among writers, the serial number among our own.
        let name = format!("{}.{:x}", notice.pod.name, now.as_nanosecond() as u64 ^ serial);
        if notice.reason == "FailedScheduling" {
            if written.len() >= REMEMBERED_MAX {
                written.clear();
            }
            let last = Written { name: name.clone(), reason: notice.reason, message: notice.message.clone(), count: 1 };
            written.insert(notice.pod.uid.clone(), last);
        } else {
            written.remove(&notice.pod.uid);
        }
        let event = event(&notice, name, &reporter, now);
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                tracing::debug!(%error, "event not written");
            }
        });
    }
}

fn event(notice: &Notice, name: String, reporter: &str, now: Timestamp) -> Event {
    use slipway_api::core::{EventSource, ObjectReference};
    use slipway_api::meta::{ObjectMeta, Time};
    let pod = &notice.pod;
    let now = Time(now);
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(pod.namespace.clone()), ..ObjectMeta::default() },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        },
        type_: Some(notice.type_.to_owned()),
        reason: Some(notice.reason.to_owned()),
        action: Some(notice.action.to_owned()),
        message: Some(notice.message.clone()),
        source: Some(EventSource { component: Some(reporter.to_owned()), host: None }),
        reporting_component: Some(reporter.to_owned()),
        reporting_instance: Some(reporter.to_owned()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    }
}
