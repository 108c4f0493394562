//! Every app with its live state.

use crate::components::{Badge, Empty, Head, Link, Loaded};
use crate::live::{Live, live};
use crate::reach;
use leptos::prelude::*;
use leptos_router::components::A;
use leptos_router::hooks::{use_navigate, use_query_map};
use serde_json::Value;
use slipway_dashboard_model::{self as model, Address, Health, Objects};

#[component]
pub fn Apps() -> impl IntoView {
    let query = use_query_map();
    let scope = Memo::new(move |_| query.read().get("namespace").unwrap_or_default());
    view! {
        <Head title="Apps"><Scope scope=scope/></Head>
        {move || view! { <Table namespace=scope.get()/> }}
    }
}

/// Which namespace is looked at: chosen among all, or named by who may not see them all.
#[component]
fn Scope(scope: Memo<String>) -> impl IntoView {
    let namespaces = live("/api/v1/namespaces".into());
    let navigate = use_navigate();
    let go = move |namespace: String| {
        let path = if namespace.is_empty() { "/".to_owned() } else { format!("/?namespace={namespace}") };
        navigate(&path, Default::default());
    };
    let names =
        move || namespaces.with(|all| all.values().map(|namespace| model::name(namespace).to_owned()).collect::<Vec<_>>());
    let refused = Memo::new(move |_| namespaces.failure.get().is_some());
    move || {
        let go = go.clone();
        let change = move |event| go(event_target_value(&event).trim().to_owned());
        if refused.get() {
            view! {
                <input class="scope" id="scope" placeholder="Namespace" aria-label="Namespace" autocapitalize="off" spellcheck="false"
                    prop:value=move || scope.get() on:change=change/>
            }
            .into_any()
        } else {
            let options = move || {
                let mut names = names();
                let chosen = scope.get();
                if !chosen.is_empty() && !names.contains(&chosen) {
                    names.push(chosen.clone());
                }
                let option = |name: String| view! { <option value=name.clone() selected=name == chosen>{name.clone()}</option> };
                names.into_iter().map(option).collect::<Vec<_>>()
            };
            view! {
                <select class="scope" id="scope" aria-label="Namespace" on:change=change>
                    <option value="" selected=move || scope.get().is_empty()>"All namespaces"</option>
                    {options}
                </select>
            }
            .into_any()
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Row {
    namespace: String,
    name: String,
    health: Health,
    ready: String,
    image: String,
    addresses: Vec<Address>,
}

impl Row {
    fn of(app: &Value, services: &Objects, pods: &Objects, host: &str) -> Self {
        Row {
            namespace: model::namespace(app).to_owned(),
            name: model::name(app).to_owned(),
            health: model::app_health(app, &model::pods_of(app, pods)),
            ready: format!("{} of {}", model::number(app, "/status/readyReplicas"), model::replicas(app)),
            image: model::text(app, "/spec/template/spec/containers/0/image").to_owned(),
            addresses: model::services_of(app, services).into_iter().map(|service| model::address(service, host)).collect(),
        }
    }
}

#[component]
fn Table(namespace: String) -> impl IntoView {
    let within = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    let deployments = live(format!("/apis/apps/v1{within}/deployments"));
    let services = live(format!("/api/v1{within}/services"));
    let pods = live(format!("/api/v1{within}/pods"));
    let blank = move || {
        view! {
            <Empty title="Nothing runs here yet" hint="An app needs no more than a name and an image.">
                <A href="/ui/deploy" attr:class="button primary">"Deploy an app"</A>
            </Empty>
        }
    };
    view! { <Loaded live=deployments blank=blank><Rows deployments services pods/></Loaded> }
}

#[component]
fn Rows(deployments: Live, services: Live, pods: Live) -> impl IntoView {
    let rows = move || {
        let host = reach::node_host();
        deployments.with(|apps| {
            services.with(|services| {
                pods.with(|pods| apps.values().map(|app| Row::of(app, services, pods, &host)).collect::<Vec<_>>())
            })
        })
    };
    view! {
        <table class="card rows">
            <thead><tr><th>"App"</th><th>"State"</th><th>"Ready"</th><th>"Image"</th><th>"Address"</th></tr></thead>
            <tbody id="apps"><For each=rows key=Row::clone children=row/></tbody>
        </table>
    }
}

fn row(row: Row) -> impl IntoView {
    let Row { namespace, name, health, ready, image, addresses } = row;
    let (why, app) = (health.why.clone(), name.clone());
    let addresses: Vec<_> = addresses.into_iter().map(|address| view! { <Link address/> }).collect();
    let href = format!("/ui/apps/{namespace}/{name}");
    view! {
        <tr data-app=app>
            <td class="lead"><A href=href>{name}</A><div class="dim">{namespace}</div></td>
            <td data-label="State"><Badge health/>{why.map(|why| view! { <div class="why">{why}</div> })}</td>
            <td data-label="Ready" class="number">{ready}</td>
            <td data-label="Image" class="mono">{image}</td>
            <td data-label="Address">{addresses}</td>
        </tr>
    }
}
