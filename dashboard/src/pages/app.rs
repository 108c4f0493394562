//! One app: its state, pods, log and events; scaled and deleted here.

use crate::api;
use crate::components::{Age, Badge, Card, Confirm, Empty, Head, Link, Loaded, Problem};
use crate::live::{Lifetime, Live, live};
use crate::pages::log::Log;
use crate::reach;
use crate::session::{Session, session};
use gloo_timers::future::TimeoutFuture;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::components::A;
use leptos_router::hooks::{use_navigate, use_params_map};
use serde_json::{Value, json};
use slipway_dashboard_model::{self as model, Address, Health, Occurrence, Tone};
use std::sync::Arc;

/// The newest events that the page shows.
const EVENTS_MAX: usize = 30;
/// How often an app is asked until it answers, and how often after that.
const ASK_EVERY_MS: u32 = 1_000;
const ASK_AGAIN_MS: u32 = 15_000;

/// What one app's page is about.
#[derive(Clone, Copy)]
struct Subject {
    app: Memo<Option<Arc<Value>>>,
    pods: Memo<Vec<Value>>,
    replica_sets: Live,
    services: Live,
    events: Live,
}

#[component]
pub fn App() -> impl IntoView {
    let parameters = use_params_map();
    move || {
        let parameters = parameters.read();
        let part = |name: &str| parameters.get(name).unwrap_or_default();
        view! { <OneApp namespace=part("namespace") name=part("name")/> }
    }
}

#[component]
fn OneApp(namespace: String, name: String) -> impl IntoView {
    let within = |group: &str, what: &str| live(format!("/{group}/namespaces/{namespace}/{what}"));
    let deployments = within("apis/apps/v1", &format!("deployments?fieldSelector=metadata.name%3D{name}"));
    let pods = within("api/v1", "pods");
    let key = format!("{namespace}/{name}");
    let app = Memo::new(move |_| deployments.with(|all| all.get(&key).cloned()));
    let own_pods = Memo::new(move |_| match app.get() {
        Some(app) => pods.with(|pods| model::pods_of(&app, pods).into_iter().cloned().collect::<Vec<Value>>()),
        None => vec![],
    });
    let subject = Subject {
        app,
        pods: own_pods,
        replica_sets: within("apis/apps/v1", "replicasets"),
        services: within("api/v1", "services"),
        events: within("api/v1", "events"),
    };
    let gone = name.clone();
    let blank = move || {
        view! {
            <Empty title=format!("There is no app {gone}") hint="It was deleted, or has another name.">
                <A href="/" attr:class="button">"All apps"</A>
            </Empty>
        }
    };
    view! {
        <Loaded live=deployments blank=blank>
            <Top namespace=namespace.clone() name=name.clone() subject/>
            <Summary subject/>
            <PodList pods=own_pods/>
            <Log namespace=namespace.clone() pods=own_pods/>
            <Events subject name=name.clone()/>
        </Loaded>
    }
}

