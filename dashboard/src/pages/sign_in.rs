//! Signing in: by the one-time link that `slipway up` prints, or by a token.

use crate::api;
use crate::components::{Field, Problem};
use crate::session::session;
use leptos::prelude::*;
use serde_json::json;

#[component]
pub fn SignIn() -> impl IntoView {
    let session = session();
    let token = RwSignal::new(String::new());
    let problem = RwSignal::new(None::<String>);

    // The code is in the fragment, which never reaches a server's log; it is taken out of the address at once.
    if let Some(code) = code_of_link() {
        leptos::task::spawn_local(async move {
            match api::request(session, "POST", "/dashboard/session", Some(&json!({"code": code}))).await {
                Ok(answer) => session.sign_in(answer["token"].as_str().unwrap_or_default().to_owned()),
                Err(failure) => problem.set(Some(format!("This link can't be used (any more): {}", failure.message))),
            }
        });
    }
    let sign_in = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        let entered = token.get_untracked().trim().to_owned();
        leptos::task::spawn_local(async move {
            session.sign_in(entered);
            // Whoever may sign in may look at discovery.
            if let Err(failure) = api::request(session, "GET", "/api", None).await {
                session.sign_out();
                problem.set(Some(format!("The token was not accepted: {}", failure.message)));
            }
        });
    };
    view! {
        <div class="sign-in">
            <form class="card" on:submit=sign_in>
                <h1><span class="mark" aria-hidden="true"></span>"Slipway"</h1>
                <p class="dim">"Open the one-time link that slipway printed when it started, or paste a token."</p>
                <Field label="Token" id="token" value=token kind="password"/>
                <Problem message=problem.into()/>
                <button class="button primary" type="submit" id="sign-in">"Sign in"</button>
            </form>
        </div>
    }
}

fn code_of_link() -> Option<String> {
    let window = web_sys::window()?;
    let hash = window.location().hash().ok()?;
    let code = hash.strip_prefix("#code=")?.to_owned();
    window.history().ok()?.replace_state_with_url(&wasm_bindgen::JsValue::NULL, "", Some("/")).ok()?;
    Some(code)
}
