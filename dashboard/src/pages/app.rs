//! One app: its pods, its events, a following log; scaled and deleted here.

use crate::api::{self, Lifetime, Objects, live};
use crate::components::{Badge, Card, Empty, Head, Loading, Problem};
use crate::model::{self, Health};
use crate::pages::apps::link;
use crate::session::{Session, session};
use gloo_timers::future::TimeoutFuture;
use leptos::prelude::*;
use leptos_router::hooks::{use_navigate, use_params_map};
use serde_json::{Value, json};
use std::sync::Arc;

/// The newest lines of a log that the page keeps.
const LOG_LINES_MAX: usize = 1_000;
/// The newest events that the page shows.
const EVENTS_MAX: usize = 20;
const ANSWER_EVERY_MS: u32 = 1_000;

#[component]
pub fn App() -> impl IntoView {
    let parameters = use_params_map().get_untracked();
    let namespace = parameters.get("namespace").unwrap_or_default();
    let name = parameters.get("name").unwrap_or_default();
    let deployments = live(format!("/apis/apps/v1/namespaces/{namespace}/deployments?fieldSelector=metadata.name%3D{name}"));
    let pods = live(format!("/api/v1/namespaces/{namespace}/pods"));
    let services = live(format!("/api/v1/namespaces/{namespace}/services"));
    let events = live(format!("/api/v1/namespaces/{namespace}/events"));
    let key = format!("{namespace}/{name}");
    let app = Memo::new(move |_| deployments.get().map(|all| all.get(&key).cloned()));
    let own_pods = Memo::new(move |_| match app.get().flatten() {
        Some(app) => model::pods_of(&app, &pods.get().unwrap_or_default()).into_iter().cloned().collect::<Vec<Value>>(),
        None => vec![],
    });
    let found = Memo::new(move |_| app.get().map(|app| app.is_some()));
    let below = namespace.clone();
    view! {
        {move || match found.get() {
            None => view! { <Loading/> }.into_any(),
            Some(false) => view! { <Empty title="This app is gone" hint="Nothing of it runs any more."/> }.into_any(),
            Some(true) => {
                let (name, namespace) = (name.clone(), below.clone());
                let (title, about, log_namespace) = (name.clone(), name.clone(), namespace.clone());
                view! {
                    <Head title=title below=namespace.clone()><Actions namespace=namespace name=name app=app/></Head>
                    <Summary app=app services=services/>
                    <PodList pods=own_pods/>
                    <Log namespace=log_namespace pods=own_pods/>
                    <Events name=about events=events/>
                }
                .into_any()
            }
        }}
    }
}

type AppSignal = Memo<Option<Option<Arc<Value>>>>;

#[component]
fn Actions(namespace: String, name: String, app: AppSignal) -> impl IntoView {
    let (session, navigate) = (session(), use_navigate());
    let problem = RwSignal::new(None::<String>);
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
    let wanted = move || app.get().flatten().and_then(|app| app.pointer("/spec/replicas").and_then(Value::as_i64)).unwrap_or(1);
    let scale_path = path.clone();
    let scale = move |by: i64| {
        let (path, replicas) = (scale_path.clone(), (wanted() + by).max(0));
        leptos::task::spawn_local(async move {
            let patch = json!({"spec": {"replicas": replicas}});
            problem.set(api::merge_patch(session, &path, &patch).await.err().map(|failure| failure.message));
        });
    };
    let fewer = scale.clone();
    let delete = move |_| {
        let sure = web_sys::window().and_then(|w| w.confirm_with_message(&format!("Delete {name} and all its pods?")).ok());
        if sure != Some(true) {
            return;
        }
        let (path, service, navigate) =
            (path.clone(), format!("/api/v1/namespaces/{namespace}/services/{name}"), navigate.clone());
        leptos::task::spawn_local(async move {
            let _ = api::request(session, "DELETE", &service, None).await;
            match api::request(session, "DELETE", &path, None).await {
                Ok(_) => navigate("/", Default::default()),
                Err(failure) => problem.set(Some(failure.message)),
            }
        });
    };
    view! {
        <Problem message=problem.into()/>
        <div class="stepper" role="group" aria-label="Copies">
            <button class="button" id="fewer" title="One copy fewer" on:click=move |_| fewer(-1)>"−"</button>
            <span class="number" id="copies">{wanted}</span>
            <button class="button" id="more" title="One copy more" on:click=move |_| scale(1)>"+"</button>
        </div>
        <button class="button danger" id="delete" on:click=delete>"Delete"</button>
    }
}

#[component]
fn Summary(app: AppSignal, services: ReadSignal<Option<Objects>>) -> impl IntoView {
    let session = session();
    let answers = RwSignal::new(None::<String>);
    let alive = Lifetime::of_owner();
    leptos::task::spawn_local(async move {
        while alive.goes_on() {
            let service = app.get_untracked().flatten().and_then(|app| {
                let services = services.get_untracked().unwrap_or_default();
                model::services_of(&app, &services).first().map(|service| (*service).clone())
            });
            answers.set(match service {
                Some(service) => answer(session, &service).await,
                None => None,
            });
            TimeoutFuture::new(ANSWER_EVERY_MS).await;
        }
    });
    let state = move || app.get().flatten().map(|app| view! { <Badge health=model::app_health(&app)/> });
    let why = move || app.get().flatten().and_then(|app| model::app_health(&app).why);
    let image = move || app.get().flatten().map(|app| model::text(&app, "/spec/template/spec/containers/0/image").to_owned());
    let addresses = move || {
        let services = services.get().unwrap_or_default();
        app.get().flatten().map(|app| model::services_of(&app, &services).into_iter().map(link).collect::<Vec<_>>())
    };
    view! {
        <Card>
            <dl class="facts">
                <dt>"State"</dt><dd id="state">{state}" "<span class="dim">{why}</span></dd>
                <dt>"Image"</dt><dd class="mono">{image}</dd>
                <dt>"Address"</dt><dd id="address">{addresses}" "{move || match answers.get() {
                    Some(_) => view! { <Badge health=Health { tone: "ok", word: "answers".into(), why: None }/> }.into_any(),
                    None => view! { <span class="dim">"no answer yet"</span> }.into_any(),
                }}</dd>
            </dl>
        </Card>
    }
}

