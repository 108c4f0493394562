//! The machines that apps run on.

use crate::components::{Age, Badge, Empty, Head, Loaded, Meter};
use crate::live::{Live, live};
use leptos::prelude::*;
use serde_json::Value;
use slipway_dashboard_model::{self as model, Health};
use std::collections::BTreeMap;

#[component]
pub fn Nodes() -> impl IntoView {
    let (nodes, pods) = (live("/api/v1/nodes".into()), live("/api/v1/pods".into()));
    let blank = || view! { <Empty title="No node yet" hint="A NodePool makes Slipway bring one as soon as a pod needs it."/> };
    view! {
        <Head title="Nodes"/>
        <Loaded live=nodes blank=blank><Rows nodes pods/></Loaded>
    }
}

/// What the pods of a node ask of it.
#[derive(Clone, Copy, Default)]
struct Load {
    pods: i64,
    cpu: i64,
    memory: i64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Row {
    name: String,
    about: String,
    health: Health,
    pods: (i64, i64),
    cpu: (i64, i64),
    memory: (i64, i64),
    version: String,
    created: String,
}

impl Row {
    fn of(node: &Value, load: Load) -> Self {
        let label = |name: &str| model::text(node, &format!("/metadata/labels/{name}"));
        let about = [label("node.kubernetes.io~1instance-type"), label("topology.kubernetes.io~1zone"), address(node)];
        let has = |what: &str| model::text(node, &format!("/status/allocatable/{what}"));
        Row {
            name: model::name(node).to_owned(),
            about: about.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · "),
            health: model::node_health(node),
            pods: (load.pods, has("pods").parse().unwrap_or_default()),
            cpu: (load.cpu, model::milli(has("cpu"))),
            memory: (load.memory, model::bytes(has("memory"))),
            version: model::text(node, "/status/nodeInfo/kubeletVersion").to_owned(),
            created: model::text(node, "/metadata/creationTimestamp").to_owned(),
        }
    }
}

fn address(node: &Value) -> &str {
    let inner = model::list(node, "/status/addresses").iter().find(|address| address["type"] == "InternalIP");
    inner.map(|address| model::text(address, "/address")).unwrap_or_default()
}

#[component]
fn Rows(nodes: Live, pods: Live) -> impl IntoView {
    let rows = move || {
        let mut loads: BTreeMap<String, Load> = BTreeMap::new();
        pods.with(|pods| {
            let running = pods.values().filter(|pod| !matches!(model::text(pod, "/status/phase"), "Succeeded" | "Failed"));
            for pod in running {
                let load = loads.entry(model::text(pod, "/spec/nodeName").to_owned()).or_default();
                let (cpu, memory) = model::requests(pod);
                *load = Load { pods: load.pods + 1, cpu: load.cpu + cpu, memory: load.memory + memory };
            }
        });
        let row = |node: &Value| Row::of(node, loads.get(model::name(node)).copied().unwrap_or_default());
        nodes.with(|nodes| nodes.values().map(|node| row(node)).collect::<Vec<_>>())
    };
    view! {
        <table class="card rows">
            <thead>
                <tr><th>"Node"</th><th>"State"</th><th>"Pods"</th><th>"CPU asked for"</th><th>"Memory asked for"</th><th>"Version"</th><th>"Age"</th></tr>
            </thead>
            <tbody id="nodes"><For each=rows key=Row::clone children=row/></tbody>
        </table>
    }
}

fn row(row: Row) -> impl IntoView {
    let Row { name, about, health, pods, cpu, memory, version, created } = row;
    let (why, node) = (health.why.clone(), name.clone());
    let cpu_label = format!("{} of {}", model::cores(cpu.0), model::cores(cpu.1));
    let memory_label = format!("{} of {}", model::memory(memory.0), model::memory(memory.1));
    view! {
        <tr data-node=node>
            <td class="lead"><strong>{name}</strong><div class="dim">{about}</div></td>
            <td data-label="State"><Badge health/>{why.map(|why| view! { <div class="why">{why}</div> })}</td>
            <td data-label="Pods"><Meter part=pods.0 whole=pods.1 label=format!("{} of {}", pods.0, pods.1)/></td>
            <td data-label="CPU"><Meter part=cpu.0 whole=cpu.1 label=cpu_label/></td>
            <td data-label="Memory"><Meter part=memory.0 whole=memory.1 label=memory_label/></td>
            <td data-label="Version" class="dim">{version}</td>
            <td data-label="Age"><Age time=created/></td>
        </tr>
    }
}
