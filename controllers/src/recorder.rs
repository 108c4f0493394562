//! Events: what happened to an object, told to people. Repetitions raise a counter instead of making new objects.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use http::Request;
use kube::Client;
use serde_json::{Value, json};
use slipway_api::{core::ObjectReference, jiff::Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    plan::EventKind,
    resource::{Key, Resource},
};

/// Events wait here for the API server; when it is slower than they come, the newest are dropped.
const QUEUE_MAX: usize = 1024;
/// How many different events are remembered for counting.
const REMEMBERED_MAX: usize = 4096;
/// So many events that differ in their message only are told one by one; then they are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// An object may have this many events at once, and then one each `REFILL`.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Happening>,
}

#[derive(Clone, Debug)]
pub struct Happening {
    pub component: &'static str,
    pub regarding: ObjectReference,
    pub kind: EventKind,
    pub reason: String,
    pub message: String,
    pub at: Timestamp,
}

impl Recorder {
    /// Starts the task that writes events.
    pub fn start(client: Client, shutdown: CancellationToken) -> Recorder {
        let (queue, mut happenings) = mpsc::channel::<Happening>(QUEUE_MAX);
        tokio::spawn(async move {
            let mut correlation = Correlation::default();
            while let Some(Some(happening)) = shutdown.run_until_cancelled(happenings.recv()).await {
                if let Some(write) = correlation.add(happening) {
                    send(&client, write).await;
                }
            }
        });
        Recorder { queue }
    }

    pub fn record(&self, happening: Happening) {
        if self.queue.try_send(happening).is_err() {
            debug!("an event is dropped: the API server does not keep up");
        }
    }
}

fn resource() -> Resource {
    use crate::resource::Object;
    slipway_api::core::Event::resource()
}

async fn send(client: &Client, write: Write) {
    if let Write::Again { key, patch, .. } = &write {
        let request = Request::patch(resource().path(key, None))
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string().into_bytes())
            .expect("object names make a URI");
        match client.request::<Value>(request).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {} // expired: told anew, below
            Err(error) => return debug!(%error, "an event is lost"),
            Ok(_) => return,
        }
    }
    let (Write::New { key, object } | Write::Again { key, object, .. }) = write;
    let request = Request::post(resource().collection(&key.namespace))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .expect("object names make a URI");
    if let Err(error) = client.request::<Value>(request).await {
        debug!(%error, "an event is lost");
    }
}

/// What to write for a happening.
#[derive(Debug)]
enum Write {
    New { key: Key, object: Value },
    Again { key: Key, patch: Value, object: Value },
}

#[derive(Default)]
struct Correlation {
    told: HashMap<String, Told>,
    order: VecDeque<String>,
    similar: HashMap<String, Similar>,
    allowance: HashMap<String, Allowance>,
}

struct Told {
    key: Key,
    count: i64,
    first: Timestamp,
}

struct Similar {
    messages: Vec<String>,
    last: Timestamp,
}

struct Allowance {
    tokens: f64,
    at: Timestamp,
}

impl Correlation {
    fn add(&mut self, mut happening: Happening) -> Option<Write> {
        let object = format!("{}/{}", happening.component, identity(&happening.regarding));
        if !self.allows(&object, happening.at) {
            return None;
        }
        let alike = format!("{object}/{:?}/{}", happening.kind, happening.reason);
        let combined = self.combines(&alike, &happening);
        let same = if combined { alike } else { format!("{alike}/{}", happening.message) };
        if combined {
            happening.message = format!("(combined from similar events): {}", happening.message);
        }
        let told = self.told.get_mut(&same).map(|told| {
            told.count += 1;
            (told.key.clone(), told.count, told.first)
        });
        if let Some((key, count, first)) = told {
            let at = seconds(happening.at);
            let patch = json!({"count": count, "lastTimestamp": at, "message": happening.message});
            let object = event(&key, &happening, count, first);
            return Some(Write::Again { key, patch, object });
        }
        let key = name_for(&happening);
        let object = event(&key, &happening, 1, happening.at);
        self.remember(same, Told { key: key.clone(), count: 1, first: happening.at });
        Some(Write::New { key, object })
    }

    fn remember(&mut self, same: String, told: Told) {
        self.order.push_back(same.clone());
        self.told.insert(same, told);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
    }

