//! The pieces that every page is made of. How they look stands in `assets/style.css`, by tokens.

use crate::api::Failure;
use crate::live::Live;
use gloo_timers::future::TimeoutFuture;
use leptos::children::ViewFn;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use slipway_dashboard_model::{self as model, Address, Health};

/// How often what says "ago" is brought up to date.
const TICK_MS: u32 = 5_000;

/// The sign of the house: a hull on its slip.
#[component]
pub fn Mark() -> impl IntoView {
    view! {
        <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
            <rect width="32" height="32" rx="8"></rect>
            <path d="M6 13h20l-3.2 7.4a2 2 0 0 1-1.8 1.2H11a2 2 0 0 1-1.8-1.2z M14.5 6.5h3v4.5h-3z"></path>
            <path class="ways" d="M5 25.6l22-3.4"></path>
        </svg>
    }
}

/// A state, as one coloured word.
#[component]
pub fn Badge(health: Health) -> impl IntoView {
    view! { <span class=format!("badge {}", health.tone.as_str()) title=health.why.unwrap_or_default()>{health.word}</span> }
}

/// A page's head: its title, a line below, and what can be done. It names the browser's tab too.
#[component]
pub fn Head(
    #[prop(into)] title: String,
    #[prop(into, optional)] below: ViewFn,
    #[prop(optional)] children: Option<Children>,
) -> impl IntoView {
    document().set_title(&format!("{title} · Slipway"));
    view! {
        <div class="head">
            <div class="title"><h1>{title}</h1><div class="dim">{below.run()}</div></div>
            <div class="actions">{children.map(|children| children())}</div>
        </div>
    }
}

#[component]
pub fn Card(#[prop(into, optional)] title: String, #[prop(into, optional)] aside: ViewFn, children: Children) -> impl IntoView {
    view! {
        <section class="card">
            {(!title.is_empty()).then(|| view! { <div class="card-head"><h2>{title}</h2>{aside.run()}</div> })}
            {children()}
        </section>
    }
}

/// What stands where there is nothing yet.
#[component]
pub fn Empty(
    #[prop(into)] title: String,
    #[prop(into)] hint: String,
    #[prop(optional)] children: Option<Children>,
) -> impl IntoView {
    view! {
        <div class="empty">
            <h2>{title}</h2>
            <p class="dim">{hint}</p>
            {children.map(|children| children())}
        </div>
    }
}

#[component]
pub fn Loading() -> impl IntoView {
    view! { <div class="loading" role="status"><span class="sr">"Loading"</span><i></i><i></i><i></i></div> }
}

/// An error in the API's own words.
#[component]
pub fn Problem(message: Signal<Option<String>>) -> impl IntoView {
    move || message.get().map(|text| view! { <div class="problem" role="alert">{text}</div> })
}

#[derive(Clone, PartialEq)]
enum Stage {
    Loading,
    Failed(Failure),
    Blank,
    Shown,
}

/// A collection on its way: loading, refused, nothing there, or there. `children` are kept while objects come and go.
#[component]
pub fn Loaded(live: Live, #[prop(into)] blank: ViewFn, children: ChildrenFn) -> impl IntoView {
    let stage =
        Memo::new(move |_| match (live.failure.get(), live.objects.with(|objects| objects.as_ref().map(|all| all.is_empty()))) {
            (Some(failure), _) => Stage::Failed(failure),
            (None, None) => Stage::Loading,
            (None, Some(true)) => Stage::Blank,
            (None, Some(false)) => Stage::Shown,
        });
    move || match stage.get() {
        Stage::Loading => view! { <Loading/> }.into_any(),
        Stage::Failed(failure) => view! { <Refused failure=failure/> }.into_any(),
        Stage::Blank => blank.run(),
        Stage::Shown => children(),
    }
}

#[component]
fn Refused(failure: Failure) -> impl IntoView {
    let title = if failure.code == 403 { "You may not see this" } else { "This can't be shown" };
    view! { <div class="empty" role="alert"><h2>{title}</h2><p class="dim">{failure.message}</p></div> }
}