/// What the Service answers, asked through the API, so that it is asked from inside the cluster.
async fn answer(session: Session, service: &Value) -> Option<String> {
    let (namespace, name) = (model::namespace(service), model::name(service));
    let port = model::number(service, "/spec/ports/0/port");
    api::text(session, &format!("/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy/")).await.ok()
}

#[component]
fn PodList(pods: Memo<Vec<Value>>) -> impl IntoView {
    let rows = move || pods.get().iter().map(pod_row).collect::<Vec<_>>();
    view! {
        <Card title="Pods">
            <table>
                <thead><tr><th>"Pod"</th><th>"State"</th><th>"Restarts"</th><th>"Node"</th><th>"Age"</th></tr></thead>
                <tbody id="pods">{rows}</tbody>
            </table>
        </Card>
    }
}

fn pod_row(pod: &Value) -> impl IntoView + use<> {
    let restarts: i64 = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|status| model::number(status, "/restartCount"))
        .sum();
    let health = model::pod_health(pod);
    let why = health.why.clone().unwrap_or_default();
    view! {
        <tr>
            <td class="mono">{model::name(pod).to_owned()}</td>
            <td><Badge health=health/><div class="dim">{why}</div></td>
            <td class="number">{restarts}</td>
            <td>{model::text(pod, "/spec/nodeName").to_owned()}</td>
            <td class="number">{model::age(model::text(pod, "/metadata/creationTimestamp"), js_sys::Date::now())}</td>
        </tr>
    }
}

/// The log of one pod at a time, followed for as long as it is shown.
#[component]
fn Log(namespace: String, pods: Memo<Vec<Value>>) -> impl IntoView {
    let names = Memo::new(move |_| pods.get().iter().map(|pod| model::name(pod).to_owned()).collect::<Vec<String>>());
    let chosen = RwSignal::new(None::<String>);
    let shown = Memo::new(move |_| {
        let names = names.get();
        chosen.get().filter(|name| names.contains(name)).or_else(|| names.first().cloned())
    });
    let options = move || {
        let shown = shown.get();
        let option = |name: String| {
            let selected = shown.as_ref() == Some(&name);
            view! { <option value=name.clone() selected=selected>{name.clone()}</option> }
        };
        names.get().into_iter().map(option).collect::<Vec<_>>()
    };
    view! {
        <Card title="Log">
            <select aria-label="Pod" on:change=move |event| chosen.set(Some(event_target_value(&event)))>{options}</select>
            {move || shown.get().map(|pod| view! { <Lines namespace=namespace.clone() pod=pod/> })}
        </Card>
    }
}

#[component]
fn Lines(namespace: String, pod: String) -> impl IntoView {
    let session = session();
    let lines = RwSignal::new(Vec::<String>::new());
    let alive = Lifetime::of_owner();
    leptos::task::spawn_local(async move {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?follow=true&tailLines=200");
        while alive.goes_on() {
            lines.set(vec![]);
            let _ = api::lines(session, &path, &alive, |line| {
                lines.update(|all| {
                    if all.len() == LOG_LINES_MAX {
                        all.remove(0);
                    }
                    all.push(line.to_owned());
                });
                true
            })
            .await;
            TimeoutFuture::new(ANSWER_EVERY_MS * 2).await;
        }
    });
    view! { <pre class="log" id="log">{move || lines.get().join("\n")}</pre> }
}

#[component]
fn Events(name: String, events: ReadSignal<Option<Objects>>) -> impl IntoView {
    let prefix = format!("{name}-");
    let rows = move || {
        let all = events.get().unwrap_or_default();
        let mut own: Vec<Arc<Value>> = all.values().cloned().collect();
        own.retain(|event| {
            let about = model::text(event, "/involvedObject/name");
            about == name || about.starts_with(&prefix)
        });
        let time = |event: &Value| {
            let last = model::text(event, "/lastTimestamp");
            if last.is_empty() { model::text(event, "/metadata/creationTimestamp").to_owned() } else { last.to_owned() }
        };
        own.sort_by_key(|event| std::cmp::Reverse(time(event)));
        let row = |event: &Arc<Value>| {
            view! {
                <tr class=if model::text(event, "/type") == "Warning" { "warning" } else { "" }>
                    <td class="number">{model::age(&time(event), js_sys::Date::now())}</td>
                    <td>{model::text(event, "/reason").to_owned()}</td>
                    <td class="mono">{model::text(event, "/involvedObject/name").to_owned()}</td>
                    <td>{model::text(event, "/message").to_owned()}</td>
                </tr>
            }
        };
        own.iter().take(EVENTS_MAX).map(row).collect::<Vec<_>>()
    };
    view! { <Card title="Events"><table><tbody id="events">{rows}</tbody></table></Card> }
}
