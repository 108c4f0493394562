//! The machines that apps run on.

use crate::api::live;
use crate::components::{Badge, Empty, Head, Loading};
use crate::model;
use leptos::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

#[component]
pub fn Nodes() -> impl IntoView {
    let nodes = live("/api/v1/nodes".into());
    let pods = live("/api/v1/pods".into());
    let table = move || {
        let nodes = nodes.get()?;
        let pods = pods.get().unwrap_or_default();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for pod in pods.values().filter(|pod| !matches!(model::text(pod, "/status/phase"), "Succeeded" | "Failed")) {
            *counts.entry(model::text(pod, "/spec/nodeName").to_owned()).or_default() += 1;
        }
        if nodes.is_empty() {
            return Some(
                view! { <Empty title="No node yet" hint="A NodePool makes Slipway buy one when a pod needs it."/> }.into_any(),
            );
        }
        let rows: Vec<_> = nodes.values().map(|node| row(node, counts.get(model::name(node)).copied().unwrap_or(0))).collect();
        Some(
            view! {
                <table class="card">
                    <thead><tr><th>"Node"</th><th>"State"</th><th>"Pods"</th><th>"CPU"</th><th>"Memory"</th><th>"Age"</th></tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            }
            .into_any(),
        )
    };
    view! {
        <Head title="Nodes"/>
        {move || table().unwrap_or_else(|| view! { <Loading/> }.into_any())}
    }
}

fn row(node: &Value, pods: usize) -> impl IntoView + use<> {
    let name = model::name(node).to_owned();
    let kind = model::text(node, "/metadata/labels/node.kubernetes.io~1instance-type").to_owned();
    let cpu = model::text(node, "/status/allocatable/cpu").to_owned();
    let memory = model::text(node, "/status/allocatable/memory").to_owned();
    let age = model::age(model::text(node, "/metadata/creationTimestamp"), js_sys::Date::now());
    view! {
        <tr data-node=name.clone()>
            <td><strong>{name.clone()}</strong><div class="dim">{kind}</div></td>
            <td><Badge health=model::node_health(node)/></td>
            <td class="number">{pods}</td>
            <td class="number">{cpu}</td>
            <td class="number">{memory}</td>
            <td class="number">{age}</td>
        </tr>
    }
}