#[component]
fn Top(namespace: String, name: String, subject: Subject) -> impl IntoView {
    let (session, navigate) = (session(), use_navigate());
    let problem = RwSignal::new(None::<String>);
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
    let wanted = Memo::new(move |_| subject.app.get().map_or(0, |app| model::replicas(&app)));
    let scaled = path.clone();
    let scale = Callback::new(move |by: i64| {
        let (path, replicas) = (scaled.clone(), (wanted.get_untracked() + by).max(0));
        spawn_local(async move {
            let patch = json!({"spec": {"replicas": replicas}});
            let failure = api::merge_patch(session, &path, &patch).await.err();
            problem.try_set(failure.map(|failure| failure.message));
        });
    });
    let asking = RwSignal::new(false);
    // What belongs to the Deployment goes with it: its pods, and the Service that the form made.
    let delete = Callback::new(move |()| {
        let (path, navigate) = (path.clone(), navigate.clone());
        spawn_local(async move {
            match api::request(session, "DELETE", &path, None).await {
                Ok(_) => navigate("/", Default::default()),
                Err(failure) => _ = problem.try_set(Some(failure.message)),
            }
        });
    });
    let below = move || view! { <A href="/">"Apps"</A>" / "{namespace.clone()} };
    view! {
        <Head title=name.clone() below=below>
            <div class="stepper" role="group" aria-label="Copies">
                <button class="button" id="fewer" aria-label="One copy fewer" disabled=move || wanted.get() == 0 on:click=move |_| scale.run(-1)>"−"</button>
                <span class="number"><span id="copies">{wanted}</span>{move || if wanted.get() == 1 { " copy" } else { " copies" }}</span>
                <button class="button" id="more" aria-label="One copy more" on:click=move |_| scale.run(1)>"+"</button>
            </div>
            <button class="button danger" id="delete" on:click=move |_| asking.set(true)>"Delete"</button>
        </Head>
        <Problem message=problem.into()/>
        <Confirm open=asking title=format!("Delete {name}?") text="Its pods end and its address stops answering. This can't be undone."
            action="Delete" on_confirm=delete/>
    }
}

/// What came of asking an app.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Unasked,
    /// With this HTTP status.
    Yes(u16),
    Not(String),
}

#[component]
fn Summary(subject: Subject) -> impl IntoView {
    let session = session();
    let services = Memo::new(move |_| match subject.app.get() {
        Some(app) => subject.services.with(|all| model::services_of(&app, all).into_iter().cloned().collect::<Vec<Value>>()),
        None => vec![],
    });
    let answer = RwSignal::new(Answer::Unasked);
    let alive = Lifetime::of_owner();
    spawn_local(async move {
        while alive.goes_on() {
            let now = match services.get_untracked().first() {
                Some(service) => ask(session, service).await,
                None => Answer::Unasked,
            };
            if !alive.goes_on() {
                return;
            }
            let pause = if matches!(now, Answer::Yes(_)) { ASK_AGAIN_MS } else { ASK_EVERY_MS };
            answer.set(now);
            TimeoutFuture::new(pause).await;
        }
    });
    let health = Memo::new(move |_| {
        let pods = subject.pods.get();
        subject.app.get().map(|app| model::app_health(&app, &pods.iter().collect::<Vec<_>>()))
    });
    let state = move || {
        health.get().map(|health| {
            let why = health.why.clone();
            view! { <Badge health/>{why.map(|why| view! { <span class="why">{why}</span> })} }
        })
    };
    let text = move |path: &'static str| move || subject.app.get().map(|app| model::text(&app, path).to_owned());
    let addresses = Memo::new(move |_| {
        let host = reach::node_host();
        services.get().iter().map(|service| model::address(service, &host)).collect::<Vec<Address>>()
    });
    let links = move || match addresses.get() {
        none if none.is_empty() => view! { <span class="dim">"Nothing leads to it"</span> }.into_any(),
        all => all.into_iter().map(|address| view! { <Link address/> }).collect::<Vec<_>>().into_any(),
    };
    view! {
        <Card>
            <dl class="facts">
                <dt>"State"</dt><dd id="state">{state}</dd>
                <dt>"Address"</dt><dd id="address">{links}<span id="answer">{move || told(&answer.get())}</span></dd>
                <dt>"Image"</dt><dd class="mono" id="image-name">{text("/spec/template/spec/containers/0/image")}</dd>
                <dt>"Age"</dt><dd>{move || text("/metadata/creationTimestamp")().map(|time| view! { <Age time/> })}</dd>
            </dl>
        </Card>
    }
}

fn told(answer: &Answer) -> impl IntoView + use<> {
    let badge =
        |tone, word: &str, why: String| Some(view! { <Badge health=Health { tone, word: word.into(), why: Some(why) }/> });
    match answer {
        Answer::Unasked => None,
        Answer::Yes(status) => badge(Tone::Ok, "Answers", format!("HTTP {status}")),
        Answer::Not(why) => badge(Tone::Idle, "No answer yet", why.clone()),
    }
}

