//! Signing in: by the one-time link that `slipway up` prints, or by a token.

use crate::components::{Field, Loading, Mark, Problem};
use crate::session::session;
use leptos::prelude::*;
use leptos::task::spawn_local;

#[component]
pub fn SignIn() -> impl IntoView {
    let session = session();
    let (token, busy) = (RwSignal::new(String::new()), RwSignal::new(false));
    let problem = RwSignal::new(None::<String>);
    document().set_title("Sign in · Slipway");
    let sign_in = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        let entered = token.get_untracked().trim().to_owned();
        if entered.is_empty() {
            return problem.set(Some("Paste a token first.".into()));
        }
        problem.set(None);
        busy.set(true);
        spawn_local(async move {
            // Once it has succeeded, this page is gone.
            if let Err(failure) = session.sign_in(&entered).await {
                busy.set(false);
                problem.set(Some(match failure.code {
                    401 => "This token was not accepted. It may be mistyped, or too old.".into(),
                    _ => failure.message,
                }));
            }
        });
    };
    let shown = Signal::derive(move || problem.get().or_else(|| session.notice()));
    view! {
        <div class="sign-in">
            <form class="card" on:submit=sign_in>
                <h1><Mark/>"Slipway"</h1>
                <p class="dim">"Open the one-time link that Slipway printed when it started, or sign in with a token."</p>
                <Problem message=shown/>
                <Field label="Token" id="token" value=token kind="password" hint="As of: kubectl create token NAME"/>
                <button class="button primary" type="submit" id="sign-in" disabled=move || busy.get()>"Sign in"</button>
            </form>
        </div>
    }
}

/// While a one-time link is being redeemed.
#[component]
pub fn Opening() -> impl IntoView {
    view! { <div class="sign-in"><Loading/></div> }
}
