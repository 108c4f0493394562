//! The log of one container at a time, followed for as long as it is shown.

use crate::components::Card;
use crate::live::{self, Lifetime};
use crate::session::session;
use gloo_timers::future::TimeoutFuture;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::Value;
use slipway_dashboard_model as model;

/// The newest lines that the page keeps.
const LINES_MAX: usize = 1_000;
/// The newest lines that it begins with.
const TAIL_LINES: u32 = 200;
const RETRY_MS: u32 = 2_000;
/// So near to the end is at the end.
const END_PIXELS: i32 = 24;

/// A container that can be looked at; as (pod, container).
type Source = (String, String);

#[component]
pub fn Log(namespace: String, pods: Memo<Vec<Value>>) -> impl IntoView {
    let sources = Memo::new(move |_| pods.with(|pods| pods.iter().flat_map(sources_of).collect::<Vec<Source>>()));
    let chosen = RwSignal::new(None::<Source>);
    let shown = Memo::new(move |_| {
        let sources = sources.get();
        chosen.get().filter(|source| sources.contains(source)).or_else(|| sources.first().cloned())
    });
    let change = move |event: leptos::ev::Event| {
        let value = event_target_value(&event);
        chosen.set(value.split_once('/').map(|(pod, container)| (pod.to_owned(), container.to_owned())));
    };
    let options = move || {
        let (sources, shown) = (sources.get(), shown.get());
        let option = |source: Source| {
            let alone = sources.iter().filter(|(pod, _)| *pod == source.0).count() == 1;
            let label = if alone { source.0.clone() } else { format!("{}, {}", source.0, source.1) };
            view! { <option value=format!("{}/{}", source.0, source.1) selected=shown.as_ref() == Some(&source)>{label}</option> }
        };
        sources.iter().cloned().map(option).collect::<Vec<_>>()
    };
    let choice = move || view! { <select class="scope" aria-label="Pod" id="log-of" on:change=change>{options}</select> };
    let namespace = StoredValue::new(namespace);
    let pane = move || shown.get().map(|source| view! { <Lines namespace=namespace.get_value() source/> });
    let any = Memo::new(move |_| shown.with(Option::is_some));
    view! {
        <Show when=move || any.get()><Card title="Log" aside=choice>{pane}</Card></Show>
    }
}

fn sources_of(pod: &Value) -> Vec<Source> {
    let containers = model::list(pod, "/spec/containers").iter().chain(model::list(pod, "/spec/initContainers"));
    containers.map(|container| (model::name(pod).to_owned(), model::text(container, "/name").to_owned())).collect()
}

#[component]
fn Lines(namespace: String, source: Source) -> impl IntoView {
    let session = session();
    let lines = RwSignal::new(Vec::<String>::new());
    let trouble = RwSignal::new(None::<String>);
    let alive = Lifetime::of_owner();
    spawn_local(async move {
        let (pod, container) = source;
        let path =
            format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&follow=true&tailLines={TAIL_LINES}");
        while alive.goes_on() {
            // What was read before stays until there is something to put in its place.
            let mut fresh = true;
            let result = live::lines(session, &path, &alive, |new| {
                trouble.set(None);
                lines.update(|all| {
                    if std::mem::take(&mut fresh) {
                        all.clear();
                    }
                    all.extend_from_slice(new);
                    all.drain(..all.len().saturating_sub(LINES_MAX));
                });
                true
            })
            .await;
            if !alive.goes_on() {
                return;
            }
            trouble.set(result.err().map(|failure| failure.message));
            TimeoutFuture::new(RETRY_MS).await;
        }
    });
    let pane = NodeRef::<html::Pre>::new();
    let at_end = StoredValue::new(true);
    let scrolled = move |_| {
        if let Some(pane) = pane.get_untracked() {
            at_end.set_value(pane.scroll_top() + pane.client_height() + END_PIXELS >= pane.scroll_height());
        }
    };
    // New lines stay in sight unless somebody has scrolled up to read.
    Effect::new(move |_| {
        lines.track();
        if at_end.get_value()
            && let Some(pane) = pane.get()
        {
            request_animation_frame(move || pane.set_scroll_top(pane.scroll_height()));
        }
    });
    let empty = move || lines.with(Vec::is_empty).then(|| trouble.get().unwrap_or_else(|| "Nothing written yet.".into()));
    view! {
        <pre class="log" id="log" tabindex="0" node_ref=pane on:scroll=scrolled>
            {move || lines.with(|lines| lines.join("\n"))}<span class="hint">{empty}</span>
        </pre>
    }
}