/// A labelled input of a form, with a hint below, or with what is wrong instead.
#[component]
pub fn Field(
    #[prop(into)] label: String,
    id: &'static str,
    value: RwSignal<String>,
    #[prop(into, optional)] hint: String,
    #[prop(default = "text")] kind: &'static str,
    #[prop(into, optional)] suggestions: Option<&'static str>,
    #[prop(into, optional)] mistake: Signal<Option<String>>,
) -> impl IntoView {
    let hint_id = format!("{id}-hint");
    view! {
        <div class="field">
            <label for=id>{label}</label>
            <input
                id=id
                type=kind
                list=suggestions
                autocomplete="off"
                autocapitalize="off"
                spellcheck="false"
                aria-describedby=hint_id.clone()
                aria-invalid=move || mistake.get().map(|_| "true")
                prop:value=move || value.get()
                on:input=move |event| value.set(event_target_value(&event))
            />
            <small id=hint_id class=move || if mistake.get().is_some() { "mistake" } else { "dim" }>
                {move || mistake.get().unwrap_or_else(|| hint.clone())}
            </small>
        </div>
    }
}

/// Asks before something that can't be undone.
#[component]
pub fn Confirm(
    open: RwSignal<bool>,
    #[prop(into)] title: String,
    #[prop(into)] text: String,
    #[prop(into)] action: String,
    on_confirm: Callback<()>,
) -> impl IntoView {
    let dialog = NodeRef::<html::Dialog>::new();
    Effect::new(move |_| {
        let (Some(dialog), open) = (dialog.get(), open.get()) else { return };
        if open && !dialog.open() {
            let _ = dialog.show_modal();
        } else if !open {
            dialog.close();
        }
    });
    let confirm = move |_| {
        open.set(false);
        on_confirm.run(());
    };
    view! {
        <dialog class="dialog" node_ref=dialog on:close=move |_| open.set(false)>
            <h2>{title}</h2>
            <p>{text}</p>
            <div class="actions">
                <button class="button" type="button" on:click=move |_| open.set(false)>"Cancel"</button>
                <button class="button danger solid" type="button" id="confirm" on:click=confirm>{action}</button>
            </div>
        </dialog>
    }
}

/// The time by which ages are told; it ticks.
#[derive(Clone, Copy)]
pub struct Clock(RwSignal<f64>);

impl Clock {
    pub fn provide() {
        let clock = Clock(RwSignal::new(js_sys::Date::now()));
        provide_context(clock);
        spawn_local(async move {
            loop {
                TimeoutFuture::new(TICK_MS).await;
                clock.0.set(js_sys::Date::now());
            }
        });
    }
}

/// How long ago something was.
#[component]
pub fn Age(time: String) -> impl IntoView {
    let clock = expect_context::<Clock>();
    let then = js_sys::Date::parse(&time);
    // The clock may be behind what has just happened.
    let text = move || model::age(((clock.0.get().max(js_sys::Date::now()) - then) / 1000.0) as i64);
    view! { <time class="number" datetime=time.clone() title=time>{text}</time> }
}

/// Where something answers, as a link where a browser can open it.
#[component]
pub fn Link(address: Address) -> impl IntoView {
    match address.url {
        Some(url) => view! { <a class="mono address" href=url target="_blank" rel="noreferrer">{address.label}</a> }.into_any(),
        None => view! { <span class="dim address">{address.label}</span> }.into_any(),
    }
}

/// A part of a whole, as words with a bar below.
#[component]
pub fn Meter(part: i64, whole: i64, #[prop(into)] label: String) -> impl IntoView {
    let percent = (part * 100).checked_div(whole).unwrap_or_default().clamp(0, 100);
    view! {
        <div class="meter">
            <span class="number">{label}</span>
            <div class="track"><div class="fill" style:width=move || format!("{percent}%")></div></div>
        </div>
    }
}
