//! What containers use, as kubelet's summary and as metrics for a metrics server.

use super::{Refused, Shared};
use crate::runtime::{self, api};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

fn number(value: Option<&api::UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Pod namespace, name and uid, and container name.
fn identity(stats: &api::ContainerStats) -> [String; 4] {
    let labels = stats.attributes.as_ref().map(|attributes| attributes.labels.clone()).unwrap_or_default();
    [runtime::POD_NAMESPACE, runtime::POD_NAME, runtime::POD_UID, runtime::CONTAINER_NAME]
        .map(|key| labels.get(key).cloned().unwrap_or_default())
}

pub async fn summary(State(context): State<Shared>) -> Result<Response, Refused> {
    let mut pods: BTreeMap<[String; 3], Vec<Value>> = BTreeMap::new();
    let (mut cpu, mut memory) = (0, 0);
    for stats in context.runtime.container_stats().await? {
        let [namespace, pod, uid, name] = identity(&stats);
        let (used, held) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
        cpu += number(used.usage_core_nano_seconds.as_ref());
        memory += number(held.working_set_bytes.as_ref());
        let layer = stats.writable_layer.clone().unwrap_or_default();
        pods.entry([namespace, pod, uid]).or_default().push(json!({
            "name": name,
            "cpu": {
                "time": time(used.timestamp),
                "usageNanoCores": number(used.usage_nano_cores.as_ref()),
                "usageCoreNanoSeconds": number(used.usage_core_nano_seconds.as_ref()),
            },
            "memory": {
                "time": time(held.timestamp),
                "usageBytes": number(held.usage_bytes.as_ref()),
                "workingSetBytes": number(held.working_set_bytes.as_ref()),
                "rssBytes": number(held.rss_bytes.as_ref()),
            },
            "rootfs": { "time": time(layer.timestamp), "usedBytes": number(layer.used_bytes.as_ref()) },
        }));
    }
    let pods: Vec<Value> = pods
        .into_iter()
        .map(|([namespace, name, uid], containers)| {
            json!({ "podRef": { "namespace": namespace, "name": name, "uid": uid }, "containers": containers })
        })
        .collect();
    let now = Timestamp::now();
    let node = json!({
        "nodeName": context.options.node_name,
        "cpu": { "time": now, "usageCoreNanoSeconds": cpu },
        "memory": { "time": now, "workingSetBytes": memory },
    });
    let body = json!({ "node": node, "pods": pods }).to_string();
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

pub async fn metrics(State(context): State<Shared>) -> Result<Response, Refused> {
    let mut cpu = "# TYPE container_cpu_usage_seconds_total counter\n".to_owned();
    let mut memory = "# TYPE container_memory_working_set_bytes gauge\n".to_owned();
    for stats in context.runtime.container_stats().await? {
        let [namespace, pod, _, name] = identity(&stats);
        let labels = format!("container={name:?},namespace={namespace:?},pod={pod:?}");
        let seconds = number(stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.as_ref())) as f64 / 1e9;
        let bytes = number(stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref()));
        let _ = writeln!(cpu, "container_cpu_usage_seconds_total{{{labels}}} {seconds}");
        let _ = writeln!(memory, "container_memory_working_set_bytes{{{labels}}} {bytes}");
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], cpu + &memory).into_response())
}
