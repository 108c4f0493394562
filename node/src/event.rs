//! Events about pods and the node. The same event again counts up instead of filling the store.

use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use slipway_api::core::{Event, EventSource, Node, ObjectReference, Pod};
use slipway_api::meta::{ObjectMeta, Time};
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Events wait here for the API server; when it is away for long, the newest are dropped.
const WAITING_MAX: usize = 1024;
/// Remembered for counting up.
const REMEMBERED_MAX: usize = 4096;
/// Each object may have this many events at once, and then one in each [`REFILL`]: a pod that flaps must not flood.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;

#[derive(Debug, Clone)]
pub struct Recorder {
    host: String,
    queue: mpsc::Sender<Record>,
}

#[derive(Debug)]
struct Record {
    about: ObjectReference,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    pub fn start(client: Client, host: &str) -> Recorder {
        let (queue, records) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write(client, host.to_owned(), records));
        Recorder { host: host.to_owned(), queue }
    }

    fn record(&self, about: ObjectReference, kind: &'static str, reason: &str, message: String) {
        tracing::debug!(reason, message, "event");
        let record = Record { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        let _ = self.queue.try_send(record);
    }

    pub fn normal(&self, pod: &Pod, container: Option<&str>, reason: &str, message: impl Into<String>) {
        self.record(reference(pod, container), "Normal", reason, message.into());
    }

    pub fn warning(&self, pod: &Pod, container: Option<&str>, reason: &str, message: impl Into<String>) {
        self.record(reference(pod, container), "Warning", reason, message.into());
    }

    pub fn node(&self, node: &Node, reason: &str, message: impl Into<String>) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            api_version: Some("v1".into()),
            name: Some(self.host.clone()),
            uid: node.uid(),
            ..Default::default()
        };
        self.record(about, "Normal", reason, message.into());
    }
}

fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let is = |name: &str| Some(name) == container;
    let list = match &pod.spec {
        Some(spec) if spec.init_containers.iter().flatten().any(|init| is(&init.name)) => "spec.initContainers",
        Some(spec) if spec.ephemeral_containers.iter().flatten().any(|ephemeral| is(&ephemeral.name)) => {
            "spec.ephemeralContainers"
        }
        _ => "spec.containers",
    };
    ObjectReference {
        kind: Some("Pod".into()),
        api_version: Some("v1".into()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        resource_version: pod.resource_version(),
        field_path: container.map(|name| format!("{list}{{{name}}}")),
    }
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct Key(Option<String>, Option<String>, Option<String>, String, String);

struct Seen {
    name: String,
    count: i32,
}

async fn write(client: Client, host: String, mut records: mpsc::Receiver<Record>) {
    let mut seen: HashMap<Key, Seen> = HashMap::new();
    let mut buckets: HashMap<Option<String>, (f64, Timestamp)> = HashMap::new();
    while let Some(record) = records.recv().await {
        if seen.len() > REMEMBERED_MAX {
            seen.clear();
            buckets.clear();
        }
        let (tokens, since) = buckets.entry(record.about.uid.clone()).or_insert((BURST, record.at));
        *tokens = (*tokens + record.at.duration_since(*since).as_secs_f64() / REFILL_SECONDS).min(BURST);
        *since = record.at;
        if *tokens < 1.0 {
            continue;
        }
        *tokens -= 1.0;
        let about = &record.about;
        let key =
            Key(about.uid.clone(), about.name.clone(), about.field_path.clone(), record.reason.clone(), record.message.clone());
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if let Some(before) = seen.get_mut(&key) {
            before.count += 1;
            let patch = serde_json::json!({ "count": before.count, "lastTimestamp": Time(record.at) });
            if api.patch(&before.name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
                continue;
            }
        }
        let event = event(&record, &namespace, &host);
        let name = event.name_any();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => drop(seen.insert(key, Seen { name, count: 1 })),
            Err(error) => tracing::debug!(%error, reason = record.reason, "an event was not recorded"),
        }
    }
}

fn event(record: &Record, namespace: &str, host: &str) -> Event {
    let name = format!("{}.{:x}", record.about.name.as_deref().unwrap_or_default(), record.at.as_nanosecond());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..Default::default() },
        involved_object: record.about.clone(),
        type_: Some(record.kind.to_owned()),
        reason: Some(record.reason.clone()),
        message: Some(record.message.clone()),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(host.to_owned()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(host.to_owned()),
        first_timestamp: Some(Time(record.at)),
        last_timestamp: Some(Time(record.at)),
        count: Some(1),
        ..Default::default()
    }
}