    fn combines(&mut self, alike: &str, happening: &Happening) -> bool {
        if self.similar.len() > REMEMBERED_MAX {
            self.similar.clear();
        }
        let similar = self.similar.entry(alike.to_owned()).or_insert(Similar { messages: vec![], last: happening.at });
        if happening.at.duration_since(similar.last).unsigned_abs() > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = happening.at;
        if !similar.messages.contains(&happening.message) && similar.messages.len() <= SIMILAR_MAX {
            similar.messages.push(happening.message.clone());
        }
        similar.messages.len() > SIMILAR_MAX
    }

    fn allows(&mut self, object: &str, now: Timestamp) -> bool {
        if self.allowance.len() > REMEMBERED_MAX {
            self.allowance.clear();
        }
        let allowance = self.allowance.entry(object.to_owned()).or_insert(Allowance { tokens: BURST, at: now });
        let passed = now.duration_since(allowance.at).as_secs_f64().max(0.0);
        allowance.tokens = (allowance.tokens + passed / REFILL.as_secs_f64()).min(BURST);
        allowance.at = now;
        if allowance.tokens < 1.0 {
            return false;
        }
        allowance.tokens -= 1.0;
        true
    }
}

fn identity(object: &ObjectReference) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}/{}/{}/{}", text(&object.kind), text(&object.namespace), text(&object.name), text(&object.uid))
}

fn name_for(happening: &Happening) -> Key {
    let regarding = &happening.regarding;
    // Events about cluster-scoped objects live in `default`, as kubectl expects.
    let namespace = regarding.namespace.clone().filter(|namespace| !namespace.is_empty());
    let name = regarding.name.clone().unwrap_or_default();
    Key::new(namespace.unwrap_or_else(|| "default".into()), format!("{name}.{:x}", happening.at.as_nanosecond()))
}

fn event(key: &Key, happening: &Happening, count: i64, first: Timestamp) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": key.namespace, "name": key.name},
        "involvedObject": happening.regarding,
        "reason": happening.reason,
        "message": happening.message,
        "source": {"component": happening.component},
        "reportingComponent": happening.component,
        "reportingInstance": "",
        "firstTimestamp": seconds(first),
        "lastTimestamp": seconds(happening.at),
        "count": count,
        "type": format!("{:?}", happening.kind),
    })
}

fn seconds(at: Timestamp) -> Value {
    json!(slipway_api::meta::Time(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(message: &str, second: i64) -> Happening {
        Happening {
            component: "replicaset-controller",
            regarding: ObjectReference { name: Some("web".into()), uid: Some("u".into()), ..Default::default() },
            kind: EventKind::Normal,
            reason: "SuccessfulCreate".into(),
            message: message.into(),
            at: Timestamp::from_second(1_000_000 + second).unwrap(),
        }
    }

    #[test]
    fn the_same_again_raises_the_count() {
        let mut correlation = Correlation::default();
        let Some(Write::New { key, object }) = correlation.add(happening("Created pod: a", 0)) else { panic!("new") };
        assert_eq!(object["count"], 1);
        assert_eq!(key.namespace, "default");
        let Some(Write::Again { key: again, patch, .. }) = correlation.add(happening("Created pod: a", 5)) else {
            panic!("again")
        };
        assert_eq!((again, &patch["count"]), (key, &json!(2)));
    }

    #[test]
    fn many_similar_events_are_combined() {
        let mut correlation = Correlation::default();
        let new = (0..15).filter(|n| matches!(correlation.add(happening(&format!("pod {n}"), *n)), Some(Write::New { .. })));
        assert_eq!(new.count(), SIMILAR_MAX + 1);
        let Some(Write::Again { patch, .. }) = correlation.add(happening("pod 16", 16)) else { panic!("combined") };
        assert_eq!(patch["message"], "(combined from similar events): pod 16");
    }

    #[test]
    fn one_object_cannot_flood_the_server() {
        let mut correlation = Correlation::default();
        let sent = (0..100).filter(|_| correlation.add(happening("same", 0)).is_some()).count();
        assert_eq!(sent, BURST as usize);
        assert!(correlation.add(happening("same", REFILL.as_secs() as i64 + 1)).is_some());
    }
}
