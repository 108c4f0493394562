//! Every app with its live state.

use crate::api::live;
use crate::components::{Badge, Empty, Head, Loading};
use crate::model;
use leptos::prelude::*;
use leptos_router::components::A;
use serde_json::Value;
use std::sync::Arc;

#[component]
pub fn Apps() -> impl IntoView {
    let deployments = live("/apis/apps/v1/deployments".into());
    let services = live("/api/v1/services".into());
    let rows = move || {
        deployments.get().map(|all| {
            let services = services.get().unwrap_or_default();
            if all.is_empty() {
                return view! { <Empty title="Nothing runs here yet" hint="Deploy an app: a name and an image are enough."/> }
                    .into_any();
            }
            let rows: Vec<_> = all.values().map(|app| row(app, &services)).collect();
            view! {
                <table class="card">
                    <thead><tr><th>"App"</th><th>"State"</th><th>"Ready"</th><th>"Image"</th><th>"Answers at"</th></tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            }
            .into_any()
        })
    };
    view! {
        <Head title="Apps"/>
        {move || rows().unwrap_or_else(|| view! { <Loading/> }.into_any())}
    }
}

fn row(app: &Arc<Value>, services: &crate::api::Objects) -> impl IntoView + use<> {
    let (name, namespace) = (model::name(app).to_owned(), model::namespace(app).to_owned());
    let (href, title) = (format!("/ui/apps/{namespace}/{name}"), name.clone());
    let wanted = app.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let ready = format!("{} / {wanted}", model::number(app, "/status/readyReplicas"));
    let image = model::text(app, "/spec/template/spec/containers/0/image").to_owned();
    let addresses: Vec<_> = model::services_of(app, services).into_iter().map(|service| link(service)).collect();
    view! {
        <tr data-app=name.clone()>
            <td><A href=href><strong>{title}</strong></A><div class="dim">{namespace}</div></td>
            <td><Badge health=model::app_health(app)/></td>
            <td class="number">{ready}</td>
            <td class="mono">{image}</td>
            <td>{addresses}</td>
        </tr>
    }
}

/// Where a Service answers, as a link where a browser can open it.
pub fn link(service: &Value) -> impl IntoView + use<> {
    let (label, url) = model::address(service, &host());
    match url {
        Some(url) => view! { <a class="mono" href=url target="_blank" rel="noreferrer">{label}</a> }.into_any(),
        None => view! { <span class="mono dim">{label}</span> }.into_any(),
    }
}

/// The host under which the browser reached us: on one machine, NodePorts answer there too.
fn host() -> String {
    web_sys::window().and_then(|window| window.location().hostname().ok()).unwrap_or_default()
}
