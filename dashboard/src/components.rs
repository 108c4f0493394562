//! The pieces that every page is made of. How they look stands in `assets/style.css`, by tokens.

use crate::model::Health;
use leptos::prelude::*;

/// A state, as one coloured word.
#[component]
pub fn Badge(health: Health) -> impl IntoView {
    view! { <span class=format!("badge {}", health.tone) title=health.why.unwrap_or_default()>{health.word}</span> }
}

/// A page's head: its title, a line below, and what can be done.
#[component]
pub fn Head(
    #[prop(into)] title: String,
    #[prop(into, optional)] below: String,
    #[prop(optional)] children: Option<Children>,
) -> impl IntoView {
    view! {
        <div class="head">
            <div>
                <h1>{title}</h1>
                {(!below.is_empty()).then(|| view! { <p class="dim">{below}</p> })}
            </div>
            <div class="actions">{children.map(|children| children())}</div>
        </div>
    }
}

#[component]
pub fn Card(#[prop(into, optional)] title: String, children: Children) -> impl IntoView {
    view! {
        <section class="card">
            {(!title.is_empty()).then(|| view! { <h2>{title}</h2> })}
            {children()}
        </section>
    }
}

/// What stands where there is nothing yet.
#[component]
pub fn Empty(#[prop(into)] title: String, #[prop(into)] hint: String) -> impl IntoView {
    view! { <div class="empty"><h2>{title}</h2><p class="dim">{hint}</p></div> }
}

#[component]
pub fn Loading() -> impl IntoView {
    view! { <div class="empty dim" aria-busy="true">"Loading…"</div> }
}

/// An error in the API's own words.
#[component]
pub fn Problem(message: Signal<Option<String>>) -> impl IntoView {
    move || message.get().map(|text| view! { <div class="problem" role="alert">{text}</div> })
}

/// A labelled input of a form, with a hint below.
#[component]
pub fn Field(
    #[prop(into)] label: String,
    #[prop(into)] id: String,
    value: RwSignal<String>,
    #[prop(into, optional)] hint: String,
    #[prop(into, optional)] kind: String,
) -> impl IntoView {
    let kind = if kind.is_empty() { "text".to_owned() } else { kind };
    view! {
        <label class="field" for=id.clone()>
            <span>{label}</span>
            <input id=id.clone() type=kind autocomplete="off" prop:value=move || value.get() on:input=move |event| value.set(event_target_value(&event))/>
            {(!hint.is_empty()).then(|| view! { <small class="dim">{hint}</small> })}
        </label>
    }
}