/// Asked through the API, so from inside the cluster, and with the rights of who looks.
async fn ask(session: Session, service: &Value) -> Answer {
    let (namespace, name) = (model::namespace(service), model::name(service));
    let port = model::number(service, "/spec/ports/0/port");
    match api::ask_service(session, &format!("/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy/")).await {
        Ok(status) => Answer::Yes(status),
        Err(failure) => Answer::Not(failure.message),
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct PodRow {
    name: String,
    health: Health,
    restarts: i64,
    node: String,
    created: String,
}

impl PodRow {
    fn of(pod: &Value) -> Self {
        let text = |path| model::text(pod, path).to_owned();
        PodRow {
            name: model::name(pod).to_owned(),
            health: model::pod_health(pod),
            restarts: model::list(pod, "/status/containerStatuses")
                .iter()
                .map(|status| model::number(status, "/restartCount"))
                .sum(),
            node: text("/spec/nodeName"),
            created: text("/metadata/creationTimestamp"),
        }
    }
}

#[component]
fn PodList(pods: Memo<Vec<Value>>) -> impl IntoView {
    let rows = move || pods.with(|pods| pods.iter().map(PodRow::of).collect::<Vec<_>>());
    let row = |PodRow { name, health, restarts, node, created }: PodRow| {
        let (why, pod) = (health.why.clone(), name.clone());
        view! {
            <tr data-pod=pod>
                <td class="lead mono">{name}</td>
                <td data-label="State"><Badge health/>{why.map(|why| view! { <div class="why">{why}</div> })}</td>
                <td data-label="Restarts" class="number">{restarts}</td>
                <td data-label="Node">{node}</td>
                <td data-label="Age"><Age time=created/></td>
            </tr>
        }
    };
    view! {
        <Card title="Pods">
            <Show when=move || pods.with(|pods| !pods.is_empty()) fallback=|| view! { <p class="dim none">"No pods."</p> }>
                <table class="rows">
                    <thead><tr><th>"Pod"</th><th>"State"</th><th>"Restarts"</th><th>"Node"</th><th>"Age"</th></tr></thead>
                    <tbody id="pods"><For each=rows key=PodRow::clone children=row/></tbody>
                </table>
            </Show>
        </Card>
    }
}

#[component]
fn Events(subject: Subject, name: String) -> impl IntoView {
    let rows = Memo::new(move |_| {
        let Some(app) = subject.app.get() else { return vec![] };
        let name_of = |object: &Value| model::name(object).to_owned();
        let sets = subject.replica_sets.with(|all| {
            let own = all.values().filter(|set| model::is_owned(set, &app));
            own.map(|set| name_of(set)).collect::<Vec<_>>()
        });
        let services = subject.services.with(|all| model::services_of(&app, all).into_iter().map(name_of).collect::<Vec<_>>());
        let mut found =
            subject.events.with(|all| model::occurrences(all.values().map(|event| &**event), &name, &sets, &services));
        found.truncate(EVENTS_MAX);
        found
    });
    let row = |event: Occurrence| {
        let times = (event.count > 1).then(|| format!(" ×{}", event.count));
        view! {
            <li class=if event.warning { "warning" } else { "" }>
                <span class="when"><Age time=event.time/></span>
                <span class="what"><strong>{event.reason}</strong>{times}</span>
                <span class="said">{event.message}<small class="dim mono">{event.about}</small></span>
            </li>
        }
    };
    view! {
        <Card title="Events">
            <Show when=move || rows.with(|rows| !rows.is_empty()) fallback=|| view! { <p class="dim none">"Nothing happened lately."</p> }>
                <ul class="events" id="events"><For each=move || rows.get() key=Occurrence::clone children=row/></ul>
            </Show>
        </Card>
    }
}
